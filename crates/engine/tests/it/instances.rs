//! Alerts of several engines on one store, and of one whose store is away.
//!
//! Owns: whose alerts end when, that the alert about a dead store is told while it is dead, and
//! that nobody is told twice when it is back. Refuses to know: leases and files, which real stores
//! have.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dialect::notify::NoticeKind;
use engine::ports::{Identity, Inbox, OpenSpool, ReadError, Standby, Store};
use engine::{Request, Stage, WatchParts, incidents};
use governors::{
    AlertPhase, Command, IncidentChange, IncidentDeed, IncidentStatus, MaintenanceChange,
    OverrideChange,
};
use ledger::{HeadRecord, Verifier};
use store::SqliteStore;
use types::{LaneId, StreamName};

use crate::fault_store::{FaultStore, Gate};
use crate::post::{DELIVERED, LATER, Post, count, declare, outcomes};
use crate::world::{Running, World, eventually};

/// How often figures are looked at here.
pub(crate) const INTERVAL: Duration = Duration::from_millis(50);

pub(crate) const RULES: &str = r#"
[[alert]]
id = "down"
title = "A part is down"
message = "it is ${value}"
severity = "sev1"
category = "system"
component = "host"
condition = "subsystem.up{subsystem=*}[1s] == 0"
"#;

/// Watching by these rules.
pub(crate) fn watching(rules: &str) -> WatchParts {
    let rules = runbook::Rules::parse_for(rules, INTERVAL.as_micros() as i64).unwrap();
    WatchParts { rules: Some(Arc::new(rules)), courier: None }
}

/// One of several engines on the ledger of `first`.
pub(crate) fn beside(first: &World, writer: u64) -> World {
    let mut world = World::new().tuned(|options| options.alert_interval = INTERVAL);
    world.store = Arc::new(first.store.beside(writer));
    world.clock = first.clock.clone();
    world.watch = watching(RULES);
    world
}

pub(crate) fn sick(running: &Running, is_sick: bool) {
    running.metrics.subsystem_up.with(["disk"]).set(i64::from(!is_sick));
}

/// Phase by key, as the store has them.
pub(crate) async fn alerts(running: &Running) -> BTreeMap<String, AlertPhase> {
    let state = running.engine.incidents().await.unwrap();
    let alerts = state.incidents().unwrap().alerts();
    let disk = alerts.iter().filter(|alert| alert.key.contains("disk"));
    disk.map(|alert| (alert.instance.clone().unwrap(), alert.phase)).collect()
}

/// Lets time go on until alerts are as wanted.
pub(crate) async fn until(world: &World, running: &Running, wanted: &[(&str, AlertPhase)]) {
    let wanted: BTreeMap<String, AlertPhase> =
        wanted.iter().map(|(name, phase)| ((*name).to_owned(), *phase)).collect();
    for _ in 0..6_000 {
        if alerts(running).await == wanted {
            return;
        }
        pass(world).await;
    }
    panic!("never: {wanted:?}, but {:?}", alerts(running).await);
}

/// A hundredth of a second, on both clocks: alerts are looked at by the runtime's, which cannot be
/// paused beside the threads of two engines, and dated by the one that is told.
pub(crate) async fn pass(world: &World) {
    tokio::time::sleep(Duration::from_millis(10)).await;
    world.clock.advance_micros(10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_is_unsaid_by_nobody_but_its_instance_until_that_is_gone() {
    use AlertPhase::Firing;
    let first = World::new();
    let (one, two) = (beside(&first, 1), beside(&first, 2));
    let (well, ill) = (one.start(), two.start());
    sick(&well, false);
    sick(&ill, true);
    until(&one, &well, &[("2", Firing)]).await;
    for _ in 0..100 {
        pass(&one).await;
        assert_eq!(alerts(&well).await.get("2"), Some(&Firing), "it is sick all the time");
    }
    sick(&well, true);
    until(&one, &well, &[("1", Firing), ("2", Firing)]).await;
    sick(&well, false);
    until(&one, &well, &[("2", Firing)]).await;
    let incident = |state: &governors::StreamState| {
        let state = state.incidents().unwrap();
        assert_eq!(state.count(), 1, "they share it");
        state.incident(1).unwrap().status
    };
    let state = well.engine.incidents().await.unwrap();
    assert_eq!(incident(&state), IncidentStatus::Investigating);
    // It dies. For a while nobody can know whether it comes back.
    drop_dead(ill, &two).await;
    first.store.lapse(2);
    for _ in 0..20 {
        pass(&one).await;
    }
    assert_eq!(alerts(&well).await.get("2"), Some(&Firing));
    one.clock.advance_secs(15);
    until(&one, &well, &[]).await;
    let state = well.engine.incidents().await.unwrap();
    assert_eq!(incident(&state), IncidentStatus::Monitoring);
    let story = well.engine.incident_story(1).await.unwrap().unwrap();
    let last = story.moments().last().unwrap();
    assert!(last.text.contains("instance 2 is gone"), "{}", last.text);
    well.end(&one).await;
}

/// Ends an engine without a word.
pub(crate) async fn drop_dead(running: Running, world: &World) {
    for name in ["alerts_sup", "governance_sup"] {
        running.engine.supervisor().stop(name).await;
    }
    running.end(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_of_a_key_that_is_too_long_goes_on_after_a_restart() {
    let world = {
        let mut world = World::new().tuned(|options| options.alert_interval = INTERVAL);
        world.watch = watching(RULES);
        world
    };
    let long: &'static str = Box::leak("x".repeat(300).into_boxed_str());
    for life in 0..2 {
        let running = world.start();
        let up = running.metrics.subsystem_up.with([long]);
        up.set(0);
        let held = |state: &governors::StreamState| {
            let alerts = state.incidents().unwrap().alerts();
            let long = alerts.iter().find(|alert| alert.key.contains("xxx"));
            long.map(|alert| (alert.phase, alert.since_us))
        };
        for _ in 0..150 {
            pass(&world).await;
        }
        let state = running.engine.incidents().await.unwrap();
        assert_eq!(held(&state).unwrap().0, AlertPhase::Firing, "life {life}");
        assert_eq!(count(&*world.store, "incident.open"), 1);
        let changes = crate::post::said(&*world.store, &incidents::stream());
        let changes =
            changes.iter().filter(|(rule, _, key)| rule == "alert.change" && key.contains("xxx"));
        assert_eq!(changes.count(), 1, "it neither ends nor begins again in life {life}");
        running.end(&world).await;
    }
}

/// Spools in memory that survive engines, and the log that they are carried into.
pub(crate) struct Shelf {
    pub(crate) ledger: Arc<FaultStore>,
    spools: Mutex<BTreeMap<LaneId, Arc<SqliteStore>>>,
    opened: AtomicU64,
    /// What was left is looked for here.
    pub(crate) left_gate: Gate,
}

impl Shelf {
    fn of(world: &World) -> Arc<Shelf> {
        let ledger = SqliteStore::memory_as(world.store.identity()).unwrap();
        let ledger = Arc::new(FaultStore::new(ledger));
        let (spools, opened, left_gate) = (Mutex::default(), AtomicU64::new(0), Gate::default());
        Arc::new(Shelf { ledger, spools, opened, left_gate })
    }

    fn is_empty(&self) -> bool {
        self.spools.lock().unwrap().is_empty()
    }
}

impl Standby for Shelf {
    fn open(&self, identity: &Identity) -> Result<OpenSpool, ReadError> {
        let lane = LaneId(self.opened.fetch_add(1, Ordering::SeqCst).to_be_bytes());
        let store = Arc::new(SqliteStore::memory_as(*identity).unwrap());
        self.spools.lock().unwrap().insert(lane, Arc::clone(&store));
        Ok(OpenSpool { lane, store, workers: Vec::new() })
    }

    fn left(&self, _identity: &Identity) -> Result<(Vec<OpenSpool>, u64), ReadError> {
        self.left_gate.pass();
        let spools = self.spools.lock().unwrap().clone();
        let open = |(lane, store)| OpenSpool { lane, store, workers: Vec::new() };
        Ok((
            spools.into_iter().map(|(lane, store)| open((lane, store as Arc<dyn Store>))).collect(),
            0,
        ))
    }

    fn set_aside(&self, lane: LaneId) -> Result<(), ReadError> {
        panic!("lane {lane} is good")
    }

    fn discard(&self, lane: LaneId) -> Result<(), ReadError> {
        self.spools.lock().unwrap().remove(&lane);
        Ok(())
    }

    fn carrier(&self) -> Result<Arc<dyn Store>, ReadError> {
        Ok(Arc::clone(&self.ledger) as Arc<dyn Store>)
    }

    fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        None
    }
}

/// An engine whose store may go away, and what stands in for it.
pub(crate) fn outage(post: &Arc<Post>) -> (World, Arc<Shelf>) {
    let mut world = World::new();
    world.store = Arc::new(world.store.beside(1));
    world.watch = post.watch();
    let shelf = Shelf::of(&world);
    world.standby = Some(Arc::clone(&shelf) as Arc<dyn Standby>);
    (world, shelf)
}

pub(crate) async fn stage(running: &Running, wanted: Stage) {
    eventually(wanted.as_str(), || running.engine.stage() == wanted).await;
}

pub(crate) async fn begun(world: &World, channels: usize) {
    let notices = StreamName::system(types::limits::STREAM_NOTICES);
    let all = || crate::post::said(&*world.store, &notices).len() == channels;
    eventually("the channels have begun", all).await;
}

/// The store goes away, which somebody notices who writes to it.
pub(crate) async fn goes_away(world: &World, running: &Running) {
    world.store.go_away(true);
    let _ = running.engine.note("probe", "anybody there?".to_owned()).await;
    stage(running, Stage::Away).await;
}

/// The ledger as it was written, by whomever.
pub(crate) fn intact(store: &FaultStore) {
    let query = engine::ports::Query { stream: None, before_pos: None, scan_limit: 10_000 };
    let mut all = store.query(&query).unwrap();
    all.reverse();
    let head: HeadRecord = store.head().unwrap();
    let mut verifier = Verifier::new(store.identity().ledger, Some(head));
    all.iter().for_each(|stored| verifier.push(&stored.row()));
    let report = verifier.finish();
    assert!(report.intact(), "{:?}", report.findings);
}

fn acknowledge(incident: u64) -> Command {
    let deed = IncidentDeed::Acknowledge;
    Command::Incident(IncidentChange::On { incident, deed })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_keeps_nobody_from_being_told_and_nobody_hears_it_twice() {
    let post = Post::new(&["slack", "pagerduty"]);
    let (world, shelf) = outage(&post);
    let running = world.start();
    begun(&world, 2).await;
    running.decide(incidents::stream(), declare("before", "http")).await;
    eventually("it is told", || outcomes(&*world.store, "pagerduty").len() == 1).await;
    eventually("by both", || outcomes(&*world.store, "slack").len() == 1).await;
    // Read, as whoever watches does.
    running.engine.incidents().await.unwrap();
    goes_away(&world, &running).await;
    // What would not be carried over is not taken.
    for command in [
        Command::Maintenance(MaintenanceChange::End { number: 1 }),
        Command::Override(OverrideChange::End { number: 1 }),
    ] {
        let stream = incidents::stream();
        let request =
            Request { stream, command, actor: "ann".into(), may_register: false, key: None };
        let refused = running.engine.act(request).await.unwrap_err();
        assert_eq!(refused.reason, types::Reason::FirestoreError);
    }
    running.decide(incidents::stream(), declare("the store is away", "ledger")).await;
    for channel in ["slack", "pagerduty"] {
        eventually("the page", || post.told(channel).len() == 2).await;
    }
    let told = post.told("pagerduty").pop().unwrap();
    assert_eq!(told.title, "the store is away");
    assert_ne!(told.incident, "INC-2", "another instance may give that number");
    // The incident of before goes on, and its ladder is climbed.
    running.decide(incidents::stream(), acknowledge(1)).await;
    world.clock.advance_secs(301);
    let paged = |post: &Post| {
        let told = post.told("pagerduty");
        let again = told.iter().filter(|notice| notice.incident == told[1].incident);
        again.count() > 1
    };
    eventually("nobody has answered", || paged(&post)).await;
    eventually("the answer is told", || {
        post.told("slack").iter().any(|notice| notice.text.contains("acknowledged by"))
    })
    .await;
    let number = governors::incident::incident_number(&told.incident).unwrap();
    let story = running.engine.incident_story(number).await.unwrap();
    assert!(story.is_some(), "it can be read while the store is away");
    let heard: Vec<usize> = ["slack", "pagerduty"].map(|name| post.told(name).len()).to_vec();
    world.store.go_away(false);
    stage(&running, Stage::Up).await;
    assert!(shelf.is_empty());
    // A notice of the chain itself, behind all that was carried over.
    running.decide(incidents::stream(), acknowledge(number)).await;
    for (channel, heard) in ["slack", "pagerduty"].into_iter().zip(heard) {
        eventually("the answer", || post.told(channel).len() == heard + 1).await;
        let last = post.told(channel).pop().unwrap();
        assert_eq!(last.incident, told.incident, "it keeps its name");
    }
    let state = running.engine.incidents().await.unwrap();
    let open: Vec<String> =
        state.incidents().unwrap().open().iter().map(|held| held.title.clone()).collect();
    assert_eq!(open, ["before", "the store is away"]);
    assert!(state.incidents().unwrap().incident(1).unwrap().acknowledged_us.is_some());
    running.end(&world).await;
    intact(&world.store);
    intact(&shelf.ledger);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_heard_the_end_on_a_lane_is_not_told_the_beginning_afterwards() {
    let post = Post::new(&["slack", "pagerduty"]);
    post.answers("pagerduty", &[LATER], DELIVERED);
    let (world, shelf) = outage(&post);
    let running = world.start();
    begun(&world, 2).await;
    running.decide(incidents::stream(), declare("before", "http")).await;
    eventually("it is tried", || outcomes(&*world.store, "pagerduty") == ["again"]).await;
    running.engine.incidents().await.unwrap();
    // Before the second try.
    goes_away(&world, &running).await;
    let (status, text) = (IncidentStatus::Resolved, "it was nothing".to_owned());
    let deed = IncidentDeed::Status { status, text, is_public: false };
    let resolve = Command::Incident(IncidentChange::On { incident: 1, deed });
    running.decide(incidents::stream(), resolve).await;
    let told = || post.told("pagerduty").iter().map(|it| it.kind).collect::<Vec<_>>();
    eventually("the end", || told() == [NoticeKind::Opened, NoticeKind::Resolved]).await;
    world.store.go_away(false);
    stage(&running, Stage::Up).await;
    running.decide(incidents::stream(), declare("afterwards", "mail")).await;
    let expected = ["again", "superseded", "delivered"];
    eventually("what follows", || outcomes(&*world.store, "pagerduty") == expected).await;
    assert_eq!(told(), [NoticeKind::Opened, NoticeKind::Resolved, NoticeKind::Opened]);
    assert_eq!(post.told("pagerduty").pop().unwrap().title, "afterwards");
    running.end(&world).await;
    assert!(shelf.is_empty());
    intact(&world.store);
}

#[test]
fn a_process_that_dies_while_the_store_is_away_loses_no_incident() {
    let post = Post::new(&["slack", "pagerduty"]);
    // The pager is away as well: what it has not heard is told when the store is back.
    post.answers("pagerduty", &[], LATER);
    let (world, shelf) = outage(&post);
    let (set_up, heard) = (Arc::clone(&world.store), Arc::clone(&post));
    let (notices, clock) = (StreamName::system(types::limits::STREAM_NOTICES), &world);
    world.life(move |running| async move {
        let all = || crate::post::said(&*set_up, &notices).len() == 2;
        eventually("the channels have begun", all).await;
        goes_away(clock, &running).await;
        running.decide(incidents::stream(), declare("the store is away", "ledger")).await;
        eventually("one is told", || heard.told("slack").len() == 1).await;
        eventually("one is not", || !heard.told("pagerduty").is_empty()).await;
        // The end of the first is sealed before the process dies.
        eventually("its end is sealed", || taken(&shelf, "slack") == 1).await;
        drop((running, set_up));
    });
    world.store.go_away(false);
    let before = post.told("slack").len();
    post.answers("pagerduty", &[], crate::post::DELIVERED);
    let (store, heard) = (Arc::clone(&world.store), Arc::clone(&post));
    world.life(move |running| async move {
        let taken = || outcomes(&*store, "pagerduty").iter().any(|word| word == "delivered");
        eventually("the pager is told", taken).await;
        let state = running.engine.incidents().await.unwrap();
        assert_eq!(state.incidents().unwrap().open().len(), 1);
        assert_eq!(heard.told("pagerduty").last().unwrap().title, "the store is away");
        running.engine.drain(Duration::from_secs(5)).await;
        drop((running, store));
    });
    let slack = post.told("slack");
    let opened = slack.iter().filter(|notice| notice.text.contains("INCIDENT DECLARED"));
    assert_eq!(opened.count(), 1, "{before} before: {slack:?}");
    intact(&world.store);
}

/// The spool that stands in now.
pub(crate) fn shelf_of(shelf: &Shelf) -> Option<Arc<SqliteStore>> {
    shelf.spools.lock().unwrap().values().next().cloned()
}

/// How many notices a channel has taken in the first lane.
pub(crate) fn taken(shelf: &Shelf, channel: &str) -> usize {
    let notices = StreamName::system(types::limits::STREAM_NOTICES);
    let lane = notices.lane(LaneId(0_u64.to_be_bytes()));
    let told = shelf_of(shelf).map_or_else(Vec::new, |spool| crate::post::said(&*spool, &lane));
    let is_its = |(_, status, subject): &(String, String, String)| {
        status == "delivered" && subject == channel
    };
    told.iter().filter(|told| is_its(told)).count()
}
