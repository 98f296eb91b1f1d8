//! The border of the index: receipts before it are found through the table, later ones through
//! memory, and nobody can tell.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::ports::{IdemKey, Query, Store, Stored};
use ledger::View;
use rusqlite::Connection;
use store::{SqliteStore, StreamFold, doctor, rebuild};
use testkit::store::StopOnDrop;
use types::{Micros, ReceiptId, StreamName};

use crate::author::{Author, everything, is_conflict, keyed, note, open, stream, verify};

/// Names in a generation here: a dozen receipts.
const GENERATION: usize = 24;

const STREAMS: u64 = 5;

struct NothingDue;

impl StreamFold for NothingDue {
    fn apply(&mut self, _: &StreamName, _: &[u8]) {}

    fn due(&mut self) -> Vec<(StreamName, Micros)> {
        Vec::new()
    }
}

fn small(dir: &Path) -> SqliteStore {
    let store = open(dir);
    store.set_generation(GENERATION);
    store
}

/// The key of the nth receipt: none looks like its neighbours.
fn nth_key(n: u64) -> IdemKey {
    let mut key = [n as u8; 16];
    key[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key
}

fn nth_stream(n: u64) -> StreamName {
    stream(&format!("tenant-{}", n % STREAMS))
}

/// Appends receipts `from..to`, each with its key, `each` to a batch.
fn write(store: &dyn Store, author: &mut Author, from: u64, to: u64, each: usize) {
    let all: Vec<_> = (from..to).map(|n| (nth_stream(n), keyed(note(), nth_key(n)))).collect();
    for some in all.chunks(each) {
        let drafts: Vec<_> = some.iter().map(|(name, draft)| (name, draft.clone())).collect();
        author.append(store, &drafts);
    }
}

fn shell<T: rusqlite::types::FromSql>(dir: &Path, sql: &str) -> T {
    let conn = Connection::open(dir.join("ledger.db")).unwrap();
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn change(dir: &Path, sql: &str) {
    Connection::open(dir.join("ledger.db")).unwrap().execute_batch(sql).unwrap();
}

fn indexed(dir: &Path) -> u64 {
    shell::<i64>(dir, "SELECT indexed FROM head").cast_unsigned()
}

/// Names in the table that are no part of a whole generation yet.
fn half_moved(dir: &Path) -> u64 {
    let sql = "SELECT count(*) FROM finds WHERE pos > (SELECT indexed FROM head)";
    shell::<i64>(dir, sql).cast_unsigned()
}

/// What the disk holds at this moment is what a killed process would leave.
fn leave(from: &Path, to: &Path) {
    for file in ["ledger.db", "ledger.db-wal", "ledger.head"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

/// Everything in the table of receipts is found in each way that there is.
fn all_found(store: &dyn Store, keyed: u64) {
    let all = everything(store);
    let keys: Vec<_> = (0..keyed).map(nth_key).collect();
    let found = store.find_keys(&keys).unwrap();
    for (n, found) in found.into_iter().enumerate() {
        assert_eq!(found.as_ref(), Some(&all[n]), "key {n}");
    }
    let mut streams = BTreeMap::<_, Vec<Stored>>::new();
    for stored in all {
        assert_eq!(store.find(stored.id).unwrap().as_ref(), Some(&stored));
        streams.entry(stored.stream.clone()).or_default().push(stored);
    }
    for (name, of_stream) in streams {
        assert_eq!(store.read(&name, 0, usize::MAX).unwrap(), of_stream);
        for from in 0..of_stream.len() {
            assert_eq!(
                store.read(&name, from as u64, 3).unwrap(),
                of_stream[from..][..3.min(of_stream.len() - from)]
            );
        }
        for page in [1, 7, usize::MAX] {
            let mut pages: Vec<Stored> = Vec::new();
            loop {
                let before_pos = pages.last().map(|stored| stored.pos);
                let stream = Some(name.clone());
                let found = store.query(&Query { stream, before_pos, scan_limit: page }).unwrap();
                if found.is_empty() {
                    break;
                }
                pages.extend(found);
            }
            assert!(pages.iter().eq(of_stream.iter().rev()), "{name} by {page}");
        }
    }
}

#[test]
fn streams_keys_and_pages_cross_the_border() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let mut author = Author::of(&store);
    let (mut size, mut seen) = (0, [false; 3]);
    for each in [1, 2, 5, 30, 1, 3, 90, 1, 1] {
        for _ in 0..4 {
            write(&store, &mut author, size, size + each, each as usize);
            size += each;
            let (reach, half) = (indexed(dir.path()), half_moved(dir.path()));
            assert!(size - reach <= GENERATION as u64 + 2 * each, "{reach} of {size}");
            seen = [seen[0] | (half > 0), seen[1] | (reach > 0), seen[2] | (reach < size)];
            all_found(&store, size);
        }
    }
    assert_eq!(seen, [true; 3], "before, in the middle of, and after a move");
    drop(store);
    assert_eq!(verify(dir.path()), size);
    let found = doctor(dir.path()).unwrap();
    assert!(found.healthy(), "{found:?}");
    all_found(&open(dir.path()), size);
}

#[test]
fn a_process_that_died_in_the_middle_of_a_move_loses_no_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let mut author = Author::of(&store);
    let mut size = 0;
    for _ in 0..30 {
        write(&store, &mut author, size, size + 1, 1);
        size += 1;
        let copy = tempfile::tempdir().unwrap();
        leave(dir.path(), copy.path());
        all_found(&open(copy.path()), size);
        let (reach, half) = (indexed(copy.path()), half_moved(copy.path()));
        // By hand: some of what was moved is gone, then all of it is there.
        for sql in [
            "DELETE FROM finds WHERE pos > (SELECT indexed FROM head) AND pos % 2 = 0",
            "INSERT OR IGNORE INTO finds SELECT id, pos FROM receipts WHERE pos % 3 > 0",
        ] {
            change(copy.path(), sql);
            let found = doctor(copy.path()).unwrap();
            assert!(found.healthy(), "{reach} {half} {found:?}");
            let left = small(copy.path());
            all_found(&left, size);
            let mut heir = Author::of(&left);
            let again = heir.clone().batch(&[(&nth_stream(0), keyed(note(), nth_key(size - 1)))]);
            assert!(is_conflict(&left.append(&again)));
            // Each heir adds to what was left, so that none begins where the one before did.
            write(&left, &mut heir, size, size + 7, 2);
            all_found(&left, size + 7);
            drop(left);
            std::fs::remove_file(copy.path().join("ledger.db")).unwrap();
            leave(dir.path(), copy.path());
        }
    }
}

/// A crash forgets how far the move had come, and a process that dies often must not have ever
/// more behind the index.
#[test]
fn crashes_do_not_push_the_border_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut size = 0;
    for life in 0..40 {
        let store = small(dir.path());
        let mut author = Author::of(&store);
        write(&store, &mut author, size, size + 5, 1);
        size += 5;
        drop(store);
        let behind = size - indexed(dir.path());
        assert!(behind <= GENERATION as u64 + 5, "{behind} in life {life}");
    }
    all_found(&open(dir.path()), size);
}

#[test]
fn the_fence_stands_on_both_sides_of_the_border() {
    let dir = tempfile::tempdir().unwrap();
    for in_table in [false, true] {
        if in_table {
            rebuild(dir.path(), &mut NothingDue).unwrap();
        }
        let store = open(dir.path());
        let mut author = Author::of(&store);
        if !in_table {
            write(&store, &mut author, 0, 10, 3);
        }
        assert_eq!(indexed(dir.path()), if in_table { 10 } else { 0 });
        assert_eq!(shell::<i64>(dir.path(), "SELECT count(*) FROM finds") > 0, in_table);
        for n in 0..10 {
            let again = author.clone().batch(&[(&nth_stream(n), keyed(note(), nth_key(n)))]);
            assert!(is_conflict(&store.append(&again)), "key {n}");
        }
        // Who knows the head but not that the stream has begun: same place, same id.
        let mut blind = Author::of_stream(&store, &stream("nobody"));
        for n in 0..STREAMS {
            let taken = blind.clone().batch(&[(&nth_stream(n), note())]);
            assert!(is_conflict(&store.append(&taken)), "place {n}");
        }
        let mut forged = blind.batch(&[(&stream("nobody"), note())]);
        forged.entries[0].sealed.id = everything(&store)[3].id;
        assert!(is_conflict(&store.append(&forged)));
        let mut gap = Author::of(&store).batch(&[(&stream("a"), note()), (&stream("a"), note())]);
        let second = gap.entries.pop().unwrap();
        gap.after = gap.before.after(second.sealed.hash, second.sealed.at);
        gap.entries = vec![second];
        assert!(is_conflict(&store.append(&gap)), "behind a gap");
        assert_eq!(everything(&store).len(), 10);
    }
}

#[test]
fn an_id_is_no_key_and_a_key_no_id() {
    let dir = tempfile::tempdir().unwrap();
    for in_table in [false, true] {
        if in_table {
            rebuild(dir.path(), &mut NothingDue).unwrap();
        }
        let store = open(dir.path());
        if !in_table {
            write(&store, &mut Author::of(&store), 0, 3, 1);
        }
        assert_eq!(store.find(ReceiptId(nth_key(1))).unwrap(), None);
    }
}

#[test]
fn a_row_that_was_removed_breaks_its_stream_and_does_not_shorten_it() {
    let dir = tempfile::tempdir().unwrap();
    let size = 40;
    {
        let store = small(dir.path());
        write(&store, &mut Author::of(&store), 0, size, 1);
    }
    let reach = indexed(dir.path());
    let whole = std::fs::read(dir.path().join("ledger.db")).unwrap();
    let mut sides = [0, 0];
    for gone in 1..=size - STREAMS {
        change(dir.path(), &format!("DELETE FROM receipts WHERE pos = {gone}"));
        let store = open(dir.path());
        let name = nth_stream(gone - 1);
        let expected: Vec<_> =
            (1..=size).filter(|pos| pos % STREAMS == gone % STREAMS && *pos != gone).collect();
        let read = store.read(&name, 0, usize::MAX).unwrap();
        assert_eq!(read.iter().map(|stored| stored.pos).collect::<Vec<_>>(), expected);
        let after = store.read(&name, (gone - 1) / STREAMS, 1).unwrap();
        assert_eq!(after[0].pos, gone + STREAMS, "the next one");
        assert_eq!(View::scan(&after[0].core).unwrap().seq, (gone - 1) / STREAMS + 1);
        let newest = Query { stream: Some(name), before_pos: None, scan_limit: usize::MAX };
        let newest = store.query(&newest).unwrap();
        assert!(newest.iter().map(|stored| stored.pos).eq(expected.into_iter().rev()));
        sides[usize::from(gone > reach)] += 1;
        drop(store);
        std::fs::write(dir.path().join("ledger.db"), &whole).unwrap();
    }
    assert!(sides[0] > 0 && sides[1] > 0, "{sides:?}");
}

#[test]
fn the_doctor_names_what_is_wrong_before_the_border() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = small(dir.path());
        write(&store, &mut Author::of(&store), 0, 40, 1);
    }
    let reach = indexed(dir.path());
    assert!(reach > 10 && reach < 40 && doctor(dir.path()).unwrap().healthy());
    let whole = std::fs::read(dir.path().join("ledger.db")).unwrap();
    let id = shell::<String>(dir.path(), "SELECT lower(hex(id)) FROM receipts WHERE pos = 7");
    let key = nth_key(6).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (sql, faults) in [
        (
            format!("DELETE FROM finds WHERE hash = x'{id}'"),
            vec![format!("id {id} of receipt 7 is not in the index")],
        ),
        (
            format!("DELETE FROM finds WHERE hash = x'{key}'"),
            vec![format!("key {key} of receipt 7 is not in the index")],
        ),
        (
            format!("UPDATE finds SET pos = 8 WHERE hash = x'{id}'"),
            vec![
                format!("id {id} of receipt 7 leads to 8 instead"),
                format!("{id} in the index is no name of receipt 8"),
            ],
        ),
        (
            "INSERT INTO finds VALUES (x'ff', 3)".to_owned(),
            vec!["ff in the index is no name of receipt 3".to_owned()],
        ),
    ] {
        change(dir.path(), &sql);
        let ill = doctor(dir.path()).unwrap();
        assert!(!ill.healthy());
        assert_eq!((ill.finds_wrong, ill.finds_faults), (faults.len() as u64, faults), "{sql}");
        rebuild(dir.path(), &mut NothingDue).unwrap();
        let healed = doctor(dir.path()).unwrap();
        assert!(healed.healthy() && indexed(dir.path()) == 40, "{healed:?}");
        assert!(healed.rows.contains(&("finds", 80)));
        std::fs::write(dir.path().join("ledger.db"), &whole).unwrap();
    }
    change(dir.path(), "UPDATE head SET indexed = 41");
    assert!(doctor(dir.path()).unwrap().head_fault.is_some());
}

/// Whatever was acknowledged is found by every reader, at every moment of a move.
#[test]
fn nothing_is_invisible_while_it_moves() {
    const BATCHES: u64 = 1_500;
    const EACH: u64 = 3;
    let dir = tempfile::tempdir().unwrap();
    let store = small(dir.path());
    let (newest, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let ids = Mutex::new(Vec::<ReceiptId>::new());
    let mut author = Author::of(&store);
    std::thread::scope(|scope| {
        for reader in 0..4u64 {
            let (store, newest, done, ids) = (&store, &newest, &done, &ids);
            scope.spawn(move || {
                let mut dice = reader + 1;
                while !done.load(Ordering::Acquire) {
                    let size = newest.load(Ordering::Acquire);
                    if size == 0 {
                        continue;
                    }
                    dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Mostly around what is moved just now.
                    let back = (dice >> 33) % size.min(4 * GENERATION as u64);
                    let n = size - 1 - back;
                    let found = store.find_keys(&[nth_key(n), nth_key(size - 1)]).unwrap();
                    assert_eq!(found[0].as_ref().map(|stored| stored.pos), Some(n + 1));
                    assert_eq!(found[1].as_ref().map(|stored| stored.pos), Some(size));
                    let id = ids.lock().unwrap()[n as usize];
                    assert_eq!(store.find(id).unwrap().map(|stored| stored.pos), Some(n + 1));
                    let (name, seq) = (nth_stream(n), n / STREAMS);
                    let tail = store.read(&name, seq, usize::MAX).unwrap();
                    let linked = |pair: &[Stored]| pair[0].seq + 1 == pair[1].seq;
                    assert!(tail[0].pos == n + 1 && tail.windows(2).all(linked), "a gap");
                    assert!(tail.len() as u64 > back / STREAMS, "{} behind {back}", tail.len());
                    let newest = Query { stream: Some(name), before_pos: None, scan_limit: 1 };
                    assert!(store.query(&newest).unwrap()[0].pos + STREAMS > size);
                }
            });
        }
        let _stopping = StopOnDrop(&done);
        for batch in 0..BATCHES {
            let all: Vec<_> = (batch * EACH..(batch + 1) * EACH)
                .map(|n| (nth_stream(n), keyed(note(), nth_key(n))))
                .collect();
            let drafts: Vec<_> = all.iter().map(|(name, draft)| (name, draft.clone())).collect();
            let written = author.append(&store, &drafts);
            ids.lock().unwrap().extend(written);
            newest.store((batch + 1) * EACH, Ordering::Release);
        }
    });
    drop(store);
    assert!(indexed(dir.path()) > BATCHES * EACH - 3 * GENERATION as u64);
    let found = doctor(dir.path()).unwrap();
    assert!(found.healthy(), "{found:?}");
}
