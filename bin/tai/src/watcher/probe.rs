//! What a probe's answer means, and how many of them make an outage.
//!
//! Owns: the words for why a service is not well, and the count of probes in a row. Refuses to
//! know: how often is probed, and what follows.

use std::error::Error as _;
use std::time::Duration;

use serde_json::Value;
use types::Micros;

use crate::client::{Answer, NoAnswer};

/// Probes in a row that make an outage, and that end it.
const PROBES: u32 = 3;
/// Characters of a reason that are told.
const REASON_CHARS: usize = 200;

/// What one probe has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It serves, and says so in these words, such as `ok/green`.
    Up(String),
    /// It says itself that it does not serve.
    Says(String),
    /// No answer, or none that says how it is.
    Silent(String),
}

impl Verdict {
    /// Reads the answer to a probe that was given `limit`.
    pub(crate) fn of(answer: Result<Answer, NoAnswer>, limit: Duration) -> Verdict {
        match answer {
            Ok(answer) => Verdict::read(answer.status, answer.json().as_ref()),
            Err(NoAnswer::Unreachable { refused: true, .. }) => {
                Verdict::Silent("connection refused".to_owned())
            }
            Err(NoAnswer::Cut { .. }) => {
                Verdict::Silent("the answer is cut or too long".to_owned())
            }
            Err(error) => {
                let source = error.source().and_then(|source| source.downcast_ref());
                let is_late = source.is_some_and(reqwest::Error::is_timeout);
                Verdict::Silent(match error {
                    _ if is_late => format!("no answer within {} s", limit.as_secs_f64()),
                    NoAnswer::Unreachable { .. } => "cannot be reached".to_owned(),
                    _ => "the connection broke before the answer".to_owned(),
                })
            }
        }
    }

    fn read(status: u16, body: Option<&Value>) -> Verdict {
        let word = |name: &str| {
            let word = body?.get(name)?.as_str()?;
            Some(word.chars().take(REASON_CHARS).collect::<String>())
        };
        let is_red = word("health").is_some_and(|health| health == "red");
        match (status, word("status"), word("reason")) {
            // What it cannot record it can tell nobody of: then that is for whoever stands outside.
            // Of a store that something stands in for it tells itself.
            (200, Some(_), _) if is_red => Verdict::Says(MUTE.to_owned()),
            (200, Some(status), _) => {
                Verdict::Up(format!("{status}/{}", word("health").unwrap_or_default()))
            }
            (200, None, _) => Verdict::Silent("the answer is no report of its health".to_owned()),
            (_, _, Some(reason)) => Verdict::Says(reason),
            (status, ..) => Verdict::Silent(format!("status {status}")),
        }
    }
}

/// What is said of a service that answers and can record nothing.
pub(crate) const MUTE: &str = "the receipt store does not take what the service decides";

/// Probes in a row.
#[derive(Debug)]
pub(crate) struct Streak {
    is_down: bool,
    /// How many say the opposite, and since when.
    count: u32,
    since: Micros,
    /// What the service itself said last, since it was well.
    said: Option<String>,
}

/// What a probe has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing, and it is well.
    Up,
    /// Nothing, and it is not certain that it is well.
    Unsure,
    /// It is not well any more.
    Died { since: Micros, reason: String },
    /// It still is not.
    Down { reason: String },
    /// It is well again.
    Back { since: Micros },
}

impl Streak {
    /// Nothing was probed yet. `is_down` is what was known before.
    pub(crate) fn new(is_down: bool) -> Streak {
        Streak { is_down, count: 0, since: Micros(0), said: None }
    }

    /// One more probe, made at `at`.
    pub(crate) fn add(&mut self, verdict: &Verdict, at: Micros) -> Turn {
        let reason = self.reason(verdict);
        if reason.is_some() == self.is_down {
            self.count = 0;
            return reason.map_or(Turn::Up, |reason| Turn::Down { reason });
        }
        if self.count == 0 {
            self.since = at;
        }
        self.count += 1;
        if self.count < PROBES {
            return Turn::Unsure;
        }
        (self.is_down, self.count) = (reason.is_some(), 0);
        let since = self.since;
        reason.map_or(Turn::Back { since }, |reason| Turn::Died { since, reason })
    }

    /// Why it is not well. Who has fallen silent is quoted with what it said before.
    fn reason(&mut self, verdict: &Verdict) -> Option<String> {
        match verdict {
            Verdict::Up(_) => {
                self.said = None;
                None
            }
            Verdict::Says(reason) => {
                self.said = Some(reason.clone());
                Some(reason.clone())
            }
            Verdict::Silent(why) => Some(match &self.said {
                Some(said) => format!("{why}, after: {said}"),
                None => why.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_a_report_or_silence() {
        let up = |words: &str| Verdict::Up(words.to_owned());
        let silent = |why: &str| Verdict::Silent(why.to_owned());
        let reason = "supervisor governance_sup not running";
        let away = json!({ "firestore": "error" });
        for (status, body, expected) in [
            (200, Some(json!({"status": "ok", "health": "green"})), up("ok/green")),
            (200, Some(json!({"status": "degraded", "health": "yellow"})), up("degraded/yellow")),
            (
                200,
                Some(json!({"status": "degraded", "health": "red"})),
                Verdict::Says(MUTE.to_owned()),
            ),
            (
                200,
                // Something stands in for the store, and the service tells of it itself.
                Some(json!({"status": "degraded", "health": "yellow", "dependencies": away})),
                up("degraded/yellow"),
            ),
            (200, Some(json!({})), silent("the answer is no report of its health")),
            (200, Some(json!([1])), silent("the answer is no report of its health")),
            (200, None, silent("the answer is no report of its health")),
            (503, Some(json!({"reason": reason})), Verdict::Says(reason.to_owned())),
            (503, Some(json!({"reason": 1})), silent("status 503")),
            (302, None, silent("status 302")),
            (503, Some(json!({"reason": "é".repeat(201)})), Verdict::Says("é".repeat(200))),
        ] {
            assert_eq!(Verdict::read(status, body.as_ref()), expected, "{status} {body:?}");
        }
    }

    #[test]
    fn three_in_a_row_make_an_outage_and_three_end_it() {
        let up = Verdict::Up("ok/green".to_owned());
        let says = Verdict::Says("said".to_owned());
        let silent = Verdict::Silent("silent".to_owned());
        let both = "silent, after: said".to_owned();
        let mut streak = Streak::new(false);
        for (at, verdict, expected) in [
            (1, &up, Turn::Up),
            (2, &silent, Turn::Unsure),
            (3, &silent, Turn::Unsure),
            (4, &up, Turn::Up),
            (5, &silent, Turn::Unsure),
            (6, &says, Turn::Unsure),
            (7, &silent, Turn::Died { since: Micros(5), reason: both.clone() }),
            (8, &silent, Turn::Down { reason: both }),
            (9, &up, Turn::Unsure),
            (10, &up, Turn::Unsure),
            (11, &silent, Turn::Down { reason: "silent".to_owned() }),
            (12, &up, Turn::Unsure),
            (13, &up, Turn::Unsure),
            (14, &up, Turn::Back { since: Micros(12) }),
            (15, &up, Turn::Up),
        ] {
            assert_eq!(streak.add(verdict, Micros(at)), expected, "at {at}");
        }
        let mut known = Streak::new(true);
        assert_eq!(known.add(&says, Micros(1)), Turn::Down { reason: "said".to_owned() });
    }
}
