//! The bodies of the operator's requests.
//!
//! Owns: what each member may hold. Refuses to know: who may ask, which settings there are, and
//! whether a key exists.

pub mod incidents;
pub mod planned;

use types::{Scope, Scopes, TenantId, limits};

use crate::fields::Fields;
use crate::{Fault, JsonLimits, json};

/// Seconds of a rotation's overlap when nobody says: a day.
const OVERLAP_S: u32 = 24 * 3_600;
/// Characters of a setting's value.
const VALUE_CHARS: usize = 256;

/// `POST /admin/keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOrder {
    /// Whose key; absent means the service's.
    pub tenant_id: Option<TenantId>,
    /// What it permits; absent means what its owner usually may.
    pub scopes: Option<Scopes>,
    /// What a person calls it.
    pub label: Option<String>,
    /// Seconds until it ends; absent means never.
    pub expires_in_s: Option<u32>,
}

/// `POST /admin/keys/{id}/rotate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateOrder {
    /// Whose key; absent means the service's.
    pub tenant_id: Option<TenantId>,
    /// Seconds that both keys are valid.
    pub overlap_s: u32,
}

/// `PUT /admin/settings/{name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingOrder {
    /// The value as text: numbers and flags may be given as such.
    pub value: String,
    /// Seconds after which the change undoes itself.
    pub lease_s: Option<u32>,
}

/// `PUT /admin/sources`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceOrder {
    /// An address or a network, as the caller wrote it.
    pub source: String,
    /// Seconds that it is refused.
    pub lease_s: u32,
}

/// `POST /admin/pubsub/replay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayOrder {
    /// Dead letters that are taken at most.
    pub limit: u32,
}

/// `PUT /admin/tenants/{tenant_id}/budget`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetOrder {
    /// Calls to models in the period; absent means as many as it likes.
    pub calls: Option<u32>,
    /// What they may cost in the period, in minor units; absent means as much as it likes.
    pub spend_minor: Option<u32>,
    /// How long is counted together.
    pub period: BudgetPeriod,
}

/// How long a budget is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetPeriod {
    /// A calendar month, UTC.
    Month,
    /// A calendar day, UTC.
    Day,
    /// For good.
    Ever,
}

impl BudgetPeriod {
    /// Every period.
    pub const ALL: [BudgetPeriod; 3] = [BudgetPeriod::Month, BudgetPeriod::Day, BudgetPeriod::Ever];

    /// The word in requests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            BudgetPeriod::Month => "month",
            BudgetPeriod::Day => "day",
            BudgetPeriod::Ever => "ever",
        }
    }
}

/// Reads the body of a budget.
///
/// # Errors
/// As [`key`], and [`types::Reason::MissingField`].
pub fn budget(bytes: &[u8], limits: &JsonLimits) -> Result<BudgetOrder, Fault> {
    let members = object(bytes, limits)?;
    let fields = Fields::new(&members, "");
    // What is misspelt here would take a limit away.
    only(&members, &["calls", "spend_minor", "period"])?;
    let (calls, spend_minor) = (fields.count("calls")?, fields.count("spend_minor")?);
    if calls.is_none() && spend_minor.is_none() {
        return fields.required("calls", None);
    }
    let period = match fields.text("period")? {
        None => BudgetPeriod::Month,
        Some(word) => *BudgetPeriod::ALL
            .iter()
            .find(|period| period.as_str() == word)
            .ok_or_else(|| fields.invalid("period", "must be month, day or ever"))?,
    };
    Ok(BudgetOrder { calls, spend_minor, period })
}

/// Reads the body of a key order. An empty body is an empty object.
///
/// # Errors
/// The refusals of [`json::parse`], [`types::Reason::InvalidField`],
/// [`types::Reason::InvalidTenantId`].
pub fn key(bytes: &[u8], limits: &JsonLimits) -> Result<KeyOrder, Fault> {
    let members = object(bytes, limits)?;
    let fields = Fields::new(&members, "");
    let label = fields.text("label")?.map(str::to_owned);
    Ok(KeyOrder {
        tenant_id: fields.tenant_id("tenant_id", limits::CUSTOMER_ID_CHARS)?,
        scopes: scopes(fields)?,
        label,
        expires_in_s: fields.count("expires_in_s")?,
    })
}

fn scopes(fields: Fields<'_>) -> Result<Option<Scopes>, Fault> {
    let expected = || {
        let words: Vec<_> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        fields.invalid("scopes", &format!("must be a list of {}", words.join(", ")))
    };
    let Some(value) = fields.get("scopes") else { return Ok(None) };
    let words = value.as_array().ok_or_else(expected)?;
    let find = |word: &serde_json::Value| {
        let word = word.as_str()?;
        Scope::ALL.iter().copied().find(|scope| scope.as_str() == word)
    };
    let found: Option<Vec<Scope>> = words.iter().map(find).collect();
    let found = found.filter(|found| !found.is_empty()).ok_or_else(expected)?;
    Ok(Some(Scopes::of(&found)))
}

/// Reads the body of a rotation.
///
/// # Errors
/// As [`key`].
pub fn rotate(bytes: &[u8], limits: &JsonLimits) -> Result<RotateOrder, Fault> {
    let members = object(bytes, limits)?;
    let fields = Fields::new(&members, "");
    Ok(RotateOrder {
        tenant_id: fields.tenant_id("tenant_id", limits::CUSTOMER_ID_CHARS)?,
        overlap_s: fields.count("overlap_s")?.unwrap_or(OVERLAP_S),
    })
}

/// Reads the body of a change to a setting.
///
/// # Errors
/// As [`key`], and [`types::Reason::MissingField`].
pub fn setting(bytes: &[u8], limits: &JsonLimits) -> Result<SettingOrder, Fault> {
    let members = object(bytes, limits)?;
    let fields = Fields::new(&members, "");
    let value = match fields.get("value") {
        Some(serde_json::Value::String(text)) => Some(text.clone()),
        Some(serde_json::Value::Bool(flag)) => Some(flag.to_string()),
        Some(serde_json::Value::Number(number)) => Some(number.to_string()),
        Some(_) => return Err(fields.invalid("value", "must be a string, a number or a flag")),
        None => None,
    };
    let value = fields.required("value", value)?;
    if value.is_empty() || value.chars().count() > VALUE_CHARS || value.contains(char::is_control) {
        return Err(
            fields.invalid("value", "must be 1 to 256 characters without control characters")
        );
    }
    Ok(SettingOrder { value, lease_s: fields.count("lease_s")? })
}

/// Reads the body of a block.
///
/// # Errors
/// As [`setting`].
pub fn source(bytes: &[u8], limits: &JsonLimits) -> Result<SourceOrder, Fault> {
    let members = object(bytes, limits)?;
    let fields = Fields::new(&members, "");
    let source = fields.required("source", fields.text("source")?)?.to_owned();
    Ok(SourceOrder { source, lease_s: fields.required("lease_s", fields.count("lease_s")?)? })
}

/// Reads the body of a replay of dead letters.
///
/// # Errors
/// As [`key`].
pub fn replay(bytes: &[u8], limits: &JsonLimits) -> Result<ReplayOrder, Fault> {
    let members = object(bytes, limits)?;
    let fields = Fields::new(&members, "");
    match fields.count("limit")?.unwrap_or(100) {
        limit @ 1..=10_000 => Ok(ReplayOrder { limit }),
        _ => Err(fields.invalid("limit", "must be from 1 to 10000")),
    }
}

/// Reads the body of a new tenant.
///
/// # Errors
/// As [`setting`].
pub fn tenant(bytes: &[u8], limits: &JsonLimits) -> Result<TenantId, Fault> {
    let members = object(bytes, limits)?;
    let fields = Fields::new(&members, "");
    fields.required("tenant_id", fields.tenant_id("tenant_id", limits::CUSTOMER_ID_CHARS)?)
}

/// Refuses members of other names.
fn only(members: &serde_json::Map<String, serde_json::Value>, names: &[&str]) -> Result<(), Fault> {
    if members.keys().all(|name| names.contains(&name.as_str())) {
        return Ok(());
    }
    let detail = match names {
        [one] => format!("body may hold {one} only"),
        [before @ .., last] => format!("body may hold {} and {last} only", before.join(", ")),
        [] => "body may hold nothing".to_owned(),
    };
    Err(Fault::new(types::Reason::InvalidField, detail))
}

fn object(
    bytes: &[u8],
    limits: &JsonLimits,
) -> Result<serde_json::Map<String, serde_json::Value>, Fault> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(serde_json::Map::new());
    }
    json::parse_object(bytes, *limits, "body")
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Reason;

    const LIMITS: JsonLimits = JsonLimits { max_depth: 10, max_nodes: 10_000 };

    #[test]
    fn orders_are_read() {
        let order = key(br#"{"tenant_id":"a","scopes":["signals:write"],"label":"l"}"#, &LIMITS);
        let order = order.unwrap();
        assert_eq!(order.tenant_id.unwrap().as_str(), "a");
        assert_eq!(order.scopes, Some(Scopes::of(&[Scope::SignalsWrite])));
        assert_eq!((order.label.as_deref(), order.expires_in_s), (Some("l"), None));
        assert_eq!(key(b" ", &LIMITS).unwrap().tenant_id, None);
        assert_eq!(rotate(b"", &LIMITS).unwrap().overlap_s, OVERLAP_S);
        for (body, value) in [
            (&br#"{"value":7}"#[..], "7"),
            (br#"{"value":true}"#, "true"),
            (br#"{"value":"x"}"#, "x"),
        ] {
            assert_eq!(
                setting(body, &LIMITS).unwrap(),
                SettingOrder { value: value.into(), lease_s: None }
            );
        }
        assert_eq!(replay(b"", &LIMITS).unwrap().limit, 100);
        let block = source(br#"{"source":"10.0.0.1","lease_s":60}"#, &LIMITS).unwrap();
        assert_eq!(block, SourceOrder { source: "10.0.0.1".into(), lease_s: 60 });
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Read = fn(&[u8]) -> Result<(), Fault>;
        let (keys, settings): (Read, Read) =
            (|body| key(body, &LIMITS).map(drop), |body| setting(body, &LIMITS).map(drop));
        let (sources, replays): (Read, Read) =
            (|body| source(body, &LIMITS).map(drop), |body| replay(body, &LIMITS).map(drop));
        for (read, body, reason, member) in [
            (keys, r#"{"scopes":"admin:read"}"#, Reason::InvalidField, "scopes"),
            (keys, r#"{"scopes":[]}"#, Reason::InvalidField, "scopes"),
            (keys, r#"{"scopes":["root"]}"#, Reason::InvalidField, "scopes"),
            (keys, r#"{"tenant_id":"a b"}"#, Reason::InvalidTenantId, "tenant_id"),
            (keys, r#"{"expires_in_s":-1}"#, Reason::InvalidField, "expires_in_s"),
            (settings, "{}", Reason::MissingField, "value"),
            (settings, r#"{"value":[]}"#, Reason::InvalidField, "value"),
            (settings, r#"{"value":""}"#, Reason::InvalidField, "value"),
            (settings, r#"{"value":"a\u0085b"}"#, Reason::InvalidField, "value"),
            (sources, r#"{"source":"1.2.3.4"}"#, Reason::MissingField, "lease_s"),
            (sources, r#"{"lease_s":1}"#, Reason::MissingField, "source"),
            (replays, r#"{"limit":0}"#, Reason::InvalidField, "limit"),
        ] {
            let fault = read(body.as_bytes()).unwrap_err();
            assert_eq!(fault.reason, reason, "{body}");
            assert!(fault.detail.as_str().starts_with(member), "{body}: {}", fault.detail);
        }
        assert_eq!(key(b"[]", &LIMITS).unwrap_err().reason, Reason::InvalidMessageFormat);
    }
}
