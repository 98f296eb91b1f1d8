//! The power, or the process, lost at each step of the disk.
//!
//! Owns: which lives are recorded, where each is cut off, and the report of a broken promise.
//! Refuses to know: what SQLite does with its files.
//!
//! A life is recorded once, with a store on a real folder under the shim of `tests/disktrace`; each
//! of its crashes is then worked out from the log. The next life starts from one of them, so that
//! crashes of crashes come up, and sees what is not durable where only the process died. In some
//! lives one sync fails.

mod examine;
mod life;

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use store::{Options, SqliteStore, Synchronous};
use tempfile::TempDir;
use testkit::dice::Dice;
use testkit::disktrace::{self, Disk, Step, Survival};

use crate::book::{Book, Fault, Heard};
use crate::power::examine::examine;
use crate::power::life::{Life, log_of, was_lived_here};
use crate::workload::Workload;

/// Lives of one seed, each after a crash of the one before.
const LIVES: u64 = 3;
/// Questions of one life.
const ASKS: u64 = 120;
/// Crash points without a word from outside.
const POINTS: u64 = 240;
/// Crash points of one life among these.
const POINTS_OF_LIFE: usize = 40;
/// Names in a generation of the index: few receipts then cross every border.
const GENERATION: usize = 20;
/// Steps within which a start has told somebody something.
const START_STEPS: usize = 60;

/// How many crashes there are in all; with more than [`POINTS`] every step is one.
const CRASH_POINTS: &str = "SIM_CRASH_POINTS";
/// The first seed.
const SEED: &str = "SIM_SEED";
/// A folder with the logs of a failure, which are read instead of recording anew.
const LOGS: &str = "SIM_LOGS";

#[test]
fn nothing_acknowledged_is_lost_or_doubled_at_any_crash() {
    const NAME: &str = "power::nothing_acknowledged_is_lost_or_doubled_at_any_crash";
    if was_lived_here() {
        return;
    }
    let points = number(CRASH_POINTS).unwrap_or(POINTS);
    let first = number(SEED).unwrap_or(1);
    let (next, left) = (AtomicU64::new(first), AtomicU64::new(points));
    let one_seed = || {
        let seed = next.fetch_add(1, Ordering::SeqCst);
        let campaign = Campaign { seed, test: NAME, mutation: None, left: &left };
        if let Err(failure) = campaign.run(points > POINTS) {
            // The other thread has nothing to add.
            left.store(0, Ordering::SeqCst);
            panic!("{failure}");
        }
    };
    let work = || {
        while left.load(Ordering::SeqCst) > 0 {
            one_seed();
        }
    };
    if env::var_os(LOGS).is_some() {
        return one_seed();
    }
    std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let end = next.load(Ordering::SeqCst);
    println!("{points} crashes, seeds {first} to {}: nothing lost, doubled or alarmed", end - 1);
}

/// A process that was killed, or that saw a sync fail, leaves what can be read and is not durable.
/// The next one must not count, tell or write anything on the strength of it before it is.
#[test]
fn a_start_relies_on_nothing_that_is_not_durable() {
    const NAME: &str = "power::a_start_relies_on_nothing_that_is_not_durable";
    if was_lived_here() {
        return;
    }
    for fail_sync in [None, Some(25)] {
        let logs = room();
        let record = |number, course: &Course, fail_sync| {
            let life = Life { seed: 1, number, test: NAME, fail_sync };
            life.record(&course.disk.seen(), logs.path())
        };
        let (mut course, mut dice) = (Course::new(1), Dice::new(1));
        let steps = record(0, &course, fail_sync);
        let killed = match fail_sync {
            None => steps.windows(2).rposition(is_end_of_a_commit).unwrap(),
            Some(_) => steps.len(),
        };
        steps[..killed].iter().for_each(|step| course.take(step, &mut dice).unwrap());
        course = course.cut_off(Survival::Everything, &mut dice);
        for step in record(1, &course, None).iter().take(START_STEPS) {
            course.take(step, &mut dice).unwrap();
            course.crash(Survival::Synced, &mut dice).unwrap();
        }
    }
}

/// True for the sync of a commit, which the record in the head file follows.
fn is_end_of_a_commit(steps: &[Step]) -> bool {
    let is_record = |bytes: &[u8]| bytes.starts_with(b"tai-head-1");
    matches!(steps, [Step::Synced { .. }, Step::Wrote { bytes, .. }] if is_record(bytes))
}

#[test]
fn an_instance_that_answers_before_the_sync_is_found_out() {
    const NAME: &str = "power::an_instance_that_answers_before_the_sync_is_found_out";
    if was_lived_here() {
        return;
    }
    let left = AtomicU64::new(u64::MAX);
    let campaign = Campaign { seed: 1, test: NAME, mutation: Some(answers_too_early), left: &left };
    let failure = campaign.run(true).unwrap_err();
    assert!(matches!(failure.fault, Fault::Lost(_)), "{failure}");
    std::fs::remove_dir_all(failure.logs).unwrap();
}

/// The same steps, with every answer told before the sync that it waited for.
fn answers_too_early(steps: Vec<Step>) -> Vec<Step> {
    let mut early: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        let synced = early.iter().rposition(|step| matches!(step, Step::Synced { .. }));
        let at = synced.filter(|_| matches!(step, Step::Said(_))).unwrap_or(early.len());
        early.insert(at, step);
    }
    early
}

fn number(name: &str) -> Option<u64> {
    Some(env::var_os(name)?.to_str()?.parse().unwrap())
}

/// A folder in memory, where the machine has one: no test takes its power.
fn room() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

fn open(dir: &Path) -> Result<SqliteStore, store::OpenError> {
    let store = SqliteStore::open(dir, &Options { synchronous: Synchronous::Full })?;
    store.set_generation(GENERATION);
    Ok(store)
}

/// All lives of one seed and their crashes.
struct Campaign<'a> {
    seed: u64,
    /// The test that a recorded process runs.
    test: &'static str,
    /// What is done to what was recorded, to see it found out.
    mutation: Option<fn(Vec<Step>) -> Vec<Step>>,
    /// Crashes that are still to be examined, by all campaigns together.
    left: &'a AtomicU64,
}

/// A crash that broke a promise.
#[derive(Debug)]
struct Failure {
    seed: u64,
    life: u64,
    step: usize,
    survival: Survival,
    fault: Fault,
    logs: PathBuf,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, life, step, survival, fault, logs } = self;
        let logs = logs.display();
        write!(
            f,
            "{fault}\nseed {seed}, life {life}, step {step}, {survival:?}; to repeat it:\n\
            {SEED}={seed} {CRASH_POINTS}=100000 {LOGS}={logs} cargo test -p store --test sim power"
        )
    }
}

/// A life on its way: the disk, and what callers know.
#[derive(Clone)]
struct Course {
    workload: Workload,
    disk: Disk,
    book: Book,
    /// Questions that have been asked, at least.
    asked: u64,
}

impl Course {
    fn new(seed: u64) -> Course {
        let workload = Workload::new(seed);
        Course { workload, disk: Disk::default(), book: Book::default(), asked: 1 }
    }

    fn take(&mut self, step: &Step, dice: &mut Dice) -> Result<(), Fault> {
        self.disk.take(step, dice);
        let Step::Said(words) = step else { return Ok(()) };
        let (nth, heard) = Heard::from_line(std::str::from_utf8(words).unwrap());
        self.asked = self.asked.max(nth + 1);
        self.book.hear(&self.workload.ask(nth), &heard)
    }

    /// Crashes here and examines what is left.
    fn crash(&self, survival: Survival, dice: &mut Dice) -> Result<(), Fault> {
        let image = self.disk.crash(survival, dice);
        examine(&image, &self.book, &self.workload, self.asked, dice)
    }

    /// Crashes here, for a next life. Where only the process died, what was not synced still is
    /// not.
    fn cut_off(&self, survival: Survival, dice: &mut Dice) -> Course {
        let mut next = self.clone();
        match survival {
            Survival::Everything => next.disk.forget_process(),
            _ => next.disk = Disk::of(&self.disk.crash(survival, dice)),
        }
        next
    }
}

impl Campaign<'_> {
    /// Crashes at every step, or at a few spread over each life.
    fn run(&self, every: bool) -> Result<(), Failure> {
        let logs = room();
        let mut course = Course::new(self.seed);
        for life in 0..LIVES {
            let steps = self.recorded(life, &course, logs.path());
            course = match self.life(life, &steps, course, every) {
                Ok(next) => next,
                Err((step, survival, fault)) => {
                    let logs = env::var_os(LOGS).map_or_else(|| logs.keep(), PathBuf::from);
                    let seed = self.seed;
                    return Err(Failure { seed, life, step, survival, fault, logs });
                }
            }
        }
        Ok(())
    }

    fn recorded(&self, number: u64, course: &Course, logs: &Path) -> Vec<Step> {
        let kept = env::var_os(LOGS).map(|kept| log_of(self.seed, number, Path::new(&kept)));
        if let Some(kept) = kept.filter(|kept| kept.is_file()) {
            return disktrace::read(&kept).unwrap();
        }
        let mut dice = Dice::new(self.seed).part(!number);
        let fail_sync = dice.percent(30).then(|| 3 + dice.below(60));
        let life = Life { seed: self.seed, number, test: self.test, fail_sync };
        let steps = life.record(&course.disk.seen(), logs);
        match self.mutation {
            Some(mutate) => mutate(steps),
            None => steps,
        }
    }

    /// Goes through a life and crashes; gives where the next one starts, or where it failed.
    fn life(
        &self,
        life: u64,
        steps: &[Step],
        mut course: Course,
        every: bool,
    ) -> Result<Course, (usize, Survival, Fault)> {
        let mut dice = Dice::new(self.seed).part(life << 32);
        let stride = if every { 1 } else { (steps.len() / POINTS_OF_LIFE).max(1) };
        let offset = usize::try_from(dice.below(stride as u64)).unwrap();
        let quarter = steps.len() as u64 / 4;
        let mut end = usize::try_from(quarter + dice.below(3 * quarter)).unwrap();
        if dice.percent(50) {
            // Everything is written and nothing of it durable.
            let is_sync = |step: &Step| matches!(step, Step::Synced { .. });
            end += steps[end + 1..].iter().position(is_sync).unwrap_or_default();
        }
        // The process is what dies most often.
        let ends = if dice.percent(40) { Survival::Everything } else { *dice.pick(&Survival::ALL) };
        let mut next = course.clone();
        for (at, step) in steps.iter().enumerate() {
            let mut dice = dice.part(at as u64);
            let survival = *dice.pick(&Survival::ALL);
            let failed = |fault| (at, survival, fault);
            course.take(step, &mut dice).map_err(failed)?;
            if at % stride == offset && self.takes_one() {
                course.crash(survival, &mut dice).map_err(failed)?;
            }
            if at == end {
                next = course.cut_off(ends, &mut dice);
            }
        }
        Ok(next)
    }

    fn takes_one(&self) -> bool {
        let one_less = |left: u64| left.checked_sub(1);
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }
}
