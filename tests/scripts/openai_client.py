#!/usr/bin/env python3
"""The openai package against a running server: chat, stream, completion, log-probabilities, errors.

    openai_client.py BASE_URL        such as http://127.0.0.1:8080/v1
"""
import math
import sys

from openai import APIStatusError, NotFoundError, OpenAI

QUESTION = [{"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Name three uses for a brick."}]


def models(client):
    names = [model.id for model in client.models.list()]
    assert names, "the server lists no model"
    assert client.models.retrieve(names[0]).id == names[0]
    return names[0]


def chat(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=12, temperature=0)
    assert answer.object == "chat.completion" and answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content and answer.choices[0].finish_reason in ("stop", "length")
    assert 0 < answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    return answer.choices[0].message.content


def stream(client, model, expected):
    parts, usage, reason = [], None, None
    events = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=12, temperature=0, stream=True, stream_options={"include_usage": True})
    for event in events:
        usage = event.usage or usage
        for choice in event.choices:
            parts.append(choice.delta.content or "")
            reason = choice.finish_reason or reason
    assert "".join(parts) == expected, f"streamed {''.join(parts)!r}, answered {expected!r}"
    assert usage.completion_tokens > 0 and reason in ("stop", "length")


def stream_helper(client, model, expected):
    with client.chat.completions.stream(model=model, messages=QUESTION, max_tokens=12, temperature=0) as events:
        # The final completion is not asked for: the package refuses one that max_tokens has ended.
        assert "".join(event.delta for event in events if event.type == "content.delta") == expected


def chat_logprobs(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3)
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    for entry in entries:
        assert len(entry.top_logprobs) == 3 and entry.logprob <= 0
        assert math.isclose(entry.top_logprobs[0].logprob, entry.logprob)


def completion(client, model):
    answer = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8, temperature=0.8, seed=7, stop=["\n\n"])
    again = client.completions.create(model=model, prompt="Once upon a time", max_tokens=8, temperature=0.8, seed=7, stop=["\n\n"])
    assert answer.choices[0].text == again.choices[0].text, "one seed, two texts"
    text = "".join(event.choices[0].text for event in client.completions.create(
        model=model, prompt="Once upon a time", max_tokens=8, temperature=0.8, seed=7, stop=["\n\n"], stream=True))
    assert text == answer.choices[0].text


def scored(client, model):
    """A text is scored as evaluation harnesses do."""
    answer = client.completions.create(
        model=model, prompt="The capital of France is Paris", max_tokens=0, echo=True, logprobs=2)
    values = answer.choices[0].logprobs
    assert answer.choices[0].text == "The capital of France is Paris"
    assert values.token_logprobs[0] is None and all(value <= 0 for value in values.token_logprobs[1:])
    assert len(values.tokens) == len(values.token_logprobs) == len(values.top_logprobs) == answer.usage.prompt_tokens


def errors(client, model):
    try:
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
        raise AssertionError("an unknown model was accepted")
    except NotFoundError as error:
        assert error.code == "model_not_found"
    try:
        client.chat.completions.create(model=model, messages=QUESTION, n=9)
        raise AssertionError("n=9 was accepted")
    except APIStatusError as error:
        assert error.status_code == 400 and error.param == "n"


def main():
    client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0, timeout=120)
    model = models(client)
    text = chat(client, model)
    print(f"chat: {text!r}")
    stream(client, model, text)
    stream_helper(client, model, text)
    print("stream: the same")
    chat_logprobs(client, model)
    completion(client, model)
    print("completion: the same text for the same seed, streamed or not")
    scored(client, model)
    print("log-probabilities: chat, and a scored text")
    errors(client, model)
    print("errors: typed")


if __name__ == "__main__":
    main()
