//! Reading a whole ledger, also one that services write.
//!
//! Owns: one moment of all documents, the order of the ledger, and the check of every writer's
//! log. Refuses to know: what is intact in a receipt; that is the verifier's word, so nothing here
//! stops at a strange document.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use engine::ports::{Identity, ReadError};
use ledger::head::next_root;
use ledger::seal::receipt_id;
use ledger::verify::{FINDINGS_KEPT, Finding, Verdict};
use ledger::{LedgerId, Row, View};
use serde_json::json;
use types::{Hash, ReceiptId, StreamName};

use super::client::Client;
use super::search::{PAGE, Search};
use super::wire::Document;
use super::{Options, log, rows};
use crate::Error;

/// A view of a ledger as it was at one moment. Takes no log and writes nothing.
///
/// The service shows a moment for one hour afterwards, or for a week where point-in-time recovery
/// is on: a verification or an export has to be done by then.
pub struct Reader {
    client: Client,
    identity: Identity,
    /// The moment, as the server wrote it.
    read_time: String,
}

impl Reader {
    /// Finds the ledger and fixes the moment.
    ///
    /// # Errors
    /// As [`super::FirestoreStore::open`], and [`Error::NoLedger`] where there is none.
    pub fn open(options: &Options) -> Result<Reader, Error> {
        let client = Client::new(options)?;
        let identity = log::find_identity(&client)?.ok_or(Error::NoLedger)?;
        let now = client.query(&json!({"structuredQuery": {
            "from": [{"collectionId": rows::LOGS}],
            "limit": 1,
        }}))?;
        Ok(Reader { client, identity, read_time: now.read_time })
    }

    /// The ledger's id.
    #[must_use]
    pub fn ledger(&self) -> LedgerId {
        self.identity.ledger
    }

    /// The ledger's name and secret, for a copy of it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// True while one of its writers is alive.
    ///
    /// # Errors
    /// When the service cannot be read.
    pub fn is_written(&self) -> Result<bool, ReadError> {
        let mut logs = BTreeSet::new();
        self.search(rows::LOGS, None).each(&self.client, usize::MAX, |document| {
            logs.extend(document.id().parse::<u64>().ok());
            Ok(true)
        })?;
        Ok(!log::alive(&self.client, logs)?.is_empty())
    }

    /// Hands every receipt to `take` in the order of the ledger, with its rank as position, until
    /// it breaks; or every one of a stream by seq, with the position that is stored. Gives what is
    /// wrong with the writers' logs: for a whole ledger that was read to its end. What cannot be
    /// arrives as something that no intact receipt has, so that the verifier finds it.
    ///
    /// # Errors
    /// When the service cannot be read further.
    pub fn for_each(
        &self,
        stream: Option<&StreamName>,
        take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Finding>, ReadError> {
        match stream {
            Some(stream) => self.of_stream(stream, take).map(|()| Vec::new()),
            None => self.whole(take),
        }
    }

    fn whole(
        &self,
        take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Finding>, ReadError> {
        let mut logs = Logs::default();
        self.search(rows::COMMITS, None).each(&self.client, usize::MAX, |document| {
            logs.commit(document);
            Ok(true)
        })?;
        self.search(rows::LOGS, None).each(&self.client, usize::MAX, |document| {
            logs.hint(document);
            Ok(true)
        })?;
        let (mut rank, mut goes_on) = (0, true);
        self.search(rows::RECEIPTS, Some("pos")).each(&self.client, usize::MAX, |document| {
            rank += 1;
            let row = row(rank, document);
            logs.receipt(&row, document);
            goes_on = take(&row).is_continue();
            Ok(goes_on)
        })?;
        if goes_on {
            logs.finish();
        }
        Ok(logs.findings)
    }

    fn search(&self, collection: &'static str, by: Option<&'static str>) -> Search<'_> {
        let read_time = Some(self.read_time.as_str());
        Search { collection, by, descending: false, filters: Vec::new(), read_time }
    }

    fn of_stream(
        &self,
        stream: &StreamName,
        take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let name =
            |seq| self.client.receipt_name(receipt_id(&self.identity.ledger, stream.as_str(), seq));
        for page in 0.. {
            let names: Vec<_> = (page * PAGE as u64..(page + 1) * PAGE as u64).map(name).collect();
            let found = self.client.get(names.clone(), None)?;
            // Behind one that is missing the verifier sees a gap; a whole page of them is the end.
            for document in names.iter().filter_map(|name| found.get(name)) {
                if take(&row(document.count("pos").unwrap_or(0), document)).is_break() {
                    return Ok(());
                }
            }
            if !names.iter().any(|name| found.get(name).is_some()) {
                break;
            }
        }
        Ok(())
    }
}

fn row(pos: u64, document: &Document) -> Row<'_> {
    Row {
        pos,
        id: ReceiptId::parse(document.id()).unwrap_or(ReceiptId([0; 16])),
        stream: document.text("stream").unwrap_or_default(),
        stream_no: None,
        seq: document.count("seq").unwrap_or(u64::MAX),
        core: document.text("core").unwrap_or_default().as_bytes(),
        hash: rows::digest(document, "hash").unwrap_or(Hash::ZERO),
        chain_hash: rows::digest(document, "chain_hash").unwrap_or(Hash::ZERO),
    }
}

/// All logs, from their records and then from the receipts.
#[derive(Default)]
struct Logs {
    logs: BTreeMap<u64, Log>,
    /// The first ones.
    findings: Vec<Finding>,
}

/// One log: where its records say that it ends, and where its receipts have come to.
#[derive(Default)]
struct Log {
    /// There is a document of the writer.
    known: bool,
    /// Commits that were recorded, and the highest number that was.
    commits: u64,
    last_number: u64,
    /// Where the log stood behind its last commit.
    size: u64,
    root: Option<Hash>,
    /// Where its writer has once said that it stands.
    hint: Option<(u64, Hash)>,
    /// Receipts found, and the root over them.
    found: u64,
    found_root: Option<Hash>,
}

impl Log {
    fn found_root(&self) -> Hash {
        self.found_root.unwrap_or(Hash::ZERO)
    }
}

impl Logs {
    fn commit(&mut self, document: &Document) {
        // A record without a log belongs to the log that nobody has.
        let log = self.logs.entry(document.count("log").unwrap_or(0)).or_default();
        log.commits += 1;
        log.last_number = log.last_number.max(document.count("number").unwrap_or(u64::MAX));
        let size = document.count("size").unwrap_or(0);
        if size > log.size {
            log.size = size;
            log.root = rows::digest(document, "root");
        }
    }

    fn hint(&mut self, document: &Document) {
        let log = self.logs.entry(document.id().parse().unwrap_or(0)).or_default();
        log.known = true;
        log.hint = document.count("size").zip(rows::digest(document, "root"));
    }

    fn receipt(&mut self, row: &Row<'_>, document: &Document) {
        let number = document.count("log").unwrap_or(0);
        let log = self.logs.entry(number).or_default();
        let place = document.count("log_pos").unwrap_or(0);
        let mut wrong = Vec::new();
        if place > log.found + 1 {
            wrong.push((
                Verdict::AllPresent,
                "receipts of the writer's log are missing before this",
            ));
        } else if place <= log.found {
            wrong.push((Verdict::NoDuplicates, "a place of the writer's log stands twice"));
        }
        log.found = place;
        let root = next_root(log.found_root(), row.hash);
        log.found_root = Some(root);
        if rows::digest(document, "log_root") != Some(root) {
            wrong.push((Verdict::ChainUnbroken, "the writer's log has another root up to this"));
        }
        if log.hint.is_some_and(|(size, hint)| size == place && hint != root) {
            wrong.push((Verdict::ChainUnbroken, "the writer had said another root for this place"));
        }
        let at = View::scan(row.core).ok().map(|view| view.at);
        if at.is_some_and(|at| document.int("pos") != Some(rows::place(at, number))) {
            let what = "filed at another place in the ledger than its instant says";
            wrong.push((Verdict::TimestampsInOrder, what));
        }
        for (verdict, what) in wrong {
            let (pos, seq) = (row.pos, row.seq);
            self.add(Finding { verdict, pos, stream: row.stream.to_owned(), seq, what });
        }
    }

    /// Ends and numbers. A log has no stream: it is named in place of one.
    fn finish(&mut self) {
        let mut wrong = Vec::new();
        if let Some(missing) = (1..).zip(self.logs.keys()).find(|(nth, number)| nth != *number) {
            wrong.push((missing.0, 0, "a writer's log is missing as a whole"));
        }
        for (number, log) in &self.logs {
            let mut find = |what| wrong.push((*number, log.size, what));
            if !log.known {
                find("a writer's log has no document of its writer");
            }
            if log.commits > 0 && log.commits != log.last_number.saturating_add(1) {
                find("the record of a commit is missing");
            }
            if log.found < log.size || log.hint.is_some_and(|(size, _)| log.found < size) {
                find("the last receipts of a writer's log are missing");
            } else if log.found > log.size {
                find("a writer's log has receipts that no commit wrote");
            } else if log.size > 0 && log.root != Some(log.found_root()) {
                find("a writer's log ends with another root than its last commit");
            }
        }
        for (log, seq, what) in wrong {
            let (stream, verdict) = (format!("log {log}"), Verdict::AllPresent);
            self.add(Finding { verdict, pos: 0, stream, seq, what });
        }
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_KEPT {
            self.findings.push(finding);
        }
    }
}
