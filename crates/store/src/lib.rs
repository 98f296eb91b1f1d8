//! The Store port on SQLite, one file on disk or `:memory:`, and in [`postgres`] on PostgreSQL.
//!
//! Owns: tables, transactions, the files of a ledger's directory, the lock that keeps a second
//! writer out, backups, and the rebuilding of what can be rebuilt. Refuses to know: what a receipt
//! decides. It reads receipt bytes in one place only, [`rebuild`] and [`doctor`], to derive the
//! projections again.
//!
//! ```text
//! <dir>/ledger.db     receipts, projections and the head, in WAL mode
//! <dir>/ledger.head   the head once more, outside the table: two slots that alternate
//! <dir>/lock          held by the one process that may write
//! <dir>/restoring     there only while a restore exchanges the files
//! ```
//!
//! Beside a shared store a directory of its own holds what waits while that is away: signals in
//! `signals.db`, and receipts in ledgers like the one above.

mod copies;
mod doctor;
mod files;
mod finds;
mod fresh;
mod inbox;
mod pool;
pub mod postgres;
mod projections;
mod reader;
mod rows;
mod schema;
mod sqlite;
mod writer;

use engine::ports::Identity;
use ledger::LedgerId;

pub use copies::{backup, restore};
pub use doctor::{Diagnosis, doctor};
pub use inbox::SqliteInbox;
pub use projections::{Rebuilt, StreamFold, rebuild};
pub use reader::Reader;
pub use sqlite::{Opened, Options, SqliteStore, Synchronous};

/// Why a ledger's directory could not be opened, copied or rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes this ledger.
    #[error("another process holds the ledger directory, and a ledger has one writer at a time")]
    Locked,
    /// There is nothing to read.
    #[error("directory holds no ledger")]
    Missing,
    /// The database was made by something else.
    #[error("database file is not a ledger")]
    Foreign,
    /// The database was made by another version.
    #[error("ledger has format {found}, this program knows {known}")]
    Format {
        /// The format of the file.
        found: i64,
        /// The format of this program.
        known: i64,
    },
    /// Receipts that were acknowledged are gone.
    #[error("ledger is truncated: {have} receipts are there, {expected} were acknowledged")]
    Truncated {
        /// Receipts in the table.
        have: u64,
        /// Receipts that the head record counts.
        expected: u64,
    },
    /// The database is gone, and what stands beside it says that it had receipts. Creating a new
    /// one here would make SQLite delete the write-ahead log.
    #[error(
        "ledger.db is missing or empty, but ledger.head counts {counted} receipts and \
        ledger.db-wal has {wal_bytes} bytes: put ledger.db back beside them or restore a backup; \
        nothing was changed"
    )]
    DatabaseGone {
        /// Receipts that the head record counts.
        counted: u64,
        /// Bytes of the write-ahead log.
        wal_bytes: u64,
    },
    /// A restore died between its steps.
    #[error(
        "a restore into this directory was cut short: restore again, or put the files in its \
        newest replaced- directory back and remove the file named restoring"
    )]
    Unfinished,
    /// Another ledger was asked for.
    #[error("directory holds another ledger")]
    OtherLedger,
    /// The table is not what its heads were computed over.
    #[error("ledger was altered: {what}")]
    Altered {
        /// Which comparison failed.
        what: &'static str,
    },
    /// The directory that should receive a copy holds something already.
    #[error("destination directory is not empty")]
    NotEmpty,
    /// The system gave no random bytes for a new ledger's id and secret.
    #[error("no random bytes for the new ledger")]
    Entropy(#[source] getrandom::Error),
    /// A file operation failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A statement failed.
    #[error("cannot {what}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: rusqlite::Error,
    },
}

impl OpenError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> OpenError {
        move |source| OpenError::Io { what, source }
    }

    pub(crate) fn sql(what: &'static str) -> impl FnOnce(rusqlite::Error) -> OpenError {
        move |source| OpenError::Sql { what, source }
    }
}

/// Who a new ledger is: random bytes.
fn new_identity() -> Result<Identity, getrandom::Error> {
    let mut identity = Identity { ledger: LedgerId([0; 16]), secret: [0; 32] };
    getrandom::fill(&mut identity.ledger.0)?;
    getrandom::fill(&mut identity.secret)?;
    Ok(identity)
}
