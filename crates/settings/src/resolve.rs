//! From environment and file to typed settings, with the origin of each value.
//!
//! Owns: precedence (environment over file over default), what counts as unset, the collection
//! of all mistakes at once, and what may be shown of a value.
//! Refuses to know: how the environment and the file are obtained; both are arguments.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;

use toml::{Table, Value};

use crate::error::SettingError;
use crate::knob::{FromText, Kind, Knob};
use crate::table::{Settings, table};

/// Settings that passed every check, and where each came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The values.
    pub settings: Settings,
    /// One row per setting, in the order of [`table`].
    pub provenance: Vec<Origin>,
}

/// Where a setting's value came from, fit to be shown to an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The setting, by its environment name.
    pub name: &'static str,
    /// The value as text, `(secret)` for a secret one, `(none)` for an optional one left unset.
    pub value: String,
    /// Who gave the value.
    pub source: Source,
    /// The unit of a quantity; empty otherwise.
    pub unit: &'static str,
    /// What the setting changes.
    pub help: &'static str,
}

/// Who gave a value. Shown as `environment`, `file "tai.toml"` or `default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A variable of the process environment.
    Environment,
    /// A settings file, by name.
    File(String),
    /// The table.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Environment => f.write_str("environment"),
            Source::File(name) => write!(f, "file {name:?}"),
            Source::Default => f.write_str("default"),
        }
    }
}

impl Settings {
    /// Looks every setting up: `env` by environment name, then `file` (its name and its TOML
    /// text), then the default. An empty environment variable counts as unset, because shells and
    /// container tools cannot always remove one. Variables outside the table are ignored, since
    /// the environment is shared; keys outside the table are refused, since the file is ours. A
    /// file value that the environment overrides is not looked at.
    ///
    /// `env` may return `OsString`, so that a value that is not UTF-8 is refused and not missed.
    ///
    /// # Errors
    /// Every mistake, in table order after mistakes of the file as a whole. No error holds a value.
    pub fn resolve<V: Into<OsString>>(
        env: &dyn Fn(&str) -> Option<V>,
        file: Option<(&str, &str)>,
    ) -> Result<Resolved, Vec<SettingError>> {
        let lookup = |name: &str| env(name).map(Into::into);
        let mut errors = Vec::new();
        let file = file.map(|(name, text)| (name, parse_file(name, text, &mut errors)));
        let mut reader =
            Reader { env: &lookup, file, errors, provenance: Vec::with_capacity(table().len()) };
        match Settings::read(&mut reader) {
            Some(settings) if reader.errors.is_empty() => {
                Ok(Resolved { settings, provenance: reader.provenance })
            }
            _ => Err(reader.errors),
        }
    }
}

/// Reads row after row, keeping every mistake and every origin.
pub(crate) struct Reader<'a> {
    env: &'a dyn Fn(&str) -> Option<OsString>,
    file: Option<(&'a str, Table)>,
    errors: Vec<SettingError>,
    provenance: Vec<Origin>,
}

impl Reader<'_> {
    /// The value of one row; `None` after an error was noted.
    pub(crate) fn read<T: FromText>(&mut self, knob: &Knob) -> Option<T> {
        let (text, source) = match self.find(knob) {
            Ok(found) => found,
            Err(error) => {
                self.errors.push(error);
                return None;
            }
        };
        let checked = text.as_deref().filter(|text| knob.kind.accepts(text));
        let value = match &text {
            Some(_) => checked.and_then(T::from_text),
            None => T::unset(),
        };
        if value.is_none() {
            self.errors.push(refusal(knob, source));
            return None;
        }
        self.provenance.push(Origin {
            name: knob.name,
            value: shown(knob, text),
            source,
            unit: knob.unit,
            help: knob.help,
        });
        value
    }

    /// The text of the first source that has one. A file value of the wrong TOML type is an error
    /// here, because as text it could look right.
    fn find(&self, knob: &Knob) -> Result<(Option<String>, Source), SettingError> {
        if let Some(value) = (self.env)(knob.name).filter(|value| !value.is_empty()) {
            let text = value.into_string().map_err(|_| refusal(knob, Source::Environment))?;
            return Ok((Some(text), Source::Environment));
        }
        if let Some((name, value)) = self
            .file
            .as_ref()
            .and_then(|(name, keys)| keys.get(knob.key).map(|value| (*name, value)))
        {
            let source = Source::File(name.to_owned());
            return match text_of(knob.kind, value) {
                Some(text) => Ok((Some(text.into_owned()), source)),
                None => Err(refusal(knob, source)),
            };
        }
        Ok((knob.default.map(str::to_owned), Source::Default))
    }
}

fn text_of(kind: Kind, value: &Value) -> Option<Cow<'_, str>> {
    match (kind, value) {
        (Kind::Integer { .. }, Value::Integer(number)) => Some(number.to_string().into()),
        (Kind::Flag, Value::Boolean(flag)) => Some(flag.to_string().into()),
        (Kind::Choice(_) | Kind::Path | Kind::Address, Value::String(text)) => Some(text.into()),
        _ => None,
    }
}

fn refusal(knob: &Knob, origin: Source) -> SettingError {
    let expected = match origin {
        Source::File(_) => format!("{}, as a TOML {}", knob.expected(), knob.kind.toml_type()),
        Source::Environment | Source::Default => knob.expected(),
    };
    SettingError::Value { name: knob.name, origin, expected }
}

fn shown(knob: &Knob, text: Option<String>) -> String {
    match text {
        Some(_) if knob.secret => "(secret)".to_owned(),
        Some(text) => text,
        None => "(none)".to_owned(),
    }
}

/// The known keys of the file; unknown keys and bad syntax go to `errors`.
fn parse_file(name: &str, text: &str, errors: &mut Vec<SettingError>) -> Table {
    match text.parse::<Table>() {
        Ok(keys) => {
            for key in keys.keys().filter(|key| !table().iter().any(|row| row.key == *key)) {
                let (key, file) = (key.clone(), name.to_owned());
                let nearest = nearest_key(&key);
                errors.push(SettingError::UnknownKey { key, file, nearest });
            }
            keys
        }
        // The parser's own message quotes the line, which may hold a secret.
        Err(error) => {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            errors.push(SettingError::Syntax { file: name.to_owned(), line, column });
            Table::new()
        }
    }
}

/// Line and column of a byte offset, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The existing key with the fewest edits from `key`, if at most a third of it differs. Letter
/// case is ignored: writing `PORT` in the file is the likeliest slip.
fn nearest_key(key: &str) -> Option<&'static str> {
    let key = key.to_lowercase();
    let (edits, nearest) =
        table().iter().map(|row| (edit_distance(&key, row.key), row.key)).min()?;
    (edits * 3 <= nearest.len()).then_some(nearest)
}

/// Levenshtein distance in characters. `right` is a key of the table, so the row is short.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut costs: Vec<usize> = (0..=right.chars().count()).collect();
    for (row, from) in left.chars().enumerate() {
        let mut diagonal = costs[0];
        costs[0] = row + 1;
        for (column, to) in right.chars().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = costs[column + 1];
            costs[column + 1] = replaced.min(diagonal + 1).min(costs[column] + 1);
        }
    }
    costs[right.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_edits() {
        for (left, right, edits) in [
            ("", "port", 4),
            ("port", "port", 0),
            ("prot", "port", 2),
            ("ports", "port", 1),
            ("poort", "port", 1),
            ("log_levle", "log_level", 2),
        ] {
            assert_eq!(edit_distance(left, right), edits, "{left} {right}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let knob = Knob { secret: true, ..table()[0] };
        assert_eq!(shown(&knob, Some("4711".to_owned())), "(secret)");
        assert_eq!(shown(&knob, None), "(none)");
        let knob = Knob { secret: false, ..knob };
        assert_eq!(shown(&knob, Some("4711".to_owned())), "4711");
    }
}
