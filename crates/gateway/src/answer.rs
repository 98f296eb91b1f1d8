//! Answers: receipts verbatim, refusals in one envelope.
//!
//! Owns: headers of a decision and the shape of an error. Refuses to know: routes.

use axum::body::Body;
use axum::response::Response;
use dialect::ai::{Api, client_error};
use engine::ports::Durability;
use engine::{Decided, Refused};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use ledger::public::public_bytes;
use ledger::{Kind, Sealed, View};
use serde_json::{Map, Value, json};
use types::{Hash, Micros, Reason, ReceiptId, split_lane};

pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const X_RECEIPT_ID: HeaderName = HeaderName::from_static("x-receipt-id");
pub(crate) const X_DURABILITY: HeaderName = HeaderName::from_static("x-durability");
pub(crate) const X_IDEMPOTENT_REPLAY: HeaderName = HeaderName::from_static("x-idempotent-replay");

const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// What a handler produces.
pub(crate) type Handled = Result<Answer, Fault>;

/// A good answer, with what the access log wants to know.
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) facts: Facts,
}

/// What the access log wants to know. Ids are here only after they passed validation.
#[derive(Debug, Default, Clone)]
pub(crate) struct Facts {
    pub(crate) tenant_id: Option<String>,
    pub(crate) receipt_id: Option<ReceiptId>,
    pub(crate) reason: Option<Reason>,
    /// The body is still to come when the answer is given.
    pub(crate) streams: bool,
}

/// A refusal on its way out. `receipt` is set when it has a receipt of its own; if not, the edge
/// counts it.
pub(crate) struct Fault {
    pub(crate) refused: Refused,
    pub(crate) receipt: Option<Box<Receipted>>,
    pub(crate) facts: Facts,
}

/// Where a refusal is recorded.
pub(crate) struct Receipted {
    id: ReceiptId,
    hash: Hash,
    timestamp: i64,
    replayed: bool,
    durability: Durability,
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Fault {
        let facts = Facts { reason: Some(refused.reason), ..Facts::default() };
        Fault { refused, receipt: None, facts }
    }
}

impl From<dialect::Fault> for Fault {
    fn from(fault: dialect::Fault) -> Fault {
        Refused::new(fault.reason, fault.detail.as_str()).into()
    }
}

/// A refusal without a receipt.
pub(crate) fn fault(reason: Reason, detail: impl Into<String>) -> Fault {
    Refused::new(reason, detail).into()
}

/// Renders a refusal in the one envelope: the shape of a refusal receipt.
pub(crate) fn envelope(fault: &Fault, request_id: &str, now: Micros) -> Response {
    let body = Value::Object(members(fault, request_id, now)).to_string();
    refusal_response(fault, body.into_bytes())
}

/// Renders a refusal as an error of the dialect that the caller speaks, with the members of the
/// envelope in it.
pub(crate) fn ai_envelope(api: Api, fault: &Fault, request_id: &str, now: Micros) -> Response {
    let Refused { reason, detail, .. } = &fault.refused;
    let members = members(fault, request_id, now);
    // Both have names of their own for these.
    let ours = members
        .iter()
        .filter(|(name, _)| !["type", "detail", "request_id"].contains(&name.as_str()));
    let ours: Vec<(&str, Value)> =
        ours.map(|(name, value)| (name.as_str(), value.clone())).collect();
    let body = client_error(api, reason.status(), reason.code(), detail, request_id, &ours);
    let mut response = refusal_response(fault, body);
    if let Some(attempt) = fault.facts.receipt_id.filter(|_| fault.receipt.is_none()) {
        // Not of the refusal, but of the attempt that it ends.
        name_receipt(&mut response, attempt);
    }
    if !reason.retryable() {
        // Clients of both vendors look at this before they try again.
        response.headers_mut().insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}

fn members(fault: &Fault, request_id: &str, now: Micros) -> Map<String, Value> {
    let Refused { reason, detail, retry_after_s } = &fault.refused;
    let mut body = Map::new();
    let receipt = fault.receipt.as_deref();
    if let Some(receipt) = receipt {
        body.insert("id".into(), receipt.id.to_string().into());
        body.insert("hash".into(), format!("{}{}", ledger::HASH_PREFIX, receipt.hash).into());
    }
    let timestamp = receipt.map_or(now.secs(), |receipt| receipt.timestamp);
    body.insert("type".into(), "refusal".into());
    body.insert("timestamp".into(), timestamp.into());
    body.insert("reason".into(), reason.code().into());
    body.insert("detail".into(), detail.as_str().into());
    body.insert("request_id".into(), request_id.into());
    body.insert("retryable".into(), reason.retryable().into());
    if let Some(seconds) = retry_after_s {
        body.insert("retry_after".into(), (*seconds).into());
    }
    body
}

fn refusal_response(fault: &Fault, body: Vec<u8>) -> Response {
    let Refused { reason, retry_after_s, .. } = &fault.refused;
    let receipt = fault.receipt.as_deref();
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = raw_json(status, body);
    if status == StatusCode::UNAUTHORIZED {
        // RFC 9110, 15.5.2: a 401 names a scheme that would do.
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(*seconds));
    }
    if let Some(receipt) = receipt {
        receipt_headers(&mut response, receipt.id, receipt.durability);
        replay_header(&mut response, receipt.replayed);
    }
    response
}

/// A JSON answer.
pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response {
    raw_json(status, value.to_string().into_bytes())
}

/// Bytes that are JSON already.
pub(crate) fn raw_json(status: StatusCode, bytes: impl Into<Body>) -> Response {
    let mut response = Response::new(bytes.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The public form of a receipt.
pub(crate) fn receipt_bytes(sealed: &Sealed) -> Result<Vec<u8>, Fault> {
    public_bytes(&sealed.core, sealed.hash, sealed.chain_hash)
        .map_err(|_| fault(Reason::InternalError, "the receipt cannot be shown"))
}

/// How a door speaks of a decision that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As an error with the status of its reason, for callers who asked for something. A repeated
    /// request is told the same, since 200 would be read as success.
    Error,
    /// As 200 and the receipt, for pushes: the message has been decided, and anything else would
    /// have it delivered again until it is dead-lettered.
    Acknowledged,
}

/// Renders a decision: a refusal as the envelope with its receipt's id, anything else by `body`.
pub(crate) fn decision(
    decided: &Decided,
    refusals: Refusal,
    body: impl FnOnce(&View<'_>, Vec<u8>) -> Vec<u8>,
) -> Handled {
    let sealed = &*decided.receipt;
    let unreadable = |_| fault(Reason::InternalError, "the receipt cannot be shown");
    let view = View::scan(&sealed.core).map_err(unreadable)?;
    let facts = Facts {
        tenant_id: view.tenant_id.map(str::to_owned),
        receipt_id: Some(sealed.id),
        reason: (view.kind == Kind::Refusal).then(|| reason(&view)),
        streams: false,
    };
    if view.kind == Kind::Refusal && refusals == Refusal::Error {
        return Err(refusal(&view, decided, facts));
    }
    let mut response = raw_json(StatusCode::OK, body(&view, receipt_bytes(sealed)?));
    receipt_headers(&mut response, sealed.id, decided.durability);
    replay_header(&mut response, decided.replayed);
    Ok(Answer { response, facts })
}

fn reason(view: &View<'_>) -> Reason {
    let code = view.reason.map(|raw| raw.text()).unwrap_or_default();
    let found = Reason::ALL.iter().copied().find(|reason| reason.code() == code);
    found.unwrap_or(Reason::StateError)
}

fn refusal(view: &View<'_>, decided: &Decided, facts: Facts) -> Fault {
    let sealed = &*decided.receipt;
    let detail = view.detail.map(|raw| raw.text().into_owned()).unwrap_or_default();
    Fault {
        refused: Refused::new(reason(view), detail),
        receipt: Some(Box::new(Receipted {
            id: sealed.id,
            hash: sealed.hash,
            timestamp: view.timestamp,
            replayed: decided.replayed,
            durability: decided.durability,
        })),
        facts,
    }
}

/// Names the receipt of the decision, and what it survives now.
pub(crate) fn receipt_headers(response: &mut Response, id: ReceiptId, durability: Durability) {
    name_receipt(response, id);
    let durability = HeaderValue::from_static(durability.as_str());
    response.headers_mut().insert(X_DURABILITY, durability);
}

fn name_receipt(response: &mut Response, id: ReceiptId) {
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(X_RECEIPT_ID, value);
    }
}

pub(crate) fn replay_header(response: &mut Response, replayed: bool) {
    if replayed {
        response.headers_mut().insert(X_IDEMPOTENT_REPLAY, HeaderValue::from_static("true"));
    }
}

/// The body of a customer call: the price, whether it was taken from what was known of the tenant
/// while the store was away, and the receipt that proves it.
pub(crate) fn price_body(view: &View<'_>, receipt: &[u8]) -> Vec<u8> {
    let is_cached = split_lane(view.stream).1.is_some();
    let text = |raw: ledger::scan::Raw<'_>| raw.text().into_owned();
    let head = json!({
        "status": "ok",
        "customer_id": view.tenant_id,
        "price": {
            "amount": view.amount,
            "currency": view.currency.map(text),
            "plan": view.meta_text("plan"),
            "period": "month",
            "source": if is_cached { "cache" } else { "ledger" },
        },
        "receipt_id": view.id.to_string(),
    });
    // The receipt goes in byte for byte, so that what the caller keeps is what was hashed.
    let mut bytes = head.to_string().into_bytes();
    bytes.pop();
    bytes.extend_from_slice(b",\"receipt\":");
    bytes.extend_from_slice(receipt);
    bytes.push(b'}');
    bytes
}
