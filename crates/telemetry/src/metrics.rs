//! The one table of metrics: handles, `/metrics` text and the documentation page come from it.
//!
//! Owns names, kinds, labels, buckets and help. Refuses to know when something is counted. A
//! tenant is never a label: label values are `&'static str`, so that text from a request cannot
//! become a series, and every set of values is closed when the program is compiled.
//!
//! Names are those that the runbooks query (seeds 000, 001 and 003) and keep their own units. What
//! two of them query under two names is counted once: the second family is made from the first when
//! somebody looks.

mod handle;
mod observe;
mod sample;
mod table;
mod views;

pub use handle::{Endpoint, Family};
pub use table::{Metrics, table};
pub use views::views;

/// The name and the value of a label.
pub type Label<'a> = (&'a str, &'a str);

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets.
    Histogram,
}

impl Kind {
    /// The word of the Prometheus `# TYPE` line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct MetricRow {
    /// The field of [`Metrics`]; empty for a family that is made from another.
    pub field: &'static str,
    /// The name as scraped, verbatim.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// Upper bounds of a histogram in the unit of the name, without `+Inf`; empty for other kinds.
    pub buckets: &'static [f64],
    /// One sentence for people.
    pub help: &'static str,
}

/// The page `docs/generated/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Generated from the table in `crates/telemetry`; `cargo xtask gen` writes it anew.\n\n\
         `GET /metrics` answers in the Prometheus text format 0.0.4. A tenant is never a label.\n\n\
         | Name | Type | Labels | Buckets | Meaning |\n|---|---|---|---|---|\n",
    );
    for row in table().iter().chain(views()) {
        let labels: Vec<String> = row.labels.iter().map(|label| format!("`{label}`")).collect();
        let buckets: Vec<String> = row.buckets.iter().map(f64::to_string).collect();
        page.push_str(&format!(
            "| `{}` | {} | {} | {} | {} |\n",
            row.name,
            row.kind.word(),
            labels.join(", "),
            buckets.join(", "),
            row.help,
        ));
    }
    page
}
