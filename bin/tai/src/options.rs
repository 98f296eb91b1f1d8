//! From settings to the options of each part.
//!
//! Owns: which setting reaches which option. Refuses to know: when options are put in force.

use std::time::Duration;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use egress::Policy;
use engine::Options;
use engine::ai::AiOptions;
use gateway::{Rate, Signatures, Validation};
use ledger::seal::sha256;
use settings::{AuthRequired, LogLevel, Secret, ServiceRole, Settings, Synchronous};
use telemetry::log::{FileOptions, LogOptions};
use telemetry::metrics::Metrics;
use telemetry::outbox::OutboxOptions;

/// How soon what another instance wrote is seen by who is answered without a receipt.
const FRESH: Duration = Duration::from_secs(2);

/// Second attempts at one dependency, of a hundred calls: what fails for a reason is not helped by
/// more of them.
const RETRY_SHARE_PCT: u32 = 10;

/// What a call to a model may take beyond its own time: its receipts.
const AI_MARGIN: Duration = Duration::from_secs(5);

/// How often a store that is away is asked whether it is back.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) fn store_options(settings: &Settings) -> store::Options {
    let synchronous = match settings.sqlite_synchronous {
        Synchronous::Full => store::Synchronous::Full,
        Synchronous::Off => store::Synchronous::Off,
    };
    store::Options { synchronous }
}

/// Settings that give up a guarantee, shown in `/health` and as gauges (INV-14).
pub(crate) fn relaxed(settings: &Settings, metrics: &Metrics) -> Vec<&'static str> {
    let off = [
        ("VALIDATION_STRICT_MODE", !settings.validation_strict_mode),
        ("RECEIPT_VERIFY_HASHES", !settings.receipt_verify_hashes),
        ("RECEIPT_WRITES", settings.receipt_writes == settings::Writes::Open),
        ("SQLITE_SYNCHRONOUS", settings.sqlite_synchronous == Synchronous::Off),
    ];
    for (name, is_off) in off {
        metrics.safety_relaxed.with([name]).set(i64::from(is_off));
    }
    off.into_iter().filter(|(_, is_off)| *is_off).map(|(name, _)| name).collect()
}

pub(crate) fn engine_options(settings: &Settings) -> Options {
    Options {
        queue_max: settings.receipt_buffer_size,
        states_max: settings.erl_max_ets_tables,
        pool_size: settings.action_pool_size,
        pool_queue: settings.action_queue_size,
        action_timeout: Duration::from_millis(settings.action_timeout_ms),
        check_interval: Duration::from_millis(settings.governor_state_check_interval_ms),
        fresh: FRESH,
        probe_interval: PROBE_INTERVAL,
        state_age_max: Duration::from_secs(settings.max_state_age_s),
        spool_use: match settings.receipt_spool {
            settings::SpoolUse::Auto => engine::SpoolUse::Auto,
            settings::SpoolUse::Forced => engine::SpoolUse::Forced,
            settings::SpoolUse::Off => engine::SpoolUse::Off,
        },
        spool_max: settings.spool_max_receipts,
        stage_time: Duration::from_millis(settings.recovery_stage_ms),
        spare_batch: settings.firestore_batch_size,
        spare_wait: Duration::from_millis(settings.firestore_batch_timeout_ms),
        writes: match settings.receipt_writes {
            settings::Writes::Auto => engine::Writes::Auto,
            settings::Writes::Frozen => engine::Writes::Frozen,
            settings::Writes::Open => engine::Writes::Open,
        },
        verify_reads: settings.receipt_verify_hashes,
        alert_interval: Duration::from_millis(settings.alert_interval_ms),
        ai: AiOptions {
            retries_max: settings.max_retries,
            first_token: Duration::from_millis(settings.timeout_threshold_ms),
            answer: Duration::from_millis(settings.ai_answer_timeout_ms),
            gap: Duration::from_millis(settings.ai_gap_timeout_ms),
            total: Duration::from_millis(settings.ai_timeout_ms),
            cache_time: Duration::from_secs(settings.ai_cache_ttl_s),
        },
    }
}

pub(crate) fn egress_policy(settings: &Settings) -> Policy {
    Policy {
        threshold: settings.circuit_breaker_threshold,
        open_for: Duration::from_millis(settings.circuit_breaker_timeout),
        retry_share_pct: RETRY_SHARE_PCT,
    }
}

pub(crate) fn gateway_options(settings: &Settings, relaxed: Vec<&'static str>) -> gateway::Options {
    gateway::Options {
        connections_max: settings.max_connections,
        requests_max: settings.max_concurrent_requests,
        body_max_bytes: settings.max_body_bytes,
        ai_body_max_bytes: settings.ai_max_body_bytes,
        request_timeout: Duration::from_millis(settings.request_timeout_ms),
        ai_timeout: Duration::from_millis(settings.ai_timeout_ms) + AI_MARGIN,
        drain_timeout: Duration::from_millis(settings.graceful_shutdown_ms),
        metrics_enabled: settings.metrics_enabled,
        relaxed,
        is_open: is_open(settings),
        serves_tenants: settings.service_role != ServiceRole::Worker,
        admin_key: settings.admin_api_key.as_ref().map(|key| sha256(key.expose().as_bytes())),
        signatures: Signatures {
            required: settings.verify_signatures,
            hmac: settings.hmac_secret_key.as_ref().and_then(decoded),
            jwt: settings.jwt_secret_key.as_ref().and_then(decoded),
        },
        rate: Rate::new(settings.rate_limit_per_second, settings.rate_limit_burst),
        tenant_requests_max: settings.tenant_max_concurrent,
        validation: Validation {
            strict: settings.validation_strict_mode,
            timeout: Duration::from_millis(settings.validation_timeout_ms),
            log_failures: settings.log_validation_errors,
        },
        trusted_proxies: settings.trusted_proxy_hops,
    }
}

/// Whether local callers need no key. Behind a proxy that is trusted there are no local callers.
pub(crate) fn is_open(settings: &Settings) -> bool {
    settings.auth_required == AuthRequired::Auto
        && settings.bind_address.is_loopback()
        && settings.trusted_proxy_hops == 0
}

/// The bytes of a key that is given in base64; the table of settings has checked that it is.
fn decoded(secret: &Secret) -> Option<Vec<u8>> {
    let engine = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    engine.decode(secret.expose()).ok()
}

/// Which events are logged, how, and where to.
pub(crate) fn log_options(settings: &Settings) -> LogOptions {
    let file = settings.log_file.as_ref().map(|path| FileOptions {
        path: path.clone(),
        buffer_lines: settings.log_file_buffer_size,
        flush_interval: Duration::from_millis(settings.log_file_flush_interval),
    });
    let outbox = settings.log_http_endpoint.as_ref().map(|_| OutboxOptions {
        batch_lines: settings.log_http_buffer_size,
        flush_interval: Duration::from_millis(settings.log_http_flush_interval),
    });
    LogOptions {
        level: level(settings.log_level),
        is_structured: settings.log_structured,
        file,
        outbox,
    }
}

pub(crate) fn level(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Error => tracing::Level::ERROR,
    }
}
