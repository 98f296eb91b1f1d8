//! The file of rules that an operator owns.
//!
//! ```json
//! {"version": 1, "rules": [
//!     {"route": "/marketplace", "method": "POST", "strict": true, "schema": {"type": "object"}}
//! ]}
//! ```
//!
//! `route` and `method` are a row of the route table that tenants send bodies to; each has one rule
//! at most. `schema` is JSON Schema, draft 2020-12 unless it names another in `$schema`; it refers
//! to itself only, its patterns are of linear time (no look-around, no back references), and
//! `format` is not checked. `strict: true`, which may be left out, keeps the rule strict whatever
//! `VALIDATION_STRICT_MODE` says. Nothing else may stand in the file.
//!
//! Owns: that form, and the place of each mistake in it. Refuses to know: where the file is, and
//! when its rules are in force.

use std::fmt;

use dialect::JsonLimits;
use jsonschema::PatternOptions;
use serde_json::{Map, Value};

use super::rule::Rule;
use crate::table::{ROUTES, Route};

/// Bytes of a file.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// The only version of the form.
const VERSION: u64 = 1;

const LIMITS: JsonLimits = JsonLimits { max_depth: 64, max_nodes: 100_000 };

/// Bytes of one compiled pattern, and of what it may remember while it runs.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// Something wrong in a file of rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistake {
    /// Where: a JSON pointer into the file; empty where the text itself says it.
    pub at: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "{}: {}", self.at, self.what)
        }
    }
}

/// One rule of a file, good or not.
#[derive(Debug)]
pub struct Found {
    /// The method and the route that it names; a place in the file where it names none.
    pub name: String,
    /// The rule, or all that is wrong with it.
    pub rule: Result<Rule, Vec<Mistake>>,
}

/// Reads a file rule by rule, so that one start or one check shows every mistake.
///
/// # Errors
/// What is wrong with the file as a whole.
pub fn read(text: &[u8]) -> Result<Vec<Found>, Mistake> {
    let whole = |what: String| Mistake { at: String::new(), what };
    if text.len() > FILE_BYTES_MAX {
        return Err(whole(format!("the file may hold {FILE_BYTES_MAX} bytes")));
    }
    let file = dialect::json::parse_named(text, LIMITS, "file")
        .map_err(|fault| whole(fault.detail.as_str().to_owned()))?;
    let Value::Object(file) = &file else {
        return Err(whole("file must be a JSON object".to_owned()));
    };
    let mut mistakes = Mistakes::new(String::new());
    mistakes.strangers(file, &["version", "rules"]);
    if file.get("version").and_then(Value::as_u64) != Some(VERSION) {
        mistakes.push("/version", format!("must be {VERSION}"));
    }
    if let Some(first) = mistakes.found.into_iter().next() {
        return Err(first);
    }
    let Some(Value::Array(rules)) = file.get("rules") else {
        return Err(Mistake { at: "/rules".to_owned(), what: "must be an array".to_owned() });
    };
    let mut taken: Vec<&'static Route> = Vec::new();
    Ok(rules.iter().enumerate().map(|(at, rule)| one(at, rule, &mut taken)).collect())
}

/// The mistakes of one place.
struct Mistakes {
    base: String,
    found: Vec<Mistake>,
}

impl Mistakes {
    fn new(base: String) -> Mistakes {
        Mistakes { base, found: Vec::new() }
    }

    fn push(&mut self, below: &str, what: impl Into<String>) {
        self.found.push(Mistake { at: format!("{}{below}", self.base), what: what.into() });
    }

    fn strangers(&mut self, members: &Map<String, Value>, known: &[&str]) {
        for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
            let below = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            self.push(&below, format!("is unknown; there may be {}", known.join(", ")));
        }
    }
}

fn one(at: usize, rule: &Value, taken: &mut Vec<&'static Route>) -> Found {
    let place = format!("/rules/{at}");
    let mut mistakes = Mistakes::new(place.clone());
    let Value::Object(members) = rule else {
        mistakes.push("", "must be an object");
        return Found { name: place, rule: Err(mistakes.found) };
    };
    mistakes.strangers(members, &["route", "method", "schema", "strict"]);
    let route = route(members, taken, &mut mistakes);
    let strict = match members.get("strict") {
        None => false,
        Some(Value::Bool(strict)) => *strict,
        Some(_) => {
            mistakes.push("/strict", "must be true or false");
            false
        }
    };
    let schema = members.get("schema");
    let compiled = match schema {
        Some(schema) => compile(schema, &mut mistakes),
        None => {
            mistakes.push("/schema", "is required");
            None
        }
    };
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let name = match (text("method"), text("route")) {
        (Some(method), Some(path)) => format!("{method} {path}"),
        _ => place,
    };
    let rule = match (route, schema, compiled) {
        (Some(route), Some(schema), Some(compiled)) if mistakes.found.is_empty() => {
            Ok(Rule::new(route, strict, compiled, schema))
        }
        _ => Err(mistakes.found),
    };
    Found { name, rule }
}

/// The row of the route table that a rule is for.
fn route(
    members: &Map<String, Value>,
    taken: &mut Vec<&'static Route>,
    mistakes: &mut Mistakes,
) -> Option<&'static Route> {
    let mut text = |name: &str| {
        let found = members.get(name).and_then(Value::as_str);
        if found.is_none() {
            mistakes.push(&format!("/{name}"), "is required, as a text");
        }
        found
    };
    let (path, method) = (text("route"), text("method"));
    let (path, method) = (path?, method?);
    let rows = || ROUTES.iter().filter(|row| row.path == path);
    let Some(row) = rows().find(|row| row.method == method) else {
        match rows().next() {
            Some(_) => mistakes.push("/method", format!("{path} does not take {method}")),
            None => mistakes.push("/route", format!("there is no route {path}")),
        }
        return None;
    };
    if !row.handler.takes_rule() {
        let why = "takes no rule: only bodies of tenants are checked, so that a wrong rule never \
                   keeps the operator out";
        mistakes.push("/route", format!("{method} {path} {why}"));
        return None;
    }
    if taken.iter().any(|other| other.is(row)) {
        mistakes.push("/route", format!("{method} {path} has a rule already"));
        return None;
    }
    taken.push(row);
    Some(row)
}

/// The schema, ready to check bodies. A validator is built once: what is wrong with it shows here.
fn compile(schema: &Value, mistakes: &mut Mistakes) -> Option<jsonschema::Validator> {
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        mistakes.push("/schema", "must be an object, true or false");
        return None;
    }
    // The engine without look-around and back references: its time is linear in the text.
    let patterns =
        PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
    let built = jsonschema::options()
        .offline()
        .should_validate_formats(false)
        .with_pattern_options(patterns)
        .build(schema);
    match built {
        Ok(validator) => Some(validator),
        Err(error) => {
            mistakes.push(&format!("/schema{}", error.instance_path()), error.to_string());
            None
        }
    }
}
