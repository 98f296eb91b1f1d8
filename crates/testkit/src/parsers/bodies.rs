//! Readers of what callers send: bodies, keys of requests, texts of keys.
//!
//! Owns: that a refusal is the caller's and repeats nothing, and that what is taken is within the
//! limits that later layers rely on. Refuses to know: routes and states.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dialect::marketplace::{Call, EntitlementEvent};
use dialect::pubsub::Signal;
use dialect::{Fault, JsonLimits};
use serde_json::Value;
use types::access::{KEY_PREFIX, split_key};
use types::time::MICROS_MAX;
use types::{Blame, KeyId, KeyOwner, Micros, Scopes, limits};

/// Bytes from which on a word of a refusal that also stands in the request has to be a known one.
const RUN_BYTES: usize = 8;

/// Members of bodies and the words of closed sets, as refusals name them; then the longer words
/// and numbers of their sentences, which a request may hold by chance.
const KNOWN: &[&str] = &[
    "autonomic_signal",
    "capacity_alert",
    "critical",
    "customer_id",
    "deliveryAttempt",
    "dimensions",
    "effective_at",
    "encoding_format",
    "entitlement_id",
    "expires_at",
    "expires_in_s",
    "failure_detected",
    "max_completion_tokens",
    "max_tokens",
    "message.data",
    "message.messageId",
    "message.message_id",
    "messageId",
    "messages",
    "metadata",
    "metadata.plan",
    "overlap_s",
    "quota_approaching",
    "severity",
    "signal_type",
    "signature",
    "stream_options",
    "stream_options.include_usage",
    "stripe_token",
    "subscription",
    "tenant_id",
    "timestamp",
    "timestamp_ms",
    "truncatedAlerts",
    "resolved",
    "admin:read",
    "admin:write",
    "marketplace:write",
    "receipts:read",
    "signals:write",
    "1000000000",
    "4294967295",
    "character",
    "characters",
    "entitlement",
    "milliseconds",
    "printable",
    "providers",
    "required",
    "underscores",
];

/// What was read; of a refusal, that it is one as the crate `dialect` promises.
pub(super) fn judged<T>(bytes: &[u8], read: Result<T, Fault>) -> Option<T> {
    let fault = match read {
        Ok(read) => return Some(read),
        Err(fault) => fault,
    };
    let detail = fault.detail.as_str();
    assert_eq!(fault.reason.status(), 400, "{detail}");
    assert_eq!(fault.reason.blame(), Blame::Caller, "{detail}");
    assert!((1..=200).contains(&detail.len()) && !detail.ends_with('.'), "{detail}");
    assert!(!detail.contains(char::is_control), "{detail:?}");
    for word in detail.split([' ', ',', ';']).filter(|word| word.len() >= RUN_BYTES) {
        // The name of an entry of the caller's metadata is shown once it is known to be a word.
        let is_entry = word.strip_prefix("metadata.").is_some_and(is_word);
        let repeated = bytes.windows(word.len()).any(|run| run == word.as_bytes());
        assert!(!repeated || is_entry || KNOWN.contains(&word), "{detail:?} repeats {word:?}");
    }
    None
}

fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=limits::METRIC_CHARS).contains(&text.len()) && text.bytes().all(plain)
}

/// Strict JSON: what is taken is what any reader sees, and within the limits.
pub(super) fn json(bytes: &[u8]) -> bool {
    let bounds = JsonLimits::default();
    let Some(value) = judged(bytes, dialect::json::parse(bytes, bounds)) else { return false };
    let plain = serde_json::from_slice::<Value>(bytes).ok();
    assert_eq!(plain.as_ref(), Some(&value), "a plain reader sees something else");
    let seen = Shape::of(&value);
    assert!(seen.depth <= bounds.max_depth && seen.nodes <= bounds.max_nodes);
    assert!(!seen.control, "a control character was taken");
    assert_eq!(seen.members, colons(bytes), "a member was lost");
    // A double may be read one step away from its shortest text, so that texts of doubles differ.
    if !seen.float {
        let again = dialect::json::parse(value.to_string().as_bytes(), bounds);
        assert_eq!(again.as_ref(), Ok(&value), "the value does not read back");
    }
    true
}

/// What a value is made of.
#[derive(Default)]
struct Shape {
    depth: usize,
    nodes: usize,
    members: usize,
    control: bool,
    float: bool,
}

impl Shape {
    fn of(value: &Value) -> Shape {
        let has_control = |text: &str| text.bytes().any(|byte| byte < b' ');
        let mut shape = Shape { nodes: 1, ..Shape::default() };
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(number) => shape.float = number.is_f64(),
            Value::String(text) => shape.control = has_control(text),
            Value::Array(elements) => {
                shape.depth = 1;
                elements.iter().for_each(|inner| shape.add(&Shape::of(inner)));
            }
            Value::Object(members) => {
                shape.depth = 1;
                for (name, inner) in members {
                    shape.nodes += 1;
                    shape.members += 1;
                    shape.control |= has_control(name);
                    shape.add(&Shape::of(inner));
                }
            }
        }
        shape
    }

    fn add(&mut self, inner: &Shape) {
        self.depth = self.depth.max(inner.depth + 1);
        self.nodes += inner.nodes;
        self.members += inner.members;
        self.control |= inner.control;
        self.float |= inner.float;
    }
}

/// The colons of a JSON text that stand in no string: its members, those that repeat a name too.
fn colons(text: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b':' => count += usize::from(!in_string),
            _ => {}
        }
    }
    count
}

/// Both bodies of the marketplace; an entitlement event means the same as a message.
pub(super) fn marketplace(bytes: &[u8]) -> bool {
    let bounds = JsonLimits::default();
    let Some(call) = judged(bytes, dialect::marketplace::parse(bytes, &bounds)) else {
        return false;
    };
    match call {
        Call::Entitlement(event) => {
            check_event(&event);
            let signal = dialect::pubsub::parse_signal(bytes, &bounds);
            assert_eq!(signal, Ok(Signal::Entitlement(event)), "another meaning as a message");
        }
        Call::Customer(call) => {
            let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
            assert_eq!(body["customer_id"], call.customer_id.as_str());
            assert_eq!(body["stripe_token"].is_string(), call.has_stripe_token);
            check_chars(call.customer_id.as_str(), limits::CUSTOMER_ID_CHARS);
        }
    }
    true
}

fn check_event(event: &EntitlementEvent) {
    check_chars(event.tenant_id.as_str(), limits::TENANT_ID_CHARS);
    check_chars(event.entitlement_id.as_str(), limits::ENTITLEMENT_ID_CHARS);
    event.effective_at.into_iter().chain(event.expires_at).for_each(check_instant);
    if let (Some(from), Some(until)) = (event.effective_at, event.expires_at) {
        assert!(from < until, "an event that ends before it starts");
    }
    assert!(event.metadata.len() <= limits::METADATA_ENTRIES);
    assert!(event.metadata.is_sorted_by(|a, b| a.0 < b.0), "metadata is not in order");
    for (key, value) in &event.metadata {
        assert!(is_word(key) && value.chars().count() <= limits::METADATA_VALUE_CHARS);
        assert!(!value.contains(char::is_control), "metadata holds a control character");
    }
    let plan = event.metadata.iter().find(|(key, _)| key == "plan").map(|(_, plan)| plan);
    assert_eq!(event.plan.as_ref(), plan, "the plan is the entry of that name");
    assert!(event.plan.as_deref().is_none_or(is_word));
}

fn check_chars(text: &str, max_chars: usize) {
    assert!((1..=max_chars).contains(&text.chars().count()), "{text:?} is too long");
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?} is no id");
}

fn check_instant(instant: Micros) {
    assert!((Micros(0)..=MICROS_MAX).contains(&instant), "{instant:?} is out of range");
}

/// The push envelope; the message inside means the same without it.
pub(super) fn pubsub_push(bytes: &[u8]) -> bool {
    let bounds = JsonLimits::default();
    let Some(push) = judged(bytes, dialect::pubsub::parse_push(bytes, &bounds)) else {
        return false;
    };
    assert_eq!(dialect::request_id::check_key(&push.message_id), Ok(()));
    let printable = |text: &String| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let named = |text: &String| (1..=512).contains(&text.len()) && printable(text);
    assert!(push.subscription.as_ref().is_none_or(named));
    assert_eq!(dialect::pubsub::parse_signal(&push.data, &bounds), Ok(push.payload));
    true
}

/// A message, and the same one in an envelope.
pub(super) fn pubsub_signal(bytes: &[u8]) -> bool {
    /// The last millisecond of the year 9999.
    const MILLIS: RangeInclusive<i64> = 0..=MICROS_MAX.0 / 1_000;
    let bounds = JsonLimits::default();
    let read = dialect::pubsub::parse_signal(bytes, &bounds);
    let data = STANDARD.encode(bytes);
    let envelope = format!("{{\"message\":{{\"messageId\":\"m-1\",\"data\":\"{data}\"}}}}");
    let pushed = dialect::pubsub::parse_push(envelope.as_bytes(), &bounds);
    assert_eq!(pushed.map(|push| push.payload), read, "the envelope changes the message");
    let Some(signal) = judged(bytes, read) else { return false };
    match signal {
        Signal::Entitlement(event) => check_event(&event),
        Signal::Measurement { tenant_id, metric, value, timestamp } => {
            check_chars(tenant_id.as_str(), limits::TENANT_ID_CHARS);
            assert!(is_word(&metric) && (0..=1_000_000_000_000).contains(&value.0));
            let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
            let sent = body["value"].as_f64().unwrap_or(f64::NAN) * 1_000.0;
            assert!((sent - value.0 as f64).abs() < 0.51, "{sent} became {value:?}");
            assert!(MILLIS.contains(&timestamp.0));
        }
        Signal::Autonomic { tenant_id, timestamp, .. } => {
            check_chars(tenant_id.as_str(), limits::TENANT_ID_CHARS);
            assert!(timestamp.is_none_or(|at| MILLIS.contains(&at.0)));
        }
        Signal::Untenanted { signal, timestamp } => {
            assert!((1..=64).contains(&signal.len()));
            assert!(signal.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            timestamp.into_iter().for_each(check_instant);
        }
    }
    true
}

/// The key of a request: exactly what a header, a log and a database keep alike.
pub(super) fn request_id(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let taken = judged(bytes, dialect::request_id::check_key(text)).is_some();
    let fits = (1..=limits::IDEMPOTENCY_KEY_CHARS).contains(&text.len());
    assert_eq!(taken, fits && text.bytes().all(|byte| byte.is_ascii_graphic()));
    taken
}

/// Every body of the operator's requests; one text may be more than one of them.
pub(super) fn admin(bytes: &[u8]) -> bool {
    use dialect::admin;
    let bounds = JsonLimits::default();
    let key = judged(bytes, admin::key(bytes, &bounds));
    if let Some(order) = &key {
        assert_ne!(order.scopes, Some(Scopes::default()), "no scopes is not a list of scopes");
    }
    let rotate = judged(bytes, admin::rotate(bytes, &bounds));
    let setting = judged(bytes, admin::setting(bytes, &bounds));
    if let Some(order) = &setting {
        assert!((1..=256).contains(&order.value.chars().count()));
        assert!(!order.value.contains(char::is_control));
    }
    let source = judged(bytes, admin::source(bytes, &bounds));
    let replay = judged(bytes, admin::replay(bytes, &bounds));
    if let Some(order) = replay {
        assert!((1..=10_000).contains(&order.limit));
    }
    let tenant = judged(bytes, admin::tenant(bytes, &bounds));
    let owner = tenant.as_ref();
    if let (Some(key), Some(owner)) = (&key, owner) {
        assert_eq!(key.tenant_id.as_ref(), Some(owner), "two readings of one member");
    }
    if let (Some(rotate), Some(owner)) = (&rotate, owner) {
        assert_eq!(rotate.tenant_id.as_ref(), Some(owner), "two readings of one member");
    }
    let others = [rotate.is_some(), setting.is_some(), source.is_some(), replay.is_some()];
    key.is_some() || tenant.is_some() || others.contains(&true)
}

/// The text of a key, of its id and of its scopes: each is written back as it was.
pub(super) fn access(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let key = split_key(text);
    if let Some((owner, secret)) = &key {
        let owner = match owner {
            KeyOwner::Tenant(tenant) => tenant.as_str(),
            KeyOwner::Service => limits::STREAM_KEYS,
        };
        assert_eq!(format!("{KEY_PREFIX}{owner}.{secret}"), text, "a part of the key is lost");
        assert!(!secret.contains('.'), "a part of the owner is taken for the secret");
    }
    let id = KeyId::parse(text);
    if let Some(id) = id {
        assert_eq!(id.to_string(), text);
    }
    let scopes = Scopes::parse(text);
    if let Some(scopes) = scopes {
        assert_ne!(scopes, Scopes::default());
        assert!(scopes.within(Scopes::ADMIN));
        assert_eq!(Scopes::parse(&scopes.to_string()), Some(scopes));
        let words: Vec<&str> = text.split(' ').collect();
        assert!(scopes.iter().all(|scope| words.contains(&scope.as_str())));
        assert!(words.iter().all(|word| scopes.iter().any(|scope| scope.as_str() == *word)));
    }
    key.is_some() || id.is_some() || scopes.is_some()
}
