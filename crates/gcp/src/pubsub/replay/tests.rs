//! Replays of a fake subscription into a fake intake, in virtual time.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::fake::{Connect, World};
use super::*;

/// Runs a replay and, beside it, the test's part.
async fn replay<T>(
    world: &mut World,
    limit: usize,
    serve: impl AsyncFnOnce(&mut World, Connect) -> T,
) -> (Result<Replay, Error>, T) {
    let subscriber = Arc::clone(&world.subscriber);
    let serve = async {
        let connect = world.connect().await;
        serve(world, connect).await
    };
    tokio::join!(subscriber.replay_dead_letters(limit), serve)
}

#[tokio::test(start_paused = true)]
async fn dead_letters_are_acknowledged_once_decided_and_the_others_given_back_at_the_end() {
    let mut world = World::new();
    let start = Instant::now();
    let (replayed, mut peer) = replay(&mut world, 100, async |world, connect| {
        assert_eq!((connect.subscription.as_str(), connect.outstanding_max), ("dead", 100));
        let mut peer = connect.accept();
        for (id, taken) in [("1", Taken::Poison), ("2", Taken::Later), ("3", Taken::Done)] {
            peer.deliver(id).await;
            let asked = world.asked().await;
            assert_eq!(asked.message.id, format!("dead-letter:{id}"));
            assert!(!peer.has_outcome());
            asked.answer(taken);
        }
        assert_eq!(peer.outcome().await, ("3".to_owned(), true));
        assert!(!peer.has_outcome(), "what is given back now comes again at once");
        peer.settled();
        peer
    })
    .await;
    assert_eq!(replayed.unwrap(), Replay { replayed: 1, poison: 1, later: 1 });
    assert_eq!(peer.outcome().await, ("1".to_owned(), false));
    assert_eq!(peer.outcome().await, ("2".to_owned(), false));
    let took = start.elapsed();
    assert!((QUIET..2 * QUIET).contains(&took), "{took:?}");
    let status = world.subscriber.status();
    assert_eq!((status.dead_letters_replayed, status.received), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_replay_ends_at_its_limit_without_waiting() {
    let mut world = World::new();
    let start = Instant::now();
    let (replayed, ()) = replay(&mut world, 2, async |world, connect| {
        let mut peer = connect.accept();
        for id in ["1", "2", "3"] {
            peer.deliver(id).await;
        }
        world.asked().await.answer(Taken::Done);
        world.asked().await.answer(Taken::Done);
        peer.settled();
    })
    .await;
    assert_eq!(replayed.unwrap(), Replay { replayed: 2, ..Replay::default() });
    assert!(!world.is_asked());
    assert!(start.elapsed() < QUIET);
}

#[tokio::test(start_paused = true)]
async fn one_replay_runs_at_a_time_and_one_that_is_given_up_leaves_the_way_free() {
    let mut world = World::new();
    let subscriber = Arc::clone(&world.subscriber);
    let mut peer = {
        let running = subscriber.replay_dead_letters(10);
        let serve = async {
            let peer = world.connect().await.accept();
            peer.deliver("1").await;
            let _hangs = world.asked().await;
            let second = subscriber.replay_dead_letters(10).await;
            assert!(matches!(second, Err(Error::ReplayRunning)), "{second:?}");
            peer
        };
        tokio::select! {
            biased;
            _ = running => unreachable!("the intake hangs"),
            peer = serve => peer,
        }
    };
    assert_eq!(peer.outcome().await, ("1".to_owned(), false));
    let (third, ()) = replay(&mut world, 10, async |_, connect| connect.accept().settled()).await;
    assert_eq!(third.unwrap(), Replay::default());
}

#[tokio::test(start_paused = true)]
async fn a_replay_without_its_subscription_says_so() {
    let mut world = World::new();
    let (replayed, ()) = replay(&mut world, 10, async |_, connect| connect.refuse()).await;
    assert!(matches!(replayed, Err(Error::Missing { .. })), "{replayed:?}");
    assert_eq!(world.subscriber.replay_dead_letters(0).await.unwrap(), Replay::default());
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_loses_its_subscription_finishes_what_it_has_and_says_so() {
    let mut world = World::new();
    let (replayed, outcome) = replay(&mut world, 10, async |world, connect| {
        let mut peer = connect.accept();
        peer.deliver("1").await;
        let asked = world.asked().await;
        peer.fail().await;
        asked.answer(Taken::Done);
        let outcome = peer.outcome().await;
        peer.settled();
        outcome
    })
    .await;
    assert!(matches!(replayed, Err(Error::Ended)), "{replayed:?}");
    assert_eq!(outcome, ("1".to_owned(), true));
    assert_eq!(world.subscriber.status().dead_letters_replayed, 1);
}
