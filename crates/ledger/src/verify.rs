//! The verifier: every hash again, from stored bytes alone.
//!
//! INV-5: what is hashed is what is stored; nothing is written again to be checked.
//!
//! Owns: the four verdicts (002 scenario 10) and the place of the first fault. Uses no snapshot,
//! no projection and no column that it has not compared with the bytes. Refuses to know: storage.

use types::{Hash, Micros, ReceiptId};

use crate::digest::sha256;
use crate::head::{HeadRecord, LedgerId, next_root};
pub use crate::heads::Heads;
use crate::heads::Walked;
use crate::scan::View;
use crate::seal::{StreamHead, chain_hash, receipt_id};

/// A stored receipt as the store holds it: bytes, and the columns that claim to describe them.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Place in commit order, from 1.
    pub pos: u64,
    /// The id that look-ups find it by.
    pub id: ReceiptId,
    /// The stream that it is filed under.
    pub stream: &'a str,
    /// The number that the store gave this stream, where it gives any: a quicker way to where the
    /// stream stands. The name decides.
    pub stream_no: Option<usize>,
    /// The position that it is filed under.
    pub seq: u64,
    /// The bytes.
    pub core: &'a [u8],
    /// SHA-256 that is claimed for them.
    pub hash: Hash,
    /// The claimed link.
    pub chain_hash: Hash,
}

/// The four verdicts of the seed, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing is missing: no gap, no short tail.
    AllPresent,
    /// Every hash and every link holds.
    ChainUnbroken,
    /// No receipt stands twice.
    NoDuplicates,
    /// Time never runs backwards.
    TimestampsInOrder,
}

impl Verdict {
    /// In the order of the seed's output.
    pub const ALL: [Verdict; 4] = [
        Verdict::AllPresent,
        Verdict::ChainUnbroken,
        Verdict::NoDuplicates,
        Verdict::TimestampsInOrder,
    ];

    /// The line of 002 scenario 10, without its mark.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Verdict::AllPresent => "All receipts present",
            Verdict::ChainUnbroken => "Chain is unbroken (all hashes match)",
            Verdict::NoDuplicates => "No duplicates found",
            Verdict::TimestampsInOrder => "Timestamps in order",
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which verdict falls.
    pub verdict: Verdict,
    /// Place in commit order; 0 for findings about the end of the ledger.
    pub pos: u64,
    /// The stream as filed.
    pub stream: String,
    /// The position as filed.
    pub seq: u64,
    /// What is wrong, in one sentence.
    pub what: &'static str,
}

/// Findings kept in full; behind these they are only counted.
pub const FINDINGS_KEPT: usize = 100;

/// Findings as they are collected: the first ones whole, the first under each verdict, and their
/// number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    kept: Vec<Finding>,
    first: [Option<Finding>; 4],
    total: u64,
}

impl Findings {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.total += 1;
        self.first[finding.verdict as usize].get_or_insert_with(|| finding.clone());
        if self.kept.len() < FINDINGS_KEPT {
            self.kept.push(finding);
        }
    }
}

/// What a verification found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Receipts read.
    pub receipts: u64,
    /// Streams seen.
    pub streams: u64,
    /// The root over everything read.
    pub root: Hash,
    /// The first findings, in commit order.
    pub findings: Vec<Finding>,
    /// All findings.
    pub findings_total: u64,
    /// The first finding under each verdict, in the order of [`Verdict::ALL`]. Complete also when
    /// `findings` is not.
    pub first: [Option<Finding>; 4],
    /// True when a head record was at hand, so that a short tail would have been found.
    pub head_checked: bool,
}

impl Report {
    /// True when nothing is wrong.
    #[must_use]
    pub fn intact(&self) -> bool {
        self.findings_total == 0
    }

    /// True when nothing is wrong under this verdict.
    #[must_use]
    pub fn holds(&self, verdict: Verdict) -> bool {
        self.first[verdict as usize].is_none()
    }

    /// Takes in what was found beside the receipts.
    pub fn add(&mut self, beside: Vec<Finding>) {
        let mut findings = Findings::default();
        beside.into_iter().for_each(|finding| findings.add(finding));
        self.merge(findings);
    }

    /// Takes in what another check of the same receipts found.
    pub(crate) fn merge(&mut self, other: Findings) {
        self.findings_total += other.total;
        self.findings.extend(other.kept);
        self.findings.sort_by_key(|finding| finding.pos);
        self.findings.truncate(FINDINGS_KEPT);
        for (mine, other) in self.first.iter_mut().zip(other.first) {
            let earlier = |other: &Finding| mine.as_ref().is_none_or(|mine| other.pos < mine.pos);
            if let Some(other) = other.filter(earlier) {
                *mine = Some(other);
            }
        }
    }
}

/// Takes every receipt in commit order, then reports. A copy goes on from where it was taken.
#[derive(Clone)]
pub struct Verifier {
    ledger: LedgerId,
    whole: bool,
    streams: Walked,
    next_pos: u64,
    last_at: Micros,
    root: Hash,
    receipts: u64,
    findings: Findings,
    head: Option<HeadRecord>,
    head_seen: bool,
}

impl Verifier {
    /// A verifier of a whole ledger. With a head record a short or altered tail is found too.
    #[must_use]
    pub fn new(ledger: LedgerId, head: Option<HeadRecord>) -> Verifier {
        let head_seen = head.is_none_or(|head| head.size == 0);
        Verifier {
            ledger,
            whole: true,
            streams: Walked::default(),
            next_pos: 1,
            last_at: Micros(0),
            root: Hash::ZERO,
            receipts: 0,
            findings: Findings::default(),
            head,
            head_seen,
        }
    }

    /// A verifier of one stream's receipts, whose commit positions have gaps by nature.
    #[must_use]
    pub fn of_stream(ledger: LedgerId) -> Verifier {
        Verifier { whole: false, ..Verifier::new(ledger, None) }
    }

    /// Takes the next receipt.
    pub fn push(&mut self, row: &Row<'_>) {
        self.receipts += 1;
        if self.whole {
            self.check_place(row);
        }
        let hash = sha256(row.core);
        if hash != row.hash {
            self.find(Verdict::ChainUnbroken, row, "hash does not match the bytes");
        }
        self.root = next_root(self.root, row.hash);
        self.check_head(row);
        let view = View::scan(row.core);
        let before = self.advance(row, view.as_ref().ok());
        match view {
            Ok(view) => self.check_receipt(row, &view, before),
            Err(_) => self.find(Verdict::ChainUnbroken, row, "bytes are not a canonical receipt"),
        }
    }

    /// Ends the verification.
    #[must_use]
    pub fn finish(self) -> Report {
        self.end().0
    }

    /// [`Verifier::finish`], and where each stream stands with the receipts taken.
    #[must_use]
    pub fn finish_with_heads(self) -> (Report, Heads) {
        let (report, streams) = self.end();
        (report, streams.into_heads())
    }

    fn end(mut self) -> (Report, Walked) {
        if let Some(head) = self.head.filter(|_| !self.head_seen) {
            let what = "the head record counts more receipts than there are: the tail is missing";
            self.findings.add(Finding {
                verdict: Verdict::AllPresent,
                pos: head.size,
                stream: String::new(),
                seq: 0,
                what,
            });
        }
        let report = Report {
            receipts: self.receipts,
            streams: self.streams.len() as u64,
            root: self.root,
            findings: self.findings.kept,
            findings_total: self.findings.total,
            first: self.findings.first,
            head_checked: self.head.is_some(),
        };
        (report, self.streams)
    }

    fn check_place(&mut self, row: &Row<'_>) {
        if row.pos > self.next_pos {
            self.find(Verdict::AllPresent, row, "receipts are missing before this one");
        } else if row.pos < self.next_pos {
            self.find(Verdict::NoDuplicates, row, "a commit position stands twice");
        }
        self.next_pos = row.pos.saturating_add(1);
    }

    fn check_head(&mut self, row: &Row<'_>) {
        let Some(head) = self.head.filter(|head| self.whole && head.size == self.receipts) else {
            return;
        };
        self.head_seen = true;
        if head.root != self.root {
            let what = "the head record has another root for the receipts up to this one";
            self.find(Verdict::ChainUnbroken, row, what);
        }
    }

    fn check_receipt(&mut self, row: &Row<'_>, view: &View<'_>, before: StreamHead) {
        if view.stream != row.stream || view.seq != row.seq {
            self.find(Verdict::ChainUnbroken, row, "filed under another place than its bytes say");
        }
        if view.id != row.id || view.id != receipt_id(&self.ledger, view.stream, view.seq) {
            self.find(Verdict::ChainUnbroken, row, "id does not follow from stream and seq");
        }
        if row.chain_hash != chain_hash(view.prev_hash, row.hash) {
            self.find(Verdict::ChainUnbroken, row, "chain_hash does not match");
        }
        if view.timestamp != view.at.secs() {
            self.find(Verdict::TimestampsInOrder, row, "timestamp and at disagree");
        }
        // INV-17: one committer writes the ledger, so commit order is also order in time.
        if self.whole && view.at < self.last_at {
            self.find(Verdict::TimestampsInOrder, row, "earlier than the receipt committed before");
        }
        self.last_at = self.last_at.max(view.at);
        if row.seq > before.next_seq {
            self.find(Verdict::AllPresent, row, "receipts of the stream are missing before this");
        } else if row.seq < before.next_seq {
            self.find(Verdict::NoDuplicates, row, "a position of the stream stands twice");
        } else if view.prev_hash != before.last_hash {
            self.find(Verdict::ChainUnbroken, row, "prev_hash is not the hash of the one before");
        }
        if view.at < before.last_at {
            self.find(Verdict::TimestampsInOrder, row, "earlier than the receipt before it");
        }
    }

    /// Moves the stream's head to `row` and returns where it was. It goes on from what is filed,
    /// so that one fault is reported once and not for ever after.
    fn advance(&mut self, row: &Row<'_>, view: Option<&View<'_>>) -> StreamHead {
        let after = |before: &StreamHead| StreamHead {
            next_seq: row.seq.saturating_add(1),
            last_hash: Some(row.hash),
            last_at: view.map_or(before.last_at, |view| view.at),
        };
        let head = self.streams.head(row.stream, row.stream_no);
        let moved = after(head);
        std::mem::replace(head, moved)
    }

    fn find(&mut self, verdict: Verdict, row: &Row<'_>, what: &'static str) {
        let (pos, seq) = (row.pos, row.seq);
        self.findings.add(Finding { verdict, pos, stream: row.stream.to_owned(), seq, what });
    }
}
