//! A provider that others wrote: `llmock`, which reads what the vendors publish in its own way and
//! judges how its callers take its faults.
//!
//! Owns: its process and its faults. Refuses to know: what it says.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use testkit::http::Client;
use testkit::{place, python};

use super::client::holds;
use super::desk::{Behind, Desk, MODEL};
use crate::support::{JSON, until};
use testkit::provider::Vendor;

const SCRIPT: &str = "other_upstream.py";

/// A running `llmock`; it ends with this value.
struct Llmock {
    child: Child,
    address: SocketAddr,
}

impl Llmock {
    fn start(room: &Path) -> Llmock {
        let list = place::repository().join("tests/python/ai_upstream.txt");
        let python = python::venv(&std::fs::read_to_string(list).unwrap()).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place::free_port().unwrap()));
        let output = std::fs::File::create(room.join("llmock.txt")).unwrap();
        let child = Command::new(python.with_file_name("llmock"))
            .args(["serve", "--host", "127.0.0.1", "--port", &address.port().to_string()])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("LLMOCK_RESPONSE_STYLE", "varied")
            .current_dir(room)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        let other = Llmock { child, address };
        until("llmock answers", || other.ask("GET", "/health", &Value::Null));
        other
    }

    /// Asks its operator's side; `None` while it does not answer.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let mut client = Client::connect(self.address).ok()?;
        let answer = client.request(method, path, &[JSON], text.as_bytes()).ok()?;
        assert!(answer.status < 300, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer.json().ok()
    }

    /// Goes wrong as `behaviors` say, in this order.
    fn plan(&self, behaviors: &Value) {
        self.ask("POST", "/_llmock/scenario", &json!({"behaviors": behaviors})).unwrap();
    }

    fn base_url(&self, vendor: Vendor) -> String {
        let path = match vendor {
            Vendor::OpenAi => "v1",
            Vendor::Anthropic => "anthropic/v1",
            Vendor::Gemini => "gemini/v1beta",
        };
        format!("http://{}/{path}", self.address)
    }

    fn behind(&self, vendor: Vendor) -> Behind {
        Behind::at(self.base_url(vendor), vendor)
    }
}

impl Drop for Llmock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_provider_that_others_wrote_is_understood_in_every_dialect() {
    testkit::needs_python!();
    let room = tempfile::tempdir().unwrap();
    let other = Llmock::start(room.path());
    for vendor in Vendor::ALL {
        let desk = Desk::open(&[other.behind(vendor)], "", &[]);
        let checks =
            ["openai_answers", "anthropic_answers", "openai_tools", "anthropic_tools", "pictures"];
        holds(&desk, SCRIPT, &[("AI_MODEL", MODEL)], &checks);
        desk.close();
    }
}

#[test]
fn a_provider_that_others_wrote_finds_nothing_wrong_with_its_caller() {
    testkit::needs_python!();
    let room = tempfile::tempdir().unwrap();
    let other = Llmock::start(room.path());
    let behind = [other.behind(Vendor::OpenAi), other.behind(Vendor::Anthropic)];
    let desk = Desk::open(&behind, "first_token_timeout_ms = 2000", &[]);
    let envs = [("AI_MODEL", MODEL)];
    for fault in [
        json!({"type": "fail", "status": 429, "retry_after": 1}),
        json!({"type": "fail", "status": 503}),
        json!({"type": "fail", "status": 500}),
        json!({"type": "stream_fault", "kind": "disconnect", "after_chunks": 0}),
    ] {
        other.plan(&json!([fault]));
        holds(&desk, SCRIPT, &envs, &["openai_heals"]);
    }
    let verdict = other.ask("GET", "/_llmock/verdict", &Value::Null).unwrap();
    assert_eq!((&verdict["passed"], &verdict["errors"]), (&json!(true), &json!(0)), "{verdict}");
    assert!(verdict["faults_injected"].as_u64().unwrap() >= 4, "{verdict}");

    for kind in ["disconnect", "truncate"] {
        let alone = Desk::open(&[other.behind(Vendor::OpenAi)], "", &[]);
        other.plan(&json!([{"type": "stream_fault", "kind": kind, "after_chunks": 3}]));
        holds(&alone, SCRIPT, &envs, &["openai_breaks"]);
        alone.close();
    }
    desk.close();
}
