//! Pieces of JSON Schema.
//!
//! Owns: how a form is written down, and that null counts as absent in what callers send. Refuses
//! to know: which members there are.

use serde_json::{Map, Value, json};

/// Any text.
pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

/// Text that fits an ECMA-262 expression.
pub(super) fn matching(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// Up to `max_chars` characters, at least `min_chars`, without control characters.
pub(super) fn line(min_chars: usize, max_chars: usize) -> Value {
    let pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$";
    json!({ "type": "string", "minLength": min_chars, "maxLength": max_chars, "pattern": pattern })
}

/// An id of up to `max_chars` characters; see [`types::TenantId`].
pub(super) fn id(max_chars: usize) -> Value {
    let pattern = "^[A-Za-z0-9][A-Za-z0-9._:@+-]*$";
    json!({ "type": "string", "minLength": 1, "maxLength": max_chars, "pattern": pattern })
}

/// One of these.
pub(super) fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> Value {
    json!({ "type": "string", "enum": words.into_iter().collect::<Vec<_>>() })
}

/// An integer from `min` to `max`.
pub(super) fn integer(min: i64, max: i64) -> Value {
    json!({ "type": "integer", "minimum": min, "maximum": max })
}

/// How many of something there are.
pub(super) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// Unix seconds.
pub(super) fn seconds() -> Value {
    described(count(), "unix seconds")
}

pub(super) fn flag() -> Value {
    json!({ "type": "boolean" })
}

pub(super) fn nothing() -> Value {
    json!({ "type": "null" })
}

pub(super) fn list(items: Value) -> Value {
    let mut list = json!({ "type": "array" });
    list["items"] = items;
    list
}

/// A schema of the document, by name.
pub(super) fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// `schema` with one sentence about it.
pub(super) fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

/// `schema` with the value that counts when there is none.
pub(super) fn defaulting(mut schema: Value, default: u64) -> Value {
    schema["default"] = default.into();
    schema
}

/// `schema`, or null.
pub(super) fn or_null(mut schema: Value) -> Value {
    match schema.get("type").cloned() {
        Some(Value::String(kind)) if kind == "null" => schema,
        Some(Value::String(kind)) if schema.get("enum").is_none() => {
            schema["type"] = json!([kind, "null"]);
            schema
        }
        _ => json!({ "anyOf": [schema, nothing()] }),
    }
}

/// A member of an object.
pub(super) struct Member {
    name: &'static str,
    schema: Value,
    is_required: bool,
}

/// A member that is always there.
pub(super) fn must(name: &'static str, schema: Value) -> Member {
    Member { name, schema, is_required: true }
}

/// A member that may be missing.
pub(super) fn may(name: &'static str, schema: Value) -> Member {
    Member { name, schema, is_required: false }
}

/// An object that a caller sends: null counts as absent. Members that are not known are ignored,
/// but they are read, and so must be readable.
pub(super) fn sent(members: impl IntoIterator<Item = Member>) -> Value {
    let null_is_absent = |member: Member| match member.is_required {
        true => member,
        false => Member { schema: or_null(member.schema), ..member },
    };
    let mut object = object(members.into_iter().map(null_is_absent), schema(READABLE));
    object["propertyNames"] = matching(PRINTABLE);
    object
}

/// The name of [`readable`].
pub(super) const READABLE: &str = "Readable";
/// No U+0000 to U+001F.
const PRINTABLE: &str = r"^[^\u0000-\u001f]*$";

/// Any JSON that the strict parser takes, as far as a schema can say it.
pub(super) fn readable() -> Value {
    let others = json!({
        "type": "object",
        "propertyNames": matching(PRINTABLE),
        "additionalProperties": schema(READABLE),
    });
    let number = json!({ "type": "number" });
    let any = [nothing(), flag(), number, matching(PRINTABLE), list(schema(READABLE)), others];
    described(json!({ "anyOf": any }), "JSON without control characters in names and strings")
}

/// An object that the service answers with. Closed, so that a member that is not written down fails
/// the test that holds real answers against the document.
pub(super) fn answered(members: impl IntoIterator<Item = Member>) -> Value {
    object(members, false.into())
}

fn object(members: impl IntoIterator<Item = Member>, others: Value) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for Member { name, schema, is_required } in members {
        properties.insert(name.to_owned(), schema);
        if is_required {
            required.push(name);
        }
    }
    let mut object = json!({ "type": "object", "required": required });
    object["properties"] = properties.into();
    object["additionalProperties"] = others;
    object
}
