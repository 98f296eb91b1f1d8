//! Loss of power under load: what was written and never synced is gone.
//!
//! Owns: the promise of `X-Durability: durable`, and the proof that this test would notice if it
//! were broken. Refuses to know: how the disk is modelled, which `tests/crashfs` explains.

use std::path::Path;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use testkit::crashfs::{self, Disk};
use testkit::tai::{Builder, Tai};

use crate::kills::{Acknowledged, Whereabouts, ask_away, assert_kept};
use crate::support::*;

const CLIENTS: u64 = 8;

fn on(disk: &Disk, shim: &Path) -> Builder {
    let builder = Tai::builder(bin(), disk.dir()).preload(shim);
    disk.envs().iter().fold(builder, |builder, (name, value)| builder.env(name, value))
}

fn empty_disk() -> (TempDir, Disk) {
    let room = tempfile::tempdir().unwrap();
    let disk = Disk::new(room.path()).unwrap();
    (room, disk)
}

/// Lets clients ask while the power fails `losses` times.
fn fail(disk: &Disk, losses: u64, seed: u64) -> Acknowledged {
    let shim = crashfs::build().unwrap();
    let whereabouts = Whereabouts::default();
    let mut dice = Dice::new(seed);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                let whereabouts = &whereabouts;
                scope.spawn(move || ask_away(whereabouts, name, seed * 100 + name, "power"))
            })
            .collect();
        for _ in 0..losses {
            let mut tai = on(disk, &shim).start().unwrap();
            whereabouts.set(Some(tai.address()));
            // How long the power lasts; nothing is waited for.
            thread::sleep(Duration::from_millis(100 + dice.below(201)));
            tai.kill().unwrap();
            whereabouts.set(None);
            assert_eq!(tai.errors(), Vec::<String>::new());
            disk.lose_power().unwrap();
        }
        whereabouts.end();
        let mut tai = on(disk, &shim).start().unwrap();
        whereabouts.set(Some(tai.address()));
        let acknowledged = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        tai.kill().unwrap();
        disk.lose_power().unwrap();
        acknowledged
    })
}

#[test]
fn twelve_power_losses_lose_and_double_nothing() {
    let (_room, disk) = empty_disk();
    let acknowledged = fail(&disk, 12, 12);
    assert!(acknowledged.len() > 50, "hardly a load: {}", acknowledged.len());
    assert_kept(disk.dir(), &acknowledged);
}

#[test]
fn pages_that_reach_the_disk_early_change_nothing() {
    for seed in [1, 2, 3] {
        let (_room, disk) = empty_disk();
        let disk = disk.leaking(seed);
        let acknowledged = fail(&disk, 4, seed);
        assert!(!acknowledged.is_empty());
        assert_kept(disk.dir(), &acknowledged);
    }
}

/// The control: without syncs the same loss must be seen, or the tests above prove nothing.
#[test]
fn without_syncs_the_loss_is_seen() {
    let shim = crashfs::build().unwrap();
    let (_room, disk) = empty_disk();
    let mut tai = on(&disk, &shim).env("SQLITE_SYNCHRONOUS", "off").start().unwrap();
    let mut asker = client(tai.address());
    let told: Vec<String> = (0..100)
        .map(|number| {
            let response =
                post(&mut asker, "/marketplace", &event(&format!("tenant-{number}"), "grant"));
            assert_eq!(response.header("x-durability"), Some("volatile"));
            receipt_id(&response)
        })
        .collect();
    tai.kill().unwrap();
    disk.lose_power().unwrap();
    match on(&disk, &shim).start() {
        Err(error) => {
            let said = format!("{error:#}");
            assert!(said.contains("truncated") || said.contains("missing or empty"), "{said}");
        }
        Ok(tai) => {
            let mut asker = client(tai.address());
            let mut lost = |id: &&String| get(&mut asker, &format!("/receipts/{id}")).status == 404;
            assert!(told.iter().filter(&mut lost).count() > 0, "the shim lost nothing");
        }
    }
}
