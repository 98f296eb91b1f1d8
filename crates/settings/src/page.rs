//! The generated page about settings.
//!
//! Owns: the layout of `docs/generated/settings.md`.
//! Refuses to know: where the page is written.

use std::fmt::Write as _;

use crate::knob::Knob;
use crate::table::table;

const INTRODUCTION: &str = "\
# Settings

Generated from the table in `crates/settings`; `cargo xtask gen` writes it anew.

Each setting is an environment variable, and a key of the settings file (TOML) under the same name
in lower case. The environment wins over the file, the file over the default. An empty variable
counts as unset. A bad value or an unknown key stops the start; all mistakes are reported together.

| Name | Default | Accepted | Live | Meaning |
|---|---|---|---|---|
";

/// The page as Markdown: an introduction and one row per setting.
#[must_use]
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    for row in table() {
        // Writing to a String cannot fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            row.name,
            default(row),
            row.expected(),
            if row.live { "yes" } else { "no" },
            row.help
        );
    }
    page
}

fn default(row: &Knob) -> String {
    match row.default {
        Some(_) if row.secret => "(secret)".to_owned(),
        Some(text) => format!("`{text}`"),
        None => "none".to_owned(),
    }
}
