//! Who is told of an incident, and when: the policy as data.
//!
//! Owns: the ladder of each severity, what stands on what, and which steps are left when a channel
//! is not set up. Refuses to know: any incident, and how a channel is reached.

use toml::Table;
use types::{Severity, limits};

use crate::rules::SHIPPED;
use crate::section::{CatalogueError, Section};

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
    update_tell: Vec<String>,
    fallback: Vec<String>,
    /// Component, and what it directly depends on.
    depends: Vec<(String, Vec<String>)>,
}

/// One step of a ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Seconds after the incident opened or became worse.
    pub after_s: i64,
    /// Not taken once somebody has acknowledged.
    pub unless_acknowledged: bool,
    /// The channels.
    pub tell: Vec<String>,
}

/// The step that is next on a ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Next {
    /// Its place on the ladder, which steps behind it go on from.
    pub(crate) step: usize,
    pub(crate) after_s: i64,
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
            "sev1",
            "sev2",
            "sev3",
            "sev4",
            "depends",
        ])?;
        let targets = lists(&section.section("targets")?)?;
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
                    let tell = channels(step, "tell", &targets)?;
                    Ok(Step { after_s, unless_acknowledged, tell })
                })
                .collect::<Result<_, _>>()?;
            if steps.len() > STEPS_MAX || !steps.is_sorted_by_key(|step| step.after_s) {
                return Err(ladder.invalid("steps", "at most 16 steps in the order of after_s"));
            }
            Ok(steps)
        };
        let [sev1, sev2, sev3, sev4] = Severity::ALL.map(ladder);
        let update_for = section.words("update_for")?;
        let update_for = update_for.iter().map(|word| Severity::parse(word));
        let update_for: Option<Vec<Severity>> = update_for.collect();
        Ok(Policy {
            ladders: [sev1?, sev2?, sev3?, sev4?],
            stable_s: delay(section, "stable_s")?,
            update_every_s: section.integer("update_every_s", 60..=DELAY_MAX_S, "60 to 86400")?,
            update_for: update_for
                .ok_or_else(|| section.invalid("update_for", "a list of severities"))?,
            update_tell: channels(section, "update_tell", &targets)?,
            fallback: channels(section, "fallback", &targets)?,
            depends: lists(&section.section("depends")?)?,
        })
    }

    /// The same policy where only these channels are set up. A step that would tell nobody is
    /// skipped at once: the ones behind it move up by the delay that it would have waited.
    pub(crate) fn with_channels(mut self, set_up: &[&str]) -> Policy {
        let keep = |channels: &mut Vec<String>| channels.retain(|name| set_up.contains(&&**name));
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

    pub(crate) fn update_tell(&self) -> &[String] {
        &self.update_tell
    }

    /// Who is told in place of a channel that does not take what it is told.
    pub(crate) fn fallback(&self, channel: &str) -> impl Iterator<Item = &String> {
        self.fallback.iter().filter(move |other| *other != channel)
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

/// The channels of all targets in a list, each once.
fn channels(
    section: &Section<'_>,
    key: &str,
    targets: &[(String, Vec<String>)],
) -> Result<Vec<String>, CatalogueError> {
    let mut all: Vec<String> = Vec::new();
    for target in section.words(key)? {
        let found = targets.iter().find(|(name, _)| *name == target);
        let (_, names) = found.ok_or_else(|| section.invalid(key, "a list of targets"))?;
        for name in names {
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
    }
    if all.len() > limits::CHANNELS {
        return Err(section.invalid(key, "at most 32 channels"));
    }
    Ok(all)
}
