"""What demo.sh asks of the coordinator's HTTP API. Standard library only.

    demo.py address                  an address for the API: 127.0.0.1:8080, or a free port
    demo.py wait HOST:PORT PID...    until the cluster is ready; fails when a process ends
    demo.py topology HOST:PORT       which worker holds which layers
    demo.py joined HOST:PORT N       until so many workers have joined
    demo.py ask HOST:PORT QUESTION   a chat answer as it comes, and how fast it came
    demo.py kill HOST:PORT QUESTION PID   the same twice; the process is killed in the middle of the second one, which
                                     has to be like the first
"""
import http.client
import json
import os
import signal
import socket
import sys
import time

READY_SECONDS_MAX = 600
ANSWER_TOKENS_MAX = 96
SILENCE_SECONDS_MAX = 120
JOIN_SECONDS_MAX = 60
PIECES_BEFORE_KILL = 12


def address():
    for port in (8080, 0):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            print("127.0.0.1:%d" % listener.getsockname()[1])
            return 0
    return 1


def get(server, path):
    connection = http.client.HTTPConnection(server, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def is_running(pid):
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    try:
        with open("/proc/%d/stat" % pid) as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return True


def wait(server, *pids):
    started, shown = time.monotonic(), None
    while time.monotonic() - started < READY_SECONDS_MAX:
        for pid in pids:
            if not is_running(int(pid)):
                print("process %s ended" % pid, file=sys.stderr)
                return 1
        try:
            if get(server, "/readyz")[0] == 200:
                print("ready after %.1f s" % (time.monotonic() - started))
                return 0
            detail = json.loads(get(server, "/health")[1]).get("detail")
        except OSError:
            detail = "the API does not listen yet"
        if detail != shown:
            print("%5.1f s  %s" % (time.monotonic() - started, detail), flush=True)
            shown = detail
        time.sleep(0.1)
    print("not ready after %d s: %s" % (READY_SECONDS_MAX, shown), file=sys.stderr)
    return 1


def topology(server):
    health = json.loads(get(server, "/health")[1])
    row = "%5s  %-12s  %-10s  %10s  %9s"
    print(row % ("stage", "worker", "layers", "mapped MiB", "KV blocks"))
    for stage in health["stages"]:
        first, end = stage["layers"]
        mapped = "%.1f" % (stage["mapped_bytes"] / 2**20)
        print(row % (stage["stage"], stage["worker"], "%d-%d" % (first, end - 1), mapped, stage["kv_blocks"]))
    print("%s: context %d tokens, KV cache for %d" % (health["model"], health["ctx_size"], health["kv_tokens"]))
    return 0


def joined(server, count):
    started = time.monotonic()
    while time.monotonic() - started < JOIN_SECONDS_MAX:
        try:
            lines = get(server, "/metrics")[1].splitlines()
            if sum(line.startswith("woolly_worker_unheard_seconds{") for line in lines) >= int(count):
                return 0
        except OSError:
            pass  # The API does not listen yet.
        time.sleep(0.1)
    return 1


def kill(server, question, pid):
    """Asks twice; the second time a process is killed after a few pieces of text."""
    plain, killed = [], []
    if ask(server, question, plain.append, quiet=True):
        return 1
    if ask(server, question, killed.append, victim=int(pid)):
        return 1
    if plain != killed:
        print("the answer is another one: %r instead of %r" % ("".join(killed), "".join(plain)), file=sys.stderr)
        return 1
    print("the same %d pieces of text as without the kill" % len(plain))
    return 0


def ask(server, question, heard=lambda text: None, victim=None, quiet=False):
    """A streamed answer; `heard` is given its pieces, `victim` is killed in the middle of it."""
    model = json.loads(get(server, "/health")[1])["model"]
    body = json.dumps({
        "model": model, "messages": [{"role": "user", "content": question}],
        "max_tokens": ANSWER_TOKENS_MAX, "temperature": 0, "stream": True, "stream_options": {"include_usage": True},
    })
    connection = http.client.HTTPConnection(server, timeout=SILENCE_SECONDS_MAX)
    started = time.monotonic()
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        print("status %d: %s" % (answer.status, answer.read().decode()), file=sys.stderr)
        return 1
    first = last = usage = None
    done, pieces, pause = False, 0, 0.0
    for line in answer:
        line = line.decode().strip()
        if not line.startswith("data:"):
            continue
        data = line[len("data:"):].strip()
        if data == "[DONE]":
            done = True
            break
        event = json.loads(data)
        if "error" in event:
            print("\nerror: %s" % event["error"], file=sys.stderr)
            return 1
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            text = choice["delta"].get("content")
            if text:
                now = time.monotonic()
                pause = max(pause, now - (last or now))
                last = now
                first = first or last
                pieces += 1
                heard(text)
                if not quiet:
                    print(text, end="", flush=True)
                if pieces == PIECES_BEFORE_KILL and victim:
                    os.kill(victim, signal.SIGKILL)
                    print(" [killed] ", end="", flush=True)
    if quiet:
        return 0 if done else 1
    print()
    if not (done and first and usage and usage["completion_tokens"] > 0):
        print("the stream ended early", file=sys.stderr)
        return 1
    tokens = usage["completion_tokens"]
    print("\n%d prompt tokens, %d answer tokens" % (usage["prompt_tokens"], tokens))
    print("time to first token %.2f s" % (first - started), end="")
    if tokens > 1 and last > first:
        print(", then %.1f tokens/s" % ((tokens - 1) / (last - first)), end="")
    print()
    if victim:
        if pieces < PIECES_BEFORE_KILL:
            print("the answer was too short to kill anything in it", file=sys.stderr)
            return 1
        print("the longest pause was %.2f s" % pause)
    return 0


COMMANDS = {"address": address, "wait": wait, "topology": topology, "joined": joined, "ask": ask, "kill": kill}

if __name__ == "__main__":
    try:
        sys.exit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
    except (OSError, http.client.HTTPException) as error:
        print("%s: %s" % (sys.argv[1], error), file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
