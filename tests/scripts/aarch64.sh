#!/usr/bin/env bash
# Compile the engine for 64-bit Arm on an x86-64 machine and run its kernel tests in an emulator.
#
#   tests/scripts/aarch64.sh
#
# Needs Debian's packages below. They are installed with apt-get if the caller is root, which also enables the architecture arm64
# in dpkg; nothing is ever removed for them. On a machine without apt-get, or without root's rights, the script says so in a line that
# begins with "skipped:" and succeeds; with both it fails where the packages cannot be had, as it does where something does not
# compile or pass. The compiler is Debian's, the cargo is the one in PATH.
# Output goes to the folder aarch64 of the target directory. About 300 MB of packages; 2 to 4 minutes, after that some seconds
# when nothing has changed.
set -euo pipefail

# rustc-web is the compiler that Debian updates for browsers: the standard library for arm64 comes with it. The programs are linked
# with arm64's own libc (a dependency of that library), not with the cross compiler's copy: ld.so and libc must be of one build.
packages=(rustc-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static)
target=aarch64-unknown-linux-gnu
rustc=/usr/bin/rustc

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$top"

skip() { echo "skipped: aarch64: $*"; exit 0; }
fail() { echo "aarch64.sh: $*" >&2; exit 1; }

missing() {
  local package
  for package in "${packages[@]}"; do
    [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

install_packages() {
  [ "$(id -u)" = 0 ] || skip "only root can install $*"
  echo "installing $* ..." >&2
  dpkg --add-architecture arm64
  # A source without arm64 makes the update complain; whether the packages are there is the installation's to say.
  apt-get update >/dev/null 2>&1 || true
  local output
  output=$(DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends --no-remove \
    -o DPkg::Lock::Timeout=60 "$@" 2>&1) || { tail -n 5 <<<"$output" >&2; fail "apt-get cannot install $*"; }
}

[ "$(uname -sm)" = "Linux x86_64" ] || skip "this is $(uname -sm); on 64-bit Arm the ordinary tests are enough"
command -v apt-get >/dev/null && command -v dpkg-query >/dev/null || skip "no apt-get to install ${packages[*]} with"
mapfile -t wanted < <(missing)
[ ${#wanted[@]} = 0 ] || install_packages "${wanted[@]}"

need=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
have=$("$rustc" --version | cut -d' ' -f2)
[ "$(printf '%s\n' "$need" "$have" | sort --version-sort | head -n 1)" = "$need" ] || fail "rustc-web is $have, older than $need"

export RUSTC=$rustc CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$top/target}/aarch64
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
emulator="$(command -v qemu-aarch64-static) -cpu max"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$emulator

# Without the instructions there would be no level to compare with the scalar one, and the tests would pass all the same.
mkdir -p "$CARGO_TARGET_DIR"
"$RUSTC" --target $target -C linker=aarch64-linux-gnu-gcc -o "$CARGO_TARGET_DIR/has_dotprod" - <<'RUST'
fn main() {
    let has = std::thread::spawn(|| std::arch::is_aarch64_feature_detected!("dotprod"));
    assert!(has.join().expect("the thread ends"), "the emulated machine has no dotprod");
}
RUST
$emulator "$CARGO_TARGET_DIR/has_dotprod" || fail "a small program does not run in the emulator as it should"

cargo test --package woolly-engine --lib --target $target -- kernels:: pool:: math::
