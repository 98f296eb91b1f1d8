"""What a caller gets from a provider that others wrote, in whichever dialect it is asked.

Owns: checks that need no more of an answer than its shape. Refuses to know: what the provider says.
"""

import json

import anthropic
import openai

from checks import KEY, MODEL, PICTURE, TOOL_SCHEMA, URL, check, equal, main

USUAL = {"api_key": KEY, "max_retries": 0, "timeout": 20, "_strict_response_validation": True}
OPENAI = openai.OpenAI(base_url=f"{URL}/v1", **USUAL)
ANTHROPIC = anthropic.Anthropic(base_url=URL, **USUAL)
ASK = [{"role": "user", "content": "What is the weather in Köln? Answer at some length."}]
FUNCTION = {"name": "weather", "description": "The weather of a city", "parameters": TOOL_SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]
ANTHROPIC_TOOLS = [
    {"name": "weather", "description": "The weather of a city", "input_schema": TOOL_SCHEMA}
]


def create(**more):
    return OPENAI.chat.completions.create(**{"model": MODEL, "messages": ASK} | more)


def message(**more):
    return ANTHROPIC.messages.create(
        **{"model": MODEL, "max_tokens": 500, "messages": ASK} | more
    )


def text_of(answer):
    return "".join(block.text for block in answer.content if block.type == "text")


@check
def openai_answers():
    whole = create()
    said = whole.choices[0].message.content
    assert said and whole.usage.completion_tokens > 0, whole
    equal(whole.choices[0].finish_reason, "stop")
    chunks = list(create(stream=True, stream_options={"include_usage": True}))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    equal("".join(choice.delta.content or "" for choice in choices), said, "the stream")
    equal([it.finish_reason for it in choices if it.finish_reason], ["stop"])
    equal(chunks[-1].usage.total_tokens, whole.usage.total_tokens)


@check
def anthropic_answers():
    whole = message()
    said = text_of(whole)
    assert said and whole.usage.output_tokens > 0, whole
    equal(whole.stop_reason, "end_turn")
    with ANTHROPIC.messages.stream(model=MODEL, max_tokens=500, messages=ASK) as events:
        final = events.get_final_message()
    equal((text_of(final), final.stop_reason), (said, "end_turn"))
    equal(final.usage.output_tokens, whole.usage.output_tokens)


@check
def openai_tools():
    whole = create(tools=TOOLS).choices[0]
    equal(whole.finish_reason, "tool_calls")
    (call,) = whole.message.tool_calls
    arguments = json.loads(call.function.arguments)
    equal((call.function.name, list(arguments)), ("weather", ["city"]))
    streamed = ""
    for chunk in create(tools=TOOLS, stream=True):
        for choice in chunk.choices:
            for part in choice.delta.tool_calls or []:
                streamed += part.function.arguments or ""
    equal(json.loads(streamed), arguments)
    told = {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "blue"}'}
    said = [*ASK, whole.message.model_dump(exclude_none=True), told]
    end = create(messages=said, tools=TOOLS).choices[0]
    assert end.finish_reason == "stop" and end.message.content, end


@check
def anthropic_tools():
    whole = message(tools=ANTHROPIC_TOOLS)
    equal(whole.stop_reason, "tool_use")
    (call,) = [block for block in whole.content if block.type == "tool_use"]
    equal((call.name, list(call.input)), ("weather", ["city"]))
    with ANTHROPIC.messages.stream(
        model=MODEL, max_tokens=500, messages=ASK, tools=ANTHROPIC_TOOLS
    ) as events:
        final = events.get_final_message()
    equal([block.input for block in final.content if block.type == "tool_use"], [call.input])
    use = {"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}
    told = {"type": "tool_result", "tool_use_id": call.id, "content": "blue"}
    said = [
        *ASK,
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [told]},
    ]
    end = message(messages=said, tools=ANTHROPIC_TOOLS)
    assert end.stop_reason == "end_turn" and text_of(end), end


@check
def pictures():
    url = {"url": f"data:image/png;base64,{PICTURE}"}
    parts = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": url}]
    assert create(messages=[{"role": "user", "content": parts}]).choices[0].message.content
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What?"}]
    assert text_of(message(messages=[{"role": "user", "content": parts}]))


def finishes(call):
    """Every reason to end that is heard of a stream, and how it ended."""
    heard = []
    try:
        for chunk in call():
            heard += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
    except openai.APIError as error:
        return heard, type(error).__name__
    return heard, None


@check
def openai_heals():
    """The first attempt fails before it says anything; the caller does not see it."""
    equal(finishes(lambda: create(stream=True)), (["stop"], None))
    assert create().choices[0].message.content


@check
def openai_breaks():
    """The stream breaks in its middle; the caller is told."""
    heard, error = finishes(lambda: create(stream=True))
    equal(heard, [])
    assert error is not None, "it looks finished"


if __name__ == "__main__":
    main()
