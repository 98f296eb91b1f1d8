//! How a row becomes a typed handle, and the pre-resolved handles for hot paths.
//!
//! Owns registration and the lookup of children. Refuses to know which metrics exist.

use std::sync::OnceLock;

use prometheus::core::{MetricVec, MetricVecBuilder};
use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry,
};

use super::MetricRow;

/// A metric that can be built from its row.
pub(super) trait Handle: Sized {
    fn build(row: &MetricRow, registry: &Registry) -> prometheus::Result<Self>;
}

fn opts(row: &MetricRow) -> Opts {
    Opts::new(row.name, row.help)
}

fn histogram_opts(row: &MetricRow) -> HistogramOpts {
    HistogramOpts::new(row.name, row.help).buckets(row.buckets.to_vec())
}

macro_rules! plain {
    ($($handle:ty, $opts:ident;)*) => { $(
        impl Handle for $handle {
            fn build(row: &MetricRow, registry: &Registry) -> prometheus::Result<Self> {
                let metric = <$handle>::with_opts($opts(row))?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            }
        }
    )* };
}

plain! {
    IntCounter, opts;
    IntGauge, opts;
    Counter, opts;
    Gauge, opts;
    Histogram, histogram_opts;
}

/// A metric vector, whichever kind it counts.
pub trait Vector {
    /// One labelled metric of the vector.
    type Child;
    /// The child with these label values.
    ///
    /// # Panics
    /// Where the number of values is not the number of labels; [`Family`] rules that out.
    fn child(&self, values: &[&str]) -> Self::Child;
    /// Shows no child with these label values any more.
    fn forget(&self, values: &[&str]);
}

impl<B: MetricVecBuilder> Vector for MetricVec<B> {
    type Child = B::M;

    fn child(&self, values: &[&str]) -> B::M {
        self.with_label_values(values)
    }

    fn forget(&self, values: &[&str]) {
        // Fails where there is none, which is what is wanted.
        let _ = self.remove_label_values(values);
    }
}

/// A metric with `N` labels. A lookup hashes the values and takes a shared lock, about 100 ns:
/// resolve once and keep the child wherever something is counted per request.
#[derive(Debug, Clone)]
pub struct Family<V, const N: usize>(V);

impl<V: Vector, const N: usize> Family<V, N> {
    pub(super) fn vector(&self) -> &V {
        &self.0
    }

    /// The child with these label values, in the order of the row. The child shares its count
    /// with every other copy of itself.
    #[must_use]
    pub fn with(&self, values: [&'static str; N]) -> V::Child {
        self.0.child(&values)
    }

    /// Shows the figure of these label values no more, until it is asked for again.
    pub fn forget(&self, values: [&'static str; N]) {
        self.0.forget(&values);
    }
}

macro_rules! labelled {
    ($($vector:ty, $opts:ident;)*) => { $(
        impl<const N: usize> Handle for Family<$vector, N> {
            fn build(row: &MetricRow, registry: &Registry) -> prometheus::Result<Self> {
                let vector = <$vector>::new($opts(row), row.labels)?;
                registry.register(Box::new(vector.clone()))?;
                Ok(Family(vector))
            }
        }
    )* };
}

labelled! {
    IntCounterVec, opts;
    IntGaugeVec, opts;
    GaugeVec, opts;
    HistogramVec, histogram_opts;
}

const STATUS_FIRST: u16 = 100;
const STATUS_LAST: u16 = 599;

/// The request metrics of one route: resolved when the router is built, so that counting a
/// request takes no lock. A status gets its series when it is first answered.
#[derive(Debug)]
pub struct Endpoint {
    endpoint: &'static str,
    method: &'static str,
    requests: Family<IntCounterVec, 3>,
    by_status: Box<[OnceLock<IntCounter>]>,
    duration_seconds: Histogram,
}

impl Endpoint {
    pub(super) fn new(
        endpoint: &'static str,
        method: &'static str,
        requests: Family<IntCounterVec, 3>,
        duration_seconds: Histogram,
    ) -> Endpoint {
        let by_status = (STATUS_FIRST..=STATUS_LAST).map(|_| OnceLock::new()).collect();
        Endpoint { endpoint, method, requests, by_status, duration_seconds }
    }

    /// Counts one answered request. A status outside 100 to 599 counts as the nearest of them.
    pub fn answered(&self, status: u16, duration_seconds: f64) {
        let status = status.clamp(STATUS_FIRST, STATUS_LAST);
        if let Some(slot) = self.by_status.get(usize::from(status - STATUS_FIRST)) {
            let values = || [self.endpoint, self.method, &status.to_string()].map(String::from);
            slot.get_or_init(|| self.requests.0.with_label_values(&values())).inc();
        }
        self.duration_seconds.observe(duration_seconds);
    }
}
