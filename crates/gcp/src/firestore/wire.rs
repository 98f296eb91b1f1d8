//! The JSON of Firestore's REST interface, version 1: as much of it as the store speaks.
//!
//! Owns: the shapes, and what an error answer says about the outcome of a call. Refuses to know:
//! which collections there are, and how an answer comes here.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use types::Micros;

/// A field's value; 64-bit integers travel as decimal text, bytes as base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Value {
    #[serde(rename = "stringValue")]
    Text(String),
    #[serde(rename = "integerValue")]
    Int(String),
    #[serde(rename = "bytesValue")]
    Bytes(String),
    #[serde(rename = "booleanValue")]
    Bool(bool),
}

impl Value {
    pub(super) fn text(text: &(impl ToString + ?Sized)) -> Value {
        Value::Text(text.to_string())
    }

    pub(super) fn int(value: i64) -> Value {
        Value::Int(value.to_string())
    }

    pub(super) fn bytes(bytes: &[u8]) -> Value {
        Value::Bytes(STANDARD.encode(bytes))
    }
}

/// A document, by its full name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    pub(super) name: String,
    #[serde(default)]
    pub(super) fields: BTreeMap<String, Value>,
    /// When it was last changed, by the server's clock; absent in what is sent.
    #[serde(default, skip_serializing)]
    pub(super) update_time: Option<String>,
}

impl Document {
    pub(super) fn new(name: String) -> Document {
        Document { name, fields: BTreeMap::new(), update_time: None }
    }

    pub(super) fn with(mut self, field: &str, value: Value) -> Document {
        self.fields.insert(field.to_owned(), value);
        self
    }

    /// What stands behind the last slash of the name.
    pub(super) fn id(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or_default()
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        match self.fields.get(field)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self, field: &str) -> Option<i64> {
        match self.fields.get(field)? {
            Value::Int(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// An integer that cannot be negative.
    pub(super) fn count(&self, field: &str) -> Option<u64> {
        u64::try_from(self.int(field)?).ok()
    }

    pub(super) fn bytes(&self, field: &str) -> Option<Vec<u8>> {
        match self.fields.get(field)? {
            Value::Bytes(text) => STANDARD.decode(text).ok(),
            _ => None,
        }
    }

    pub(super) fn is_true(&self, field: &str) -> bool {
        self.fields.get(field) == Some(&Value::Bool(true))
    }

    pub(super) fn updated(&self) -> Option<Micros> {
        instant(self.update_time.as_deref()?)
    }
}

/// An instant as the server writes it, with as many fractional digits as it likes.
pub(super) fn instant(text: &str) -> Option<Micros> {
    text.parse::<jiff::Timestamp>().ok().map(|at| Micros(at.as_microsecond()))
}

/// One write of a commit.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Write {
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<Document>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delete: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_document: Option<Precondition>,
}

#[derive(Debug, Clone, Serialize)]
struct Precondition {
    exists: bool,
}

impl Write {
    /// Creates the document, or fails the whole commit with `ALREADY_EXISTS`.
    pub(super) fn create(document: Document) -> Write {
        let current_document = Some(Precondition { exists: false });
        Write { update: Some(document), delete: None, current_document }
    }

    /// Puts the document there, whatever is there now.
    pub(super) fn set(document: Document) -> Write {
        Write { update: Some(document), delete: None, current_document: None }
    }

    /// Removes the document, if there is one.
    pub(super) fn delete(name: String) -> Write {
        Write { update: None, delete: Some(name), current_document: None }
    }
}

/// The body of `documents:commit`.
#[derive(Serialize)]
pub(super) struct Commit<'a> {
    pub(super) writes: &'a [Write],
}

/// The body of `documents:batchGet`.
#[derive(Serialize)]
pub(super) struct BatchGet<'a> {
    pub(super) documents: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mask: Option<Mask<'a>>,
}

/// The fields that are wanted.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mask<'a> {
    pub(super) field_paths: &'a [&'a str],
}

/// One part of the answer to `batchGet` or `runQuery`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part {
    #[serde(alias = "document")]
    pub(super) found: Option<Document>,
    pub(super) read_time: Option<String>,
    /// Both calls stream: they may fail after the status line.
    pub(super) error: Option<ErrorBody>,
}

#[derive(Deserialize)]
pub(super) struct ErrorBody {
    #[serde(default)]
    message: String,
    #[serde(default)]
    status: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorAnswer {
    One { error: ErrorBody },
    // The streaming calls answer with an array also when they fail at once.
    Many(Vec<One>),
}

#[derive(Deserialize)]
struct One {
    error: ErrorBody,
}

/// Why a call did not succeed, by what it means for its effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The request did not leave: it has no effect and never will.
    #[error("{0}")]
    NotSent(String),
    /// What it would create exists: it has no effect and never will.
    #[error("it exists already")]
    Exists,
    /// Others write the same documents right now: it has no effect, and may be repeated.
    #[error("contention: {0}")]
    Contention(String),
    /// The service refuses it: it has no effect and never will.
    #[error("{0}")]
    Refused(String),
    /// There are more calls than the service permits: it has no effect and never will.
    #[error("{0}")]
    Quota(String),
    /// There was no answer, or one that leaves open whether it has or will have an effect.
    #[error("{0}")]
    Unknown(String),
}

impl Failure {
    /// Sorts an answer that is not a success.
    pub(super) fn of_answer(status: StatusCode, body: &[u8]) -> Failure {
        let error = match serde_json::from_slice(body) {
            Ok(ErrorAnswer::One { error }) => Some(error),
            Ok(ErrorAnswer::Many(parts)) => parts.into_iter().next().map(|one| one.error),
            Err(_) => None,
        };
        match error {
            Some(error) => Failure::of_error(&error),
            // A proxy on the way: what became of the request behind it is open.
            None => Failure::Unknown(format!("HTTP status {}", status.as_u16())),
        }
    }

    /// Sorts an error by its status: what is not known to be without effect is unknown.
    pub(super) fn of_error(error: &ErrorBody) -> Failure {
        let text = format!("{}: {}", error.status, error.message);
        match error.status.as_str() {
            "ALREADY_EXISTS" => Failure::Exists,
            "ABORTED" => Failure::Contention(text),
            "INVALID_ARGUMENT"
            | "FAILED_PRECONDITION"
            | "NOT_FOUND"
            | "OUT_OF_RANGE"
            | "PERMISSION_DENIED"
            | "UNAUTHENTICATED"
            | "UNIMPLEMENTED" => Failure::Refused(text),
            "RESOURCE_EXHAUSTED" => Failure::Quota(text),
            _ => Failure::Unknown(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(status: u16, body: &str) -> Failure {
        Failure::of_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn an_error_is_sorted_by_what_it_says_of_the_effect() {
        let body = |status: &str| format!(r#"{{"error":{{"code":1,"status":"{status}"}}}}"#);
        // Both are 409.
        assert_eq!(sorted(409, &body("ALREADY_EXISTS")), Failure::Exists);
        assert!(matches!(sorted(409, &body("ABORTED")), Failure::Contention(_)));
        assert!(matches!(sorted(429, &body("RESOURCE_EXHAUSTED")), Failure::Quota(_)));
        for status in ["PERMISSION_DENIED", "INVALID_ARGUMENT"] {
            assert!(matches!(sorted(400, &body(status)), Failure::Refused(_)), "{status}");
        }
        for status in ["UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN", "NEW_ONE"] {
            assert!(matches!(sorted(503, &body(status)), Failure::Unknown(_)), "{status}");
        }
        let array = format!("[{}]", body("ALREADY_EXISTS"));
        assert_eq!(sorted(409, &array), Failure::Exists);
        for body in ["", "<html>", "[]", "{}"] {
            assert_eq!(sorted(502, body), Failure::Unknown("HTTP status 502".into()), "{body}");
        }
    }

    #[test]
    fn a_document_survives_its_json() {
        let document = Document::new("projects/p/databases/d/documents/c/id".into())
            .with("text", Value::text("with \"quotes\" and ü"))
            .with("int", Value::int(i64::MIN))
            .with("bytes", Value::bytes(&[0, 255, 7]))
            .with("flag", Value::Bool(true));
        let json = serde_json::to_string(&Write::create(document.clone())).unwrap();
        assert!(json.contains(r#""currentDocument":{"exists":false}"#), "{json}");
        let json = serde_json::to_string(&document).unwrap();
        let back: Document = serde_json::from_str(&json).unwrap();
        assert_eq!((back.id(), &back.fields), ("id", &document.fields));
        assert_eq!(back.text("text"), Some("with \"quotes\" and ü"));
        assert_eq!((back.int("int"), back.count("int")), (Some(i64::MIN), None));
        assert_eq!(back.bytes("bytes"), Some(vec![0, 255, 7]));
        assert!(back.is_true("flag") && !back.is_true("text"));
        assert_eq!(back.text("int"), None);
    }

    #[test]
    fn instants_have_any_number_of_digits() {
        assert_eq!(instant("1970-01-01T00:00:01Z"), Some(Micros(1_000_000)));
        assert_eq!(instant("1970-01-01T00:00:01.5Z"), Some(Micros(1_500_000)));
        assert_eq!(instant("1970-01-01T00:00:00.000001999Z"), Some(Micros(1)));
        assert_eq!(instant("yesterday"), None);
    }
}
