//! A tenant that floods, and the waits of its neighbour.
//!
//! Owns: the two phases and their ratio, in one run of one service. Refuses to know: how the
//! service keeps them apart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::keys::{self, Issuer};
use crate::numbers::Waits;
use crate::report::Report;
use crate::service::{self, Service};
use crate::{Size, big, load};

/// The service's default for one key.
const LIMIT_PER_SECOND: u64 = 100;
/// How far the flood is over it.
const FLOOD: u64 = 20;
const CONNECTIONS: u64 = 16;
/// What the neighbour asks, well within its own limit.
const NEIGHBOUR_PER_SECOND: u64 = 50;
/// Short phases in turn, so that what else the machine does meets all of them alike.
const ROUNDS: usize = 10;
const RATIO_MAX: f64 = 1.2;

/// What happens beside the neighbour, and how it fared.
struct Phase {
    what: &'static str,
    beside_per_second: u64,
    waits: Waits,
    sent: u64,
    refused: u64,
}

impl Phase {
    fn new(what: &'static str, beside_per_second: u64) -> Phase {
        Phase { what, beside_per_second, waits: Waits::default(), sent: 0, refused: 0 }
    }

    fn tell(&mut self, report: &mut Report) {
        let (p50, p99) = (self.waits.percentile_ms(50.0), self.waits.percentile_ms(99.0));
        report.fact(
            &format!("neighbour's p99, {}", self.what),
            format!("{p99:.2} ms (p50 {p50:.2} ms)"),
            format!(
                "{} samples; beside it {} sent, {} refused with 429; none of the neighbour's was",
                self.waits.len(),
                self.sent,
                self.refused
            ),
        );
    }
}

pub(crate) fn run(size: Size) -> Result<Report> {
    let binary = service::binary()?;
    let how_long = size.pick(Duration::from_secs(8), Duration::from_secs(2));
    let dir = tempfile::tempdir_in(big::data_dir()?)?;
    let admin = keys::chance()?;
    let service = Service::start_with(&binary, dir.path(), &keys::required(&admin))?;
    let mut issuer = Issuer::connect(service.address, &admin)?;
    let (other, neighbour) = (issuer.issue("flooding")?, issuer.issue("neighbour")?);
    let mut phases = [
        Phase::new("alone", 0),
        Phase::new("beside a tenant within its limit", LIMIT_PER_SECOND),
        Phase::new("beside a flood", FLOOD * LIMIT_PER_SECOND),
    ];
    for _ in 0..size.pick(ROUNDS, 2) {
        for phase in &mut phases {
            // Threads of their own: the neighbour waits for the service, not for a generator.
            let (asked, sent) = thread::scope(|scope| {
                let sent = scope.spawn(|| {
                    let pace = phase.beside_per_second;
                    load::runtime()?.block_on(send(service.address, &other, pace, how_long))
                });
                let asked = load::runtime().and_then(|runtime| {
                    runtime.block_on(ask(service.address, &neighbour, how_long))
                });
                (asked, sent.join())
            });
            phase.waits.extend(asked?);
            let (sent, refused) = sent.map_err(|_| anyhow!("the generator panicked"))??;
            phase.sent += sent;
            phase.refused += refused;
        }
    }
    service.kill()?;
    let mut report = Report::default();
    let [alone, within, flooded] = phases.each_mut().map(|phase| phase.waits.percentile_ms(99.0));
    let how = format!(
        "{NEIGHBOUR_PER_SECOND}/s of one tenant; the flood is {}/s over {CONNECTIONS} \
         connections, {FLOOD} × its limit; {ROUNDS} rounds of 3 × {} s in turn, all samples together",
        FLOOD * LIMIT_PER_SECOND,
        how_long.as_secs(),
    );
    let ratio = flooded / alone;
    report.bar(
        "neighbour's p99, flooded ÷ alone",
        "< 1.2",
        format!("{ratio:.2}"),
        ratio < RATIO_MAX,
        how,
    );
    report.fact(
        "neighbour's p99, flooded ÷ within the limit",
        format!("{:.2}", flooded / within),
        "what the excess of the flood costs: the rest is what any paying tenant costs".to_owned(),
    );
    phases.each_mut().into_iter().for_each(|phase| phase.tell(&mut report));
    Ok(report)
}

fn request(tenant: &str, key: &str) -> Vec<u8> {
    let body = format!("{{\"customer_id\":\"{tenant}\"}}");
    format!(
        "POST /marketplace HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nauthorization: Bearer {key}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The neighbour: evenly paced, each answer must be 200.
async fn ask(address: SocketAddr, key: &str, how_long: Duration) -> Result<Waits> {
    let request = request("neighbour", key);
    let mut stream = connect(address).await?;
    let mut beat = tokio::time::interval(Duration::from_secs(1) / NEIGHBOUR_PER_SECOND as u32);
    let (mut waits, until) = (Waits::default(), Instant::now() + how_long);
    while Instant::now() < until {
        beat.tick().await;
        let started = Instant::now();
        let status = shoot(&mut stream, &request).await?;
        ensure!(status == 200, "the neighbour was answered {status}");
        waits.add(started.elapsed());
    }
    Ok(waits)
}

/// The other tenant: how much it sent, and how much of that was refused for its rate.
async fn send(
    address: SocketAddr,
    key: &str,
    per_second: u64,
    how_long: Duration,
) -> Result<(u64, u64)> {
    if per_second == 0 {
        return Ok((0, 0));
    }
    let (sent, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let pace = Duration::from_secs(1).mul_f64(CONNECTIONS as f64 / per_second as f64);
    let until = Instant::now() + how_long;
    let mut tasks = JoinSet::new();
    for nth in 0..CONNECTIONS {
        // Evenly over the pace: what comes at once would be a burst, not a rate.
        let first = tokio::time::Instant::now() + pace.mul_f64(nth as f64 / CONNECTIONS as f64);
        let (request, mut stream) = (request("flooding", key), connect(address).await?);
        let (sent, refused) = (Arc::clone(&sent), Arc::clone(&refused));
        tasks.spawn(async move {
            let mut beat = tokio::time::interval_at(first, pace);
            while Instant::now() < until {
                beat.tick().await;
                let status = shoot(&mut stream, &request).await?;
                ensure!(matches!(status, 200 | 429), "the other tenant was answered {status}");
                sent.fetch_add(1, Ordering::Relaxed);
                refused.fetch_add(u64::from(status == 429), Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok((sent.load(Ordering::Relaxed), refused.load(Ordering::Relaxed)))
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn shoot(stream: &mut TcpStream, request: &[u8]) -> Result<u16> {
    stream.write_all(request).await?;
    let mut answer = vec![0; 16 << 10];
    let filled = load::read_whole(stream, &mut answer).await?;
    let status = answer.get(9..12.min(filled)).and_then(|digits| std::str::from_utf8(digits).ok());
    status.context("no status")?.parse().context("no status")
}
