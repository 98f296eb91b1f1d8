//! Changes of settings while the process runs.
//!
//! Owns: what a change says, and the one rule which changes are taken.
//! Refuses to know: who may change what, where changes are kept, and when a lease ends.

use crate::error::ChangeError;
use crate::knob::Knob;
use crate::table::table;

/// What was changed about one setting since the start, and still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The setting, by its environment name.
    pub name: String,
    /// The value that stays until it is changed again.
    pub kept: Option<String>,
    /// The value that stays for a time; it wins over `kept`.
    pub lease: Option<Lease>,
}

/// A value that undoes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The value while the lease holds.
    pub value: String,
    /// The end, in seconds since the Unix epoch.
    pub until_s: i64,
}

/// Whether a running process may take `value` for the setting with the environment name `name`,
/// and which setting that is. `leased` says that the value undoes itself.
///
/// # Errors
/// [`ChangeError`], which never holds the value, nor a name that no setting has.
pub fn check_change(name: &str, value: &str, leased: bool) -> Result<&'static Knob, ChangeError> {
    let knob = table().iter().find(|row| row.name == name).ok_or(ChangeError::UnknownSetting)?;
    let name = knob.name;
    if knob.secret {
        return Err(ChangeError::Secret { name });
    }
    if !knob.live {
        return Err(ChangeError::NotLive { name });
    }
    if !knob.kind.accepts(value) {
        return Err(ChangeError::Value { name, expected: knob.expected() });
    }
    if !leased && knob.relaxes == Some(value) {
        return Err(ChangeError::NeedsLease { name });
    }
    Ok(knob)
}

impl Change {
    /// Whether every value of the change may be taken.
    pub(crate) fn is_usable(&self) -> bool {
        self.kept.as_deref().is_none_or(|value| check_change(&self.name, value, false).is_ok())
            && self
                .lease
                .as_ref()
                .is_none_or(|lease| check_change(&self.name, &lease.value, true).is_ok())
    }
}
