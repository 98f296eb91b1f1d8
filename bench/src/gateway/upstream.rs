//! The provider behind every subject: answers that were made before, for a few microseconds each.
//!
//! Owns: a process of its own, what it answers and how it is started. Refuses to know: who asks,
//! and what a request says beyond the three words that choose an answer.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::contains;
use crate::load;

/// The word on the command line that makes this program the provider.
pub(crate) const WORD: &str = "gateway-upstream";
/// In a prompt: the answer is a stream of [`LONG_BYTES`].
pub(crate) const LONG: &str = "say it at length";
/// The last word of every short answer: who has it has the whole of it.
pub(crate) const LAST: &str = "word59";
/// What a long stream comes to.
pub(crate) const LONG_BYTES: usize = 4 << 20;

const CHUNKS: usize = 60;
const PROMPT_TOKENS: usize = 180;
const REQUEST_BYTES: usize = 64 << 10;

/// A running provider; it ends with the process that started it.
pub(crate) struct Upstream {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Upstream {
    /// Starts this program once more, as the provider.
    pub(crate) fn start() -> Result<Upstream> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(WORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the provider does not start")?;
        let mut port = String::new();
        let said = child.stdout.take().context("the provider says nothing")?;
        BufReader::new(said).read_line(&mut port)?;
        let port = port.trim().parse().context("the provider names no port")?;
        Ok(Upstream { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The life of the provider's process: until who started it is gone.
pub(crate) fn serve() -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        #[expect(
            clippy::disallowed_methods,
            reason = "whoever started it is gone: nothing is left to drain"
        )]
        std::process::exit(0);
    });
    // One thread: on two cores the rest belongs to what is measured.
    load::runtime()?.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
        let answers = Arc::new(Answers::new());
        loop {
            let (stream, _) = listener.accept().await?;
            let answers = Arc::clone(&answers);
            // A connection that breaks is the client's affair.
            #[expect(
                clippy::disallowed_methods,
                reason = "the process ends with whoever started it"
            )]
            tokio::spawn(async move { talk(stream, &answers).await });
        }
    })
}

struct Answers {
    whole: Vec<u8>,
    streamed: Vec<u8>,
    streamed_with_usage: Vec<u8>,
    long: Vec<u8>,
}

impl Answers {
    fn new() -> Answers {
        Answers {
            whole: whole(),
            streamed: streamed(false),
            streamed_with_usage: streamed(true),
            long: long(),
        }
    }

    fn to(&self, request: &[u8]) -> &[u8] {
        let is_stream =
            contains(request, b"\"stream\":true") || contains(request, b"\"stream\": true");
        match () {
            () if contains(request, LONG.as_bytes()) => &self.long,
            () if is_stream && contains(request, b"include_usage") => &self.streamed_with_usage,
            () if is_stream => &self.streamed,
            () => &self.whole,
        }
    }
}

async fn talk(mut stream: TcpStream, answers: &Answers) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut request = vec![0; REQUEST_BYTES];
    loop {
        let mut filled = 0;
        while !is_whole(&request[..filled]) {
            let read = stream.read(&mut request[filled..]).await?;
            ensure!(read > 0, "the end of a connection");
            filled += read;
        }
        stream.write_all(answers.to(&request[..filled])).await?;
    }
}

/// Whether a request is there with its body. There is never more than one: nobody here pipelines.
fn is_whole(request: &[u8]) -> bool {
    let Some(head) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return false;
    };
    match load::content_length(&request[..head]) {
        Some(body) => request.len() >= head + 4 + body,
        None => request.ends_with(b"\r\n0\r\n\r\n") || request.starts_with(b"GET "),
    }
}

fn usage(completion: usize) -> String {
    format!(
        "{{\"prompt_tokens\":{PROMPT_TOKENS},\"completion_tokens\":{completion},\"total_tokens\":{}}}",
        PROMPT_TOKENS + completion
    )
}

/// About a kibibyte of JSON.
fn whole() -> Vec<u8> {
    let words = (0..CHUNKS * 2).fold(String::new(), |mut text, nth| {
        let _ = write!(text, "word{:02} ", nth % CHUNKS);
        text
    });
    let body = format!(
        "{{\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion\",\"created\":1767225600,\
         \"model\":\"gpt-4o-mini\",\"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\
         \"content\":\"{}\"}},\"logprobs\":null,\"finish_reason\":\"stop\"}}],\"usage\":{}}}",
        words.trim_end(),
        usage(CHUNKS * 2)
    );
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\
                           transfer-encoding: chunked\r\n\r\n";

/// Chunks that arrive at once: one write carries all of them.
fn streamed(with_usage: bool) -> Vec<u8> {
    let mut bytes = STREAM_HEAD.as_bytes().to_vec();
    for nth in 0..CHUNKS {
        let role = if nth == 0 { "\"role\":\"assistant\"," } else { "" };
        push(&mut bytes, &event(&format!("{role}\"content\":\"word{nth:02} \""), "null"));
    }
    push(&mut bytes, &event("", "\"stop\""));
    if with_usage {
        let usage = usage(CHUNKS);
        push(&mut bytes, &format!("data: {{{HEAD},\"choices\":[],\"usage\":{usage}}}\n\n"));
    }
    push(&mut bytes, "data: [DONE]\n\n");
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn long() -> Vec<u8> {
    let mut bytes = STREAM_HEAD.as_bytes().to_vec();
    let mut nth = 0;
    while bytes.len() < LONG_BYTES {
        // No two alike: a gateway may end a stream that repeats itself.
        let words = format!("number {nth:05} ").repeat(70);
        push(&mut bytes, &event(&format!("\"content\":\"{words}\""), "null"));
        nth += 1;
    }
    push(&mut bytes, &event("", "\"stop\""));
    push(&mut bytes, "data: [DONE]\n\n");
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

const HEAD: &str = "\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\
                    \"created\":1767225600,\"model\":\"gpt-4o-mini\"";

fn event(delta: &str, finish: &str) -> String {
    format!(
        "data: {{{HEAD},\"choices\":[{{\"index\":0,\"delta\":{{{delta}}},\"finish_reason\":{finish}}}]}}\n\n"
    )
}

fn push(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend_from_slice(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_chooses_its_answer() {
        let answers = Answers::new();
        let to = |body: &str| answers.to(body.as_bytes()).to_vec();
        assert_eq!(to("{\"stream\":false}"), answers.whole);
        assert_eq!(to("{\"stream\": true}"), answers.streamed);
        assert_eq!(
            to("{\"stream\":true,\"x\":{\"include_usage\":true}}"),
            answers.streamed_with_usage
        );
        assert_eq!(to(&format!("{{\"stream\":true,\"x\":\"{LONG}\"}}")), answers.long);
        for short in [&answers.whole, &answers.streamed, &answers.streamed_with_usage] {
            assert!(contains(short, LAST.as_bytes()));
        }
        assert!(answers.long.len() >= LONG_BYTES);
    }

    #[test]
    fn a_request_is_whole_with_its_body_only() {
        for (request, whole) in [
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", true),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", true),
        ] {
            assert_eq!(is_whole(request.as_bytes()), whole, "{request:?}");
        }
    }
}
