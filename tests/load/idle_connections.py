#!/usr/bin/env python3
"""Keep-alive connections that only ask /livez, more of them than there are places, and good requests beside
them. Prints how long both took; fails if one was not answered or p99 is above a second.

    tests/load/idle_connections.py MODEL [--connections 1100] [--seconds 60]
"""
import argparse
import asyncio
import random
import time

from server import Answer, Server, many_files, message, percentile


async def idle(port, until, times, failures):
    """One connection that asks every 3 s, and opens another when it was closed, as a client does."""
    await asyncio.sleep(random.random() * 3)
    answer = None
    while time.monotonic() < until:
        begun = time.monotonic()
        try:
            if answer is None:
                answer = await Answer.of(port, message("GET", "/livez", keep=True))
            else:
                answer.writer.write(message("GET", "/livez", keep=True))
                await answer.head(time.monotonic())
            await answer.body()
            if answer.status != 200:
                failures.append(answer.status)
            times.append(time.monotonic() - begun)
        except (ConnectionError, asyncio.IncompleteReadError):
            # It was idle and made room for another: the next request comes on a new one, at once.
            reopened, answer = answer is None, None
            if reopened:
                failures.append("closed when it was opened")
            continue
        await asyncio.sleep(3)


async def good(port, until, times, failures, data):
    while time.monotonic() < until:
        begun = time.monotonic()
        try:
            answer = await Answer.of(port, data)
            await answer.body()
            answer.close()
            if answer.status != 200:
                failures.append(answer.status)
            times.append(time.monotonic() - begun)
        except ConnectionError as error:
            failures.append(str(error))
        await asyncio.sleep(0.25)


async def measure(port, connections, seconds):
    until = time.monotonic() + seconds
    idle_times, idle_failures, times, failures, probes, probe_failures = [], [], [], [], [], []
    body = {"prompt": "The sheep", "max_tokens": 4, "temperature": 0}
    request = message("POST", "/v1/completions", body)
    probe = message("GET", "/readyz")
    tasks = [idle(port, until, idle_times, idle_failures) for _ in range(connections)]
    tasks += [good(port, until, times, failures, request) for _ in range(4)]
    tasks += [good(port, until, probes, probe_failures, probe)]
    await asyncio.gather(*tasks)
    wrong = 0
    for name, seen, failed in (
        ("/livez", idle_times, idle_failures),
        ("good requests", times, failures),
        ("/readyz on connections of its own", probes, probe_failures),
    ):
        p50, p99 = percentile(seen, 0.5), percentile(seen, 0.99)
        print(f"{name}: {len(seen)} answered, {len(failed)} not {failed[:3]}, "
              f"p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, max {max(seen) * 1e3:.0f} ms")
        wrong += bool(failed) or not p99 <= 1
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--connections", type=int, default=1100)
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    many_files()
    with Server(args.model) as server:
        if not server.is_ready(60):
            raise SystemExit(server.log())
        raise SystemExit(asyncio.run(measure(server.port, args.connections, args.seconds)))


main()
