#!/usr/bin/env bash
# The page at `/` in a real browser (Debian's chromium, driven by playwright-core): a chat streams, a worker is killed and the page shows the
# failover while the answer goes on. Pictures are left in target/browser. Needs Node.js with npm; installs chromium where it is missing
# and may be installed, and playwright-core into target/browser. WOOLLY_WITHOUT_BROWSER=1 leaves it out.
#
#   tests/scripts/page_acceptance.sh [--keep-pictures]     copies the pictures of the documentation to docs/pictures, too
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top"

if [ "${WOOLLY_WITHOUT_BROWSER:-}" = 1 ]; then echo "left out, as WOOLLY_WITHOUT_BROWSER asks"; exit 0; fi

source tests/scripts/serving.sh
build_programs debug

if ! command -v npm >/dev/null; then
  echo "page_acceptance.sh: npm is missing (Debian: apt-get install nodejs npm); WOOLLY_WITHOUT_BROWSER=1 leaves this check out" >&2
  exit 1
fi
browser=$target/browser
mkdir -p "$browser"
if ! command -v chromium >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core >"$browser/apt.log" 2>&1 ||
      { tail -n 5 "$browser/apt.log" >&2; exit 1; }
  else
    echo "page_acceptance.sh: chromium is missing (Debian: apt-get install chromium); WOOLLY_WITHOUT_BROWSER=1 leaves this check out" >&2
    exit 1
  fi
fi
if ! cmp --silent tests/browser/package.json "$browser/package.json"; then
  cp tests/browser/package.json "$browser/package.json"
  (cd "$browser" && npm install --silent --no-audit --no-fund) || { rm "$browser/package.json"; exit 1; }
fi

model=$(tests/scripts/fetch_model.sh)
start_coordinator page "$model" --workers 2 --local-workers 0

join='' address=''
while [ -z "$join" ] || [ -z "$address" ]; do
  kill -0 "${processes[0]}" || exit 1
  sleep 0.1
  join=$(grep -m 1 '^woolly-worker join' "$state/stdout" || true)
  address=$(grep -o -m 1 'http://[^ ]*/#key=[0-9a-f]*' "$state/stderr" || true)
done
for worker in 1 2 3; do
  # shellcheck disable=SC2086
  "$programs/"$join --listen 127.0.0.1:0 --threads 1 --name "worker-$worker" --state-dir "$state/worker-$worker" \
    >"$state/worker-$worker.log" 2>&1 &
  processes+=($!)
  # The third is a spare.
  [ "$worker" -ne 2 ] || python3 deploy/demo.py wait "$http" "${processes[@]}"
done
python3 - "$http" <<'PYTHON'
import json, sys, time, urllib.request
for _ in range(100):
    with urllib.request.urlopen(f"http://{sys.argv[1]}/metrics") as answer:
        if b'worker="worker-3"' in answer.read():
            break
    time.sleep(0.1)
PYTHON

mkdir -p "$browser/pictures"
cp tests/browser/page.mjs "$browser/page.mjs"
STYLE="$top/coordinator/page/style.css" CHROMIUM=$(command -v chromium) \
  node "$browser/page.mjs" "$address" "$(IFS=,; echo "${processes[*]:1}")" "$browser/pictures"
if [ "${1:-}" = --keep-pictures ]; then
  mkdir -p docs/pictures
  cp "$browser/pictures/"{chat,cluster,chat-dark-390,cluster-dark-390}.png docs/pictures/
fi
echo "page_acceptance.sh: all passed; pictures are in $browser/pictures"
