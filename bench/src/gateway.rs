//! Gateways for calls to models, side by side in front of one provider.
//!
//! Owns: the cells, their order and the bars. Refuses to know: how a subject is installed, started
//! or asked. All subjects run from the beginning and each cell is measured on one after the other,
//! so that what else the machine does meets all of them alike; only figures of one run are
//! compared.

mod client;
mod installed;
mod peers;
mod subject;
mod tables;
mod tai;
pub(crate) mod upstream;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::net::TcpStream;

use self::client::Kind;
use self::subject::{Missing, Subject};
use self::upstream::Upstream;
use crate::Size;
use crate::load;
use crate::process::{CpuTimes, Tree};
use crate::report::Report;

/// Which subjects, and where what does not belong to us is installed.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// All of them where it is empty.
    pub(crate) only: Vec<String>,
    pub(crate) peers: Option<PathBuf>,
}

/// A number of connections and what they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    connections: usize,
    kind: Kind,
}

const CELLS: [Cell; 6] = [
    Cell { connections: 1, kind: Kind::Whole },
    Cell { connections: 32, kind: Kind::Whole },
    Cell { connections: 256, kind: Kind::Whole },
    Cell { connections: 1, kind: Kind::Streamed },
    Cell { connections: 32, kind: Kind::Streamed },
    Cell { connections: 256, kind: Kind::Streamed },
];

const ROUNDS: usize = 3;
/// Before each measurement, so that connections to the provider are there.
const WARM: Duration = Duration::from_millis(500);
/// Streams that nobody reads.
const UNREAD: usize = 50;
/// Such streams before them: what a process takes once, when it first has many of anything, is not
/// what each of them costs.
const UNREAD_BEFORE: usize = 50;
/// How long a gateway goes on taking what nobody reads; what it has then is what it keeps.
const UNREAD_SETTLES: Duration = Duration::from_secs(3);

/// One cell of one subject in one round.
struct Sample {
    rate: f64,
    /// Milliseconds: 50, 95, 99 of a hundred, and the longest.
    whole: [f64; 4],
    /// The same, until the first byte of a body.
    first: [f64; 4],
    /// Microseconds of the gateway's processes for each request.
    cpu: Option<f64>,
    /// Microseconds of the client's process for each request.
    client_cpu: f64,
}

/// Everything that is known of one subject.
struct Row {
    name: &'static str,
    version: String,
    on: String,
    missing: Option<String>,
    /// By cell, then by round; a cell that failed says why.
    cells: Vec<Result<Vec<Sample>, String>>,
    idle_bytes: u64,
    peak_bytes: u64,
    unread: Result<f64, String>,
}

pub(crate) fn run(size: Size, options: &Options) -> Result<Report> {
    let how_long = size.pick(Duration::from_secs(4), Duration::from_secs(2));
    let upstream = Upstream::start()?;
    let mut subjects = Vec::new();
    let mut rows = Vec::new();
    for (name, start) in subject::ALL {
        if !options.only.is_empty() && !options.only.iter().any(|only| only == name) {
            continue;
        }
        subject::say(&format!("starting {name}"));
        let started = start(&upstream, options).and_then(|subject| {
            subject.wait_until_ready()?;
            Ok(subject)
        });
        let (subject, row) = match started {
            Ok(subject) => (Some(subject), None),
            Err(error) => (None, Some(Missing::why(&error))),
        };
        rows.push(Row::new(name, subject.as_ref(), row));
        subjects.push(subject);
    }
    ensure!(!rows.is_empty(), "no subject of that name");
    let runtime = load::runtime()?;
    for (subject, row) in subjects.iter().zip(&mut rows) {
        if let Some(subject) = subject {
            row.idle_bytes = subject.tree().map_or(0, |tree| tree.resident_bytes);
            row.unread = runtime.block_on(unread(subject)).map_err(|error| format!("{error:#}"));
        }
    }
    for round in 0..size.pick(ROUNDS, 1) {
        for (nth, cell) in CELLS.iter().enumerate() {
            for (subject, row) in subjects.iter().zip(&mut rows) {
                let (Some(subject), Ok(samples)) = (subject, &mut row.cells[nth]) else { continue };
                match runtime.block_on(measure(subject, *cell, how_long)) {
                    Ok(sample) => {
                        subject::say(&tables::progress(row.name, round, *cell, &sample));
                        samples.push(sample);
                    }
                    Err(error) => row.cells[nth] = Err(format!("{error:#}")),
                }
            }
        }
    }
    for (subject, row) in subjects.iter().zip(&mut rows) {
        row.peak_bytes = subject.as_ref().and_then(Subject::tree).map_or(0, |tree| tree.peak_bytes);
    }
    Ok(tables::report(&rows, how_long, size.pick(ROUNDS, 1)))
}

impl Row {
    fn new(name: &'static str, subject: Option<&Subject>, missing: Option<String>) -> Row {
        Row {
            name,
            version: subject.map_or_else(String::new, |subject| subject.version.clone()),
            on: subject.map_or_else(String::new, |subject| subject.on.clone()),
            missing,
            cells: CELLS.iter().map(|_| Ok(Vec::new())).collect(),
            idle_bytes: 0,
            peak_bytes: 0,
            unread: Err("not measured".to_owned()),
        }
    }
}

async fn measure(subject: &Subject, cell: Cell, how_long: Duration) -> Result<Sample> {
    let Cell { connections, kind } = cell;
    client::hammer(&subject.door, kind, connections, WARM).await?;
    let own = std::process::id();
    let before = (subject.tree(), CpuTimes::of(own)?);
    let mut seen = client::hammer(&subject.door, kind, connections, how_long).await?;
    let after = (subject.tree(), CpuTimes::of(own)?.since(&before.1));
    let count = seen.waits.len();
    ensure!(count > 0, "nothing was answered");
    let per = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    let marks = [50.0, 95.0, 99.0, 100.0];
    let first = marks.map(|percent| seen.firsts.percentile_ms(percent));
    let whole = marks.map(|percent| seen.waits.percentile_ms(percent));
    Ok(Sample {
        rate: count as f64 / seen.took.as_secs_f64(),
        whole,
        first,
        cpu: after.0.zip(before.0).map(|(after, before)| per(after.cpu.saturating_sub(before.cpu))),
        client_cpu: per(after.1.total()),
    })
}

/// Bytes that each stream costs that is not read.
async fn unread(subject: &Subject) -> Result<f64> {
    let bytes = || subject.tree().map_or(0, |tree: Tree| tree.resident_bytes);
    let warm = hold(subject, UNREAD_BEFORE).await?;
    let before = bytes();
    let held = hold(subject, UNREAD).await?;
    let after = bytes();
    drop((warm, held));
    Ok(after.saturating_sub(before) as f64 / UNREAD as f64)
}

/// Streams that were begun and are not read, after the gateway has taken what it takes of them.
async fn hold(subject: &Subject, streams: usize) -> Result<Vec<TcpStream>> {
    let held = client::unread(&subject.door, streams).await?;
    for stream in &held {
        ensure!(client::is_answered(stream).await?, "a stream was refused");
    }
    tokio::time::sleep(UNREAD_SETTLES).await;
    Ok(held)
}

/// Whether a text stands in another one.
fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|bytes| bytes == part)
}
