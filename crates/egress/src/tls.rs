//! TLS as it is spoken to every dependency.
//!
//! Owns: the provider, the roots, the protocol offered. Refuses to know: who is spoken to.

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::error::Error;

/// A connector that trusts the system's roots and those in `extra_roots`, which is PEM and may be
/// empty; `protocol` is what it offers to speak. One is shared by all dependencies that are asked
/// over HTTP, and with it the sessions that can be resumed.
pub(crate) fn connector(
    extra_roots: &[u8],
    protocol: Option<&[u8]>,
) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(extra_roots) {
        let certificate = certificate.map_err(|error| Error::Roots(Box::new(error)))?;
        roots.add(certificate).map_err(|error| Error::Roots(Box::new(error)))?;
    }
    if roots.is_empty() && !extra_roots.trim_ascii().is_empty() {
        return Err(Error::Roots("there is no certificate in them".into()));
    }
    let native = rustls_native_certs::load_native_certs();
    // A system's list may well hold a few that nobody can read; they are not trusted, and that is
    // all.
    let (_, ignored) = roots.add_parsable_certificates(native.certs);
    if ignored > 0 || !native.errors.is_empty() {
        tracing::info!(
            event = "roots_ignored",
            ignored,
            unread = native.errors.len(),
            "some of the system's root certificates cannot be used"
        );
    }
    if roots.is_empty() {
        return Err(Error::NoRoots);
    }
    // Named here and not taken from the process: another library may have set a default.
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocol.map(<[u8]>::to_vec).into_iter().collect();
    Ok(TlsConnector::from(Arc::new(config)))
}
