//! What is public of incidents that were really decided, and how callers share a look.
//!
//! Owns: a chain of decisions and a store that is played. Refuses to know: the engine and HTTP.

use std::sync::atomic::{AtomicUsize, Ordering};

use governors::{
    AlertChange, AlertPhase, Command, Context, Decision, Declared, IncidentChange, IncidentDeed,
    IncidentRole, IncidentStatus, MaintenanceChange, Rules, StreamState, decide,
};
use ledger::{LedgerId, StreamHead, View, seal};
use serde_json::{Value, json};
use types::{Severity, StreamName};

use super::*;

const START: Micros = Micros(1_800_000_000_000_000);

/// What was decided, and the board that was folded from it.
struct Desk {
    rules: Rules,
    stream: StreamName,
    state: StreamState,
    head: StreamHead,
    now: Micros,
    board: Board,
}

impl Desk {
    fn new() -> Desk {
        let stream = engine::incidents::stream();
        let channels = ["slack", "statuspage", "pagerduty"];
        Desk {
            rules: Rules::builtin().unwrap().with_channels(&channels, &[]),
            state: StreamState::empty(&stream),
            stream,
            head: StreamHead::EMPTY,
            now: START,
            board: Board::default(),
        }
    }

    /// A second later, by somebody whose name is not public.
    fn act(&mut self, command: &Command) -> &mut Desk {
        self.now = self.now.plus_secs(1);
        let cx =
            Context { stream: &self.stream, now: self.now, actor: "zqactor", may_register: true };
        if let Decision::Seal(sealing) = decide(&self.rules, &self.state, command, &cx) {
            for draft in &sealing.drafts {
                let id = LedgerId([7; 16]);
                let sealed = seal(&id, &self.stream, &self.head, self.now, draft).unwrap();
                self.head = self.head.after(&sealed);
                let view = View::scan(&sealed.core).unwrap();
                self.state.apply(&view).unwrap();
                self.board.take(&view);
            }
        }
        self
    }

    fn declare(&mut self, title: &str, severity: Severity, component: &str) -> &mut Desk {
        self.act(&Command::Incident(IncidentChange::Declare(Declared {
            title: title.to_owned(),
            severity,
            component: component.to_owned(),
            text: "zqdeclared".to_owned(),
        })))
    }

    fn on(&mut self, incident: u64, deed: IncidentDeed) -> &mut Desk {
        self.act(&Command::Incident(IncidentChange::On { incident, deed }))
    }

    fn status(&mut self, incident: u64, status: IncidentStatus, text: &str) -> &mut Desk {
        self.on(incident, IncidentDeed::Status { status, text: text.to_owned(), is_public: false })
    }

    fn alert(&mut self, to: AlertPhase, component: &str) -> &mut Desk {
        self.act(&Command::Alert(AlertChange {
            key: format!("zqkey{{c=\"{component}\"}}"),
            rule: "zqrule".to_owned(),
            to,
            severity: Severity::Sev1,
            component: component.to_owned(),
            title: format!("{component} is down"),
            message: "zqmessage 12%".to_owned(),
            inhibited_by: None,
            instance: None,
            gone: None,
        }))
    }

    /// Plans work on a component, so many seconds from the start on.
    fn plan(&mut self, component: &str, from_s: i64, until_s: i64) -> &mut Desk {
        self.act(&Command::Maintenance(MaintenanceChange::Add {
            title: "a new disk".to_owned(),
            components: vec![component.to_owned()],
            from: Some(START.plus_secs(from_s)),
            until: START.plus_secs(until_s),
            text: "short pauses".to_owned(),
        }))
    }

    /// Lets time pass, with what it alone does.
    fn pass(&mut self, second: i64) -> &mut Desk {
        self.now = START.plus_secs(second - 1);
        self.act(&Command::Tick);
        self.board.advance(self.now);
        self
    }

    /// The components that are always shown here.
    fn known() -> Vec<String> {
        ["http", "ledger"].map(str::to_owned).to_vec()
    }

    fn page(&self) -> String {
        page::page(&self.board, &Desk::known(), self.now, None)
    }

    fn summary(&self) -> Value {
        summary::summary(&self.board, &Desk::known(), self.now, 0)
    }

    fn states(&self) -> Vec<(String, &'static str)> {
        let known = Desk::known();
        let states = self.board.components(&known, self.now);
        states.into_iter().map(|(name, state)| (name.to_owned(), state.as_str())).collect()
    }
}

fn states(all: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    all.iter().map(|(name, state)| ((*name).to_owned(), *state)).collect()
}

#[test]
fn the_state_of_a_component_follows_the_worst_open_incident_alone() {
    let mut desk = Desk::new();
    assert_eq!(desk.states(), states(&[("http", "operational"), ("ledger", "operational")]));
    for (severity, state, impact) in [
        (Severity::Sev4, "operational", "none"),
        (Severity::Sev3, "degraded_performance", "minor"),
        (Severity::Sev2, "partial_outage", "major"),
        (Severity::Sev1, "major_outage", "critical"),
    ] {
        desk.declare("it is bad", severity, "ledger");
        assert_eq!(desk.states(), states(&[("http", "operational"), ("ledger", state)]));
        assert_eq!(desk.board.indicator().as_str(), impact);
    }
    desk.declare("another", Severity::Sev2, "checkout");
    let (http, checkout) = (("http", "operational"), ("checkout", "partial_outage"));
    assert_eq!(desk.states(), states(&[http, ("ledger", "major_outage"), checkout]));
    desk.on(4, IncidentDeed::Grade { severity: Severity::Sev3 });
    assert_eq!(desk.states(), states(&[http, ("ledger", "partial_outage"), checkout]));
    for incident in 1..=5 {
        desk.status(incident, IncidentStatus::Resolved, "");
    }
    assert_eq!(desk.states(), states(&[http, ("ledger", "operational")]));
    assert_eq!(desk.board.indicator().as_str(), "none");
    assert_eq!(desk.board.resolved.len(), 5);
}

#[test]
fn alerts_actors_and_notes_are_never_shown() {
    let mut desk = Desk::new();
    desk.alert(AlertPhase::Pending, "http").alert(AlertPhase::Firing, "http");
    desk.alert(AlertPhase::Firing, "ledger");
    desk.on(1, IncidentDeed::Acknowledge)
        .on(1, IncidentDeed::Assign { role: IncidentRole::Scribe, who: "zqwho".to_owned() })
        .on(1, IncidentDeed::Note { text: "zqnote".to_owned() })
        .on(1, IncidentDeed::Unreachable { channel: "slack".to_owned() });
    let quiet = desk.board.changes;
    desk.on(1, IncidentDeed::Note { text: "zqnote".to_owned() });
    assert_eq!(desk.board.changes, quiet, "what is not public changes nothing");
    desk.status(1, IncidentStatus::Identified, "a bad deployment");
    desk.on(1, IncidentDeed::Update { text: "we roll back".to_owned() });
    desk.alert(AlertPhase::Inactive, "http").alert(AlertPhase::Inactive, "ledger");
    desk.declare("second", Severity::Sev3, "ai").status(2, IncidentStatus::Resolved, "zqend");
    desk.on(2, IncidentDeed::Note { text: "zqcorrection".to_owned() });
    let (page, summary) = (desk.page(), desk.summary().to_string());
    for shown in [&page, &summary] {
        assert!(!shown.contains("zq"), "{shown}");
        for hidden in ["rcpt_", "slack", "pagerduty", "12%"] {
            assert!(!shown.contains(hidden), "{hidden}: {shown}");
        }
        for public in ["http is down", "a bad deployment", "we roll back", "INC-1"] {
            assert!(shown.contains(public), "{public}: {shown}");
        }
    }
    assert!(page.contains("second") && page.contains("Resolved incidents"), "{page}");
    assert!(!summary.contains("second"), "only what is open: {summary}");
}

#[test]
fn what_others_wrote_stays_text() {
    let hostile = "<script>alert(1)</script>\"'&--><style>";
    let mut desk = Desk::new();
    desk.declare(hostile, Severity::Sev1, hostile);
    desk.on(1, IncidentDeed::Update { text: hostile.to_owned() });
    let page = desk.page();
    assert!(!page.contains("<script") && !page.contains("--><"), "{page}");
    assert_eq!(page.matches("<style>").count(), 1);
    // The title, the component in table and incident, and the update.
    assert_eq!(page.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count(), 4, "{page}");
    let attributes = page.split('<').filter_map(|tag| tag.split_once('>'));
    assert!(attributes.clone().count() > 20);
    assert!(attributes.into_iter().all(|(tag, _)| !tag.contains("alert(1)")), "{page}");
    assert!(!page::policy_header().contains("unsafe"));
    assert_eq!(desk.summary()["incidents"][0]["name"], hostile);
}

#[test]
fn the_page_says_what_is_and_how_old_that_is() {
    let mut desk = Desk::new();
    let page = desk.page();
    assert!(page.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{page}");
    assert!(page.contains("All Systems Operational") && page.contains("No incident is open"));
    assert!(
        page.contains("<time datetime=\"2027-01-15T08:00:00Z\">2027-01-15 08:00:00 UTC</time>")
    );
    assert!(!page.contains("last known state"));
    desk.declare("slow", Severity::Sev3, "http");
    let old = page::page(&desk.board, &Desk::known(), desk.now, Some(90));
    assert!(old.contains("last known state, 90 seconds old"), "{old}");
    for part in ["Minor Service Outage", "Degraded performance", "sev3", "Investigating"] {
        assert!(old.contains(part), "{part}: {old}");
    }
    assert!(!old.contains("<script") && !old.contains("style=") && !old.contains("http:"));
}

#[test]
fn the_summary_has_the_shape_of_statuspage() {
    let mut desk = Desk::new();
    desk.declare("slow", Severity::Sev2, "ledger");
    desk.status(1, IncidentStatus::Identified, "a disk");
    desk.status(1, IncidentStatus::Monitoring, "");
    let summary = desk.summary();
    let at = |second: i64| Micros(START.0).plus_secs(second).to_string();
    let update = |nth: usize, status: &str, body: &str, at: &str| {
        json!({
            "id": format!("INC-1-{nth}"), "incident_id": "INC-1", "status": status, "body": body,
            "created_at": at, "updated_at": at, "display_at": at,
        })
    };
    assert_eq!(
        summary["status"],
        json!({"indicator": "major", "description": "Partial System Outage"})
    );
    assert_eq!(summary["scheduled_maintenances"], json!([]));
    assert_eq!(summary["page"]["updated_at"], at(3).as_str());
    let places: Vec<_> = summary["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|held| (held["name"].as_str().unwrap(), held["position"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, [("http", 1), ("ledger", 2)]);
    let incident = &summary["incidents"][0];
    let updates = [update(2, "monitoring", "", &at(3)), update(1, "identified", "a disk", &at(2))];
    assert_eq!(incident["incident_updates"], json!(updates));
    for (member, value) in [
        ("id", json!("INC-1")),
        ("status", json!("monitoring")),
        ("impact", json!("major")),
        ("created_at", json!(at(1))),
        ("monitoring_at", json!(at(3))),
        ("resolved_at", Value::Null),
    ] {
        assert_eq!(incident[member], value, "{member}");
    }
    assert_eq!(incident["components"], json!([summary["components"][1]]));
}

#[test]
fn what_is_said_of_an_end_is_shown_where_that_was_asked_for() {
    for is_public in [false, true] {
        let mut desk = Desk::new();
        desk.declare("slow", Severity::Sev3, "http");
        let text = "the disk is new".to_owned();
        desk.on(1, IncidentDeed::Status { status: IncidentStatus::Resolved, text, is_public });
        assert_eq!(desk.board.resolved.len(), 1);
        assert_eq!(desk.page().contains("the disk is new"), is_public);
    }
}

#[test]
fn planned_work_is_shown_as_the_time_has_it() {
    let mut desk = Desk::new();
    desk.plan("ledger", 60, 120);
    let phase = |desk: &Desk| desk.summary()["scheduled_maintenances"][0]["status"].clone();
    assert_eq!(phase(&desk), "scheduled");
    assert_eq!(desk.states(), states(&[("http", "operational"), ("ledger", "operational")]));
    assert!(desk.page().contains("Scheduled. Affects ledger.") && desk.page().contains("pauses"));

    let quiet = desk.pass(59).board.changes;
    assert_eq!(desk.pass(60).board.changes, quiet + 1, "the copy is written anew");
    assert_eq!(desk.pass(61).board.changes, quiet + 1);
    let summary = desk.summary();
    let at = |second: i64| START.plus_secs(second).to_string();
    let step = |status: &str, body: &str, at: &str| {
        json!({
            "id": format!("MNT-1-{status}"), "incident_id": "MNT-1", "status": status,
            "body": body, "created_at": at, "updated_at": at, "display_at": at,
        })
    };
    let window = &summary["scheduled_maintenances"][0];
    for (member, value) in [
        ("id", json!("MNT-1")),
        ("name", json!("a new disk")),
        ("status", json!("in_progress")),
        ("impact", json!("maintenance")),
        ("scheduled_for", json!(at(60))),
        ("scheduled_until", json!(at(120))),
        ("components", json!([summary["components"][1]])),
        (
            "incident_updates",
            json!([step("in_progress", "", &at(60)), step("scheduled", "short pauses", &at(1))]),
        ),
    ] {
        assert_eq!(window[member], value, "{member}");
    }
    let status = json!({"indicator": "none", "description": "Service Under Maintenance"});
    assert_eq!((&summary["status"], &summary["incidents"]), (&status, &json!([])));
    assert_eq!(desk.states(), states(&[("http", "operational"), ("ledger", "under_maintenance")]));
    assert!(desk.page().contains("Under maintenance") && desk.page().contains("In progress"));
    // What fails is worse than what is worked on.
    desk.declare("it is gone", Severity::Sev2, "ledger");
    assert_eq!(desk.states()[1].1, "partial_outage");
    desk.status(1, IncidentStatus::Resolved, "");

    desk.pass(120);
    assert_eq!(desk.summary()["scheduled_maintenances"], json!([]));
    assert_eq!(desk.summary()["status"]["description"], "All Systems Operational");
    assert_eq!(desk.states(), states(&[("http", "operational"), ("ledger", "operational")]));
    assert!(desk.page().contains("Completed maintenance"));
}

#[test]
fn work_that_is_called_off_before_it_began_is_not_shown() {
    let mut desk = Desk::new();
    desk.plan("mail", 60, 120).plan("mail", 10, 120).pass(20);
    assert_eq!(desk.states()[2], ("mail".to_owned(), "under_maintenance"));
    for number in [1, 2] {
        desk.act(&Command::Maintenance(MaintenanceChange::End { number }));
    }
    assert_eq!(desk.summary()["scheduled_maintenances"], json!([]));
    assert_eq!(desk.states().len(), 2);
    let page = desk.page();
    assert!(page.contains("MNT-2. Completed") && !page.contains("MNT-1"), "{page}");
}

#[test]
fn what_was_said_and_what_is_over_is_kept_for_a_while_only() {
    let mut desk = Desk::new();
    desk.declare("long", Severity::Sev1, "http");
    for nth in 1..=50 {
        desk.on(1, IncidentDeed::Update { text: format!("update {nth}") });
    }
    let held = &desk.board.open[0].updates;
    assert_eq!((held.len(), held[0].nth, held[19].nth), (20, 31, 50));
    for incident in 2..=15 {
        desk.declare("short", Severity::Sev4, "http");
        desk.status(incident, IncidentStatus::Resolved, "");
    }
    let over: Vec<&str> = desk.board.resolved.iter().map(|held| &*held.name).collect();
    assert_eq!((over.len(), over[0], over[9]), (10, "INC-15", "INC-6"));
}

/// A store that answers, does not, or takes for ever.
#[derive(Clone, Copy)]
enum Play {
    Answers,
    Fails,
    Hangs,
}

struct Played {
    shared: Shared,
    reads: AtomicUsize,
    at_once: AtomicUsize,
    began: Instant,
}

impl Played {
    fn new() -> Played {
        Played {
            shared: Shared::new(&["http"]),
            reads: AtomicUsize::new(0),
            at_once: AtomicUsize::new(0),
            began: Instant::now(),
        }
    }

    fn clock(&self) -> Micros {
        START.plus_secs(i64::try_from(self.began.elapsed().as_secs()).unwrap())
    }

    async fn look(&self, play: Play) -> Option<StatusPage> {
        self.shared
            .now(
                || self.clock(),
                async |turn: Turn| {
                    self.reads.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(self.at_once.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                    // How long a read takes, of paused time: others come while it lasts.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    self.at_once.fetch_sub(1, Ordering::SeqCst);
                    match play {
                        Play::Answers => turn.publish(self.clock()),
                        Play::Fails => {}
                        Play::Hangs => std::future::pending().await,
                    }
                },
            )
            .await
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn callers_share_one_read_in_two_seconds() {
    let played = Played::new();
    let many = || async {
        let looks = (0..50).map(|_| played.look(Play::Answers));
        futures_util::future::join_all(looks).await
    };
    let first = many().await;
    assert!(first.iter().all(|page| page.is_some() && *page == first[0]));
    assert_eq!(played.reads(), 1);
    tokio::time::advance(FRESH - Duration::from_millis(20)).await;
    many().await;
    assert_eq!(played.reads(), 1);
    tokio::time::advance(Duration::from_millis(20)).await;
    let second = many().await;
    assert_eq!(played.reads(), 2);
    assert_ne!(first[0], second[0], "read at another time");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_leaves_the_last_known_state_with_its_age() {
    for play in [Play::Fails, Play::Hangs] {
        let played = Played::new();
        let age = |page: StatusPage| {
            let summary: Value = serde_json::from_slice(&page.summary).unwrap();
            summary["page"]["age_s"].as_i64().unwrap()
        };
        assert_eq!(age(played.look(Play::Answers).await.unwrap()), 0);
        tokio::time::advance(Duration::from_secs(60)).await;
        let page = played.look(play).await.unwrap();
        let text = String::from_utf8(page.page.to_vec()).unwrap();
        assert!(text.contains("last known state"), "{text}");
        assert!((60..=61).contains(&age(page)));
        let reads = played.reads();
        // Not asked again at once.
        assert!(played.look(play).await.is_some());
        assert_eq!(played.reads(), reads);
        tokio::time::advance(FRESH).await;
        assert_eq!(age(played.look(Play::Answers).await.unwrap()), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_shown_before_anything_is_known() {
    let played = Played::new();
    assert_eq!(played.look(Play::Fails).await, None);
    assert_eq!(played.look(Play::Fails).await, None);
    assert_eq!(played.reads(), 1);
    tokio::time::advance(FRESH).await;
    assert!(played.look(Play::Answers).await.is_some());
}
