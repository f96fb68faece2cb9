"""What the checks with real clients share: a question, a tool, the schema of its arguments, and how clients are run and told of."""
import concurrent.futures
import json
import sys
import time
import traceback
import urllib.request
from typing import Annotated, Literal

from pydantic import BaseModel, Field

QUESTION = "Which brick do you like? Say its colour and size."
TOOL = {
    "type": "function",
    "function": {
        "name": "order_brick",
        "description": "Orders a brick.",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "green", "blue"]}, "size": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["colour", "size"],
            "additionalProperties": False,
        },
    },
}


class Brick(BaseModel):
    colour: Literal["red", "green", "blue"]
    size: Annotated[int, Field(ge=1, le=9)]


def check_arguments(text):
    Brick.model_validate_json(text if isinstance(text, str) else json.dumps(text))


def run(client, base, model):
    begun = time.monotonic()
    try:
        client(base, model)
    except Exception:
        return client.__name__, time.monotonic() - begun, traceback.format_exc()
    return client.__name__, time.monotonic() - begun, None


def main(clients, at_once):
    """Runs those that the command line names, or all, so many at a time, and ends the process: with 1 if one failed."""
    base, wanted = "http://" + sys.argv[1], sys.argv[2:]
    model = json.load(urllib.request.urlopen(base + "/v1/models"))["data"][0]["id"]
    clients = [client for client in clients if not wanted or client.__name__ in wanted]
    failed = []
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for name, seconds, error in pool.map(lambda client: run(client, base, model), clients):
            print(f"{name}: {'failed' if error else 'passed'} after {seconds:.1f} s", flush=True)
            if error:
                failed.append((name, error))
    for name, error in failed:
        print(f"--- {name}\n{error}", file=sys.stderr)
    sys.exit(bool(failed))
