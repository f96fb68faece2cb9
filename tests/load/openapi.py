#!/usr/bin/env python3
"""/openapi.json against what the server does: schemathesis makes requests of the document, right ones and wrong ones.

    tests/load/openapi.py MODEL [--examples 25]

Fails if an answer is 500 or more (but 503, which the document has: a full queue), if its status or its media type is not in the document, or if
a request that the document rules out is obeyed. Installs schemathesis into target/schemathesis.
"""
import argparse
import os
import pathlib
import subprocess
import sys

from server import TOP, Server

VERSION = "schemathesis==4.32.5"
# Seconds until the run is given up.
RUN_MAX = 600
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection,unsupported_method"


def schemathesis():
    folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")) / "schemathesis"
    if not list(folder.glob("lib/*/site-packages/schemathesis-" + VERSION.split("==")[1] + ".dist-info")):
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", VERSION], check=True)
    return (folder / "bin/schemathesis").absolute()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--examples", type=int, default=25, help="requests of each endpoint that are drawn at random")
    args = parser.parse_args()
    program = schemathesis()
    # Answers end soon without a limit of their own, and the document's examples name a model of the tests.
    with Server(args.model, "--ctx-size", "64", "--any-model") as server:
        assert server.is_ready(60), server.log()
        words = ["run", f"http://127.0.0.1:{server.port}/openapi.json", "--phases", "examples,coverage,fuzzing", "--checks", CHECKS,
                 "--max-examples", str(args.examples), "--seed", "1", "--generation-deterministic",
                 "--continue-on-failure", "--suppress-health-check", "all", "--request-timeout", "60", "--no-color"]
        # It leaves notes of its failures where it runs.
        status = subprocess.run([program, *words], timeout=RUN_MAX, cwd=server.folder).returncode
        log = server.log()
    asked = log.count(" INFO request id=")
    panics = [line for line in log.splitlines() if "panicked" in line]
    print(f"{asked} requests, {log.count(' status=200 ')} of them answered, {len(panics)} panics")
    sys.exit(status or bool(panics))


main()
