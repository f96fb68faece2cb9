#!/usr/bin/env bash
# Makes what is handed out: static binaries, packages, bills of materials, checksums.
#
#   deploy/release.sh binaries [--target TRIPLE]
#   deploy/release.sh deb [--target TRIPLE]
#   deploy/release.sh all
#   deploy/release.sh version
#
#   binaries         both programs, linked statically and stripped, in target/dist/TRIPLE/
#   deb              a Debian package of both, with units, manual pages and completions, in target/dist/release/
#   all              everything, for both targets, and SHA256SUMS, in target/dist/release/ (which is emptied first)
#   version          what CHANGELOG.md begins with, which Cargo.toml must say, too
#   --target TRIPLE  x86_64-unknown-linux-gnu [default] or aarch64-unknown-linux-gnu
#
# Nothing that is made here holds a path of this machine or the time of the build: the same source and the same compilers give the same
# bytes (tests/scripts/reproducible.sh). The time stamp of all files is that of the last commit, or SOURCE_DATE_EPOCH if it is set.
#
# Needs Linux on x86-64, Rust, Python 3.11, and the static library of glibc (Debian: libc6-dev); dpkg-deb for packages. For 64-bit Arm the
# compilers that tests/scripts/aarch64.sh installs. The image is made where docker or buildah is.
set -euo pipefail
# Files in packages and archives can be read by everyone, whoever makes them.
umask 022
export LC_ALL=C TZ=UTC

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

# The first heading of the changelog: `0.2.0, 2027-01-31`, or `0.2.0 (unreleased)`.
heading() { sed -n 's/^## //p' CHANGELOG.md | head -n 1; }
is_released() { [[ $(heading) != *unreleased* ]]; }

version() {
  local said cargo
  said=$(heading | sed 's/[ ,].*//')
  cargo=$(sed -n '/^\[workspace.package\]/,/^$/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
  [[ $said =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]] || fail "CHANGELOG.md begins with \"$(heading)\", which is no version"
  [ "$said" = "$cargo" ] || fail "CHANGELOG.md says $said and Cargo.toml says $cargo"
  echo "$said"
}

# As dpkg sorts them: candidates, and what was made before the release, come before it.
debian_version() {
  local version
  version=$(version | tr - '~')
  is_released || version+="~$(date --date="@$SOURCE_DATE_EPOCH" +%Y%m%d.%H%M%S)"
  echo "$version"
}

# Flags for rustc, parted as CARGO_ENCODED_RUSTFLAGS wants them, which no space in a path can hurt and which outdoes RUSTFLAGS and
# configuration files.
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

rustc_of() {
  # The standard library for arm64 comes with Debian's own compiler.
  if [ "$1" = aarch64-unknown-linux-gnu ]; then echo /usr/bin/rustc; else echo "${RUSTC:-rustc}"; fi
}

build() {
  local target=$1 rustc
  rustc=$(rustc_of "$target")
  if [ "$target" = aarch64-unknown-linux-gnu ]; then
    command -v aarch64-linux-gnu-gcc >/dev/null && [ -d "$("$rustc" --print target-libdir --target "$target" 2>/dev/null)" ] ||
      fail "the compiler for 64-bit Arm is missing; tests/scripts/aarch64.sh installs it"
  fi
  say "building for $target with $("$rustc" --version)"
  (
    unset_settings
    # Of C and assembler only debug information has paths, which is stripped; check_program sees to it.
    RUSTC=$rustc CARGO_ENCODED_RUSTFLAGS=$(rustc_flags "$target") CARGO_TARGET_DIR=$work \
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
    touch --date="@$SOURCE_DATE_EPOCH" "$to/.$program.new"
    mv -f "$to/.$program.new" "$to/$program"
    say "$(stat --format='%n: %s bytes' "$to/$program")"
  done
}

# The manual pages of a program and of all its commands, which it names itself when it is asked for one that is not there.
pages() {
  local program=$1 to=$2 name names
  shift 2
  name=$(IFS=-; echo "$program${*:+-$*}")
  "$program" man "$@" | gzip -9n >"$to/$(basename "$name").1.gz"
  names=$({ "$program" man "$@" nothing-of-that-name 2>&1 || true; } | sed -n 's/.*there is no command .*: expected //p' | tr -d ,)
  for name in $names; do
    [ "$name" = help ] || pages "$program" "$to" "$@" "$name"
  done
}

# Manual pages and completions, where a system has them below its root: the same for both targets, by programs that run here.
documents() {
  local root=$1 program run
  mkdir -p "$root"/usr/share/{man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d}
  for program in "${programs[@]}"; do
    run=$dist/x86_64-unknown-linux-gnu/$program
    pages "$run" "$root/usr/share/man/man1"
    "$run" completions bash >"$root/usr/share/bash-completion/completions/$program"
    "$run" completions zsh >"$root/usr/share/zsh/vendor-completions/_$program"
    "$run" completions fish >"$root/usr/share/fish/vendor_completions.d/$program.fish"
  done
}

# Programs, units and all that belongs to them, below a root.
stage() {
  local target=$1 root=$2
  rm -rf "$root"
  mkdir -p "$root"/usr/{bin,lib/systemd/system,lib/sysctl.d,share/doc/woolly}
  install -m 755 "${programs[@]/#/$dist/$target/}" "$root/usr/bin/"
  install -m 644 deploy/systemd/*.service "$root/usr/lib/systemd/system/"
  install -m 644 deploy/systemd/60-woolly.conf "$root/usr/lib/sysctl.d/"
  install -m 644 README.md "$root/usr/share/doc/woolly/"
  gzip -9n <CHANGELOG.md >"$root/usr/share/doc/woolly/CHANGELOG.md.gz"
  {
    printf 'Woolly may be used under the MIT licence or under the Apache licence 2.0, as you like.\n\n'
    cat LICENSE-MIT
    printf '\n\n'
    cat LICENSE-APACHE
  } >"$root/usr/share/doc/woolly/copyright"
  deploy/notices.py --target "$target" | gzip -9n >"$root/usr/share/doc/woolly/third-party-licences.gz"
  documents "$root"
}

# Every file below a folder gets the time of the source.
same_time() { find "$1" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +; }

deb() {
  local target=$1 architecture root file
  case $target in x86_64-*) architecture=amd64 ;; *) architecture=arm64 ;; esac
  root=$work/deb/$architecture
  stage "$target" "$root"
  install -d "$root/DEBIAN" "$root/etc/woolly"
  install -m 644 deploy/debian/*.env "$root/etc/woolly/"
  install -m 755 deploy/debian/{postinst,prerm,postrm} "$root/DEBIAN/"
  (cd "$root" && find etc -type f | sort | sed 's,^,/,') >"$root/DEBIAN/conffiles"
  (cd "$root" && find usr -type f | sort | xargs md5sum) >"$root/DEBIAN/md5sums"
  cat >"$root/DEBIAN/control" <<CONTROL
Package: woolly
Version: $(debian_version)
Architecture: $architecture
Maintainer: The Woolly authors <woolly@localhost>
Installed-Size: $(du --apparent-size --block-size=1024 --summarize "$root/usr" "$root/etc" | awk '{sum += $1} END {print sum}')
Depends: passwd
Recommends: ca-certificates
Section: science
Priority: optional
Description: large language models over several machines' processors
 Woolly cuts a language model's layers over machines, so that a model that fits
 none of them runs on all together, and answers clients of OpenAI's API, of
 Anthropic's and of Ollama's.
 .
 woolly-coordinator serves the API and plans; woolly-worker computes one stage
 of a model. Both are linked statically, and have units for systemd that are
 not started by the installation.
CONTROL
  chmod 644 "$root"/DEBIAN/{control,conffiles,md5sums}
  same_time "$root"
  mkdir -p "$out"
  file=$out/woolly_$(debian_version)_$architecture.deb
  # More threads would cut the data in other pieces.
  dpkg-deb --root-owner-group --threads-max=1 -Zxz --build "$root" "$file" >/dev/null
  say "$(stat --format='%n: %s bytes' "$file")"
}

# An archive whose bytes depend on its files alone.
archive() {
  local folder=$1 name=$2 file=$3
  same_time "$folder/$name"
  tar --create --directory "$folder" --sort=name --format=ustar --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --mode=u+rw,go+r,go-w "$name" | gzip -9n >"$file"
  say "$(stat --format='%n: %s bytes' "$file")"
}

tarball() {
  local target=$1 name=woolly-$2-$1 folder=$work/tar/$1
  stage "$target" "$folder/staged"
  rm -rf "${folder:?}/$name"
  mv "$folder/staged/usr" "$folder/$name"
  install -d "$folder/$name/etc/woolly"
  install -m 644 deploy/debian/*.env "$folder/$name/etc/woolly/"
  archive "$folder" "$name" "$out/$name.tar.gz"
  rm -rf "$folder"
}

bill() {
  local target=$1 version=$2 glibc
  if [ "$target" = aarch64-unknown-linux-gnu ]; then
    glibc=$(dpkg-query --show --showformat '${Version}' libc6-dev-arm64-cross)
  else
    glibc=$(dpkg-query --show --showformat '${Version}' libc6-dev 2>/dev/null || getconf GNU_LIBC_VERSION | cut -d' ' -f2)
  fi
  deploy/sbom.py --version "$version" --target "$target" --glibc "$glibc" \
    --rustc "$("$(rustc_of "$target")" --version | cut -d' ' -f2)" >"$out/woolly-$version-$target.cdx.json"
}

# The container image, for `docker load`.
image() {
  local target=$1 version=$2
  if ! [ -x deploy/image.sh ] || ! { command -v buildah || docker info; } >/dev/null 2>&1; then
    say "no image for $target: deploy/image.sh, or docker and buildah, are missing"
    return 0
  fi
  deploy/image.sh --target "$target" --tag "woolly:$version" --save "$out/woolly-$version-$target.docker.tar" >&2
}

# The chart, as `helm package` would make it, less the time of the build.
chart() {
  local version=$1 said
  if ! [ -f deploy/helm/woolly/Chart.yaml ]; then
    say "no chart: deploy/helm/woolly is missing"
    return 0
  fi
  for said in version appVersion; do
    grep -qx "$said: \"\?$version\"\?" deploy/helm/woolly/Chart.yaml || fail "Chart.yaml has another $said than $version"
  done
  rm -rf "$work/chart"
  mkdir -p "$work/chart"
  cp -R deploy/helm/woolly "$work/chart/"
  archive "$work/chart" woolly "$out/woolly-chart-$version.tgz"
}

all() {
  local version target
  version=$(version)
  is_released || say "this is no release: CHANGELOG.md says \"$(heading)\""
  for target in "${targets[@]}"; do binaries "$target"; done
  rm -rf "$out"
  mkdir -p "$out"
  for target in "${targets[@]}"; do
    deb "$target"
    tarball "$target" "$version"
    bill "$target" "$version"
    image "$target" "$version"
  done
  chart "$version"
  (cd "$out" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%f\n' | sort | xargs sha256sum >SHA256SUMS)
  cat "$out/SHA256SUMS"
}

# Read as a whole, so that a change of this file while it runs changes nothing.
main() {
  local command=${1:-}
  [ $# = 0 ] || shift
  local target=
  while [ $# -gt 0 ]; do
    case $1 in
      --target) [ $# -ge 2 ] || fail "--target needs a value; see --help"; target=$2; shift ;;
      *) fail "unknown argument $1; see --help" ;;
    esac
    shift
  done
  [ -z "$target" ] || known_target "$target"
  [ -z "$target" ] || case $command in all | version) fail "$command takes no --target" ;; esac

  dist=${CARGO_TARGET_DIR:-$top/target}/dist
  out=$dist/release
  # Away from other builds: other flags, other compilers.
  work=$dist/build
  SOURCE_DATE_EPOCH=$(source_date)
  export SOURCE_DATE_EPOCH

  case $command in
    '' | -h | --help) usage; exit 0 ;;
    version) version; exit 0 ;;
    binaries | deb | all) ;;
    *) fail "unknown command $command; see --help" ;;
  esac
  [ "$(uname -sm)" = "Linux x86_64" ] || fail "releases are made on Linux on x86-64, this is $(uname -sm)"
  command -v cargo >/dev/null || fail "cargo is missing; install Rust from https://rustup.rs"
  command -v readelf >/dev/null || fail "readelf is missing (Debian: apt-get install binutils)"
  case $command in
    binaries) binaries "${target:-${targets[0]}}" ;;
    deb)
      # Manual pages are made by programs that run here.
      binaries "${targets[0]}"
      [ "${target:-${targets[0]}}" = "${targets[0]}" ] || binaries "$target"
      deb "${target:-${targets[0]}}"
      ;;
    all) all ;;
  esac
}

main "$@"; exit
