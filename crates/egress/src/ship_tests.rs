//! What is sent when, against a collector that answers by a script.

use std::collections::VecDeque;
use std::sync::Mutex;

use engine::outbound::{Boxed, DependencyState, ReplyBody};
use telemetry::outbox::OutboxOptions;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;

const FLUSH: Duration = Duration::from_secs(10);

/// An answer, `None` for a connection that fails; and what `Retry-After` it has.
type Answer = (Option<u16>, Option<Duration>);

/// When it was asked after the start, the body, the headers.
type Request = (Duration, String, Vec<(&'static str, String)>);

struct Scripted {
    answers: Mutex<VecDeque<Answer>>,
    asked: mpsc::Sender<Request>,
    started: Instant,
}

/// What a collector of spans says beside a status of 202 here: it kept all but one.
struct Body(Option<Bytes>);

const ALL_BUT_ONE: &[u8] = br#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"old"}}"#;

impl ReplyBody for Body {
    fn chunk(&mut self) -> Boxed<'_, Option<Result<Bytes, SendError>>> {
        Box::pin(std::future::ready(self.0.take().map(Ok)))
    }
    fn judge(&mut self, _: Verdict) {}
}

impl Outbound for Scripted {
    fn send(&self, attempt: Attempt) -> Boxed<'_, Result<Reply, SendError>> {
        assert!(["log_http", "otlp"].contains(&attempt.dependency));
        assert_eq!(attempt.path, "/ingest");
        let body = String::from_utf8(attempt.body.to_vec()).unwrap();
        let _ = self.asked.try_send((self.started.elapsed(), body, attempt.headers));
        let next = self.answers.lock().unwrap().pop_front();
        let (status, retry_after) = next.unwrap_or((Some(200), None));
        Box::pin(std::future::ready(match status {
            Some(status) => {
                let body = Body((status == 202).then(|| Bytes::from_static(ALL_BUT_ONE)));
                let (content_type, body) = (String::new(), Box::new(body) as _);
                Ok(Reply { status, retry_after, content_type, body })
            }
            None => Err(SendError::Connect),
        }))
    }
    fn is_open_to(&self, _: &str) -> bool {
        true
    }
    fn dependencies(&self) -> Vec<DependencyState> {
        Vec::new()
    }
}

struct World {
    outbox: Outbox,
    shipper: Arc<Shipper>,
    asked: mpsc::Receiver<Request>,
}

fn world(batch_lines: usize, answers: &[Answer]) -> World {
    carrying(Cargo::Lines, batch_lines, answers)
}

fn carrying(cargo: Cargo, batch_lines: usize, answers: &[Answer]) -> World {
    let (tell, asked) = mpsc::channel(64);
    let outbound = Scripted {
        answers: Mutex::new(answers.iter().copied().collect()),
        asked: tell,
        started: Instant::now(),
    };
    let outbox = Outbox::new(OutboxOptions { batch_lines, flush_interval: FLUSH });
    let collector = Collector::new(cargo, "http://127.0.0.1:9/ingest").unwrap();
    let headers = vec![("authorization", "Bearer swordfish".to_owned())];
    let around = ("{\"logs\":[".to_owned(), "]}");
    let shipper = Shipper::new(Arc::new(outbound), outbox.clone(), collector, headers, around);
    World { outbox, shipper, asked }
}

impl World {
    fn push(&self, lines: &[&str]) {
        lines.iter().for_each(|line| self.outbox.push((*line).to_owned()));
    }

    /// The bodies of the next requests, and the seconds from the start at which they were made.
    async fn next(&mut self, count: usize) -> Vec<(u64, String)> {
        let shipper = Arc::clone(&self.shipper);
        let mut found = Vec::new();
        let read = async {
            while found.len() < count {
                let (at, body, headers) = self.asked.recv().await.unwrap();
                assert_eq!(headers, [("authorization", "Bearer swordfish".to_owned())]);
                found.push((at.as_secs(), body));
            }
        };
        tokio::select! {
            () = shipper.ship() => {}
            () = read => {}
        }
        found
    }
}

fn logs(lines: &str) -> String {
    format!("{{\"logs\":[{lines}]}}")
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_leaves_at_once_and_the_rest_when_it_has_waited() {
    let mut world = world(2, &[]);
    world.push(&["1", "2", "3"]);
    assert_eq!(world.next(2).await, [(0, logs("1,2")), (0, logs("3"))]);
    world.push(&["4"]);
    assert_eq!(world.next(1).await, [(FLUSH.as_secs(), logs("4"))]);
    world.push(&["5"]);
    world.outbox.flush();
    assert_eq!(world.next(1).await, [(FLUSH.as_secs(), logs("5"))], "asked for");
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_fails_is_asked_again_ever_later_and_gets_the_same() {
    let answers = [(None, None), (Some(500), None), (Some(401), None), (Some(404), None)];
    let mut world = world(1, &answers);
    world.push(&["1"]);
    let seen = world.next(5).await;
    let times: Vec<u64> = seen.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0, 1, 3, 7, 15]);
    assert!(seen.iter().all(|(_, body)| *body == logs("1")));
    assert_eq!(world.outbox.dropped(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_pause_is_longer_than_a_minute() {
    let answers: Vec<Answer> = (0..9).map(|_| (None, None)).collect();
    let mut world = world(1, &answers);
    world.push(&["1"]);
    let seen = world.next(10).await;
    assert_eq!(seen[9].0 - seen[8].0, PAUSE_MAX.as_secs());
    let hour = Some(Duration::from_secs(3600));
    let mut asking = self::world(1, &[(Some(429), hour), (Some(503), Some(7 * PAUSE_MIN))]);
    asking.push(&["1"]);
    let times: Vec<u64> = asking.next(3).await.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [0, 60, 67]);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_is_halved_and_one_line_that_is_never_taken_is_given_up() {
    let refused = (Some(413), None);
    let mut world = world(4, &[refused, refused, refused, (Some(200), None), (Some(200), None)]);
    world.push(&["1", "2", "3", "4"]);
    let bodies: Vec<String> = world.next(5).await.into_iter().map(|(_, body)| body).collect();
    let expected = ["1,2,3,4", "1,2", "1", "2", "3,4"].map(logs);
    assert_eq!(bodies, expected);
    assert_eq!(world.outbox.dropped(), 1);
}

#[tokio::test(start_paused = true)]
async fn lines_on_their_way_go_back_when_the_sender_ends() {
    let mut world = world(1, &[(None, None)]);
    world.push(&["1", "2"]);
    assert_eq!(world.next(1).await, [(0, logs("1"))]);
    world.shipper.finish(FLUSH).await;
    assert_eq!(world.asked.recv().await.unwrap().1, logs("1"));
    assert_eq!(world.asked.recv().await.unwrap().1, logs("2"));
}

#[tokio::test(start_paused = true)]
async fn the_end_tries_once() {
    let mut world = world(1, &[(None, None)]);
    world.push(&["1"]);
    world.shipper.finish(FLUSH).await;
    assert_eq!(world.asked.recv().await.unwrap().0, Duration::ZERO);
    assert!(world.asked.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn spans_are_tried_again_where_the_protocol_allows_it_and_given_up_elsewhere() {
    let wait = Some(Duration::from_secs(9));
    for (status, again) in [
        (429, true),
        (502, true),
        (503, true),
        (504, true),
        (400, false),
        (401, false),
        (404, false),
        (422, false),
        (500, false),
        (501, false),
        (301, false),
    ] {
        let mut world = carrying(Cargo::Spans, 1, &[(Some(status), wait)]);
        world.push(&["1", "2"]);
        let seen = world.next(2).await;
        let expected = if again { (9, logs("1")) } else { (0, logs("2")) };
        assert_eq!(seen[1], expected, "{status}");
        assert_eq!(world.outbox.dropped(), u64::from(!again), "{status}");
    }
    let mut world = carrying(Cargo::Spans, 2, &[(Some(413), None)]);
    world.push(&["1", "2"]);
    assert_eq!(world.next(2).await[1].1, logs("1"), "halved");
}

#[tokio::test(start_paused = true)]
async fn spans_that_a_collector_did_not_keep_are_counted_as_lost() {
    for (cargo, lost) in [(Cargo::Spans, 1), (Cargo::Lines, 0)] {
        let world = carrying(cargo, 2, &[(Some(202), None)]);
        world.push(&["1", "2"]);
        world.shipper.finish(FLUSH).await;
        assert_eq!(world.outbox.dropped(), lost);
    }
}
