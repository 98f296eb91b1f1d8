//! Where things are: the repository, cargo's target folder, a free port.
//!
//! Owns: finding them, and building a shared thing once for many test processes.
//! Refuses to know: what is built.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}

/// Cargo's target folder: the one the running test lies in, known by the tag that cargo puts
/// there; otherwise `target` of the repository.
#[must_use]
pub fn target() -> PathBuf {
    std::env::current_exe()
        .ok()
        .and_then(|exe| {
            exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file()).map(Path::to_path_buf)
        })
        .unwrap_or_else(|| repository().join("target"))
}

/// A TCP port on 127.0.0.1 that was free a moment ago.
///
/// # Errors
/// When the system has no port left.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
}

/// Builds `NAME-HASH` in the target folder once for all processes, where HASH is that of `input`;
/// gives its path.
///
/// `build` gets the path and makes a file or a folder there. What an earlier, interrupted build
/// left is removed first.
///
/// # Errors
/// When `build` fails, or the target folder cannot be written.
pub fn built_once(
    name: &str,
    input: &str,
    build: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = target().join(format!("{name}-{:016x}", hasher.finish()));
    let beside = |ending: &str| {
        let mut file = path.clone().into_os_string();
        file.push(ending);
        PathBuf::from(file)
    };
    let lock = File::create(beside(".lock")).context("the target folder cannot be written")?;
    lock.lock().context("the lock of a shared build cannot be taken")?;
    let complete = beside(".complete");
    if !complete.exists() {
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else if path.exists() {
            fs::remove_file(&path)?;
        }
        build(&path)?;
        File::create(complete)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_the_real_ones() {
        assert!(repository().join("Cargo.lock").is_file());
        assert!(std::env::current_exe().unwrap().starts_with(target()));
    }

    #[test]
    fn a_shared_build_runs_once_an_input_and_again_after_a_failure() {
        let input = format!("{}-{:?}", std::process::id(), std::time::Instant::now());
        let failed = built_once("test-place", &input, |path| {
            fs::create_dir(path)?;
            anyhow::bail!("half way")
        });
        assert!(failed.is_err());
        let path = built_once("test-place", &input, |path| Ok(fs::write(path, "made")?)).unwrap();
        let again = built_once("test-place", &input, |_| anyhow::bail!("built twice")).unwrap();
        assert_eq!(path, again);
        assert_eq!(fs::read_to_string(&path).unwrap(), "made");
        for ending in ["", ".lock", ".complete"] {
            fs::remove_file(format!("{}{ending}", path.display())).unwrap();
        }
    }
}
