//! `/v1/…`: calls to models, and what a tenant has and has used.
//!
//! Owns: the map from a request to a call and from its outcome to an answer, in the dialect of the
//! route. Refuses to know: which provider answers, and what it costs.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use dialect::ai::{Api, ChatRequest, EmbeddingsRequest, Ids};
use engine::ai::cache::{CacheWish, Cached, Recalled};
use engine::ai::{AnswerStream, Answered, Ask, Asked, Call, Failed, Given};
use engine::{Decided, Refused};
use futures_util::stream;
use governors::{AiView, InvoiceView};
use http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use types::{Micros, Reason, StreamName, TenantId, Usage};

use crate::Gateway;
use crate::answer::{
    Answer, Facts, Fault, Handled, Refusal, decision, fault, json_response, raw_json,
    receipt_headers, replay_header,
};
use crate::body::own_idempotency_key;
use crate::caller::Caller;
use crate::table::{Ai, Handler};

/// The tenant of callers without a key, while the door is open.
const LOCAL_TENANT: &str = "local";

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

impl Ai {
    pub(crate) fn takes_body(self) -> bool {
        matches!(self, Ai::Chat | Ai::Messages | Ai::Embeddings)
    }
}

impl Handler {
    /// The dialect in which callers of the route expect errors; `None` where it is our own.
    pub(crate) fn speaks(self) -> Option<Api> {
        match self {
            Handler::Ai(Ai::Messages) => Some(Api::Anthropic),
            Handler::Ai(_) => Some(Api::OpenAi),
            _ => None,
        }
    }
}

/// Answers one request.
pub(crate) async fn answer(
    gateway: &Gateway,
    which: Ai,
    caller: &Caller,
    headers: &HeaderMap,
    body: Bytes,
) -> Handled {
    let tenant = tenant(caller)?;
    match which {
        Ai::Chat => {
            let request = ChatRequest::parse(Api::OpenAi, &body, &gateway.ai_json)?;
            call(gateway, caller, tenant, headers, (body, Ask::Chat(request))).await
        }
        Ai::Messages => {
            let request = ChatRequest::parse(Api::Anthropic, &body, &gateway.ai_json)?;
            call(gateway, caller, tenant, headers, (body, Ask::Chat(request))).await
        }
        Ai::Embeddings => {
            let request = EmbeddingsRequest::parse(&body, &gateway.ai_json)?;
            call(gateway, caller, tenant, headers, (body, Ask::Embeddings(request))).await
        }
        Ai::Models => told(&models(gateway)),
        Ai::Usage => told(&usage(&view(gateway, &tenant).await?)),
        Ai::Invoice => told(&invoice(&view(gateway, &tenant).await?)),
        Ai::Entitlements => told(&entitlements(gateway, &tenant).await?),
    }
}

fn told(value: &Value) -> Handled {
    Ok(Answer { response: json_response(StatusCode::OK, value), facts: Facts::default() })
}

/// INV-12: who pays is whose key it is, and nothing in a request says otherwise.
fn tenant(caller: &Caller) -> Result<TenantId, Fault> {
    match caller {
        Caller::Local => {
            TenantId::new(LOCAL_TENANT).map_err(|_| fault(Reason::InternalError, "no such tenant"))
        }
        _ => caller.tenant().cloned().ok_or_else(|| {
            fault(Reason::Forbidden, "calls to models need a key of the tenant that pays for them")
        }),
    }
}

async fn call(
    gateway: &Gateway,
    caller: &Caller,
    tenant: TenantId,
    headers: &HeaderMap,
    (body, ask): (Bytes, Ask),
) -> Handled {
    let key = own_idempotency_key(headers)?.map(str::to_owned);
    let ids = Ids {
        unique: uuid::Uuid::now_v7().simple().to_string(),
        created_secs: gateway.engine.clock().now().secs(),
    };
    let may_register = *caller == Caller::Local;
    let actor = caller.actor("ai");
    let tenant_id = tenant.to_string();
    let call =
        Call { tenant, actor, may_register, key, body, ask, ids, cache: cache_wish(headers) };
    match gateway.engine.ask(call).await {
        Ok(Asked::Answered(answer)) => answered(answer, tenant_id),
        Ok(Asked::Recalled(recalled)) => Ok(told_again(recalled, tenant_id)),
        Err(Failed { refused, receipt }) => Err(failed(refused, receipt.as_ref())),
    }
}

/// What RFC 9111, 5.2.1 lets a caller say, as far as it means something here. What cannot be read
/// is taken for the wish for a new answer, since that is never wrong.
fn cache_wish(headers: &HeaderMap) -> CacheWish {
    let mut wish = CacheWish::NONE;
    let at_most = |wish: &mut CacheWish, most: u64| {
        wish.age_max_s = Some(wish.age_max_s.map_or(most, |known| known.min(most)));
    };
    for value in headers.get_all(CACHE_CONTROL) {
        let text = value.to_str().unwrap_or("no-cache").to_ascii_lowercase();
        for directive in text.split(',').map(str::trim) {
            match directive.split_once('=') {
                Some(("max-age", most)) => {
                    at_most(&mut wish, most.trim_matches('"').parse().unwrap_or(0));
                }
                None if directive == "no-store" => {
                    wish.may_keep = false;
                    at_most(&mut wish, 0);
                }
                None if directive == "no-cache" || directive == "max-age" => at_most(&mut wish, 0),
                _ => {}
            }
        }
    }
    wish
}

fn told_again(recalled: Recalled, tenant_id: String) -> Answer {
    let Recalled { attempt, durability, body, age_s, left_s } = recalled;
    let mut response = raw_json(StatusCode::OK, body);
    receipt_headers(&mut response, attempt, durability);
    let headers = response.headers_mut();
    headers.insert(X_CACHE, HeaderValue::from_static("hit"));
    headers.insert(AGE, age_s.into());
    fresh_for(headers, left_s);
    let receipt_id = Some(attempt);
    let facts = Facts { tenant_id: Some(tenant_id), receipt_id, reason: None, streams: false };
    Answer { response, facts }
}

/// For the caller alone: the same words from another tenant are another call.
fn fresh_for(headers: &mut HeaderMap, seconds: u64) {
    if let Ok(value) = HeaderValue::try_from(format!("private, max-age={seconds}")) {
        headers.insert(CACHE_CONTROL, value);
    }
}

fn answered(answered: Answered, tenant_id: String) -> Handled {
    let Answered { receipt, given, cached } = answered;
    let (mut response, streams) = match given {
        Given::Refused => return decision(&receipt, Refusal::Error, |_, bytes| bytes),
        Given::Whole(body) => (raw_json(StatusCode::OK, body), false),
        Given::Stream(answer) => (event_stream(answer), true),
    };
    receipt_headers(&mut response, receipt.receipt.id, receipt.durability);
    replay_header(&mut response, receipt.replayed);
    if cached != Cached::Off {
        response.headers_mut().insert(X_CACHE, HeaderValue::from_static("miss"));
    }
    if let Cached::For(seconds) = cached {
        response.headers_mut().insert(AGE, 0.into());
        fresh_for(response.headers_mut(), seconds);
    }
    let receipt_id = Some(receipt.receipt.id);
    let facts = Facts { tenant_id: Some(tenant_id), receipt_id, reason: None, streams };
    Ok(Answer { response, facts })
}

/// The attempt has a receipt, the failure has not: the edge counts it.
fn failed(refused: Refused, receipt: Option<&Decided>) -> Fault {
    let mut fault = Fault::from(refused);
    fault.facts.receipt_id = receipt.map(|decided| decided.receipt.id);
    fault
}

fn event_stream(answer: Box<AnswerStream>) -> Response {
    // Pulled by the connection, and by nothing else: who does not read is not read for.
    let pieces = stream::unfold(answer, |mut answer| async move {
        let piece = answer.next().await?;
        Some((Ok::<_, Infallible>(piece), answer))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A proxy in front that gathers answers would hold the words back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn models(gateway: &Gateway) -> Value {
    let model = |(name, provider): (&str, &str)| json!({ "id": name, "object": "model", "created": gateway.started.secs(), "owned_by": provider });
    let data: Vec<Value> = gateway.engine.models().names().map(model).collect();
    json!({ "object": "list", "data": data })
}

async fn view(gateway: &Gateway, tenant: &TenantId) -> Result<AiView, Fault> {
    let state = gateway.engine.state(&StreamName::tenant(tenant)).await?;
    let view = state.ai(gateway.engine.clock().now(), gateway.engine.rules());
    view.ok_or_else(|| fault(Reason::UnknownTenant, "the tenant is not registered"))
}

fn instant(at: Option<Micros>) -> Value {
    at.map_or(Value::Null, |at| at.to_string().into())
}

pub(crate) fn usage(view: &AiView) -> Value {
    let used = view.spent_micros.saturating_add(view.unknown_micros);
    json!({
        "object": "usage",
        "plan": view.plan,
        "currency": view.currency,
        "period": {
            "kind": view.limits.period.as_str(),
            "begins": instant(view.begins),
            "ends": instant(view.ends),
        },
        "limits": {
            "from": view.limits.source.as_str(),
            "calls": view.limits.calls,
            "spend_micros": view.limits.spend_micros,
        },
        "calls": view.calls.saturating_add(view.unknown_calls),
        "open_calls": view.open_calls,
        "spent_micros": used,
        "reserved_micros": view.reserved_micros,
        "unknown_calls": view.unknown_calls,
        "unknown_micros": view.unknown_micros,
        "over_micros": view.over_micros,
        "level": view.level.as_str(),
        "models": view.invoice.models.iter().map(|model| line(&model.name, model.calls, &model.usage, model.micros)).collect::<Vec<_>>(),
    })
}

fn line(name: &str, calls: u64, usage: &Usage, micros: i64) -> Value {
    let tokens: serde_json::Map<String, Value> = Usage::BUCKETS
        .iter()
        .zip(usage.counts())
        .filter(|(_, count)| *count > 0)
        .map(|(bucket, count)| ((*bucket).to_owned(), count.into()))
        .collect();
    json!({ "model": name, "calls": calls, "tokens": tokens, "micros": micros })
}

fn invoice(view: &AiView) -> Value {
    let InvoiceView { begins, ends, plan_minor, plan_micros, models, total_micros } = &view.invoice;
    let mut lines = vec![json!({ "plan": view.plan, "minor": plan_minor, "micros": plan_micros })];
    lines.extend(
        models.iter().map(|model| line(&model.name, model.calls, &model.usage, model.micros)),
    );
    json!({
        "object": "invoice.preview",
        "currency": view.currency,
        "begins": begins.to_string(),
        "ends": ends.to_string(),
        "lines": lines,
        "total_micros": total_micros,
    })
}

async fn entitlements(gateway: &Gateway, tenant: &TenantId) -> Result<Value, Fault> {
    let state = gateway.engine.state(&StreamName::tenant(tenant)).await?;
    if !state.is_registered() {
        return Err(fault(Reason::UnknownTenant, "the tenant is not registered"));
    }
    let held = state.entitlements(gateway.engine.clock().now());
    let held: Vec<Value> = held
        .map(|held| json!({ "entitlement_id": held.id, "state": held.state, "plan": held.plan }))
        .collect();
    Ok(json!({ "object": "list", "data": held }))
}
