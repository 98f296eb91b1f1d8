//! Limits that are part of the format or of the protocol, so that no setting moves them.

/// Characters of a `tenant_id`.
pub const TENANT_ID_CHARS: usize = 128;
/// Characters of a `customer_id` (002 scenario 6).
pub const CUSTOMER_ID_CHARS: usize = 256;
/// Characters of an `entitlement_id`.
pub const ENTITLEMENT_ID_CHARS: usize = 128;
/// Characters of an idempotency key: `messageId`, `X-Request-ID`, `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_CHARS: usize = 128;
/// Characters of a metric name in a signal.
pub const METRIC_CHARS: usize = 64;
/// Bytes of one sealed receipt.
pub const RECEIPT_BYTES: usize = 16 * 1024;
/// The largest integer a receipt may hold: 2^53 - 1, the last that IEEE doubles keep apart.
pub const INTEGER_MAX: i64 = (1 << 53) - 1;
/// Entries of caller-supplied metadata that a receipt keeps.
pub const METADATA_ENTRIES: usize = 16;
/// Characters of one metadata value.
pub const METADATA_VALUE_CHARS: usize = 256;
/// Entitlements that one tenant may hold: entitled, suspended or scheduled.
pub const ENTITLEMENTS_PER_TENANT: usize = 1_000;
/// Revoked entitlements of one tenant from which on nothing new is granted to it. A revocation is
/// final and so remembered for ever; what is held by then may still be revoked.
pub const REVOKED_PER_TENANT: usize = 10_000;

/// Starts, stops, recoveries and other facts about the service itself.
pub const STREAM_OPS: &str = "_ops";
/// Refusals before a tenant is known or governed, in aggregate.
pub const STREAM_EDGE: &str = "_edge";
/// Signals that name no tenant (002 scenario 7, the test message).
pub const STREAM_SIGNALS: &str = "_signals";
/// Keys that belong to no tenant: the operator's, and those of services that speak for any tenant.
pub const STREAM_KEYS: &str = "_keys";
/// Live changes to settings, and sources that are blocked.
pub const STREAM_SETTINGS: &str = "_settings";
/// Alerts, silences and incidents.
pub const STREAM_INCIDENTS: &str = "_incidents";
/// What was told of incidents over which channel.
pub const STREAM_NOTICES: &str = "_notices";
/// Every chain that belongs to the service.
pub const SYSTEM_STREAMS: [&str; 7] = [
    STREAM_OPS,
    STREAM_EDGE,
    STREAM_SIGNALS,
    STREAM_KEYS,
    STREAM_SETTINGS,
    STREAM_INCIDENTS,
    STREAM_NOTICES,
];

/// Keys of one tenant that are valid at the same time.
pub const KEYS_PER_TENANT: usize = 20;
/// Keys of the service that are valid at the same time.
pub const KEYS_OF_SERVICE: usize = 1_000;
/// Characters of the label that a person gives a key.
pub const KEY_LABEL_CHARS: usize = 64;
/// Sources that are blocked at the same time.
pub const SOURCES_BLOCKED: usize = 10_000;
/// Seconds of the longest lease on a setting or a source: a week. What should last longer is no
/// lease.
pub const LEASE_S_MAX: i64 = 7 * 24 * 3_600;

/// Characters of the name of a model, of a price or of a provider.
pub const MODEL_CHARS: usize = 128;
/// Targets that may serve one call to a model.
pub const CALL_TARGETS: usize = 16;
/// Tokens of one call, in the prompt or the answer: far more than any model takes, and few enough
/// that what they cost is an integer of a receipt.
pub const CALL_TOKENS: u64 = 1_000_000_000;
/// Calls to models of one tenant that are open at the same time.
pub const RESERVATIONS_PER_TENANT: usize = 1_000;
/// Models of one tenant whose use is counted apart in a month; that of further ones is added up.
pub const MODELS_PER_TENANT: usize = 64;

/// Alerts that are not inactive at the same time.
pub const ALERTS: usize = 500;
/// Silences at the same time.
pub const SILENCES: usize = 100;
/// Incidents that are open at the same time.
pub const INCIDENTS_OPEN: usize = 100;
/// Characters of what a person writes into an incident.
pub const INCIDENT_TEXT_CHARS: usize = 1_000;
/// Channels over which incidents are told.
pub const CHANNELS: usize = 32;
/// Overrides of the rota at the same time.
pub const OVERRIDES: usize = 100;
/// Maintenance windows that are not over at the same time.
pub const MAINTENANCES: usize = 100;
/// Seconds that an override or a maintenance window may lie ahead, and that an override may last.
pub const AHEAD_S_MAX: i64 = 366 * 24 * 3_600;
