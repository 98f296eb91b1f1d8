//! Settings: where they come from, and `tai check`.
//!
//! Owns: reading the environment and the settings file, which nothing else does. Refuses to know:
//! what a setting means.

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use settings::{Resolved, Settings};

use crate::cli::{EXIT_OK, EXIT_USAGE, complain, say};
use crate::serve::rules;

const DEFAULT_FILE: &str = "tai.toml";

/// Resolves all settings; the mistakes of all of them at once otherwise.
pub(crate) fn resolve(config: Option<&Path>) -> Result<Resolved, Vec<String>> {
    let path = config.unwrap_or(Path::new(DEFAULT_FILE));
    let name = path.display().to_string();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if config.is_none() && error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(vec![format!("settings file {name}: {error}")]),
    };
    let file = text.as_deref().map(|text| (name.as_str(), text));
    Settings::resolve(&|name| std::env::var_os(name), file)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// Prints each setting with its value, unit and origin, then checks what can be checked without
/// starting.
pub(crate) fn show(resolved: &Resolved) -> anyhow::Result<ExitCode> {
    let widths = resolved.provenance.iter().fold((0, 0), |(name, value), origin| {
        (name.max(origin.name.len()), value.max(origin.value.len() + origin.unit.len() + 1))
    });
    for origin in &resolved.provenance {
        let value = format!("{} {}", origin.value, origin.unit);
        let (name_width, value_width) = widths;
        say(&format!("{:name_width$}  {value:value_width$}  {}", origin.name, origin.source));
    }
    match rules(&resolved.settings) {
        Ok(rules) => {
            say(&format!("catalogue {} is valid", rules.catalogue.version));
            Ok(ExitCode::from(EXIT_OK))
        }
        Err(error) => {
            complain(&format!("tai: {error:#}"));
            Ok(ExitCode::from(EXIT_USAGE))
        }
    }
}
