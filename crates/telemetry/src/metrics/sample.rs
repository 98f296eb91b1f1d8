//! A family as the samples that a scrape of it has.
//!
//! Owns: how a histogram becomes samples. Refuses to know what they are for.

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::Label;

/// Gives each sample of the family to `f`: name, labels, value.
pub(super) fn walk(family: &MetricFamily, f: &mut dyn FnMut(&str, &[Label<'_>], f64)) {
    let name = family.name();
    for metric in family.get_metric() {
        let mut labels: Vec<Label<'_>> =
            metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        match family.get_field_type() {
            MetricType::COUNTER => f(name, &labels, metric.get_counter().get_value()),
            MetricType::GAUGE => f(name, &labels, metric.get_gauge().get_value()),
            MetricType::HISTOGRAM => histogram(name, &mut labels, metric, f),
            // The table has no other kind.
            _ => {}
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a sample is a float, as Prometheus has it")]
fn histogram<'a>(
    name: &str,
    labels: &mut Vec<Label<'a>>,
    metric: &'a Metric,
    f: &mut dyn FnMut(&str, &[Label<'_>], f64),
) {
    let histogram = metric.get_histogram();
    let total = histogram.get_sample_count() as f64;
    let bucket_name = format!("{name}_bucket");
    let bounds: Vec<String> =
        histogram.get_bucket().iter().map(|bucket| bucket.upper_bound().to_string()).collect();
    for (bound, bucket) in bounds.iter().zip(histogram.get_bucket()) {
        let labels = [labels.as_slice(), &[("le", bound)]].concat();
        f(&bucket_name, &labels, bucket.cumulative_count() as f64);
    }
    labels.push(("le", "+Inf"));
    f(&bucket_name, labels, total);
    labels.pop();
    f(&format!("{name}_sum"), labels, histogram.get_sample_sum());
    f(&format!("{name}_count"), labels, total);
}
