//! A provider of models that can say no: OpenAI's, Anthropic's and Gemini's dialect on loopback.
//!
//! Owns: its threads and its port, the checks that the real ones make, faults by plan, and its own
//! books of what it would bill.
//! Refuses to know: any caller, and what one should have done about a fault.
//!
//! A caller is judged by these books and not by its own: how often it asked, when it hung up, and
//! how many tokens were sent to it.

mod answer;
mod anthropic;
mod books;
mod deliver;
mod embeddings;
mod fault;
mod gemini;
mod openai;
mod refused;
mod serve;
mod wire;

use std::collections::HashMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use answer::text;
pub use books::{End, Entry, Statement, Totals};
pub use fault::{Fault, Refusal, RetryAfter};

use books::Books;
use fault::Plan;

/// The key that is taken, unless another is set.
pub const KEY: &str = "key-of-the-fake-provider";

/// The models that are known, unless others are set; each answers in every dialect.
pub const MODELS: [&str; 5] =
    ["gpt-4o-mini", "gpt-4o", "claude-haiku-4-5", "gemini-2.5-flash", "text-embedding-3-small"];

/// Between two tries to accept a connection while the process has no files left.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Whose dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// `POST /v1/chat/completions`, `POST /v1/embeddings`, `GET /v1/models`.
    OpenAi,
    /// `POST /v1/messages`, `GET /v1/models` with `anthropic-version`.
    Anthropic,
    /// `POST /v1beta/models/{model}:generateContent`, `:streamGenerateContent?alt=sse` and
    /// `:batchEmbedContents`.
    Gemini,
}

impl Vendor {
    /// All of them.
    pub const ALL: [Vendor; 3] = [Vendor::OpenAi, Vendor::Anthropic, Vendor::Gemini];

    /// The word in files of settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Vendor::OpenAi => "openai",
            Vendor::Anthropic => "anthropic",
            Vendor::Gemini => "gemini",
        }
    }
}

/// How an answer is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// Tokens of a text: see [`text`].
    pub tokens: usize,
    /// Tokens of a chunk.
    pub tokens_per_chunk: usize,
    /// Before the head.
    pub head_delay: Duration,
    /// From the opening to the first token; an answer that is not streamed waits for all of them
    /// before its head.
    pub first_token_delay: Duration,
    /// Between chunks.
    pub chunk_delay: Duration,
    /// Tokens of the prompt that come from the cache, where it has so many.
    pub cached_tokens: u64,
    /// Tokens of the prompt that are put into the cache; only Anthropic says so.
    pub cache_written_tokens: u64,
    /// Tokens of thoughts, which are counted and not said.
    pub reasoning_tokens: u64,
    /// Whether an answer that a last message of the assistant has begun is gone on with.
    pub continues: bool,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            tokens: 20,
            tokens_per_chunk: 1,
            head_delay: Duration::ZERO,
            first_token_delay: Duration::ZERO,
            chunk_delay: Duration::ZERO,
            cached_tokens: 0,
            cache_written_tokens: 0,
            reasoning_tokens: 0,
            continues: true,
        }
    }
}

/// A running provider; it ends with this value, and so do its connections.
#[derive(Debug)]
pub struct Provider {
    shared: Arc<Shared>,
    // None while it is stopped.
    listening: Option<(TcpListener, JoinHandle<()>)>,
}

impl Provider {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When the system has no port left.
    pub fn start() -> Result<Provider> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
        let rules = Rules {
            key: KEY.to_owned(),
            models: MODELS.map(str::to_owned).to_vec(),
            manner: Manner::default(),
            plan: Plan::default(),
        };
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            rules: Mutex::new(rules),
            books: Books::default(),
            streams: Mutex::default(),
            is_ended: AtomicBool::new(false),
        });
        let mut provider = Provider { shared, listening: None };
        provider.listen(listener)?;
        Ok(provider)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The address up to and with the version: `http://127.0.0.1:4711/v1`.
    #[must_use]
    pub fn base_url(&self, vendor: Vendor) -> String {
        let version = match vendor {
            Vendor::OpenAi | Vendor::Anthropic => "v1",
            Vendor::Gemini => "v1beta",
        };
        format!("http://{}/{version}", self.address())
    }

    /// The key that it takes from now on.
    pub fn set_key(&self, key: &str) {
        self.shared.rules().key = key.to_owned();
    }

    /// The models that it knows from now on.
    pub fn set_models(&self, models: &[&str]) {
        self.shared.rules().models = models.iter().map(|&name| name.to_owned()).collect();
    }

    /// How it answers requests that come from now on.
    pub fn set_manner(&self, manner: Manner) {
        self.shared.rules().manner = manner;
    }

    /// The fault of the next request for an answer or for vectors that has none yet: a queue.
    pub fn next(&self, fault: impl Into<Fault>) {
        self.shared.rules().plan.push_next(None, Some(fault.into()));
    }

    /// [`Provider::next`] of one model.
    pub fn next_of(&self, model: &str, fault: impl Into<Fault>) {
        self.shared.rules().plan.push_next(Some(model), Some(fault.into()));
    }

    /// A place in the queue for a request without a fault.
    pub fn next_fine(&self) {
        self.shared.rules().plan.push_next(None, None);
    }

    /// The fault of every request that finds nothing in the queue; the last word counts.
    pub fn always(&self, fault: impl Into<Fault>) {
        self.shared.rules().plan.push_always(None, fault.into());
    }

    /// [`Provider::always`] of one model.
    pub fn always_of(&self, model: &str, fault: impl Into<Fault>) {
        self.shared.rules().plan.push_always(Some(model), fault.into());
    }

    /// Forgets all faults that are still to come.
    pub fn heal(&self) {
        self.shared.rules().plan.clear();
    }

    /// The books as they are now. A caller may have its answer before they say so: see
    /// [`Provider::settled`].
    #[must_use]
    pub fn books(&self) -> Statement {
        self.shared.books.lock().clone()
    }

    /// The books once no answer is under way.
    ///
    /// # Errors
    /// When one still is after `timeout`.
    pub fn settled(&self, timeout: Duration) -> Result<Statement> {
        self.wait_for(timeout, |books| (books.totals.running == 0).then(|| books.clone()))
    }

    /// The sums alone.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.books.lock().totals
    }

    /// Waits until something is found in the books; it is looked for whenever they change.
    ///
    /// # Errors
    /// When it is not found in time.
    pub fn wait_for<T>(
        &self,
        timeout: Duration,
        found: impl FnMut(&Statement) -> Option<T>,
    ) -> Result<T> {
        self.shared.books.wait(timeout, found)
    }

    /// Stops listening and breaks off all connections; the books and the plan stay.
    pub fn stop(&mut self) {
        let Some((listener, acceptor)) = self.listening.take() else { return };
        self.shared.is_ended.store(true, Ordering::SeqCst);
        // Wakes whoever waits in `accept`.
        let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        self.shared.hang_up();
        let _ = acceptor.join();
    }

    /// Listens again on the same port after [`Provider::stop`].
    ///
    /// # Errors
    /// When the port is taken.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        let listener = TcpListener::bind(self.shared.address).context("the port is taken")?;
        self.shared.is_ended.store(false, Ordering::SeqCst);
        self.listen(listener)
    }

    fn listen(&mut self, listener: TcpListener) -> Result<()> {
        let (own, shared) = (listener.try_clone()?, Arc::clone(&self.shared));
        let acceptor = std::thread::spawn(move || accept(&shared, &own));
        self.listening = Some((listener, acceptor));
        Ok(())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What all threads of a provider share.
#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    rules: Mutex<Rules>,
    books: Books,
    /// Second handles of all connections, by their number, to break them off.
    streams: Mutex<HashMap<u64, TcpStream>>,
    is_ended: AtomicBool,
}

/// What a test may change while it runs.
#[derive(Debug)]
struct Rules {
    key: String,
    models: Vec<String>,
    manner: Manner,
    plan: Plan,
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of an answer, without the prefix of its vendor.
    fn serial(&self, number: usize) -> String {
        format!("{}-{number}", self.address.port())
    }

    fn hang_up(&self) {
        for stream in self.streams().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    let mut number = 0;
    while !shared.is_ended.load(Ordering::SeqCst) {
        let Ok((stream, _)) = listener.accept() else {
            // Too many open files, or the end; nothing announces that some were closed.
            std::thread::sleep(RETRY_INTERVAL);
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        let shared = Arc::clone(shared);
        number += 1;
        connections.push(std::thread::spawn(move || connected(&shared, number, stream)));
    }
    for connection in connections {
        let _ = connection.join();
    }
}

fn connected(shared: &Shared, number: u64, stream: TcpStream) {
    let Ok(second) = stream.try_clone() else { return };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    shared.streams().insert(number, second);
    let open = Open { shared, number };
    // The end may have come before the stream was known to be one.
    if !shared.is_ended.load(Ordering::SeqCst) {
        serve::serve(open.shared, stream);
    }
}

/// A connection that is known; it is forgotten however its thread ends.
struct Open<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.shared.streams().remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
