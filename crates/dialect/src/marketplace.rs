//! The two bodies of `POST /marketplace`: an entitlement event, and a customer's pricing call.
//!
//! Owns: which of the two a body is, and the checks on every member of both.
//! Refuses to know: prices, payment providers, signatures, and which action a state permits.

use serde_json::{Map, Value};
use types::{EntitlementId, Micros, Reason, TenantId, limits};

use crate::fields::{Fields, WORD_EXPECTED, is_word};
use crate::{Fault, JsonLimits, json};

/// Characters of a payment token.
const STRIPE_TOKEN_CHARS: usize = 255;

/// What an entitlement event asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Make the entitlement active.
    Grant,
    /// End it for good.
    Revoke,
    /// Pause it.
    Suspend,
    /// Make a paused one active again.
    Resume,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 4] = [Action::Grant, Action::Revoke, Action::Suspend, Action::Resume];

    /// The word as bodies and receipts spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Grant => "grant",
            Action::Revoke => "revoke",
            Action::Suspend => "suspend",
            Action::Resume => "resume",
        }
    }
}

/// A change of one entitlement of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntitlementEvent {
    /// At most [`limits::TENANT_ID_CHARS`] characters.
    pub tenant_id: TenantId,
    /// Which entitlement.
    pub entitlement_id: EntitlementId,
    /// What is to happen to it.
    pub action: Action,
    /// From when; absent means now.
    pub effective_at: Option<Micros>,
    /// Until when, later than `effective_at` where both are given; absent means without end.
    pub expires_at: Option<Micros>,
    /// `metadata.plan`: 1 to 64 letters, digits, dots, hyphens and underscores.
    pub plan: Option<String>,
    /// The caller's metadata in the order of its keys, `plan` included: at most
    /// [`limits::METADATA_ENTRIES`] entries, values as text of at most
    /// [`limits::METADATA_VALUE_CHARS`] characters without control characters. Nulls are left out.
    pub metadata: Vec<(String, String)>,
}

/// A request for a price, and with a payment token for a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerCall {
    /// At most [`limits::CUSTOMER_ID_CHARS`] characters.
    pub customer_id: TenantId,
    /// True when the body carries a payment token. The token itself is not kept: it is a secret.
    pub has_stripe_token: bool,
}

/// A body of `POST /marketplace`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Names a `tenant_id`.
    Entitlement(EntitlementEvent),
    /// Names a `customer_id`.
    Customer(CustomerCall),
}

/// Reads either body; unknown members are ignored and null counts as absent.
///
/// Besides the refusals of [`json::parse`]: [`Reason::MissingField`], [`Reason::InvalidField`],
/// [`Reason::InvalidTenantId`], [`Reason::InvalidEntitlementId`], [`Reason::UnknownAction`].
/// A body that names a customer and also a member of an entitlement event is refused, because
/// taking either meaning would silently drop the other.
pub fn parse(bytes: &[u8], limits: &JsonLimits) -> Result<Call, Fault> {
    let members = json::parse_object(bytes, *limits, "body")?;
    let fields = Fields::new(&members, "");
    let event_member =
        ["tenant_id", "entitlement_id", "action"].into_iter().find(|name| fields.has(name));
    match (fields.has("customer_id"), event_member) {
        (true, Some(name)) => {
            let expected = format!("and {name} must not both be given");
            Err(fields.invalid("customer_id", &expected))
        }
        (true, None) => customer_call(fields).map(Call::Customer),
        (false, Some(_)) => entitlement_event(fields).map(Call::Entitlement),
        (false, None) => Err(fields.fault(
            Reason::MissingField,
            "customer_id",
            "required, or tenant_id for an entitlement event",
        )),
    }
}

/// Reads the members of an entitlement event; the Pub/Sub signal of that shape uses it too.
pub(crate) fn entitlement_event(fields: Fields<'_>) -> Result<EntitlementEvent, Fault> {
    let tenant_id = fields.tenant_id("tenant_id", limits::TENANT_ID_CHARS)?;
    let tenant_id = fields.required("tenant_id", tenant_id)?;
    if fields.has("customer_id") {
        return Err(fields.invalid("customer_id", "and tenant_id must not both be given"));
    }
    let entitlement_id = fields.entitlement_id("entitlement_id")?;
    let entitlement_id = fields.required("entitlement_id", entitlement_id)?;
    let action =
        fields.choice("action", Reason::UnknownAction, &Action::ALL.map(|it| (it.as_str(), it)))?;
    let action = fields.required("action", action)?;
    let effective_at = fields.instant("effective_at")?;
    let expires_at = fields.instant("expires_at")?;
    if let (Some(effective_at), Some(expires_at)) = (effective_at, expires_at)
        && expires_at <= effective_at
    {
        return Err(fields.invalid("expires_at", "must be later than effective_at"));
    }
    // Its content is the business of the credential layer; here it only has to be text.
    fields.text("signature")?;
    let (plan, metadata) = match fields.object("metadata")? {
        Some(members) => {
            let plan = Fields::new(members, "metadata.").word("plan")?.map(str::to_owned);
            (plan, metadata_entries(fields, members)?)
        }
        None => (None, Vec::new()),
    };
    Ok(EntitlementEvent {
        tenant_id,
        entitlement_id,
        action,
        effective_at,
        expires_at,
        plan,
        metadata,
    })
}

fn metadata_entries(
    fields: Fields<'_>,
    members: &Map<String, Value>,
) -> Result<Vec<(String, String)>, Fault> {
    let inner = Fields::new(members, "metadata.");
    let mut entries = Vec::new();
    for (key, value) in members {
        // Before any refusal names the key: one that passes is safe to show.
        if !is_word(key) {
            return Err(fields.invalid("metadata", &format!("keys {WORD_EXPECTED}")));
        }
        let text = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            _ => return Err(inner.invalid(key, "must be a string, an integer or a boolean")),
        };
        let max_chars = limits::METADATA_VALUE_CHARS;
        if text.chars().count() > max_chars {
            return Err(inner.invalid(key, &format!("must be at most {max_chars} characters")));
        }
        if text.chars().any(char::is_control) {
            return Err(inner.invalid(key, "must not hold control characters"));
        }
        if entries.len() == limits::METADATA_ENTRIES {
            let expected = format!("must have at most {} entries", limits::METADATA_ENTRIES);
            return Err(fields.invalid("metadata", &expected));
        }
        entries.push((key.clone(), text));
    }
    Ok(entries)
}

fn customer_call(fields: Fields<'_>) -> Result<CustomerCall, Fault> {
    // Seed 002 scenario 6 gives the empty id a wording of its own.
    if fields.text("customer_id")?.is_some_and(str::is_empty) {
        return Err(fields.fault(Reason::InvalidTenantId, "customer_id", "required"));
    }
    let customer_id = fields.tenant_id("customer_id", limits::CUSTOMER_ID_CHARS)?;
    let customer_id = fields.required("customer_id", customer_id)?;
    let token = fields.text("stripe_token")?;
    let is_token = |text: &str| {
        (1..=STRIPE_TOKEN_CHARS).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if token.is_some_and(|text| !is_token(text)) {
        let expected = format!("must be 1 to {STRIPE_TOKEN_CHARS} printable ASCII characters");
        return Err(fields.invalid("stripe_token", &expected));
    }
    Ok(CustomerCall { customer_id, has_stripe_token: token.is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &Value) -> Result<Call, Fault> {
        parse(body.to_string().as_bytes(), &JsonLimits::default())
    }

    fn event(body: &Value) -> EntitlementEvent {
        match read(body) {
            Ok(Call::Entitlement(event)) => event,
            other => panic!("{other:?} for {body}"),
        }
    }

    /// A good event with `changes` laid over it; a change to null removes the member's meaning.
    fn changed(changes: &Value) -> Value {
        let mut body =
            json!({"tenant_id": "tenant-123", "entitlement_id": "e-1", "action": "grant"});
        for (name, value) in changes.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body
    }

    fn assert_refused(body: &Value, reason: Reason, detail: &str) {
        let fault = read(body).expect_err("must be refused");
        assert_eq!((fault.reason, fault.detail.as_str()), (reason, detail), "{body}");
    }

    #[test]
    fn every_member_of_an_event_is_kept() {
        let found = event(&changed(&json!({
            "effective_at": "2024-01-01T00:00:00Z",
            "expires_at": 1_735_689_600,
            "signature": "abc",
            "metadata": {"plan": "pro-1", "order_id": 42, "trial": true, "note": "caf\u{e9} \"x\"", "gone": null},
            "unknown": [1, {"x": 1.5}],
        })));
        assert_eq!(found.tenant_id.as_str(), "tenant-123");
        assert_eq!(found.entitlement_id.as_str(), "e-1");
        assert_eq!(found.action, Action::Grant);
        assert_eq!(found.effective_at, Some(Micros::from_secs(1_704_067_200)));
        assert_eq!(found.expires_at, Some(Micros::from_secs(1_735_689_600)));
        assert_eq!(found.plan.as_deref(), Some("pro-1"));
        let expected =
            [("note", "caf\u{e9} \"x\""), ("order_id", "42"), ("plan", "pro-1"), ("trial", "true")];
        assert_eq!(found.metadata, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn optional_members_may_be_null_or_absent() {
        let bare = event(&changed(&json!({})));
        let nulls = json!({"effective_at": null, "expires_at": null, "metadata": null, "signature": null, "customer_id": null});
        assert_eq!(event(&changed(&nulls)), bare);
        assert_eq!((bare.effective_at, bare.expires_at, &bare.plan), (None, None, &None));
    }

    #[test]
    fn all_four_actions_and_no_other() {
        for (word, action) in ["grant", "revoke", "suspend", "resume"].into_iter().zip(Action::ALL)
        {
            assert_eq!(event(&changed(&json!({"action": word}))).action, action);
            assert_eq!(action.as_str(), word);
        }
        for word in ["", "Grant", "grant ", "delete", &"g".repeat(500)] {
            let detail = "action must be one of grant, revoke, suspend, resume";
            assert_refused(&changed(&json!({"action": word})), Reason::UnknownAction, detail);
        }
    }

    #[test]
    fn a_bad_event_is_refused_by_the_name_of_its_member() {
        use Reason::{InvalidEntitlementId, InvalidField, InvalidTenantId, MissingField};
        let charset =
            "may hold letters, digits and . _ : @ + - only, and starts with a letter or digit";
        let table = [
            (json!({"tenant_id": null}), MissingField, "tenant_id is required"),
            (json!({"entitlement_id": null}), MissingField, "entitlement_id is required"),
            (json!({"action": null}), MissingField, "action is required"),
            (json!({"tenant_id": -5}), InvalidField, "tenant_id must be a string"),
            (json!({"tenant_id": ["t"]}), InvalidField, "tenant_id must be a string"),
            (json!({"entitlement_id": {}}), InvalidField, "entitlement_id must be a string"),
            (json!({"action": true}), InvalidField, "action must be a string"),
            (json!({"tenant_id": ""}), InvalidTenantId, "tenant_id must not be empty"),
            (
                json!({"tenant_id": "x".repeat(129)}),
                InvalidTenantId,
                "tenant_id must be at most 128 characters",
            ),
            (json!({"tenant_id": "\u{1f600}"}), InvalidTenantId, &format!("tenant_id {charset}")),
            (json!({"tenant_id": "a\"b"}), InvalidTenantId, &format!("tenant_id {charset}")),
            (json!({"tenant_id": "_ops"}), InvalidTenantId, &format!("tenant_id {charset}")),
            (
                json!({"entitlement_id": ""}),
                InvalidEntitlementId,
                "entitlement_id must not be empty",
            ),
            (
                json!({"entitlement_id": "x".repeat(500)}),
                InvalidEntitlementId,
                "entitlement_id must be at most 128 characters",
            ),
            (
                json!({"entitlement_id": "'; drop"}),
                InvalidEntitlementId,
                &format!("entitlement_id {charset}"),
            ),
        ];
        for (changes, reason, detail) in table {
            assert_refused(&changed(&changes), reason, detail);
        }
    }

    #[test]
    fn bad_times_and_metadata_are_refused_by_the_path_of_the_member() {
        let time = "must be an ISO 8601 time with an offset or integer unix seconds, \
                    in the years 1970 to 9999";
        let later = "must be later than effective_at";
        let scalar = "must be a string, an integer or a boolean";
        let keys = format!("keys {WORD_EXPECTED}");
        for (changes, path, expected) in [
            (json!({"effective_at": "tomorrow"}), "effective_at", time),
            (json!({"effective_at": -1}), "effective_at", time),
            (json!({"effective_at": false}), "effective_at", time),
            (json!({"expires_at": 1.5}), "expires_at", time),
            (json!({"expires_at": "2024-01-01T00:00:00"}), "expires_at", time),
            (json!({"expires_at": "10000-01-01T00:00:00Z"}), "expires_at", time),
            (json!({"effective_at": 10, "expires_at": 10}), "expires_at", later),
            (
                json!({"effective_at": 10, "expires_at": "1970-01-01T00:00:09Z"}),
                "expires_at",
                later,
            ),
            (json!({"signature": 1}), "signature", "must be a string"),
            (json!({"metadata": "x"}), "metadata", "must be an object"),
            (json!({"metadata": {"plan": "a b"}}), "metadata.plan", WORD_EXPECTED),
            (json!({"metadata": {"plan": ""}}), "metadata.plan", WORD_EXPECTED),
            (json!({"metadata": {"plan": 3}}), "metadata.plan", "must be a string"),
            (json!({"metadata": {"": "x"}}), "metadata", &keys),
            (json!({"metadata": {"caf\u{e9}": "x"}}), "metadata", &keys),
            (json!({"metadata": {"k": 1.5}}), "metadata.k", scalar),
            (json!({"metadata": {"k": {}}}), "metadata.k", scalar),
            (json!({"metadata": {"k": []}}), "metadata.k", scalar),
            (
                json!({"metadata": {"k": "x".repeat(257)}}),
                "metadata.k",
                "must be at most 256 characters",
            ),
            (
                json!({"metadata": {"k": "a\u{85}b"}}),
                "metadata.k",
                "must not hold control characters",
            ),
        ] {
            let detail = format!("{path} {expected}");
            assert_refused(&changed(&changes), Reason::InvalidField, &detail);
        }
    }

    #[test]
    fn metadata_is_bounded_and_nulls_do_not_count() {
        let entries = |kept: usize| {
            let mut map: Map<String, Value> =
                (0..kept).map(|i| (format!("k{i}"), json!(i))).collect();
            map.insert("a-null".to_owned(), Value::Null);
            changed(&json!({ "metadata": map }))
        };
        assert_eq!(event(&entries(16)).metadata.len(), 16);
        assert_refused(&entries(17), Reason::InvalidField, "metadata must have at most 16 entries");
        let long = event(&changed(&json!({"metadata": {"k": "\u{1f600}".repeat(256)}})));
        assert_eq!(long.metadata[0].1.chars().count(), 256);
        let integers = event(&changed(&json!({"metadata": {"a": i64::MIN, "b": u64::MAX}})));
        assert_eq!(integers.metadata[0].1, "-9223372036854775808");
        assert_eq!(integers.metadata[1].1, "18446744073709551615");
    }

    #[test]
    fn a_customer_call_keeps_the_fact_of_a_token_and_not_the_token() {
        for (body, has_stripe_token) in [
            (json!({"customer_id": "cust_1"}), false),
            (json!({"customer_id": "x".repeat(256), "stripe_token": null}), false),
            (
                json!({"customer_id": "a@b.example", "stripe_token": "tok_visa", "tenant_id": null}),
                true,
            ),
            (
                json!({"customer_id": "c", "stripe_token": "t".repeat(255), "name": "\u{1f600}"}),
                true,
            ),
        ] {
            match read(&body) {
                Ok(Call::Customer(call)) => {
                    assert_eq!(call.customer_id.as_str(), body["customer_id"]);
                    assert_eq!(call.has_stripe_token, has_stripe_token);
                    assert!(!format!("{call:?}").contains("tok_visa"));
                }
                other => panic!("{other:?} for {body}"),
            }
        }
    }

    #[test]
    fn a_bad_customer_call_speaks_the_words_of_the_runbook() {
        use Reason::{InvalidField, InvalidTenantId, MissingField};
        let required = "customer_id required, or tenant_id for an entitlement event";
        let token = "stripe_token must be 1 to 255 printable ASCII characters";
        let table = [
            (json!({}), MissingField, required),
            (json!({"customer_id": null}), MissingField, required),
            (json!({"stripe_token": "tok_visa"}), MissingField, required),
            (json!({"customer_id": ""}), InvalidTenantId, "customer_id required"),
            (
                json!({"customer_id": "x".repeat(500)}),
                InvalidTenantId,
                "customer_id must be at most 256 characters",
            ),
            (
                json!({"customer_id": "x".repeat(257)}),
                InvalidTenantId,
                "customer_id must be at most 256 characters",
            ),
            (json!({"customer_id": -1}), InvalidField, "customer_id must be a string"),
            (json!({"customer_id": {"id": "c"}}), InvalidField, "customer_id must be a string"),
            (
                json!({"customer_id": "c", "tenant_id": "t"}),
                InvalidField,
                "customer_id and tenant_id must not both be given",
            ),
            (
                json!({"customer_id": "c", "action": "grant"}),
                InvalidField,
                "customer_id and action must not both be given",
            ),
            (json!({"customer_id": "c", "stripe_token": ""}), InvalidField, token),
            (json!({"customer_id": "c", "stripe_token": "t".repeat(256)}), InvalidField, token),
            (json!({"customer_id": "c", "stripe_token": "tok visa"}), InvalidField, token),
            (
                json!({"customer_id": "c", "stripe_token": 5}),
                InvalidField,
                "stripe_token must be a string",
            ),
            (json!({"action": "grant"}), MissingField, "tenant_id is required"),
            (json!([]), Reason::InvalidMessageFormat, "body must be a JSON object"),
            (json!("x"), Reason::InvalidMessageFormat, "body must be a JSON object"),
            (json!(null), Reason::InvalidMessageFormat, "body must be a JSON object"),
        ];
        for (body, reason, detail) in table {
            assert_refused(&body, reason, detail);
        }
    }
}
