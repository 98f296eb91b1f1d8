//! What stands in which document.
//!
//! Owns: collections, document ids, fields, and reading them back. Refuses to know: calls.
//!
//! | collection | document id | holds |
//! |---|---|---|
//! | `meta` | `ledger` | id, secret and format of the ledger |
//! | `receipts` | receipt id | the canonical bytes, and where they are filed |
//! | `keys` | idempotency key | the id of the receipt that answers it |
//! | `commits` | hash of log and number | where the log stood behind one commit, or that there was none |
//! | `logs` | number | a writer's lease, and a late hint of where its log stands |
//! | `attempts` | receipt id | an attempt without a result |
//! | `due` | hash of the stream | when something is due |
//! | `snapshots` | hash of the stream | the newest snapshot |
//!
//! Ids that would count upwards are hashed: neighbours would be written by one server.

use engine::ports::{Entry, IdemKey, ReadError, Snapshot, Stored};
use ledger::HeadRecord;
use ledger::seal::sha256;
use types::hash::hex_encode;
use types::{Hash, Micros, ReceiptId, StreamName};

use super::client::Client;
use super::wire::{Document, Value};

pub(super) const RECEIPTS: &str = "receipts";
pub(super) const COMMITS: &str = "commits";
pub(super) const LOGS: &str = "logs";
pub(super) const ATTEMPTS: &str = "attempts";
pub(super) const DUE: &str = "due";
const META: &str = "meta";
const KEYS: &str = "keys";
const SNAPSHOTS: &str = "snapshots";

/// Bits of a place that hold the log, so that two writers in one microsecond differ.
const LOG_BITS: u32 = 10;
/// The last instant that fits in front of them, in the year 2255.
pub(super) const AT_MAX: Micros = Micros(i64::MAX >> LOG_BITS);
/// The largest state that is kept, in bytes: base64 and all, it stays under the megabyte that a
/// document may have.
const STATE_BYTES_MAX: usize = 1_000_000;

/// Place in the order of the ledger: the instant, then the log.
pub(super) fn place(at: Micros, log: u64) -> i64 {
    at.0 << LOG_BITS | (log & ((1 << LOG_BITS) - 1)).cast_signed()
}

/// The instant that a place begins with.
pub(super) fn instant_of(pos: u64) -> Micros {
    Micros((pos >> LOG_BITS).cast_signed())
}

fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::new();
    hex_encode(bytes, &mut out);
    out.into_iter().map(char::from).collect()
}

/// 128 bits of SHA-256, as text.
fn hashed(text: &str) -> String {
    hex(&sha256(text.as_bytes()).0[..16])
}

impl Client {
    pub(super) fn meta_name(&self) -> String {
        self.name(META, "ledger")
    }

    pub(super) fn receipt_name(&self, id: ReceiptId) -> String {
        self.name(RECEIPTS, id)
    }

    pub(super) fn key_name(&self, key: &IdemKey) -> String {
        self.name(KEYS, hex(key))
    }

    pub(super) fn commit_name(&self, log: u64, number: u64) -> String {
        self.name(COMMITS, hashed(&format!("{log}/{number}")))
    }

    pub(super) fn log_name(&self, log: u64) -> String {
        self.name(LOGS, log)
    }

    pub(super) fn attempt_name(&self, id: ReceiptId) -> String {
        self.name(ATTEMPTS, id)
    }

    pub(super) fn due_name(&self, stream: &StreamName) -> String {
        self.name(DUE, hashed(stream.as_str()))
    }

    pub(super) fn snapshot_name(&self, stream: &StreamName) -> String {
        self.name(SNAPSHOTS, hashed(stream.as_str()))
    }
}

/// The document of a receipt. `after` is where the writer's log stands with it.
///
/// `None` when the bytes are not text, which no receipt is. They are kept as text and not as bytes
/// so that whoever opens the console reads them.
pub(super) fn receipt(
    client: &Client,
    log: u64,
    after: &HeadRecord,
    entry: &Entry,
) -> Option<Document> {
    let sealed = &entry.sealed;
    let core = std::str::from_utf8(&sealed.core).ok()?;
    let document = Document::new(client.receipt_name(sealed.id))
        .with("stream", Value::text(&sealed.stream))
        .with("seq", Value::int(sealed.seq.cast_signed()))
        .with("pos", Value::int(place(sealed.at, log)))
        .with("core", Value::text(core))
        .with("hash", Value::text(&sealed.hash))
        .with("chain_hash", Value::text(&sealed.chain_hash))
        .with("log", Value::int(log.cast_signed()))
        .with("log_pos", Value::int(after.size.cast_signed()))
        .with("log_root", Value::text(&after.root));
    Some(match &entry.key {
        Some(key) => document.with("key", Value::text(&hex(key))),
        None => document,
    })
}

/// A receipt read back. What is filed is believed here; hashes are the reader's to check.
pub(super) fn stored(document: &Document) -> Result<Stored, ReadError> {
    let read = || {
        Some(Stored {
            pos: document.count("pos")?,
            stream: StreamName::parse(document.text("stream")?).ok()?,
            seq: document.count("seq")?,
            id: ReceiptId::parse(document.id())?,
            core: document.text("core")?.as_bytes().to_vec(),
            hash: digest(document, "hash")?,
            chain_hash: digest(document, "chain_hash")?,
        })
    };
    read().ok_or_else(|| corrupt(document))
}

pub(super) fn digest(document: &Document, field: &str) -> Option<Hash> {
    Hash::from_hex(document.text(field)?.as_bytes())
}

pub(super) fn corrupt(document: &Document) -> ReadError {
    // Ids only: a name says nothing of what is inside.
    let mut parts = document.name.rsplit('/');
    let (id, collection) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    ReadError::Corrupt(format!("unreadable document {id} in {collection}"))
}

/// What a key was used for.
pub(super) fn key(client: &Client, key: &IdemKey, receipt: ReceiptId) -> Document {
    Document::new(client.key_name(key)).with("receipt", Value::text(&receipt))
}

/// The receipt that a key was used for.
pub(super) fn key_receipt(document: &Document) -> Result<ReceiptId, ReadError> {
    document.text("receipt").and_then(ReceiptId::parse).ok_or_else(|| corrupt(document))
}

/// The record of one commit: where the log stands with it.
pub(super) fn commit(client: &Client, log: u64, number: u64, after: &HeadRecord) -> Document {
    Document::new(client.commit_name(log, number))
        .with("log", Value::int(log.cast_signed()))
        .with("number", Value::int(number.cast_signed()))
        .with("size", Value::int(after.size.cast_signed()))
        .with("root", Value::text(&after.root))
}

/// The record that there was and will be no such commit.
pub(super) fn void(client: &Client, log: u64, number: u64) -> Document {
    Document::new(client.commit_name(log, number))
        .with("log", Value::int(log.cast_signed()))
        .with("number", Value::int(number.cast_signed()))
        .with("void", Value::Bool(true))
}

/// An attempt that is to be settled.
pub(super) fn attempt(client: &Client, log: u64, entry: &Entry) -> Document {
    Document::new(client.attempt_name(entry.sealed.id))
        .with("pos", Value::int(place(entry.sealed.at, log)))
        .with("log", Value::int(log.cast_signed()))
}

/// When something is due in a stream.
pub(super) fn due(client: &Client, stream: &StreamName, at: Micros) -> Document {
    Document::new(client.due_name(stream))
        .with("stream", Value::text(stream))
        .with("at", Value::int(at.0))
}

pub(super) fn stream_of(document: &Document) -> Result<StreamName, ReadError> {
    let name = document.text("stream").and_then(|name| StreamName::parse(name).ok());
    name.ok_or_else(|| corrupt(document))
}

/// The document of a snapshot; `None` when it is too large for one, and so is not kept.
pub(super) fn snapshot(client: &Client, kept: &Snapshot) -> Option<Document> {
    (kept.state.len() <= STATE_BYTES_MAX).then(|| {
        Document::new(client.snapshot_name(&kept.stream))
            .with("stream", Value::text(&kept.stream))
            .with("seq", Value::int(kept.seq.cast_signed()))
            .with("hash", Value::text(&kept.hash))
            .with("at", Value::int(kept.at.0))
            .with("state", Value::bytes(&kept.state))
    })
}

/// A snapshot read back; `None` when it cannot be, since it is only a cache.
pub(super) fn snapshot_of(document: &Document) -> Option<Snapshot> {
    Some(Snapshot {
        stream: stream_of(document).ok()?,
        seq: document.count("seq")?,
        hash: digest(document, "hash")?,
        at: Micros(document.int("at")?),
        state: document.bytes("state")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_instant_and_then_the_log() {
        let at = Micros(1_700_000_000_000_000);
        let places = [place(at, 7), place(at, 8), place(Micros(at.0 + 1), 0)];
        assert!(places.is_sorted_by(|a, b| 0 < *a && a < b));
        assert_eq!(place(at, 7), place(at, 7 + 1024), "only ten bits of the log");
        assert_eq!(instant_of(place(at, 1023).cast_unsigned()), at);
        assert!(place(AT_MAX, u64::MAX) > 0);
    }
}
