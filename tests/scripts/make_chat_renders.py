#!/usr/bin/env python3
"""Render conversations with Python's jinja2, as the models' own tools do, for the tests of chat templates.

    make_chat_renders.py TEMPLATES [OUT]

TEMPLATES: the folder vocabs/templates that scripts/fetch_vocabs.sh makes.
OUT: the file to write, default tests/fixtures/chat/renders.json.

Needs jinja2 (3.1). Tool calls have objects for arguments here and JSON texts in the tests' requests, as clients send them.
"""

import copy
import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NAMES = [
    "HuggingFaceTB-SmolLM3-3B",
    "LFM2-8B-A1B",
    "Mistral-Small-3.2-24B-Instruct-2506",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "Qwen-QwQ-32B",
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "Qwen3-Coder",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "google-gemma-2-2b-it",
    "ibm-granite-granite-3.3-2B-Instruct",
    "ibm-granite-granite-4.0",
    "meta-llama-Llama-3.1-8B-Instruct",
    "meta-llama-Llama-3.2-3B-Instruct",
    "microsoft-Phi-3.5-mini-instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "openai-gpt-oss-120b",
]
# 26 July 2024, 09:30:05 UTC, for templates that ask.
NOW = datetime.datetime(2024, 7, 26, 9, 30, 5)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather <now> & \"here\"",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Zürich, 東京"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
]
CALL = {"id": "abc123def", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2}}}
CONVERSATIONS = {
    "question": {"messages": [{"role": "user", "content": "Name three uses for a brick."}]},
    "turns": {
        "messages": [
            {"role": "system", "content": "Be brief & kind.\n"},
            {"role": "user", "content": "  Hello 🤗\n\n"},
            {"role": "assistant", "content": "Hi <there>!"},
            {"role": "user", "content": "{{ 1 }} and 'quotes'"},
        ]
    },
    "tools": {"messages": [{"role": "user", "content": "Weather in Zürich?"}], "tools": TOOLS},
    "called": {
        "messages": [
            {"role": "user", "content": "Weather in Zürich?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "{\"sky\": \"clear\"}", "name": "get_weather", "tool_call_id": "abc123def"},
        ],
        "tools": TOOLS,
    },
}


class Refused(Exception):
    pass


def environment():
    def raise_exception(message):
        raise Refused(message)

    def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    top = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else top / "tests/fixtures/chat/renders.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    renders = []
    for name in NAMES:
        source = (pathlib.Path(sys.argv[1]) / f"{name}.jinja").read_text("utf-8")
        template = environment().from_string(source)
        for conversation, variables in CONVERSATIONS.items():
            given = copy.deepcopy(variables)
            try:
                text = template.render(add_generation_prompt=True, bos_token="<s>", eos_token="</s>", **given)
            except (Refused, jinja2.TemplateError, TypeError) as error:
                print(f"{name}, {conversation}: {type(error).__name__}: {error}")
                text = None
            renders.append({"template": name, "conversation": conversation, "text": text})
    sent = copy.deepcopy(CONVERSATIONS)
    for variables in sent.values():
        for message in variables["messages"]:
            for call in message.get("tool_calls", []):
                call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    lines = ",\n".join(json.dumps(render, ensure_ascii=False) for render in renders)
    head = json.dumps(sent, ensure_ascii=False)
    seconds = int(NOW.replace(tzinfo=datetime.timezone.utc).timestamp())
    out.write_text(f'{{"unix_seconds": {seconds},\n"conversations": {head},\n"renders": [\n{lines}\n]}}\n', "utf-8")
    print(f"{len(renders)} renders")


if __name__ == "__main__":
    main()
