//! Owns: whom the errors of real providers speak about, and ours for clients.

use dialect::ai::{About, Api, ProviderError, client_error, error_type};
use serde_json::{Value, json};

use super::json;

#[test]
fn errors_are_read_by_whom_they_speak_about() {
    use About::{Key, Policy, Request, Route};
    for (from, status, body, about, code, is_throttle) in [
        (
            Api::OpenAi,
            401,
            r#"{"error":{"message":"Incorrect API key provided: sk-x.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#,
            Key,
            "invalid_api_key",
            false,
        ),
        (
            Api::OpenAi,
            429,
            r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#,
            Key,
            "insufficient_quota",
            false,
        ),
        (
            Api::OpenAi,
            429,
            r#"{"error":{"message":"Rate limit reached","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
            Route,
            "rate_limit_exceeded",
            true,
        ),
        (
            Api::OpenAi,
            400,
            r#"{"error":{"message":"maximum context length is 8192 tokens","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
            Request,
            "context_length_exceeded",
            false,
        ),
        (
            Api::OpenAi,
            400,
            r#"{"error":{"message":"The response was filtered","type":null,"param":"prompt","code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
            Policy,
            "content_filter",
            false,
        ),
        (
            Api::OpenAi,
            404,
            r#"{"error":{"message":"The model does not exist","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
            Route,
            "model_not_found",
            false,
        ),
        (
            Api::OpenAi,
            402,
            r#"{"error":{"message":"Insufficient Balance","type":"unknown_error","param":null,"code":"invalid_request_error"}}"#,
            Key,
            "invalid_request_error",
            false,
        ),
        (
            Api::OpenAi,
            422,
            r#"{"detail":[{"loc":["body"],"msg":"x"}]}"#,
            Request,
            "http_422",
            false,
        ),
        (Api::OpenAi, 403, r#"{"error":"Country not supported"}"#, Key, "http_403", false),
        (
            Api::OpenAi,
            500,
            r#"{"error":{"message":"The server had an error","type":"server_error","param":null,"code":null}}"#,
            Route,
            "server_error",
            false,
        ),
        (Api::OpenAi, 502, "<html><h1>502 Bad Gateway</h1></html>", Route, "http_502", false),
        (Api::OpenAi, 408, "", Route, "http_408", false),
        (Api::OpenAi, 302, "", Route, "http_302", false),
        (
            Api::Anthropic,
            401,
            r#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}"#,
            Key,
            "authentication_error",
            false,
        ),
        (
            Api::Anthropic,
            403,
            r#"{"type":"error","error":{"type":"permission_error","message":"no"}}"#,
            Key,
            "permission_error",
            false,
        ),
        (
            Api::Anthropic,
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}"#,
            Key,
            "invalid_request_error",
            false,
        ),
        (
            Api::Anthropic,
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 208310 tokens > 200000 maximum"}}"#,
            Request,
            "invalid_request_error",
            false,
        ),
        (
            Api::Anthropic,
            413,
            r#"{"type":"error","error":{"type":"request_too_large","message":"x"}}"#,
            Request,
            "request_too_large",
            false,
        ),
        (
            Api::Anthropic,
            429,
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"x"}}"#,
            Route,
            "rate_limit_error",
            true,
        ),
        (
            Api::Anthropic,
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            Route,
            "overloaded_error",
            false,
        ),
        (
            Api::Gemini,
            400,
            r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}"#,
            Key,
            "api_key_invalid",
            false,
        ),
        (
            Api::Gemini,
            400,
            r#"{"error":{"code":400,"message":"Invalid JSON payload received.","status":"INVALID_ARGUMENT"}}"#,
            Request,
            "invalid_argument",
            false,
        ),
        (
            Api::Gemini,
            429,
            r#"[{"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED"}}]"#,
            Route,
            "resource_exhausted",
            true,
        ),
        (
            Api::Gemini,
            403,
            r#"{"error":{"code":403,"message":"x","status":"PERMISSION_DENIED"}}"#,
            Key,
            "permission_denied",
            false,
        ),
        (
            Api::Gemini,
            503,
            r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#,
            Route,
            "unavailable",
            false,
        ),
    ] {
        let error = ProviderError::parse(from, status, body.as_bytes());
        let found = (error.about, error.code.as_str(), error.is_throttle);
        assert_eq!(found, (about, code, is_throttle), "{body}");
    }
}

#[test]
fn what_a_provider_says_is_bounded_and_plain() {
    let long = "é\n".repeat(10_000);
    let body = json!({"error": {"message": long, "code": "a b<script>\n".repeat(50)}}).to_string();
    let error = ProviderError::parse(Api::OpenAi, 400, body.as_bytes());
    assert!(error.message.len() <= 512 && error.message.starts_with("é é"));
    assert!(!error.message.contains(char::is_control));
    assert_eq!(error.code.len(), 64);
    assert!(error.code.bytes().all(|byte| byte.is_ascii_lowercase()));
    let huge = vec![b'['; 1 << 20];
    assert_eq!(ProviderError::parse(Api::Gemini, 500, &huge).code, "http_500");
}

#[test]
fn a_refusal_of_ours_has_the_shape_of_the_dialect() {
    let ours = [("retryable", Value::Bool(false)), ("receipt", json!("r-1"))];
    let found = client_error(Api::OpenAi, 402, "budget_exceeded", "no \"money\"", "req-1", &ours);
    let expected = json!({"error": {"message": "no \"money\"", "type": "insufficient_quota",
        "param": null, "code": "budget_exceeded", "request_id": "req-1", "retryable": false, "receipt": "r-1"}});
    assert_eq!(json(&found), expected);
    let found = client_error(Api::Anthropic, 429, "rate_limit_exceeded", "slow", "req-1", &[]);
    let expected = json!({"type": "error", "request_id": "req-1", "error": {
        "type": "rate_limit_error", "message": "slow", "code": "rate_limit_exceeded"}});
    assert_eq!(json(&found), expected);
    for (status, openai, anthropic) in [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "authentication_error", "authentication_error"),
        (403, "permission_error", "permission_error"),
        (404, "not_found_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error"),
        (500, "server_error", "api_error"),
        (503, "server_error", "overloaded_error"),
        (504, "server_error", "timeout_error"),
    ] {
        let found = (error_type(Api::OpenAi, status), error_type(Api::Anthropic, status));
        assert_eq!(found, (openai, anthropic), "{status}");
    }
}
