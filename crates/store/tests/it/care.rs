//! Backup, restore, doctor, rebuild, and reading beside a writer.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::ports::Store;
use ledger::{Verifier, View};
use rusqlite::Connection;
use store::{OpenError, Reader, StreamFold, backup, doctor, rebuild, restore};
use testkit::store::StopOnDrop;
use types::{Micros, StreamName};

use crate::author::{
    Author, EPOCH, attempt, everything, key, keyed, note, open, result, stream, verify,
};

/// Batches of ten that are written beside a check at most.
const WRITES_MAX: usize = 20_000;

/// Runs `meanwhile` beside a thread that appends without pause, then stops it.
fn while_writing(store: &dyn Store, meanwhile: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let names: Vec<_> = (0..10).map(|n| stream(&format!("tenant-{n}"))).collect();
            let mut author = Author::of(store);
            // Bounded, so that whatever `meanwhile` waits for, the disk does not fill.
            for _ in (0..WRITES_MAX).take_while(|_| !stop.load(Ordering::Acquire)) {
                let drafts: Vec<_> = names.iter().map(|name| (name, note())).collect();
                author.append(store, &drafts);
            }
        });
        let stopping = StopOnDrop(&stop);
        while store.head().unwrap().size < 100 && !writing.is_finished() {
            std::thread::yield_now();
        }
        meanwhile();
        drop(stopping);
        writing.join().unwrap();
    });
}

#[test]
fn a_reader_beside_a_writer_sees_a_whole_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    while_writing(&store, || {
        let mut sizes = vec![verify(dir.path())];
        // However slowly this disk syncs: until the writer has gone on meanwhile.
        while sizes.len() < 20 || (sizes.len() < 5_000 && store.head().unwrap().size == sizes[0]) {
            sizes.push(verify(dir.path()));
        }
        sizes.push(verify(dir.path()));
        assert!(sizes.is_sorted() && sizes.first() < sizes.last(), "{sizes:?}");
    });
    let reader = Reader::open(dir.path()).unwrap();
    let before = reader.table_head().size;
    Author::of(&store).append(&store, &[(&stream("late"), note())]);
    let mut seen = 0;
    reader
        .for_each(None, &mut |_| {
            seen += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, before, "the view does not move");
}

#[test]
fn a_reader_gives_one_stream_and_stops_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (a, b) = (stream("a"), stream("b"));
    let mut author = Author::of(&store);
    for _ in 0..5 {
        author.append(&store, &[(&a, note()), (&b, note())]);
    }
    let reader = Reader::open(dir.path()).unwrap();
    let seqs = |name: Option<&StreamName>, stop_after: usize| {
        let mut seqs = Vec::new();
        let mut verifier = Verifier::of_stream(reader.ledger());
        reader
            .for_each(name, &mut |row| {
                verifier.push(row);
                seqs.push((row.stream.to_owned(), row.seq));
                if seqs.len() == stop_after {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })
            .unwrap();
        assert!(verifier.finish().intact());
        seqs
    };
    let of_b: Vec<_> = (0..5).map(|seq| ("b".to_owned(), seq)).collect();
    assert_eq!(seqs(Some(&b), usize::MAX), of_b);
    assert_eq!(seqs(Some(&stream("c")), usize::MAX), []);
    assert_eq!(seqs(None, usize::MAX).len(), 10);
    assert_eq!(seqs(None, 3).len(), 3);
}

#[test]
fn a_strange_row_reaches_the_verifier() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path());
        let mut author = Author::of(&store);
        author.append(&store, &[(&stream("a"), note()), (&stream("b"), note())]);
    }
    let shell = |sql: &str| {
        Connection::open(dir.path().join("ledger.db")).unwrap().execute_batch(sql).unwrap();
    };
    for sql in [
        "UPDATE receipts SET id = x'00' WHERE pos = 1",
        "UPDATE receipts SET chain_hash = x'' WHERE pos = 1",
        "UPDATE receipts SET seq = -1 WHERE pos = 2",
        "UPDATE receipts SET pos = -2 WHERE pos = 2",
        "UPDATE receipts SET stream = 99 WHERE pos = 2",
        "UPDATE streams SET name = 'no such name' WHERE no = 1",
    ] {
        let good = std::fs::read(dir.path().join("ledger.db")).unwrap();
        shell(sql);
        let reader = Reader::open(dir.path()).unwrap();
        let mut verifier = Verifier::new(reader.ledger(), reader.head_record());
        let mut take = |row: &ledger::Row<'_>| {
            verifier.push(row);
            ControlFlow::Continue(())
        };
        reader.for_each(None, &mut take).unwrap();
        let report = verifier.finish();
        assert!(!report.intact() && report.receipts == 2, "{sql}");
        drop(reader);
        std::fs::write(dir.path().join("ledger.db"), good).unwrap();
    }
}

#[test]
fn a_backup_under_load_is_a_whole_ledger() {
    let (dir, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = parent.path().join("copy");
    let store = open(dir.path());
    let mut heard = Vec::new();
    while_writing(&store, || {
        let head = backup(dir.path(), &copy, &mut |left, all| heard.push((left, all))).unwrap();
        assert!(head.size >= 100);
        assert_eq!(verify(&copy), head.size);
    });
    let (left, all) = heard.last().copied().unwrap();
    assert!(left == 0 && all > 0);
    assert!(matches!(backup(dir.path(), &copy, &mut |_, _| {}), Err(OpenError::NotEmpty)));

    let copied = open(&copy);
    assert_eq!(copied.identity().ledger, store.identity().ledger);
    assert!(!copied.opened().created && !copied.opened().head_rewritten);
    let all = everything(&store);
    let count = everything(&copied).len();
    assert_eq!(everything(&copied), all[..count]);
    Author::of(&copied).append(&copied, &[(&stream("a"), note())]);
}

#[test]
fn a_restore_replaces_and_deletes_nothing() {
    let (dir, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = parent.path().join("copy");
    let store = open(dir.path());
    let mut author = Author::of(&store);
    author.append(&store, &[(&stream("a"), note())]);
    backup(dir.path(), &copy, &mut |_, _| {}).unwrap();
    let saved = everything(&store);
    author.append(&store, &[(&stream("a"), note()), (&stream("b"), note())]);
    let lost = everything(&store);

    assert!(matches!(restore(&copy, dir.path(), "1"), Err(OpenError::Locked)));
    drop(store);
    let replaced = restore(&copy, dir.path(), "1").unwrap();
    assert_eq!(everything(&open(dir.path())), saved);
    assert_eq!(verify(dir.path()), 1);
    assert_eq!(everything(&open(&replaced)), lost, "what was there is still a ledger");
    assert!(matches!(restore(&copy, dir.path(), "1"), Err(OpenError::NotEmpty)));
    restore(&copy, dir.path(), "2").unwrap();

    let fresh = parent.path().join("fresh");
    restore(&copy, &fresh, "1").unwrap();
    assert_eq!(everything(&open(&fresh)), saved);
}

fn moves(from: &Path, to: &Path, names: &[&str]) {
    for name in names {
        std::fs::rename(from.join(name), to.join(name)).unwrap();
    }
}

/// A restore that died between any two of its steps must not open as something else, and what it
/// moved away is still whole.
#[test]
fn a_restore_cut_short_does_not_open() {
    let (dir, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (left, copy) = (parent.path().join("left"), parent.path().join("copy"));
    let store = open(dir.path());
    let mut author = Author::of(&store);
    author.append(&store, &[(&stream("a"), note())]);
    backup(dir.path(), &copy, &mut |_, _| {}).unwrap();
    author.append(&store, &[(&stream("a"), note())]);
    let all = ["ledger.db-wal", "ledger.db", "ledger.head"];
    for moved in 0..=all.len() {
        // What a killed service leaves, and a restore that died after some of its moves. The head
        // record is older than the log, as after a loss of power.
        std::fs::create_dir(&left).unwrap();
        for name in all {
            let from = if name == "ledger.head" { &copy } else { dir.path() };
            std::fs::copy(from.join(name), left.join(name)).unwrap();
        }
        let aside = left.join("replaced-1");
        std::fs::create_dir(&aside).unwrap();
        std::fs::write(left.join("restoring"), b"").unwrap();
        moves(&left, &aside, &all[..moved]);

        let options = store::Options { synchronous: store::Synchronous::Full };
        let refused = store::SqliteStore::open(&left, &options);
        assert!(matches!(refused, Err(OpenError::Unfinished)), "{moved}");
        let refused = rebuild(&left, &mut Expiries::default());
        assert!(matches!(refused, Err(OpenError::Unfinished | OpenError::Missing)), "{moved}");

        restore(&copy, &left, "2").unwrap();
        assert_eq!(everything(&open(&left)).len(), 1, "{moved}");
        let rest = left.join("replaced-2");
        moves(&rest, &aside, &all[moved..]);
        assert_eq!(everything(&open(&aside)), everything(&store), "{moved}");
        std::fs::remove_dir_all(&left).unwrap();
    }
}

/// Such a copy can be read where nothing can be written.
#[test]
fn a_copy_is_one_file_until_it_is_opened() {
    let (dir, parent) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (copy, back) = (parent.path().join("copy"), parent.path().join("back"));
    let mode = |dir: &Path| -> String {
        let conn = Connection::open(dir.join("ledger.db")).unwrap();
        conn.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap()
    };
    let files = |dir: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let store = open(dir.path());
    Author::of(&store).append(&store, &[(&stream("a"), note())]);
    backup(dir.path(), &copy, &mut |_, _| {}).unwrap();
    assert_eq!(files(&copy), ["ledger.db", "ledger.head"]);
    assert_eq!(mode(&copy), "delete");
    {
        let _reader = Reader::open(&copy).unwrap();
        assert_eq!(files(&copy), ["ledger.db", "ledger.head"], "reading writes nothing");
    }
    restore(&copy, &back, "1").unwrap();
    assert_eq!(files(&copy), ["ledger.db", "ledger.head"]);
    let opened = open(&back);
    assert_eq!(mode(&back), "wal");
    Author::of(&opened).append(&opened, &[(&stream("a"), note())]);
    drop(opened);
    assert_eq!(verify(&back), 2);
}

/// Due is what the newest receipt with `expires_at` says.
#[derive(Default)]
struct Expiries(BTreeMap<StreamName, Micros>);

impl StreamFold for Expiries {
    fn apply(&mut self, stream: &StreamName, core: &[u8]) {
        if let Some(secs) = View::scan(core).unwrap().expires_at {
            self.0.insert(stream.clone(), Micros::from_secs(secs));
        }
    }

    fn due(&mut self) -> Vec<(StreamName, Micros)> {
        self.0.iter().map(|(name, at)| (name.clone(), *at)).collect()
    }
}

fn dump(dir: &Path) -> Vec<String> {
    let conn = Connection::open(dir.join("ledger.db")).unwrap();
    let sql = "SELECT 'f ' || hex(hash) || ' ' || pos FROM finds
        UNION ALL SELECT 'a ' || hex(id) || ' ' || pos FROM attempts
        UNION ALL SELECT 'd ' || stream || ' ' || at FROM due ORDER BY 1";
    let mut statement = conn.prepare(sql).unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

fn busy_ledger(dir: &Path) {
    let store = open(dir);
    store.set_generation(50);
    let mut author = Author::of(&store);
    for n in 0..60u8 {
        let name = stream(&format!("tenant-{}", n % 7));
        let expires = Micros(EPOCH).plus_secs(i64::from(n));
        let mut expiring = keyed(note(), key(n));
        expiring.expires_at = Some(expires);
        let mut batch = author.batch(&[(&name, expiring), (&name, attempt()), (&name, note())]);
        batch.due = vec![(name.clone(), Some(expires))];
        batch.snapshots = vec![author.snapshot(&name, b"state")];
        store.append(&batch).unwrap();
        if n % 3 != 0 {
            author.append(&store, &[(&name, result(batch.entries[1].sealed.id))]);
        }
    }
}

#[test]
fn a_rebuild_gives_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    busy_ledger(dir.path());
    let early = dump(dir.path());
    let healthy = doctor(dir.path()).unwrap();
    assert!(healthy.healthy(), "{healthy:?}");
    assert!(healthy.rows.contains(&("receipts", 220)) && healthy.rows.contains(&("snapshots", 7)));
    rebuild(dir.path(), &mut Expiries::default()).unwrap();
    let before = dump(dir.path());
    assert_eq!(before.len(), 220 + 60 + 20 + 7);
    assert!(early.len() > 100 && early.iter().all(|line| before.contains(line)));

    Connection::open(dir.path().join("ledger.db"))
        .unwrap()
        .execute_batch(
            "DELETE FROM finds WHERE pos % 2 = 0; UPDATE finds SET pos = pos + 1 WHERE pos = 1;
            INSERT INTO finds VALUES (x'ff', 1);
            DELETE FROM attempts WHERE pos < 20; INSERT INTO attempts VALUES (zeroblob(16), 3);
            DELETE FROM due; INSERT INTO due VALUES (1, 1);",
        )
        .unwrap();
    let ill = doctor(dir.path()).unwrap();
    assert!(!ill.healthy() && ill.finds_wrong > 100 && ill.attempts_wrong > 1, "{ill:?}");
    assert_eq!(ill.finds_faults.len(), 100);
    assert_ne!(dump(dir.path()), before);

    let rebuilt = rebuild(dir.path(), &mut Expiries::default()).unwrap();
    assert_eq!((rebuilt.receipts, rebuilt.unreadable), (220, 0));
    assert_eq!((rebuilt.keys, rebuilt.attempts, rebuilt.due), (60, 20, 7));
    assert_eq!(dump(dir.path()), before);
    let again = doctor(dir.path()).unwrap();
    assert!(again.healthy() && again.rows.contains(&("snapshots", 0)), "{again:?}");
}

#[test]
fn a_rebuild_needs_the_ledger_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = rebuild(dir.path(), &mut Expiries::default());
    assert!(matches!(refused, Err(OpenError::Locked)));
    drop(store);
    let empty = tempfile::tempdir().unwrap();
    let refused = rebuild(empty.path(), &mut Expiries::default());
    assert!(matches!(refused, Err(OpenError::Missing)));
}

#[test]
fn the_doctor_compares_heads_and_looks_beside_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    while_writing(&store, || {
        let found = doctor(dir.path()).unwrap();
        assert!(found.healthy() && found.wal_bytes > 0 && found.database_bytes > 0, "{found:?}");
    });
    drop(store);
    std::fs::remove_file(dir.path().join("ledger.head")).unwrap();
    let found = doctor(dir.path()).unwrap();
    assert!(found.head_fault.is_some() && found.head_record.is_none() && !found.healthy());
    drop(open(dir.path()));
    assert!(doctor(dir.path()).unwrap().healthy());

    let sql = "UPDATE receipts SET core = '{}' WHERE pos = 5; DELETE FROM receipts WHERE pos > 50";
    Connection::open(dir.path().join("ledger.db")).unwrap().execute_batch(sql).unwrap();
    let found = doctor(dir.path()).unwrap();
    assert!(found.head_fault.is_some() && found.unreadable == 1, "{found:?}");
}
