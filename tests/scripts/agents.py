#!/usr/bin/env python3
"""Real clients with tools, structured output and their own APIs, unchanged, against a running server.

    agents.py HOST:PORT            all of them, side by side
    agents.py HOST:PORT NAME...    only these

Says for each what it took. The model is small, so nothing is asked for that only a good one could do: tools are called because they must be, and
answers are what their schema says.
"""
from client_checks import QUESTION, TOOL, Brick, check_arguments, main


def openai_tools(base, model):
    from openai import OpenAI

    client = OpenAI(base_url=base + "/v1", api_key="none")
    history = [{"role": "user", "content": QUESTION}]
    common = dict(model=model, tools=[TOOL], temperature=0, max_tokens=200)
    for choice in ("required", {"type": "function", "function": {"name": "order_brick"}}):
        answer = client.chat.completions.create(messages=history, tool_choice=choice, **common).choices[0]
        assert answer.finish_reason == "tool_calls", answer
        call = answer.message.tool_calls[0]
        assert call.type == "function" and call.function.name == "order_brick"
        check_arguments(call.function.arguments)
        with client.chat.completions.stream(messages=history, tool_choice=choice, **common) as stream:
            streamed = stream.get_final_completion().choices[0].message.tool_calls
        assert [c.function.arguments for c in streamed] == [c.function.arguments for c in answer.message.tool_calls]
    history += [answer.message, {"role": "tool", "tool_call_id": call.id, "content": "Ordered."}]
    again = client.chat.completions.create(messages=history, tool_choice="none", **common | {"max_tokens": 12})
    assert again.choices[0].message.content and not again.choices[0].message.tool_calls


def openai_parse(base, model):
    from openai import OpenAI

    client = OpenAI(base_url=base + "/v1", api_key="none")
    messages = [{"role": "user", "content": QUESTION}]
    answer = client.chat.completions.parse(model=model, messages=messages, response_format=Brick, temperature=1, seed=5, max_tokens=100)
    assert isinstance(answer.choices[0].message.parsed, Brick)
    three = client.chat.completions.create(model=model, messages=messages, n=3, seed=7, max_tokens=8)
    assert sorted(choice.index for choice in three.choices) == [0, 1, 2]


def openai_responses(base, model):
    from openai import OpenAI

    client = OpenAI(base_url=base + "/v1", api_key="none")
    answer = client.responses.create(model=model, input=QUESTION, max_output_tokens=16, temperature=0)
    assert answer.output_text
    with client.responses.stream(model=model, input=QUESTION, max_output_tokens=16, temperature=0) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete"), kinds
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == answer.output_text
    assert isinstance(client.responses.parse(model=model, input=QUESTION, text_format=Brick).output_parsed, Brick)
    tool = {"type": "function", **TOOL["function"], "strict": True}
    called = client.responses.create(model=model, input=QUESTION, tools=[tool], tool_choice="required", max_output_tokens=200)
    calls = [item for item in called.output if item.type == "function_call"]
    check_arguments(calls[0].arguments)


def anthropic_messages(base, model):
    from anthropic import Anthropic

    client = Anthropic(base_url=base, api_key="none")
    greedy = {"temperature": 0}
    common = dict(model=model, max_tokens=16, extra_body=greedy, messages=[{"role": "user", "content": QUESTION}])
    answer = client.messages.create(**common)
    assert answer.content[0].text and answer.stop_reason in ("end_turn", "max_tokens")
    with client.messages.stream(**common) as stream:
        assert stream.get_final_text() == answer.content[0].text
    counted = client.messages.count_tokens(model=model, messages=common["messages"])
    # What a cache held is counted apart.
    assert counted.input_tokens == answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    function = TOOL["function"]
    tool = {"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}
    with client.messages.stream(**common | {"max_tokens": 200}, tools=[tool], tool_choice={"type": "any"}) as stream:
        final = stream.get_final_message()
    uses = [block for block in final.content if block.type == "tool_use"]
    assert final.stop_reason == "tool_use"
    check_arguments(uses[0].input)


def ollama_chat(base, model):
    from ollama import Client

    client = Client(host=base)
    assert any(found.model.startswith(model) for found in client.list().models)
    messages = [{"role": "user", "content": QUESTION}]
    options = {"temperature": 0, "num_predict": 12}
    answer = client.chat(model=model, messages=messages, options=options)
    assert answer.message.content and answer.done
    streamed = "".join(part.message.content for part in client.chat(model=model, messages=messages, options=options, stream=True))
    assert streamed == answer.message.content
    assert client.generate(model=model, prompt=QUESTION, options=options).response
    shaped = client.chat(model=model, messages=messages, format=Brick.model_json_schema(), options={"num_predict": 100})
    Brick.model_validate_json(shaped.message.content)
    assert client.show(model).details and client.ps().models


def langchain(base, model):
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(base_url=base + "/v1", api_key="none", model=model, temperature=0, max_tokens=200)
    bound = chat.bind_tools([TOOL], tool_choice="required")
    check_arguments(bound.invoke(QUESTION).tool_calls[0]["args"])
    for method in ("json_schema", "function_calling"):
        assert isinstance(chat.with_structured_output(Brick, method=method).invoke(QUESTION), Brick), method


def instructor_modes(base, model):
    import instructor
    from openai import OpenAI

    client = OpenAI(base_url=base + "/v1", api_key="none")
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        made = instructor.from_openai(client, mode=mode).chat.completions.create(
            model=model, response_model=Brick, messages=[{"role": "user", "content": QUESTION}], max_tokens=200)
        assert isinstance(made, Brick), mode


def pydantic_agent(base, model):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    found = OpenAIChatModel(model, provider=OpenAIProvider(base_url=base + "/v1", api_key="none"))
    agent = Agent(found, output_type=Brick, model_settings={"temperature": 0, "max_tokens": 200})
    assert isinstance(agent.run_sync(QUESTION).output, Brick)


CLIENTS = [openai_tools, openai_parse, openai_responses, anthropic_messages, ollama_chat, langchain, instructor_modes, pydantic_agent]


if __name__ == "__main__":
    main(CLIENTS, len(CLIENTS))
