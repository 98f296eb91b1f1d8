//! Every change to a ledger is found, and found at the right place (INV-4, INV-5, INV-17).

use ledger::verify::{Report, Verdict};
use ledger::{HeadRecord, Verifier};

use crate::{LEDGER, Stored, sample};

fn verify(rows: &[Stored], head: Option<HeadRecord>) -> Report {
    let mut verifier = Verifier::new(LEDGER, head);
    for stored in rows {
        verifier.push(&stored.row());
    }
    verifier.finish()
}

#[track_caller]
fn found_at(rows: &[Stored], head: HeadRecord, pos: u64, what: &str) -> Report {
    let report = verify(rows, Some(head));
    let first = report.findings.first().unwrap_or_else(|| panic!("{what}: not found"));
    assert_eq!(first.pos, pos, "{what}: {first:?}");
    report
}

#[test]
fn an_untouched_ledger_is_intact() {
    for streams in [1, 7, 1000] {
        let (rows, head) = sample(1_000, streams);
        let report = verify(&rows, Some(head));
        assert!(report.intact(), "{:?}", report.findings);
        assert_eq!((report.receipts, report.streams), (1_000, streams as u64));
        assert_eq!(report.root, head.root);
        assert!(Verdict::ALL.iter().all(|v| report.holds(*v)));
    }
}

/// A verifier that has taken `rows` up to each of them in turn: what was taken before a change is
/// the same for every change of one row.
fn walk(rows: &[Stored], head: HeadRecord, mut each: impl FnMut(usize, &Verifier)) {
    let mut verifier = Verifier::new(LEDGER, Some(head));
    for (nth, stored) in rows.iter().enumerate() {
        each(nth, &verifier);
        verifier.push(&stored.row());
    }
}

#[test]
fn every_single_byte_change_is_found_and_placed() {
    let (rows, head) = sample(1_000, 7);
    let mut changes = 0;
    walk(&rows, head, |victim, before| {
        let mut changed = rows[victim].clone();
        for at in 0..changed.core.len() {
            // Another bit for each byte; which one changes nothing for a hash.
            let bit = 1 << (at % 8);
            changed.core[at] ^= bit;
            let mut verifier = before.clone();
            verifier.push(&changed.row());
            changed.core[at] ^= bit;
            let report = verifier.finish();
            let first = report.findings.first().map(|finding| finding.pos);
            assert_eq!(first, Some(rows[victim].pos), "receipt {victim} byte {at}");
            changes += 1;
        }
    });
    assert!(changes > 300_000, "{changes} bytes are no ledger of a thousand receipts");
}

#[test]
fn every_changed_column_is_found_and_placed() {
    let (rows, head) = sample(1_000, 7);
    for victim in (0..1_000).step_by(97) {
        let pos = rows[victim].pos;
        for (what, change) in [
            ("hash", (|s: &mut Stored| s.sealed.hash.0[31] ^= 1) as fn(&mut Stored)),
            ("chain_hash", |s| s.sealed.chain_hash.0[0] ^= 1),
            ("id", |s| s.sealed.id.0[7] ^= 1),
            ("seq", |s| s.sealed.seq ^= 1),
            ("stream", |s| s.stream = "tenant-x".into()),
            ("pos", |s| s.pos += 1),
        ] {
            let mut changed = rows.clone();
            change(&mut changed[victim]);
            found_at(&changed, head, if what == "pos" { pos + 1 } else { pos }, what);
        }
    }
}

#[test]
fn every_dropped_row_is_found_and_placed() {
    let (rows, head) = sample(1_000, 7);
    for victim in 0..999 {
        let mut changed = rows.clone();
        changed.remove(victim);
        let report = found_at(&changed, head, rows[victim].pos + 1, "dropped");
        assert!(!report.holds(Verdict::AllPresent));
    }
}

#[test]
fn every_swapped_pair_is_found_and_placed() {
    let (rows, head) = sample(1_000, 7);
    let mut pairs = 0;
    walk(&rows, head, |first, before| {
        for second in first + 1..rows.len() {
            let mut verifier = before.clone();
            // In the place of the first, and the row behind it, which no longer follows.
            verifier.push(&Stored { pos: rows[first].pos, ..rows[second].clone() }.row());
            let behind = if second == first + 1 { &rows[first] } else { &rows[first + 1] };
            verifier.push(&Stored { pos: rows[first].pos + 1, ..behind.clone() }.row());
            let report = verifier.finish();
            let place = report.findings.first().map(|finding| finding.pos);
            let near = [Some(rows[first].pos), Some(rows[first].pos + 1)];
            assert!(near.contains(&place), "{first} and {second}: {place:?}");
            pairs += 1;
        }
    });
    assert_eq!(pairs, 1_000 * 999 / 2);
}

#[test]
fn every_truncated_tail_is_found() {
    let (rows, head) = sample(1_000, 7);
    for kept in 0..1_000 {
        let report = verify(&rows[..kept], Some(head));
        let last = report.findings.last().unwrap();
        assert_eq!((last.verdict, last.pos), (Verdict::AllPresent, 1_000));
        assert!(verify(&rows[..kept], None).intact(), "only the head record can tell");
    }
}

#[test]
fn a_rewritten_and_relinked_tail_is_found_by_the_head_record() {
    let (rows, head) = sample(1_000, 1);
    let (mut forged, _) = sample(999, 1);
    let last = forged.last().unwrap().clone();
    forged.push(Stored { pos: 1_000, ..last });
    assert!(!verify(&forged, Some(head)).intact());
    // Another honest ledger of the same length: every link holds, only the root differs.
    let other: Vec<_> = sample(1_000, 1).0;
    let mut lying = head;
    lying.root.0[0] ^= 1;
    let report = verify(&other, Some(lying));
    assert_eq!(report.findings[0].pos, 1_000);
    assert!(verify(&rows, Some(head)).intact());
}

#[test]
fn a_doubled_row_is_a_duplicate() {
    let (rows, head) = sample(1_000, 7);
    for victim in (0..1_000).step_by(31) {
        let mut changed = rows.clone();
        changed.insert(victim + 1, rows[victim].clone());
        let report = found_at(&changed, head, rows[victim].pos, "doubled");
        assert!(!report.holds(Verdict::NoDuplicates));
    }
}
