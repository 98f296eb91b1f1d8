//! `tai ctl …`: asks a running service, over its admin API.
//!
//! Owns: where the service and the key come from, what is printed, and exit codes: 0 the service
//! says yes, 1 it says no or nothing, 2 it was not asked. Refuses to know: what the service does
//! about it, and the files of a ledger.

mod args;
mod plan;
mod view;
mod wait;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use settings::Settings;

use crate::cli::{EXIT_FAILED, EXIT_OK, complain, say, usage_error};
use crate::client::{Answer, Client, TOTAL_TIMEOUT};

pub(crate) use args::Ctl;
use plan::{Plan, plan};
use view::{View, one_line};
use wait::{Before, Until};

/// Where the service is, when no option says it.
const URL_VARIABLE: &str = "TAI_URL";
/// The key, when no option names a file.
const KEY_VARIABLE: &str = "TAI_KEY";

/// Asks what `ctl` says. `settings` are those of this machine, which the service need not share:
/// they are looked at for the port, and only when nothing else says where it is.
pub(crate) fn run(
    ctl: Ctl,
    settings: Result<&Settings, Vec<String>>,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> anyhow::Result<ExitCode> {
    let client = target(ctl.url.as_deref(), settings, variable)
        .and_then(|url| Ok((url, key(ctl.key_file.as_deref(), variable)?)))
        .and_then(|(url, key)| {
            Client::new(&url, key.as_deref()).map_err(|error| vec![error.to_string()])
        });
    let client = match client {
        Ok(client) => client,
        Err(mistakes) => return Ok(usage_error(&mistakes)),
    };
    let Plan { call, view, wait } = plan(ctl.verb);
    let before = wait.map(|(until, _)| Before::look(&client, until)).transpose()?;
    let answer = client.ask(&call, TOTAL_TIMEOUT)?;
    let mut well = tell(&answer, &view, ctl.json)?;
    if let Some(((until, limit), before)) = wait.zip(before).filter(|_| well) {
        well = before.wait(&client, until, limit);
        tell_wait(until, limit, well, ctl.json);
    }
    Ok(ExitCode::from(if well { EXIT_OK } else { EXIT_FAILED }))
}

/// Where the service is: `url` where it is given.
pub(crate) fn target(
    url: Option<&str>,
    settings: Result<&Settings, Vec<String>>,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<String, Vec<String>> {
    if let Some(url) = url {
        return Ok(url.to_owned());
    }
    if let Some(url) = variable(URL_VARIABLE) {
        return text(URL_VARIABLE, url).map_err(|mistake| vec![mistake]);
    }
    let settings = settings?;
    if settings.port == 0 {
        return Err(vec![format!("PORT is 0, which names no port: give --url or {URL_VARIABLE}")]);
    }
    Ok(url_of(SocketAddr::from((settings.bind_address, settings.port))))
}

/// Where a service on this machine is asked that listens on `address`. Who listens everywhere is
/// asked on loopback.
pub(crate) fn url_of(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

/// The key, if there is one: out of `file` where it is given.
pub(crate) fn key(
    file: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<String>, Vec<String>> {
    let found = match file {
        Some(file) => std::fs::read_to_string(file)
            .map(|text| Some(text.trim().to_owned()))
            .map_err(|error| format!("--key-file: cannot read {}: {error}", file.display())),
        None => variable(KEY_VARIABLE).map(|value| text(KEY_VARIABLE, value)).transpose(),
    };
    found.map_err(|mistake| vec![mistake])
}

/// The variable as text; a mistake names it and never shows it.
fn text(name: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|_| format!("{name} is not text"))
}

/// Prints an answer; true when the service says yes.
fn tell(answer: &Answer, view: &View, raw: bool) -> anyhow::Result<bool> {
    let json = answer.json();
    if !answer.is_yes() {
        if raw {
            say(&String::from_utf8_lossy(&answer.body));
        }
        tell_refusal(answer.status, json.as_ref(), raw);
        return Ok(false);
    }
    if *view == View::Text {
        let text = std::str::from_utf8(&answer.body);
        let text = text.with_context(|| format!("status {}, but it is no text", answer.status))?;
        view::paragraphs(text).iter().for_each(|line| say(line));
        return Ok(true);
    }
    let shown = json.as_ref().ok_or_else(|| "it is not JSON".to_owned()).and_then(|json| {
        if raw {
            let part = view::part(view, json)?;
            let all = || String::from_utf8_lossy(&answer.body).into_owned();
            return Ok((vec![part.map_or_else(all, |part| part.to_string())], Vec::new()));
        }
        let lines = view::lines(view, json)?;
        Ok((lines.answer, lines.beside))
    });
    let (lines, beside) =
        shown.map_err(|what| anyhow::anyhow!("status {}, but {what}", answer.status))?;
    lines.iter().for_each(|line| say(line));
    beside.iter().for_each(|line| complain(line));
    Ok(true)
}

/// Prints why the service says no: the envelope of a refusal, or what a probe answers.
fn tell_refusal(status: u16, body: Option<&Value>, raw: bool) {
    let field = |name: &str| body.and_then(|body| body.get(name)).map(one_line);
    let Some(reason) = field("reason") else {
        return complain(&format!("tai: the service answers {status}"));
    };
    let detail = field("detail").map(|detail| format!(": {detail}")).unwrap_or_default();
    complain(&format!("tai: {reason}{detail}"));
    if let Some(seconds) = field("retry_after") {
        complain(&format!("tai: it may be asked again in {seconds} s"));
    }
    match field("request_id") {
        Some(id) => complain(&format!("tai: request {id}, status {status}")),
        // A probe: no refusal of a request, but the state of the service.
        None if !raw => {
            if let Some(Ok(lines)) = body.map(|body| view::lines(&View::Facts, body)) {
                lines.answer.iter().for_each(|line| say(line));
            }
        }
        None => {}
    }
}

fn tell_wait(until: Until, limit: Duration, happened: bool, raw: bool) {
    let seconds = limit.as_secs();
    match (until, happened) {
        (_, true) if raw => {}
        (Until::Restarted, true) => say("restarted"),
        (Until::Gone, true) => say("stopped"),
        (Until::Restarted, false) => {
            complain(&format!("tai: no new start answers after {seconds} s"));
        }
        (Until::Gone, false) => complain(&format!("tai: it still listens after {seconds} s")),
    }
}
