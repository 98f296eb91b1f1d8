//! What our own figures are watched by, and the channels over which people are told.
//!
//! Owns: the format of the channels' file, and what is set up without one. Refuses to know: how a
//! channel is spoken to, and who is told what. Secrets are named by their environment variable,
//! never written in the file.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use egress::{ChannelConfig, ChannelKind, Channels, MailConfig, MailSecurity};
use engine::notify::{ChannelFacts, Courier};
use serde::Deserialize;
use settings::{Secret, Settings};

use crate::cli::{EXIT_OK, EXIT_USAGE, complain, say};

/// What is read before anything is opened.
pub(crate) struct Watch {
    pub(crate) rules: Arc<runbook::Rules>,
    pub(crate) channels: Arc<Channels>,
}

impl Watch {
    /// The names of the channels, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.channels.channels().into_iter().map(|facts| facts.name).collect()
    }

    /// The names of those that wake nobody.
    pub(crate) fn shown(&self) -> Vec<String> {
        let facts = self.channels.channels().into_iter().filter(ChannelFacts::shows_states);
        facts.map(|facts| facts.name).collect()
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    channels: BTreeMap<String, Row>,
}

/// One channel of the file. Which members count depends on its kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    kind: String,
    url_env: Option<String>,
    key_env: Option<String>,
    base_url: Option<String>,
    chat: Option<String>,
    source: Option<String>,
    page: Option<String>,
    #[serde(default)]
    components: BTreeMap<String, String>,
    host: Option<String>,
    port: Option<u16>,
    security: Option<Security>,
    user: Option<String>,
    from: Option<String>,
    to: Option<Vec<String>>,
    #[serde(default)]
    allow_private: bool,
    deadline_ms: Option<u64>,
    per_minute: Option<NonZeroU32>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Security {
    StartTls,
    Tls,
    Plain,
}

/// Reads rules and channels. `variable` looks an environment variable up.
///
/// # Errors
/// Names the setting and the place in the file, never a value.
pub(crate) fn read(
    settings: &Settings,
    variable: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Watch> {
    let (rules, channels) = (rules(settings)?, channels(settings, variable)?);
    Ok(Watch { rules: Arc::new(rules), channels: Arc::new(channels) })
}

/// Reads the channels alone.
///
/// # Errors
/// As [`read`].
pub(crate) fn channels(
    settings: &Settings,
    variable: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Channels> {
    let mut configs = of_settings(settings)?;
    if let Some(path) = &settings.channels_file {
        let text = std::fs::read_to_string(path).context("CHANNELS_FILE: cannot be read")?;
        let file: File = toml::from_str(&text).map_err(|error| {
            // The parser's own text would repeat the line, and with it what stands there.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
            let line = before.matches('\n').count() + 1;
            anyhow!("CHANNELS_FILE: line {line}: not a file of channels")
        })?;
        for (name, row) in file.channels {
            let config = channel(settings, &name, &row, variable)
                .with_context(|| format!("CHANNELS_FILE: channel {}", name.escape_debug()))?;
            configs.retain(|held| held.name != name);
            configs.push(config);
        }
    }
    Channels::new(&configs, &[]).context("CHANNELS_FILE")
}

fn interval_us(settings: &Settings) -> i64 {
    i64::try_from(settings.alert_interval_ms).unwrap_or(i64::MAX).saturating_mul(1_000)
}

fn rules(settings: &Settings) -> anyhow::Result<runbook::Rules> {
    let read = match &settings.alerts_file {
        None => runbook::Rules::shipped(),
        Some(path) => {
            let text = std::fs::read_to_string(path).context("ALERTS_FILE: cannot be read")?;
            runbook::Rules::parse_for(&text, interval_us(settings))
        }
    };
    read.map_err(|errors| {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow!("ALERTS_FILE: {}", all.join("; "))
    })
}

/// The word that stands for the rules inside the program.
const SHIPPED: &str = "shipped";

/// `tai check --alerts`: every mistake with its place, what sees trouble too late, and what the
/// tests say; or the same rules for Prometheus.
pub(crate) fn check(
    settings: &Settings,
    file: &Path,
    tests: Option<&Path>,
    prometheus: bool,
) -> anyhow::Result<ExitCode> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("cannot read the file: {error}"))
    };
    let told = |path: &Path, wrong: &[String]| {
        wrong.iter().for_each(|wrong| complain(&format!("tai: {}: {wrong}", path.display())));
        Ok(ExitCode::from(EXIT_USAGE))
    };
    let parsed = match file.to_str() {
        Some(SHIPPED) => runbook::Rules::shipped(),
        _ => match read(file) {
            Ok(text) => runbook::Rules::parse_for(&text, interval_us(settings)),
            Err(wrong) => return told(file, &[wrong]),
        },
    };
    let rules = match parsed {
        Ok(rules) => rules,
        Err(errors) => {
            return told(file, &errors.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
    };
    if prometheus {
        let interval_us = interval_us(settings);
        say(runbook::prometheus::rules_yaml(&rules, interval_us).trim_end());
        return Ok(ExitCode::from(EXIT_OK));
    }
    say(&format!("{} alert rules are good", rules.iter().count()));
    rules.late().iter().for_each(|late| say(&late.to_string()));
    let Some(tests) = tests else { return Ok(ExitCode::from(EXIT_OK)) };
    let ran = read(tests).and_then(|text| {
        runbook::rules::trial::run(&rules, &text).map_err(|error| error.to_string())
    });
    let report = match ran {
        Ok(report) => report,
        Err(wrong) => return told(tests, &[wrong]),
    };
    let failures: Vec<String> = report.failures().collect();
    say(&format!("{} tests, {} mistakes", report.outcomes.len(), failures.len()));
    if failures.is_empty() { Ok(ExitCode::from(EXIT_OK)) } else { told(tests, &failures) }
}

/// The channels that are there as soon as their settings are.
fn of_settings(settings: &Settings) -> anyhow::Result<Vec<ChannelConfig>> {
    let mut configs = Vec::new();
    if let Some(url) = &settings.slack_webhook_url {
        configs.push(ChannelConfig::new("slack", ChannelKind::Slack { url: url.clone() }));
    }
    match (&settings.telegram_bot_token, &settings.telegram_chat_id) {
        (Some(token), Some(chat)) => {
            let (token, chat) = (token.clone(), chat.clone());
            let kind = ChannelKind::Telegram { token, chat, base: None };
            configs.push(ChannelConfig::new("telegram", kind));
        }
        (Some(_), None) => bail!("TELEGRAM_CHAT_ID is missing beside TELEGRAM_BOT_TOKEN"),
        (None, _) => {}
    }
    if settings.smtp_host.is_some() {
        configs.push(ChannelConfig::new("email", ChannelKind::Email(mail(settings, None)?)));
    }
    Ok(configs)
}

/// A mail server by the settings, and what a row of the file says instead.
fn mail(settings: &Settings, row: Option<&Row>) -> anyhow::Result<MailConfig> {
    let own = |field: fn(&Row) -> Option<String>| row.and_then(field);
    let host = own(|row| row.host.clone()).or_else(|| settings.smtp_host.clone());
    let user = own(|row| row.user.clone()).or_else(|| settings.smtp_user.clone());
    let to = settings.alert_email_to.as_ref();
    let to = to.map(|to| to.split(',').map(|one| one.trim().to_owned()).collect::<Vec<_>>());
    Ok(MailConfig {
        host: host.context("SMTP_HOST is missing")?,
        port: row.and_then(|row| row.port).unwrap_or(settings.smtp_port),
        security: row.and_then(|row| row.security).map(|security| match security {
            Security::StartTls => MailSecurity::StartTls,
            Security::Tls => MailSecurity::Tls,
            Security::Plain => MailSecurity::Plain,
        }),
        login: match (user, &settings.smtp_pass) {
            (Some(user), Some(password)) => Some((user, password.clone())),
            (Some(_), None) => bail!("SMTP_PASS is missing beside SMTP_USER"),
            (None, _) => None,
        },
        from: own(|row| row.from.clone())
            .or_else(|| settings.alert_email_from.clone())
            .context("ALERT_EMAIL_FROM is missing")?,
        to: row.and_then(|row| row.to.clone()).or(to).context("ALERT_EMAIL_TO is missing")?,
    })
}

fn channel(
    settings: &Settings,
    name: &str,
    row: &Row,
    variable: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<ChannelConfig> {
    let secret = |member: &'static str, named: &Option<String>| -> anyhow::Result<Option<Secret>> {
        let Some(named) = named else { return Ok(None) };
        let value =
            variable(named).with_context(|| format!("{member}: the variable is not set"))?;
        Ok(Some(Secret::from(value)))
    };
    let url = || secret("url_env", &row.url_env);
    let key = || secret("key_env", &row.key_env);
    let base = row.base_url.clone();
    let kind = match &*row.kind {
        "slack" => ChannelKind::Slack {
            url: url()?.or(settings.slack_webhook_url.clone()).context("url_env is missing")?,
        },
        "telegram" => ChannelKind::Telegram {
            token: key()?.or(settings.telegram_bot_token.clone()).context("key_env is missing")?,
            chat: row
                .chat
                .clone()
                .or(settings.telegram_chat_id.clone())
                .context("chat is missing")?,
            base,
        },
        "email" => ChannelKind::Email(mail(settings, Some(row))?),
        "pagerduty" => ChannelKind::PagerDuty {
            routing_key: key()?.context("key_env is missing")?,
            source: row.source.clone().unwrap_or_else(|| "tai".to_owned()),
            base,
        },
        "statuspage" => ChannelKind::Statuspage {
            key: key()?.context("key_env is missing")?,
            page: row.page.clone().context("page is missing")?,
            components: row.components.clone().into_iter().collect(),
            base,
        },
        "alertmanager" => {
            ChannelKind::Alertmanager { url: url()?.context("url_env is missing")?, token: key()? }
        }
        "webhook" => {
            ChannelKind::Webhook { url: url()?.context("url_env is missing")?, key: key()? }
        }
        _ => bail!(
            "kind is none of slack, telegram, email, pagerduty, statuspage, alertmanager, webhook"
        ),
    };
    let mut config = ChannelConfig::new(name, kind);
    config.is_private_allowed = row.allow_private;
    config.per_minute = row.per_minute;
    if let Some(deadline_ms) = row.deadline_ms {
        config.deadline = Duration::from_millis(deadline_ms.clamp(100, 60_000));
    }
    Ok(config)
}
