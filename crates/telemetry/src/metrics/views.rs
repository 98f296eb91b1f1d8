//! Families that show what others count, under the names and labels of seed 003.
//!
//! Owns: which family is made from which, and how. Refuses to know when something is counted: all
//! of it is made when somebody looks, so that a request pays for one count and not for two.

use std::collections::BTreeMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{HistogramVec, IntCounterVec, IntGauge};

use super::{Kind, MetricRow};

/// The buckets of seed 003; each is also one of the histogram that they are taken from.
const SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0];

const fn row(
    (name, kind): (&'static str, Kind),
    labels: &'static [&'static str],
    buckets: &'static [f64],
    help: &'static str,
) -> MetricRow {
    MetricRow { field: "", name, kind, labels, buckets, help }
}

const REQUESTS: MetricRow = row(
    ("http_requests_total", Kind::Counter),
    &["method", "route", "status"],
    &[],
    "Requests answered, by the template of their route and numeric status.",
);
const ERRORS: MetricRow = row(
    ("http_request_errors_total", Kind::Counter),
    &["method", "route", "error_type"],
    &[],
    "Requests answered with 400 and above, by server_error from 500 on and client_error below.",
);
const DURATION: MetricRow = row(
    ("http_request_duration_seconds", Kind::Histogram),
    &["method", "route"],
    SECONDS,
    "Seconds from the first byte of a request to the last of its answer.",
);
const CONNECTIONS: MetricRow = row(
    ("active_connections", Kind::Gauge),
    &["type"],
    &[],
    "Connections open now; the type is http.",
);

const VIEWS: &[MetricRow] = &[REQUESTS, ERRORS, DURATION, CONNECTIONS];

/// The families that are made from others, in the order of the documentation.
#[must_use]
pub fn views() -> &'static [MetricRow] {
    VIEWS
}

/// Makes the families from what it was given.
pub(super) struct Views {
    requests: IntCounterVec,
    durations: HistogramVec,
    connections: IntGauge,
    descriptions: Vec<Desc>,
}

impl Views {
    pub(super) fn new(
        requests: IntCounterVec,
        durations: HistogramVec,
        connections: IntGauge,
    ) -> prometheus::Result<Views> {
        let owned = |labels: &[&str]| labels.iter().map(|label| (*label).to_owned()).collect();
        let describe = |row: &MetricRow| {
            Desc::new(
                row.name.to_owned(),
                row.help.to_owned(),
                owned(row.labels),
                BTreeMap::new().into_iter().collect(),
            )
        };
        let descriptions = VIEWS.iter().map(describe).collect::<Result<_, _>>()?;
        Ok(Views { requests, durations, connections, descriptions })
    }

    fn requests(&self) -> (MetricFamily, MetricFamily) {
        let mut errors = BTreeMap::new();
        let mut answered = metrics_of(&self.requests);
        for metric in &mut answered {
            rename_endpoint(metric);
            let label = |name| label(metric, name).to_owned();
            let (method, route) = (label("method"), label("route"));
            let status = label("status").parse().unwrap_or(0);
            // Both are there from the first request on, so that the first error is a rate.
            for (error_type, statuses) in [("client_error", 400..500), ("server_error", 500..600)] {
                let key = (error_type, method.clone(), route.clone());
                let count = errors.entry(key).or_insert(0.0);
                if statuses.contains(&status) {
                    *count += metric.get_counter().get_value();
                }
            }
        }
        let failed = errors.into_iter().map(|((error_type, method, route), count)| {
            let labels = [("error_type", error_type), ("method", &method), ("route", &route)];
            let mut counter = Counter::default();
            counter.set_value(count);
            let mut metric = Metric::from_label(labels.map(pair).into());
            metric.set_counter(counter);
            metric
        });
        let failed = failed.collect();
        (family(&REQUESTS, answered), family(&ERRORS, failed))
    }

    fn durations(&self) -> MetricFamily {
        let mut metrics = metrics_of(&self.durations);
        for metric in &mut metrics {
            rename_endpoint(metric);
            let mut histogram = metric.get_histogram().clone();
            let shown = |bucket: &&Bucket| SECONDS.contains(&bucket.upper_bound());
            histogram.set_bucket(histogram.get_bucket().iter().filter(shown).cloned().collect());
            metric.set_histogram(histogram);
        }
        family(&DURATION, metrics)
    }

    fn connections(&self) -> MetricFamily {
        let mut metrics = metrics_of(&self.connections);
        metrics.iter_mut().for_each(|metric| metric.set_label(vec![pair(("type", "http"))]));
        family(&CONNECTIONS, metrics)
    }
}

impl Collector for Views {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (requests, errors) = self.requests();
        vec![requests, errors, self.durations(), self.connections()]
    }
}

fn metrics_of(collector: &dyn Collector) -> Vec<Metric> {
    collector.collect().iter_mut().flat_map(MetricFamily::take_metric).collect()
}

fn family(row: &MetricRow, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(row.name.to_owned());
    family.set_help(row.help.to_owned());
    family.set_field_type(match row.kind {
        Kind::Counter => MetricType::COUNTER,
        Kind::Gauge => MetricType::GAUGE,
        Kind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(metrics);
    family
}

fn pair((name, value): (&str, &str)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    let found = metric.get_label().iter().find(|pair| pair.name() == name);
    found.map_or("", LabelPair::value)
}

/// Calls the label `endpoint` by the name of seed 003, and keeps labels in the order of names.
fn rename_endpoint(metric: &mut Metric) {
    let mut labels = metric.take_label();
    for pair in labels.iter_mut().filter(|pair| pair.name() == "endpoint") {
        pair.set_name("route".to_owned());
    }
    labels.sort_by(|a, b| a.name().cmp(b.name()));
    metric.set_label(labels);
}
