//! Messages with placeholders.
//!
//! Owns: `${value}`, `${threshold}` and `${label.name}`. Refuses to know: how a message is sent.

use crate::clause::{Clause, Finding};

/// A message, taken apart once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Value,
    Threshold,
    Label(String),
}

impl Message {
    /// Takes a text apart; gives the byte at which an unknown placeholder begins.
    pub(crate) fn parse(text: &str, knows_label: impl Fn(&str) -> bool) -> Result<Message, usize> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let here = text.len() - rest.len() + at;
            let (name, after) = rest[at + 2..].split_once('}').ok_or(here)?;
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            pieces.push(match (name, name.strip_prefix("label.")) {
                ("value", _) => Piece::Value,
                ("threshold", _) => Piece::Threshold,
                (_, Some(label)) if knows_label(label) => Piece::Label(label.to_owned()),
                _ => return Err(here),
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Message(pieces))
    }

    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    pub(crate) fn render(&self, clause: &Clause, finding: &Finding) -> String {
        let reading = finding.readings.get(finding.shown);
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value => reading.map(|reading| reading.shown()).unwrap_or_default(),
            Piece::Threshold => {
                reading.map(|reading| reading.threshold.to_string()).unwrap_or_default()
            }
            Piece::Label(name) => {
                let fixed = || clause.conditions().iter().find_map(|one| one.fixed(name));
                finding.labels.get(name).or_else(fixed).unwrap_or_default().to_owned()
            }
        };
        self.0.iter().map(piece).collect()
    }
}
