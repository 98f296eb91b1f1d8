//! What a process was started with.
//!
//! Owns: the texts of environment and file, captured once, so that the end of a lease leads back
//! to them however both may have changed meanwhile; what counts as unset.
//! Refuses to know: how the environment and the file are obtained; both are arguments.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use crate::error::SettingError;
use crate::file::{parse_file, text_of};
use crate::knob::Knob;
use crate::resolve::Source;
use crate::table::table;

/// The texts that a process was started with, as far as settings look at them.
pub struct Baseline {
    /// Mistakes of the file as a whole.
    pub(crate) mistakes: Vec<SettingError>,
    /// By environment name; a setting without an entry has its default.
    found: BTreeMap<&'static str, Found>,
}

/// What the first source that sets a setting says.
struct Found {
    /// `None` when it cannot be a value of the setting: no UTF-8, or the wrong TOML type.
    text: Option<String>,
    source: Source,
}

impl Baseline {
    /// Looks every setting up: `env` by environment name, then `file` (its name and its TOML
    /// text). An empty environment variable counts as unset, because shells and container tools
    /// cannot always remove one. Variables outside the table are ignored, since the environment is
    /// shared; keys outside the table are a mistake, since the file is ours. A file value that the
    /// environment overrides is not looked at.
    ///
    /// `env` may return `OsString`, so that a value that is not UTF-8 is refused and not missed.
    #[must_use]
    pub fn capture<V: Into<OsString>>(
        env: &dyn Fn(&str) -> Option<V>,
        file: Option<(&str, &str)>,
    ) -> Baseline {
        let mut mistakes = Vec::new();
        let file = file.map(|(name, text)| (name, parse_file(name, text, &mut mistakes)));
        let in_env = |row: &Knob| {
            let value = env(row.name).map(Into::into).filter(|value| !value.is_empty())?;
            Some(Found { text: value.into_string().ok(), source: Source::Environment })
        };
        let in_file = |row: &Knob| {
            let (name, keys) = file.as_ref()?;
            let text = text_of(row.kind, keys.get(row.key)?).map(Into::into);
            Some(Found { text, source: Source::File((*name).to_owned()) })
        };
        let found = table()
            .iter()
            .filter_map(|row| Some((row.name, in_env(row).or_else(|| in_file(row))?)))
            .collect();
        Baseline { mistakes, found }
    }

    /// The text of a setting and who gave it; without one the setting is optional and unset.
    ///
    /// # Errors
    /// The source alone, when what it says cannot be a value of the setting.
    pub(crate) fn text(&self, knob: &Knob) -> Result<(Option<&str>, Source), Source> {
        match self.found.get(knob.name) {
            Some(Found { text: Some(text), source }) => Ok((Some(text), source.clone())),
            Some(Found { text: None, source }) => Err(source.clone()),
            None => Ok((knob.default, Source::Default)),
        }
    }
}

/// Names only: the texts hold secrets.
impl fmt::Debug for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Baseline").field("set", &self.found.keys()).finish_non_exhaustive()
    }
}
