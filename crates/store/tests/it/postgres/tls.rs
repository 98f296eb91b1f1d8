//! TLS: a server's certificate is verified, against the system's store or `SSL_CERT_FILE`.

use std::error::Error as _;
use std::process::Command;
use std::time::{Duration, Instant};

use store::postgres::{ConnectError, PgReader, PgStore};
use testkit::postgres::Cluster;
use testkit::store::author::{Author, note, stream};

use super::{MISSING, options};

/// Run by the server, in its folder and as its user.
const MAKE_CERTIFICATE: &str = "COPY (SELECT 1) TO PROGRAM 'openssl req -x509 -newkey rsa:2048 \
    -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
    -addext basicConstraints=critical,CA:FALSE -keyout server.key -out server.crt 2>openssl.log'";

/// Set where the test runs itself as a client that trusts the server.
const TRUSTING: &str = "POSTGRES_TLS_URL";

/// Runs itself, because what is trusted is read from the environment.
#[test]
fn only_a_server_with_a_trusted_certificate_is_spoken_to() {
    if let Some(url) = std::env::var_os(TRUSTING) {
        let store = PgStore::connect(&options(url.into_string().unwrap())).unwrap();
        Author::of(&store).append(&store, &[(&stream("a"), note())]);
        return;
    }
    let Some(cluster) = Cluster::start().unwrap() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let url = |mode: &str| format!("{}?sslmode={mode}", cluster.url(&database));
    let refused = |mode: &str| match PgStore::connect(&options(url(mode))) {
        Ok(_) => panic!("{mode} was connected"),
        Err(error) => error,
    };
    // Required, and not offered.
    assert!(matches!(refused("require"), ConnectError::Sql { .. } | ConnectError::Certificates));

    cluster.sql("postgres", MAKE_CERTIFICATE).unwrap();
    cluster.sql("postgres", "ALTER SYSTEM SET ssl = on").unwrap();
    cluster.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while cluster
        .sql("postgres", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .unwrap()
        != "t"
    {
        assert!(Instant::now() < deadline, "the server does not offer TLS");
    }
    for mode in ["require", "prefer"] {
        let error = refused(mode);
        let cause = error.source().and_then(std::error::Error::source).map(ToString::to_string);
        assert!(
            matches!(error, ConnectError::Certificates)
                || cause.as_ref().is_some_and(|cause| cause.contains("certificate")),
            "{error:?}"
        );
    }

    let scratch = tempfile::tempdir().unwrap();
    let trusted = scratch.path().join("server.crt");
    let certificate = cluster.sql("postgres", "SELECT pg_read_file('server.crt')").unwrap();
    std::fs::write(&trusted, certificate + "\n").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "postgres::tls::only_a_server_with_a_trusted_certificate_is_spoken_to"])
        .env(TRUSTING, url("require"))
        .env("SSL_CERT_FILE", &trusted)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{output:?}");
    let plain = format!("{}?sslmode=disable", cluster.url(&database));
    drop(PgStore::connect(&options(plain)).unwrap());
    let size = PgReader::connect(&options(cluster.socket_url(&database))).unwrap().size();
    assert_eq!(size, 1, "what the trusting client wrote");
}
