//! The settings file.
//!
//! Owns: its syntax, which keys it may have, and which TOML type a value of each kind has.
//! Refuses to know: where the file is, and what wins over it.

use std::borrow::Cow;

use toml::{Table, Value};

use crate::error::SettingError;
use crate::knob::Kind;
use crate::table::table;

/// The known keys of the file; unknown keys and bad syntax go to `errors`.
pub(crate) fn parse_file(name: &str, text: &str, errors: &mut Vec<SettingError>) -> Table {
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

/// The value as it would stand in the environment; `None` when it has the wrong TOML type, because
/// as text it could look right.
pub(crate) fn text_of(kind: Kind, value: &Value) -> Option<Cow<'_, str>> {
    match (kind, value) {
        (Kind::Integer { .. }, Value::Integer(number)) => Some(number.to_string().into()),
        (Kind::Flag, Value::Boolean(flag)) => Some(flag.to_string().into()),
        (Kind::Choice(_) | Kind::Path | Kind::Address | Kind::Text(_), Value::String(text)) => {
            Some(text.into())
        }
        _ => None,
    }
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
}
