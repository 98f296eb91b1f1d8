//! A small blocking HTTP/1.1 client.
//!
//! Owns: one connection, requests as they were given, answers with a length, in chunks or until
//! the end; limits on both size and time.
//! Refuses to know: redirects, retries, TLS. A request is sent once: a test must know whether it
//! was answered.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names as sent and trimmed values, in the order of arrival.
    pub headers: Vec<(String, String)>,
    /// The body without its transfer coding.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name, in whatever case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(sent, _)| sent.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not JSON; the error holds the status and the start of the body.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| {
            let start = &self.body[..self.body.len().min(200)];
            format!("status {}, not JSON: {}", self.status, String::from_utf8_lossy(start))
        })
    }

    fn says(&self, name: &str, word: &str) -> bool {
        self.headers
            .iter()
            .filter(|(sent, _)| sent.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    }
}

/// A client with one connection, kept between requests. After an error, or when the server closes,
/// the next request opens a new one.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    timeout: Duration,
    connection: Option<Connection>,
}

/// One end of a connection and what came through it; the fakes of this crate read with it too.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    // Received and not yet taken.
    buffer: Vec<u8>,
    deadline: Instant,
}

impl Client {
    /// Connects; each exchange may take 10 s.
    ///
    /// # Errors
    /// When nobody listens at `address`.
    pub fn connect(address: SocketAddr) -> Result<Client> {
        let mut client = Client { address, timeout: TIMEOUT, connection: None };
        client.connection = Some(client.open()?);
        Ok(client)
    }

    /// The longest time from the start of a request to the last byte of its answer.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Sends one request and reads its answer. `Host` and `Content-Length` are added where
    /// `headers` does not have them.
    ///
    /// # Errors
    /// When the connection breaks, the time is over, or the answer is not HTTP/1.1. Then the server
    /// may or may not have done what was asked.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response> {
        let has = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        let mut bytes = format!("{method} {path} HTTP/1.1\r\n");
        if !has("host") {
            bytes.push_str(&format!("Host: {}\r\n", self.address));
        }
        if !has("content-length") && !has("transfer-encoding") {
            bytes.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        for (name, value) in headers {
            bytes.push_str(&format!("{name}: {value}\r\n"));
        }
        bytes.push_str("\r\n");
        let mut bytes = bytes.into_bytes();
        bytes.extend_from_slice(body);
        self.send_raw(&bytes)
    }

    /// Sends bytes as they are, malformed or incomplete ones too, and reads one answer.
    ///
    /// # Errors
    /// As [`Client::request`].
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        connection.deadline = Instant::now() + self.timeout;
        connection.stream.set_write_timeout(Some(self.timeout))?;
        // A server may answer and close before it has read a body that is too long: the answer
        // counts, so a failed write alone is no error.
        let sent = connection.stream.write_all(bytes);
        let head_only = bytes.starts_with(b"HEAD ");
        let (response, open) = match (connection.response(head_only), &sent) {
            (Err(error), Err(unsent)) => return Err(error.context(unsent.to_string())),
            (answer, _) => answer?,
        };
        if open && sent.is_ok() && !response.says("connection", "close") {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    fn open(&self) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.address, self.timeout)
            .context("the connection is refused")?;
        stream.set_nodelay(true)?;
        Ok(Connection::new(stream, self.timeout))
    }
}

impl Connection {
    /// Everything that is to be read must have come within `timeout`.
    pub(crate) fn new(stream: TcpStream, timeout: Duration) -> Connection {
        Connection { stream, buffer: Vec::new(), deadline: Instant::now() + timeout }
    }

    /// The answer, and whether the connection can take another request.
    fn response(&mut self, head_only: bool) -> Result<(Response, bool)> {
        let mut response = self.head()?;
        while (100..200).contains(&response.status) {
            response = self.head()?;
        }
        let length = response.header("content-length").map(str::parse::<usize>).transpose();
        let length = length.context("content-length is not a number")?;
        if head_only || matches!(response.status, 204 | 304) {
            return Ok((response, true));
        }
        if response.says("transfer-encoding", "chunked") {
            response.body = self.chunks()?;
        } else if let Some(length) = length {
            response.body = self.take(length)?;
        } else {
            while self.fill()? {
                ensure!(self.buffer.len() <= BODY_BYTES_MAX, "the body is too long");
            }
            response.body = std::mem::take(&mut self.buffer);
            return Ok((response, false));
        }
        Ok((response, true))
    }

    fn head(&mut self) -> Result<Response> {
        let mut taken = 0;
        let status_line = self.line(&mut taken)?;
        let status = status_line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .with_context(|| format!("not an HTTP/1.1 answer: {status_line}"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line(&mut taken)?;
            if line.is_empty() {
                return Ok(Response { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    pub(crate) fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        let mut taken = 0;
        loop {
            let line = self.line(&mut taken)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).context("a chunk without a size")?;
            if size == 0 {
                while !self.line(&mut taken)?.is_empty() {}
                return Ok(body);
            }
            ensure!(size <= BODY_BYTES_MAX - body.len(), "the body is too long");
            body.append(&mut self.take(size)?);
            ensure!(self.line(&mut 0)?.is_empty(), "a chunk is longer than its size");
            // The limit is for lines without end, not for many chunks.
            taken = 0;
        }
    }

    /// A line without its end; `taken` counts the bytes of one head.
    pub(crate) fn line(&mut self, taken: &mut usize) -> Result<String> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                *taken += end + 1;
                ensure!(*taken <= HEAD_BYTES_MAX, "the head is too long");
                let line = self.take(end + 1)?;
                let line = String::from_utf8(line).context("the head is not text")?;
                return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
            }
            ensure!(self.buffer.len() <= HEAD_BYTES_MAX, "the head is too long");
            ensure!(self.fill()?, "the connection ends before the answer does");
        }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        ensure!(length <= BODY_BYTES_MAX, "the body is too long");
        while self.buffer.len() < length {
            ensure!(self.fill()?, "the connection ends before the answer does");
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Reads what there is; false at the end of the stream.
    pub(crate) fn fill(&mut self) -> Result<bool> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the answer takes too long");
        self.stream.set_read_timeout(Some(left))?;
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(read) => {
                self.buffer.extend_from_slice(&bytes[..read]);
                Ok(read > 0)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("the answer takes too long")
            }
            Err(error) => Err(error).context("the connection breaks"),
        }
    }
}

#[cfg(test)]
mod tests;
