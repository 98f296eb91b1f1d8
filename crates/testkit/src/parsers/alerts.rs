//! Readers of conditions, of files of alert rules, and of alerts that others send.
//!
//! Owns: that a mistake points into its text and repeats nothing of it, that what is taken is
//! written as it is read, and that it is within the limits that later layers rely on. Refuses to
//! know: what an SLI is made of, and what an alert leads to.

use dialect::JsonLimits;
use dialect::notify::alertmanager::fingerprint;
use dialect::notify::incoming::{ALERTS_MAX, ExternalAlert, posted, webhook};
use runbook::{Condition, Labels, Limits, Rules, Store};
use types::Micros;
use types::time::MICROS_MAX;

use super::bodies::judged;

/// Bytes of the longest message of a file of rules: sixteen ids in a row, and the sentence.
const MESSAGE_BYTES: usize = 65_536;

/// A condition.
pub(super) fn condition(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match Condition::parse(text) {
        Ok(condition) => {
            let shown = condition.to_string();
            let again = Condition::parse(&shown);
            assert_eq!(again.as_ref(), Ok(&condition), "the canonical text reads");
            assert_eq!(again.map(|again| again.to_string()), Ok(shown));
            let store = Store::new([&condition].into_iter().collect(), Limits::default());
            assert!(store.keeps(&condition));
            let readings = condition.evaluate(&store, 0);
            assert!(readings.iter().all(|reading| reading.value.is_none()), "from no sample");
            true
        }
        Err(mistake) => {
            assert!(mistake.offset <= text.len() && text.is_char_boundary(mistake.offset));
            assert!(mistake.column >= 1 && mistake.column <= text.chars().count() + 1);
            let message = mistake.to_string();
            assert!(!message.contains(char::is_control) && message.len() < 1_024, "{message:?}");
            false
        }
    }
}

/// A file of alert rules; and the labels of a case, which stand in keys.
pub(super) fn alert_rules(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    if let Some(labels) = Labels::parse(text) {
        assert_eq!(labels.to_string(), text);
    }
    match Rules::parse(text) {
        Ok(rules) => {
            assert!(rules.iter().all(|rule| !rule.clause.conditions().is_empty()));
            let yaml = runbook::prometheus::rules_yaml(&rules, 15_000_000);
            assert_eq!(yaml.matches("      - alert: ").count(), rules.iter().count());
            rules.iter().count() > 0
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a mistake");
            for mistake in mistakes {
                assert!(mistake.line >= 1 && mistake.column >= 1);
                assert!(mistake.to_string().len() <= MESSAGE_BYTES);
            }
            false
        }
    }
}

fn check_alert(alert: &ExternalAlert) {
    assert!(!alert.labels.is_empty());
    let texts = || alert.labels.iter().chain(&alert.annotations);
    assert!(texts().all(|(name, value)| !name.is_empty() && !value.is_empty()));
    assert_eq!(alert.fingerprint, fingerprint(&alert.labels));
    let instants = [alert.starts_at, alert.ends_at].into_iter().flatten();
    instants.for_each(|at| assert!((0..=MICROS_MAX.0).contains(&at.0)));
    if alert.said_resolved.is_none() {
        assert_eq!(alert.is_resolved(MICROS_MAX), alert.ends_at.is_some());
        assert!(!alert.is_resolved(Micros(-1)));
    }
}

/// A list of alerts as Prometheus sends it, and a group of them as Alertmanager does.
pub(super) fn external_alerts(bytes: &[u8]) -> bool {
    let bounds = JsonLimits::default();
    let list = judged(bytes, posted(bytes, bounds));
    let group = judged(bytes, webhook(bytes, bounds));
    assert!(list.is_none() || group.is_none(), "an array and an object at once");
    let group = group.map(|group| group.alerts);
    if let Some(alerts) = &group {
        assert!(alerts.iter().all(|alert| alert.said_resolved.is_some()));
    }
    let Some(alerts) = list.or(group) else { return false };
    assert!(alerts.len() <= ALERTS_MAX);
    alerts.iter().for_each(check_alert);
    true
}
