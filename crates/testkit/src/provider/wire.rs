//! The wire of the fake provider: requests as they come, bytes as they are told, and whether the
//! caller is still there.
//!
//! Owns: one connection from the side of the server, and the books' bytes. Refuses to know: what is
//! said.

use std::io::{ErrorKind, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;

use super::books::Books;
use crate::http::Connection;

/// No connection of a test is older; what ends one is its caller, or the end of the fake.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(86_400);
/// So many bytes at once under [`super::Fault::Pieces`]: a letter of two bytes is parted soon.
const PIECE_BYTES: usize = 7;

/// The caller has hung up.
#[derive(Debug)]
pub(super) struct Gone;

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(sent, _)| sent == name).map(|(_, value)| value.as_str())
    }
}

/// Whoever is at the other end.
pub(super) struct Caller<'a> {
    connection: Connection,
    books: &'a Books,
    /// The entry that bytes are noted in.
    entry: Option<usize>,
    pub(super) in_pieces: bool,
}

impl<'a> Caller<'a> {
    pub(super) fn new(stream: TcpStream, books: &'a Books) -> Caller<'a> {
        let connection = Connection::new(stream, CONNECTION_TIMEOUT);
        Caller { connection, books, entry: None, in_pieces: false }
    }

    /// The next request.
    pub(super) fn request(&mut self) -> Result<Request> {
        self.entry = None;
        let mut taken = 0;
        let first = self.connection.line(&mut taken)?;
        let mut words = first.split(' ');
        let (method, target) = (words.next(), words.next());
        let (method, target) = method.zip(target).context("no request line")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut headers = Vec::new();
        loop {
            let line = self.connection.line(&mut taken)?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut request = Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: Vec::new(),
        };
        request.body = match request.header("content-length") {
            Some(length) => self.connection.take(length.parse()?)?,
            None if request.header("transfer-encoding").is_some() => self.connection.chunks()?,
            None => Vec::new(),
        };
        ensure!(request.header("expect").is_none(), "nobody here waits to be asked for a body");
        Ok(request)
    }

    /// From now on, bytes are of this entry.
    pub(super) fn serves(&mut self, entry: usize) {
        self.entry = Some(entry);
    }

    /// Sends in one write, unless the fault is that it comes in pieces.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let size = if self.in_pieces { PIECE_BYTES } else { bytes.len().max(1) };
        for piece in bytes.chunks(size) {
            self.wait(Duration::ZERO)?;
            let mut left = piece;
            while !left.is_empty() {
                match self.connection.stream.write(left) {
                    Ok(0) => return Err(Gone),
                    Ok(sent) => {
                        left = &left[sent..];
                        if let Some(entry) = self.entry {
                            self.books.note(entry, |entry| entry.bytes_sent += sent as u64);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return Err(Gone),
                }
            }
        }
        Ok(())
    }

    /// Sends byte by byte with so long between them.
    pub(super) fn trickle(&mut self, bytes: &[u8], between: Duration) -> Result<(), Gone> {
        for byte in bytes {
            self.send(&[*byte])?;
            self.wait(between)?;
        }
        Ok(())
    }

    /// Waits, unless the caller hangs up.
    pub(super) fn wait(&mut self, time: Duration) -> Result<(), Gone> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| Gone)?;
            let polled =
                poll(&mut [PollFd::new(&self.connection.stream, PollFlags::IN)], Some(&timeout));
            match polled {
                Ok(0) => return Ok(()),
                // The end, an error, or the next request, which waits in the buffer.
                Ok(_) => match self.connection.fill() {
                    Ok(true) => {}
                    Ok(false) | Err(_) => return Err(Gone),
                },
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(Gone),
            }
        }
    }

    /// Says nothing until the caller hangs up.
    pub(super) fn hang(&mut self) -> Gone {
        while self.wait(CONNECTION_TIMEOUT).is_ok() {}
        Gone
    }

    /// The connection ends with a reset instead of a proper end, once it is dropped.
    pub(super) fn reset_at_end(&self) {
        // Where it cannot be set the connection is gone already.
        let _ = set_socket_linger(&self.connection.stream, Some(Duration::ZERO));
    }
}

/// A chunk of the chunked transfer coding.
pub(super) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// The end of the chunked transfer coding.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// gzip with stored blocks only (RFC 1951, 3.2.4): readable by everybody and event by event.
#[derive(Debug, Default)]
pub(super) struct Gzip {
    has_head: bool,
    crc: u32,
    length: u32,
}

impl Gzip {
    const BLOCK_BYTES_MAX: usize = 65_535;

    /// These bytes, encoded; everything before them is flushed.
    pub(super) fn encode(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        if !std::mem::replace(&mut self.has_head, true) {
            encoded.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        }
        for block in bytes.chunks(Gzip::BLOCK_BYTES_MAX) {
            let length = u16::try_from(block.len()).unwrap_or(u16::MAX);
            encoded.push(0);
            encoded.extend_from_slice(&length.to_le_bytes());
            encoded.extend_from_slice(&(!length).to_le_bytes());
            encoded.extend_from_slice(block);
        }
        self.crc = crc32(self.crc, bytes);
        self.length = self.length.wrapping_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        encoded
    }

    /// The end.
    pub(super) fn finish(&self) -> Vec<u8> {
        let mut end = vec![1, 0, 0, 0xff, 0xff];
        end.extend_from_slice(&self.crc.to_le_bytes());
        end.extend_from_slice(&self.length.to_le_bytes());
        end
    }
}

fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    let step = |crc: u32| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!crc, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_gzip() {
        // The check value that RFC 1952's polynomial is known by.
        assert_eq!(crc32(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(crc32(0, b"1234"), b"56789"), 0xcbf4_3926);
    }

    #[test]
    fn stored_blocks_hold_the_bytes_and_end_in_their_sum() {
        let mut gzip = Gzip::default();
        let mut encoded = gzip.encode(b"1234");
        encoded.extend(gzip.encode(b"56789"));
        encoded.extend(gzip.finish());
        assert_eq!(&encoded[10..19], b"\x00\x04\x00\xfb\xff1234");
        assert_eq!(&encoded[encoded.len() - 8..], b"\x26\x39\xf4\xcb\x09\x00\x00\x00");
    }

    #[test]
    fn a_chunk_says_its_length_in_hexadecimal() {
        assert_eq!(
            chunk(&[b'x'; 26]),
            [b"1a\r\n".to_vec(), vec![b'x'; 26], b"\r\n".to_vec()].concat()
        );
    }
}
