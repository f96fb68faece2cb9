#!/usr/bin/env python3
"""Writes the lists of request fields in tests/fixtures/api/, one field a line.

    python3 -m venv /tmp/api && /tmp/api/bin/pip install openai==3.57.0 anthropic==2.14.0 ollama==0.6.3
    /tmp/api/bin/python tests/scripts/make_api_fields.py LLAMA_CPP

The fields of OpenAI's, Anthropic's and Ollama's come from the types of their Python packages; those of
llama-server from its source below LLAMA_CPP (tools/server), here that of llama_cpp_python 0.3.36
(llama.cpp 0c1e57098). Without LLAMA_CPP its list is left as it is. The gateway's tests hold docs/api.md
against these lists, vllm.txt included, which is written by hand.
"""

import importlib.metadata
import inspect
import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "api"


def write(name, source, fields):
    text = f"# {source}\n" + "".join(f"{field}\n" for field in sorted(set(fields)))
    (FOLDER / f"{name}.txt").write_text(text)
    print(f"{name}: {len(set(fields))} fields")


def typed(*classes):
    """The keys of TypedDicts, inherited ones included."""
    return [key for one in classes for key in one.__annotations__]


def sent_as_headers(function):
    """Arguments of a method of the Anthropic client that are sent as headers and not in the body."""
    found = re.search(r"strip_not_given\(\s*\{(.*?)\}", inspect.getsource(function), re.S)
    return re.findall(r'"[^"]+":\s*(\w+)', found.group(1)) if found else []


def openai():
    from openai.types import completion_create_params as completions
    from openai.types.chat import completion_create_params as chat
    from openai.types.responses import response_create_params as responses

    source = "openai " + importlib.metadata.version("openai")
    for name, module, base in [
        ("openai-chat", chat, "CompletionCreateParams"),
        ("openai-completions", completions, "CompletionCreateParams"),
        ("openai-responses", responses, "ResponseCreateParams"),
    ]:
        parts = [getattr(module, base + part) for part in ("Base", "NonStreaming", "Streaming")]
        write(name, f"{source}, {module.__name__}", typed(*parts))


def anthropic():
    from anthropic.resources.messages import Messages
    from anthropic.types import message_count_tokens_params as count
    from anthropic.types import message_create_params as create

    source = "anthropic " + importlib.metadata.version("anthropic")
    parts = [getattr(create, "MessageCreateParams" + part) for part in ("Base", "NonStreaming", "Streaming")]
    headers = sent_as_headers(Messages.create)
    fields = [field for field in typed(*parts) if field not in headers]
    write("anthropic-messages", f"{source}, {create.__name__}", fields)
    from anthropic.resources.beta.messages import Messages as BetaMessages
    from anthropic.types.beta import message_create_params as beta

    parts = [getattr(beta, "MessageCreateParams" + part) for part in ("Base", "NonStreaming", "Streaming")]
    fields = [field for field in typed(*parts) if field not in headers + sent_as_headers(BetaMessages.create)]
    write("anthropic-beta", f"{source}, {beta.__name__}", [field for field in fields if field != "betas"])
    fields = [field for field in typed(count.MessageCountTokensParams) if field not in headers]
    write("anthropic-count-tokens", f"{source}, {count.__name__}", fields)


def ollama():
    from ollama import _types as types

    source = "ollama " + importlib.metadata.version("ollama")
    for name, kind in [
        ("ollama-chat", types.ChatRequest),
        ("ollama-generate", types.GenerateRequest),
        ("ollama-options", types.Options),
    ]:
        write(name, f"{source}, {kind.__name__}", kind.model_fields)


def llama_server(root):
    """The fields of /v1/chat/completions: the schema that all requests share, and what chat reads itself."""
    folder = pathlib.Path(root) / "tools" / "server"
    schema = (folder / "server-schema.cpp").read_text()
    code = re.sub(r"//.*", "", schema)
    top = re.sub(r"->add_subfield\(\(new field_\w+\(\"[^\"]+\"", "", code)
    fields = re.findall(r'new field_\w+\("([^"]+)"', top) + re.findall(r'add_alias\("([^"]+)"', top)
    chat = (folder / "server-common.cpp").read_text()
    chat = chat[chat.index("json oaicompat_chat_params_parse(") :]
    fields += re.findall(r'json_value\(body, "([^"]+)"', chat)
    fields += re.findall(r'body\.(?:contains|at)\("([^"]+)"', chat)
    write("llama-server", "llama.cpp 0c1e57098 (llama_cpp_python 0.3.36), tools/server", fields)


def main():
    FOLDER.mkdir(exist_ok=True)
    openai()
    anthropic()
    ollama()
    if len(sys.argv) > 1:
        llama_server(sys.argv[1])


if __name__ == "__main__":
    main()
