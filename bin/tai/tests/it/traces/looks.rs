//! One look at each setting of the export.

use super::*;

/// The spans of one request to a service with these settings, and the headers that they came with.
fn exported(envs: &[(&str, &str)]) -> (Vec<Value>, Vec<Received>) {
    let receiver = Receiver::start().unwrap();
    let url = receiver.url();
    let (_room, dir) = room();
    let tai = start(&dir, &[&exporting(&url), envs].concat());
    get(&mut client(tai.address()), "/receipts");
    stop(tai);
    (spans(&receiver), receiver.received())
}

pub(crate) fn otel_exporter_otlp_endpoint() {
    assert!(!named(&exported(&[]).0, "GET /receipts").is_empty());
    let receiver = Receiver::start().unwrap();
    let (below, quiet) =
        (format!("{}/otlp/", receiver.url()), exported(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]));
    assert!(quiet.1.is_empty(), "nobody is sent anything");
    let (_, elsewhere) = exported(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &below)]);
    assert!(elsewhere.is_empty());
    assert_eq!(receiver.received()[0].path, "/otlp/v1/traces");
}

pub(crate) fn otel_exporter_otlp_headers() {
    let sent = |pairs| exported(&[("OTEL_EXPORTER_OTLP_HEADERS", pairs)]).1.swap_remove(0);
    assert_eq!(sent("").header("authorization"), None);
    let both = sent("Authorization=Bearer%20k,x-scope=one");
    assert_eq!(
        (both.header("authorization"), both.header("x-scope")),
        (Some("Bearer k"), Some("one"))
    );
}

pub(crate) fn otel_service_name() {
    for (envs, name) in [(&[][..], "tai-autonomics"), (&[("OTEL_SERVICE_NAME", "shop")], "shop")] {
        let body = exported(envs).1[0].json().unwrap();
        let attributes = &body["resourceSpans"][0]["resource"]["attributes"];
        assert_eq!(attributes[0], json!({"key": "service.name", "value": {"stringValue": name}}));
    }
}

pub(crate) fn tracing_sample_rate() {
    assert!(!exported(&[("TRACING_SAMPLE_RATE", "1")]).0.is_empty());
    assert!(exported(&[("TRACING_SAMPLE_RATE", "0")]).0.is_empty());
    // And while it runs.
    let receiver = Receiver::start().unwrap();
    let url = receiver.url();
    let (_room, dir) = room();
    let tai = start(&dir, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url), ("TRACING_SAMPLE_RATE", "0")]);
    let mut caller = Caller::local(tai.address());
    caller.get("/receipts");
    let set = caller.put("/admin/settings/TRACING_SAMPLE_RATE", &json!({"value": "1"}));
    assert_eq!(set.status, 200);
    caller.get("/v1/models");
    stop(tai);
    let spans = spans(&receiver);
    assert!(
        named(&spans, "GET /receipts").is_empty() && !named(&spans, "GET /v1/models").is_empty()
    );
}
