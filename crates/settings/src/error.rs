//! Why settings are refused.
//!
//! Owns: the reasons and their wording.
//! Refuses to know: values. None is ever part of an error, because any of them may be a secret
//! that was pasted into the wrong place.

use crate::resolve::Source;

/// One mistake in the settings; a start reports all of them together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// A value outside the range of its setting.
    #[error("{name} ({origin}): expected {expected}")]
    Value {
        /// The setting, by its environment name.
        name: &'static str,
        /// Who gave the value.
        origin: Source,
        /// What a correct value looks like.
        expected: String,
    },
    /// A key of the file that no setting has.
    #[error("{} (file {file:?}): no such setting{}", shown_key(key), suggestion(*nearest))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// The name of the settings file.
        file: String,
        /// The existing key that is most like it, if any is close.
        nearest: Option<&'static str>,
    },
    /// The file is not TOML. Positions count from 1; columns are characters.
    #[error("settings file {file:?}: not valid TOML at line {line}, column {column}")]
    Syntax {
        /// The name of the settings file.
        file: String,
        /// The line of the first mistake.
        line: usize,
        /// The column of the first mistake.
        column: usize,
    },
}

/// Why a running process does not take a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// No setting has this name. The name is left out, since it may be a value in the wrong place.
    #[error("no such setting")]
    UnknownSetting,
    /// The setting is read once, at the start.
    #[error("{name} takes effect at a start only")]
    NotLive {
        /// The setting, by its environment name.
        name: &'static str,
    },
    /// A value outside the range of the setting.
    #[error("{name}: expected {expected}")]
    Value {
        /// The setting, by its environment name.
        name: &'static str,
        /// What a correct value looks like.
        expected: String,
    },
    /// The value gives up a guarantee, so it must undo itself.
    #[error("{name}: a value that gives up a guarantee is set by lease only")]
    NeedsLease {
        /// The setting, by its environment name.
        name: &'static str,
    },
    /// A change is recorded and shown, which a secret must not be.
    #[error("{name} is secret and is set at a start only")]
    Secret {
        /// The setting, by its environment name.
        name: &'static str,
    },
}

/// Characters of an unknown key that are repeated: enough for any real name and its typos.
const KEY_CHARS: usize = 64;

/// The key in quotes, escaped and cut: TOML lets a quoted key hold anything.
fn shown_key(key: &str) -> String {
    format!("{:?}", key.chars().take(KEY_CHARS).collect::<String>())
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!(", did you mean \"{key}\"?"))
}
