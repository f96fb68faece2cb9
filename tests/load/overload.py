#!/usr/bin/env python3
"""Ten times as many requests as the server can do, for a minute, against what 32 clients get done.

    tests/load/overload.py MODEL [--factor 10] [--seconds 60] [--tokens 32]

Prints tokens per second of both, and of the refusals how long the first byte took, and whether those who
came again when Retry-After said were let in. Fails if goodput is below 95 %, if a refusal is not 429 or 503 with
Retry-After, or if its p99 is above 100 ms.
"""
import argparse
import asyncio
import json
import random
import time

from server import Answer, Server, many_files, message, percentile


class Count:
    def __init__(self):
        self.tokens = []
        self.answered, self.failed = 0, []
        self.refusals, self.without = [], 0
        self.said = []
        self.returned = {"answered": 0, "refused": 0}


# Connections of clients that were refused: they keep them, as HTTP libraries do.
kept = []


async def ask(port, data):
    while kept:
        answer = kept.pop()
        try:
            answer.writer.write(data)
            await answer.head(time.monotonic())
            return answer
        except (ConnectionError, asyncio.IncompleteReadError):
            answer.close()
    return await Answer.of(port, data)


async def stream(port, data, count):
    """One streamed answer; the time of each token is kept. The status."""
    answer = await ask(port, data)
    try:
        if answer.status != 200:
            await answer.body()
            kept.append(answer)
            if answer.status in (429, 503) and "retry-after" in answer.headers:
                count.refusals.append(answer.first_byte)
                count.said.append(int(answer.headers["retry-after"]))
            else:
                count.without += 1
            return answer.status
        is_whole = False
        while line := await answer.reader.readline():
            if line.startswith(b"data: [DONE]"):
                is_whole = True
                break
            elif line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if "error" in event:
                    count.failed.append(event["error"])
                elif event.get("choices") and event["choices"][0].get("text"):
                    count.tokens.append(time.monotonic())
        count.answered += is_whole
        return 200
    finally:
        if answer not in kept:
            answer.close()


def request(tokens):
    prompt = " ".join(random.choice(("sheep", "wool", "hill", "rain", "dog")) for _ in range(16))
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    return message("POST", "/v1/completions", body, keep=True)


async def closed(port, clients, seconds, tokens):
    """Clients that ask again as soon as they are answered."""
    count, until = Count(), time.monotonic() + seconds

    async def client():
        while time.monotonic() < until:
            await stream(port, request(tokens), count)

    await asyncio.gather(*(client() for _ in range(clients)))
    return count


async def overload(port, rate, seconds, tokens):
    """Requests that come whether those before are answered or not. A hundredth of those who are refused come
    again once, when they were told to."""
    count, tasks = Count(), []

    async def arrive(number):
        said = len(count.said)
        status = await stream(port, request(tokens), count)
        if status != 200 and number % 100 == 0 and len(count.said) > said:
            await asyncio.sleep(count.said[-1])
            again = Count()
            status = await stream(port, request(tokens), again)
            count.returned["answered" if status == 200 else "refused"] += 1
            count.tokens += again.tokens

    begun = time.monotonic()
    number = 0
    while (now := time.monotonic()) < begun + seconds:
        while number < (now - begun) * rate:
            tasks.append(asyncio.create_task(arrive(number)))
            number += 1
        await asyncio.sleep(0.005)
    end = time.monotonic()
    used = seconds_of_cpu()
    print(f"{number} requests in {end - begun:.0f} s; waiting for those that were let in")
    await asyncio.gather(*tasks)
    return count, begun, end, used


def seconds_of_cpu():
    """Processor time that this program took: it runs on the machine that it measures."""
    return time.process_time()


async def usual(args, port):
    """What 32 clients get done: tokens per second, and the processors that this program took."""
    begun, cpu, seconds = time.monotonic(), seconds_of_cpu(), args.seconds / args.rounds / 2 + 2
    count = await closed(port, 32, seconds, args.tokens)
    end = begun + seconds
    rate = sum(begun + 2 <= at <= end for at in count.tokens) / (end - begun - 2)
    used = (seconds_of_cpu() - cpu) / (time.monotonic() - begun)
    print(f"32 clients: {rate:.0f} tokens/s, {rate / args.tokens:.1f} requests/s (this program: {used:.2f} processors)")
    return rate


async def measure(args, port):
    await closed(port, 32, 5, args.tokens)
    ordinary, good, refusals, said, returned, wrong = [], [], [], [], [], 0
    # A shared machine is not the same a minute later: in turn.
    for _ in range(args.rounds):
        ordinary.append(await usual(args, port))
        cpu, seconds = seconds_of_cpu(), args.seconds / args.rounds
        rate = args.factor * ordinary[-1] / args.tokens
        count, begun, end, used = await overload(port, rate, seconds, args.tokens)
        good.append(sum(begun + 2 <= at <= end for at in count.tokens) / (end - begun - 2))
        print(f"{args.factor} x overload: {good[-1]:.0f} tokens/s (this program: {(used - cpu) / (end - begun):.2f} processors); "
              f"{count.answered} answered, {len(count.failed)} failed {count.failed[:2]}, {len(count.refusals)} refused with "
              f"Retry-After, {count.without} without")
        refusals += count.refusals
        said += count.said
        returned.append(count.returned)
        wrong += count.without + len(count.failed)
    share = sum(good) / sum(ordinary)
    p50, p99 = percentile(refusals, 0.5), percentile(refusals, 0.99)
    print(f"goodput: {share:.1%} of that of 32 clients")
    print(f"refusals: first byte p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms; Retry-After "
          f"{min(said, default=0)} to {max(said, default=0)} s; those who came again when told: {returned}")
    return share < 0.95 or wrong or not p99 <= 0.1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--factor", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--flags", default="", help="more flags of serve")
    args = parser.parse_args()
    many_files()
    with Server(args.model, *args.flags.split()) as server:
        if not server.is_ready(120):
            raise SystemExit(server.log())
        raise SystemExit(int(bool(asyncio.run(measure(args, server.port)))))


main()
