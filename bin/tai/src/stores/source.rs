//! A ledger to read: whole or by stream, beside whoever writes it.
//!
//! Owns: one way through all backends. Refuses to know: what is intact.

use std::ops::ControlFlow;

use anyhow::{Context, bail};
use engine::ports::Identity;
use gcp::firestore;
use ledger::verify::Finding;
use ledger::{HeadRecord, LedgerId, Row};
use settings::{Backend, Settings};
use store::postgres::{ConnectError, PgReader};
use store::{OpenError, Reader};
use types::StreamName;

/// A ledger that is open for reading, beside whoever writes it.
pub(crate) enum Source {
    /// Files in a directory.
    Files(Box<Reader>),
    /// A database.
    Postgres(Box<PgReader>),
    /// Documents.
    Firestore(Box<firestore::reader::Reader>),
}

impl Source {
    /// Opens the ledger that the settings name.
    pub(crate) fn open(settings: &Settings) -> anyhow::Result<Source> {
        match settings.receipt_ledger_backend {
            Backend::Memory => {
                bail!("RECEIPT_LEDGER_BACKEND: a ledger in memory is gone with its process")
            }
            Backend::Sqlite => {
                let dir = &settings.ledger_dir;
                let cannot = || format!("cannot read the ledger in {} (LEDGER_DIR)", dir.display());
                Ok(Source::Files(Box::new(Reader::open(dir).with_context(cannot)?)))
            }
            Backend::Postgres => {
                let reader =
                    PgReader::connect(&super::database(settings)?).context("DATABASE_URL")?;
                Ok(Source::Postgres(Box::new(reader)))
            }
            Backend::Firestore => {
                let reader = firestore::reader::Reader::open(&super::firestore(settings)?);
                Ok(Source::Firestore(Box::new(reader.context("GCP_PROJECT_ID")?)))
            }
        }
    }

    /// [`Source::open`]; `None` where there is no ledger.
    pub(crate) fn find(settings: &Settings) -> anyhow::Result<Option<Source>> {
        match Source::open(settings) {
            Ok(source) => Ok(Some(source)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        match self {
            Source::Files(reader) => reader.identity(),
            Source::Postgres(reader) => reader.identity(),
            Source::Firestore(reader) => reader.identity(),
        }
    }

    /// True while somebody may write the ledger.
    pub(crate) fn is_written(&mut self) -> anyhow::Result<bool> {
        match self {
            Source::Files(reader) => Ok(reader.is_written()?),
            Source::Postgres(reader) => Ok(reader.is_written()?),
            Source::Firestore(reader) => Ok(reader.is_written()?),
        }
    }

    pub(crate) fn ledger(&self) -> LedgerId {
        match self {
            Source::Files(reader) => reader.ledger(),
            Source::Postgres(reader) => reader.ledger(),
            Source::Firestore(reader) => reader.ledger(),
        }
    }

    /// The record of the ledger's head that is kept outside it.
    pub(crate) fn head_record(&self) -> Option<HeadRecord> {
        match self {
            Source::Files(reader) => reader.head_record(),
            Source::Postgres(_) | Source::Firestore(_) => None,
        }
    }

    /// The head that stands beside the receipts. A shared ledger has one for each writer, which the
    /// reader compares itself.
    pub(crate) fn table_head(&self) -> Option<HeadRecord> {
        match self {
            Source::Files(reader) => Some(reader.table_head()),
            Source::Postgres(_) | Source::Firestore(_) => None,
        }
    }

    /// True when a short tail would be found.
    pub(crate) fn vouches(&self) -> bool {
        match self {
            Source::Files(reader) => reader.head_record().is_some(),
            Source::Postgres(_) | Source::Firestore(_) => true,
        }
    }

    /// Hands over every receipt in the order of the ledger, or those of a stream by seq. Gives what
    /// is wrong beside the receipts.
    pub(crate) fn for_each(
        &mut self,
        stream: Option<&StreamName>,
        take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> anyhow::Result<Vec<Finding>> {
        match self {
            Source::Files(reader) => {
                reader.for_each(stream, take)?;
                Ok(Vec::new())
            }
            Source::Postgres(reader) => Ok(reader.for_each(stream, take)?),
            Source::Firestore(reader) => Ok(reader.for_each(stream, take)?),
        }
    }

    /// [`Source::for_each`] until `take` fails.
    pub(crate) fn try_each(
        &mut self,
        stream: Option<&StreamName>,
        take: &mut dyn FnMut(&Row<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Finding>> {
        let mut failed = None;
        let found = self.for_each(stream, &mut |row| match take(row) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(found), Err)
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OpenError::Missing))
        || matches!(error.downcast_ref(), Some(ConnectError::Missing))
        || matches!(error.downcast_ref(), Some(gcp::Error::NoLedger))
}
