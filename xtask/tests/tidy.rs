//! The repository keeps its own rules.

use std::sync::LazyLock;

use xtask::tidy::{Finding, Workspace, graph, invariants, source, text, workspace_root};

#[expect(clippy::unwrap_used, reason = "without the workspace every test must fail")]
static WORKSPACE: LazyLock<Workspace> =
    LazyLock::new(|| Workspace::load(&workspace_root()).unwrap());

#[track_caller]
fn assert_none(findings: &[Finding]) {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{} findings\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn arrows_between_crates_are_those_of_the_design() {
    assert!(WORKSPACE.crates.iter().any(|member| member.name == "types"), "the graph was loaded");
    assert_none(&graph::arrows(&WORKSPACE.crates));
}

#[test]
fn no_crate_uses_a_banned_one() {
    assert!(WORKSPACE.locked.iter().any(|package| package.source.is_some()));
    assert_none(&graph::banned_directly(&WORKSPACE.crates));
    assert_none(&graph::banned_everywhere(&WORKSPACE.locked));
}

#[test]
fn manifests_inherit_lints_and_are_not_published() {
    assert_none(&graph::manifests(&WORKSPACE.crates));
}

#[test]
fn sources_keep_the_house_rules() {
    for part in ["crates/settings/src/lib.rs", "bin/tai/src/main.rs", "xtask/src/main.rs"] {
        assert!(WORKSPACE.sources.iter().any(|file| file.path == part), "{part} is looked at");
    }
    assert_none(&WORKSPACE.sources.iter().flat_map(source::check).collect::<Vec<_>>());
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    assert!(WORKSPACE.texts.iter().any(|file| file.path == "deny.toml"));
    assert_none(&WORKSPACE.texts.iter().flat_map(text::machine_paths).collect::<Vec<_>>());
}

#[test]
fn deny_file_bans_the_same_crates() {
    let file = WORKSPACE.texts.iter().find(|file| file.path == "deny.toml").unwrap();
    let rules: toml::Table = file.text.parse().unwrap();
    let denied: Vec<&str> = rules["bans"]["deny"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ban| ban["crate"].as_str().unwrap())
        .collect();
    assert_eq!(denied, graph::BANNED);
}

#[test]
fn every_invariant_is_named_where_it_is_kept_and_tested() {
    assert_none(&invariants::named(&WORKSPACE.texts));
}
