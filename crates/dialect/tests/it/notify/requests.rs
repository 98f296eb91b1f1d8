//! What leaves, and what the answers to it mean.

use std::time::Duration;

use dialect::notify::{
    Delivery, Method, Notice, NoticeKind, alertmanager, email, pagerduty, slack, telegram, webhook,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{AT, KINDS, MINUTE, alert, any_notice, body, notice, of, strings};

const AFTER: Option<Duration> = Some(Duration::from_secs(7));

fn delivered(remote: Option<&str>) -> Delivery {
    Delivery::Delivered { remote: remote.map(str::to_owned) }
}

#[test]
fn slack_has_a_headline_its_facts_the_text_and_the_alerts() {
    let request = slack::request(&notice());
    assert_eq!((request.method, request.path.as_str()), (Method::Post, ""));
    let body = body(&request);
    let blocks = body["blocks"].as_array().expect("blocks");
    assert_eq!(blocks[0]["text"]["text"], "*SEV-1 INC-7 opened: Errors above 10 %*");
    assert_eq!(blocks[1]["fields"][1]["text"], "*Component*\napi");
    assert_eq!(blocks[1]["fields"][3]["text"], "*Started*\n2026-11-18T11:06:40Z");
    assert_eq!(blocks[3]["text"]["text"], "• high-error-rate = 12.5 %: 5xx above 10 %");
    assert_eq!(blocks[4]["text"]["text"], "https://tai.example/incidents/INC-7");
    let text = body["text"].as_str().expect("a text");
    assert!(text.starts_with("SEV-1 INC-7 opened: Errors above 10 %\nINCIDENT DECLARED"));
}

#[test]
fn a_text_can_neither_call_everybody_nor_be_a_link_in_slack() {
    let notice = Notice {
        title: "<!channel> a & b".to_owned(),
        text: "<https://evil.example|click> &lt;".to_owned(),
        ..notice()
    };
    let body = body(&slack::request(&notice));
    let text = body["text"].as_str().expect("a text");
    assert!(text.contains("&lt;!channel&gt; a &amp; b"));
    assert!(text.ends_with("&lt;https://evil.example|click&gt; &amp;lt;"));
    assert!(strings(&body).iter().all(|text| !text.contains(['<', '>'])));
}

#[test]
fn slack_answers_in_plain_text_and_what_is_like_it_in_json() {
    for (status, said, expected) in [
        (200, "ok", delivered(None)),
        (200, "ok\n", delivered(None)),
        (200, "", delivered(None)),
        (200, r#"{"ok":true}"#, delivered(None)),
        (200, r#"{"success":true}"#, delivered(None)),
        (200, r#"{"ok":false}"#, Delivery::Refused { why: "it refuses the message" }),
        (200, "<html>sign in</html>", Delivery::Unknown),
        (200, "\u{fffd}", Delivery::Unknown),
        (302, "", Delivery::Refused { why: "it points elsewhere, and redirects are not followed" }),
        (400, "invalid_payload", Delivery::Refused { why: "it refuses the request" }),
        (403, "invalid_token", Delivery::Refused { why: "it refuses the credentials" }),
        (404, "no_service", Delivery::Refused { why: "there is nothing at its address" }),
        (410, "channel_is_archived", Delivery::Refused { why: "there is nothing at its address" }),
        (429, "rate_limited", Delivery::Retry { after: AFTER }),
        (500, "rollup_error", Delivery::Retry { after: AFTER }),
        (504, "", Delivery::Unknown),
    ] {
        assert_eq!(slack::read(status, AFTER, said.as_bytes()), expected, "{status} {said}");
    }
}

#[test]
fn telegram_is_sent_plain_text_with_the_link_at_its_end() {
    let request = telegram::request(&notice(), "bot123:AB-c_d", "@ops");
    assert_eq!(request.path, "/bot123:AB-c_d/sendMessage");
    assert_eq!(telegram::request(&notice(), "123:AB-c_d", "@ops").path, request.path);
    let told = body(&request);
    assert_eq!(told["chat_id"], "@ops");
    assert!(told.get("parse_mode").is_none());
    let text = told["text"].as_str().expect("a text");
    assert!(text.starts_with("SEV-1 INC-7 opened: Errors above 10 %\n\nINCIDENT DECLARED"));
    let long = Notice { text: "😀".repeat(5_000), ..notice() };
    let told = body(&telegram::request(&long, "1:x", "1"));
    let text = told["text"].as_str().expect("a text");
    assert!(text.ends_with("…\n\nhttps://tai.example/incidents/INC-7"));
    assert!((4_095..=4_096).contains(&text.encode_utf16().count()));
}

#[test]
fn a_token_of_telegram_is_a_number_and_a_key() {
    for token in ["1:a", "bot123456:ABC-DEF_1"] {
        assert!(telegram::is_token(token), "{token}");
    }
    for token in ["", "bot", "1", "1:", ":a", "1:a/b", "1:a?", "1:a b", "botbot1:a", "x:a", "1:ä"]
    {
        assert!(!telegram::is_token(token), "{token}");
    }
}

#[test]
fn telegram_says_how_long_to_wait_in_its_body() {
    let wait = br#"{"ok":false,"parameters":{"retry_after":31}}"#;
    let waits = Delivery::Retry { after: Some(Duration::from_secs(31)) };
    assert_eq!(telegram::read(429, AFTER, wait), waits);
    assert_eq!(telegram::read(429, AFTER, b"{}"), Delivery::Retry { after: AFTER });
    let taken = br#"{"ok":true,"result":{"message_id":42}}"#;
    assert_eq!(telegram::read(200, None, taken), delivered(Some("42")));
    assert_eq!(telegram::read(200, None, br#"{"ok":true}"#), delivered(None));
    assert_eq!(telegram::read(200, None, b"<html>"), Delivery::Unknown);
    for status in [400, 401, 403, 404] {
        let answer = telegram::read(status, None, br#"{"ok":false}"#);
        assert!(matches!(answer, Delivery::Refused { .. }), "{status}");
    }
}

#[test]
fn every_event_of_an_incident_has_one_key_in_pagerduty() {
    for (kind, action) in [
        (NoticeKind::Opened, "trigger"),
        (NoticeKind::Escalated { level: 3 }, "trigger"),
        (KINDS[2], "trigger"),
        (NoticeKind::Acknowledged, "acknowledge"),
        (NoticeKind::Resolved, "resolve"),
    ] {
        let request = pagerduty::request(&of(kind), "R-key", "tai-1");
        assert_eq!(request.path, "/v2/enqueue");
        let event = body(&request);
        assert_eq!(event["event_action"], action);
        assert_eq!(event["dedup_key"], "INC-7");
        assert_eq!(event["routing_key"], "R-key");
        assert_eq!(event.get("payload").is_some(), action == "trigger", "{action}");
    }
    for (severity, word) in
        [(0, "critical"), (1, "critical"), (2, "error"), (3, "warning"), (4, "info"), (9, "info")]
    {
        let event = body(&pagerduty::request(&Notice { severity, ..notice() }, "k", "tai-1"));
        assert_eq!(event["payload"]["severity"], word);
        assert_eq!(event["payload"]["source"], "tai-1");
        assert_eq!(event["payload"]["component"], "api");
        assert_eq!(event["payload"]["class"], "high-error-rate");
    }
}

#[test]
fn pagerduty_says_success_in_words() {
    let taken = br#"{"status":"success","message":"Event processed","dedup_key":"INC-7"}"#;
    assert_eq!(pagerduty::read(202, None, taken), delivered(Some("INC-7")));
    assert_eq!(pagerduty::read(202, None, b"garbage"), Delivery::Unknown);
    assert_eq!(pagerduty::read(429, AFTER, b""), Delivery::Retry { after: AFTER });
    let invalid = br#"{"status":"invalid event"}"#;
    assert!(matches!(pagerduty::read(400, None, invalid), Delivery::Refused { .. }));
}

#[test]
fn a_mail_has_one_subject_whatever_the_title_holds() {
    let title = "a\r\nBcc: everybody@example.com\r\n\r\n<script>";
    let mail = email::mail(&Notice { title: title.to_owned(), ..notice() });
    assert!(mail.subject.starts_with("[OPENED] SEV-1 INC-7 opened: a  Bcc:"));
    assert!(!mail.subject.contains(char::is_control));
    assert!(mail.html.contains("&lt;script&gt;") && !mail.html.contains("<script>"));
    assert!(mail.text.contains("Alert high-error-rate: 5xx above 10 % (12.5 %)"));
    assert_eq!((mail.id.as_str(), mail.thread.as_str()), ("INC-7.opened", "INC-7"));
}

#[test]
fn the_webhook_carries_everything_and_a_key_for_repeats() {
    let request = webhook::request(&Notice { id: "a b".to_owned(), ..of(KINDS[3]) });
    assert_eq!(request.headers, [("idempotency-key", "a=20b".to_owned())]);
    let told = body(&request);
    for (member, expected) in [
        ("version", json!("1")),
        ("id", json!("a b")),
        ("incident", json!("INC-7")),
        ("kind", json!("update")),
        ("phase", json!("identified")),
        ("level", Value::Null),
        ("severity", json!(1)),
        ("at_us", json!(AT + MINUTE)),
        ("opened_at_us", json!(AT)),
        ("alerts_not_shown", json!(0)),
    ] {
        assert_eq!(told[member], expected, "{member}");
    }
    assert_eq!(told["alerts"][0]["labels"]["route"], "/v1/chat");
    assert_eq!(webhook::read(204, None, b""), delivered(None));
    assert_eq!(webhook::read(409, AFTER, b""), Delivery::Retry { after: AFTER });
}

#[test]
fn alertmanagers_webhook_is_what_its_receivers_know() {
    let request = alertmanager::request(&notice(), "ops", Some("t-1"));
    assert_eq!(request.headers, [("authorization", "Bearer t-1".to_owned())]);
    let told = body(&request);
    let labels = json!({
        "alertname": "high-error-rate",
        "component": "api",
        "incident": "INC-7",
        "route": "/v1/chat",
    });
    assert_eq!(told["version"], "4");
    assert_eq!(told["status"], "firing");
    assert_eq!(told["receiver"], "ops");
    assert_eq!(told["groupKey"], r#"{}:{incident="INC-7"}"#);
    assert_eq!(told["commonLabels"], labels);
    assert_eq!(told["externalURL"], "https://tai.example/incidents/INC-7");
    let first = &told["alerts"][0];
    assert_eq!(first["startsAt"], "2026-11-18T11:06:40Z");
    assert_eq!(first["endsAt"], "0001-01-01T00:00:00Z");
    assert_eq!(first["annotations"]["value"], "12.5 %");

    let again = body(&alertmanager::request(&of(NoticeKind::Resolved), "ops", None));
    assert_eq!(again["status"], "resolved");
    assert_eq!(again["alerts"][0]["endsAt"], "2026-11-18T11:07:40Z");
    assert_eq!(again["alerts"][0]["fingerprint"], first["fingerprint"], "it is the same alert");
}

#[test]
fn alertmanager_itself_is_sent_the_alerts_alone_with_an_end_and_takes_them_for_the_same() {
    for (url, is_api) in [
        ("http://am:9093/api/v2/alerts", true),
        ("http://am:9093/prefix/api/v2/alerts?x=1", true),
        ("http://am:9093/api/v2/alerts/", false),
        ("https://ops.example/hook", false),
    ] {
        assert_eq!(alertmanager::is_api(url), is_api, "{url}");
    }
    let request = alertmanager::api_request(&notice(), Some("t-1"));
    assert_eq!(request.headers, [("authorization", "Bearer t-1".to_owned())]);
    let told = body(&request);
    let group = body(&alertmanager::request(&notice(), "ops", None));
    assert_eq!(told[0]["labels"], group["alerts"][0]["labels"]);
    assert_eq!(told[0]["annotations"]["receipt"], notice().id);
    assert_eq!(told[0]["startsAt"], "2026-11-18T11:06:40Z");
    assert_eq!(told[0]["endsAt"], "2026-11-19T11:07:40Z", "a day after the notice");
    // More is affected by then, and it is the same alert all the same.
    let wider = Notice { component: "api,ledger".to_owned(), ..of(NoticeKind::Resolved) };
    let over = body(&alertmanager::api_request(&wider, None));
    assert_eq!(over[0]["labels"], told[0]["labels"]);
    assert_eq!(over[0]["endsAt"], "2026-11-18T11:07:40Z");
    // What an update without alerts tells of is told of with every notice, and so it ends too.
    let bare = Notice { alerts: Vec::new(), ..of(NoticeKind::Acknowledged) };
    let update = body(&alertmanager::api_request(&bare, None));
    assert_eq!(update[0]["labels"]["alertname"], "Incident");
    assert_eq!(
        (&told[1]["labels"], &over[1]["labels"]),
        (&update[0]["labels"], &update[0]["labels"])
    );
    assert_eq!(over[1]["endsAt"], "2026-11-18T11:07:40Z");
}

#[test]
fn an_incident_without_alerts_is_one_and_an_alert_may_end_before_it() {
    let bare = Notice { alerts: Vec::new(), ..notice() };
    let told = body(&alertmanager::request(&bare, "ops", None));
    assert_eq!(told["alerts"][0]["labels"]["alertname"], "Incident");
    assert_eq!(told["alerts"][0]["annotations"]["summary"], "Errors above 10 %");
    let ended = dialect::notify::NoticeAlert { ends_at_us: Some(AT + 1), ..alert() };
    let told = body(&alertmanager::request(
        &Notice { alerts: vec![ended, alert()], ..notice() },
        "ops",
        None,
    ));
    assert_eq!(told["status"], "firing");
    assert_eq!(told["alerts"][0]["status"], "resolved");
    assert_eq!(told["alerts"][1]["status"], "firing");
}

#[test]
fn a_fingerprint_is_the_one_that_prometheus_makes() {
    // FNV-1a of nothing, and of `a`, 255, `b`, 255.
    let labels = std::collections::BTreeMap::new();
    assert_eq!(alertmanager::fingerprint(&labels), "cbf29ce484222325");
    let labels = [("alertname", "HighErrorRate"), ("job", "api")];
    let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let by_hand = b"alertname\xffHighErrorRate\xffjob\xffapi\xff";
    let hash = by_hand.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    assert_eq!(alertmanager::fingerprint(&labels), format!("{hash:016x}"));
}

#[test]
fn a_request_does_not_show_its_secrets() {
    let telegram = telegram::request(&notice(), "123:swordfish", "1");
    let pagerduty = pagerduty::request(&notice(), "swordfish", "x");
    let alertmanager = alertmanager::request(&notice(), "x", Some("swordfish"));
    for request in [telegram, pagerduty, alertmanager] {
        assert!(!format!("{request:?}").contains("swordfish"));
    }
}

fn chars(value: &Value) -> usize {
    value.as_str().map_or(0, |text| text.chars().count())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn slack_keeps_its_limits_and_its_escapes(notice in any_notice()) {
        let body = body(&slack::request(&notice));
        prop_assert!(chars(&body["text"]) <= 40_000);
        let blocks = body["blocks"].as_array().expect("blocks");
        prop_assert!(blocks.len() <= 50);
        for block in blocks {
            let text = chars(&block["text"]["text"]);
            prop_assert!(text <= 3_000 && (text > 0 || block["fields"].is_array()));
            for field in block["fields"].as_array().into_iter().flatten() {
                prop_assert!(chars(&field["text"]) <= 2_000);
            }
        }
        for text in strings(&body) {
            prop_assert!(!text.contains(['<', '>']));
            for after in text.split('&').skip(1) {
                let whole = ["amp;", "lt;", "gt;"].iter().any(|escape| after.starts_with(escape));
                prop_assert!(whole, "an escape is cut: {after:?}");
            }
        }
    }

    #[test]
    fn telegram_keeps_its_limit(notice in any_notice()) {
        let body = body(&telegram::request(&notice, "1:a", "1"));
        let text = body["text"].as_str().expect("a text");
        prop_assert!((1..=4_096).contains(&text.encode_utf16().count()));
    }

    #[test]
    fn pagerduty_keeps_its_limits(notice in any_notice()) {
        let request = pagerduty::request(&notice, "k", "s");
        prop_assert!(request.body.len() <= 512 * 1024);
        let event = body(&request);
        prop_assert!(chars(&event["dedup_key"]) <= 255);
        prop_assert!(chars(&event["payload"]["summary"]) <= 1_024);
    }

    #[test]
    fn a_mail_is_of_one_subject_and_of_no_foreign_markup(notice in any_notice()) {
        let mail = email::mail(&notice);
        prop_assert!((1..=200).contains(&mail.subject.chars().count()));
        prop_assert!(!mail.subject.contains(char::is_control));
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-=".contains(&byte);
        prop_assert!(mail.id.bytes().chain(mail.thread.bytes()).all(is_safe));
        for tag in mail.html.split('<').skip(1) {
            let own = ["!doctype", "html", "body", "h2", "pre", "table", "tr", "th", "td", "/"];
            prop_assert!(own.iter().any(|name| tag.starts_with(name)), "{tag:?}");
        }
    }

    #[test]
    fn every_header_of_every_request_can_be_sent(notice in any_notice()) {
        for request in [webhook::request(&notice), alertmanager::request(&notice, "r", None)] {
            body(&request);
            for (name, value) in request.headers {
                prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
                prop_assert!(value.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }

    #[test]
    fn any_answer_is_read(status in any::<u16>(), said in any::<Vec<u8>>()) {
        for read in [slack::read, telegram::read, pagerduty::read, webhook::read, alertmanager::read] {
            let answer = read(status, AFTER, &said);
            let is_taken = matches!(answer, Delivery::Delivered { .. });
            prop_assert!(!is_taken || (200..300).contains(&status));
        }
    }
}
