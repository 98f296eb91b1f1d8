//! How each vendor says no.
//!
//! Owns: status and body of a refusal. Refuses to know: who is refused, and why.
//!
//! The texts repeat parts of the request where those of the vendors do: whoever passes them on
//! shows its callers more than it should.

use serde_json::{Value, json};

use super::Vendor;
use super::fault::{Refusal, RetryAfter};

/// The status and the body of a refusal; `key` is what came as one.
pub(super) fn body(vendor: Vendor, refusal: &Refusal, key: &str) -> (u16, Value) {
    match vendor {
        Vendor::OpenAi => openai(refusal, key),
        Vendor::Anthropic => anthropic(refusal),
        Vendor::Gemini => gemini(refusal),
    }
}

fn openai(refusal: &Refusal, key: &str) -> (u16, Value) {
    let start: String = key.chars().take(8).collect();
    let bad_key = format!("Incorrect API key provided: {start}***. Look it up in your account.");
    let request = "invalid_request_error";
    let (status, kind, code, message) = match refusal {
        Refusal::NoKey => (401, request, None, "You didn't provide an API key."),
        Refusal::BadKey => (401, request, Some("invalid_api_key"), bad_key.as_str()),
        Refusal::Forbidden => {
            let code = "unsupported_country_region_territory";
            (403, "request_forbidden", Some(code), "Country, region, or territory not supported")
        }
        Refusal::RateLimited(_) => {
            let message = "Rate limit reached for requests per min: Limit 3, Used 3, Requested 1.";
            (429, "requests", Some("rate_limit_exceeded"), message)
        }
        Refusal::OutOfCredit => {
            let message = "You exceeded your current quota, please check your plan and billing.";
            (429, "insufficient_quota", Some("insufficient_quota"), message)
        }
        Refusal::ServerError => {
            (500, "server_error", None, "The server had an error while processing your request.")
        }
        Refusal::Unavailable(_) => {
            (503, "server_error", None, "The engine is currently overloaded.")
        }
        Refusal::Overloaded => (529, "server_error", None, "Overloaded"),
        Refusal::ContextLength => {
            let message = "This model's maximum context length is 128000 tokens. However, your \
                           messages resulted in 128001 tokens.";
            (400, request, Some("context_length_exceeded"), message)
        }
        Refusal::ContentPolicy => {
            let message = "Your request was rejected as a result of our safety system.";
            (400, request, Some("content_policy_violation"), message)
        }
        Refusal::NoModel(_) => {
            let message = "The model does not exist or you do not have access to it.";
            (404, request, Some("model_not_found"), message)
        }
        Refusal::NoRoute => (404, request, None, "Invalid URL"),
        Refusal::Invalid { message, .. } => (400, request, None, message.as_str()),
    };
    let param = match refusal {
        Refusal::ContextLength => Some("messages"),
        Refusal::Invalid { param, .. } => param.as_deref(),
        _ => None,
    };
    (status, json!({"error": {"message": message, "type": kind, "param": param, "code": code}}))
}

fn anthropic(refusal: &Refusal) -> (u16, Value) {
    let request = "invalid_request_error";
    let (status, kind, message) = match refusal {
        Refusal::NoKey => (401, "authentication_error", "x-api-key header is required".to_owned()),
        Refusal::BadKey => (401, "authentication_error", "invalid x-api-key".to_owned()),
        Refusal::Forbidden => (403, "permission_error", "Request not allowed".to_owned()),
        Refusal::RateLimited(_) => {
            let message = "This request would exceed your organization's rate limit";
            (429, "rate_limit_error", message.to_owned())
        }
        Refusal::OutOfCredit => (402, "billing_error", "Your credit balance is too low".to_owned()),
        Refusal::ServerError => (500, "api_error", "Internal server error".to_owned()),
        Refusal::Unavailable(_) => (503, "api_error", "Service unavailable".to_owned()),
        Refusal::Overloaded => (529, "overloaded_error", "Overloaded".to_owned()),
        Refusal::ContextLength => {
            (400, request, "prompt is too long: 200001 tokens > 200000 maximum".to_owned())
        }
        Refusal::ContentPolicy => {
            (400, request, "Output blocked by content filtering policy".to_owned())
        }
        Refusal::NoModel(name) => (404, "not_found_error", format!("model: {name}")),
        Refusal::NoRoute => (404, "not_found_error", "Not found".to_owned()),
        Refusal::Invalid { param, message } => {
            let place = param.as_ref().map(|param| format!("{param}: ")).unwrap_or_default();
            (400, request, format!("{place}{message}"))
        }
    };
    let error = json!({"type": kind, "message": message});
    (status, json!({"type": "error", "error": error, "request_id": "req_fake"}))
}

/// A wrong key is 400 here and no key 403; what may not be answered is 200 without a candidate.
fn gemini(refusal: &Refusal) -> (u16, Value) {
    const INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
    const RETRY: &str = "type.googleapis.com/google.rpc.RetryInfo";
    let mut details = Vec::new();
    let (status, word, message) = match refusal {
        Refusal::NoKey => {
            let message = "Method doesn't allow unregistered callers. Please use API Key.";
            (403, "PERMISSION_DENIED", message)
        }
        Refusal::BadKey => {
            details.push(json!({"@type": INFO, "reason": "API_KEY_INVALID",
                                "domain": "googleapis.com"}));
            (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")
        }
        Refusal::Forbidden => (403, "PERMISSION_DENIED", "The caller does not have permission"),
        Refusal::RateLimited(after) => {
            if let Some(RetryAfter::Seconds(secs) | RetryAfter::Date(secs)) = after {
                details.push(json!({"@type": RETRY, "retryDelay": format!("{secs}s")}));
            }
            (429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).")
        }
        Refusal::OutOfCredit => {
            (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan.")
        }
        Refusal::ServerError => (500, "INTERNAL", "An internal error has occurred."),
        Refusal::Unavailable(_) => (503, "UNAVAILABLE", "The model is overloaded."),
        Refusal::Overloaded => (529, "UNAVAILABLE", "Overloaded"),
        Refusal::ContextLength => {
            let message = "The input token count (1048577) exceeds the maximum number of tokens \
                           allowed (1048576).";
            (400, "INVALID_ARGUMENT", message)
        }
        Refusal::ContentPolicy => {
            let feedback = json!({"blockReason": "SAFETY", "safetyRatings": []});
            let usage = json!({"promptTokenCount": 7, "totalTokenCount": 7});
            return (200, json!({"promptFeedback": feedback, "usageMetadata": usage}));
        }
        Refusal::NoModel(_) => (404, "NOT_FOUND", "The model is not found for API version v1beta."),
        Refusal::NoRoute => (404, "NOT_FOUND", "Not found"),
        Refusal::Invalid { message, .. } => (400, "INVALID_ARGUMENT", message.as_str()),
    };
    let mut error = json!({"code": status, "message": message, "status": word});
    if !details.is_empty() {
        error["details"] = json!(details);
    }
    (status, json!({"error": error}))
}
