//! A Python with pinned packages.
//!
//! Owns: the virtual environment under cargo's target folder.
//! Refuses to know: what the packages are for.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::place;

/// The `python` of a virtual environment that holds exactly `requirements`, the content of a pip
/// requirements file. It is made on the first call on a machine and found on the next ones; every
/// content has its own.
///
/// # Errors
/// When `python3` is not installed, or pip cannot get the packages.
pub fn venv(requirements: &str) -> Result<PathBuf> {
    let dir = place::built_once("test-venv", requirements, |dir| {
        run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
        let list = dir.join("requirements.txt");
        std::fs::write(&list, requirements)?;
        run(Command::new(dir.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(list))
    })?;
    Ok(dir.join("bin/python"))
}

fn run(command: &mut Command) -> Result<()> {
    let output =
        command.stdin(Stdio::null()).output().context("the Python program does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the Python environment cannot be made: {said}");
    Ok(())
}

/// Whether this machine has Python at all.
#[must_use]
pub fn present() -> bool {
    Command::new("python3").arg("--version").output().is_ok()
}

/// Skips the calling test where there is no Python.
#[macro_export]
macro_rules! needs_python {
    () => {
        if !$crate::python::present() {
            $crate::skip!("Python is not installed");
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_its_own_and_made_once() {
        crate::needs_python!();
        let requirements = "# an environment without packages\n";
        let python = venv(requirements).unwrap();
        assert_eq!(python, venv(requirements).unwrap());
        let output = Command::new(&python).args(["-m", "pip", "freeze"]).output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    }

    #[test]
    fn every_package_of_every_list_is_pinned() {
        let folder = crate::place::repository().join("tests/python");
        for (list, wanted) in [
            ("requirements.txt", "google-cloud-pubsub=="),
            ("ai_clients.txt", "openai=="),
            ("ai_upstream.txt", "llmock=="),
            ("mail_server.txt", "aiosmtpd=="),
        ] {
            let text = std::fs::read_to_string(folder.join(list)).unwrap();
            let packages: Vec<&str> =
                text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
            assert!(packages.iter().any(|line| line.starts_with(wanted)), "{list}");
            for line in packages {
                let (name, version) = line.split_once("==").unwrap();
                assert!(
                    !name.is_empty() && version.starts_with(|c: char| c.is_ascii_digit()),
                    "{line}"
                );
            }
        }
    }
}
