//! A JSON object as it was sent, with the places of its members.
//!
//! Owns: the strict reading of such a body in one walk without building it, and putting other
//! values into a copy of it. Refuses to know: which members there are and what they mean.
//!
//! A prompt may hold control characters (escaped: a line end is one), which is where this reading
//! is wider than [`crate::json`]; all else that is refused there is refused here.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use types::Reason;

use crate::{Fault, JsonLimits};

/// Names of one object from which on duplicates are looked for once, at its end, by sorting.
const FEW_NAMES: usize = 32;

/// The text of an object and where its members are.
#[derive(Debug, Clone)]
pub(super) struct Body {
    bytes: Bytes,
    members: Vec<Member>,
}

#[derive(Debug, Clone)]
struct Member {
    name: Box<str>,
    value: Range<usize>,
}

impl Body {
    /// Reads an object within the limits; refused as by [`crate::json::parse`].
    pub(super) fn parse(bytes: &Bytes, limits: &JsonLimits) -> Result<Body, Fault> {
        let refuse = |why: fmt::Arguments<'_>| {
            Fault::new(Reason::InvalidMessageFormat, format!("body {why}"))
        };
        if bytes.trim_ascii().is_empty() {
            return Err(refuse(format_args!("is empty")));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| refuse(format_args!("is not UTF-8")))?;
        if text.starts_with('\u{feff}') {
            return Err(refuse(format_args!("starts with a byte order mark")));
        }
        let state = State {
            nodes_left: Cell::new(limits.max_nodes),
            objection: Cell::new(None),
            names: RefCell::new(Vec::new()),
        };
        let mut parser = serde_json::Deserializer::from_str(text);
        let walk = Walk { levels_left: limits.max_depth, state: &state };
        walk.deserialize(&mut parser).and_then(|()| parser.end()).map_err(|error| {
            // The parser's own wording is not forwarded: a library may begin to quote its input.
            let why = match state.objection.get() {
                Some(why) => why,
                None if error.is_eof() => "ends before its JSON does",
                None => "is not valid JSON",
            };
            refuse(format_args!("{why} at line {} column {}", error.line(), error.column()))
        })?;
        let members = members(text).ok_or_else(|| refuse(format_args!("must be a JSON object")))?;
        Ok(Body { bytes: bytes.clone(), members })
    }

    /// As [`Body::parse`] for a text from a provider, whose doubles are no fault of the client.
    pub(super) fn of_provider(bytes: &Bytes) -> Option<Body> {
        let members = members(std::str::from_utf8(bytes).ok()?)?;
        Some(Body { bytes: bytes.clone(), members })
    }

    /// The whole text.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The JSON of a member, unless it is absent or null.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let member = self.members.iter().find(|member| *member.name == *name)?;
        Some(self.text(&member.value)).filter(|text| *text != "null")
    }

    /// Names and JSON of all members, in their order.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &str)> {
        self.members.iter().map(|member| (&*member.name, self.text(&member.value)))
    }

    pub(super) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    fn text(&self, range: &Range<usize>) -> &str {
        // Ranges are those of values in a text that was checked to be UTF-8.
        self.bytes.get(range.clone()).and_then(|part| std::str::from_utf8(part).ok()).unwrap_or("")
    }

    /// A copy in which these members hold other JSON; those that are absent are put at the end.
    pub(super) fn with(&self, edits: &[(&str, &str)]) -> Vec<u8> {
        let grown: usize = edits.iter().map(|(name, json)| name.len() + json.len() + 4).sum();
        let mut out = Vec::with_capacity(self.bytes.len() + grown);
        let mut copied = 0;
        let copy_until = |out: &mut Vec<u8>, from: usize, until: usize| {
            out.extend_from_slice(self.bytes.get(from..until).unwrap_or_default());
        };
        for member in &self.members {
            if let Some((_, json)) = edits.iter().find(|(name, _)| *name == &*member.name) {
                copy_until(&mut out, copied, member.value.start);
                out.extend_from_slice(json.as_bytes());
                copied = member.value.end;
            }
        }
        let Some(last) = self.members.last().map(|member| member.value.end) else {
            return self.bytes.to_vec();
        };
        if copied < last {
            copy_until(&mut out, copied, last);
        }
        for (name, json) in edits {
            if !self.members.iter().any(|member| *member.name == **name) {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"\":");
                out.extend_from_slice(json.as_bytes());
            }
        }
        copy_until(&mut out, last, self.bytes.len());
        out
    }
}

/// The places of the members of an object; `None` when the text is none.
fn members(text: &str) -> Option<Vec<Member>> {
    let start = text.as_ptr().addr();
    let members = super::object::members(text)?;
    Some(
        members
            .into_iter()
            .map(|(name, value)| {
                let value = value.get();
                let at = value.as_ptr().addr() - start;
                Member { name: name.into(), value: at..at + value.len() }
            })
            .collect(),
    )
}

/// What a walk has seen.
struct State<'de> {
    nodes_left: Cell<usize>,
    /// Kept apart because the error type of the parser holds text only.
    objection: Cell<Option<&'static str>>,
    /// Names of all objects that are open, the innermost one's last.
    names: RefCell<Vec<Cow<'de, str>>>,
}

/// Looks at a value and keeps nothing of it.
struct Walk<'w, 'de> {
    levels_left: usize,
    state: &'w State<'de>,
}

impl<'de> Walk<'_, 'de> {
    fn refuse<E: serde::de::Error>(&self, why: &'static str) -> E {
        self.state.objection.set(Some(why));
        E::custom(why)
    }

    fn descend<E: serde::de::Error>(&self) -> Result<Self, E> {
        match self.levels_left.checked_sub(1) {
            Some(levels_left) => Ok(Walk { levels_left, state: self.state }),
            None => Err(self.refuse("nests too deeply")),
        }
    }

    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        match self.state.nodes_left.get().checked_sub(1) {
            Some(left) => {
                self.state.nodes_left.set(left);
                Ok(())
            }
            None => Err(self.refuse("holds too many values")),
        }
    }

    fn again(&self) -> Self {
        Walk { levels_left: self.levels_left, state: self.state }
    }

    /// Whether the innermost object, whose names begin at `from`, has this name already.
    fn has(&self, from: usize, name: &str) -> bool {
        let names = self.state.names.borrow();
        let own = names.get(from..).unwrap_or_default();
        own.len() < FEW_NAMES && own.iter().any(|known| known == name)
    }

    /// Whether any name stands twice; forgets the names.
    fn close(&self, from: usize) -> bool {
        let mut names = self.state.names.borrow_mut();
        let own = names.get_mut(from..).unwrap_or_default();
        let twice = own.len() > FEW_NAMES && {
            own.sort_unstable();
            own.windows(2).any(|pair| pair.first() == pair.last())
        };
        names.truncate(from);
        twice
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let inner = self.descend()?;
        while access.next_element_seed(inner.again())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let inner = self.descend()?;
        let from = self.state.names.borrow().len();
        while let Some(name) = access.next_key_seed(Name)? {
            self.count()?;
            if self.has(from, &name) {
                return Err(self.refuse("names a member twice"));
            }
            self.state.names.borrow_mut().push(name);
            access.next_value_seed(inner.again())?;
        }
        if self.close(from) {
            return Err(self.refuse("names a member twice"));
        }
        Ok(())
    }
}

/// A name, borrowed where it is written without escapes.
pub(super) struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The members of an object in their order, the values unread.
pub(super) struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some(name) = access.next_key_seed(Name)? {
            members.push((name, access.next_value()?));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Body, Fault> {
        let limits = JsonLimits { max_depth: 64, max_nodes: 10_000 };
        Body::parse(&Bytes::copy_from_slice(text.as_bytes()), &limits)
    }

    #[test]
    fn what_is_not_edited_stays_as_it_was_written() {
        let text = "{ \"model\" : \"a\",\n\t\"x\":[1.0e3, {\"\\u0061\":1}] ,\"n\":null }\n";
        let body = read(text).expect("an object");
        let edited = |edits: &[(&str, &str)]| String::from_utf8(body.with(edits)).expect("UTF-8");
        assert_eq!(edited(&[]), text);
        assert_eq!(edited(&[("model", "\"bb\"")]), text.replace("\"a\",", "\"bb\","));
        assert_eq!(
            edited(&[("z", "1"), ("n", "2"), ("model", "3")]),
            "{ \"model\" : 3,\n\t\"x\":[1.0e3, {\"\\u0061\":1}] ,\"n\":2,\"z\":1 }\n"
        );
        assert_eq!(body.get("x"), Some("[1.0e3, {\"\\u0061\":1}]"));
        assert_eq!((body.get("n"), body.get("none")), (None, None));
    }

    #[test]
    fn refusals_are_those_of_strict_json() {
        let many: Vec<String> = (0..40).map(|at| format!("\"m{at}\":{{\"m{at}\":0}}")).collect();
        let twice = format!("{{\"a\":{{{},\"m7\":1}}}}", many.join(","));
        let once = format!("{{\"a\":{{{}}}}}", many.join(","));
        assert!(read(&once).is_ok());
        for (text, expected) in [
            ("", "body is empty"),
            ("\u{feff}{}", "body starts with a byte order mark"),
            ("[]", "body must be a JSON object"),
            ("{\"a\":1,\"\\u0061\":2}", "body names a member twice"),
            ("{\"b\":[{\"c\":{},\"d\":{\"c\":1},\"c\":0}]}", "body names a member twice"),
            (&twice, "body names a member twice"),
            ("{\"a\":\"\\ud800\"}", "body is not valid JSON"),
            ("{\"a\":1e400}", "body is not valid JSON"),
            ("{\"a\":1}x", "body is not valid JSON"),
            ("{\"a\":", "body ends before its JSON does"),
            (&format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64)), "body nests too deeply"),
            (&format!("{{\"a\":[{}1]}}", "1,".repeat(10_000)), "body holds too many values"),
        ] {
            let fault = read(text).expect_err(text);
            assert!(fault.detail.as_str().starts_with(expected), "{fault}");
        }
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(63), "]".repeat(63));
        assert!(read(&deep).is_ok());
        assert!(read("{\"a\":\"line\\nline\\u0000\"}").is_ok(), "a prompt has line ends");
    }
}
