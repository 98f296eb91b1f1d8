//! The judge: a store beside the book.
//!
//! Owns: what must hold of every store at every moment, and a reading of receipts that shares no
//! code with the governors: it knows the public fields alone, as `docs/receipts.md` tells them.
//! Refuses to know: what happened to the store.

use std::collections::{BTreeMap, BTreeSet};

use engine::keys::{CallerKey, Keyed};
use engine::ports::{Query, Store, Stored};
use governors::StreamState;
use ledger::{Verifier, View};
use serde_json::Value;
use types::{Micros, ReceiptId, StreamName};

use crate::book::{Book, Fault};

/// What a whole store amounts to.
pub(crate) struct Judged {
    /// The fold of each stream.
    pub(crate) states: BTreeMap<StreamName, StreamState>,
    /// Attempts without a result.
    pub(crate) open: BTreeSet<ReceiptId>,
}

/// Compares a store with the book, and everything in it with everything else in it.
pub(crate) fn judge(store: &dyn Store, book: &Book) -> Result<Judged, Fault> {
    let receipts = everything(store);
    all_told_are_there(store, &receipts, book)?;
    each_key_has_one(store, &receipts, book)?;
    chains_hold(store, &receipts)?;
    let (states, open) = folds_agree(&receipts)?;
    projections_agree(store, &states, &open)?;
    Ok(Judged { states, open })
}

fn everything(store: &dyn Store) -> Vec<Stored> {
    let mut all = store.query(&Query { scan_limit: usize::MAX, ..Query::default() }).unwrap();
    all.reverse();
    all
}

/// Zero lost: byte for byte, by id and in its place.
fn all_told_are_there(store: &dyn Store, receipts: &[Stored], book: &Book) -> Result<(), Fault> {
    let by_id: BTreeMap<_, _> = receipts.iter().map(|stored| (stored.id, stored)).collect();
    for told in book.told() {
        let lost = |what: &str| Err(Fault::Lost(format!("{} of {} {what}", told.id, told.stream)));
        let Some(stored) = by_id.get(&told.id) else { return lost("is not there") };
        let same = stored.core == told.core
            && stored.stream == told.stream
            && (stored.hash, stored.chain_hash) == (told.hash, told.chain_hash);
        if !same {
            return lost("has other bytes");
        }
        if store.find(told.id).unwrap().as_ref() != Some(*stored) {
            return lost("is not found by its id");
        }
    }
    Ok(())
}

/// Zero doubled: one receipt a key, and the one that was told.
fn each_key_has_one(store: &dyn Store, receipts: &[Stored], book: &Book) -> Result<(), Fault> {
    let mut of_idem: BTreeMap<String, ReceiptId> = BTreeMap::new();
    for stored in receipts {
        let Some(idem) = text(&fields(stored), "idem") else { continue };
        if let Some(first) = of_idem.insert(idem, stored.id) {
            return Err(Fault::Doubled(format!("{first} and {} have one key", stored.id)));
        }
    }
    let identity = store.identity();
    let (mut names, mut expected) = (Vec::new(), Vec::new());
    for (stream, key, id) in book.keys() {
        let keyed = Keyed::new(&identity, stream, &CallerKey { source: "sim", key, body: b"" });
        if of_idem.get(&keyed.idem.to_string()) != Some(&id) {
            return Err(Fault::Lost(format!("key {key} of {stream} does not stand on {id}")));
        }
        names.push(keyed.store_key());
        expected.push(id);
    }
    let found = store.find_keys(&names).unwrap();
    for (found, id) in found.iter().zip(expected) {
        if found.as_ref().map(|stored| stored.id) != Some(id) {
            return Err(Fault::Lost(format!("{id} is not found by its key")));
        }
    }
    Ok(())
}

/// Every hash and link, stream by stream; of a store with one writer also the whole.
fn chains_hold(store: &dyn Store, receipts: &[Stored]) -> Result<(), Fault> {
    let ledger = store.identity().ledger;
    let mut streams: BTreeMap<&StreamName, Verifier> = BTreeMap::new();
    for stored in receipts {
        let verifier = streams.entry(&stored.stream).or_insert_with(|| Verifier::of_stream(ledger));
        verifier.push(&stored.row());
    }
    let mut verifiers: Vec<Verifier> = streams.into_values().collect();
    if !store.is_shared() {
        let mut whole = Verifier::new(ledger, Some(store.head().unwrap()));
        receipts.iter().for_each(|stored| whole.push(&stored.row()));
        verifiers.push(whole);
    }
    for verifier in verifiers {
        let report = verifier.finish();
        if !report.intact() {
            return Err(Fault::FalseAlarm(format!("the verifier finds {:?}", report.findings)));
        }
    }
    Ok(())
}

type Folds = (BTreeMap<StreamName, StreamState>, BTreeSet<ReceiptId>);

/// The governors' fold beside the plain reading, receipt by receipt.
fn folds_agree(receipts: &[Stored]) -> Result<Folds, Fault> {
    let mut states: BTreeMap<StreamName, StreamState> = BTreeMap::new();
    let mut reading = Reading::default();
    for stored in receipts {
        let view = View::scan(&stored.core)
            .map_err(|error| Fault::FalseAlarm(format!("{} at {}", error.why, stored.id)))?;
        let empty = || StreamState::empty(&stored.stream);
        let state = states.entry(stored.stream.clone()).or_insert_with(empty);
        state
            .apply(&view)
            .map_err(|error| Fault::Differs(format!("{} does not fold: {error}", stored.id)))?;
        reading.take(stored)?;
        reading.compare(&stored.stream, state, view.at)?;
    }
    Ok((states, reading.open))
}

/// What is due and what is unsettled is what the folds say.
fn projections_agree(
    store: &dyn Store,
    states: &BTreeMap<StreamName, StreamState>,
    open: &BTreeSet<ReceiptId>,
) -> Result<(), Fault> {
    let due: BTreeSet<_> = store.due(Micros(i64::MAX), usize::MAX).unwrap().into_iter().collect();
    let waiting = states.iter().filter(|(_, state)| state.next_due().is_some());
    let waiting: BTreeSet<_> = waiting.map(|(stream, _)| stream.clone()).collect();
    if due != waiting {
        return Err(Fault::Differs(format!("due is {due:?}, and should be {waiting:?}")));
    }
    // In a shared store the attempts of others are theirs to settle.
    let listed: BTreeSet<_> =
        store.unsettled(usize::MAX).unwrap().iter().map(|stored| stored.id).collect();
    let right = if store.is_shared() { listed.is_subset(open) } else { listed == *open };
    if !right {
        return Err(Fault::Differs(format!("{listed:?} are unsettled, and should be {open:?}")));
    }
    Ok(())
}

/// Receipts as somebody reads them who knows their public form alone.
#[derive(Default)]
struct Reading {
    /// The state of each entitlement.
    entitlements: BTreeMap<(StreamName, String), String>,
    /// Until when each key is valid, if it ends.
    keys: BTreeMap<(StreamName, String), Option<i64>>,
    open: BTreeSet<ReceiptId>,
    settled: BTreeSet<String>,
}

impl Reading {
    fn take(&mut self, stored: &Stored) -> Result<(), Fault> {
        let fields = fields(stored);
        let kind = text(&fields, "type").unwrap_or_default();
        match kind.as_str() {
            "action_attempt" => {
                self.open.insert(stored.id);
            }
            "action_result" => {
                let attempt = text(&fields, "intent").unwrap_or_default();
                self.open.retain(|open| open.to_string() != attempt);
                if !self.settled.insert(attempt.clone()) {
                    return Err(Fault::Doubled(format!("attempt {attempt} has two results")));
                }
            }
            "transition" => return self.transition(stored, &fields),
            _ => {}
        }
        Ok(())
    }

    fn transition(&mut self, stored: &Stored, fields: &Value) -> Result<(), Fault> {
        let rule = text(fields, "rule").unwrap_or_default();
        let place = |name: &str| text(fields, name).map(|of| (stored.stream.clone(), of));
        if let Some(place) = place("entitlement_id") {
            let held = self.entitlements.entry(place).or_insert_with(|| "unentitled".to_owned());
            if text(fields, "state_from").as_deref() != Some(held) {
                return Err(Fault::Differs(format!("{} does not start from {held}", stored.id)));
            }
            *held = text(fields, "state_to").unwrap_or_default();
        }
        if let Some(place) = place("subject").filter(|_| rule.starts_with("key.")) {
            if rule == "key.revoke" {
                self.keys.remove(&place);
            } else {
                self.keys.insert(place, seconds(fields, "expires_at"));
            }
        }
        Ok(())
    }

    /// What both call held, valid and in flight must be the same.
    fn compare(&self, stream: &StreamName, state: &StreamState, at: Micros) -> Result<(), Fault> {
        // At the beginning of time nothing is due, so that this is what was folded.
        let folded = state.entitlements(Micros(0)).map(|held| (held.id, held.state.to_owned()));
        let folded: BTreeMap<_, _> = folded.filter(|(_, word)| word != "unentitled").collect();
        let of_stream = self.entitlements.iter().filter(|((of, _), _)| of == stream);
        let read = of_stream.map(|((_, id), word)| (id.clone(), word.clone()));
        let read: BTreeMap<_, _> =
            read.filter(|(_, word)| word == "entitled" || word == "suspended").collect();
        if folded != read {
            return Err(Fault::Differs(format!("{stream} holds {folded:?}, and reads {read:?}")));
        }
        let valid = state.keys().iter().filter(|key| key.is_valid(at));
        let valid: BTreeSet<_> = valid.map(|key| key.id().to_string()).collect();
        let of_stream = self.keys.iter().filter(|((of, _), _)| of == stream);
        let unexpired =
            of_stream.filter(|(_, end)| end.is_none_or(|end| at < Micros::from_secs(end)));
        let read: BTreeSet<_> = unexpired.map(|((_, id), _)| id.clone()).collect();
        if valid != read {
            return Err(Fault::Differs(format!("{stream} has keys {valid:?}, and reads {read:?}")));
        }
        match state.in_flight() {
            Some(attempt) if !self.open.contains(&attempt) => {
                Err(Fault::Differs(format!("{attempt} is in flight and settled")))
            }
            _ => Ok(()),
        }
    }
}

fn fields(stored: &Stored) -> Value {
    serde_json::from_slice(&stored.core).unwrap_or(Value::Null)
}

fn text(fields: &Value, name: &str) -> Option<String> {
    fields[name].as_str().map(str::to_owned)
}

fn seconds(fields: &Value, name: &str) -> Option<i64> {
    fields[name].as_i64()
}
