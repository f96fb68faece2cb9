#!/usr/bin/env bash
# Makes what is handed out: static binaries.
#
#   deploy/release.sh binaries [--target TRIPLE]
#
#   binaries         both programs, linked statically and stripped, in target/dist/TRIPLE/
#   --target TRIPLE  x86_64-unknown-linux-gnu [default] or aarch64-unknown-linux-gnu
#
# The programs hold no path of this machine and no time of the build: the same source and the same compiler give the same bytes. The
# time stamp of everything made here is that of the last commit, or SOURCE_DATE_EPOCH if it is set.
#
# Needs Linux on x86-64, Rust, and the static library of glibc (Debian: libc6-dev). For 64-bit Arm the packages that
# tests/scripts/aarch64.sh installs.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
programs=(woolly-coordinator woolly-worker)
targets=(x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu)

fail() { echo "release.sh: $*" >&2; exit 1; }
say() { printf '== %s\n' "$*" >&2; }
usage() { sed -n '2,/^$/ s/^# \{0,1\}//p' "$0" | sed '/^set /,$d'; }

known_target() {
  local known
  for known in "${targets[@]}"; do [ "$1" != "$known" ] || return 0; done
  fail "no release is made for $1, only for ${targets[*]}"
}

# The time of the last commit, in seconds since 1970; what stands in archives instead of the time of the build.
source_date() {
  if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
    echo "$SOURCE_DATE_EPOCH"
  else
    git log -1 --format=%ct 2>/dev/null || fail "this is no git repository: set SOURCE_DATE_EPOCH"
  fi
}

# Flags for rustc, parted as CARGO_ENCODED_RUSTFLAGS wants them, which no space in a path can hurt and which outdoes RUSTFLAGS and configuration files.
rustc_flags() {
  local target=$1 flags=(
    -C target-feature=+crt-static
    # Relative to here, where cargo runs what it links: the same flags in every folder.
    -C link-arg=-Wl,--wrap=__libc_dlopen_mode -C link-arg=deploy/static/no_dlopen.c
    "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/cargo"
    "--remap-path-prefix=$top=/woolly"
  )
  [ "$target" != aarch64-unknown-linux-gnu ] || flags+=(-C linker=aarch64-linux-gnu-gcc)
  local IFS=$'\x1f'
  echo "${flags[*]}"
}

# What cargo reads from the environment and the programs would show.
unset_settings() {
  local name
  for name in $(compgen -e | grep '^CARGO_PROFILE_\|^CARGO_TARGET_.*_\(LINKER\|RUSTFLAGS\)$\|^CARGO_BUILD_\|^\(TARGET_\|HOST_\)\?C\(XX\)\?FLAGS' || true); do
    unset "$name"
  done
  unset RUSTFLAGS CARGO_INCREMENTAL
}

build() {
  local target=$1 rustc=${RUSTC:-rustc}
  if [ "$target" = aarch64-unknown-linux-gnu ]; then
    # The standard library for arm64 comes with Debian's own compiler.
    rustc=/usr/bin/rustc
    command -v aarch64-linux-gnu-gcc >/dev/null && "$rustc" --print target-libdir --target "$target" >/dev/null 2>&1 ||
      fail "the compiler for 64-bit Arm is missing; tests/scripts/aarch64.sh installs it"
  fi
  say "building for $target with $("$rustc" --version)"
  (
    unset_settings
    RUSTC=$rustc CARGO_ENCODED_RUSTFLAGS=$(rustc_flags "$target") CARGO_TARGET_DIR=$work \
      CFLAGS="-ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}/registry/src=/cargo -ffile-prefix-map=$work=/build" \
      cargo build --locked --profile dist --target "$target" -p woolly-coordinator -p woolly-worker
  )
}

# A program that is not what is promised is not handed out.
check_program() {
  local file=$1 path
  # Static: the kernel starts it by itself, and it asks for no library.
  ! readelf --program-headers "$file" | grep -q INTERP || fail "$file asks for a dynamic linker"
  ! readelf --dynamic "$file" | grep -q NEEDED || fail "$file asks for shared libraries"
  for path in "$top" "${CARGO_HOME:-$HOME/.cargo}" "$HOME/"; do
    ! grep -aqF -- "$path" "$file" || fail "$file holds the path $path of this machine"
  done
}

binaries() {
  local target=$1 program to=$dist/$1
  build "$target"
  mkdir -p "$to"
  for program in "${programs[@]}"; do
    check_program "$work/$target/dist/$program"
    # Nobody sees half a program, nor one that runs being overwritten.
    install -m 755 "$work/$target/dist/$program" "$to/.$program.new"
    touch --date="@$(source_date)" "$to/.$program.new"
    mv -f "$to/.$program.new" "$to/$program"
    say "$(stat --format='%n: %s bytes' "$to/$program")"
  done
}

command=${1:-}
[ $# = 0 ] || shift
target=
while [ $# -gt 0 ]; do
  case $1 in
    --target) [ $# -ge 2 ] || fail "--target needs a value; see --help"; target=$2; shift ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift
done
[ -z "$target" ] || known_target "$target"

[ "$(uname -sm)" = "Linux x86_64" ] || fail "releases are made on Linux on x86-64, this is $(uname -sm)"
command -v cargo >/dev/null || fail "cargo is missing; install Rust from https://rustup.rs"
command -v readelf >/dev/null || fail "readelf is missing (Debian: apt-get install binutils)"
dist=${CARGO_TARGET_DIR:-$top/target}/dist
# Away from other builds: other flags, other compilers.
work=$dist/build
SOURCE_DATE_EPOCH=$(source_date)
export SOURCE_DATE_EPOCH

case $command in
  binaries) binaries "${target:-${targets[0]}}" ;;
  '' | -h | --help) usage ;;
  *) fail "unknown command $command; see --help" ;;
esac
