"""What a caller does with OpenAI's own client.

Owns: the checks of every call that the gateway answers in OpenAI's dialect. Refuses to know: which
provider is behind the model, and how the gateway was set up.
"""

import asyncio
import json
import os

import openai
from pydantic import BaseModel

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
CLIENT = openai.OpenAI(api_key=KEY, base_url=f"{URL}/v1", **USUAL)
ASK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Count to twenty, with a ü and a 🦀."},
]
TOOLS = [
    {
        "type": "function",
        "function": {"name": name, "description": "a tool", "parameters": TOOL_SCHEMA},
    }
    for name in ("weather", "time_of_day")
]


def create(**more):
    """A call with the usual model and question."""
    return CLIENT.chat.completions.create(**{"model": MODEL, "messages": ASK} | more)


def text_of(stream):
    """The text of a stream, and its chunks."""
    chunks = list(stream)
    deltas = (choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    return "".join(deltas), chunks


def finishes(chunks):
    """Every reason to end that a stream gave."""
    return [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]


def adds_up(usage):
    """Tokens that somebody was told; their sum is theirs."""
    assert usage is not None, "no usage"
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0, usage
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total")
    return usage


@check
def chat():
    answer = create()
    equal(answer.object, "chat.completion")
    equal(answer.choices[0].message.content, words(20))
    equal(answer.choices[0].message.role, "assistant")
    equal(answer.choices[0].finish_reason, "stop")
    equal(answer.model, MODEL, "the name that was asked for")
    assert answer.id.startswith("chatcmpl-"), answer.id
    assert adds_up(answer.usage).completion_tokens >= 20, answer.usage


@check
def details_of_usage():
    """The provider was told to cache 3 tokens and to think 5, which not every one tells apart."""
    plain = create().usage
    *_, last = create(stream=True, stream_options={"include_usage": True})
    for usage in (plain, last.usage):
        adds_up(usage)
        equal(usage.prompt_tokens_details.cached_tokens, 3, "cached")
        equal(usage.completion_tokens, 25, "thoughts are part of it")
        details = usage.completion_tokens_details
        equal(details.reasoning_tokens if details else 0, int(os.environ["AI_THOUGHTS"]))
    equal(plain.prompt_tokens, last.usage.prompt_tokens)


@check
def limit():
    answer = create(max_completion_tokens=3)
    equal(answer.choices[0].message.content, words(3))
    equal(answer.choices[0].finish_reason, "length")
    text, chunks = text_of(create(max_tokens=3, stream=True))
    equal((text, finishes(chunks)), (words(3), ["length"]))


@check
def stream():
    text, chunks = text_of(create(stream=True, stream_options={"include_usage": True}))
    equal(text, words(20))
    equal(finishes(chunks), ["stop"])
    equal({chunk.object for chunk in chunks}, {"chat.completion.chunk"})
    equal(len({chunk.id for chunk in chunks}), 1, "ids of one stream")
    equal({chunk.model for chunk in chunks}, {MODEL})
    equal(chunks[-1].choices, [])
    assert adds_up(chunks[-1].usage).completion_tokens >= 20, chunks[-1]
    equal(sum(chunk.usage is not None for chunk in chunks), 1, "chunks with usage")


@check
def stream_without_usage():
    text, chunks = text_of(create(stream=True))
    equal(text, words(20))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks), chunks[-1]


@check
def stream_helper():
    with CLIENT.chat.completions.stream(model=MODEL, messages=ASK) as events:
        kinds = {event.type for event in events}
        final = events.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds, kinds
    equal(final.choices[0].message.content, words(20))


@check
def tools():
    answer = create(tools=TOOLS)
    equal(answer.choices[0].finish_reason, "tool_calls")
    message = answer.choices[0].message
    equal([call.function.name for call in message.tool_calls], ["weather", "time_of_day"])
    equal(len({call.id for call in message.tool_calls}), 2, "ids of calls")
    for call in message.tool_calls:
        equal(json.loads(call.function.arguments), TOOL_ARGUMENTS)
    results(message.model_dump(exclude_none=True))


def results(message):
    """Answers every call of a message and hears the rest."""
    told = [
        {"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"sky": "blue"})}
        for call in message["tool_calls"]
    ]
    end = create(messages=[*ASK, message, *told], tools=TOOLS)
    equal(end.choices[0].message.content, words(20))
    equal(end.choices[0].finish_reason, "stop")


@check
def streamed_tools():
    calls = {}
    reasons = []
    for chunk in create(tools=TOOLS, stream=True):
        for choice in chunk.choices:
            reasons += [choice.finish_reason] if choice.finish_reason else []
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                call["id"] += part.id or ""
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
    equal(reasons, ["tool_calls"])
    equal(sorted(calls), [0, 1])
    equal([calls[at]["name"] for at in (0, 1)], ["weather", "time_of_day"])
    functions = [
        {
            "id": call["id"],
            "type": "function",
            "function": {"name": call["name"], "arguments": call["arguments"]},
        }
        for call in calls.values()
    ]
    for call in calls.values():
        equal(json.loads(call["arguments"]), TOOL_ARGUMENTS)
    results({"role": "assistant", "tool_calls": functions})


@check
def choice_of_tools():
    named = {"type": "function", "function": {"name": "time_of_day"}}
    message = create(tools=TOOLS, tool_choice=named).choices[0].message
    equal([call.function.name for call in message.tool_calls], ["time_of_day"])
    message = create(tools=TOOLS, tool_choice="none").choices[0].message
    equal(message.content, words(20))
    message = create(tools=TOOLS, tool_choice="required").choices[0].message
    equal(len(message.tool_calls), 2)


@check
def json_mode():
    ask = [{"role": "user", "content": "as JSON, please"}]
    answer = create(messages=ask, response_format={"type": "json_object"})
    equal(json.loads(answer.choices[0].message.content), {"words": list(range(20))})


class Place(BaseModel):
    """A document with a schema."""

    city: str
    days: int


@check
def json_schema():
    answer = CLIENT.chat.completions.parse(model=MODEL, messages=ASK, response_format=Place)
    equal(answer.choices[0].message.parsed, Place(city="ü0", days=7))


@check
def pictures():
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
    ]
    answer = create(messages=[{"role": "user", "content": parts}])
    equal(answer.choices[0].message.content, words(20))


@check
def embeddings():
    model = os.environ["AI_EMBEDDINGS_MODEL"]
    create = CLIENT.embeddings.create
    # The client asks for base64 by itself, and its published shape has no place for that.
    lax = openai.OpenAI(api_key=KEY, base_url=f"{URL}/v1", max_retries=0, timeout=20)
    usual = lax.embeddings.create(model=model, input=["one two", "three"])
    floats = create(model=model, input=["one two", "three"], encoding_format="float")
    equal([it.index for it in usual.data], [0, 1])
    equal([it.embedding for it in usual.data], [it.embedding for it in floats.data])
    assert usual.data[0].embedding != usual.data[1].embedding
    short = create(model=model, input="one", dimensions=5, encoding_format="float")
    equal(len(short.data[0].embedding), 5)


@check
def embeddings_usage():
    model = os.environ["AI_EMBEDDINGS_MODEL"]
    usage = CLIENT.embeddings.create(model=model, input="one two", encoding_format="float").usage
    assert usage.prompt_tokens > 0, usage
    equal(usage.total_tokens, usage.prompt_tokens)


@check
def models():
    names = [model.id for model in CLIENT.models.list()]
    assert MODEL in names, names
    equal({model.object for model in CLIENT.models.list().data}, {"model"})


@check
def headers():
    raw = CLIENT.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, extra_headers={"X-Request-ID": "of-the-caller-1"}
    )
    equal(raw.headers["x-request-id"], "of-the-caller-1")
    assert raw.headers["x-receipt-id"].startswith("rcpt_"), raw.headers
    equal(raw.parse().choices[0].message.content, words(20))
    with CLIENT.chat.completions.with_streaming_response.create(
        model=MODEL, messages=ASK, stream=True
    ) as response:
        receipt = response.headers["x-receipt-id"]
        equal(response.headers["content-type"].split(";")[0], "text/event-stream")
        text, _ = text_of(response.parse())
    equal(text, words(20))
    assert receipt.startswith("rcpt_") and receipt != raw.headers["x-receipt-id"], receipt


@check
def bad_key():
    for key in ("taik_nobody.00", "sk-another", "x"):
        stranger = CLIENT.with_options(api_key=key)
        call = lambda: stranger.chat.completions.create(model=MODEL, messages=ASK)
        refused(raises(openai.AuthenticationError, call), 401, "unauthorized")


@check
def unknown_model():
    error = raises(openai.NotFoundError, lambda: create(model="nobody"))
    refused(error, 404, "model_not_found")
    equal(error.code, "model_not_found")
    streamed = raises(openai.NotFoundError, lambda: create(model="nobody", stream=True))
    refused(streamed, 404, "model_not_found")


@check
def bad_requests():
    for more in (
        {"messages": []},
        {"messages": "hi"},
        {"max_tokens": "many"},
        {"max_tokens": -1},
        {"stream_options": 5, "stream": True},
        {"model": 5},
    ):
        error = raises(openai.BadRequestError, lambda: create(**more))
        equal(error.status_code, 400)
        assert error.body and error.body.get("message"), error.body


@check
def refused_by_provider():
    """The provider itself says that the request is too long."""
    refused(raises(openai.BadRequestError, create), 400, "provider_rejected")


@check
def budget():
    """The tenant has nothing left."""
    for call in (create, lambda: create(stream=True)):
        error = raises(openai.APIStatusError, call)
        refused(error, 402, "budget_exceeded")
        assert error.code == "budget_exceeded" and error.type, error.body


@check
def busy():
    """Every provider asks to be left alone."""
    error = raises(openai.InternalServerError, create)
    refused(error, 503, "provider_busy")
    assert int(error.response.headers["retry-after"]) > 0


@check
def too_many():
    """The key may ask twice."""
    seen = [raises_or_none(create) for _ in range(4)]
    limited = [error for error in seen if error is not None]
    assert limited, "nothing was limited"
    for error in limited:
        assert type(error) is openai.RateLimitError, repr(error)
        refused(error, 429, "rate_limit_exceeded")
        assert int(error.response.headers["retry-after"]) > 0


def raises_or_none(call):
    """What a call ends with."""
    try:
        call()
    except openai.APIError as error:
        return error
    return None


@check
def retried_by_the_client():
    """The provider is away for two calls; the client's own retries get through."""
    patient = CLIENT.with_options(max_retries=3)
    answer = patient.chat.completions.create(model=MODEL, messages=ASK)
    equal(answer.choices[0].message.content, words(20))


@check
def timeout():
    """The provider says nothing, and the client does not wait."""
    hasty = CLIENT.with_options(timeout=0.5)
    call = lambda: hasty.chat.completions.create(model=MODEL, messages=ASK)
    raises(openai.APITimeoutError, call)


@check
def provider_timeout():
    """The provider says nothing, and the gateway does not wait."""
    refused(raises(openai.InternalServerError, create), 504, "provider_timeout")


@check
def broken_stream():
    """The provider breaks off after some tokens: never a stream that looks finished."""
    heard = []

    def listen():
        for chunk in create(stream=True):
            heard.append(chunk)

    error = raises(openai.APIError, listen)
    assert error.message, error
    text, _ = text_of(heard)
    assert text and words(20).startswith(text) and text != words(20), text
    equal(finishes(heard), [])


@check
def whole_stream():
    """Whatever the first provider did, the caller has all of it, once."""
    text, chunks = text_of(create(stream=True, stream_options={"include_usage": True}))
    equal(text, words(20))
    equal(finishes(chunks), ["stop"])
    assert chunks[-1].usage is not None, "no usage"


@check
def early_leave():
    """Hears one token and leaves."""
    stream = create(stream=True)
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break
    stream.close()


@check
def async_client():
    async def run():
        async with openai.AsyncOpenAI(
            api_key=KEY, base_url=f"{URL}/v1", **USUAL
        ) as client:
            ask = client.chat.completions.create
            answers = await asyncio.gather(*(ask(model=MODEL, messages=ASK) for _ in range(8)))
            for answer in answers:
                equal(answer.choices[0].message.content, words(20))
            equal(len({answer.id for answer in answers}), 8, "ids")
            text = ""
            async for chunk in await ask(model=MODEL, messages=ASK, stream=True):
                text += chunk.choices[0].delta.content or ""
            equal(text, words(20))
            try:
                await ask(model="nobody", messages=ASK)
            except openai.NotFoundError as error:
                refused(error, 404, "model_not_found")
            else:
                raise AssertionError("nobody answered")

    asyncio.run(run())


@check
def echo():
    """Without any provider: the model that needs no key of anybody."""
    said = create(model="echo").choices[0].message.content
    assert "🦀" in said, said
    text, chunks = text_of(create(model="echo", stream=True))
    equal((text, finishes(chunks)), (said, ["stop"]))
    assert "echo" in [model.id for model in CLIENT.models.list()]


if __name__ == "__main__":
    main()
