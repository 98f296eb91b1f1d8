//! An export: receipts as lines that anyone can keep, carry and check.
//!
//! Owns: the header, the trailer and the check of a whole export (`docs/receipts.md`, Exports).
//! Refuses to know: files, line splitting, and which receipts a reader may see.

use std::fmt::Write;

use types::{Hash, Micros, StreamName, limits};

use crate::head::{HeadRecord, LedgerId};
use crate::public::split;
use crate::scan::View;
use crate::seal::StreamHead;
use crate::verify::{Finding, Findings, Report, Row, Verdict, Verifier};
use crate::{GENESIS, HASH_PREFIX};

/// Bytes of the longest line, without its LF. A reader may cut a longer line anywhere behind
/// this: it is refused for its length alone.
pub const LINE_BYTES: usize = limits::RECEIPT_BYTES + 512;

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every receipt of the ledger, in commit order.
    Ledger,
    /// Every receipt of one stream, in order of `seq`.
    Stream(StreamName),
}

/// Where the exported ledger or stream stands behind its last receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trailer {
    /// Of a ledger: the content of its [`HeadRecord`].
    Ledger {
        /// Receipts in all streams.
        size: u64,
        /// The running root over them.
        root: Hash,
        /// `at` of the newest, zero when there is none.
        at: Micros,
    },
    /// Of a stream: the content of its [`StreamHead`].
    Stream {
        /// The position of the next receipt.
        next_seq: u64,
        /// `hash` of the newest receipt.
        last_hash: Option<Hash>,
    },
}

impl From<&HeadRecord> for Trailer {
    fn from(head: &HeadRecord) -> Trailer {
        Trailer::Ledger { size: head.size, root: head.root, at: head.at }
    }
}

impl From<&StreamHead> for Trailer {
    fn from(head: &StreamHead) -> Trailer {
        Trailer::Stream { next_seq: head.next_seq, last_hash: head.last_hash }
    }
}

/// The first line is not the header of an export of this version, so that nothing behind it can
/// be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the first line is not the header of an export")]
pub struct HeaderError;

/// The first line, without its LF.
#[must_use]
pub fn header_line(ledger: LedgerId, scope: &Scope) -> Vec<u8> {
    match scope {
        Scope::Ledger => format!(r#"{{"export":1,"ledger":"{ledger}","scope":"ledger"}}"#),
        // A stream's name holds nothing to escape.
        Scope::Stream(name) => {
            format!(r#"{{"export":1,"ledger":"{ledger}","scope":"stream","stream":"{name}"}}"#)
        }
    }
    .into_bytes()
}

/// The last line, without its LF.
#[must_use]
pub fn trailer_line(trailer: &Trailer) -> Vec<u8> {
    match trailer {
        Trailer::Ledger { size, root, at } => {
            format!(r#"{{"head":{{"at":"{at}","root":"{HASH_PREFIX}{root}","size":{size}}}}}"#)
        }
        Trailer::Stream { next_seq, last_hash } => {
            let mut hash = String::from(GENESIS);
            if let Some(last) = last_hash {
                hash.clear();
                // Writing to a `String` cannot fail.
                let _ = write!(hash, "{HASH_PREFIX}{last}");
            }
            format!(r#"{{"head":{{"hash":"{hash}","seq":{next_seq}}}}}"#)
        }
    }
    .into_bytes()
}

/// Reads a header. The parts are taken out loosely and written again: only the very bytes of
/// [`header_line`] pass, and there is one definition of them.
fn parse_header(line: &[u8]) -> Option<(LedgerId, Scope)> {
    let text = std::str::from_utf8(line).ok()?;
    let (ledger, scope) =
        text.strip_prefix(r#"{"export":1,"ledger":""#)?.split_once(r#"","scope":""#)?;
    let ledger = LedgerId::from_hex(ledger)?;
    let scope = match scope.strip_prefix(r#"stream","stream":""#) {
        Some(name) => Scope::Stream(StreamName::parse(name.strip_suffix(r#""}"#)?).ok()?),
        None => Scope::Ledger,
    };
    (header_line(ledger, &scope) == line).then_some((ledger, scope))
}

/// Reads a trailer of the given scope, as [`parse_header`] reads a header.
fn parse_trailer(scope: &Scope, line: &[u8]) -> Option<Trailer> {
    let text = std::str::from_utf8(line).ok()?;
    let number = |digits: &str| {
        let value = digits.strip_suffix("}}")?.parse::<u64>().ok()?;
        (value <= limits::INTEGER_MAX.unsigned_abs()).then_some(value)
    };
    let digest = |text: &str| Hash::from_hex(text.strip_prefix(HASH_PREFIX)?.as_bytes());
    let trailer = match scope {
        Scope::Ledger => {
            let rest = text.strip_prefix(r#"{"head":{"at":""#)?;
            let (at, rest) = rest.split_once(r#"","root":""#)?;
            let (root, size) = rest.split_once(r#"","size":"#)?;
            let at = Micros::from_text(at.as_bytes())?;
            Trailer::Ledger { size: number(size)?, root: digest(root)?, at }
        }
        Scope::Stream(_) => {
            let rest = text.strip_prefix(r#"{"head":{"hash":""#)?;
            let (hash, seq) = rest.split_once(r#"","seq":"#)?;
            let last_hash = if hash == GENESIS { None } else { Some(digest(hash)?) };
            Trailer::Stream { next_seq: number(seq)?, last_hash }
        }
    };
    (trailer_line(&trailer) == line).then_some(trailer)
}

/// Takes the lines of an export one at a time, then reports. Positions in the report are those
/// of the lines: the header is line 1 of the file, the receipt at position n is line n + 1.
pub struct ExportVerifier {
    verifier: Verifier,
    lines: Lines,
}

/// What the verifier of receipts does not see: lines, and where they end.
struct Lines {
    scope: Scope,
    /// Lines that stand where receipts stand, refused ones included.
    count: u64,
    last_at: Micros,
    /// Of a stream's export: where its receipts have come to.
    next_seq: u64,
    last_hash: Option<Hash>,
    trailer: Option<Trailer>,
    behind: bool,
    findings: Findings,
}

impl ExportVerifier {
    /// Starts with the first line. Every line is given without its LF.
    pub fn new(header: &[u8]) -> Result<ExportVerifier, HeaderError> {
        let (ledger, scope) = parse_header(header).ok_or(HeaderError)?;
        let verifier = match scope {
            Scope::Ledger => Verifier::new(ledger, None),
            Scope::Stream(_) => Verifier::of_stream(ledger),
        };
        let lines = Lines {
            scope,
            count: 0,
            last_at: Micros(0),
            next_seq: 0,
            last_hash: None,
            trailer: None,
            behind: false,
            findings: Findings::default(),
        };
        Ok(ExportVerifier { verifier, lines })
    }

    /// Takes the next line.
    pub fn push(&mut self, line: &[u8]) {
        if self.lines.trailer.is_some() {
            return self.lines.behind_the_trailer();
        }
        if line.starts_with(br#"{"head":"#) {
            self.lines.trailer = parse_trailer(&self.lines.scope, line);
            if self.lines.trailer.is_some() {
                return;
            }
        }
        self.lines.count += 1;
        if self.push_receipt(line).is_none() {
            let (stream, seq) = claimed_place(line).unwrap_or_default();
            let what = "the line is not a canonical receipt";
            self.lines.find(Verdict::ChainUnbroken, self.lines.count, stream, seq, what);
        }
    }

    /// Ends the export.
    #[must_use]
    pub fn finish(self) -> Report {
        let ExportVerifier { verifier, mut lines } = self;
        let mut report = verifier.finish();
        lines.end(report.root);
        report.head_checked = lines.trailer.is_some();
        report.merge(lines.findings);
        report
    }

    fn push_receipt(&mut self, line: &[u8]) -> Option<()> {
        if line.len() > LINE_BYTES {
            return None;
        }
        let (core, hash, chain_hash) = split(line).ok()?;
        let view = View::scan(&core).ok()?;
        self.lines.receipt(&view, hash);
        let (id, stream, seq) = (view.id, view.stream, view.seq);
        let (pos, core) = (self.lines.count, &core[..]);
        let row = Row { pos, id, stream, stream_no: None, seq, core, hash, chain_hash };
        self.verifier.push(&row);
        Some(())
    }
}

impl Lines {
    fn receipt(&mut self, view: &View<'_>, hash: Hash) {
        self.last_at = self.last_at.max(view.at);
        match &self.scope {
            Scope::Stream(only) if only.as_str() != view.stream => {
                let (stream, what) = (view.stream.to_owned(), "belongs to another stream");
                self.find(Verdict::ChainUnbroken, self.count, stream, view.seq, what);
            }
            Scope::Stream(_) => {
                self.next_seq = view.seq + 1;
                self.last_hash = Some(hash);
            }
            Scope::Ledger => {}
        }
    }

    fn behind_the_trailer(&mut self) {
        if !self.behind {
            self.behind = true;
            self.find_at_end(Verdict::ChainUnbroken, "lines behind the trailer");
        }
    }

    fn end(&mut self, actual_root: Hash) {
        match self.trailer {
            Some(Trailer::Ledger { size, .. }) if size != self.count => {
                self.find_count(self.count < size);
            }
            Some(Trailer::Ledger { root, at, .. }) => {
                if root != actual_root {
                    self.find_at_end(Verdict::ChainUnbroken, "the head has another root");
                }
                if at != self.last_at {
                    self.find_at_end(Verdict::TimestampsInOrder, "the head has another time");
                }
            }
            Some(Trailer::Stream { next_seq, .. }) if next_seq != self.next_seq => {
                self.find_count(self.next_seq < next_seq);
            }
            Some(Trailer::Stream { last_hash, .. }) => {
                if last_hash != self.last_hash {
                    self.find_at_end(Verdict::ChainUnbroken, "the head has another hash");
                }
            }
            None => {
                let what = "the trailer is missing: the export was interrupted";
                self.find_at_end(Verdict::AllPresent, what);
            }
        }
    }

    fn find_count(&mut self, too_few: bool) {
        if too_few {
            let what = "the head counts more receipts than there are";
            self.find_at_end(Verdict::AllPresent, what);
        } else {
            let what = "there are more receipts than the head counts";
            self.find_at_end(Verdict::ChainUnbroken, what);
        }
    }

    /// A finding about the place behind the last receipt: in one stream it has a name.
    fn find_at_end(&mut self, verdict: Verdict, what: &'static str) {
        let (stream, seq) = match &self.scope {
            Scope::Ledger => (String::new(), 0),
            Scope::Stream(only) => (only.to_string(), self.next_seq),
        };
        self.find(verdict, self.count + 1, stream, seq, what);
    }

    fn find(&mut self, verdict: Verdict, pos: u64, stream: String, seq: u64, what: &'static str) {
        self.findings.add(Finding { verdict, pos, stream, seq, what });
    }
}

/// Where a refused line says that it belongs, to name it by. Behind a receipt's own `seq` and
/// `stream` stand no objects, so the last mention of each is the receipt's.
fn claimed_place(line: &[u8]) -> Option<(String, u64)> {
    let after = |mark: &[u8]| {
        let at = line.windows(mark.len()).rposition(|window| window == mark)?;
        Some(&line[at + mark.len()..])
    };
    if line.len() > LINE_BYTES {
        return None;
    }
    let name = after(br#","stream":""#)?.split(|byte| *byte == b'"').next()?;
    let stream = StreamName::parse(std::str::from_utf8(name).ok()?).ok()?;
    let digits = after(br#","seq":"#)?.split(|byte| !byte.is_ascii_digit()).next()?;
    let seq: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let canonical =
        seq <= limits::INTEGER_MAX.unsigned_abs() && seq.to_string().len() == digits.len();
    canonical.then(|| (stream.to_string(), seq))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::public::public_bytes;
    use crate::{Draft, Kind, seal};

    const LEDGER: LedgerId = LedgerId([3; 16]);

    fn name(text: &str) -> StreamName {
        StreamName::parse(text).unwrap()
    }

    /// The lines of an export of `count` receipts over the given streams in turn.
    fn export(scope: &Scope, names: &[&str], count: usize) -> Vec<Vec<u8>> {
        let mut lines = vec![header_line(LEDGER, scope)];
        let mut heads = vec![StreamHead::EMPTY; names.len()];
        let mut ledger = HeadRecord::empty(LEDGER);
        for n in 0..count {
            let which = n % names.len();
            let at = Micros(1_700_000_000_000_000 + n as i64);
            let draft = Draft::new(Kind::Transition, "grant");
            let sealed = seal(&LEDGER, &name(names[which]), &heads[which], at, &draft).unwrap();
            heads[which] = heads[which].after(&sealed);
            ledger = ledger.after(sealed.hash, sealed.at);
            lines.push(public_bytes(&sealed.core, sealed.hash, sealed.chain_hash).unwrap());
        }
        lines.push(trailer_line(&match scope {
            Scope::Ledger => Trailer::from(&ledger),
            Scope::Stream(_) => Trailer::from(&heads[0]),
        }));
        lines
    }

    fn verify(lines: &[Vec<u8>]) -> Report {
        let mut verifier = ExportVerifier::new(&lines[0]).unwrap();
        lines[1..].iter().for_each(|line| verifier.push(line));
        verifier.finish()
    }

    #[track_caller]
    fn first(lines: &[Vec<u8>]) -> (Verdict, u64, String, u64) {
        let report = verify(lines);
        let first = &report.findings[0];
        (first.verdict, first.pos, first.stream.clone(), first.seq)
    }

    #[test]
    fn whole_exports_are_intact() {
        for count in [0, 1, 9] {
            let report = verify(&export(&Scope::Ledger, &["a", "_ops"], count));
            assert!(report.intact() && report.head_checked, "{:?}", report.findings);
            assert_eq!(report.receipts, count as u64);
            let report = verify(&export(&Scope::Stream(name("a")), &["a"], count));
            assert!(report.intact(), "{:?}", report.findings);
        }
    }

    #[test]
    fn only_the_very_bytes_of_a_header_pass() {
        for scope in [Scope::Ledger, Scope::Stream(name("_ops")), Scope::Stream(name("a:b@c"))] {
            let line = header_line(LEDGER, &scope);
            assert_eq!(parse_header(&line), Some((LEDGER, scope)));
            for cut in 0..line.len() {
                assert_eq!(parse_header(&line[..cut]), None, "cut at {cut}");
            }
        }
        let good = String::from_utf8(header_line(LEDGER, &Scope::Ledger)).unwrap();
        for (from, to) in [
            ("1", "2"),
            (":1", ": 1"),
            ("03", "0A"),
            ("\"ledger\"}", "\"tenant\"}"),
            ("\"ledger\"}", "\"ledger\"} "),
            ("\"ledger\"}", "\"stream\",\"stream\":\"a b\"}"),
            ("\"ledger\"}", "\"stream\"}"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(parse_header(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn only_the_very_bytes_of_a_trailer_of_the_scope_pass() {
        let ledger = Trailer::Ledger { size: 7, root: Hash([9; 32]), at: Micros(1_000_000) };
        let stream = Trailer::Stream { next_seq: 7, last_hash: Some(Hash([9; 32])) };
        let empty = Trailer::from(&StreamHead::EMPTY);
        let of_stream = Scope::Stream(name("a"));
        for (scope, other, trailer) in [
            (&Scope::Ledger, &of_stream, ledger),
            (&of_stream, &Scope::Ledger, stream),
            (&of_stream, &Scope::Ledger, empty),
        ] {
            let line = trailer_line(&trailer);
            assert_eq!(parse_trailer(scope, &line), Some(trailer));
            assert_eq!(parse_trailer(other, &line), None);
            for cut in 0..line.len() {
                assert_eq!(parse_trailer(scope, &line[..cut]), None, "cut at {cut}");
            }
            let text = String::from_utf8(line).unwrap();
            for number in ["+7", "07", "-7", "7.0", "9007199254740992"] {
                let bad = text.replace(":7}", &format!(":{number}}}"));
                if bad != text {
                    assert_eq!(parse_trailer(scope, bad.as_bytes()), None, "{bad}");
                }
            }
        }
    }

    #[test]
    fn what_is_missing_at_the_end_is_found() {
        let lines = export(&Scope::Ledger, &["a", "b"], 6);
        let end = (Verdict::AllPresent, 7, String::new(), 0);
        assert_eq!(first(&lines[..7]), end, "no trailer");
        let short = [&lines[..5], &lines[7..]].concat();
        assert_eq!(first(&short), (Verdict::AllPresent, 5, String::new(), 0));
        let lines = export(&Scope::Stream(name("a")), &["a"], 6);
        let short = [&lines[..5], &lines[7..]].concat();
        assert_eq!(first(&short), (Verdict::AllPresent, 5, "a".into(), 4));
        assert_eq!(first(&lines[..1]), (Verdict::AllPresent, 1, "a".into(), 0));
    }

    #[test]
    fn the_end_is_compared_with_the_trailer() {
        for scope in [Scope::Ledger, Scope::Stream(name("a"))] {
            let mut lines = export(&scope, &["a"], 3);
            // The trailer of a ledger that differs in names alone: same size, another root.
            lines[4] = export(&scope, &["b"], 3)[4].clone();
            let report = verify(&lines);
            assert_eq!(report.findings_total, 1);
            assert_eq!(report.findings[0].verdict, Verdict::ChainUnbroken);
            // The trailer of a shorter one.
            lines[4] = export(&scope, &["a"], 2)[3].clone();
            assert!(!verify(&lines).holds(Verdict::ChainUnbroken));
        }
        let mut lines = export(&Scope::Ledger, &["a"], 3);
        let late = String::from_utf8(lines[4].clone()).unwrap().replace(".000002Z", ".000003Z");
        lines[4] = late.into_bytes();
        assert_eq!(first(&lines).0, Verdict::TimestampsInOrder);
        let mut lines = export(&Scope::Ledger, &["a"], 3);
        lines.push(lines[1].clone());
        lines.push(Vec::new());
        assert_eq!(verify(&lines).findings_total, 1, "said once, however much follows");
    }

    #[test]
    fn a_refused_line_is_named_by_what_it_claims_or_by_its_number() {
        let lines = export(&Scope::Ledger, &["a", "b"], 6);
        let text = String::from_utf8(lines[4].clone()).unwrap();
        for (line, stream, seq) in [
            (text.replace("\"v\":1", "\"v\":2"), "b", 1),
            (text.replace("\"seq\":1", "\"seq\":01"), "", 0),
            (text.replace("\"stream\":\"b\"", "\"stream\":\"b b\""), "", 0),
            (String::new(), "", 0),
            ("x".repeat(LINE_BYTES + 1) + ",\"seq\":1,\"stream\":\"b\"", "", 0),
            ("{\"head\":{}}".into(), "", 0),
        ] {
            let mut changed = lines.clone();
            changed[4] = line.into_bytes();
            assert_eq!(first(&changed), (Verdict::ChainUnbroken, 4, stream.into(), seq));
            assert!(!verify(&changed).holds(Verdict::AllPresent), "its place is empty");
        }
    }

    #[test]
    fn a_stream_export_holds_that_stream_alone() {
        let lines = export(&Scope::Stream(name("a")), &["a", "b"], 4);
        let report = verify(&lines);
        let strangers: Vec<u64> = report.findings.iter().map(|finding| finding.pos).collect();
        assert_eq!(strangers, [2, 4]);
        assert_eq!(first(&lines), (Verdict::ChainUnbroken, 2, "b".into(), 0));
    }

    #[test]
    fn a_name_that_no_stream_can_have_is_refused() {
        let line = export(&Scope::Ledger, &["_ops"], 1).swap_remove(1);
        let text = String::from_utf8(line).unwrap().replace("_ops", "_o s");
        assert!(split(text.as_bytes()).is_err());
        let mut verifier = ExportVerifier::new(&header_line(LEDGER, &Scope::Ledger)).unwrap();
        verifier.push(text.as_bytes());
        assert_eq!(verifier.finish().findings[0].what, "the line is not a canonical receipt");
    }
}
