//! What the watcher remembers: which outages there were, and what each channel has been told.
//!
//! Owns: what a channel is owed, in which order, and when an outage is forgotten. Refuses to know:
//! probes, clocks, files, and how a channel is spoken to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::Micros;

use super::probe::MUTE;

/// Outages that are remembered. More come only where a service that falls over again and again
/// meets a channel that takes nothing.
const OUTAGES_MAX: usize = 16;
/// How often whoever restarts the service is asked in one outage, where it cannot be reached.
const RESTART_TRIES: u32 = 6;
/// The age from which on an end is not told any more.
const AGE_MAX_S: i64 = 24 * 3_600;

/// All of it, as it is kept in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Book {
    /// In order; only the last one may still last.
    #[serde(default)]
    outages: Vec<Outage>,
}

/// One outage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outage {
    /// When the first of the failed probes was made, in microseconds since 1970, UTC.
    pub(crate) since_us: i64,
    /// When the first of the good probes was made.
    pub(crate) ended_us: Option<i64>,
    /// Why it is one, as of the last failed probe.
    pub(crate) reason: String,
    /// How often it is to have been told: 1 at its beginning, and one more for each repetition.
    round: u32,
    round_us: i64,
    /// The hook that restarts was called, or there was none.
    #[serde(default)]
    is_restart_asked: bool,
    /// How often it could not be reached.
    #[serde(default)]
    restart_tries: u32,
    /// Those that are called, each from the round on in which it first was.
    #[serde(default)]
    channels: BTreeMap<String, Told>,
}

/// What one channel has been told of one outage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// The first round that it was called in, from 1, and the last.
    #[serde(default)]
    first: u32,
    #[serde(default)]
    owed: u32,
    /// An attempt was made.
    #[serde(default)]
    is_tried: bool,
    /// The last round that it was told.
    round: u32,
    /// The end.
    end: bool,
    /// It may have been told the next one already: an attempt has no result.
    may_know: bool,
}

/// A step of an outage that is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Opened,
    /// It lasts; the round, from 2.
    Lasts(u32),
    Ended,
}

/// What a channel is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) step: Step,
    pub(crate) outage: Outage,
    /// The last round that this tells.
    round: u32,
    /// An earlier attempt may have been taken.
    pub(crate) is_repeat: bool,
}

impl Book {
    /// The outage that lasts.
    pub(crate) fn open(&self) -> Option<&Outage> {
        self.outages.last().filter(|outage| outage.ended_us.is_none())
    }

    fn open_mut(&mut self) -> Option<&mut Outage> {
        self.outages.last_mut().filter(|outage| outage.ended_us.is_none())
    }

    /// An outage begins, and these channels are called.
    pub(crate) fn begin(&mut self, since: Micros, reason: &str, now: Micros, channels: &[String]) {
        if self.outages.len() == OUTAGES_MAX {
            self.outages.remove(0);
        }
        let mut outage = Outage {
            since_us: since.0,
            ended_us: None,
            reason: reason.to_owned(),
            round: 1,
            round_us: now.0,
            is_restart_asked: false,
            restart_tries: 0,
            channels: BTreeMap::new(),
        };
        outage.call(channels);
        self.outages.push(outage);
    }

    /// It lasts. After `repeat_us` of silence `next` says who is called in the next round. True
    /// when anything changed.
    pub(crate) fn lasts(
        &mut self,
        reason: &str,
        now: Micros,
        repeat_us: i64,
        next: impl FnOnce(u32) -> Vec<String>,
    ) -> bool {
        let Some(outage) = self.open_mut() else { return false };
        let is_due = now.0.saturating_sub(outage.round_us) >= repeat_us;
        if !is_due && outage.reason == reason {
            return false;
        }
        reason.clone_into(&mut outage.reason);
        if is_due {
            (outage.round, outage.round_us) = (outage.round.saturating_add(1), now.0);
            outage.call(&next(outage.round));
        }
        true
    }

    /// It is over.
    pub(crate) fn end(&mut self, at: Micros) {
        if let Some(outage) = self.open_mut() {
            outage.ended_us = Some(at.0);
        }
    }

    /// The next thing that the channel is called for and has not been told: of an outage that is
    /// over its end alone, and of repetitions the last one.
    pub(crate) fn due(&self, channel: &str) -> Option<Due> {
        self.outages.iter().find_map(|outage| {
            let told = outage.channels.get(channel)?;
            let step = match outage.ended_us {
                Some(_) if told.end => return None,
                Some(_) => Step::Ended,
                None if told.round >= told.owed => return None,
                None if told.round == 0 && told.first == 1 => Step::Opened,
                None => Step::Lasts(told.owed),
            };
            let (round, is_repeat) = (told.owed, told.may_know);
            Some(Due { step, outage: outage.clone(), round, is_repeat })
        })
    }

    /// An attempt to tell it is made now.
    pub(crate) fn attempt(&mut self, channel: &str, due: &Due) {
        self.mark(channel, due, |told| (told.may_know, told.is_tried) = (true, true));
    }

    /// The channel has certainly not taken this attempt.
    pub(crate) fn not_taken(&mut self, channel: &str, due: &Due) {
        self.mark(channel, due, |told| told.may_know = due.is_repeat);
    }

    /// It was told, or never will be.
    pub(crate) fn settled(&mut self, channel: &str, due: &Due) {
        self.mark(channel, due, |told| {
            told.may_know = false;
            told.end = due.step == Step::Ended;
            told.round = due.round;
        });
    }

    fn mark(&mut self, channel: &str, due: &Due, change: impl FnOnce(&mut Told)) {
        let same = |outage: &&mut Outage| outage.since_us == due.outage.since_us;
        if let Some(outage) = self.outages.iter_mut().find(same) {
            change(outage.channels.entry(channel.to_owned()).or_default());
        }
    }

    /// The outage that whoever restarts the service is to hear of now: once, when the page is on
    /// its way. Not when it has arrived: what keeps the page may be what keeps the service.
    pub(crate) fn restart_due(&self, channels: &[String]) -> Option<&Outage> {
        let is_paged = |outage: &Outage| {
            channels.is_empty() || outage.channels.values().any(|told| told.is_tried)
        };
        // A store that is away or altered is no better after a restart, and the service may not
        // start.
        let helps = |outage: &Outage| outage.reason != MUTE;
        self.open().filter(|held| !held.is_restart_asked && is_paged(held) && helps(held))
    }

    pub(crate) fn restart_asked(&mut self) {
        if let Some(outage) = self.open_mut() {
            outage.is_restart_asked = true;
        }
    }

    /// Whoever restarts the service could not be reached, and so has not been asked. True while it
    /// is asked again.
    pub(crate) fn restart_unheard(&mut self) -> bool {
        let Some(outage) = self.open_mut() else { return false };
        outage.restart_tries = outage.restart_tries.saturating_add(1);
        outage.is_restart_asked = outage.restart_tries >= RESTART_TRIES;
        !outage.is_restart_asked
    }

    /// Drops what is over and has been told to all of `channels` that were called, or is too old to
    /// be told. True when there was any.
    pub(crate) fn tidy(&mut self, channels: &[String], now: Micros) -> bool {
        let before = self.outages.len();
        self.outages.retain(|outage| {
            let is_told = |name: &String| outage.channels.get(name).is_none_or(|told| told.end);
            let is_old = |ended: i64| Micros(ended).plus_secs(AGE_MAX_S) <= now;
            !outage.ended_us.is_some_and(|ended| is_old(ended) || channels.iter().all(is_told))
        });
        self.outages.len() < before
    }
}

impl Outage {
    /// These channels are called in the round that it has come to.
    fn call(&mut self, channels: &[String]) {
        for name in channels {
            let told = self.channels.entry(name.clone()).or_default();
            if told.owed == 0 {
                told.first = self.round;
            }
            told.owed = self.round;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPEAT_US: i64 = 300_000_000;

    fn at(seconds: i64) -> Micros {
        Micros::from_secs(seconds)
    }

    fn step(book: &Book, channel: &str) -> Option<(Step, bool)> {
        book.due(channel).map(|due| (due.step, due.is_repeat))
    }

    fn tell(book: &mut Book, channel: &str) {
        let due = book.due(channel).unwrap();
        book.attempt(channel, &due);
        book.settled(channel, &due);
    }

    /// Whoever was called first is called again.
    fn both(_: u32) -> Vec<String> {
        names(&["a", "b"])
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_channel_is_told_each_step_once() {
        let mut book = Book::default();
        assert_eq!(step(&book, "a"), None);
        book.begin(at(100), "refused", at(120), &names(&["a", "b"]));
        assert_eq!(step(&book, "a"), Some((Step::Opened, false)));
        tell(&mut book, "a");
        assert_eq!(step(&book, "a"), None);
        assert!(!book.lasts("refused", at(419), REPEAT_US, both), "nothing has changed");
        assert!(book.lasts("silent", at(419), REPEAT_US, both), "the reason has");
        assert_eq!(step(&book, "a"), None);
        assert!(book.lasts("silent", at(420), REPEAT_US, both));
        assert_eq!(step(&book, "a"), Some((Step::Lasts(2), false)));
        assert_eq!(step(&book, "b"), Some((Step::Opened, false)), "it knows of nothing yet");
        tell(&mut book, "a");
        book.end(at(500));
        for channel in ["a", "b"] {
            assert_eq!(step(&book, channel), Some((Step::Ended, false)), "{channel}");
            tell(&mut book, channel);
            assert_eq!(step(&book, channel), None);
        }
        book.tidy(&names(&["a", "b"]), at(501));
        assert_eq!(book, Book::default());
    }

    #[test]
    fn an_attempt_without_a_result_is_a_repeat_and_a_refusal_is_none() {
        let mut book = Book::default();
        book.begin(at(100), "refused", at(120), &names(&["a", "b"]));
        let due = book.due("a").unwrap();
        book.attempt("a", &due);
        // As after a death in the middle.
        let text = serde_json::to_string(&book).unwrap();
        let mut book: Book = serde_json::from_str(&text).unwrap();
        assert_eq!(step(&book, "a"), Some((Step::Opened, true)));
        let again = book.due("a").unwrap();
        book.attempt("a", &again);
        book.not_taken("a", &again);
        assert_eq!(step(&book, "a"), Some((Step::Opened, true)), "the first one may have been");
        let other = book.due("b").unwrap();
        book.attempt("b", &other);
        book.not_taken("b", &other);
        assert_eq!(step(&book, "b"), Some((Step::Opened, false)));
    }

    #[test]
    fn what_ends_is_told_before_what_begins_and_forgotten_in_the_end() {
        let mut book = Book::default();
        book.begin(at(100), "one", at(120), &names(&["a"]));
        tell(&mut book, "a");
        book.end(at(200));
        book.begin(at(300), "two", at(320), &names(&["a"]));
        book.tidy(&names(&["a"]), at(320));
        assert_eq!(step(&book, "a"), Some((Step::Ended, false)));
        tell(&mut book, "a");
        assert_eq!(book.due("a").map(|due| due.outage.reason), Some("two".to_owned()));
        book.end(at(400));
        book.tidy(&names(&["a"]), at(399 + AGE_MAX_S));
        assert_eq!(step(&book, "a"), Some((Step::Ended, false)));
        book.tidy(&names(&["a"]), at(400 + AGE_MAX_S));
        assert_eq!(step(&book, "a"), None);
        for second in 0..100 {
            book.begin(at(second), "again", at(second), &names(&["a"]));
            book.end(at(second));
        }
        assert_eq!(book.outages.len(), OUTAGES_MAX);
    }

    #[test]
    fn a_restart_is_asked_for_once_and_after_the_page() {
        let mut book = Book::default();
        let channels = names(&["a"]);
        let is_due = |book: &Book, channels: &[String]| book.restart_due(channels).is_some();
        assert!(!is_due(&book, &channels));
        book.begin(at(100), "refused", at(120), &names(&["a", "b"]));
        assert!(!is_due(&book, &channels), "nobody knows yet");
        assert!(is_due(&book, &[]), "nobody can be told");
        let due = book.due("a").unwrap();
        book.attempt("a", &due);
        assert!(is_due(&book, &channels));
        book.restart_asked();
        assert!(!is_due(&book, &channels));
    }

    #[test]
    fn repetitions_climb_and_whoever_is_called_later_hears_that_it_lasts() {
        let mut book = Book::default();
        let ladder = [names(&["chat", "primary"]), names(&["primary"]), names(&["secondary"])];
        let next = |round: u32| ladder[usize::try_from(round).unwrap().min(3) - 1].clone();
        book.begin(at(100), "refused", at(120), &next(1));
        tell(&mut book, "chat");
        assert_eq!(step(&book, "secondary"), None, "not its turn");
        assert!(book.lasts("refused", at(420), REPEAT_US, next));
        assert_eq!(step(&book, "chat"), None, "it knows");
        assert_eq!(step(&book, "primary"), Some((Step::Opened, false)), "it knows of nothing yet");
        tell(&mut book, "primary");
        assert!(book.lasts("refused", at(720), REPEAT_US, next));
        assert_eq!(step(&book, "primary"), None);
        assert_eq!(step(&book, "secondary"), Some((Step::Lasts(3), false)));
        tell(&mut book, "secondary");
        // At its end the ladder goes no higher, and is not left either.
        assert!(book.lasts("refused", at(1_020), REPEAT_US, next));
        assert_eq!(step(&book, "secondary"), Some((Step::Lasts(4), false)));
        book.end(at(1_030));
        let told = names(&["chat", "primary", "secondary", "executive"]);
        for channel in &told[..3] {
            assert_eq!(step(&book, channel), Some((Step::Ended, false)), "{channel}");
            assert!(!book.tidy(&told, at(1_031)));
            tell(&mut book, channel);
        }
        assert_eq!(step(&book, "executive"), None, "never called");
        assert!(book.tidy(&told, at(1_031)));
    }

    #[test]
    fn whoever_restarts_is_asked_again_where_it_could_not_be_reached_and_not_for_ever() {
        let mut book = Book::default();
        book.begin(at(100), "refused", at(120), &[]);
        for attempt in 1..=RESTART_TRIES {
            assert!(book.restart_due(&[]).is_some(), "{attempt}");
            book.restart_asked();
            assert!(book.restart_due(&[]).is_none());
            assert_eq!(book.restart_unheard(), attempt < RESTART_TRIES, "{attempt}");
        }
        assert!(book.restart_due(&[]).is_none());
        book.end(at(200));
        assert!(!book.restart_unheard(), "it is over");
        book.begin(at(300), "refused", at(320), &[]);
        assert!(book.restart_due(&[]).is_some(), "another outage");
    }

    #[test]
    fn no_restart_is_asked_for_a_store_that_fails_until_the_service_does() {
        let mut book = Book::default();
        book.begin(at(100), MUTE, at(120), &[]);
        assert!(book.restart_due(&[]).is_none());
        assert!(book.lasts("refused", at(130), REPEAT_US, both));
        assert!(book.restart_due(&[]).is_some());
    }
}
