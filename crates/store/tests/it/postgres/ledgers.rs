//! Opening: what is created, what is accepted, what is refused.

use std::sync::Barrier;

use engine::ports::{Durability, Store};
use store::postgres::{ConnectError, PgReader, PgStore};
use testkit::store::author::{Author, note, stream};

use super::{MISSING, cluster, connect, options};

fn refusal(url: String) -> ConnectError {
    match PgStore::connect(&options(url)) {
        Ok(_) => panic!("was opened"),
        Err(error) => error,
    }
}

#[test]
fn many_that_come_first_create_one_ledger() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let start = Barrier::new(4);
    let identities: Vec<_> = std::thread::scope(|scope| {
        let first = || {
            start.wait();
            let store = connect(&cluster, &database);
            (store.identity().ledger, store.identity().secret, store.log())
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(first)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(
        identities.iter().all(|found| (found.0, found.1) == (identities[0].0, identities[0].1))
    );
    let mut logs: Vec<_> = identities.iter().map(|found| found.2).collect();
    logs.sort_unstable();
    logs.dedup();
    assert_eq!(logs.len(), 4, "a log for each");
}

#[test]
fn what_is_no_ledger_of_this_version_is_refused() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let url = || cluster.url(&database);
    let missing = PgReader::connect(&options(url())).err();
    assert!(matches!(missing, Some(ConnectError::Missing)), "{missing:?}");
    cluster.sql(&database, "CREATE TABLE receipts (n int)").unwrap();
    assert!(matches!(refusal(url()), ConnectError::Foreign));
    cluster.sql(&database, "DROP TABLE receipts").unwrap();
    drop(connect(&cluster, &database));
    cluster.sql(&database, "UPDATE meta SET value = '2' WHERE name = 'format'").unwrap();
    let refused = refusal(url());
    assert!(matches!(&refused, ConnectError::Format { found, .. } if found == "2"), "{refused}");
    cluster.sql(&database, "DELETE FROM meta WHERE name = 'format'").unwrap();
    assert!(matches!(refusal(url()), ConnectError::Foreign));

    cluster.sql("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0").unwrap();
    assert!(matches!(refusal(cluster.url("latin")), ConnectError::Encoding { .. }));
    assert!(matches!(refusal(cluster.url("nowhere")), ConnectError::Sql { .. }));
    let secret = refusal("postgres://me:hunter2@host:notaport/x".to_owned());
    assert!(matches!(secret, ConnectError::Url));
    assert!(!format!("{secret} {secret:?}").contains("hunter2"));
}

#[test]
fn a_server_that_does_not_wait_for_its_disk_is_volatile() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    assert_eq!(connect(&cluster, &database).durability(), Durability::Durable);
    let url = format!("{}?options=-csynchronous_commit%3Doff", cluster.url(&database));
    let store = PgStore::connect(&options(url)).unwrap();
    assert_eq!(store.durability(), Durability::Volatile);
}

#[test]
fn receipts_are_neither_changed_nor_deleted() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let store = connect(&cluster, &database);
    Author::of(&store).append(&store, &[(&stream("a"), note())]);
    for change in ["UPDATE receipts SET seq = 7", "DELETE FROM receipts", "TRUNCATE receipts"] {
        let refused = cluster.sql(&database, change).unwrap_err().to_string();
        assert!(refused.contains("receipts are final"), "{refused}");
    }
    let seen = "SELECT stream, seq, state_to FROM readable";
    assert_eq!(cluster.sql(&database, seen).unwrap(), "a|0|entitled");
}

#[test]
fn a_role_without_update_and_delete_on_receipts_suffices() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    drop(connect(&cluster, &database));
    let grants = "CREATE ROLE instance LOGIN;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO instance;
        REVOKE UPDATE, DELETE ON receipts, meta FROM instance;
        REVOKE INSERT ON meta FROM instance";
    cluster.sql(&database, grants).unwrap();
    let url = cluster.url(&database).replace("postgres@", "instance@");
    let store = PgStore::connect(&options(url)).unwrap();
    Author::of(&store).append(&store, &[(&stream("a"), note())]);
    drop(store);
    cluster.sql(&database, "DROP OWNED BY instance; DROP ROLE instance").unwrap();
}

#[test]
fn a_store_may_be_opened_and_dropped_where_nothing_may_block() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        drop(connect(&cluster, &database));
        drop(PgReader::connect(&options(cluster.url(&database))).unwrap());
    });
    let left = cluster.sql(&database, "SELECT lease_until <= clock_timestamp() FROM logs");
    assert_eq!(left.unwrap(), "t", "the farewell");
}
