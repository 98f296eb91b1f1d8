//! `tai ledger …`: verify, export, copy, backup, restore, doctor.
//!
//! Owns: what an operator reads, and exit codes: 0 all is well, 1 it is not. Refuses to know: how
//! a ledger is stored or checked. No verb edits history.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use engine::clock::SystemClock;
use ledger::export::{ExportVerifier, LINE_BYTES, Scope, Trailer, header_line, trailer_line};
use ledger::public::public_bytes;
use ledger::verify::{Heads, Verdict};
use ledger::{HeadRecord, Report, Row, StreamHead, Verifier, View};
use settings::{Backend, Settings};
use store::Reader;
use types::{Clock, StreamName};

use crate::check::of_file;
use crate::cli::{EXIT_FAILED, EXIT_OK, Export, Ledger, Verify, complain, say, usage_error};
use crate::copy;
use crate::fold::Folds;
use crate::stores::Source;

/// Runs one verb on the ledger that the settings name.
pub(crate) fn run(verb: Ledger, settings: &Settings) -> anyhow::Result<ExitCode> {
    let well = match verb {
        Ledger::Verify(arguments) => verify(&arguments, settings)?,
        Ledger::Export(arguments) => export(&arguments, settings)?,
        Ledger::Copy { to } => match of_file(&to) {
            Ok(to) => copy::run(settings, &to)?,
            Err(mistakes) => return Ok(usage_error(&mistakes)),
        },
        Ledger::Backup { to } => match files(settings) {
            Some(dir) => backup(dir, &to)?,
            None => copy::run(settings, &in_files(settings, to))?,
        },
        Ledger::Restore { from } => match files(settings) {
            Some(dir) => restore(&from, dir)?,
            None => copy::run(&in_files(settings, from), settings)?,
        },
        Ledger::Doctor { rebuild } => {
            let dir = files(settings).context(
                "RECEIPT_LEDGER_BACKEND: only a ledger in files has a doctor; `tai ledger verify` \
                 checks a database",
            )?;
            if rebuild { self::rebuild(dir)? } else { doctor(dir)? }
        }
    };
    Ok(ExitCode::from(if well { EXIT_OK } else { EXIT_FAILED }))
}

/// The directory of a ledger in files.
fn files(settings: &Settings) -> Option<&Path> {
    match settings.receipt_ledger_backend {
        Backend::Postgres | Backend::Firestore => None,
        Backend::Sqlite | Backend::Memory => Some(&settings.ledger_dir),
    }
}

/// A ledger in files, otherwise as the settings say.
fn in_files(settings: &Settings, dir: PathBuf) -> Settings {
    let receipt_ledger_backend = Backend::Sqlite;
    Settings { receipt_ledger_backend, ledger_dir: dir, ..settings.clone() }
}

fn open(dir: &Path) -> anyhow::Result<Source> {
    let cannot = || format!("cannot read the ledger in {}", dir.display());
    Ok(Source::Files(Box::new(Reader::open(dir).with_context(cannot)?)))
}

fn parse_stream(name: Option<&str>) -> anyhow::Result<Option<StreamName>> {
    name.map(StreamName::parse).transpose().context("--stream is not the name of a stream")
}

fn verify(arguments: &Verify, settings: &Settings) -> anyhow::Result<bool> {
    let stream = parse_stream(arguments.stream.as_deref())?;
    let report = match &arguments.export {
        Some(file) => verify_export(file)?,
        None => verify_ledger(&mut Source::open(settings)?, stream.as_ref())?,
    };
    // A whole ledger whose tail nobody can vouch for is not verified; one stream never has a head
    // record of its own.
    Ok(tell(&report) && (report.head_checked || stream.is_some()))
}

fn verify_ledger(source: &mut Source, stream: Option<&StreamName>) -> anyhow::Result<Report> {
    Ok(verify_each(source, stream, &mut |_| {})?.0)
}

/// Verifies a ledger or one stream, and hands each receipt on to `take` as well.
pub(crate) fn verify_each(
    source: &mut Source,
    stream: Option<&StreamName>,
    take: &mut dyn FnMut(&Row<'_>),
) -> anyhow::Result<(Report, Heads)> {
    let mut verifier = match stream {
        Some(_) => Verifier::of_stream(source.ledger()),
        // The database's own head stands in when the head file is gone: it finds less, since who
        // cuts the table can cut it too, and `tell` says so.
        None => Verifier::new(source.ledger(), source.head_record().or(source.table_head())),
    };
    let beside = source.for_each(stream, &mut |row| {
        verifier.push(row);
        take(row);
        ControlFlow::Continue(())
    })?;
    let (mut report, heads) = verifier.finish_with_heads();
    report.add(beside);
    if report.receipts == 0 && stream.is_some() {
        bail!("there is no such stream");
    }
    report.head_checked = stream.is_none() && source.vouches();
    if stream.is_none() && source.head_record().is_none() {
        say("what counts the receipts stands beside them: who cuts both would not be found");
    }
    Ok((report, heads))
}

fn verify_export(file: &Path) -> anyhow::Result<Report> {
    let cannot = || format!("cannot read {}", file.display());
    let mut lines = BufReader::new(File::open(file).with_context(cannot)?);
    let mut line = Vec::new();
    next_line(&mut lines, &mut line).with_context(cannot)?;
    let mut verifier = ExportVerifier::new(&line)?;
    while next_line(&mut lines, &mut line).with_context(cannot)? {
        verifier.push(&line);
    }
    Ok(verifier.finish())
}

/// Reads one line without its LF; false at the end. No line is longer than the format permits.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> anyhow::Result<bool> {
    line.clear();
    let read = from.take(LINE_BYTES as u64 + 1).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read > LINE_BYTES {
        bail!("a line is longer than an export's lines are");
    }
    Ok(read > 0)
}

/// Prints the four verdicts of 002 scenario 10; true when all of them hold.
pub(crate) fn tell(report: &Report) -> bool {
    for verdict in Verdict::ALL {
        match &report.first[verdict as usize] {
            None => say(&format!("✓ {}", verdict.sentence())),
            Some(first) => say(&format!(
                "✗ {}: {} (stream {}, seq {}, position {})",
                verdict.sentence(),
                first.what,
                first.stream,
                first.seq,
                first.pos
            )),
        }
    }
    if let Some(first) = report.findings.first() {
        let (stream, seq, total) = (&first.stream, first.seq, report.findings_total);
        say(&format!("first bad receipt: stream {stream}, seq {seq}; findings in all: {total}"));
    }
    if !report.head_checked {
        say("no head record was at hand: a cut tail would not have been found");
    }
    say(&format!("receipts: {}, streams: {}", report.receipts, report.streams));
    if report.intact() && report.head_checked {
        say(&format!("root: {}", report.root));
    }
    report.intact()
}

fn export(arguments: &Export, settings: &Settings) -> anyhow::Result<bool> {
    let mut source = Source::open(settings)?;
    let stream = parse_stream(arguments.stream.as_deref())?;
    match &arguments.to {
        None => write_export(&mut source, stream.as_ref(), io::stdout().lock())?,
        Some(path) => {
            let cannot = || format!("cannot write {}", path.display());
            let file = File::create_new(path).with_context(cannot)?;
            write_export(&mut source, stream.as_ref(), &file).with_context(cannot)?;
            file.sync_all().with_context(cannot)?;
        }
    }
    Ok(true)
}

fn write_export(
    source: &mut Source,
    stream: Option<&StreamName>,
    to: impl Write,
) -> anyhow::Result<()> {
    let mut to = BufWriter::new(to);
    let mut head = StreamHead::EMPTY;
    // Computed from what is written: a shared ledger has no head of all its writers.
    let mut written = HeadRecord::empty(source.ledger());
    let scope = stream.map_or(Scope::Ledger, |name| Scope::Stream(name.clone()));
    line(&mut to, &header_line(source.ledger(), &scope))?;
    source.try_each(stream, &mut |row| {
        head = write_row(&mut to, row)?;
        written = written.after(row.hash, head.last_at);
        Ok(())
    })?;
    if stream.is_some() && head == StreamHead::EMPTY {
        bail!("there is no such stream");
    }
    let trailer = match stream {
        Some(_) => Trailer::from(&head),
        None => Trailer::from(&source.table_head().unwrap_or(written)),
    };
    line(&mut to, &trailer_line(&trailer))?;
    Ok(to.flush()?)
}

fn write_row(to: &mut impl Write, row: &Row<'_>) -> anyhow::Result<StreamHead> {
    let place = || format!("stream {} seq {} cannot be exported", row.stream, row.seq);
    let bytes = public_bytes(row.core, row.hash, row.chain_hash).with_context(place)?;
    line(to, &bytes)?;
    let last_at = View::scan(row.core).with_context(place)?.at;
    Ok(StreamHead { next_seq: row.seq + 1, last_hash: Some(row.hash), last_at })
}

fn line(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.write_all(b"\n")
}

fn backup(dir: &Path, to: &Path) -> anyhow::Result<bool> {
    let head = store::backup(dir, to, &mut |_, _| {})
        .with_context(|| format!("cannot back the ledger up to {}", to.display()))?;
    say(&format!("{} receipts copied, root {}", head.size, head.root));
    // A backup that does not verify is none.
    Ok(tell(&verify_ledger(&mut open(to)?, None)?))
}

fn restore(from: &Path, dir: &Path) -> anyhow::Result<bool> {
    if from.canonicalize().is_ok_and(|from| dir.canonicalize().is_ok_and(|dir| from == dir)) {
        bail!("the backup is the ledger in place");
    }
    let mut source = open(from)?;
    let report = verify_ledger(&mut source, None)?;
    if !tell(&report) || !report.head_checked {
        complain("tai: the backup does not verify, nothing was changed");
        return Ok(false);
    }
    if let Ok(present) = Reader::open(dir) {
        let gives = source.table_head().map_or(0, |head| head.size);
        let have = present.table_head().size;
        if present.ledger() == source.ledger() && have > gives {
            say(&format!(
                "the ledger in place has {have} receipts, the backup {gives}: the rest is only in the copy moved aside"
            ));
        }
    }
    let label = SystemClock::default().now().secs().to_string();
    let replaced = store::restore(from, dir, &label)
        .with_context(|| format!("cannot restore into {}", dir.display()))?;
    say(&format!("restored; what was there is in {}", replaced.display()));
    Ok(true)
}

fn doctor(dir: &Path) -> anyhow::Result<bool> {
    let found = store::doctor(dir)
        .with_context(|| format!("cannot examine the ledger in {}", dir.display()))?;
    for (table, rows) in &found.rows {
        say(&format!("{table}: {rows} rows"));
    }
    let (database, wal) = (found.database_bytes, found.wal_bytes);
    say(&format!("database {database} bytes, write-ahead log {wal} bytes"));
    found.damages.iter().for_each(|damage| say(&format!("✗ {damage}")));
    found.head_fault.iter().for_each(|fault| say(&format!("✗ {fault}")));
    found.finds_faults.iter().for_each(|fault| say(&format!("✗ {fault}")));
    for (what, count) in [
        ("unreadable receipts", found.unreadable),
        ("wrong entries of the index", found.finds_wrong),
        ("wrong unsettled attempts", found.attempts_wrong),
    ] {
        say(&format!("{} {what}: {count}", if count == 0 { "✓" } else { "✗" }));
    }
    say("files and projections only; `tai ledger verify` checks the receipts themselves");
    Ok(found.healthy())
}

fn rebuild(dir: &Path) -> anyhow::Result<bool> {
    let mut folds = Folds::default();
    let rebuilt = store::rebuild(dir, &mut folds)
        .with_context(|| format!("cannot rebuild the projections in {}", dir.display()))?;
    say(&format!(
        "{} receipts folded: {} keys, {} unsettled attempts, {} due streams",
        rebuilt.receipts, rebuilt.keys, rebuilt.attempts, rebuilt.due
    ));
    let bad = rebuilt.unreadable + folds.unfolded;
    if bad > 0 {
        complain(&format!("tai: {bad} receipts could not be folded"));
    }
    Ok(bad == 0)
}
