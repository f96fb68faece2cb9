#!/usr/bin/env bash
# Fails if `cargo build --release` after deploy/demo.sh, or the other way round, would compile a crate a second time: when crates of the
# workspace ask for different features of a dependency, what it is compiled with depends on which of them are built together.
# Run it after the demo: then it takes a second or two.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

demo=$(grep -o 'cargo build --release[^)]*' deploy/demo.sh)
[ -n "$demo" ] || { echo "built_once.sh: deploy/demo.sh builds nothing" >&2; exit 1; }
to=$(mktemp -d)
trap 'rm -rf "$to"' EXIT
$demo --message-format json >"$to/demo" 2>/dev/null
cargo build --release --message-format json >"$to/all" 2>/dev/null

# Names of files hold a hash of all that a crate was compiled with; those of libraries that were asked for lie beside the programs and have
# none. Files of another day would hide it from `fresh`.
python3 - "$to/demo" "$to/all" <<'PY'
import json, re, sys

def made(path):
    found = {}
    for message in map(json.loads, open(path)):
        if message["reason"] == "compiler-artifact":
            target = message["target"]
            key = (message["package_id"], target["name"], *target["kind"])
            hashes = re.findall(r"-([0-9a-f]{16})[./]", " ".join(message["filenames"]) + "/")
            found.setdefault(key, set()).update(hashes)
    return found

demo, everything = made(sys.argv[1]), made(sys.argv[2])
if sum(map(bool, demo.values())) < 100:
    sys.exit(f"built_once.sh: the demo's build tells of {len(demo)} crates only: is this what it says?")
twice = sorted({key[0] for key, hashes in demo.items() if not hashes <= everything.get(key, set())})
for package in twice:
    print(f"built_once.sh: compiled twice: {package}", file=sys.stderr)
if twice:
    sys.exit("built_once.sh: write the features that one of them lacks into [workspace.dependencies]")
print(f"none of {len(demo)} crates is compiled twice")
PY
