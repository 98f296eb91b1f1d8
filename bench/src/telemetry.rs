//! What looking at the service costs it: collectors of its log that are there, refuse or hang, and
//! `/metrics` with many tenants.
//!
//! Owns: the collectors, the phases in turn, and what is read of `/metrics`. Refuses to know: how
//! lines are kept and how figures are written down.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::load::{self, Fleet};
use crate::marketplace::mib;
use crate::numbers::Waits;
use crate::process::{CpuTimes, resident_bytes};
use crate::report::Report;
use crate::service::{self, Service};
use crate::{Size, big};

const CLIENTS: usize = 16;
const TENANTS: usize = 100;
const PER_SECOND: usize = 1_000;
/// Short phases in turn, so that what else the machine does meets all of them alike.
const ROUNDS: usize = 10;
const RATIO_MAX: f64 = 1.2;
const GROWTH_MAX_BYTES: u64 = 32 << 20;
const SCRAPE_TENANTS: usize = 10_000;
const SCRAPES: usize = 200;
const SCRAPE_MAX_MS: f64 = 50.0;
/// Series may come with the first use of something; a label of the tenants would bring thousands.
const SERIES_ADDED_MAX: usize = 20;

pub(crate) fn run(size: Size) -> Result<Report> {
    let mut report = Report::default();
    sinks(size, &mut report)?;
    scrapes(size, &mut report)?;
    Ok(report)
}

/// What a collector does with each request.
#[derive(Clone, Copy)]
enum Manner {
    Takes,
    Refuses,
    Hangs,
}

/// A collector in a thread of its own, which ends with the process.
struct Collector {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl Collector {
    fn start(manner: Manner) -> Result<Collector> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let (address, requests) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counted = Arc::clone(&counted);
                // A connection that breaks off is no news here.
                thread::spawn(move || drop(serve(stream, manner, &counted)));
            }
        });
        Ok(Collector { address, requests })
    }

    fn url(&self) -> String {
        format!("http://{}/ingest", self.address)
    }
}

fn serve(mut stream: TcpStream, manner: Manner, requests: &AtomicU64) -> Result<()> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 64 << 10]);
    loop {
        let read = stream.read(&mut chunk)?;
        ensure!(read > 0, "closed");
        bytes.extend_from_slice(&chunk[..read]);
        let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let body_bytes = load::content_length(&bytes[..head]).context("no length")?;
        if bytes.len() < head + 4 + body_bytes {
            continue;
        }
        bytes.drain(..head + 4 + body_bytes);
        requests.fetch_add(1, Ordering::Relaxed);
        let status = match manner {
            Manner::Takes => "204 No Content",
            Manner::Refuses => "503 Service Unavailable",
            Manner::Hangs => continue,
        };
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    }
}

/// A service with its collector, and how its callers fared.
struct Subject {
    what: &'static str,
    collector: Option<Collector>,
    service: Service,
    fleet: Fleet,
    waits: Waits,
    rss_before: u64,
    rss_highest: u64,
    cpu_before: CpuTimes,
}

fn sinks(size: Size, report: &mut Report) -> Result<()> {
    let binary = service::binary()?;
    let how_long = size.pick(Duration::from_secs(3), Duration::from_secs(1));
    let runtime = load::runtime()?;
    let room = tempfile::tempdir_in(big::data_dir()?)?;
    let mut subjects = Vec::new();
    for (what, manner) in [
        ("no collector", None),
        ("a collector that takes lines", Some(Manner::Takes)),
        ("a collector that refuses", Some(Manner::Refuses)),
        ("a collector that hangs", Some(Manner::Hangs)),
    ] {
        let collector = manner.map(Collector::start).transpose()?;
        let url = collector.as_ref().map(Collector::url).unwrap_or_default();
        let dir = room.path().join(subjects.len().to_string());
        // Receipts in memory: the disk's own waits would hide all others.
        let settings = [("RECEIPT_LEDGER_BACKEND", "memory"), ("LOG_HTTP_ENDPOINT", &*url)];
        let service = Service::start_with(&binary, &dir, &settings)?;
        let fleet = runtime.block_on(async {
            let mut fleet = Fleet::connect(service.address, "a", CLIENTS, TENANTS).await?;
            fleet.sweep().await?;
            fleet.steady(PER_SECOND, TENANTS, how_long).await?;
            anyhow::Ok(fleet)
        })?;
        let (rss, cpu) = (resident_bytes(service.pid())?, CpuTimes::of(service.pid())?);
        subjects.push(Subject {
            what,
            collector,
            service,
            fleet,
            waits: Waits::default(),
            rss_before: rss,
            rss_highest: rss,
            cpu_before: cpu,
        });
    }
    for _ in 0..size.pick(ROUNDS, 2) {
        for subject in &mut subjects {
            let seen = runtime.block_on(subject.fleet.steady(PER_SECOND, TENANTS, how_long))?;
            subject.waits.extend(seen.waits);
            let rss = resident_bytes(subject.service.pid())?;
            subject.rss_highest = subject.rss_highest.max(rss);
        }
    }
    runtime.block_on(async { subjects.iter_mut().for_each(|subject| subject.fleet.hang_up()) });
    tell(report, subjects, how_long)
}

fn tell(report: &mut Report, mut subjects: Vec<Subject>, how_long: Duration) -> Result<()> {
    let p99 = |subject: &mut Subject| subject.waits.percentile_ms(99.0);
    let alone = subjects.first_mut().map(p99).context("no subject")?;
    let alone_grown = subjects.first().map_or(0, |it| it.rss_highest - it.rss_before);
    for subject in subjects.iter_mut().skip(2) {
        let ratio = subject.waits.percentile_ms(99.0) / alone;
        let how = format!(
            "{PER_SECOND}/s over {CLIENTS} connections, receipts in memory, LOG_LEVEL=info; \
             phases of {} s in turn",
            how_long.as_secs()
        );
        let what = format!("p99 with {} ÷ without any", subject.what);
        report.bar(&what, "~ 1", format!("{ratio:.2}"), ratio < RATIO_MAX, how);
        let grown = (subject.rss_highest - subject.rss_before).saturating_sub(alone_grown);
        let what = format!("memory grown with {}, less without any", subject.what);
        let how = "lines that wait, which are bounded".to_owned();
        report.bar(&what, "bounded", mib(grown), grown < GROWTH_MAX_BYTES, how);
    }
    for mut subject in subjects {
        let (p50, p99) = (subject.waits.percentile_ms(50.0), subject.waits.percentile_ms(99.0));
        let asked = subject.collector.as_ref().map(|it| it.requests.load(Ordering::Relaxed));
        let cpu = CpuTimes::of(subject.service.pid())?.since(&subject.cpu_before);
        let dropped =
            figure(subject.service.address, "tai_log_lines_dropped_total{sink=\"http\"}")?;
        report.fact(
            subject.what,
            format!("p50 {p50:.2}, p99 {p99:.2} ms"),
            format!(
                "{} calls, {} CPU a call, RSS {} to {}, {} requests to the collector, {dropped} lines dropped",
                subject.waits.len(),
                cpu.per(subject.waits.len() as u64),
                mib(subject.rss_before),
                mib(subject.rss_highest),
                asked.unwrap_or_default(),
            ),
        );
        subject.service.kill()?;
    }
    Ok(())
}

fn scrapes(size: Size, report: &mut Report) -> Result<()> {
    let binary = service::binary()?;
    let tenants = size.pick(SCRAPE_TENANTS, 1_000);
    let room = tempfile::tempdir_in(big::data_dir()?)?;
    let service = Service::start(&binary, room.path(), "warn")?;
    let runtime = load::runtime()?;
    let mut fleet = runtime.block_on(Fleet::connect(service.address, "b", CLIENTS, 1))?;
    runtime.block_on(fleet.sweep())?;
    let few = page(service.address)?;
    let mut fleet = runtime.block_on(Fleet::connect(service.address, "c", CLIENTS, tenants))?;
    runtime.block_on(fleet.sweep())?;
    let many = page(service.address)?;
    let mut waits = Waits::default();
    for _ in 0..size.pick(SCRAPES, 20) {
        let started = Instant::now();
        page(service.address)?;
        waits.add(started.elapsed());
    }
    service.kill()?;
    let p99 = waits.percentile_ms(99.0);
    report.bar(
        "`/metrics`, p99",
        "< 50 ms",
        format!("{p99:.2} ms (p50 {:.2} ms)", waits.percentile_ms(50.0)),
        p99 < SCRAPE_MAX_MS,
        format!("{tenants} tenants, a new connection each time, {} bytes", many.len()),
    );
    let added: Vec<&str> = series(&many).difference(&series(&few)).copied().collect();
    report.bar(
        "series that came with the tenants",
        "bounded",
        added.len().to_string(),
        added.len() < SERIES_ADDED_MAX,
        format!("of {}: {}", series(&many).len(), added.join(", ")),
    );
    Ok(())
}

/// Names of the series of a page, with their labels.
fn series(page: &str) -> BTreeSet<&str> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect()
}

fn page(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200"), "/metrics is not 200");
    Ok(text.split_once("\r\n\r\n").context("no body")?.1.to_owned())
}

/// A figure of `/metrics`; 0 where it is not there yet.
fn figure(address: SocketAddr, name: &str) -> Result<String> {
    let page = page(address)?;
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.map_or("0", str::trim).to_owned())
}
