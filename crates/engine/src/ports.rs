//! The Store port: the one contract that every backend keeps.
//!
//! Owns: what is atomic, what is durable when a call returns, and what a failure means. Refuses
//! to know: SQL, files, and what a receipt says.

use std::collections::BTreeSet;
use std::sync::Arc;

use ledger::{HeadRecord, Kind, LedgerId, Row, Sealed, View, chain_hash, seal::sha256};
use types::{Hash, LaneId, Micros, ReceiptId, StreamName};

use crate::supervise::Worker;

/// First 128 bits of the keyed hash of an idempotency key; the stream is part of the hash.
pub type IdemKey = [u8; 16];

/// What names a ledger and salts its commitments. The secret never leaves stores and engine, except
/// from store to store with a copy of the ledger. Equality is for telling ledgers apart: it ends at
/// the first difference, so it must not decide whether a caller knows the secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The ledger.
    pub ledger: LedgerId,
    /// Key of the keyed hashes in `idem` and `commitment`.
    pub secret: [u8; 32],
}

/// What an acknowledged receipt survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The loss of power.
    Durable,
    /// The loss of power here, and not the loss of this machine: the store is away, and it is on
    /// its way there.
    Local,
    /// Nothing: it is gone with the process.
    Volatile,
}

impl Durability {
    /// The word in answers and health.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Durability::Durable => "durable",
            Durability::Local => "local",
            Durability::Volatile => "volatile",
        }
    }
}

/// One receipt on its way into the store, with what the projections need to know of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The receipt.
    pub sealed: Sealed,
    /// The `hash` of the receipt before it in its stream. With stream and seq the fence: another
    /// writer may have been faster.
    pub prev_hash: Option<Hash>,
    /// Its kind.
    pub kind: Kind,
    /// The idempotency key that it answers.
    pub key: Option<IdemKey>,
    /// The attempt that this result settles.
    pub settles: Option<ReceiptId>,
}

impl Entry {
    /// True for an attempt whose result is still to come.
    #[must_use]
    pub fn opens_attempt(&self) -> bool {
        self.kind == Kind::ActionAttempt
    }
}

/// A stream's state at one position: a cache that may be deleted at any time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The stream.
    pub stream: StreamName,
    /// The newest receipt that it covers.
    pub seq: u64,
    /// That receipt's hash; a snapshot whose hash is not in the chain is worthless.
    pub hash: Hash,
    /// That receipt's instant.
    pub at: Micros,
    /// The state in the governors' own format, behind what [`crate::keys::seal_snapshot`] puts in
    /// front of it.
    pub state: Vec<u8>,
}

/// Everything of one commit.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The ledger before it.
    pub before: HeadRecord,
    /// The ledger after it.
    pub after: HeadRecord,
    /// Receipts in commit order; positions follow `before.size`.
    pub entries: Vec<Entry>,
    /// Streams whose next due time changed.
    pub due: Vec<(StreamName, Option<Micros>)>,
    /// Snapshots to keep.
    pub snapshots: Vec<Snapshot>,
}

/// Why a batch was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another writer holds places or keys of these streams, or has moved them on. Nothing was
    /// written: decide again what concerns them. Empty when it is not known which they are.
    #[error("lost the race for {} streams", .streams.len())]
    Conflict {
        /// The streams that were lost.
        streams: Vec<StreamName>,
    },
    /// Nothing was written and a later attempt may succeed.
    #[error("store is unavailable: {0}")]
    Unavailable(String),
    /// Nothing was written, because there are too many writes: fewer and larger ones may succeed.
    #[error("store takes no more writes for now: {0}")]
    Quota(String),
    /// The store is away, and whether the batch was written will only be known when it is back. It
    /// settles that before it tells a head or takes another batch.
    #[error("outcome is not known yet: {0}")]
    Unknown(String),
    /// The store can no longer be trusted to keep what it acknowledges. Stop.
    #[error("store failed for good: {0}")]
    Fatal(String),
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store did not answer.
    #[error("store is unavailable: {0}")]
    Unavailable(String),
    /// The store answered with something that cannot be.
    #[error("store is corrupt: {0}")]
    Corrupt(String),
}

/// A stored receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Place in the order of the ledger. Of two receipts of a stream the later has the higher one,
    /// and so has the later of two that one writer committed. Without gaps from 1 in a store that
    /// has one writer.
    pub pos: u64,
    /// The stream that it is filed under.
    pub stream: StreamName,
    /// The position that it is filed under.
    pub seq: u64,
    /// Its id.
    pub id: ReceiptId,
    /// Canonical bytes without the hashes.
    pub core: Vec<u8>,
    /// SHA-256 of the bytes.
    pub hash: Hash,
    /// The link.
    pub chain_hash: Hash,
}

impl Stored {
    /// True when bytes, hash and link belong together. `view` is the scan of the bytes.
    #[must_use]
    pub fn is_intact(&self, view: &View<'_>) -> bool {
        sha256(&self.core) == self.hash && chain_hash(view.prev_hash, self.hash) == self.chain_hash
    }

    /// The row as the verifier takes it.
    #[must_use]
    pub fn row(&self) -> Row<'_> {
        Row {
            pos: self.pos,
            id: self.id,
            stream: self.stream.as_str(),
            stream_no: None,
            seq: self.seq,
            core: &self.core,
            hash: self.hash,
            chain_hash: self.chain_hash,
        }
    }
}

/// A search: newest first, bounded.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only this stream.
    pub stream: Option<StreamName>,
    /// Only receipts committed before this position: the cursor of the page before.
    pub before_pos: Option<u64>,
    /// At most this many rows are read, matching or not.
    pub scan_limit: usize,
}

/// The Store port.
///
/// Calls block and are made from threads that may block. `append` is called by one thread at a
/// time; reads come from many.
pub trait Store: Send + Sync + 'static {
    /// The backend's name, as the setting spells it.
    fn backend(&self) -> &'static str;

    /// What an acknowledged receipt survives.
    fn durability(&self) -> Durability;

    /// The ledger's name and secret.
    fn identity(&self) -> Identity;

    /// True when other processes may write beside this one.
    fn is_shared(&self) -> bool {
        false
    }

    /// The number of this writer among all that the store ever had; `None` unless it is shared.
    fn writer(&self) -> Option<u64> {
        None
    }

    /// Which of these writers are gone: their lease was given up or has run out.
    fn gone(&self, _writers: &BTreeSet<u64>) -> Result<BTreeSet<u64>, ReadError> {
        Ok(BTreeSet::new())
    }

    /// Receipts that a batch may hold at most.
    fn batch_max(&self) -> usize {
        usize::MAX
    }

    /// Where the log of this writer stands: all of the ledger, unless it is shared.
    fn head(&self) -> Result<HeadRecord, ReadError>;

    /// Writes the batch: all of it or nothing, durable on return. A `(stream, seq)`, an id or a key
    /// that exists, or another receipt before the first of a stream than the batch says, is a
    /// [`AppendError::Conflict`]: the only fence there is. A backend
    /// whose commit has an unknown outcome settles it by reading the fence back before it answers,
    /// and answers [`AppendError::Unknown`] when the fence cannot be read for too long.
    fn append(&self, batch: &Batch) -> Result<(), AppendError>;

    /// The newest snapshot of a stream.
    fn snapshot(&self, stream: &StreamName) -> Result<Option<Snapshot>, ReadError>;

    /// Up to `limit` receipts of a stream from `from_seq`, ascending.
    fn read(
        &self,
        stream: &StreamName,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, ReadError>;

    /// One receipt by id.
    fn find(&self, id: ReceiptId) -> Result<Option<Stored>, ReadError>;

    /// For each key the receipt that it was used for. Same length and order as `keys`.
    fn find_keys(&self, keys: &[IdemKey]) -> Result<Vec<Option<Stored>>, ReadError>;

    /// A page of receipts, newest first.
    fn query(&self, query: &Query) -> Result<Vec<Stored>, ReadError>;

    /// The lanes of a stream: chains that were filled beside it while the store was away.
    fn lanes(&self, base: &StreamName) -> Result<Vec<StreamName>, ReadError>;

    /// Up to `limit` streams with something due at `now`, most overdue first.
    fn due(&self, now: Micros, limit: usize) -> Result<Vec<StreamName>, ReadError>;

    /// Up to `limit` attempts without a result, oldest first: those of this writer and of writers
    /// that are gone. Who is still there settles its own.
    fn unsettled(&self, limit: usize) -> Result<Vec<Stored>, ReadError>;
}

/// A spool that is open: a ledger of lanes on this machine.
pub struct OpenSpool {
    /// What its chains are called after.
    pub lane: LaneId,
    /// Where they are kept.
    pub store: Arc<dyn Store>,
    /// What the store needs beside its writer.
    pub workers: Vec<Worker>,
}

/// A signal that waits for the store to be back, as it was delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The body of the push delivery, byte for byte.
    pub push: Vec<u8>,
    /// Who delivered it.
    pub actor: String,
}

/// What is at hand on this machine while a shared store is away. Calls block.
pub trait Standby: Send + Sync + 'static {
    /// Begins a spool of the ledger `identity`.
    fn open(&self, identity: &Identity) -> Result<OpenSpool, ReadError>;

    /// Opens the spools that earlier lives of this process left behind. Gives how many cannot be
    /// opened, or were set aside.
    fn left(&self, identity: &Identity) -> Result<(Vec<OpenSpool>, u64), ReadError>;

    /// Keeps a spool for people to look at, of which a receipt cannot be carried over. It is closed
    /// by then.
    fn set_aside(&self, lane: LaneId) -> Result<(), ReadError>;

    /// Removes a spool all of whose receipts are in the store. It is closed by then.
    fn discard(&self, lane: LaneId) -> Result<(), ReadError>;

    /// The ledger once more, with a log of its own: what is carried over is older than what the
    /// instance has written since.
    fn carrier(&self) -> Result<Arc<dyn Store>, ReadError>;

    /// Where signals wait; `None` where nothing on this machine survives a loss of power.
    fn inbox(&self) -> Option<Arc<dyn Inbox>>;
}

/// Signals that wait, in the order of their arrival. Calls block.
pub trait Inbox: Send + Sync + 'static {
    /// Keeps signals: all or none, durable on return.
    fn put(&self, signals: &[Queued]) -> Result<(), ReadError>;

    /// Up to `limit` signals that wait, oldest first, each with the number to remove it by.
    fn first(&self, limit: usize) -> Result<Vec<(i64, Queued)>, ReadError>;

    /// Forgets signals that were decided, and keeps those for people to look at that cannot be,
    /// each with the code of its reason.
    fn settle(&self, decided: &[i64], set_aside: &[(i64, &'static str)]) -> Result<(), ReadError>;

    /// How many wait. Asks nobody.
    fn waiting(&self) -> u64;
}
