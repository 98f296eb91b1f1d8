//! The members of an object, taken one by one until none is left.
//!
//! Owns: how a member is read by type, and that one which nobody takes is named, not lost.
//! Refuses to know: which members there are.

use std::borrow::Cow;

use serde::Deserializer as _;
use serde::de::DeserializeSeed as _;
use serde_json::Number;
use serde_json::value::RawValue;

use super::Unsupported;
use super::body::{Members, Name};
use crate::fields::is_word;

/// The members of a JSON object in their order; `None` for any other value.
pub(super) fn members(json: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let mut parser = serde_json::Deserializer::from_str(json);
    let members = (&mut parser).deserialize_map(Members).ok()?;
    parser.end().ok()?;
    Some(members)
}

/// The text of a JSON string, borrowed where it is written without escapes.
pub(super) fn string(json: &str) -> Option<Cow<'_, str>> {
    Name.deserialize(&mut serde_json::Deserializer::from_str(json)).ok()
}

/// The elements of a JSON array.
pub(super) fn elements(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok()
}

/// Something that cannot be said in another dialect.
pub(super) fn unsupported(field: impl Into<String>, why: &'static str) -> Unsupported {
    Unsupported { field: field.into(), why: Cow::Borrowed(why) }
}

/// The members of an object that nobody has taken yet.
pub(super) struct Object<'a> {
    path: String,
    left: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Reads an object that stands at `path`; the body itself is at the empty path.
    pub(super) fn read(path: impl Into<String>, json: &'a str) -> Result<Object<'a>, Unsupported> {
        let path = path.into();
        match members(json) {
            Some(left) => Ok(Object { path, left }),
            None => Err(unsupported(path, "must be an object")),
        }
    }

    /// The path of a member.
    pub(super) fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub(super) fn unsupported(&self, name: &str, why: &'static str) -> Unsupported {
        unsupported(self.at(name), why)
    }

    /// The JSON of a member, unless it is absent or null.
    pub(super) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.left.iter().position(|(known, _)| known == name)?;
        let (_, value) = self.left.swap_remove(at);
        Some(value).filter(|value| value.get() != "null")
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, Unsupported> {
        let Some(value) = self.take(name) else { return Ok(None) };
        string(value.get()).map(Some).ok_or_else(|| self.unsupported(name, "must be a string"))
    }

    pub(super) fn needed_text(&mut self, name: &str) -> Result<Cow<'a, str>, Unsupported> {
        self.text(name)?.ok_or_else(|| self.unsupported(name, "is required"))
    }

    pub(super) fn needed(&mut self, name: &str) -> Result<&'a RawValue, Unsupported> {
        self.take(name).ok_or_else(|| self.unsupported(name, "is required"))
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Unsupported> {
        self.typed(name, "must be true or false")
    }

    pub(super) fn count(&mut self, name: &str) -> Result<Option<u64>, Unsupported> {
        self.typed(name, "must be an integer that is not negative")
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<Number>, Unsupported> {
        self.typed(name, "must be a number")
    }

    fn typed<T: serde::Deserialize<'a>>(
        &mut self,
        name: &str,
        expected: &'static str,
    ) -> Result<Option<T>, Unsupported> {
        let Some(value) = self.take(name) else { return Ok(None) };
        serde_json::from_str(value.get()).map(Some).map_err(|_| self.unsupported(name, expected))
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Object<'a>>, Unsupported> {
        let Some(value) = self.take(name) else { return Ok(None) };
        Object::read(self.at(name), value.get()).map(Some)
    }

    pub(super) fn needed_object(&mut self, name: &str) -> Result<Object<'a>, Unsupported> {
        self.object(name)?.ok_or_else(|| self.unsupported(name, "is required"))
    }

    /// The JSON of a member that has to be an object.
    pub(super) fn needed_object_text(&mut self, name: &str) -> Result<&'a str, Unsupported> {
        let json = self.needed(name)?.get();
        match members(json) {
            Some(_) => Ok(json),
            None => Err(self.unsupported(name, "must be an object")),
        }
    }

    /// The elements of an array, with their paths; none where the member is absent.
    pub(super) fn list(&mut self, name: &str) -> Result<Vec<(String, &'a RawValue)>, Unsupported> {
        let Some(value) = self.take(name) else { return Ok(Vec::new()) };
        list(&self.at(name), value)
    }

    /// Takes members that change no answer.
    pub(super) fn drop_hints(&mut self, hints: &[&str]) {
        self.left.retain(|(name, _)| !hints.contains(&name.as_ref()));
    }

    /// Whether anything but null is left.
    pub(super) fn end(self) -> Result<(), Unsupported> {
        match self.left.iter().find(|(_, value)| value.get() != "null") {
            None => Ok(()),
            Some((name, _)) if is_word(name) => {
                Err(self.unsupported(name, "cannot be said to the model's provider"))
            }
            Some(_) => Err(unsupported(self.path, "holds a member that is not known")),
        }
    }
}

/// The elements of an array that stands at `path`.
pub(super) fn list<'a>(
    path: &str,
    value: &'a RawValue,
) -> Result<Vec<(String, &'a RawValue)>, Unsupported> {
    let Some(found) = elements(value.get()) else {
        return Err(unsupported(path, "must be an array"));
    };
    Ok(found.into_iter().enumerate().map(|(at, one)| (format!("{path}[{at}]"), one)).collect())
}
