//! A wall clock that is wrong.
//!
//! Owns: building the shim of `tests/clockshift`. Refuses to know: what a wrong clock may spoil.

use std::path::PathBuf;

use anyhow::Result;

use crate::crashfs::shim;

/// The variable that says by how many seconds the clock is off.
pub const SHIFT: &str = "CLOCKSHIFT_S";

/// The shim as a library for `LD_PRELOAD`, compiled with `cc` on the first call.
///
/// # Errors
/// When there is no C compiler, or it refuses the source.
pub fn build() -> Result<PathBuf> {
    shim("clockshift")
}
