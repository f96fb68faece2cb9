#!/usr/bin/env bash
# The Helm chart with the real helm: linted, rendered with every set of values in deploy/helm/woolly/ci, every object validated against
# the schemas of Kubernetes (Python package kubernetes-validate), wrong values refused, flags compared with docs/configuration.md, Secrets
# kept. helm_tools.sh says where helm comes from and what is needed; helm_life.sh runs what is rendered.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/scripts/helm_tools.sh
get_helm_tools

"$helm" version --short
program=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
grep -q "^appVersion: \"$program\"$" "$chart/Chart.yaml" || fail "the programs are of version $program, and appVersion in Chart.yaml is another"
rm -rf "$tools/rendered"
mkdir -p "$tools/rendered"
for values in "$chart"/ci/*-values.yaml; do
  "$helm" lint --strict --quiet "$chart" -f "$values"
  "$helm" template demo "$chart" -n llm -f "$values" >"$tools/rendered/$(basename "$values")"
done
"$python" tests/scripts/helm_checks.py objects "$tools"/rendered/*-values.yaml
"$python" tests/scripts/helm_checks.py refusals "$helm" "$chart"
"$python" tests/scripts/helm_secrets.py "$helm" "$chart"
echo "helm_acceptance.sh: all passed"
