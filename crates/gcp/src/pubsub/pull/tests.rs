//! The worker between a fake subscription and a fake intake, in virtual time.

use super::super::Status;
use super::super::fake::{Peer, SUBSYSTEM, World};
use super::*;

async fn connected() -> (World, Peer) {
    let mut world = World::started();
    let peer = world.connect().await.accept();
    (world, peer)
}

fn acked(id: &str) -> (String, bool) {
    (id.to_owned(), true)
}

fn given_back(id: &str) -> (String, bool) {
    (id.to_owned(), false)
}

#[test]
fn pauses_double_with_jitter_and_stay_within_their_bounds() {
    let first: Vec<Duration> = pauses(RECONNECT).take(20).collect();
    assert!(first.iter().all(|pause| (RECONNECT.0..=RECONNECT.1).contains(pause)), "{first:?}");
    assert!(first[0] <= 2 * RECONNECT.0 && first[10] >= RECONNECT.1 / 2, "{first:?}");
    let second: Vec<Duration> = pauses(RECONNECT).take(20).collect();
    assert_ne!(first, second, "processes that lost the same server must not come back together");
}

#[test]
fn dead_letters_that_go_nowhere_or_elsewhere_are_said() {
    let topic = |name: &str| DeadLetters::Topic(name.to_owned());
    let expected = "projects/p/topics/dead";
    assert_eq!(misled(&topic(expected), expected), None);
    assert_eq!(misled(&DeadLetters::Unknown, expected), None);
    assert!(misled(&topic("projects/p/topics/other"), expected).is_some());
    assert!(misled(&DeadLetters::Nowhere, expected).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_message_is_acknowledged_only_after_the_intake_is_done_with_it() {
    let (mut world, mut peer) = connected().await;
    peer.deliver("m-1").await;
    let asked = world.asked().await;
    assert_eq!(asked.message.id, "m-1");
    // However long that takes.
    sleep(10 * HOLD_MAX).await;
    assert!(!peer.has_outcome());
    let status = world.subscriber.status();
    assert_eq!((status.outstanding, status.oldest_unacked_s), (1, 60));
    assert_eq!(world.metrics.pubsub_oldest_unacked_seconds.get(), 60);

    asked.answer(Taken::Done);
    assert_eq!(peer.outcome().await, acked("m-1"));
    peer.deliver("m-2").await;
    world.asked().await.answer(Taken::Poison);
    assert_eq!(peer.outcome().await, given_back("m-2"));
    let expected = Status {
        state: "active",
        outstanding: 0,
        oldest_unacked_s: 0,
        received: 2,
        acked: 1,
        nacked: 1,
        dead_letters_replayed: 0,
    };
    assert_eq!(world.subscriber.status(), expected);
    sleep(2 * SHOW_INTERVAL).await;
    assert_eq!(world.metrics.pubsub_oldest_unacked_seconds.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_taken_now_is_held_and_asked_about_again() {
    let (mut world, mut peer) = connected().await;
    peer.deliver("m-1").await;
    let mut at = Instant::now();
    for _ in 0..8 {
        world.asked().await.answer(Taken::Later);
        assert!(at.elapsed() <= ASK_AGAIN.1);
        at = Instant::now();
    }
    assert!(!peer.has_outcome());
    world.asked().await.answer(Taken::Done);
    assert_eq!(peer.outcome().await, acked("m-1"));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_taken_for_long_is_given_back() {
    let (mut world, mut peer) = connected().await;
    peer.deliver("m-1").await;
    let start = Instant::now();
    let outcome = loop {
        tokio::select! {
            outcome = peer.outcome() => break outcome,
            asked = world.asked() => asked.answer(Taken::Later),
        }
    };
    assert_eq!(outcome, given_back("m-1"));
    let held = start.elapsed();
    assert!((HOLD_MAX - ASK_AGAIN.1..=HOLD_MAX).contains(&held), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn no_more_messages_are_in_hand_than_there_are_places() {
    let (mut world, mut peer) = connected().await;
    for id in ["m-1", "m-2", "m-3"] {
        peer.deliver(id).await;
    }
    let (first, second) = (world.asked().await, world.asked().await);
    sleep(HOLD_MAX).await;
    assert!(!world.is_asked());
    assert_eq!(world.subscriber.status().outstanding, 2);
    second.answer(Taken::Done);
    assert_eq!(peer.outcome().await, acked("m-2"));
    assert_eq!(world.asked().await.message.id, "m-3");
    first.answer(Taken::Done);
    assert_eq!(peer.outcome().await, acked("m-1"));
}

#[tokio::test(start_paused = true)]
async fn it_is_active_with_the_first_message_or_once_the_stream_has_stayed_open() {
    let mut world = World::started();
    let connect = world.connect().await;
    assert_eq!(
        (connect.subscription.as_str(), connect.outstanding_max, world.state()),
        ("signals", 2, "connecting")
    );
    let peer = connect.accept();
    sleep(OPEN_AFTER / 2).await;
    assert_eq!(world.state(), "connecting");
    sleep(OPEN_AFTER).await;
    assert_eq!(world.state(), "active");
    peer.fail().await;
    let peer = world.connect().await.accept();
    assert_eq!(world.state(), "connecting");
    peer.deliver("m-1").await;
    world.asked().await.answer(Taken::Done);
    assert_eq!(world.state(), "active");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_not_there_is_tried_for_ever_and_then_pulled() {
    let mut world = World::started();
    let mut at = Instant::now();
    for attempt in 1..=20 {
        world.connect().await.refuse();
        let pause = at.elapsed();
        assert!(pause <= RECONNECT.1 + SHOW_INTERVAL, "{attempt}: {pause:?}");
        assert!(attempt == 1 || pause >= RECONNECT.0, "{attempt}: {pause:?}");
        at = Instant::now();
        sleep(RECONNECT.0 / 2).await;
        assert_eq!(world.state(), "disconnected");
    }
    assert_eq!(world.metrics.pubsub_errors.get(), 20);
    let mut peer = world.connect().await.accept();
    peer.deliver("m-1").await;
    world.asked().await.answer(Taken::Done);
    assert_eq!(peer.outcome().await, acked("m-1"));

    // It worked, so the next attempt comes soon.
    peer.fail().await;
    let at = Instant::now();
    world.connect().await.accept();
    assert!(at.elapsed() <= 2 * RECONNECT.0);
    assert_eq!(world.metrics.subsystem_restarts.with([SUBSYSTEM]).get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_went_away_without_a_word_is_noticed() {
    let (mut world, peer) = connected().await;
    // One lost answer is no loss.
    peer.reachable(false);
    sleep(CHECK_INTERVAL + CHECK_AGAIN / 2).await;
    peer.reachable(true);
    sleep(10 * CHECK_INTERVAL).await;
    assert_eq!(world.state(), "active");

    peer.reachable(false);
    let at = Instant::now();
    peer.closed().await;
    assert!(at.elapsed() <= CHECK_INTERVAL + CHECK_AGAIN);
    assert_eq!(world.state(), "disconnected");
    world.connect().await.accept();
}

#[tokio::test(start_paused = true)]
async fn a_message_in_hand_outlives_its_connection() {
    let (mut world, mut peer) = connected().await;
    peer.deliver("m-1").await;
    let asked = world.asked().await;
    peer.fail().await;
    peer.closed().await;
    let _next = world.connect().await.accept();
    assert!(!peer.has_outcome());
    asked.answer(Taken::Done);
    assert_eq!(peer.outcome().await, acked("m-1"));
}

#[tokio::test(start_paused = true)]
async fn a_pause_stops_pulling_and_finishes_what_is_in_hand() {
    let (mut world, mut peer) = connected().await;
    peer.deliver("m-1").await;
    let asked = world.asked().await;
    world.subscriber.pause();
    assert_eq!(world.state(), "paused");
    peer.closed().await;
    sleep(2 * FINISH).await;
    assert!(!peer.has_outcome());
    asked.answer(Taken::Done);
    assert_eq!(peer.outcome().await, acked("m-1"));
    sleep(HOLD_MAX).await;
    assert_eq!(world.state(), "paused");

    let at = Instant::now();
    world.subscriber.resume();
    let peer = world.connect().await.accept();
    assert!(at.elapsed() < RECONNECT.0, "a resume does not wait");
    peer.deliver("m-2").await;
    world.asked().await.answer(Taken::Done);
    assert_eq!(world.state(), "active");
    assert_eq!(world.metrics.pubsub_errors.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pause_while_it_cannot_connect_ends_the_attempts() {
    let mut world = World::started();
    world.connect().await.refuse();
    world.subscriber.pause();
    let connected = timeout(HOLD_MAX, world.connect()).await;
    assert!(connected.is_err());
    world.subscriber.resume();
    world.connect().await.accept();
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_is_in_hand_and_waits_until_the_server_knows() {
    let (mut world, mut peer) = connected().await;
    peer.deliver("m-1").await;
    let asked = world.asked().await;
    let stop = async {
        world.supervisor.stop(SUBSYSTEM).await;
        Instant::now()
    };
    let serve = async {
        peer.closed().await;
        asked.answer(Taken::Done);
        assert_eq!(peer.outcome().await, acked("m-1"));
        sleep(SETTLE / 2).await;
        let at = Instant::now();
        peer.settled();
        at
    };
    let (stopped, settled) = tokio::join!(stop, serve);
    assert!(stopped >= settled);
    assert_eq!(world.state(), "disconnected");
    assert_eq!(world.subscriber.status().acked, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_gives_back_what_hangs_and_ends_although_the_server_is_silent() {
    let (mut world, mut peer) = connected().await;
    for id in ["m-1", "m-2"] {
        peer.deliver(id).await;
    }
    let _hangs = world.asked().await;
    world.asked().await.answer(Taken::Later);
    let at = Instant::now();
    let supervisor = Arc::clone(&world.supervisor);
    let stop = supervisor.stop(SUBSYSTEM);
    let serve = async {
        // The one that is held is asked about until the end, and never taken.
        loop {
            tokio::select! {
                outcome = peer.outcome() => break outcome,
                asked = world.asked() => asked.answer(Taken::Later),
            }
        }
    };
    let ((), first) = tokio::join!(stop, serve);
    let mut outcomes = [first, peer.outcome().await];
    outcomes.sort();
    assert_eq!(outcomes, [given_back("m-1"), given_back("m-2")]);
    let took = at.elapsed();
    assert!((FINISH..=FINISH + SETTLE + SHOW_INTERVAL).contains(&took), "{took:?}");
    assert_eq!(world.subscriber.status().nacked, 2);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_worker_connects_anew() {
    let (mut world, mut peer) = connected().await;
    peer.deliver("m-1").await;
    world.asked().await.answer(Taken::Done);
    assert_eq!(peer.outcome().await, acked("m-1"));
    assert!(world.supervisor.restart(SUBSYSTEM));
    peer.settled();
    let peer = world.connect().await.accept();
    peer.deliver("m-2").await;
    world.asked().await.answer(Taken::Done);
}
