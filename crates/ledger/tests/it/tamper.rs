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

#[test]
fn every_single_byte_change_is_found_and_placed() {
    let (rows, head) = sample(1_000, 7);
    // Each receipt in turn, every byte of the ledger in total: the rows share their shape, so the
    // changed row alone decides; the rest of the ledger is checked once per receipt.
    for victim in 0..rows.len() {
        let original = &rows[victim];
        let bytes = original.core.len();
        let step = if victim % 50 == 0 { 1 } else { 37 };
        for at in (victim % step..bytes).step_by(step) {
            let mut changed = rows[victim.saturating_sub(8)..(victim + 9).min(rows.len())].to_vec();
            let index = victim.min(8);
            changed[index].core[at] ^= 1 + (at % 7) as u8;
            let mut verifier = Verifier::of_stream(LEDGER);
            changed.iter().for_each(|stored| verifier.push(&stored.row()));
            let report = verifier.finish();
            // A window starts in the middle of its streams: those rows report missing ones.
            let hit = report
                .findings
                .iter()
                .any(|f| f.pos == original.pos && f.what == "hash does not match the bytes");
            assert!(hit, "receipt {victim} byte {at}");
        }
        let mut changed = rows.clone();
        changed[victim].core[victim % bytes] ^= 0x10;
        found_at(&changed, head, original.pos, "core byte");
    }
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
    for first in 0..999 {
        for second in [first + 1, (first + 7).min(999), 999] {
            if first == second {
                continue;
            }
            let mut changed = rows.clone();
            changed.swap(first, second);
            changed[first].pos = rows[first].pos;
            changed[second].pos = rows[second].pos;
            let report = verify(&changed, Some(head));
            let places: Vec<_> = report.findings.iter().map(|f| f.pos).collect();
            let near = [rows[first].pos, rows[first].pos + 1];
            assert!(
                places.first().is_some_and(|pos| near.contains(pos)),
                "{first} and {second}: {places:?}"
            );
        }
    }
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
