//! A proxy between store and server that breaks connections at chosen moments.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// What happens to a statement that appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server never hears of it.
    Lost,
    /// The server does it, and its answer is lost.
    Unanswered,
    /// The connection breaks as soon as the server has it.
    Cut,
    /// The connection breaks, and the server gets it when the test says so.
    Late,
}

/// Decides by the number of the statement.
pub(crate) type Plan = fn(u64) -> Option<Fault>;

pub(crate) struct Proxy {
    port: u16,
    inside: Arc<Inside>,
}

struct Inside {
    server: SocketAddr,
    plan: Plan,
    appends: AtomicU64,
    faults: AtomicU64,
    closed: AtomicBool,
    late: Mutex<Vec<(TcpStream, Vec<u8>)>>,
}

impl Proxy {
    pub(crate) fn new(server: u16, plan: Plan) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let inside = Arc::new(Inside {
            server: SocketAddr::from((Ipv4Addr::LOCALHOST, server)),
            plan,
            appends: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            late: Mutex::default(),
        });
        let shared = Arc::clone(&inside);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::Acquire) {
                    return;
                }
                shared.carry(client);
            }
        });
        Proxy { port, inside }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Faults so far.
    pub(crate) fn faults(&self) -> u64 {
        self.inside.faults.load(Ordering::Acquire)
    }

    /// Gives the server what was held back, and waits until it has done with it.
    pub(crate) fn release(&self) {
        for (mut server, bytes) in self.inside.late.lock().unwrap().drain(..) {
            server.write_all(&bytes).unwrap();
            // It may have done with it and closed the connection by now.
            let _ = server.shutdown(Shutdown::Write);
            let _ = server.read_to_end(&mut Vec::new());
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.inside.closed.store(true, Ordering::Release);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

impl Inside {
    fn carry(self: &Arc<Self>, client: TcpStream) {
        // Refused, as by the server itself.
        let Ok(server) = TcpStream::connect(self.server) else { return };
        let mute = Arc::new(AtomicBool::new(false));
        let (to_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        let (shared, muted) = (Arc::clone(self), Arc::clone(&mute));
        std::thread::spawn(move || shared.upward(client, to_server, &muted));
        std::thread::spawn(move || downward(server, to_client, &mute));
    }

    fn upward(&self, mut client: TcpStream, mut server: TcpStream, mute: &AtomicBool) {
        let mut buffer = vec![0; 1 << 16];
        let mut cut = false;
        while let Ok(count) = client.read(&mut buffer) {
            let bytes = &buffer[..count];
            if count == 0 {
                break;
            }
            // Only what appends carries receipts this way.
            if !cut && !mute.load(Ordering::Acquire) && carries_receipts(bytes) {
                let number = self.appends.fetch_add(1, Ordering::AcqRel);
                let fault = (self.plan)(number);
                self.faults.fetch_add(u64::from(fault.is_some()), Ordering::AcqRel);
                match fault {
                    Some(Fault::Lost) => break,
                    Some(Fault::Unanswered) => mute.store(true, Ordering::Release),
                    Some(Fault::Cut) => cut = true,
                    Some(Fault::Late) => {
                        let _ = client.shutdown(Shutdown::Both);
                        self.late.lock().unwrap().push((server, bytes.to_vec()));
                        return;
                    }
                    None => {}
                }
            }
            if server.write_all(bytes).is_err() || (cut && is_complete(bytes)) {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    }
}

fn downward(mut server: TcpStream, mut client: TcpStream, mute: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(count) = server.read(&mut buffer) {
        let silent = mute.load(Ordering::Acquire);
        if count == 0 || silent || client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

fn carries_receipts(bytes: &[u8]) -> bool {
    const FIELD: &[u8] = b"\"prev_hash\"";
    bytes.windows(FIELD.len()).any(|window| window == FIELD)
}

/// True when the last message is a Sync, which ends a statement.
fn is_complete(bytes: &[u8]) -> bool {
    bytes.ends_with(&[b'S', 0, 0, 0, 4])
}
