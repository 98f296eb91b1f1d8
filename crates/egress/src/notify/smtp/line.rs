//! The connection to a mail server, as the library takes it.
//!
//! Owns: `STARTTLS`, and that the library finds a greeting on a connection on which it has been
//! said already. Refuses to know: everything that comes after.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use engine::notify::Delivery;
use lettre::transport::smtp::client::AsyncTokioStream;
use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;

use crate::connection::Stream;

/// The longest reply before TLS.
const REPLY_BYTES: usize = 8 * 1024;
/// What is read first on a connection whose greeting has been read.
const GREETING: &[u8] = b"220 ready\r\n";

/// A connection.
#[derive(Debug)]
pub(super) struct Line {
    greeting: &'static [u8],
    stream: Stream,
}

impl Line {
    /// One on which nothing has been said.
    pub(super) fn new(stream: Stream) -> Line {
        Line { greeting: b"", stream }
    }
}

/// The socket of a connection.
pub(super) fn socket(stream: &Stream) -> &TcpStream {
    match stream {
        Either::Left(socket) => socket,
        Either::Right(secure) => secure.get_ref().0,
    }
}

/// Makes a connection secure, or says what came of the attempt. Nothing but our own name has been
/// said in clear text.
pub(super) async fn secure(
    stream: Stream,
    hello: &ClientId,
    connector: &TlsConnector,
    name: &ServerName<'static>,
) -> Result<Line, Delivery> {
    let Either::Left(mut socket) = stream else { return Ok(Line::new(stream)) };
    expect(&mut socket, "", "220").await?;
    let can = expect(&mut socket, &format!("EHLO {hello}\r\n"), "250").await?;
    let is_it = |line: &str| {
        line.get(4..).is_some_and(|word| word.trim_end().eq_ignore_ascii_case("STARTTLS"))
    };
    if !can.lines().any(is_it) {
        return Err(Delivery::Refused { why: "the server has no STARTTLS" });
    }
    expect(&mut socket, "STARTTLS\r\n", "220").await?;
    let secure = connector.connect(name.clone(), socket).await;
    let stream = secure.map_err(|_| Delivery::Retry { after: None })?;
    Ok(Line { greeting: GREETING, stream: Either::Right(stream) })
}

/// Says something, and reads a reply of this code and nothing behind it.
async fn expect(socket: &mut TcpStream, say: &str, code: &str) -> Result<String, Delivery> {
    let later = Delivery::Retry { after: None };
    let reply = match socket.write_all(say.as_bytes()).await {
        Ok(()) => reply(socket).await,
        Err(error) => Err(error),
    };
    match reply {
        Ok(reply) if reply.starts_with(code) => Ok(reply),
        Ok(reply) if reply.starts_with('5') => {
            Err(Delivery::Refused { why: "the server turns us away" })
        }
        _ => Err(later),
    }
}

async fn reply(socket: &mut TcpStream) -> io::Result<String> {
    let mut read = Vec::new();
    while end(&read).is_none() {
        if read.len() >= REPLY_BYTES || socket.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    if end(&read) != Some(read.len()) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    String::from_utf8(read).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Where a reply ends: behind the first line whose code no hyphen follows.
fn end(read: &[u8]) -> Option<usize> {
    let mut end = 0;
    for line in read.split_inclusive(|byte| *byte == b'\n') {
        end += line.len();
        if line.ends_with(b"\n") && line.get(3) != Some(&b'-') {
            return Some(end);
        }
    }
    None
}

impl AsyncTokioStream for Line {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        socket(&self.stream).peer_addr()
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.greeting.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let (now, later) = self.greeting.split_at(self.greeting.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.greeting = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_with_its_last_line() {
        for (read, expected) in [
            ("", None),
            ("220 ready", None),
            ("220 ready\r\n", Some(11)),
            ("250-a\r\n250-STARTTLS\r\n", None),
            ("250-a\r\n250 b\r\n", Some(14)),
            ("220 go\r\n250 more\r\n", Some(8)),
            ("\n", Some(1)),
        ] {
            assert_eq!(end(read.as_bytes()), expected, "{read:?}");
        }
    }
}
