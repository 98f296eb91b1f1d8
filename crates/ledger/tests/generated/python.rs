//! The verifier in `tools/`, which was written from the document, beside ours.
//!
//! Owns: running it. Refuses to know: what is in a vector.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use ledger::export::{ExportVerifier, Scope, Trailer, header_line, trailer_line};
use ledger::verify::{Finding, Report, Verdict};
use ledger::{Draft, GENESIS, Kind, StreamHead};
use types::{StreamName, limits};

use crate::rejected::{rejected, resealed};
use crate::{LEDGER, VECTORS, drafts, export, joined, public, root, sealed, vectors};

const FOUR_LINES: &str = "✓ All receipts present\n\
    ✓ Chain is unbroken (all hashes match)\n\
    ✓ No duplicates found\n\
    ✓ Timestamps in order\n";

fn report_on(file: &[u8]) -> Option<Report> {
    let mut lines = file.strip_suffix(b"\n").unwrap_or(file).split(|byte| *byte == b'\n');
    let mut verifier = ExportVerifier::new(lines.next().unwrap_or_default()).ok()?;
    lines.for_each(|line| verifier.push(line));
    Some(verifier.finish())
}

/// What the other verifier must print at the end of a fallen verdict's place.
fn place(finding: &Finding) -> String {
    let line = finding.pos + 1;
    if finding.stream.is_empty() {
        format!("line {line}:")
    } else {
        format!("stream {} seq {} (line {line}):", finding.stream, finding.seq)
    }
}

#[track_caller]
fn assert_agreement(what: &str, file: &[u8], exit: i32, printed: &str) {
    let Some(report) = report_on(file) else {
        assert_eq!((exit, printed), (2, ""), "{what}: no header");
        return;
    };
    assert_eq!(exit, i32::from(!report.intact()), "{what}: {printed}{:?}", report.findings);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 4, "{what}: {printed}");
    for (verdict, line) in Verdict::ALL.into_iter().zip(lines) {
        let first = report.findings.iter().find(|finding| finding.verdict == verdict);
        match first {
            None => assert_eq!(line, format!("✓ {}", verdict.sentence()), "{what}"),
            Some(first) => {
                let wanted = format!("✗ {}: {}", verdict.sentence(), place(first));
                assert!(line.starts_with(&wanted), "{what}: {line}\nwanted {wanted}");
            }
        }
    }
}

fn tool() -> PathBuf {
    root().join("tools/verify_receipt_chain.py")
}

/// False when there is no python3 and that may be so.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn has_python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(found || !ci, "python3 is missing: the verifier in tools/ is not tested");
    if !found {
        eprintln!("skipped: python3 is missing, the verifier in tools/ is not tested");
    }
    found
}

/// Feeds a child's standard input from a thread of its own, so that neither side can block the
/// other, and returns its exit code and what it printed.
fn feed(command: &mut Command, input: Vec<u8>) -> (i32, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// Runs the verifier over many exports in one interpreter: per export its exit code and text.
fn python_on(files: &[Vec<u8>]) -> Vec<(i32, String)> {
    const DRIVER: &str = "\
import io, os, sys
sys.dont_write_bytecode = True
sys.path.insert(0, os.environ['TOOLS'])
sys.stdout.reconfigure(encoding='utf-8')
import verify_receipt_chain as tool
while True:
    size = sys.stdin.buffer.readline()
    if not size:
        break
    code = tool.run(io.BytesIO(sys.stdin.buffer.read(int(size))), False)
    print('exit', code)
";
    let mut input = Vec::new();
    for file in files {
        writeln!(input, "{}", file.len()).unwrap();
        input.extend_from_slice(file);
    }
    let mut python = Command::new("python3");
    python.args(["-c", DRIVER]).env("TOOLS", root().join("tools")).stderr(Stdio::null());
    let (exit, printed) = feed(&mut python, input);
    assert_eq!(exit, 0, "the verifier itself failed: {printed}");
    let mut results = Vec::new();
    let mut text = String::new();
    for line in printed.lines() {
        match line.strip_prefix("exit ") {
            Some(code) => results.push((code.parse().unwrap(), std::mem::take(&mut text))),
            None => text.extend([line, "\n"]),
        }
    }
    assert_eq!(results.len(), files.len());
    results
}

#[test]
fn the_python_verifier_reads_the_vectors() {
    if !has_python() {
        return;
    }
    let path = root().join(VECTORS);
    let from_file = Command::new(tool()).arg("--sum").arg(&path).output().unwrap();
    let printed = String::from_utf8(from_file.stdout).unwrap();
    let sums = "sum EUR 700 minor units in 1 receipts\nsum USD 3650 minor units in 2 receipts\n";
    assert_eq!((from_file.status.code(), printed), (Some(0), format!("{FOUR_LINES}{sums}")));
    let from_stdin = feed(&mut Command::new(tool()), joined(&vectors()));
    assert_eq!(from_stdin, (0, FOUR_LINES.to_owned()));
    // Without the last LF the file is still whole.
    assert_eq!(feed(&mut Command::new(tool()), vectors().join(&b'\n')).0, 0);
    for unreadable in [vec!["/nonexistent/export.jsonl"], vec!["--unknown"], vec!["a", "b"]] {
        let refused = Command::new(tool()).args(&unreadable).output().unwrap();
        assert_eq!(refused.status.code(), Some(2), "{unreadable:?}");
        assert!(refused.stdout.is_empty() && !refused.stderr.is_empty());
    }
    assert_eq!(feed(Command::new(tool()).stderr(Stdio::null()), b"{}\n".to_vec()).0, 2);
    let mut tampered = joined(&vectors());
    let at = tampered.windows(4).position(|four| four == b"4900").unwrap();
    tampered[at] = b'5';
    let (exit, printed) = feed(Command::new(tool()).arg("--sum"), tampered);
    assert_eq!(exit, 1);
    assert!(printed.ends_with("no sum: the export is not verified\n"), "{printed}");
}

#[test]
fn the_python_verifier_refuses_every_rejected_vector() {
    if !has_python() {
        return;
    }
    let lines = vectors();
    let last = lines.len() - 2;
    let mut files = Vec::new();
    for (_, line) in rejected() {
        let mut changed = lines.clone();
        changed[last] = line.into_bytes();
        files.push(joined(&changed));
    }
    for (((why, _), file), (exit, printed)) in rejected().iter().zip(&files).zip(python_on(&files))
    {
        assert_agreement(why, file, exit, &printed);
        let chain = printed.lines().nth(1).unwrap();
        assert!(chain.contains("not a canonical receipt"), "{why}: {chain}");
        assert_eq!(exit, 1, "{why}");
    }
}

#[test]
fn the_python_verifier_names_what_is_wrong_and_where() {
    if !has_python() {
        return;
    }
    let lines = vectors();
    let count = lines.len();
    let mut flipped = lines.clone();
    let detail = flipped[5].windows(4).position(|four| four == b"both").unwrap();
    flipped[5][detail] ^= 1;
    let mut dropped = lines.clone();
    dropped.remove(4);
    let mut swapped = lines.clone();
    swapped.swap(4, 5);
    let mut doubled = lines.clone();
    doubled.insert(5, lines[4].clone());
    let short = [&lines[..count - 3], &lines[count - 1..]].concat();
    let interrupted = lines[..count - 1].to_vec();
    let mut early = lines;
    // Of different streams: no link breaks, only time does.
    early.swap(1, 2);
    let cases = [
        (
            flipped,
            "Chain is unbroken (all hashes match): stream vector-tenant-a seq 2 (line 6)".into(),
        ),
        (dropped, "All receipts present: stream vector-tenant-a seq 2 (line 5)".into()),
        (swapped, "No duplicates found: stream vector-tenant-a seq 1 (line 6)".into()),
        (early, "Timestamps in order: stream _ops seq 0 (line 3)".into()),
        (doubled, "No duplicates found: stream vector-tenant-a seq 1 (line 6)".into()),
        (short, format!("All receipts present: line {}: the head counts more", count - 2)),
        (interrupted, format!("All receipts present: line {count}: the trailer is missing")),
    ];
    let files: Vec<_> = cases.iter().map(|(lines, _)| joined(lines)).collect();
    for (((_, wanted), file), (exit, printed)) in cases.iter().zip(&files).zip(python_on(&files)) {
        assert_eq!(exit, 1, "{wanted}");
        let wanted = format!("✗ {wanted}");
        assert!(printed.lines().any(|line| line.starts_with(&wanted)), "{wanted}: {printed}");
        assert_agreement(&wanted, file, exit, &printed);
    }
}

#[test]
fn the_two_verifiers_agree_on_the_size_of_a_receipt() {
    if !has_python() {
        return;
    }
    let first = |detail: usize| {
        let mut draft = Draft::new(Kind::Transition, "start");
        draft.detail = Some("x".repeat(detail).into());
        sealed(vec![("_ops", draft)]).remove(0)
    };
    let largest = first(limits::RECEIPT_BYTES - first(0).core.len());
    assert_eq!(largest.core.len(), limits::RECEIPT_BYTES);
    let fits = export(std::slice::from_ref(&largest));
    let core = String::from_utf8(largest.core.into_vec()).unwrap().replacen("xx", "xxx", 1);
    let mut beyond = fits.clone();
    beyond[1] = resealed(&core, GENESIS).into_bytes();
    let files = [joined(&fits), joined(&beyond)];
    for ((file, (exit, printed)), wanted) in files.iter().zip(python_on(&files)).zip([0, 1]) {
        assert_eq!(exit, wanted, "{printed}");
        assert_agreement("size", file, exit, &printed);
    }
}

/// SplitMix64: the same mutations on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

fn mutated(dice: &mut Dice, lines: &[Vec<u8>]) -> Vec<u8> {
    let mut lines = lines.to_vec();
    let (one, other) = (dice.below(lines.len()), dice.below(lines.len()));
    let shape = dice.below(10);
    match shape {
        0 => drop(lines.remove(one)),
        1 => lines.swap(one, other),
        2 => lines.insert(other, lines[one].clone()),
        3 => {
            let (from, to) = (one.min(other), one.max(other));
            drop(lines.drain(from..to));
        }
        _ => {}
    }
    let mut file = joined(&lines);
    let at = dice.below(file.len());
    match shape {
        4 => file.truncate(at),
        5 => drop(file.remove(at)),
        6 => file.insert(at, b"0\"\\\n,}{ \xc3"[dice.below(9)]),
        7 => {
            // A digit for a digit keeps most lines well formed, and lies.
            let digit = (at..file.len()).find(|at| file[*at].is_ascii_digit()).unwrap_or(0);
            file[digit] = b'0' + dice.below(10) as u8;
        }
        8 => file[at] = dice.below(256) as u8,
        9 => file[at] ^= 1 << dice.below(8),
        _ => {}
    }
    file
}

#[test]
fn the_two_verifiers_agree_on_every_mutation() {
    if !has_python() {
        return;
    }
    let lines = vectors();
    let mut dice = Dice(2);
    let files: Vec<_> = (0..2_000).map(|_| mutated(&mut dice, &lines)).collect();
    let mut intact = 0;
    for (n, (file, (exit, printed))) in files.iter().zip(python_on(&files)).enumerate() {
        assert_agreement(&format!("mutation {n}"), file, exit, &printed);
        intact += usize::from(exit == 0);
        assert_eq!(exit == 0, *file == joined(&lines) || *file == lines.join(&b'\n'));
    }
    assert!(intact > 0 && intact < files.len() / 2, "{intact} of the mutations changed nothing");
}

#[test]
fn the_two_verifiers_agree_on_the_export_of_one_stream() {
    if !has_python() {
        return;
    }
    let receipts = sealed(drafts());
    let mut files = Vec::new();
    for name in ["_ops", "vector-tenant-a", "vector-tenant-unknown"] {
        let scope = Scope::Stream(StreamName::parse(name).unwrap());
        let mut head = StreamHead::EMPTY;
        let mut lines = vec![header_line(LEDGER, &scope)];
        for receipt in receipts.iter().filter(|receipt| receipt.stream.as_str() == name) {
            head = head.after(receipt);
            lines.push(public(receipt));
        }
        lines.push(trailer_line(&Trailer::from(&head)));
        files.push(joined(&lines));
        lines.insert(1, public(&receipts[2]));
        files.push(joined(&lines));
        let mut dice = Dice(head.next_seq);
        files.extend((0..300).map(|_| mutated(&mut dice, &lines)));
    }
    let results = python_on(&files);
    for (n, (file, (exit, printed))) in files.iter().zip(&results).enumerate() {
        assert_agreement(&format!("stream export {n}"), file, *exit, printed);
        let whole = &files[n - n % 302];
        assert_eq!(*exit == 0, file == whole || whole[..whole.len() - 1] == file[..]);
    }
}
