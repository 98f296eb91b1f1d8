//! A server that does what a test tells it, byte for byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub(crate) const OK: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

/// The server's end of one connection.
pub(crate) struct Line {
    socket: Box<dyn Socket>,
    read: Vec<u8>,
}

impl Line {
    /// The next request as text, head and body; `None` when the client has gone.
    pub(crate) async fn request(&mut self) -> Option<String> {
        loop {
            let text = String::from_utf8(self.read.clone()).unwrap();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length: usize = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |length| length.parse().unwrap());
                if body.len() >= length {
                    let end = head.len() + 4 + length;
                    self.read.drain(..end);
                    return Some(text[..end].to_owned());
                }
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// What the client sends in one piece.
    pub(crate) async fn piece(&mut self) -> String {
        self.fill().await;
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    /// Returns when the client has closed the connection.
    pub(crate) async fn until_closed(&mut self) {
        while self.fill().await {}
    }

    async fn fill(&mut self) -> bool {
        let mut piece = vec![0; 16 * 1024];
        match self.socket.read(&mut piece).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.read.extend_from_slice(&piece[..count]);
                true
            }
        }
    }

    /// Sends it, unless the client has gone.
    pub(crate) async fn send(&mut self, text: &str) -> bool {
        self.socket.write_all(text.as_bytes()).await.is_ok() && self.socket.flush().await.is_ok()
    }

    /// One request, one answer.
    pub(crate) async fn answer(&mut self, text: &str) {
        if self.request().await.is_some() {
            self.send(text).await;
        }
    }

    /// Says nothing until the client has gone.
    pub(crate) async fn hang(mut self) {
        self.until_closed().await;
    }
}

/// A listening server. Dropping it ends its connections.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Runs `script` for each connection, with its number from 0.
    pub(crate) async fn start<F, R>(script: F) -> Server
    where
        F: Fn(Line, usize) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Server::with(None, script).await
    }

    pub(crate) async fn with<F, R>(tls: Option<TlsAcceptor>, script: F) -> Server
    where
        F: Fn(Line, usize) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::SeqCst);
                let socket: Box<dyn Socket> = match &tls {
                    None => Box::new(socket),
                    Some(acceptor) => match acceptor.accept(socket).await {
                        Ok(socket) => Box::new(socket),
                        // The client did not like the certificate.
                        Err(_) => continue,
                    },
                };
                lines.spawn(script(Line { socket, read: Vec::new() }, number));
            }
        });
        Server { address, accepted, _tasks: tasks }
    }

    /// Answers every request with the same bytes.
    pub(crate) async fn answering(answer: &'static str) -> Server {
        Server::start(move |mut line, _| async move {
            while line.request().await.is_some() {
                line.send(answer).await;
            }
        })
        .await
    }

    /// Answers each connection's one request with these bytes, and closes it.
    pub(crate) async fn closing(answer: &'static str) -> Server {
        Server::start(move |mut line, _| async move { line.answer(answer).await }).await
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}
