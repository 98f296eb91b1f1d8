//! The bodies of what is planned: overrides of the rota, and maintenance.
//!
//! Owns: what each member may hold, and that none is misspelt. Refuses to know: which rotations,
//! people and components there are, and what is lawful when.

use serde_json::Value;
use types::{Micros, limits};

use super::incidents::{is_line, name, text};
use super::{object, only};
use crate::fields::{Fields, instant_from_text};
use crate::{Fault, JsonLimits};

/// Components of one window.
const COMPONENTS_MAX: usize = 32;

/// `POST /admin/oncall/overrides`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideOrder {
    /// The rotation.
    pub rotation: String,
    /// The person.
    pub who: String,
    /// From when; absent means now.
    pub from: Option<Micros>,
    /// Until when.
    pub until: Micros,
    /// Why; may be empty.
    pub why: String,
}

/// `POST /admin/maintenance`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintenanceOrder {
    /// One line.
    pub title: String,
    /// What is worked on.
    pub components: Vec<String>,
    /// From when; absent means now.
    pub from: Option<Micros>,
    /// Until when.
    pub until: Micros,
    /// What the public is to know; may be empty.
    pub text: String,
}

/// Reads the body of an override.
///
/// # Errors
/// The refusals of [`crate::json::parse`], [`types::Reason::InvalidField`],
/// [`types::Reason::MissingField`].
pub fn override_order(bytes: &[u8], limits: &JsonLimits) -> Result<OverrideOrder, Fault> {
    let members = object(bytes, limits)?;
    only(&members, &["rotation", "who", "from", "until", "why"])?;
    let fields = Fields::new(&members, "");
    Ok(OverrideOrder {
        rotation: name(fields, "rotation")?,
        who: name(fields, "who")?,
        from: fields.instant("from")?,
        until: fields.required("until", fields.instant("until")?)?,
        why: text(fields, "why")?.unwrap_or_default(),
    })
}

/// Reads the body of a maintenance window.
///
/// # Errors
/// As [`override_order`].
pub fn maintenance(bytes: &[u8], limits: &JsonLimits) -> Result<MaintenanceOrder, Fault> {
    let members = object(bytes, limits)?;
    only(&members, &["title", "components", "from", "until", "text"])?;
    let fields = Fields::new(&members, "");
    Ok(MaintenanceOrder {
        title: name(fields, "title")?,
        components: components(fields)?,
        from: fields.instant("from")?,
        until: fields.required("until", fields.instant("until")?)?,
        text: text(fields, "text")?.unwrap_or_default(),
    })
}

/// An instant in a query: ISO 8601 with an offset, or unix seconds.
#[must_use]
pub fn instant(text: &str) -> Option<Micros> {
    match text.parse() {
        Ok(secs) => Some(Micros::from_secs(secs)).filter(|at| (0..=LAST_S).contains(&at.secs())),
        Err(_) => instant_from_text(text),
    }
}

/// The last second of the year 9999.
const LAST_S: i64 = types::time::MICROS_MAX.secs();

fn components(fields: Fields<'_>) -> Result<Vec<String>, Fault> {
    let given = fields.required("components", fields.get("components"))?;
    let one = |item: &Value| {
        let name = item.as_str()?;
        let fits = is_line(name, limits::METADATA_VALUE_CHARS) && !name.contains(',');
        (fits && !name.is_empty()).then(|| name.to_owned())
    };
    let all: Option<Vec<String>> = given.as_array().and_then(|all| all.iter().map(one).collect());
    all.filter(|all| (1..=COMPONENTS_MAX).contains(&all.len())).ok_or_else(|| {
        fields.invalid("components", "must be a list of 1 to 32 names without commas")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Reason;

    const LIMITS: JsonLimits = JsonLimits { max_depth: 10, max_nodes: 10_000 };

    #[test]
    fn orders_are_read() {
        let body = br#"{"rotation":"primary","who":"ada","until":"2027-01-15T09:00:00+01:00"}"#;
        let expected = OverrideOrder {
            rotation: "primary".into(),
            who: "ada".into(),
            from: None,
            until: Micros::from_secs(1_800_000_000),
            why: String::new(),
        };
        assert_eq!(override_order(body, &LIMITS).unwrap(), expected);
        let body = br#"{"title":"t","components":["a","b"],"from":5,"until":9,"text":"x"}"#;
        let expected = MaintenanceOrder {
            title: "t".into(),
            components: vec!["a".into(), "b".into()],
            from: Some(Micros::from_secs(5)),
            until: Micros::from_secs(9),
            text: "x".into(),
        };
        assert_eq!(maintenance(body, &LIMITS).unwrap(), expected);
        assert_eq!(instant("1800000000"), instant("2027-01-15T08:00:00Z"));
        for bad in ["", "-1", "253402300800", "today", "2027-01-15"] {
            assert_eq!(instant(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Read = fn(&[u8]) -> Result<(), Fault>;
        let overrides: Read = |body| override_order(body, &LIMITS).map(drop);
        let windows: Read = |body| maintenance(body, &LIMITS).map(drop);
        let (missing, invalid) = (Reason::MissingField, Reason::InvalidField);
        for (read, body, reason, member) in [
            (overrides, "{}", missing, "rotation"),
            (overrides, r#"{"rotation":"p"}"#, missing, "who"),
            (overrides, r#"{"rotation":"p","who":"a"}"#, missing, "until"),
            (overrides, r#"{"rotation":"p","who":"a","until":"soon"}"#, invalid, "until"),
            (overrides, r#"{"rotation":"p","who":"a","until":9,"x":1}"#, invalid, "body"),
            (windows, "{}", missing, "title"),
            (windows, r#"{"title":"t"}"#, missing, "components"),
            (windows, r#"{"title":"t","components":[]}"#, invalid, "components"),
            (windows, r#"{"title":"t","components":"a"}"#, invalid, "components"),
            (windows, r#"{"title":"t","components":["a,b"]}"#, invalid, "components"),
            (windows, r#"{"title":"t","components":["a"]}"#, missing, "until"),
            (windows, r#"{"title":"t","components":["a"],"until":9,"from":[]}"#, invalid, "from"),
        ] {
            let fault = read(body.as_bytes()).unwrap_err();
            assert_eq!(fault.reason, reason, "{body}");
            assert!(fault.detail.as_str().starts_with(member), "{body}: {}", fault.detail);
        }
    }
}
