#!/usr/bin/env bash
# Hold Woolly against llama.cpp on one model file: tokens, log-probabilities, greedy answers, the chat template. Ten minutes.
#
#   tests/scripts/compare_with_llama.sh MODEL.gguf [--ctx N] [--tokens N] [--bound X] [--random] [--venv DIR] [--programs DIR]
#
#   --ctx N         positions of a sequence, 64 to 4096 (512): llama.cpp's binding keeps the logits of all of them
#   --tokens N      positions whose log-probabilities are compared, at least (300)
#   --bound X       mean distance of log-probabilities that is accepted (0.15)
#   --random        a model with random weights (tests/fixtures/models): rounding moves its logits more, and sends a row to
#                   another one of two experts that are nearly alike. The bound is 0.3, one clear first token in fifty may
#                   differ, and greedy answers may part anywhere
#   --venv DIR      a Python environment with llama-cpp-python 0.3.36, made there if it is not (target/llama-venv). Building it
#                   needs a C++ compiler and 10 to 20 minutes, once
#   --programs DIR  the folder with woolly-coordinator and woolly-worker (the release build, made if it is not there)
#
# Prints a table and a verdict. Exit status: 0 they agree, 1 they do not, 2 wrong flags, too little memory, or a model that Woolly
# does not serve.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

fail() { echo "compare_with_llama.sh: $*" >&2; exit 2; }
usage() { sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; }

target=${CARGO_TARGET_DIR:-$top/target}
venv=$target/llama-venv
programs=
words=()
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage; exit 0 ;;
  --venv) [ $# -ge 2 ] || fail "--venv needs a folder"; venv=$2; shift 2 ;;
  --programs) [ $# -ge 2 ] || fail "--programs needs a folder"; programs=$2; shift 2 ;;
  *) words+=("$1"); shift ;;
  esac
done
[ ${#words[@]} -gt 0 ] || { usage >&2; exit 2; }

if ! "$venv/bin/python" -c 'import llama_cpp, jinja2, numpy' 2>/dev/null; then
  command -v python3 >/dev/null || fail "python3 is missing; install it (Debian: apt-get install python3 python3-venv)"
  { command -v c++ || command -v g++ || command -v clang++; } >/dev/null ||
    fail "llama.cpp is built from source, and there is no C++ compiler (Debian: apt-get install build-essential)"
  echo "making $venv with llama-cpp-python 0.3.36; this takes 10 to 20 minutes ..." >&2
  python3 -m venv "$venv" || fail "cannot make $venv (Debian: apt-get install python3-venv)"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'llama-cpp-python==0.3.36' jinja2 numpy >&2 ||
    fail "pip could not install llama-cpp-python 0.3.36; --venv DIR takes an environment that has it"
fi

if [ -z "$programs" ]; then
  programs=$target/release
  if ! { [ -x "$programs/woolly-coordinator" ] && [ -x "$programs/woolly-worker" ]; }; then
    echo "building Woolly ..." >&2
    (cd "$top" && cargo build --quiet --release --workspace) || fail "Woolly does not build"
  fi
fi
exec "$venv/bin/python" "$top/tests/scripts/compare_with_llama.py" --programs "$programs" "${words[@]}"
