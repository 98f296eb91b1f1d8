//! Somebody who collects log lines over HTTP.
//!
//! Owns: what arrived, and the status that is answered. Refuses to know: what a line means.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::support::*;

/// One request that was answered.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) head: String,
    pub(crate) status: u16,
    pub(crate) logs: Vec<Value>,
}

impl Delivery {
    pub(crate) fn has(&self, event: &str) -> bool {
        self.logs.iter().any(|line| line["event"] == event)
    }
}

/// Its thread ends with the test.
#[derive(Clone)]
pub(crate) struct Collector(Arc<Shared>);

struct Shared {
    address: SocketAddr,
    status: AtomicU16,
    deliveries: Mutex<Vec<Delivery>>,
}

impl Collector {
    pub(crate) fn start() -> Collector {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let collector = Collector(Arc::new(Shared {
            address: listener.local_addr().unwrap(),
            status: AtomicU16::new(204),
            deliveries: Mutex::default(),
        }));
        let serving = collector.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(&stream.unwrap()));
            }
        });
        collector
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/ingest", self.0.address)
    }

    /// What it answers from now on.
    pub(crate) fn answer(&self, status: u16) {
        self.0.status.store(status, Ordering::Relaxed);
    }

    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.0.deliveries.lock().unwrap().clone()
    }

    /// Waits for a delivery with such a line, that was answered with `status`.
    pub(crate) fn wait_for(&self, event: &str, status: u16) -> Delivery {
        until(event, || {
            self.deliveries().into_iter().find(|it| it.status == status && it.has(event))
        })
    }

    /// Until the far side closes; a request that is cut off is none.
    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    return;
                }
            }
            let lower = head.to_ascii_lowercase();
            let length = lower.split("content-length: ").nth(1).unwrap();
            let mut body = vec![0; length.lines().next().unwrap().parse().unwrap()];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let body: Value = serde_json::from_slice(&body).unwrap();
            let logs = body["logs"].as_array().unwrap().clone();
            let status = self.0.status.load(Ordering::Relaxed);
            self.0.deliveries.lock().unwrap().push(Delivery { head, status, logs });
            let answer = format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n");
            let mut writer = stream;
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}
