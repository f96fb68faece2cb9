"""What tests/scripts/deb_acceptance.sh checks of an installed package; see there.

    deb_acceptance.py ROOT first|again|leaves-nothing
"""

import hashlib
import json
import os
import subprocess
import sys

from deb_service import Service

ROOT = sys.argv[1]
TOKEN = f"{ROOT}/etc/woolly/join-token"
KEPT = f"{ROOT}/srv/kept.json"


def digests():
    """Keys and certificates, and the settings: what must be the same after an upgrade."""
    found = {}
    for folder in ["var/lib/woolly", "etc/woolly"]:
        for at, _, names in os.walk(f"{ROOT}/{folder}"):
            for name in names:
                path = os.path.join(at, name)
                if name.endswith((".pem", ".env", ".key")) and os.path.isfile(path):
                    found[path] = hashlib.sha256(open(path, "rb").read()).hexdigest()
    return found


def serve():
    """Both units, until the worker is in the cluster, and their ends."""
    coordinator = Service(ROOT, "woolly-coordinator").start()
    coordinator.heard(r"^READY=1$")
    if not os.path.exists(KEPT):
        token = coordinator.run("woolly-coordinator", "token", "create", "--quiet")
        with open(os.open(TOKEN, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(token)
    worker = Service(ROOT, "woolly-worker").start()
    worker.heard(r"^READY=1$")
    worker.heard(r"^STATUS=in the cluster of .* as ")
    worker.heard(r"^WATCHDOG=1$")
    coordinator.heard(r"^WATCHDOG=1$")
    coordinator.heard(r"^STATUS=no model is loaded$")
    if "others can read the token" in worker.said():
        raise SystemExit("a credential is taken for a file that others can read")
    for service in [coordinator, worker]:
        owner = os.stat(f"/proc/{service.process.pid}").st_uid
        if owner != int(service.run("id", "-u")):
            raise SystemExit(f"{service.name} runs as {owner}")
    worker.stop()
    coordinator.stop()


def worker_before_its_coordinator():
    """A worker whose coordinator is not there is ready all the same, and ends when it is told to."""
    worker = Service(ROOT, "woolly-worker").start()
    worker.heard(r"^READY=1$")
    worker.heard(r"^STATUS=cannot reach the coordinator at ")
    worker.stop()


def main():
    what = sys.argv[2]
    if what == "first":
        with open(f"{ROOT}/etc/woolly/worker.env", "a") as file:
            file.write("WOOLLY_COORDINATOR=localhost:7400\nWOOLLY_LISTEN=127.0.0.1:7401\n")
        with open(f"{ROOT}/etc/woolly/coordinator.env", "a") as file:
            file.write("WOOLLY_LOCAL_WORKERS=0\nWOOLLY_HTTP=127.0.0.1:0\n")
        serve()
        # The token is needed once.
        os.remove(TOKEN)
        worker_before_its_coordinator()
        kept = digests()
        for needed in ["worker.pem", "worker.env", "coordinator.env"]:
            if not any(path.endswith(needed) for path in kept):
                raise SystemExit(f"no {needed} among {sorted(kept)}")
        json.dump(kept, open(KEPT, "w"))
    elif what == "again":
        before, after = json.load(open(KEPT)), digests()
        if before != after:
            raise SystemExit(f"the upgrade changed {set(before.items()) ^ set(after.items())}")
        serve()
    else:
        left = subprocess.run(
            ["find", ROOT, "-xdev", "-ipath", "*woolly*", "-not", "-path", f"{ROOT}/srv/*", "-not", "-path", f"{ROOT}/run/*"],
            check=True, stdout=subprocess.PIPE, text=True,
        ).stdout.split()
        for file in ["passwd", "shadow", "group", "gshadow"]:
            left += [f"/etc/{file}: {line}" for line in open(f"{ROOT}/etc/{file}") if "woolly" in line]
        if left:
            raise SystemExit("a purge leaves " + "\n  ".join(left))


main()
