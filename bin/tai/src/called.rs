//! The name that the binary was called by.
//!
//! Owns: the links, what each stands for, and which file to run so that a process bears the name.
//! Refuses to know: what is done under a name.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Links and the port that each serves on when nobody sets one; `None` leaves the table's default.
/// Seed 000 runs `tai_autonomics`; seed 003 runs `agent-node` and asks it on port 3000.
const LINKS: &[(&str, Option<u16>)] = &[("tai_autonomics", None), ("agent-node", Some(3000))];

/// How the binary was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Called {
    /// The first word of the command line, as it was given.
    argv0: OsString,
    /// The file to run for another process of the same name.
    program: PathBuf,
}

impl Called {
    /// How this process was called, where commands are looked up in `path`.
    pub(crate) fn now(path: Option<&OsStr>) -> anyhow::Result<Called> {
        let running = std::env::current_exe().context("cannot find the running file")?;
        let argv0 = std::env::args_os().next().unwrap_or_else(|| running.clone().into());
        Ok(Called::new(argv0, path, running))
    }

    /// From the first word of the command line, the value of `PATH`, and the running file.
    fn new(argv0: OsString, path: Option<&OsStr>, running: PathBuf) -> Called {
        let given = Path::new(&argv0);
        // A shell looks a bare word up; what it found is not in the word.
        let found = if given.components().count() > 1 {
            Some(given.to_owned())
        } else {
            let dirs = path.map(std::env::split_paths).into_iter().flatten();
            dirs.map(|dir| dir.join(given)).find(|file| file.is_file())
        };
        // The first word is the caller's to choose: what it leads to may be another program.
        let same = |file: &PathBuf| place_of(file).is_some_and(|at| Some(at) == place_of(&running));
        let program = found.filter(same).unwrap_or(running);
        Called { argv0, program }
    }

    /// The link's name, or `tai`.
    pub(crate) fn name(&self) -> &'static str {
        self.link().map_or("tai", |(name, _)| name)
    }

    /// The port that stands in for the default.
    pub(crate) fn default_port(&self) -> Option<u16> {
        self.link().and_then(|(_, port)| *port)
    }

    /// The first word for another process of the same name.
    pub(crate) fn argv0(&self) -> &OsStr {
        &self.argv0
    }

    /// The file to run. A link as such: the system names a process after the path it was run by.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The folder of the release that the link stands in, laid out as `<name>/bin/<name>`.
    pub(crate) fn release_dir(&self) -> Option<PathBuf> {
        let (name, _) = self.link()?;
        let file = std::path::absolute(&self.program).ok()?;
        let bin = file.parent().filter(|dir| dir.ends_with("bin"))?;
        bin.parent().filter(|dir| dir.ends_with(name)).map(Path::to_owned)
    }

    fn link(&self) -> Option<&'static (&'static str, Option<u16>)> {
        let word = Path::new(&self.argv0).file_name()?;
        LINKS.iter().find(|(name, _)| word == OsStr::new(name))
    }
}

fn place_of(file: &Path) -> Option<(u64, u64)> {
    file.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_name_is_the_links_and_the_file_is_the_running_one() {
        let room = tempfile::tempdir().unwrap();
        let at = |path: &str| room.path().join(path);
        fs::create_dir_all(at("tai_autonomics/bin")).unwrap();
        fs::write(at("tai"), b"the binary").unwrap();
        fs::write(at("other"), b"another").unwrap();
        let (link, node) = (at("tai_autonomics/bin/tai_autonomics"), at("agent-node"));
        symlink(at("tai"), &link).unwrap();
        symlink(at("tai"), &node).unwrap();
        let path = room.path().as_os_str();
        let called = |argv0: &OsStr| Called::new(argv0.to_owned(), Some(path), at("tai"));

        let by_link = called(link.as_os_str());
        assert_eq!((by_link.name(), by_link.default_port()), ("tai_autonomics", None));
        assert_eq!(by_link.program(), link);
        assert_eq!(by_link.release_dir(), Some(at("tai_autonomics")));

        let by_word = called(OsStr::new("agent-node"));
        assert_eq!((by_word.name(), by_word.default_port()), ("agent-node", Some(3000)));
        assert_eq!((by_word.program(), by_word.release_dir()), (node.as_path(), None));

        for stranger in [at("other").as_os_str(), OsStr::new("other"), OsStr::new("nowhere")] {
            let called = called(stranger);
            assert_eq!((called.name(), called.program()), ("tai", at("tai").as_path()));
        }
    }
}
