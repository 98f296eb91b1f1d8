//! Receipts on their way into a store.
//!
//! Owns: which writer of the store each of them goes through. Refuses to know: where they come
//! from.

use std::collections::BTreeMap;

use anyhow::Context;
use engine::copy::Copier;
use engine::ports::{Identity, Stored};
use ledger::{Row, View};
use settings::Settings;
use types::{Micros, StreamName};

use crate::stores::Target;

/// Receipts in memory at once.
const PENDING_MAX: usize = 2_000;

/// The writers of one store, one of which takes the receipts at a time.
///
/// Several writers of the source may have sealed at one instant. In the log of one writer of a
/// shared store instants go up, so a receipt of an instant that was there already goes through
/// another writer.
pub(super) struct Lanes<'a> {
    settings: &'a Settings,
    identity: Identity,
    lanes: Vec<Lane>,
    /// The one that takes what is pending.
    present: usize,
    pending: Vec<Stored>,
    appended: u64,
}

struct Lane {
    target: Target,
    /// The instant of the newest receipt that was given to it.
    newest: Micros,
}

impl Lane {
    fn takes(&self, at: Micros) -> bool {
        self.newest < at || !self.target.store().is_shared()
    }
}

impl Lanes<'_> {
    /// Opens the store that the settings name, for this ledger.
    pub(super) fn open(settings: &Settings, identity: Identity) -> anyhow::Result<Lanes<'_>> {
        let (lanes, pending) = (Vec::new(), Vec::new());
        let mut opened = Lanes { settings, identity, lanes, present: 0, pending, appended: 0 };
        opened.add()?;
        Ok(opened)
    }

    fn add(&mut self) -> anyhow::Result<usize> {
        let target = Target::open(self.settings, self.identity)?;
        self.lanes.push(Lane { target, newest: Micros(0) });
        Ok(self.lanes.len() - 1)
    }

    /// Takes the next receipt in the order of the ledger.
    pub(super) fn take(&mut self, row: &Row<'_>) -> anyhow::Result<()> {
        let stored = stored(row).context("a receipt cannot be copied")?;
        let at = View::scan(row.core).context("a receipt cannot be copied")?.at;
        let lane = self.lane_for(at)?;
        if lane != self.present {
            self.flush()?;
            self.present = lane;
        }
        self.lanes[lane].newest = at;
        self.pending.push(stored);
        if self.pending.len() >= PENDING_MAX {
            self.flush()?;
        }
        Ok(())
    }

    /// The present lane as long as it takes what comes: each change is a commit.
    fn lane_for(&mut self, at: Micros) -> anyhow::Result<usize> {
        if self.lanes[self.present].takes(at) {
            return Ok(self.present);
        }
        match self.lanes.iter().position(|lane| lane.takes(at)) {
            Some(lane) => Ok(lane),
            None => self.add(),
        }
    }

    /// Appends what is pending. Gives how many receipts were appended in all.
    pub(super) fn flush(&mut self) -> anyhow::Result<u64> {
        let store = self.lanes[self.present].target.store();
        self.appended += Copier::new(store)?.copy(&self.pending)?;
        self.pending.clear();
        self.lanes.iter().for_each(|lane| lane.target.maintain());
        Ok(self.appended)
    }

    /// Says what is due in all streams: in those that are not listed, nothing.
    pub(super) fn set_due(&self, due: Vec<(StreamName, Micros)>) -> anyhow::Result<()> {
        let store = self.lanes[self.present].target.store();
        let listed = store.due(Micros(i64::MAX), usize::MAX)?;
        let mut next: BTreeMap<_, _> = listed.into_iter().map(|stream| (stream, None)).collect();
        next.extend(due.into_iter().map(|(stream, at)| (stream, Some(at))));
        let next: Vec<_> = next.into_iter().collect();
        Ok(Copier::new(store)?.set_due(&next)?)
    }
}

fn stored(row: &Row<'_>) -> anyhow::Result<Stored> {
    let Row { pos, id, stream, stream_no: _, seq, core, hash, chain_hash } = *row;
    let stream = StreamName::parse(stream)?;
    Ok(Stored { pos, stream, seq, id, core: core.to_vec(), hash, chain_hash })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use engine::ports::Store;
    use settings::Baseline;
    use store::SqliteStore;
    use store::postgres::{Options, PgStore};
    use testkit::store::author::{Author, everything, note, stream};
    use testkit::store::copies::{assert_same, stored_of};

    use super::*;

    fn settings_of(url: &str) -> Settings {
        let text = format!("receipt_ledger_backend = \"postgres\"\ndatabase_url = {url:?}");
        let baseline = Baseline::capture(&|_| None::<OsString>, Some(("a file", &text)));
        baseline.resolve(&[]).unwrap().settings
    }

    /// Receipts of three streams, three of each instant, as three writers may seal them.
    fn of_three_writers(identity: Identity) -> Vec<Stored> {
        let streams = ["a", "b", "c"].map(|name| {
            let mut author = Author::new(identity.ledger);
            let name = stream(name);
            stored_of(&author.batch(&[(&name, note()), (&name, note()), (&name, note())]))
        });
        (0..3).flat_map(|nth| streams.iter().map(move |stream| stream[nth].clone())).collect()
    }

    #[test]
    fn simultaneous_receipts_go_through_several_writers() {
        let Some(cluster) = testkit::postgres::Cluster::shared().unwrap() else {
            testkit::skip!("PostgreSQL is not installed");
        };
        let url = cluster.url(&cluster.database().unwrap());
        let from = SqliteStore::memory().unwrap();
        let receipts = of_three_writers(from.identity());
        assert_eq!(Copier::new(&from).unwrap().copy(&receipts).unwrap(), 9, "one log of its own");
        let settings = settings_of(&url);
        let mut lanes = Lanes::open(&settings, from.identity()).unwrap();
        for stored in everything(&from) {
            lanes.take(&stored.row()).unwrap();
        }
        assert_eq!(lanes.flush().unwrap(), 9);
        assert_eq!(lanes.lanes.len(), 3);
        let due = [("a", 7), ("c", 5)].map(|(name, at)| (stream(name), Micros(at)));
        lanes.set_due(due.to_vec()).unwrap();
        lanes.set_due(due[1..].to_vec()).unwrap();
        drop(lanes);
        let to = PgStore::connect(&Options { url }).unwrap();
        assert_same(&from, &to);
        assert_eq!(to.due(Micros(i64::MAX), 9).unwrap(), [stream("c")]);
    }
}
