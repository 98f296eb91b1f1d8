//! What stands in for a shared store while it is away: spools and signals in a directory, or
//! receipts in memory where there is no disk that survives the process.
//!
//! Owns: the names in that directory. Refuses to know: when any of it is used.
//!
//! ```text
//! <SPOOL_DIR>/<lane>/                a spool: a ledger of lanes, named after them
//! <SPOOL_DIR>/<lane>.set-aside/      one of which a receipt cannot be carried over
//! <SPOOL_DIR>/signals-<ledger>.db    signals that wait
//! <SPOOL_DIR>/lock                   held by the instance whose directory it is
//! ```
//!
//! What if the process dies here? A directory that is not a whole ledger yet opens as an empty one,
//! and one that is half removed holds no receipt that is not in the store: what is removed goes
//! under another name first.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use engine::ports::{Identity, Inbox, OpenSpool, ReadError, Standby, Store};
use engine::supervise::Worker;
use ledger::LedgerId;
use store::{SqliteInbox, SqliteStore};
use types::LaneId;

use crate::stores::{Ledger, maintenance};

/// What a spool that is being removed is called, behind its lane.
const REMOVED: &str = ".carried-over";

/// What a spool is called that is kept for people to look at, behind its lane.
const SET_ASIDE: &str = ".set-aside";

/// Spools and signals in a directory, or in memory.
pub(crate) struct Spools {
    dir: Option<Dir>,
    ledger: Ledger,
}

struct Dir {
    path: PathBuf,
    inbox: Arc<SqliteInbox>,
    /// Held by the one instance whose directory it is.
    _lock: File,
}

/// The file that is locked.
const LOCK: &str = "lock";

impl Spools {
    /// Opens the directory, where there is one. `ledger` is what receipts are carried over to, and
    /// `id` which one that is.
    pub(crate) fn open(dir: Option<&Path>, ledger: Ledger, id: LedgerId) -> anyhow::Result<Spools> {
        let open = |path: &Path| {
            let inbox = Arc::new(SqliteInbox::open(path, id)?);
            let lock = File::create(path.join(LOCK)).context("cannot create the lock")?;
            lock.try_lock()
                .context("another instance uses the directory, and each needs its own")?;
            anyhow::Ok(Dir { path: path.to_owned(), inbox, _lock: lock })
        };
        Ok(Spools { dir: dir.map(open).transpose()?, ledger })
    }
}

fn unreadable(error: &dyn std::error::Error) -> ReadError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    ReadError::Unavailable(format!("{error}{cause}"))
}

fn spool(path: &Path, lane: LaneId, identity: &Identity) -> Result<OpenSpool, ReadError> {
    let options = store::Options { synchronous: store::Synchronous::Full };
    let store = SqliteStore::open_as(path, &options, *identity).map_err(|e| unreadable(&e))?;
    let store = Arc::new(store);
    let maintained = Arc::clone(&store);
    let workers: Vec<Worker> = vec![maintenance(move || maintained.maintain())];
    Ok(OpenSpool { lane, store, workers })
}

impl Standby for Spools {
    fn open(&self, identity: &Identity) -> Result<OpenSpool, ReadError> {
        let mut lane = [0; 8];
        getrandom::fill(&mut lane).map_err(|error| ReadError::Unavailable(error.to_string()))?;
        let lane = LaneId(lane);
        match &self.dir {
            Some(dir) => spool(&dir.path.join(lane.to_string()), lane, identity),
            None => {
                let store = SqliteStore::memory_as(*identity).map_err(|e| unreadable(&e))?;
                Ok(OpenSpool { lane, store: Arc::new(store), workers: Vec::new() })
            }
        }
    }

    fn left(&self, identity: &Identity) -> Result<(Vec<OpenSpool>, u64), ReadError> {
        let Some(dir) = &self.dir else { return Ok((Vec::new(), 0)) };
        let (mut left, mut held_back) = (Vec::new(), 0);
        for entry in std::fs::read_dir(&dir.path).map_err(|e| unreadable(&e))? {
            let path = entry.map_err(|e| unreadable(&e))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(REMOVED) {
                std::fs::remove_dir_all(&path).map_err(|e| unreadable(&e))?;
            } else if name.ends_with(SET_ASIDE) {
                held_back += 1;
            } else if let Some(lane) = LaneId::parse(name) {
                match spool(&path, lane, identity) {
                    Ok(open) => left.push(open),
                    // The others are carried over all the same.
                    Err(error) => {
                        held_back += 1;
                        tracing::error!(event = "spool_left", %error, %lane, "a spool cannot be opened");
                    }
                }
            }
        }
        Ok((left, held_back))
    }

    fn set_aside(&self, lane: LaneId) -> Result<(), ReadError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.path.join(lane.to_string());
        let aside = dir.path.join(format!("{lane}{SET_ASIDE}"));
        std::fs::rename(path, aside).map_err(|error| unreadable(&error))
    }

    fn discard(&self, lane: LaneId) -> Result<(), ReadError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.path.join(lane.to_string());
        let removed = dir.path.join(format!("{lane}{REMOVED}"));
        let discard = || {
            std::fs::rename(&path, &removed)?;
            std::fs::remove_dir_all(&removed)
        };
        discard().map_err(|error| unreadable(&error))
    }

    fn carrier(&self) -> Result<Arc<dyn Store>, ReadError> {
        self.ledger.again().map_err(|error| ReadError::Unavailable(format!("{error:#}")))
    }

    fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        self.dir.as_ref().map(|dir| Arc::clone(&dir.inbox) as Arc<dyn Inbox>)
    }
}
