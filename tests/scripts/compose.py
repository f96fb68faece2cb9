"""Runs the services of a compose file with podman, where there is no docker compose. Needs podman and PyYAML.

    compose.py FILE up [SERVICE…]     starts them in the order of their depends_on, and waits until all that have a health check are healthy
    compose.py FILE health SERVICE    asks the health check of one; the exit status is the check's
    compose.py FILE pid SERVICE       its process on this machine
    compose.py FILE address SERVICE   its address in the project's network
    compose.py FILE logs SERVICE      what it has written
    compose.py FILE down              removes its containers, volumes and network

PODMAN is the command with its flags. It knows those words of compose files that deploy/compose.yaml uses, and refuses others rather than
leave them out. Health checks are run from here: podman leaves them to systemd, which a container in a container does not have. Services of
a profile are left out.
"""
import json
import os
import re
import shlex
import subprocess
import sys
import time

import yaml

PODMAN = shlex.split(os.environ.get("PODMAN", "podman"))
FLAGS = shlex.split(os.environ.get("PODMAN_RUN_FLAGS", ""))
START_SECONDS_MAX = 90
KNOWN = {"image", "user", "read_only", "cap_drop", "security_opt", "restart", "stop_grace_period", "command", "network_mode",
         "healthcheck", "volumes", "depends_on", "ports", "hostname", "environment", "profiles"}


def fail(text):
    sys.exit("compose.py: " + text)


def podman(*words, check=True, **more):
    return subprocess.run([*PODMAN, *words], check=check, text=True, **more)


def said(*words):
    return podman(*words, stdout=subprocess.PIPE).stdout.strip()


def filled(value):
    """${NAME}, ${NAME:-default} and $$, as compose fills them in."""
    if isinstance(value, dict):
        return {key: filled(one) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one) for one in value]
    if not isinstance(value, str):
        return value

    def one(match):
        if match[0] == "$$":
            return "$"
        return os.environ.get(match["name"]) or match["default"] or ""
    return re.sub(r"\$\$|\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", one, value)


class Project:
    def __init__(self, path):
        with open(path) as file:
            told = filled(yaml.safe_load(file))
        self.folder = os.path.dirname(os.path.abspath(path))
        self.name, self.volumes = told["name"], told["volumes"]
        self.network = self.name + "_default"
        self.services = {name: one for name, one in told["services"].items() if "profiles" not in one}
        for name, service in told["services"].items():
            unknown = set(service) - KNOWN
            if unknown:
                fail("%s has what is not known here: %s" % (name, ", ".join(sorted(unknown))))

    def container(self, service):
        return "%s-%s-1" % (self.name, service)

    def volume(self, text):
        source, rest = text.split(":", 1)
        if source in self.volumes:
            return "%s_%s:%s" % (self.name, source, rest)
        return "%s:%s" % (os.path.join(self.folder, source), rest)

    def flags(self, name, service):
        flags = ["--name", self.container(name), "--no-healthcheck", "--user", service["user"]]
        if service.get("network_mode"):
            flags += ["--network", service["network_mode"]]
        else:
            flags += ["--network", self.network, "--network-alias", name, "--hostname", service["hostname"]]
        flags += ["--read-only", "--read-only-tmpfs=false"] if service.get("read_only") else []
        flags += ["--cap-drop=" + one for one in service.get("cap_drop", [])]
        flags += ["--security-opt=" + one.replace("no-new-privileges:true", "no-new-privileges")
                  for one in service.get("security_opt", [])]
        flags += ["--volume=" + self.volume(one) for one in service.get("volumes", [])]
        flags += ["--publish=" + one for one in service.get("ports", [])]
        flags += ["--env=%s=%s" % pair for pair in service.get("environment", {}).items()]
        flags += ["--stop-timeout", service["stop_grace_period"].removesuffix("s")]
        return flags + ["--restart", service["restart"]]

    def start(self, name):
        service = self.services[name]
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] != "service_completed_successfully":
                fail("the condition %s of %s is not known here" % (how["condition"], name))
            status = said("wait", self.container(other))
            if status != "0":
                fail("%s ended with status %s\n%s" % (other, status, self.logs(other)))
        podman("run", "--detach", *FLAGS, *self.flags(name, service), service["image"], *service["command"],
               stdout=subprocess.DEVNULL)

    def up(self, names):
        begun = time.monotonic()
        if podman("network", "exists", self.network, check=False).returncode:
            podman("network", "create", self.network, stdout=subprocess.DEVNULL)
        names = names or list(self.services)
        for name in names:
            self.start(name)
        for name in names:
            while "test" in self.services[name].get("healthcheck", {}) and self.health(name, quiet=True):
                if time.monotonic() - begun > START_SECONDS_MAX:
                    fail("%s is not healthy after %d s\n%s" % (name, START_SECONDS_MAX, self.logs(name)))
                if self.state(name)["Status"] not in ("running", "created", "initialized"):
                    fail("%s has ended\n%s" % (name, self.logs(name)))
                time.sleep(0.3)
        print("%s: all healthy after %.1f s" % (self.name, time.monotonic() - begun))

    def health(self, name, quiet=False):
        test = self.services[name]["healthcheck"]["test"]
        if test[0] != "CMD":
            fail("the health check of %s needs a shell" % name)
        out = subprocess.DEVNULL if quiet else None
        return podman("exec", self.container(name), *test[1:], check=False, stdout=out, stderr=out).returncode

    def state(self, name):
        return json.loads(said("inspect", "--format", "{{json .State}}", self.container(name)))

    def logs(self, name):
        return podman("logs", self.container(name), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout

    def address(self, name):
        settings = json.loads(said("inspect", "--format", "{{json .NetworkSettings}}", self.container(name)))
        return settings["Networks"][self.network]["IPAddress"]

    def down(self):
        for name in reversed(list(self.services)):
            podman("rm", "--force", "--ignore", "--time", "10", self.container(name), stdout=subprocess.DEVNULL)
        for name in self.volumes:
            podman("volume", "rm", "--force", "%s_%s" % (self.name, name), stdout=subprocess.DEVNULL, check=False)
        podman("network", "rm", "--force", self.network, stdout=subprocess.DEVNULL, check=False)


def main(path, command, *rest):
    project = Project(path)
    if command == "up":
        project.up(rest)
    elif command == "health":
        return project.health(rest[0])
    elif command == "pid":
        print(project.state(rest[0])["Pid"])
    elif command == "address":
        print(project.address(rest[0]))
    elif command == "logs":
        print(project.logs(rest[0]), end="")
    elif command == "down":
        project.down()
    else:
        fail("unknown command %s" % command)
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
