//! Google's client against Google's emulator.
//!
//! Owns: the promise that a message is acknowledged only once the intake is done with it, through
//! refusals, pauses, stops and the death of the server. Refuses to know: what a signal is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
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
use tokio::sync::Semaphore;
use types::Micros;

const SUBSYSTEM: &str = "gcp_pubsub";
const PLACES: usize = 50;
/// Far more than anything takes here, on two busy cores.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_acknowledged_once_decided_and_poison_becomes_a_dead_letter() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Pub/Sub emulator is not installed");
    };
    let mut server = Server::new(&emulator);
    server.make();
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
    assert!(book.most_at_once() <= PLACES);
    let status = service.subscriber.status();
    assert_eq!(
        (status.received, status.acked, status.nacked, status.outstanding),
        (545, 520, 25, 0)
    );

    // They stay dead letters until they can be decided, and then they are decided once.
    let replay = async || service.subscriber.replay_dead_letters(100).await.unwrap();
    assert_eq!(replay().await, Replay { poison: 5, ..Replay::default() });
    assert!(book.done().keys().all(|id| !id.starts_with("dead-letter:")));
    book.mended.store(true, Ordering::SeqCst);
    let (first, second) = tokio::join!(replay(), service.subscriber.replay_dead_letters(100));
    assert_eq!(first, Replay { replayed: 5, ..Replay::default() });
    assert!(matches!(second, Err(Error::ReplayRunning)), "{second:?}");
    assert_eq!(replay().await, Replay::default());
    let dead = book.done().into_iter().filter(|(id, _)| id.starts_with("dead-letter:"));
    let dead: BTreeSet<String> = dead.map(|(_, data)| data).collect();
    assert_eq!(dead, poison.into_values().collect());
    service.stop().await;
    assert_eq!(server.left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_hand_at_a_stop_comes_again_and_a_pause_takes_nothing() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Pub/Sub emulator is not installed");
    };
    let mut server = Server::new(&emulator);
    server.make();
    let book = Arc::new(Book::default());
    let service = Service::start(&emulator, &book);
    book.closed.store(true, Ordering::SeqCst);
    let sent = server.publish(&numbered("good", 30));
    until("all are in hand", || service.subscriber.status().outstanding == 30).await;
    assert_eq!(book.seen().len(), 30);
    service.stop().await;
    assert_eq!((service.subscriber.status().nacked, book.done().len()), (30, 0));

    book.closed.store(false, Ordering::SeqCst);
    let service = Service::start(&emulator, &book);
    until("all came again", || book.done() == sent).await;

    service.subscriber.pause();
    assert_eq!(service.state(), "paused");
    until("nothing is in hand", || service.subscriber.status().outstanding == 0).await;
    let held_back = server.publish(&numbered("paused", 10));
    assert_eq!(server.left(), 10, "the server still has them");
    assert_eq!(book.done(), sent);
    service.subscriber.resume();
    until("they come after the pause", || book.done().len() == 40).await;
    assert!(held_back.keys().all(|id| book.done().contains_key(id)));
    service.stop().await;
    assert_eq!(server.left(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_a_server_that_dies_and_comes_back_empty() {
    let Some(mut emulator) = Emulator::start().unwrap() else {
        skip!("the Pub/Sub emulator is not installed");
    };
    Server::new(&emulator).make();
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

    Server::new(&emulator).make();
    let sent = Server::new(&emulator).publish(&numbered("after", 10));
    until("it pulls again", || sent.keys().all(|id| book.done().contains_key(id))).await;
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
    closed: AtomicBool,
    /// Once set, it can decode poison.
    mended: AtomicBool,
    at_once: Semaphore,
}

#[derive(Default)]
struct Pages {
    seen: BTreeMap<String, Vec<Message>>,
    done: BTreeMap<String, String>,
    most_at_once: usize,
}

impl Default for Book {
    fn default() -> Book {
        Book {
            pages: Mutex::default(),
            closed: AtomicBool::new(false),
            mended: AtomicBool::new(false),
            at_once: Semaphore::new(Semaphore::MAX_PERMITS),
        }
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

    fn most_at_once(&self) -> usize {
        self.pages().most_at_once
    }

    fn decide(&self, message: Message) -> Taken {
        let data = String::from_utf8(message.data.to_vec()).unwrap();
        let mut pages = self.pages();
        let seen = pages.seen.entry(message.id.clone()).or_default();
        let earlier = seen.len();
        seen.push(message.clone());
        let word = data.split(' ').next().unwrap();
        if word == "poison" && !self.mended.load(Ordering::SeqCst) {
            return Taken::Poison;
        }
        if word == "later" && earlier < 2 {
            return Taken::Later;
        }
        pages.done.insert(message.id, data);
        Taken::Done
    }
}

impl Intake for Book {
    fn take(&self, message: Message) -> BoxFuture<'_, Taken> {
        async move {
            let _one = self.at_once.acquire().await.unwrap();
            let at_once = Semaphore::MAX_PERMITS - self.at_once.available_permits();
            let most = self.most_at_once().max(at_once);
            self.pages().most_at_once = most;
            if self.closed.load(Ordering::SeqCst) {
                self.pages().seen.entry(message.id.clone()).or_default().push(message);
                return std::future::pending().await;
            }
            tokio::task::yield_now().await;
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

    /// Topics, subscriptions, and five attempts for each message.
    fn make(&mut self) {
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
                "maxDeliveryAttempts": 5,
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

    /// How many messages nobody holds and nobody has acknowledged. Gives them back at once.
    fn left(&mut self) -> usize {
        let all = json!({ "maxMessages": 1000, "returnImmediately": true });
        let answer = self.call("POST", "subscriptions/signals-sub:pull", &all);
        let Some(received) = answer["receivedMessages"].as_array() else { return 0 };
        let ids: Vec<&Value> = received.iter().map(|message| &message["ackId"]).collect();
        let back = json!({ "ackIds": ids, "ackDeadlineSeconds": 0 });
        self.call("POST", "subscriptions/signals-sub:modifyAckDeadline", &back);
        received.len()
    }
}
