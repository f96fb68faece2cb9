#!/usr/bin/env bash
# A cluster on this machine: one coordinator, two workers that join with a token, and a question.
#
#   deploy/demo.sh [--once] [--kill] [--model PATH] [--question TEXT] [--http ADDR]
#
#   --once           end after the answer; exit status 0 only if all went well
#   --kill           start a third worker as a spare, ask twice, and kill a worker in the middle of the second
#                    answer: it goes on with the same words after a pause, which is printed
#   --model PATH     a GGUF file [default: SmolLM2-135M-Instruct, fetched once into models/]
#   --question TEXT  what to ask [default: "Name three uses for a brick."]
#   --http ADDR      where the API listens [default: 127.0.0.1:8080, or a free port if that is taken]
#
# Needs Rust, Python 3 with pip, and unzip. Ctrl-C ends it and all it started.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
once=no kill=no model='' question='Name three uses for a brick.' http=''

fail() { echo "demo.sh: $*" >&2; exit 1; }
say() { printf '\n== %s\n' "$*"; }

while [ $# -gt 0 ]; do
  case $1 in
    --once) once=yes ;;
    --kill) kill=yes ;;
    --model | --question | --http)
      [ $# -ge 2 ] || fail "$1 needs a value; see --help"
      case $1 in --model) model=$2 ;; --question) question=$2 ;; --http) http=$2 ;; esac
      shift ;;
    -h | --help) sed -n '2,/^$/ s/^# \{0,1\}//p' "$0" | sed '/^set /,$d'; exit 0 ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift
done

command -v cargo >/dev/null || fail "cargo is missing; install Rust 1.95 or newer from https://rustup.rs"
command -v python3 >/dev/null || fail "python3 is missing; install it (Debian: apt-get install python3 python3-pip)"

[ -z "$model" ] || [ -r "$model" ] || fail "cannot read the model $model"

# Settings of the caller's own clusters must not reach this one.
for name in $(compgen -e | grep '^WOOLLY_' | grep -vx 'WOOLLY_FIXTURES\|WOOLLY_LOG' || true); do unset "$name"; done

say "Building"
(cd "$top" && cargo build --release -p woolly-coordinator -p woolly-worker)
target=$(cd "$top" && cargo metadata --format-version 1 --no-deps |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
bin=$target/release

if [ -z "$model" ]; then
  say "Getting the model"
  model=$("$top/tests/scripts/fetch_model.sh")
fi
echo "$model"

http=${http:-$(python3 "$top/deploy/demo.py" address)}

state=$(mktemp -d "${TMPDIR:-/tmp}/woolly-demo.XXXXXX")
pids=()

# Ends what was started: politely first, then not. Runs once, whatever ends the script.
cleanup() {
  local status=$?
  trap '' INT TERM
  trap - EXIT
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill -TERM "$pid" 2>/dev/null || true; done
  for _ in $(seq 100); do
    running || break
    sleep 0.1
  done
  for pid in ${pids[@]+"${pids[@]}"}; do kill -KILL "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  if [ "$status" -ne 0 ] && [ "$status" -ne 130 ]; then show_logs; fi
  rm -rf "$state"
  exit "$status"
}

running() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do kill -0 "$pid" 2>/dev/null && return 0; done
  return 1
}

show_logs() {
  local log
  for log in "$state"/*.log; do
    [ -s "$log" ] || continue
    printf '\n-- end of %s\n' "$(basename "$log")" >&2
    tail -n 20 "$log" >&2
  done
}

trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "Starting the coordinator on http://$http"
"$bin/woolly-coordinator" serve --model "$model" --http "$http" --listen 127.0.0.1:0 --workers 2 \
  --state-dir "$state/coordinator" --shutdown-timeout 2s >"$state/join.txt" 2>"$state/coordinator.log" &
coordinator=$!
pids+=("$coordinator")

join=''
for _ in $(seq 600); do
  join=$(grep -m 1 '^woolly-worker join ' "$state/join.txt" || true)
  [ -n "$join" ] && break
  kill -0 "$coordinator" 2>/dev/null || fail "the coordinator ended"
  sleep 0.1
done
[ -n "$join" ] || fail "the coordinator printed no line to join with"
echo "${join%--token *}--token …"

# The line is what a person would paste; two workers share this machine's cores.
read -r -a words <<<"$join"
threads=$(($(nproc) / 2))
[ "$threads" -ge 1 ] || threads=1
workers=(worker-1 worker-2)
[ "$kill" = no ] || workers+=(worker-3)
for worker in "${workers[@]}"; do
  "$bin/woolly-worker" "${words[@]:1}" --name "$worker" --threads "$threads" \
    --state-dir "$state/$worker" 2>"$state/$worker.log" >/dev/null &
  pids+=("$!")
  echo "started $worker"
  # One after the other, so that the last one is the spare.
  [ "$kill" = no ] || python3 "$top/deploy/demo.py" joined "$http" "$((${#pids[@]} - 1))" || fail "$worker does not join"
done

say "Loading"
python3 "$top/deploy/demo.py" wait "$http" "${pids[@]}" || fail "the cluster did not become ready"

say "Topology"
python3 "$top/deploy/demo.py" topology "$http"

say "$question"
python3 "$top/deploy/demo.py" ask "$http" "$question" || fail "the answer failed"

if [ "$kill" = yes ]; then
  say "The same question; worker-2 is killed in the middle of the answer"
  python3 "$top/deploy/demo.py" kill "$http" "$question" "${pids[2]}" || fail "the answer did not go on"
  say "Topology"
  python3 "$top/deploy/demo.py" topology "$http"
  wait "${pids[2]}" 2>/dev/null || true
  unset 'pids[2]'
fi

if [ "$once" = yes ]; then exit 0; fi

say "Serving on http://$http/v1 until Ctrl-C"
trap 'exit 0' INT
# A signal interrupts this wait and runs its trap.
wait -n "${pids[@]}" || true
fail "a process of the cluster ended"
