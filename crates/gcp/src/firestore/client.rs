//! The calls: one HTTP request each, with credentials and a deadline, made from threads that block.
//!
//! Owns: the connection pool and its runtime, deadlines, which calls are repeated and how often.
//! Refuses to know: what documents mean, and what to do about a commit of unknown outcome.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use bytes::Bytes;
use engine::ports::ReadError;
use google_cloud_auth::credentials::{self, CacheableResource, Credentials};
use http::Extensions;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use types::Micros;

use super::Options;
use super::wire::{BatchGet, Commit, Document, Failure, Mask, Part, Write, instant};
use crate::Error;

/// How long one request may take, and a token for it.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to be connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a call is repeated: one more request may begin just before.
pub(super) const REPEAT_FOR: Duration = Duration::from_secs(5);
/// Between two requests for the same.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Requests for the same, the first one not counted.
const REPEATS_MAX: usize = 5;
/// Documents that are asked for at once: of the largest receipts a third of the longest answer.
pub(super) const NAMES_MAX: usize = 300;
/// The longest answer that is taken, in bytes. A receipt of 16 KiB is twice that in JSON at most.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Connections that are kept open for the next call.
const IDLE_CONNECTIONS: usize = 16;
/// Shorter than the few minutes after which load balancers and networks forget one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

const ENDPOINT: &str = "https://firestore.googleapis.com";

/// A database of Firestore, or of its emulator.
pub(super) struct Client {
    http: reqwest::Client,
    /// `None` with an emulator.
    credentials: Option<Credentials>,
    /// URL of the documents, to which `:commit` and the like are appended.
    url: String,
    /// What the names of all documents begin with.
    root: String,
    /// Taken out when the client is dropped.
    runtime: Option<Runtime>,
}

/// What a query found, and when.
pub(super) struct Page {
    pub(super) documents: Vec<Document>,
    /// The server's clock at the moment that the answer shows.
    pub(super) read_time: String,
}

/// Documents by their names, and when they were like this.
pub(super) struct Got {
    documents: BTreeMap<String, Document>,
    /// The server's clock at the first of the answers; `None` when nothing was asked.
    pub(super) read_at: Option<Micros>,
}

impl Got {
    pub(super) fn get(&self, name: &str) -> Option<&Document> {
        self.documents.get(name)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Document> {
        self.documents.remove(name)
    }
}

impl Client {
    pub(super) fn new(options: &Options) -> Result<Client, Error> {
        // One worker: it moves bytes, and what is parsed is parsed by the thread that asked.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("firestore")
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_TIMEOUT);
        if options.emulator.is_some() {
            http = http.no_proxy();
        }
        let http = http.build().map_err(Error::Http)?;
        let (endpoint, credentials) = match &options.emulator {
            Some(address) => (format!("http://{address}"), None),
            None => {
                // It keeps its token fresh on the runtime that it is made in.
                let _inside = runtime.enter();
                let built = credentials::Builder::default().build();
                let built = built.map_err(|source| Error::Credentials(Box::new(source)))?;
                (ENDPOINT.to_owned(), Some(built))
            }
        };
        let root = format!("projects/{}/databases/{}/documents", options.project, options.database);
        let url = format!("{endpoint}/v1/{root}");
        Ok(Client { http, credentials, url, root, runtime: Some(runtime) })
    }

    /// The full name of a document.
    pub(super) fn name(&self, collection: &str, id: impl std::fmt::Display) -> String {
        format!("{}/{collection}/{id}", self.root)
    }

    /// The body of a commit.
    pub(super) fn commit_body(writes: &[Write]) -> Result<Bytes, Failure> {
        let body = serde_json::to_vec(&Commit { writes });
        body.map(Bytes::from).map_err(|error| Failure::NotSent(error.to_string()))
    }

    /// Commits once. Only the caller knows whether it may be repeated.
    pub(super) fn commit(&self, body: &Bytes) -> Result<(), Failure> {
        self.call(":commit", body).map(drop)
    }

    /// Reads documents; those that do not exist are missing in the answer.
    pub(super) fn get(
        &self,
        mut names: Vec<String>,
        fields: Option<&[&str]>,
    ) -> Result<Got, ReadError> {
        let mut got = Got { documents: BTreeMap::new(), read_at: None };
        names.sort_unstable();
        names.dedup();
        for documents in names.chunks(NAMES_MAX) {
            let mask = fields.map(|field_paths| Mask { field_paths });
            let page = self.parts(":batchGet", &BatchGet { documents, mask })?;
            got.read_at = got.read_at.or(instant(&page.read_time));
            let found = page.documents.into_iter();
            got.documents.extend(found.map(|document| (document.name.clone(), document)));
        }
        Ok(got)
    }

    /// Reads one document.
    pub(super) fn get_one(&self, name: &str) -> Result<Option<Document>, ReadError> {
        Ok(self.get(vec![name.to_owned()], None)?.take(name))
    }

    /// Runs a query, given as the body of `runQuery`.
    pub(super) fn query(&self, body: &serde_json::Value) -> Result<Page, ReadError> {
        self.parts(":runQuery", body)
    }

    /// A call that only reads: repeated, since that changes nothing.
    fn parts(&self, method: &str, body: &impl serde::Serialize) -> Result<Page, ReadError> {
        let unavailable = |failure: &dyn std::fmt::Display| {
            ReadError::Unavailable(format!("{}: {failure}", &method[1..]))
        };
        let body = serde_json::to_vec(body).map_err(|error| unavailable(&error))?;
        let body = Bytes::from(body);
        let mut patience = Patience::new();
        loop {
            let failure = match self.call(method, &body).and_then(|answer| page(&answer)) {
                Ok(page) => return Ok(page),
                Err(failure @ (Failure::Refused(_) | Failure::Quota(_) | Failure::Exists)) => {
                    return Err(unavailable(&failure));
                }
                Err(failure) => failure,
            };
            if !patience.wait() {
                return Err(unavailable(&failure));
            }
        }
    }

    fn call(&self, method: &str, body: &Bytes) -> Result<Vec<u8>, Failure> {
        let runtime = self.runtime.as_ref();
        let runtime = runtime.ok_or_else(|| Failure::NotSent("closed".to_owned()))?;
        runtime.block_on(async {
            let headers = self.headers().await?;
            let url = format!("{}{method}", self.url);
            let request = self.http.post(url).headers(headers).body(body.clone());
            exchange(request.timeout(CALL_TIMEOUT)).await
        })
    }

    async fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = match &self.credentials {
            Some(credentials) => {
                match timeout(CALL_TIMEOUT, credentials.headers(Extensions::new())).await {
                    Ok(Ok(CacheableResource::New { data, .. })) => data,
                    Ok(Ok(CacheableResource::NotModified)) => HeaderMap::new(),
                    Ok(Err(error)) => return Err(Failure::NotSent(error.to_string())),
                    Err(_) => return Err(Failure::NotSent("no token in time".to_owned())),
                }
            }
            // The emulator's word for who is above its rules.
            None => {
                HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer owner"))])
            }
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(headers)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A runtime that is dropped where others run is a panic; this waits for nothing.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Sends a request and takes the whole answer.
async fn exchange(request: reqwest::RequestBuilder) -> Result<Vec<u8>, Failure> {
    let unknown = |error: reqwest::Error| Failure::Unknown(causes(&error));
    let sent = request.send().await;
    let mut response = sent.map_err(|error| {
        // Nobody heard it when there was no connection.
        if error.is_connect() || error.is_builder() {
            Failure::NotSent(causes(&error))
        } else {
            unknown(error)
        }
    })?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unknown)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Failure::Unknown("the answer is too long".to_owned()));
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() { Ok(body) } else { Err(Failure::of_answer(status, &body)) }
}

/// The error without the URL, which says nothing new, and with its causes, which do.
fn causes(error: &reqwest::Error) -> String {
    let mut text =
        if error.is_timeout() { "no answer in time" } else { "request failed" }.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn page(answer: &[u8]) -> Result<Page, Failure> {
    let parts: Vec<Part> = serde_json::from_slice(answer)
        .map_err(|error| Failure::Unknown(format!("unreadable answer: {error}")))?;
    let mut page = Page { documents: Vec::with_capacity(parts.len()), read_time: String::new() };
    for part in parts {
        if let Some(error) = part.error {
            return Err(Failure::of_error(&error));
        }
        page.documents.extend(part.found);
        if let Some(read_time) = part.read_time {
            page.read_time = read_time;
        }
    }
    Ok(page)
}

/// How long and how often something is tried again.
pub(super) struct Patience {
    waits: ExponentialBackoff,
    until: Instant,
}

impl Patience {
    pub(super) fn new() -> Patience {
        let (min, max) = BACKOFF;
        let waits = ExponentialBuilder::new()
            .with_min_delay(min)
            .with_max_delay(max)
            .with_max_times(REPEATS_MAX)
            // Whoever lost against each other must not meet again.
            .with_jitter()
            .build();
        Patience { waits, until: Instant::now() + REPEAT_FOR }
    }

    /// Waits for the next try; false when there is none.
    pub(super) fn wait(&mut self) -> bool {
        match self.waits.next().filter(|wait| Instant::now() + *wait < self.until) {
            Some(wait) => {
                std::thread::sleep(wait);
                true
            }
            None => false,
        }
    }
}
