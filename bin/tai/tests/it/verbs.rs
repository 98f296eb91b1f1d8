//! The operator's verbs on a ledger, at rest and while the service writes it.
//!
//! Owns: what `export`, `verify`, `backup`, `restore` and `doctor` print, leave behind and exit
//! with. Refuses to know: how damage is found, which `tamper` tries.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;
use testkit::http::Client;
use testkit::tai::Tai;

use crate::support::*;

const EXIT_USAGE: i32 = 2;

/// Some receipts of every kind.
fn fill(tai: &Tai) {
    let mut client = client(tai.address());
    for number in 0..40 {
        let tenant = format!("tenant-{}", number % 8);
        for action in ["grant", "suspend", "resume"] {
            post_as(
                &mut client,
                "/marketplace",
                &format!("{action}-{number}"),
                &event(&tenant, action),
            );
        }
        let data = json!({
            "tenant_id": tenant, "metric": "cpu", "value": 20 + number * 2,
            "timestamp_ms": unix_secs() * 1000,
        });
        post(&mut client, "/pubsub", &push(&format!("m-{number}"), &data));
    }
    let mut later = event("tenant-later", "grant");
    later["effective_at"] = (unix_secs() + 3_600).into();
    assert_eq!(post(&mut client, "/marketplace", &later).status, 200);
}

/// Runs `work` while four clients keep the ledger growing; it grows before, during and after.
fn under_load<T>(tai: &Tai, work: impl FnOnce(&dyn Fn()) -> T) -> T {
    let (over, written, address) = (AtomicBool::new(false), AtomicUsize::new(0), tai.address());
    thread::scope(|scope| {
        for name in 0..4 {
            let (over, written) = (&over, &written);
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                for number in 0.. {
                    if over.load(Ordering::Acquire) {
                        break;
                    }
                    let call = json!({"customer_id": format!("load-{name}-{}", number % 50)});
                    assert_eq!(post(&mut client, "/marketplace", &call).status, 200);
                    written.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        let grow = || {
            let before = written.load(Ordering::Acquire);
            until("the load", || (written.load(Ordering::Acquire) > before + 20).then_some(()));
        };
        grow();
        let outcome = work(&grow);
        grow();
        over.store(true, Ordering::Release);
        outcome
    })
}

/// A verdict of the operator's kind: exit 0 and four check marks.
fn assert_content(said: &Said) {
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert_eq!(said.out.lines().filter(|line| line.starts_with('✓')).count(), 4, "{}", said.out);
}

fn export_to(dir: &Path, file: &Path, more: &[&str]) -> Said {
    let arguments = [&["ledger", "export", "--to", file.to_str().unwrap()], more].concat();
    tai(dir, &arguments)
}

#[test]
fn exports_are_whole_and_verify_anywhere() {
    testkit::needs_python!();
    let (room, dir) = room();
    let service = start(&dir, &[]);
    fill(&service);
    let (all, one) = (room.path().join("all.jsonl"), room.path().join("one.jsonl"));
    under_load(&service, |_| {
        for _ in 0..3 {
            let file = room.path().join("busy.jsonl");
            let _ = fs::remove_file(&file);
            assert_eq!(export_to(&dir, &file, &[]).code, Some(0));
            assert_content(&tai(&dir, &["ledger", "verify", "--export", file.to_str().unwrap()]));
            assert_eq!(python_verifier(&file).code, Some(0), "a cut through a growing ledger");
            assert_content(&tai(&dir, &["ledger", "verify"]));
        }
    });
    stop(service);

    assert_eq!(export_to(&dir, &all, &[]).code, Some(0));
    let printed = tai(&dir, &["ledger", "export"]);
    assert_eq!(printed.out, fs::read_to_string(&all).unwrap(), "to a file or to the terminal");
    assert_eq!(export_to(&dir, &one, &["--stream", "tenant-3"]).code, Some(0));
    let of_one = receipts_of(&fs::read_to_string(&one).unwrap());
    let of_all = receipts_of(&printed.out);
    let chosen: Vec<_> = of_all.into_iter().filter(|it| it["stream"] == "tenant-3").collect();
    assert!(chosen.len() > 10);
    assert_eq!(of_one, chosen);
    for file in [&all, &one] {
        let name = file.to_str().unwrap();
        assert_content(&tai(&dir, &["ledger", "verify", "--export", name]));
        assert_eq!(python_verifier(file).code, Some(0));
        assert_eq!(export_to(&dir, file, &[]).code, Some(1), "no file is written over");

        // Without its end an export is not one.
        let text = fs::read_to_string(file).unwrap();
        let cut = file.with_extension("cut");
        let end = text.trim_end().rfind('\n').unwrap();
        fs::write(&cut, &text[..=end]).unwrap();
        let name = cut.to_str().unwrap();
        assert_eq!(tai(&dir, &["ledger", "verify", "--export", name]).code, Some(1));
        assert_eq!(python_verifier(&cut).code, Some(1));
    }
    assert_content(&tai(&dir, &["ledger", "verify", "--stream", "tenant-3"]));
    let bad = tai(&dir, &["ledger", "export", "--stream", "not a name"]);
    assert!(bad.code != Some(0) && bad.err.contains("--stream"), "{}", bad.err);
}

#[test]
fn a_backup_under_load_restores_to_a_ledger_that_goes_on() {
    let (room, dir) = room();
    let service = start(&dir, &[]);
    fill(&service);
    let backup = room.path().join("backup");
    let to = backup.to_str().unwrap();
    let said = under_load(&service, |_| tai(&dir, &["ledger", "backup", to]));
    assert_content(&said);
    assert_eq!(tai(&dir, &["ledger", "backup", to]).code, Some(1), "no backup is written over");
    let kept = assert_verified(&backup);

    let said = tai(&dir, &["ledger", "restore", to]);
    assert_eq!(said.code, Some(1), "not while the service runs");
    assert!(said.err.contains("another process holds the ledger"), "{}", said.err);
    stop(service);
    let before = assert_verified(&dir);
    assert!(before.len() > kept.len());
    assert_eq!(before[..kept.len()], kept, "a backup is the beginning of the ledger");

    let said = tai(&dir, &["ledger", "restore", to]);
    assert_content(&said);
    assert_eq!(assert_verified(&dir), kept);
    let aside = said.out.lines().find_map(|line| line.split("what was there is in ").nth(1));
    let aside = Path::new(aside.unwrap());
    assert_eq!(assert_verified(aside), before, "what was there is whole");
    assert!(said.out.contains("the rest is only in the copy moved aside"), "{}", said.out);

    let service = start(&dir, &[]);
    let mut client = client(service.address());
    let again = post_as(&mut client, "/marketplace", "grant-0", &event("tenant-0", "grant"));
    assert_eq!(again.header("x-idempotent-replay"), Some("true"), "keys came back too");
    assert_eq!(post(&mut client, "/marketplace", &event("new", "grant")).status, 200);
    stop(service);
    assert!(assert_verified(&dir).len() > kept.len());
}

#[test]
fn a_damaged_backup_is_refused_and_changes_nothing() {
    testkit::needs_python!();
    let (room, dir) = room();
    let service = start(&dir, &[]);
    fill(&service);
    stop(service);
    let backup = room.path().join("backup");
    let to = backup.to_str().unwrap();
    assert_content(&tai(&dir, &["ledger", "backup", to]));
    let before = assert_verified(&dir);
    let damage = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute(sys.argv[2])
db.commit()";
    let database = backup.join("ledger.db");
    for statement in [
        "UPDATE receipts SET core = replace(core, 'entitled', 'entitleD') WHERE pos = 20",
        "DELETE FROM receipts WHERE pos > 100",
    ] {
        python(damage, &[database.to_str().unwrap(), statement]);
        let said = tai(&dir, &["ledger", "restore", to]);
        assert_eq!(said.code, Some(1), "{}", said.out);
        assert!(said.err.contains("nothing was changed"), "{}", said.err);
        assert_eq!(assert_verified(&dir), before);
    }
    fs::remove_file(backup.join("ledger.head")).unwrap();
    assert_eq!(tai(&dir, &["ledger", "restore", to]).code, Some(1), "half a backup");
    let nowhere = room.path().join("nowhere");
    let said = tai(&dir, &["ledger", "restore", nowhere.to_str().unwrap()]);
    assert!(said.code == Some(1) && said.err.contains("holds no ledger"), "{}", said.err);
    assert!(!nowhere.exists());
    assert_eq!(assert_verified(&dir), before);
}

/// Everything that can be rebuilt, as the database holds it.
fn projections(dir: &Path) -> String {
    let dump = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
for table in ('finds', 'attempts', 'due'):
    for row in db.execute('SELECT * FROM %s ORDER BY 1' % table):
        print(table, [v.hex() if isinstance(v, bytes) else v for v in row])";
    python(dump, &[dir.join("ledger.db").to_str().unwrap()])
}

#[test]
fn the_doctor_sees_and_rebuilds_the_projections() {
    testkit::needs_python!();
    let (_room, dir) = room();
    let service = start(&dir, &[]);
    fill(&service);
    let said = under_load(&service, |_| tai(&dir, &["ledger", "doctor"]));
    assert_eq!(said.code, Some(0), "healthy while it serves: {}{}", said.out, said.err);
    let refused = tai(&dir, &["ledger", "doctor", "--rebuild"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("another process holds the ledger"), "{}", refused.err);
    stop(service);

    let doctor = || tai(&dir, &["ledger", "doctor"]);
    assert_eq!(doctor().code, Some(0), "{}", doctor().out);
    let rebuild = || tai(&dir, &["ledger", "doctor", "--rebuild"]);
    // The newest names are in no table until there are enough of them, or a rebuild writes all.
    assert_eq!(rebuild().code, Some(0), "{}", rebuild().err);
    let before = projections(&dir);
    for table in ["finds", "due"] {
        assert!(before.lines().any(|line| line.starts_with(table)), "{table} holds nothing");
    }
    assert_eq!(rebuild().code, Some(0), "{}", rebuild().err);
    assert_eq!(projections(&dir), before, "a rebuild of what is right changes nothing");

    let spoil = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('DELETE FROM finds WHERE pos % 3 = 0')
db.execute('DELETE FROM due')
db.execute(\"INSERT INTO attempts VALUES (zeroblob(16), 5)\")
db.commit()";
    python(spoil, &[dir.join("ledger.db").to_str().unwrap()]);
    let said = doctor();
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.out.contains("✗ wrong entries of the index"), "{}", said.out);
    assert!(said.out.contains("✗ wrong unsettled attempts: 1"), "{}", said.out);
    assert_eq!(rebuild().code, Some(0));
    assert_eq!(projections(&dir), before);
    assert_eq!(doctor().code, Some(0));

    let service = start(&dir, &[]);
    let again = post_as(
        &mut client(service.address()),
        "/marketplace",
        "grant-0",
        &event("tenant-0", "grant"),
    );
    assert_eq!(again.header("x-idempotent-replay"), Some("true"));
    stop(service);
    assert_verified(&dir);
}

#[test]
fn a_ledger_has_one_writer() {
    let (_room, dir) = room();
    let service = start(&dir, &[]);
    let second = command(&dir, &["serve"]).env("PORT", "0").output().unwrap();
    let said = Said::from(second);
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.err.contains("another process holds the ledger directory"), "{}", said.err);
    assert!(said.err.contains("LEDGER_DIR"), "{}", said.err);
    assert_eq!(get(&mut client(service.address()), "/health").status, 200);
    stop(service);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let said = Said::from(command(&dir, &["serve"]).env("PORT", &port).output().unwrap());
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("PORT"), "{}", said.err);
    assert_verified(&dir);
}

#[test]
fn verbs_without_a_ledger_say_so_and_make_none() {
    let (room, dir) = room();
    let to = room.path().join("to");
    let to = to.to_str().unwrap();
    for arguments in [
        &["ledger", "verify"][..],
        &["ledger", "export"],
        &["ledger", "doctor"],
        &["ledger", "doctor", "--rebuild"],
        &["ledger", "backup", to],
    ] {
        let said = tai(&dir, arguments);
        assert_eq!(said.code, Some(1), "{arguments:?}");
        assert!(said.err.contains("holds no ledger"), "{arguments:?}: {}", said.err);
        assert!(!dir.join("ledger.db").exists(), "{arguments:?} made a ledger");
    }
    for arguments in [&["ledger"][..], &["ledger", "repair"], &["--nope"], &["ledger", "backup"]] {
        assert_eq!(tai(&dir, arguments).code, Some(EXIT_USAGE), "{arguments:?}");
    }
}
