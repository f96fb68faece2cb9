#!/usr/bin/env python3
"""Prints the licences and notices of all crates that the static programs hold: their authors ask for that wherever copies go.

    deploy/notices.py --target TRIPLE

Texts that are the same are printed once, below the names of all who have them.
"""

import argparse
import pathlib
import re

from sbom import linked, metadata

# How the files are called that say it.
NAMED = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True)
    found = metadata(parser.parse_args().target)
    packages = {package["id"]: package for package in found["packages"]}
    texts, without = {}, []
    for package in sorted((packages[id] for id in linked(found)), key=lambda it: (it["name"], it["version"])):
        if not package["source"]:
            continue
        name = f"{package['name']} {package['version']} ({package['license']})"
        folder = pathlib.Path(package["manifest_path"]).parent
        files = sorted(path for path in folder.iterdir() if path.is_file() and NAMED.match(path.name))
        for path in files:
            text = path.read_text(errors="replace").replace("\r\n", "\n").strip()
            texts.setdefault(text, []).append(name)
        if not files:
            without.append(f"{name} {package['repository'] or ''}".strip())
    print("Woolly's programs hold code of others. Their licences:\n")
    for text, names in texts.items():
        print("=" * 100, *dict.fromkeys(names), "-" * 100, text, "", sep="\n")
    print("=" * 100, "These come without the text of the licence that they name:", *without, sep="\n")


if __name__ == "__main__":
    main()
