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
in lower case. An empty variable counts as unset. A bad value or an unknown key stops the start; all
mistakes are reported together.

A live setting can also be changed while the service runs: for good, or by a lease, which undoes
itself. The order is lease, live change, environment, file, default: what comes first wins. A value
that gives up a guarantee is taken from a lease only, or at the start. A secret is never shown, and
is read at the start only.

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
            "| `{}` | {} | {}{} | {} | {} |",
            row.name,
            row.default.map_or_else(|| "none".to_owned(), |text| format!("`{text}`")),
            row.expected(),
            if row.secret { " (secret)" } else { "" },
            live(row),
            row.help
        );
    }
    page
}

fn live(row: &Knob) -> String {
    match row.relaxes {
        Some(value) if row.live => format!("yes, `{value}` leased only"),
        _ if row.live => "yes".to_owned(),
        _ => "no".to_owned(),
    }
}
