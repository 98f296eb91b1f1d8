//! The large ledger: 1 M receipts over 100 000 tenants, built once and used again.
//!
//! Owns: where benchmark data lies, and how the large ledger comes to be. Refuses to know: what is
//! measured on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use engine::ports::Store;
use store::{Reader, SqliteStore, Synchronous};

use crate::Size;
use crate::append::{Drive, start, two_workers, upkeep};

/// Decisions for each tenant: the first writes two receipts, the registration and the grant.
const DECISIONS: usize = 9;
const RECEIPTS: usize = DECISIONS + 1;

/// The folder for all benchmark data, on the disk that the repository is on.
pub(crate) fn data_dir() -> Result<PathBuf> {
    let dir = testkit::place::target().join("bench-data");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

pub(crate) const fn tenants(size: Size) -> usize {
    match size {
        Size::Full => 100_000,
        Size::Quick => 10_000,
    }
}

pub(crate) const fn receipts(size: Size) -> u64 {
    (tenants(size) * RECEIPTS) as u64
}

/// The ledger's directory; built through the engine when it is not there whole.
pub(crate) fn ledger(size: Size) -> Result<PathBuf> {
    let dir = data_dir()?.join(format!("ledger-{}", receipts(size)));
    if is_whole(&dir, size) {
        return Ok(dir);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    build(&dir, size)?;
    Ok(dir)
}

/// Closed in order and of the right length; the verifier says the rest.
fn is_whole(dir: &Path, size: Size) -> bool {
    Reader::open(dir).is_ok_and(|reader| {
        let head = reader.table_head();
        head.size >= receipts(size) && reader.head_record() == Some(head)
    })
}

fn build(dir: &Path, size: Size) -> Result<()> {
    // Only what is measured later has to be durable.
    let options = store::Options { synchronous: Synchronous::Off };
    let store = Arc::new(SqliteStore::open(dir, &options)?);
    let maintained = Arc::clone(&store);
    let tenants = tenants(size);
    let drive = Drive { prefix: "big", submitters: 500, tenants, decisions: tenants * DECISIONS };
    two_workers()?.block_on(async {
        let upkeep = upkeep(move || maintained.maintain());
        // Room for all states: with less, each turn around the tenants would load all of them.
        let (engine, _) = start(Arc::clone(&store) as Arc<dyn Store>, upkeep, tenants * 4)?;
        drive.run(&engine).await?;
        engine.drain(Duration::from_secs(10)).await;
        Ok(())
    })
}
