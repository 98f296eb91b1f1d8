//! From texts to typed settings, with the origin of each value.
//!
//! Owns: precedence (lease over live change over environment over file over default), the
//! collection of all mistakes at once, and what may be shown of a value.
//! Refuses to know: where texts come from, and which changes are still in force.

use std::ffi::OsString;
use std::fmt;

use types::Micros;

use crate::baseline::Baseline;
use crate::change::{Change, check_change};
use crate::error::SettingError;
use crate::knob::{FromText, Knob};
use crate::secret::HIDDEN;
use crate::table::{Settings, table};

/// Settings that passed every check, and where each came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The values.
    pub settings: Settings,
    /// One row per setting, in the order of [`table`].
    pub provenance: Vec<Origin>,
    /// The settings of changes that could not be taken, as the changes name them.
    pub ignored: Vec<String>,
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

/// Who gave a value. Shown as `lease until 2026-11-23T14:37:45Z`, `live change`, `environment`,
/// `file "tai.toml"` or `default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A change that undoes itself.
    Lease {
        /// The end, in seconds since the Unix epoch.
        until_s: i64,
    },
    /// A change since the start that stays.
    Live,
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
            Source::Lease { until_s } => {
                // Nineteen characters leave the fraction out.
                write!(f, "lease until {:.19}Z", Micros::from_secs(*until_s).to_string())
            }
            Source::Live => f.write_str("live change"),
            Source::Environment => f.write_str("environment"),
            Source::File(name) => write!(f, "file {name:?}"),
            Source::Default => f.write_str("default"),
        }
    }
}

impl Settings {
    /// The settings of a start without changes: [`Baseline::capture`], then
    /// [`Baseline::resolve`].
    ///
    /// # Errors
    /// As [`Baseline::resolve`].
    pub fn resolve<V: Into<OsString>>(
        env: &dyn Fn(&str) -> Option<V>,
        file: Option<(&str, &str)>,
    ) -> Result<Resolved, Vec<SettingError>> {
        Baseline::capture(env, file).resolve(&[])
    }
}

impl Baseline {
    /// The settings with `changes`, of which there is one for each changed setting; leases that
    /// have ended are not among them.
    ///
    /// A change that [`check_change`] does not take is left out and named in
    /// [`Resolved::ignored`]: it was taken by another version of the service, and must not keep
    /// this one from starting. What it would have replaced is checked all the same, so that a
    /// baseline that resolves once resolves with any changes, and when they end.
    ///
    /// # Errors
    /// Every mistake of the baseline, in table order after mistakes of the file as a whole. No
    /// error holds a value.
    pub fn resolve(&self, changes: &[Change]) -> Result<Resolved, Vec<SettingError>> {
        let provenance = Vec::with_capacity(table().len());
        let errors = self.mistakes.clone();
        let mut reader = Reader { baseline: self, changes, errors, provenance };
        match Settings::read(&mut reader) {
            Some(settings) if reader.errors.is_empty() => {
                let unusable = changes.iter().filter(|change| !change.is_usable());
                let ignored = unusable.map(|change| change.name.clone()).collect();
                Ok(Resolved { settings, provenance: reader.provenance, ignored })
            }
            _ => Err(reader.errors),
        }
    }
}

/// Reads row after row, keeping every mistake and every origin.
pub(crate) struct Reader<'a> {
    baseline: &'a Baseline,
    changes: &'a [Change],
    errors: Vec<SettingError>,
    provenance: Vec<Origin>,
}

impl Reader<'_> {
    /// The value of one row; `None` after an error was noted.
    pub(crate) fn read<T: FromText>(&mut self, knob: &Knob) -> Option<T> {
        let (text, source, value) = match self.at_start(knob) {
            Ok(found) => self.changed(knob).unwrap_or(found),
            Err(source) => {
                self.errors.push(refusal(knob, source));
                return None;
            }
        };
        self.provenance.push(Origin {
            name: knob.name,
            value: shown(knob, text),
            source,
            unit: knob.unit,
            help: knob.help,
        });
        Some(value)
    }

    /// What the process was started with; the source alone when that is no value of the setting.
    fn at_start<T: FromText>(&self, knob: &Knob) -> Result<(Option<&str>, Source, T), Source> {
        let (text, source) = self.baseline.text(knob)?;
        let value = match text {
            Some(text) if knob.kind.accepts(text) => T::from_text(text),
            Some(_) => None,
            None => T::unset(),
        };
        match value {
            Some(value) => Ok((text, source, value)),
            None => Err(source),
        }
    }

    /// What was changed since, the lease before what is kept.
    fn changed<T: FromText>(&self, knob: &Knob) -> Option<(Option<&str>, Source, T)> {
        let change = self.changes.iter().find(|change| change.name == knob.name)?;
        let leased = change
            .lease
            .as_ref()
            .map(|lease| (lease.value.as_str(), Source::Lease { until_s: lease.until_s }, true));
        let kept = change.kept.as_deref().map(|value| (value, Source::Live, false));
        leased.into_iter().chain(kept).find_map(|(text, source, leased)| {
            check_change(knob.name, text, leased).ok()?;
            Some((Some(text), source, T::from_text(text)?))
        })
    }
}

fn refusal(knob: &Knob, origin: Source) -> SettingError {
    let mut expected = knob.expected();
    if let Source::File(_) = origin {
        expected = format!("{expected}, as a TOML {}", knob.kind.toml_type());
    }
    SettingError::Value { name: knob.name, origin, expected }
}

fn shown(knob: &Knob, text: Option<&str>) -> String {
    match text {
        Some(_) if knob.secret => HIDDEN.to_owned(),
        Some(text) => text.to_owned(),
        None => "(none)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let knob = Knob { secret: true, ..table()[0] };
        assert_eq!(shown(&knob, Some("4711")), "(secret)");
        assert_eq!(shown(&knob, None), "(none)");
        let knob = Knob { secret: false, ..knob };
        assert_eq!(shown(&knob, Some("4711")), "4711");
    }
}
