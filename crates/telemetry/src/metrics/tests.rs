//! The scrape as Prometheus sees it, against the table.

use std::collections::BTreeSet;

use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec,
};
use types::Reason;

use super::super::handle::Family;
use super::super::{Kind, views};
use super::{Metrics, table};

pub(super) trait Touch {
    fn touch(&self);
}
impl Touch for IntCounter {
    fn touch(&self) {
        self.inc();
    }
}
impl Touch for IntGauge {
    fn touch(&self) {
        self.set(1);
    }
}
impl Touch for Counter {
    fn touch(&self) {
        self.inc();
    }
}
impl Touch for Gauge {
    fn touch(&self) {
        self.set(1.0);
    }
}
impl<const N: usize> Touch for Family<GaugeVec, N> {
    fn touch(&self) {
        self.with(["x"; N]).set(1.0);
    }
}
impl Touch for Histogram {
    fn touch(&self) {
        self.observe(1.0);
    }
}
impl<const N: usize> Touch for Family<IntCounterVec, N> {
    fn touch(&self) {
        self.with(["x"; N]).inc();
    }
}
impl<const N: usize> Touch for Family<IntGaugeVec, N> {
    fn touch(&self) {
        self.with(["x"; N]).set(1);
    }
}
impl<const N: usize> Touch for Family<HistogramVec, N> {
    fn touch(&self) {
        self.with(["x"; N]).observe(1.0);
    }
}

fn name_of(sample: &str) -> &str {
    sample.split(['{', ' ']).next().unwrap()
}

#[test]
fn every_row_is_scraped_under_its_verbatim_name_and_nothing_else_is() {
    let metrics = Metrics::new().unwrap();
    metrics.touch();
    let text = metrics.render();
    let samples: BTreeSet<&str> =
        text.lines().filter(|line| !line.starts_with('#')).map(name_of).collect();
    let mut expected = BTreeSet::new();
    for row in table().iter().chain(views()) {
        assert!(
            text.contains(&format!("# TYPE {} {}\n", row.name, row.kind.word())),
            "{}",
            row.name
        );
        assert!(text.contains(&format!("# HELP {} {}\n", row.name, row.help)), "{}", row.name);
        match row.kind {
            Kind::Histogram => {
                expected.extend(["_bucket", "_sum", "_count"].map(|end| row.name.to_owned() + end));
            }
            Kind::Counter | Kind::Gauge => drop(expected.insert(row.name.to_owned())),
        }
    }
    assert_eq!(samples, expected.iter().map(String::as_str).collect());
}

#[test]
fn rows_keep_the_rules_of_the_table() {
    let rows = || table().iter().chain(views());
    let names: BTreeSet<_> = rows().map(|row| row.name).collect();
    assert_eq!(names.len(), rows().count());
    for row in rows() {
        let counter = row.kind == Kind::Counter;
        assert_eq!(counter, row.name.ends_with("_total"), "{}", row.name);
        assert_eq!(row.kind == Kind::Histogram, !row.buckets.is_empty(), "{}", row.name);
        assert!(row.buckets.is_sorted_by(|a, b| a < b), "{}", row.name);
        assert!(row.help.ends_with('.') && !row.help.contains('|'), "{}", row.name);
        for label in row.labels {
            assert!(!["tenant", "tenant_id", "customer_id"].contains(label), "{}", row.name);
        }
        let field = row.name.trim_start_matches("tai_").trim_end_matches("_total");
        let field = if views().iter().any(|view| view.name == row.name) { "" } else { field };
        // The runbooks have this name with the prefix and without it, for two counts.
        let field = if row.name == "receipts_emitted_total" { "receipts_told" } else { field };
        assert_eq!(row.field, field, "a field is its metric's name without prefix and suffix");
    }
}

#[test]
fn golden_scrape() {
    let metrics = Metrics::new().unwrap();
    let route = metrics.endpoint("/marketplace", "POST");
    route.answered(200, 0.0007);
    route.answered(200, 3.0);
    route.answered(503, 20.0);
    route.answered(42, 0.0);
    metrics.refused(Reason::UnknownTenant);
    metrics.receipt_emitted("action_result", 3);
    metrics.receipt_emitted("no_such_type", 1);
    metrics.receipt_group_size.observe(3.0);
    metrics.governor_transitions.with(["entitlement", "unentitled", "entitled"]).inc();
    metrics.subsystem_up.with(["governance_sup"]).set(0);
    metrics.log_lines_dropped_reach("file", 5);
    metrics.log_lines_dropped_reach("file", 7);
    metrics.log_lines_dropped_reach("file", 6);
    let text = metrics.render();
    let lines: BTreeSet<&str> = text.lines().collect();
    for line in [
        r#"tai_http_requests_total{endpoint="/marketplace",method="POST",status="200"} 2"#,
        r#"tai_http_requests_total{endpoint="/marketplace",method="POST",status="503"} 1"#,
        r#"tai_http_requests_total{endpoint="/marketplace",method="POST",status="100"} 1"#,
        r#"tai_http_request_duration_seconds_bucket{endpoint="/marketplace",method="POST",le="0.0005"} 1"#,
        r#"tai_http_request_duration_seconds_bucket{endpoint="/marketplace",method="POST",le="0.001"} 2"#,
        r#"tai_http_request_duration_seconds_bucket{endpoint="/marketplace",method="POST",le="10"} 3"#,
        r#"tai_http_request_duration_seconds_bucket{endpoint="/marketplace",method="POST",le="+Inf"} 4"#,
        r#"tai_http_request_duration_seconds_count{endpoint="/marketplace",method="POST"} 4"#,
        r#"tai_requests_refused_total{reason="unknown_tenant"} 1"#,
        r#"tai_requests_refused_total{reason="state_error"} 0"#,
        r#"tai_receipts_emitted_total{type="action_result"} 3"#,
        r#"tai_receipts_emitted_total{type="refusal"} 0"#,
        r#"tai_receipt_group_size_bucket{le="2"} 0"#,
        r#"tai_receipt_group_size_bucket{le="4"} 1"#,
        r#"tai_governor_transitions_total{from_state="unentitled",governor="entitlement",to_state="entitled"} 1"#,
        r#"tai_subsystem_up{subsystem="governance_sup"} 0"#,
        r#"tai_log_lines_dropped_total{sink="file"} 7"#,
        "tai_http_requests_in_flight 0",
    ] {
        assert!(lines.contains(line), "{line}\nis not in\n{text}");
    }
    assert!(!text.contains("no_such_type"));
}

#[test]
fn requests_are_counted_once_and_shown_under_both_names() {
    let metrics = Metrics::new().unwrap();
    let route = metrics.endpoint("/receipts/{id}", "GET");
    for (status, seconds) in [(200, 0.0007), (200, 0.003), (404, 0.02), (499, 1.5), (503, 4.0)] {
        route.answered(status, seconds);
    }
    metrics.endpoint("/marketplace", "POST").answered(500, 30.0);
    metrics.http_active_connections.set(3);
    let text = metrics.render();
    let lines: BTreeSet<&str> = text.lines().collect();
    for line in [
        r#"http_requests_total{method="GET",route="/receipts/{id}",status="200"} 2"#,
        r#"http_requests_total{method="GET",route="/receipts/{id}",status="499"} 1"#,
        r#"http_request_errors_total{error_type="client_error",method="GET",route="/receipts/{id}"} 2"#,
        r#"http_request_errors_total{error_type="server_error",method="GET",route="/receipts/{id}"} 1"#,
        r#"http_request_errors_total{error_type="client_error",method="POST",route="/marketplace"} 0"#,
        r#"http_request_errors_total{error_type="server_error",method="POST",route="/marketplace"} 1"#,
        r#"http_request_duration_seconds_bucket{method="GET",route="/receipts/{id}",le="0.001"} 1"#,
        r#"http_request_duration_seconds_bucket{method="GET",route="/receipts/{id}",le="0.005"} 2"#,
        r#"http_request_duration_seconds_bucket{method="GET",route="/receipts/{id}",le="2"} 4"#,
        r#"http_request_duration_seconds_bucket{method="GET",route="/receipts/{id}",le="5"} 5"#,
        r#"http_request_duration_seconds_bucket{method="POST",route="/marketplace",le="5"} 0"#,
        r#"http_request_duration_seconds_bucket{method="POST",route="/marketplace",le="+Inf"} 1"#,
        r#"http_request_duration_seconds_sum{method="POST",route="/marketplace"} 30"#,
        r#"active_connections{type="http"} 3"#,
    ] {
        assert!(lines.contains(line), "{line}\nis not in\n{text}");
    }
    let bounds = text
        .lines()
        .filter(|line| line.starts_with("http_request_duration_seconds_bucket{method=\"POST\""));
    assert_eq!(bounds.count(), 10, "the nine of seed 003, and +Inf");
}

#[test]
fn every_bucket_of_a_view_is_counted() {
    let own = table().iter().find(|row| row.name == "tai_http_request_duration_seconds").unwrap();
    let view = views().iter().find(|row| row.kind == Kind::Histogram).unwrap();
    assert!(view.buckets.iter().all(|bound| own.buckets.contains(bound)));
}

#[test]
fn samples_are_those_of_a_scrape() {
    let metrics = Metrics::new().unwrap();
    metrics.touch();
    metrics.endpoint("/health", "GET").answered(503, 0.07);
    metrics.disk_free_ratio.with(["ledger"]).set(0.25);
    let mut samples = BTreeSet::new();
    metrics.for_each_sample(&mut |name, labels, value| {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        samples.insert(format!("{name}{labels} {value}"));
    });
    let text = metrics.render();
    let scraped: BTreeSet<String> =
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    assert_eq!(samples, scraped);
    assert!(scraped.contains("disk_free_ratio{mount=\"ledger\"} 0.25"));
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_is_observed_without_counting_its_time_twice() {
    let metrics = Metrics::new().unwrap();
    metrics.observe_process();
    let before = metrics.process_cpu_seconds.get();
    metrics.observe_process();
    let used = metrics.process_cpu_seconds.get();
    assert!(before > 0.0 && used >= before && used <= crate::process::cpu_seconds());
    let memory = |of| metrics.memory_usage_bytes.with([of]).get();
    assert!(memory("rss") > 0 && memory("heap_used") > 0);
    assert!(memory("heap_used") <= memory("heap_total"));
    assert_eq!(memory("heap_total"), metrics.memory_limit_bytes.get());
    assert!(metrics.memory_available_bytes.get() <= metrics.memory_limit_bytes.get());
    assert!(metrics.host_cpus.get() > 0 && metrics.process_open_fds.get() > 0);
    metrics.observe_disk("ledger", std::path::Path::new("/no/such/folder"));
    assert!(!metrics.render().contains("disk_free_ratio{"));
    metrics.observe_disk("ledger", std::path::Path::new("/"));
    assert!(metrics.render().contains("disk_free_ratio{mount=\"ledger\"} "));
}

#[test]
fn each_reason_counts_under_its_own_code() {
    let metrics = Metrics::new().unwrap();
    for (times, reason) in (1..).zip(Reason::ALL) {
        (0..times).for_each(|_| metrics.refused(*reason));
    }
    let text = metrics.render();
    for (times, reason) in (1..).zip(Reason::ALL) {
        let line = format!("tai_requests_refused_total{{reason=\"{reason}\"}} {times}\n");
        assert!(text.contains(&line), "{line}");
    }
}
