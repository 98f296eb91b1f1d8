//! Each rule fails on a bad example and passes on a good one.

use xtask::tidy::graph::{self, Crate, Dependency, Locked};
use xtask::tidy::lexer::code_only;
use xtask::tidy::{File, Finding, invariants, source, text};

fn own(name: &str) -> Dependency {
    Dependency { name: name.to_owned(), for_tests: false, own: true }
}

fn foreign(name: &str) -> Dependency {
    Dependency { own: false, ..own(name) }
}

fn for_tests(dependency: Dependency) -> Dependency {
    Dependency { for_tests: true, ..dependency }
}

fn member(name: &str, dependencies: Vec<Dependency>) -> Vec<Crate> {
    vec![Crate {
        name: name.to_owned(),
        manifest: format!("crates/{name}/Cargo.toml"),
        inherits_lints: true,
        unpublished: true,
        dependencies,
    }]
}

#[track_caller]
fn assert_reason(findings: &[Finding], part: &str) {
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].to_string().contains(part), "{part:?} is not in {}", findings[0]);
}

#[test]
fn arrows() {
    for (name, used, reason) in [
        (
            "types",
            "ledger",
            "`types` must not depend on `ledger`; of the workspace it may use nothing",
        ),
        ("ledger", "settings", "it may use types"),
        ("governors", "engine", "may use types, ledger"),
        ("engine", "store", "`engine` must not depend on `store`"),
        ("store", "gateway", "`store` must not depend on `gateway`"),
        ("gateway", "store", "`gateway` must not depend on `store`"),
        ("engine", "testkit", "`testkit` may only be a dev-dependency"),
        ("tai", "testkit", "`testkit` may only be a dev-dependency"),
        ("tai", "bench", "`tai` must not depend on `bench`"),
        ("console", "types", "no row in ARROWS"),
    ] {
        let findings = graph::arrows(&member(name, vec![own(used)]));
        assert_reason(&findings, reason);
        assert_eq!(findings[0].place, format!("crates/{name}/Cargo.toml"));
    }
    for (name, used) in [
        ("ledger", own("types")),
        ("store", own("engine")),
        ("tai", own("gateway")),
        ("bench", own("testkit")),
        ("engine", for_tests(own("testkit"))),
        ("engine", for_tests(own("store"))),
        // A crate of a registry that happens to bear one of our names is no arrow.
        ("types", foreign("ledger")),
    ] {
        assert_eq!(graph::arrows(&member(name, vec![used])), []);
    }
}

#[test]
fn banned_dependencies() {
    let pure_used = ["tokio", "axum", "hyper", "rusqlite", "tracing", "getrandom", "uuid", "rand"];
    for name in graph::PURE {
        for used in pure_used {
            let findings = graph::banned_directly(&member(name, vec![for_tests(foreign(used))]));
            assert_reason(&findings, &format!("must not use `{used}`"));
        }
    }
    for (name, used, reason) in [
        ("gateway", "rusqlite", "only store, bench may use `rusqlite`"),
        ("tai", "axum", "only gateway may use `axum`"),
        ("bench", "axum", "only gateway may use `axum`"),
        ("engine", "hyper", "only egress, gateway, bench, testkit may use `hyper`"),
        ("ledger", "anyhow", "one thiserror enum"),
    ] {
        assert_reason(&graph::banned_directly(&member(name, vec![foreign(used)])), reason);
    }
    for (name, used) in [
        ("store", foreign("rusqlite")),
        ("bench", foreign("hyper")),
        ("tai", foreign("anyhow")),
        ("tai", for_tests(foreign("rusqlite"))),
        ("engine", foreign("tokio")),
    ] {
        assert_eq!(graph::banned_directly(&member(name, vec![used])), []);
    }
}

#[test]
fn banned_packages() {
    let locked = |name: &str, source: Option<&str>| {
        vec![Locked { name: name.to_owned(), source: source.map(str::to_owned) }]
    };
    let registry = Some("registry+https://github.com/rust-lang/crates.io-index");
    for name in graph::BANNED {
        assert_reason(&graph::banned_everywhere(&locked(name, registry)), "is banned");
    }
    let git = locked("serde", Some("git+https://example.com/serde?rev=1#1"));
    assert_reason(&graph::banned_everywhere(&git), "comes from git");
    assert_eq!(graph::banned_everywhere(&locked("serde", registry)), []);
    assert_eq!(graph::banned_everywhere(&locked("types", None)), []);
}

#[test]
fn manifests() {
    let good = member("types", vec![]);
    assert_eq!(graph::manifests(&good), []);
    let bad = [Crate { inherits_lints: false, ..good[0].clone() }];
    assert_reason(&graph::manifests(&bad), "lints");
    let bad = [Crate { unpublished: false, ..good[0].clone() }];
    assert_reason(&graph::manifests(&bad), "publish");
}

fn check(path: &str, body: &str) -> Vec<Finding> {
    source::check(&File { path: path.to_owned(), text: format!("//! Header.\n{body}") })
}

const PURE_FILE: &str = "crates/ledger/src/chain.rs";
const OTHER_FILE: &str = "crates/engine/src/act.rs";

#[test]
fn impure_calls() {
    for (body, reason) in [
        ("use std::time::SystemTime;", "chain.rs:2: `SystemTime` in a pure crate"),
        ("fn f() { let x = Instant::now(); }", "`Instant::now`"),
        ("\nuse std::fs;", "chain.rs:3: `std::fs`"),
        ("use ::std::env::args;", "`std::env`"),
        ("use std::{fmt, fs};", "`std::fs`"),
        ("use std::{\n    net::{self, IpAddr},\n    fmt,\n};", "`std::net`"),
        ("use std::{env as e, io};", "`std::env`"),
    ] {
        assert_reason(&check(PURE_FILE, body), reason);
        assert_eq!(check(OTHER_FILE, body), [], "{body} is fine outside the pure crates");
    }
    for body in [
        "// SystemTime is not for us\n/* std::fs /* nested */ std::env */",
        "const A: &str = \"std::fs \\\" std::net\";\nconst B: &str = r#\"std::env \" \"#;",
        "use std::{fmt, io::{self, Read}};\nuse std::{iter::{self, fs}};",
        "use core::net::IpAddr;\nuse std::fsx;\nstruct MySystemTime;",
        "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n",
    ] {
        assert_eq!(check(PURE_FILE, body), [], "{body}");
    }
    let after_tests = "#[cfg(test)]\nmod tests {}\nuse std::fs;\n";
    assert_reason(&check(PURE_FILE, after_tests), "chain.rs:4");
}

#[test]
fn attributes_and_markers() {
    for body in ["#[allow(dead_code)]\nfn f() {}", "#![allow(dead_code)]"] {
        assert_reason(&check(OTHER_FILE, body), "expect");
    }
    assert_eq!(check(OTHER_FILE, "#[expect(dead_code, reason = \"\")]\n// #[allow(x)]"), []);
    for marker in ["TODO", "FIXME", "XXX"] {
        let body = format!("fn f() {{}}\n// {marker}: later");
        assert_reason(&check(OTHER_FILE, &body), &format!("act.rs:3: `{marker}`"));
        assert_eq!(check(OTHER_FILE, &format!("const {marker}S: u8 = 0;")), []);
    }
}

#[test]
fn header_and_file_length() {
    let file = |text: String| File { path: OTHER_FILE.to_owned(), text };
    assert_reason(&source::check(&file("// Plain.\n".to_owned())), "header");
    assert_reason(&source::check(&file("\n//! Late.\n".to_owned())), "header");
    assert_reason(&source::check(&file(String::new())), "header");
    assert_eq!(check(OTHER_FILE, &"\n".repeat(599)), []);
    assert_reason(&check(OTHER_FILE, &"\n".repeat(600)), "601 lines");
}

#[test]
fn width_of_comments() {
    let words = |columns: usize| "a ".repeat(columns / 2 - 2);
    for marker in ["//", "    ///"] {
        let wide = format!("{marker} {}", words(102));
        assert_reason(&check("crates/types/src/a.rs", &wide), "wider than 100 columns");
    }
    for narrow in [
        format!("// {}", words(100)),
        format!("// {}", "a".repeat(200)),
        format!("// | {} |", words(200)),
        format!("const A: &str = \"{}\";", words(200)),
    ] {
        assert_eq!(check("crates/types/src/a.rs", &narrow), []);
    }
}

#[test]
fn function_length() {
    let body = |lines: usize| "    let _ = '{';\n".repeat(lines - 2);
    let cases = |lines: usize| {
        [
            format!("fn long(a: [u8; 3]) -> [u8; 3] {{\n{}}}\n", body(lines)),
            format!("impl<'a> X<'a> {{\npub fn long(&'a self) {{\n{}}}\n}}\n", body(lines)),
            format!("const fn long() {{\n{}}}\nfn short() {{}}\n", body(lines)),
        ]
    };
    for code in cases(70) {
        assert_eq!(check(OTHER_FILE, &code), [], "{code}");
    }
    for code in cases(71) {
        assert_reason(&check(OTHER_FILE, &code), "`long` has 71 lines");
    }
    let [long, ..] = cases(90);
    assert_eq!(check(OTHER_FILE, &format!("#[cfg(test)]\nmod tests {{\n{long}}}\n")), []);
    let pointer = format!("struct S {{\nf: fn(u8) -> u8,\n{}}}\n", "a: u8,\n".repeat(90));
    assert_eq!(check(OTHER_FILE, &pointer), []);
    let method =
        format!("trait T {{\nfn a(&self);\n}}\nmod m {{\n{}}}\n", "const A: u8 = 0;\n".repeat(90));
    assert_eq!(check(OTHER_FILE, &method), []);
}

#[test]
fn code_without_comments_and_literals() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        ("f(\"a\\\"b\", c)", "f(      , c)"),
        ("r#\"a\"b\"# c", "         c"),
        ("br\"a\\\" b", "b      b"),
        ("r#type", "r#type"),
        ("'a' 'b 'ä' '\\'' '\\u{7d}' x", "    'b                    x"),
        ("\"open", "     "),
    ] {
        let found = code_only(text);
        assert_eq!(found.trim_end(), code.trim_end(), "{text}");
        assert_eq!(found.len(), text.len(), "{text}");
    }
}

#[test]
fn machine_paths() {
    let file = |text: &str| File { path: "docs/a.md".to_owned(), text: text.to_owned() };
    for folder in ["home", "root", "work"] {
        let findings = text::machine_paths(&file(&format!("one\nsee /{folder}/me/tai\n")));
        assert_reason(&findings, "docs/a.md:2");
        assert_eq!(text::machine_paths(&file(&format!("see ./{folder} and {folder}/tai"))), []);
    }
}

#[test]
fn invariants_are_named_in_sources_and_tests() {
    let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
    let page = || file("ARCHITECTURE.md", "INV-9 is prose\n| INV-1 | chained |\n");
    let source = || file("crates/a/src/lib.rs", "// INV-1, where it is made");
    let test = || file("crates/a/tests/it/main.rs", "// INV-1");
    assert!(invariants::named(&[page(), source(), test()]).is_empty());
    assert_reason(&invariants::named(&[page(), source()]), "INV-1 is named in no test");
    assert_reason(&invariants::named(&[page(), test()]), "INV-1 is named in no source");
    let other = file("crates/a/src/b.rs", "// INV-17");
    assert_reason(&invariants::named(&[page(), source(), test(), other]), "INV-17 is not on");
    assert_reason(&invariants::named(&[source()]), "no architecture page");
}
