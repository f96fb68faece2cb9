#!/usr/bin/env bash
# Makes the container image of both programs.
#
#   deploy/image.sh [--target TRIPLE] [--tag NAME] [--save FILE]
#
#   --target TRIPLE  x86_64-unknown-linux-gnu [default] or aarch64-unknown-linux-gnu
#   --tag NAME       what it is called [default: woolly:VERSION, and woolly:latest]
#   --save FILE      writes it to an archive, too (docker load -i FILE)
#
# Takes the static programs of `deploy/release.sh binaries`, which is run first where they are missing; WOOLLY_PROGRAMS names another folder
# with them. Built by docker if its daemon answers, else by buildah (Debian: apt-get install buildah). WOOLLY_BUILDAH_FLAGS are flags of
# buildah's own, such as `--storage-driver vfs --root DIR --runroot DIR`. The same programs give the same layers, with buildah: their time is
# SOURCE_DATE_EPOCH, or that of the last commit.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
fail() { echo "image.sh: $*" >&2; exit 1; }

target=x86_64-unknown-linux-gnu tags=() save=
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,/^$/ s/^# \{0,1\}//p' "$0" | sed '/^set /,$d'; exit 0 ;;
    --target | --tag | --save) [ $# -ge 2 ] || fail "$1 needs a value; see --help" ;;&
    --target) target=$2 ;;
    --tag) tags+=("$2") ;;
    --save) save=$2 ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift 2
done
case $target in
  x86_64-unknown-linux-gnu) arch=amd64 ;;
  aarch64-unknown-linux-gnu) arch=arm64 ;;
  *) fail "no image is made for $target" ;;
esac

programs=${WOOLLY_PROGRAMS:-${CARGO_TARGET_DIR:-target}/dist/$target}
if [ ! -x "$programs/woolly-coordinator" ] || [ ! -x "$programs/woolly-worker" ]; then
  [ -z "${WOOLLY_PROGRAMS:-}" ] || fail "there are no programs in $programs"
  deploy/release.sh binaries --target "$target" >&2
fi
certificates=
for file in "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
  if [ -s "$file" ]; then certificates=$file; break; fi
done
[ -n "$certificates" ] || fail "this machine has no CA certificates (Debian: apt-get install ca-certificates)"

version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
[ -n "$version" ] || fail "Cargo.toml says no version"
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
[ "${#tags[@]}" -gt 0 ] || tags=("woolly:$version" woolly:latest)

folder=$(mktemp -d "${TMPDIR:-/tmp}/woolly-image.XXXXXX")
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/programs" "$folder/empty"
install -m 755 "$programs/woolly-coordinator" "$programs/woolly-worker" "$folder/programs/"
install -m 644 "$certificates" "$folder/ca-certificates.crt"
chmod 755 "$folder/programs" "$folder/empty"

build=(--file deploy/Dockerfile --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --platform "linux/$arch")
for tag in "${tags[@]}"; do build+=(--tag "$tag"); done
if [ -z "${WOOLLY_BUILDAH_FLAGS:-}" ] && docker info >/dev/null 2>&1; then
  docker build "${build[@]}" "$folder" >&2
  [ -z "$save" ] || docker save -o "$save" "${tags[@]}"
elif command -v buildah >/dev/null; then
  read -ra flags <<<"${WOOLLY_BUILDAH_FLAGS:-}"
  # Of docker's format, as the other one has no health check.
  buildah "${flags[@]}" bud --isolation chroot --format docker --timestamp "$SOURCE_DATE_EPOCH" "${build[@]}" "$folder" >&2
  if [ -n "$save" ]; then
    rm -f "$save"
    buildah "${flags[@]}" push "${tags[0]}" "docker-archive:$save:${tags[0]}" >&2
  fi
else
  fail "neither docker's daemon nor buildah is here (Debian: apt-get install buildah)"
fi
printf '%s\n' "${tags[@]}"
