//! The body of an answer, as it comes.
//!
//! Owns: the clocks between chunks, and what becomes of the connection. Refuses to know: what the
//! bytes mean, and so when a body is complete other than by HTTP's own rules.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::outbound::{Boxed, Clock, Clocks, ReplyBody, SendError, Verdict};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::connection::Connection;
use crate::egress::now;
use crate::failure::Failure;
use crate::peer::Held;

/// The body of one answer.
pub(crate) struct Body {
    state: State,
    gap: Duration,
    deadline: Instant,
    /// When the gap clock runs out, while somebody waits.
    gap_ends: Option<Instant>,
    /// Wakes whoever waits. Made with the first wait, and left to run too early rather than set
    /// anew with each chunk: that is cheaper by a lock per chunk.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Behind `state`: the connection is closed before its place is given to somebody else.
    held: Held,
}

enum State {
    Open(Box<Connection>, Incoming),
    Ended,
    Failed(SendError),
}

impl Body {
    pub(crate) fn new(
        connection: Box<Connection>,
        incoming: Incoming,
        clocks: Clocks,
        held: Held,
    ) -> Body {
        Body {
            state: State::Open(connection, incoming),
            gap: clocks.gap,
            deadline: clocks.deadline,
            gap_ends: None,
            alarm: None,
            held,
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, SendError>>> {
        let (connection, incoming) = match &mut self.state {
            State::Open(connection, incoming) => (connection, incoming),
            State::Ended => return Poll::Ready(None),
            State::Failed(error) => return Poll::Ready(Some(Err(*error))),
        };
        // Before the bytes: a stream that never pauses ends at its deadline too.
        if now() >= self.deadline {
            return self.fail(&Failure::clock(Clock::Deadline));
        }
        match connection.poll_data(incoming, cx) {
            Poll::Ready(Some(Ok(data))) => {
                self.gap_ends = None;
                Poll::Ready(Some(Ok(data)))
            }
            Poll::Ready(Some(Err(failure))) => self.fail(&failure),
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let clock = ready!(self.poll_clocks(cx));
                self.fail(&Failure::clock(clock))
            }
        }
    }

    /// Which clock has run out, once one has.
    fn poll_clocks(&mut self, cx: &mut Context<'_>) -> Poll<Clock> {
        loop {
            let now = now();
            let gap_ends = *self.gap_ends.get_or_insert_with(|| now + self.gap);
            if now >= self.deadline {
                return Poll::Ready(Clock::Deadline);
            }
            if now >= gap_ends {
                return Poll::Ready(Clock::Gap);
            }
            let due = gap_ends.min(self.deadline).into();
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            // Set for an earlier chunk and gone off, or set for later than this one may take.
            if alarm.is_elapsed() || alarm.deadline() > due {
                alarm.as_mut().reset(due);
            }
            ready!(alarm.as_mut().poll(cx));
        }
    }

    fn end(&mut self) {
        if let State::Open(mut connection, _) = std::mem::replace(&mut self.state, State::Ended)
            && connection.settle()
        {
            self.held.give_back(connection);
        }
    }

    fn fail(&mut self, failure: &Failure) -> Poll<Option<Result<Bytes, SendError>>> {
        // Closes the connection, at once.
        self.state = State::Failed(failure.error);
        self.held.failed(failure);
        Poll::Ready(Some(Err(failure.error)))
    }
}

impl ReplyBody for Body {
    fn chunk(&mut self) -> Boxed<'_, Option<Result<Bytes, SendError>>> {
        Box::pin(poll_fn(|cx| self.poll_chunk(cx)))
    }

    fn judge(&mut self, verdict: Verdict) {
        self.held.judge(verdict, "its answers");
    }
}
