//! A verification finds what somebody with access to the database has changed.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use engine::ports::Store as _;
use gcp::firestore::reader::Reader;
use ledger::Report;
use serde_json::{Value, json};
use testkit::firestore::Emulator;
use testkit::store::author::{Author, note, stream};
use testkit::{http, skip};
use types::ReceiptId;

use crate::{open, options, verified};

#[test]
fn damage_is_found() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Firestore emulator is not installed");
    };
    let address = emulator.address();
    assert!(Reader::open(&options(address, "nothing")).is_err());
    let whole = Ledger::new(address, "whole");
    assert!(whole.verify().intact(), "{:?}", whole.verify());
    whole.hands_out_everything();

    let last = Ledger::new(address, "last");
    last.delete("receipts", &last.ids[4].to_string());
    last.is_found("the last receipts of a writer's log are missing");

    let middle = Ledger::new(address, "middle");
    middle.delete("receipts", &middle.ids[2].to_string());
    middle.is_found("receipts of the writer's log are missing before this");

    let record = Ledger::new(address, "record");
    let is_first = |commit: &Value| {
        let says = |field: &str, value: &str| commit["fields"][field]["integerValue"] == value;
        says("log", "2") && says("number", "0")
    };
    let first = record.list("commits").into_iter().find(is_first).unwrap();
    let name = first["name"].as_str().unwrap();
    record.delete("commits", name.rsplit('/').next().unwrap());
    record.is_found("the record of a commit is missing");

    let log = Ledger::new(address, "log");
    log.delete("logs", "1");
    log.is_found("a writer's log has no document of its writer");

    // What the writer has once said of its log is a hint, and holds.
    let hint = Ledger::new(address, "hint");
    hint.change("logs/2", "size", &json!({"integerValue": "2"}));
    hint.is_found("the writer had said another root for this place");
    hint.change("logs/2", "size", &json!({"integerValue": "4"}));
    hint.is_found("the last receipts of a writer's log are missing");

    for (field, value, what) in [
        (
            "pos",
            json!({"integerValue": "5"}),
            "filed at another place in the ledger than its instant says",
        ),
        (
            "log_root",
            json!({"stringValue": "0".repeat(64)}),
            "the writer's log has another root up to this",
        ),
        ("log", json!({"integerValue": "1"}), "a place of the writer's log stands twice"),
        ("core", json!({"stringValue": "{}"}), "bytes are not a canonical receipt"),
        ("hash", json!({"stringValue": "f".repeat(64)}), "hash does not match the bytes"),
        ("stream", json!({"stringValue": "b"}), "filed under another place than its bytes say"),
        ("seq", json!({"integerValue": "-1"}), "filed under another place than its bytes say"),
    ] {
        let ledger = Ledger::new(address, &format!("field-{}", field.replace('_', "-")));
        ledger.change(&format!("receipts/{}", ledger.ids[2]), field, &value);
        ledger.is_found(what);
    }
}

/// Five receipts in two logs.
struct Ledger {
    address: SocketAddr,
    project: String,
    ids: Vec<ReceiptId>,
}

impl Ledger {
    fn new(address: SocketAddr, project: &str) -> Ledger {
        let (one, two) = (open(address, project), open(address, project));
        let (a, b) = (stream("a"), stream("b"));
        let mut ids = Author::of(&one).append(&one, &[(&a, note()), (&b, note())]);
        let mut author = Author::of_stream(&two, &a);
        ids.extend(author.append(&two, &[(&a, note()), (&a, note())]));
        ids.extend(author.append(&two, &[(&a, note())]));
        Ledger { address, project: project.to_owned(), ids }
    }

    fn reader(&self) -> Reader {
        Reader::open(&options(self.address, &self.project)).unwrap()
    }

    fn verify(&self) -> Report {
        verified(self.address, &self.project)
    }

    fn is_found(&self, what: &str) {
        let report = self.verify();
        assert!(report.findings.iter().any(|finding| finding.what == what), "{report:?}");
    }

    fn hands_out_everything(&self) {
        let reader = self.reader();
        let mut rows = Vec::new();
        reader
            .for_each(None, &mut |row| {
                rows.push((row.pos, row.id));
                ControlFlow::Continue(())
            })
            .unwrap();
        assert!(rows.iter().map(|(pos, _)| *pos).eq(1..=5));
        let mut seqs = Vec::new();
        reader
            .for_each(Some(&stream("a")), &mut |row| {
                seqs.push(row.seq);
                if row.seq == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert_eq!(seqs, [0, 1, 2]);
        let store = open(self.address, &self.project);
        assert_eq!(store.identity().ledger, reader.ledger());
        store.append(&Author::of(&store).batch(&[(&stream("c"), note())])).unwrap();
        let mut count = 0;
        reader
            .for_each(None, &mut |_| {
                count += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(count, 5, "the reader's moment");
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> http::Response {
        let path = format!("/v1/projects/{}/databases/(default)/documents/{path}", self.project);
        let mut client = http::Client::connect(self.address).unwrap();
        let body = body.to_string();
        let answer = client.request(method, &path, &[], body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    fn list(&self, collection: &str) -> Vec<Value> {
        let answer = self.request("GET", collection, &Value::Null).json().unwrap();
        answer["documents"].as_array().unwrap().clone()
    }

    fn delete(&self, collection: &str, id: &str) {
        self.request("DELETE", &format!("{collection}/{id}"), &Value::Null);
    }

    fn change(&self, document: &str, field: &str, value: &Value) {
        let path = format!("{document}?updateMask.fieldPaths={field}");
        self.request("PATCH", &path, &json!({"fields": {field: value}}));
    }
}
