//! Calls to models, as far as the service itself looks at them.
//!
//! Owns: what each route reads of a call, and the shape of errors there. Refuses to know: what the
//! vendors have besides; it passes through.

use dialect::admin::BudgetPeriod;
use dialect::ai::Api;
use governors::{Level, LimitSource, Period};
use serde_json::{Value, json};
use types::{Reason, Usage, limits};

use super::answers::{Told, answer};
use super::forms::{
    READABLE, answered, count, described, flag, integer, line, list, matching, may, must, or_null,
    schema, sent, text, words,
};
use super::requests::parameter;
use crate::table::Ai;

/// The header under which a call is made once, however often the request comes.
pub(super) fn idempotency_key() -> Value {
    parameter(
        "header",
        "Idempotency-Key",
        "same key and same body: 409 while the first is being answered, then its answer while that is \
         kept, else 409 with its receipt",
        matching("^[!-~]{1,128}$"),
    )
}

/// The body of a call.
pub(super) fn body(name: &str) -> Value {
    let description = "As the vendor documents it. The service reads what it needs to route and to \
                       bill the call; everything else goes to the provider as it is.";
    json!({
        "description": description,
        "required": true,
        "content": { "application/json": { "schema": schema(name) } },
    })
}

/// An answer, whole or as a stream of events.
pub(super) fn model_answer(shape: Value) -> Value {
    let mut told =
        answer("application/json", shape, Told::Kept, "the answer; X-Receipt-ID names the attempt");
    told["content"]["text/event-stream"] = json!({ "schema": text() });
    told
}

/// A refusal in the dialect of a route.
pub(super) fn refused(api: Api, status: u16) -> Value {
    let reasons = Reason::ALL.iter().filter(|reason| reason.status() == status);
    let help: Vec<String> =
        reasons.map(|reason| format!("`{}`: {}", reason.code(), reason.help())).collect();
    answer("application/json", schema(error_name(api)), Told::Decided, &help.join(" "))
}

fn error_name(api: Api) -> &'static str {
    match api {
        Api::Anthropic => "AnthropicError",
        Api::OpenAi | Api::Gemini => "OpenAiError",
    }
}

/// The schemas of calls and of their answers, by name.
pub(super) fn schemas() -> [(&'static str, Value); 15] {
    [
        ("ChatCall", call(true)),
        ("MessagesCall", call(true)),
        ("EmbeddingsCall", embeddings_call()),
        ("Chat", open("object", "choices")),
        ("Message", open("type", "content")),
        ("Embeddings", open("object", "data")),
        ("OpenAiError", openai_error()),
        ("AnthropicError", anthropic_error()),
        ("Models", models()),
        ("Usage", usage()),
        ("UsageLine", usage_line()),
        ("Invoice", invoice()),
        ("Entitlements", entitlements()),
        ("BudgetOrder", budget()),
        ("Dependencies", dependencies()),
    ]
}

/// What the service answers for each of the routes that call nobody.
pub(super) fn seen(ai: Ai) -> Option<(&'static str, &'static str)> {
    match ai {
        Ai::Models => Some(("Models", "the models that may be asked for")),
        Ai::Usage => Some(("Usage", "limits, and what is used of them")),
        Ai::Invoice => Some(("Invoice", "the bill of the month as it would be now")),
        Ai::Entitlements => Some(("Entitlements", "what the tenant holds")),
        Ai::Chat | Ai::Messages | Ai::Embeddings => None,
    }
}

fn call(has_messages: bool) -> Value {
    let mut call = sent([
        must("model", line(1, limits::MODEL_CHARS)),
        may("stream", flag()),
        may("max_tokens", integer(1, limits::INTEGER_MAX)),
    ]);
    if has_messages {
        call["properties"]["messages"] = json!({ "type": "array", "items": schema(READABLE) });
        call["required"] = json!(["model", "messages"]);
    }
    call
}

fn embeddings_call() -> Value {
    let input = json!({ "anyOf": [text(), list(text()), list(count()), list(list(count()))] });
    sent([must("model", line(1, limits::MODEL_CHARS)), must("input", input)])
}

/// An object of a vendor's, of which two members are sure.
fn open(first: &str, second: &str) -> Value {
    json!({ "type": "object", "required": [first, second] })
}

fn error_members() -> Value {
    json!({
        "type": "object",
        "required": ["message", "type"],
        "properties": {
            "message": text(),
            "type": text(),
            "reason": words(Reason::ALL.iter().map(|reason| reason.code())),
            "retryable": flag(),
        },
    })
}

fn openai_error() -> Value {
    answered([must("error", error_members())])
}

fn anthropic_error() -> Value {
    answered([
        must("type", words(["error"])),
        must("error", error_members()),
        may("request_id", text()),
    ])
}

fn models() -> Value {
    let one = answered([
        must("id", text()),
        must("object", words(["model"])),
        must("created", count()),
        must("owned_by", text()),
    ]);
    answered([must("object", words(["list"])), must("data", list(one))])
}

fn micros() -> Value {
    described(count(), "millionths of the unit of currency")
}

fn usage() -> Value {
    let period = answered([
        must("kind", words([Period::Month, Period::Day, Period::Ever].map(Period::as_str))),
        must("begins", or_null(text())),
        must("ends", or_null(text())),
    ]);
    let sources = [LimitSource::Plan, LimitSource::Own, LimitSource::None];
    let limits = answered([
        must("from", words(sources.map(LimitSource::as_str))),
        must("calls", or_null(count())),
        must("spend_micros", or_null(micros())),
    ]);
    answered([
        must("object", words(["usage"])),
        must("plan", text()),
        must("currency", text()),
        must("period", period),
        must("limits", limits),
        must("calls", count()),
        must("open_calls", count()),
        must("spent_micros", micros()),
        must("reserved_micros", micros()),
        must("unknown_calls", count()),
        must("unknown_micros", micros()),
        must("over_micros", micros()),
        must("level", words(Level::ALL.map(Level::as_str))),
        must("models", list(schema("UsageLine"))),
    ])
}

fn usage_line() -> Value {
    let tokens = answered(Usage::BUCKETS.iter().map(|bucket| may(bucket, count())));
    answered([
        must("model", text()),
        must("calls", count()),
        must("tokens", tokens),
        must("micros", micros()),
    ])
}

fn invoice() -> Value {
    let plan = answered([must("plan", text()), must("minor", count()), must("micros", micros())]);
    answered([
        must("object", words(["invoice.preview"])),
        must("currency", text()),
        must("begins", text()),
        must("ends", text()),
        must("lines", list(json!({ "anyOf": [plan, schema("UsageLine")] }))),
        must("total_micros", micros()),
    ])
}

fn entitlements() -> Value {
    let one = answered([
        must("entitlement_id", text()),
        must("state", text()),
        must("plan", or_null(text())),
    ]);
    answered([must("object", words(["list"])), must("data", list(one))])
}

fn budget() -> Value {
    let one =
        |name: &str| json!({ "required": [name], "properties": { name: { "type": "integer" } } });
    let mut budget = sent([
        may("calls", described(integer(0, i64::from(u32::MAX)), "without it as many as it likes")),
        may("spend_minor", described(integer(0, i64::from(u32::MAX)), "minor units of currency")),
        may("period", words(BudgetPeriod::ALL.map(BudgetPeriod::as_str))),
    ]);
    budget["additionalProperties"] = false.into();
    budget["anyOf"] = json!([one("calls"), one("spend_minor")]);
    budget
}

fn dependencies() -> Value {
    let one = answered([
        must("name", text()),
        must("breaker", words(["closed", "open", "half_open"])),
        must("is_forced", flag()),
        must("failures", count()),
        must("in_flight", count()),
        must("in_flight_max", count()),
        must("paused_for_s", count()),
    ]);
    answered([must("dependencies", list(one))])
}
