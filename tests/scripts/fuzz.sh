#!/usr/bin/env bash
# Fuzzes what reads strangers' bytes: tests/scripts/fuzz.sh SECONDS [TARGET…], each target for so many seconds. Inputs that reach new
# code are kept in target/fuzz/corpus; a crash ends with its input in target/fuzz/crashes. Needs nothing but the pinned toolchain and a C++
# compiler: branch counters are a code generator's option, libFuzzer comes with its crate.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=${1:?usage: fuzz.sh SECONDS [TARGET…]}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(gguf frames request template tokenizer settings gbnf schema)

export CARGO_TARGET_DIR=$PWD/target/fuzz
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1"
# With --target, the flags are for the targets alone and not for build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --manifest-path tests/fuzz/Cargo.toml --target "$host" $(printf -- ' --bin %s' "${targets[@]}")

failed=0
for target in "${targets[@]}"; do
  kept=target/fuzz/corpus/$target
  mkdir -p "$kept" target/fuzz/crashes
  printf '\n=== %s: %d s\n' "$target" "$seconds"
  "target/fuzz/$host/release/$target" "$kept" "tests/fuzz/corpus/$target" -max_total_time="$seconds" -rss_limit_mb=1024 \
    -timeout=10 -artifact_prefix="target/fuzz/crashes/$target-" -print_final_stats=1 2>&1 | tail -25 || failed=1
done
exit "$failed"
