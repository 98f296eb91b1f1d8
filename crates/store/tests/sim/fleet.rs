//! Several instances on one shared store that fails in every way that the port permits.
//!
//! Owns: who is asked what and when, who pauses and who dies, and the questions at the end.
//! Refuses to know: how the store fails, which `shared_store` owns.
//!
//! Instances are driven in the order that the seed says, one or two at a time. What two of them do
//! at the same moment, and how commands fall into groups, is up to the machine's threads: a seed
//! repeats the plan, and a failure of it in all likelihood but not for certain.

use std::cell::RefCell;
use std::env;
use std::time::Duration;

use engine::ports::Store;
use testkit::dice::Dice;
use types::{Micros, Reason};

use crate::book::{Book, Fault, Heard};
use crate::instance::Instance;
use crate::judge::judge;
use crate::shared_store::{Seen, SharedStore, Writer};
use crate::workload::{Ask, Workload};

/// Questions of one seed.
const ASKS: u64 = 400;
/// Questions that are asked at once, at most.
const BURST_MAX: u64 = 8;
/// Seeds without a word from outside.
const SEEDS: u64 = 6;
/// Times that a question is asked again of a store without faults before it counts as lost.
const TRIES_MAX: usize = 50;
/// How often an instance looks for what is due and unsettled while it is driven.
const CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// How many seeds, and the first of them.
const SEED_COUNT: &str = "SIM_SEEDS";
const SEED: &str = "SIM_SEED";

#[test]
fn nothing_is_lost_or_doubled_between_instances_of_a_store_that_fails() {
    let number = |name: &str| Some(env::var_os(name)?.to_str()?.parse::<u64>().unwrap());
    let (first, count) = (number(SEED).unwrap_or(1), number(SEED_COUNT).unwrap_or(SEEDS));
    for seed in first..first + count {
        let seen = Fleet::new(seed).run().unwrap_or_else(|(round, fault)| {
            panic!("{fault}\nround {round}; to repeat it: {SEED}={seed} {SEED_COUNT}=1")
        });
        assert!(seen.lost_races > 0 && seen.unknown_written + seen.late_written > 0, "{seen:?}");
        println!("seed {seed}: {seen:?}");
    }
}

#[test]
fn a_store_that_forgets_keys_is_found_out() {
    let fleet = Fleet::new(1);
    fleet.store.forget_keys();
    let (_, fault) = fleet.run().unwrap_err();
    assert!(matches!(fault, Fault::Doubled(_)), "{fault}");
}

/// The instances of one seed.
struct Fleet {
    dice: Dice,
    workload: Workload,
    store: std::sync::Arc<SharedStore>,
    members: Vec<Member>,
    book: Book,
}

/// An instance, with how far its clock is off and how long it does nothing.
struct Member {
    instance: Instance<Writer>,
    skew_us: i64,
    paused_until: u64,
}

type Answers = Vec<(Ask, Heard)>;

impl Fleet {
    fn new(seed: u64) -> Fleet {
        let dice = Dice::new(seed).part(u64::MAX);
        let workload = Workload::new(seed);
        let store = SharedStore::new(seed);
        Fleet { dice, workload, store, members: Vec::new(), book: Book::default() }
    }

    /// Gives the round and the fault that showed in it.
    fn run(mut self) -> Result<Seen, (u64, Fault)> {
        self.store.set_faults(Some(self.dice.part(1)));
        self.members = (0..3).map(|_| self.join()).collect();
        let (mut nth, mut round) = (0, 0);
        while nth < ASKS {
            round += 1;
            let end = (nth + 1 + self.dice.below(BURST_MAX)).min(ASKS);
            self.disturb(round);
            self.round(round, nth..end).map_err(|fault| (round, fault))?;
            nth = end;
        }
        self.settle().map_err(|fault| (round, fault))?;
        Ok(self.store.seen())
    }

    fn join(&mut self) -> Member {
        let instance = Instance::start(std::sync::Arc::new(self.store.writer()), CHECK_INTERVAL);
        let skew_us = self.dice.below(240_000_000).cast_signed() - 120_000_000;
        Member { instance, skew_us, paused_until: 0 }
    }

    /// Now and then one dies, and now and then one stops so long that the others give it up.
    fn disturb(&mut self, round: u64) {
        let which = usize::try_from(self.dice.below(self.members.len() as u64)).unwrap();
        if self.dice.percent(6) || !self.members[which].instance.is_running() {
            let new = self.join();
            drop(std::mem::replace(&mut self.members[which], new).instance.kill());
        } else if self.dice.percent(6) {
            self.members[which].paused_until = round + 1 + self.dice.below(8);
            self.members[which].instance.store().set_alive(false);
        }
        for member in self.members.iter_mut().filter(|member| member.paused_until == round) {
            member.instance.store().set_alive(true);
        }
    }

    /// Asks two instances at once, or one.
    fn round(&mut self, round: u64, asks: std::ops::Range<u64>) -> Result<(), Fault> {
        let awake: Vec<usize> =
            (0..self.members.len()).filter(|n| self.members[*n].paused_until <= round).collect();
        if awake.is_empty() {
            return Ok(());
        }
        let asks: Vec<Ask> = asks.map(|nth| self.workload.ask(nth)).collect();
        let (first, second) = (*self.dice.pick(&awake), *self.dice.pick(&awake));
        let answers = if first == second {
            self.members[first].ask(&asks)
        } else {
            let (one, other) = asks.split_at(asks.len() / 2);
            let (first, second) = (&self.members[first], &self.members[second]);
            std::thread::scope(|scope| {
                let beside = scope.spawn(|| second.ask(other));
                let mut answers = first.ask(one);
                answers.extend(beside.join().unwrap());
                answers
            })
        };
        for (ask, heard) in answers {
            self.book.hear(&ask, &heard)?;
        }
        self.members.iter().try_for_each(|member| member.instance.check_calm())
    }

    /// The store works again: everything is asked once more, of anybody, and all must agree.
    fn settle(&mut self) -> Result<(), Fault> {
        self.store.set_faults(None);
        for which in 0..self.members.len() {
            self.members[which].instance.store().set_alive(true);
            if !self.members[which].instance.is_running() {
                let new = self.join();
                drop(std::mem::replace(&mut self.members[which], new).instance.kill());
            }
        }
        if !self.members.iter().all(|member| member.instance.recover()) {
            return Err(Fault::Differs("a store that works is never taken for one".into()));
        }
        for nth in 0..ASKS {
            let ask = Ask { gives_up: false, ..self.workload.ask(nth) };
            if ask.key.is_some() {
                let which = usize::try_from(self.dice.below(self.members.len() as u64)).unwrap();
                let heard = self.members[which].persist(&ask)?;
                self.book.demand(&ask, &heard)?;
                self.book.hear(&ask, &heard)?;
            }
        }
        self.agree()
    }

    /// No attempt is left open, and every instance reads what the receipts say.
    fn agree(&self) -> Result<(), Fault> {
        // One clock for all, so that nothing happens any more once nothing is due.
        let end = Workload::at(2 * ASKS);
        let calm = |store: &Writer| {
            store.unsettled(1).unwrap().is_empty() && store.due(end, 1).unwrap().is_empty()
        };
        self.members.iter().for_each(|member| member.instance.clock.set(end));
        // Twice: what the last one settles may be the first one's to finish.
        for member in self.members.iter().chain(&self.members) {
            if !member.instance.wait(calm) {
                return Err(Fault::Differs("an attempt is never settled".into()));
            }
        }
        for member in &self.members {
            let judged = judge(member.instance.store(), &self.book)?;
            if let Some(open) = judged.open.first() {
                return Err(Fault::Differs(format!("{open} is open and nobody's")));
            }
            for (stream, folded) in &judged.states {
                if member.instance.state(stream).map_err(Fault::FalseAlarm)? != *folded {
                    return Err(Fault::Differs(format!("{stream} is read differently")));
                }
            }
            member.instance.check_calm()?;
        }
        Ok(())
    }
}

impl Member {
    fn ask(&self, asks: &[Ask]) -> Answers {
        let answers = RefCell::new(Vec::with_capacity(asks.len()));
        if let Some(ask) = asks.first() {
            self.instance.clock.set(Micros(Workload::at(ask.nth).0 + self.skew_us));
            self.instance.ask(asks, |ask, heard| answers.borrow_mut().push((ask.clone(), heard)));
        }
        answers.into_inner()
    }

    /// Asks as long as the answer says that asking again may help.
    fn persist(&self, ask: &Ask) -> Result<Heard, Fault> {
        for _ in 0..TRIES_MAX {
            let answers = self.ask(std::slice::from_ref(ask));
            let Some((_, heard)) = answers.into_iter().next() else { continue };
            if !matches!(&heard, Heard::Refused(code) if is_retryable(code)) {
                return Ok(heard);
            }
        }
        Err(Fault::Lost(format!("question {} is never answered", ask.nth)))
    }
}

fn is_retryable(code: &str) -> bool {
    let reason = Reason::ALL.iter().find(|reason| reason.code() == code);
    // A throttled tenant stays throttled while its clock stands still.
    reason.is_some_and(|reason| reason.retryable() && *reason != Reason::RateLimitExceeded)
}
