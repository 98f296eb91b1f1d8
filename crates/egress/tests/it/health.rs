//! Breaker, pause, retry budget and bulkhead, as callers and operators meet them.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use egress::Policy;
use engine::outbound::{Attempt, Breaker, Outbound as _, Reply, SendError, Verdict};
use tokio::sync::watch;

use crate::server::{OK, Server};
use crate::world::{LONG, SHORT, World, attempt, clocked, dependency, read};

const HOUR: Duration = Duration::from_secs(3600);

/// Failures that open a breaker here, which then stays open for as long as any test runs.
const POLICY: Policy = Policy { threshold: 3, open_for: HOUR, retry_share_pct: 10 };

/// The breaker is due for its probe.
const DUE: Policy = Policy { open_for: Duration::ZERO, ..POLICY };

fn world(server: &Server) -> World {
    World::with(dependency(format!("http://{}", server.address)), POLICY)
}

async fn judged(world: &World, verdict: Verdict) {
    let mut reply = world.send(attempt()).await.unwrap();
    reply.body.judge(verdict);
    read(&mut *reply.body).await.unwrap();
}

async fn open(world: &World) {
    for _ in 0..POLICY.threshold {
        judged(world, Verdict::Bad).await;
    }
    assert_eq!(world.state().breaker, Breaker::Open);
}

/// Answers while the switch is on; requests that came while it was off wait for it.
async fn switched() -> (Server, watch::Sender<bool>) {
    let (switch, is_on) = watch::channel(true);
    let server = Server::start(move |mut line, _| {
        let mut is_on = is_on.clone();
        async move {
            while line.request().await.is_some() && is_on.wait_for(|is_on| *is_on).await.is_ok() {
                line.send(OK).await;
            }
        }
    })
    .await;
    (server, switch)
}

fn is_breaker_open(sent: &Result<Reply, SendError>) -> bool {
    matches!(sent, Err(SendError::BreakerOpen { .. }))
}

#[tokio::test]
async fn an_open_breaker_refuses_without_a_connection() {
    let server = Server::closing(OK).await;
    let world = world(&server);
    open(&world).await;
    let accepted = server.accepted();
    assert!(!world.egress.is_open_to("model"));
    for _ in 0..10 {
        let SendError::BreakerOpen { retry_after } = world.failure(attempt()).await else {
            panic!("the breaker is open");
        };
        assert!(retry_after <= HOUR && retry_after > HOUR - LONG, "{retry_after:?}");
    }
    assert_eq!(server.accepted(), accepted);
    assert_eq!(world.failures(), POLICY.threshold, "to be refused is no failure");
    world.scraped(r#"circuit_breaker_state{dependency="model"} 1"#);
    world.scraped(r#"egress_attempts_total{dependency="model",outcome="circuit_open"} 10"#);
}

#[tokio::test]
async fn one_probe_goes_through_and_closes_it() {
    let (server, switch) = switched().await;
    let world = world(&server);
    open(&world).await;
    world.egress.set_policy(DUE);
    switch.send_replace(false);
    assert!(world.egress.is_open_to("model"));
    let mut probe = world.egress.send(attempt());
    assert!(tokio::time::timeout(Duration::ZERO, &mut probe).await.is_err());
    world.scraped(r#"circuit_breaker_state{dependency="model"} 2"#);
    assert!(!world.egress.is_open_to("model"));
    assert!(is_breaker_open(&world.send(attempt()).await));
    switch.send_replace(true);
    let mut reply = probe.await.unwrap();
    assert!(is_breaker_open(&world.send(attempt()).await), "an answer is no verdict");
    reply.body.judge(Verdict::Good);
    assert_eq!(world.state().breaker, Breaker::Closed);
    world.send(attempt()).await.unwrap();
    world.scraped(r#"circuit_breaker_state{dependency="model"} 0"#);
}

#[tokio::test]
async fn a_bad_probe_opens_it_anew() {
    let server = Server::answering(OK).await;
    let world = world(&server);
    open(&world).await;
    world.egress.set_policy(DUE);
    judged(&world, Verdict::Bad).await;
    world.egress.set_policy(POLICY);
    assert!(is_breaker_open(&world.send(attempt()).await));
    assert_eq!(world.failures(), POLICY.threshold + 1);
}

#[tokio::test]
async fn a_probe_is_released_whatever_way_it_ends() {
    let (server, switch) = switched().await;
    let world = world(&server);
    open(&world).await;
    world.egress.set_policy(DUE);
    switch.send_replace(false);

    // The caller leaves before the head.
    assert!(tokio::time::timeout(Duration::ZERO, world.send(attempt())).await.is_err());
    assert!(world.egress.is_open_to("model"));
    // The caller leaves in the body, without a verdict.
    switch.send_replace(true);
    let probe = world.send(attempt()).await.unwrap();
    assert!(!world.egress.is_open_to("model"));
    drop(probe);
    assert!(world.egress.is_open_to("model"));
    // The caller's time is up, which says nothing.
    switch.send_replace(false);
    world.failure(clocked(LONG, LONG, SHORT)).await;
    assert!(world.egress.is_open_to("model"));
    // The request cannot be written.
    world.failure(Attempt { path: String::new(), ..attempt() }).await;
    assert!(world.egress.is_open_to("model"));
    // The whole answer was read, without a verdict.
    switch.send_replace(true);
    world.call().await.unwrap();
    assert!(world.egress.is_open_to("model"));
    let state = world.state();
    assert_eq!(state.breaker, Breaker::HalfOpen);
    assert_eq!((state.in_flight, state.failures), (0, POLICY.threshold));
}

#[tokio::test]
async fn an_operator_holds_the_breaker() {
    let server = Server::answering(OK).await;
    let world = world(&server);
    assert!(world.egress.force("model", Some(Breaker::Open)));
    assert!(world.state().is_forced);
    assert!(is_breaker_open(&world.send(attempt()).await));
    world.egress.force("model", Some(Breaker::Closed));
    for _ in 0..2 * POLICY.threshold {
        judged(&world, Verdict::Bad).await;
    }
    let state = world.state();
    assert_eq!((state.breaker, state.is_forced), (Breaker::Closed, true));
    world.egress.force("model", None);
    assert!(!world.state().is_forced);
    open(&world).await;
}

#[tokio::test]
async fn another_policy_is_in_force_at_once() {
    let server = Server::answering(OK).await;
    let world = world(&server);
    judged(&world, Verdict::Bad).await;
    judged(&world, Verdict::Bad).await;
    world.egress.set_policy(Policy { threshold: 2, ..POLICY });
    world.scraped(r#"circuit_breaker_state{dependency="model"} 1"#);
    assert!(is_breaker_open(&world.send(attempt()).await));
    world.egress.set_policy(Policy { threshold: 4, ..POLICY });
    world.scraped(r#"circuit_breaker_state{dependency="model"} 0"#);
    judged(&world, Verdict::Good).await;
    assert_eq!(world.failures(), 0);
}

#[tokio::test]
async fn a_dependency_that_asks_for_it_is_left_alone() {
    let server = Server::answering(OK).await;
    let world = world(&server);
    judged(&world, Verdict::Throttled(HOUR)).await;
    let accepted = server.accepted();
    let SendError::Paused { retry_after } = world.failure(attempt()).await else {
        panic!("there is a pause");
    };
    let minute = Duration::from_secs(60);
    assert!(retry_after <= minute && retry_after > minute / 2, "an hour is not believed at once");
    assert!(world.state().paused_for.is_some());
    assert!(!world.egress.is_open_to("model"));
    assert_eq!((server.accepted(), world.failures()), (accepted, 0));
    world.scraped(r#"egress_attempts_total{dependency="model",outcome="paused"} 1"#);
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_may_be() {
    let server = Server::answering(OK).await;
    let mut only = dependency(format!("http://{}", server.address));
    only.in_flight_max = 2;
    let world = World::with(only, POLICY);
    let first = world.send(attempt()).await.unwrap();
    let mut second = world.send(attempt()).await.unwrap();
    read(&mut *second.body).await.unwrap();
    assert_eq!(
        world.failure(attempt()).await,
        SendError::Busy,
        "a place lives as long as its body"
    );
    assert!(!world.egress.is_open_to("model"));
    drop(first);
    assert!(world.egress.is_open_to("model"));
    world.call().await.unwrap();
    drop(second);
    let state = world.state();
    assert_eq!((state.in_flight, state.in_flight_max, state.failures), (0, 2, 0));
}

#[tokio::test]
async fn retries_are_few() {
    let server = Server::answering(OK).await;
    let world = world(&server);
    let mut refused = 0;
    for _ in 0..15 {
        let retry = Attempt { is_retry: true, ..attempt() };
        match world.send(retry).await {
            Ok(mut reply) => drop(read(&mut *reply.body).await.unwrap()),
            Err(error) => {
                assert_eq!(error, SendError::RetryBudget);
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 5);
    assert_eq!(world.failures(), 0);
    world.call().await.expect("a first attempt is no retry");
    world.scraped(r#"egress_retries_refused_total{dependency="model"} 5"#);
    world.scraped(r#"egress_attempts_total{dependency="model",outcome="retry_budget"} 5"#);
}

/// A log that is kept.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn count(&self, part: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(part)).count()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn each_change_of_a_breaker_is_one_line_and_no_line_has_a_secret() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let (server, switch) = switched().await;
    switch.send_replace(false);
    let world = world(&server);
    for _ in 0..POLICY.threshold {
        world.failure(clocked(SHORT, LONG, LONG)).await;
    }
    for _ in 0..5 {
        world.failure(attempt()).await;
    }
    assert_eq!(lines.count("circuit_open"), 1);
    assert_eq!(lines.count("not called for now: timeout: the head clock ran out"), 1);
    world.egress.set_policy(DUE);
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::ZERO, world.send(attempt())).await.is_err());
    }
    assert_eq!(lines.count("circuit_half_open"), 1);
    switch.send_replace(true);
    judged(&world, Verdict::Good).await;
    world.call().await.unwrap();
    assert_eq!(lines.count("circuit_closed"), 1);
    assert_eq!(lines.count("circuit_open"), 1);
    assert_eq!(lines.count("swordfish"), 0);
    assert_eq!(lines.count("\"q\""), 0);
}
