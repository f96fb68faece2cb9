#!/usr/bin/env python3
"""Writes what the programs of a release are made of, as a CycloneDX 1.5 bill of materials (JSON).

    deploy/sbom.py --version VERSION --target TRIPLE --rustc VERSION --glibc VERSION

It prints every crate that is linked into woolly-coordinator or woolly-worker, or that generates code of them, with the digest that
Cargo.lock holds it to, its licence, and who needs whom; and what is linked in beside them. The time is SOURCE_DATE_EPOCH: the same source
gives the same bytes. Crates are those of `cargo metadata`, so that features which only tests ask for may add one too many.
"""

import argparse
import datetime
import json
import os
import subprocess
import tomllib
import uuid

PROGRAMS = ["woolly-coordinator", "woolly-worker"]


def metadata(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def linked(found):
    """The ids of what the programs are made of, and whom each needs: without tests and build scripts."""
    needs = {
        node["id"]: sorted(
            dep["pkg"] for dep in node["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])
        )
        for node in found["resolve"]["nodes"]
    }
    reached = {package["id"] for package in found["packages"] if package["name"] in PROGRAMS}
    if len(reached) != len(PROGRAMS):
        raise SystemExit(f"sbom.py: not all of {PROGRAMS} are in this workspace")
    left = list(reached)
    while left:
        for need in needs[left.pop()]:
            if need not in reached:
                reached.add(need)
                left.append(need)
    return {id: needs[id] for id in reached}


def component(package, digests):
    name, version = package["name"], package["version"]
    made = {
        "type": "application" if name in PROGRAMS else "library",
        "bom-ref": reference(package),
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
    }
    if package["license"]:
        # The slash is what crates wrote before there were expressions.
        made["licenses"] = [{"expression": package["license"].replace(" / ", " OR ").replace("/", " OR ")}]
    digest = digests.get((name, version))
    if digest:
        made["hashes"] = [{"alg": "SHA-256", "content": digest}]
    elif package["source"]:
        raise SystemExit(f"sbom.py: Cargo.lock has no digest of {name} {version}")
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def reference(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["version", "target", "rustc", "glibc"]:
        parser.add_argument(f"--{name}", required=True)
    flags = parser.parse_args()
    with open("Cargo.lock", "rb") as file:
        locked = tomllib.load(file)["package"]
    digests = {(it["name"], it["version"]): it["checksum"] for it in locked if "checksum" in it}
    found = metadata(flags.target)
    packages = {package["id"]: package for package in found["packages"]}
    needs = linked(found)
    components = [component(packages[id], digests) for id in needs]
    beside = [
        {"type": "library", "bom-ref": "rust-std", "name": "rust-std", "version": flags.rustc,
         "licenses": [{"expression": "MIT OR Apache-2.0"}]},
        {"type": "library", "bom-ref": "glibc", "name": "glibc", "version": flags.glibc,
         "licenses": [{"license": {"id": "LGPL-2.1-or-later"}}]},
    ]
    root = f"woolly@{flags.version}"
    programs = sorted(reference(packages[id]) for id in needs if packages[id]["name"] in PROGRAMS)
    dependencies = [
        {"ref": reference(packages[id]), "dependsOn": sorted(reference(packages[need]) for need in ids)}
        for id, ids in needs.items()
    ]
    dependencies.append({"ref": root, "dependsOn": programs + [it["bom-ref"] for it in beside]})
    time = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.timezone.utc)
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "application", "bom-ref": root, "name": "woolly", "version": flags.version},
            "properties": [{"name": "target", "value": flags.target}],
        },
        "components": sorted(components, key=lambda it: it["bom-ref"]) + beside,
        "dependencies": sorted(dependencies, key=lambda it: it["ref"]),
    }
    content = json.dumps(bill, sort_keys=True)
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    print(json.dumps(bill, indent=1))


if __name__ == "__main__":
    main()
