//! The house rules as checks over data.
//!
//! Owns: loading what the checks look at, and the list of all checks.
//! Refuses to know: the rules themselves, which are pure functions in the modules below.

pub mod graph;
pub mod invariants;
pub mod lexer;
pub mod source;
pub mod text;

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file, or file and line, relative to the workspace root.
    pub place: String,
    /// What is wrong and what to do instead.
    pub reason: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// A text file of the repository.
#[derive(Debug, Clone)]
pub struct File {
    /// Path relative to the workspace root, with forward slashes.
    pub path: String,
    /// The content.
    pub text: String,
}

/// Everything that the checks look at, read once.
#[derive(Debug)]
pub struct Workspace {
    /// The workspace's own crates.
    pub crates: Vec<graph::Crate>,
    /// Every package of the lock file that is built for any target, own crates included. The file
    /// alone also lists what weak features could ask for and nothing does.
    pub locked: Vec<graph::Locked>,
    /// Rust sources of the crates, the binaries and this tool; without their tests folders.
    pub sources: Vec<File>,
    /// Text files that are, or are about to be, under version control.
    pub texts: Vec<File>,
}

/// Folders that are never sources, for when git is not there to tell.
const UNTRACKED: &[&str] = &[".git", "target", "tai-data", "__pycache__"];

/// The folder of the workspace this tool was built in.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

impl Workspace {
    /// Reads the workspace at `root`.
    ///
    /// # Errors
    /// When cargo cannot describe the workspace, or a file cannot be read.
    pub fn load(root: &Path) -> Result<Workspace> {
        Ok(Workspace {
            crates: load_crates(root)?,
            locked: load_locked(root)?,
            sources: load_sources(root)?,
            texts: load_texts(root)?,
        })
    }

    /// The findings of all checks.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        [
            graph::arrows(&self.crates),
            graph::banned_directly(&self.crates),
            graph::banned_everywhere(&self.locked),
            graph::manifests(&self.crates),
            self.sources.iter().flat_map(source::check).collect(),
            self.texts.iter().flat_map(text::machine_paths).collect(),
            invariants::named(&self.texts),
        ]
        .concat()
    }
}

fn load_crates(root: &Path) -> Result<Vec<graph::Crate>> {
    let manifest = root.join("Cargo.toml");
    // Without dependencies: no lock, no download, so the check also runs offline.
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
    metadata
        .packages
        .iter()
        .map(|package| {
            let path = package.manifest_path.as_std_path();
            let manifest: toml::Table = read(path)?.parse().context("a manifest is not TOML")?;
            let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
            Ok(graph::Crate {
                name: package.name.to_string(),
                manifest: relative(root, path),
                inherits_lints: lints.and_then(toml::Value::as_bool) == Some(true),
                unpublished: package.publish.as_ref().is_some_and(Vec::is_empty),
                dependencies: package.dependencies.iter().map(dependency).collect(),
            })
        })
        .collect()
}

fn dependency(dependency: &cargo_metadata::Dependency) -> graph::Dependency {
    graph::Dependency {
        name: dependency.name.clone(),
        for_tests: dependency.kind == DependencyKind::Development,
        own: dependency.path.is_some(),
    }
}

/// The names of all packages that cargo would build for some target.
fn load_linked(root: &Path) -> Result<HashSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["tree", "--workspace", "--target", "all", "--prefix", "none", "-f", "{p}"];
    let output = Command::new(cargo).args(arguments).current_dir(root).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).context("cargo tree does not write UTF-8")?;
    Ok(lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn load_locked(root: &Path) -> Result<Vec<graph::Locked>> {
    let linked = load_linked(root)?;
    let lock: toml::Table =
        read(&root.join("Cargo.lock"))?.parse().context("Cargo.lock is not TOML")?;
    let packages = lock.get("package").and_then(toml::Value::as_array);
    let text = |package: &toml::Value, key: &str| {
        package.get(key).and_then(toml::Value::as_str).map(str::to_owned)
    };
    packages
        .context("Cargo.lock lists no package")?
        .iter()
        .map(|package| {
            Ok(graph::Locked {
                name: text(package, "name").context("a locked package has no name")?,
                source: text(package, "source"),
            })
        })
        .filter(|package| package.as_ref().map_or(true, |found| linked.contains(&found.name)))
        .collect()
}

fn load_sources(root: &Path) -> Result<Vec<File>> {
    let mut paths = Vec::new();
    for group in ["crates", "bin"] {
        for member in entries(&root.join(group))? {
            walk(&member.join("src"), &mut paths)?;
        }
    }
    walk(&root.join("xtask/src"), &mut paths)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.iter().map(|path| Ok(File { path: relative(root, path), text: read(path)? })).collect()
}

fn load_texts(root: &Path) -> Result<Vec<File>> {
    let paths = match git_files(root) {
        Some(paths) => paths,
        // A source archive has no git; everything in it was under version control.
        None => {
            let mut paths = Vec::new();
            walk(root, &mut paths)?;
            paths
        }
    };
    let mut files = Vec::new();
    for path in paths.iter().filter(|path| path.is_file() && !path.ends_with("Cargo.lock")) {
        // Anything that is not UTF-8 is an image or a database, and no text.
        if let Ok(text) = String::from_utf8(fs::read(path)?) {
            files.push(File { path: relative(root, path), text });
        }
    }
    Ok(files)
}

/// `None` when git is not installed or `root` is no repository.
fn git_files(root: &Path) -> Option<Vec<PathBuf>> {
    let list = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let names = String::from_utf8(list.stdout).ok()?;
    Some(names.split_terminator('\0').map(|name| root.join(name)).collect())
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        let skipped = UNTRACKED.iter().any(|name| path.ends_with(name));
        if path.is_dir() && !path.is_symlink() && !skipped {
            walk(&path, paths)?;
        } else if path.is_file() {
            paths.push(path);
        }
    }
    Ok(())
}

/// What a folder holds, sorted; nothing when it does not exist.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let listed = fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))?;
    let mut paths =
        listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}
