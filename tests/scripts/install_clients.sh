#!/usr/bin/env bash
# Installs Python packages for the checks with real clients, unless they are there in these versions already.
#
#   tests/scripts/install_clients.sh NAME FOLDER     what NAME_requirements.txt says, into a virtual environment in FOLDER
set -euo pipefail
wanted=$(dirname "${BASH_SOURCE[0]}")/$1_requirements.txt
if cmp --silent "$wanted" "$2/requirements.txt"; then exit 0; fi
begun=$SECONDS
python3 -m venv --clear "$2"
# Compiling all of it would take longer than the few modules that are read take at their first start.
"$2/bin/pip" install --quiet --disable-pip-version-check --no-compile -r "$wanted"
cp "$wanted" "$2/requirements.txt"
echo "$1: installed in $((SECONDS - begun)) s, $(du -sm "$2" | cut -f1) MB"
