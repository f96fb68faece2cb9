#!/usr/bin/env python3
"""Faults of a network with real links: every worker in a namespace with an address of its own, on a bridge.

    namespaces.py MODEL     as root, with iproute2; build with `cargo build --release --workspace` first and run it alone

Four streams at a time go on while links are slow (`tbf`), a cable is pulled (the link goes down), the way from one
neighbour to the other is lost and not the way back, and a worker is killed, with a spare there each time. The texts are those of an
undisturbed run; the longest pause is printed. Ends with status 1 if a text differs, and with 0 where namespaces are not allowed.
"""
import os
import subprocess
import sys
import time

from failover import QUESTIONS, Cluster, Stream, failed, figures, undisturbed

BRIDGE, NET = "wlybr", "10.77.0"
WORKERS, TOKENS = 3, 400
RATE = "20mbit"
PAUSE_MAX = 6.0


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Links:
    """A bridge with an address of this machine, and a namespace with a link to it for each worker."""

    def __enter__(self):
        self.count = 0
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{NET}.254/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        return self

    def add(self):
        self.count += 1
        space, here = f"wly{self.count}", f"vwly{self.count}"
        ip("netns", "add", space)
        ip("link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", here, "master", BRIDGE, "up")
        ip("-n", space, "addr", "add", f"{NET}.{self.count}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", space, "link", "set", device, "up")
        return space

    def __exit__(self, *_):
        for number in range(1, self.count + 1):
            ip("netns", "del", f"wly{number}")
        ip("link", "del", BRIDGE)


class NetCluster(Cluster):
    def __init__(self, model, links):
        self.links, self.spaces, self.workers = links, {}, {}
        try:
            super().__init__(model, WORKERS, listen=f"{NET}.254:0")
        except BaseException:
            self.end()
            raise

    def place(self, name):
        if name not in self.spaces:
            self.spaces[name] = self.links.add()
        return ["ip", "netns", "exec", self.spaces[name]]

    def more(self, name):
        return ["--listen", f"{self.address(name)}:0"]

    def address(self, name):
        return f"{NET}.{self.spaces[name].removeprefix('wly')}"


def slow(cluster):
    devices = ["v" + space for space in cluster.spaces.values()]
    for device in devices:
        subprocess.run(["tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", RATE, "burst", "32k", "latency", "200ms"],
                       check=True)
    time.sleep(8)
    for device in devices:
        subprocess.run(["tc", "qdisc", "del", "dev", device, "root"], check=True)


def unplugged(cluster):
    space = cluster.spaces[cluster.stages()[-1]]
    ip("-n", space, "link", "set", "eth0", "down")
    time.sleep(8)
    ip("-n", space, "link", "set", "eth0", "up")


def one_way(cluster):
    first, second = cluster.stages()[:2]
    space, to = cluster.spaces[second], cluster.address(first)
    ip("-n", space, "route", "add", "blackhole", to)
    time.sleep(8)
    ip("-n", space, "route", "del", "blackhole", to)


def killed(cluster):
    cluster.workers[cluster.stages()[0]].kill()
    time.sleep(3)


def main():
    model = sys.argv[1]
    if os.geteuid() != 0 or subprocess.run(["unshare", "-n", "true"]).returncode != 0:
        print("left out: namespaces need root")
        return 0
    wrong = 0
    with Links() as links, NetCluster(model, links) as cluster:
        texts = undisturbed(cluster, QUESTIONS[:4], TOKENS)
        for name, fault, may_fail_over in [("slow links", slow, False), ("cable pulled", unplugged, True),
                                           ("one way between neighbours lost", one_way, True), ("killed", killed, True)]:
            cluster.heard(len([p for p in cluster.workers.values() if p.poll() is None]))
            before = sum(cluster.metric("woolly_failovers_total").values())
            streams = [Stream(cluster, question, TOKENS) for question in QUESTIONS[:4]]
            time.sleep(0.7)
            since = time.monotonic()
            fault(cluster)
            for stream in streams:
                stream.join(120)
            lost = sum(cluster.metric("woolly_failovers_total").values()) - before
            bad = failed(streams, texts)
            pauses = [stream.pause(since) for stream in streams]
            print(f"{name}: {len(bad)} wrong or lost {bad[:2]}, plans given up: {lost:.0f}")
            figures("longest pause", pauses)
            wrong += len(bad) + (lost > 0 and not may_fail_over) + (max(pauses) > PAUSE_MAX)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
