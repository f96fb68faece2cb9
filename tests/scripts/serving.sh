# shellcheck shell=bash
# What the checks with real clients have in common. They source it at the top of the tree, with `set -euo pipefail`.
#
#   build_programs debug|release        builds all; sets target (the build folder) and programs (where they lie)
#   start_coordinator NAME [FLAG…]      sets http (HOST:PORT), state (a folder of its own) and processes (its id, and whoever joins them), and
#                                       returns at once. At the exit all of them end; if the check failed the end of the server's log is shown

# Settings of the caller's own clusters must not reach this one.
for name in $(compgen -e | grep '^WOOLLY_' | grep -vx 'WOOLLY_FIXTURES\|WOOLLY_LOG' || true); do unset "$name"; done

build_programs() {
  local flags=(--quiet --workspace)
  [ "$1" = debug ] || flags+=("--$1")
  cargo build "${flags[@]}"
  target=$(cargo metadata --format-version 1 --no-deps |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
  programs=$target/$1
}

start_coordinator() {
  http=$(python3 deploy/demo.py address)
  state=$(mktemp -d "${TMPDIR:-/tmp}/woolly-$1.XXXXXX")
  "$programs/woolly-coordinator" serve --http "$http" --listen 127.0.0.1:0 --state-dir "$state/coordinator" --shutdown-timeout 2s "${@:2}" \
    >"$state/stdout" 2>"$state/stderr" &
  processes=($!)
  trap end_processes EXIT
  trap 'exit 130' INT TERM
}

end_processes() {
  local status=$?
  kill -TERM "${processes[@]}" 2>/dev/null || true
  wait "${processes[@]}" 2>/dev/null || true
  [ "$status" -eq 0 ] || tail -n 40 "$state/stderr" >&2
  rm -rf "$state"
  exit "$status"
}
