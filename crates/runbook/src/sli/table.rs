//! The SLIs themselves.
//!
//! Owns: which metrics each is made of. Refuses to know: how a formula is computed.

use super::{Across, Formula, Match, Over, Select, Sli};
use crate::unit::Unit;

const fn all(metric: &'static str) -> Select {
    Select { metric, with: &[] }
}

const fn with(metric: &'static str, with: &'static [(&'static str, Match)]) -> Select {
    Select { metric, with }
}

const fn level(metric: &'static str, over: Over, across: Across) -> Formula {
    Formula::Level { of: all(metric), over, across }
}

/// The average of a gauge of which more is worse.
const fn high(metric: &'static str) -> Formula {
    level(metric, Over::Average, Across::Highest)
}

const fn quantile(metric: &'static str, rank: f64) -> Formula {
    Formula::Quantile { of: all(metric), rank, divisor: 1.0 }
}

const SERVER_ERRORS: &[Select] = &[with("http_requests_total", &[("status", Match::Class('5'))])];
const REQUESTS: &[Select] = &[all("http_requests_total")];
const AI_FAILED: &[Select] = &[all("ai_request_errors_total")];
/// Attempts, and not calls: a call that another provider answered is counted there, so that the
/// calls of a provider that always fails are none.
const AI_ATTEMPTS: &[Select] = &[
    all("ai_request_errors_total"),
    with("ai_requests_total", &[("status", Match::Is("success"))]),
];
const RESIDENT: Select = all("process_resident_memory_bytes");
const MEMORY_LIMIT: Select = all("memory_limit_bytes");

const fn sli(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    formula: Formula,
    help: &'static str,
) -> Sli {
    Sli { name, unit, labels, help, formula }
}

/// Every SLI, in the order of the documentation.
#[rustfmt::skip] // One line each, like the metric table.
pub static SLIS: &[Sli] = &[
    sli("http.error_rate", Unit::Ratio, &["method", "route"], Formula::Share { part: SERVER_ERRORS, whole: REQUESTS, budget: 1.0 }, "Share of requests answered with 5xx; too little below 0.05 requests a second."),
    sli("http.rate", Unit::PerSecond, &["method", "route", "status"], Formula::Rate(all("http_requests_total")), "Requests answered a second."),
    sli("http.latency.p95", Unit::Seconds, &["method", "route"], quantile("http_request_duration_seconds_bucket", 0.95), "Within which 95 % of requests are answered; no more than 5 s can be seen."),
    sli("http.latency.p99", Unit::Seconds, &["endpoint"], quantile("tai_http_request_duration_seconds_bucket", 0.99), "Within which 99 % of requests are answered; no more than 10 s can be seen."),
    sli("http.429.spike", Unit::Flag, &["method", "route"], Formula::Spike(with("http_requests_total", &[("status", Match::Is("429"))])), "1 while far more requests than usual are answered with 429."),
    sli("http.refused", Unit::PerSecond, &["reason"], Formula::Rate(all("tai_requests_refused_total")), "Refusals a second, by the code of the reason table."),
    sli("slo.availability.burn", Unit::Count, &["method", "route"], Formula::Share { part: SERVER_ERRORS, whole: REQUESTS, budget: 0.0001 }, "How many times faster than a 99.99 % objective permits its error budget is used up; too little below 0.05 requests a second."),
    sli("slo.budget", Unit::Ratio, &["slo"], level("tai_slo_budget_left_ratio", Over::Average, Across::Lowest), "Share of an objective's error budget that is left, of what was answered since the start and within 30 days; no data until one failure would be permitted."),
    sli("slo.burn", Unit::Count, &["slo", "window"], high("tai_slo_burn_rate"), "How many times faster than an objective permits its error budget is used up, over 1h, 6h or 3d; no data until half of that has passed since the start."),
    sli("validation.error.spike", Unit::Flag, &["route", "class"], Formula::Spike(all("validation_errors_total")), "1 while far more bodies than usual break the operator's rules."),
    sli("service.latency.p95", Unit::Seconds, &["service"], quantile("service_latency_histogram_bucket", 0.95), "Within which 95 % of calls to dependencies have the head of their answer."),
    sli("ai.error_rate", Unit::Ratio, &["provider"], Formula::Share { part: AI_FAILED, whole: AI_ATTEMPTS, budget: 1.0 }, "Share of attempts at providers that failed; too little below 0.05 attempts a second."),
    sli("ai.latency.p95", Unit::Seconds, &["provider", "model", "operation"], quantile("ai_request_duration_seconds_bucket", 0.95), "Within which 95 % of calls to models end."),
    sli("ai.first_token.p95", Unit::Seconds, &["provider", "model"], quantile("ai_first_token_seconds_bucket", 0.95), "Within which 95 % of streamed calls to models have their first word."),
    sli("ai.timeout.spike", Unit::Flag, &["provider"], Formula::Spike(with("ai_request_errors_total", &[("error_type", Match::Is("timeout"))])), "1 while far more attempts at providers than usual run out of time."),
    sli("ledger.write.p95", Unit::Seconds, &["backend"], Formula::Quantile { of: with("tai_receipt_storage_duration_ms_bucket", &[("operation", Match::Is("append"))]), rank: 0.95, divisor: 1000.0 }, "Within which 95 % of appends to the receipt store are durable; no more than 5 s can be seen."),
    sli("ledger.error.spike", Unit::Flag, &[], Formula::Spike(with("tai_requests_refused_total", &[("reason", Match::Is("firestore_error"))])), "1 while far more requests than usual are refused because the receipt store failed."),
    sli("ledger.stage", Unit::Count, &[], level("tai_store_stage", Over::Highest, Across::Lowest), "Where a shared receipt store stood at best: 0 away, 1 reads, 2 writes, 3 signals, 4 up."),
    sli("ledger.verify.failed", Unit::Count, &[], Formula::Increase(with("tai_receipt_verification_total", &[("result", Match::Is("failed"))])), "Receipts whose hashes did not verify."),
    sli("receipts.unaccounted", Unit::Count, &[], Formula::Balance { of: all("receipts_emitted_total"), less: &[all("receipts_durable_total"), all("tai_receipts_spooled")] }, "Receipts that were emitted and are neither durable nor spooled."),
    sli("receipts.spooled", Unit::Count, &[], high("tai_receipts_spooled"), "Receipts that wait on this machine for the receipt store to be back."),
    sli("actions.queue_depth", Unit::Count, &[], high("tai_action_queue_depth"), "Actions that wait for a worker."),
    sli("actions.refused", Unit::PerSecond, &[], Formula::Rate(with("tai_requests_refused_total", &[("reason", Match::Is("action_queue_full"))])), "Signals a second that were not taken because the action queue was full."),
    sli("actions.unsettled", Unit::Count, &[], high("tai_actions_unsettled"), "Attempts without a result receipt."),
    sli("pubsub.oldest_unacked", Unit::Seconds, &[], high("tai_pubsub_oldest_unacked_seconds"), "Since when the oldest message in hand waits."),
    sli("pubsub.error_rate.spike", Unit::Flag, &[], Formula::Spike(all("tai_pubsub_errors_total")), "1 while far more connections to the subscription than usual fail."),
    sli("memory.used_ratio", Unit::Ratio, &[], Formula::LevelShare { of: RESIDENT, limit: MEMORY_LIMIT }, "Share of the memory limit that is resident."),
    sli("memory.heap_ratio", Unit::Ratio, &[], Formula::LevelShare { of: with("memory_usage_bytes", &[("type", Match::Is("heap_used"))]), limit: with("memory_usage_bytes", &[("type", Match::Is("heap_total"))]) }, "Share of what the heap may grow to that it uses."),
    sli("memory.available", Unit::Bytes, &[], level("memory_available_bytes", Over::Average, Across::Lowest), "Memory that can still be used."),
    sli("memory.slope", Unit::BytesPerSecond, &[], Formula::Slope(RESIDENT), "What resident memory grows by."),
    sli("memory.forecast", Unit::Ratio, &[], Formula::Forecast { of: RESIDENT, limit: MEMORY_LIMIT, ahead_s: 1800.0 }, "Share of the memory limit that will be resident in 30 minutes if it grows as it does."),
    sli("cpu.used_ratio", Unit::Ratio, &[], Formula::RatePer { of: all("process_cpu_seconds_total"), per: all("host_cpus") }, "Share of the processors that the process may use that it uses."),
    sli("disk.free_ratio", Unit::Ratio, &["mount"], level("disk_free_ratio", Over::Average, Across::Lowest), "Free share of the file system."),
    sli("log.dropped", Unit::Count, &[], Formula::Increase(all("tai_log_lines_dropped_total")), "Log lines lost."),
    sli("health.up", Unit::Flag, &[], level("health_up", Over::Highest, Across::Lowest), "1 where /health answered 200 at least once."),
    sli("subsystem.up", Unit::Flag, &["subsystem"], level("tai_subsystem_up", Over::Highest, Across::Lowest), "1 where the subsystem ran at least once."),
];
