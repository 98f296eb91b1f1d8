//! The append: a batch becomes one commit, and a commit of unknown outcome becomes a known one.
//!
//! Owns: the fence, and what a failed commit means. Refuses to know: leases and reads.
//!
//! **The fence.** Each receipt, each key and the record of the commit is created with
//! `exists=false`; one that exists fails the whole commit. A receipt's document id follows from
//! stream and seq, and receipts are never removed, so of two writers that extend a stream at the
//! same place one is refused. Nothing else is needed between writers, as long as the receipt before
//! is what the batch says: a stale writer finds its place taken, since what it has not seen begins
//! there. A place beyond the end could only be asked for by a writer that believes in a receipt
//! which was not kept. The engine drops what stands on a lost receipt, and this module does not
//! rely on it: the receipt before the first of each stream must have been read or written by this
//! store, or is read now. It stays as it is for ever, so there is no race in that.
//!
//! **Unknown outcomes.** A commit without an answer may take effect at any later time, so that
//! reading its documents and finding none proves nothing. Each commit of a log therefore creates a
//! record under its number. It is first sent again as it is: either it now takes effect, or it is
//! refused, by its own record, in which case it had taken effect, or by a document of others, which
//! stays and refuses every late copy too. When no answer is to be had, the record is created as
//! void, which keeps out every late copy for good. Until that has succeeded nothing else is
//! written to the log, and it has no head.
//!
//! What if the process dies here? Before the commit nothing is there, after it everything. A commit
//! on its way may still take effect, at the end of a log that nobody continues.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use engine::ports::{AppendError, Batch, Entry, ReadError};
use ledger::{HeadRecord, receipt_id};
use types::{Hash, Micros, StreamName};

use super::client::{Client, Patience};
use super::known::{Known, Newest};
use super::rows;
use super::wire::{Failure, Write};

/// The longest commit that is sent, in bytes; the service takes 10 MiB.
const COMMIT_BYTES_MAX: usize = 9 << 20;
/// What states of snapshots may fill of it in all, before base64 makes four bytes of three: they
/// are a cache, and go before a receipt does.
const SNAPSHOT_BYTES_MAX: usize = 3 << 20;

/// The writing end of one log.
pub(super) struct Writer {
    log: u64,
    head: HeadRecord,
    /// The number of the next commit.
    number: u64,
    /// A commit that may or may not have taken effect.
    doubt: Option<HeadRecord>,
}

/// What became of a commit.
enum Outcome {
    Kept,
    Lost(Vec<StreamName>),
}

impl Writer {
    pub(super) fn new(log: u64, head: HeadRecord) -> Writer {
        Writer { log, head, number: 0, doubt: None }
    }

    /// Where the log stands; `None` while a commit is in doubt.
    pub(super) fn head(&self) -> Option<HeadRecord> {
        self.doubt.is_none().then_some(self.head)
    }

    /// Writes the batch, all of it or nothing.
    pub(super) fn append(
        &mut self,
        client: &Client,
        known: &Known,
        batch: &Batch,
    ) -> Result<(), AppendError> {
        if let Err(failure) = self.settle(client) {
            // This batch was not sent.
            return Err(AppendError::Unavailable(format!("a commit is in doubt: {failure}")));
        }
        if !is_same(&batch.before, &self.head) {
            return Err(AppendError::Conflict { streams: Vec::new() });
        }
        let lost = self.misplaced(client, known, batch).map_err(unavailable)?;
        if !lost.is_empty() {
            return Err(AppendError::Conflict { streams: lost.into_iter().collect() });
        }
        let body = self.body(client, batch).map_err(AppendError::Unavailable)?;
        match self.commit(client, batch, &body)? {
            Outcome::Kept => {
                batch.entries.iter().for_each(|entry| known.wrote(&entry.sealed));
                Ok(())
            }
            Outcome::Lost(streams) => Err(AppendError::Conflict { streams }),
        }
    }

    fn advance(&mut self, head: HeadRecord) {
        self.head = head;
        self.number += 1;
    }

    /// Sends the commit until it has a known outcome, or for as long as it makes sense, and moves
    /// on when it was kept.
    fn commit(
        &mut self,
        client: &Client,
        batch: &Batch,
        body: &Bytes,
    ) -> Result<Outcome, AppendError> {
        let mut unknown = false;
        let mut patience = Patience::new();
        let failure = loop {
            let failure = match client.commit(body) {
                Ok(()) => {
                    self.advance(batch.after);
                    return Ok(Outcome::Kept);
                }
                Err(Failure::Exists) => match self.who_was_faster(client, batch)? {
                    Some(outcome) => return Ok(outcome),
                    None => Failure::Contention("it exists, and is not there".to_owned()),
                },
                Err(failure) => failure,
            };
            unknown |= matches!(failure, Failure::Unknown(_));
            let hopeless = matches!(failure, Failure::Refused(_) | Failure::Quota(_));
            if hopeless || !patience.wait() {
                break failure;
            }
        };
        let why = failure.to_string();
        if !unknown {
            let is_quota = matches!(failure, Failure::Quota(_));
            return Err(if is_quota {
                AppendError::Quota(why)
            } else {
                AppendError::Unavailable(why)
            });
        }
        self.doubt = Some(batch.after);
        match self.settle(client) {
            Ok(true) => Ok(Outcome::Kept),
            Ok(false) => Err(AppendError::Unavailable(why)),
            Err(failure) => Err(AppendError::Unknown(failure.to_string())),
        }
    }

    /// Makes certain whether the commit in doubt has taken effect: true when it has.
    pub(super) fn settle(&mut self, client: &Client) -> Result<bool, Failure> {
        let Some(after) = self.doubt else { return Ok(false) };
        let record = rows::void(client, self.log, self.number);
        let body = Client::commit_body(&[Write::create(record)])?;
        let mut patience = Patience::new();
        loop {
            let failure = match client.commit(&body) {
                // It was not there, and now it never will be.
                Ok(()) => break,
                Err(Failure::Exists) => match self.record(client) {
                    // One of several requests to void it had no answer.
                    Ok(Some(Record::Void)) => break,
                    Ok(Some(Record::Of(head))) if is_same(&head, &after) => {
                        self.doubt = None;
                        self.advance(after);
                        return Ok(true);
                    }
                    Ok(_) => return Err(Failure::Refused("another record is there".to_owned())),
                    Err(error) => Failure::Unknown(error.to_string()),
                },
                Err(failure) => failure,
            };
            if matches!(failure, Failure::Refused(_)) || !patience.wait() {
                return Err(failure);
            }
        }
        tracing::info!(
            event = "commit_voided",
            log = self.log,
            "a commit without an answer was voided"
        );
        self.doubt = None;
        self.number += 1;
        Ok(false)
    }

    /// The record of the commit that is being made.
    fn record(&self, client: &Client) -> Result<Option<Record>, ReadError> {
        let document = client.get_one(&client.commit_name(self.log, self.number))?;
        document.map(|document| Record::read(&document, self.head)).transpose()
    }

    /// Whose documents refuse a commit: its own, those of other writers, or, as far as can be
    /// seen, nobody's.
    fn who_was_faster(
        &mut self,
        client: &Client,
        batch: &Batch,
    ) -> Result<Option<Outcome>, AppendError> {
        let own = client.commit_name(self.log, self.number);
        let mut names = vec![own.clone()];
        for entry in &batch.entries {
            names.push(client.receipt_name(entry.sealed.id));
            names.extend(entry.key.iter().map(|key| client.key_name(key)));
        }
        let found = match client.get(names, Some(&["root", "size", "void"])) {
            Ok(found) => found,
            Err(error) => {
                // It was refused, or had taken effect before that.
                self.doubt = Some(batch.after);
                return match self.settle(client) {
                    Ok(true) => Ok(Some(Outcome::Kept)),
                    Ok(false) => Err(unavailable(error)),
                    Err(failure) => Err(AppendError::Unknown(failure.to_string())),
                };
            }
        };
        if let Some(document) = found.get(&own) {
            return match Record::read(document, self.head) {
                Ok(Record::Of(head)) if is_same(&head, &batch.after) => {
                    self.advance(batch.after);
                    Ok(Some(Outcome::Kept))
                }
                _ => Err(AppendError::Fatal("somebody else writes this writer's log".to_owned())),
            };
        }
        let is_taken = |entry: &&Entry| {
            found.get(&client.receipt_name(entry.sealed.id)).is_some()
                || entry.key.iter().any(|key| found.get(&client.key_name(key)).is_some())
        };
        let lost: BTreeSet<_> = batch
            .entries
            .iter()
            .filter(is_taken)
            .map(|entry| entry.sealed.stream.clone())
            .collect();
        Ok((!lost.is_empty()).then(|| Outcome::Lost(lost.into_iter().collect())))
    }

    /// Streams whose receipts do not follow what stands before them, in the batch or in the store.
    fn misplaced(
        &self,
        client: &Client,
        known: &Known,
        batch: &Batch,
    ) -> Result<BTreeSet<StreamName>, ReadError> {
        let ledger = self.head.ledger;
        let mut lost = BTreeSet::new();
        let mut newest: HashMap<&StreamName, Newest> = HashMap::new();
        let mut keys = BTreeSet::new();
        let mut before = Vec::new();
        let mut last_at = self.head.at;
        for entry in &batch.entries {
            let sealed = &entry.sealed;
            let follows = match newest.get(&sealed.stream) {
                Some(newest) => newest.precedes(entry),
                None if sealed.seq == 0 => {
                    entry.prev_hash.is_none() && known.newest(&sealed.stream).is_none()
                }
                None => match known.newest(&sealed.stream) {
                    Some(newest) if newest.seq + 1 >= sealed.seq => newest.precedes(entry),
                    _ => {
                        before.push(entry);
                        true
                    }
                },
            };
            let own_place = sealed.id == receipt_id(&ledger, sealed.stream.as_str(), sealed.seq)
                && last_at < sealed.at
                && sealed.at <= rows::AT_MAX;
            let fresh = entry.key.is_none_or(|key| keys.insert(key));
            if !(follows && own_place && fresh) {
                lost.insert(sealed.stream.clone());
            }
            last_at = last_at.max(sealed.at);
            newest.insert(&sealed.stream, Newest::of(sealed));
        }
        lost.extend(self.unfounded(client, &before)?);
        Ok(lost)
    }

    /// Streams of those entries before which another receipt stands than they say, or none.
    fn unfounded(&self, client: &Client, entries: &[&Entry]) -> Result<Vec<StreamName>, ReadError> {
        let name = |entry: &Entry| {
            let (stream, seq) = (entry.sealed.stream.as_str(), entry.sealed.seq.wrapping_sub(1));
            client.receipt_name(receipt_id(&self.head.ledger, stream, seq))
        };
        let names = entries.iter().map(|entry| name(entry)).collect();
        let found = client.get(names, Some(&["hash", "pos"]))?;
        let founded = |entry: &Entry| {
            let document = found.get(&name(entry))?;
            let at = rows::instant_of(document.count("pos")?);
            let seq = entry.sealed.seq.checked_sub(1)?;
            let newest = Newest { seq, hash: rows::digest(document, "hash")?, at };
            newest.precedes(entry).then_some(())
        };
        let unfounded = entries.iter().filter(|entry| founded(entry).is_none());
        Ok(unfounded.map(|entry| entry.sealed.stream.clone()).collect())
    }

    fn body(&self, client: &Client, batch: &Batch) -> Result<Bytes, String> {
        let mut writes = Writes::default();
        let record = rows::commit(client, self.log, self.number, &batch.after);
        writes.put(Write::create(record));
        let mut head = batch.before;
        for entry in &batch.entries {
            head = head.after(entry.sealed.hash, entry.sealed.at);
            let receipt = rows::receipt(client, self.log, &head, entry);
            writes.put(Write::create(receipt.ok_or("a receipt is not text")?));
            if let Some(key) = &entry.key {
                writes.put(Write::create(rows::key(client, key, entry.sealed.id)));
            }
            if entry.opens_attempt() {
                let attempt = rows::attempt(client, self.log, entry);
                writes.last(attempt.name.clone(), Write::set(attempt));
            }
            if let Some(settled) = entry.settles {
                let name = client.attempt_name(settled);
                writes.last(name.clone(), Write::delete(name));
            }
        }
        for (stream, at) in &batch.due {
            let name = client.due_name(stream);
            let write = match at {
                Some(at) => Write::set(rows::due(client, stream, *at)),
                None => Write::delete(name.clone()),
            };
            writes.last(name, write);
        }
        let mut room = SNAPSHOT_BYTES_MAX;
        for kept in &batch.snapshots {
            let Some(left) = room.checked_sub(kept.state.len()) else { continue };
            if let Some(document) = rows::snapshot(client, kept) {
                room = left;
                writes.last(document.name.clone(), Write::set(document));
            }
        }
        let body = Client::commit_body(&writes.all).map_err(|error| error.to_string())?;
        if body.len() > COMMIT_BYTES_MAX {
            return Err(format!("a batch of {} receipts is too large", batch.entries.len()));
        }
        Ok(body)
    }
}

/// The writes of a commit. The service takes one for each document.
#[derive(Default)]
struct Writes {
    all: Vec<Write>,
    places: HashMap<String, usize>,
}

impl Writes {
    fn put(&mut self, write: Write) {
        self.all.push(write);
    }

    /// Puts a write in the place of an earlier one for the same document.
    fn last(&mut self, name: String, write: Write) {
        match self.places.get(&name).and_then(|place| self.all.get_mut(*place)) {
            Some(place) => *place = write,
            None => {
                self.places.insert(name, self.all.len());
                self.all.push(write);
            }
        }
    }
}

/// What a record says of its commit.
enum Record {
    /// It took effect, and the log stood there.
    Of(HeadRecord),
    /// It never will.
    Void,
}

impl Record {
    fn read(document: &super::wire::Document, like: HeadRecord) -> Result<Record, ReadError> {
        if document.is_true("void") {
            return Ok(Record::Void);
        }
        let size = document.count("size");
        let record: Option<(u64, Hash)> = size.zip(rows::digest(document, "root"));
        let (size, root) = record.ok_or_else(|| rows::corrupt(document))?;
        Ok(Record::Of(HeadRecord { size, root, at: Micros(0), ..like }))
    }
}

/// Same place in the same log. The instant follows from the rest.
fn is_same(a: &HeadRecord, b: &HeadRecord) -> bool {
    a.size == b.size && a.root == b.root
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn unavailable(error: ReadError) -> AppendError {
    AppendError::Unavailable(error.to_string())
}
