//! What is sampled, what a span says, and which of it is never said.

use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::trace::{envelope, follow, refused, within};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

struct Fixed;
impl Clock for Fixed {
    fn now(&self) -> Micros {
        Micros(1_704_067_200_000_001)
    }
}

fn tracer(share: u32) -> &'static Tracer {
    Box::leak(Box::new(Tracer::new(Arc::new(Fixed), share)))
}

fn read(traceparent: Option<&str>, trace_id: Option<&str>, unique: u128) -> Context {
    Context::read(traceparent.map(str::as_bytes), trace_id.map(str::as_bytes), unique)
}

fn spans(tracer: &Tracer) -> Vec<Json> {
    let taken = tracer.outbox().take(1_000);
    let lines = taken.iter().flat_map(|taken| taken.lines());
    let spans = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    if let Some(taken) = taken {
        taken.arrived(0);
    }
    spans
}

fn attribute<'a>(span: &'a Json, name: &str) -> &'a Json {
    let attributes = span["attributes"].as_array().unwrap();
    let mut named = attributes.iter().filter(|it| it["key"] == name);
    let value = named.next().map_or(&Json::Null, |it| &it["value"]);
    assert!(named.next().is_none(), "{name} is said twice");
    value
}

#[test]
fn spans_of_one_request_hang_together() {
    let tracer = tracer(0);
    let context = read(Some(&format!("00-{TRACE}-{PARENT}-01")), None, 0xab).traced(tracer);
    let mut server = context.span(|| "GET /receipts".to_owned());
    server.set("http.response.status_code", 200_u16);
    server.done();
    let sent = within(Some(context), || {
        let mut client = child(Kind::Client, || "POST openai".to_owned());
        client.fail("reset");
        client.fail("timeout");
        client.done();
        let mut inside = child(Kind::Internal, || "receipt.commit".to_owned());
        inside.set("tai.is_replay", true);
        client.context().unwrap().traceparent()
    });
    drop(server);
    let spans = spans(tracer);
    let [inside, client, server] = &spans[..] else { panic!("{spans:#?}") };
    let ids: HashSet<&str> = spans.iter().map(|span| span["spanId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    for span in &spans {
        assert_eq!(span["traceId"], TRACE);
        assert_eq!(span["startTimeUnixNano"], "1704067200000001000");
        let ended: u128 = span["endTimeUnixNano"].as_str().unwrap().parse().unwrap();
        assert!(ended >= 1_704_067_200_000_001_000);
    }
    assert_eq!((&server["parentSpanId"], &server["kind"]), (&PARENT.into(), &2.into()));
    assert_eq!(
        (&server["spanId"], &server["name"]),
        (&"00000000000000ab".into(), &"GET /receipts".into())
    );
    assert_eq!(attribute(server, "http.response.status_code")["intValue"], "200");
    assert_eq!((&server["flags"], &server["status"]), (&0x301.into(), &serde_json::json!({})));
    for (span, kind) in [(client, 3), (inside, 1)] {
        assert_eq!((&span["parentSpanId"], &span["kind"]), (&server["spanId"], &kind.into()));
        assert_eq!((&span["flags"], &span["status"]["code"]), (&0x101.into(), &2.into()));
    }
    assert_eq!(sent, format!("00-{TRACE}-{}-01", client["spanId"].as_str().unwrap()));
    assert_eq!(attribute(client, "error.type")["stringValue"], "reset", "the first cause");
    assert_eq!(
        attribute(inside, "error.type")["stringValue"],
        "cancelled",
        "nobody said how it ended"
    );
    assert_eq!(attribute(inside, "tai.is_replay")["boolValue"], true);
}

#[test]
fn who_began_a_trace_decides_and_else_its_id_does() {
    let (none, half, all) = (tracer(0), tracer(500_000_000), tracer(1_000_000_000));
    let low = format!("{}{}", "f".repeat(18), "0".repeat(14));
    let high = format!("{}8{}", "0".repeat(18), "0".repeat(13));
    for (tracer, traceparent, trace_id, is_kept) in [
        (none, Some("01"), None, true),
        (all, Some("00"), None, false),
        (none, None, Some(&low), false),
        (none, None, Some(&high), false),
        (half, None, Some(&low), false),
        (half, None, Some(&high), true),
        (all, None, Some(&low), true),
        (all, None, None, true),
        (none, None, None, false),
    ] {
        let traceparent = traceparent.map(|flags| format!("00-{TRACE}-{PARENT}-{flags}"));
        let given = read(traceparent.as_deref(), trace_id.map(String::as_str), 0xab);
        let context = given.traced(tracer);
        let what = (traceparent, trace_id);
        assert_eq!(context.span(|| "x".to_owned()).is_kept(), is_kept, "{what:?}");
        assert!(context.traceparent().ends_with(if is_kept { "-01" } else { "-00" }), "{what:?}");
        let begun = within(Some(context), || child(Kind::Internal, || "y".to_owned()).is_kept());
        assert_eq!(begun, is_kept, "{what:?}");
    }
    half.set_share(0);
    assert!(!read(None, Some(&high), 1).traced(half).span(|| "x".to_owned()).is_kept());
}

#[test]
fn what_is_not_kept_is_not_even_named() {
    let named = || -> String { unreachable!("nobody will see it") };
    for context in [read(None, None, 1), read(None, None, 1).traced(tracer(0))] {
        assert!(!context.span(named).is_kept());
        within(Some(context), || assert!(!child(Kind::Client, named).is_kept()));
        let mut span = context.span(named);
        span.set("http.route", "/x");
        span.fail("x");
        span.done();
        assert_eq!(span.context(), None);
    }
    assert!(!child(Kind::Client, named).is_kept(), "there is no request");
    assert_eq!(size_of::<Span>(), size_of::<usize>());
}

#[test]
fn a_future_that_is_dropped_ends_its_span() {
    let tracer = tracer(1_000_000_000);
    let context = read(None, None, 7).traced(tracer);
    let mut work = Box::pin(follow(context, async {
        let _span = child(Kind::Internal, || "waits".to_owned());
        std::future::pending::<()>().await;
    }));
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(work.as_mut().poll(&mut task).is_pending());
    assert!(spans(tracer).is_empty());
    drop(work);
    let spans = spans(tracer);
    assert_eq!(attribute(&spans[0], "error.type")["stringValue"], "cancelled");
}

#[test]
fn no_way_into_a_span_lets_a_secret_through() {
    let tracer = tracer(1_000_000_000);
    let mut span = read(None, None, 7).traced(tracer).span(|| "x".to_owned());
    span.set("api_key", "hunter2");
    span.set("token", 42_u16);
    span.set("tai.note", "Authorization: Bearer hunter2");
    span.set("tai.body", r#"{"password":"hunter2"}"#);
    span.set("tai.huge", "x".repeat(100_000).as_str());
    span.fail("sk_live_hunter2");
    drop(span);
    let taken = tracer.outbox().take(1).unwrap();
    let line = &taken.lines()[0];
    assert!(!line.contains("hunter2") && !line.contains("42"), "{line}");
    assert_eq!(line.matches(REDACTED).count(), 5, "{line}");
    assert!(line.len() < 8 * 1024);
}

#[test]
fn an_envelope_is_that_of_otlp() {
    let (before, behind) = envelope("a \"name\"", "1.2.3", "00ff");
    let body: Json = serde_json::from_str(&[&before, "{},{}", behind].concat()).unwrap();
    let resource = &body["resourceSpans"][0];
    let value = |at: usize| resource["resource"]["attributes"][at]["value"]["stringValue"].clone();
    assert_eq!([value(0), value(1), value(2)], ["a \"name\"", "1.2.3", "00ff"]);
    assert_eq!(resource["scopeSpans"][0]["scope"]["name"], "tai");
    assert_eq!(resource["scopeSpans"][0]["spans"].as_array().unwrap().len(), 2);
}

#[test]
fn what_a_collector_did_not_keep_is_read_from_its_answer() {
    for (answer, count) in [
        ("", 0),
        ("{}", 0),
        ("no json", 0),
        (r#"{"partialSuccess":{}}"#, 0),
        (r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#, 3),
        (r#"{"partialSuccess":{"rejectedSpans":3}}"#, 3),
        (r#"{"partialSuccess":{"rejectedSpans":-3}}"#, 0),
        (r#"{"partialSuccess":{"rejectedSpans":"x"}}"#, 0),
        (r#"{"partialSuccess":null}"#, 0),
    ] {
        assert_eq!(refused(answer.as_bytes()), count, "{answer}");
    }
}

proptest! {
    #[test]
    fn a_larger_share_keeps_what_a_smaller_one_does(trace in 1_u128.., one in 0_u32..=WHOLE, two in 0_u32..=WHOLE) {
        let (less, more) = (one.min(two), one.max(two));
        let samples = |share: u32| Tracer::new(Arc::new(Fixed), share).samples(trace);
        prop_assert!(!samples(less) || samples(more));
        prop_assert!(samples(WHOLE) && !samples(0));
    }

    #[test]
    fn whatever_is_said_a_span_is_json(name in ".{0,40}", value in ".{0,80}") {
        let tracer = tracer(WHOLE);
        let mut span = read(None, None, 7).traced(tracer).span(|| name.clone());
        span.set("tai.note", value.as_str());
        drop(span);
        let spans = spans(tracer);
        prop_assert_eq!(&spans[0]["name"], &name);
    }

    #[test]
    fn a_share_is_kept_of_many_traces(seed: u64) {
        let tracer = Tracer::new(Arc::new(Fixed), WHOLE / 4);
        let kept = (0..4_000_u64).filter(|at| tracer.samples(mixed(seed ^ at).into())).count();
        prop_assert!((800..1_200).contains(&kept), "{}", kept);
    }
}
