//! How bad it is: one scale with the words of all runbooks.
//!
//! Owns: the four levels and their labels. Refuses to know: what is done at each.
//!
//! Seed 001 says SEV-1 to SEV-4, 002 and 004 say P1 to P4 and P0, 003 says critical and warning.

use std::fmt;

/// From the worst to the mildest, and ordered so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Down, or losing data.
    Sev1,
    /// Degraded for many.
    Sev2,
    /// Slow, or wrong now and then.
    Sev3,
    /// Nobody outside notices.
    Sev4,
}

impl Severity {
    /// Every level, the worst first.
    pub const ALL: [Severity; 4] = [Severity::Sev1, Severity::Sev2, Severity::Sev3, Severity::Sev4];

    /// The word in receipts, rules and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Sev1 => "sev1",
            Severity::Sev2 => "sev2",
            Severity::Sev3 => "sev3",
            Severity::Sev4 => "sev4",
        }
    }

    /// The number that people say, 1 to 4.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }

    /// Reads any of the words of the runbooks, whatever their case: `SEV-1`, `sev1`, `P1`,
    /// `critical`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Severity> {
        let plain: String =
            word.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
        Some(match &*plain {
            "sev1" | "p0" | "p1" | "critical" => Severity::Sev1,
            "sev2" | "p2" | "error" => Severity::Sev2,
            "sev3" | "p3" | "warning" => Severity::Sev3,
            "sev4" | "p4" | "info" => Severity::Sev4,
            _ => return None,
        })
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runbook_is_understood() {
        for severity in Severity::ALL {
            assert_eq!(Severity::parse(severity.as_str()), Some(severity));
            assert_eq!(Severity::parse(&format!("SEV-{}", severity.number())), Some(severity));
            assert_eq!(Severity::parse(&format!("P{}", severity.number())), Some(severity));
        }
        let words = ["critical", "ERROR", "Warning", "info"].map(Severity::parse);
        assert_eq!(words, Severity::ALL.map(Some));
        assert_eq!(Severity::parse("P0"), Some(Severity::Sev1));
        assert!(["", "sev", "sev5", "P", "fatal"].iter().all(|w| Severity::parse(w).is_none()));
    }

    #[test]
    fn the_worst_is_the_least() {
        assert!(Severity::ALL.is_sorted() && Severity::Sev1 < Severity::Sev4);
    }
}
