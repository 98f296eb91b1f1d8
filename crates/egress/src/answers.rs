//! A Redis server that keeps answers.
//!
//! Owns: one connection to it, how long it is waited for, and that it is left alone while it is
//! away. Refuses to know: what is kept there, and what becomes of a call without it.
//!
//! Here there is a task behind the connection: many calls share it, and none of them may wait for
//! it to be made. While there is none, whoever asks is told so at once.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use engine::ai::cache::{AnswerStore, Away};
use engine::outbound::Boxed;
use engine::supervise::{Stop, Worker};
use http::HeaderValue;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo};
use tokio::sync::Notify;

use crate::address::Reach;
use crate::base::Base;
use crate::dial::Dialer;
use crate::error::Error;
use crate::tls;

/// The longest wait for an answer: a cache that takes longer is none.
const DEADLINE: Duration = Duration::from_millis(50);
/// The longest wait for a connection, TLS and the password included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a server that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);

const NAME: &str = "redis";

/// A Redis server that keeps answers.
#[derive(Clone)]
pub struct RedisAnswers(Arc<Shared>);

struct Shared {
    dialer: Dialer,
    info: RedisConnectionInfo,
    link: Mutex<Link>,
}

#[derive(Default)]
struct Link {
    connection: Option<Connected>,
    /// The log says that it is away.
    is_away: bool,
    /// The log says that it refuses, since the connection was made.
    refuses: bool,
}

/// One connection, and who is told that it is of no use.
#[derive(Clone)]
struct Connected(MultiplexedConnection, Arc<Notify>);

impl RedisAnswers {
    /// A server at `redis(s)://[user:password@]host[:port][/database]`. Without TLS it is looked
    /// for on this machine and on private networks only: what is kept there are answers in clear
    /// text.
    ///
    /// # Errors
    /// [`Error::Base`], never with the address, which may hold a password; or what TLS lacks.
    pub fn new(url: &str, extra_roots: &[u8]) -> Result<RedisAnswers, Error> {
        let fault = |why| Error::Base { name: NAME, why };
        let (is_tls, plain) = match url.strip_prefix("rediss://") {
            // TLS is ours, as for every dependency; the library is handed a finished connection.
            Some(rest) => (true, format!("redis://{rest}")),
            None => (false, url.to_owned()),
        };
        if plain.contains('#') {
            return Err(fault("it has more than user, password, host, port and database"));
        }
        let info = plain.into_connection_info().map_err(|_| fault("it is not a URL of Redis"))?;
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(fault("it is not a URL of Redis"));
        };
        let base = Base {
            is_tls,
            host: host.trim_matches(['[', ']']).to_owned(),
            port: *port,
            host_header: HeaderValue::from_static(""),
            path: String::new(),
            reach: if is_tls { Reach::Any } else { Reach::Inside },
        };
        let connector = if is_tls { Some(tls::connector(extra_roots, None)?) } else { None };
        let dialer = Dialer::new(Arc::new(base), connector);
        Ok(RedisAnswers(Arc::new(Shared {
            dialer: dialer.ok_or(fault("its host cannot be in a certificate"))?,
            info: info.redis_settings().clone(),
            link: Mutex::default(),
        })))
    }

    /// What keeps a connection to it.
    #[must_use]
    pub fn worker(&self) -> Worker {
        let shared = Arc::clone(&self.0);
        Worker::task("redis_link", move |stop| hold(Arc::clone(&shared), stop))
    }
}

async fn hold(shared: Arc<Shared>, mut stop: Stop) {
    loop {
        tokio::select! {
            () = stop.asked() => break,
            () = shared.life() => {}
        }
        tokio::select! {
            () = stop.asked() => break,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    shared.link().connection = None;
}

impl Shared {
    /// Never held over anything that waits.
    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection, from its making to its end.
    async fn life(&self) {
        let connect = async {
            let until = crate::egress::now() + CONNECT;
            let socket = self.dialer.socket(until).await.map_err(|failure| failure.why)?;
            let connected = MultiplexedConnection::new(&self.info, socket).await;
            // What the server wrote is not repeated: it may hold the name of a user.
            connected.map_err(|_| Cow::Borrowed("it does not let us in"))
        };
        let (connection, driver) = match tokio::time::timeout(CONNECT, connect).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(why)) => return self.lost(&why),
            Err(_) => return self.lost("it does not answer"),
        };
        // Of this connection alone: what is said of an earlier one must not end the next.
        let broken = Arc::new(Notify::new());
        self.found(Connected(connection, Arc::clone(&broken)));
        tokio::select! {
            () = driver => self.lost("the connection has ended"),
            () = broken.notified() => {}
        }
    }

    fn found(&self, connection: Connected) {
        let mut link = self.link();
        *link = Link { connection: Some(connection), ..Link::default() };
        drop(link);
        tracing::info!(event = "redis_up", "Redis keeps answers of models");
    }

    fn lost(&self, why: &str) {
        let mut link = self.link();
        link.connection = None;
        let was_away = std::mem::replace(&mut link.is_away, true);
        drop(link);
        if !was_away {
            tracing::warn!(
                event = "redis_away",
                "Redis is away, models are asked each time: {why}"
            );
        }
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Away> {
        let Connected(mut connection, broken) = self.link().connection.clone().ok_or(Away)?;
        let answer = tokio::time::timeout(DEADLINE, command.query_async(&mut connection)).await;
        let why = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) if !error.is_unrecoverable_error() => {
                let has_said = std::mem::replace(&mut self.link().refuses, true);
                if !has_said {
                    let code = error.code().unwrap_or("none");
                    tracing::warn!(event = "redis_refuses", code, "Redis refuses a command");
                }
                return Err(Away);
            }
            Ok(Err(_)) => "the connection has failed",
            Err(_) => "it did not answer in time",
        };
        // By the first of those who wait on this connection; the others find it gone.
        let is_its = |Connected(_, current): &Connected| Arc::ptr_eq(current, &broken);
        if self.link().connection.as_ref().is_some_and(is_its) {
            self.lost(why);
            broken.notify_one();
        }
        Err(Away)
    }
}

impl AnswerStore for RedisAnswers {
    fn find(&self, key: String) -> Boxed<'_, Result<Option<Bytes>, Away>> {
        Box::pin(async move {
            let mut command = redis::cmd("GET");
            command.arg(key);
            let value: Option<Vec<u8>> = self.0.ask(&command).await?;
            Ok(value.map(Bytes::from))
        })
    }

    fn keep(&self, key: String, value: Bytes, time: Duration) -> Boxed<'_, Result<(), Away>> {
        Box::pin(async move {
            let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let mut command = redis::cmd("SET");
            command.arg(key).arg(&value[..]).arg("PX").arg(time_ms);
            self.0.ask(&command).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_redis() {
        for url in ["redis://localhost", "redis://u:p@10.0.0.1:6380/2", "redis://:p@[::1]:6379"] {
            assert!(RedisAnswers::new(url, &[]).is_ok(), "{url}");
        }
        for url in ["", "http://h", "redis://", "redis://h/x", "redis://h#insecure", "unix:///r"] {
            let error = RedisAnswers::new(url, &[]).err().unwrap();
            assert!(error.to_string().contains("redis"), "{url}: {error}");
        }
        let secret = "redis://user:hunter2@h/not-a-number";
        let error = RedisAnswers::new(secret, &[]).err().unwrap();
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}
