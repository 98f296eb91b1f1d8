//! `tai ledger copy`: a ledger into another store, verified at both ends.
//!
//! Owns: the order of the steps, and what both ends are compared by. Refuses to know: any backend.
//!
//! What if the process dies here? The target holds the beginning of the ledger, intact. What is due
//! is written last, when nothing is missing any more. The same command goes on from where it was.

mod lanes;

use std::time::{Duration, Instant};

use anyhow::bail;
use ledger::Report;
use ledger::verify::Heads;
use settings::{Backend, Settings};
use store::StreamFold;

use crate::cli::{complain, say};
use crate::fold::Folds;
use crate::ledger_verbs::{tell, verify_each};
use crate::stores::Source;
use lanes::Lanes;

const LEASES_INTERVAL: Duration = Duration::from_millis(500);

/// A ledger as one look at all of it shows it.
struct Image {
    report: Report,
    heads: Heads,
    folds: Folds,
}

impl Image {
    fn of(source: &mut Source) -> anyhow::Result<Image> {
        let mut folds = Folds::default();
        let (report, heads) = verify_each(source, None, &mut |row| folds.apply_row(row))?;
        Ok(Image { report, heads, folds })
    }

    /// Says the four verdicts; true when all of them hold.
    fn verifies(&self) -> bool {
        tell(&self.report) && self.report.head_checked
    }
}

/// Copies the ledger of one service's settings into the store of another's. True when both ends
/// hold the same afterwards.
pub(crate) fn run(from: &Settings, to: &Settings) -> anyhow::Result<bool> {
    if is_same_place(from, to) {
        bail!("source and target are the same store");
    }
    let mut source = Source::open(from)?;
    let is_written = source.is_written()?;
    say("the source:");
    let mut original = Image::of(&mut source)?;
    if !original.verifies() {
        complain("tai: the source does not verify, nothing was copied");
        return Ok(false);
    }
    wait_until_unwritten(to)?;
    let mut lanes = Lanes::open(to, source.identity())?;
    source.try_each(None, &mut |row| lanes.take(row))?;
    let appended = lanes.flush()?;
    say(&format!("{appended} receipts appended, the others were there; the target:"));
    let Some(mut target) = Source::find(to)? else { bail!("the target is gone") };
    let copy = Image::of(&mut target)?;
    if !copy.verifies() {
        complain("tai: the copy does not verify");
        return Ok(false);
    }
    if let Some(difference) = difference(&original.heads, &copy.heads) {
        complain(&format!("tai: {difference}"));
        return Ok(false);
    }
    lanes.set_due(original.folds.due())?;
    Ok(conclude(&original, is_written))
}

fn conclude(original: &Image, is_written: bool) -> bool {
    let Image { report, folds, .. } = original;
    let (receipts, streams) = (report.receipts, report.streams);
    say(&format!("✓ Both hold the same {receipts} receipts in {streams} streams"));
    if is_written {
        say("the source is being written, and this is a copy of it as it was: before a service \
             runs on the copy, stop the one on the source and run this again");
    }
    if folds.unfolded > 0 {
        let bad = folds.unfolded;
        complain(&format!("tai: {bad} receipts could not be folded: what is due may be missing"));
    }
    folds.unfolded == 0
}

fn is_same_place(a: &Settings, b: &Settings) -> bool {
    a.receipt_ledger_backend == b.receipt_ledger_backend
        && match a.receipt_ledger_backend {
            Backend::Sqlite => {
                let real = |dir: &std::path::Path| dir.canonicalize().ok();
                real(&a.ledger_dir).is_some_and(|dir| real(&b.ledger_dir) == Some(dir))
            }
            Backend::Postgres => a.database_url == b.database_url,
            Backend::Firestore => {
                let place = |s: &Settings| {
                    let (project, database) = (&s.gcp_project_id, &s.firestore_database);
                    (project.clone(), database.clone(), s.firestore_emulator_host.clone())
                };
                place(a) == place(b)
            }
            Backend::Memory => false,
        }
}

/// Whoever writes the target may move a stream on, or say what is due in it, while this does. In
/// files a lock keeps the second writer out.
fn wait_until_unwritten(to: &Settings) -> anyhow::Result<()> {
    // Longer than the lease of a writer that was killed.
    let patience = match to.receipt_ledger_backend {
        Backend::Sqlite | Backend::Memory => return Ok(()),
        Backend::Postgres => Duration::from_secs(12),
        Backend::Firestore => Duration::from_secs(35),
    };
    let deadline = Instant::now() + patience;
    let mut said = false;
    while let Some(mut target) = Source::find(to)? {
        if !target.is_written()? {
            break;
        }
        if Instant::now() > deadline {
            bail!("the target is being written: stop the service that runs on it");
        }
        if !std::mem::replace(&mut said, true) {
            say("waiting until the last writer of the target is gone for certain");
        }
        // Nothing announces the end of a lease.
        std::thread::sleep(LEASES_INTERVAL);
    }
    Ok(())
}

/// The first stream, by name, that does not stand at both ends where it should.
fn difference(source: &Heads, target: &Heads) -> Option<String> {
    let mut names: Vec<&str> = source.keys().chain(target.keys()).map(AsRef::as_ref).collect();
    names.sort_unstable();
    let name = names.into_iter().find(|name| source.get(*name) != target.get(*name))?;
    let length = |heads: &Heads| heads.get(name).map_or(0, |head| head.next_seq);
    let (here, there) = (length(source), length(target));
    Some(format!(
        "the two ends differ: stream {name} has {here} receipts in the source and {there} in the \
         target"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ledger::StreamHead;
    use types::{Hash, Micros};

    use super::*;

    fn heads(streams: &[(&str, u64, u8)]) -> Heads {
        let head = |(name, next_seq, hash): &(&str, u64, u8)| {
            let last_hash = Some(Hash([*hash; 32]));
            (Arc::from(*name), StreamHead { next_seq: *next_seq, last_hash, last_at: Micros(1) })
        };
        streams.iter().map(head).collect()
    }

    #[test]
    fn every_difference_between_two_ends_is_seen() {
        let both = heads(&[("a", 2, 1), ("b", 1, 2)]);
        assert_eq!(difference(&both, &both), None);
        for other in [
            heads(&[("a", 2, 1)]),
            heads(&[("a", 2, 1), ("b", 2, 3)]),
            heads(&[("a", 2, 1), ("b", 1, 9)]),
            heads(&[("a", 2, 1), ("b", 1, 2), ("c", 1, 1)]),
        ] {
            let said = difference(&both, &other).unwrap();
            assert!(said.contains("stream b") || said.contains("stream c"), "{said}");
            assert!(difference(&other, &both).is_some());
        }
    }
}
