#!/usr/bin/env bash
# The alerts of deploy/prometheus/rules.yml and the configuration of deploy/prometheus.yml, checked by promtool, and figures played to each alert: it
# fires when it should and is silent when not. Then every number in the conditions is changed, and the played figures must notice.
# Needs promtool (Debian: prometheus), installed where it is missing and may be; WOOLLY_WITHOUT_PROMTOOL=1 leaves this out.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top"

if [ "${WOOLLY_WITHOUT_PROMTOOL:-}" = 1 ]; then echo "left out, as WOOLLY_WITHOUT_PROMTOOL asks"; exit 0; fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! command -v promtool >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # Without its service: a machine that tests is not to be watched.
    apt-get -qq update && apt-get -qq download prometheus >"$work/apt.log" 2>&1 && dpkg-deb -x prometheus_*.deb "$work/prometheus" && rm prometheus_*.deb ||
      { tail -n 5 "$work/apt.log" >&2; exit 1; }
    export PATH=$work/prometheus/usr/bin:$PATH
  else
    echo "watching_acceptance.sh: promtool is missing (Debian: apt-get install prometheus); WOOLLY_WITHOUT_PROMTOOL=1 leaves this check out" >&2
    exit 1
  fi
fi

rules=deploy/prometheus/rules.yml
played=tests/fixtures/watching/rules_test.yml
promtool check rules "$rules"

# The configuration names the rules where they are mounted.
sed "s|/etc/prometheus/rules.yml|$top/$rules|" deploy/prometheus.yml >"$work/prometheus.yml"
promtool check config "$work/prometheus.yml"

for alert in $(sed -n 's/^ *- alert: //p' "$rules"); do
  [ "$(grep -c "alertname: $alert$" "$played")" -ge 2 ] || { echo "watching_acceptance.sh: $alert is not played both ways in $played" >&2; exit 1; }
done
promtool test rules "$played"

python3 - "$rules" "$played" "$work" <<'PYTHON'
import pathlib, re, subprocess, sys
rules, played, work = (pathlib.Path(arg) for arg in sys.argv[1:])
lines = rules.read_text().splitlines(keepends=True)
tests = re.sub(r"^  - .*rules.yml$", "  - rules.yml", played.read_text(), flags=re.M)
(work / "rules_test.yml").write_text(tests)
noticed = 0
for at, line in enumerate(lines):
    # What is compared with, and how long it has to hold.
    condition = re.search(r"( [<>]=? | == )([0-9.]+)", line)
    duration = re.match(r"( +for: )(\d+)", line)
    if condition and not line.lstrip().startswith(("#", "description", "summary")):
        value = float(condition[2])
        changes = [value * 100 + 7, -1.0]
        changed = [line[:condition.start(2)] + str(it) + line[condition.end(2):] for it in changes]
    elif duration:
        changed = [f"{duration[1]}{int(duration[2]) * 30}{line[duration.end():]}"]
    else:
        continue
    for new in changed:
        if new == line:
            continue
        (work / "rules.yml").write_text("".join(lines[:at] + [new] + lines[at + 1:]))
        said = subprocess.run(["promtool", "test", "rules", str(work / "rules_test.yml")], capture_output=True)
        if said.returncode == 0:
            sys.exit(f"watching_acceptance.sh: nothing that is played notices line {at + 1} as\n  {new}")
        noticed += 1
if noticed < 25:
    sys.exit(f"watching_acceptance.sh: only {noticed} changes were made")
print(f"{noticed} changed conditions were noticed")
PYTHON
