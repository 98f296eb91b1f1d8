//! Which crate may use which.
//!
//! Owns: the arrows between the workspace's crates, the banned crates, what a manifest must say.
//! Refuses to know: how the graph is loaded.

use super::Finding;

/// A crate of the workspace.
#[derive(Debug, Clone)]
pub struct Crate {
    /// The package name.
    pub name: String,
    /// Path of its `Cargo.toml`, relative to the workspace root.
    pub manifest: String,
    /// Whether `[lints] workspace = true` is there.
    pub inherits_lints: bool,
    /// Whether `publish` is false.
    pub unpublished: bool,
    /// Direct dependencies of every kind.
    pub dependencies: Vec<Dependency>,
}

/// A direct dependency.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// The package name.
    pub name: String,
    /// Whether it is a dev-dependency.
    pub for_tests: bool,
    /// Whether it is a crate of this workspace.
    pub own: bool,
}

/// A package of the lock file.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The package name.
    pub name: String,
    /// Where it comes from, such as `registry+https://…` or `git+https://…`; `None` for own
    /// crates.
    pub source: Option<String>,
}

/// Which crates of the workspace each crate may link. Tests may use more: dev-dependencies are
/// not arrows, since they never reach the product.
const ARROWS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("settings", &["types"]),
    ("ledger", &["types"]),
    ("telemetry", &["types"]),
    ("dialect", &["types"]),
    // State is a fold over receipts, so the governors read them.
    ("governors", &["types", "ledger"]),
    ("runbook", &["types"]),
    ("engine", &["types", "settings", "ledger", "governors", "dialect", "runbook", "telemetry"]),
    ("store", &["types", "ledger", "engine"]),
    (
        "gateway",
        &["types", "settings", "ledger", "governors", "dialect", "runbook", "telemetry", "engine"],
    ),
    ("gcp", &["types", "settings", "ledger", "governors", "dialect", "telemetry", "engine"]),
    ("egress", &["types", "settings", "dialect", "engine", "telemetry"]),
    ("tai", PRODUCT),
    ("testkit", PRODUCT),
    (
        "bench",
        &[
            "types",
            "settings",
            "ledger",
            "governors",
            "dialect",
            "runbook",
            "telemetry",
            "engine",
            "store",
            "gcp",
            "egress",
            "gateway",
            "testkit",
            "tai",
        ],
    ),
    ("xtask", &[]),
];

const PRODUCT: &[&str] = &[
    "types",
    "settings",
    "ledger",
    "governors",
    "dialect",
    "runbook",
    "telemetry",
    "engine",
    "store",
    "gcp",
    "egress",
    "gateway",
];

/// The crates without runtime, clock, randomness and I/O.
pub const PURE: &[&str] = &["types", "settings", "ledger", "governors", "dialect", "runbook"];

const IMPURE: &[&str] =
    &["tokio", "axum", "hyper", "rusqlite", "tracing", "getrandom", "uuid", "rand"];

/// Crates that only some of ours may link, and why.
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("rusqlite", &["store", "bench"], "SQL stays behind the store port"),
    ("tokio-postgres", &["store"], "SQL stays behind the store port"),
    ("google-cloud-pubsub", &["gcp"], "Google's clients stay in one crate"),
    ("google-cloud-auth", &["gcp"], "Google's clients stay in one crate"),
    ("google-cloud-gax", &["gcp"], "Google's clients stay in one crate"),
    ("axum", &["gateway"], "HTTP stays at the edge"),
    ("hyper", &["egress", "gateway", "bench", "testkit"], "HTTP stays at the edge"),
    (
        "anyhow",
        &["tai", "xtask", "bench", "testkit"],
        "a library has one thiserror enum, which its callers can match",
    ),
];

/// Crates that may not be in the resolved graph at all; `deny.toml` lists the same.
pub const BANNED: &[&str] = &["openssl", "native-tls", "sled", "serde_yaml", "ring"];

/// Arrows that the design does not have.
#[must_use]
pub fn arrows(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in crates {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == member.name) else {
            findings.push(finding(member, "the crate has no row in ARROWS of xtask".to_owned()));
            continue;
        };
        for used in member.dependencies.iter().filter(|used| used.own && !used.for_tests) {
            if used.name == "testkit" && member.name != "bench" {
                let reason = "`testkit` may only be a dev-dependency".to_owned();
                findings.push(finding(member, reason));
            } else if !allowed.contains(&used.name.as_str()) {
                let allowed = or_nothing(allowed);
                let reason = format!(
                    "`{}` must not depend on `{}`; of the workspace it may use {allowed}",
                    member.name, used.name
                );
                findings.push(finding(member, reason));
            }
        }
    }
    findings
}

/// Direct dependencies that a crate may not have.
#[must_use]
pub fn banned_directly(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in crates {
        for used in &member.dependencies {
            // Tests of a pure crate are pure too, or they would not be fast.
            if PURE.contains(&member.name.as_str()) && IMPURE.contains(&used.name.as_str()) {
                let reason = format!(
                    "`{}` is a pure crate and must not use `{}`; take time, ids and I/O as \
                     arguments",
                    member.name, used.name
                );
                findings.push(finding(member, reason));
            }
            let confined = CONFINED.iter().find(|(name, ..)| *name == used.name);
            if let Some((name, homes, why)) = confined
                && !used.for_tests
                && !homes.contains(&member.name.as_str())
            {
                let homes = or_nothing(homes);
                findings.push(finding(member, format!("only {homes} may use `{name}`: {why}")));
            }
        }
    }
    findings
}

/// Packages that may not be in the graph, whoever asked for them.
#[must_use]
pub fn banned_everywhere(locked: &[Locked]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut push = |reason| findings.push(Finding { place: "Cargo.lock".to_owned(), reason });
    for package in locked {
        if BANNED.contains(&package.name.as_str()) {
            push(format!(
                "`{0}` is banned (see deny.toml); `cargo tree -i {0}` shows who asked for it",
                package.name
            ));
        }
        if package.source.as_deref().is_some_and(|source| source.starts_with("git+")) {
            push(format!("`{}` comes from git; use a release from crates.io", package.name));
        }
    }
    findings
}

/// What every manifest must say.
#[must_use]
pub fn manifests(crates: &[Crate]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in crates {
        if !member.inherits_lints {
            let reason = "`[lints] workspace = true` is missing".to_owned();
            findings.push(finding(member, reason));
        }
        if !member.unpublished {
            let reason = "`publish.workspace = true` is missing; no crate is published".to_owned();
            findings.push(finding(member, reason));
        }
    }
    findings
}

fn finding(member: &Crate, reason: String) -> Finding {
    Finding { place: member.manifest.clone(), reason }
}

fn or_nothing(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
