//! The service with fake providers behind it and a tenant in front.
//!
//! Owns: the file that names the providers, and the tenant's key. Refuses to know: what is asked.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use testkit::http::Response;
use testkit::provider::{KEY, Provider, Statement, Vendor};
use testkit::tai::Tai;

use crate::callers::{Caller, Issued, issue, new_key, start_guarded, text};
use crate::support::{PATIENCE, assert_verified, event, room, stop};

/// The name that a client uses, and what it is at a provider.
pub(super) const MODEL: &str = "fast";

/// The same for vectors.
pub(super) const EMBEDDINGS: &str = "vectors";
const EMBEDDINGS_THERE: &str = "text-embedding-3-small";

/// The model that a provider of that vendor is asked for.
pub(super) const fn model_of(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::OpenAi => "gpt-4o-mini",
        Vendor::Anthropic => "claude-haiku-4-5",
        Vendor::Gemini => "gemini-2.5-flash",
    }
}

/// A provider, and how the service is told of it.
pub(super) struct Behind {
    base_url: String,
    vendor: Vendor,
    continues: bool,
}

impl Behind {
    /// A fake that speaks the dialect of `vendor`.
    pub(super) fn new(provider: &Provider, vendor: Vendor) -> Behind {
        Behind::at(provider.base_url(vendor), vendor)
    }

    /// Anything that does.
    pub(super) fn at(base_url: String, vendor: Vendor) -> Behind {
        Behind { base_url, vendor, continues: false }
    }

    /// Whether the service may have it go on with the answer of another.
    pub(super) fn continuing(self, continues: bool) -> Behind {
        Behind { continues, ..self }
    }
}

/// The file of providers: each is called `p0`, `p1` and so on, and stands for [`MODEL`] in this
/// order.
fn file(behind: &[Behind], more: &str) -> String {
    let mut text = String::new();
    let mut targets = Vec::new();
    for (at, Behind { base_url, vendor, continues }) in behind.iter().enumerate() {
        let api = vendor.as_str();
        writeln!(
            text,
            "[providers.p{at}]\napi = \"{api}\"\nbase_url = \"{base_url}\"\nkey_env = \"P{at}_KEY\"\n\
             allow_private = true"
        )
        .unwrap();
        let model = model_of(*vendor);
        targets.push(format!(
            "{{ provider = \"p{at}\", model = \"{model}\", price = \"{model}\", order = {at}, \
             continues = {continues} }}"
        ));
    }
    writeln!(text, "[models.{MODEL}]\n{more}\ntargets = [{}]", targets.join(", ")).unwrap();
    let there = format!("model = \"{EMBEDDINGS_THERE}\", price = \"{EMBEDDINGS_THERE}\"");
    writeln!(text, "[models.{EMBEDDINGS}]\ntargets = [{{ provider = \"p0\", {there} }}]").unwrap();
    text
}

/// The service, its tenant and its operator.
pub(super) struct Desk {
    room: TempDir,
    ledger: std::path::PathBuf,
    tai: Tai,
    key: Issued,
    admin: String,
}

impl Desk {
    /// Opens it; `more` are lines of the model, `envs` settings.
    pub(super) fn open(behind: &[Behind], more: &str, envs: &[(&str, &str)]) -> Desk {
        let (room, ledger) = room();
        let providers = room.path().join("providers.toml");
        std::fs::write(&providers, file(behind, more)).unwrap();
        let names: Vec<String> = (0..behind.len()).map(|at| format!("P{at}_KEY")).collect();
        let mut all: Vec<(&str, &str)> = vec![("PROVIDERS_FILE", providers.to_str().unwrap())];
        all.extend(names.iter().map(|name| (name.as_str(), KEY)));
        all.extend_from_slice(envs);
        let admin = new_key();
        let tai = start_guarded(&ledger, &admin, &all);
        let mut operator = Caller::keyed(tai.address(), &admin);
        let granted = operator.post("/marketplace", &event("acme", "grant"));
        assert_eq!(granted.status, 200, "{}", text(&granted));
        let key = issue(&mut operator, &json!({"tenant_id": "acme"}));
        Desk { room, ledger, tai, key, admin }
    }

    pub(super) fn room(&self) -> &Path {
        self.room.path()
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.tai.address())
    }

    pub(super) fn key(&self) -> &str {
        &self.key.text
    }

    /// The tenant without a vendor's client.
    pub(super) fn tenant(&self) -> Caller {
        self.key.caller(self.tai.address())
    }

    pub(super) fn admin(&self) -> Caller {
        Caller::keyed(self.tai.address(), &self.admin)
    }

    /// Bounds what the tenant may spend, in cents.
    pub(super) fn set_budget(&self, spend_minor: u32) {
        let order = json!({"spend_minor": spend_minor});
        let answer: Response = self.admin().put("/admin/tenants/acme/budget", &order);
        assert_eq!(answer.status, 200, "{}", text(&answer));
    }

    pub(super) fn expect_errors(&mut self) {
        self.tai.expect_errors();
    }

    pub(super) fn log_tail(&self) -> Vec<String> {
        let lines = self.tai.log_lines();
        lines[lines.len().saturating_sub(20)..].to_vec()
    }

    /// Ends the service; the ledger is whole. Gives its receipts.
    pub(super) fn close(self) -> Vec<serde_json::Value> {
        stop(self.tai);
        assert_verified(&self.ledger)
    }
}

/// The books once nothing is under way. The service may ask a provider for a moment longer than its
/// caller waits.
pub(super) fn settled(provider: &Provider) -> Statement {
    provider.settled(PATIENCE + Duration::from_secs(10)).unwrap()
}
