//! Golden lines, and properties over any text.

use proptest::prelude::*;
use serde_json::Value;
use tracing::Level;
use types::Micros;
use types::redact::{REDACTED, has_leak_word};

use super::{CUT_MARK, Fields, VALUE_BYTES, format_line};

const AT: Micros = Micros(1_704_067_200_123_456);

fn fields(texts: &[(&'static str, &str)]) -> Fields {
    let mut fields = Fields::default();
    texts.iter().for_each(|(name, text)| fields.text(name, text));
    fields
}

fn line(texts: &[(&'static str, &str)]) -> String {
    format_line(AT, Level::INFO, "t", fields(texts), &[])
}

#[test]
fn the_order_of_a_line() {
    let event = fields(&[
        ("path", "/pubsub"),
        ("message", "request completed"),
        ("event", "request_completed"),
    ]);
    let inner = fields(&[("path", "/other"), ("request_id", "r1")]);
    let outer = fields(&[("request_id", "r0"), ("tenant_id", "acme")]);
    assert_eq!(
        format_line(AT, Level::WARN, "gateway::http", event, &[&inner, &outer]),
        concat!(
            r#"{"timestamp":"2024-01-01T00:00:00.123456Z","level":"WARN","severity":"WARNING","#,
            r#""logger":"gateway::http","event":"request_completed","message":"request completed","#,
            r#""path":"/pubsub","request_id":"r1","tenant_id":"acme"}"#
        )
    );
}

#[test]
fn levels_have_the_words_of_both_worlds() {
    for (level, words) in [
        (Level::ERROR, r#""level":"ERROR","severity":"ERROR""#),
        (Level::WARN, r#""level":"WARN","severity":"WARNING""#),
        (Level::INFO, r#""level":"INFO","severity":"INFO""#),
        (Level::DEBUG, r#""level":"DEBUG","severity":"DEBUG""#),
        (Level::TRACE, r#""level":"DEBUG","severity":"DEBUG""#),
    ] {
        let line = format_line(AT, level, "t", Fields::default(), &[]);
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn names_that_clash_are_kept_apart() {
    for (texts, members) in [
        (&[("level", "8"), ("timestamp", "x")][..], r#""level_":"8","timestamp_":"x""#),
        (&[("r#type", "refusal")], r#""type":"refusal""#),
        (&[("a", "1"), ("a", "2")], r#""a":"2""#),
        (&[("error.name", "Io"), ("error.code", "E1")], r#""error":{"code":"E1","name":"Io"}"#),
        (&[("peer.name", "a"), ("peer", "b")], r#""peer":{"name":"a","value":"b"}"#),
        (&[("peer", "b"), ("peer.name", "a")], r#""peer":"b","peer.name":"a""#),
        (
            &[("error.name", "Io"), ("error", "broken")],
            r#""error":{"message":"broken","name":"Io"}"#,
        ),
        (
            &[("error", "broken"), ("error.name", "Io")],
            r#""error":{"message":"broken","name":"Io"}"#,
        ),
        (&[(".a", "1"), ("b.", "2")], r#"".a":"1","b.":"2""#),
        (&[("we\"ird", "1")], r#""we\"ird":"1""#),
    ] {
        let line = line(texts);
        assert!(line.ends_with(&format!("\"message\":\"\",{members}}}")), "{line}");
    }
    let span = fields(&[("message", "m"), ("event", "e")]);
    let line = format_line(AT, Level::INFO, "t", Fields::default(), &[&span]);
    assert!(line.ends_with(r#""message":"","message_":"m","event_":"e"}"#), "{line}");
}

#[test]
fn an_error_always_has_a_name_to_be_counted_by() {
    for (level, texts, members) in [
        (
            Level::ERROR,
            &[("event", "store_failed")][..],
            r#","error":{"name":"store_failed"},"error_code":"store_failed","#,
        ),
        (Level::ERROR, &[], r#","error":{"name":"t"},"error_code":"t","#),
        (
            Level::ERROR,
            &[("event", "e"), ("error", "broken")],
            r#","error":{"message":"broken","name":"e"},"error_code":"e","#,
        ),
        (
            Level::ERROR,
            &[("event", "e"), ("error.name", "Io")],
            r#","error":{"name":"Io"},"error_code":"e","#,
        ),
        (Level::WARN, &[("error", "broken")], r#","error":{"message":"broken"}}"#),
        (Level::WARN, &[], r#""message":""}"#),
    ] {
        let line = format_line(AT, level, "t", fields(texts), &[]);
        assert!(line.contains(members), "{line}");
    }
}

#[test]
fn secrets_do_not_reach_a_line() {
    let nested = r#"{"tenant_id":"acme","stripe_token":"hunter2","deep":{"api-key":"hunter2"}}"#;
    for texts in [
        &[("password", "hunter2")][..],
        &[("X-Api-Key", "hunter2")],
        &[("message", "retry with token=hunter2")],
        &[("body", nested)],
        &[("error.secret", "hunter2")],
        &[("headers", r#"{"authorization": "Bearer hunter2", "host": "a"}"#)],
    ] {
        let at_event = line(texts);
        let in_span = format_line(AT, Level::INFO, "t", Fields::default(), &[&fields(texts)]);
        for line in [at_event, in_span] {
            assert!(!line.contains("hunter2") && line.contains(REDACTED), "{line}");
        }
    }
    let kept = line(&[("body", nested)]);
    assert!(kept.contains("acme"), "what is no secret stays: {kept}");
}

#[test]
fn a_sentence_about_a_secret_passes_the_leak_check() {
    assert!(
        line(&[("message", "the password was changed")]).ends_with(r#","redaction":"REDACTED"}"#)
    );
    assert!(!line(&[("message", "the tenant was changed")]).contains(REDACTED));
}

#[test]
fn long_values_are_cut_and_say_so() {
    for (length, cut) in
        [(VALUE_BYTES - 1, false), (VALUE_BYTES, false), (VALUE_BYTES + 1, true), (100_000, true)]
    {
        let line = line(&[("a", &"x".repeat(length))]);
        assert_eq!(line.contains(CUT_MARK), cut, "{length}");
        assert!(line.len() < VALUE_BYTES + 200);
    }
    let masked = line(&[("a", &"token=x ".repeat(VALUE_BYTES / 8))]);
    assert!(masked.contains(CUT_MARK) && masked.len() < VALUE_BYTES + 200);
    let wide = line(&[("a", &"é".repeat(VALUE_BYTES))]);
    let value: Value = serde_json::from_str(&wide).unwrap();
    assert_eq!(value["a"].as_str().unwrap(), "é".repeat(VALUE_BYTES / 2) + CUT_MARK);
}

const NAMES: &[&str] = &[
    "message",
    "event",
    "level",
    "timestamp",
    "a",
    "a.b",
    "a.b.c",
    "path",
    "password",
    "r#type",
    "redaction",
    "level_",
    "error",
    "error.name",
    "error.value",
    "..",
    "\n\"\\",
];

proptest! {
    #[test]
    fn any_fields_make_one_valid_object_with_each_name_once(
        logger in any::<String>(),
        event in proptest::collection::vec((proptest::sample::select(NAMES), any::<String>()), 0..8),
        span in proptest::collection::vec((proptest::sample::select(NAMES), any::<String>()), 0..8),
    ) {
        let (mut own, mut around) = (Fields::default(), Fields::default());
        event.iter().for_each(|(name, text)| own.text(name, text));
        span.iter().for_each(|(name, text)| around.text(name, text));
        let line = format_line(AT, Level::INFO, &logger, own.clone(), &[&around, &own]);
        prop_assert!(!line.contains(['\n', '\r']));
        let value: Value = serde_json::from_str(&line).unwrap();
        // The parser keeps one of two equal names, so equal lengths mean that there were none.
        prop_assert_eq!(value.to_string().len(), line.len());
        prop_assert_eq!(&value["logger"], &Value::from(logger));
    }

    #[test]
    fn a_line_with_a_leak_word_says_that_it_was_redacted(
        text in r#"([a-z =:"]{0,8}(api[_-]?key|Api-Key|password|PASSWORD|secret)[a-z =:"]{0,8}){1,3}"#,
        named in proptest::sample::select(&["message", "a", "secret_name"][..]),
    ) {
        let line = line(&[(named, &text)]);
        prop_assert!(line.contains(REDACTED), "{}", line);
    }

    #[test]
    fn a_plain_line_is_not_marked(text in "[b-oq-rt-z ]{0,40}") {
        let line = line(&[("message", &text)]);
        prop_assert!(!has_leak_word(&line) && !line.contains(REDACTED));
    }
}
