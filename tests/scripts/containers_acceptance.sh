#!/usr/bin/env bash
# The image and deploy/compose.yaml: builds the one, says how large it is, starts the services of the other, kills a worker in the middle of an
# answer, which has to go on to its end with the same text; then the worker comes back.
#
#   tests/scripts/containers_acceptance.sh
#
# As root, with buildah, podman and runc or crun, which are installed where they are missing and may be (Debian); elsewhere it says what is
# missing and fails. WOOLLY_WITHOUT_CONTAINERS=1 leaves it out. Takes the static programs of `deploy/release.sh binaries` (run where they are
# missing), or those in the folder WOOLLY_PROGRAMS. Images, volumes and networks lie in a folder of their own and are removed at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

IMAGE_MIB_MAX=40
if [ "${WOOLLY_WITHOUT_CONTAINERS:-}" = 1 ]; then echo "left out, as WOOLLY_WITHOUT_CONTAINERS asks"; exit 0; fi
fail() { echo "containers_acceptance.sh: $*" >&2; exit 1; }
say() { printf '== %s\n' "$*"; }
for name in $(compgen -e | grep '^WOOLLY_' | grep -vx 'WOOLLY_FIXTURES\|WOOLLY_PROGRAMS' || true); do unset "$name"; done

[ "$(id -u)" = 0 ] || fail "needs root; WOOLLY_WITHOUT_CONTAINERS=1 leaves this check out"
needed=()
for one in buildah podman runc iptables; do command -v "$one" >/dev/null || needed+=("$one"); done
python3 -c 'import yaml' 2>/dev/null || needed+=(python3-yaml)
if [ "${#needed[@]}" -gt 0 ]; then
  command -v apt-get >/dev/null || fail "missing: ${needed[*]}; WOOLLY_WITHOUT_CONTAINERS=1 leaves this check out"
  log=$(mktemp)
  # netavark and aardvark-dns are the network with names in it.
  apt-get -qq update && apt-get -qq install -y --no-install-recommends "${needed[@]}" netavark aardvark-dns >"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; fail "cannot install ${needed[*]}"; }
fi

model=$(tests/scripts/fetch_model.sh)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/woolly-containers.XXXXXX")
storage=(--storage-driver vfs --root "$scratch/storage" --runroot "$scratch/run")
compose() { python3 tests/scripts/compose.py deploy/compose.yaml "$@"; }
end() {
  local status=$?
  if [ "$status" -ne 0 ]; then for one in coordinator worker-1 worker-2; do compose logs "$one" 2>/dev/null | tail -n 15 >&2 || true; done; fi
  compose down >/dev/null 2>&1 || true
  rm -rf "$scratch"
  exit "$status"
}
trap end EXIT
trap 'exit 130' INT TERM

tag=localhost/woolly:acceptance
WOOLLY_BUILDAH_FLAGS="${storage[*]}" deploy/image.sh --tag "$tag" --save "$scratch/image.tar" >/dev/null 2>"$scratch/image.log" ||
  { tail -n 5 "$scratch/image.log" >&2; fail "no image"; }
export PODMAN="podman ${storage[*]} --network-config-dir $scratch/networks --cgroup-manager cgroupfs"
# The limits of this machine may not be raised, as podman otherwise would.
export PODMAN_RUN_FLAGS="--ulimit nofile=$(ulimit -Hn):$(ulimit -Hn) --ulimit nproc=4096:4096"
mkdir -p "$scratch/networks"
for runtime in crun runc; do
  # shellcheck disable=SC2086
  if command -v "$runtime" >/dev/null && $PODMAN --runtime "$runtime" run --rm --no-healthcheck $PODMAN_RUN_FLAGS "$tag" \
    woolly-coordinator --version >"$scratch/version" 2>"$scratch/$runtime.log"; then break; fi
  runtime=
done
[ -n "$runtime" ] || fail "neither crun nor runc can run a container here: $(tail -qn 1 "$scratch"/*.log)"
PODMAN+=" --runtime $runtime"
say "$(podman --version) with $runtime: $(cat "$scratch/version")"

$PODMAN image inspect "$tag" >"$scratch/inspect.json"
python3 - "$scratch/inspect.json" "$IMAGE_MIB_MAX" <<'PYTHON'
import json, sys
image = json.load(open(sys.argv[1]))[0]
config, mib = image["Config"], image["Size"] / 2**20
print("== the image has %.1f MiB (%.1f MB), at most %s MB are allowed" % (mib, image["Size"] / 1e6, sys.argv[2]))
assert image["Size"] <= int(sys.argv[2]) * 1e6
assert config["User"] == "65532:65532" and config["StopSignal"] == "SIGTERM", config
assert set(config["Volumes"]) == {"/models", "/var/lib/woolly"}, config
assert set(config["ExposedPorts"]) == {"8080/tcp", "7400/udp", "7401/udp"}, config
assert image["HealthcheckConfig"]["Test"] if "HealthcheckConfig" in image else image["Healthcheck"]["Test"], image
assert config["Labels"]["org.opencontainers.image.version"] != "unknown", config
PYTHON
# Made again, what is in it is the same to the byte.
layers=$($PODMAN image inspect --format '{{.RootFS.Layers}}' "$tag")
WOOLLY_BUILDAH_FLAGS="${storage[*]}" deploy/image.sh --tag "$tag" >/dev/null 2>&1
[ "$layers" = "$($PODMAN image inspect --format '{{.RootFS.Layers}}' "$tag")" ] || fail "the same programs gave other layers"

mkdir "$scratch/models"
ln "$model" "$scratch/models/model.gguf" 2>/dev/null || cp "$model" "$scratch/models/model.gguf"
chmod 755 "$scratch" "$scratch/models"
chmod 644 "$scratch/models/model.gguf"
WOOLLY_PORT=$(python3 deploy/demo.py address)
export WOOLLY_IMAGE=$tag WOOLLY_MODELS=$scratch/models WOOLLY_PORT
compose up
http=$(compose address coordinator):8080
python3 deploy/demo.py topology "$http"
for service in coordinator worker-1 worker-2; do printf '%s is ' "$service"; compose health "$service"; done
# The port that is published on this machine is the same server's.
python3 -c 'import sys, urllib.request as r; print("published on", sys.argv[1], r.urlopen("http://%s/readyz" % sys.argv[1], timeout=10).read().decode().strip())' "$WOOLLY_PORT"

begun=$SECONDS victim=$(compose pid worker-2)
python3 deploy/demo.py kill "$http" "Tell me about the sea." "$victim"
say "a worker's process was killed in the middle of an answer, which went on to its end"
until compose health worker-2 >"$scratch/health" 2>&1 && [ "$(compose pid worker-2)" != "$victim" ]; do
  [ $((SECONDS - begun)) -lt 60 ] || fail "worker-2 did not come back: $(cat "$scratch/health")"
  sleep 0.5
done
say "worker-2 was started again by its restart policy and is $(cat "$scratch/health")"

# Told to end, it answers no probe as ready, and ends by itself.
begun=$SECONDS
$PODMAN stop --time 45 woolly-coordinator-1 >/dev/null
status=$($PODMAN inspect --format '{{.State.ExitCode}}' woolly-coordinator-1)
[ "$status" = 0 ] || fail "the coordinator ended with status $status when it was told to"
say "the coordinator ended with status 0 within $((SECONDS - begun)) s of SIGTERM"
say "containers_acceptance.sh: all passed"
