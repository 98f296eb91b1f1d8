//! Steps of a ladder that are of no use with the channels that are set up.
//!
//! Owns: which steps these are, and why. Refuses to know: whose turn it is at an instant, and
//! whoever stands in for a person by an override.

use std::fmt;

use types::Severity;

use super::{Audience, Policy};

/// A step that reaches nobody, or nobody whom an earlier one has not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    severity: Severity,
    /// Its place on the ladder, from 1.
    step: usize,
    after_s: i64,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// None of its channels is set up.
    Nobody { missing: Vec<String> },
    /// Nobody is ever on its rotations.
    Empty { rotations: Vec<String> },
    /// No channel that is set up reaches anybody of its rotations.
    Unreached { rotations: Vec<String> },
    /// Whom it adds to the steps before it is reached by channels alone that are not set up.
    NobodyNew { missing: Vec<String> },
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gap { severity, step, after_s, why } = self;
        write!(f, "oncall.{} step {step}, after {after_s} s, ", severity.as_str())?;
        match why {
            Why::Nobody { missing } => {
                write!(f, "reaches nobody: not set up: {}", missing.join(", "))
            }
            Why::Empty { rotations } => {
                write!(f, "calls nobody: nobody is ever on {}", rotations.join(", "))
            }
            Why::Unreached { rotations } => write!(
                f,
                "calls nobody: no channel that is set up reaches anybody of {}",
                rotations.join(", ")
            ),
            Why::NobodyNew { missing } => {
                write!(f, "reaches nobody new: not set up: {}", missing.join(", "))
            }
        }
    }
}

impl Policy {
    /// The steps that are of no use where only these channels are set up. To be asked before
    /// [`crate::Rules::with_channels`], which leaves out such steps.
    #[must_use]
    pub fn gaps(&self, set_up: &[&str]) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for severity in Severity::ALL {
            let mut before: Vec<&str> = Vec::new();
            for (at, step) in self.ladder(severity).iter().enumerate() {
                let reached = self.reached(&step.tell);
                if let Some(why) = self.useless(&step.tell, &reached, &before, set_up) {
                    gaps.push(Gap { severity, step: at + 1, after_s: step.after_s, why });
                }
                before.extend(reached);
            }
        }
        gaps
    }

    fn useless(
        &self,
        tell: &Audience,
        reached: &[&str],
        before: &[&str],
        set_up: &[&str],
    ) -> Option<Why> {
        let missing = |channels: &[&str]| {
            let missing = channels.iter().filter(|name| !set_up.contains(name));
            missing.map(|name| (*name).to_owned()).collect::<Vec<_>>()
        };
        let rotations = || tell.rotations.clone();
        if tell.rotations.is_empty() && !reached.iter().any(|name| set_up.contains(name)) {
            return Some(Why::Nobody { missing: missing(reached) });
        }
        let on = || tell.rotations.iter().flat_map(|name| self.rota.members(name));
        if !tell.rotations.is_empty() && on().next().is_none() {
            return Some(Why::Empty { rotations: rotations() });
        }
        let mut theirs = on().flat_map(|person| &person.channels);
        if !tell.rotations.is_empty() && !theirs.any(|name| set_up.contains(&&**name)) {
            return Some(Why::Unreached { rotations: rotations() });
        }
        let new: Vec<&str> =
            reached.iter().copied().filter(|name| !before.contains(name)).collect();
        let is_new = new.is_empty() || new.iter().any(|name| set_up.contains(name));
        (!is_new).then(|| Why::NobodyNew { missing: missing(&new) })
    }

    /// Every channel that an audience may come to.
    fn reached<'a>(&'a self, tell: &'a Audience) -> Vec<&'a str> {
        let people = tell.rotations.iter().flat_map(|name| self.rota.members(name));
        let theirs = people.flat_map(|person| &person.channels);
        let mut all: Vec<&str> = Vec::new();
        for name in tell.channels.iter().chain(theirs) {
            if !all.contains(&&**name) {
                all.push(name);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use crate::Rules;
    use crate::rules::SHIPPED;

    fn gaps(text: &str, set_up: &[&str]) -> Vec<String> {
        let rules = Rules::parse(text).unwrap();
        rules.oncall().gaps(set_up).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn with_one_channel_the_steps_that_reach_nobody_or_nobody_new_are_named() {
        assert_eq!(
            gaps(SHIPPED, &["email"]),
            [
                "oncall.sev1 step 3, after 600 s, reaches nobody new: not set up: pagerduty-secondary",
                "oncall.sev1 step 4, after 900 s, reaches nobody new: not set up: pagerduty-commander",
                "oncall.sev1 step 5, after 1800 s, reaches nobody new: not set up: pagerduty-executive",
                "oncall.sev2 step 2, after 600 s, reaches nobody new: not set up: pagerduty-secondary",
                "oncall.sev2 step 3, after 900 s, reaches nobody new: not set up: pagerduty-commander",
                "oncall.sev3 step 1, after 0 s, reaches nobody: not set up: slack, telegram, webhook, alertmanager",
                "oncall.sev4 step 1, after 0 s, reaches nobody: not set up: slack, telegram, webhook, alertmanager",
            ]
        );
        let slack = gaps(SHIPPED, &["slack"]);
        let vanished =
            "oncall.sev1 step 2, after 300 s, reaches nobody: not set up: pagerduty, email";
        assert_eq!((slack.len(), &*slack[0]), (7, vanished));
    }

    #[test]
    fn nothing_is_said_where_every_channel_is_set_up() {
        let all = [
            "slack",
            "statuspage",
            "pagerduty",
            "pagerduty-secondary",
            "pagerduty-commander",
            "pagerduty-executive",
        ];
        assert_eq!(gaps(SHIPPED, &all), Vec::<String>::new());
    }

    #[test]
    fn a_step_for_people_whom_nobody_reaches_is_named_with_its_rotation() {
        let rota = "
[oncall.people]
ada = [\"phone-ada\"]
eve = [\"nowhere\"]
[oncall.rotations.primary]
layers = [{ start = 2027-01-01T00:00:00Z, shift_h = 24, order = [\"eve\", \"ada\"] }]
[oncall.rotations.silent]
layers = [{ start = 2027-01-01T00:00:00Z, shift_h = 24, order = [\"eve\"] }]
[oncall.rotations.nobody]
layers = [{ start = 2027-01-01T00:00:00Z, shift_h = 24, order = [] }]
";
        let steps = "steps = [{ after_s = 0, tell = [\"primary\"] }, \
                     { after_s = 60, tell = [\"chat\", \"silent\"] }, \
                     { after_s = 90, tell = [\"nobody\"] }]";
        let old = "steps = [{ after_s = 0, tell = [\"chat\"] }]";
        let text = SHIPPED.replacen(old, steps, 1) + rota;
        let found = gaps(&text, &["slack", "phone-ada"]);
        let of_sev4: Vec<_> =
            found.iter().filter_map(|line| line.strip_prefix("oncall.sev4 ")).collect();
        assert_eq!(
            of_sev4,
            [
                "step 2, after 60 s, calls nobody: no channel that is set up reaches anybody of silent",
                "step 3, after 90 s, calls nobody: nobody is ever on nobody",
            ]
        );
    }
}
