"""A small service manager for tests: runs what a unit of systemd says, as its user, below another root.

It does what systemd does of the lines that it knows: ExecStart, Environment, EnvironmentFile, User, StateDirectory, CacheDirectory,
LoadCredential, SetCredential, WatchdogSec, TimeoutStopSec, KillMode=mixed. It listens on a NOTIFY_SOCKET as systemd does. What confines a
service (ProtectSystem and the like) it leaves out.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time


class Unit:
    """The lines of a unit's [Service], as lists: a name may stand there several times."""

    def __init__(self, path):
        self.lines = {}
        section = None
        for line in map(str.strip, open(path)):
            if line.startswith("["):
                section = line
            elif section == "[Service]" and "=" in line and not line.startswith("#"):
                name, value = line.split("=", 1)
                self.lines.setdefault(name, []).append(value)

    def all(self, name):
        return self.lines.get(name, [])

    def one(self, name):
        (value,) = self.all(name)
        return value


class Service:
    """A running unit. `root` is the folder that its programs see as /."""

    def __init__(self, root, name):
        self.root, self.name = root, name
        self.unit = Unit(f"{root}/usr/lib/systemd/system/{name}.service")
        self.user = self.unit.one("User")
        self.messages = []
        self.changed = threading.Condition()

    def below(self, path):
        return self.root + path

    def own(self, path, mode):
        """Makes a folder of the user's, as StateDirectory= does."""
        os.makedirs(self.below(path), exist_ok=True)
        os.chmod(self.below(path), mode)
        subprocess.run(["chroot", self.root, "chown", f"{self.user}:{self.user}", path], check=True)

    def environment(self):
        # PATH is systemd's own.
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        found = {"PATH": path, "HOME": "/var/lib/woolly", "USER": self.user, "WOOLLY_LOG": "info"}
        pairs = [pair for line in self.unit.all("Environment") for pair in line.split()]
        for line in self.unit.all("EnvironmentFile"):
            path = self.below(line.removeprefix("-"))
            if os.path.exists(path):
                pairs += [line for line in map(str.strip, open(path)) if line and not line.startswith("#")]
        for pair in pairs:
            name, value = pair.split("=", 1)
            found[name] = value.replace("%S", "/var/lib").replace("%C", "/var/cache")
        return found

    def credentials(self):
        folder = f"/run/credentials/{self.name}.service"
        shutil.rmtree(self.below(folder), ignore_errors=True)
        self.own(folder, 0o700)
        given = dict(line.split(":", 1) for line in self.unit.all("SetCredential"))
        for line in self.unit.all("LoadCredential"):
            name, path = line.split(":", 1)
            if os.path.exists(self.below(path)):
                value = open(self.below(path)).read()
            else:
                value = given[name].encode().decode("unicode_escape")
            with open(self.below(f"{folder}/{name}"), "w") as file:
                file.write(value)
            # An access list of the user's shows in the bits of the group, as with systemd.
            os.chmod(self.below(f"{folder}/{name}"), 0o440)
            subprocess.run(["chroot", self.root, "chown", f"root:{self.user}", f"{folder}/{name}"], check=True)
        return folder

    def start(self):
        for name in ["StateDirectory", "CacheDirectory"]:
            for folder in self.unit.all(name):
                base = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache"}[name]
                os.makedirs(self.below(os.path.dirname(f"{base}/{folder}")), exist_ok=True)
                self.own(f"{base}/{folder}", int(self.unit.one(f"{name}Mode"), 8))
        variables = self.environment()
        if self.unit.all("LoadCredential"):
            variables["CREDENTIALS_DIRECTORY"] = self.credentials()
        address = f"/run/{self.name}.notify"
        if os.path.exists(self.below(address)):
            os.remove(self.below(address))
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.below(address))
        os.chmod(self.below(address), 0o777)
        variables["NOTIFY_SOCKET"] = address
        # Two seconds instead of WatchdogSec=, so that a test sees a sign of life.
        assert self.unit.one("WatchdogSec") == "30"
        variables["WATCHDOG_USEC"] = "2000000"
        threading.Thread(target=self.listen, daemon=True).start()
        words = [
            re.sub(r"\$\{(\w+)\}", lambda found: variables[found.group(1)], word)
            for word in self.unit.one("ExecStart").split()
        ]
        self.log = open(self.below(f"/run/{self.name}.log"), "wb")
        self.process = subprocess.Popen(
            ["chroot", f"--userspec={self.user}:{self.user}", self.root, *words],
            env=variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log, start_new_session=True,
        )
        return self

    def listen(self):
        while True:
            message = self.socket.recv(4096).decode()
            with self.changed:
                self.messages += message.split("\n")
                self.changed.notify_all()

    def heard(self, pattern, limit=60):
        """Waits for a line; says what came instead."""
        end = time.monotonic() + limit
        with self.changed:
            while not (found := [line for line in self.messages if re.search(pattern, line)]):
                left = end - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self.changed.wait(1)):
                    log = open(self.below(f"/run/{self.name}.log")).read()
                    raise SystemExit(f"{self.name} does not say {pattern}; it said {self.messages}\n{log}")
                self.changed.wait(min(left, 1))
        print(f"{self.name}: {found[0]}")
        return found[0]

    def said(self):
        return open(self.below(f"/run/{self.name}.log")).read()

    def stop(self):
        """SIGTERM to the main process; what it then says and how it ends."""
        self.process.send_signal(signal.SIGTERM)
        self.heard(r"^STOPPING=1$")
        status = self.process.wait(float(self.unit.one("TimeoutStopSec")))
        if status != 0:
            raise SystemExit(f"{self.name} ended with {status}\n{self.said()}")

    def run(self, *words):
        """A command as the unit's user, with its variables: what it prints."""
        command = ["chroot", f"--userspec={self.user}:{self.user}", self.root, *words]
        return subprocess.run(command, env=self.environment(), check=True, stdout=subprocess.PIPE, text=True).stdout
