//! The bare twin: the rows of a finished ledger, inserted again by a program that decides nothing.
//!
//! Owns: the plainest SQL that fills the same tables with the same bytes in the same groups.
//! Refuses to know: receipts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags, params};
use store::{SqliteStore, Synchronous};

use crate::append::{Group, MAINTAIN_INTERVAL};
use crate::process::CpuTimes;

const DATABASE: &str = "ledger.db";
const WAL: &str = "ledger.db-wal";

/// The store's own limit, at which its writer starts the log over.
const WAL_BYTES_MAX: u64 = 256 << 20;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What one bare round took.
pub(crate) struct Bare {
    pub(crate) took: Duration,
    pub(crate) cpu: CpuTimes,
}

/// The rows of a ledger in commit order.
pub(crate) struct Rows {
    receipts: Vec<Receipt>,
    streams: Vec<String>,
}

struct Receipt {
    stream: i64,
    seq: i64,
    id: [u8; 16],
    hash: [u8; 32],
    chain_hash: [u8; 32],
    core: String,
}

impl Rows {
    /// Reads all rows of the ledger in `dir`.
    pub(crate) fn load(dir: &Path) -> Result<Rows> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let conn = Connection::open_with_flags(dir.join(DATABASE), flags)?;
        let mut streams = Vec::new();
        let mut named = conn.prepare("SELECT no, name FROM streams ORDER BY no")?;
        let mut found = named.query([])?;
        while let Some(row) = found.next()? {
            streams.push(row.get(1)?);
            ensure!(row.get::<_, i64>(0)? == streams.len() as i64, "stream numbers have a gap");
        }
        let mut all = conn
            .prepare("SELECT stream, seq, id, hash, chain_hash, core FROM receipts ORDER BY pos")?;
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Receipt {
                stream: row.get(0)?,
                seq: row.get(1)?,
                id: row.get(2)?,
                hash: row.get(3)?,
                chain_hash: row.get(4)?,
                core: row.get(5)?,
            })
        };
        let receipts = all.query_map([], read)?.collect::<rusqlite::Result<Vec<_>>>()?;
        Ok(Rows { receipts, streams })
    }

    pub(crate) fn len(&self) -> usize {
        self.receipts.len()
    }
}

/// Inserts `rows` in `groups` into a new ledger in `dir`, each group synced.
pub(crate) fn insert(dir: &Path, rows: &Rows, groups: &[Group]) -> Result<Bare> {
    // The store makes tables and indexes and does the upkeep; it writes nothing while we do.
    let options = store::Options { synchronous: Synchronous::Full };
    let store = Arc::new(SqliteStore::open(dir, &options)?);
    let mut conn = Connection::open(dir.join(DATABASE))?;
    tune(&conn)?;
    let restart = Arc::new(AtomicBool::new(false));
    let (hang_up, asked) = sync_channel::<()>(0);
    let wal = dir.join(WAL);
    let upkeep = {
        let (store, restart) = (Arc::clone(&store), Arc::clone(&restart));
        std::thread::Builder::new().name("store_maintenance".to_owned()).spawn(move || {
            while asked.recv_timeout(MAINTAIN_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                store.maintain();
                if wal.metadata().is_ok_and(|file| file.len() > WAL_BYTES_MAX) {
                    restart.store(true, Ordering::Release);
                }
            }
        })?
    };
    let cpu = CpuTimes::of(std::process::id())?;
    let started = Instant::now();
    fill(&mut conn, rows, groups, &restart)?;
    let took = started.elapsed();
    let cpu = CpuTimes::of(std::process::id())?.since(&cpu);
    drop(hang_up);
    ensure!(upkeep.join().is_ok(), "upkeep panicked");
    let written: i64 = conn.query_row("SELECT count(*) FROM receipts", [], |row| row.get(0))?;
    ensure!(usize::try_from(written)? == rows.len(), "the bare insert lost receipts");
    Ok(Bare { took, cpu })
}

fn fill(conn: &mut Connection, rows: &Rows, groups: &[Group], restart: &AtomicBool) -> Result<()> {
    let numbers: HashMap<_, _> =
        rows.streams.iter().zip(1_i64..).map(|(name, number)| (name.as_str(), number)).collect();
    let mut begin = conn.prepare("BEGIN IMMEDIATE")?;
    let mut commit = conn.prepare("COMMIT")?;
    let mut stream = conn.prepare("INSERT INTO streams (no, name) VALUES (?1, ?2)")?;
    let mut receipt = conn.prepare(
        "INSERT INTO receipts (pos, stream, seq, id, hash, chain_hash, core)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut find = conn.prepare("INSERT INTO finds (hash, pos) VALUES (?1, ?2)")?;
    let mut snapshot = conn.prepare(
        "INSERT OR REPLACE INTO snapshots (stream, seq, hash, at, state)
        VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    let mut head = conn.prepare("UPDATE head SET size = ?1, root = ?2, at = ?3, indexed = ?1")?;
    let (mut pos, mut known) = (0_i64, 0);
    for group in groups {
        if restart.swap(false, Ordering::AcqRel) {
            conn.busy_timeout(Duration::ZERO)?;
            conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
            conn.busy_timeout(BUSY_TIMEOUT)?;
        }
        begin.execute([])?;
        for key in &group.keys {
            let row = &rows.receipts[usize::try_from(pos)?];
            pos += 1;
            if row.stream > known {
                known = row.stream;
                stream.execute(params![known, rows.streams[usize::try_from(known - 1)?]])?;
            }
            let (id, hash, chain_hash) = (&row.id[..], &row.hash[..], &row.chain_hash[..]);
            receipt.execute(params![pos, row.stream, row.seq, id, hash, chain_hash, row.core])?;
            find.execute(params![id, pos])?;
            if let Some(key) = key {
                find.execute(params![&key[..], pos])?;
            }
        }
        for kept in &group.snapshots {
            let number = numbers.get(kept.stream.as_str()).context("a snapshot of no stream")?;
            let seq = kept.seq.cast_signed();
            snapshot.execute(params![number, seq, &kept.hash.0[..], kept.at.0, kept.state])?;
        }
        let after = &group.after;
        head.execute(params![after.size.cast_signed(), &after.root.0[..], after.at.0])?;
        commit.execute([])?;
    }
    Ok(())
}

/// The pragmas of the store's writer.
fn tune(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cache_size", -8_192)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX.cast_signed())
}
