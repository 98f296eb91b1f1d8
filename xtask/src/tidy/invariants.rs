//! The numbered invariants of the architecture page.
//!
//! Owns: the rule that each of them is named where it is kept and where it is tested.
//! Refuses to know: what any of them says.

use super::{File, Finding};

const PAGE: &str = "ARCHITECTURE.md";

/// Invariants of the page's table that no source or no test names, and names that are not in it.
#[must_use]
pub fn named(texts: &[File]) -> Vec<Finding> {
    let Some(page) = texts.iter().find(|file| file.path == PAGE) else {
        return vec![finding(PAGE, "there is no architecture page".to_owned())];
    };
    let listed: Vec<&str> = page.text.lines().filter_map(row).collect();
    let rust = || texts.iter().filter(|file| file.path.ends_with(".rs"));
    let mut findings = Vec::new();
    for invariant in &listed {
        for (what, wanted) in [("source", false), ("test", true)] {
            let named = |file: &File| is_test(&file.path) == wanted && names(&file.text, invariant);
            if !rust().any(named) {
                findings.push(finding(PAGE, format!("{invariant} is named in no {what}")));
            }
        }
    }
    for file in rust().filter(|file| !file.path.starts_with("xtask/")) {
        for name in file.text.split("INV-").skip(1).filter_map(number) {
            if !listed.contains(&format!("INV-{name}").as_str()) {
                findings.push(finding(&file.path, format!("INV-{name} is not on the page")));
            }
        }
    }
    findings
}

fn finding(place: &str, reason: String) -> Finding {
    Finding { place: place.to_owned(), reason }
}

/// The invariant of a table row: `| INV-4 | …`.
fn row(line: &str) -> Option<&str> {
    line.strip_prefix("| ")?.split(' ').next().filter(|word| word.starts_with("INV-"))
}

fn number(rest: &str) -> Option<&str> {
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    (digits > 0).then(|| &rest[..digits])
}

/// `INV-1` is not named by a text that names `INV-17`.
fn names(text: &str, invariant: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit());
    text.match_indices(invariant).any(|(at, _)| ends(&text[at + invariant.len()..]))
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs")
}
