//! Callers who do not read, or send too much.
//!
//! Owns: that each costs a bounded piece of memory and gives its place back. Refuses to know: what
//! a model says.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;

/// Streams that nobody reads.
const UNREAD: usize = 40;
/// Bytes of each answer, far more than all buffers on its way.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// Memory that one of them may take: the bound of a stream, and what the process itself grows by.
const EACH_BYTES: u64 = 512 * 1024;

fn open(house: &House) -> TcpStream {
    let body = streamed("one/gpt-4o-mini").to_string();
    let mut socket = TcpStream::connect(house.tai.address()).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    // Its first words are there; it reads no further.
    let mut first = [0; 64];
    socket.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&first));
    socket
}

/// A provider whose answers never end, as fast as they are taken.
struct Endless {
    address: std::net::SocketAddr,
    is_over: std::sync::Arc<AtomicBool>,
}

impl Endless {
    fn start() -> Endless {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = std::sync::Arc::new(AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&is_over);
        thread::spawn(move || {
            for socket in listener.incoming() {
                if seen.load(Ordering::SeqCst) {
                    return;
                }
                thread::spawn(move || talk(socket.unwrap()));
            }
        });
        Endless { address, is_over }
    }

    fn file(&self, dir: &Path) -> PathBuf {
        let path = dir.with_file_name("providers.toml");
        let text = format!(
            "[providers.one]\napi = \"openai\"\nbase_url = \"http://{}/v1\"\nallow_private = true\n",
            self.address
        );
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn talk(mut socket: TcpStream) {
    let mut request = [0; 4096];
    let _ = socket.read(&mut request);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let word = "x".repeat(4_000);
    let event = format!(
        "data: {}\n\n",
        json!({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": null}]})
    );
    if socket.write_all(head.as_bytes()).is_err() {
        return;
    }
    for _ in 0..ANSWER_BYTES / event.len() {
        if socket.write_all(event.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn who_does_not_read_costs_a_buffer_and_gives_its_place_back() {
    let endless = Endless::start();
    let (room, dir) = room();
    let file = endless.file(&dir);
    let envs = [
        ("PROVIDERS_FILE", file.to_str().unwrap()),
        ("AI_GAP_TIMEOUT_MS", "60000"),
        // No price, no budget: what is looked at is memory.
        ("CATALOGUE_FILE", ""),
    ];
    let house = House { tai: start(&dir, &envs), dir, _room: room };
    let mut admin = house.local();
    let grant = json!({"tenant_id": "local", "entitlement_id": "enterprise", "action": "grant"});
    assert_eq!(admin.post("/marketplace", &grant).status, 200);
    let budget = json!({"calls": 1_000_000, "period": "ever"});
    assert_eq!(admin.put("/admin/tenants/local/budget", &budget).status, 200);
    drop(open(&house));
    let before = house.tai.rss_bytes().unwrap();
    let sockets: Vec<TcpStream> = (0..UNREAD).map(|_| open(&house)).collect();
    // Until all that fits into buffers is there: the process does no more for them.
    let mut last = 0;
    until("memory to be still", || {
        let now = house.tai.rss_bytes().unwrap();
        let is_still = now == last;
        last = now;
        is_still.then_some(())
    });
    let each = last.saturating_sub(before) / UNREAD as u64;
    assert!(each <= EACH_BYTES, "{each} bytes for a stream that nobody reads");
    let in_work = |admin: &mut Caller| {
        admin.get("/admin/queues").json().unwrap()["calls_open"].as_u64().unwrap()
    };
    assert!(in_work(&mut admin) >= UNREAD as u64);
    drop(sockets);
    until("the calls to be settled", || (in_work(&mut admin) == 0).then_some(()));
    house.close("local");
}

#[test]
fn a_body_of_100_megabytes_is_refused_without_being_kept() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let before = tai.rss_bytes().unwrap();
    let mut socket = TcpStream::connect(tai.address()).unwrap();
    let size = 100 * 1024 * 1024;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {size}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    let piece = vec![b'x'; 1024 * 1024];
    // It may answer and close before all is sent.
    let _ = (0..100).try_for_each(|_| socket.write_all(&piece));
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 413") || answer.is_empty(), "{answer}");
    let grown = tai.rss_bytes().unwrap().saturating_sub(before);
    // The limit is 32 MiB, of which nothing is kept.
    assert!(grown < 48 * 1024 * 1024, "{grown} bytes");
    assert_eq!(get(&mut client(tai.address()), "/health").status, 200);
    stop(tai);
}
