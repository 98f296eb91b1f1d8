//! Other people's gateways, running: as each documents it for production, with governing off.
//!
//! Owns: their configuration. Refuses to know: how they came here, and what is measured.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::client::Door;
use super::subject::{Group, MODEL, PROVIDER_KEY, Subject, door};
use super::upstream::Upstream;
use super::{Options, installed};
use crate::keys;

/// Worker processes of the one that has them: one for each core.
const WORKERS: &str = "2";
const START_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_millis(50);

/// The floor: a plain proxy that keeps its connections.
pub(super) fn nginx(upstream: &Upstream, options: &Options) -> Result<Subject> {
    let (binary, dir, port) =
        (installed::nginx(options)?, Group::room()?, testkit::place::free_port()?);
    let mut text = format!(
        "daemon off; worker_processes auto; pid nginx.pid; error_log stderr warn;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n\
         \x20 upstream provider {{\n    server {}; keepalive 512; keepalive_requests 1000000000;\n  }}\n",
        upstream.address
    );
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _ = writeln!(text, "  {kind}_temp_path {kind};");
    }
    let _ = write!(
        text,
        "  server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    location / {{\n\
         \x20     proxy_pass http://provider; proxy_http_version 1.1;\n\
         \x20     proxy_set_header Connection \"\"; proxy_buffering off;\n    }}\n  }}\n}}\n"
    );
    fs::write(dir.path().join("nginx.conf"), text)?;
    let mut command = Command::new(&binary);
    command.arg("-e").arg("stderr").arg("-p").arg(dir.path()).args(["-c", "nginx.conf"]);
    let said = Command::new(&binary).arg("-v").output()?;
    let version = String::from_utf8_lossy(&said.stderr).trim().replace("nginx version: ", "");
    Ok(Subject {
        version,
        on: "proxy_pass, kept connections, no buffering, no access log".to_owned(),
        door: door(port),
        group: Some(Group::start(command, dir)?),
    })
}

/// Its gateway comes in a Python package, as a server inside of a Python process.
const TENSORZERO_HOST: &str = "\
import threading
import tensorzero
from openai import OpenAI
client = OpenAI(api_key='unused')
tensorzero.patch_openai_client(client, config_file='tensorzero.toml', async_setup=False)
with open('address.part', 'w') as file:
    file.write(str(client.base_url))
import os
os.rename('address.part', 'address')
threading.Event().wait()
";

pub(super) fn tensorzero(upstream: &Upstream, options: &Options) -> Result<Subject> {
    let (bin, dir) = (installed::tensorzero(options)?, Group::room()?);
    fs::write(
        dir.path().join("tensorzero.toml"),
        format!(
            "[gateway]\nobservability.enabled = false\n\n[models.bench]\nrouting = [\"bench\"]\n\n\
             [models.bench.providers.bench]\ntype = \"openai\"\napi_base = \"http://{}/v1/\"\n\
             model_name = \"{MODEL}\"\napi_key_location = \"none\"\n",
            upstream.address
        ),
    )?;
    fs::write(dir.path().join("host.py"), TENSORZERO_HOST)?;
    let mut command = Command::new(bin.join("python"));
    command.arg("host.py").env("DO_NOT_TRACK", "1");
    let mut group = Group::start(command, dir)?;
    let address = said_address(&mut group)?;
    let rest = address.strip_prefix("http://").context("its address is none")?;
    let (address, path) = rest.split_once('/').context("its address has no path")?;
    let port = address.rsplit(':').next().context("its address has no port")?.parse()?;
    let path = format!("/{}/chat/completions", path.trim_end_matches('/'));
    let model = "tensorzero::model_name::bench".to_owned();
    Ok(Subject {
        version: format!("tensorzero {}", python_version(&bin, "tensorzero")?),
        on: "no keys, no limits, observability off; the gateway of its Python package".to_owned(),
        door: Door { path, model, ..door(port) },
        group: Some(group),
    })
}

fn said_address(group: &mut Group) -> Result<String> {
    let (started, file) = (Instant::now(), group.dir().join("address"));
    loop {
        if let Ok(text) = fs::read_to_string(&file) {
            return Ok(text);
        }
        if group.child.try_wait()?.is_some() || started.elapsed() > START_TIMEOUT {
            bail!("it does not serve: {}", group.last_words());
        }
        std::thread::sleep(RETRY);
    }
}

fn python_version(bin: &std::path::Path, package: &str) -> Result<String> {
    let ask = format!("import importlib.metadata as m; print(m.version('{package}'))");
    let said = Command::new(bin.join("python")).args(["-c", &ask]).output()?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

pub(super) fn litellm_rs(upstream: &Upstream, options: &Options) -> Result<Subject> {
    let (binary, dir, port) =
        (installed::litellm_rs(options)?, Group::room()?, testkit::place::free_port()?);
    fs::write(
        dir.path().join("gateway.yaml"),
        format!(
            "schema_version: \"1.0\"\n\
             server: {{ host: 127.0.0.1, port: {port}, workers: {WORKERS}, max_connections: 10000 }}\n\
             providers:\n  - name: bench\n    provider_type: openai\n    api_key: {PROVIDER_KEY}\n\
             \x20   base_url: http://{}/v1\n    max_concurrent_requests: 10000\n    rpm: 1000000000\n\
             \x20   tpm: 1000000000\n    models: [{MODEL}]\n    enabled: true\n\
             auth: {{ enable_jwt: false, enable_api_key: false, allow_anonymous: true }}\n\
             guardrails: {{ enabled: false }}\n\
             rate_limit: {{ enabled: false }}\n\
             cache: {{ enabled: false }}\n\
             monitoring: {{ metrics: {{ enabled: false }} }}\n\
             storage: {{ database: {{ enabled: false }}, redis: {{ enabled: false }} }}\n",
            upstream.address
        ),
    )?;
    let said = Command::new(&binary).arg("--version").output()?;
    let version = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let mut command = Command::new(&binary);
    command.args(["--config", "gateway.yaml", "--log-level", "warn"]);
    command.env("LITELLM_ALLOW_PRIVATE_URLS", "true");
    Ok(Subject {
        version: format!("litellm-rs {} ({version})", installed::LITELLM_RS),
        on: "no keys, no limits, no guardrails, no database".to_owned(),
        door: door(port),
        group: Some(Group::start(command, dir)?),
    })
}

pub(super) fn portkey(upstream: &Upstream, options: &Options) -> Result<Subject> {
    let (script, dir, port) =
        (installed::portkey(options)?, Group::room()?, testkit::place::free_port()?);
    let said = Command::new("node").arg("--version").output()?;
    let node = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let mut command = Command::new("node");
    command.arg(script).arg(format!("--port={port}")).arg("--headless");
    command.env("NODE_ENV", "production");
    let headers = format!(
        "authorization: Bearer {PROVIDER_KEY}\r\nx-portkey-provider: openai\r\n\
         x-portkey-custom-host: http://{}/v1\r\n",
        upstream.address
    );
    Ok(Subject {
        version: format!("@portkey-ai/gateway {} on Node {node}", installed::PORTKEY),
        on:
            "no keys of its own, no limits, no cache, one process; hono 4.9.7, node-server 1.13.8, \
             node-ws 1.2.0"
                .to_owned(),
        door: Door { headers, ..door(port) },
        group: Some(Group::start(command, dir)?),
    })
}

pub(super) fn litellm(upstream: &Upstream, options: &Options) -> Result<Subject> {
    let (bin, dir, port) =
        (installed::litellm(options)?, Group::room()?, testkit::place::free_port()?);
    let master = format!("sk-{}", keys::chance()?);
    fs::write(
        dir.path().join("config.yaml"),
        format!(
            "model_list:\n  - model_name: {MODEL}\n    litellm_params:\n      model: openai/{MODEL}\n\
             \x20     api_base: http://{}/v1\n      api_key: {PROVIDER_KEY}\n\
             general_settings:\n  master_key: {master}\n\
             litellm_settings:\n  telemetry: false\n  set_verbose: false\n",
            upstream.address
        ),
    )?;
    let mut command = Command::new(bin.join("litellm"));
    command
        .args(["--config", "config.yaml", "--host", "127.0.0.1", "--port", &port.to_string()])
        .args(["--num_workers", WORKERS])
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("LITELLM_LOG", "ERROR");
    Ok(Subject {
        version: format!("litellm {}", python_version(&bin, "litellm")?),
        on: "master key, 2 workers, no database, no budgets".to_owned(),
        door: Door { keys: vec![master], ..door(port) },
        group: Some(Group::start(command, dir)?),
    })
}
