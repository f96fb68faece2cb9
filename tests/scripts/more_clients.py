#!/usr/bin/env python3
"""More real clients, unchanged, against a running server: what agents.py leaves out because it takes too long to install.

    more_clients.py HOST:PORT NAME...    these, one after the other

Nothing is asked for that only a good model could do: see client_checks.py.
"""
import asyncio
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

# Prices and usage reports of these packages come from and go to places that nobody has asked for.
os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", HAYSTACK_TELEMETRY_ENABLED="False", OPENAI_AGENTS_DISABLE_TRACING="1",
                  DSPY_CACHEDIR=tempfile.gettempdir() + "/woolly-dspy", HF_HUB_OFFLINE="1")

from client_checks import QUESTION, TOOL, Brick, check_arguments, main  # noqa: E402

# The package openai-agents calls itself `agents`, as a script beside this one does.
sys.path.remove(str(pathlib.Path(__file__).resolve().parent))


MESSAGES = [{"role": "user", "content": QUESTION}]


def openai_async(base, model):
    from openai import AsyncOpenAI

    async def asked(client, stream):
        made = await client.chat.completions.create(model=model, messages=MESSAGES, temperature=0, max_tokens=12, stream=stream)
        if not stream:
            return made.choices[0].message.content
        return "".join([chunk.choices[0].delta.content or "" async for chunk in made if chunk.choices])

    async def all_of_them():
        async with AsyncOpenAI(base_url=base + "/v1", api_key="none") as client:
            return await asyncio.gather(*(asked(client, number % 2 == 1) for number in range(16)))

    texts = set(asyncio.run(all_of_them()))
    assert len(texts) == 1 and texts.pop()


def litellm_chat(base, model):
    import litellm

    litellm.suppress_debug_info = True
    common = dict(api_base=base + "/v1", api_key="none", messages=MESSAGES, temperature=0)
    texts = set()
    for provider in ("openai", "hosted_vllm", "custom_openai"):
        named = dict(model=f"{provider}/{model}", **common)
        texts.add(litellm.completion(max_tokens=12, **named).choices[0].message.content)
        chunks = litellm.completion(max_tokens=12, stream=True, **named)
        texts.add("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    assert len(texts) == 1, texts
    named = dict(model=f"openai/{model}", max_tokens=200, **common)
    calls = litellm.completion(tools=[TOOL], tool_choice="required", **named).choices[0].message.tool_calls
    check_arguments(calls[0].function.arguments)
    pieces = list(litellm.completion(tools=[TOOL], tool_choice="required", stream=True, **named))
    built = litellm.stream_chunk_builder(pieces, messages=MESSAGES)
    check_arguments(built.choices[0].message.tool_calls[0].function.arguments)
    check_arguments(litellm.completion(response_format=Brick, **named).choices[0].message.content)


def litellm_other_doors(base, model):
    """Its bridges to the APIs that are not OpenAI's chat."""
    import litellm

    litellm.suppress_debug_info = True
    responses = dict(model=f"openai/{model}", api_base=base + "/v1", api_key="none", input=QUESTION, temperature=0)
    answer = litellm.responses(max_output_tokens=16, **responses)
    assert answer.output[0].content[0].text
    kinds = [event.type for event in litellm.responses(max_output_tokens=16, stream=True, **responses)]
    assert kinds[-1] in ("response.completed", "response.incomplete"), kinds

    async def bridged(provider, address, **more):
        return await litellm.anthropic.messages.acreate(
            model=f"{provider}/{model}", api_base=address, api_key="none", messages=MESSAGES, max_tokens=200, temperature=0, **more)

    function = TOOL["function"]
    tool = {"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}
    # To /v1/responses, to /v1/chat/completions, to /v1/messages.
    for provider, address in (("openai", base + "/v1"), ("hosted_vllm", base + "/v1"), ("anthropic", base)):
        answer = asyncio.run(bridged(provider, address, tools=[tool], tool_choice={"type": "any"}))
        uses = [block for block in answer["content"] if block["type"] == "tool_use"]
        assert answer["stop_reason"] == "tool_use", answer
        check_arguments(uses[0]["input"])
    for provider, address in (("anthropic", base), ("ollama_chat", base)):
        named = dict(model=f"{provider}/{model}", api_base=address, api_key="none", messages=MESSAGES, max_tokens=12, temperature=0)
        whole = litellm.completion(**named).choices[0].message.content
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(stream=True, **named))
        assert whole and whole == streamed, (provider, whole, streamed)


def agents_sdk(base, model):
    import agents as sdk
    from openai import AsyncOpenAI

    ordered = []

    @sdk.function_tool
    def order_brick(colour: str, size: int) -> str:
        """Orders a brick."""
        ordered.append((colour, size))
        return "Ordered."

    async def all_of_it(kind):
        found = kind(model=model, openai_client=AsyncOpenAI(base_url=base + "/v1", api_key="none"))
        settings = sdk.ModelSettings(temperature=0, max_tokens=200, tool_choice="required")
        caller = sdk.Agent(name="caller", model=found, tools=[order_brick], model_settings=settings, tool_use_behavior="stop_on_first_tool")
        assert (await sdk.Runner.run(caller, QUESTION)).final_output == "Ordered."
        shaped = sdk.Agent(name="shaped", model=found, output_type=Brick, model_settings=sdk.ModelSettings(temperature=0, max_tokens=200))
        assert isinstance((await sdk.Runner.run(shaped, QUESTION)).final_output, Brick)
        # To the Responses door this package takes an answer that reached its limit for a failure, so that this one has to end by itself.
        streamed = sdk.Runner.run_streamed(shaped, QUESTION)
        kinds = [event.type async for event in streamed.stream_events()]
        assert isinstance(streamed.final_output, Brick) and "raw_response_event" in kinds

    for kind in (sdk.OpenAIChatCompletionsModel, sdk.OpenAIResponsesModel):
        asyncio.run(all_of_it(kind))
    assert ordered


def dspy_predict(base, model):
    import dspy

    # litellm's name for a local server of which it believes that it keeps to schemas.
    lm = dspy.LM(f"lm_studio/{model}", api_base=base + "/v1", api_key="none", temperature=0, max_tokens=200, cache=False)
    assert lm(QUESTION)[0]
    Brick.model_validate_json(lm(QUESTION, response_format=Brick)[0])
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        found = dspy.Predict(dspy.Signature("question: str -> brick: Brick", custom_types={"Brick": Brick}))(question=QUESTION)
    assert isinstance(found.brick, Brick)


def smol_agents(base, model):
    import smolagents

    class OrderBrick(smolagents.Tool):
        name = "order_brick"
        description = "Orders a brick."
        inputs = {"colour": {"type": "string", "description": "red, green or blue"}, "size": {"type": "integer", "description": "1 to 9"}}
        output_type = "string"

        def forward(self, colour: str, size: int) -> str:
            return "Ordered."

    found = smolagents.OpenAIModel(model, api_base=base + "/v1", api_key="none", temperature=0, max_tokens=200)
    messages = [smolagents.ChatMessage(role="user", content=[{"type": "text", "text": QUESTION}])]
    whole = found.generate(messages, stop_sequences=["Observation:"]).content
    assert whole and whole == "".join(delta.content or "" for delta in found.generate_stream(messages, stop_sequences=["Observation:"]))
    shape = {"type": "json_schema", "json_schema": {"name": "brick", "schema": Brick.model_json_schema()}}
    Brick.model_validate_json(found.generate(messages, response_format=shape).content)
    called = found.generate(messages, tools_to_call_from=[OrderBrick()]).tool_calls[0]
    assert called.function.name == "order_brick" and json.loads(called.function.arguments).keys() == {"colour", "size"}
    # Every step is a forced call of one of two tools; what the model makes of its results is its own affair.
    agent = smolagents.ToolCallingAgent(tools=[OrderBrick()], model=found, max_steps=2, verbosity_level=smolagents.LogLevel.OFF)
    assert agent.run(QUESTION)


def haystack_generators(base, model):
    from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
    from haystack.dataclasses import ChatMessage
    from haystack.tools import Tool
    from haystack.utils import Secret

    function = TOOL["function"]
    tool = Tool(name=function["name"], description=function["description"], parameters=function["parameters"], function=lambda **_: "Ordered.")
    common = dict(api_key=Secret.from_token("none"), model=model, api_base_url=base + "/v1")
    messages = [ChatMessage.from_user(QUESTION)]
    for kind, most in ((OpenAIChatGenerator, "max_completion_tokens"), (OpenAIResponsesChatGenerator, "max_output_tokens")):
        settings = {"temperature": 0, most: 200}
        pieces = []
        whole = kind(**common, generation_kwargs=settings | {most: 16}).run(messages)["replies"][0].text
        kind(**common, generation_kwargs=settings | {most: 16}, streaming_callback=lambda chunk: pieces.append(chunk.content)).run(messages)
        assert whole and "".join(pieces) == whole, (whole, pieces)
        called = kind(**common, tools=[tool], generation_kwargs=settings | {"tool_choice": "required"}).run(messages)["replies"][0]
        check_arguments(called.tool_calls[0].arguments)
        shape = "response_format" if kind is OpenAIChatGenerator else "text_format"
        Brick.model_validate_json(kind(**common, generation_kwargs=settings | {shape: Brick}).run(messages)["replies"][0].text)


def llm_command(base, model):
    """The command line of the package llm. It cannot force a call: with -T it is seen that the tool and its use are understood."""
    kinds = {"chat": {"supports_schema": True, "supports_tools": True}, "responses": {"responses": True, "supports_schema": True},
             "completion": {"completion": True}}
    with tempfile.TemporaryDirectory() as folder:
        entries = [{"model_id": kind, "model_name": model, "api_base": base + "/v1", **more} for kind, more in kinds.items()]
        # JSON is YAML.
        pathlib.Path(folder, "extra-openai-models.yaml").write_text(json.dumps(entries))

        def asked(kind, *words):
            command = [pathlib.Path(sys.executable).parent / "llm", "prompt", "-m", kind, QUESTION, "-o", "temperature", "0", *words]
            settings = os.environ | {"LLM_USER_PATH": folder, "OPENAI_API_KEY": "none"}
            return subprocess.run(command, env=settings, check=True, text=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL).stdout

        for kind in kinds:
            most = ["-o", "max_tokens", "12"]
            whole = asked(kind, "--no-stream", *most)
            assert whole.strip() and whole == asked(kind, *most), (kind, whole)
        for kind in ("chat", "responses"):
            Brick.model_validate_json(asked(kind, "--schema", json.dumps(Brick.model_json_schema())))
        assert asked("chat", "-T", "llm_version", "-o", "max_tokens", "12").strip()


def llama_index(base, model):
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    def order_brick(colour: str, size: int) -> str:
        """Orders a brick."""
        return "Ordered."

    common = dict(model=model, api_base=base + "/v1", api_key="none", is_chat_model=True, context_window=8192, temperature=0)
    chat = OpenAILike(max_tokens=12, **common)
    messages = [ChatMessage(role="user", content=QUESTION)]
    whole = chat.chat(messages).message.content
    assert whole and whole == "".join(part.delta or "" for part in chat.stream_chat(messages))
    text = OpenAILike(max_tokens=12, **common | {"is_chat_model": False})
    whole = text.complete(QUESTION).text
    assert whole and whole == "".join(part.delta or "" for part in text.stream_complete(QUESTION))
    for structured in (False, True):
        shaped = OpenAILike(max_tokens=200, is_function_calling_model=True, should_use_structured_outputs=structured, **common)
        assert isinstance(shaped.as_structured_llm(Brick).chat(messages).raw, Brick), structured
    called = shaped.chat_with_tools([FunctionTool.from_defaults(order_brick)], user_msg=QUESTION, tool_required=True)
    assert shaped.get_tool_calls_from_response(called)[0].tool_name == "order_brick"


def aider(base, model):
    """It asks, streams, and tells its tokens; what the model makes of the file is its own affair."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "sums.py").write_text("def add(a, b):\n    return a - b\n")
        words = ["--model", f"openai/{model}", "--openai-api-base", base + "/v1", "--openai-api-key", "none", "--edit-format", "whole",
                 "--message", "Mend the function add.", "--yes-always", "--no-git", "--no-check-update", "--no-show-model-warnings",
                 "--no-analytics", "--no-show-release-notes", "--map-tokens", "0", "--no-pretty", "--no-suggest-shell-commands", "sums.py"]
        found = subprocess.run([pathlib.Path(sys.executable).parent / "aider", *words], cwd=folder, env=os.environ | {"HOME": folder},
                               text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        assert found.returncode == 0 and re.search(r"Tokens: \d+ sent, [1-9]\d* received", found.stdout), found.stdout


CLIENTS = [openai_async, litellm_chat, litellm_other_doors, agents_sdk, dspy_predict, smol_agents, haystack_generators, llm_command,
           llama_index, aider]

if __name__ == "__main__":
    main(CLIENTS, 1)
