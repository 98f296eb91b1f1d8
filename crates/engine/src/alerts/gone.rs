//! Alerts of instances that are gone.
//!
//! Owns: who may say what became of one. Refuses to know: what an incident makes of that.
//!
//! An instance that was restarted is another instance. An alert that ended with the old one would
//! tell everybody that the trouble is over, and page them again as soon as the new one has seen
//! enough. So it stays until somebody knows:
//!
//! - an instance whose own alert of the same case fires goes on with it; so does one whose own
//!   alert is pending because it has not been there for long enough to have seen more;
//! - an instance that has seen nothing of it for the window of the rule, and for as long again as
//!   it takes to begin or to end, ends it. Before that a successor could not have spoken;
//! - a case that nobody sees ends after a while, and one whose rule is no longer in force at once.
//!
//! Of several who say so the first one is heard.

use std::collections::BTreeSet;

use governors::incident::{Alert, IncidentsState};
use governors::{AlertChange, AlertPhase, Gone};
use runbook::{Labels, Verdict};
use types::Micros;

use super::{UNSEEN_S, Watch, key_of, of};
use crate::outage::Stage;

/// How long an instance has to be missed until it counts as gone: longer than it takes to be heard
/// of again after an outage of the store.
const GONE_S: i64 = 15;

impl Watch {
    /// What is to be said of alerts whose instances are gone.
    pub(super) async fn of_the_gone(
        &mut self,
        state: &IncidentsState,
        now: Micros,
    ) -> Vec<AlertChange> {
        let Some(own) = self.engine.store().writer() else { return Vec::new() };
        let number = |alert: &Alert| alert.instance.as_ref()?.parse::<u64>().ok();
        let others: BTreeSet<u64> =
            state.alerts().iter().filter_map(number).filter(|number| *number != own).collect();
        // On the way back from an outage all others look as if they were gone.
        if others.is_empty() || self.engine.stage() != Stage::Up {
            self.missed.clear();
            return Vec::new();
        }
        // Who cannot ask knows nothing.
        let gone = self.engine.blocking(move |store| store.gone(&others)).await.unwrap_or_default();
        self.missed.retain(|number, _| gone.contains(number));
        for number in gone {
            self.missed.entry(number).or_insert(now);
        }
        let change = |alert: &Alert| {
            let missed = *self.missed.get(&number(alert)?)?;
            let is_gone = missed.plus_secs(GONE_S) <= now;
            let gone = is_gone.then(|| self.fate(alert, state, missed, now)).flatten()?;
            Some(AlertChange { gone: Some(gone), ..of(alert) })
        };
        state.alerts().iter().filter_map(change).collect()
    }

    /// Why the alert of an instance ends that has been missed since then; `None` while this one
    /// cannot say.
    fn fate(
        &self,
        alert: &Alert,
        state: &IncidentsState,
        missed: Micros,
        now: Micros,
    ) -> Option<Gone> {
        let Some(timing) = self.rules.get(&alert.rule).map(|rule| rule.timing()) else {
            return Some(Gone::Unmeasured);
        };
        let is_it =
            |labels: &Labels| key_of(&alert.rule, labels, alert.instance.as_deref()) == alert.key;
        let lasts_s = timing.window.secs() + timing.for_.max(timing.hold).secs();
        let has_seen_enough = |since: Micros| since.plus_secs(lasts_s) <= now;
        let is_own = |held: &&Alert| held.instance == self.instance && held.rule == alert.rule;
        let own = state.alerts().iter().filter(is_own);
        let own = own
            .into_iter()
            .find(|held| self.kept(held).is_some_and(|(_, labels, _)| is_it(&labels)));
        if let Some(own) = own {
            let goes_on = own.phase != AlertPhase::Pending || !has_seen_enough(self.began);
            return goes_on.then(|| Gone::Handed { to: own.key.clone() });
        }
        let since = missed.max(self.began);
        match self.sight.verdict(&alert.rule, is_it, now.0) {
            Verdict::Holds => None,
            Verdict::Fails | Verdict::TooLittle => {
                let by = self.instance.clone().filter(|_| has_seen_enough(since))?;
                Some(Gone::Over { by })
            }
            Verdict::NoData => {
                let is_unseen = has_seen_enough(since) && since.plus_secs(UNSEEN_S) <= now;
                is_unseen.then_some(Gone::Unmeasured)
            }
        }
    }
}
