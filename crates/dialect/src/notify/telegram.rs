//! Telegram: `sendMessage` of its bot interface.
//!
//! Owns: the text and its limit, and what the answer means. Refuses to know: how the token is kept.
//!
//! There is no `parse_mode`: the text is shown as it is, so that nothing in it needs an escape and
//! nothing in it can be one.

use std::time::Duration;

use serde_json::{Value, json};

use super::answer::{Delivery, failure};
use super::text::{Unit, fit_escaped};
use super::{Notice, Outgoing};

/// Of a message, in units of UTF-16.
const TEXT_UNITS: usize = 4_096;

/// Whether it is a bot's token, with or without the `bot` that addresses have in front of it.
/// Anything else must not become part of a path.
#[must_use]
pub fn is_token(token: &str) -> bool {
    let Some((bot, key)) = bare(token).split_once(':') else { return false };
    let is_key = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    !bot.is_empty()
        && bot.bytes().all(|byte| byte.is_ascii_digit())
        && !key.is_empty()
        && key.bytes().all(is_key)
}

fn bare(token: &str) -> &str {
    token.strip_prefix("bot").unwrap_or(token)
}

/// The message to `chat`, which is a number or `@name`. `token` has to be one ([`is_token`]).
#[must_use]
pub fn request(notice: &Notice, token: &str, chat: &str) -> Outgoing {
    let mut text = notice.headline();
    if !notice.text.trim().is_empty() {
        text.push_str("\n\n");
        text.push_str(&notice.text);
    }
    // What is cut off is the end of the text and not where more is to be read.
    let url = notice.link().map(|link| format!("\n\n{link}")).unwrap_or_default();
    let url_units = url.encode_utf16().count();
    let (url, url_units) =
        if url_units < TEXT_UNITS / 4 { (url.as_str(), url_units) } else { ("", 0) };
    let mut text = fit_escaped(&text, TEXT_UNITS - url_units, Unit::Utf16, |_| None);
    text.push_str(url);
    let path = format!("/bot{}/sendMessage", bare(token));
    let body = json!({
        "chat_id": chat,
        "text": text,
        "link_preview_options": { "is_disabled": true },
    });
    Outgoing::post(path, &body)
}

/// What the answer means. How long to wait is in the body.
#[must_use]
pub fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Delivery {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let told = said.pointer("/parameters/retry_after").and_then(Value::as_u64);
    let retry_after = told.map(Duration::from_secs).or(retry_after);
    if let Some(failure) = failure(status, retry_after) {
        return failure;
    }
    match said.get("ok").and_then(Value::as_bool) {
        Some(true) => {
            let id = said.pointer("/result/message_id").and_then(Value::as_i64);
            Delivery::delivered(id.map(|id| id.to_string()).as_deref())
        }
        Some(false) => Delivery::Refused { why: "it refuses the message" },
        None => Delivery::Unknown,
    }
}
