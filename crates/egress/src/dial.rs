//! How a connection is made.
//!
//! Owns: resolving, the check of what was resolved, dialling, TLS. Refuses to know: how long it may
//! take as a whole, and what is sent.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Instant;

use engine::outbound::SendError;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;

use crate::base::Base;
use crate::connection::{Connection, Stream};
use crate::failure::Failure;

/// Names are looked up on threads that others need too, and a look-up cannot be called off.
const LOOKUPS_MAX: usize = 4;

/// Addresses that one attempt tries.
const ADDRESSES_MAX: usize = 8;

/// What the system takes in for somebody who does not read; it doubles the number for its own
/// needs. Left to itself it goes up to several MiB for each connection.
const RECEIVE_BYTES: u32 = 128 * 1024;

/// Makes connections to one dependency.
pub(crate) struct Dialer {
    host: Arc<str>,
    port: u16,
    base: Arc<Base>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    lookups: Arc<Semaphore>,
}

impl Dialer {
    /// `tls` is there where the base address asks for it. `None` where the host cannot be a name in
    /// a certificate.
    pub(crate) fn new(base: Arc<Base>, tls: Option<TlsConnector>) -> Option<Dialer> {
        let tls = match tls {
            Some(connector) => Some((connector, ServerName::try_from(base.host.clone()).ok()?)),
            None => None,
        };
        Some(Dialer {
            host: base.host.as_str().into(),
            port: base.port,
            base,
            tls,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        })
    }

    /// Makes a connection. The caller stops waiting at `until`; it is known here so that one dead
    /// address out of several does not use all the time up.
    pub(crate) async fn connect(&self, until: Instant) -> Result<Box<Connection>, Failure> {
        Connection::open(self.socket(until).await?).await
    }

    /// The same, without HTTP on it.
    pub(crate) async fn socket(&self, until: Instant) -> Result<Stream, Failure> {
        let mut addresses = self.resolve().await?;
        let found = addresses.len();
        addresses.retain(|address| self.base.reach.permits(address.ip()));
        if addresses.is_empty() && found > 0 {
            return Err(Failure::new(SendError::Connect, "its address is not one to go to"));
        }
        addresses.truncate(ADDRESSES_MAX);
        let socket = first_to_answer(&addresses, until).await?;
        Ok(match &self.tls {
            None => Either::Left(socket),
            Some((connector, name)) => Either::Right(
                connector
                    .connect(name.clone(), socket)
                    .await
                    .map_err(|error| Failure::tls(&error))?,
            ),
        })
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let failed = || Failure::new(SendError::Dns, "the name does not resolve");
        let place = Arc::clone(&self.lookups).acquire_owned().await.map_err(|_| failed())?;
        let (host, port) = (Arc::clone(&self.host), self.port);
        // The runtime's own look-up does the same, but would not hold the place to the end of one
        // that nobody waits for any more.
        let found = tokio::task::spawn_blocking(move || {
            let _place = place;
            (&*host, port).to_socket_addrs().map(Vec::from_iter)
        });
        match found.await {
            Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
            _ => Err(failed()),
        }
    }
}

async fn first_to_answer(addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, Failure> {
    let mut failure = Failure::new(SendError::Connect, "there is no address");
    for (tried, address) in addresses.iter().enumerate() {
        let left = addresses.len() - tried;
        if left == 1 {
            return dial(*address).await;
        }
        let now = crate::egress::now();
        let share = until.saturating_duration_since(now) / u32::try_from(left).unwrap_or(1);
        match tokio::time::timeout(share, dial(*address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(failed)) => failure = failed,
            Err(_) => failure = Failure::new(SendError::Connect, "an address does not answer"),
        }
    }
    Err(failure)
}

async fn dial(address: SocketAddr) -> Result<TcpStream, Failure> {
    let dial = async {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
        let socket = socket.connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    };
    dial.await.map_err(|error| Failure::connect(&error))
}
