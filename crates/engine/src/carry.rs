//! Carrying a spool over: its receipts into the shared store, verbatim, and what of them is to be
//! said again in the chains themselves.
//!
//! Owns: which receipts those are, and what a failure means for the spool. Refuses to know: when a
//! spool is carried over, and how it is said again.

use std::collections::BTreeSet;

use governors::TellOutcome;
use ledger::View;
use types::{StreamName, limits};

use crate::copy::{Copier, CopyError};
use crate::ports::{Query, ReadError, Standby, Store, Stored};

/// Receipts that are carried over at a time.
const CARRY_PAGE: u64 = 500;

/// Receipts of a lane of notices that are looked at together.
const LOOK_PAGE: usize = 500;

/// Why a spool was not carried over.
pub(crate) enum NotCarried {
    /// The store did not take everything now.
    Now(String),
    /// It never will.
    Ever(String),
}

impl From<CopyError> for NotCarried {
    fn from(error: CopyError) -> NotCarried {
        let text = error.to_string();
        match error {
            CopyError::Unavailable(_) | CopyError::Fatal(_) | CopyError::Refused => {
                NotCarried::Now(text)
            }
            CopyError::Altered { .. }
            | CopyError::Foreign { .. }
            | CopyError::Fork { .. }
            | CopyError::Gap { .. }
            | CopyError::Late { .. } => NotCarried::Ever(text),
        }
    }
}

/// A channel, and the place in a lane that it has taken or never will.
pub(crate) type Told = (String, u64);

/// What was carried over.
#[derive(Default)]
pub(crate) struct Moved {
    pub(crate) receipts: u64,
    /// Receipts of lanes beside live settings and incidents.
    pub(crate) changes: Vec<Stored>,
    pub(crate) told: BTreeSet<Told>,
}

impl Moved {
    fn keep(&mut self, stored: Stored) {
        match stored.stream.base().as_str() {
            limits::STREAM_SETTINGS | limits::STREAM_INCIDENTS => self.changes.push(stored),
            limits::STREAM_NOTICES => self.told.extend(told_of(&stored)),
            _ => {}
        }
    }
}

/// What is told no more after this receipt of `_notices`.
fn told_of(stored: &Stored) -> Option<Told> {
    let view = View::scan(&stored.core).ok()?;
    let outcome = TellOutcome::parse(&view.status?.text())?;
    let place = u64::try_from(view.meta_int("place")?).ok()?;
    outcome.is_final().then_some((view.subject?.text().into_owned(), place))
}

/// Whether a channel has taken, or never will, what stands at a place of the lane of incidents
/// beside this lane of notices, which was carried over.
pub(crate) fn is_told(
    store: &dyn Store,
    notices: &StreamName,
    told: &Told,
) -> Result<bool, ReadError> {
    let mut from = 0;
    loop {
        let page = store.read(notices, from, LOOK_PAGE)?;
        if page.iter().filter_map(told_of).any(|found| found == *told) {
            return Ok(true);
        }
        if page.len() < LOOK_PAGE {
            return Ok(false);
        }
        from += page.len() as u64;
    }
}

/// Carries a spool over in the order in which it was filled, always from the beginning: changes are
/// made again as well, and what is there is passed over.
pub(crate) fn carry_all(spool: &dyn Store, standby: &dyn Standby) -> Result<Moved, NotCarried> {
    let own = |error: ReadError| match error {
        ReadError::Unavailable(why) => NotCarried::Now(why),
        ReadError::Corrupt(why) => NotCarried::Ever(why),
    };
    let size = spool.head().map_err(own)?.size;
    let mut moved = Moved::default();
    if size == 0 {
        return Ok(moved);
    }
    let ledger = standby.carrier().map_err(|error| NotCarried::Now(error.to_string()))?;
    let mut copier = Copier::new(&*ledger)?;
    let mut from = 0;
    while from < size {
        // A spool has one writer, whose positions have no gaps.
        let to = (from + CARRY_PAGE).min(size);
        let scan_limit = usize::try_from(to - from).unwrap_or(usize::MAX);
        let query = Query { stream: None, before_pos: Some(to + 1), scan_limit };
        let mut page = spool.query(&query).map_err(own)?;
        page.reverse();
        moved.receipts += copier.copy(&page)?;
        page.into_iter().for_each(|stored| moved.keep(stored));
        from = to;
    }
    Ok(moved)
}
