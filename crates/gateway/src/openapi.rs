//! `/openapi.json`.
//!
//! Owns: the document about the front door, made from the route table. Refuses to know: handlers.

use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::json_response;

/// The document.
#[must_use]
pub fn document() -> Value {
    json!({})
}

pub(crate) fn answer() -> Response {
    json_response(StatusCode::OK, &document())
}
