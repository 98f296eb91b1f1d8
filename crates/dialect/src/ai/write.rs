//! JSON, written member by member.
//!
//! Owns: commas, quotes and escapes; members stand in the order in which they are written, and JSON
//! of others is put in as it is. Refuses to know: shapes.

use serde_json::Number;

/// A text that grows.
#[derive(Debug, Default)]
pub(super) struct Json {
    out: Vec<u8>,
}

/// The members of an object that is open.
pub(super) struct Members<'w> {
    json: &'w mut Json,
    is_first: bool,
}

/// The elements of an array that is open.
pub(super) struct Elements<'w> {
    json: &'w mut Json,
    is_first: bool,
}

/// The text of one object.
pub(super) fn object(write: impl FnOnce(&mut Members<'_>)) -> Vec<u8> {
    let mut json = Json::default();
    json.object(write);
    json.out
}

/// A string as JSON.
pub(super) fn quoted(text: &str) -> String {
    let mut json = Json::default();
    json.text(text);
    // What was written is UTF-8 by construction.
    String::from_utf8(json.out).unwrap_or_default()
}

impl Json {
    fn object(&mut self, write: impl FnOnce(&mut Members<'_>)) {
        self.out.push(b'{');
        write(&mut Members { json: self, is_first: true });
        self.out.push(b'}');
    }

    fn array(&mut self, write: impl FnOnce(&mut Elements<'_>)) {
        self.out.push(b'[');
        write(&mut Elements { json: self, is_first: true });
        self.out.push(b']');
    }

    fn text(&mut self, text: &str) {
        // Cannot fail: the sink is a vector and a string is always JSON.
        let _ = serde_json::to_writer(&mut self.out, text);
    }

    fn comma(&mut self, is_first: &mut bool) {
        if !std::mem::replace(is_first, false) {
            self.out.push(b',');
        }
    }
}

impl Members<'_> {
    fn name(&mut self, name: &str) -> &mut Json {
        self.json.comma(&mut self.is_first);
        self.json.text(name);
        self.json.out.push(b':');
        self.json
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.name(name).text(text);
    }

    pub(super) fn some_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    pub(super) fn count(&mut self, name: &str, count: u64) {
        self.raw(name, &count.to_string());
    }

    pub(super) fn some_count(&mut self, name: &str, count: Option<u64>) {
        if let Some(count) = count {
            self.count(name, count);
        }
    }

    pub(super) fn some_number(&mut self, name: &str, number: Option<&Number>) {
        if let Some(number) = number {
            self.raw(name, &number.to_string());
        }
    }

    pub(super) fn flag(&mut self, name: &str, flag: bool) {
        self.raw(name, if flag { "true" } else { "false" });
    }

    pub(super) fn null(&mut self, name: &str) {
        self.raw(name, "null");
    }

    /// `json` has to be JSON.
    pub(super) fn raw(&mut self, name: &str, json: &str) {
        self.name(name).out.extend_from_slice(json.as_bytes());
    }

    pub(super) fn object(&mut self, name: &str, write: impl FnOnce(&mut Members<'_>)) {
        self.name(name).object(write);
    }

    pub(super) fn array(&mut self, name: &str, write: impl FnOnce(&mut Elements<'_>)) {
        self.name(name).array(write);
    }

    /// Texts, unless there are none.
    pub(super) fn some_texts<T: AsRef<str>>(&mut self, name: &str, texts: &[T]) {
        if !texts.is_empty() {
            self.array(name, |list| texts.iter().for_each(|text| list.text(text.as_ref())));
        }
    }
}

impl Elements<'_> {
    fn next(&mut self) -> &mut Json {
        self.json.comma(&mut self.is_first);
        self.json
    }

    pub(super) fn text(&mut self, text: &str) {
        self.next().text(text);
    }

    /// A finite number.
    pub(super) fn float(&mut self, number: f32) {
        let json = self.next();
        json.out.extend_from_slice(number.to_string().as_bytes());
    }

    pub(super) fn object(&mut self, write: impl FnOnce(&mut Members<'_>)) {
        self.next().object(write);
    }
}
