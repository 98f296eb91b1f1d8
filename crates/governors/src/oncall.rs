//! Who is told of an incident, and when: the policy as data.
//!
//! Owns: the ladder of each severity, what stands on what, which steps are left when a channel is
//! not set up, what a step comes to at an instant, and who stands in where it calls nobody. Refuses
//! to know: any incident, whose turn it is, and how a channel is reached.

mod gaps;

use toml::Table;
use types::{Micros, Severity, limits};

use crate::incident::Override;
use crate::rota::Rota;
use crate::rules::SHIPPED;
use crate::section::{CatalogueError, Section};

pub use gaps::Gap;

/// Longest delay of a step, an update or a resolution: a day.
const DELAY_MAX_S: i64 = 86_400;
const DELAY: &str = "seconds, 0 to 86400";
/// Steps of one ladder.
const STEPS_MAX: usize = 16;

/// The policy of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// By severity, the worst first; steps in ascending order of their delays.
    ladders: [Vec<Step>; 4],
    stable_s: i64,
    update_every_s: i64,
    update_for: Vec<Severity>,
    update_tell: Audience,
    fallback: Audience,
    rota: Rota,
    /// Every channel that is set up and wakes somebody; of a policy as it is written, every one
    /// that it names.
    waking: Vec<String>,
    /// Channels that show how things stand, and wake nobody.
    shown: Vec<String>,
    /// Component, and what it directly depends on.
    depends: Vec<(String, Vec<String>)>,
}

/// Whom a list of the policy names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience {
    /// The channels of its targets.
    pub channels: Vec<String>,
    /// Its rotations: whoever is on them at the moment is told.
    pub rotations: Vec<String>,
}

/// Whom an audience comes to at an instant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Called {
    /// The channels, each once.
    pub(crate) channels: Vec<String>,
    /// Rotations with who is on them, where anybody is.
    people: Vec<(String, Option<String>)>,
    /// Who was called because nobody else was.
    pub(crate) stand_in: Option<StandIn>,
}

/// Who is called where a ladder ends with steps that call nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StandIn {
    /// Those whom the last step before called that called anybody.
    Before,
    /// Every channel that is set up.
    All,
}

impl StandIn {
    /// The word in receipts.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            StandIn::Before => "before",
            StandIn::All => "all",
        }
    }
}

/// One step of a ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Seconds after the incident opened or became worse.
    pub after_s: i64,
    /// Not taken once somebody has acknowledged.
    pub unless_acknowledged: bool,
    /// Who is told.
    pub tell: Audience,
}

/// The step that is next on a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    /// Its place on the ladder, which steps behind it go on from.
    pub(crate) step: usize,
    pub(crate) after_s: i64,
}

impl Audience {
    /// True where nobody could ever be told.
    fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.rotations.is_empty()
    }
}

impl Called {
    /// True where a person was to be called and none is there, or nobody is told at all: then it is
    /// for the next step at once.
    pub(crate) fn calls_nobody(&self) -> bool {
        self.people.iter().all(|(_, who)| who.is_none())
            && (self.channels.is_empty() || !self.people.is_empty())
    }

    /// Adds those who are not among them.
    pub(crate) fn add(&mut self, more: Called) {
        self.reach(&more.channels);
        for found in more.people {
            if !self.people.contains(&found) {
                self.people.push(found);
            }
        }
        self.stand_in = self.stand_in.or(more.stand_in);
    }

    /// Adds the channels that are not among them.
    pub(crate) fn reach(&mut self, channels: &[String]) {
        for channel in channels {
            if !self.channels.contains(channel) {
                self.channels.push(channel.clone());
            }
        }
    }

    /// `primary=ada,secondary=`: each rotation with who is on it; empty where none was asked.
    pub(crate) fn roll(&self) -> String {
        let one = |(rotation, who): &(String, Option<String>)| {
            format!("{rotation}={}", who.as_deref().unwrap_or_default())
        };
        self.people.iter().map(one).collect::<Vec<_>>().join(",")
    }
}

impl Policy {
    /// The policy of the shipped catalogue.
    pub(crate) fn builtin() -> Result<Policy, CatalogueError> {
        let root: Table = SHIPPED.parse().map_err(|_| CatalogueError::Syntax { line: 1 })?;
        Policy::read(&Section { path: String::new(), table: &root }.section("oncall")?)
    }

    pub(crate) fn read(section: &Section<'_>) -> Result<Policy, CatalogueError> {
        section.only(&[
            "stable_s",
            "update_every_s",
            "update_for",
            "update_tell",
            "fallback",
            "targets",
            "people",
            "rotations",
            "sev1",
            "sev2",
            "sev3",
            "sev4",
            "depends",
        ])?;
        let targets = lists(&section.section("targets")?)?;
        let rota = Rota::read(section, |people, name| person_channels(people, name, &targets))?;
        if rota.rotations().any(|name| targets.iter().any(|(target, _)| target == name)) {
            return Err(section.invalid("rotations", "rotations whose names are of no target"));
        }
        let audience = |section: &Section<'_>, key| audience(section, key, &targets, &rota);
        let delay = |section: &Section<'_>, key| section.integer(key, 0..=DELAY_MAX_S, DELAY);
        let ladder = |severity: Severity| -> Result<Vec<Step>, CatalogueError> {
            let ladder = section.section(severity.as_str())?;
            ladder.only(&["steps"])?;
            let steps: Vec<Step> = ladder
                .tables("steps")?
                .iter()
                .map(|step| {
                    step.only(&["after_s", "tell", "unless"])?;
                    let unless_acknowledged = match step.table.get("unless") {
                        None => false,
                        Some(_) => match &*step.word("unless")? {
                            "acknowledged" => true,
                            "resolved" => false,
                            _ => return Err(step.invalid("unless", "acknowledged or resolved")),
                        },
                    };
                    let after_s = delay(step, "after_s")?;
                    let tell = audience(step, "tell")?;
                    Ok(Step { after_s, unless_acknowledged, tell })
                })
                .collect::<Result<_, _>>()?;
            if steps.len() > STEPS_MAX || !steps.is_sorted_by_key(|step| step.after_s) {
                return Err(ladder.invalid("steps", "at most 16 steps in the order of after_s"));
            }
            Ok(steps)
        };
        let [sev1, sev2, sev3, sev4] = Severity::ALL.map(ladder);
        let mut named = Called::default();
        targets.iter().for_each(|(_, channels)| named.reach(channels));
        rota.people().iter().for_each(|person| named.reach(&person.channels));
        let update_for = section.words("update_for")?;
        let update_for = update_for.iter().map(|word| Severity::parse(word));
        let update_for: Option<Vec<Severity>> = update_for.collect();
        Ok(Policy {
            ladders: [sev1?, sev2?, sev3?, sev4?],
            stable_s: delay(section, "stable_s")?,
            update_every_s: section.integer("update_every_s", 60..=DELAY_MAX_S, "60 to 86400")?,
            update_for: update_for
                .ok_or_else(|| section.invalid("update_for", "a list of severities"))?,
            update_tell: audience(section, "update_tell")?,
            fallback: audience(section, "fallback")?,
            rota,
            waking: named.channels,
            shown: Vec::new(),
            depends: lists(&section.section("depends")?)?,
        })
    }

    /// The same policy where only these channels are set up; `shown` are those of them that show
    /// how things stand and wake nobody. A step that would tell nobody is skipped at once: the ones
    /// behind it move up by the delay that it would have waited. Where none is left of a ladder all
    /// channels that wake somebody are its one step.
    pub(crate) fn with_channels(mut self, set_up: &[&str], shown: &[&str]) -> Policy {
        let keep = |told: &mut Audience| told.channels.retain(|name| set_up.contains(&&**name));
        self.rota.keep(set_up);
        let waking = set_up.iter().filter(|name| !shown.contains(name));
        self.waking = waking.map(|name| (*name).to_owned()).collect();
        self.shown = shown.iter().map(|name| (*name).to_owned()).collect();
        keep(&mut self.update_tell);
        keep(&mut self.fallback);
        for ladder in &mut self.ladders {
            let (mut early_s, mut kept) = (0, Vec::new());
            for at in 0..ladder.len() {
                let mut step = ladder[at].clone();
                keep(&mut step.tell);
                match ladder.get(at + 1) {
                    Some(next) if step.tell.is_empty() => early_s += next.after_s - step.after_s,
                    _ if step.tell.is_empty() => {}
                    _ => kept.push(Step { after_s: step.after_s - early_s, ..step }),
                }
            }
            if let (true, false, Some(first)) =
                (kept.is_empty(), self.waking.is_empty(), ladder.first())
            {
                let tell = Audience { channels: self.waking.clone(), ..Audience::default() };
                kept.push(Step { tell, ..first.clone() });
            }
            *ladder = kept;
        }
        self
    }

    /// The ladder of a severity.
    #[must_use]
    pub fn ladder(&self, severity: Severity) -> &[Step] {
        &self.ladders[usize::from(severity.number() - 1)]
    }

    /// The first step at or behind `from` that is to be taken.
    pub(crate) fn next(&self, severity: Severity, from: usize, acknowledged: bool) -> Option<Next> {
        let steps = self.ladder(severity).iter().enumerate().skip(from);
        let mut wanted = steps.filter(|(_, step)| !(acknowledged && step.unless_acknowledged));
        wanted.next().map(|(step, found)| Next { step, after_s: found.after_s })
    }

    /// Seconds between updates; `None` where the severity gets none, or nobody would hear them.
    pub(crate) fn update_every_s(&self, severity: Severity) -> Option<i64> {
        let told = self.update_for.contains(&severity) && !self.update_tell.is_empty();
        told.then_some(self.update_every_s)
    }

    pub(crate) fn update_tell(&self) -> &Audience {
        &self.update_tell
    }

    /// Who is told in place of a channel that does not take what it is told.
    pub(crate) fn fallback(&self) -> &Audience {
        &self.fallback
    }

    /// Who takes turns.
    #[must_use]
    pub fn rota(&self) -> &Rota {
        &self.rota
    }

    /// Whom an audience comes to at `now`.
    pub(crate) fn call(&self, tell: &Audience, overrides: &[Override], now: Micros) -> Called {
        let mut called = Called { channels: tell.channels.clone(), ..Called::default() };
        for rotation in &tell.rotations {
            let found = self.rota.on_call(rotation, overrides, now).map(|(person, _)| person);
            let found = found.filter(|person| !person.channels.is_empty());
            called.reach(found.map_or(&[], |person| &person.channels));
            called.people.push((rotation.clone(), found.map(|person| person.name.clone())));
        }
        called
    }

    /// Whom a ladder calls whose steps from `before` on call nobody: those of the last step before
    /// them that wakes anybody, else every channel that does.
    pub(crate) fn stand_in(
        &self,
        severity: Severity,
        before: usize,
        overrides: &[Override],
        now: Micros,
    ) -> Called {
        let earlier = self.ladder(severity).iter().take(before).rev();
        let mut called = earlier.map(|step| self.call(&step.tell, overrides, now));
        let is_shown = |name: &String| self.shown.contains(name);
        let wakes =
            |called: &Called| !called.calls_nobody() && !called.channels.iter().all(is_shown);
        match called.find(wakes) {
            Some(called) => Called { stand_in: Some(StandIn::Before), ..called },
            None => self.everybody(),
        }
    }

    /// Every channel that wakes somebody, in place of nobody.
    pub(crate) fn everybody(&self) -> Called {
        let stand_in = Some(StandIn::All);
        Called { channels: self.waking.clone(), stand_in, ..Called::default() }
    }

    /// The channels of each step of a ladder as they are at `now`, where nobody acknowledges and
    /// nothing is known of overrides. A step that calls nobody is told together with the next one,
    /// and at the end with whoever stands in.
    #[must_use]
    pub fn steps_at(&self, severity: Severity, now: Micros) -> Vec<Vec<String>> {
        let (mut steps, mut called) = (Vec::new(), Called::default());
        let ladder = self.ladder(severity);
        for (at, step) in ladder.iter().enumerate() {
            let found = self.call(&step.tell, &[], now);
            let (is_missed, is_last) = (found.calls_nobody(), at + 1 == ladder.len());
            called.add(found);
            if is_missed && is_last {
                called.add(self.stand_in(severity, at, &[], now));
            }
            if !is_missed || is_last {
                steps.push(std::mem::take(&mut called).channels);
            }
        }
        steps.retain(|channels| !channels.is_empty());
        steps
    }

    /// Every channel that a step of the ladder may ever tell.
    #[must_use]
    pub fn reach(&self, severity: Severity) -> Vec<String> {
        let mut all = Called::default();
        let ladder = self.ladder(severity);
        ladder.iter().for_each(|step| all.reach(&step.tell.channels));
        if ladder.iter().any(|step| !step.tell.rotations.is_empty()) {
            self.rota.people().iter().for_each(|person| all.reach(&person.channels));
        }
        all.channels
    }

    pub(crate) fn stable_s(&self) -> i64 {
        self.stable_s
    }

    /// Every component that stands on another or that another stands on, in the order of the table.
    #[must_use]
    pub fn components(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.depends.iter().map(|(name, _)| &**name).collect();
        for (_, below) in &self.depends {
            for component in below {
                if !all.contains(&&**component) {
                    all.push(component);
                }
            }
        }
        all
    }

    /// True when one of the two stands on the other, directly or through others.
    pub(crate) fn are_related(&self, one: &str, other: &str) -> bool {
        one == other || self.stands_on(one, other) || self.stands_on(other, one)
    }

    /// Of these components the one that stands on none of the others; the first one where several
    /// do, or where they stand on each other.
    #[must_use]
    pub fn cause<'a>(&self, components: &[&'a str]) -> Option<&'a str> {
        let on_none = |one: &&&str| {
            !components.iter().any(|other| other != *one && self.stands_on(one, other))
        };
        components.iter().find(on_none).or(components.first()).copied()
    }

    fn stands_on(&self, one: &str, other: &str) -> bool {
        let (mut next, mut seen) = (vec![one], vec![one]);
        while let Some(component) = next.pop() {
            let found = self.depends.iter().find(|(name, _)| name == component);
            for below in found.into_iter().flat_map(|(_, below)| below) {
                if below == other {
                    return true;
                }
                if !seen.contains(&&**below) {
                    seen.push(below);
                    next.push(below);
                }
            }
        }
        false
    }
}

/// Every key of the table with its list of words.
fn lists(section: &Section<'_>) -> Result<Vec<(String, Vec<String>)>, CatalogueError> {
    let names = section.table.keys();
    names
        .map(|name| {
            section.check_word(name, name)?;
            Ok((name.clone(), section.words(name)?))
        })
        .collect()
}

/// What the list of a person stands for: the channels of targets, and channels by their own names.
fn person_channels(
    section: &Section<'_>,
    key: &str,
    targets: &[(String, Vec<String>)],
) -> Result<Vec<String>, CatalogueError> {
    let mut all = Called::default();
    for word in section.words(key)? {
        match targets.iter().find(|(name, _)| *name == word) {
            Some((_, channels)) => all.reach(channels),
            None => all.reach(&[word]),
        }
    }
    bounded(section, key, all.channels)
}

/// Whom a list of targets and rotations names, each once.
fn audience(
    section: &Section<'_>,
    key: &str,
    targets: &[(String, Vec<String>)],
    rota: &Rota,
) -> Result<Audience, CatalogueError> {
    let (mut all, mut rotations) = (Called::default(), Vec::new());
    for word in section.words(key)? {
        let target = targets.iter().find(|(name, _)| *name == word);
        match target {
            Some((_, channels)) => all.reach(channels),
            None if rota.rotations().any(|name| name == word) => {
                if !rotations.contains(&word) {
                    rotations.push(word);
                }
            }
            None => return Err(section.invalid(key, "a list of targets and rotations")),
        }
    }
    Ok(Audience { channels: bounded(section, key, all.channels)?, rotations })
}

fn bounded(
    section: &Section<'_>,
    key: &str,
    channels: Vec<String>,
) -> Result<Vec<String>, CatalogueError> {
    match channels.len() > limits::CHANNELS {
        true => Err(section.invalid(key, "at most 32 channels")),
        false => Ok(channels),
    }
}
