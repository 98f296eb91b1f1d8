//! The governor of notices: what was told over which channel.
//!
//! INV-19: what is told of an incident stands between two receipts, in order on each channel, and
//! nothing that a channel has taken is told to it again.
//!
//! Owns: the place of each channel, and the attempt under way. Refuses to know: what a notice says,
//! and how a channel is reached.
//!
//! What is to be told stands in `_incidents`: every receipt with a `tell`. A channel is a place in
//! that stream, which goes on when a notice has been taken or will never be.

use ledger::{Kind, Meta, View};
use serde::{Deserialize, Serialize};
use types::{Micros, Reason, ReceiptId, limits};

use crate::command::{Command, NoticeChange, TellOutcome, Telling};
use crate::decision::{Context, Decision, Rejection, Sealing};
use crate::draft::{is_keepable, rule, ruled, transition};
use crate::snapshot::word;
use crate::state::FoldError;
use crate::{invalid_field, wrong_stream};

/// The field `action` of the receipts.
const TELL: &str = "tell";

/// An attempt whose outcome nobody has sealed for so long is nobody's: its process is gone.
const OWNER_S: i64 = 120;

/// The newest places that a channel is remembered to have taken, and incidents of which it has.
const TAKEN_MAX: usize = 64;
const HEARD_MAX: usize = 64;

/// The state of a channel that is tried on purpose.
const LIVE: &str = "live";

/// The state of the stream `_notices`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoticesState {
    /// In ascending order of names.
    channels: Vec<Channel>,
}

/// One channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Everything in `_incidents` before this place was taken, refused for good, or not for it.
    pub next: u64,
    /// What is being told now.
    pub open: Option<OpenNotice>,
    /// How often the notice at hand was tried without success.
    pub failures: u32,
    /// How many of these tries may have been taken.
    pub unknowns: u32,
    /// The newest places that the far side has taken, ascending.
    #[serde(default)]
    taken: Vec<u64>,
    /// The newest incidents of which the far side has taken anything, in the order of their coming.
    #[serde(default)]
    heard: Vec<String>,
    /// When it took anything last, in microseconds.
    #[serde(default)]
    pub last_taken_us: Option<i64>,
    /// When an attempt failed last, in microseconds.
    #[serde(default)]
    pub last_failed_us: Option<i64>,
    /// Why, in our own words.
    #[serde(default)]
    pub last_error: Option<String>,
}

/// An attempt without a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenNotice {
    /// The attempt's receipt.
    #[serde(with = "word")]
    pub attempt: ReceiptId,
    /// What is told: a place in `_incidents`.
    pub seq: u64,
    /// When it began, in microseconds.
    pub since_us: i64,
    /// The incident that it is about.
    #[serde(default)]
    incident: String,
}

impl Channel {
    fn new(name: String, next: u64) -> Channel {
        Channel {
            name,
            next,
            open: None,
            failures: 0,
            unknowns: 0,
            taken: Vec::new(),
            heard: Vec::new(),
            last_taken_us: None,
            last_failed_us: None,
            last_error: None,
        }
    }

    /// True where it is known that the far side has taken what stands at this place; of one that is
    /// long past nobody knows it any more.
    #[must_use]
    pub fn has_taken(&self, place: u64) -> bool {
        self.taken.binary_search(&place).is_ok()
    }

    /// True where it is known that the far side has taken anything of the incident; of one that is
    /// long past nobody knows it any more.
    #[must_use]
    pub fn has_heard_of(&self, incident: &str) -> bool {
        self.heard.iter().any(|held| held == incident)
    }

    fn take(&mut self, place: u64, incident: String) {
        let older = (self.taken.len() + 1).saturating_sub(TAKEN_MAX);
        self.taken.drain(..older);
        self.taken.push(place);
        self.heard.retain(|held| *held != incident);
        let older = (self.heard.len() + 1).saturating_sub(HEARD_MAX);
        self.heard.drain(..older);
        self.heard.push(incident);
    }

    /// Takes note of how an attempt went.
    fn learn(&mut self, outcome: TellOutcome, receipt: &View<'_>) {
        match outcome {
            TellOutcome::Delivered => self.last_taken_us = Some(receipt.at.0),
            // Nothing was tried.
            TellOutcome::Superseded => {}
            TellOutcome::Again
            | TellOutcome::Refused
            | TellOutcome::Unknown
            | TellOutcome::GivenUp => {
                self.last_failed_us = Some(receipt.at.0);
                self.last_error = receipt.meta_text("why").map(|why| why.into_owned());
            }
        }
    }
}

impl OpenNotice {
    /// True when whoever made the attempt will not settle it any more.
    #[must_use]
    pub fn is_nobodys(&self, now: Micros) -> bool {
        Micros(self.since_us).plus_secs(OWNER_S) <= now
    }
}

impl NoticesState {
    /// The channels that were ever told of anything, in ascending order of names.
    #[must_use]
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The channel of that name.
    #[must_use]
    pub fn channel(&self, name: &str) -> Option<&Channel> {
        self.find(name).ok().map(|at| &self.channels[at])
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.channels.binary_search_by(|held| (*held.name).cmp(name))
    }

    /// True when a fold can lead to this state.
    pub(crate) fn is_folded(&self) -> bool {
        let behind = |held: &Channel| held.open.as_ref().is_none_or(|open| open.seq >= held.next);
        let ascend = |held: &Channel| held.taken.is_sorted_by(|a, b| a < b);
        self.channels.is_sorted_by(|a, b| a.name < b.name)
            && self.channels.iter().all(|held| behind(held) && ascend(held))
    }

    /// Folds one receipt that is no refusal.
    pub(crate) fn apply(&mut self, rule: &str, receipt: &View<'_>) -> Result<(), FoldError> {
        let subject = receipt.subject.ok_or(FoldError::Field { field: "subject" })?.text();
        let found = self.find(&subject);
        if (receipt.kind, rule) == (Kind::Transition, rule::NOTICE_TEST) {
            let outcome = outcome(receipt)?;
            if let Ok(at) = found {
                self.channels[at].learn(outcome, receipt);
            }
            return Ok(());
        }
        let place = receipt.meta_int("place").and_then(|place| u64::try_from(place).ok());
        let place = place.ok_or(FoldError::Field { field: "place" })?;
        match (receipt.kind, rule, found) {
            (Kind::Transition, rule::NOTICE_BEGIN, Err(at)) => {
                self.channels.insert(at, Channel::new(subject.into_owned(), place));
            }
            (Kind::ActionAttempt, rule::NOTICE_TELL, Ok(at)) => {
                let channel = &mut self.channels[at];
                if channel.open.is_some() || place < channel.next {
                    return Err(FoldError::SecondAttempt);
                }
                if place > channel.next {
                    (channel.failures, channel.unknowns) = (0, 0);
                }
                channel.next = place;
                channel.open = Some(OpenNotice {
                    attempt: receipt.id,
                    seq: place,
                    since_us: receipt.at.0,
                    incident: receipt.meta_text("incident").unwrap_or_default().into_owned(),
                });
            }
            (Kind::ActionResult, rule::NOTICE_TOLD, Ok(at)) => {
                let outcome = outcome(receipt)?;
                let channel = &mut self.channels[at];
                let is_its = |open: &mut OpenNotice| receipt.intent == Some(open.attempt);
                let open = channel.open.take_if(is_its).ok_or(FoldError::NotInFlight)?;
                channel.learn(outcome, receipt);
                if outcome == TellOutcome::Delivered {
                    channel.take(place, open.incident);
                }
                if outcome.is_final() {
                    channel.next = place + 1;
                    (channel.failures, channel.unknowns) = (0, 0);
                } else {
                    channel.failures = channel.failures.saturating_add(1);
                    let unknown = u32::from(outcome == TellOutcome::Unknown);
                    channel.unknowns = channel.unknowns.saturating_add(unknown);
                }
            }
            _ => return Err(FoldError::UnknownRule),
        }
        Ok(())
    }
}

fn outcome(receipt: &View<'_>) -> Result<TellOutcome, FoldError> {
    let word = receipt.status.ok_or(FoldError::Field { field: "status" })?.text();
    TellOutcome::parse(&word).ok_or(FoldError::Field { field: "status" })
}

/// Decides a command on the stream.
pub(crate) fn decide(state: &NoticesState, command: &Command, cx: &Context<'_>) -> Decision {
    match command {
        Command::Notice(NoticeChange::Begin { channel, from }) => begin(state, channel, *from, cx),
        Command::Notice(NoticeChange::Tell(telling)) => tell(state, telling, cx),
        Command::Notice(NoticeChange::Told { attempt, outcome, why }) => {
            settle(state, *attempt, *outcome, why.as_deref(), cx)
        }
        Command::Notice(NoticeChange::Tested { channel, outcome, why }) => {
            tested(channel, *outcome, why.as_deref(), cx)
        }
        Command::Tick => Decision::Nothing,
        _ => wrong_stream(),
    }
}

/// A channel that was not there before is told what comes from now on.
fn begin(state: &NoticesState, channel: &str, from: u64, cx: &Context<'_>) -> Decision {
    if channel.is_empty() || !is_keepable(channel, limits::METADATA_VALUE_CHARS) {
        return invalid_field("channel is no name");
    }
    if state.channel(channel).is_some() {
        return Decision::Nothing;
    }
    if state.channels.len() >= 2 * limits::CHANNELS {
        return refused("there are as many channels as may be");
    }
    let mut draft = transition(TELL, rule::NOTICE_BEGIN, cx.actor)
        .states("absent", LIVE)
        .with("place", int(from));
    draft.subject = Some(channel.to_owned().into());
    seal(draft)
}

fn tell(state: &NoticesState, telling: &Telling, cx: &Context<'_>) -> Decision {
    let Some(channel) = state.channel(&telling.channel) else {
        return refused("the channel has not begun");
    };
    if channel.open.is_some() {
        return refused("the channel is being told something");
    }
    if telling.seq < channel.next {
        return refused("the channel was told this");
    }
    let mut draft = ruled(Kind::ActionAttempt, TELL, rule::NOTICE_TELL, cx.actor)
        .with("place", int(telling.seq))
        .with("incident", Meta::Text(telling.incident.clone().into()));
    draft.subject = Some(telling.channel.clone().into());
    seal(draft)
}

fn settle(
    state: &NoticesState,
    attempt: ReceiptId,
    outcome: TellOutcome,
    why: Option<&str>,
    cx: &Context<'_>,
) -> Decision {
    let its = |held: &&Channel| held.open.as_ref().is_some_and(|open| open.attempt == attempt);
    let found = state.channels.iter().find(its).and_then(|held| Some((held, held.open.as_ref()?)));
    let Some((channel, open)) = found else {
        return refused("no such notice is being told");
    };
    let mut draft = ruled(Kind::ActionResult, TELL, rule::NOTICE_TOLD, cx.actor)
        .with("place", int(open.seq))
        .with("duration_ms", Meta::Int((cx.now.0 - open.since_us).max(0) / 1_000));
    draft.subject = Some(channel.name.clone().into());
    draft.intent = Some(attempt);
    draft.status = Some(outcome.as_str().into());
    seal(said_why(draft, why))
}

/// A channel was tried on purpose: who asked and what came of it. It moves no place.
fn tested(channel: &str, outcome: TellOutcome, why: Option<&str>, cx: &Context<'_>) -> Decision {
    if channel.is_empty() || !is_keepable(channel, limits::METADATA_VALUE_CHARS) {
        return invalid_field("channel is no name");
    }
    let mut draft = transition(TELL, rule::NOTICE_TEST, cx.actor).states(LIVE, LIVE);
    draft.subject = Some(channel.to_owned().into());
    draft.status = Some(outcome.as_str().into());
    seal(said_why(draft, why))
}

fn said_why(draft: ledger::Draft, why: Option<&str>) -> ledger::Draft {
    match why.filter(|why| is_keepable(why, limits::METADATA_VALUE_CHARS)) {
        Some(why) => draft.with("why", Meta::Text(why.to_owned().into())),
        None => draft,
    }
}

fn int(place: u64) -> Meta {
    Meta::Int(i64::try_from(place).unwrap_or(limits::INTEGER_MAX))
}

fn seal(draft: ledger::Draft) -> Decision {
    Decision::Seal(Sealing { drafts: vec![draft], primary: 0, effect: None })
}

fn refused(detail: &str) -> Decision {
    Decision::Reject(Rejection {
        reason: Reason::StateError,
        detail: detail.to_owned(),
        retry_after_s: None,
    })
}
