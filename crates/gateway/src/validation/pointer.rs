//! Where in a body something is, told without a text that its sender chose.
//!
//! Owns: which names of members may be shown. Refuses to know: why a place is told.
//!
//! A name of a member is the sender's text as much as a value is: a body may hold a key, a mail
//! address or a page of prose as a name. What the operator's schema knows may be shown, and what
//! looks like the name of a field; anything else stands as `*`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

/// Characters of the longest name that the schema does not know and that is shown. Below the
/// shortest credential of any provider.
const NAME_CHARS_MAX: usize = 31;

/// Bytes after which a pointer is cut. What the schema knows may be long.
const POINTER_BYTES_MAX: usize = 200;

/// The texts of a schema.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    /// Every name and every text of a schema: more than its property names, and all of it written
    /// by the operator.
    pub(super) fn of(schema: &Value) -> Names {
        let mut names = Names::default();
        names.collect(schema);
        names
    }

    fn collect(&mut self, schema: &Value) {
        match schema {
            Value::Object(members) => {
                for (name, value) in members {
                    self.0.insert(name.clone());
                    self.collect(value);
                }
            }
            Value::Array(elements) => elements.iter().for_each(|value| self.collect(value)),
            Value::String(text) => drop(self.0.insert(text.clone())),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// `pointer` (RFC 6901), and below it `member`, as they may be shown.
    pub(super) fn shown(&self, pointer: &str, member: Option<&str>) -> String {
        let mut shown = String::new();
        let member = member.map(escaped);
        for segment in pointer.split('/').skip(1).chain(member.as_deref()) {
            if shown.len() > POINTER_BYTES_MAX {
                shown.push_str("/…");
                break;
            }
            let segment = if self.may_show(&unescaped(segment)) { segment } else { "*" };
            // Writing to a string does not fail.
            let _ = write!(shown, "/{segment}");
        }
        shown
    }

    fn may_show(&self, name: &str) -> bool {
        let is_index = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        (is_index && name.len() <= 7) || is_field(name) || self.0.contains(name)
    }
}

/// Whether a text looks like the name of a field.
fn is_field(text: &str) -> bool {
    text.len() <= NAME_CHARS_MAX
        && text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn unescaped(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_fields_and_of_the_schema_are_shown_and_no_other_text() {
        let names = Names::of(&json!({
            "properties": {"x-trace": {}, "a/b": {}},
            "required": ["e-mail"],
            "maxProperties": 3,
        }));
        for (pointer, member, shown) in [
            ("", None, ""),
            ("/tenant_id", None, "/tenant_id"),
            ("/messages/0/content", None, "/messages/0/content"),
            ("", Some("plan"), "/plan"),
            ("/x-trace", Some("e-mail"), "/x-trace/e-mail"),
            ("/a~1b", Some("a/b"), "/a~1b/a~1b"),
            ("", Some("anna@example.org"), "/*"),
            ("", Some("sk-live-4711"), "/*"),
            ("/headers", Some("0123456789abcdef0123456789abcdef"), "/headers/*"),
            ("/49151234567890", Some(""), "/*/*"),
            ("/a b/\u{e4}", None, "/*/*"),
            ("/abcdefghijklmnopqrstuvwxyz01234", None, "/abcdefghijklmnopqrstuvwxyz01234"),
            ("/abcdefghijklmnopqrstuvwxyz012345", None, "/*"),
        ] {
            assert_eq!(names.shown(pointer, member), shown, "{pointer} {member:?}");
        }
    }

    #[test]
    fn a_pointer_is_cut_however_deep_it_leads() {
        let shown = Names::default().shown(&"/inner".repeat(1_000), None);
        assert!(shown.ends_with("/inner/…") && shown.len() < POINTER_BYTES_MAX + 40, "{shown}");
    }
}
