//! The governor of live changes: settings that hold without a restart, and sources that are
//! refused.
//!
//! Owns: what is kept, what is leased, and that every lease ends by itself. Refuses to know: which
//! settings there are, what a value means, and who is behind a source.

use ledger::{Draft, Kind, Meta, View};
use serde::{Deserialize, Serialize};
use types::{Micros, Reason, limits};

use crate::command::{Command, SettingChange, SourceChange};
use crate::decision::{Context, Decision, Sealing};
use crate::draft::{Secs, TIME, is_keepable, refusal, rule, transition};
use crate::invalid_field;
use crate::state::FoldError;
use crate::tick::DRAFTS_MAX;

/// Settings with a live change at the same time: more than there are settings.
const SETTINGS_MAX: usize = 200;
/// Characters of a source: more than the longest network of IPv6 has.
const SOURCE_CHARS: usize = 64;

/// The field `action` of the receipts; `rule` says what was done.
const SETTING: &str = "setting";
const SOURCE: &str = "source";

const OPEN: &str = "open";
const BLOCKED: &str = "blocked";

/// What stands in the stream `_settings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveState {
    /// In ascending order of names. One without any change is not kept.
    settings: Vec<Setting>,
    /// In ascending order of their texts.
    sources: Vec<Source>,
}

/// One setting with a live change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveValue<'a> {
    /// The setting's name.
    pub name: &'a str,
    /// The value that stays.
    pub kept: Option<&'a str>,
    /// The value that covers it, and until when: from that instant on it counts no more, whether
    /// or not its end has been receipted.
    pub lease: Option<(&'a str, Micros)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setting {
    name: Box<str>,
    kept: Option<Box<str>>,
    lease: Option<Lease>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    value: Box<str>,
    until: Secs,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    source: Box<str>,
    until: Secs,
}

impl LiveState {
    /// The settings with a live change, in ascending order of their names.
    pub fn values(&self) -> impl Iterator<Item = LiveValue<'_>> {
        self.settings.iter().map(|setting| LiveValue {
            name: &setting.name,
            kept: setting.kept.as_deref(),
            lease: setting.lease.as_ref().map(|lease| (&*lease.value, lease.until.instant())),
        })
    }

    /// The blocked sources and until when each is, in ascending order of their texts. From that
    /// instant on a source is open, whether or not the end of its block has been receipted.
    pub fn sources(&self) -> impl Iterator<Item = (&str, Micros)> {
        self.sources.iter().map(|held| (&*held.source, held.until.instant()))
    }

    /// When the first lease ends.
    pub(crate) fn next_due(&self) -> Option<Secs> {
        let leases = self.settings.iter().filter_map(Setting::until);
        leases.chain(self.sources.iter().map(|held| held.until)).min()
    }

    fn find_setting(&self, name: &str) -> Result<usize, usize> {
        self.settings.binary_search_by(|held| (*held.name).cmp(name))
    }

    fn find_source(&self, source: &str) -> Result<usize, usize> {
        self.sources.binary_search_by(|held| (*held.source).cmp(source))
    }

    /// The setting of that name; one that nobody changed is blank.
    fn setting(&self, name: &str) -> Setting {
        match self.find_setting(name) {
            Ok(at) => self.settings[at].clone(),
            Err(_) => Setting { name: name.into(), kept: None, lease: None },
        }
    }

    /// Folds one transition by a rule of settings or sources.
    pub(crate) fn apply(&mut self, rule: &str, receipt: &View<'_>) -> Result<(), FoldError> {
        let subject = receipt.subject.ok_or(FoldError::Field { field: "subject" })?.text();
        match rule {
            rule::SETTINGS_SET
            | rule::SETTINGS_LEASE
            | rule::SETTINGS_CLEAR
            | rule::SETTINGS_LEASE_END => self.apply_setting(rule, &subject, receipt),
            rule::SOURCE_BLOCK | rule::SOURCE_UNBLOCK | rule::SOURCE_LEASE_END => {
                self.apply_source(rule, &subject, receipt)
            }
            _ => Err(FoldError::UnknownRule),
        }
    }

    fn apply_setting(
        &mut self,
        rule: &str,
        name: &str,
        receipt: &View<'_>,
    ) -> Result<(), FoldError> {
        let mut setting = self.setting(name);
        setting.apply(rule, receipt)?;
        match (self.find_setting(name), setting.is_blank()) {
            (Ok(at), true) => {
                self.settings.remove(at);
            }
            (Ok(at), false) => self.settings[at] = setting,
            (Err(_), true) => {}
            (Err(at), false) => self.settings.insert(at, setting),
        }
        Ok(())
    }

    fn apply_source(
        &mut self,
        rule: &str,
        source: &str,
        receipt: &View<'_>,
    ) -> Result<(), FoldError> {
        let found = self.find_source(source);
        let from = if found.is_ok() { BLOCKED } else { OPEN };
        if !receipt.state_from.is_some_and(|word| word.is(from)) {
            return Err(FoldError::StateFrom);
        }
        match (rule, found) {
            (rule::SOURCE_BLOCK, found) => {
                let until = receipt.expires_at.map(Secs);
                let until = until.ok_or(FoldError::Field { field: "expires_at" })?;
                match found {
                    Ok(at) => self.sources[at].until = until,
                    Err(at) => self.sources.insert(at, Source { source: source.into(), until }),
                }
            }
            (rule::SOURCE_UNBLOCK, Ok(at)) => {
                self.sources.remove(at);
            }
            (rule::SOURCE_LEASE_END, Ok(at)) if self.sources[at].until.reached(receipt.at) => {
                self.sources.remove(at);
            }
            _ => return Err(FoldError::StateFrom),
        }
        Ok(())
    }

    /// True when a fold can lead to this state.
    pub(crate) fn is_folded(&self) -> bool {
        self.settings.is_sorted_by(|a, b| a.name < b.name)
            && !self.settings.iter().any(Setting::is_blank)
            && self.sources.is_sorted_by(|a, b| a.source < b.source)
    }
}

impl Setting {
    fn is_blank(&self) -> bool {
        self.kept.is_none() && self.lease.is_none()
    }

    fn until(&self) -> Option<Secs> {
        self.lease.as_ref().map(|lease| lease.until)
    }

    fn word(&self) -> &'static str {
        match (&self.lease, &self.kept) {
            (Some(_), _) => "leased",
            (None, Some(_)) => "live",
            (None, None) => "default",
        }
    }

    /// Ends the lease if it is over at `now`: returns the receipt to be and moves on as the fold
    /// of that receipt will.
    fn take_due(&mut self, now: Micros) -> Option<Draft> {
        let from = self.word();
        let lease = self.lease.take_if(|lease| lease.until.reached(now))?;
        let draft = transition(SETTING, rule::SETTINGS_LEASE_END, TIME).states(from, self.word());
        Some(Draft {
            subject: Some(self.name.to_string().into()),
            expires_at: Some(lease.until.instant()),
            ..draft
        })
    }

    /// Moves on by one receipt; a copy does, so that an error leaves no trace.
    fn apply(&mut self, rule: &str, receipt: &View<'_>) -> Result<(), FoldError> {
        if !receipt.state_from.is_some_and(|word| word.is(self.word())) {
            return Err(FoldError::StateFrom);
        }
        let value = || {
            let value = receipt.meta_text("value").ok_or(FoldError::Field { field: "value" })?;
            Ok(value.as_ref().into())
        };
        match rule {
            rule::SETTINGS_SET => (self.kept, self.lease) = (Some(value()?), None),
            rule::SETTINGS_LEASE => {
                let until = receipt.expires_at.map(Secs);
                let until = until.ok_or(FoldError::Field { field: "expires_at" })?;
                self.lease = Some(Lease { value: value()?, until });
            }
            rule::SETTINGS_CLEAR if !self.is_blank() => (self.kept, self.lease) = (None, None),
            rule::SETTINGS_LEASE_END if self.until().is_some_and(|at| at.reached(receipt.at)) => {
                self.lease = None;
            }
            _ => return Err(FoldError::StateFrom),
        }
        let agrees = receipt.state_to.is_some_and(|word| word.is(self.word()));
        if agrees { Ok(()) } else { Err(FoldError::Field { field: "state_to" }) }
    }
}

/// Decides a live change to a setting. What has fallen due on it is receipted first, so that a
/// change never meets a lease that is already over.
pub(crate) fn decide_setting(
    state: &LiveState,
    change: &SettingChange,
    cx: &Context<'_>,
) -> Decision {
    if let Some(fault) = setting_fault(change) {
        return invalid_field(fault);
    }
    let (SettingChange::Set { name, .. } | SettingChange::Clear { name }) = change;
    let full = state.settings.len() >= SETTINGS_MAX && state.find_setting(name).is_err();
    let mut held = state.setting(name);
    let first = held.take_due(cx.now);
    let from = held.word();
    let refused = |rule, detail: &str| {
        let draft = refusal(SETTING, rule, cx.actor, Reason::StateError, detail.to_owned());
        Draft { state_from: Some(from.into()), ..draft }
    };
    let answer = match change {
        SettingChange::Set { .. } if full => {
            refused(rule::SETTINGS_SET, "as many settings are changed live as may be")
        }
        // From now on this value: a lease would go on to hide it, so it ends here.
        SettingChange::Set { value, lease_s: None, .. } => {
            transition(SETTING, rule::SETTINGS_SET, cx.actor)
                .states(from, "live")
                .with("value", Meta::Text(value.clone().into()))
        }
        SettingChange::Set { value, lease_s: Some(lease_s), .. } => {
            let mut draft = transition(SETTING, rule::SETTINGS_LEASE, cx.actor)
                .states(from, "leased")
                .with("value", Meta::Text(value.clone().into()));
            draft.expires_at = Some(until(cx.now, *lease_s));
            draft
        }
        SettingChange::Clear { .. } if held.is_blank() => {
            refused(rule::SETTINGS_CLEAR, "there is no live change to clear")
        }
        SettingChange::Clear { .. } => {
            transition(SETTING, rule::SETTINGS_CLEAR, cx.actor).states(from, "default")
        }
    };
    let answer = Draft { subject: Some(name.clone().into()), ..answer };
    seal(first, answer)
}

/// Decides a change to the blocked sources.
pub(crate) fn decide_source(
    state: &LiveState,
    change: &SourceChange,
    cx: &Context<'_>,
) -> Decision {
    if let Some(fault) = source_fault(change) {
        return invalid_field(fault);
    }
    let (SourceChange::Block { source, .. } | SourceChange::Unblock { source }) = change;
    let held = state.find_source(source).ok().map(|at| &state.sources[at]);
    let over = |held: &&Source| held.until.reached(cx.now);
    let full = held.is_none() && state.sources.len() >= limits::SOURCES_BLOCKED;
    let first = match change {
        // A block that is over and not receipted yet must not keep another from taking its place.
        SourceChange::Block { .. } if full => {
            state.sources.iter().filter(over).min_by_key(|held| held.until)
        }
        SourceChange::Block { .. } | SourceChange::Unblock { .. } => held.filter(over),
    };
    let from = if held.is_some_and(|held| !over(&held)) { BLOCKED } else { OPEN };
    let refused = |rule, detail: &str| {
        let draft = refusal(SOURCE, rule, cx.actor, Reason::StateError, detail.to_owned());
        Draft { state_from: Some(from.into()), ..draft }
    };
    let answer = match change {
        SourceChange::Block { .. } if full && first.is_none() => {
            refused(rule::SOURCE_BLOCK, "as many sources are blocked as may be")
        }
        SourceChange::Block { lease_s, .. } => {
            let draft = transition(SOURCE, rule::SOURCE_BLOCK, cx.actor).states(from, BLOCKED);
            Draft { expires_at: Some(until(cx.now, *lease_s)), ..draft }
        }
        SourceChange::Unblock { .. } if from == OPEN => {
            refused(rule::SOURCE_UNBLOCK, "the source is not blocked")
        }
        SourceChange::Unblock { .. } => {
            transition(SOURCE, rule::SOURCE_UNBLOCK, cx.actor).states(BLOCKED, OPEN)
        }
    };
    let answer = Draft { subject: Some(source.clone().into()), ..answer };
    seal(first.map(Source::end), answer)
}

/// Ends every lease that is over, the oldest first and a bounded number at once.
pub(crate) fn tick(state: &LiveState, cx: &Context<'_>) -> Decision {
    let settings =
        state.settings.iter().filter_map(|held| Some((held.until()?, Leased::Setting(held))));
    let sources = state.sources.iter().map(|held| (held.until, Leased::Source(held)));
    let mut due: Vec<(Secs, Leased<'_>)> =
        settings.chain(sources).filter(|(until, _)| until.reached(cx.now)).collect();
    due.sort_by_key(|(until, _)| *until);
    let drafts: Vec<Draft> = due
        .into_iter()
        .take(DRAFTS_MAX)
        .filter_map(|(_, leased)| match leased {
            Leased::Setting(setting) => setting.clone().take_due(cx.now),
            Leased::Source(source) => Some(source.end()),
        })
        .collect();
    if drafts.is_empty() {
        return Decision::Nothing;
    }
    Decision::Seal(Sealing { drafts, primary: 0, effect: None })
}

/// What a lease is on.
enum Leased<'a> {
    Setting(&'a Setting),
    Source(&'a Source),
}

impl Source {
    /// The receipt to be of the end of its lease.
    fn end(&self) -> Draft {
        let draft = transition(SOURCE, rule::SOURCE_LEASE_END, TIME).states(BLOCKED, OPEN);
        Draft {
            subject: Some(self.source.to_string().into()),
            expires_at: Some(self.until.instant()),
            ..draft
        }
    }
}

/// One unit: what has fallen due, then the answer to the caller.
fn seal(first: Option<Draft>, answer: Draft) -> Decision {
    let drafts: Vec<Draft> = first.into_iter().chain([answer]).collect();
    let primary = drafts.len() - 1;
    Decision::Seal(Sealing { drafts, primary, effect: None })
}

/// The command that makes the change again which a receipt of `_settings` or of a lane beside it
/// records, as of `now`; `None` where it changed nothing, or its lease is over.
#[must_use]
pub fn change_of(receipt: &View<'_>, now: Micros) -> Option<Command> {
    let rule = receipt.rule.filter(|_| receipt.kind == Kind::Transition)?.text();
    let subject = || receipt.subject.map(|subject| subject.text().into_owned());
    let value = || receipt.meta_text("value").map(|value| value.into_owned());
    let left = || {
        let left = receipt.expires_at?.saturating_sub(now.secs()).min(limits::LEASE_S_MAX);
        (left > 0).then_some(left)
    };
    Some(match &*rule {
        rule::SETTINGS_SET => Command::Setting(SettingChange::Set {
            name: subject()?,
            value: value()?,
            lease_s: None,
        }),
        rule::SETTINGS_LEASE => Command::Setting(SettingChange::Set {
            name: subject()?,
            value: value()?,
            lease_s: Some(left()?),
        }),
        rule::SETTINGS_CLEAR => Command::Setting(SettingChange::Clear { name: subject()? }),
        rule::SOURCE_BLOCK => {
            Command::Source(SourceChange::Block { source: subject()?, lease_s: left()? })
        }
        rule::SOURCE_UNBLOCK => Command::Source(SourceChange::Unblock { source: subject()? }),
        _ => return None,
    })
}

fn until(now: Micros, lease_s: i64) -> Micros {
    Secs::floor(now.plus_secs(lease_s)).instant()
}

/// Why the form of a change is wrong, whatever stands.
fn setting_fault(change: &SettingChange) -> Option<&'static str> {
    let is_name = |name: &str| !name.is_empty() && is_keepable(name, limits::METADATA_VALUE_CHARS);
    match change {
        SettingChange::Set { name, .. } | SettingChange::Clear { name } if !is_name(name) => {
            Some("name is no name of a setting")
        }
        SettingChange::Set { value, .. } if !is_keepable(value, limits::METADATA_VALUE_CHARS) => {
            Some("value is too long, or holds a control character or a credential")
        }
        SettingChange::Set { lease_s: Some(lease_s), .. } if !is_lease(*lease_s) => {
            Some("lease_s is outside its range")
        }
        SettingChange::Set { .. } | SettingChange::Clear { .. } => None,
    }
}

fn source_fault(change: &SourceChange) -> Option<&'static str> {
    let is_source = |source: &str| !source.is_empty() && is_keepable(source, SOURCE_CHARS);
    match change {
        SourceChange::Block { source, .. } | SourceChange::Unblock { source }
            if !is_source(source) =>
        {
            Some("source is no address or network")
        }
        SourceChange::Block { lease_s, .. } if !is_lease(*lease_s) => {
            Some("lease_s is outside its range")
        }
        SourceChange::Block { .. } | SourceChange::Unblock { .. } => None,
    }
}

fn is_lease(lease_s: i64) -> bool {
    (1..=limits::LEASE_S_MAX).contains(&lease_s)
}
