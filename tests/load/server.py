"""A coordinator with one local worker for a measurement, and requests to it. Standard library only."""
import asyncio
import http.client
import json
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]


def program(name):
    """The release build of a program; the debug build measures nothing."""
    path = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "release" / name
    if not path.exists():
        raise SystemExit(f"{path} is missing: cargo build --release --workspace")
    return str(path)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def many_files():
    """As many open files as the system allows: each client is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Server:
    def __init__(self, model, *flags, listen="127.0.0.1:0"):
        self.folder = tempfile.mkdtemp(prefix="woolly-load.")
        self.port = free_port()
        settings = {name: value for name, value in os.environ.items() if not name.startswith("WOOLLY_")}
        words = ["serve", str(model), "--http", str(self.port), "--listen", listen]
        words += ["--state-dir", self.folder + "/state", "--shutdown-timeout", "1s", *flags]
        self.log_path = self.folder + "/log"
        with open(self.log_path, "w") as log:
            self.process = subprocess.Popen(
                [program("woolly-coordinator"), *words], stdout=subprocess.DEVNULL, stderr=log, env=settings
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder)

    def log(self):
        return open(self.log_path, errors="replace").read()

    def ask(self, method, path, body=None, timeout=60):
        """Status, headers, text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode(errors="replace")
        finally:
            connection.close()

    def is_ready(self, seconds):
        """Waits until it serves; False if it ended or the time is up."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if self.ask("GET", "/readyz", timeout=5)[0] == 200:
                    return True
            except OSError:
                pass
            time.sleep(0.05)
        return False


def message(method, path, body=None, keep=False):
    text = "" if body is None else json.dumps(body)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(text)}\r\nConnection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    return (head + text).encode()


class Answer:
    """An answer as it comes: status, headers, time from the last byte in to the first byte out."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @staticmethod
    async def of(port, data):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        writer.write(data)
        await writer.drain()
        sent = time.monotonic()
        answer = Answer(reader, writer)
        await answer.head(sent)
        return answer

    async def head(self, sent):
        line = await self.reader.readline()
        self.first_byte = time.monotonic() - sent
        if not line:
            raise ConnectionError("closed without an answer")
        self.status = int(line.split()[1])
        self.headers = {}
        while (line := await self.reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            self.headers[name.lower()] = value.strip()
        if self.status == 100:
            await self.head(sent)

    async def body(self):
        length = self.headers.get("content-length")
        return await (self.reader.read() if length is None else self.reader.readexactly(int(length)))

    def close(self):
        self.writer.close()


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")
