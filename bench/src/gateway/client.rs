//! The load: callers in a closed loop, each with a connection of its own.
//!
//! Owns: one request over and over, when its first and its last byte came, and callers who do not
//! read. Refuses to know: which gateway answers. An answer that is not 200 ends a cell, because a
//! refusal is cheaper than a call.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::contains;
use super::upstream::{LAST, LONG};
use crate::load;
use crate::numbers::Waits;

const PROMPT_BYTES: usize = 700;
const ANSWER_BYTES: usize = 256 << 10;
/// The most that a caller waits for an answer; a gateway that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the kernel keeps for a caller who does not read: little, so that the gateway feels it.
const UNREAD_WINDOW: u32 = 16 << 10;

/// Where a subject is asked, and how.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) model: String,
    /// Whole lines, each with its end.
    pub(crate) headers: String,
    /// Who pays: as many as there are, in turn; none where the headers say it.
    pub(crate) keys: Vec<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Whole,
    Streamed,
    Long,
}

impl Door {
    fn request(&self, kind: Kind, nth: usize) -> Vec<u8> {
        let prompt = match kind {
            Kind::Long => LONG.to_owned(),
            Kind::Whole | Kind::Streamed => "tell me again ".repeat(PROMPT_BYTES / 14),
        };
        let rest = match kind {
            Kind::Whole => ",\"max_tokens\":256",
            Kind::Streamed => ",\"max_tokens\":256,\"stream\":true",
            Kind::Long => ",\"stream\":true",
        };
        let body = format!(
            "{{\"model\":\"{}\",\"messages\":[{{\"role\":\"user\",\"content\":\"{prompt}\"}}]{rest}}}",
            self.model
        );
        let key = match self.keys.get(nth % self.keys.len().max(1)) {
            Some(key) => format!("authorization: Bearer {key}\r\n"),
            None => String::new(),
        };
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n{key}{}\
             content-length: {}\r\n\r\n{body}",
            self.path,
            self.address,
            self.headers,
            body.len()
        )
        .into_bytes()
    }
}

/// What a cell saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) waits: Waits,
    /// Until the first byte of a body.
    pub(crate) firsts: Waits,
    pub(crate) took: Duration,
}

/// Asks once for each kind and holds the answers against what the provider said.
pub(crate) async fn probe(door: &Door) -> Result<()> {
    for kind in [Kind::Whole, Kind::Streamed] {
        let mut caller = Caller::connect(door, kind, 0).await?;
        caller.shoot().await?;
        let answer = &caller.answer;
        ensure!(contains(answer, LAST.as_bytes()), "{kind:?}: an answer without its last word");
        if kind == Kind::Streamed {
            ensure!(contains(answer, b"[DONE]"), "a stream without its end");
        }
    }
    Ok(())
}

/// As many requests over `connections` as are answered in `how_long`.
pub(crate) async fn hammer(
    door: &Door,
    kind: Kind,
    connections: usize,
    how_long: Duration,
) -> Result<Seen> {
    let mut callers = Vec::with_capacity(connections);
    for nth in 0..connections {
        callers.push(Caller::connect(door, kind, nth).await?);
    }
    let started = Instant::now();
    let until = started + how_long;
    let mut tasks = JoinSet::new();
    for mut caller in callers {
        tasks.spawn(async move {
            let mut seen = Seen::default();
            while Instant::now() < until {
                let (first, whole) = tokio::time::timeout(PATIENCE, caller.shoot())
                    .await
                    .context("no answer in time")??;
                seen.firsts.add(first);
                seen.waits.add(whole);
            }
            anyhow::Ok(seen)
        });
    }
    let mut seen = Seen::default();
    while let Some(done) = tasks.join_next().await {
        let own = done??;
        seen.waits.extend(own.waits);
        seen.firsts.extend(own.firsts);
    }
    seen.took = started.elapsed();
    Ok(seen)
}

/// Callers who ask for a long stream and read nothing of it, for as long as they are held.
pub(crate) async fn unread(door: &Door, callers: usize) -> Result<Vec<TcpStream>> {
    let mut held = Vec::with_capacity(callers);
    for nth in 0..callers {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(UNREAD_WINDOW)?;
        let mut stream = socket.connect(door.address).await?;
        stream.write_all(&door.request(Kind::Long, nth)).await?;
        held.push(stream);
    }
    Ok(held)
}

/// What one of them would have read first.
pub(crate) async fn is_answered(stream: &TcpStream) -> Result<bool> {
    let mut start = [0; 12];
    let read = tokio::time::timeout(PATIENCE, stream.peek(&mut start)).await;
    let read = read.context("an unread stream was not begun")??;
    Ok(read == start.len() && start.ends_with(b"200"))
}

struct Caller {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Caller {
    async fn connect(door: &Door, kind: Kind, nth: usize) -> Result<Caller> {
        let stream = TcpStream::connect(door.address).await.context("nobody listens")?;
        stream.set_nodelay(true)?;
        let request = door.request(kind, nth);
        Ok(Caller { stream, request, answer: Vec::with_capacity(ANSWER_BYTES) })
    }

    /// One request: the waits until the first byte of the body and until the last.
    async fn shoot(&mut self) -> Result<(Duration, Duration)> {
        self.answer.clear();
        let started = Instant::now();
        self.stream.write_all(&self.request).await?;
        let (mut head, mut first) = (None, None);
        loop {
            ensure!(self.answer.len() < ANSWER_BYTES, "an answer is too long");
            let read = self.stream.read_buf(&mut self.answer).await?;
            let at = started.elapsed();
            ensure!(read > 0, "the gateway closed a connection: {}", self.start());
            if head.is_none() {
                head = Head::of(&self.answer);
            }
            let Some(head) = &head else { continue };
            ensure!(self.answer.get(9..12) == Some(b"200"), "not 200: {}", self.start());
            if self.answer.len() > head.bytes {
                first.get_or_insert(at);
            }
            if head.is_end(&self.answer)? {
                return Ok((first.unwrap_or(at), at));
            }
        }
    }

    fn start(&self) -> String {
        String::from_utf8_lossy(&self.answer[..self.answer.len().min(600)]).into_owned()
    }
}

/// Where a body begins, and how it ends.
struct Head {
    bytes: usize,
    length: Option<usize>,
}

impl Head {
    fn of(answer: &[u8]) -> Option<Head> {
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
        Some(Head { bytes: end + 4, length: load::content_length(&answer[..end]) })
    }

    fn is_end(&self, answer: &[u8]) -> Result<bool> {
        let Some(length) = self.length else {
            // The last chunk; nothing in these answers looks like it.
            return Ok(answer.ends_with(b"\r\n0\r\n\r\n"));
        };
        match answer.len().checked_sub(self.bytes + length) {
            None => Ok(false),
            Some(0) => Ok(true),
            Some(_) => bail!("an answer is longer than it said"),
        }
    }
}
