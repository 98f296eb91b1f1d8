//! A load generator that costs little: requests are built before, answers are barely read.
//!
//! Owns: keep-alive connections, the order of a tenant's actions, and waits from the first byte
//! sent to the last byte received. Refuses to know: what is done with them. An answer that is not
//! 200 ends the run, because a refusal is cheaper than a decision.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use governors::EntitlementAction;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::numbers::Waits;
use crate::workload;

const REQUEST_ID_CHARS: usize = 16;
const ANSWER_BYTES: usize = 16 << 10;

/// The runtime of the generator: one thread, so that the service keeps the rest of the machine.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Clients with a connection and tenants of their own.
pub(crate) struct Fleet {
    clients: Vec<Client>,
}

/// What a phase of load saw.
pub(crate) struct Seen {
    pub(crate) waits: Waits,
    pub(crate) took: Duration,
}

impl Fleet {
    /// Connects `clients` clients that share `tenants` tenants and need no key.
    pub(crate) async fn connect(
        address: SocketAddr,
        prefix: &str,
        clients: usize,
        tenants: usize,
    ) -> Result<Fleet> {
        Fleet::with_keys(address, prefix, clients, &vec![None; tenants]).await
    }

    /// Connects `clients` clients that share as many tenants as there are keys, one each.
    pub(crate) async fn with_keys(
        address: SocketAddr,
        prefix: &str,
        clients: usize,
        keys: &[Option<String>],
    ) -> Result<Fleet> {
        let mut fleet = Vec::with_capacity(clients);
        for nth in 0..clients {
            let stream = Some(connect(address).await?);
            let own = (nth..keys.len()).step_by(clients);
            let own = own.map(|tenant| Tenant::new(prefix, tenant, keys[tenant].as_deref()));
            let answer = vec![0; ANSWER_BYTES];
            fleet.push(Client {
                stream,
                tenants: own.collect(),
                answer,
                next: 0,
                name: format!("{prefix}{nth:x}"),
                sent: 0,
            });
        }
        Ok(Fleet { clients: fleet })
    }

    /// Connects again, to another life of the service, where the tenants are as they were left.
    pub(crate) async fn reconnect(&mut self, address: SocketAddr) -> Result<()> {
        for client in &mut self.clients {
            client.stream = Some(connect(address).await?);
        }
        Ok(())
    }

    /// Closes all connections; a runtime that ends must not leave any behind.
    pub(crate) fn hang_up(&mut self) {
        for client in &mut self.clients {
            client.stream = None;
        }
    }

    /// One request for each tenant.
    pub(crate) async fn sweep(&mut self) -> Result<Seen> {
        self.each(Pace::Once).await
    }

    /// As many requests as the service answers.
    pub(crate) async fn hammer(&mut self, how_long: Duration) -> Result<Seen> {
        self.each(Pace::Full { until: Instant::now() + how_long }).await
    }

    /// `per_second` requests, evenly, over the first `active` tenants.
    pub(crate) async fn steady(
        &mut self,
        per_second: usize,
        active: usize,
        how_long: Duration,
    ) -> Result<Seen> {
        let clients = self.clients.len();
        let interval = Duration::from_secs(1).mul_f64(clients as f64 / per_second as f64);
        let until = Instant::now() + how_long;
        self.each(Pace::Steady { interval, until, tenants: active.div_ceil(clients) }).await
    }

    async fn each(&mut self, pace: Pace) -> Result<Seen> {
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        let clients = self.clients.len().max(1) as f64;
        for (nth, mut client) in self.clients.drain(..).enumerate() {
            // Evenly over a beat: clients that begin together would send in bursts.
            let offset = nth as f64 / clients;
            tasks.spawn(async move {
                let waits = client.run(pace, offset).await?;
                anyhow::Ok((client, waits))
            });
        }
        let mut waits = Waits::default();
        while let Some(done) = tasks.join_next().await {
            let (client, own) = done??;
            self.clients.push(client);
            waits.extend(own);
        }
        Ok(Seen { waits, took: started.elapsed() })
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[derive(Clone, Copy)]
enum Pace {
    Once,
    Full { until: Instant },
    Steady { interval: Duration, until: Instant, tenants: usize },
}

struct Client {
    stream: Option<TcpStream>,
    tenants: Vec<Tenant>,
    answer: Vec<u8>,
    next: usize,
    name: String,
    sent: u64,
}

impl Client {
    async fn run(&mut self, pace: Pace, offset: f64) -> Result<Waits> {
        let mut waits = Waits::default();
        match pace {
            Pace::Once => {
                for _ in 0..self.tenants.len() {
                    waits.add(self.shoot(usize::MAX).await?);
                }
            }
            Pace::Full { until } => {
                while Instant::now() < until {
                    waits.add(self.shoot(usize::MAX).await?);
                }
            }
            Pace::Steady { interval, until, tenants } => {
                let first = tokio::time::Instant::now() + interval.mul_f64(offset);
                let mut beat = tokio::time::interval_at(first, interval);
                while Instant::now() < until {
                    beat.tick().await;
                    waits.add(self.shoot(tenants).await?);
                }
            }
        }
        Ok(waits)
    }

    /// The next request of the next of the first `tenants` tenants.
    async fn shoot(&mut self, tenants: usize) -> Result<Duration> {
        let place = self.next % tenants.min(self.tenants.len());
        self.next = place + 1;
        self.sent += 1;
        let id = format!("{:0>5}-{:010x}", self.name, self.sent);
        let request = self.tenants[place].request(&id)?;
        let started = Instant::now();
        let stream = self.stream.as_mut().context("not connected")?;
        stream.write_all(request).await?;
        read_answer(stream, &mut self.answer).await?;
        Ok(started.elapsed())
    }
}

async fn read_answer(stream: &mut TcpStream, answer: &mut [u8]) -> Result<()> {
    let filled = read_whole(stream, answer).await?;
    let start = || String::from_utf8_lossy(&answer[..filled.min(2_000)]).into_owned();
    ensure!(answer.get(9..12) == Some(b"200"), "not 200: {}", start());
    Ok(())
}

/// Reads one answer of any status; gives its length in bytes.
pub(crate) async fn read_whole(stream: &mut TcpStream, answer: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut answer[filled..]).await?;
        ensure!(read > 0, "the service closed a connection, or an answer is too long");
        filled += read;
        let seen = &answer[..filled];
        let Some(head) = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let body_bytes = content_length(&seen[..head]).context("no content-length")?;
        if filled >= head + 4 + body_bytes {
            return Ok(filled);
        }
    }
}

/// The length of a body, by the head of its message.
pub(crate) fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length: ";
    let at = head.windows(NAME.len()).position(|bytes| bytes.eq_ignore_ascii_case(NAME))?;
    let digits = head[at + NAME.len()..].split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A tenant's three requests, ready but for their ids.
struct Tenant {
    step: usize,
    requests: [Request; 3],
}

struct Request {
    bytes: Vec<u8>,
    id_at: usize,
}

impl Tenant {
    fn new(prefix: &str, tenant: usize, key: Option<&str>) -> Tenant {
        let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        let actions =
            [EntitlementAction::Grant, EntitlementAction::Suspend, EntitlementAction::Resume];
        let requests = actions.map(|action| {
            let body = workload::body(prefix, tenant, action);
            let mut bytes = format!(
                "POST /marketplace HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                 content-length: {}\r\n{key}x-request-id: ",
                body.len()
            );
            let id_at = bytes.len();
            bytes.push_str(&"-".repeat(REQUEST_ID_CHARS));
            bytes.push_str("\r\n\r\n");
            bytes.push_str(&body);
            Request { bytes: bytes.into_bytes(), id_at }
        });
        Tenant { step: 0, requests }
    }

    fn request(&mut self, id: &str) -> Result<&[u8]> {
        let which = match workload::action(self.step) {
            EntitlementAction::Grant => 0,
            EntitlementAction::Suspend => 1,
            EntitlementAction::Resume | EntitlementAction::Revoke => 2,
        };
        self.step += 1;
        let Request { bytes, id_at } = &mut self.requests[which];
        let place = bytes.get_mut(*id_at..*id_at + id.len()).context("no place for the id")?;
        ensure!(id.len() == REQUEST_ID_CHARS, "a request id of another length");
        place.copy_from_slice(id.as_bytes());
        Ok(bytes)
    }
}
