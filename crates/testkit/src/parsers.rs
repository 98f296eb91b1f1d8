//! Every reader of outside bytes, as a function that a fuzzer or a test feeds.
//!
//! Owns: the list of them, and what must hold for any input besides that the reader comes back.
//! Refuses to know: where inputs come from, and which of them are good.

mod alerts;
mod bodies;
mod chain;
mod files;
mod models;
mod stored;

/// One reader of bytes that the process did not make.
#[derive(Debug, Clone, Copy)]
pub struct Parser {
    /// The name of its corpus in `fuzz/corpus` and of its program in `fuzz`.
    pub name: &'static str,
    /// Reads any bytes and panics when a property does not hold; true when the reader took them.
    pub read: fn(&[u8]) -> bool,
}

/// All of them.
pub const PARSERS: &[Parser] = &[
    Parser { name: "json", read: bodies::json },
    Parser { name: "marketplace", read: bodies::marketplace },
    Parser { name: "pubsub_push", read: bodies::pubsub_push },
    Parser { name: "pubsub_signal", read: bodies::pubsub_signal },
    Parser { name: "request_id", read: bodies::request_id },
    Parser { name: "admin", read: bodies::admin },
    Parser { name: "access", read: bodies::access },
    Parser { name: "ai_request", read: models::ai_request },
    Parser { name: "ai_answer", read: models::ai_answer },
    Parser { name: "ai_stream", read: models::ai_stream },
    Parser { name: "ai_error", read: models::ai_error },
    Parser { name: "receipt", read: stored::receipt },
    Parser { name: "fold", read: stored::fold },
    Parser { name: "snapshot", read: stored::snapshot },
    Parser { name: "export", read: stored::export },
    Parser { name: "head", read: stored::head },
    Parser { name: "settings_file", read: files::settings_file },
    Parser { name: "settings_change", read: files::settings_change },
    Parser { name: "catalogue", read: files::catalogue },
    Parser { name: "condition", read: alerts::condition },
    Parser { name: "alert_rules", read: alerts::alert_rules },
    Parser { name: "external_alerts", read: alerts::external_alerts },
];

/// The parser of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Parser> {
    PARSERS.iter().find(|parser| parser.name == name)
}
