//! What the fake provider knows of the requests that came: what it would bill, and who left.
//!
//! Owns: entries, their totals, and waiting for them. Refuses to know: what a request means.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{Fault, Vendor};

/// The last entries that are kept; totals are of all.
const ENTRIES_MAX: usize = 10_000;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It has not.
    Running,
    /// All of the answer was sent, whatever it was.
    Complete,
    /// The fake broke it off, as its fault says.
    Broken,
    /// The caller hung up before the end of the answer.
    HungUp,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place among all requests, from 0.
    pub number: usize,
    /// The id of its answer, as the caller sees it.
    pub id: String,
    /// Whose path it took; `None` for a path of nobody.
    pub vendor: Option<Vendor>,
    /// `POST /v1/messages`.
    pub route: String,
    /// The names in lower case and the values, in the order of arrival.
    pub headers: Vec<(String, String)>,
    /// The body as it came; `Null` where it was no JSON.
    pub body: Value,
    /// The model, or nothing.
    pub model: String,
    /// True when a stream was asked for.
    pub is_stream: bool,
    /// Pictures in the prompt.
    pub pictures: usize,
    /// What went wrong by plan.
    pub fault: Option<Fault>,
    /// The status of the answer; 0 before its head is sent.
    pub status: u16,
    /// Tokens of the prompt that would be billed, the cached ones included; 0 unless a model
    /// worked.
    pub prompt_tokens: u64,
    /// Of these, those from the cache.
    pub cached_tokens: u64,
    /// Tokens of the answer that were sent, without thoughts.
    pub completion_tokens: u64,
    /// Tokens of thoughts, which nobody sees.
    pub reasoning_tokens: u64,
    /// Bytes of head and body that were sent.
    pub bytes_sent: u64,
    /// When all of the request had come.
    pub started: Instant,
    /// When its end was seen.
    pub ended: Option<Instant>,
    /// How it ended.
    pub end: End,
}

impl Entry {
    /// The first header of that name, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(sent, _)| sent == name).map(|(_, value)| value.as_str())
    }

    /// How long it took, or takes so far.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.ended.unwrap_or_else(Instant::now).duration_since(self.started)
    }
}

/// Sums over all requests ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests, refused ones included: what a caller's attempts are counted by.
    pub requests: usize,
    /// Requests whose answer is under way.
    pub running: usize,
    /// Callers who hung up.
    pub hung_up: usize,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Tokens of answers, without thoughts.
    pub completion_tokens: u64,
    /// Tokens of thoughts.
    pub reasoning_tokens: u64,
    /// Bytes.
    pub bytes_sent: u64,
}

/// A look at the books.
#[derive(Debug, Clone, Default)]
pub struct Statement {
    /// The last 10 000 requests, in the order of arrival.
    pub entries: VecDeque<Entry>,
    /// Of all requests.
    pub totals: Totals,
}

impl Statement {
    /// The entries of a model.
    pub fn of<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.model == model)
    }
}

#[derive(Debug, Default)]
pub(super) struct Books {
    statement: Mutex<Statement>,
    changed: Condvar,
}

impl Books {
    pub(super) fn lock(&self) -> MutexGuard<'_, Statement> {
        self.statement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an entry; `entry` is made from its number.
    pub(super) fn open(&self, entry: impl FnOnce(usize) -> Entry) -> usize {
        let mut statement = self.lock();
        let number = statement.totals.requests;
        if statement.entries.len() == ENTRIES_MAX {
            statement.entries.pop_front();
        }
        statement.entries.push_back(entry(number));
        statement.totals.requests += 1;
        statement.totals.running += 1;
        self.changed.notify_all();
        number
    }

    /// Notes something in an entry; what is billed or sent goes into the totals too.
    pub(super) fn note(&self, number: usize, note: impl FnOnce(&mut Entry)) {
        let mut statement = self.lock();
        let Statement { entries, totals } = &mut *statement;
        let first = entries.front().map_or(0, |entry| entry.number);
        // One that is older than all that are kept has run through 10 000 others.
        let Some(entry) = number.checked_sub(first).and_then(|at| entries.get_mut(at)) else {
            return;
        };
        let sums = |entry: &Entry| {
            let Entry { prompt_tokens, completion_tokens, reasoning_tokens, bytes_sent, .. } =
                *entry;
            [prompt_tokens, completion_tokens, reasoning_tokens, bytes_sent]
        };
        let (before, was_running) = (sums(entry), entry.end == End::Running);
        note(entry);
        let after = sums(entry);
        totals.prompt_tokens += after[0] - before[0];
        totals.completion_tokens += after[1] - before[1];
        totals.reasoning_tokens += after[2] - before[2];
        totals.bytes_sent += after[3] - before[3];
        if was_running && entry.end != End::Running {
            entry.ended = Some(Instant::now());
            totals.running -= 1;
            totals.hung_up += usize::from(entry.end == End::HungUp);
        }
        self.changed.notify_all();
    }

    /// Waits until `found` finds something.
    pub(super) fn wait<T>(
        &self,
        timeout: Duration,
        mut found: impl FnMut(&Statement) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + timeout;
        let mut statement = self.lock();
        loop {
            if let Some(found) = found(&statement) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "the books do not show it in time: {:?}", statement.totals);
            let waited = self.changed.wait_timeout(statement, left);
            statement = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
