"""What a caller does with Anthropic's own client.

Owns: the checks of every call that the gateway answers in Anthropic's dialect. Refuses to know: which
provider is behind the model, and how the gateway was set up.
"""

import asyncio

import anthropic

from checks import (
    KEY,
    MODEL,
    PICTURE,
    TOOL_ARGUMENTS,
    TOOL_SCHEMA,
    URL,
    check,
    equal,
    main,
    raises,
    refused,
    words,
)

# Answers that are not of the published shape are errors.
USUAL = {"max_retries": 0, "timeout": 20, "_strict_response_validation": True}
CLIENT = anthropic.Anthropic(api_key=KEY, base_url=URL, **USUAL)
ASK = [{"role": "user", "content": "Count to twenty, with a ü and a 🦀."}]
TOOLS = [
    {"name": name, "description": "a tool", "input_schema": TOOL_SCHEMA}
    for name in ("weather", "time_of_day")
]


def usual(more):
    """The arguments of a call with the usual model and question."""
    return {"model": MODEL, "max_tokens": 100, "system": "Be brief.", "messages": ASK} | more


def create(**more):
    """A call with the usual model and question."""
    return CLIENT.messages.create(**usual(more))


def text_of(message):
    """All text of a message."""
    return "".join(block.text for block in message.content if block.type == "text")


@check
def message():
    answer = create()
    equal((answer.type, answer.role), ("message", "assistant"))
    equal(text_of(answer), words(20))
    equal(answer.stop_reason, "end_turn")
    equal(answer.model, MODEL, "the name that was asked for")
    assert answer.id.startswith("msg_"), answer.id
    assert answer.usage.output_tokens >= 20, answer.usage
    assert answer.usage.input_tokens > 0, answer.usage


@check
def details_of_usage():
    """The provider was told to cache 3 tokens and to think 5."""
    plain = create().usage
    with CLIENT.messages.stream(**usual({})) as stream:
        streamed = stream.get_final_message().usage
    for usage in (plain, streamed):
        equal(usage.cache_read_input_tokens, 3, "cached")
        equal(usage.output_tokens, 25, "thoughts are part of it")
    equal(plain.input_tokens, streamed.input_tokens)


@check
def limit():
    answer = create(max_tokens=3)
    equal((text_of(answer), answer.stop_reason), (words(3), "max_tokens"))


@check
def stream():
    with CLIENT.messages.stream(**usual({})) as events:
        text = "".join(events.text_stream)
        final = events.get_final_message()
    equal(text, words(20))
    equal(text_of(final), words(20))
    equal(final.stop_reason, "end_turn")
    equal(final.model, MODEL)
    assert final.usage.output_tokens >= 20, final.usage
    assert final.usage.input_tokens > 0, final.usage


@check
def order_of_events():
    kinds = [event.type for event in create(stream=True)]
    equal(kinds[0], "message_start")
    equal(kinds[-2:], ["message_delta", "message_stop"])
    middle = kinds[1:-2]
    equal(middle[0], "content_block_start")
    equal(middle[-1], "content_block_stop")
    equal(set(middle[1:-1]), {"content_block_delta"})


@check
def tools():
    answer = create(tools=TOOLS)
    equal(answer.stop_reason, "tool_use")
    calls = [block for block in answer.content if block.type == "tool_use"]
    equal([call.name for call in calls], ["weather", "time_of_day"])
    equal([call.input for call in calls], [TOOL_ARGUMENTS] * 2)
    results(calls)


def results(calls):
    """Answers every call and hears the rest."""
    equal(len({call.id for call in calls}), len(calls), "ids of calls")
    said = [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}
        for call in calls
    ]
    told = [
        {"type": "tool_result", "tool_use_id": call.id, "content": "blue"} for call in calls
    ]
    messages = [
        *ASK,
        {"role": "assistant", "content": said},
        {"role": "user", "content": told},
    ]
    end = create(messages=messages, tools=TOOLS)
    equal((text_of(end), end.stop_reason), (words(20), "end_turn"))


@check
def streamed_tools():
    with CLIENT.messages.stream(**usual({"tools": TOOLS})) as events:
        for _ in events:
            pass
        final = events.get_final_message()
    equal(final.stop_reason, "tool_use")
    calls = [block for block in final.content if block.type == "tool_use"]
    equal([call.name for call in calls], ["weather", "time_of_day"])
    equal([call.input for call in calls], [TOOL_ARGUMENTS] * 2)
    results(calls)


@check
def choice_of_tools():
    named = create(tools=TOOLS, tool_choice={"type": "tool", "name": "time_of_day"})
    equal([block.name for block in named.content if block.type == "tool_use"], ["time_of_day"])
    equal(text_of(create(tools=TOOLS, tool_choice={"type": "none"})), words(20))


@check
def pictures():
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    equal(text_of(create(messages=[{"role": "user", "content": parts}])), words(20))


@check
def headers():
    raw = CLIENT.messages.with_raw_response.create(**usual({}))
    assert raw.headers["x-receipt-id"].startswith("rcpt_"), raw.headers
    assert raw.headers["x-request-id"], raw.headers
    equal(text_of(raw.parse()), words(20))


@check
def bad_key():
    stranger = CLIENT.with_options(api_key="sk-ant-another")
    call = lambda: stranger.messages.create(**usual({}))
    error = raises(anthropic.AuthenticationError, call)
    refused(error, 401, "unauthorized")
    equal(error.body["error"]["type"], "authentication_error")


@check
def unknown_model():
    error = raises(anthropic.NotFoundError, lambda: create(model="nobody"))
    refused(error, 404, "model_not_found")
    equal(error.body["type"], "error")
    equal(error.body["error"]["type"], "not_found_error")


@check
def bad_requests():
    for more in ({"messages": []}, {"messages": "hi"}, {"max_tokens": "many"}, {"max_tokens": -1}):
        error = raises(anthropic.BadRequestError, lambda: create(**more))
        equal(error.body["error"]["type"], "invalid_request_error")
        assert error.body["error"]["message"], error.body


@check
def budget():
    """The tenant has nothing left."""
    error = raises(anthropic.PaymentRequiredError, create)
    refused(error, 402, "budget_exceeded")


@check
def broken_stream():
    """The provider breaks off after some tokens: never a stream that looks finished."""
    heard = []

    def listen():
        for event in create(stream=True):
            heard.append(event)

    try:
        listen()
    except anthropic.APIError as error:
        assert error.message, error
    else:
        raise AssertionError("it looks finished")
    text = "".join(e.delta.text for e in heard if e.type == "content_block_delta")
    assert text and words(20).startswith(text) and text != words(20), text
    assert "message_stop" not in [event.type for event in heard]


@check
def whole_stream():
    """Whatever the first provider did, the caller has all of it, once."""
    with CLIENT.messages.stream(**usual({})) as events:
        final = events.get_final_message()
    equal((text_of(final), final.stop_reason), (words(20), "end_turn"))


@check
def timeout():
    """The provider says nothing, and the client does not wait."""
    hasty = CLIENT.with_options(timeout=0.5)
    raises(anthropic.APITimeoutError, lambda: hasty.messages.create(**usual({})))


@check
def early_leave():
    """Hears one token and leaves."""
    events = create(stream=True)
    for event in events:
        if event.type == "content_block_delta":
            break
    events.close()


@check
def async_client():
    async def run():
        async with anthropic.AsyncAnthropic(
            api_key=KEY, base_url=URL, **USUAL
        ) as client:
            ask = client.messages.create
            answers = await asyncio.gather(*(ask(**usual({})) for _ in range(8)))
            for answer in answers:
                equal(text_of(answer), words(20))
            equal(len({answer.id for answer in answers}), 8, "ids")
            async with client.messages.stream(**usual({})) as events:
                text = "".join([piece async for piece in events.text_stream])
            equal(text, words(20))

    asyncio.run(run())


@check
def echo():
    """Without any provider: the model that needs no key of anybody."""
    said = text_of(create(model="echo"))
    assert "🦀" in said, said
    with CLIENT.messages.stream(**usual({"model": "echo"})) as events:
        equal("".join(events.text_stream), said)


if __name__ == "__main__":
    main()
