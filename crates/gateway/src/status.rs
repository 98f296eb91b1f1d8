//! The public status page.
//!
//! Owns: how old what it shows may be, and that all callers share one read. Refuses to know: who
//! looks. It needs no key and is never limited, so it must cost nothing: it is rendered once for
//! everybody, from a state that is read at most every two seconds, and never twice at once. While
//! the store does not answer it shows the last known state with its age.

mod board;
mod page;
mod planned;
mod summary;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use types::{Micros, Reason};

use crate::Gateway;
use crate::answer::{Answer, Facts, Handled, fault, raw_json};
use board::{Board, ComponentState, Impact};

/// What the page is called.
const NAME: &str = "TAI Autonomics status";
/// The page is rendered anew when it is older.
const FRESH: Duration = Duration::from_secs(2);
/// The longest wait for the store; then the last known state is shown.
const WAIT: Duration = Duration::from_secs(1);
/// A state that is older says so, in seconds.
const STALE_S: i64 = 5;

/// In which form the state is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// For people.
    Page,
    /// For tools.
    Summary,
}

/// The page as it is now, in both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusPage {
    /// HTML.
    pub page: Bytes,
    /// JSON.
    pub summary: Bytes,
    /// How often anything on it but its age has changed, since the process began.
    pub changes: u64,
}

/// What is shown to everybody.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Every component that is always shown, in order.
    components: Vec<String>,
    /// Held by who reads.
    board: Arc<tokio::sync::Mutex<Board>>,
    look: Arc<ArcSwapOption<Look>>,
    /// Held by who renders what is old.
    stale: Mutex<()>,
}

/// One look at the store, successful or not.
#[derive(Debug)]
struct Look {
    ended: Instant,
    /// `None` until the first one succeeded.
    shown: Option<Shown>,
}

#[derive(Debug, Clone)]
struct Shown {
    board: Arc<Board>,
    as_of: Micros,
    both: StatusPage,
}

impl Shown {
    fn new(board: Arc<Board>, components: &[String], as_of: Micros, now: Micros) -> Shown {
        let age_s = (now.secs() - as_of.secs()).max(0);
        let stale = (age_s > STALE_S).then_some(age_s);
        let both = StatusPage {
            page: page::page(&board, components, as_of, stale).into(),
            summary: summary::summary(&board, components, as_of, age_s).to_string().into(),
            changes: board.changes,
        };
        Shown { board, as_of, both }
    }
}

/// The right to read, and where what was read goes.
struct Turn {
    board: OwnedMutexGuard<Board>,
    components: Vec<String>,
    look: Arc<ArcSwapOption<Look>>,
}

impl Turn {
    /// What was read is shown from now on.
    fn publish(mut self, now: Micros) {
        self.board.advance(now);
        let shown = Shown::new(Arc::new(self.board.clone()), &self.components, now, now);
        self.look.store(Some(Arc::new(Look { ended: Instant::now(), shown: Some(shown) })));
    }
}

impl Shared {
    /// A page that shows these components even when nothing is wrong.
    pub(crate) fn new(components: &[&str]) -> Shared {
        Shared {
            components: components.iter().map(|name| (*name).to_owned()).collect(),
            board: Arc::default(),
            look: Arc::default(),
            stale: Mutex::new(()),
        }
    }

    fn fresh(&self) -> Option<Arc<Look>> {
        self.look.load_full().filter(|look| look.ended.elapsed() < FRESH)
    }

    /// The page: the one that was rendered last, or a new one once `read` has published it. `None`
    /// when nothing was ever read.
    async fn now(
        &self,
        clock: impl Fn() -> Micros,
        read: impl AsyncFnOnce(Turn),
    ) -> Option<StatusPage> {
        let both = |look: &Look| look.shown.as_ref().map(|shown| shown.both.clone());
        if let Some(look) = self.fresh() {
            return both(&look);
        }
        let reading = async {
            let board = Arc::clone(&self.board).lock_owned().await;
            // Another one's turn may have brought it.
            if self.fresh().is_none() {
                let (components, look) = (self.components.clone(), Arc::clone(&self.look));
                read(Turn { board, components, look }).await;
            }
        };
        // Given up or not, the outcome is whatever was published.
        let _ = tokio::time::timeout(WAIT, reading).await;
        match self.fresh() {
            Some(look) => both(&look),
            None => both(&self.last_known(clock())),
        }
    }

    /// Shows again what was known last, with its age.
    fn last_known(&self, now: Micros) -> Arc<Look> {
        let _one = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = self.fresh() {
            return look;
        }
        let last = self.look.load_full().and_then(|look| look.shown.clone());
        let shown = last.map(|last| Shown::new(last.board, &self.components, last.as_of, now));
        let look = Arc::new(Look { ended: Instant::now(), shown });
        self.look.store(Some(Arc::clone(&look)));
        look
    }
}

impl Gateway {
    /// The public status page, at most two seconds old; `None` while nothing is known.
    pub async fn status_page(&self) -> Option<StatusPage> {
        let clock = || self.engine.clock().now();
        self.status
            .now(clock, async |mut turn: Turn| {
                let engine = self.engine.clone();
                // A store that does not answer has said so in the log where it happened.
                let _ = self
                    .engine
                    .scan(move |store, intact| {
                        // The turn ends with the read itself, not with who waits for it.
                        if turn.board.catch_up(store, intact)? {
                            turn.publish(engine.clock().now());
                        }
                        Ok(())
                    })
                    .await;
            })
            .await
    }
}

/// Answers with the page.
pub(crate) async fn answer(gateway: &Gateway, form: Status) -> Handled {
    let both = gateway.status_page().await;
    let both =
        both.ok_or_else(|| fault(Reason::ServiceUnavailable, "the state is not known yet"))?;
    let response = match form {
        Status::Page => html(both.page),
        Status::Summary => raw_json(StatusCode::OK, both.summary),
    };
    Ok(Answer { response, facts: Facts::default() })
}

fn html(page: Bytes) -> Response {
    let mut response = Response::new(Body::from(page));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(policy) = HeaderValue::from_str(&page::policy_header()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The words of a component's state, and of the impact of incidents.
pub(crate) fn words() -> ([&'static str; 5], [&'static str; 4]) {
    (ComponentState::ALL.map(ComponentState::as_str), Impact::ALL.map(Impact::as_str))
}

#[cfg(test)]
mod tests;
