//! What people and other tools are told about an incident, and what other tools tell us.
//!
//! Owns: what a notice holds, how it is worded for each kind of channel within that channel's
//! limits, what the far side's answer means, and which alerts of others are understood. Refuses to
//! know: sockets, clocks, who is on call, and whether a notice has been told before.
//!
//! Every text of a notice may come from anywhere: it is escaped, cut on the border of a character
//! and never part of a header or of a path as it is.

pub mod alertmanager;
mod answer;
pub mod email;
pub mod incoming;
pub mod pagerduty;
pub mod slack;
pub mod statuspage;
pub mod telegram;
pub mod templates;
mod text;
pub mod webhook;

use std::collections::BTreeMap;
use std::fmt;

use types::Micros;

pub use answer::Delivery;

/// What is to be told, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Unique per transition, at most 128 characters: what the far side recognises a repeat by,
    /// where it can.
    pub id: String,
    /// The incident, such as `INC-7`.
    pub incident: String,
    /// What has happened to it.
    pub kind: NoticeKind,
    /// 1 is the worst, 4 the least; anything else is taken for the nearer of the two.
    pub severity: u8,
    /// One line.
    pub title: String,
    /// The filled template, plain text of several lines.
    pub text: String,
    /// The part of the service that is affected.
    pub component: String,
    /// When this happened, in microseconds since 1970, UTC.
    pub at_us: i64,
    /// When the incident was opened, in microseconds since 1970, UTC.
    pub opened_at_us: i64,
    /// Where more is to be read.
    pub url: Option<String>,
    /// The alerts behind the incident.
    pub alerts: Vec<NoticeAlert>,
}

/// One alert behind an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeAlert {
    /// The rule that fired.
    pub rule_id: String,
    /// The values that it fired for.
    pub labels: BTreeMap<String, String>,
    /// One line.
    pub title: String,
    /// What is the matter.
    pub message: String,
    /// In microseconds since 1970, UTC.
    pub starts_at_us: i64,
    /// In microseconds since 1970, UTC; absent while it fires.
    pub ends_at_us: Option<i64>,
    /// The measured value with its unit, where there is one.
    pub value: Option<String>,
}

/// What has happened to an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// It was opened.
    Opened,
    /// Nobody has acknowledged it in time.
    Escalated {
        /// The step of the policy that is now told, from 1.
        level: u8,
    },
    /// There is news.
    Update {
        /// How far the work is.
        phase: Phase,
    },
    /// Somebody works on it.
    Acknowledged,
    /// It is over.
    Resolved,
}

impl NoticeKind {
    /// The word in requests and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            NoticeKind::Opened => "opened",
            NoticeKind::Escalated { .. } => "escalated",
            NoticeKind::Update { .. } => "update",
            NoticeKind::Acknowledged => "acknowledged",
            NoticeKind::Resolved => "resolved",
        }
    }
}

/// How far the work on an incident is, as the status update of the communication templates has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The cause is looked for.
    Investigating,
    /// The cause is known, and a fix is put in.
    Fixing,
    /// The fix is in, and is watched.
    Testing,
}

impl Phase {
    /// The words of the template.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Phase::Investigating => "Still investigating",
            Phase::Fixing => "Implementing fix",
            Phase::Testing => "Testing",
        }
    }

    /// The word that status pages have for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Investigating => "investigating",
            Phase::Fixing => "identified",
            Phase::Testing => "monitoring",
        }
    }
}

/// The method of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Nothing changes.
    Get,
    /// Something is made.
    Post,
    /// Something is changed.
    Patch,
}

impl Method {
    /// As it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Patch => "PATCH",
        }
    }
}

/// A request that is ready to be sent. Path, headers and body may hold secrets, and so `Debug`
/// shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Behind the channel's address, with a leading slash; empty where the address is the whole of
    /// it.
    pub path: String,
    /// Beside host, length, content type and user agent, which the sender sets.
    pub headers: Vec<(&'static str, String)>,
    /// JSON; empty with [`Method::Get`].
    pub body: Vec<u8>,
}

impl Outgoing {
    fn post(path: impl Into<String>, body: &serde_json::Value) -> Outgoing {
        Outgoing {
            method: Method::Post,
            path: path.into(),
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("method", &self.method)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Notice {
    /// The severity as people say it, `SEV-1` to `SEV-4`.
    #[must_use]
    pub fn severity_name(&self) -> &'static str {
        severity_name(self.severity)
    }

    /// What has happened, in one line without control characters and without a bound.
    fn headline(&self) -> String {
        let happened = match self.kind {
            NoticeKind::Escalated { level } => format!("escalated to level {level}"),
            kind => kind.as_str().to_owned(),
        };
        let (incident, title) = (text::line(&self.incident), text::line(&self.title));
        format!("{} {incident} {happened}: {title}", self.severity_name())
    }

    /// Where more is to be read, in one line; `None` where that is nothing.
    fn link(&self) -> Option<String> {
        let link = text::line(self.url.as_deref()?.trim()).into_owned();
        (!link.is_empty()).then_some(link)
    }

    /// The alerts that fit into a message, and how many do not.
    fn first_alerts(&self, max: usize) -> (&[NoticeAlert], usize) {
        let (first, rest) = self.alerts.split_at(self.alerts.len().min(max));
        (first, rest.len())
    }
}

fn severity_name(severity: u8) -> &'static str {
    match severity {
        0 | 1 => "SEV-1",
        2 => "SEV-2",
        3 => "SEV-3",
        _ => "SEV-4",
    }
}

/// `2026-11-23T14:37:45Z`.
fn seconds(at_us: i64) -> String {
    let text = Micros(at_us).to_string();
    format!("{}Z", text.split('.').next().unwrap_or_default())
}
