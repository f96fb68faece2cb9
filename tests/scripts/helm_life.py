"""Runs what the chart renders, as a kubelet would: helm_life.sh has made the namespaces that this is in.

    helm_life.py RENDERED PROGRAMS SCRATCH

A pod has an address on a bridge, a root without anything that can be written to but its volumes, the user that it names, and its
Secrets as files of root's that its group can read. Names of headless services are in /etc/hosts. Of the network nothing else is there.
"""
import base64
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.request

import yaml

NET = "10.88.0"
USER = 65532
PATIENCE = 120
SERVED = "one two three four five six seven eight nine ten"


def run(*words):
    subprocess.run(words, check=True)


class Pod:
    """One pod of a template. Its volumes outlive it, as claims do; its address does not."""

    def __init__(self, node, name, template, claims):
        self.node, self.name, self.spec = node, name, template["spec"]
        (self.container,) = self.spec["containers"]
        self.volumes = {claim["metadata"]["name"]: node.folder(f"claims/{claim['metadata']['name']}-{name}") for claim in claims}
        for volume in self.spec.get("volumes", []):
            self.volumes[volume["name"]] = node.volume(name, volume)
        self.process = self.pause = None

    def environment(self):
        fields = {"status.podIP": lambda: self.address, "metadata.name": lambda: self.name}
        found = {"PATH": "/bin"}
        for variable in self.container.get("env", []):
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                found[variable["name"]] = fields[source["fieldRef"]["fieldPath"]]()
            elif "secretKeyRef" in source:
                found[variable["name"]] = self.node.secrets[source["secretKeyRef"]["name"]][source["secretKeyRef"]["key"]].decode()
            else:
                found[variable["name"]] = variable["value"]
        return found

    def start(self):
        """A network, a root, and the container's command in both."""
        self.address = self.node.address()
        self.pause = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        # The namespace is there when the pause is in another one than this.
        while os.readlink(f"/proc/{self.pause.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        self.node.plug(self.pause.pid, self.address)
        root, steps = self.root()
        self.variables = self.environment()
        args = [self.expand(arg) for arg in self.container["command"] + self.container["args"]]
        log = open(self.node.scratch / f"{self.name}.log", "ab")
        script = "\n".join(["set -e", *steps, 'exec chroot --userspec="$0:$0" --groups="$0" "$1" "${@:2}"'])
        command = ["nsenter", f"--net=/proc/{self.pause.pid}/ns/net", "unshare", "--mount", "--propagation", "private", "bash", "-c", script]
        command += [str(USER), str(root), "/usr/bin/env", "-i", *(f"{k}={v}" for k, v in self.variables.items()), *args]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def root(self):
        """The root and the steps that make it: what a debug build needs of the system, and the volumes."""
        root = self.node.folder(f"roots/{self.name}")
        steps = [f"mount -t tmpfs -o mode=0755 pod {root}", f"cd {root}", "mkdir bin usr proc sys dev etc", "ln -s usr/lib usr/lib64 ."]
        steps += [f"mount --rbind /{part} {part}" for part in ("usr", "proc", "sys", "dev")]
        steps += [f"mkdir -p {root}/etc", f"touch etc/hosts && mount --bind {self.node.hosts} etc/hosts"]
        for program in ("woolly-coordinator", "woolly-worker"):
            steps += [f"touch bin/{program} && mount --bind {self.node.programs / program} bin/{program}"]
        for mount in self.container["volumeMounts"]:
            there = mount["mountPath"].lstrip("/")
            steps += [f"mkdir -p {there}", f"mount --bind {self.volumes[mount['name']]} {there}"]
            if mount.get("readOnly"):
                steps += [f"mount -o remount,bind,ro {there}"]
        return root, [*steps, "mount -o remount,ro ."]

    def expand(self, arg):
        for key, value in self.variables.items():
            arg = arg.replace(f"$({key})", value)
        return arg

    def probe(self, kind):
        """(whether it passes, what it says): the rendered command, in the container. Without one there is nothing to ask."""
        command = self.container[f"{kind}Probe"]["exec"]["command"]
        if self.process is None or self.process.poll() is not None:
            return False, "ended"
        inside = f"/proc/{self.process.pid}/root"
        variables = [f"{k}={v}" for k, v in self.variables.items()]
        words = ["chroot", f"--userspec={USER}:{USER}", f"--groups={USER}", inside, "/usr/bin/env", "-i", *variables, *command]
        done = subprocess.run(words, capture_output=True, text=True, timeout=self.container[f"{kind}Probe"]["timeoutSeconds"])
        return done.returncode == 0, (done.stdout + done.stderr).strip()

    def until(self, kind, passes, word=""):
        """Waits until a probe passes, or does not, and says this word."""
        end = time.monotonic() + PATIENCE
        while True:
            passed, said = self.probe(kind)
            if passed == passes and said.startswith(word):
                print(f"  {self.name}: {kind} {'passes' if passes else 'fails'}: {said}", flush=True)
                return
            if time.monotonic() > end or said == "ended":
                raise SystemExit(f"{self.name}: {kind} {'passes' if passed else 'fails'} for {PATIENCE} s, or for good: {said}")
            time.sleep(0.1)

    def terminate(self):
        self.asked = time.monotonic()
        self.process.send_signal(signal.SIGTERM)

    def ended(self):
        """Waits for the end within the grace period; it must be a good one."""
        grace = self.spec["terminationGracePeriodSeconds"]
        status = self.process.wait(timeout=max(0.1, self.asked + grace - time.monotonic()))
        took = time.monotonic() - self.asked
        assert status == 0, f"{self.name} ended with {status}"
        print(f"  {self.name}: ended with 0 after {took:.1f} s of its {grace} s", flush=True)
        self.pause.kill()
        self.pause.wait()

    def kill(self):
        for process in (self.process, self.pause):
            if process and process.poll() is None:
                process.kill()
                process.wait()


class Node:
    """A machine with a bridge, the rendered objects and what they need."""

    def __init__(self, rendered, programs, scratch):
        self.things = [thing for thing in yaml.safe_load_all(rendered.read_text()) if thing]
        self.programs, self.scratch, self.count = programs, scratch, 0
        self.hosts = scratch / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")
        self.secrets = {t["metadata"]["name"]: {k: base64.b64decode(v) for k, v in t["data"].items()} for t in self.things if t["kind"] == "Secret"}
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "pods", "type", "bridge")
        run("ip", "addr", "add", f"{NET}.254/24", "dev", "pods")
        run("ip", "link", "set", "pods", "up")

    def address(self):
        self.count += 1
        return f"{NET}.{self.count}"

    def plug(self, pid, address):
        here = f"veth{self.count}"
        run("ip", "link", "add", here, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        run("ip", "link", "set", here, "master", "pods", "up")
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip"]
        run(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run(*inside, "link", "set", device, "up")

    def folder(self, name):
        path = self.scratch / name
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, 0, USER)
        # As fsGroup leaves it.
        path.chmod(0o2775)
        return path

    def volume(self, pod, volume):
        if "secret" in volume:
            path = self.folder(f"secrets/{volume['secret']['secretName']}")
            for key, value in self.secrets[volume["secret"]["secretName"]].items():
                (path / key).write_bytes(value)
                os.chown(path / key, 0, USER)
                (path / key).chmod(volume["secret"]["defaultMode"])
            return path
        if "hostPath" in volume:
            return volume["hostPath"]["path"]
        return self.folder(f"empty/{pod}-{volume['name']}")

    def pods(self, component):
        """The pods of the StatefulSet of a component."""
        found = [t for t in self.things if t["kind"] == "StatefulSet" and t["metadata"]["labels"]["app.kubernetes.io/component"] == component]
        (one,) = found
        spec, name = one["spec"], one["metadata"]["name"]
        return [Pod(self, f"{name}-{i}", spec["template"], spec.get("volumeClaimTemplates", [])) for i in range(spec["replicas"])]

    def resolve(self, coordinator):
        """What DNS would say of the services, now."""
        names = [t["metadata"]["name"] for t in self.things if t["kind"] == "Service" and not t["metadata"]["name"].endswith("-worker")]
        lines = [f"{coordinator.address} {name}.llm.svc" for name in names]
        # In place: it is mounted in every pod.
        with self.hosts.open("r+") as file:
            file.truncate(0)
            file.write("\n".join(["127.0.0.1 localhost", *lines, ""]))


def ask(node, coordinator, tokens):
    """The text of a stream, and when its last piece came."""
    key = node.secrets["demo-woolly-api-keys"]["api-keys"].decode()
    body = {"prompt": SERVED, "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{coordinator.address}:8080/v1/completions", json.dumps(body).encode(), headers)
    text = ""
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        for line in answer:
            if line.startswith(b"data: {"):
                text += json.loads(line[6:])["choices"][0]["text"]
    return text


def first_answer(node, coordinator):
    """What `helm test` runs."""
    (test,) = [t for t in node.things if t["kind"] == "Pod"]
    pod = Pod(node, test["metadata"]["name"], {"spec": {**test["spec"], "containers": [{"volumeMounts": [], **test["spec"]["containers"][0]}]}}, [])
    pod.start()
    status = pod.process.wait(timeout=PATIENCE)
    pod.kill()
    assert status == 0, f"helm test ended with {status}: {(node.scratch / (pod.name + '.log')).read_text()}"
    print(f"  {pod.name}: passes", flush=True)


def life(node, coordinator, workers):
    print("the coordinator alone: live, not ready", flush=True)
    assert coordinator.probe("liveness") == (False, "ended")
    coordinator.start()
    node.resolve(coordinator)
    coordinator.until("startup", True)
    coordinator.until("readiness", False, "loading")
    coordinator.until("liveness", True, "loading")

    print("workers join with the join secret, load, and serve", flush=True)
    workers[0].start()
    workers[0].until("readiness", True, "spare")
    coordinator.until("readiness", False, "loading")
    workers[1].start()
    coordinator.until("readiness", True, "serving")
    for worker in workers:
        worker.until("readiness", True, "serving")
        worker.until("liveness", True, "serving")
    first_answer(node, coordinator)
    undisturbed = ask(node, coordinator, 400)

    print("a worker is told to end while an answer streams: it hands its layers over", flush=True)
    texts = []
    stream = threading.Thread(target=lambda: texts.append(ask(node, coordinator, 400)))
    stream.start()
    time.sleep(0.5)
    assert stream.is_alive(), "the stream is too short"
    workers[1].terminate()
    passed, said = workers[1].probe("readiness")
    assert not passed and said.startswith(("leaving", "ended")), said
    print(f"  {workers[1].name}: readiness fails: {said}", flush=True)
    workers[1].ended()
    assert workers[1].probe("liveness") == (False, "ended")
    stream.join()
    assert texts == [undisturbed], f"{texts}\nis not\n{undisturbed}"
    coordinator.until("readiness", True, "serving")

    print("it comes back with another address, and its claim", flush=True)
    workers[1].start()
    workers[1].until("readiness", True)

    print("the coordinator comes back with another address: workers look its name up again", flush=True)
    coordinator.terminate()
    coordinator.ended()
    workers[0].until("readiness", False, "joining")
    workers[0].until("liveness", True, "joining")
    coordinator.start()
    node.resolve(coordinator)
    coordinator.until("readiness", True, "serving")
    for worker in workers:
        worker.until("readiness", True)
    assert ask(node, coordinator, 400) == undisturbed

    print("all are told to end at once, as by helm uninstall", flush=True)
    for pod in [coordinator, *workers]:
        pod.terminate()
    for pod in [coordinator, *workers]:
        pod.ended()


def main(rendered, programs, scratch):
    node = Node(pathlib.Path(rendered), pathlib.Path(programs), pathlib.Path(scratch))
    (coordinator,), workers = node.pods("coordinator"), node.pods("worker")
    try:
        life(node, coordinator, workers)
    except BaseException:
        for log in sorted(node.scratch.glob("*.log")):
            print(f"--- {log.name}", "\n".join(log.read_text().splitlines()[-20:]), sep="\n", file=sys.stderr)
        raise
    finally:
        for pod in [coordinator, *workers]:
            pod.kill()


if __name__ == "__main__":
    main(*sys.argv[1:4])
