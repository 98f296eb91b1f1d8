//! A proxy between a store and the emulator that loses requests and answers, or refuses them.
//!
//! Owns: HTTP/1.1 on loopback, one request a connection, and requests that are kept for later.
//! Refuses to know: documents.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::http;

/// Far more than the emulator takes, on two busy cores.
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It arrives, and its answer too.
    Pass,
    /// The service takes no more of them for now.
    Refuse,
    /// It gets lost: the client sees its connection cut.
    LoseRequest,
    /// It takes effect, and its answer gets lost.
    LoseAnswer,
    /// It does not arrive until [`Proxy::release`].
    Keep,
}

/// A request, as a plan sees it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The path.
    pub path: &'a str,
    /// The body.
    pub body: &'a [u8],
}

impl Asked<'_> {
    /// Whether it writes.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        self.path.ends_with(":commit")
    }

    /// Whether it writes into this collection.
    #[must_use]
    pub fn writes_into(&self, collection: &str) -> bool {
        let part = format!("/documents/{collection}/");
        self.is_commit() && self.body.windows(part.len()).any(|window| window == part.as_bytes())
    }
}

/// What Firestore answers where a project writes more than it may.
const REFUSAL: &str =
    r#"{"error":{"code":429,"message":"Quota exceeded.","status":"RESOURCE_EXHAUSTED"}}"#;

type Plan = dyn Fn(&Asked<'_>) -> Act + Send + Sync;

struct Inside {
    upstream: SocketAddr,
    plan: Box<Plan>,
    kept: Mutex<Vec<Vec<u8>>>,
    closed: AtomicBool,
}

/// Listens until it is dropped.
pub struct Proxy {
    inside: Arc<Inside>,
    address: SocketAddr,
}

impl Proxy {
    /// `plan` is asked about each request.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub fn start(
        upstream: SocketAddr,
        plan: impl Fn(&Asked<'_>) -> Act + Send + Sync + 'static,
    ) -> Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let (plan, kept) = (Box::new(plan), Mutex::default());
        let inside = Arc::new(Inside { upstream, plan, kept, closed: AtomicBool::new(false) });
        let shared = Arc::clone(&inside);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if shared.closed.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // A cut connection on either side ends it.
                std::thread::spawn(move || connection.ok().and_then(|it| shared.serve(it)));
            }
        });
        Ok(Proxy { inside, address })
    }

    /// Where it listens; the value for `FIRESTORE_EMULATOR_HOST`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets all that was kept arrive; gives the statuses of the answers.
    ///
    /// # Errors
    /// When one has no answer.
    pub fn release(&self) -> Result<Vec<u16>> {
        let kept =
            std::mem::take(&mut *self.inside.kept.lock().unwrap_or_else(PoisonError::into_inner));
        kept.iter().map(|request| Ok(self.inside.forward(request)?.status)).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.inside.closed.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
    }
}

impl Inside {
    fn serve(&self, mut client: TcpStream) -> Option<()> {
        let Request { path, bytes, body_at } = read_request(&mut client)?;
        match (self.plan)(&Asked { path: &path, body: &bytes[body_at..] }) {
            Act::Pass => {
                let answer = self.forward(&bytes).ok()?;
                respond(&mut client, answer.status, &answer.body)?;
            }
            Act::Refuse => respond(&mut client, 429, REFUSAL.as_bytes())?,
            Act::LoseRequest => {}
            Act::LoseAnswer => drop(self.forward(&bytes).ok()?),
            Act::Keep => self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(bytes),
        }
        Some(())
    }

    fn forward(&self, request: &[u8]) -> Result<http::Response> {
        let mut server = http::Client::connect(self.upstream)?;
        server.set_timeout(PATIENCE);
        server.send_raw(request)
    }
}

fn respond(client: &mut TcpStream, status: u16, body: &[u8]) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    client.write_all(&[head.as_bytes(), body].concat()).ok()
}

/// A request with all its bytes.
struct Request {
    path: String,
    bytes: Vec<u8>,
    body_at: usize,
}

fn read_request(client: &mut TcpStream) -> Option<Request> {
    const END: &[u8] = b"\r\n\r\n";
    let mut bytes = Vec::new();
    let mut chunk = [0; 64 * 1024];
    let head_end = loop {
        if let Some(at) = bytes.windows(END.len()).position(|window| window == END) {
            break at;
        }
        let read = client.read(&mut chunk).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
    };
    let head = std::str::from_utf8(&bytes[..head_end]).ok()?.to_owned();
    let mut lines = head.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let body_at = head_end + END.len();
    while bytes.len() < body_at + length {
        let read = client.read(&mut chunk).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
    }
    Some(Request { path, bytes, body_at })
}
