//! Readers of what was stored or exported: receipts, snapshots, exports, the head file.
//!
//! Owns: that what is taken is written back byte for byte, and that a fold leaves no trace of what
//! it refuses. Refuses to know: where bytes are kept.

use std::sync::LazyLock;

use governors::{LiveState, Rules, StreamState};
use ledger::export::ExportVerifier;
use ledger::head::SLOT_BYTES;
use ledger::public::{public_bytes, split};
use ledger::scan::{MetaView, Raw};
use ledger::seal::sha256;
use ledger::{
    Draft, HASH_PREFIX, HeadRecord, LedgerId, Meta, StreamHead, View, chain_hash, receipt_id, seal,
};
use types::time::MICROS_MAX;
use types::{Micros, StreamName, limits};

use super::chain::Chain;

const LEDGER: LedgerId = LedgerId([7; 16]);

/// Bytes of one intact export that are altered, one at a time.
const BYTES_ALTERED: usize = 512;

/// Seconds of a hundred years, more than anything that a seed schedules.
const YEARS_S: i64 = 100 * 365 * 86_400;

/// The instant that snapshots are looked at.
const NOW: Micros = Micros(1_764_000_000_000_000);

/// One receipt: the core and the public form lead to each other, and the writer makes the very
/// same bytes of what the scanner saw.
pub(super) fn receipt(bytes: &[u8]) -> bool {
    if let Ok((core, hash, chain)) = split(bytes) {
        assert_eq!(public_bytes(&core, hash, chain).as_deref(), Ok(bytes));
        return true;
    }
    let Ok(view) = View::scan(bytes) else { return false };
    let hash = sha256(bytes);
    let chain = chain_hash(view.prev_hash, hash);
    let public = public_bytes(bytes, hash, chain);
    let back = public.as_deref().map(split);
    assert_eq!(back, Ok(Ok((bytes.to_vec(), hash, chain))), "the two forms differ");
    if within_years(&view) {
        assert_eq!(rewritten(&view).as_deref(), Some(bytes), "the writer makes other bytes");
    }
    if let Ok(stream) = StreamName::parse(view.stream) {
        // Whether it folds is a question of what stands before it.
        let _ = StreamState::empty(&stream).apply(&view);
    }
    true
}

/// True when every time of the receipt is one that a caller can name, and `timestamp` is that of
/// `at`. The scanner leaves both to the verifier and to the readers of bodies; the writer cannot
/// make others.
fn within_years(view: &View<'_>) -> bool {
    let years = 0..=MICROS_MAX.secs();
    view.timestamp == view.at.secs()
        && view.effective_at.iter().chain(&view.expires_at).all(|secs| years.contains(secs))
}

/// Seals what the scanner saw again, at its place. The id is put in afterwards, because it
/// follows from a ledger that is not known here.
fn rewritten(view: &View<'_>) -> Option<Vec<u8>> {
    let text = |raw: Option<Raw<'_>>| raw.map(|raw| raw.text().into_owned().into());
    let draft = Draft {
        reason: text(view.reason),
        detail: text(view.detail),
        entitlement_id: text(view.entitlement_id),
        actor: text(view.actor),
        subject: text(view.subject),
        state_from: text(view.state_from),
        state_to: text(view.state_to),
        rule: text(view.rule),
        intent: view.intent,
        amount: view.amount,
        currency: text(view.currency),
        status: text(view.status),
        effective_at: view.effective_at.map(Micros::from_secs),
        expires_at: view.expires_at.map(Micros::from_secs),
        idem: text(view.idem),
        commitment: text(view.commitment),
        metadata: view
            .metadata()
            .map(|(key, value)| (key.to_owned().into(), meta(value)))
            .collect(),
        ..Draft::new(view.kind, view.action.text().into_owned())
    };
    let stream = StreamName::parse(view.stream).ok()?;
    let head = StreamHead { next_seq: view.seq, last_hash: view.prev_hash, last_at: Micros(0) };
    let sealed = seal(&LEDGER, &stream, &head, view.at, &draft).ok()?;
    let ours = receipt_id(&LEDGER, view.stream, view.seq).to_string();
    // A quote inside a text is escaped, so that the first match is the member.
    let mark = format!(",\"id\":\"{ours}\"");
    let at = sealed.core.windows(mark.len()).position(|window| window == mark.as_bytes())?;
    let theirs = format!(",\"id\":\"{}\"", view.id);
    Some([&sealed.core[..at], theirs.as_bytes(), &sealed.core[at + mark.len()..]].concat())
}

fn meta(value: MetaView<'_>) -> Meta {
    match value {
        MetaView::Text(raw) => Meta::Text(raw.text().into_owned().into()),
        MetaView::Int(value) => Meta::Int(value),
        MetaView::Bool(value) => Meta::Bool(value),
    }
}

/// Cores of one stream, a line each: the fold takes a receipt whole or not at all, what it leads
/// to survives a snapshot, and everything that is decided on it folds again.
pub(super) fn fold(bytes: &[u8]) -> bool {
    static RULES: LazyLock<Option<Rules>> = LazyLock::new(|| Rules::builtin().ok());
    let Some(rules) = RULES.as_ref() else { return false };
    let mut chain: Option<Chain> = None;
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(view) = View::scan(line).ok().filter(within_years) else { break };
        let Ok(stream) = StreamName::parse(view.stream) else { break };
        let chain = chain.get_or_insert_with(|| {
            let state = StreamState::empty(&stream);
            Chain { stream: stream.clone(), state, now: view.at }
        });
        if chain.stream != stream || view.at < chain.now {
            break;
        }
        let before = chain.state.clone();
        if chain.state.apply(&view).is_err() {
            assert_eq!(chain.state, before, "a refused receipt left a trace");
            break;
        }
        chain.now = view.at;
    }
    let Some(chain) = chain else { return false };
    for view in bytes.split(|byte| *byte == b'\n').map_while(|line| View::scan(line).ok()) {
        let mut again = chain.state.clone();
        let refused = again.apply(&view).is_err();
        assert!(!refused || again == chain.state, "a receipt that came again left a trace");
    }
    let written = chain.state.to_snapshot();
    let read = StreamState::from_snapshot(&chain.stream, &written);
    assert_eq!(read.as_ref(), Some(&chain.state), "a folded state is lost in its snapshot");
    look(&chain.state, chain.now);
    chain.decide_each(rules);
    // By then whatever can fall due has.
    Chain { now: chain.now.plus_secs(YEARS_S), ..chain.clone() }.decide_each(rules);
    chain.state != StreamState::empty(&chain.stream)
}

/// A snapshot, for each kind of stream that has one: it is of one kind only, and what is read is
/// written and read again the same.
pub(super) fn snapshot(bytes: &[u8]) -> bool {
    let streams = ["tenant-1", limits::STREAM_KEYS, limits::STREAM_SETTINGS, limits::STREAM_OPS];
    let mut kinds = 0;
    for stream in streams.into_iter().filter_map(|name| StreamName::parse(name).ok()) {
        let Some(state) = StreamState::from_snapshot(&stream, bytes) else { continue };
        kinds += 1;
        let written = state.to_snapshot();
        let again = StreamState::from_snapshot(&stream, &written).map(|again| again.to_snapshot());
        assert_eq!(format_of(&written), format_of(bytes), "another format is read as this one");
        assert_eq!(again, Some(written), "a state does not survive its own snapshot");
        look(&state, NOW);
    }
    assert!(kinds <= 1, "one snapshot is of more than one kind of stream");
    kinds == 1
}

fn format_of(snapshot: &[u8]) -> Option<u64> {
    let snapshot: serde_json::Value = serde_json::from_slice(snapshot).ok()?;
    snapshot["format"].as_u64()
}

/// Everything that can be asked of a state without deciding.
fn look(state: &StreamState, now: Micros) {
    let words = ["unentitled", "entitled", "suspended", "revoked"];
    assert!(state.entitlements(now).all(|held| words.contains(&held.state)));
    let ids: Vec<String> = state.entitlements(now).map(|held| held.id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "look-ups search in order");
    assert!(state.keys().is_sorted_by(|a, b| a.id() < b.id()));
    let live = state.live();
    let changed = |live: &LiveState| {
        live.values().all(|held| held.kept.or(held.lease.map(|lease| lease.0)).is_some())
    };
    assert!(live.is_none_or(changed), "a setting without a change is kept");
    assert!(live.is_none_or(|live| live.sources().is_sorted_by(|a, b| a.0 < b.0)));
    assert!(state.reservations().is_sorted(), "look-ups search in order");
    let _ = (state.next_due(), state.in_flight(), state.is_registered());
}

/// A whole export. Of one that is intact, every line and every byte matters.
pub(super) fn export(bytes: &[u8]) -> bool {
    let lines = lines(bytes);
    let Some(receipts) = receipts_of_intact(&lines) else { return false };
    // An empty ledger may bear any id: nothing follows from it yet.
    if receipts == 0 {
        return true;
    }
    for at in 0..lines.len() {
        let fewer: Vec<&[u8]> = [&lines[..at], &lines[at + 1..]].concat();
        assert_eq!(receipts_of_intact(&fewer), None, "intact without line {at}");
    }
    let step = 1 + bytes.len() / BYTES_ALTERED;
    for at in (usize::from(sha256(bytes).0[0]) % step..bytes.len()).step_by(step) {
        let mut altered = bytes.to_vec();
        // The lowest bit, so that a digit stays one.
        altered[at] ^= 1;
        let found = receipts_of_intact(&self::lines(&altered));
        assert_eq!(found, None, "intact with another byte at {at}");
    }
    true
}

/// The lines of a file whose last line may lack its end.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n').collect()
}

/// How many receipts an export holds in which nothing is wrong.
fn receipts_of_intact(lines: &[&[u8]]) -> Option<u64> {
    let (header, rest) = lines.split_first()?;
    let mut verifier = ExportVerifier::new(header).ok()?;
    rest.iter().for_each(|line| verifier.push(line));
    let report = verifier.finish();
    assert_eq!(report.intact(), report.findings.is_empty());
    assert_eq!(report.intact(), report.first.iter().all(Option::is_none));
    assert!(report.receipts <= rest.len() as u64);
    if !report.intact() {
        return None;
    }
    assert!(report.head_checked, "an export without a trailer passes");
    let (root, count) = (report.root, report.receipts);
    let of_ledger = format!("\"root\":\"{HASH_PREFIX}{root}\",\"size\":{count}}}}}");
    let of_stream = format!("\"seq\":{count}}}}}");
    let ends = |end: String| rest.last().is_some_and(|line| line.ends_with(end.as_bytes()));
    assert!(ends(of_ledger) || ends(of_stream), "the trailer says something else");
    Some(count)
}

/// The head file as it is, and a line that was closed by its own hash, which no fuzzer finds.
pub(super) fn head(bytes: &[u8]) -> bool {
    let newest = HeadRecord::newest(bytes);
    let closed = closed_slot(bytes).and_then(|slot| HeadRecord::from_slot(&slot));
    for record in newest.iter().chain(&closed) {
        let slot = record.to_slot();
        assert_eq!(HeadRecord::from_slot(&slot).as_ref(), Some(record));
        assert_eq!(HeadRecord::newest(&slot).as_ref(), Some(record));
    }
    newest.is_some() || closed.is_some()
}

/// `body` as a slot with the right hash behind it, where it fits.
fn closed_slot(body: &[u8]) -> Option<[u8; SLOT_BYTES]> {
    let mut line = [body, b" "].concat();
    let check = sha256(&line).to_string();
    line.extend_from_slice(&check.as_bytes()[..32]);
    let mut slot = [b' '; SLOT_BYTES];
    slot[SLOT_BYTES - 1] = b'\n';
    slot[..SLOT_BYTES - 1].get_mut(..line.len())?.copy_from_slice(&line);
    Some(slot)
}
