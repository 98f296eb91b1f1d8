//! Our own gateway, the real release binary, as an operator would run it.
//!
//! Owns: what is switched on in each of its rows. Refuses to know: what is measured.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use testkit::http::Client;

use super::Options;
use super::subject::{Group, MODEL, PROVIDER_KEY, Subject, door};
use super::upstream::Upstream;
use crate::keys::{self, Issuer};
use crate::service;

/// The most that a field of a budget takes.
const BUDGET: u32 = 1_000_000_000;
const TENANTS: usize = 64;
/// Limits are counted and not reached: what is measured is their cost.
const OUT_OF_THE_WAY: [(&str, &str); 4] = [
    ("RATE_LIMIT_PER_SECOND", "1000000"),
    ("RATE_LIMIT_BURST", "1000000"),
    ("TENANT_MAX_CONCURRENT", "1000"),
    ("MAX_CONCURRENT_REQUESTS", "1000"),
];

/// Everything on, and one tenant that pays for all.
pub(super) fn governed(upstream: &Upstream, _: &Options) -> Result<Subject> {
    keyed(upstream, 1, "one tenant")
}

/// Everything on, and a tenant for each caller, as far as there are.
pub(super) fn many_tenants(upstream: &Upstream, _: &Options) -> Result<Subject> {
    keyed(upstream, TENANTS, "64 tenants")
}

fn keyed(upstream: &Upstream, tenants: usize, whose: &str) -> Result<Subject> {
    let admin = keys::chance()?;
    let required = keys::required(&admin);
    let mut subject = start(upstream, &[&OUT_OF_THE_WAY[..], &required].concat(), |_| Ok(()))?;
    subject.wait_until_healthy()?;
    let mut issuer = Issuer::connect(subject.door.address, &admin)?;
    let mut client = Client::connect(subject.door.address)?;
    for nth in 0..tenants {
        let tenant = format!("payer-{nth:02}");
        let key = issuer.issue(&tenant)?;
        grant(&mut client, &tenant, &key)?;
        budget(&mut client, &tenant, &admin)?;
        subject.door.keys.push(key);
    }
    subject.on = format!(
        "{whose}: key, rate limits of key and tenant, plan, budget of calls and money, reservation \
         and settlement, two durable receipts a call on SQLite with \
         synchronous=full, metrics, log at info to a file"
    );
    Ok(subject)
}

/// As little governing as it can be asked for.
pub(super) fn open(upstream: &Upstream, _: &Options) -> Result<Subject> {
    let settings =
        [("RECEIPT_LEDGER_BACKEND", "memory"), ("METRICS_ENABLED", "false"), ("LOG_LEVEL", "warn")];
    let mut subject = start(upstream, &[&OUT_OF_THE_WAY[..], &settings].concat(), unlimited)?;
    subject.wait_until_healthy()?;
    subject.on =
        "no key, a plan without limits, receipts in memory only, metrics off, log at warn; \
                  receipts themselves, their chain and the meter cannot be switched off"
            .to_owned();
    Ok(subject)
}

/// The shipped catalogue without the limits of its plans.
fn unlimited(dir: &Path) -> Result<()> {
    let shipped = testkit::place::repository().join("crates/governors/catalogue.toml");
    let text = std::fs::read_to_string(shipped)?;
    let is_limit = |line: &&str| line.starts_with("calls_per_") || line.starts_with("spend_per_");
    let kept: Vec<_> = text.lines().filter(|line| !is_limit(line)).collect();
    Ok(std::fs::write(dir.join("catalogue.toml"), kept.join("\n"))?)
}

fn start(
    upstream: &Upstream,
    settings: &[(&str, &str)],
    prepare: fn(&Path) -> Result<()>,
) -> Result<Subject> {
    let (binary, dir, port) = (service::binary()?, Group::room()?, testkit::place::free_port()?);
    prepare(dir.path())?;
    let (providers, catalogue) =
        (dir.path().join("providers.toml"), dir.path().join("catalogue.toml"));
    std::fs::write(
        &providers,
        format!(
            "[providers.bench]\napi = \"openai\"\nbase_url = \"http://{}/v1\"\n\
             key_env = \"BENCH_KEY\"\nallow_private = true\n\n\
             [models.{MODEL}]\ntargets = [{{ provider = \"bench\", model = \"{MODEL}\" }}]\n",
            upstream.address
        ),
    )?;
    let mut command = Command::new(&binary);
    command
        .env_clear()
        .env("PORT", port.to_string())
        .env("LEDGER_DIR", dir.path().join("ledger"))
        .env("PROVIDERS_FILE", providers)
        .env("BENCH_KEY", PROVIDER_KEY)
        .envs(settings.iter().copied());
    if catalogue.exists() {
        command.env("CATALOGUE_FILE", catalogue);
    }
    let said = Command::new(&binary).arg("--version").output()?;
    let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let group = Some(Group::start(command, dir)?);
    Ok(Subject { version, on: String::new(), door: door(port), group })
}

/// What grants `tenant` a plan; its own budget takes the place of the plan's limits.
fn grant(client: &mut Client, tenant: &str, key: &str) -> Result<()> {
    let body = format!(
        "{{\"tenant_id\":\"{tenant}\",\"entitlement_id\":\"ent-{tenant}\",\"action\":\"grant\",\
         \"metadata\":{{\"plan\":\"enterprise\"}}}}"
    );
    send(client, "POST", "/marketplace", key, &body).context("a grant")
}

fn budget(client: &mut Client, tenant: &str, admin: &str) -> Result<()> {
    let body = format!("{{\"calls\":{BUDGET},\"spend_minor\":{BUDGET},\"period\":\"month\"}}");
    send(client, "PUT", &format!("/admin/tenants/{tenant}/budget"), admin, &body)
        .context("a budget")
}

fn send(client: &mut Client, method: &str, path: &str, key: &str, body: &str) -> Result<()> {
    let bearer = format!("Bearer {key}");
    let headers = [("Content-Type", "application/json"), ("Authorization", &*bearer)];
    let answer = client.request(method, path, &headers, body.as_bytes())?;
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    ensure!((200..300).contains(&answer.status), "refused with {}: {said}", answer.status);
    Ok(())
}
