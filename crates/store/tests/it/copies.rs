//! Copies between the backends of this crate, in every direction, and stores under a given
//! identity.

use std::cell::Cell;
use std::sync::Arc;

use engine::copy::{Copier, CopyError};
use engine::ports::{Identity, Store};
use store::postgres::{ConnectError, Options, PgReader, PgStore};
use store::{OpenError, Reader, SqliteStore, Synchronous};
use tempfile::TempDir;
use testkit::postgres::Cluster;
use testkit::store::copies::{assert_same, copy, suite};

use crate::author::{Author, attempt, everything, key, keyed, note, open, result, stream, verify};

const FULL: store::Options = store::Options { synchronous: Synchronous::Full };

/// New stores of one kind, each in a place of its own.
struct Places {
    dir: TempDir,
    /// With a database, in which each store has a schema.
    cluster: Option<(Arc<Cluster>, String)>,
    made: Cell<u32>,
}

impl Places {
    fn new() -> Places {
        let cluster = Cluster::shared().unwrap();
        let cluster = cluster.map(|cluster| {
            let database = cluster.database().unwrap();
            (cluster, database)
        });
        Places { dir: tempfile::tempdir().unwrap(), cluster, made: Cell::new(0) }
    }

    fn open(&self, kind: Kind, identity: Option<Identity>) -> Box<dyn Store> {
        self.made.set(self.made.get() + 1);
        match (kind, identity) {
            (Kind::Memory, None) => Box::new(SqliteStore::memory().unwrap()),
            (Kind::Memory, Some(identity)) => Box::new(SqliteStore::memory_as(identity).unwrap()),
            (Kind::Sqlite, identity) => {
                let dir = self.dir.path().join(self.made.get().to_string());
                Box::new(match identity {
                    None => open(&dir),
                    Some(identity) => SqliteStore::open_as(&dir, &FULL, identity).unwrap(),
                })
            }
            (Kind::Postgres, identity) => {
                let (cluster, database) = self.cluster.as_ref().unwrap();
                let schema = format!("ledger_{}", self.made.get());
                cluster.sql(database, &format!("CREATE SCHEMA {schema}")).unwrap();
                let url = cluster.socket_url(database);
                let options = Options { url: format!("{url} options='-c search_path={schema}'") };
                Box::new(match identity {
                    None => PgStore::connect(&options).unwrap(),
                    Some(identity) => PgStore::connect_as(&options, identity).unwrap(),
                })
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Memory,
    Sqlite,
    Postgres,
}

fn between(from: Kind, to: Kind) {
    let places = Places::new();
    if [from, to].contains(&Kind::Postgres) && places.cluster.is_none() {
        testkit::skip!("PostgreSQL is not installed");
    }
    suite(&|| places.open(from, None), &|identity| places.open(to, Some(identity)));
}

#[test]
fn from_memory_into_files_and_back() {
    between(Kind::Memory, Kind::Sqlite);
    between(Kind::Sqlite, Kind::Memory);
}

#[test]
fn from_files_into_files() {
    between(Kind::Sqlite, Kind::Sqlite);
}

#[test]
fn from_files_into_postgres() {
    between(Kind::Sqlite, Kind::Postgres);
}

#[test]
fn from_postgres_into_files() {
    between(Kind::Postgres, Kind::Sqlite);
}

#[test]
fn from_postgres_into_postgres() {
    between(Kind::Postgres, Kind::Postgres);
}

#[test]
fn the_logs_of_several_writers_become_one() {
    let Some(cluster) = Cluster::shared().unwrap() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let options = Options { url: cluster.url(&cluster.database().unwrap()) };
    let [first, second] = [(), ()].map(|()| PgStore::connect(&options).unwrap());
    let [hot, a, b] = ["hot", "a", "b"].map(stream);
    let (mut by_first, mut by_second) = (Author::of(&first), Author::of(&second));
    for n in 0..20 {
        // Both at the same instants.
        by_first.append(&first, &[(&a, keyed(note(), key(n))), (&a, note())]);
        by_second.append(&second, &[(&b, note()), (&b, note())]);
        by_first.catch_up(&first, std::slice::from_ref(&hot)).unwrap();
        by_first.append(&first, &[(&hot, note())]);
        by_second.catch_up(&second, std::slice::from_ref(&hot)).unwrap();
        by_second.append(&second, &[(&hot, note())]);
    }
    let ties =
        everything(&first).windows(2).filter(|two| two[0].pos >> 10 == two[1].pos >> 10).count();
    assert!(ties > 0, "no two receipts of one instant");
    let dir = tempfile::tempdir().unwrap();
    let files = SqliteStore::open_as(dir.path(), &FULL, first.identity()).unwrap();
    assert_eq!(copy(&first, &files), 120);
    assert_same(&first, &files);
    drop(files);
    assert_eq!(verify(dir.path()), 120);

    // One log of a shared store has no room for two receipts of one instant.
    let other = Options { url: cluster.url(&cluster.database().unwrap()) };
    let to = PgStore::connect_as(&other, first.identity()).unwrap();
    let refused = Copier::new(&to).unwrap().copy(&everything(&first));
    assert!(matches!(refused, Err(CopyError::Late { .. })), "{refused:?}");
}

#[test]
fn attempts_are_taken_on_when_the_copy_is_done() {
    let Some(cluster) = Cluster::shared().unwrap() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let from = SqliteStore::memory().unwrap();
    let a = stream("a");
    let ids = Author::of(&from).append(&from, &[(&a, attempt()), (&stream("b"), attempt())]);
    Author::of(&from).append(&from, &[(&a, result(ids[0]))]);
    let options = Options { url: cluster.url(&cluster.database().unwrap()) };
    let to = PgStore::connect_as(&options, from.identity()).unwrap();
    copy(&from, &to);
    let served = PgStore::connect(&options).unwrap();
    assert!(served.unsettled(9).unwrap().is_empty(), "the copy is still under way");
    drop(to);
    let open: Vec<_> = served.unsettled(9).unwrap().iter().map(|stored| stored.id).collect();
    assert_eq!(open, ids[1..]);
}

#[test]
fn a_key_that_was_used_again_leads_to_its_first_receipt_also_after_an_opening() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (stream("a"), stream("b"));
    let to = open(dir.path());
    // So that every name goes into the index with the next ones.
    to.set_generation(1);
    let mut author = Author::of(&to);
    let first = author.append(&to, &[(&a, keyed(note(), key(1)))]);
    let more: Vec<_> = (2..9).map(|n| (&a, keyed(note(), key(n)))).collect();
    author.append(&to, &more);
    let mut again = author.batch(&[(&b, keyed(note(), key(1)))]);
    again.entries[0].key = None;
    to.append(&again).unwrap();
    let found = |store: &SqliteStore| store.find_keys(&[key(1)]).unwrap()[0].clone().unwrap().id;
    assert_eq!(found(&to), first[0]);
    drop(to);
    assert_eq!(found(&open(dir.path())), first[0]);
    assert!(store::doctor(dir.path()).unwrap().healthy());
}

#[test]
fn a_ledger_is_opened_under_its_name_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let [mine, other] = [(), ()].map(|()| SqliteStore::memory().unwrap().identity());
    let store = SqliteStore::open_as(dir.path(), &FULL, mine).unwrap();
    assert!(store.opened().created && store.identity() == mine);
    Author::of(&store).append(&store, &[(&stream("a"), note())]);
    let written = || Reader::open(dir.path()).unwrap().is_written().unwrap();
    assert!(written());
    drop(store);
    assert!(!written());
    let again = SqliteStore::open_as(dir.path(), &FULL, mine).unwrap();
    assert!(!again.opened().created && again.identity() == mine);
    drop(again);
    let half = Identity { secret: other.secret, ..mine };
    for identity in [other, half] {
        let refused = SqliteStore::open_as(dir.path(), &FULL, identity).err();
        assert!(matches!(refused, Some(OpenError::OtherLedger)), "{refused:?}");
    }
    assert!(open(dir.path()).identity() == mine);
    assert!(SqliteStore::memory_as(other).unwrap().identity() == other);
}

#[test]
fn a_database_is_opened_under_its_name_and_no_other() {
    let Some(cluster) = Cluster::shared().unwrap() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let database = cluster.database().unwrap();
    let options = Options { url: cluster.url(&database) };
    let [mine, other] = [(), ()].map(|()| SqliteStore::memory().unwrap().identity());
    let store = PgStore::connect_as(&options, mine).unwrap();
    assert!(store.identity() == mine);
    let written = || PgReader::connect(&options).unwrap().is_written().unwrap();
    assert!(written());
    drop(store);
    assert!(!written());
    assert!(PgStore::connect(&options).unwrap().identity() == mine);
    let refused = PgStore::connect_as(&options, other).err();
    assert!(matches!(refused, Some(ConnectError::OtherLedger)), "{refused:?}");
    let logs = cluster.sql(&database, "SELECT count(*) FROM logs").unwrap();
    assert_eq!(logs, "2", "who is refused begins no log");
    assert!(PgReader::connect(&options).unwrap().identity() == mine);
}
