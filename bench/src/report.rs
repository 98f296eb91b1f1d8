//! A table of what was measured, beside its bars.
//!
//! Owns: the form of `results/<name>.md`. Refuses to know: what the rows say.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result};

use crate::Size;
use crate::machine::Machine;

/// One measurement's table.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<[String; 5]>,
    notes: Vec<String>,
}

impl Report {
    /// A number with a bar.
    pub(crate) fn bar(&mut self, what: &str, bar: &str, measured: String, met: bool, how: String) {
        let met = if met { "met" } else { "**missed**" };
        self.rows.push([what.to_owned(), bar.to_owned(), measured, met.to_owned(), how]);
    }

    /// A number without one, which explains another.
    pub(crate) fn fact(&mut self, what: &str, measured: String, how: String) {
        self.rows.push([what.to_owned(), "–".to_owned(), measured, "–".to_owned(), how]);
    }

    /// A sentence below the table.
    pub(crate) fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    fn render(&self, name: &str, machine: &Machine) -> String {
        let mut text = format!("# {name}\n\n");
        for line in machine.lines() {
            let _ = writeln!(text, "{line}");
        }
        text.push_str("\n| what | bar | measured | | conditions |\n|---|---|---|---|---|\n");
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        text
    }
}

/// Prints the report; a full one is kept under `bench/results`.
pub(crate) fn publish(name: &str, report: &Report, machine: &Machine, size: Size) -> Result<()> {
    let text = report.render(name, machine);
    writeln!(std::io::stdout(), "{text}")?;
    if size == Size::Quick {
        return Ok(());
    }
    let path = testkit::place::repository().join("bench/results").join(format!("{name}.md"));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
