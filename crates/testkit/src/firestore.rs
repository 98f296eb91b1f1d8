//! Google's Firestore emulator, the one of the gcloud SDK.
//!
//! Owns: finding it, its port, its process.
//! Refuses to know: documents.

pub mod proxy;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{gcloud, http, place};

/// A virtual machine on two busy cores.
const START_TIMEOUT: Duration = Duration::from_secs(90);

const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The class is named, since the SDK's script leaves the virtual machine behind as its child.
const CLASS: &str = "com.google.cloud.datastore.emulator.firestore.CloudFirestore";

/// The folder of an export.
const EXPORT: &str = "export";

/// A running emulator; it ends with this value, and so do its documents. Projects are made by
/// naming them: a test that names its own sees nobody else's documents.
#[derive(Debug)]
pub struct Emulator {
    // None once it is killed.
    child: Option<Child>,
    address: SocketAddr,
    // Its output and what it leaves in its folder.
    scratch: TempDir,
}

impl Emulator {
    /// Starts one on a free port and waits until it has taken a commit, which at first takes
    /// seconds; `None` where it, or the Java it needs, is not installed.
    ///
    /// # Errors
    /// When it is installed and does not answer within 90 s; the error holds what it said.
    pub fn start() -> Result<Option<Emulator>> {
        let Some(jar) = jar() else { return Ok(None) };
        let scratch = tempfile::tempdir()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place::free_port()?));
        let output = File::create(scratch.path().join("output"))?;
        let child = Command::new(gcloud::java())
            // Tests are short: the second compiler and a collector with threads only cost.
            .args(["-Duser.language=en", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx2g"])
            .arg("-cp")
            .arg(jar)
            .args([CLASS, "--host=127.0.0.1"])
            .arg(format!("--port={}", address.port()))
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("the Firestore emulator does not start")?;
        let mut emulator = Emulator { child: Some(child), address, scratch };
        emulator.wait_until_ready()?;
        Ok(Some(emulator))
    }

    /// Kills it; all documents are gone.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Where it listens; the value for `FIRESTORE_EMULATOR_HOST`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Writes the documents of a project into a new folder inside `dir`, which exists.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub fn export(&self, project: &str, dir: &Path) -> Result<()> {
        let body = serde_json::json!({
            "database": format!("projects/{project}/databases/(default)"),
            "export_directory": dir,
            "export_name": EXPORT,
        });
        let path = format!("/emulator/v1/projects/{project}:export");
        self.control("POST", &path, body.to_string().as_bytes())
    }

    /// Puts the documents of the export in `dir` back.
    ///
    /// # Errors
    /// As for [`Emulator::export`].
    pub fn import(&self, project: &str, dir: &Path) -> Result<()> {
        let body = serde_json::json!({
            "database": format!("projects/{project}/databases/(default)"),
            // The emulator wants the file that lists the others, under this name.
            "export_directory": dir.join(EXPORT).join(format!("{EXPORT}.overall_export_metadata")),
        });
        let path = format!("/emulator/v1/projects/{project}:import");
        self.control("POST", &path, body.to_string().as_bytes())
    }

    /// Throws the documents of a project away.
    ///
    /// # Errors
    /// As for [`Emulator::export`].
    pub fn wipe(&self, project: &str) -> Result<()> {
        let path = format!("/emulator/v1/projects/{project}/databases/(default)/documents");
        self.control("DELETE", &path, b"")
    }

    fn control(&self, method: &str, path: &str, body: &[u8]) -> Result<()> {
        let headers = [("Content-Type", "application/json")];
        let answer = http::Client::connect(self.address)?.request(method, path, &headers, body)?;
        if answer.status != 200 {
            bail!("{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        }
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        let path = "/v1/projects/warm-up/databases/(default)/documents:commit";
        let body = br#"{"writes":[{"update":{"name":"projects/warm-up/databases/(default)/documents/a/b"}}]}"#;
        loop {
            let answer = http::Client::connect(self.address)
                .and_then(|mut client| client.request("POST", path, &[], body));
            if answer.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            if ended || Instant::now() > deadline {
                let output = std::fs::read(self.scratch.path().join("output"))?;
                let output = String::from_utf8_lossy(&output);
                bail!("the Firestore emulator does not answer: {output}");
            }
            // Nothing announces readiness but an answer.
            std::thread::sleep(RETRY_INTERVAL);
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.kill();
    }
}

fn jar() -> Option<PathBuf> {
    static JAR: OnceLock<Option<PathBuf>> = OnceLock::new();
    JAR.get_or_init(|| {
        gcloud::file("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
    })
    .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_commits_and_ends_with_its_value() {
        let Some(emulator) = Emulator::start().unwrap() else {
            crate::skip!("the Firestore emulator is not installed");
        };
        let address = emulator.address();
        let mut client = http::Client::connect(address).unwrap();
        let path = "/v1/projects/tests/databases/(default)/documents/a/b";
        let made = client.request("PATCH", path, &[], b"{}").unwrap();
        assert_eq!(made.status, 200, "{made:?}");
        let elsewhere = path.replace("tests", "others");
        let found = client.request("GET", &elsewhere, &[], b"").unwrap();
        assert_eq!(found.status, 404, "a project of its own: {found:?}");
        drop(emulator);
        assert!(http::Client::connect(address).is_err());
    }
}
