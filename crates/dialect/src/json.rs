//! Strict JSON: one text, one meaning, bounded work.
//!
//! Owns: what is refused before any member is looked at, and where the refusal points.
//! Refuses to know: which members a body has; the grammar itself is `serde_json`'s.
//!
//! Two readers of one body must never see different values, so duplicate members and control
//! characters are refused instead of being resolved in some order.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use types::Reason;

use crate::Fault;

/// Limits on the shape of a text. Its length is limited where the body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonLimits {
    /// Objects and arrays inside each other; 0 admits scalars only. Values above 127 have no
    /// effect, since the parser's own guard against stack overflow stands there.
    pub max_depth: usize,
    /// Values and member names together, at all levels. Two bytes of text can become a hundred of
    /// memory and more, so that the length alone does not bound what a text costs.
    pub max_nodes: usize,
}

impl Default for JsonLimits {
    /// Ten levels and 10 000 nodes, the limits of every route that takes no AI request.
    fn default() -> JsonLimits {
        JsonLimits { max_depth: 10, max_nodes: 10_000 }
    }
}

/// Reads `bytes` as exactly one JSON value.
///
/// Time is linear in `bytes` but for the ordered map of each object. Refused with
/// [`Reason::InvalidMessageFormat`]: an empty body, anything but UTF-8 without a byte order mark,
/// duplicate members at any level (compared after unescaping), more nesting than the limit (before
/// it is descended into) or more nodes (before they are built), lone surrogates, characters U+0000
/// to U+001F in strings or names, numbers outside the range of a double, and bytes after the value.
pub fn parse(bytes: &[u8], limits: JsonLimits) -> Result<Value, Fault> {
    parse_named(bytes, limits, "body")
}

/// As [`parse`]; `name` is how a refusal calls the text.
pub fn parse_named(bytes: &[u8], limits: JsonLimits, name: &'static str) -> Result<Value, Fault> {
    parse_strict(bytes, limits, name, false)
}

/// As [`parse`], for bodies whose strings are texts for people: they may hold tabs and ends of
/// lines.
pub(crate) fn parse_prose(bytes: &[u8], limits: JsonLimits) -> Result<Value, Fault> {
    parse_strict(bytes, limits, "body", true)
}

fn parse_strict(
    bytes: &[u8],
    limits: JsonLimits,
    name: &'static str,
    is_prose: bool,
) -> Result<Value, Fault> {
    let unreadable =
        |why: fmt::Arguments<'_>| Fault::new(Reason::InvalidMessageFormat, format!("{name} {why}"));
    if bytes.trim_ascii().is_empty() {
        return Err(unreadable(format_args!("is empty")));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| unreadable(format_args!("is not UTF-8")))?;
    if text.starts_with('\u{feff}') {
        return Err(unreadable(format_args!("starts with a byte order mark")));
    }
    let (objection, nodes_left) = (Cell::new(None), Cell::new(limits.max_nodes));
    let mut parser = serde_json::Deserializer::from_str(text);
    let strict = Strict {
        levels_left: limits.max_depth,
        is_prose,
        nodes_left: &nodes_left,
        objection: &objection,
    };
    strict.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value)).map_err(
        |error| {
            // The parser's own wording is not forwarded: a library may begin to quote its input.
            let why = match objection.get() {
                Some(why) => why,
                None if error.is_eof() => "ends before its JSON does",
                None => "is not valid JSON",
            };
            unreadable(format_args!("{why} at line {} column {}", error.line(), error.column()))
        },
    )
}

/// As [`parse_named`], for a text that has to be an object.
pub(crate) fn parse_object(
    bytes: &[u8],
    limits: JsonLimits,
    name: &'static str,
) -> Result<Map<String, Value>, Fault> {
    match parse_named(bytes, limits, name)? {
        Value::Object(members) => Ok(members),
        _ => Err(Fault::new(Reason::InvalidMessageFormat, format!("{name} must be a JSON object"))),
    }
}

/// Builds a value. What this module objects to is kept in `objection`, because the error type of
/// the parser holds text only.
#[derive(Clone, Copy)]
struct Strict<'c> {
    levels_left: usize,
    is_prose: bool,
    nodes_left: &'c Cell<usize>,
    objection: &'c Cell<Option<&'static str>>,
}

impl<'c> Strict<'c> {
    fn refuse<E: serde::de::Error>(self, why: &'static str) -> E {
        self.objection.set(Some(why));
        E::custom(why)
    }

    fn descend<E: serde::de::Error>(self) -> Result<Strict<'c>, E> {
        match self.levels_left.checked_sub(1) {
            Some(levels_left) => Ok(Strict { levels_left, ..self }),
            None => Err(self.refuse("nests too deeply")),
        }
    }

    fn count<E: serde::de::Error>(self) -> Result<(), E> {
        match self.nodes_left.get().checked_sub(1) {
            Some(nodes_left) => {
                self.nodes_left.set(nodes_left);
                Ok(())
            }
            None => Err(self.refuse("holds too many values")),
        }
    }

    fn text<E: serde::de::Error>(self, text: String) -> Result<String, E> {
        let is_taken = |byte| self.is_prose && b"\t\n\r".contains(&byte);
        if text.bytes().any(|byte| byte < b' ' && !is_taken(byte)) {
            return Err(self.refuse("holds a control character in a string"));
        }
        Ok(text)
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match Number::from_f64(value) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(self.refuse("holds a number outside the range of a double")),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.text(value.to_owned()).map(Value::String)
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.text(value).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.descend()?;
        let mut elements = Vec::new();
        while let Some(element) = access.next_element_seed(inner)? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.descend()?;
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            self.count()?;
            let name = self.text(name)?;
            if members.contains_key(&name) {
                return Err(self.refuse("names a member twice"));
            }
            let value = access.next_value_seed(inner)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detail(bytes: &[u8]) -> String {
        let fault = parse(bytes, JsonLimits::default()).expect_err("must be refused");
        assert_eq!(fault.reason, Reason::InvalidMessageFormat);
        fault.detail.as_str().to_owned()
    }

    fn deep(max_depth: usize) -> JsonLimits {
        JsonLimits { max_depth, ..JsonLimits::default() }
    }

    #[test]
    fn one_text_has_one_meaning() {
        for (bytes, expected) in [
            (&b""[..], "body is empty"),
            (b" \r\n\t", "body is empty"),
            (b"\xff", "body is not UTF-8"),
            (b"\"\xed\xa0\x80\"", "body is not UTF-8"),
            (b"\xef\xbb\xbf{}", "body starts with a byte order mark"),
            (b"\xff\xfe{\0}\0", "body is not UTF-8"),
            (br#"{"a":1,"a":1}"#, "body names a member twice"),
            (br#"{"a":1,"\u0061":2}"#, "body names a member twice"),
            (br#"[{"b":{"c":0,"c":[]}}]"#, "body names a member twice"),
            (br#""\ud800""#, "body is not valid JSON"),
            (br#""\udc00x""#, "body is not valid JSON"),
            (br#"{"\ud83d":1}"#, "body is not valid JSON"),
            (br#""\u0000""#, "body holds a control character in a string"),
            (br#""a\nb""#, "body holds a control character in a string"),
            (br#"{"\u001f":1}"#, "body holds a control character in a string"),
            (b"\"\0\"", "body is not valid JSON"),
            (b"\"a\nb\"", "body is not valid JSON"),
            (b"{} x", "body is not valid JSON"),
            (b"{}{}", "body is not valid JSON"),
            (b"{}\0", "body is not valid JSON"),
            (b"{\"a\":1,}", "body is not valid JSON"),
            (b"{'a':1}", "body is not valid JSON"),
            (b"[01]", "body is not valid JSON"),
            (b"[+1]", "body is not valid JSON"),
            (b"[1e400]", "body is not valid JSON"),
            (b"[-1e400]", "body is not valid JSON"),
            (b"[NaN]", "body is not valid JSON"),
            (b"[Infinity]", "body is not valid JSON"),
            (b"{\"a\":", "body ends before its JSON does"),
            (b"\"abc", "body ends before its JSON does"),
        ] {
            let found = detail(bytes);
            assert!(found.starts_with(expected), "{found:?} for {:?}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_refusal_points_at_the_place() {
        assert_eq!(
            detail(b"{\n  \"a\": 1,\n  \"a\": 2}"),
            "body names a member twice at line 3 column 5"
        );
    }

    #[test]
    fn ten_levels_are_taken_and_the_eleventh_is_refused_whatever_follows() {
        let nested = |levels: usize| [b"[".repeat(levels), b"]".repeat(levels)].concat();
        for levels in [0, 1, 9, 10] {
            let text = if levels == 0 { b"1".to_vec() } else { nested(levels) };
            assert!(parse(&text, JsonLimits::default()).is_ok(), "{levels} levels");
        }
        for levels in [11, 64, 100_000] {
            for text in [nested(levels), b"[".repeat(levels), b"{\"a\":".repeat(levels)] {
                assert!(detail(&text).starts_with("body nests too deeply"), "{levels} levels");
            }
        }
        assert!(parse(&nested(64), deep(64)).is_ok());
        assert!(parse(&nested(65), deep(64)).is_err());
        // Far above what the stack could take, the parser's own guard still answers.
        assert!(parse(&nested(100_000), deep(usize::MAX)).is_err());
        assert!(parse(b"[]", deep(0)).is_err());
    }

    #[test]
    fn siblings_do_not_count_as_depth_and_surrogate_pairs_are_one_character() {
        let wide = format!("[{}]", vec!["{\"a\":[]}"; 1_000].join(","));
        assert!(parse(wide.as_bytes(), deep(3)).is_ok());
        let pair = parse(br#""\ud83d\ude00""#, JsonLimits::default());
        assert_eq!(pair, Ok(Value::String("\u{1f600}".to_owned())));
    }

    #[test]
    fn values_and_names_are_counted_before_they_are_built() {
        // Each element is three nodes: the object, its one name and the value.
        let many = |count: usize| format!("[{}]", vec!["{\"\":0}"; count].join(","));
        assert!(parse(many(3_333).as_bytes(), JsonLimits::default()).is_ok(), "exactly 10 000");
        let huge = many(130_000);
        assert!(huge.len() > 910_000 && huge.len() < 1 << 20);
        let scalars = format!("[{}]", vec!["0"; 10_000].join(","));
        for text in [&many(3_334), &huge, &scalars] {
            assert!(detail(text.as_bytes()).starts_with("body holds too many values"));
        }
        // Refused where the limit is passed: what follows is not looked at.
        let cut = detail(&huge.as_bytes()[..100_000]);
        assert_eq!(cut, detail(huge.as_bytes()));
    }

    #[test]
    fn a_long_body_of_few_values_is_taken() {
        let names: Vec<_> = (0..1_000).map(|at| format!("\"name-{at}\":\"{at:900}\"")).collect();
        let text = format!("{{{}}}", names.join(","));
        assert!(text.len() > 900_000);
        let value = parse(text.as_bytes(), JsonLimits::default());
        assert_eq!(value.map(|value| value.as_object().map(Map::len)), Ok(Some(1_000)));
        let limits = JsonLimits { max_nodes: 3, ..JsonLimits::default() };
        assert!(parse(b"{\"a\":1}", limits).is_ok());
        assert!(parse(b"{\"a\":[1]}", limits).is_err());
    }
}
