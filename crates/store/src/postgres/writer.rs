//! The one connection that appends, and what is certain about its log.
//!
//! Owns: the fence against its own former connections, outcomes that nobody heard, and their
//! settling. Refuses to know: what is appended.
//!
//! # An outcome that nobody heard
//!
//! A connection that breaks, or a server that does not answer in time, leaves it open whether the
//! batch was written, and the statement may even be carried out later: it may wait for a lock, or
//! lie unread in a socket. So the store is *in doubt* until it has taken the log over with a new
//! connection, which is one statement ([`TAKE`]) that raises the term of the log's row:
//!
//! - it waits for that row, which a statement that is under way has locked until it is committed
//!   or undone;
//! - a statement that begins later carries the old term and finds nothing to append to.
//!
//! What the row holds then is final: the head after the batch, and it was written; the head before
//! it, and it never will be. Anything else was not our doing, such as a database that lost commits
//! in a failover, and the store is not to be trusted any more.
//!
//! `append` tries to settle for a bounded time. When the server stays away, it answers
//! [`AppendError::Unknown`], and nothing is appended and no head is told before it is settled. To
//! answer `Unavailable`, which says that nothing was written, would be a guess.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::ports::{AppendError, Batch, ReadError};
use ledger::{HeadRecord, LedgerId};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use types::{Hash, Micros, StreamName};

use super::columns::{APPEND, Columns, Unfit, adds_up, same_place, taken};
use super::error::Failure;
use super::link::{CALL_TIMEOUT, Link, Session};
use super::{LEASE_TTL_S, rows};

/// How long `append` tries to learn an outcome that it did not hear.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// The wait between two tries.
const SETTLE_INTERVAL: Duration = Duration::from_millis(50);

const ROLE: &str = "writer";

/// Takes the log over from whoever wrote to it before.
const TAKE: &str = "
UPDATE logs SET term = term + 1 WHERE no = $1
RETURNING term, size, root, at";

const HEAD: &str = "SELECT term, size, root, at FROM logs WHERE no = $1";

/// Raised by `ledger_append` for streams that another writer began at the same moment.
const BEGUN: &str = "TAI01";

pub(super) struct Writer {
    link: Arc<Link>,
    /// The number of its log.
    own: i64,
    /// `None` when there is no connection that may append.
    session: Option<Session>,
    /// The term of that connection.
    term: i64,
    /// Where the log stands, as far as that is certain.
    certain: HeadRecord,
    /// Where it stands if the batch was written whose outcome nobody heard.
    doubt: Option<HeadRecord>,
    /// Why nothing may be written any more.
    failed: Option<String>,
}

/// Why the log could not be taken over.
enum Untaken {
    /// The server is away.
    Away(Failure),
    /// The log is not what it was left as.
    Altered(String),
}

impl Untaken {
    fn append_error(self) -> AppendError {
        match self {
            Untaken::Away(failure) => AppendError::Unavailable(failure.to_string()),
            Untaken::Altered(why) => AppendError::Fatal(why),
        }
    }
}

impl Writer {
    /// The writer of a new log, which connects when it is first needed.
    pub(super) fn new(link: &Arc<Link>, own: i64, ledger: LedgerId) -> Writer {
        Writer {
            link: Arc::clone(link),
            own,
            session: None,
            term: 0,
            certain: HeadRecord::empty(ledger),
            doubt: None,
            failed: None,
        }
    }

    /// Where the log stands.
    pub(super) fn head(&mut self) -> Result<HeadRecord, ReadError> {
        let unread = |untaken| match untaken {
            Untaken::Away(failure) => failure.read_error(),
            Untaken::Altered(why) => ReadError::Corrupt(why),
        };
        // A second try, because a connection that idled may have died unnoticed.
        for _ in 0..2 {
            self.ready().map_err(unread)?;
            let Some(session) = &mut self.session else { continue };
            let deadline = Instant::now() + CALL_TIMEOUT;
            let own = self.own;
            let found = self.link.wait(deadline, async {
                let rows = session.rows(HEAD, &[&own]).await?;
                rows.first().map(|row| standing(row, self.certain.ledger)).transpose()
            });
            match found {
                Ok(Some((_, head))) if same_place(&head, &self.certain) => return Ok(head),
                Ok(_) => return Err(ReadError::Corrupt(self.fail("the log was altered"))),
                Err(failure) if failure.refusal().is_some() || failure.is_corrupt() => {
                    // What was prepared may be gone: the next connection prepares again.
                    self.session = None;
                    return Err(failure.read_error());
                }
                Err(_) => self.session = None,
            }
        }
        self.ready().map_err(unread)?;
        Ok(self.certain)
    }

    /// Writes the batch, all of it or nothing.
    pub(super) fn append(&mut self, batch: &Batch) -> Result<(), AppendError> {
        debug_assert!(adds_up(batch), "the head after a batch must follow from its receipts");
        let columns = match Columns::of(batch, self.own) {
            Ok(columns) => columns,
            Err(Unfit::Broken(streams)) => return Err(AppendError::Conflict { streams }),
            Err(Unfit::Unstorable(why)) => return Err(AppendError::Unavailable(why.to_owned())),
        };
        self.ready().map_err(Untaken::append_error)?;
        if !same_place(&batch.before, &self.certain) {
            return Err(AppendError::Conflict { streams: Vec::new() });
        }
        let failure = match self.send(&columns) {
            Ok(None) => {
                self.certain = batch.after;
                return Ok(());
            }
            Ok(Some(names)) if names.is_empty() => return Err(self.dislodged()),
            Ok(Some(names)) => return Err(AppendError::Conflict { streams: streams(&names) }),
            Err(failure) => failure,
        };
        if let Some(meaning) = self.meaning(batch, &failure) {
            return Err(meaning);
        }
        self.settle(batch, &failure)
    }

    /// One round trip.
    fn send(&mut self, columns: &Columns<'_>) -> Result<Option<Vec<String>>, Failure> {
        let Some(session) = &mut self.session else {
            return Err(Failure::Impossible("there is no connection to write to".to_owned()));
        };
        let params = columns.params(&self.own, &self.term, &LEASE_TTL_S);
        let deadline = Instant::now() + CALL_TIMEOUT;
        self.link.wait(deadline, async {
            let rows = session.rows(APPEND, &params).await?;
            rows.first().map_or(Ok(None), |row| rows::get(row, 0))
        })
    }

    /// What a refusal by the server means; `None` when the outcome is open.
    fn meaning(&mut self, batch: &Batch, failure: &Failure) -> Option<AppendError> {
        let refusal = failure.refusal()?;
        let code = refusal.code();
        Some(if *code == SqlState::UNIQUE_VIOLATION {
            AppendError::Conflict { streams: taken(batch, refusal) }
        } else if code.code() == BEGUN {
            let names = refusal.detail().unwrap_or_default().lines().map(str::to_owned);
            AppendError::Conflict { streams: streams(&names.collect::<Vec<_>>()) }
        } else if *code == SqlState::T_R_SERIALIZATION_FAILURE
            || *code == SqlState::T_R_DEADLOCK_DETECTED
        {
            AppendError::Conflict { streams: Vec::new() }
        } else if failure.is_corrupt() {
            AppendError::Fatal(self.fail(&failure.to_string()))
        } else {
            // It may be a standby by now, or what was prepared may be gone: the next connection
            // finds the primary and prepares again.
            self.session = None;
            AppendError::Unavailable(failure.to_string())
        })
    }

    /// The log is not where the batch begins, though it was: find out why.
    fn dislodged(&mut self) -> AppendError {
        self.session = None;
        match self.ready() {
            Ok(()) => AppendError::Conflict { streams: Vec::new() },
            Err(untaken) => untaken.append_error(),
        }
    }

    /// Learns what became of a batch whose outcome nobody heard.
    fn settle(&mut self, batch: &Batch, failure: &Failure) -> Result<(), AppendError> {
        self.session = None;
        self.doubt = Some(batch.after);
        let give_up = Instant::now() + SETTLE_TIMEOUT;
        loop {
            match self.take_over(give_up) {
                Ok(()) if same_place(&self.certain, &batch.after) => return Ok(()),
                Ok(()) => return Err(AppendError::Unavailable(failure.to_string())),
                Err(Untaken::Altered(why)) => return Err(AppendError::Fatal(why)),
                Err(Untaken::Away(_)) if Instant::now() + SETTLE_INTERVAL >= give_up => {
                    return Err(AppendError::Unknown(failure.to_string()));
                }
                // Nothing announces that a server is back.
                Err(Untaken::Away(_)) => std::thread::sleep(SETTLE_INTERVAL),
            }
        }
    }

    /// Makes sure that there is a connection that may append, and no doubt. One try.
    fn ready(&mut self) -> Result<(), Untaken> {
        if let Some(why) = &self.failed {
            return Err(Untaken::Altered(why.clone()));
        }
        if self.doubt.is_none() && self.session.as_ref().is_some_and(|open| !open.is_closed()) {
            return Ok(());
        }
        self.take_over(Instant::now() + CALL_TIMEOUT)
    }

    fn take_over(&mut self, deadline: Instant) -> Result<(), Untaken> {
        self.session = None;
        let (own, ledger) = (self.own, self.certain.ledger);
        let taken = self.link.wait(deadline, async {
            let mut session = self.link.open(ROLE).await?;
            session.prepare(APPEND).await?;
            let rows = session.rows(TAKE, &[&own]).await?;
            let found = rows.first().map(|row| standing(row, ledger)).transpose()?;
            Ok((session, found))
        });
        let (session, found) = taken.map_err(Untaken::Away)?;
        let Some((term, head)) = found else {
            return Err(Untaken::Altered(self.fail("the log is gone")));
        };
        if self.doubt.is_some_and(|after| same_place(&head, &after)) {
            self.certain = head;
        } else if !same_place(&head, &self.certain) {
            return Err(Untaken::Altered(self.fail("the log is not what was acknowledged")));
        }
        self.doubt = None;
        (self.session, self.term) = (Some(session), term);
        Ok(())
    }

    fn fail(&mut self, why: &str) -> String {
        self.session = None;
        self.failed.get_or_insert_with(|| why.to_owned()).clone()
    }
}

fn standing(row: &Row, ledger: LedgerId) -> Result<(i64, HeadRecord), Failure> {
    let (size, root) = (rows::unsigned(row, 1)?, Hash(rows::bytes(row, 2)?));
    let at = Micros(rows::get(row, 3)?);
    Ok((rows::get(row, 0)?, HeadRecord { ledger, size, root, at }))
}

fn streams(names: &[String]) -> Vec<StreamName> {
    names.iter().filter_map(|name| StreamName::parse(name).ok()).collect()
}
