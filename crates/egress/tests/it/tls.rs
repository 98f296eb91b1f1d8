//! Who is believed to be the one that was called.

use std::sync::Arc;

use egress::{Dependency, Egress, Error, Policy};
use engine::outbound::{Clock, SendError};
use telemetry::metrics::Metrics;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::server::{OK, Server};
use crate::world::{SHORT, World, attempt, clocked, dependency};

/// A server's certificate for `name`, made for this test, and the root that vouches for it.
pub(crate) fn identity(name: &str) -> (TlsAcceptor, String) {
    let made =
        rcgen::generate_simple_self_signed([name.trim_matches(['[', ']']).to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), made.cert.pem())
}

async fn server(acceptor: TlsAcceptor) -> Server {
    Server::with(Some(acceptor), |mut line, _| async move {
        while line.request().await.is_some() {
            line.send(OK).await;
        }
    })
    .await
}

fn world(server: &Server, roots: &str) -> World {
    let base = Dependency {
        is_private_allowed: true,
        ..dependency(format!("https://localhost:{}", server.address.port()))
    };
    World::trusting(base, Policy::default(), roots.as_bytes())
}

#[tokio::test]
async fn a_certificate_that_is_vouched_for_is_believed() {
    let (acceptor, root) = identity("localhost");
    let server = server(acceptor).await;
    let world = world(&server, &root);
    for _ in 0..3 {
        assert_eq!(world.call().await.unwrap(), "{}");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not() {
    let (acceptor, root) = identity("elsewhere.example");
    let server = server(acceptor).await;
    let world = world(&server, &root);
    let error = world.failure(attempt()).await;
    assert_eq!(error, SendError::Tls);
    assert!(error.is_unsent());
    assert_eq!(world.failures(), 1);
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not() {
    let (acceptor, _) = identity("localhost");
    let (_, other) = identity("localhost");
    let server = server(acceptor).await;
    assert_eq!(world(&server, &other).failure(attempt()).await, SendError::Tls);
}

#[tokio::test]
async fn a_server_without_tls_is_not() {
    let (_, root) = identity("localhost");
    for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
        let server = Server::start(move |mut line, _| async move {
            line.send(answer).await;
        })
        .await;
        assert_eq!(world(&server, &root).failure(attempt()).await, SendError::Tls);
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_ended_by_the_connect_clock() {
    let (_, root) = identity("localhost");
    let server = Server::start(|line, _| line.hang()).await;
    let base = Dependency {
        is_private_allowed: true,
        connect: SHORT,
        ..dependency(format!("https://localhost:{}", server.address.port()))
    };
    let world = World::trusting(base, Policy::default(), root.as_bytes());
    let error = world.failure(attempt()).await;
    assert_eq!(error, SendError::Timeout(Clock::Connect));
    assert!(error.is_unsent());
    assert_eq!(world.failures(), 1);
    let error = world.failure(clocked(SHORT, SHORT, SHORT / 2)).await;
    assert_eq!(error, SendError::Timeout(Clock::Deadline));
    assert_eq!(world.failures(), 1, "there was less time than the connect clock gives");
}

#[tokio::test]
async fn a_body_cut_within_tls_is_cut() {
    let (acceptor, root) = identity("localhost");
    let server = Server::with(Some(acceptor), |mut line, _| async move {
        // Its end is the connection's, which TLS must vouch for, and nobody does.
        line.answer("HTTP/1.1 200 OK\r\n\r\nsome").await;
    })
    .await;
    assert_eq!(world(&server, &root).call().await.unwrap_err(), SendError::Reset);
}

#[test]
fn roots_that_cannot_be_read_are_refused() {
    let metrics = Metrics::new().unwrap();
    let base = dependency("https://example.com".to_owned());
    for roots in
        ["no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
    {
        let made =
            Egress::new(std::slice::from_ref(&base), Policy::default(), roots.as_bytes(), &metrics);
        assert!(matches!(made.err().unwrap(), Error::Roots(_)), "{roots}");
    }
}
