//! This writer among the others: the ledger's identity, the number of its log, its lease.
//!
//! Owns: `meta` and `logs`. Refuses to know: receipts.
//!
//! Each store object writes a log of its own, under a number that nobody had before, so that no
//! document is written by two writers in turn. The number is taken by creating `logs/<number>`,
//! and numbers have no gaps: a log that was removed as a whole is missed by the verifier.
//!
//! A lease is alive while its document was changed within [`LEASE`], by the server's clock both
//! times: the clocks of the machines play no part. It guards nothing but politeness, as to whose
//! attempts are taken on by others; only creation fences.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use engine::ports::{Identity, ReadError};
use ledger::{HeadRecord, LedgerId};
use serde_json::json;

use super::client::{Client, Patience};
use super::rows;
use super::wire::{Document, Failure, Value, Write};
use crate::Error;

/// The format of the documents that this version reads and writes.
const FORMAT: i64 = 1;
/// How long a writer counts as alive without a word from it.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// How often it gives one when it has nothing else to say: two may be lost.
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// How often at most it says where its log stands: a document bears one change a second.
const HINT_EVERY: Duration = Duration::from_secs(1);
/// Numbers that are tried. Each of them that is taken was taken by another start at this moment.
const NUMBERS_MAX: usize = 1_000;

/// The ledger that stands in the database; when there is none, the given one or a new one.
pub(super) fn identity(client: &Client, given: Option<Identity>) -> Result<Identity, Error> {
    let mut patience = Patience::new();
    loop {
        match find_identity(client)? {
            Some(found) if given.is_some_and(|given| given != found) => {
                return Err(Error::OtherLedger);
            }
            Some(found) => return Ok(found),
            None => {}
        }
        let identity = given.map_or_else(new_identity, Ok)?;
        let document = Document::new(client.meta_name())
            .with("format", Value::int(FORMAT))
            .with("ledger", Value::text(&identity.ledger))
            .with("secret", Value::bytes(&identity.secret));
        match create(client, document) {
            // Of two first instances one is faster, and both take what then stands there.
            Ok(()) | Err(Failure::Exists) => {}
            Err(Failure::Refused(why)) => return Err(Error::Firestore(why)),
            Err(failure) if !patience.wait() => return Err(Error::Firestore(failure.to_string())),
            Err(_) => {}
        }
    }
}

fn new_identity() -> Result<Identity, Error> {
    let mut identity = Identity { ledger: LedgerId([0; 16]), secret: [0; 32] };
    getrandom::fill(&mut identity.ledger.0).map_err(Error::Random)?;
    getrandom::fill(&mut identity.secret).map_err(Error::Random)?;
    Ok(identity)
}

/// The ledger that stands in the database.
pub(super) fn find_identity(client: &Client) -> Result<Option<Identity>, Error> {
    let Some(document) = client.get_one(&client.meta_name())? else { return Ok(None) };
    match document.int("format") {
        Some(FORMAT) => {}
        Some(found) => return Err(Error::Format { found, known: FORMAT }),
        None => return Err(Error::Foreign),
    }
    let ledger = document.text("ledger").and_then(LedgerId::from_hex);
    let secret = document.bytes("secret").and_then(|bytes| bytes.try_into().ok());
    let identity = ledger.zip(secret).map(|(ledger, secret)| Identity { ledger, secret });
    identity.map(Some).ok_or(Error::Foreign)
}

/// Takes a number that nobody had.
pub(super) fn take_number(client: &Client, ledger: LedgerId) -> Result<u64, Error> {
    let newest = client.query(&json!({"structuredQuery": {
        "from": [{"collectionId": rows::LOGS}],
        "orderBy": [{"field": {"fieldPath": "number"}, "direction": "DESCENDING"}],
        "limit": 1,
    }}))?;
    let newest = newest.documents.first().and_then(|document| document.count("number"));
    let mut number = newest.unwrap_or(0);
    let mut patience = Patience::new();
    for _ in 0..NUMBERS_MAX {
        number += 1;
        loop {
            let document = document(client, number, 0, &HeadRecord::empty(ledger), false);
            match create(client, document) {
                Ok(()) => return Ok(number),
                // Taken; or ours, by a request whose answer was lost: then nobody writes it.
                Err(Failure::Exists) => break,
                Err(Failure::Refused(why)) => return Err(Error::Firestore(why)),
                Err(failure) if !patience.wait() => {
                    return Err(Error::Firestore(failure.to_string()));
                }
                Err(_) => {}
            }
        }
    }
    Err(Error::Firestore("no number for a log is free".to_owned()))
}

fn create(client: &Client, document: Document) -> Result<(), Failure> {
    client.commit(&Client::commit_body(&[Write::create(document)])?)
}

/// `beat` makes each word another: a write that changes nothing does not count as a change.
fn document(client: &Client, log: u64, beat: u64, head: &HeadRecord, closed: bool) -> Document {
    Document::new(client.log_name(log))
        .with("number", Value::int(log.cast_signed()))
        .with("beat", Value::int(beat.cast_signed()))
        .with("size", Value::int(head.size.cast_signed()))
        .with("root", Value::text(&head.root))
        .with("closed", Value::Bool(closed))
}

/// What this writer has said of itself, and when.
pub(super) struct Lease {
    log: u64,
    beat: u64,
    said: Instant,
    size: u64,
    /// It was given up: whoever goes on says so at once.
    closed: bool,
    /// Failures in a row are logged once.
    complained: bool,
}

impl Lease {
    pub(super) fn new(log: u64) -> Lease {
        Lease { log, beat: 0, said: Instant::now(), size: 0, closed: false, complained: false }
    }

    /// Says where the log stands, when it is time to.
    pub(super) fn maintain(&mut self, client: &Client, head: &HeadRecord) {
        let every = if head.size == self.size { RENEW_EVERY } else { HINT_EVERY };
        if !self.closed && self.said.elapsed() < every {
            return;
        }
        match self.say(client, head, false) {
            Ok(()) => self.complained = false,
            Err(failure) => {
                if !std::mem::replace(&mut self.complained, true) {
                    tracing::warn!(event = "lease_renewal", %failure, "cannot renew this writer's lease");
                }
            }
        }
    }

    /// Says that this writer is gone: others take on at once what it left.
    pub(super) fn close(&mut self, client: &Client, head: &HeadRecord) {
        if let Err(failure) = self.say(client, head, true) {
            tracing::warn!(event = "lease_close", %failure, "this writer's lease has to run out");
        }
    }

    fn say(&mut self, client: &Client, head: &HeadRecord, closed: bool) -> Result<(), Failure> {
        // Also when it fails: the next word is due no sooner.
        self.said = Instant::now();
        self.beat += 1;
        let document = document(client, self.log, self.beat, head, closed);
        client.commit(&Client::commit_body(&[Write::set(document)])?)?;
        (self.size, self.closed) = (head.size, closed);
        Ok(())
    }
}

/// Which of the logs belong to writers that are still there.
pub(super) fn alive(client: &Client, logs: BTreeSet<u64>) -> Result<BTreeSet<u64>, ReadError> {
    let names: BTreeMap<u64, String> =
        logs.into_iter().map(|log| (log, client.log_name(log))).collect();
    let got = client.get(names.values().cloned().collect(), None)?;
    let lease = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
    let is_alive = |name: &String| {
        let document = got.get(name)?;
        let age = got.read_at?.0.saturating_sub(document.updated()?.0);
        Some(!document.is_true("closed") && age < lease)
    };
    // A log without a document has nobody.
    let alive = names.iter().filter(|(_, name)| is_alive(name).unwrap_or(false));
    Ok(alive.map(|(log, _)| *log).collect())
}
