#!/usr/bin/env bash
# What the Helm chart renders, run: each pod's command, variables, Secrets and volumes in namespaces and a root of its own, as user 65532, on a
# bridge; a node's kubelet is helm_life.py. Probes must answer as meant while the cluster starts, loads, serves, drains and ends.
#
#   tests/scripts/helm_life.sh [FOLDER]     FOLDER with finished programs, such as target/dist/x86_64-unknown-linux-gnu; a debug build otherwise
#
# Needs root, iproute2 and util-linux, and what helm_tools.sh needs; where namespaces are not allowed it says so and ends with 0.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/scripts/helm_tools.sh
get_helm_tools

if ! unshare --net --mount true 2>/dev/null; then
  echo "$name: left out: no namespaces may be made here (it needs root)"
  exit 0
fi
programs=${1:-}
if [ -z "$programs" ]; then
  cargo build --quiet -p woolly-coordinator -p woolly-worker
  programs=${CARGO_TARGET_DIR:-target}/debug
fi
model=$(tests/scripts/fetch_model.sh)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/woolly-helm.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cat >"$scratch/values.yaml" <<VALUES
model:
  name: ""
  path: $(basename "$model")
  ctxSize: 2048
  source:
    hostPath: $(dirname "$model")
worker:
  threads: 1
  resources:
    requests:
      cpu: "1"
      memory: 2Gi
    limits:
      memory: 2Gi
  memory:
    slice: 300Mi
    kv: 512Mi
  leaveTimeoutSeconds: 60
VALUES
"$helm" template demo "$chart" -n llm -f "$scratch/values.yaml" >"$scratch/rendered.yaml"
unshare --net --mount --propagation private "$python" tests/scripts/helm_life.py "$scratch/rendered.yaml" "$(realpath "$programs")" "$scratch"
echo "$name: all passed"
