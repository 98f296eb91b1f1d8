//! What no text file of the repository may hold.
//!
//! Owns: the folders that betray the machine a file was written on.
//! Refuses to know: languages and formats.

use super::lexer::line_of;
use super::{File, Finding};

/// In two halves, so that this file passes its own check.
const MACHINE_FOLDERS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];

/// Paths that exist on the machine of one developer only.
#[must_use]
pub fn machine_paths(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in MACHINE_FOLDERS {
        for (offset, _) in file.text.match_indices(folder) {
            findings.push(Finding {
                place: format!("{}:{}", file.path, line_of(&file.text, offset)),
                reason: format!("`{folder}…` is a path of one machine; use a relative path"),
            });
        }
    }
    findings
}
