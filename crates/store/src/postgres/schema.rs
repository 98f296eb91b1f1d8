//! The tables, and the function that appends.
//!
//! Owns: every CREATE, the format version, who the ledger is. Refuses to know: what is written
//! when.

use std::time::Instant;

use engine::ports::Identity;
use ledger::LedgerId;

use super::error::{ConnectError, Failure};
use super::link::{CALL_TIMEOUT, Link, Session};
use crate::new_identity;

/// The format that this program reads and writes; in `meta` as text.
pub(super) const FORMAT: &str = "1";

/// Keeps a second creator waiting; the number says nothing.
const LOCK: &str = "SELECT pg_advisory_xact_lock(6108116097)";

const TABLES: &str = include_str!("schema.sql");

/// What one look at the database says. Not by `to_regclass`, which may remember that a table was
/// not there when another creator has just made it.
const LOOK: &str = "
SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'meta' AND pg_table_is_visible(oid)),
    EXISTS (SELECT FROM pg_class WHERE relname = 'receipts' AND pg_table_is_visible(oid)),
    current_setting('server_encoding')";

const META: &str = "SELECT value FROM meta WHERE name = $1";

/// Which ledger is asked for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// The one that is there.
    Present,
    /// That one, or a new one.
    Any,
    /// This one and no other; it is created where there is none.
    Given(Identity),
}

/// Reads who the ledger is, after it was created where that is wanted and nothing is there.
pub(super) fn identity(
    link: &Link,
    session: &mut Session,
    wanted: Wanted,
) -> Result<Identity, ConnectError> {
    let deadline = Instant::now() + CALL_TIMEOUT;
    let look = async |session: &mut Session| {
        let row = session.client.query_one(LOOK, &[]).await?;
        let found: (bool, bool, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok::<_, Failure>(found)
    };
    let cannot_look = || ConnectError::from("look for the ledger's tables");
    let (has_meta, has_receipts, encoding) =
        link.wait(deadline, look(session)).map_err(cannot_look())?;
    if encoding != "UTF8" {
        return Err(ConnectError::Encoding { found: encoding });
    }
    if !has_meta && has_receipts {
        return Err(ConnectError::Foreign);
    }
    if !has_meta {
        let identity = match wanted {
            Wanted::Present => return Err(ConnectError::Missing),
            Wanted::Any => new_identity().map_err(ConnectError::Entropy)?,
            Wanted::Given(identity) => identity,
        };
        create(link, session, &identity)?;
    }
    let found = read_identity(link, session)?;
    match wanted {
        Wanted::Given(given) if given != found => Err(ConnectError::OtherLedger),
        Wanted::Given(_) | Wanted::Any | Wanted::Present => Ok(found),
    }
}

fn read_identity(link: &Link, session: &mut Session) -> Result<Identity, ConnectError> {
    let deadline = Instant::now() + CALL_TIMEOUT;
    let read = ConnectError::from("read the ledger's identity");
    let (format, ledger, secret) = link
        .wait(deadline, async {
            Ok((
                meta(session, "format").await?,
                meta(session, "ledger").await?,
                meta(session, "secret").await?,
            ))
        })
        .map_err(read)?;
    let Some(format) = format else { return Err(ConnectError::Foreign) };
    if format != FORMAT.as_bytes() {
        let found = String::from_utf8_lossy(&format).into_owned();
        return Err(ConnectError::Format { found, known: FORMAT });
    }
    let sized = || {
        let ledger = LedgerId(ledger?.try_into().ok()?);
        Some(Identity { ledger, secret: secret?.try_into().ok()? })
    };
    sized().ok_or(ConnectError::Foreign)
}

async fn meta(session: &mut Session, name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let row = session.client.query_opt(META, &[&name]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// Creates tables and identity in one transaction, unless another creator was faster.
fn create(link: &Link, session: &mut Session, identity: &Identity) -> Result<(), ConnectError> {
    let (ledger, secret) = (&identity.ledger.0[..], &identity.secret[..]);
    let work = async {
        let tx = session.client.transaction().await?;
        tx.batch_execute(LOCK).await?;
        let made: bool = tx.query_one(LOOK, &[]).await?.try_get(0)?;
        if !made {
            tx.batch_execute(TABLES).await?;
            let insert = "INSERT INTO meta (name, value) VALUES
                ('format', $1), ('ledger', $2), ('secret', $3)";
            tx.execute(insert, &[&FORMAT.as_bytes(), &ledger, &secret]).await?;
        }
        Ok(tx.commit().await?)
    };
    let deadline = Instant::now() + CALL_TIMEOUT;
    link.wait(deadline, work).map_err(ConnectError::from("create the ledger's tables"))
}
