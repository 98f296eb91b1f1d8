//! A proxy between a store and the emulator that loses requests and answers.
//!
//! Owns: HTTP/1.1 on loopback, one request a connection, and requests that are kept for later.
//! Refuses to know: documents.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::http;

/// Far more than the emulator takes, on two busy cores.
const PATIENCE: Duration = Duration::from_secs(60);

/// What becomes of a request. The client of all but the first sees its connection cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Pass,
    /// It gets lost.
    LoseRequest,
    /// It takes effect, and its answer gets lost.
    LoseAnswer,
    /// It does not arrive until [`Proxy::release`].
    Keep,
}

type Plan = dyn Fn(&str) -> Act + Send + Sync;

struct Inside {
    upstream: SocketAddr,
    plan: Box<Plan>,
    kept: Mutex<Vec<Vec<u8>>>,
    closed: AtomicBool,
}

/// Listens until it is dropped.
pub(crate) struct Proxy {
    inside: Arc<Inside>,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// `plan` is asked about each request by its path.
    pub(crate) fn start(
        upstream: SocketAddr,
        plan: impl Fn(&str) -> Act + Send + Sync + 'static,
    ) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
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
        Proxy { inside, address }
    }

    /// Lets all that was kept arrive; gives the statuses of the answers.
    pub(crate) fn release(&self) -> Vec<u16> {
        let kept = std::mem::take(&mut *self.inside.kept.lock().unwrap());
        kept.iter().map(|request| self.inside.forward(request).unwrap().status).collect()
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
        let (path, request) = read_request(&mut client)?;
        match (self.plan)(&path) {
            Act::Pass => {
                let answer = self.forward(&request)?;
                let head = format!(
                    "HTTP/1.1 {} -\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    answer.status,
                    answer.body.len()
                );
                client.write_all(&[head.as_bytes(), &answer.body].concat()).ok()?;
            }
            Act::LoseRequest => {}
            Act::LoseAnswer => drop(self.forward(&request)?),
            Act::Keep => self.kept.lock().unwrap().push(request),
        }
        Some(())
    }

    fn forward(&self, request: &[u8]) -> Option<http::Response> {
        let mut server = http::Client::connect(self.upstream).ok()?;
        server.set_timeout(PATIENCE);
        server.send_raw(request).ok()
    }
}

/// The path, and all bytes of the request.
fn read_request(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
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
    let whole = head_end + END.len() + length;
    while bytes.len() < whole {
        let read = client.read(&mut chunk).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
    }
    Some((path, bytes))
}
