//! Keys for the callers of a measurement.
//!
//! Owns: how a service is started that needs them, and how they are asked for. Refuses to know:
//! what they are used for.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use testkit::http::Client;

/// Bytes of chance in an operator's key.
const KEY_BYTES: usize = 32;

/// A text that nobody guesses: the operator's key of one service.
pub(crate) fn chance() -> Result<String> {
    let mut random = [0; KEY_BYTES];
    getrandom::fill(&mut random).context("the system gives no random numbers")?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The settings of a service that needs keys.
pub(crate) fn required(admin: &str) -> [(&'static str, &str); 2] {
    [("AUTH_REQUIRED", "true"), ("ADMIN_API_KEY", admin)]
}

/// Who asks for keys.
pub(crate) struct Issuer {
    client: Client,
    bearer: String,
}

impl Issuer {
    pub(crate) fn connect(address: SocketAddr, admin: &str) -> Result<Issuer> {
        Ok(Issuer { client: Client::connect(address)?, bearer: format!("Bearer {admin}") })
    }

    /// A key of `tenant`.
    pub(crate) fn issue(&mut self, tenant: &str) -> Result<String> {
        let headers = [("Content-Type", "application/json"), ("Authorization", &*self.bearer)];
        let body = format!("{{\"tenant_id\":\"{tenant}\"}}");
        let response = self.client.request("POST", "/admin/keys", &headers, body.as_bytes())?;
        ensure!(response.status == 201, "a key was refused: {}", response.status);
        let answer: serde_json::Value = serde_json::from_slice(&response.body)?;
        let key = answer.get("key").and_then(serde_json::Value::as_str);
        Ok(key.context("an answer without a key")?.to_owned())
    }
}
