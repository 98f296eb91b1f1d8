//! What can go wrong between here and the server, and what it says about a statement.
//!
//! Owns: the errors of connecting, and which failures mean that nothing was written.
//! Refuses to know: what was to be written.

use std::error::Error as _;

use engine::ports::ReadError;
use tokio_postgres::error::{DbError, Severity, SqlState};

/// Why a ledger in PostgreSQL could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not one. It may hold a password, so nothing of it is repeated, not even by
    /// the client that did not understand it.
    #[error("database address is not understood")]
    Url,
    /// TLS is required, and the system has no certificates to trust.
    #[error("tls is required, and there are no trusted certificates")]
    Certificates,
    /// The system gave no thread for the connections.
    #[error("no thread for the connections")]
    Thread(#[source] std::io::Error),
    /// There is nothing to read.
    #[error("database holds no ledger")]
    Missing,
    /// The tables were made by something else.
    #[error("database holds tables that are not a ledger's")]
    Foreign,
    /// The ledger was made by another version.
    #[error("ledger has format {found}, this program knows {known}")]
    Format {
        /// The format of the ledger.
        found: String,
        /// The format of this program.
        known: &'static str,
    },
    /// Another ledger was asked for.
    #[error("database holds another ledger")]
    OtherLedger,
    /// Receipts are UTF-8, and the database would change their bytes.
    #[error("database has the encoding {found}, a ledger needs UTF8")]
    Encoding {
        /// The encoding.
        found: String,
    },
    /// The system gave no random bytes for a new ledger's id and secret.
    #[error("no random bytes for the new ledger")]
    Entropy(#[source] getrandom::Error),
    /// The server did not answer.
    #[error("cannot {what}: the server did not answer in time")]
    TimedOut {
        /// What was tried.
        what: &'static str,
    },
    /// A statement failed.
    #[error("cannot {what}")]
    Sql {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: tokio_postgres::Error,
    },
    /// The ledger's own record is not what this program writes.
    #[error("cannot {what}: {why}")]
    Corrupt {
        /// What was tried.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl ConnectError {
    pub(super) fn from(what: &'static str) -> impl FnOnce(Failure) -> ConnectError {
        move |failure| match failure {
            Failure::TimedOut => ConnectError::TimedOut { what },
            Failure::Sql(source) => ConnectError::Sql { what, source },
            Failure::Impossible(why) => ConnectError::Corrupt { what, why },
        }
    }
}

/// Why a round trip failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No answer before the deadline. What was asked may still be done.
    TimedOut,
    /// The server refused, or the connection broke.
    Sql(tokio_postgres::Error),
    /// The answer cannot be.
    Impossible(String),
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        Failure::Sql(error)
    }
}

impl Failure {
    /// The server's refusal of a statement that it has undone, on a connection that goes on. A
    /// graver one ends the connection, and what was asked may have been done before.
    pub(super) fn refusal(&self) -> Option<&DbError> {
        let Failure::Sql(error) = self else { return None };
        error.as_db_error().filter(|refusal| refusal.parsed_severity() == Some(Severity::Error))
    }

    /// True when stored data is damaged.
    pub(super) fn is_corrupt(&self) -> bool {
        match self {
            Failure::Impossible(_) => true,
            Failure::Sql(error) => error.code().is_some_and(|code| {
                *code == SqlState::DATA_CORRUPTED || *code == SqlState::INDEX_CORRUPTED
            }),
            Failure::TimedOut => false,
        }
    }

    /// True when the server gave the statement up after its own timeout.
    pub(super) fn was_too_slow(&self) -> bool {
        self.refusal().is_some_and(|refusal| *refusal.code() == SqlState::QUERY_CANCELED)
    }

    pub(super) fn read_error(&self) -> ReadError {
        if self.is_corrupt() {
            ReadError::Corrupt(self.to_string())
        } else {
            ReadError::Unavailable(self.to_string())
        }
    }
}

/// One line with its cause: what the port's errors carry.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::TimedOut => f.write_str("the server did not answer in time"),
            Failure::Impossible(what) => f.write_str(what),
            // Not the server's DETAIL, which repeats values.
            Failure::Sql(error) => match (error.as_db_error(), error.source()) {
                (Some(refusal), _) => {
                    write!(f, "{} ({})", refusal.message(), refusal.code().code())
                }
                (None, Some(cause)) => write!(f, "{error}: {cause}"),
                (None, None) => write!(f, "{error}"),
            },
        }
    }
}
