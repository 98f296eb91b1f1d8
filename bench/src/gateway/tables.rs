//! What is written of a run: the bars, and a table for each kind of answer.
//!
//! Owns: medians over rounds, the bars and their words. Refuses to know: how anything was measured.

use std::fmt::Write as _;
use std::time::Duration;

use super::client::Kind;
use super::{CELLS, Cell, Row, Sample, UNREAD};
use crate::numbers::{median, whole};
use crate::report::Report;

const CPU_MAX_US: f64 = 80.0;
const KEPT_MIN: f64 = 0.85;
const ADDED_P99_MAX_MS: f64 = 0.5;
const ADDED_FIRST_MAX_MS: f64 = 0.3;
/// What a socket that gathers and one that acknowledges late make of a burst.
const NAGLE_MS: f64 = 40.0;
const UNREAD_MAX_BYTES: f64 = 256.0 * 1024.0;
/// How many times the requests per second of each.
const PEERS: [(&str, f64); 4] =
    [("tensorzero", 1.5), ("litellm-rs", 1.5), ("portkey", 10.0), ("litellm", 50.0)];

const ONE: Cell = Cell { connections: 1, kind: Kind::Whole };
const MANY: Cell = Cell { connections: 32, kind: Kind::Whole };
const ONE_STREAM: Cell = Cell { connections: 1, kind: Kind::Streamed };

/// One line while a run goes on.
pub(super) fn progress(name: &str, round: usize, cell: Cell, sample: &Sample) -> String {
    let Cell { connections, kind } = cell;
    format!(
        "round {round} {connections:>3} {kind:?} {name}: {:.0}/s, p50 {:.2}, p99 {:.2} ms, first p50 \
         {:.2}, p99 {:.2} ms, {} us CPU (client {:.1})",
        sample.rate,
        sample.whole[0],
        sample.whole[2],
        sample.first[0],
        sample.first[2],
        sample.cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1}")),
        sample.client_cpu,
    )
}

impl Row {
    /// The median over rounds of one number of a cell.
    fn at(&self, cell: Cell, number: impl Fn(&Sample) -> f64) -> Option<f64> {
        let nth = CELLS.iter().position(|known| *known == cell)?;
        let samples = self.cells[nth].as_ref().ok()?;
        let numbers: Vec<_> = samples.iter().map(number).collect();
        (!numbers.is_empty()).then(|| median(&numbers))
    }

    fn rate(&self, cell: Cell) -> Option<f64> {
        self.at(cell, |sample| sample.rate)
    }
}

/// The whole page.
pub(super) fn report(rows: &[Row], how_long: Duration, rounds: usize) -> Report {
    let mut report = Report::default();
    bars(&mut report, rows);
    for kind in [Kind::Whole, Kind::Streamed] {
        report.note(&cells(rows, kind));
    }
    report.note(&memory(rows));
    report.note(&subjects(rows));
    report.note(&format!(
        "Each cell is the median of {rounds} rounds of {} s, after half a second that is not counted; \
         all subjects run from the beginning, and within a round each cell is measured on one after \
         the other. The client (one thread), the provider (one thread, a process of its own) and the \
         gateway share the machine: what is taken by one is missing to the others. CPU is that of all \
         processes of the gateway. A prompt has 700 bytes; a whole answer is about a kibibyte of \
         JSON; a stream is 60 chunks that the provider writes at once.",
        how_long.as_secs()
    ));
    report
}

fn find<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.name == name)
}

fn bars(report: &mut Report, rows: &[Row]) {
    let Some(tai) = find(rows, "tai") else { return };
    let cpu = tai.at(MANY, |sample| sample.cpu.unwrap_or(f64::INFINITY));
    let how = "32 connections, everything on, two durable receipts a call";
    under(report, "CPU per request", ("≤ 80 µs", CPU_MAX_US), cpu, "µs", how);
    for (name, times) in PEERS {
        let ratio = find(rows, name).and_then(|peer| peer.rate(MANY)).zip(tai.rate(MANY));
        let what = format!("requests/s ÷ {name}'s");
        let bar = format!("≥ {times}");
        let how = "32 connections; ours governed, theirs not";
        over(report, &what, (&bar, times), ratio.map(|(peer, own)| own / peer), how);
    }
    let kept = find(rows, "tai-open").and_then(|open| open.rate(MANY)).zip(tai.rate(MANY));
    let how = "32 connections; without governing is `tai-open` below";
    let kept = kept.map(|(open, own)| own / open);
    over(report, "requests/s, governed ÷ not", ("≥ 0.85", KEPT_MIN), kept, how);
    added(report, rows, tai);
    let longest = tai.at(ONE_STREAM, |sample| sample.whole[3]);
    let how = "one connection, the longest of all: the wait of Nagle would show";
    under(report, "a stream of a burst", ("< 40 ms", NAGLE_MS), longest, "ms", how);
    let how = format!("{UNREAD} more streams of 4 MiB that nobody reads, beside as many before");
    let kib = tai.unread.as_ref().ok().map(|bytes| bytes / 1024.0);
    under(report, "an unread stream", ("≤ 256 KiB", UNREAD_MAX_BYTES / 1024.0), kib, "KiB", &how);
}

/// What we add to the provider's own waits.
fn added(report: &mut Report, rows: &[Row], tai: &Row) {
    let direct = find(rows, "direct");
    let added = |cell: Cell, number: fn(&Sample) -> f64| {
        Some(tai.at(cell, number)? - direct?.at(cell, number)?)
    };
    let p99 = added(ONE, |sample| sample.whole[2]);
    let how = "one connection; ours less direct";
    under(report, "added p99", ("≤ 0.5 ms", ADDED_P99_MAX_MS), p99, "ms", how);
    let first = added(ONE_STREAM, |sample| sample.first[2]);
    let how = "one connection, p99 of the first byte of a body; ours less direct";
    under(report, "added to the first token", ("≤ 0.3 ms", ADDED_FIRST_MAX_MS), first, "ms", how);
}

fn under(
    report: &mut Report,
    what: &str,
    (bar, most): (&str, f64),
    measured: Option<f64>,
    unit: &str,
    how: &str,
) {
    match measured.filter(|measured| measured.is_finite()) {
        Some(measured) => {
            let text = format!("{measured:.2} {unit}");
            report.bar(what, bar, text, measured <= most, how.to_owned());
        }
        None => report.fact(what, "not measured".to_owned(), format!("bar {bar}; {how}")),
    }
}

fn over(
    report: &mut Report,
    what: &str,
    (bar, least): (&str, f64),
    measured: Option<f64>,
    how: &str,
) {
    match measured {
        Some(measured) => {
            let text = format!("{measured:.2}");
            report.bar(what, bar, text, measured >= least, how.to_owned());
        }
        None => report.fact(what, "not measured".to_owned(), format!("bar {bar}; {how}")),
    }
}

fn cells(rows: &[Row], kind: Kind) -> String {
    let mut text = match kind {
        Kind::Streamed => "## Streamed\n\n".to_owned(),
        Kind::Whole | Kind::Long => "## Not streamed\n\n".to_owned(),
    };
    text.push_str(
        "| connections | through | req/s | of direct | p50 ms | p95 ms | p99 ms | first p50 ms | \
         first p99 ms | CPU µs/req | client's CPU µs/req |\n\
         |--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for cell in CELLS.iter().filter(|cell| cell.kind == kind) {
        let direct = find(rows, "direct").and_then(|direct| direct.rate(*cell));
        rows.iter().filter(|row| row.missing.is_none()).for_each(|row| {
            line(&mut text, row, *cell, direct);
        });
    }
    text
}

fn line(text: &mut String, row: &Row, cell: Cell, direct: Option<f64>) {
    let _ = write!(text, "| {} | {} |", cell.connections, row.name);
    let Some(rate) = row.rate(cell) else {
        let nth = CELLS.iter().position(|known| *known == cell);
        let why = nth.and_then(|nth| row.cells[nth].as_ref().err());
        let why = why.map_or("", |why| why.lines().next().unwrap_or_default());
        let why: String = why.replace('|', " ").chars().take(160).collect();
        let _ = writeln!(text, " failed: {why} | | | | | | | | |");
        return;
    };
    let of = direct.map_or("–".to_owned(), |direct| format!("{:.1} %", rate / direct * 100.0));
    let ms = |number: fn(&Sample) -> f64| row.at(cell, number).unwrap_or(f64::NAN);
    let cpu = row.at(cell, |sample| sample.cpu.unwrap_or(f64::NAN)).filter(|cpu| cpu.is_finite());
    let _ = writeln!(
        text,
        " {} | {of} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {:.1} |",
        whole(rate),
        ms(|sample| sample.whole[0]),
        ms(|sample| sample.whole[1]),
        ms(|sample| sample.whole[2]),
        ms(|sample| sample.first[0]),
        ms(|sample| sample.first[2]),
        cpu.map_or("–".to_owned(), |cpu| format!("{cpu:.1}")),
        ms(|sample| sample.client_cpu),
    );
}

fn memory(rows: &[Row]) -> String {
    let mut text = "## Memory\n\n| through | idle MiB | peak MiB | an unread stream, KiB |\n\
                    |---|--:|--:|--:|\n"
        .to_owned();
    let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
    for row in rows.iter().filter(|row| row.missing.is_none() && row.idle_bytes > 0) {
        let unread = match &row.unread {
            Ok(bytes) => format!("{:.0}", bytes / 1024.0),
            Err(why) => format!("failed: {}", why.lines().next().unwrap_or_default()),
        };
        let (idle, peak) = (mib(row.idle_bytes), mib(row.peak_bytes));
        let _ = writeln!(text, "| {} | {idle:.0} | {peak:.0} | {unread} |", row.name);
    }
    text
}

fn subjects(rows: &[Row]) -> String {
    let mut text =
        "## What was measured\n\n| name | version | what is on |\n|---|---|---|\n".to_owned();
    for row in rows {
        let _ = match &row.missing {
            None => writeln!(text, "| {} | {} | {} |", row.name, row.version, row.on),
            Some(why) => writeln!(text, "| {} | – | not measured: {why} |", row.name),
        };
    }
    text
}
