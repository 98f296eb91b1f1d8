//! The Pub/Sub push envelope and the signals inside.
//!
//! Owns: both spellings of the envelope, its base64, and which of the four signal shapes a
//! message has. Refuses to know: acknowledgement, duplicates, thresholds and dead letters.

use base64::Engine as _;
use base64::alphabet::{self, Alphabet};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use types::{Micros, Millis, Reason, TenantId, limits};

use crate::fields::Fields;
use crate::marketplace::{self, EntitlementEvent};
use crate::{Fault, JsonLimits, json, request_id};

/// Characters of a subscription's full name: a project and a subscription of 255 each fit.
const SUBSCRIPTION_CHARS: usize = 512;
/// Characters of the name in a signal without a tenant.
const SIGNAL_CHARS: usize = 64;
/// How refusals call the decoded message, for push and pull alike.
const DATA: &str = "message.data";

/// Thousandths of a unit: what measurements and thresholds are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Milli(pub i64);

/// What an autonomic signal reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignalType {
    /// Usage comes near a quota.
    QuotaApproaching,
    /// Capacity is short.
    CapacityAlert,
    /// Something failed.
    FailureDetected,
}

impl SignalType {
    /// Every type.
    pub const ALL: [SignalType; 3] =
        [SignalType::QuotaApproaching, SignalType::CapacityAlert, SignalType::FailureDetected];

    /// The word as messages and receipts spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SignalType::QuotaApproaching => "quota_approaching",
            SignalType::CapacityAlert => "capacity_alert",
            SignalType::FailureDetected => "failure_detected",
        }
    }
}

/// How grave the sender of an autonomic signal takes it to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// For the record.
    Info,
    /// The default of a signal that does not say.
    Warning,
    /// Act at once.
    Critical,
}

impl Severity {
    /// Every severity, the least grave first.
    pub const ALL: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];

    /// The word as messages and receipts spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// One message, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The marketplace's entitlement body, sent as a message.
    Entitlement(EntitlementEvent),
    /// One reading of one metric.
    Measurement {
        /// At most [`limits::TENANT_ID_CHARS`] characters.
        tenant_id: TenantId,
        /// 1 to [`limits::METRIC_CHARS`] letters, digits, dots, hyphens and underscores.
        metric: String,
        /// 0 to one thousand million units, in thousandths, rounded half away from zero.
        value: Milli,
        /// When the sender read it.
        timestamp: Millis,
    },
    /// A condition that the sender noticed by itself.
    Autonomic {
        /// At most [`limits::TENANT_ID_CHARS`] characters.
        tenant_id: TenantId,
        /// What was noticed.
        signal_type: SignalType,
        /// [`Severity::Warning`] where the message does not say.
        severity: Severity,
        /// When, where the message says: `timestamp_ms`, or else `timestamp`.
        timestamp: Option<Millis>,
    },
    /// A signal that names no tenant: the runbook's test message (seed 002 scenario 7).
    Untenanted {
        /// 1 to 64 printable ASCII characters.
        signal: String,
        /// When, where the message says.
        timestamp: Option<Micros>,
    },
}

impl Signal {
    /// The shape in one word, for logs and metric labels.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Signal::Entitlement(_) => "entitlement",
            Signal::Measurement { .. } => "measurement",
            Signal::Autonomic { .. } => "autonomic",
            Signal::Untenanted { .. } => "untenanted",
        }
    }
}

/// A delivered message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// 1 to [`limits::IDEMPOTENCY_KEY_CHARS`] printable ASCII characters without spaces.
    pub message_id: String,
    /// How often this message was delivered, where the subscription counts it.
    pub delivery_attempt: Option<u32>,
    /// The full name of the subscription, at most 512 printable ASCII characters.
    pub subscription: Option<String>,
    /// What the message says.
    pub payload: Signal,
    /// The decoded message, for the commitment to the body.
    pub data: Vec<u8>,
}

/// Reads a push request and the signal in it; unknown members are ignored, null counts as absent.
///
/// Besides the refusals of [`parse_signal`]: [`Reason::MissingField`] without a message, its id or
/// its data, [`Reason::InvalidRequestId`] for an id that is not a key, and
/// [`Reason::InvalidMessageFormat`] for data that is not base64 (standard or URL-safe, padded or
/// not) or two spellings of the id that differ.
pub fn parse_push(bytes: &[u8], limits: &JsonLimits) -> Result<Push, Fault> {
    let members = json::parse_object(bytes, *limits, "body")?;
    let envelope = Fields::new(&members, "");
    let message = envelope.required("message", envelope.object("message")?)?;
    let message = Fields::new(message, "message.");
    let message_id = message_id(message)?.to_owned();
    let delivery_attempt = envelope.count("deliveryAttempt")?;
    let subscription = envelope.text("subscription")?;
    if subscription.is_some_and(|name| !is_printable(name, SUBSCRIPTION_CHARS)) {
        let expected = format!("must be 1 to {SUBSCRIPTION_CHARS} printable ASCII characters");
        return Err(envelope.invalid("subscription", &expected));
    }
    let data = decode(message.required("data", message.text("data")?)?)?;
    let payload = parse_signal(&data, limits)?;
    Ok(Push {
        message_id,
        delivery_attempt,
        subscription: subscription.map(str::to_owned),
        payload,
        data,
    })
}

/// Reads the decoded data of one message, however it was delivered.
///
/// Besides the refusals of [`json::parse`]: [`Reason::MissingField`] that names what the nearest
/// shape lacks, [`Reason::InvalidField`], [`Reason::InvalidTenantId`],
/// [`Reason::InvalidEntitlementId`], [`Reason::UnknownAction`].
pub fn parse_signal(data: &[u8], limits: &JsonLimits) -> Result<Signal, Fault> {
    let members = json::parse_object(data, *limits, DATA)?;
    let fields = Fields::new(&members, "");
    // The most specific shape first: what changes an entitlement is never read as a measurement.
    if fields.has("action") || fields.has("entitlement_id") {
        marketplace::entitlement_event(fields).map(Signal::Entitlement)
    } else if fields.has("event") || fields.has("signal_type") {
        autonomic(fields)
    } else if fields.has("metric") || fields.has("value") {
        measurement(fields)
    } else if !fields.has("tenant_id") {
        untenanted(fields)
    } else {
        Err(fields.missing("action, event or metric"))
    }
}

fn tenant(fields: Fields<'_>) -> Result<TenantId, Fault> {
    let tenant_id = fields.tenant_id("tenant_id", limits::TENANT_ID_CHARS)?;
    fields.required("tenant_id", tenant_id)
}

fn measurement(fields: Fields<'_>) -> Result<Signal, Fault> {
    Ok(Signal::Measurement {
        tenant_id: tenant(fields)?,
        metric: fields.required("metric", fields.word("metric")?)?.to_owned(),
        value: fields.required("value", fields.milli("value")?)?,
        timestamp: fields.required("timestamp_ms", fields.millis("timestamp_ms")?)?,
    })
}

fn autonomic(fields: Fields<'_>) -> Result<Signal, Fault> {
    let event = fields.choice("event", Reason::InvalidField, &[("autonomic_signal", ())])?;
    fields.required("event", event)?;
    let signal_type = fields.choice(
        "signal_type",
        Reason::InvalidField,
        &SignalType::ALL.map(|it| (it.as_str(), it)),
    )?;
    let severity = fields.choice(
        "severity",
        Reason::InvalidField,
        &Severity::ALL.map(|it| (it.as_str(), it)),
    )?;
    let timestamp = match fields.millis("timestamp_ms")? {
        Some(millis) => Some(millis),
        None => fields.instant("timestamp")?.map(|instant| Millis(instant.0.div_euclid(1_000))),
    };
    Ok(Signal::Autonomic {
        tenant_id: tenant(fields)?,
        signal_type: fields.required("signal_type", signal_type)?,
        severity: severity.unwrap_or(Severity::Warning),
        timestamp,
    })
}

fn untenanted(fields: Fields<'_>) -> Result<Signal, Fault> {
    // Without a tenant and without this name there is no shape; the tenant is what most senders
    // have forgotten.
    let signal = fields.text("signal")?.ok_or_else(|| fields.missing("tenant_id"))?;
    if !is_printable(signal, SIGNAL_CHARS) {
        let expected = format!("must be 1 to {SIGNAL_CHARS} printable ASCII characters");
        return Err(fields.invalid("signal", &expected));
    }
    Ok(Signal::Untenanted { signal: signal.to_owned(), timestamp: fields.instant("timestamp")? })
}

/// Google sends the id in both spellings; a body where they differ could be counted twice.
fn message_id(message: Fields<'_>) -> Result<&str, Fault> {
    let message_id = match (message.text("messageId")?, message.text("message_id")?) {
        (Some(camel), Some(snake)) if camel != snake => {
            return Err(message.fault(
                Reason::InvalidMessageFormat,
                "messageId",
                "and message.message_id must agree",
            ));
        }
        (camel, snake) => message.required("messageId", camel.or(snake))?,
    };
    request_id::check_named(message_id, "message.messageId")?;
    Ok(message_id)
}

fn is_printable(text: &str, max_chars: usize) -> bool {
    (1..=max_chars).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

const fn lenient_padding(alphabet: &Alphabet) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new();
    GeneralPurpose::new(alphabet, config.with_decode_padding_mode(DecodePaddingMode::Indifferent))
}

const STANDARD: GeneralPurpose = lenient_padding(&alphabet::STANDARD);
const URL_SAFE: GeneralPurpose = lenient_padding(&alphabet::URL_SAFE);

fn decode(text: &str) -> Result<Vec<u8>, Fault> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine
        .decode(text)
        .map_err(|_| Fault::new(Reason::InvalidMessageFormat, format!("{DATA} must be base64")))
}

#[cfg(test)]
mod tests;
