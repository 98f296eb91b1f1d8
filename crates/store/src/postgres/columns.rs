//! A batch as the arrays that `ledger_append` takes.
//!
//! Owns: the order of the arrays, the places of receipts in the ledger, which stream a refused key
//! or id belongs to. Refuses to know: connections.

use std::collections::{BTreeMap, HashMap};

use engine::ports::{Batch, Entry};
use ledger::HeadRecord;
use tokio_postgres::error::DbError;
use tokio_postgres::types::ToSql;
use types::hash::hex_encode;
use types::{Micros, StreamName};

/// Bits of a place in the ledger's order that tell receipts of one microsecond apart.
const LOG_BITS: u32 = 10;

/// One call of the function; the numbers of the parameters are the order of [`Columns::params`].
pub(super) const APPEND: &str = "SELECT ledger_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, \
    $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, \
    $30, $31, $32)";

/// Why a batch cannot be written as it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// These streams' receipts do not follow each other.
    Broken(Vec<StreamName>),
    /// A receipt lies outside the time that the order of the ledger has room for, or is no text.
    Unstorable(&'static str),
}

/// The place of a receipt in the order of the ledger: by instant, and within one microsecond by
/// log. It grows within a stream and within a log, because instants do. Two receipts that get the
/// same place, at one instant of two logs 1024 apart, are kept apart by a unique index: the second
/// is decided again. The order has room until the year 2255.
fn place(at: Micros, log: i64) -> Option<i64> {
    let high = at.0.checked_mul(1 << LOG_BITS).filter(|high| *high >= 0)?;
    Some(high | (log & ((1 << LOG_BITS) - 1)))
}

/// What the batch does to one stream.
struct Stream<'a> {
    /// Where its first receipt goes; `None` when it has none.
    seq: Option<i64>,
    prev: Option<&'a [u8]>,
    next: i64,
    last: Option<&'a [u8]>,
}

#[derive(Default)]
struct Streams<'a> {
    names: Vec<&'a str>,
    seqs: Vec<Option<i64>>,
    prevs: Vec<Option<&'a [u8]>>,
    nexts: Vec<i64>,
    lasts: Vec<Option<&'a [u8]>>,
}

#[derive(Default)]
struct Receipts<'a> {
    streams: Vec<i32>,
    seqs: Vec<i64>,
    places: Vec<i64>,
    ids: Vec<&'a [u8]>,
    hashes: Vec<&'a [u8]>,
    chain_hashes: Vec<&'a [u8]>,
    cores: Vec<&'a str>,
}

#[derive(Default)]
struct Projections<'a> {
    keys: (Vec<&'a [u8]>, Vec<i64>),
    attempts: (Vec<&'a [u8]>, Vec<i64>),
    settled: Vec<&'a [u8]>,
    due: (Vec<i32>, Vec<Option<i64>>),
}

#[derive(Default)]
struct Snapshots<'a> {
    streams: Vec<i32>,
    seqs: Vec<i64>,
    hashes: Vec<&'a [u8]>,
    ats: Vec<i64>,
    states: Vec<&'a [u8]>,
}

/// The arrays of one batch.
pub(super) struct Columns<'a> {
    sizes: [i64; 2],
    roots: [&'a [u8]; 2],
    at: i64,
    streams: Streams<'a>,
    receipts: Receipts<'a>,
    projections: Projections<'a>,
    snapshots: Snapshots<'a>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(batch: &'a Batch, log: i64) -> Result<Columns<'a>, Unfit> {
        let streams = streams(batch)?;
        let numbers: HashMap<&str, i32> =
            streams.keys().enumerate().map(|(nth, name)| (*name, nth as i32 + 1)).collect();
        let number = |stream: &StreamName| numbers.get(stream.as_str()).copied().unwrap_or(0);
        let (receipts, mut projections) = entries(batch, log, &number)?;
        // The last word on a stream counts.
        let due: BTreeMap<i32, Option<Micros>> =
            batch.due.iter().map(|(stream, at)| (number(stream), *at)).collect();
        projections.due = due.into_iter().map(|(stream, at)| (stream, at.map(|at| at.0))).unzip();
        let kept: BTreeMap<i32, _> =
            batch.snapshots.iter().map(|kept| (number(&kept.stream), kept)).collect();
        let mut snapshots = Snapshots::default();
        for (stream, kept) in kept {
            snapshots.streams.push(stream);
            snapshots.seqs.push(kept.seq.cast_signed());
            snapshots.hashes.push(&kept.hash.0);
            snapshots.ats.push(kept.at.0);
            snapshots.states.push(&kept.state);
        }
        let Batch { before, after, .. } = batch;
        Ok(Columns {
            sizes: [before.size.cast_signed(), after.size.cast_signed()],
            roots: [&before.root.0, &after.root.0],
            at: after.at.0,
            streams: columns_of(streams),
            receipts,
            projections,
            snapshots,
        })
    }

    /// The values in the order of the function's parameters.
    pub(super) fn params<'s>(
        &'s self,
        own: &'s i64,
        term: &'s i64,
        lease_s: &'s i64,
    ) -> [&'s (dyn ToSql + Sync); 32] {
        let Columns { sizes, roots, at, streams: s, receipts: r, projections: p, snapshots: n } =
            self;
        [
            own,
            term,
            lease_s,
            &sizes[0],
            &roots[0],
            &sizes[1],
            &roots[1],
            at,
            &s.names,
            &s.seqs,
            &s.prevs,
            &s.nexts,
            &s.lasts,
            &r.streams,
            &r.seqs,
            &r.places,
            &r.ids,
            &r.hashes,
            &r.chain_hashes,
            &r.cores,
            &p.keys.0,
            &p.keys.1,
            &p.attempts.0,
            &p.attempts.1,
            &p.settled,
            &p.due.0,
            &p.due.1,
            &n.streams,
            &n.seqs,
            &n.hashes,
            &n.ats,
            &n.states,
        ]
    }
}

/// Every stream of the batch, in the byte order of names, in which everybody locks them.
fn streams(batch: &Batch) -> Result<BTreeMap<&str, Stream<'_>>, Unfit> {
    let mut streams: BTreeMap<&str, Stream<'_>> = BTreeMap::new();
    let mut broken = Vec::new();
    for entry in &batch.entries {
        let Entry { sealed, prev_hash, .. } = entry;
        let prev = prev_hash.as_ref().map(|hash| &hash.0[..]);
        let seq = sealed.seq.cast_signed();
        let stream = streams.entry(sealed.stream.as_str()).or_insert(Stream {
            seq: Some(seq),
            prev,
            next: seq,
            last: prev,
        });
        if stream.next != seq || stream.last != prev {
            broken.push(sealed.stream.clone());
        }
        stream.next = seq.saturating_add(1);
        stream.last = Some(&sealed.hash.0);
    }
    if !broken.is_empty() {
        return Err(Unfit::Broken(broken));
    }
    let due = batch.due.iter().map(|(stream, _)| stream);
    for stream in due.chain(batch.snapshots.iter().map(|kept| &kept.stream)) {
        let untouched = Stream { seq: None, prev: None, next: 0, last: None };
        streams.entry(stream.as_str()).or_insert(untouched);
    }
    Ok(streams)
}

fn columns_of<'a>(streams: BTreeMap<&'a str, Stream<'a>>) -> Streams<'a> {
    let mut columns = Streams::default();
    for (name, stream) in streams {
        columns.names.push(name);
        columns.seqs.push(stream.seq);
        columns.prevs.push(stream.prev);
        columns.nexts.push(stream.next);
        columns.lasts.push(stream.last);
    }
    columns
}

fn entries<'a>(
    batch: &'a Batch,
    log: i64,
    number: &impl Fn(&StreamName) -> i32,
) -> Result<(Receipts<'a>, Projections<'a>), Unfit> {
    let mut receipts = Receipts::default();
    let mut projections = Projections::default();
    for entry in &batch.entries {
        let sealed = &entry.sealed;
        let place = place(sealed.at, log).ok_or(Unfit::Unstorable("an instant is out of range"))?;
        let core = std::str::from_utf8(&sealed.core)
            .map_err(|_| Unfit::Unstorable("a receipt is not text"))?;
        receipts.streams.push(number(&sealed.stream));
        receipts.seqs.push(sealed.seq.cast_signed());
        receipts.places.push(place);
        receipts.ids.push(&sealed.id.0);
        receipts.hashes.push(&sealed.hash.0);
        receipts.chain_hashes.push(&sealed.chain_hash.0);
        receipts.cores.push(core);
        if let Some(key) = &entry.key {
            projections.keys.0.push(key);
            projections.keys.1.push(place);
        }
        if entry.opens_attempt() {
            projections.attempts.0.push(&sealed.id.0);
            projections.attempts.1.push(place);
        }
        projections.settled.extend(entry.settles.as_ref().map(|attempt| &attempt.0[..]));
    }
    Ok((receipts, projections))
}

/// True when both say the same about what a log holds.
pub(super) fn same_place(a: &HeadRecord, b: &HeadRecord) -> bool {
    a.size == b.size && a.root == b.root
}

/// True when the batch ends where it says.
pub(super) fn adds_up(batch: &Batch) -> bool {
    let entries = batch.entries.iter();
    let last =
        entries.fold(batch.before, |head, entry| head.after(entry.sealed.hash, entry.sealed.at));
    same_place(&last, &batch.after)
}

/// The streams of a batch whose key or id the server refused as taken; empty when it does not say.
/// The text around the value is in the server's language, the value is not.
pub(super) fn taken(batch: &Batch, refusal: &DbError) -> Vec<StreamName> {
    named_in(batch, refusal.detail().unwrap_or_default())
}

fn named_in(batch: &Batch, detail: &str) -> Vec<StreamName> {
    let is_named = |value: &[u8; 16]| {
        let mut hex = b"\\x".to_vec();
        hex_encode(value, &mut hex);
        detail.as_bytes().windows(hex.len()).any(|window| window == hex)
    };
    let taken = batch
        .entries
        .iter()
        .filter(|entry| entry.key.as_ref().is_some_and(is_named) || is_named(&entry.sealed.id.0));
    let mut streams: Vec<StreamName> = taken.map(|entry| entry.sealed.stream.clone()).collect();
    streams.sort();
    streams.dedup();
    streams
}

#[cfg(test)]
mod tests {
    use ledger::{Draft, Kind, LedgerId, StreamHead, seal};

    use super::*;

    const AT: Micros = Micros(1_700_000_000_000_000);

    /// Two receipts of `b` around one of `a`, which has a key.
    fn batch() -> Batch {
        let ledger = LedgerId([1; 16]);
        let before = HeadRecord::empty(ledger);
        let mut heads = HashMap::new();
        let (mut after, mut entries) = (before, Vec::new());
        for (nth, name) in ["b", "a", "b"].into_iter().enumerate() {
            let stream = StreamName::parse(name).unwrap();
            let head = heads.entry(name).or_insert(StreamHead::EMPTY);
            let draft = Draft::new(Kind::Transition, "grant");
            let sealed = seal(&ledger, &stream, head, Micros(AT.0 + nth as i64), &draft).unwrap();
            let prev_hash = head.last_hash;
            *head = head.after(&sealed);
            after = after.after(sealed.hash, sealed.at);
            let key = (name == "a").then_some([9; 16]);
            entries.push(Entry { kind: draft.kind, key, settles: None, sealed, prev_hash });
        }
        Batch { before, after, entries, due: Vec::new(), snapshots: Vec::new() }
    }

    #[test]
    fn a_place_grows_with_the_instant_and_tells_logs_apart() {
        let later = Micros(AT.0 + 1);
        assert!(place(AT, 1).unwrap() < place(AT, 2).unwrap());
        assert!(place(AT, 1_023).unwrap() < place(later, 1).unwrap());
        assert_eq!(place(AT, 1), place(AT, 1_025));
        let year_2255 = Micros(9_000_000_000_000_000);
        assert!(place(year_2255, i64::MAX).unwrap() > 0);
        assert_eq!(place(types::time::MICROS_MAX, 1), None);
        assert_eq!(place(Micros(-1), 1), None);
    }

    #[test]
    fn streams_stand_in_byte_order_with_first_and_last() {
        let batch = batch();
        let columns = Columns::of(&batch, 7).unwrap();
        let streams = &columns.streams;
        assert_eq!(streams.names, ["a", "b"]);
        assert_eq!((&streams.seqs[..], &streams.nexts[..]), (&[Some(0), Some(0)][..], &[1, 2][..]));
        assert_eq!(streams.lasts[1], Some(&batch.entries[2].sealed.hash.0[..]));
        assert_eq!(columns.receipts.streams, [2, 1, 2]);
        assert_eq!(columns.projections.keys.1, [columns.receipts.places[1]]);
        assert_eq!(columns.params(&7, &1, &10).len(), APPEND.matches('$').count());
    }

    #[test]
    fn a_stream_whose_receipts_do_not_follow_each_other_is_named() {
        let mut gap = batch();
        gap.entries[2].sealed.seq = 5;
        let mut forked = batch();
        forked.entries[2].prev_hash = None;
        for batch in [gap, forked] {
            let named = vec![StreamName::parse("b").unwrap()];
            assert_eq!(Columns::of(&batch, 7).err(), Some(Unfit::Broken(named)));
        }
        let mut late = batch();
        late.entries[0].sealed.at = types::time::MICROS_MAX;
        assert!(matches!(Columns::of(&late, 7), Err(Unfit::Unstorable(_))));
    }

    #[test]
    fn a_taken_key_or_id_names_its_stream_in_any_language() {
        let batch = batch();
        let named = |detail: &str| -> Vec<String> {
            named_in(&batch, detail).iter().map(ToString::to_string).collect()
        };
        let key = format!("\\x{}", "09".repeat(16));
        assert_eq!(named(&format!("Key (key)=({key}) already exists.")), ["a"]);
        assert_eq!(named(&format!("Schlüssel »(key)=({key})« existiert bereits.")), ["a"]);
        let mut id = b"\\x".to_vec();
        hex_encode(&batch.entries[2].sealed.id.0, &mut id);
        assert_eq!(named(&String::from_utf8(id).unwrap()), ["b"]);
        assert!(named("Key (pos)=(9) already exists.").is_empty() && named("").is_empty());
    }
}
