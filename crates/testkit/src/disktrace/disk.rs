//! A disk as a process sees it, and what is left of it when the power goes.
//!
//! Owns: the line between what is durable and what is not, and the choice of what survives beside
//! it. Refuses to know: where the steps come from.
//!
//! The model is that of a page cache over sectors of 512 bytes. What was synced is there. Of what
//! was written since, each sector holds any state that it ever had: the kernel writes back early,
//! in any order, and stops anywhere, in the middle of a write too. Names come and go in the order
//! in which they were changed, and count from the sync of the folder on at the latest. A sync that
//! failed leaves behind what it left by chance, and no later one makes up for it, as on Linux.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Step;
use crate::dice::Dice;

/// What a disk writes at once.
const SECTOR: usize = 512;

/// What survives beside what was synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Synced,
    /// Everything: the process died and the power stayed.
    Everything,
    /// Any sector in any state that it had.
    Sectors,
    /// What was written up to some moment, and a part of the write at that moment.
    Prefix,
}

impl Survival {
    /// All of them.
    pub const ALL: [Survival; 4] =
        [Survival::Synced, Survival::Everything, Survival::Sectors, Survival::Prefix];
}

/// The files of a folder.
pub type Image = BTreeMap<String, Vec<u8>>;

/// A folder on a disk.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    files: Vec<Contents>,
    inodes: BTreeMap<u64, usize>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since the last sync of the folder.
    renaming: Vec<Naming>,
    /// The moment of the last change of contents.
    now: u64,
}

/// A file, under whatever name.
#[derive(Debug, Clone, Default)]
struct Contents {
    /// As processes read it.
    seen: Vec<u8>,
    /// As it is after a loss of power at the least.
    durable: Vec<u8>,
    /// What was done since the last sync.
    pending: Vec<Pending>,
}

#[derive(Debug, Clone)]
struct Pending {
    moment: u64,
    change: Change,
}

#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut(usize),
}

#[derive(Debug, Clone)]
enum Naming {
    Made(String, usize),
    Gone(String),
}

impl Disk {
    /// A folder with these files, all of them durable.
    #[must_use]
    pub fn of(image: &Image) -> Disk {
        let mut disk = Disk::default();
        for (name, bytes) in image {
            disk.names.insert(name.clone(), disk.files.len());
            disk.files.push(Contents {
                seen: bytes.clone(),
                durable: bytes.clone(),
                pending: Vec::new(),
            });
        }
        disk.durable_names = disk.names.clone();
        disk
    }

    /// Takes one step. `dice` say what a sync that fails leaves behind.
    pub fn take(&mut self, step: &Step, dice: &mut Dice) {
        match step {
            Step::Opened { name, inode, made } => self.open(name, *inode, *made),
            Step::Wrote { inode, at, bytes } => {
                self.change(*inode, Change::Write { at: *at, bytes: bytes.clone() });
            }
            Step::Cut { inode, length } => self.change(*inode, Change::Cut(*length)),
            Step::Synced { inode } => {
                if let Some(file) = self.file(*inode) {
                    file.sync();
                }
            }
            Step::SyncFailed { inode } => {
                let mut dice = dice.part(self.now);
                if let Some(file) = self.file(*inode) {
                    file.durable = file.left(Survival::Sectors, 0, &mut dice);
                    file.pending.clear();
                }
            }
            Step::NamesSynced => {
                self.durable_names = self.names.clone();
                self.renaming.clear();
            }
            Step::Unlinked { name } => self.rename(Naming::Gone(name.clone())),
            Step::Renamed { from, to } => {
                if let Some(file) = self.names.get(from).copied() {
                    self.rename(Naming::Gone(from.clone()));
                    self.rename(Naming::Made(to.clone(), file));
                }
            }
            Step::Said(_) => {}
        }
    }

    /// The process is gone, and the next one knows its files by other numbers.
    pub fn forget_process(&mut self) {
        self.inodes.clear();
    }

    /// The files as a process sees them.
    #[must_use]
    pub fn seen(&self) -> Image {
        let files = self.names.iter();
        files.map(|(name, file)| (name.clone(), self.files[*file].seen.clone())).collect()
    }

    /// The files after a crash at this moment.
    #[must_use]
    pub fn crash(&self, survival: Survival, dice: &mut Dice) -> Image {
        if survival == Survival::Everything {
            return self.seen();
        }
        let pending = self.renaming.len() as u64;
        let renamed = match survival {
            Survival::Synced | Survival::Everything => 0,
            Survival::Sectors | Survival::Prefix => dice.below(pending + 1),
        };
        let mut names = self.durable_names.clone();
        let done = self.renaming.iter().zip(0..renamed);
        done.for_each(|(naming, _)| naming.apply(&mut names));
        let until = self.oldest() + dice.below(self.now + 2 - self.oldest());
        let left = |(name, file): (String, usize)| {
            let mut dice = dice.part(file as u64);
            (name, self.files[file].left(survival, until, &mut dice))
        };
        names.into_iter().map(left).collect()
    }

    /// The moment of the oldest change that is not durable.
    fn oldest(&self) -> u64 {
        let pending = self.files.iter().filter_map(|file| file.pending.first());
        pending.map(|pending| pending.moment).min().unwrap_or(self.now)
    }

    fn open(&mut self, name: &str, inode: u64, made: bool) {
        if !made && let Some(known) = self.names.get(name) {
            self.inodes.insert(inode, *known);
            return;
        }
        let number = self.files.len();
        self.files.push(Contents::default());
        self.inodes.insert(inode, number);
        self.rename(Naming::Made(name.to_owned(), number));
    }

    fn rename(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.renaming.push(naming);
    }

    fn file(&mut self, inode: u64) -> Option<&mut Contents> {
        let number = self.inodes.get(&inode)?;
        self.files.get_mut(*number)
    }

    fn change(&mut self, inode: u64, change: Change) {
        self.now += 1;
        let moment = self.now;
        if let Some(file) = self.file(inode) {
            apply(&mut file.seen, &change, |_| true);
            file.pending.push(Pending { moment, change });
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Naming::Made(name, file) => names.insert(name.clone(), *file),
            Naming::Gone(name) => names.remove(name),
        };
    }
}

impl Contents {
    fn sync(&mut self) {
        for Pending { change, .. } in self.pending.drain(..) {
            apply(&mut self.durable, &change, |_| true);
        }
    }

    /// What a crash leaves of it; `until` is the moment that [`Survival::Prefix`] names.
    fn left(&self, survival: Survival, until: u64, dice: &mut Dice) -> Vec<u8> {
        let mut left = self.durable.clone();
        let moments: Vec<u64> = self.pending.iter().map(|pending| pending.moment).collect();
        let any = dice.throw();
        for Pending { moment, change } in &self.pending {
            apply(&mut left, change, |sector| match survival {
                Survival::Synced => false,
                Survival::Everything => true,
                // The half of a write that came first on the disk, which need not be the first
                // half.
                Survival::Prefix if *moment == until => {
                    Dice::new(any).part(sector as u64).percent(50)
                }
                Survival::Prefix => *moment < until,
                Survival::Sectors => {
                    let mut dice = Dice::new(any).part(sector as u64);
                    let kept = usize::try_from(dice.below(moments.len() as u64 + 1));
                    moments.iter().take(kept.unwrap_or_default()).any(|kept| kept == moment)
                }
            });
        }
        // The length reaches the disk apart from what it covers.
        if survival == Survival::Sectors && dice.percent(25) && left.len() < self.seen.len() {
            left.resize(self.seen.len(), 0);
        }
        left
    }
}

/// Applies a change to those sectors that `kept` names; the place of a cut is its last sector.
fn apply(bytes: &mut Vec<u8>, change: &Change, kept: impl Fn(usize) -> bool) {
    match change {
        Change::Cut(length) if kept(usize::MAX) => bytes.resize(*length, 0),
        Change::Cut(_) => {}
        Change::Write { at, bytes: written } => {
            let end = at + written.len();
            let mut from = *at;
            while from < end {
                let sector = from / SECTOR;
                let to = end.min((sector + 1) * SECTOR);
                if kept(sector) {
                    bytes.resize(bytes.len().max(to), 0);
                    bytes[from..to].copy_from_slice(&written[from - at..to - at]);
                }
                from = to;
            }
        }
    }
}

/// Writes the files into an empty folder.
///
/// # Errors
/// When the folder does not take them.
pub fn lay_out(image: &Image, dir: &Path) -> Result<()> {
    for (name, bytes) in image {
        fs::write(dir.join(name), bytes).context("a file of the disk cannot be written")?;
    }
    Ok(())
}
