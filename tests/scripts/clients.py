#!/usr/bin/env python3
"""LangChain and LiteLLM, unchanged, against a running server, with what they and their users really send.

    clients.py BASE_URL        such as http://127.0.0.1:8080/v1
"""
import json
import os
import sys
import urllib.request

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
QUESTION = "Name three uses for a brick."


def openai_history(base, model):
    """A conversation that was begun with another server: its messages carry that server's fields."""
    from openai import OpenAI

    client = OpenAI(base_url=base, api_key="none")
    messages = [
        {"role": "system", "content": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": QUESTION, "name": "ada"},
        {"role": "assistant", "content": None, "refusal": None, "annotations": [], "audio": None,
         "function_call": None, "tool_calls": None, "reasoning_content": "thoughts"},
        {"role": "user", "content": "Go on."},
    ]
    plain = dict(model=model, messages=messages, max_tokens=8, temperature=0)
    expected = client.chat.completions.create(**plain).choices[0].message.content
    harmless = dict(
        stop="", seed=-1, tools=[], tool_choice="auto", parallel_tool_calls=True, response_format={"type": "text"}, store=True,
        service_tier="auto", reasoning_effort="none", user="ada", metadata={"a": "b"}, n=1, top_p=1, presence_penalty=0,
        extra_body={"top_k": -1, "think": False, "cache_prompt": True, "timings_per_token": False, "mirostat": 0, "mirostat_tau": 5,
                    "samplers": None, "repeat_last_n": 64, "chat_template_kwargs": {}, "min_p": 0, "cache_control": None},
    )
    found = client.chat.completions.create(**plain, **harmless).choices[0].message.content
    assert found == expected, f"{found!r} instead of {expected!r}"
    again = client.chat.completions.create(**{**plain, "temperature": 1}, seed=-7)
    assert again.choices[0].message.content
    for most in (-1, 10**6):
        answer = client.chat.completions.create(**{**plain, "messages": [{"role": "user", "content": "Say yes."}]} | {"max_tokens": most},
                                                stop=["."])
        assert answer.choices[0].finish_reason == "stop"
    many = client.completions.create(model=model, prompt=["a b c"] * 300, max_tokens=1, temperature=0)
    assert len({choice.text for choice in many.choices}) == 1 and len(many.choices) == 300


def langchain(base, model):
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
    from langchain_openai import ChatOpenAI, OpenAI

    chat = ChatOpenAI(base_url=base, api_key="none", model=model, temperature=0, max_tokens=8)
    history = [SystemMessage("Be brief."), HumanMessage(QUESTION), AIMessage("Building."), HumanMessage("Another?")]
    answer = chat.invoke(history)
    assert answer.content and answer.usage_metadata["output_tokens"] <= 8
    streamed = "".join(chunk.content for chunk in chat.stream(history))
    assert streamed == answer.content, f"streamed {streamed!r}, answered {answer.content!r}"
    # An answer goes back as it came, with the fields that its class adds.
    assert chat.invoke([*history, answer, HumanMessage("And?")]).content
    assert [part.content for part in chat.batch([history, history])] == [answer.content] * 2
    scored = chat.bind(logprobs=True, top_logprobs=2).invoke(history)
    assert scored.response_metadata["logprobs"]["content"]
    text = OpenAI(base_url=base, api_key="none", model=model, temperature=0, max_tokens=8)
    assert text.invoke("The sheep") == "".join(text.stream("The sheep"))
    assert len(text.generate(["The sheep", "The hill"]).generations) == 2


def litellm(base, model):
    import litellm

    litellm.telemetry = False
    messages = [{"role": "user", "content": [{"type": "text", "text": QUESTION, "cache_control": {"type": "ephemeral"}}]}]
    common = dict(messages=messages, api_base=base, api_key="none", temperature=0, max_tokens=8)
    texts = set()
    for provider in ("openai", "hosted_vllm", "custom_openai"):
        answer = litellm.completion(model=f"{provider}/{model}", **common)
        texts.add(answer.choices[0].message.content)
        chunks = litellm.completion(model=f"{provider}/{model}", stream=True, **common)
        texts.add("".join(chunk.choices[0].delta.content or "" for chunk in chunks))
    assert len(texts) == 1, texts
    answer = litellm.completion(model=f"openai/{model}", seed=-1, user="ada", metadata={"a": "b"}, stop=[], reasoning_effort="none",
                                allowed_openai_params=["reasoning_effort"], top_k=-1, **common)
    history = [*messages, answer.choices[0].message.model_dump(), {"role": "user", "content": "Another?"}]
    assert litellm.completion(model=f"openai/{model}", **{**common, "messages": history}).choices[0].message.content
    done = litellm.text_completion(model=f"text-completion-openai/{model}", prompt="The sheep", api_base=base, api_key="none", max_tokens=4)
    assert done.choices[0].text
    try:
        long = [{"role": "user", "content": "sheep " * 20000}]
        litellm.completion(model=f"openai/{model}", **{**common, "messages": long})
        raise AssertionError("a prompt beyond the context was answered")
    except litellm.ContextWindowExceededError:
        pass


def main():
    base = sys.argv[1]
    with urllib.request.urlopen(base + "/models") as answer:
        model = json.load(answer)["data"][0]["id"]
    for check in (openai_history, langchain, litellm):
        check(base, model)
        print(f"{check.__name__}: all of it was answered", flush=True)


main()
