//! A far side that is told things over HTTP and can say no.
//!
//! Owns: a listener on loopback, what it was sent, and what it answers next. Refuses to know: what
//! any of it means.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is answered to one request.
#[derive(Debug, Clone)]
pub enum Manner {
    /// This status, these headers and this body.
    Says(u16, Vec<(&'static str, String)>, String),
    /// Nothing, for so long; then the connection is closed.
    Hangs(Duration),
    /// Nothing: the request is taken and the connection closed.
    Drops,
}

impl Manner {
    /// A status without a word.
    #[must_use]
    pub fn status(status: u16) -> Manner {
        Manner::Says(status, Vec::new(), String::new())
    }
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// Names in lower case and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Received {
    /// The first header of that name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(sent, _)| sent == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).context("a body that is not JSON")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[derive(Default)]
struct State {
    received: Vec<Received>,
    next: VecDeque<Manner>,
    always: Option<Manner>,
}

/// The far side. Dropping it closes its door.
pub struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
    door: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Opens it at a free port of the loopback address. It answers 200 and `{}`.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start() -> Result<Receiver> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port")?;
        let address = listener.local_addr()?;
        let (state, ends) = (Arc::new(Mutex::new(State::default())), Arc::default());
        let (held, over) = (Arc::clone(&state), Arc::clone(&ends));
        let door = std::thread::spawn(move || {
            let over: Arc<AtomicBool> = over;
            for stream in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(stream), state) = (stream, Arc::clone(&held)) else { continue };
                // A connection that fails is the other side's to notice.
                std::thread::spawn(move || drop(serve(&stream, &state)));
            }
        });
        Ok(Receiver { address, state, ends, door: Some(door) })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.lock().received.clone()
    }

    /// What the next request is answered; further ones queue behind it.
    pub fn next(&self, manner: Manner) {
        self.lock().next.push_back(manner);
    }

    /// What every request is answered that nothing else was said of; `None` for 200.
    pub fn always(&self, manner: Option<Manner>) {
        self.lock().always = manner;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // Wakes the door, which then sees that it is over.
        drop(TcpStream::connect(self.address));
        if let Some(door) = self.door.take() {
            drop(door.join());
        }
    }
}

/// Answers one connection until it ends.
fn serve(stream: &TcpStream, state: &Mutex<State>) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut reader = BufReader::new(stream);
    while let Some(received) = read(&mut reader)? {
        let manner = {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.received.push(received);
            let usual = || state.always.clone().unwrap_or(Manner::Says(200, vec![], "{}".into()));
            let usual = usual();
            state.next.pop_front().unwrap_or(usual)
        };
        match manner {
            Manner::Drops => return Ok(()),
            Manner::Hangs(time) => {
                std::thread::sleep(time);
                return Ok(());
            }
            Manner::Says(status, headers, body) => {
                let mut answer =
                    format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    answer += &format!("{name}: {value}\r\n");
                }
                answer += "\r\n";
                answer += &body;
                let mut stream = stream;
                stream.write_all(answer.as_bytes())?;
            }
        }
    }
    Ok(())
}

/// The next request; `None` at the end of the connection.
fn read(reader: &mut BufReader<&TcpStream>) -> Result<Option<Received>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut headers, mut length) = (Vec::new(), 0);
    loop {
        let mut line = String::new();
        ensure!(reader.read_line(&mut line)? > 0, "a head without an end");
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
        if name == "content-length" {
            length = value.parse().context("a length")?;
        }
        headers.push((name, value));
    }
    ensure!(length <= BODY_BYTES_MAX, "a body that is too long");
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(Received { method, path, headers, body }))
}
