//! A tenant that floods, and the waits of its neighbour.
//!
//! Owns: the two phases and their ratio, in one run of one service. Refuses to know: how the
//! service keeps them apart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::keys::{self, Issuer};
use crate::numbers::{Waits, median};
use crate::report::Report;
use crate::service::{self, Service};
use crate::{Size, big, load};

/// The service's default for one key.
const LIMIT_PER_SECOND: u64 = 100;
/// How far the flood is over it.
const FLOOD: u64 = 20;
const FLOOD_CONNECTIONS: u64 = 16;
/// What the neighbour asks, well within its own limit.
const NEIGHBOUR_PER_SECOND: u64 = 50;
const ROUNDS: usize = 5;
const RATIO_MAX: f64 = 1.2;

pub(crate) fn run(size: Size) -> Result<Report> {
    let binary = service::binary()?;
    let how_long = size.pick(Duration::from_secs(20), Duration::from_secs(4));
    let dir = tempfile::tempdir_in(big::data_dir()?)?;
    let admin = keys::chance()?;
    let service = Service::start_with(&binary, dir.path(), &keys::required(&admin))?;
    let mut issuer = Issuer::connect(service.address, &admin)?;
    let (flooding, neighbour) = (issuer.issue("flooding")?, issuer.issue("neighbour")?);
    let (mut ratios, mut quiet_ms, mut flooded_ms, mut refused) = (vec![], vec![], vec![], 0);
    let mut floods = 0;
    for _ in 0..size.pick(ROUNDS, 2) {
        let outcome = load::runtime()?.block_on(async {
            let mut quiet = ask(service.address, neighbour.clone(), how_long).await?;
            let flood = flood(service.address, &flooding, how_long);
            let flooded = ask(service.address, neighbour.clone(), how_long);
            let (flood, flooded) = tokio::join!(flood, flooded);
            let mut flooded = flooded?;
            anyhow::Ok((quiet.percentile_ms(99.0), flooded.percentile_ms(99.0), flood?))
        });
        let (quiet, flooded, (sent, too_many)) = outcome?;
        ratios.push(flooded / quiet);
        quiet_ms.push(quiet);
        flooded_ms.push(flooded);
        floods += sent;
        refused += too_many;
    }
    service.kill()?;
    let mut report = Report::default();
    let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let how = format!(
        "{NEIGHBOUR_PER_SECOND}/s of one tenant, alone and beside a tenant that sends \
         {}/s over {FLOOD_CONNECTIONS} connections, {FLOOD} × its limit; median of alternating \
         rounds of 2 × {} s: {}",
        FLOOD * LIMIT_PER_SECOND,
        how_long.as_secs(),
        each.join(", ")
    );
    let ratio = median(&ratios);
    report.bar(
        "neighbour's p99, flooded ÷ quiet",
        "< 1.2",
        format!("{ratio:.2}"),
        ratio < RATIO_MAX,
        how,
    );
    report.fact(
        "neighbour's p99, quiet",
        format!("{:.2} ms", median(&quiet_ms)),
        "median of the rounds".to_owned(),
    );
    report.fact(
        "neighbour's p99, flooded",
        format!("{:.2} ms", median(&flooded_ms)),
        "median of the rounds".to_owned(),
    );
    report.fact(
        "flood",
        format!("{floods} sent, {refused} refused with 429"),
        "none of the neighbour's was refused".to_owned(),
    );
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
async fn ask(address: SocketAddr, key: String, how_long: Duration) -> Result<Waits> {
    let request = request("neighbour", &key);
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

/// The flood: how much was sent, and how much of it was refused for its rate.
async fn flood(address: SocketAddr, key: &str, how_long: Duration) -> Result<(u64, u64)> {
    let (sent, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let pace = Duration::from_secs(1)
        .mul_f64(FLOOD_CONNECTIONS as f64 / (FLOOD * LIMIT_PER_SECOND) as f64);
    let until = Instant::now() + how_long;
    let mut tasks = JoinSet::new();
    for _ in 0..FLOOD_CONNECTIONS {
        let (request, mut stream) = (request("flooding", key), connect(address).await?);
        let (sent, refused) = (Arc::clone(&sent), Arc::clone(&refused));
        tasks.spawn(async move {
            let mut beat = tokio::time::interval(pace);
            while Instant::now() < until {
                beat.tick().await;
                let status = shoot(&mut stream, &request).await?;
                ensure!(matches!(status, 200 | 429), "the flood was answered {status}");
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
    let mut answer = [0; 16 << 10];
    let filled = load::read_whole(stream, &mut answer).await?;
    let status = answer.get(9..12.min(filled)).and_then(|digits| std::str::from_utf8(digits).ok());
    status.context("no status")?.parse().context("no status")
}
