//! The bodies of what people do to incidents and silences.
//!
//! Owns: what each member may hold, and that none is misspelt. Refuses to know: which roles and
//! statuses there are, and what is lawful when.

use types::{Severity, limits};

use super::{object, only};
use crate::fields::Fields;
use crate::{Fault, JsonLimits};

const SEVERITY: &str = "must be a severity, such as sev1, SEV-2, P3 or info";

/// `PUT /admin/silences`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilenceOrder {
    /// `rule=ID`, `component=NAME` or `alert=KEY`, as the caller wrote it.
    pub matcher: String,
    /// Seconds that it lasts.
    pub lease_s: u32,
    /// Why; may be empty.
    pub why: String,
}

/// `POST /admin/incidents`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncidentOrder {
    /// One line.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub component: String,
    /// What is known; may be empty.
    pub text: String,
}

/// `POST /admin/incidents/{id}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeedOrder {
    /// Somebody looks after it.
    Acknowledge,
    /// Somebody takes a role.
    Assign {
        /// Which, as the caller wrote it.
        role: String,
        /// Who.
        who: String,
    },
    /// It is better or worse than it was taken for.
    Grade {
        /// How bad it is.
        severity: Severity,
    },
    /// It has come to another status.
    Status {
        /// Which, as the caller wrote it.
        status: String,
        /// What is known; may be empty.
        text: String,
        /// Whether the public may read what is said of an end; `None` where nothing is said of
        /// that.
        public: Option<bool>,
    },
    /// Something to tell everybody.
    Update {
        /// What.
        text: String,
    },
    /// Something for the timeline alone.
    Note {
        /// What.
        text: String,
    },
}

/// What `do` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Acknowledge,
    Assign,
    Grade,
    Status,
    Update,
    Note,
}

const DEEDS: [(&str, Deed); 6] = [
    ("acknowledge", Deed::Acknowledge),
    ("assign", Deed::Assign),
    ("grade", Deed::Grade),
    ("status", Deed::Status),
    ("update", Deed::Update),
    ("note", Deed::Note),
];

/// Reads the body of a silence.
///
/// # Errors
/// The refusals of [`crate::json::parse`], [`types::Reason::InvalidField`],
/// [`types::Reason::MissingField`].
pub fn silence(bytes: &[u8], limits: &JsonLimits) -> Result<SilenceOrder, Fault> {
    let members = object(bytes, limits)?;
    only(&members, &["matcher", "lease_s", "why"])?;
    let fields = Fields::new(&members, "");
    Ok(SilenceOrder {
        matcher: name(fields, "matcher")?,
        lease_s: fields.required("lease_s", fields.count("lease_s")?)?,
        why: text(fields, "why")?.unwrap_or_default(),
    })
}

/// Reads the body of a declaration.
///
/// # Errors
/// As [`silence`].
pub fn incident(bytes: &[u8], limits: &JsonLimits) -> Result<IncidentOrder, Fault> {
    let members = object(bytes, limits)?;
    only(&members, &["title", "severity", "component", "text"])?;
    let fields = Fields::new(&members, "");
    Ok(IncidentOrder {
        title: name(fields, "title")?,
        severity: severity(fields)?,
        component: name(fields, "component")?,
        text: text(fields, "text")?.unwrap_or_default(),
    })
}

/// Reads the body of a deed.
///
/// # Errors
/// As [`silence`].
pub fn deed(bytes: &[u8], limits: &JsonLimits) -> Result<DeedOrder, Fault> {
    let members = object(bytes, limits)?;
    let fields = Fields::new(&members, "");
    let deed = fields.choice("do", types::Reason::InvalidField, &DEEDS)?;
    let deed = fields.required("do", deed)?;
    only(
        &members,
        match deed {
            Deed::Acknowledge => &["do"],
            Deed::Assign => &["do", "role", "who"],
            Deed::Grade => &["do", "severity"],
            Deed::Status => &["do", "status", "text", "public"],
            Deed::Update | Deed::Note => &["do", "text"],
        },
    )?;
    let said = || fields.required("text", text(fields, "text")?.filter(|text| !text.is_empty()));
    Ok(match deed {
        Deed::Acknowledge => DeedOrder::Acknowledge,
        Deed::Assign => {
            let role = fields.required("role", fields.text("role")?)?.to_owned();
            DeedOrder::Assign { role, who: name(fields, "who")? }
        }
        Deed::Grade => DeedOrder::Grade { severity: severity(fields)? },
        Deed::Status => {
            let status = fields.required("status", fields.text("status")?)?.to_owned();
            let public = flag(fields, "public")?;
            DeedOrder::Status { status, text: text(fields, "text")?.unwrap_or_default(), public }
        }
        Deed::Update => DeedOrder::Update { text: said()? },
        Deed::Note => DeedOrder::Note { text: said()? },
    })
}

fn severity(fields: Fields<'_>) -> Result<Severity, Fault> {
    let word = fields.required("severity", fields.text("severity")?)?;
    Severity::parse(word).ok_or_else(|| fields.invalid("severity", SEVERITY))
}

fn flag(fields: Fields<'_>, member: &str) -> Result<Option<bool>, Fault> {
    let Some(given) = fields.get(member) else { return Ok(None) };
    given.as_bool().map(Some).ok_or_else(|| fields.invalid(member, "must be true or false"))
}

/// One line that has to be there.
pub(super) fn name(fields: Fields<'_>, member: &str) -> Result<String, Fault> {
    let line = fields.required(member, fields.text(member)?)?;
    match is_line(line, limits::METADATA_VALUE_CHARS) && !line.is_empty() {
        true => Ok(line.to_owned()),
        false => {
            Err(fields.invalid(member, "must be 1 to 256 characters without control characters"))
        }
    }
}

/// What people write, if they do.
pub(super) fn text(fields: Fields<'_>, member: &str) -> Result<Option<String>, Fault> {
    let Some(text) = fields.text(member)? else { return Ok(None) };
    match is_line(text, limits::INCIDENT_TEXT_CHARS) {
        true => Ok(Some(text.to_owned())),
        false => {
            Err(fields
                .invalid(member, "must be at most 1000 characters without control characters"))
        }
    }
}

pub(super) fn is_line(text: &str, chars_max: usize) -> bool {
    text.chars().count() <= chars_max && !text.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Reason;

    const LIMITS: JsonLimits = JsonLimits { max_depth: 10, max_nodes: 10_000 };

    #[test]
    fn orders_are_read() {
        let order = silence(br#"{"matcher":"rule=a","lease_s":60,"why":"work"}"#, &LIMITS);
        let expected = SilenceOrder { matcher: "rule=a".into(), lease_s: 60, why: "work".into() };
        assert_eq!(order.unwrap(), expected);
        let order = incident(br#"{"title":"t","severity":"SEV-1","component":"c"}"#, &LIMITS);
        let (title, component) = ("t".into(), "c".into());
        let expected =
            IncidentOrder { title, severity: Severity::Sev1, component, text: String::new() };
        assert_eq!(order.unwrap(), expected);
        let text = || "x".to_owned();
        for (body, expected) in [
            (r#"{"do":"acknowledge"}"#, DeedOrder::Acknowledge),
            (
                r#"{"do":"assign","role":"scribe","who":"x"}"#,
                DeedOrder::Assign { role: "scribe".into(), who: text() },
            ),
            (r#"{"do":"grade","severity":"P4"}"#, DeedOrder::Grade { severity: Severity::Sev4 }),
            (
                r#"{"do":"status","status":"identified","text":"x"}"#,
                DeedOrder::Status { status: "identified".into(), text: text(), public: None },
            ),
            (
                r#"{"do":"status","status":"resolved","text":null}"#,
                DeedOrder::Status { status: "resolved".into(), text: String::new(), public: None },
            ),
            (
                r#"{"do":"status","status":"resolved","text":"x","public":true}"#,
                DeedOrder::Status { status: "resolved".into(), text: text(), public: Some(true) },
            ),
            (r#"{"do":"update","text":"x"}"#, DeedOrder::Update { text: text() }),
            (r#"{"do":"note","text":"x"}"#, DeedOrder::Note { text: text() }),
        ] {
            assert_eq!(deed(body.as_bytes(), &LIMITS).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Read = fn(&[u8]) -> Result<(), Fault>;
        let silences: Read = |body| silence(body, &LIMITS).map(drop);
        let incidents: Read = |body| incident(body, &LIMITS).map(drop);
        let deeds: Read = |body| deed(body, &LIMITS).map(drop);
        let (missing, invalid) = (Reason::MissingField, Reason::InvalidField);
        let long = format!(r#"{{"do":"note","text":"{}"}}"#, "x".repeat(1_001));
        let wide = format!(r#"{{"do":"assign","role":"r","who":"{}"}}"#, "x".repeat(257));
        for (read, body, reason, member) in [
            (silences, "{}", missing, "matcher"),
            (silences, r#"{"matcher":"rule=a"}"#, missing, "lease_s"),
            (silences, r#"{"matcher":"","lease_s":1}"#, invalid, "matcher"),
            (silences, r#"{"matcher":"rule=a","lease_s":"1"}"#, invalid, "lease_s"),
            (silences, r#"{"matcher":"rule=a","lease_s":1,"until":2}"#, invalid, "body"),
            (incidents, r#"{"severity":"sev1","component":"c"}"#, missing, "title"),
            (incidents, r#"{"title":"t","component":"c"}"#, missing, "severity"),
            (incidents, r#"{"title":"t","severity":"sev1"}"#, missing, "component"),
            (incidents, r#"{"title":"t","severity":"bad","component":"c"}"#, invalid, "severity"),
            (incidents, r#"{"title":"t","severity":1,"component":"c"}"#, invalid, "severity"),
            (incidents, r#"{"title":"t\u0085","severity":"p1","component":"c"}"#, invalid, "title"),
            (incidents, r#"{"title":"t","severity":"p1","component":"c","x":1}"#, invalid, "body"),
            (deeds, "", missing, "do"),
            (deeds, r#"{"do":"resolve"}"#, invalid, "do"),
            (deeds, r#"{"do":"acknowledge","text":"x"}"#, invalid, "body may hold do only"),
            (deeds, r#"{"do":"assign","who":"x"}"#, missing, "role"),
            (deeds, r#"{"do":"assign","role":"scribe"}"#, missing, "who"),
            (deeds, r#"{"do":"grade"}"#, missing, "severity"),
            (deeds, r#"{"do":"status","text":"x"}"#, missing, "status"),
            (deeds, r#"{"do":"status","status":"resolved","public":1}"#, invalid, "public"),
            (deeds, r#"{"do":"update"}"#, missing, "text"),
            (deeds, r#"{"do":"note","text":""}"#, missing, "text"),
            (deeds, r#"{"do":"update","text":"x","status":"resolved"}"#, invalid, "body"),
            (deeds, &long, invalid, "text"),
            (deeds, &wide, invalid, "who"),
        ] {
            let fault = read(body.as_bytes()).unwrap_err();
            assert_eq!(fault.reason, reason, "{body}");
            assert!(fault.detail.as_str().starts_with(member), "{body}: {}", fault.detail);
        }
    }
}
