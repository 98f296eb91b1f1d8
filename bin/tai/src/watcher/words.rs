//! What the watcher tells people.
//!
//! Owns: which template is filled with what, and by which names the far side knows an outage.
//! Refuses to know: channels, and whether something was told before.

use dialect::notify::templates::{AllClear, InitialAlert, StatusUpdate};
use dialect::notify::templates::{all_clear, initial_alert, status_update};
use dialect::notify::{Notice, NoticeKind, Phase};
use types::Micros;

use super::book::{Due, Outage, Step};

/// The part of the service that nobody reaches.
const COMPONENT: &str = "http";

/// The notice of one step. `url` is the health route; `may_repeat` when the reader may know it
/// already.
pub(crate) fn notice(due: &Due, url: &str, now: Micros, may_repeat: bool) -> Notice {
    let Outage { since_us, ended_us, reason, .. } = &due.outage;
    let since_s = Micros(*since_us).secs();
    let (kind, id, title) = match due.step {
        Step::Opened => {
            (NoticeKind::Opened, format!("watch-{since_s}"), format!("service is down: {reason}"))
        }
        Step::Lasts(round) => (
            NoticeKind::Escalated { level: u8::try_from(round).unwrap_or(u8::MAX) },
            format!("watch-{since_s}-{round}"),
            format!("service is still down: {reason}"),
        ),
        Step::Ended => (
            NoticeKind::Resolved,
            format!("watch-{since_s}-end"),
            "service answers again".to_owned(),
        ),
    };
    let text = text(due, url, &title, now);
    Notice {
        id,
        incident: incident(&due.outage),
        kind,
        severity: 1,
        title,
        text: if may_repeat {
            format!("(You may have been told this before.)\n{text}")
        } else {
            text
        },
        component: COMPONENT.to_owned(),
        at_us: ended_us.unwrap_or(now.0),
        opened_at_us: *since_us,
        url: None,
        alerts: Vec::new(),
    }
}

/// What an outage is called.
pub(crate) fn incident(outage: &Outage) -> String {
    format!("WATCH-{}", Micros(outage.since_us).secs())
}

fn text(due: &Due, url: &str, title: &str, now: Micros) -> String {
    let Outage { since_us, ended_us, reason, .. } = &due.outage;
    match due.step {
        Step::Opened => initial_alert(&InitialAlert {
            severity: 1,
            description: title,
            url: Some(url),
            started_at_us: Some(*since_us),
            updates_in: None,
        }),
        Step::Lasts(_) => status_update(&StatusUpdate {
            at_us: now.0,
            done: Some("the watcher has paged again: nobody may have seen it"),
            checked: &[url],
            found: Some(reason),
            next: None,
            phase: Some(Phase::Investigating),
            eta_us: None,
        }),
        Step::Ended => all_clear(&AllClear {
            root_cause: Some(reason),
            impact: Some("the service did not serve"),
            started_at_us: Some(*since_us),
            ended_at_us: *ended_us,
            affected_users_permille: None,
            actions: &[],
            post_mortem_at_us: None,
            preventive_measures: &[],
        }),
    }
}
