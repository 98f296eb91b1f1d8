//! One event as one line of JSON.
//!
//! Owns the names and the order of the fields, their redaction while they are recorded, and the
//! limits on their length. Refuses to know where a line goes.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::Level;
use tracing::field::{Field, Visit};
use types::Micros;
use types::redact::{self, REDACTED};

use crate::trace::Context;

/// Bytes of text that one field keeps.
pub const VALUE_BYTES: usize = 4 * 1024;

/// Ends a value that was longer.
pub const CUT_MARK: &str = "…[cut]";

/// Errors that are followed below an error that is logged with its causes.
const CAUSES: usize = 8;

/// Written by the line itself; a field of that name gets an underscore behind its own.
const OWN_NAMES: [&str; 6] = ["timestamp", "level", "severity", "logger", "traceId", "spanId"];

/// The recorded fields of an event or a span: redacted and cut before they are kept.
#[derive(Debug, Clone, Default)]
pub struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Keeps a text under a name, as recording an event does. The last value of a name wins.
    pub fn text(&mut self, name: &'static str, text: &str) {
        let value = if is_sensitive(name) { REDACTED.to_owned() } else { clean(text) };
        self.set(name, Value::String(value));
    }

    /// Keeps a number or a flag.
    fn number(&mut self, name: &'static str, value: impl Into<Value>) {
        if redact::is_sensitive_number(name) {
            self.set(name, Value::from(REDACTED));
        } else {
            self.set(name, value.into());
        }
    }

    /// Whether the event is about this dependency.
    pub(super) fn is_about(&self, dependency: &str) -> bool {
        self.0.iter().any(|(name, value)| *name == "dependency" && value == dependency)
    }

    fn set(&mut self, name: &'static str, value: Value) {
        // A field called `type` or `match` is written with a raw identifier.
        let name = name.strip_prefix("r#").unwrap_or(name);
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no NaN and no infinity.
        match serde_json::Number::from_f64(value) {
            Some(number) => self.number(field.name(), number),
            None => self.text(field.name(), &value.to_string()),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = Bounded::default();
        let causes = std::iter::successors(Some(value), |error| error.source()).take(CAUSES);
        for (depth, cause) in causes.enumerate() {
            let separator = if depth == 0 { "" } else { ": " };
            if write!(text, "{separator}{cause}").is_err() {
                break;
            }
        }
        self.text(field.name(), &text.0);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = Bounded::default();
        // An error says that the text is full, which `clean` marks.
        let _full = write!(text, "{value:?}");
        self.text(field.name(), &text.0);
    }
}

thread_local! {
    /// Names of fields that were looked at, by where they stand in the program: there are as many
    /// as the source has, and each is written thousands of times a second.
    static LOOKED_AT: RefCell<HashMap<(usize, usize), bool>> = RefCell::default();
}

fn is_sensitive(name: &'static str) -> bool {
    let place = (name.as_ptr().addr(), name.len());
    LOOKED_AT
        .with_borrow_mut(|known| *known.entry(place).or_insert_with(|| redact::is_sensitive(name)))
}

/// Takes a little more than a value may have, so that a huge one is neither built nor mistaken
/// for one that just fits.
#[derive(Default)]
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(cut(text, (VALUE_BYTES + 1 + 3).saturating_sub(self.0.len())));
        if self.0.len() > VALUE_BYTES { Err(fmt::Error) } else { Ok(()) }
    }
}

/// At most `limit` bytes from the start of the text, whole characters.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Redacted and no longer than the limit. Cut first, so that the scanner's work is bounded, and
/// again because the replacement may be longer than what it replaced.
fn clean(text: &str) -> String {
    let masked = redact::mask(cut(text, VALUE_BYTES));
    if text.len() <= VALUE_BYTES && masked.len() <= VALUE_BYTES {
        return masked.into_owned();
    }
    [cut(&masked, VALUE_BYTES), CUT_MARK].concat()
}

/// One line without its line feed: `timestamp`, `level`, `severity`, `logger`, `event` if the
/// event has one, `message`, `traceId` and `spanId` while a request is handled, the event's other fields, then those of the spans around it, from
/// the innermost outwards, that are not overridden. A name with a dot is a member of an object:
/// `error.name` is `{"error": {"name": …}}`, as seeds 001 and 003 query it. `error` alone is
/// `error.message`, and a line of level ERROR that names none has its event for a name, so that
/// errors can be counted by it. `duration_ms` stands beside as `duration`, as seed 003 has it.
#[must_use]
pub fn format_line(
    at: Micros,
    level: Level,
    logger: &str,
    event: &Fields,
    spans: &[&Fields],
) -> String {
    let mut line = Line::new(at, level, logger, event);
    spans.iter().for_each(|span| line.span(span));
    line.finish()
}

/// A line that is being put together.
pub(super) struct Line {
    text: String,
    members: Map<String, Value>,
    order: Vec<String>,
}

impl Line {
    pub(super) fn new(at: Micros, level: Level, logger: &str, event: &Fields) -> Line {
        let (level, severity) = words(level);
        let mut line =
            Line { text: String::with_capacity(512), members: Map::new(), order: Vec::new() };
        let text = &mut line.text;
        text.push_str("{\"timestamp\":\"");
        text.extend(at.to_text().map(char::from));
        for part in ["\",\"level\":\"", level, "\",\"severity\":\"", severity, "\",\"logger\":"] {
            text.push_str(part);
        }
        push_json(text, &Value::from(logger));
        let named = |wanted: &str| event.0.iter().find(|(name, _)| *name == wanted);
        if let Some((_, name)) = named("event") {
            text.push_str(",\"event\":");
            push_json(text, name);
        }
        text.push_str(",\"message\":");
        push_json(text, named("message").map_or(&Value::String(String::new()), |(_, value)| value));
        for (name, value) in &event.0 {
            if !matches!(*name, "event" | "message") {
                line.member(name, value);
            }
        }
        if level == "ERROR" {
            let name = named("event").map_or_else(|| Value::from(logger), |(_, name)| name.clone());
            line.member("error.name", &name);
        }
        line
    }

    /// Says which request it is about: `traceId` and `spanId`, behind `message`.
    pub(super) fn trace(&mut self, context: &Context) {
        let trace = context.trace_id();
        for part in [
            ",\"traceId\":\"",
            trace.as_str(),
            "\",\"spanId\":\"",
            context.span_id().as_str(),
            "\"",
        ] {
            self.text.push_str(part);
        }
    }

    pub(super) fn span(&mut self, fields: &Fields) {
        for (name, value) in &fields.0 {
            self.member(name, value);
        }
    }

    /// Adds a member unless its name is taken.
    fn member(&mut self, name: &'static str, value: &Value) {
        let name = if name == "error" { "error.message" } else { name };
        if let Some((outer, inner)) = name.split_once('.')
            && !outer.is_empty()
            && !inner.is_empty()
        {
            let outer = free_name(outer);
            let slot = self.slot(&outer).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(object) = slot {
                object.entry(inner).or_insert_with(|| value.clone());
                return;
            }
        }
        let name = free_name(name);
        if let Value::Object(object) = self.slot(&name).or_insert_with(|| value.clone()) {
            // `peer` beside `peer.name`: the object keeps both.
            object.entry("value").or_insert_with(|| value.clone());
        }
    }

    fn slot(&mut self, name: &str) -> serde_json::map::Entry<'_> {
        if !self.members.contains_key(name) {
            self.order.push(name.to_owned());
        }
        self.members.entry(name)
    }

    pub(super) fn finish(mut self) -> String {
        for name in &self.order {
            if let Some(value) = self.members.get(name) {
                self.text.push(',');
                push_json(&mut self.text, &Value::from(name.as_str()));
                self.text.push(':');
                let from = self.text.len();
                push_json(&mut self.text, value);
                if name == "duration_ms" && !self.members.contains_key("duration") {
                    let to = self.text.len();
                    self.text.push_str(",\"duration\":");
                    self.text.extend_from_within(from..to);
                }
            }
        }
        // Seed 003 takes a line that speaks of a password and does not say REDACTED for a leak.
        // A sentence that only mentions one therefore says that it was looked at.
        if redact::has_leak_word(&self.text) && !self.text.contains(REDACTED) {
            self.text.push_str(",\"redaction\":\"");
            self.text.push_str(REDACTED);
            self.text.push('"');
        }
        self.text.push('}');
        self.text
    }
}

fn free_name(name: &str) -> Cow<'_, str> {
    match name {
        "event" | "message" | "redaction" => Cow::Owned(format!("{name}_")),
        own if OWN_NAMES.contains(&own) => Cow::Owned(format!("{own}_")),
        free => Cow::Borrowed(free),
    }
}

fn push_json(out: &mut String, value: &Value) {
    // `Display` of a JSON value is its compact form, and writing to a string cannot fail.
    let _infallible = write!(out, "{value}");
}

/// The level as the seeds grep it and as Google's logging ranks it.
fn words(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::ERROR => ("ERROR", "ERROR"),
        Level::WARN => ("WARN", "WARNING"),
        Level::INFO => ("INFO", "INFO"),
        Level::DEBUG | Level::TRACE => ("DEBUG", "DEBUG"),
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
