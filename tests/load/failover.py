#!/usr/bin/env python3
"""What faults cost the streams of a real model: detection, pause, and whether the text is what it would have been.

    failover.py MODEL kill  [--rounds N]   4 streams of up to 512 tokens, a stage's worker is killed, a spare is there
    failover.py MODEL many                 290 streams, the last stage is killed
    failover.py MODEL roll                 8 streams of 64 tokens at a time; every worker is told to end, one after the other
    failover.py MODEL restart              the coordinator is killed and started again
    failover.py MODEL busy                 a busy process on each core for 30 s: nobody may be lost

Build with `cargo build --release --workspace` first and run it alone on the machine.
"""
import argparse
import json
import os
import pathlib
import random
import re
import signal
import subprocess
import threading
import time

from server import Server, many_files, percentile, program

QUESTIONS = [f"Tell me about the number {n}." for n in range(1, 400)]


class Cluster(Server):
    """A coordinator without local workers, and workers that join it."""

    def __init__(self, model, workers, *flags, **settings):
        super().__init__(model, "--local-workers", "0", "--workers", "2", *flags, **settings)
        self.flags, self.model, self.workers, self.count = flags, model, {}, 0
        self.join = self.join_words()
        for _ in range(workers):
            self.add()
            self.heard(len(self.workers))
        assert self.is_ready(60), self.log()

    def join_words(self):
        state = pathlib.Path(self.folder) / "state"
        until = time.monotonic() + 30
        while not (state / "join-address").exists():
            assert time.monotonic() < until and self.process.poll() is None, self.log()
            time.sleep(0.05)
        words = [program("woolly-coordinator"), "token", "create", "--state-dir", str(state)]
        text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return list(re.search(r"woolly-worker join (\S+) --token (\S+)", text).groups())

    def add(self, name=None):
        self.count += name is None
        name = name or f"worker-{self.count}"
        host, token = self.join
        log = open(f"{self.folder}/{name}.log", "a")
        self.workers[name] = subprocess.Popen(
            [*self.place(name), program("woolly-worker"), "join", host, "--token", token, "--name", name, "--threads", "1",
             "--state-dir", f"{self.folder}/{name}", *self.more(name)], stdout=subprocess.DEVNULL, stderr=log)
        return name

    def place(self, name):
        """Words before a worker's own, that say where it runs."""
        return []

    def more(self, name):
        """More flags of a worker."""
        return []

    def metric(self, name):
        text = self.ask("GET", "/metrics")[2]
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
                if line.startswith(name)}

    def heard(self, count):
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                live = [n for n, p in self.workers.items() if p.poll() is None]
                seen = self.metric("woolly_worker_unheard_seconds")
                if sum(any(f'"{n}"' in key for key in seen) for n in live) >= count:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise SystemExit("a worker does not join")

    def stages(self):
        return [stage["worker"] for stage in json.loads(self.ask("GET", "/health")[2])["stages"]]

    def end(self):
        for process in self.workers.values():
            process.kill()
            process.wait()
        super().end()


class Stream(threading.Thread):
    """A streamed answer with the time of every piece."""

    def __init__(self, cluster, question, tokens):
        super().__init__(daemon=True)
        self.cluster, self.times, self.text, self.error, self.pings = cluster, [], "", None, 0
        self.body = {"messages": [{"role": "user", "content": question}], "max_tokens": tokens, "temperature": 0,
                     "stream": True, "ignore_eos": True}
        self.start()

    def run(self):
        import http.client
        connection = http.client.HTTPConnection("127.0.0.1", self.cluster.port, timeout=120)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(self.body), {"content-type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                self.error = (answer.status, answer.read())
                return
            done = False
            for line in answer:
                line = line.decode().strip()
                self.pings += line.startswith(":")
                if line == "data: [DONE]":
                    done = True
                elif line.startswith("data:"):
                    event = json.loads(line[5:])
                    if "error" in event:
                        self.error = event["error"]
                    for choice in event.get("choices", []):
                        piece = choice["delta"].get("content")
                        if piece:
                            self.text += piece
                            self.times.append(time.monotonic())
            if not done:
                self.error = self.error or "it broke off"
        except OSError as error:
            self.error = error
        finally:
            connection.close()

    def pause(self, since):
        """The longest gap that ends after a moment."""
        gaps = [b - a for a, b in zip(self.times, self.times[1:]) if b >= since]
        return max(gaps, default=0.0)


def failed(streams, texts):
    return [s.error or "another text" for s in streams if s.error or s.text != texts[s.body["messages"][0]["content"]]]


def undisturbed(cluster, questions, tokens, at_once=8):
    texts = {}
    for first in range(0, len(questions), at_once):
        streams = [Stream(cluster, q, tokens) for q in questions[first:first + at_once]]
        for stream in streams:
            stream.join()
            assert stream.error is None, stream.error
            texts[stream.body["messages"][0]["content"]] = stream.text
    return texts


def figures(name, values):
    print(f"{name}: p50 {percentile(values, .5):.2f} s, p99 {percentile(values, .99):.2f} s, max {max(values):.2f} s"
          f" of {len(values)}")


def detection(cluster):
    """Mean detection and search so far, in seconds."""
    found = {}
    for what in ("detection", "search", "replay"):
        name = f"woolly_failover_{what}_seconds"
        values = cluster.metric(name)
        found[what] = values.get(f"{name}_sum", 0) / max(1, values.get(f"{name}_count", 0))
    return found


def kill(model, rounds):
    wrong, pauses, first = [], [], []
    with Cluster(model, 3) as cluster:
        questions = QUESTIONS[:4]
        texts = undisturbed(cluster, questions, 512, 4)
        for number in range(rounds):
            streams = [Stream(cluster, q, 512) for q in questions]
            time.sleep(random.uniform(0.3, 3))
            victim = random.choice(cluster.stages())
            process = cluster.workers.pop(victim)
            killed = time.monotonic()
            process.kill()
            process.wait()
            for stream in streams:
                stream.join()
            wrong += failed(streams, texts)
            pauses += [stream.pause(killed) for stream in streams if stream.times and stream.times[-1] > killed]
            first += [min(t for t in s.times if t > killed) - killed for s in streams if s.times and s.times[-1] > killed]
            cluster.add()
            cluster.heard(3)
            if not cluster.is_ready(30):
                raise SystemExit(cluster.log())
        print(f"{rounds} kills, {len(wrong)} wrong or lost streams {wrong[:3]}")
        figures("longest pause", pauses)
        print("means:", {k: round(v, 3) for k, v in detection(cluster).items()})
        buckets = cluster.metric("woolly_failover_detection_seconds_bucket")
        print("detection:", {k.split('le="')[1][:-2]: int(v) for k, v in buckets.items() if 0 < v})


def many(model):
    many_files()
    with Cluster(model, 3) as cluster:
        questions = QUESTIONS[:290]
        texts = undisturbed(cluster, questions, 32, 64)
        streams = [Stream(cluster, q, 32) for q in questions]
        time.sleep(3)
        cluster.workers[cluster.stages()[-1]].kill()
        killed = time.monotonic()
        for stream in streams:
            stream.join()
        wrong = failed(streams, texts)
        silent = [s for s in streams if s.pause(killed) > 15 and not s.pings]
        print(f"290 streams: {len(wrong)} lost or wrong {wrong[:3]}, {len(silent)} without a ping")
        figures("longest pause", [s.pause(killed) for s in streams])


def roll(model):
    with Cluster(model, 3) as cluster:
        questions = QUESTIONS[:64]
        texts = undisturbed(cluster, questions, 64)
        streams, stop, lock = [], threading.Event(), threading.Lock()

        def client(number):
            while not stop.is_set():
                stream = Stream(cluster, random.choice(questions), 64)
                stream.join()
                with lock:
                    streams.append(stream)

        clients = [threading.Thread(target=client, args=(n,)) for n in range(8)]
        for thread in clients:
            thread.start()
        time.sleep(2)
        codes, began = [], time.monotonic()
        for name in list(cluster.workers):
            process = cluster.workers[name]
            process.send_signal(signal.SIGTERM)
            codes.append(process.wait(40))
            cluster.add(name)
            time.sleep(4)
        stop.set()
        for thread in clients:
            thread.join()
        wrong = failed(streams, texts)
        print(f"rolling restart of {len(codes)} workers, exit codes {codes}: {len(streams)} streams, {len(wrong)} lost or wrong"
              f" {wrong[:3]}, failovers {cluster.metric('woolly_failovers_total')}")
        figures("longest pause", [s.pause(began) for s in streams])


def restart(model):
    times = []
    for _ in range(5):
        with Cluster(model, 2) as cluster:
            time.sleep(1.5)  # Until both have said what they mapped.
            mapped = cluster.metric("woolly_worker_slice_mappings_total")
            port = cluster.join[0].rsplit(":", 1)[1]
            cluster.process.kill()
            cluster.process.wait()
            words = ["serve", str(model), "--http", str(cluster.port), "--listen", f"127.0.0.1:{port}", "--local-workers", "0",
                     "--workers", "2", "--state-dir", cluster.folder + "/state", "--shutdown-timeout", "1s"]
            began = time.monotonic()
            with open(cluster.log_path, "a") as log:
                cluster.process = subprocess.Popen([program("woolly-coordinator"), *words], stdout=subprocess.DEVNULL, stderr=log)
            assert cluster.is_ready(60), cluster.log()
            times.append(time.monotonic() - began)
            time.sleep(1.5)
            again = cluster.metric("woolly_worker_slice_mappings_total")
            print("slices mapped before and after:", sum(mapped.values()), sum(again.values()))
    figures("ready again after", times)


def busy(model):
    with Cluster(model, 3) as cluster:
        questions = QUESTIONS[:4]
        texts = undisturbed(cluster, questions, 512, 4)
        loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count())]
        until, streams = time.monotonic() + 30, []
        try:
            while time.monotonic() < until:
                turn = [Stream(cluster, q, 512) for q in questions]
                for stream in turn:
                    stream.join()
                streams += turn
        finally:
            for loop in loops:
                loop.kill()
        print(f"{len(streams)} streams beside busy cores: {len(failed(streams, texts))} lost or wrong,"
              f" failovers {cluster.metric('woolly_failovers_total')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("what", choices=["kill", "many", "roll", "restart", "busy"])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    random.seed(given.seed)
    if given.what == "kill":
        kill(given.model, given.rounds)
    else:
        {"many": many, "roll": roll, "restart": restart, "busy": busy}[given.what](given.model)


if __name__ == "__main__":
    main()
