//! Providers that fail in every way that is known, streamed and not: what the caller sees, who was
//! asked how often, what was charged, and that the books of both sides agree.
//!
//! The table of `docs/generated/faults.md` is what this test saw; its last two columns differ from
//! run to run.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use testkit::provider::{Fault, Refusal, RetryAfter};

use super::*;

/// Tokens of each answer.
const TOKENS: usize = 20;

const MODELS: &str = r#"
[models.fast]
first_token_timeout_ms = 700
targets = [
  { provider = "one", model = "gpt-4o-mini" },
  { provider = "two", model = "gpt-4o-mini", continues = true },
]
"#;

/// What a caller is told in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Saw {
    /// The whole answer.
    Complete,
    /// A refusal.
    Refused(u16, String),
    /// A stream that says that it failed.
    Error(String),
}

/// How often a fault comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    Always,
}

use Times::{Always, Once};

/// A fault with its name, how often it comes, and the refusal that a caller should see, if one.
type Planned = (&'static str, Fault, Times, Option<(u16, &'static str)>);

fn faults() -> Vec<Planned> {
    let second = Some(RetryAfter::Seconds(1));
    let hour = Some(RetryAfter::Seconds(3_600));
    let refuse = Fault::Refuse;
    let rejected = Some((400, "provider_rejected"));
    vec![
        ("429, Retry-After 1 s", refuse(Refusal::RateLimited(second)), Once, None),
        ("429", refuse(Refusal::RateLimited(None)), Always, None),
        ("429, Retry-After an hour", refuse(Refusal::RateLimited(hour)), Always, None),
        ("out of credit", refuse(Refusal::OutOfCredit), Always, None),
        ("500", refuse(Refusal::ServerError), Once, None),
        ("500 always", refuse(Refusal::ServerError), Always, None),
        ("503", refuse(Refusal::Unavailable(None)), Always, None),
        ("529", refuse(Refusal::Overloaded), Always, None),
        ("401", refuse(Refusal::BadKey), Always, None),
        ("403", refuse(Refusal::Forbidden), Always, None),
        ("context too long", refuse(Refusal::ContextLength), Always, rejected),
        ("policy", refuse(Refusal::ContentPolicy), Always, rejected),
        ("302", Fault::Redirect, Always, None),
        ("no head", Fault::HangBeforeHead, Once, None),
        ("head and no more", Fault::HangAfterHead, Once, None),
        ("no first word", Fault::HangBeforeFirstToken, Once, None),
        ("reset at once", Fault::ResetAfter(0), Once, None),
        ("stall at a third", Fault::StallAfter(7), Once, None),
        ("cut at two thirds", Fault::CutAfter(13), Once, None),
        ("end at two thirds", Fault::EndAfter(13), Once, None),
        ("reset at two thirds", Fault::ResetAfter(13), Once, None),
        ("one malformed event", Fault::MalformedAfter(10), Once, None),
        ("error inside", Fault::ErrorAfter(10), Once, None),
        ("garbage", Fault::Garbage, Once, None),
        ("a page for people", Fault::Html, Once, None),
        ("empty", Fault::Empty, Once, None),
        ("truncated JSON", Fault::TruncatedJson, Once, None),
        ("no [DONE]", Fault::NoDone, Once, None),
        ("no usage", Fault::NoUsage, Once, None),
        ("no finish", Fault::NoFinish, Once, None),
        ("an event of 2 MiB", Fault::HugeChunk, Once, None),
        ("gzip that nobody asked for", Fault::Gzip, Once, None),
        ("events in pieces", Fault::Pieces, Once, None),
        ("a head byte by byte", Fault::TrickledHead(Duration::from_millis(50)), Once, None),
    ]
}

/// What one call came to.
struct Row {
    name: &'static str,
    is_stream: bool,
    saw: Saw,
    asked: (usize, usize),
    took: Duration,
    charged: (u64, u64),
    sent: (u64, u64),
    status: String,
    is_estimated: bool,
}

impl Row {
    /// The whole row.
    fn line(&self) -> String {
        let took = self.took.as_secs_f64();
        format!("{} {} + {} | {took:.1} s |", self.cells(), self.sent.0, self.sent.1)
    }

    /// What is the same in every run: when a provider notices that nobody listens any more is not,
    /// nor is the time.
    fn cells(&self) -> String {
        let Row { name, asked, charged, status, .. } = self;
        let way = if self.is_stream { "stream" } else { "whole" };
        let saw = match &self.saw {
            Saw::Complete => "complete".to_owned(),
            Saw::Refused(http, reason) => format!("{http} {reason}"),
            Saw::Error(reason) => format!("error {reason}"),
        };
        let mark = if self.is_estimated { ", estimated" } else { "" };
        format!(
            "| {name} | {way} | {saw} | {} + {} | {} + {}{mark} | {status} |",
            asked.0, asked.1, charged.0, charged.1
        )
    }
}

fn call(
    house: &House,
    providers: (&Provider, &Provider),
    name: &'static str,
    is_stream: bool,
) -> Row {
    let mut caller = house.local();
    let before = (providers.0.totals(), providers.1.totals());
    let began = Instant::now();
    let body = if is_stream { streamed("fast") } else { chat("fast") };
    let response = caller.post("/v1/chat/completions", &body);
    let took = began.elapsed();
    let expected = provider::text(TOKENS);
    let saw = if response.status != 200 {
        let body = response.json().unwrap();
        Saw::Refused(response.status, body["error"]["code"].as_str().unwrap().to_owned())
    } else if is_stream {
        let heard = heard(&response.body);
        match heard.error {
            Some(reason) => Saw::Error(reason),
            None => {
                assert!(heard.is_done && heard.finish.is_some(), "{name}: {}", text(&response));
                assert!(heard.text == expected, "{name}: {} bytes", heard.text.len());
                Saw::Complete
            }
        }
    } else {
        // Of a whole answer its size is no fault.
        let whole = content(&response);
        assert!(whole.ends_with(&expected), "{name}: {} bytes", whole.len());
        Saw::Complete
    };
    let result = result_of(&mut caller, "local", &receipt_id(&response));
    let metadata = &result["metadata"];
    let number = |name: &str| metadata[name].as_u64().unwrap_or_default();
    let after = (
        providers.0.settled(PATIENCE).unwrap().totals,
        providers.1.settled(PATIENCE).unwrap().totals,
    );
    let sent = |of: fn(&provider::Totals) -> u64| {
        of(&after.0) - of(&before.0) + of(&after.1) - of(&before.1)
    };
    Row {
        name,
        is_stream,
        saw,
        asked: (after.0.requests - before.0.requests, after.1.requests - before.1.requests),
        took,
        charged: (number("input_tokens"), number("output_tokens")),
        sent: (sent(|totals| totals.prompt_tokens), sent(|totals| totals.completion_tokens)),
        status: result["status"].as_str().unwrap().to_owned(),
        is_estimated: metadata["estimated"] == true,
    }
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/generated/faults.md");

const HEADER: &str = "\
# What a caller sees when a provider fails

Written by the test `calls::faults`, which runs each fault at the first of two targets, streamed and not.
The second target is in order and can go on with an answer. The first has 0.7 s until the first word, 1.5 s
for an answer that is not streamed, and 1 s between two pieces. Asked: requests at the first and at the second
target. Charged and sent: tokens of prompt and answer, as the tenant is billed and as both providers count
what they sent. The last two columns differ from run to run: a provider may notice late that nobody listens.

| fault | call | the caller sees | asked | charged | result | sent by providers | time |
|---|---|---|---|---|---|---|--:|
";

#[test]
fn every_fault_of_a_provider_has_an_answer() {
    let (one, two) = (Provider::start().unwrap(), Provider::start().unwrap());
    let named = [("one", Vendor::OpenAi, &one), ("two", Vendor::OpenAi, &two)];
    let envs = [
        ("AI_ANSWER_TIMEOUT_MS", "1500"),
        ("AI_GAP_TIMEOUT_MS", "1000"),
        // What a fault does to its own call is looked at here.
        ("CIRCUIT_BREAKER_THRESHOLD", "1000"),
    ];
    let mut page = HEADER.to_owned();
    let mut seen = Vec::new();
    for (name, fault, times, refused) in faults() {
        for is_stream in [false, true] {
            // Each has a service of its own: a provider that asked to be left alone would be.
            let mut house = House::start(&named, MODELS, &envs);
            house.tai.expect_errors();
            one.heal();
            match times {
                Once => one.next(fault.clone()),
                Always => one.always(fault.clone()),
            }
            let row = call(&house, (&one, &two), name, is_stream);
            let expected = refused
                .map_or(Saw::Complete, |(status, reason)| Saw::Refused(status, reason.to_owned()));
            println!("{}", row.line());
            assert_eq!(row.saw, expected, "{name}, streamed: {is_stream}");
            if refused.is_some() {
                assert_eq!((row.asked.1, row.charged), (0, (0, 0)), "{name}: not routed around");
            } else if row.sent == row.charged {
                assert!(!row.is_estimated || row.name == "no usage", "{name}");
            }
            writeln!(page, "{}", row.line()).unwrap();
            seen.push(row.cells());
            one.heal();
            house.close("local");
        }
    }
    compare(&page, &seen);
}

/// Holds what was seen against the page.
fn compare(page: &str, seen: &[String]) {
    let path = Path::new(PAGE);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        return std::fs::write(path, page).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(kept.starts_with(HEADER), "UPDATE_GENERATED=1 writes the page anew");
    let rows: Vec<&str> = kept.lines().skip(HEADER.lines().count()).collect();
    assert_eq!(rows.len(), seen.len(), "UPDATE_GENERATED=1 writes the page anew");
    for (row, seen) in rows.iter().zip(seen) {
        assert!(row.starts_with(seen.as_str()), "the page says {row}, and this run {seen}");
    }
}
