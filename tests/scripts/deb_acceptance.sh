#!/usr/bin/env bash
# The Debian package in a Debian of its own: it is installed, its units' commands run as their user and tell a NOTIFY_SOCKET that they are
# ready, alive and ending, a worker joins by name with the token of its credential, an upgrade keeps state and settings, a purge leaves nothing.
# Names are looked up without loading code of that Debian. The units are held to systemd-analyze.
#
#   tests/scripts/deb_acceptance.sh [FILE.deb]     FILE.deb: default what `deploy/release.sh deb` makes
#
# Needs root, Debian's mmdebstrap (installed with apt-get where it is missing) and a mirror of Debian. On a machine without them it says so in a
# line that begins with "skipped:" and succeeds.
set -euo pipefail

# Mounts and signs of life are this script's own, and gone with it.
[ -n "${WOOLLY_DEB_INSIDE:-}" ] || [ "$(id -u)" != 0 ] ||
  exec env WOOLLY_DEB_INSIDE=1 unshare --mount --propagation private "${BASH_SOURCE[0]}" "$@"

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
skip() { echo "skipped: deb: $*"; exit 0; }
fail() { echo "deb_acceptance.sh: $*" >&2; exit 1; }
step() { printf -- '-- %s\n' "$*"; }

[ "$(id -u)" = 0 ] || skip "only root can make a Debian to install it in"
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || skip "this is no Debian"
for package in mmdebstrap systemd; do
  [ "$(dpkg-query --show --showformat '${db:Status-Status}' $package 2>/dev/null)" = installed ] ||
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends $package >/dev/null; } || fail "cannot install $package"
done
deb=${1:-}
if [ -z "$deb" ]; then
  "$top/deploy/release.sh" deb
  deb=$(ls -t "${CARGO_TARGET_DIR:-$top/target}"/dist/release/woolly_*_amd64.deb | head -n 1)
fi
deb=$(realpath "$deb")

work=$(mktemp -d)
root=$work/root
cleanup() {
  umount "$root/proc" 2>/dev/null || true
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT

step "the units"
dpkg-deb --extract "$deb" "$work/units"
# With the programs where they are now.
for unit in woolly-coordinator woolly-worker; do
  sed "s,^ExecStart=,&$work/units," "$work/units/usr/lib/systemd/system/$unit.service" >"$work/$unit.service"
done
said=$(systemd-analyze verify --man=no "$work"/woolly-{coordinator,worker}.service 2>&1) || true
[ -z "$said" ] || fail "systemd-analyze verify: $said"
for unit in woolly-coordinator woolly-worker; do
  systemd-analyze security --offline=true --threshold=25 --no-pager "$work/units/usr/lib/systemd/system/$unit.service" >"$work/security" ||
    fail "$(tail -n 1 "$work/security"), 2.5 at most is wanted"
  tail -n 1 "$work/security"
done

step "a Debian of its own"
mmdebstrap --quiet --mode=root --variant=apt --include=passwd bookworm "$root" || skip "no mirror of Debian can be reached"
mount -t proc proc "$root/proc"
# Names come from a module of that machine first, which tells when it is loaded.
printf '#include <fcntl.h>\n__attribute__((constructor)) static void at_load(void) { open("/tmp/loaded", O_CREAT | O_WRONLY, 0600); }\n' >"$work/module.c"
gcc -shared -fPIC -o "$root/usr/lib/libnss_telltale.so.2" "$work/module.c"
echo "hosts: telltale files dns" >"$root/etc/nsswitch.conf"
printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
chroot "$root" getent hosts localhost >/dev/null && [ -e "$root/tmp/loaded" ] || fail "the module is not loaded by those who load modules"
rm "$root/tmp/loaded"

step "installation"
cp "$deb" "$root/srv/first.deb"
chroot "$root" dpkg --install /srv/first.deb >/dev/null
for program in woolly-coordinator woolly-worker; do
  chroot "$root" "$program" --version
  [ -s "$root/usr/share/man/man1/$program.1.gz" ] || fail "no manual page of $program"
done
chroot "$root" bash -n /usr/share/bash-completion/completions/woolly-worker

step "the services"
python3 "$top/tests/scripts/deb_acceptance.py" "$root" first
! [ -e "$root/tmp/loaded" ] || fail "a program loaded a module of the machine that it runs on"

step "an upgrade"
dpkg-deb --raw-extract "$deb" "$work/next"
sed -i 's/^Version: .*/&+next/' "$work/next/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip -z1 --build "$work/next" "$root/srv/next.deb" >/dev/null
chroot "$root" dpkg --install --force-confold /srv/next.deb >/dev/null
chroot "$root" dpkg-query --show woolly | grep -q '+next$' || fail "the next version is not installed"
python3 "$top/tests/scripts/deb_acceptance.py" "$root" again

step "a purge"
chroot "$root" dpkg --remove woolly >/dev/null
[ -d "$root/var/lib/woolly/coordinator" ] || fail "what is only removed must keep its state"
chroot "$root" dpkg --purge woolly >/dev/null
python3 "$top/tests/scripts/deb_acceptance.py" "$root" leaves-nothing
echo "the package is as it should be: $(basename "$deb")"
