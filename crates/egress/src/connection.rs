//! One connection and what is spoken on it.
//!
//! Owns: that the connection moves only while somebody waits for it, and whether it can be used
//! again. Refuses to know: clocks, who the far side is, what an answer means.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use engine::outbound::SendError;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::unconstrained;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::failure::Failure;

/// Largest head of an answer, and what is read ahead of whoever reads the body.
const BUFFER_BYTES: usize = 64 * 1024;

/// A request on its way. Its body is there as a whole, so that head and body leave in one write.
pub(crate) type Outgoing = Request<Full<Bytes>>;

/// The socket, with or without TLS.
pub(crate) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// An open connection, with nothing or one request on it.
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
}

/// What came of a request.
pub(crate) enum Exchange {
    /// The head of an answer.
    Answered(Response<Incoming>),
    /// The connection was dead before a byte of it was sent.
    Unsent(Box<Outgoing>),
}

/// The moving half of the library's connection, until it is over.
struct Driver(Option<http1::Connection<TokioIo<Stream>, Full<Bytes>>>);

impl Driver {
    fn turn(&mut self, cx: &mut Context<'_>) {
        let Some(connection) = &mut self.0 else { return };
        // What went wrong is told to the request or to the body. A request that was not begun is
        // handed back only when the connection is let go of.
        if Pin::new(connection).poll(cx).is_ready() {
            self.0 = None;
        }
    }

    fn is_over(&self) -> bool {
        self.0.is_none()
    }
}

impl Connection {
    /// On the heap, once: it is large, and goes from pool to attempt to body and back with each
    /// call.
    pub(crate) async fn open(stream: Stream) -> Result<Box<Connection>, Failure> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Failure::answer(&error))?;
        Ok(Box::new(Connection { sender, driver: Driver(Some(connection)) }))
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn exchange(&mut self, request: Outgoing) -> Result<Exchange, Failure> {
        let Connection { sender, driver } = self;
        // Asked outside of the runtime's allowance for one turn of a task: where that is used up,
        // an answer that is there would seem not to be.
        let mut answer = pin!(unconstrained(sender.try_send_request(request)));
        let answer = poll_fn(|cx| {
            driver.turn(cx);
            match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                // Cannot be; if it could, nobody would ever wake this.
                Poll::Pending if driver.is_over() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match answer {
            Some(Ok(answer)) => Ok(Exchange::Answered(answer)),
            Some(Err(mut error)) => match error.take_message() {
                Some(request) => Ok(Exchange::Unsent(Box::new(request))),
                None => Err(Failure::answer(&error.into_error())),
            },
            None => Err(broken_off()),
        }
    }

    /// The next bytes of the body of the answer that [`Connection::exchange`] gave.
    pub(crate) fn poll_data(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Failure>>> {
        if let Poll::Ready(data) = poll_body(body) {
            return Poll::Ready(data);
        }
        self.driver.turn(cx);
        match poll_body(body) {
            Poll::Pending if self.driver.is_over() => Poll::Ready(Some(Err(broken_off()))),
            polled => polled,
        }
    }

    /// Whether the next request can go over it. To be asked when the body is at its end.
    pub(crate) fn settle(&mut self) -> bool {
        // A turn for nobody: the library looks whether the exchange is complete, and what it would
        // wake is no longer the task that read this answer, which would otherwise be kept in memory
        // for as long as the connection is idle.
        self.driver.turn(&mut Context::from_waker(Waker::noop()));
        !self.driver.is_over() && self.sender.is_ready()
    }
}

/// What the last turn of the driver has put into the body.
fn poll_body(body: &mut Incoming) -> Poll<Option<Result<Bytes, Failure>>> {
    // Nobody has to be woken by the body: only a turn puts anything into it, and after each turn it
    // is asked. The task would wake itself once more for every chunk.
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let frame = match Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(Some(Err(error))) => {
                return Poll::Ready(Some(Err(Failure::answer(&error))));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        // Trailers are passed over: nobody who is spoken to says anything there.
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Poll::Ready(Some(Ok(data)));
        }
    }
}

fn broken_off() -> Failure {
    Failure::new(SendError::Reset, "the connection broke off")
}
