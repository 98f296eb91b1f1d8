//! Telling: what stands in `_incidents` with a `tell` goes out over its channels.
//!
//! Owns: the order on each channel, when one is asked again, what is done about an attempt that
//! nobody knows the end of, and what a notice says. Refuses to know: how a channel is spoken to,
//! and who is on call.
//!
//! What if the process dies here? Before the attempt is durable nothing was sent. After it the next
//! process settles it as unknown, and tells it again: to a far side that recognises repeats nothing
//! happens twice, and another is told that it may be hearing this again. A page that is lost is
//! worse than one that comes twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dialect::notify::templates::{AllClear, InitialAlert, StatusUpdate, all_clear};
use dialect::notify::templates::{initial_alert, status_update};
use dialect::notify::{Notice, NoticeAlert, NoticeKind, Phase};
use futures_util::future::join_all;
use governors::incident::{Story, incident_number};
use governors::notices::Channel;
use governors::{
    Command, IncidentChange, IncidentDeed, IncidentStatus, NoticeChange, TellOutcome, Telling,
};
use ledger::{MetaView, View};
use types::{ReceiptId, Severity, StreamName, limits};

use crate::act::{Engine, Request};
use crate::incidents;
use crate::notify::{ChannelFacts, Courier, Delivery};
use crate::ports::{Query, Stored};
use crate::supervise::Stop;

/// The subsystem that tells.
pub(crate) const NOTICES: &str = "notices_sup";

/// How often a channel looks for what is new.
const LOOK: Duration = Duration::from_secs(1);
/// The wait after a failed look.
const FAILED_LOOK: Duration = Duration::from_secs(5);
/// Receipts of one look.
const LOOK_MAX: usize = 64;
/// The first wait before a notice is tried again, doubled up to the last.
const AGAIN_FIRST: Duration = Duration::from_secs(2);
const AGAIN_LAST: Duration = Duration::from_secs(60);
/// Tries without success after which others are told in a channel's place.
const FAILURES_MAX: u32 = 3;
/// Tries to seal a result within one turn: what is left open then is settled by its age.
const SETTLE_TRIES: u32 = 10;
/// The age from which on a notice is not tried again: what it says has long been untrue.
const AGE_MAX_S: i64 = 24 * 3_600;

/// Tells every channel what is for it, each on its own: none waits for another.
pub(crate) async fn tell(engine: Engine, courier: Arc<dyn Courier>, stop: Stop) {
    let channels = courier.channels();
    let each = channels.into_iter().map(|facts| {
        let teller =
            Teller { engine: engine.clone(), courier: Arc::clone(&courier), facts, from: 0 };
        teller.run(stop.clone())
    });
    join_all(each).await;
}

fn stream() -> StreamName {
    StreamName::system(limits::STREAM_NOTICES)
}

/// One channel.
struct Teller {
    engine: Engine,
    courier: Arc<dyn Courier>,
    facts: ChannelFacts,
    /// Nothing before this place is for it.
    from: u64,
}

/// A receipt that is to be told.
struct Due {
    seq: u64,
    stored: Stored,
}

impl Teller {
    async fn run(mut self, mut stop: Stop) {
        self.orphan().await;
        loop {
            // A notice that is on its way is brought to its end: it is bounded by the channel's own
            // deadline, and one that is cut off is one that nobody knows the end of.
            let wait = self.turn().await;
            tokio::select! {
                () = stop.asked() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// An attempt that an earlier process has left. Where others write beside this one it may be
    /// theirs, and is left to its age.
    async fn orphan(&self) {
        if self.engine.store().is_shared() {
            return;
        }
        let Ok(Some(channel)) = self.channel().await else { return };
        if let Some(open) = channel.open {
            self.settle(open.attempt, TellOutcome::Unknown).await;
        }
    }

    async fn channel(&self) -> Result<Option<Channel>, crate::Refused> {
        let state = self.engine.state(&stream()).await?;
        Ok(state.notices().and_then(|notices| notices.channel(&self.facts.name)).cloned())
    }

    /// Tells the next notice, if there is one. Returns the wait before the next turn.
    async fn turn(&mut self) -> Duration {
        let channel = match self.channel().await {
            Ok(Some(channel)) => channel,
            Ok(None) => return self.begin().await,
            Err(_) => return FAILED_LOOK,
        };
        if let Some(open) = channel.open {
            if open.is_nobodys(self.engine.clock().now()) {
                self.settle(open.attempt, TellOutcome::Unknown).await;
                return Duration::ZERO;
            }
            return LOOK;
        }
        self.from = self.from.max(channel.next);
        match self.look().await {
            Ok(Some(due)) => self.one(&channel, due).await,
            Ok(None) => LOOK,
            Err(_) => FAILED_LOOK,
        }
    }

    /// A channel that was never there is told what comes from now on.
    async fn begin(&self) -> Duration {
        let newest = self
            .engine
            .blocking(|store| {
                let stream = Some(incidents::stream());
                store.query(&Query { stream, scan_limit: 1, ..Query::default() })
            })
            .await;
        let Ok(newest) = newest else { return FAILED_LOOK };
        let from = newest.first().map_or(0, |stored| stored.seq + 1);
        let channel = self.facts.name.clone();
        match self.act(NoticeChange::Begin { channel, from }).await {
            Ok(_) => Duration::ZERO,
            Err(()) => FAILED_LOOK,
        }
    }

    /// The first receipt from here on that is for the channel.
    async fn look(&mut self) -> Result<Option<Due>, crate::Refused> {
        loop {
            let from = self.from;
            let read = move |store: &dyn crate::ports::Store| {
                store.read(&incidents::stream(), from, LOOK_MAX)
            };
            let page = self.engine.blocking(read).await?;
            let is_last = page.len() < LOOK_MAX;
            for stored in page {
                if is_for(&stored, &self.facts.name) {
                    return Ok(Some(Due { seq: stored.seq, stored }));
                }
                self.from = stored.seq + 1;
            }
            if is_last {
                return Ok(None);
            }
        }
    }

    /// Makes one attempt at a notice, between its two receipts.
    async fn one(&mut self, channel: &Channel, due: Due) -> Duration {
        let failures = if channel.next == due.seq { channel.failures } else { 0 };
        let is_repeat =
            channel.next == due.seq && channel.is_unknown && !self.facts.repeats_are_known;
        let read = View::scan(&due.stored.core).ok();
        let Some(view) = read.filter(|view| due.stored.is_intact(view)) else {
            self.engine.inner().ledger.progress.mark_tampered();
            tracing::error!(event = "notice_unreadable", receipt_id = %due.stored.id, "a receipt that is to be told cannot be read");
            // What comes behind it must not wait for ever.
            self.from = due.seq + 1;
            return Duration::ZERO;
        };
        let incident = view.subject.map(|subject| subject.text().into_owned()).unwrap_or_default();
        let is_old = view.at.plus_secs(AGE_MAX_S) <= self.engine.clock().now();
        let is_end = view.rule.is_some_and(|rule| rule.is("incident.resolve"));
        let story = match incident_number(&incident).filter(|_| is_end) {
            // Without its story an end is told all the same, with a blank for the cause.
            Some(number) => self.engine.incident_story(number).await.ok().flatten(),
            None => None,
        };
        let is_public = self.facts.kind == "statuspage";
        let notice = notice(&view, story.as_ref(), is_repeat, is_public);
        let telling =
            Telling { channel: self.facts.name.clone(), seq: due.seq, incident: incident.clone() };
        let Ok(Some(attempt)) = self.act(NoticeChange::Tell(telling)).await else {
            return FAILED_LOOK;
        };
        let delivery = self.courier.deliver(&self.facts.name, &notice).await;
        let (outcome, after) = match delivery {
            Delivery::Delivered { .. } => (TellOutcome::Delivered, Duration::ZERO),
            Delivery::Refused { why } => {
                tracing::error!(event = "notice_refused", channel = %self.facts.name, incident = %incident, why, "a channel does not take what it is told");
                (TellOutcome::Refused, Duration::ZERO)
            }
            Delivery::Retry { .. } | Delivery::Unknown if is_old => {
                tracing::error!(event = "notice_expired", channel = %self.facts.name, incident = %incident, "a channel has not taken a notice for a day");
                (TellOutcome::Refused, Duration::ZERO)
            }
            Delivery::Retry { after } => (TellOutcome::Again, wait(failures, after)),
            Delivery::Unknown if is_repeat && failures + 1 >= FAILURES_MAX => {
                tracing::error!(event = "notice_unanswered", channel = %self.facts.name, incident = %incident, "a channel takes a notice and never says so: it is told no more of it");
                (TellOutcome::Refused, Duration::ZERO)
            }
            Delivery::Unknown => (TellOutcome::Unknown, wait(failures, None)),
        };
        self.engine.inner().common.metrics.notices.with([outcome.as_str()]).inc();
        let gives_up = outcome == TellOutcome::Refused
            || (outcome != TellOutcome::Delivered && failures + 1 >= FAILURES_MAX);
        if gives_up {
            // Before the outcome is sealed: a death in between would leave it untold.
            self.have_others_told(&incident).await;
        }
        self.settle(attempt, outcome).await;
        if matches!(outcome, TellOutcome::Delivered | TellOutcome::Refused) {
            self.from = due.seq + 1;
        }
        after
    }

    /// The incident is told over other channels, once for this one.
    async fn have_others_told(&self, incident: &str) {
        let Some(number) = incident_number(incident) else { return };
        let deed = IncidentDeed::Unreachable { channel: self.facts.name.clone() };
        let command = Command::Incident(IncidentChange::On { incident: number, deed });
        let request = Request {
            stream: incidents::stream(),
            command,
            actor: "notices".into(),
            may_register: false,
            key: None,
        };
        if let Err(refused) = self.engine.submit(request, None).await {
            tracing::warn!(event = "reroute_waits", channel = %self.facts.name, %refused, "nobody else is told yet");
        }
    }

    /// Seals what came of an attempt; goes on trying while the store is away.
    async fn settle(&self, attempt: ReceiptId, outcome: TellOutcome) {
        for _ in 0..SETTLE_TRIES {
            if self.act(NoticeChange::Told { attempt, outcome }).await.is_ok() {
                return;
            }
            tokio::time::sleep(AGAIN_FIRST).await;
        }
    }

    /// The receipt of what was decided. Who is refused finds out at the next turn how things stand.
    async fn act(&self, change: NoticeChange) -> Result<Option<ReceiptId>, ()> {
        let request = Request {
            stream: stream(),
            command: Command::Notice(change),
            actor: "notices".into(),
            may_register: false,
            key: None,
        };
        match self.engine.submit(request, None).await {
            Ok(decided) => Ok(decided.map(|decided| decided.receipt.id)),
            Err(refused) => {
                tracing::warn!(event = "notice_waits", channel = %self.facts.name, %refused, "a notice cannot be recorded yet");
                Err(())
            }
        }
    }
}

/// The wait before the next try: what the far side asks for, but never less than a backoff.
fn wait(failures: u32, after: Option<Duration>) -> Duration {
    let backoff = AGAIN_FIRST.saturating_mul(1 << failures.min(8)).min(AGAIN_LAST);
    after.map_or(backoff, |after| after.max(backoff)).min(Duration::from_secs(3_600))
}

fn is_for(stored: &Stored, channel: &str) -> bool {
    let tell = View::scan(&stored.core).ok().and_then(|view| view.meta_text("tell"));
    tell.is_some_and(|tell| tell.split(',').any(|name| name == channel))
}

/// What is told of one receipt.
fn notice(view: &View<'_>, story: Option<&Story>, is_repeat: bool, is_public: bool) -> Notice {
    let meta = |key| view.meta_text(key).map(|text| text.into_owned());
    let detail = view.detail.map(|detail| detail.text().into_owned()).unwrap_or_default();
    let severity = meta("severity").and_then(|word| Severity::parse(&word));
    let severity = severity.map_or(4, Severity::number);
    let title = meta("title").unwrap_or_default();
    let component = match (meta("components"), meta("component")) {
        // One that joins is not among those of before.
        (Some(all), Some(one)) if !all.split(',').any(|held| held == one) => format!("{all},{one}"),
        (all, one) => all.or(one).unwrap_or_default(),
    };
    let rule = view.rule.map(|rule| rule.text().into_owned()).unwrap_or_default();
    let status = view.state_to.and_then(|word| IncidentStatus::parse(&word.text()));
    let began = view.meta_int("began_us");
    let kind = kind(&rule, status, view.meta_int("step"));
    let text = match kind {
        NoticeKind::Opened => initial_alert(&InitialAlert {
            severity,
            // The figures of a message are for those who work on it.
            description: if detail.is_empty() || is_public { &title } else { &detail },
            url: None,
            started_at_us: began,
            updates_in: None,
        }),
        NoticeKind::Resolved => all_clear(&AllClear {
            root_cause: story.and_then(Story::cause),
            impact: Some(&component),
            started_at_us: began,
            ended_at_us: Some(view.at.0),
            affected_users_permille: None,
            actions: &[],
            post_mortem_at_us: None,
            preventive_measures: &[],
        }),
        NoticeKind::Escalated { .. } | NoticeKind::Update { .. } | NoticeKind::Acknowledged => {
            status_update(&StatusUpdate {
                at_us: view.at.0,
                done: Some(&done(&rule, view, &detail)),
                checked: &[],
                found: story.and_then(Story::cause),
                next: None,
                phase: status.and_then(phase),
                eta_us: None,
            })
        }
    };
    let is_shown = matches!(view.meta("public"), Some(MetaView::Bool(true)));
    let text = match is_shown && !detail.is_empty() {
        true => format!("{text}\n{detail}"),
        false => text,
    };
    let text =
        if is_repeat { format!("(You may have been told this before.)\n{text}") } else { text };
    Notice {
        id: view.id.to_string(),
        incident: view.subject.map(|subject| subject.text().into_owned()).unwrap_or_default(),
        kind,
        severity,
        title,
        text,
        component,
        at_us: view.at.0,
        opened_at_us: view.meta_int("opened_us").unwrap_or(view.at.0),
        url: None,
        alerts: alerts(view, kind, &detail, story),
    }
}

fn kind(rule: &str, status: Option<IncidentStatus>, step: Option<i64>) -> NoticeKind {
    match rule {
        "incident.open" => NoticeKind::Opened,
        "incident.escalate" | "incident.join" | "incident.grade" | "incident.reroute" => {
            let level = step.and_then(|step| u8::try_from(step).ok()).unwrap_or(1);
            NoticeKind::Escalated { level }
        }
        "incident.acknowledge" => NoticeKind::Acknowledged,
        "incident.resolve" => NoticeKind::Resolved,
        _ => NoticeKind::Update { phase: status.and_then(phase).unwrap_or(Phase::Investigating) },
    }
}

fn phase(status: IncidentStatus) -> Option<Phase> {
    match status {
        IncidentStatus::Investigating => Some(Phase::Investigating),
        IncidentStatus::Identified => Some(Phase::Fixing),
        IncidentStatus::Monitoring => Some(Phase::Testing),
        IncidentStatus::Resolved => None,
    }
}

/// What was done, in one sentence.
fn done(rule: &str, view: &View<'_>, detail: &str) -> String {
    let meta = |key| view.meta_text(key).map(|text| text.into_owned()).unwrap_or_default();
    let actor = view.actor.map(|actor| actor.text().into_owned()).unwrap_or_default();
    match rule {
        "incident.acknowledge" => format!("acknowledged by {actor}"),
        "incident.escalate" => "escalated: the time to answer is over".to_owned(),
        "incident.join" => format!("became worse: {}", meta("alert")),
        "incident.grade" => format!("graded {}", meta("severity")),
        "incident.reroute" => format!("{} cannot be reached", meta("unreachable")),
        "incident.recovered" => "no alert fires any more".to_owned(),
        _ => detail.to_owned(),
    }
}

/// The alerts behind a notice: the one that it is about, or all of them once they are over.
fn alerts(
    view: &View<'_>,
    kind: NoticeKind,
    detail: &str,
    story: Option<&Story>,
) -> Vec<NoticeAlert> {
    let title = view.meta_text("title").map(|text| text.into_owned()).unwrap_or_default();
    let starts_at_us = view.meta_int("began_us").unwrap_or(view.at.0);
    let one = |key: &str, ends_at_us| NoticeAlert {
        rule_id: key.split('{').next().unwrap_or(key).to_owned(),
        labels: BTreeMap::from([("alert".to_owned(), key.to_owned())]),
        title: title.clone(),
        message: detail.to_owned(),
        starts_at_us,
        ends_at_us,
        value: None,
    };
    if kind == NoticeKind::Resolved {
        let keys = story.map(Story::alerts).unwrap_or_default();
        return keys.iter().map(|key| one(key, Some(view.at.0))).collect();
    }
    view.meta_text("alert").map(|key| one(&key, None)).into_iter().collect()
}
