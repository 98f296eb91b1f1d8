//! Google's client against Google's emulator.
//!
//! Owns: the promise that a message is acknowledged only once the intake is done with it, through
//! refusals, pauses, stops and the death of the server. Refuses to know: what a signal is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::clock::SystemClock;
use engine::supervise::Supervisor;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use gcp::Error;
use gcp::pubsub::{Intake, Message, Options, Replay, Subscriber, Taken};
use serde_json::{Value, json};
use telemetry::metrics::Metrics;
use testkit::pubsub::Emulator;
use testkit::{http, skip};
use tokio::sync::watch;
use types::Micros;

const SUBSYSTEM: &str = "gcp_pubsub";
const PLACES: usize = 50;
/// Far more than anything takes here, on two busy cores.
const PATIENCE: Duration = Duration::from_secs(180);
/// As terraform has it.
const ATTEMPTS: u32 = 5;
/// A client ends a stream by cancelling it, and the emulator goes on to deliver to a cancelled
/// stream: what is published next waits for several leases, each of which counts as an attempt.
const ATTEMPTS_OF_STREAMS_THAT_END: u32 = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_acknowledged_once_decided_and_poison_becomes_a_dead_letter() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Pub/Sub emulator is not installed");
    };
    let mut server = Server::new(&emulator);
    server.make(ATTEMPTS);
    let book = Arc::new(Book::default());
    let service = Service::start(&emulator, &book);
    until("active", || service.state() == "active").await;

    let mut sent = server.publish(&numbered("good", 500));
    sent.extend(server.publish(&numbered("later", 20)));
    let poison = server.publish(&numbered("poison", 5));
    until("all good are decided", || book.done().len() == sent.len()).await;
    assert_eq!(book.done(), sent, "each under its own id");
    until("all poison is given up", || {
        let seen = book.seen();
        poison.keys().all(|id| seen.get(id).is_some_and(|seen| seen.len() == 5))
    })
    .await;
    for (id, seen) in book.seen().into_iter().filter(|(id, _)| poison.contains_key(id)) {
        let attempts: Vec<Option<u32>> =
            seen.iter().map(|message| message.delivery_attempt).collect();
        assert_eq!(attempts, [1, 2, 3, 4, 5].map(Some), "{id}");
    }
    assert!(book.pages().most_at_once <= PLACES);
    let status = service.subscriber.status();
    assert_eq!(
        (status.received, status.acked, status.nacked, status.outstanding),
        (545, 520, 25, 0)
    );

    // Four of the five can be decoded by now: they are decided once, and the fifth is kept.
    book.mend("poison 0");
    let replay = async || service.subscriber.replay_dead_letters(100).await;
    let (first, second) = tokio::join!(replay(), replay());
    assert_eq!(first.unwrap(), Replay { replayed: 4, poison: 1, later: 0 });
    assert!(matches!(second, Err(Error::ReplayRunning)), "{second:?}");
    let dead = book.done().into_iter().filter(|(id, _)| id.starts_with("dead-letter:"));
    let dead: BTreeSet<String> = dead.map(|(_, data)| data).collect();
    assert_eq!(dead, (1..5).map(|number| format!("poison {number}")).collect());
    // The emulator hands on what it got back when it likes; what was acknowledged is gone.
    let again = replay().await.unwrap();
    assert_eq!((again.replayed, again.later), (0, 0));
    service.stop().await;
    assert_eq!(server.left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_in_hand_and_tells_the_server() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Pub/Sub emulator is not installed");
    };
    let mut server = Server::new(&emulator);
    server.make(ATTEMPTS);
    let book = Arc::new(Book::default());
    let service = Service::start(&emulator, &book);
    book.close(true);
    let sent = server.publish(&numbered("good", 30));
    until("all are in hand", || service.subscriber.status().outstanding == 30).await;
    let finish = async {
        until("it stops pulling", || service.state() == "disconnected").await;
        assert_eq!(service.subscriber.status().acked, 0);
        book.close(false);
    };
    tokio::join!(service.stop(), finish);
    assert_eq!(book.done(), sent);
    assert_eq!(service.subscriber.status().acked, 30);
    assert_eq!(server.left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_in_a_pause_is_taken_after_it() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Pub/Sub emulator is not installed");
    };
    let mut server = Server::new(&emulator);
    server.make(ATTEMPTS_OF_STREAMS_THAT_END);
    let book = Arc::new(Book::default());
    let service = Service::start(&emulator, &book);
    let before = server.publish(&numbered("before", 10));
    until("all are decided", || book.done() == before).await;
    service.subscriber.pause();
    until("nothing is in hand", || service.subscriber.status().outstanding == 0).await;
    let meanwhile = server.publish(&numbered("meanwhile", 10));
    assert_eq!((service.state(), book.done()), ("paused", before));
    service.subscriber.resume();
    until("they come", || meanwhile.keys().all(|id| book.done().contains_key(id))).await;
    assert_eq!(service.state(), "active");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_a_server_that_dies_and_comes_back_empty() {
    let Some(mut emulator) = Emulator::start().unwrap() else {
        skip!("the Pub/Sub emulator is not installed");
    };
    Server::new(&emulator).make(ATTEMPTS);
    let book = Arc::new(Book::default());
    let service = Service::start(&emulator, &book);
    let sent = Server::new(&emulator).publish(&numbered("before", 10));
    until("all are decided", || book.done() == sent).await;

    emulator.kill();
    let died = Instant::now();
    until("the loss is noticed", || service.state() == "disconnected").await;
    assert!(died.elapsed() < Duration::from_secs(15), "{:?}", died.elapsed());
    emulator.restart().unwrap();
    let errors = service.metrics.pubsub_errors.get();
    until("it has asked once more", || service.metrics.pubsub_errors.get() > errors + 1).await;
    assert_ne!(service.state(), "active");
    let replay = service.subscriber.replay_dead_letters(1).await;
    assert!(matches!(replay, Err(Error::Missing { .. })), "{replay:?}");

    Server::new(&emulator).make(ATTEMPTS);
    let after = numbered("after", 10);
    Server::new(&emulator).publish(&after);
    // By what they say: this server numbers its messages from 1 again.
    let decided = || book.done().into_values().collect::<BTreeSet<String>>();
    until("it pulls again", || after.iter().all(|data| decided().contains(data))).await;
    until("active again", || service.state() == "active").await;
    assert_eq!(service.metrics.subsystem_restarts.with([SUBSYSTEM]).get(), 0);
    service.stop().await;
}

fn numbered(word: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{word} {number}")).collect()
}

/// Polls: the service tells nobody when it has changed.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The worker under its supervisor.
struct Service {
    subscriber: Arc<Subscriber>,
    supervisor: Supervisor,
    metrics: Arc<Metrics>,
}

impl Service {
    fn start(emulator: &Emulator, book: &Arc<Book>) -> Service {
        let metrics = Arc::new(Metrics::new().unwrap());
        let options = Options {
            project: "tests".to_owned(),
            subscription: "signals-sub".to_owned(),
            dead_letter_subscription: "dead-sub".to_owned(),
            dead_letter_topic: "dead".to_owned(),
            max_messages: PLACES,
            emulator: Some(emulator.address().to_string()),
        };
        let clock = Arc::new(SystemClock::not_before(Micros(0)));
        let intake: Arc<dyn Intake> = Arc::<Book>::clone(book);
        let subscriber = Arc::new(Subscriber::new(options, intake, Arc::clone(&metrics), clock));
        let supervisor = Supervisor::new(Arc::clone(&metrics));
        supervisor.start(SUBSYSTEM, vec![subscriber.worker()]);
        Service { subscriber, supervisor, metrics }
    }

    fn state(&self) -> &'static str {
        self.subscriber.status().state
    }

    async fn stop(&self) {
        self.supervisor.stop(SUBSYSTEM).await;
    }
}

/// An intake that writes down what it saw, and can say no.
struct Book {
    pages: Mutex<Pages>,
    /// While set, it takes in and does not answer.
    closed: watch::Sender<bool>,
}

#[derive(Default)]
struct Pages {
    seen: BTreeMap<String, Vec<Message>>,
    done: BTreeMap<String, String>,
    at_once: usize,
    most_at_once: usize,
    /// Once set, the only poison.
    poison: Option<String>,
}

impl Default for Book {
    fn default() -> Book {
        Book { pages: Mutex::default(), closed: watch::Sender::new(false) }
    }
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap()
    }

    /// Every question, by the message's id.
    fn seen(&self) -> BTreeMap<String, Vec<Message>> {
        self.pages().seen.clone()
    }

    /// What was decided, by the message's id.
    fn done(&self) -> BTreeMap<String, String> {
        self.pages().done.clone()
    }

    fn close(&self, closed: bool) {
        self.closed.send_replace(closed);
    }

    /// From now on it can decode all but `poison`.
    fn mend(&self, poison: &str) {
        self.pages().poison = Some(poison.to_owned());
    }

    fn decide(&self, message: Message) -> Taken {
        let data = String::from_utf8(message.data.to_vec()).unwrap();
        let mut pages = self.pages();
        let seen = pages.seen.entry(message.id.clone()).or_default();
        let earlier = seen.len();
        seen.push(message.clone());
        if pages.poison.as_ref().map_or(data.starts_with("poison"), |poison| data == *poison) {
            return Taken::Poison;
        }
        if data.starts_with("later") && earlier < 2 {
            return Taken::Later;
        }
        pages.done.insert(message.id, data);
        Taken::Done
    }
}

impl Intake for Book {
    fn take(&self, message: Message) -> BoxFuture<'_, Taken> {
        async move {
            {
                let mut pages = self.pages();
                pages.at_once += 1;
                pages.most_at_once = pages.most_at_once.max(pages.at_once);
            }
            let mut closed = self.closed.subscribe();
            closed.wait_for(|closed| !closed).await.unwrap();
            tokio::task::yield_now().await;
            self.pages().at_once -= 1;
            self.decide(message)
        }
        .boxed()
    }
}

/// The emulator's own interface, so that nothing here depends on the client under test.
struct Server {
    client: http::Client,
}

impl Server {
    fn new(emulator: &Emulator) -> Server {
        Server { client: http::Client::connect(emulator.address()).unwrap() }
    }

    fn call(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let path = format!("/v1/projects/tests/{path}");
        let headers = [("content-type", "application/json")];
        let body = body.to_string();
        let answer = self.client.request(method, &path, &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json().unwrap()
    }

    /// Topics and subscriptions.
    fn make(&mut self, attempts: u32) {
        for topic in ["signals", "dead"] {
            self.call("PUT", &format!("topics/{topic}"), &json!({}));
        }
        let dead = json!({ "topic": "projects/tests/topics/dead" });
        self.call("PUT", "subscriptions/dead-sub", &dead);
        let signals = json!({
            "topic": "projects/tests/topics/signals",
            "ackDeadlineSeconds": 60,
            "deadLetterPolicy": {
                "deadLetterTopic": "projects/tests/topics/dead",
                "maxDeliveryAttempts": attempts,
            },
        });
        self.call("PUT", "subscriptions/signals-sub", &signals);
    }

    /// Publishes; gives the data by message id.
    fn publish(&mut self, data: &[String]) -> BTreeMap<String, String> {
        let messages: Vec<Value> =
            data.iter().map(|data| json!({ "data": STANDARD.encode(data) })).collect();
        let answer = self.call("POST", "topics/signals:publish", &json!({ "messages": messages }));
        let ids = answer["messageIds"].as_array().unwrap().iter();
        let ids = ids.map(|id| id.as_str().unwrap().to_owned());
        ids.zip(data.iter().cloned()).collect()
    }

    /// How many messages nobody holds and nobody has acknowledged.
    fn left(&mut self) -> usize {
        let all = json!({ "maxMessages": 1000, "returnImmediately": true });
        let answer = self.call("POST", "subscriptions/signals-sub:pull", &all);
        answer["receivedMessages"].as_array().map_or(0, Vec::len)
    }
}
