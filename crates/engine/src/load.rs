//! Cold streams: snapshot and tail from the store, folded on a thread that may block.
//!
//! Owns: the fold from stored bytes and the proof that a snapshot belongs to the chain. Refuses
//! to know: who waits.

use std::time::Instant;

use governors::StreamState;
use ledger::{StreamHead, View};
use types::StreamName;

use crate::cache::{Live, Loaded, Version};
use crate::commit::Progress;
use crate::keys::open_snapshot;
use crate::ports::{ReadError, Snapshot, Store, Stored};

/// Receipts read at a time: bounds memory for a stream of any length.
const PAGE: usize = 1_000;

/// Reads and folds one stream.
pub(crate) fn load(
    store: &dyn Store,
    stream: &StreamName,
    progress: &Progress,
) -> Result<Loaded, ReadError> {
    let read_at = Instant::now();
    // Before the first read: what is committed meanwhile may be missing from it.
    let (epoch, read_after_group) = (progress.epoch(), progress.committed());
    let (state, head) = start(store, stream)?;
    let begun = Version { state, head, due: None, last_group: read_after_group, read_at };
    let live = Live::new(fold_on(store, stream, begun, progress)?);
    Ok(Loaded { live, read_after_group, epoch })
}

/// Reads and folds a lane, which begins with the state of the chain beside it.
pub(crate) fn lane(
    store: &dyn Store,
    lane: &StreamName,
    base: Version,
    progress: &Progress,
) -> Result<Loaded, ReadError> {
    let (epoch, read_after_group) = (progress.epoch(), progress.committed());
    let begun = Version { head: StreamHead::EMPTY, last_group: read_after_group, ..base };
    let live = Live::new(fold_on(store, lane, begun, progress)?);
    Ok(Loaded { live, read_after_group, epoch })
}

/// Folds what follows on the head of `version`.
fn fold_on(
    store: &dyn Store,
    stream: &StreamName,
    version: Version,
    progress: &Progress,
) -> Result<Version, ReadError> {
    let Version { mut state, mut head, .. } = version;
    loop {
        let page = store.read(stream, head.next_seq, PAGE)?;
        let last = page.len() < PAGE;
        for stored in page {
            step(&mut state, &mut head, &stored).inspect_err(|_| progress.mark_tampered())?;
        }
        if last {
            break;
        }
    }
    let due = state.next_due();
    Ok(Version { state, head, due, ..version })
}

/// The newest usable snapshot, or the beginning. A snapshot is a cache: one that is unreadable or
/// not part of the chain is passed over, never believed.
fn start(store: &dyn Store, stream: &StreamName) -> Result<(StreamState, StreamHead), ReadError> {
    let empty = || (StreamState::empty(stream), StreamHead::EMPTY);
    let Some(snapshot) = store.snapshot(stream)? else { return Ok(empty()) };
    let state = open_snapshot(&store.identity(), &snapshot);
    let state = state.and_then(|state| StreamState::from_snapshot(stream, state));
    let Snapshot { seq, hash, at, .. } = snapshot;
    let receipt = store.read(stream, seq, 1)?;
    let in_chain = receipt.first().is_some_and(|stored| {
        stored.hash == hash && View::scan(&stored.core).is_ok_and(|view| view.at == at)
    });
    match state.filter(|_| in_chain) {
        Some(state) => {
            Ok((state, StreamHead { next_seq: seq + 1, last_hash: Some(hash), last_at: at }))
        }
        None => {
            tracing::warn!(event = "snapshot_refused", tenant_id = %stream, "snapshot does not belong to the chain, folding from the beginning");
            Ok(empty())
        }
    }
}

fn step(state: &mut StreamState, head: &mut StreamHead, stored: &Stored) -> Result<(), ReadError> {
    let corrupt = |what: &str| ReadError::Corrupt(format!("{what} at seq {}", stored.seq));
    let view = View::scan(&stored.core).map_err(|_| corrupt("unreadable receipt"))?;
    if !stored.is_intact(&view) {
        return Err(corrupt("altered receipt"));
    }
    // INV-4, where it is read: a state is never folded over a broken chain.
    if view.seq != head.next_seq || view.prev_hash != head.last_hash {
        return Err(corrupt("broken link"));
    }
    state.apply(&view).map_err(|_| corrupt("receipt does not fold"))?;
    let next_seq = view.seq + 1;
    *head = StreamHead { next_seq, last_hash: Some(stored.hash), last_at: view.at };
    Ok(())
}
