//! `/health` and its aliases, `/metrics`.
//!
//! Owns: the words green, yellow and red. Reads only memory, so that it answers while everything
//! else is busy.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::response::Response;
use engine::Stage;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::answer::json_response;
use crate::process::PullState;
use crate::{Gateway, Options};

/// What a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Everything: the seeds' probe for all purposes.
    Health,
    /// Is the process alive? It is, if it answers.
    Live,
    /// May it be sent traffic?
    Ready,
}

/// Answers a probe: 200 while the service serves, 503 with a reason when it does not.
pub(crate) fn probe(gateway: &Gateway, options: &Options, probe: Probe) -> Response {
    let timestamp = gateway.engine.clock().now().secs();
    let down = gateway.engine.supervisor().first_not_running();
    let draining = gateway.engine.is_draining();
    let tampered = gateway.engine.is_tampered();
    let relaxed = &options.relaxed;
    let pull = gateway.process.pull().map_or(Pulled::NONE, |pull| Pulled::of(pull.state()));
    let stage = gateway.engine.stage();
    let is_away = stage == Stage::Away || !gateway.engine.store_answers();
    let store_word = match (is_away, gateway.engine.is_spooling()) {
        (false, _) if stage == Stage::Up => StoreWord::Up,
        (false, _) => StoreWord::Returning,
        (true, true) => StoreWord::StoodInFor,
        (true, false) => StoreWord::Gone,
    };
    let held_back = gateway.engine.spools_held_back();
    let rules = RulesWord::of(gateway);
    let strict = relaxed.is_empty() && pull.is_ok && held_back == 0 && rules != RulesWord::Outdated;
    let words = Words::of(store_word, tampered, strict);
    if let Some(name) = down.filter(|_| probe != Probe::Live) {
        return unavailable(timestamp, words, pull, &format!("supervisor {name} not running"));
    }
    if draining && probe == Probe::Ready {
        return unavailable(timestamp, words, pull, "the service is shutting down");
    }
    let store = gateway.engine.store();
    // `firestore` and `pubsub` are the seeds' names for the receipt store, whichever backend it
    // is, and for the intake of signals.
    let body = json!({
        "status": words.status,
        "health": words.health,
        "timestamp": timestamp,
        "started_at": gateway.started.secs(),
        "instance": gateway.instance,
        "version": env!("CARGO_PKG_VERSION"),
        "db": words.db,
        "pubsub": pull.word,
        "backend": store.backend(),
        "durability": gateway.engine.durability().as_str(),
        "relaxed": relaxed,
        "tampered": tampered,
        "frozen": gateway.engine.is_frozen(),
        "store_stage": stage.as_str(),
        "spooled": gateway.engine.spooled(),
        "spools_held_back": held_back,
        "validation_rules": rules.as_str(),
        "dependencies": dependencies("ok", words, pull),
    });
    json_response(StatusCode::OK, &body)
}

/// Where the store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreWord {
    Up,
    /// It answers again, and not everything is let through yet.
    Returning,
    /// It does not answer, and something stands in for it.
    StoodInFor,
    /// It does not answer.
    Gone,
}

/// Which rules bodies are checked against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RulesWord {
    /// There are none.
    None,
    /// Those that the operator wrote last.
    Current,
    /// Older ones, since what was written last cannot be used.
    Outdated,
}

impl RulesWord {
    fn of(gateway: &Gateway) -> RulesWord {
        if gateway.rules_refused.load(Ordering::Acquire) {
            RulesWord::Outdated
        } else if gateway.validation_rules().is_empty() {
            RulesWord::None
        } else {
            RulesWord::Current
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            RulesWord::None => "none",
            RulesWord::Current => "current",
            RulesWord::Outdated => "outdated",
        }
    }
}

/// How a service that serves is spoken of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Words {
    status: &'static str,
    health: &'static str,
    db: &'static str,
    firestore: &'static str,
}

impl Words {
    /// `tampered`: the store answered with something altered. `strict`: no setting gives up a
    /// guarantee, signals come in, no spool waits for people, and the rules for bodies are those
    /// that the operator wrote last.
    fn of(store: StoreWord, tampered: bool, strict: bool) -> Words {
        let (status, health) = match (store, tampered, strict) {
            (StoreWord::Gone, ..) | (_, true, _) => ("degraded", "red"),
            (StoreWord::Up, false, true) => ("ok", "green"),
            (StoreWord::Up | StoreWord::Returning | StoreWord::StoodInFor, false, _) => {
                ("degraded", "yellow")
            }
        };
        let (db, firestore) = match store {
            StoreWord::Up | StoreWord::Returning => ("connected", "ok"),
            StoreWord::StoodInFor | StoreWord::Gone => ("disconnected", "error"),
        };
        Words { status, health, db, firestore }
    }
}

/// How the intake of signals is spoken of. Where nothing is pulled, pushes are all there is, and
/// those come in as long as the door is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pulled {
    word: &'static str,
    is_ok: bool,
}

impl Pulled {
    const NONE: Pulled = Pulled { word: "connected", is_ok: true };

    fn of(state: PullState) -> Pulled {
        let (word, is_ok) = match state {
            PullState::Active => ("connected", true),
            PullState::Paused => ("paused", false),
            PullState::Connecting => ("connecting", true),
            PullState::Disconnected => ("disconnected", false),
        };
        Pulled { word, is_ok }
    }
}

fn unavailable(timestamp: i64, words: Words, pull: Pulled, reason: &str) -> Response {
    let body = json!({
        "status": "unavailable",
        "health": "red",
        "timestamp": timestamp,
        "reason": reason,
        "dependencies": dependencies("error", words, pull),
    });
    json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
}

fn dependencies(supervisors: &str, words: Words, pull: Pulled) -> Value {
    let pubsub = if pull.is_ok { "ok" } else { "error" };
    json!({ "supervisors": supervisors, "firestore": words.firestore, "pubsub": pubsub })
}

/// The Prometheus scrape.
pub(crate) fn metrics(gateway: &Gateway) -> Response {
    gateway.metrics.observe_process();
    let is_up = gateway.engine.supervisor().first_not_running().is_none();
    gateway.metrics.health_up.set(i64::from(is_up));
    let mut response = Response::new(Body::from(gateway.metrics.render()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_follow_the_store_before_the_settings() {
        let up = ("connected", "ok");
        let gone = ("disconnected", "error");
        for (store, tampered, strict, status, health, (db, firestore)) in [
            (StoreWord::Up, false, true, "ok", "green", up),
            (StoreWord::Up, false, false, "degraded", "yellow", up),
            (StoreWord::Up, true, true, "degraded", "red", up),
            (StoreWord::Up, true, false, "degraded", "red", up),
            (StoreWord::Returning, false, true, "degraded", "yellow", up),
            (StoreWord::Returning, true, true, "degraded", "red", up),
            (StoreWord::StoodInFor, false, true, "degraded", "yellow", gone),
            (StoreWord::StoodInFor, true, true, "degraded", "red", gone),
            (StoreWord::Gone, false, true, "degraded", "red", gone),
            (StoreWord::Gone, false, false, "degraded", "red", gone),
            (StoreWord::Gone, true, true, "degraded", "red", gone),
        ] {
            let words = Words::of(store, tampered, strict);
            assert_eq!(words, Words { status, health, db, firestore });
            let shown = json!({"supervisors": "ok", "firestore": firestore, "pubsub": "ok"});
            assert_eq!(dependencies("ok", words, Pulled::NONE), shown);
        }
    }
}
