//! Reading a whole ledger, also one that running services write.
//!
//! Owns: one consistent view, the order of the ledger, the check of each writer's log and of what
//! the fence says. Refuses to know: what an intact receipt is; that is the verifier's word, so
//! nothing here stops at a strange row.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use engine::ports::{Identity, ReadError};
use ledger::head::next_root;
use ledger::verify::{Finding, Verdict};
use ledger::{LedgerId, Row};
use types::{Hash, ReceiptId, StreamName};

use super::error::{ConnectError, Failure};
use super::link::{CALL_TIMEOUT, Link, Session};
use super::schema::Wanted;
use super::{Options, rows, schema};

/// Rows of one round trip: at most 16 MiB.
const PAGE_ROWS: i64 = 1_000;

// Pages by what the index holds, so that each statement is short however large the ledger is.
const ALL: &str = "
SELECT pos, seq, id, hash, chain_hash, core, stream, log, log_pos FROM receipts
WHERE pos > $1 ORDER BY pos LIMIT $2";

const OF_STREAM: &str = "
SELECT pos, seq, id, hash, chain_hash, core, stream, log, log_pos FROM receipts
WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3";

const LOGS: &str = "SELECT no, size, root FROM logs ORDER BY no";

const LIVE_LOGS: &str = "SELECT no FROM logs WHERE lease_until > clock_timestamp() LIMIT 1";

const STREAMS: &str = "SELECT no, name, next_seq, last_hash FROM streams ORDER BY no";

/// A read-only view of a ledger as it was at one moment.
pub struct PgReader {
    // Before the link, whose thread drives it.
    session: Session,
    link: Link,
    identity: Identity,
    logs: BTreeMap<i64, Log>,
    streams: BTreeMap<i64, Stream>,
}

/// What a writer's log says of itself, and what was seen of it.
#[derive(Clone)]
struct Log {
    size: u64,
    root: Hash,
    seen: u64,
    running: Hash,
}

/// What the fence says of a stream, and what was seen of it.
#[derive(Clone)]
struct Stream {
    name: String,
    next_seq: u64,
    last_hash: Option<Hash>,
    seen: u64,
    newest: Option<Hash>,
}

impl PgReader {
    /// Connects and fixes the view.
    ///
    /// # Errors
    /// [`ConnectError::Missing`] when the database holds no ledger, and as
    /// [`super::PgStore::connect`].
    pub fn connect(options: &Options) -> Result<PgReader, ConnectError> {
        super::link::apart(|| PgReader::open(options))
    }

    fn open(options: &Options) -> Result<PgReader, ConnectError> {
        let link = Link::new(options)?;
        let deadline = Instant::now() + CALL_TIMEOUT;
        let open = link.wait(deadline, link.open("export"));
        let mut session = open.map_err(ConnectError::from("connect to the database"))?;
        let identity = schema::identity(&link, &mut session, Wanted::Present)?;
        let fix = async {
            let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
            session.client.batch_execute(begin).await?;
            Ok((logs(&mut session).await?, streams(&mut session).await?))
        };
        let fixed = link.wait(Instant::now() + CALL_TIMEOUT, fix);
        let (logs, streams) = fixed.map_err(ConnectError::from("begin to read the ledger"))?;
        Ok(PgReader { session, link, identity, logs, streams })
    }

    /// The ledger's id.
    #[must_use]
    pub fn ledger(&self) -> LedgerId {
        self.identity.ledger
    }

    /// The ledger's name and secret, for a copy of it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// True when one of its writers was alive as of the view, and still would be.
    ///
    /// # Errors
    /// When the database cannot be read further.
    pub fn is_written(&mut self) -> Result<bool, ReadError> {
        Ok(!self.page(LIVE_LOGS, &[])?.is_empty())
    }

    /// Receipts that the logs of all writers count together.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.logs.values().fold(0, |sum, log| sum.saturating_add(log.size))
    }

    /// Hands every receipt to `take` in the order of the ledger, with its rank as position, until
    /// it breaks; or every one of a stream by seq, with the position that is stored. Gives what is
    /// wrong with the writers' logs and with the fence: for a whole ledger that was read to its
    /// end. What cannot be arrives as something that no intact receipt has, so that the verifier
    /// finds it.
    ///
    /// # Errors
    /// When the database cannot be read further.
    pub fn for_each(
        &mut self,
        stream: Option<&StreamName>,
        take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Finding>, ReadError> {
        match stream {
            None => self.whole(take),
            Some(stream) => self.one(stream, take).map(|()| Vec::new()),
        }
    }

    fn whole(
        &mut self,
        take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Finding>, ReadError> {
        let (mut logs, mut streams) = (self.logs.clone(), self.streams.clone());
        let mut findings = Vec::new();
        let (mut rank, mut last) = (0, i64::MIN);
        loop {
            let page = self.page(ALL, &[&last, &PAGE_ROWS])?;
            for row in &page {
                rank += 1;
                last = number(row, 0);
                let stream = streams.get_mut(&number(row, 6));
                let receipt = receipt(row, rank, stream.as_ref().map_or("", |s| &s.name));
                findings.extend(check_log(&mut logs, row, &receipt));
                let taken = take(&receipt);
                let hash = receipt.hash;
                if let Some(stream) = stream {
                    stream.seen += 1;
                    stream.newest = Some(hash);
                }
                if taken.is_break() {
                    return Ok(findings);
                }
            }
            if (page.len() as i64) < PAGE_ROWS {
                break;
            }
        }
        findings.extend(logs.iter().filter_map(|(no, log)| log.finding(*no)));
        findings.extend(streams.values().filter_map(Stream::finding));
        Ok(findings)
    }

    fn one(
        &mut self,
        stream: &StreamName,
        take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let found = self.streams.iter().find(|(_, found)| found.name == stream.as_str());
        let Some((no, _)) = found else { return Ok(()) };
        let (no, mut last) = (*no, i64::MIN);
        loop {
            let page = self.page(OF_STREAM, &[&no, &last, &PAGE_ROWS])?;
            for row in &page {
                last = number(row, 1);
                if take(&receipt(row, counted(row, 0), stream.as_str())).is_break() {
                    return Ok(());
                }
            }
            if (page.len() as i64) < PAGE_ROWS {
                return Ok(());
            }
        }
    }

    fn page(
        &mut self,
        sql: &'static str,
        params: super::link::Params<'_>,
    ) -> Result<Vec<tokio_postgres::Row>, ReadError> {
        let PgReader { session, link, .. } = self;
        let page = link.wait(Instant::now() + CALL_TIMEOUT, session.rows(sql, params));
        page.map_err(|failure| failure.read_error())
    }
}

impl Log {
    /// What is wrong at the end. A log has no stream: it is named in place of one.
    fn finding(&self, no: i64) -> Option<Finding> {
        let (verdict, what) = if self.seen < self.size {
            (Verdict::AllPresent, "the writer's log counts more receipts: its tail is missing")
        } else if self.seen > self.size {
            (Verdict::ChainUnbroken, "the writer's log counts fewer receipts than there are")
        } else if self.running != self.root {
            (Verdict::ChainUnbroken, "the writer's log has another root for its receipts")
        } else {
            return None;
        };
        Some(Finding { verdict, pos: 0, stream: format!("log {no}"), seq: self.size, what })
    }
}

impl Stream {
    fn finding(&self) -> Option<Finding> {
        let (verdict, what) = if self.seen < self.next_seq {
            (Verdict::AllPresent, "the stream was longer: its tail is missing")
        } else if self.seen > self.next_seq || self.newest != self.last_hash {
            (Verdict::ChainUnbroken, "the stream ends otherwise than the fence says")
        } else {
            return None;
        };
        Some(Finding { verdict, pos: 0, stream: self.name.clone(), seq: self.next_seq, what })
    }
}

/// Positions of a log go up by one, however those of other logs lie between them.
fn check_log(
    logs: &mut BTreeMap<i64, Log>,
    row: &tokio_postgres::Row,
    receipt: &Row<'_>,
) -> Option<Finding> {
    let found = |verdict, what| {
        let stream = receipt.stream.to_owned();
        Some(Finding { verdict, pos: receipt.pos, stream, seq: receipt.seq, what })
    };
    let Some(log) = logs.get_mut(&number(row, 7)) else {
        return found(Verdict::ChainUnbroken, "filed under a log that does not exist");
    };
    let place = counted(row, 8);
    let expected = log.seen + 1;
    log.seen = place;
    log.running = next_root(log.running, receipt.hash);
    match place.cmp(&expected) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => {
            found(Verdict::AllPresent, "receipts of its writer's log are missing before this")
        }
        std::cmp::Ordering::Less => {
            found(Verdict::NoDuplicates, "a position of its writer's log stands twice")
        }
    }
}

async fn logs(session: &mut Session) -> Result<BTreeMap<i64, Log>, Failure> {
    let found = session.rows(LOGS, &[]).await?;
    let log = |row: &tokio_postgres::Row| {
        let (size, root) = (rows::unsigned(row, 1)?, Hash(rows::bytes(row, 2)?));
        Ok((rows::get(row, 0)?, Log { size, root, seen: 0, running: Hash::ZERO }))
    };
    found.iter().map(log).collect()
}

async fn streams(session: &mut Session) -> Result<BTreeMap<i64, Stream>, Failure> {
    let found = session.rows(STREAMS, &[]).await?;
    let stream = |row: &tokio_postgres::Row| {
        let last: Option<&[u8]> = rows::get(row, 3)?;
        let last_hash = last.map(|hash| Hash(hash.try_into().unwrap_or_default()));
        let (name, next_seq) = (rows::get(row, 1)?, rows::unsigned(row, 2)?);
        Ok((rows::get(row, 0)?, Stream { name, next_seq, last_hash, seen: 0, newest: None }))
    };
    found.iter().map(stream).collect()
}

fn receipt<'a>(row: &'a tokio_postgres::Row, pos: u64, stream: &'a str) -> Row<'a> {
    Row {
        pos,
        stream,
        stream_no: None,
        seq: counted(row, 1),
        id: ReceiptId(sized(row, 2)),
        hash: Hash(sized(row, 3)),
        chain_hash: Hash(sized(row, 4)),
        core: row.try_get::<_, &str>(5).unwrap_or_default().as_bytes(),
    }
}

fn number(row: &tokio_postgres::Row, column: usize) -> i64 {
    row.try_get(column).unwrap_or(i64::MIN)
}

/// What cannot be a count becomes the largest one, which no receipt's bytes say.
fn counted(row: &tokio_postgres::Row, column: usize) -> u64 {
    u64::try_from(number(row, column)).unwrap_or(i64::MAX.cast_unsigned())
}

fn sized<const N: usize>(row: &tokio_postgres::Row, column: usize) -> [u8; N] {
    let bytes: &[u8] = row.try_get(column).unwrap_or_default();
    bytes.try_into().unwrap_or([0; N])
}
