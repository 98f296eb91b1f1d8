//! Skips that are seen.
//!
//! Owns: saying, counting and forbidding them.
//! Refuses to know: what is missing and why.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::place;

/// Ends the calling test as skipped: `skip!("why")`, or `skip!("why", Ok(()))` where the test
/// returns something. With `CI=true` it fails the test instead.
#[macro_export]
macro_rules! skip {
    ($why:expr) => {
        $crate::skip!($why, ())
    };
    ($why:expr, $value:expr) => {{
        fn here() {}
        $crate::skip::record(::std::any::type_name_of_val(&here), $why);
        return $value;
    }};
}

/// Says that a test is skipped, past the capture of the test runner, and appends
/// `SKIPPED <test>: <why>` to the file named by `SKIPS_FILE`, or to `skips.txt` in the target
/// folder. `place` is the type name of a function inside the test; [`skip!`] passes it.
///
/// # Panics
/// With `CI=true`, where a skip is a failure, and when the skip cannot be counted.
pub fn record(place: &str, why: &str) {
    // A closure inside the test adds parts of its own.
    let test = place.trim_end_matches("::here").trim_end_matches("::{{closure}}");
    let file = std::env::var_os("SKIPS_FILE")
        .map_or_else(|| place::target().join("skips.txt"), PathBuf::from);
    let forbidden = std::env::var_os("CI").is_some_and(|value| value == "true");
    let mut said = std::io::stdout().lock();
    if let Err(refusal) = note(&mut said, &file, forbidden, test, why) {
        fail(&refusal);
    }
}

#[expect(clippy::panic, reason = "the only way for a test helper to fail the calling test")]
fn fail(refusal: &str) -> ! {
    panic!("{refusal}")
}

fn note(
    said: &mut impl Write,
    file: &Path,
    forbidden: bool,
    test: &str,
    why: &str,
) -> Result<(), String> {
    let line = format!("SKIPPED {test}: {why}\n");
    let _ = said.write_all(line.as_bytes());
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(file)
        .and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(|error| format!("the skip of {test} cannot be counted: {error}"))?;
    if forbidden {
        return Err(format!("a skip is a failure in CI: {test}: {why}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_counted_and_in_ci_it_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skips.txt");
        let mut said = Vec::new();
        assert_eq!(note(&mut said, &file, false, "a::b", "no emulator"), Ok(()));
        assert!(note(&mut said, &file, true, "a::c", "no database").is_err());
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, "SKIPPED a::b: no emulator\nSKIPPED a::c: no database\n");
        assert_eq!(text.as_bytes(), said);
    }

    #[test]
    fn a_skip_that_cannot_be_counted_fails() {
        let dir = tempfile::tempdir().unwrap();
        assert!(note(&mut Vec::new(), dir.path(), false, "a::b", "no emulator").is_err());
    }

    /// Runs itself again as the test that skips.
    #[test]
    fn the_macro_ends_the_test_and_in_ci_it_fails_it() {
        if std::env::var_os("SKIP_EXAMPLE").is_some() {
            skip!("an example");
            #[expect(unreachable_code, reason = "it must not be reached")]
            {
                unreachable!("a skipped test went on");
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skips.txt");
        let name = "skip::tests::the_macro_ends_the_test_and_in_ci_it_fails_it";
        let passes = |ci: &str| {
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name])
                .envs([("SKIP_EXAMPLE", "1"), ("CI", ci)])
                .env("SKIPS_FILE", &file)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("running 1 test") && said.contains("SKIPPED"), "{said}");
            output.status.success()
        };
        assert!(passes("false"));
        assert!(!passes("true"));
        let line = format!("SKIPPED testkit::{name}: an example\n");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), line.repeat(2));
    }
}
