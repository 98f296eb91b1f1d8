//! How channels are told: when they look, how long they insist, and what is done for those that
//! take nothing.
//!
//! Owns: the bounds of a notice. Refuses to know: what it says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dialect::notify::Notice;
use engine::incidents::stream;
use engine::notify::Delivery;
use governors::{Command, IncidentChange, IncidentDeed, IncidentStatus, NoticeChange, Telling};
use types::{Hash, Severity, StreamName, limits};

use crate::fault_store::FaultStore;
use crate::post::{DELIVERED, LATER, NEVER, Post, count, declare, outcomes, say};
use crate::world::{Running, World, eventually, verify};

/// A world with these channels, where nobody else looks at the store.
fn world(post: &Arc<Post>) -> World {
    let mut world = World::new().tuned(|options| {
        options.check_interval = Duration::from_secs(86_400);
    });
    world.watch = post.watch();
    world
}

/// Waits until every channel is set up, so that it is told what comes.
/// A running engine whose channels have begun.
async fn begun(post: &Arc<Post>, channels: usize) -> (World, Running) {
    let world = world(post);
    let running = world.start();
    let notices = StreamName::system(limits::STREAM_NOTICES);
    let all = || crate::post::said(&*world.store, &notices).len() == channels;
    eventually("the channels have begun", all).await;
    (world, running)
}

/// As [`eventually`], where time goes by in seconds: it is paused, so that a sleep waits for nobody
/// and only moves the clock on.
async fn in_minutes(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "never: {what}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn titles(told: &[Notice]) -> Vec<&str> {
    told.iter().map(|notice| &*notice.title).collect()
}

#[tokio::test(start_paused = true)]
async fn an_idle_channel_looks_once_a_minute() {
    let post = Post::new(&["slack"]);
    let (world, running) = begun(&post, 1).await;
    let looks = || world.store.looks.load(Ordering::SeqCst);
    let within = |secs: u64| async move {
        let before = looks();
        tokio::time::sleep(Duration::from_secs(secs)).await;
        looks() - before
    };
    let since = Instant::now();
    // The beginning waits for threads, for which time does not stand still.
    while within(60).await != 1 {
        assert!(since.elapsed() < Duration::from_secs(60), "it is never idle");
    }
    assert_eq!(within(600).await, 10, "one read a minute and no other");
    running.end(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_to_be_told_wakes_its_channel() {
    let post = Post::new(&["slack"]);
    let (world, running) = begun(&post, 1).await;
    let since = Instant::now();
    for nth in 1..=5 {
        let command = if nth == 1 { declare("one", "http") } else { say(1, "news") };
        running.decide(stream(), command).await;
        eventually("it is told", || post.told("slack").len() == nth).await;
    }
    assert!(since.elapsed() < Duration::from_secs(30), "nobody waited for the look of a minute");
    eventually("all ends are sealed", || outcomes(&*world.store, "slack").len() == 5).await;
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_is_never_taken_is_given_up_where_another_channel_has_taken_it() {
    let post = Post::new(&["slack", "pagerduty"]);
    post.answers("pagerduty", &vec![LATER; 10], DELIVERED);
    let (world, running) = begun(&post, 2).await;
    running.decide(stream(), declare("one", "http")).await;
    running.decide(stream(), declare("two", "mail")).await;
    in_minutes("the second one is told", || outcomes(&*world.store, "pagerduty").len() == 11).await;
    let mut expected = vec!["again"; 9];
    expected.extend(["given_up", "delivered"]);
    assert_eq!(outcomes(&*world.store, "pagerduty"), expected);
    assert_eq!(titles(&post.told("pagerduty"))[9..], ["one", "two"]);
    // Others were told in its place, after the third try and once.
    assert_eq!(count(&*world.store, "incident.reroute"), 1);
    eventually("others are told", || post.told("slack").len() == 3).await;
    eventually("and have taken it", || outcomes(&*world.store, "slack").len() == 3).await;
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(start_paused = true)]
async fn the_only_page_is_tried_until_it_is_taken_or_something_newer_stands_behind_it() {
    let resolve = IncidentDeed::Status {
        status: IncidentStatus::Resolved,
        text: String::new(),
        is_public: false,
    };
    let grade = IncidentDeed::Grade { severity: Severity::Sev2 };
    let acknowledge = IncidentDeed::Acknowledge;
    let on = |deed| Command::Incident(IncidentChange::On { incident: 1, deed });
    let kept = |more: usize| [vec!["again"; 12], vec!["delivered"; 1 + more]].concat();
    let given_up = || [vec!["again"; 9], vec!["given_up", "again", "again", "delivered"]].concat();
    // A status page shows it and wakes nobody.
    for (behind, kinds, expected) in [
        (None, ["pagerduty"].as_slice(), kept(0)),
        (None, &["pagerduty", "statuspage"], kept(0)),
        (Some(say(1, "news")), &["pagerduty"], kept(1)),
        (Some(on(acknowledge)), &["pagerduty"], kept(1)),
        (Some(on(grade)), &["pagerduty"], given_up()),
        (Some(on(resolve)), &["pagerduty"], given_up()),
        // Whoever hears of another one looks.
        (Some(declare("two", "mail")), &["pagerduty"], given_up()),
    ] {
        let post = Post::new(kinds);
        post.answers("pagerduty", &vec![LATER; 12], DELIVERED);
        let (world, running) = begun(&post, kinds.len()).await;
        running.decide(stream(), declare("one", "http")).await;
        let what = format!("{behind:?} {kinds:?}");
        if let Some(command) = behind {
            running.decide(stream(), command).await;
        }
        let all = || outcomes(&*world.store, "pagerduty").len() == expected.len();
        in_minutes(&what, all).await;
        assert_eq!(outcomes(&*world.store, "pagerduty"), expected, "{what}");
        running.end(&world).await;
        verify(&world.store);
    }
}

#[tokio::test(start_paused = true)]
async fn news_that_may_have_been_heard_three_times_is_told_no_more() {
    let post = Post::new(&["slack"]);
    let (world, running) = begun(&post, 1).await;
    running.decide(stream(), declare("one", "http")).await;
    eventually("it is told", || outcomes(&*world.store, "slack").len() == 1).await;
    post.answers("slack", &[], Delivery::Unknown);
    running.decide(stream(), say(1, "news")).await;
    in_minutes("it is given up", || outcomes(&*world.store, "slack").len() == 4).await;
    let expected = ["delivered", "unknown", "unknown", "given_up"];
    assert_eq!(outcomes(&*world.store, "slack"), expected);
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_old_makes_way_for_the_newest_one() {
    let post = Post::new(&["slack"]);
    let (world, running) = begun(&post, 1).await;
    running.decide(stream(), declare("one", "http")).await;
    eventually("it is told", || outcomes(&*world.store, "slack").len() == 1).await;
    post.answers("slack", &vec![LATER; 12], DELIVERED);
    for text in ["first", "second", "third"] {
        running.decide(stream(), say(1, text)).await;
    }
    in_minutes("the newest is told", || outcomes(&*world.store, "slack").len() == 15).await;
    let mut expected = vec!["delivered"];
    expected.extend(vec!["again"; 9]);
    expected.extend(["given_up", "again", "again", "delivered", "delivered"]);
    assert_eq!(outcomes(&*world.store, "slack"), expected);
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_taken_again_and_again_waits_long_and_makes_way_for_another_page() {
    let post = Post::new(&["slack"]);
    post.answers("slack", &vec![Delivery::Unknown; 4], DELIVERED);
    let (world, running) = begun(&post, 1).await;
    running.decide(stream(), declare("one", "http")).await;
    let tries = || outcomes(&*world.store, "slack").len();
    in_minutes("it is tried three times", || tries() == 3).await;
    tokio::time::sleep(Duration::from_secs(13 * 60)).await;
    assert_eq!(post.told("slack").len(), 3, "nobody is told the same every minute");
    in_minutes("it is told once more", || tries() == 4).await;
    assert_eq!(outcomes(&*world.store, "slack"), vec!["unknown"; 4]);
    running.decide(stream(), declare("two", "mail")).await;
    in_minutes("the other one is told", || tries() == 6).await;
    assert_eq!(outcomes(&*world.store, "slack")[4..], ["superseded", "delivered"]);
    assert_eq!(titles(&post.told("slack"))[4..], ["two"]);
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_asks_for_a_long_wait_is_stood_in_for_at_once() {
    let post = Post::new(&["slack", "pagerduty"]);
    let after = Some(Duration::from_secs(900));
    post.answers("pagerduty", &[Delivery::Retry { after }], DELIVERED);
    let (world, running) = begun(&post, 2).await;
    running.decide(stream(), declare("one", "http")).await;
    eventually("others are told", || count(&*world.store, "incident.reroute") == 1).await;
    eventually("the first try is over", || outcomes(&*world.store, "pagerduty") == ["again"]).await;
    eventually("they have heard it", || outcomes(&*world.store, "slack").len() == 2).await;
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(start_paused = true)]
async fn what_is_old_and_needless_is_given_up_before_its_tenth_try() {
    let post = Post::new(&["slack"]);
    post.answers("slack", &[], LATER);
    let (world, running) = begun(&post, 1).await;
    running.decide(stream(), declare("one", "http")).await;
    let deed = IncidentDeed::Grade { severity: Severity::Sev2 };
    running.decide(stream(), Command::Incident(IncidentChange::On { incident: 1, deed })).await;
    // Time stands still for nobody who waits: at once, before it can be tried ten times.
    world.clock.advance_secs(15 * 60 + 1);
    let over = |word: &String| word == "given_up" || word == "superseded";
    let is_over = || outcomes(&*world.store, "slack").iter().any(over);
    in_minutes("it is given up", is_over).await;
    let tries = outcomes(&*world.store, "slack").len();
    assert!(tries < 10, "by its age: {tries}");
    post.answers("slack", &[], DELIVERED);
    let is_told = || outcomes(&*world.store, "slack").iter().any(|word| word == "delivered");
    in_minutes("what stands behind it is told", is_told).await;
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(start_paused = true)]
async fn where_only_states_are_shown_the_newest_one_is_enough() {
    for (kind, told, outcome) in [
        ("alertmanager", 2, ["again", "superseded", "delivered"]),
        ("slack", 3, ["again", "delivered", "delivered"]),
    ] {
        let post = Post::new(&[kind]);
        post.answers(kind, &[LATER], DELIVERED);
        let (world, running) = begun(&post, 1).await;
        running.decide(stream(), declare("one", "http")).await;
        running.decide(stream(), say(1, "news")).await;
        eventually("all is settled", || outcomes(&*world.store, kind).len() == 3).await;
        assert_eq!(outcomes(&*world.store, kind), outcome, "{kind}");
        assert_eq!(post.told(kind).len(), told, "{kind}");
        running.end(&world).await;
        verify(&world.store);
    }
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_cannot_be_read_is_passed_over() {
    let post = Post::new(&["slack"]);
    // Held back, so that both are there when the channel looks.
    post.answers("slack", &[LATER], DELIVERED);
    let (world, running) = begun(&post, 1).await;
    running.decide(stream(), declare("one", "http")).await;
    running.decide(stream(), declare("two", "mail")).await;
    world.store.alter(Some(|stored| {
        if stored.stream == stream() && stored.seq == 0 {
            stored.hash = Hash::ZERO;
        }
    }));
    eventually("the second one is told", || titles(&post.told("slack")).contains(&"two")).await;
    assert!(running.engine.is_tampered(), "somebody has to look at it");
    world.store.alter(None);
    eventually("its end is sealed", || {
        outcomes(&*world.store, "slack").last().is_some_and(|last| last == "delivered")
    })
    .await;
    running.end(&world).await;
    verify(&world.store);
}

/// What a process leaves that dies after others were told in a channel's place, and before the end
/// of the attempt is sealed.
async fn leave_half(running: &Running) {
    let notices = || StreamName::system(limits::STREAM_NOTICES);
    for channel in ["slack", "pagerduty"] {
        let begin = NoticeChange::Begin { channel: channel.to_owned(), from: 0 };
        running.decide(notices(), Command::Notice(begin)).await;
    }
    running.decide(stream(), declare("one", "http")).await;
    let channel = "pagerduty".to_owned();
    let telling = Telling { channel: channel.clone(), seq: 0, incident: "INC-1".to_owned() };
    running.decide(notices(), Command::Notice(NoticeChange::Tell(telling))).await;
    let deed = IncidentDeed::Unreachable { channel };
    let change = IncidentChange::On { incident: 1, deed };
    running.decide(stream(), Command::Incident(change)).await;
}

#[test]
fn others_are_told_once_though_the_process_dies_before_the_attempt_has_its_end() {
    let post = Post::new(&["slack", "pagerduty"]);
    post.answers("pagerduty", &[], NEVER);
    let mut world = world(&post);
    let watch = std::mem::take(&mut world.watch);
    world.life(|running| async move { leave_half(&running).await });
    world.watch = watch;
    let store: Arc<FaultStore> = Arc::clone(&world.store);
    let heard = Arc::clone(&post);
    world.life(move |running| async move {
        let settled = || outcomes(&*store, "pagerduty").len() == 2;
        eventually("it is settled and told again", settled).await;
        eventually("others are told", || outcomes(&*store, "slack").len() == 2).await;
        assert_eq!(outcomes(&*store, "pagerduty"), ["unknown", "refused"]);
        running.engine.drain(Duration::from_secs(5)).await;
        drop((running, store));
    });
    assert_eq!(count(&*world.store, "incident.reroute"), 1);
    let texts = heard.told("slack");
    let rerouted = texts.iter().filter(|notice| notice.text.contains("cannot be reached"));
    assert_eq!((texts.len(), rerouted.count()), (2, 1));
    verify(&world.store);
}
