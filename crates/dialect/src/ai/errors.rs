//! Errors, a provider's as meaning and ours as a client's dialect has them.
//!
//! Owns: whom an error speaks about, and the words of each dialect for a status. Refuses to know:
//! what is done about it.

use serde::Deserialize;
use serde_json::Value;

use super::Api;
use super::write::object;

/// Bytes of a provider's sentence that are kept.
const MESSAGE_BYTES: usize = 512;
/// Bytes of a provider's word that are kept.
const CODE_BYTES: usize = 64;
/// Bytes of a body that are read as JSON; errors are short, and pages of proxies are not JSON.
const BODY_BYTES: usize = 1 << 16;

/// Whom an error of a provider speaks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum About {
    /// The provider's key: wrong, not permitted, without credit.
    Key,
    /// The way to the model, or the model: broken, busy, too slow, not there.
    Route,
    /// The request itself: every provider would say so.
    Request,
    /// What is asked for is not permitted: not to be routed around.
    Policy,
}

impl About {
    /// The word in receipts and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            About::Key => "key",
            About::Route => "route",
            About::Request => "request",
            About::Policy => "policy",
        }
    }
}

/// An error as a provider tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// Whom it speaks about.
    pub about: About,
    /// The provider's own word for it, made plain: 1 to 64 letters, digits, `.`, `_` and `-`.
    pub code: String,
    /// Whether it asks to be called less.
    pub is_throttle: bool,
    /// The provider's sentence, at most 512 bytes, without control characters; may be empty. Not
    /// for clients where it is about the key, which some providers repeat in it.
    pub message: String,
}

/// What is looked at of an error object, in any dialect.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shape {
    message: Value,
    /// OpenAI's word, or Gemini's number.
    code: Value,
    /// OpenAI's and Anthropic's class.
    r#type: Value,
    /// Gemini's word.
    status: Value,
    /// Gemini's reasons.
    details: Value,
}

impl ProviderError {
    /// Reads the body of an answer that is not a 2xx. Total: any body has a meaning, if only that
    /// of its status.
    #[must_use]
    pub fn parse(from: Api, status: u16, body: &[u8]) -> ProviderError {
        let shape = match body.len() {
            0..=BODY_BYTES => serde_json::from_slice(body).ok().and_then(error_object),
            _ => None,
        };
        ProviderError::of(from, status, &shape.unwrap_or_default())
    }

    /// The error inside an event of a stream: its status is in its words.
    pub(super) fn in_stream(from: Api, json: &str) -> ProviderError {
        let shape = serde_json::from_str(json).ok().and_then(error_object).unwrap_or_default();
        // Gemini's number is a status; with OpenAI's kind some gateways send one.
        let status = shape.code.as_u64().and_then(|code| u16::try_from(code).ok());
        ProviderError::of(from, status.unwrap_or(0), &shape)
    }

    fn of(from: Api, status: u16, shape: &Shape) -> ProviderError {
        let words = words(shape);
        let message = match &shape.message {
            Value::String(message) => plain_message(message),
            _ => String::new(),
        };
        let status = if status == 0 { status_of(&words) } else { status };
        let (about, is_throttle) = classify(from, status, &words, &message);
        let code = words.into_iter().next().unwrap_or_else(|| format!("http_{status}"));
        ProviderError { about, code, is_throttle, message }
    }

    /// An answer that failed by its own reason to end.
    pub(super) fn failed(reason: &str) -> ProviderError {
        let code = Some(plain_word(reason)).filter(|word| !word.is_empty());
        ProviderError {
            about: About::Route,
            code: code.unwrap_or_else(|| "failed".to_owned()),
            is_throttle: false,
            message: String::new(),
        }
    }
}

/// The error object, wherever it stands: under `error`, in an array (Gemini's streams), or bare.
fn error_object(body: Value) -> Option<Shape> {
    let body = match body {
        Value::Array(mut list) if !list.is_empty() => list.swap_remove(0),
        body => body,
    };
    let Value::Object(mut members) = body else { return None };
    match members.remove("error") {
        Some(Value::String(message)) => {
            Some(Shape { message: Value::String(message), ..Shape::default() })
        }
        Some(error @ Value::Object(_)) => serde_json::from_value(error).ok(),
        _ => {
            if let Some(detail) = members.remove("detail") {
                members.entry("message").or_insert(detail);
            }
            serde_json::from_value(Value::Object(members)).ok()
        }
    }
}

/// The provider's words, the most special first.
fn words(shape: &Shape) -> Vec<String> {
    let reasons = shape.details.as_array().into_iter().flatten();
    let reasons = reasons.filter_map(|detail| detail.get("reason"));
    let named = [&shape.code, &shape.status, &shape.r#type];
    let all = reasons.chain(named).filter_map(Value::as_str).map(plain_word);
    all.filter(|word| !word.is_empty()).collect()
}

/// A word that may be a label, a log field and a part of an answer.
fn plain_word(text: &str) -> String {
    let plain = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    text.chars().filter(plain).take(CODE_BYTES).collect::<String>().to_ascii_lowercase()
}

fn plain_message(text: &str) -> String {
    let mut kept = String::new();
    for letter in text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }) {
        if kept.len() + letter.len_utf8() > MESSAGE_BYTES {
            break;
        }
        kept.push(letter);
    }
    kept
}

/// Words about the account behind the key, whatever the status.
const KEY_WORDS: &[&str] = &[
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "account_deactivated",
    "invalid_api_key",
    "api_key_invalid",
    "authentication_error",
    "permission_error",
    "permission_denied",
    "unauthenticated",
];

/// Words about what is permitted.
const POLICY_WORDS: &[&str] = &[
    "content_filter",
    "content_policy",
    "policy_violation",
    "policyviolation",
    "moderation",
    "invalid_prompt",
    "safety",
];

/// Sentences that say more than their words: a key that is called an argument, a bill that is
/// called a request.
const KEY_SENTENCES: &[&str] = &[
    "API key not valid",
    "API key expired",
    "credit balance is too low",
    "location is not supported",
];

fn classify(from: Api, status: u16, words: &[String], message: &str) -> (About, bool) {
    let is = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
    let holds =
        |known: &[&str]| words.iter().any(|word| known.iter().any(|part| word.contains(part)));
    if is(KEY_WORDS) || KEY_SENTENCES.iter().any(|known| message.contains(known)) {
        return (About::Key, false);
    }
    if (400..500).contains(&status) && status != 429 && holds(POLICY_WORDS) {
        return (About::Policy, false);
    }
    match status {
        401..=403 => (About::Key, false),
        429 => (About::Route, true),
        // The name of the model is the operator's: another provider may have it.
        404 => (About::Route, false),
        // Nobody has seen the request whole.
        408 | 409 | 425 => (About::Route, false),
        // Gemini's word for an argument out of range is a client's; for a state it is not.
        400 if from == Api::Gemini && is(&["failed_precondition"]) => (About::Key, false),
        400..=499 => (About::Request, false),
        _ => (About::Route, false),
    }
}

/// The status that an answer with these words would have had.
fn status_of(words: &[String]) -> u16 {
    const KNOWN: &[(&str, u16)] = &[
        ("overloaded", 529),
        ("rate_limit", 429),
        ("resource_exhausted", 429),
        ("too_many_requests", 429),
        ("authentication", 401),
        ("permission", 403),
        ("content_filter", 400),
        ("not_found", 404),
        ("request_too_large", 413),
        ("context_length_exceeded", 400),
        ("invalid_argument", 400),
        ("invalid_request", 400),
        ("invalid_prompt", 400),
        ("timeout", 504),
    ];
    let known = |word: &String| KNOWN.iter().find(|(part, _)| word.contains(part));
    words.iter().find_map(known).map_or(500, |(_, status)| *status)
}

/// The word for the type of an error of that HTTP status.
#[must_use]
pub fn error_type(api: Api, status: u16) -> &'static str {
    match (api, status) {
        (_, 401) => "authentication_error",
        (_, 403) => "permission_error",
        (_, 429) => "rate_limit_error",
        (Api::Anthropic, 402) => "billing_error",
        (Api::Anthropic, 404) => "not_found_error",
        (Api::Anthropic, 413) => "request_too_large",
        (Api::Anthropic, 503 | 529) => "overloaded_error",
        (Api::Anthropic, 504) => "timeout_error",
        (Api::Anthropic, 500..) => "api_error",
        (_, 402) => "insufficient_quota",
        (_, 404) => "not_found_error",
        (_, 500..) => "server_error",
        _ => "invalid_request_error",
    }
}

/// The body of a refusal for a client. `ours` are further members of the error object, as names and
/// JSON values.
#[must_use]
pub fn client_error(
    api: Api,
    status: u16,
    code: &str,
    message: &str,
    request_id: &str,
    ours: &[(&str, Value)],
) -> Vec<u8> {
    let kind = error_type(api, status);
    object(|body| {
        if api == Api::Anthropic {
            body.text("type", "error");
        }
        body.object("error", |error| {
            if api == Api::Anthropic {
                error.text("type", kind);
                error.text("message", message);
                error.text("code", code);
            } else {
                error.text("message", message);
                error.text("type", kind);
                error.null("param");
                error.text("code", code);
                error.text("request_id", request_id);
            }
            for (name, value) in ours {
                error.raw(name, &value.to_string());
            }
        });
        if api == Api::Anthropic {
            body.text("request_id", request_id);
        }
    })
}
