//! The gcloud SDK, whose emulators the tests start.
//!
//! Owns: finding it and the Java that its emulators need.
//! Refuses to know: any emulator.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A file of an emulator in the SDK; `None` where it, or Java, is not installed.
///
/// The SDK is the folder in `CLOUDSDK_ROOT`, or else the one that gcloud names.
pub(crate) fn file(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CLOUDSDK_ROOT").map(PathBuf::from).or_else(root)?;
    let file = root.join(path);
    (file.is_file() && has_java()).then_some(file)
}

/// The program that runs Java: that of `JAVA_HOME`, or else the one on the path.
pub(crate) fn java() -> PathBuf {
    let named = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    named.unwrap_or_else(|| PathBuf::from("java"))
}

fn root() -> Option<PathBuf> {
    let output = Command::new("gcloud")
        .args(["info", "--format=value(installation.sdk_root)"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let root = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(root.trim()))
}

fn has_java() -> bool {
    Command::new(java())
        .arg("-version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
