//! The file of rules for bodies: read at the start, checked on request, looked at again while the
//! service runs.
//!
//! Owns: when a file counts as changed, and that a wrong one never takes the place of a good one.
//! Refuses to know: what a rule says.
//!
//! What if the process dies here? The next start reads the file; if that is the wrong one, it does
//! not start, which `/health` said beforehand.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use engine::Engine;
use engine::supervise::{Stop, Worker};
use gateway::Gateway;
use gateway::validation::{self, FILE_BYTES_MAX, Mistake, Rules};
use ledger::seal::sha256;
use settings::Settings;

use crate::cli::{EXIT_OK, EXIT_USAGE, complain, say};

/// How often the file is looked at. Watching a directory would be quicker and does not see what a
/// mounted configuration does, which swaps links.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The longest wait for a record of new rules: they hold without it.
const NOTE_TIMEOUT: Duration = Duration::from_secs(2);

/// The setting, as its mistakes are called.
const SETTING: &str = "VALIDATION_RULES_FILE";

/// A file whose rules are good.
pub(crate) struct RulesFile {
    path: PathBuf,
    stamp: Option<Stamp>,
    /// What is recorded of it.
    pub(crate) note: String,
    pub(crate) rules: Rules,
}

/// What tells two contents of a file apart without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(found: &Metadata) -> Stamp {
        Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    fn now(path: &Path) -> Option<Stamp> {
        std::fs::metadata(path).ok().as_ref().map(Stamp::of)
    }
}

/// The text, and the stamp that it had before it was read: what is written meanwhile shows at the
/// next look.
fn text(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    let mut text = Vec::new();
    // One byte more shows that it is too long.
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok((stamp, text))
}

/// Reads the file that the settings name, if they name one.
pub(crate) fn read(settings: &Settings) -> anyhow::Result<Option<RulesFile>> {
    settings.validation_rules_file.as_deref().map(|path| load(path).context(SETTING)).transpose()
}

fn load(path: &Path) -> anyhow::Result<RulesFile> {
    let (stamp, text) = text(path).context("cannot read the file")?;
    let rules = Rules::parse(&text).map_err(|mistakes| all(&mistakes))?;
    let note = format!("{} rules, sha256 {}", rules.len(), sha256(&text));
    Ok(RulesFile { path: path.to_owned(), stamp: Some(stamp), note, rules })
}

fn all(mistakes: &[Mistake]) -> anyhow::Error {
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    anyhow!(told.join("; "))
}

/// `tai check --rules FILE`: each rule, and the place of all that is wrong with it.
pub(crate) fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let read = text(path).map_err(|error| format!("cannot read the file: {error}"));
    let read =
        read.and_then(|(_, text)| validation::read(&text).map_err(|wrong| wrong.to_string()));
    let found = match read {
        Ok(found) => found,
        Err(wrong) => {
            complain(&format!("tai: {}: {wrong}", path.display()));
            return Ok(ExitCode::from(EXIT_USAGE));
        }
    };
    let width = found.iter().map(|rule| rule.name.len()).max().unwrap_or_default();
    for rule in &found {
        let name = &rule.name;
        match &rule.rule {
            Ok(rule) if rule.is_always_strict() => {
                say(&format!("{name:width$}  good, always strict"));
            }
            Ok(_) => say(&format!("{name:width$}  good")),
            Err(mistakes) => {
                mistakes.iter().for_each(|wrong| say(&format!("{name:width$}  {wrong}")));
            }
        }
    }
    let wrong = found.iter().filter(|rule| rule.rule.is_err()).count();
    if wrong == 0 {
        return Ok(ExitCode::from(EXIT_OK));
    }
    complain(&format!("tai: {}: {wrong} of {} rules are wrong", path.display(), found.len()));
    Ok(ExitCode::from(EXIT_USAGE))
}

impl RulesFile {
    /// Puts the rules in force and gives the worker that looks for newer ones.
    pub(crate) fn begin(self, engine: &Engine, door: &Arc<Gateway>) -> Worker {
        door.set_rules(self.rules);
        let (path, seen): (Arc<Path>, _) = (self.path.into(), self.stamp);
        let (engine, door) = (engine.clone(), Arc::clone(door));
        Worker::task("validation_rules", move |stop| {
            follow(Arc::clone(&path), seen, engine.clone(), Arc::clone(&door), stop)
        })
    }
}

async fn follow(
    path: Arc<Path>,
    mut seen: Option<Stamp>,
    engine: Engine,
    door: Arc<Gateway>,
    mut stop: Stop,
) {
    loop {
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        let looked = Arc::clone(&path);
        let looked = tokio::task::spawn_blocking(move || look(&looked, seen));
        // No answer: the file system did not give one before the end.
        let Ok(Some((stamp, found))) = looked.await else { continue };
        seen = stamp;
        match found {
            Ok(file) => take(&engine, &door, file).await,
            Err(error) => {
                door.keep_rules();
                let error = format!("{error:#}");
                tracing::error!(
                    event = "validation_rules_refused",
                    error,
                    "the new validation rules cannot be used; those before stay in force"
                );
            }
        }
    }
}

/// What the file holds, if that is not what was `seen`.
fn look(path: &Path, seen: Option<Stamp>) -> Option<(Option<Stamp>, anyhow::Result<RulesFile>)> {
    let stamp = Stamp::now(path);
    if stamp == seen {
        return None;
    }
    let found = load(path);
    let stamp = found.as_ref().map_or(stamp, |file| file.stamp);
    Some((stamp, found))
}

async fn take(engine: &Engine, door: &Gateway, file: RulesFile) {
    let rules = file.rules.len();
    door.set_rules(file.rules);
    tracing::info!(event = "validation_rules", rules, "new validation rules are in force");
    let noted = engine.note("validation_rules", file.note);
    if !matches!(tokio::time::timeout(NOTE_TIMEOUT, noted).await, Ok(Ok(()))) {
        tracing::warn!(event = "note_lost", "the change of rules may be in the log only");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_as_new_once_for_each_change_and_when_it_is_gone() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("rules.json");
        let write = |text: &str| {
            let new = room.path().join("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, &path).unwrap();
        };
        write(r#"{"version":1,"rules":[]}"#);
        let mut seen = load(&path).unwrap().stamp;
        let mut found = || {
            let (stamp, found) = look(&path, seen)?;
            seen = stamp;
            Some(found.is_ok())
        };
        assert_eq!(found(), None);
        // The same text is another file all the same, and read once.
        write(r#"{"version":1,"rules":[]}"#);
        assert_eq!([found(), found()], [Some(true), None]);
        write(r#"{"version":2,"rules":[]}"#);
        assert_eq!([found(), found()], [Some(false), None]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!([found(), found()], [Some(false), None]);
        write(r#"{"version":1,"rules":[]}"#);
        assert_eq!([found(), found()], [Some(true), None]);
    }
}
