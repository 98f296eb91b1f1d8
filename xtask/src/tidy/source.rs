//! What a Rust source file must and must not hold.
//!
//! Owns: the header, the ceilings, the banned calls and the unfinished markers.
//! Refuses to know: which files there are, and what compiles.

use super::graph::PURE;
use super::lexer::{body_of, closing, code_only, line_of, without_tests, words};
use super::{File, Finding};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// As for code, which the formatter sees to.
const COMMENT_COLUMNS_MAX: usize = 100;

/// Calls that a pure crate may not make, and what it does instead.
const IMPURE_CALLS: &[(&str, &str)] = &[
    ("SystemTime", "take the time as an argument"),
    ("Instant::now", "take the time as an argument"),
];

/// Modules of `std` that a pure crate may not use, and what it does instead.
const IMPURE_MODULES: &[(&str, &str)] = &[
    ("fs", "take the content as an argument"),
    ("net", "take bytes as arguments; address types are in core::net"),
    ("env", "take the values as arguments"),
];

/// In two halves, so that this file passes its own check.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// All rules over one file of a `src` folder.
#[must_use]
pub fn check(file: &File) -> Vec<Finding> {
    let code = code_only(&file.text);
    let product = without_tests(&code);
    let mut findings = Vec::new();
    let mut at = |line: usize, reason: String| {
        findings.push(Finding { place: format!("{}:{line}", file.path), reason });
    };

    if !file.text.starts_with("//!") {
        at(
            1,
            "the first line must be a `//!` header: what the file owns, what it refuses to know"
                .to_owned(),
        );
    }
    let lines = file.text.lines().count();
    if lines > FILE_LINES_MAX {
        at(lines, format!("{lines} lines; split the file, at most {FILE_LINES_MAX}"));
    }
    for (nth, _) in file.text.lines().enumerate().filter(|(_, line)| is_wide_comment(line)) {
        at(nth + 1, format!("a comment wider than {COMMENT_COLUMNS_MAX} columns"));
    }
    for marker in UNFINISHED {
        for offset in words(&file.text, marker) {
            at(line_of(&file.text, offset), format!("`{marker}`: finish it or delete it"));
        }
    }
    for attribute in ["#[allow(", "#![allow("] {
        for (offset, _) in code.match_indices(attribute) {
            at(line_of(&code, offset), "use `#[expect(…, reason = …)]`, not allow".to_owned());
        }
    }
    for (name, line, length) in functions(&product) {
        if length > FUNCTION_LINES_MAX {
            at(line, format!("`{name}` has {length} lines, at most {FUNCTION_LINES_MAX}"));
        }
    }
    if is_pure(&file.path) {
        for (line, what, instead) in impurities(&product) {
            at(line, format!("`{what}` in a pure crate: {instead}"));
        }
    }
    findings
}

/// True where a break would help: rows of tables and single words cannot be broken.
fn is_wide_comment(line: &str) -> bool {
    let Some(text) = line.trim_start().strip_prefix("//") else { return false };
    let text = text.trim_start_matches(['/', '!']).trim();
    line.chars().count() > COMMENT_COLUMNS_MAX && text.contains(' ') && !text.starts_with('|')
}

fn is_pure(path: &str) -> bool {
    path.strip_prefix("crates/")
        .and_then(|rest| rest.split('/').next())
        .is_some_and(|name| PURE.contains(&name))
}

/// Name, first line and number of lines of every function with a body.
fn functions(code: &str) -> Vec<(&str, usize, usize)> {
    words(code, "fn")
        .filter_map(|start| {
            let head = code[start + "fn".len()..].trim_start();
            let end = head.find(|c: char| !(c.is_alphanumeric() || "_$".contains(c)))?;
            // A function pointer type has no name.
            let name = head.get(..end).filter(|name| !name.is_empty())?;
            let (_, close) = body_of(code, start)?;
            let first = line_of(code, start);
            Some((name, first, line_of(code, close) - first + 1))
        })
        .collect()
}

/// Line, name and advice of every use of what a pure crate may not use.
fn impurities(code: &str) -> Vec<(usize, String, &'static str)> {
    let mut found = Vec::new();
    for (call, instead) in IMPURE_CALLS {
        found.extend(words(code, call).map(|at| (line_of(code, at), (*call).to_owned(), *instead)));
    }
    for (module, instead) in IMPURE_MODULES {
        let path = format!("std::{module}");
        found.extend(words(code, &path).map(|at| (line_of(code, at), path.clone(), *instead)));
        for open in grouped_imports(code) {
            let group = &code[open..closing(code, open).unwrap_or(code.len())];
            if members(group).any(|member| member == *module) {
                found.push((line_of(code, open), path.clone(), *instead));
            }
        }
    }
    found
}

/// Offsets of the opening brace of every `std::{…}`.
fn grouped_imports(code: &str) -> impl Iterator<Item = usize> + '_ {
    const HEAD: &str = "std::";
    words(code, "std").filter(|&at| code[at..].starts_with("std::{")).map(|at| at + HEAD.len())
}

/// The first path segments directly inside an import group; `{fs, io::{self, Read}}` has `fs` and
/// `io`.
fn members(group: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    group
        .split(move |c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            (c == ',' || c == '{') && depth == 1
        })
        .map(|member| {
            let member = member.trim();
            member.split([':', ' ', '{']).next().unwrap_or(member)
        })
}
