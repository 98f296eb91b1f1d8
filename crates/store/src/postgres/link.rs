//! Connections, and the end of every wait on one.
//!
//! Owns: the runtime that drives connections, TLS, how a session is tuned, deadlines, and the few
//! sessions that readers share. Refuses to know: tables.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::ports::ReadError;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::AbortHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::Options;
use super::error::{ConnectError, Failure};

/// One call of the port waits this long for the server, connecting included.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// One address has this long to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The server itself gives a statement up after this many milliseconds. Less than
/// [`CALL_TIMEOUT`], so that a slow statement is undone by a server that says so, and only a dead
/// one leaves an outcome open.
const STATEMENT_TIMEOUT_MS: u32 = 4_000;

/// Every statement is a look-up in an index, also while the statistics of a young table still call
/// it empty; none of them is worth compiling. `ledger_append` looks again behind each lock it
/// waited for, which a stricter isolation would forbid.
const TUNE: &str = "SET enable_seqscan = off; SET jit = off; SET bytea_output = 'hex';
    SET default_transaction_isolation = 'read committed'";

/// The values of a statement.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Runs `work` on a thread of its own, since a thread that drives another runtime may not wait for
/// this one. For opening, which a service does in the middle of its start.
pub(super) fn apart<T: Send>(
    work: impl FnOnce() -> Result<T, ConnectError> + Send,
) -> Result<T, ConnectError> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("postgres-open".to_owned());
        let opening = builder.spawn_scoped(scope, work).map_err(ConnectError::Thread)?;
        opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// How to reach the server, and the thread that drives the connections to it.
pub(super) struct Link {
    // `None` only while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl Link {
    pub(super) fn new(options: &Options) -> Result<Link, ConnectError> {
        let mut config: Config = options.url.parse().map_err(|_| ConnectError::Url)?;
        if config.get_application_name().is_none() {
            config.application_name("tai");
        }
        if config.get_target_session_attrs() == TargetSessionAttrs::Any {
            // Of several addresses the primary: a standby may not have what was acknowledged.
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.connect_timeout(CONNECT_TIMEOUT).tcp_user_timeout(CALL_TIMEOUT);
        let tls = tls(&config)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postgres")
            .enable_all()
            .build()
            .map_err(ConnectError::Thread)?;
        Ok(Link { handle: runtime.handle().clone(), runtime: Some(runtime), config, tls })
    }

    /// Waits for `work`, at most until `deadline`.
    pub(super) fn wait<T>(
        &self,
        deadline: Instant,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.handle.block_on(async {
            let timed = tokio::time::timeout_at(deadline.into(), work);
            timed.await.unwrap_or(Err(Failure::TimedOut))
        })
    }

    /// Runs `work` on the driving thread and waits for it without entering the runtime: also from
    /// inside another runtime, as a drop may be.
    pub(super) fn finish(&self, limit: Duration, work: impl Future<Output = ()> + Send + 'static) {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        self.handle.spawn(async move {
            let _ = tokio::time::timeout(limit, work).await;
            let _ = done.try_send(());
        });
        let _ = wait.recv_timeout(limit);
    }

    /// Opens a session that the server lists as `role`.
    pub(super) async fn open(&self, role: &str) -> Result<Session, Failure> {
        let mut config = self.config.clone();
        let service = config.get_application_name().unwrap_or_default().to_owned();
        config.application_name(format!("{service} {role}"));
        // These tasks end with their connection, and have nothing to drain.
        let (client, driver) = if let Some(tls) = &self.tls {
            let (client, connection) = config.connect(tls.clone()).await?;
            (client, self.handle.spawn(async move { drop(connection.await) }))
        } else {
            let (client, connection) = config.connect(NoTls).await?;
            (client, self.handle.spawn(async move { drop(connection.await) }))
        };
        let driver = driver.abort_handle();
        let session = Session { client, driver, statements: HashMap::new() };
        let tune = format!("{TUNE}; SET statement_timeout = {STATEMENT_TIMEOUT_MS}");
        session.client.batch_execute(&tune).await?;
        Ok(session)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Waiting for the thread is a panic when this happens inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Certificates are read only where a server may ask for them.
fn tls(config: &Config) -> Result<Option<MakeRustlsConnect>, ConnectError> {
    let remote = config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(_)));
    if !remote || config.get_ssl_mode() == SslMode::Disable {
        return Ok(None);
    }
    match MakeRustlsConnect::with_native_certs() {
        Ok((tls, _)) => Ok(Some(tls)),
        Err(_) if config.get_ssl_mode() == SslMode::Prefer => Ok(None),
        Err(_) => Err(ConnectError::Certificates),
    }
}

/// A connection with the statements that were prepared on it.
pub(super) struct Session {
    pub(super) client: Client,
    driver: AbortHandle,
    statements: HashMap<&'static str, Statement>,
}

impl Session {
    pub(super) async fn prepare(&mut self, sql: &'static str) -> Result<Statement, Failure> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    pub(super) async fn rows(
        &mut self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let statement = self.prepare(sql).await?;
        Ok(self.client.query(&statement, params).await?)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // A driver that was left alone would wait for the answers of a server that hangs.
        self.driver.abort();
    }
}

/// A few sessions, opened when they are first needed, shared by however many threads ask.
pub(super) struct Pool {
    link: Arc<Link>,
    role: &'static str,
    inside: Mutex<Inside>,
    returned: Condvar,
}

struct Inside {
    idle: Vec<Session>,
    /// How many more may be lent.
    places: usize,
}

impl Pool {
    pub(super) fn new(link: &Arc<Link>, role: &'static str, places: usize) -> Pool {
        let inside = Mutex::new(Inside { idle: Vec::new(), places });
        Pool { link: Arc::clone(link), role, inside, returned: Condvar::new() }
    }

    /// Lends a session to `work`, waiting for one if all are lent. `work` changes nothing, or
    /// nothing more when it is done twice: on a session that turns out to be dead it is done again.
    pub(super) fn with<T>(
        &self,
        work: &impl AsyncFn(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let mut place = self.take(deadline)?;
        loop {
            let lent = place.session.take().filter(|session| !session.is_closed());
            let is_new = lent.is_none();
            let mut session = match lent {
                Some(session) => session,
                None => self.link.wait(deadline, self.link.open(self.role))?,
            };
            let outcome = self.link.wait(deadline, work(&mut session));
            let usable = match &outcome {
                Ok(_) | Err(Failure::Impossible(_)) => true,
                // Other refusals may be the session's own: of a standby, or of what was prepared.
                Err(failure) => failure.was_too_slow(),
            };
            if usable {
                place.session = Some(session);
                return outcome;
            }
            if is_new || matches!(outcome, Err(Failure::TimedOut)) {
                return outcome;
            }
        }
    }

    /// [`Pool::with`] for the port's reads.
    pub(super) fn read<T>(
        &self,
        work: &impl AsyncFn(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, ReadError> {
        self.with(work).map_err(|failure| failure.read_error())
    }

    fn take(&self, deadline: Instant) -> Result<Place<'_>, Failure> {
        let mut inside = self.lock();
        while inside.places == 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Failure::TimedOut);
            }
            let waited = self.returned.wait_timeout(inside, left);
            inside = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        inside.places -= 1;
        Ok(Place { session: inside.idle.pop(), pool: self })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives the place back also when the work panics.
struct Place<'a> {
    pool: &'a Pool,
    session: Option<Session>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inside = self.pool.lock();
        inside.places += 1;
        inside.idle.extend(self.session.take());
        self.pool.returned.notify_one();
    }
}
