//! The public test vectors, and the two verifiers side by side: ours, and the one in `tools/`
//! that was written from `docs/receipts.md`.
//!
//! Owns: the content of both vector files. A vector changes only with the format's version.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod python;
mod rejected;

use std::path::{Path, PathBuf};

use ledger::export::{Scope, Trailer, header_line, trailer_line};
use ledger::public::public_bytes;
use ledger::{Draft, HeadRecord, Kind, LedgerId, Meta, Sealed, StreamHead, seal};
use types::{Micros, ReceiptId, StreamName};

use crate::rejected::rejected;

/// Readable as text, so that nobody takes these receipts for a service's own.
pub(crate) const LEDGER: LedgerId = LedgerId(*b"TAI test vectors");
const START: Micros = Micros(1_709_251_198_999_999);

pub(crate) const VECTORS: &str = "docs/generated/receipt-vectors.jsonl";
const REJECTED: &str = "docs/generated/receipt-vectors-rejected.jsonl";

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(words: &str) -> Option<std::borrow::Cow<'static, str>> {
    Some(words.to_owned().into())
}

/// Every kind and every field at least once, in the order in which they are sealed.
pub(crate) fn drafts() -> Vec<(&'static str, Draft)> {
    const A: &str = "vector-tenant-a";
    const B: &str = "Vector:tenant@b.example+1";
    let new = Draft::new;
    let start = new(Kind::Transition, "start")
        .states("stopped", "running")
        .with("note", Meta::Text("test vector: no record of any real service".into()));
    let mut grant = new(Kind::Transition, "grant")
        .states("unentitled", "entitled")
        .with("z", Meta::Bool(true))
        .with("a", Meta::Bool(false))
        .with("Upper", Meta::Int(-9_007_199_254_740_991))
        .with("max", Meta::Int(9_007_199_254_740_991))
        .with("zero", Meta::Int(0))
        .with("dotted.key-1", Meta::Text("".into()));
    grant.entitlement_id = text("professional");
    grant.actor = text("marketplace");
    grant.rule = text("entitlement.grant");
    grant.effective_at = Some(Micros::from_secs(1_709_251_200));
    grant.expires_at = Some(Micros::from_secs(1_740_787_200));
    grant.idem = text(&"0f".repeat(32));
    grant.commitment = text(&"f0".repeat(32));
    let mut quote = new(Kind::Transition, "price").states("entitled", "entitled");
    quote.amount = Some(4_900);
    quote.currency = text("USD");
    quote.status = text("quoted");
    let mut refusal = new(Kind::Refusal, "grant");
    refusal.reason = text("entitlement_already_active");
    refusal.detail = text("quote \" backslash \\ slash / both \\\" déjà vu, 日本, \u{1f512}");
    refusal.subject = text("\u{7f}\u{2028}\u{e000}");
    let mut attempt = new(Kind::ActionAttempt, "throttle");
    attempt.rule = text("signal.intervene");
    attempt.subject = text("cpu_utilization");
    let mut all = vec![
        ("_ops", start),
        (A, grant.clone()),
        (B, grant),
        (A, quote),
        (A, refusal),
        (A, attempt),
        ("_edge", new(Kind::Refusal, "aggregate").with("count", Meta::Int(17))),
        (A, new(Kind::ActionResult, "throttle")),
    ];
    for (action, amount, currency) in
        [("charge", 4_900, "USD"), ("charge", 700, "EUR"), ("refund", -1_250, "USD")]
    {
        let mut result = new(Kind::ActionResult, action);
        result.amount = Some(amount);
        result.currency = text(currency);
        result.status = text("completed");
        all.push((B, new(Kind::ActionAttempt, action)));
        all.push((B, result));
    }
    all.push(("_ops", new(Kind::Transition, "stop").states("running", "stopped")));
    all
}

/// Seals drafts in order, each a little later than the one before. A result belongs to the attempt
/// before it in its stream.
pub(crate) fn sealed(drafts: Vec<(&'static str, Draft)>) -> Vec<Sealed> {
    let mut heads: Vec<(&str, StreamHead, Option<ReceiptId>)> = Vec::new();
    let mut all = Vec::new();
    for (n, (name, mut draft)) in drafts.into_iter().enumerate() {
        let index = heads.iter().position(|head| head.0 == name).unwrap_or_else(|| {
            heads.push((name, StreamHead::EMPTY, None));
            heads.len() - 1
        });
        let head = &mut heads[index];
        if draft.kind == Kind::ActionResult {
            draft.intent = head.2;
        }
        // The first step crosses a second and a leap day: 23:59:58.999999 to 23:59:59.
        let at = Micros(START.0 + (n * n) as i64 * 400_001 + n as i64);
        let stream = StreamName::parse(name).unwrap();
        let next = seal(&LEDGER, &stream, &head.1, at, &draft).unwrap();
        *head = (name, head.1.after(&next), Some(next.id));
        all.push(next);
    }
    all
}

pub(crate) fn public(receipt: &Sealed) -> Vec<u8> {
    public_bytes(&receipt.core, receipt.hash, receipt.chain_hash).unwrap()
}

pub(crate) fn export(receipts: &[Sealed]) -> Vec<Vec<u8>> {
    let mut head = HeadRecord::empty(LEDGER);
    let mut lines = vec![header_line(LEDGER, &Scope::Ledger)];
    for receipt in receipts {
        head = head.after(receipt.hash, receipt.at);
        lines.push(public(receipt));
    }
    lines.push(trailer_line(&Trailer::from(&head)));
    lines
}

pub(crate) fn vectors() -> Vec<Vec<u8>> {
    export(&sealed(drafts()))
}

pub(crate) fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    let mut out = lines.join(&b'\n');
    out.push(b'\n');
    out
}

fn rejected_file() -> Vec<u8> {
    let mut out = Vec::new();
    for (why, line) in rejected() {
        let why = format!("test vector, to be refused: {why}");
        let entry = serde_json::json!({ "why": why, "line": line });
        out.extend_from_slice(entry.to_string().as_bytes());
        out.push(b'\n');
    }
    out
}

#[test]
fn the_committed_vectors_are_the_ones_made_here() {
    for (path, bytes) in [(VECTORS, joined(&vectors())), (REJECTED, rejected_file())] {
        let path = root().join(path);
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let committed = std::fs::read(&path).unwrap_or_default();
        assert!(committed == bytes, "{} is stale: run `cargo xtask gen`", path.display());
    }
}

#[test]
fn the_vectors_show_every_kind_and_every_field() {
    let lines = vectors();
    let all = String::from_utf8(joined(&lines)).unwrap();
    let document = std::fs::read_to_string(root().join("docs/receipts.md")).unwrap();
    let (_, table) = document.split_once("\n## Fields\n").unwrap();
    let (table, _) = table.split_once("\nThe types:\n").unwrap();
    let documented: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(documented.len(), 29, "{documented:?}");
    for name in documented {
        assert!(all.contains(&format!("\"{name}\":")), "{name}");
    }
    for kind in Kind::ALL {
        assert!(all.contains(&format!("\"type\":\"{}\"", kind.as_str())));
    }
}

#[test]
fn the_worked_example_of_the_document_is_from_the_vectors() {
    let document = std::fs::read_to_string(root().join("docs/receipts.md")).unwrap();
    let first = sealed(drafts()).remove(0);
    for (what, wanted) in [
        ("ledger id", LEDGER.to_string()),
        ("receipt", String::from_utf8(public(&first)).unwrap()),
        ("hash", format!("\n{}  -\n", first.hash)),
        ("chain_hash", format!("\n{}  -\n", first.chain_hash)),
        ("id", format!("\n{}\n", &first.id.to_string()[5..])),
        ("trailer", String::from_utf8(vectors().pop().unwrap()).unwrap()),
    ] {
        assert!(document.contains(&wanted), "docs/receipts.md lacks the {what}: {wanted}");
    }
}
