//! Proof of the model and of the shim: what a crash may leave, and that every step is seen.

use std::process::{Command, Stdio};

use super::*;
use crate::dice::Dice;

const INODE: u64 = 7;

fn opened(name: &str, inode: u64) -> Step {
    Step::Opened { name: name.into(), inode, made: true }
}

fn wrote(at: usize, text: &str) -> Step {
    Step::Wrote { inode: INODE, at, bytes: text.into() }
}

const SYNCED: Step = Step::Synced { inode: INODE };

fn disk(steps: &[Step]) -> Disk {
    let mut disk = Disk::default();
    steps.iter().for_each(|step| disk.take(step, &mut Dice::new(1)));
    disk
}

/// Every different outcome of many crashes, as text; a file that is not there is `-`.
fn outcomes(steps: &[Step], survival: Survival) -> Vec<String> {
    let disk = disk(steps);
    let text = |image: Image| {
        image.get("a").map_or("-".to_owned(), |a| String::from_utf8_lossy(a).replace('\0', "."))
    };
    let mut found: Vec<_> =
        (0..200).map(|seed| text(disk.crash(survival, &mut Dice::new(seed)))).collect();
    found.sort();
    found.dedup();
    found
}

#[test]
fn what_was_synced_is_there_and_what_was_not_may_be() {
    let steps = [
        opened("a", INODE),
        wrote(0, "kept"),
        SYNCED,
        Step::NamesSynced,
        wrote(0, "K"),
        wrote(4, "!"),
    ];
    assert_eq!(outcomes(&steps, Survival::Synced), ["kept"]);
    assert_eq!(outcomes(&steps, Survival::Everything), ["Kept!"]);
    // One sector: any state that it had, never the second write without the first.
    assert_eq!(outcomes(&steps, Survival::Prefix), ["Kept", "Kept!", "kept"]);
    assert_eq!(outcomes(&steps, Survival::Sectors), ["Kept", "Kept!", "Kept.", "kept", "kept."]);
}

#[test]
fn a_write_over_several_sectors_is_torn_in_any_way() {
    let (one, two) = ("1".repeat(512), "2".repeat(512));
    let steps = [opened("a", INODE), SYNCED, Step::NamesSynced, wrote(0, &(one.clone() + &two))];
    let hole = ".".repeat(512);
    let expected = ["".to_owned(), hole + &two, one.clone(), one + &two];
    let found = outcomes(&steps, Survival::Prefix);
    assert_eq!(found, expected);
}

#[test]
fn a_name_is_there_from_the_sync_of_its_folder_on() {
    let made = [opened("a", INODE), wrote(0, "x"), SYNCED];
    assert_eq!(outcomes(&made, Survival::Synced), ["-"]);
    assert_eq!(outcomes(&made, Survival::Prefix), ["-", "x"]);
    let gone = [&made[..], &[Step::NamesSynced, Step::Unlinked { name: "a".into() }]].concat();
    assert_eq!(outcomes(&gone, Survival::Synced), ["x"]);
    assert_eq!(outcomes(&gone, Survival::Sectors), ["-", "x"]);
    let moved = Step::Renamed { from: "a".into(), to: "b".into() };
    assert_eq!(disk(&[&made[..], &[moved]].concat()).seen().keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn no_later_sync_makes_up_for_one_that_failed() {
    let failed = Step::SyncFailed { inode: INODE };
    let steps = [opened("a", INODE), Step::NamesSynced, wrote(0, "x"), failed, SYNCED];
    let of = |seed| {
        let mut disk = Disk::default();
        steps.iter().for_each(|step| disk.take(step, &mut Dice::new(seed)));
        assert_eq!(disk.seen()["a"], b"x", "the page cache has it");
        disk.crash(Survival::Synced, &mut Dice::new(seed))["a"].clone()
    };
    let found: Vec<_> = (0..50).map(of).collect();
    assert!(found.contains(&b"x".to_vec()) && found.contains(&Vec::new()), "by chance");
}

/// Runs a Python script in a folder under the shim; gives its steps.
fn recorded(script: &str, fail_sync: Option<u64>) -> Vec<Step> {
    let room = tempfile::tempdir().unwrap();
    let (dir, log) = (room.path().join("disk"), room.path().join("log"));
    std::fs::create_dir(&dir).unwrap();
    let head = "import os\ndef make(name): return os.open(name, os.O_RDWR | os.O_CREAT, 0o644)\n";
    let output = Command::new("python3")
        .args(["-c", &format!("{head}{script}\n")])
        .current_dir(&dir)
        .stdin(Stdio::null())
        .env("LD_PRELOAD", build().unwrap())
        .envs(envs(&dir.canonicalize().unwrap(), &log, fail_sync))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Voice::new(&log).unwrap().say(b"done").unwrap();
    read(&log).unwrap()
}

#[test]
fn every_step_is_seen_in_order() {
    crate::needs_python!();
    let script = "d = os.open('.', os.O_RDONLY); a = make(os.getcwd() + '/a'); os.write(a, b'12')\n\
                  os.pwrite(a, b'3', 1); os.fsync(a); os.fsync(d); os.ftruncate(a, 1)\n\
                  os.fdatasync(a); c = os.getcwd(); os.rename(c + '/a', c + '/b')\n\
                  os.unlink(c + '/b'); open('/dev/null', 'w').write('x'); make(c + '/a-shm')";
    let steps = recorded(script, None);
    let kinds: Vec<String> = steps
        .iter()
        .map(|step| match step {
            Step::Opened { name, made, .. } => format!("open {name} {made}"),
            Step::Wrote { at, bytes, .. } => format!("{at} {}", String::from_utf8_lossy(bytes)),
            Step::Cut { length, .. } => format!("cut {length}"),
            Step::Synced { .. } => "sync".into(),
            Step::SyncFailed { .. } => "failed".into(),
            Step::NamesSynced => "names".into(),
            Step::Unlinked { name } => format!("unlink {name}"),
            Step::Renamed { from, to } => format!("rename {from} {to}"),
            Step::Said(words) => String::from_utf8_lossy(words).into_owned(),
        })
        .collect();
    let expected = [
        "open a true",
        "0 12",
        "1 3",
        "sync",
        "names",
        "cut 1",
        "sync",
        "rename a b",
        "unlink b",
        "done",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn the_sync_that_is_to_fail_fails() {
    crate::needs_python!();
    let script = "import errno\na = make(os.getcwd() + '/a'); os.write(a, b'x'); os.fsync(a)\n\
                  try:\n    os.fsync(a)\n    raise SystemExit('it did not')\n\
                  except OSError as error:\n    assert error.errno == errno.EIO\nos.fsync(a)";
    let steps = recorded(script, Some(2));
    let syncs: Vec<_> = steps
        .iter()
        .filter_map(|step| match step {
            Step::Synced { .. } => Some(true),
            Step::SyncFailed { .. } => Some(false),
            _ => None,
        })
        .collect();
    assert_eq!(syncs, [true, false, true]);
}
