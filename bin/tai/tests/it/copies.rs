//! Ledgers that move: from files into a database and back, while somebody writes, after a kill.
//!
//! Owns: that a copy holds what the source held, goes on as the source would have, and is not made
//! of what does not verify or into what is not its place. Refuses to know: how a copy is made,
//! which the store's own tests look at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;

use testkit::firestore::Emulator;
use testkit::postgres::Cluster;
use testkit::tai::Tai;

use crate::kills::{Acknowledged, Whereabouts, ask_again, ask_away, assert_among, assert_settled};
use crate::support::*;

const CLIENTS: u64 = 8;
/// Receipts of one commit of a copy.
const COMMIT: usize = 500;

/// Where a ledger may be.
struct Home {
    room: PathBuf,
    settings: Vec<(&'static str, String)>,
}

impl Home {
    fn files(room: &Path, name: &str) -> Home {
        let dir = room.join(name).display().to_string();
        Home::new(room, name, vec![("LEDGER_DIR", dir)])
    }

    fn postgres(room: &Path, name: &str, url: String) -> Home {
        let backend = ("RECEIPT_LEDGER_BACKEND", "postgres".to_owned());
        Home::new(room, name, vec![backend, ("DATABASE_URL", url)])
    }

    fn firestore(room: &Path, project: &str, emulator: &Emulator) -> Home {
        let settings = vec![
            ("RECEIPT_LEDGER_BACKEND", "firestore".to_owned()),
            ("GCP_PROJECT_ID", project.to_owned()),
            ("FIRESTORE_EMULATOR_HOST", emulator.address().to_string()),
        ];
        Home::new(room, project, settings)
    }

    fn new(room: &Path, name: &str, settings: Vec<(&'static str, String)>) -> Home {
        let home = Home { room: room.join(name), settings };
        let line = |(key, value): (&str, &str)| format!("{} = {value:?}\n", key.to_lowercase());
        fs::write(home.file(), home.envs().map(line).collect::<String>()).unwrap();
        home
    }

    /// The settings file of the service that is at home here.
    fn file(&self) -> PathBuf {
        self.room.with_extension("toml")
    }

    fn envs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().map(|(key, value)| (*key, value.as_str()))
    }

    fn start(&self) -> Tai {
        let mut envs: Vec<_> = self.envs().collect();
        envs.extend([("GOVERNOR_STATE_CHECK_INTERVAL_MS", "50"), ("PUBSUB_ENABLED", "false")]);
        start(&self.room, &envs)
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = command(&self.room, args);
        command.envs(self.envs());
        command
    }

    fn tai(&self, args: &[&str]) -> Said {
        self.command(args).output().unwrap().into()
    }

    fn copy_to(&self, other: &Home) -> Said {
        self.tai(&["ledger", "copy", "--to", other.file().to_str().unwrap()])
    }

    fn receipts(&self) -> Vec<serde_json::Value> {
        assert_verified_by(&|args| self.tai(args))
    }
}

/// Checks that a copy was made; gives what was said.
fn assert_copied(said: &Said) -> &str {
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("✓ Both hold the same"), "{}", said.out);
    assert_eq!(said.out.lines().filter(|line| line.starts_with('✓')).count(), 9, "{}", said.out);
    &said.out
}

/// Checks that none was, for this reason.
fn assert_refused(said: &Said, why: &str) {
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert!(said.err.contains(why), "{}{}", said.out, said.err);
}

/// Grants something to so many tenants of one name.
fn grant(tai: &Tai, name: &str, tenants: usize) {
    let address = tai.address();
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                let mut client = client(address);
                for nth in (part..tenants).step_by(4) {
                    let granted = event(&format!("{name}-{nth}"), "grant");
                    assert_eq!(post(&mut client, "/marketplace", &granted).status, 200);
                }
            });
        }
    });
}

/// A service dies under load, its ledger moves, and the clients ask where it is now.
fn moves_under_its_clients(from: &Home, to: &Home) {
    let mut service = from.start();
    let whereabouts = Whereabouts::default();
    whereabouts.set([service.address()]);
    let acknowledged: Acknowledged = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                let whereabouts = &whereabouts;
                scope.spawn(move || ask_away(whereabouts, name, 11_000 + name, "moved"))
            })
            .collect();
        whereabouts.after_more(400);
        let mut later = event("later", "grant");
        later["effective_at"] = (unix_secs() + 2).into();
        assert_eq!(post(&mut client(service.address()), "/marketplace", &later).status, 200);
        service.kill().unwrap();
        whereabouts.set([]);
        assert_copied(&from.copy_to(to));
        service = to.start();
        whereabouts.set([service.address()]);
        // Nobody asks for this tenant: only its timer knows it.
        until("what is due begins", || {
            let query = "/receipts?tenant_id=later&state_to=entitled";
            get(&mut client(service.address()), query).json().unwrap()["receipts"].get(0).cloned()
        });
        whereabouts.after_more(20);
        whereabouts.end();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    ask_again(service.address(), &acknowledged);
    until("the last actions are settled", || {
        let page = get(&mut client(service.address()), "/metrics").body;
        let page = String::from_utf8(page).unwrap();
        page.lines().any(|line| line == "tai_actions_unsettled 0").then_some(())
    });
    stop(service);
    let receipts = to.receipts();
    assert_among(&receipts, &acknowledged);
    assert_settled(&receipts);
}

/// A ledger comes back into files, where it can be looked at more closely.
fn comes_back(from: &Home, room: &Path) {
    let back = room.join("back");
    let said = from.tai(&["ledger", "backup", back.to_str().unwrap()]);
    assert_copied(&said);
    let files = Home::files(room, "back");
    assert_eq!(files.receipts(), from.receipts());
    let doctor = files.tai(&["ledger", "doctor"]);
    assert_eq!(doctor.code, Some(0), "{}", doctor.out);
}

#[test]
fn a_ledger_moves_into_postgres_under_its_clients_and_comes_back() {
    let Some(cluster) = Cluster::shared().unwrap() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let room = tempfile::tempdir().unwrap();
    let files = Home::files(room.path(), "files");
    let url = cluster.url(&cluster.database().unwrap());
    let database = Home::postgres(room.path(), "database", url);
    moves_under_its_clients(&files, &database);
    comes_back(&database, room.path());
}

#[test]
fn a_ledger_moves_into_firestore_under_its_clients_and_comes_back() {
    let Some(emulator) = Emulator::start().unwrap() else {
        testkit::skip!("the Firestore emulator is not installed");
    };
    let room = tempfile::tempdir().unwrap();
    let files = Home::files(room.path(), "files");
    let documents = Home::firestore(room.path(), "documents", &emulator);
    moves_under_its_clients(&files, &documents);
    comes_back(&documents, room.path());
}

/// A copy that is killed as soon as something of it has arrived.
fn kill_in_the_middle(from: &Home, to: &Home, count: &dyn Fn() -> usize) {
    let before = count();
    let mut copy = from.command(&["ledger", "copy", "--to", to.file().to_str().unwrap()]);
    let mut copy = copy.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("a commit of the copy", || (count() > before).then_some(()));
    copy.kill().unwrap();
    copy.wait().unwrap();
}

#[test]
fn a_copy_that_is_killed_goes_on_where_it_was() {
    let Some(cluster) = Cluster::shared().unwrap() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let room = tempfile::tempdir().unwrap();
    let files = Home::files(room.path(), "files");
    let name = cluster.database().unwrap();
    let database = Home::postgres(room.path(), "database", cluster.url(&name));
    let service = files.start();
    grant(&service, "early", 4);
    stop(service);
    assert_copied(&files.copy_to(&database));
    let slow = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
        CREATE TRIGGER slow AFTER INSERT ON receipts FOR EACH STATEMENT EXECUTE FUNCTION slow()";
    cluster.sql(&name, slow).unwrap();
    let service = files.start();
    grant(&service, "more", 3 * COMMIT);
    stop(service);

    let all = files.receipts();
    let count =
        || cluster.sql(&name, "SELECT count(*) FROM receipts").unwrap().parse::<usize>().unwrap();
    let early = count();
    kill_in_the_middle(&files, &database, &count);
    assert!(all.starts_with(&database.receipts()), "the beginning of the ledger, and intact");

    let said = files.copy_to(&database);
    let out = assert_copied(&said);
    let line = out.lines().find_map(|line| line.split_once(" receipts appended")).unwrap();
    let appended: usize = line.0.parse().unwrap();
    assert!(0 < appended && appended < all.len() - early, "not in the middle: {appended}");
    assert!(out.contains("waiting until the last writer"), "its lease had to end: {out}");
    assert_eq!(database.receipts(), all);
    let again = files.copy_to(&database);
    assert!(assert_copied(&again).contains("\n0 receipts appended"), "{}", again.out);
}

#[test]
fn a_ledger_that_is_written_is_copied_as_it_was_and_the_rest_later() {
    let room = tempfile::tempdir().unwrap();
    let (files, copy) = (Home::files(room.path(), "files"), Home::files(room.path(), "copy"));
    let service = files.start();
    grant(&service, "early", 8);
    let said = files.copy_to(&copy);
    assert!(assert_copied(&said).contains("the source is being written"), "{}", said.out);
    let early = copy.receipts();
    grant(&service, "late", 8);
    let back = copy.copy_to(&files);
    assert_refused(&back, "another process holds the ledger directory");
    stop(service);
    let behind = copy.copy_to(&files);
    assert_refused(&behind, "the two ends differ");

    let said = files.copy_to(&copy);
    assert!(!assert_copied(&said).contains("being written"), "{}", said.out);
    let all = copy.receipts();
    assert!(all.len() > early.len() && all == files.receipts());
    assert_eq!(all[..early.len()], early);

    // Each goes on for itself: from here on they are two ledgers of one name.
    for home in [&files, &copy] {
        let service = home.start();
        grant(&service, "apart", 1);
        stop(service);
    }
    assert_refused(&files.copy_to(&copy), "another receipt stands at");
}

#[test]
fn what_does_not_verify_is_not_copied_and_no_other_ledger_is_written() {
    testkit::needs_python!();
    let room = tempfile::tempdir().unwrap();
    let [files, other, fresh] =
        ["files", "other", "fresh"].map(|name| Home::files(room.path(), name));
    for home in [&files, &other] {
        let service = home.start();
        grant(&service, "tenant", 8);
        stop(service);
    }
    let before = other.receipts();
    assert_refused(&files.copy_to(&other), "directory holds another ledger");
    assert_eq!(other.receipts(), before);
    assert_refused(&files.copy_to(&files), "the same store");
    let memory =
        Home::new(room.path(), "memory", vec![("RECEIPT_LEDGER_BACKEND", "memory".into())]);
    assert_refused(&files.copy_to(&memory), "gone with its process");
    assert_refused(&fresh.copy_to(&files), "holds no ledger");
    let nowhere = files.tai(&["ledger", "copy", "--to", "nowhere.toml"]);
    assert_eq!(nowhere.code, Some(2), "{}", nowhere.err);

    let alter = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute(\"UPDATE receipts SET core = replace(core, 'grant', 'granT') WHERE pos > 5\")
db.commit()";
    python(alter, &[files.room.join("ledger.db").to_str().unwrap()]);
    assert_refused(&files.copy_to(&fresh), "the source does not verify, nothing was copied");
    assert!(!fresh.room.exists());
}

/// Two instances on one database, under load.
fn by_two_writers(home: &Home) {
    let services = [home.start(), home.start()];
    let whereabouts = Whereabouts::default();
    whereabouts.set(services.iter().map(Tai::address));
    thread::scope(|scope| {
        for name in 0..CLIENTS {
            let whereabouts = &whereabouts;
            scope.spawn(move || ask_away(whereabouts, name, 13_000 + name, "two"));
        }
        whereabouts.after_more(300);
        whereabouts.end();
    });
    services.into_iter().for_each(stop);
}

#[test]
fn the_ledger_of_two_writers_is_backed_up_into_files_and_restored_into_another_database() {
    let Some(cluster) = Cluster::shared().unwrap() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let room = tempfile::tempdir().unwrap();
    let names: [String; 2] = [(); 2].map(|()| cluster.database().unwrap());
    let [first, second]: [Home; 2] =
        [0, 1].map(|nth| Home::postgres(room.path(), &names[nth], cluster.url(&names[nth])));
    by_two_writers(&first);
    let all = first.receipts();
    comes_back(&first, room.path());
    let backup = room.path().join("back");
    let restore = ["ledger", "restore", backup.to_str().unwrap()];
    assert_copied(&second.tai(&restore));
    let by_place = |mut receipts: Vec<serde_json::Value>| {
        let place = |it: &serde_json::Value| (it["stream"].to_string(), it["seq"].as_u64());
        receipts.sort_by_key(place);
        receipts
    };
    assert_eq!(by_place(second.receipts()), by_place(all));
    let service = second.start();
    assert_refused(&second.tai(&["ledger", "doctor"]), "only a ledger in files");
    grant(&service, "after", 1);
    assert_refused(&second.tai(&restore), "the target is being written");
    stop(service);
    assert_refused(&second.tai(&restore), "the two ends differ");
}

#[test]
fn a_database_that_is_lost_comes_back_as_it_was_at_the_last_export() {
    let Some(emulator) = Emulator::start().unwrap() else {
        testkit::skip!("the Firestore emulator is not installed");
    };
    let room = tempfile::tempdir().unwrap();
    let documents = Home::firestore(room.path(), "lost-documents", &emulator);
    let service = documents.start();
    grant(&service, "early", 8);
    let exported = documents.receipts();
    emulator.export("lost-documents", room.path()).unwrap();
    grant(&service, "late", 8);
    stop(service);
    let all = documents.receipts();
    assert!(all.len() > exported.len());

    emulator.wipe("lost-documents").unwrap();
    assert_refused(&documents.tai(&["ledger", "verify"]), "there is no ledger");
    emulator.import("lost-documents", room.path()).unwrap();
    // What was acknowledged after the export is gone, and nothing else.
    assert_eq!(documents.receipts(), exported);
    let service = documents.start();
    grant(&service, "late", 8);
    stop(service);
    assert!(documents.receipts().len() > exported.len());
}
