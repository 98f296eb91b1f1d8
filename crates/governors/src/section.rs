//! The catalogue file as text: what its tables and values must look like.
//!
//! Owns: the forms of words, numbers and names, and why a file is refused. Refuses to know: which
//! keys there are, and what they are for.

use std::fmt::Write as _;

use toml::{Table, Value};
use types::limits::{INTEGER_MAX, MODEL_CHARS};

/// Longest name, alias, version or feature in characters.
const WORD_CHARS: usize = 64;
const MODEL_NAME: &str = "a name of 1 to 128 letters, digits and . _ : - / @ +";

/// Why a catalogue is refused. Names the key, never its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// The text is not TOML, or repeats a key.
    #[error("catalogue is not valid toml at line {line}")]
    Syntax {
        /// Counted from 1.
        line: usize,
    },
    /// A required key is absent.
    #[error("catalogue lacks {key}")]
    Missing {
        /// The dotted path.
        key: String,
    },
    /// A key that nothing reads: most likely misspelt.
    #[error("catalogue holds the unknown key {key}")]
    UnknownKey {
        /// The dotted path.
        key: String,
    },
    /// A value of the wrong type or outside its range.
    #[error("catalogue key {key} must be {expected}")]
    Invalid {
        /// The dotted path.
        key: String,
        /// What is permitted.
        expected: &'static str,
    },
}

/// One table of the file and its dotted path. Values are picked by hand and not by `serde`,
/// whose messages repeat the offending value.
pub(crate) struct Section<'a> {
    pub(crate) path: String,
    pub(crate) table: &'a Table,
}

impl<'a> Section<'a> {
    fn key(&self, key: &str) -> String {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push('.');
        }
        // Quoted keys may hold anything; an error line must stay one line of bounded length.
        for c in key.chars().take(WORD_CHARS) {
            let _ = write!(path, "{}", c.escape_debug());
        }
        path
    }

    pub(crate) fn invalid(&self, key: &str, expected: &'static str) -> CatalogueError {
        CatalogueError::Invalid { key: self.key(key), expected }
    }

    pub(crate) fn missing(&self, key: &str) -> CatalogueError {
        CatalogueError::Missing { key: self.key(key) }
    }

    pub(crate) fn only(&self, known: &[&str]) -> Result<(), CatalogueError> {
        match self.table.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(CatalogueError::UnknownKey { key: self.key(key) }),
            None => Ok(()),
        }
    }

    fn value(&self, key: &str) -> Result<&'a Value, CatalogueError> {
        self.table.get(key).ok_or_else(|| self.missing(key))
    }

    pub(crate) fn section(&self, key: &str) -> Result<Section<'a>, CatalogueError> {
        match self.value(key)? {
            Value::Table(table) => Ok(Section { path: self.key(key), table }),
            _ => Err(self.invalid(key, "a table")),
        }
    }

    /// The tables of a list, in the order of the file.
    pub(crate) fn tables(&self, key: &str) -> Result<Vec<Section<'a>>, CatalogueError> {
        let tables = self.value(key)?.as_array().into_iter().flatten();
        let tables: Vec<_> = tables
            .map(|item| Some(Section { path: self.key(key), table: item.as_table()? }))
            .collect::<Option<_>>()
            .unwrap_or_default();
        if tables.is_empty() {
            return Err(self.invalid(key, "a list of tables"));
        }
        Ok(tables)
    }

    /// Every sub-table with its name, in ascending order of names.
    pub(crate) fn each<T>(
        &self,
        mut read: impl FnMut(String, &Section<'a>) -> Result<T, CatalogueError>,
    ) -> Result<Vec<T>, CatalogueError> {
        self.table
            .keys()
            .map(|name| {
                self.check_word(name, name)?;
                read(name.clone(), &self.section(name)?)
            })
            .collect()
    }

    /// The same where the names are those of models.
    pub(crate) fn each_model<T>(
        &self,
        mut read: impl FnMut(String, &Section<'a>) -> Result<T, CatalogueError>,
    ) -> Result<Vec<T>, CatalogueError> {
        self.table
            .keys()
            .map(|name| {
                if !is_model(name) {
                    return Err(self.invalid(name, MODEL_NAME));
                }
                read(name.clone(), &self.section(name)?)
            })
            .collect()
    }

    /// Names of models; one that ends in `*` stands for all that begin so.
    pub(crate) fn model_patterns(&self, key: &str) -> Result<Vec<String>, CatalogueError> {
        const EXPECTED: &str = "a list of names of models, each of which may end in *";
        let Value::Array(items) = self.value(key)? else {
            return Err(self.invalid(key, EXPECTED));
        };
        let pattern = |item: &Value| {
            let pattern = item.as_str().unwrap_or_default();
            let fits = pattern == "*" || is_model(pattern.strip_suffix('*').unwrap_or(pattern));
            if fits { Ok(pattern.to_owned()) } else { Err(self.invalid(key, EXPECTED)) }
        };
        items.iter().map(pattern).collect()
    }

    /// A decimal number in quotes with at most six decimals, as millionths; `None` when it is
    /// absent. In quotes, because TOML would read a bare one as a float (INV-6).
    pub(crate) fn millionths(
        &self,
        key: &str,
        units_max: u64,
    ) -> Result<Option<u64>, CatalogueError> {
        let Some(value) = self.table.get(key) else { return Ok(None) };
        let read =
            value.as_str().and_then(millionths).filter(|read| *read <= units_max * 1_000_000);
        match read {
            Some(read) => Ok(Some(read)),
            None => {
                Err(self.invalid(key, "a decimal number in quotes, 0 or more, at most 6 decimals"))
            }
        }
    }

    /// The integer of that key, if it is there.
    pub(crate) fn optional_integer(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
        expected: &'static str,
    ) -> Result<Option<i64>, CatalogueError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(_) => self.integer(key, range, expected).map(Some),
        }
    }

    pub(crate) fn word(&self, key: &str) -> Result<String, CatalogueError> {
        let word = self.value(key)?.as_str().unwrap_or_default();
        self.check_word(key, word)?;
        Ok(word.to_owned())
    }

    pub(crate) fn words(&self, key: &str) -> Result<Vec<String>, CatalogueError> {
        let Value::Array(items) = self.value(key)? else {
            return Err(self.invalid(key, "a list of words"));
        };
        let word = |item: &Value| {
            let word = item.as_str().unwrap_or_default();
            self.check_word(key, word).map(|()| word.to_owned())
        };
        items.iter().map(word).collect()
    }

    pub(crate) fn check_word(&self, key: &str, word: &str) -> Result<(), CatalogueError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        if word.is_empty() || word.len() > WORD_CHARS || !word.bytes().all(plain) {
            return Err(self.invalid(key, "1 to 64 letters, digits and . _ : -"));
        }
        Ok(())
    }

    pub(crate) fn integer(
        &self,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
        expected: &'static str,
    ) -> Result<i64, CatalogueError> {
        let value = self.value(key)?.as_integer().filter(|value| range.contains(value));
        value.ok_or_else(|| self.invalid(key, expected))
    }

    /// Whole units in the file, thousandths in memory.
    pub(crate) fn threshold(&self, key: &str) -> Result<i64, CatalogueError> {
        self.integer(key, 0..=INTEGER_MAX / 1000, "an integer, 0 or more").map(|units| units * 1000)
    }
}

fn is_model(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-/@+".contains(&byte);
    (1..=MODEL_CHARS).contains(&name.len()) && name.bytes().all(plain)
}

fn millionths(text: &str) -> Option<u64> {
    let (units, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str, most: usize| {
        (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !digits(units, 9) || !digits(decimals, 6) {
        return None;
    }
    Some(units.parse::<u64>().ok()? * 1_000_000 + format!("{decimals:0<6}").parse::<u64>().ok()?)
}
