//! Real events through the real subscriber, into a file.

use std::sync::Arc;

use tracing::{Level, debug, error, info, info_span};
use types::redact::REDACTED;
use types::{Clock, Micros};

use super::{FileOptions, LogOptions, subscriber};

struct Fixed;
impl Clock for Fixed {
    fn now(&self) -> Micros {
        Micros(1_704_067_200_000_000)
    }
}

fn logged(level: Level, act: impl FnOnce()) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    let file = FileOptions {
        path: path.clone(),
        buffer_lines: 100,
        flush_interval: std::time::Duration::from_secs(3600),
    };
    let options = LogOptions { level, is_structured: true, file: Some(file), outbox: None };
    let (subscriber, handle) = subscriber(&options, Arc::new(Fixed)).unwrap();
    tracing::subscriber::with_default(subscriber, act);
    handle.flush();
    std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect()
}

#[derive(Debug)]
struct Outer(std::io::Error);
impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the store failed")
    }
}
impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn an_event_in_two_spans() {
    let lines = logged(Level::INFO, || {
        let outer = info_span!("connection", peer = "10.0.0.1", request_id = "outer");
        let _outer = outer.enter();
        let span = info_span!("request", request_id = "r1", status = tracing::field::Empty);
        let _inner = span.enter();
        span.record("status", 503_u16);
        info!(
            target: "gateway",
            event = "request_completed",
            duration_ms = 1.5,
            nan = f64::NAN,
            ok = false,
            depth = -3,
            action = ?Some("grant"),
            path = %"/pubsub",
            "request {}",
            "completed"
        );
        debug!("not at this level");
    });
    assert_eq!(
        lines,
        [concat!(
            r#"{"timestamp":"2024-01-01T00:00:00.000000Z","level":"INFO","severity":"INFO","logger":"gateway","#,
            r#""event":"request_completed","message":"request completed","duration_ms":1.5,"duration":1.5,"nan":"NaN","ok":false,"#,
            r#""depth":-3,"action":"Some(\"grant\")","path":"/pubsub","request_id":"r1","status":503,"peer":"10.0.0.1"}"#
        )]
    );
}

#[test]
fn a_line_says_which_request_it_is_about() {
    let context = |id: &str| crate::trace::Context::read(None, Some(id.as_bytes()), 0xab);
    let lines = logged(Level::INFO, || {
        crate::trace::within(Some(context("order-4711")), || {
            info!(target: "gateway", traceId = "other", "in");
        });
        crate::trace::within(Some(context("my-password-1")), || info!("a word"));
        info!("out");
    });
    let wanted =
        r#""message":"in","traceId":"order-4711","spanId":"00000000000000ab","traceId_":"other"}"#;
    assert!(lines[0].ends_with(wanted), "{}", lines[0]);
    // What an id is made of is no credential; a word of the leak check is marked as anywhere else.
    assert!(lines[1].ends_with(r#","redaction":"REDACTED"}"#), "{}", lines[1]);
    assert!(!lines[2].contains("traceId"), "{}", lines[2]);
}

#[test]
fn an_error_tells_its_causes() {
    let failure = Outer(std::io::Error::other("disk gone, token=hunter2"));
    let lines = logged(Level::ERROR, || {
        error!(error.message = &failure as &dyn std::error::Error, error.name = "Outer", "write");
        info!("not at this level");
    });
    assert_eq!(lines.len(), 1);
    let wanted =
        r#""error":{"message":"the store failed: disk gone, token=REDACTED","name":"Outer"},"#;
    assert!(lines[0].contains(wanted), "{}", lines[0]);
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    let text = "the store failed: disk gone, token=REDACTED";
    assert_eq!(line["error_message"], text);
    assert_eq!(line["error_trace"], format!("{}: write: {text}", module_path!()));
}

#[test]
fn a_request_and_an_error_in_it_are_told_by_the_names_of_others_too() {
    let context = crate::trace::Context::read(None, None, 0xab).of("POST", "/marketplace");
    let lines = logged(Level::INFO, || {
        crate::trace::within(Some(context), || {
            error!(event = "append_failed", "cannot write");
            error!(event = "odd", path = "own", error_code = "own", "beside");
            info!(
                event = "request_completed",
                method = "POST",
                path = "/marketplace",
                status = 503,
                duration_ms = 1.5,
                client_ip = "10.0.0.1",
                user_agent = "curl/8 password=hunter2",
                tenant_id = "acme",
            );
        });
        error!(event = "alone", "elsewhere");
    });
    let lines: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = serde_json::json!({
        "requestMethod": "POST",
        "requestUrl": "/marketplace",
        "status": 503,
        "userAgent": "curl/8 password=REDACTED",
        "remoteIp": "10.0.0.1",
        "clientIp": "10.0.0.1",
        "latency": "0.001500s",
    });
    assert_eq!(lines[2]["httpRequest"], expected);
    assert_eq!((&lines[2]["customer_id"], lines[2].get("user_agent")), (&"acme".into(), None));
    let failure = |at: usize, name: &str| lines[at][name].as_str();
    assert_eq!(failure(0, "error_code"), Some("append_failed"));
    assert_eq!(failure(0, "error_message"), Some("cannot write"));
    assert_eq!(failure(0, "request"), Some("POST /marketplace"));
    assert_eq!(failure(0, "path"), Some("/marketplace"));
    assert_eq!((failure(1, "path"), failure(1, "error_code")), (Some("own"), Some("own")));
    assert_eq!((failure(3, "request"), failure(3, "error_code")), (None, Some("alone")));
    assert!(lines[2].get("error_code").is_none(), "it is no error");
}

#[test]
fn no_way_into_a_line_lets_a_secret_through() {
    #[derive(Debug)]
    #[expect(dead_code, reason = "read through Debug alone")]
    struct Call {
        api_key: Option<&'static str>,
        user: &'static str,
    }
    let call = Call { api_key: Some("hunter2"), user: "ann" };
    let lines = logged(Level::DEBUG, || {
        info!(password = "hunter2", "field");
        info!(token = 42_424_242_u64, prompt_tokens = 7, "number");
        info!(?call, "debug");
        info!("message with secret={}", "hunter2");
        info!(body = %r#"{"stripe_token": "hunter2"}"#, "nested");
        let span = info_span!("s", x_signature = "hunter2", note = tracing::field::Empty);
        span.record("note", "Bearer hunter2");
        span.in_scope(|| info!("span"));
    });
    assert_eq!(lines.len(), 6);
    for line in &lines {
        assert!(!line.contains("hunter2") && !line.contains("42424242"), "{line}");
        assert!(line.contains(REDACTED), "{line}");
    }
    assert!(lines[1].contains(r#""prompt_tokens":7"#), "{}", lines[1]);
    assert!(lines[2].contains(r#"user: \"ann\""#), "{}", lines[2]);
}

#[test]
fn a_value_of_any_size_is_cut_while_it_is_formatted() {
    let lines = logged(Level::INFO, || info!(huge = ?vec!["é"; 1_000_000], "big"));
    assert!(lines[0].len() < 8 * 1024 && lines[0].contains(super::CUT_MARK));
}
