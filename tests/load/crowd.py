#!/usr/bin/env python3
"""Does a crowd of idle and slow connections delay those who use the server?

    tests/load/crowd.py MODEL [--active 64] [--idle 1000] [--slow 40] [--rounds 4]

The active ones, 64 streams one after another on connections of their own, first alone, then beside 1,000 connections that are kept open and now and
then ask /livez, 40 that read their stream a few bytes a second, and 40 that send their request a byte at a time; in turns. Prints the time to
the first token of both, and fails if p99 is more than 1.5 times as long beside the crowd, or if a good request was not answered.
"""
import argparse
import asyncio
import random
import sys
import time

from server import Answer, Server, many_files, message, percentile


async def active(port, index, requests, times):
    for number in range(requests):
        body = {"prompt": f"The sheep number {index * 100 + number}", "max_tokens": 16, "temperature": 0, "stream": True, "ignore_eos": True}
        data = message("POST", "/v1/completions", body)
        begun = time.monotonic()
        answer = await Answer.of(port, data)
        if answer.status != 200:
            raise SystemExit(f"status {answer.status}: {await answer.body()}")
        first, whole = None, False
        while line := await answer.reader.readline():
            if first is None and line.startswith(b'data: {'):
                first = time.monotonic() - begun
            whole |= line.startswith(b"data: [DONE]")
        answer.close()
        if not whole:
            raise SystemExit("an answer broke off")
        times.append(first)


async def idle(port):
    """A connection that is kept; it comes again when its place was needed."""
    while True:
        try:
            answer = await Answer.of(port, message("GET", "/livez", keep=True))
            while True:
                await answer.body()
                await asyncio.sleep(2 + 2 * random.random())
                answer.writer.write(message("GET", "/livez", keep=True))
                await answer.head(time.monotonic())
        except (ConnectionError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.2)


async def slow_reader(port):
    while True:
        try:
            # More than the sockets hold.
            body = {"messages": [{"role": "user", "content": "Slowly"}], "max_tokens": 128, "stream": True, "ignore_eos": True,
                    "logprobs": True, "top_logprobs": 20}
            answer = await Answer.of(port, message("POST", "/v1/chat/completions", body))
            while await answer.reader.read(16):
                await asyncio.sleep(1)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(1)


async def slow_sender(port):
    data = message("POST", "/v1/completions", {"prompt": "Slowly " * 40, "max_tokens": 1})
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            for byte in data:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.5)
            writer.close()
        except ConnectionError:
            await asyncio.sleep(1)


async def one_round(port, given, crowded):
    crowd = []
    if crowded:
        crowd += [asyncio.create_task(idle(port)) for _ in range(given.idle)]
        crowd += [asyncio.create_task(make(port)) for _ in range(given.slow) for make in (slow_reader, slow_sender)]
        # The slow readers' tokens are computed by then, and what is left is their slowness.
        await asyncio.sleep(15)
    times = []
    await asyncio.gather(*(active(port, index, 4, times) for index in range(given.active)))
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--active", type=int, default=64)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    many_files()
    times = {False: [], True: []}
    with Server(given.model, "--ctx-size", "512", "--prefix-cache", "off") as server:
        if not server.is_ready(120):
            raise SystemExit(server.log())
        asyncio.run(one_round(server.port, given, False))
        for _ in range(given.rounds):
            for crowded, found in times.items():
                found += asyncio.run(one_round(server.port, given, crowded))
                time.sleep(2)
    for crowded, name in ((False, "alone"), (True, "beside the crowd")):
        p50, p99 = percentile(times[crowded], 0.5), percentile(times[crowded], 0.99)
        print(f"{len(times[crowded])} requests of {given.active} streams {name}: first token p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")
    ratio = percentile(times[True], 0.99) / percentile(times[False], 0.99)
    print(f"p99 is {ratio:.2f} times as long")
    sys.exit(not ratio <= 1.5)


if __name__ == "__main__":
    main()
