//! Proof of the shim: what was synced survives, what was not is lost, also through SQLite.

use std::os::unix::process::ExitStatusExt as _;

use super::*;

const PAGE_BYTES: usize = 4096;

/// Runs a Python script in the folder of the disk under the shim. It must end by killing itself.
fn run(disk: &Disk, script: &str) {
    let head = "import os, signal, sqlite3\n\
                def crash(): os.kill(os.getpid(), signal.SIGKILL)\n\
                def make(name): return os.open(name, os.O_RDWR | os.O_CREAT, 0o644)\n";
    let output = Command::new("python3")
        .args(["-c", &format!("{head}{script}\ncrash()\n")])
        .current_dir(disk.dir())
        .env("LD_PRELOAD", build().unwrap())
        .envs(disk.envs())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(9), "{:?} {said}", output.status);
}

/// Runs the script on a new disk, takes the power away, and gives the disk.
fn crashed(script: &str) -> (tempfile::TempDir, Disk) {
    let parent = tempfile::tempdir().unwrap();
    let disk = Disk::new(parent.path()).unwrap();
    run(&disk, script);
    disk.lose_power().unwrap();
    (parent, disk)
}

/// Name and content of every file, folders as `name/` with none.
fn content(disk: &Disk) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![disk.dir().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(disk.dir()).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                found.push((format!("{name}/"), String::new()));
                folders.push(path);
            } else {
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// A script, and the files that a loss of power at its end leaves.
type Case = (&'static str, &'static [(&'static str, &'static str)]);

const CASES: &[Case] = &[
    ("f = make('a'); os.write(f, b'lost')", &[]),
    ("f = make('a'); os.write(f, b'kept'); os.fsync(f); os.write(f, b'lost')", &[("a", "kept")]),
    ("f = make('a'); os.write(f, b'kept'); os.fdatasync(f); os.close(f)", &[("a", "kept")]),
    ("f = make('a'); os.write(f, b'kept'); os.fsync(f); os.pwrite(f, b'X', 0)", &[("a", "kept")]),
    (
        "f = make('a'); os.write(f, b'kept'); os.fsync(f); os.pwrite(f, b'X', 0); os.fsync(f)",
        &[("a", "Xept")],
    ),
    // A vectored write, and one through another descriptor of the same file.
    ("f = make('a'); os.writev(f, [b'ke', b'pt']); os.fsync(make('a'))", &[("a", "kept")]),
    ("f = make('a'); os.pwritev(f, [b'ke', b'pt'], 0); os.fsync(os.dup(f))", &[("a", "kept")]),
    // A descriptor that cannot be read from.
    (
        "f = os.open('a', os.O_WRONLY | os.O_CREAT | os.O_APPEND); os.write(f, b'ke'); \
             os.write(f, b'pt'); os.fsync(f)",
        &[("a", "kept")],
    ),
    // Truncation is durable with the sync, and not before.
    ("f = make('a'); os.write(f, b'kept'); os.fsync(f); os.ftruncate(f, 1)", &[("a", "kept")]),
    ("f = make('a'); os.write(f, b'kept'); os.ftruncate(f, 2); os.fsync(f)", &[("a", "ke")]),
    (
        "f = make('a'); os.write(f, b'kept'); os.fsync(f); os.ftruncate(f, 1); \
             os.ftruncate(f, 3); os.fsync(f)",
        &[("a", "k\0\0")],
    ),
    (
        "f = make('a'); os.write(f, b'kept'); os.fsync(f); os.close(f); \
             f = os.open('a', os.O_RDWR | os.O_TRUNC); os.write(f, b'lost')",
        &[("a", "kept")],
    ),
    // Names are durable at once, content is not.
    ("f = make('a'); os.write(f, b'gone'); os.fsync(f); os.unlink('a'); os.fsync(f)", &[]),
    ("f = make('a'); os.write(f, b'kept'); os.fsync(f); os.rename('a', 'b')", &[("b", "kept")]),
    ("f = make('a'); os.write(f, b'lost'); os.rename('a', 'b')", &[("b", "")]),
    (
        "f = make('b'); os.write(f, b'old'); os.fsync(f); f = make('a'); \
             os.write(f, b'new'); os.rename('a', 'b'); os.fsync(f)",
        &[("b", "new")],
    ),
    ("f = make('a'); os.write(f, b'x'); os.fsync(f); os.rename('a', '../a')", &[]),
    // A folder, a path through a descriptor, and a file made below a moved folder.
    (
        "os.mkdir('d'); d = os.open('d', os.O_RDONLY); \
             f = os.open('a', os.O_RDWR | os.O_CREAT, dir_fd=d); os.write(f, b'kept'); \
             os.rename('d', 'e'); os.fsync(f); os.mkdir('g'); os.mkdir('h'); os.rmdir('h')",
        &[("e/", ""), ("e/a", "kept"), ("g/", "")],
    ),
    // An inode that is used again, and SQLite's shared memory.
    (
        "f = make('a'); os.write(f, b'first, longer'); os.close(f); os.unlink('a')\n\
             f = make('a'); os.write(f, b'kept'); os.fsync(f)",
        &[("a", "kept")],
    ),
    ("f = make('a-shm'); os.write(f, b'ignored'); os.fsync(f)", &[]),
];

#[test]
fn only_what_was_synced_survives() {
    crate::needs_python!();
    for (script, expected) in CASES {
        let (_parent, disk) = crashed(script);
        let found = content(&disk);
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(found, *expected, "{script}");
    }
}

#[test]
fn a_process_that_comes_later_syncs_what_an_earlier_one_left() {
    crate::needs_python!();
    let parent = tempfile::tempdir().unwrap();
    let disk = Disk::new(parent.path()).unwrap();
    run(&disk, "f = make('a'); os.write(f, b'one '); os.fsync(f); os.write(f, b'two ')");
    // Without a loss of power the page cache is whole.
    run(&disk, "f = os.open('a', os.O_RDWR | os.O_APPEND); os.write(f, b'three'); os.fsync(f)");
    disk.lose_power().unwrap();
    assert_eq!(content(&disk), [("a".to_owned(), "one two three".to_owned())]);
}

#[test]
fn outside_of_the_disk_nothing_is_kept() {
    crate::needs_python!();
    let (parent, disk) = crashed("f = make('../out'); os.write(f, b'x'); os.fsync(f)");
    assert_eq!(content(&disk), []);
    assert_eq!(fs::read_to_string(parent.path().join("out")).unwrap(), "x");
    assert!(!parent.path().join("shadow/out").exists());
}

#[test]
fn a_leak_keeps_some_pages_and_says_which_by_its_seed() {
    crate::needs_python!();
    const PAGES: usize = 200;
    let script =
        format!("f = make('a')\nfor page in range({PAGES}): os.write(f, b'x' * {PAGE_BYTES})\n");
    let survivors = |seed: u64| {
        let parent = tempfile::tempdir().unwrap();
        let disk = Disk::new(parent.path()).unwrap().leaking(seed);
        run(&disk, &script);
        disk.lose_power().unwrap();
        let bytes = fs::read(disk.dir().join("a")).unwrap();
        bytes.chunks(PAGE_BYTES).map(|page| page.iter().all(|&b| b == b'x')).collect::<Vec<_>>()
    };
    let pages = survivors(7);
    let kept = pages.iter().filter(|&&kept| kept).count();
    assert!((PAGES / 8..PAGES / 2).contains(&kept), "{kept} of {PAGES}");
    // Out of order: a page is there although one before it is not.
    assert!(pages.windows(2).any(|pair| pair == [false, true]));
    assert_eq!(pages, survivors(7));
    assert_ne!(pages, survivors(8));
}

/// 20 commits of a few pages each; the script prints nothing, since its death is the point.
fn sqlite_script(journal: &str, synchronous: &str) -> String {
    format!(
        "db = sqlite3.connect('ledger.db', isolation_level=None)\n\
         db.execute('PRAGMA journal_mode={journal}')\n\
         db.execute('PRAGMA synchronous={synchronous}')\n\
         db.execute('CREATE TABLE receipt (seq INTEGER PRIMARY KEY, body TEXT)')\n\
         for seq in range(20):\n    \
             db.execute('INSERT INTO receipt VALUES (?, ?)', (seq, 'x' * 9000))\n"
    )
}

/// How many commits a database opened after the loss holds; `None` if it holds no table.
fn commits(disk: &Disk) -> Option<u32> {
    let script = "import sqlite3\n\
                  db = sqlite3.connect('ledger.db')\n\
                  assert db.execute('PRAGMA integrity_check').fetchone() == ('ok',)\n\
                  print(db.execute('SELECT count(*) FROM receipt').fetchone()[0])\n";
    let output =
        Command::new("python3").args(["-c", script]).current_dir(disk.dir()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().ok()
}

#[test]
fn sqlite_loses_nothing_when_it_syncs_and_loses_commits_when_it_does_not() {
    crate::needs_python!();
    for (journal, synchronous, kept) in [
        ("wal", "FULL", true),
        ("delete", "FULL", true),
        ("wal", "NORMAL", false),
        ("wal", "OFF", false),
        ("delete", "OFF", false),
    ] {
        let (_parent, disk) = crashed(&sqlite_script(journal, synchronous));
        let found = commits(&disk);
        assert_eq!(found == Some(20), kept, "{journal} {synchronous}: {found:?}");
    }
}

#[test]
fn sqlite_survives_pages_that_leak_out_of_order() {
    crate::needs_python!();
    for seed in 0..8 {
        let parent = tempfile::tempdir().unwrap();
        let disk = Disk::new(parent.path()).unwrap().leaking(seed);
        // The last insert is not committed: its leaked pages must not count.
        let script = sqlite_script("wal", "FULL")
            + "db.execute('PRAGMA cache_size=2'); db.execute('BEGIN')\n\
               db.execute('INSERT INTO receipt VALUES (99, ?)', ('y' * 90000,))\n";
        run(&disk, &script);
        disk.lose_power().unwrap();
        assert_eq!(commits(&disk), Some(20), "seed {seed}");
    }
}
