//! The rows, and the struct of handles that is made from them.
//!
//! Owns the list and the closed sets of label values that this crate can know. Refuses to know
//! how a handle is registered.

use std::sync::Mutex;

use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry, TextEncoder,
};
use types::Reason;

use super::handle::{Endpoint, Family, Handle};
use super::views::Views;
use super::{Kind, Label, MetricRow, sample};
use crate::Error;

/// The receipt types of seed 000, in the order of [`Metrics::receipt_emitted`]'s counters.
const RECEIPT_TYPES: [&str; 4] = ["transition", "refusal", "action_attempt", "action_result"];

const REQUEST_SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 2.5, 5.0, 10.0];
/// A commit takes from a tenth of a millisecond to the 5 s at which 002 scenario 5 calls the
/// store failed.
const STORAGE_MS: &[f64] =
    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0];
const ACTION_MS: &[f64] =
    &[1.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0, 10000.0, 30000.0, 60000.0];
/// A model may think for minutes before the head of its answer comes.
const SERVICE_SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// The buckets of seed 003's `ai_request_duration_seconds`.
const AI_SECONDS: &[f64] = &[0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
const GROUP_SIZE: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

macro_rules! handle {
    (counter) => { IntCounter };
    (gauge) => { IntGauge };
    (counter_f64) => { Counter };
    (gauge_f64) => { Gauge };
    (histogram) => { Histogram };
    (counter $($label:literal)+) => { Family<IntCounterVec, { [$($label),+].len() }> };
    (gauge $($label:literal)+) => { Family<IntGaugeVec, { [$($label),+].len() }> };
    (gauge_f64 $($label:literal)+) => { Family<GaugeVec, { [$($label),+].len() }> };
    (histogram $($label:literal)+) => { Family<HistogramVec, { [$($label),+].len() }> };
}

macro_rules! kind {
    (counter) => {
        Kind::Counter
    };
    (gauge) => {
        Kind::Gauge
    };
    (counter_f64) => {
        Kind::Counter
    };
    (gauge_f64) => {
        Kind::Gauge
    };
    (histogram) => {
        Kind::Histogram
    };
}

macro_rules! metrics {
    ($( $field:ident, $name:literal, $kind:ident, [$($label:literal),*], $buckets:expr, $help:literal; )*) => {
        const TABLE: &[MetricRow] = &[ $( MetricRow {
            field: stringify!($field),
            name: $name,
            kind: kind!($kind),
            labels: &[$($label),*],
            buckets: $buckets,
            help: $help,
        }, )* ];

        /// The handles of the service, each named as its row. They share one registry of their
        /// own and are cheap to clone; counting through one takes no lock.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            refused: Box<[IntCounter]>,
            emitted: Box<[IntCounter]>,
            /// Held while figures of the process are taken, since a counter is brought up to them.
            pub(super) observing: Mutex<()>,
            $( #[doc = $help] pub $field: handle!($kind $($label)*), )*
        }

        impl Metrics {
            /// Registers every row in a registry of its own.
            ///
            /// # Errors
            /// [`Error::Metric`] names the row that Prometheus refuses.
            pub fn new() -> Result<Metrics, Error> {
                let registry = Registry::new();
                let mut rows = TABLE.iter();
                $( let $field: handle!($kind $($label)*) = build(&mut rows, &registry)?; )*
                let (refused, emitted, observing) = Default::default();
                let mut metrics = Metrics { registry, refused, emitted, observing, $( $field, )* };
                metrics.show_views()?;
                metrics.resolve();
                Ok(metrics)
            }

            #[cfg(test)]
            fn touch(&self) {
                $( tests::Touch::touch(&self.$field); )*
            }
        }
    };
}

metrics! {
    http_requests, "tai_http_requests_total", counter, ["endpoint", "method", "status"], &[], "Requests answered, by numeric status.";
    http_request_duration_seconds, "tai_http_request_duration_seconds", histogram, ["endpoint", "method"], REQUEST_SECONDS, "Seconds from the first byte of a request to the last of its answer.";
    http_active_connections, "tai_http_active_connections", gauge, [], &[], "Connections open now.";
    http_requests_in_flight, "tai_http_requests_in_flight", gauge, [], &[], "Requests in work now.";
    requests_refused, "tai_requests_refused_total", counter, ["reason"], &[], "Refusals, by the code of the reason table.";
    validation_errors, "validation_errors_total", counter, ["route", "class"], &[], "Failures of bodies against the operator's rules, at most five a request, by the kind of keyword; timeout where a check did not end in time.";
    governor_transitions, "tai_governor_transitions_total", counter, ["governor", "from_state", "to_state"], &[], "State changes that were decided and kept.";
    receipts_emitted, "tai_receipts_emitted_total", counter, ["type"], &[], "Receipts made durable.";
    receipt_emission_duration_ms, "tai_receipt_emission_duration_ms", histogram, [], STORAGE_MS, "Milliseconds from a receipt's place in the queue to its being durable.";
    receipt_storage_duration_ms, "tai_receipt_storage_duration_ms", histogram, ["backend", "operation"], STORAGE_MS, "Milliseconds of one call to the receipt store.";
    receipt_verification, "tai_receipt_verification_total", counter, ["result"], &[], "Receipts whose hashes were checked, by success or failed.";
    receipt_group_size, "tai_receipt_group_size", histogram, [], GROUP_SIZE, "Decisions that one commit made durable together.";
    receipt_queue_depth, "tai_receipt_queue_depth", gauge, [], &[], "Decisions that wait for the committer.";
    append_conflicts, "tai_append_conflicts_total", counter, [], &[], "Streams on which another instance was faster, so that their commands were decided again.";
    receipts_replayed, "tai_receipts_replayed_total", counter, [], &[], "Repeated requests answered with the receipt of the first.";
    store_stage, "tai_store_stage", gauge, [], &[], "Where a shared receipt store stands: 0 away, 1 reads, 2 writes, 3 signals, 4 up.";
    receipts_spooled, "tai_receipts_spooled", gauge, [], &[], "Receipts that wait on this machine for the receipt store to be back.";
    receipts_told, "receipts_emitted_total", counter, [], &[], "Receipts that whoever asked was told of, in this process.";
    receipts_durable, "receipts_durable_total", counter, [], &[], "Receipts that the receipt store took from this process.";
    receipts_flushed, "tai_receipts_flushed_total", counter, [], &[], "Receipts that were carried over to the receipt store after it had been away.";
    signals_queued, "tai_signals_queued", gauge, [], &[], "Signals that wait on this machine for the receipt store to be back.";
    streams_loaded, "tai_streams_loaded", gauge, [], &[], "Receipt streams whose state is in memory.";
    action_executions, "tai_action_executions_total", counter, ["action_type", "result"], &[], "Actions that ended, by outcome.";
    action_execution_duration_ms, "tai_action_execution_duration_ms", histogram, ["action_type"], ACTION_MS, "Milliseconds that an action ran.";
    action_queue_depth, "tai_action_queue_depth", gauge, [], &[], "Actions that wait for a worker.";
    worker_pool_active, "tai_worker_pool_active", gauge, [], &[], "Workers that run an action now.";
    actions_unsettled, "tai_actions_unsettled", gauge, [], &[], "Attempts without a result receipt.";
    timers_fired, "tai_timers_fired_total", counter, [], &[], "Due timers that led to a decision.";
    subsystem_up, "tai_subsystem_up", gauge, ["subsystem"], &[], "1 while the subsystem runs, 0 while it does not.";
    subsystem_restarts, "tai_subsystem_restarts_total", counter, ["subsystem"], &[], "Restarts by the supervisor.";
    signals_received, "tai_signals_received_total", counter, ["kind"], &[], "Signals taken in.";
    signals_coalesced, "tai_signals_coalesced_total", counter, [], &[], "Signals merged into one that already waited.";
    pubsub_outstanding, "tai_pubsub_outstanding", gauge, [], &[], "Pulled messages in hand.";
    pubsub_oldest_unacked_seconds, "tai_pubsub_oldest_unacked_seconds", gauge, [], &[], "Seconds since the oldest message in hand was published.";
    pubsub_messages, "tai_pubsub_messages_total", counter, ["result"], &[], "Pulled messages, by acked or nacked.";
    pubsub_errors, "tai_pubsub_errors_total", counter, [], &[], "Failed or lost connections to the subscription.";
    pubsub_dead_letters_replayed, "tai_pubsub_dead_letters_replayed_total", counter, [], &[], "Dead letters decided and acknowledged by a replay.";
    circuit_breaker_state, "circuit_breaker_state", gauge, ["dependency"], &[], "Breaker of a dependency: 0 closed, 1 open, 2 half open.";
    egress_attempts, "egress_attempts_total", counter, ["dependency", "outcome"], &[], "Attempts to call a dependency, by whether its head came or why it did not.";
    egress_in_flight, "egress_in_flight", gauge, ["dependency"], &[], "Calls of a dependency under way, until their answers are read or given up.";
    egress_retries_refused, "egress_retries_refused_total", counter, ["dependency"], &[], "Second attempts not made because they would be more than their share.";
    service_latency_histogram, "service_latency_histogram", histogram, ["service"], SERVICE_SECONDS, "Seconds from a request sent to a dependency to the head of its answer.";
    ai_requests, "ai_requests_total", counter, ["provider", "model", "operation", "status"], &[], "Calls to models that ended, by who answered last and how: success, error, timeout, unknown.";
    ai_request_errors, "ai_request_errors_total", counter, ["provider", "model", "error_type"], &[], "Attempts at a provider that failed, by cause.";
    ai_request_duration_seconds, "ai_request_duration_seconds", histogram, ["provider", "model", "operation"], AI_SECONDS, "Seconds from the first attempt of a call to a model to the last byte of its answer.";
    ai_first_token_seconds, "ai_first_token_seconds", histogram, ["provider", "model"], AI_SECONDS, "Seconds from the first attempt of a streamed call to the first word of its answer.";
    ai_tokens_used, "ai_tokens_used_total", counter, ["provider", "model", "token_type"], &[], "Tokens, by prompt and completion.";
    ai_failovers, "ai_failovers_total", counter, ["provider", "kind"], &[], "Calls that went on elsewhere, by the provider that they left, before_first_byte or mid_stream.";
    ai_cache_requests, "ai_cache_requests_total", counter, ["result", "store"], &[], "Calls to models that are not streamed while answers are kept: hit, miss, bypass where a kept answer was not to be given, error where Redis did not answer; by memory or redis.";
    ai_cache_bytes, "ai_cache_bytes", gauge, [], &[], "Bytes of answers that are kept in memory for who asks for the same again.";
    ai_reservations, "ai_reservations", gauge, [], &[], "Calls to models that are under way or whose result is not sealed yet.";
    slo_budget_left_ratio, "tai_slo_budget_left_ratio", gauge_f64, ["slo"], &[], "Share of an objective's error budget that is left, of what was answered since the start and within 30 days; below 0 where more failed than may.";
    slo_burn_rate, "tai_slo_burn_rate", gauge_f64, ["slo", "window"], &[], "How many times faster than an objective permits its error budget is used up, over 1h, 6h or 3d.";
    alerts, "tai_alerts", gauge, ["phase"], &[], "Alerts that are pending, firing or recovering.";
    incidents_open, "tai_incidents_open", gauge, ["severity"], &[], "Incidents that are not resolved.";
    notices, "tai_notices_total", counter, ["outcome"], &[], "Attempts to tell a channel of an incident: delivered, again where it is to be tried again, refused, unknown where no answer came.";
    log_lines_dropped, "tai_log_lines_dropped_total", counter, ["sink"], &[], "Log lines lost because a sink fell behind or failed, by stdout, file or http.";
    trace_spans_dropped, "tai_trace_spans_dropped_total", counter, [], &[], "Spans lost because their collector fell behind or did not take them.";
    safety_relaxed, "tai_safety_relaxed", gauge, ["setting"], &[], "1 while the setting gives up a guarantee.";
    health_up, "health_up", gauge, [], &[], "1 while /health answers 200, 0 while it does not.";
    memory_usage_bytes, "memory_usage_bytes", gauge, ["type"], &[], "Memory in bytes: rss is resident; heap_used is resident and backed by no file, where the system tells it apart, else rss; heap_total is what heap_used may grow to, memory_limit_bytes.";
    memory_limit_bytes, "memory_limit_bytes", gauge, [], &[], "Bytes of memory that the process may use: the least limit of its control groups, or the machine's memory where there is none.";
    memory_available_bytes, "memory_available_bytes", gauge, [], &[], "Bytes of memory that can still be used, on the machine and within the limits of the control groups.";
    disk_free_ratio, "disk_free_ratio", gauge_f64, ["mount"], &[], "Free share of the file system, from 0 to 1, of what its files and free space take: ledger holds the receipts, logs the log file.";
    host_load1, "host_load1", gauge_f64, [], &[], "Tasks of the machine that ran or waited to, averaged over a minute.";
    host_cpus, "host_cpus", gauge, [], &[], "Processors that the process may use.";
    process_cpu_seconds, "process_cpu_seconds_total", counter_f64, [], &[], "Seconds of processor time that the process used, all threads together.";
    process_resident_memory_bytes, "process_resident_memory_bytes", gauge, [], &[], "Resident memory in bytes.";
    process_open_fds, "process_open_fds", gauge, [], &[], "Open file descriptors.";
    build_info, "tai_build_info", gauge, ["version"], &[], "Always 1; the label carries the version.";
}

/// Every metric, in the order of the documentation.
#[must_use]
pub fn table() -> &'static [MetricRow] {
    TABLE
}

/// The next row as a handle: the macro walks fields and rows in one order.
fn build<H: Handle>(
    rows: &mut std::slice::Iter<'_, MetricRow>,
    registry: &Registry,
) -> Result<H, Error> {
    let ended = || prometheus::Error::Msg("the table has no row for this field".to_owned());
    let row = rows.next().ok_or_else(|| Error::Metric { name: "", source: ended() })?;
    H::build(row, registry).map_err(|source| Error::Metric { name: row.name, source })
}

impl Metrics {
    /// Registers the families that are made from others.
    fn show_views(&self) -> Result<(), Error> {
        let views = Views::new(
            self.http_requests.vector().clone(),
            self.http_request_duration_seconds.vector().clone(),
            self.http_active_connections.clone(),
        );
        views
            .and_then(|views| self.registry.register(Box::new(views)))
            .map_err(|source| Error::Metric { name: "http_requests_total", source })
    }

    /// Finds the children of the sets that are closed here, once for all requests.
    fn resolve(&mut self) {
        let reasons = Reason::ALL.iter();
        self.refused = reasons.map(|r| self.requests_refused.with([r.code()])).collect();
        self.emitted = RECEIPT_TYPES.map(|kind| self.receipts_emitted.with([kind])).into();
    }

    /// The Prometheus text format 0.0.4 of every series.
    #[must_use]
    pub fn render(&self) -> String {
        // The encoder refuses only a family without series, and gathering leaves those out.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// Walks every series as a scrape shows it: name, labels, value. A histogram gives its
    /// `_bucket` samples, which count up to `le`, then `_sum` and `_count`.
    pub fn for_each_sample(&self, f: &mut dyn FnMut(&str, &[Label<'_>], f64)) {
        self.registry.gather().iter().for_each(|family| sample::walk(family, f));
    }

    /// The request metrics of one route, to be resolved once and kept with the route.
    #[must_use]
    pub fn endpoint(&self, endpoint: &'static str, method: &'static str) -> Endpoint {
        let duration = self.http_request_duration_seconds.with([endpoint, method]);
        Endpoint::new(endpoint, method, self.http_requests.clone(), duration)
    }

    /// Counts a refusal; no lookup. Every reason is a series from the start, so that a rate over
    /// its first refusal is not lost.
    pub fn refused(&self, reason: Reason) {
        // `Reason::ALL` is in the order of the enum, which the tests hold.
        if let Some(counter) = self.refused.get(reason as usize) {
            counter.inc();
        }
    }

    /// Counts `count` durable receipts of a type; no lookup. A type outside the four of the
    /// receipt format is not counted.
    pub fn receipt_emitted(&self, receipt_type: &str, count: u64) {
        let types = RECEIPT_TYPES.iter().zip(&self.emitted);
        if let Some((_, counter)) = types.into_iter().find(|(name, _)| **name == receipt_type) {
            counter.inc_by(count);
        }
    }

    /// Brings the counter of the log lines that a sink lost up to `total`, its own count. For one
    /// caller: two at once could count a loss twice.
    pub fn log_lines_dropped_reach(&self, sink: &'static str, total: u64) {
        let dropped = self.log_lines_dropped.with([sink]);
        dropped.inc_by(total.saturating_sub(dropped.get()));
    }

    /// The same for the spans that were lost.
    pub fn trace_spans_dropped_reach(&self, total: u64) {
        let dropped = &self.trace_spans_dropped;
        dropped.inc_by(total.saturating_sub(dropped.get()));
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
