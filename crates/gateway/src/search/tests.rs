//! What a search answers, asked of rows in memory.
//!
//! Owns: a stand-in for the store's page reads. Refuses to know: the engine and HTTP.

use std::cell::{Cell, RefCell};

use ledger::{Draft, LedgerId, StreamHead, seal};
use serde_json::Value;
use types::Micros;

use super::*;

/// A stream of receipts that takes turns with nothing, asked as a store is asked.
struct Rows {
    rows: Vec<Stored>,
    read: Cell<usize>,
    checked: RefCell<Vec<u64>>,
}

impl Rows {
    /// Receipts at the positions 1 to `count`; those at multiples of `every` are grants.
    fn new(count: u64, every: u64) -> Rows {
        let stream = StreamName::parse("acme").unwrap();
        let mut head = StreamHead::EMPTY;
        let rows = (1..=count).map(|pos| {
            let action = if pos % every == 0 { "grant" } else { "quote" };
            let draft = Draft::new(Kind::Transition, action);
            let sealed = seal(&LedgerId([7; 16]), &stream, &head, Micros(1), &draft).unwrap();
            head = head.after(&sealed);
            let (stream, core) = (stream.clone(), sealed.core.into_vec());
            let (id, hash, chain_hash) = (sealed.id, sealed.hash, sealed.chain_hash);
            Stored { pos, stream, seq: sealed.seq, id, core, hash, chain_hash }
        });
        Rows { rows: rows.collect(), read: Cell::default(), checked: RefCell::default() }
    }

    fn page(&self, query: &str) -> Value {
        let filter = filter(query).ok().unwrap();
        let read = |query: &Query| {
            assert!(query.scan_limit <= READ, "one read holds the store for long");
            let before = query.before_pos.unwrap_or(u64::MAX);
            let older = self.rows.iter().rev().filter(|row| row.pos < before);
            let rows: Vec<_> = older.take(query.scan_limit).cloned().collect();
            self.read.set(self.read.get() + rows.len());
            Ok(rows)
        };
        let intact = |row: &Stored| {
            self.checked.borrow_mut().push(row.pos);
            ledger::seal::sha256(&row.core) == row.hash
        };
        serde_json::from_slice(&page(&filter, read, &intact).unwrap()).unwrap()
    }

    /// The number of pages of a search, and the `seq` of each receipt on them.
    fn pages(&self, query: &str) -> (usize, Vec<u64>) {
        let (mut pages, mut found, mut cursor) = (0, Vec::new(), String::new());
        loop {
            let page = self.page(&format!("{query}{cursor}"));
            pages += 1;
            let receipts = page["receipts"].as_array().unwrap();
            found.extend(receipts.iter().map(|receipt| receipt["seq"].as_u64().unwrap()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return (pages, found),
            }
        }
    }
}

fn filter(query: &str) -> Result<Filter, Fault> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap());
    let pairs: Vec<_> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Filter::parse(&pairs)
}

#[test]
fn a_small_page_reads_and_checks_little() {
    let rows = Rows::new(3_000, 1);
    let page = rows.page("limit=2");
    assert_eq!(page["receipts"].as_array().unwrap().len(), 2);
    assert_eq!(page["next"], format!("{:x}", 2_999), "the last one shown");
    assert_eq!(*rows.checked.borrow(), [3_000, 2_999], "only what is shown is checked");
    assert_eq!(rows.read.get(), READ);
}

#[test]
fn a_filter_that_matches_nothing_ends_with_a_cursor() {
    let rows = Rows::new(3_000, 5_000);
    let page = rows.page("action=grant");
    assert_eq!(page["receipts"], json!([]));
    assert_eq!(rows.read.get(), SCAN_MAX);
    assert_eq!(page["next"], format!("{:x}", 1_001), "the last one looked at");
    assert!(rows.checked.borrow().is_empty());
    assert_eq!(rows.pages("action=grant"), (2, vec![]));
}

#[test]
fn pages_join_without_gap_or_repetition() {
    for count in [0, 1, 199, 200, 201, 400, 2_000, 2_001, 2_350] {
        for every in [1, 3, 150] {
            for limit in [1, 7, 100] {
                let rows = Rows::new(count, every);
                let (_, found) = rows.pages(&format!("action=grant&limit={limit}"));
                let grants = (1..=count).rev().filter(|pos| pos % every == 0);
                let expected: Vec<_> = grants.map(|pos| pos - 1).collect();
                assert_eq!(found, expected, "{count} receipts, every {every}, by {limit}");
            }
        }
    }
}

#[test]
fn there_is_no_next_page_when_the_rest_does_not_match() {
    // Two match, and the store's whole answer has been seen.
    assert_eq!(Rows::new(150, 60).pages("action=grant&limit=2"), (1, vec![119, 59]));
}

#[test]
fn an_altered_receipt_is_named_and_hides_no_other() {
    let mut rows = Rows::new(5, 1);
    let at = rows.rows[2].core.windows(5).position(|word| word == b"grant").unwrap();
    rows.rows[2].core[at..at + 5].copy_from_slice(b"quote");
    rows.rows[3].core = b"{".to_vec();
    let page = rows.page("");
    let receipts = page["receipts"].as_array().unwrap();
    assert_eq!(receipts.len(), 5);
    for (at, receipt) in receipts.iter().enumerate() {
        let row = &rows.rows[4 - at];
        if at == 1 || at == 2 {
            let (id, stream, seq) = (row.id.to_string(), row.stream.as_str(), row.seq);
            let stub = json!({"id": id, "stream": stream, "seq": seq, "failed_verification": true});
            assert_eq!(receipt, &stub);
        } else {
            assert_eq!(receipt["action"], "grant");
        }
    }
    // What cannot be read cannot be filtered out, and asking about it raises the alarm.
    let filtered = rows.page("action=lapse");
    assert_eq!(filtered["receipts"].as_array().unwrap().len(), 1);
    assert_eq!(rows.checked.borrow().last(), Some(&4));
}

#[test]
fn a_query_has_one_meaning() {
    for query in [
        "tenant_id=a&stream=b",
        "stream=a&limit=1&tenant_id=a",
        "tenant_id=a&tenant_id=a",
        "limit=1&limit=2",
        "action=grant&action=quote",
        "cursor=1&cursor=1",
        "cursor=+1",
        "cursor=01",
        "cursor=A",
        "cursor=8000000000000000",
        "limit=+1",
        "since=+1",
        "until=+1",
    ] {
        let refused = filter(query).err().map(|fault| fault.refused.reason);
        assert_eq!(refused, Some(Reason::InvalidField), "{query}");
    }
    for query in ["", "tenant_id=a&limit=1&cursor=1f", "since=-1&until=1&action=a&reason=b"] {
        assert!(filter(query).is_ok(), "{query}");
    }
}
