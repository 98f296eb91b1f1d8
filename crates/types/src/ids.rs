//! Identifiers. An id that exists is valid: every constructor checks.
//!
//! Ids are restricted to a printable ASCII set, so that they are safe in logs, paths and labels
//! without escaping (002 scenario 6: 500-character ids, emoji and quotes must be a clean 400).

use std::fmt;
use std::sync::Arc;

use crate::hash::{hex_decode, hex_encode};
use crate::limits;

/// Why a text is not an id. The offending value is never part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text is longer than the limit.
    #[error("must be at most {max_chars} characters")]
    TooLong {
        /// The limit in characters.
        max_chars: usize,
    },
    /// The text holds a character outside the permitted set, or starts with punctuation.
    #[error("may hold letters, digits and . _ : @ + - only, and starts with a letter or digit")]
    Charset,
}

fn check(text: &str, max_chars: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    // No text has more characters than bytes.
    if text.len() > max_chars && text.chars().count() > max_chars {
        return Err(IdError::TooLong { max_chars });
    }
    let mut bytes = text.bytes();
    let first_ok = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest_ok = bytes
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'@' | b'+' | b'-'));
    if first_ok && rest_ok { Ok(()) } else { Err(IdError::Charset) }
}

/// A customer of the service: 1 to 256 characters (seed 002 scenario 6 for `customer_id`).
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Checks `text` against the limit of `customer_id`, [`limits::CUSTOMER_ID_CHARS`].
    pub fn new(text: &str) -> Result<TenantId, IdError> {
        TenantId::bounded(text, limits::CUSTOMER_ID_CHARS)
    }

    /// Checks `text` against a narrower limit, such as [`limits::TENANT_ID_CHARS`].
    pub fn bounded(text: &str, max_chars: usize) -> Result<TenantId, IdError> {
        check(text, max_chars.min(limits::CUSTOMER_ID_CHARS))?;
        Ok(TenantId(Arc::from(text)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a tenant may hold: 1 to 128 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntitlementId(Arc<str>);

impl EntitlementId {
    /// Checks `text` against [`limits::ENTITLEMENT_ID_CHARS`].
    pub fn new(text: &str) -> Result<EntitlementId, IdError> {
        check(text, limits::ENTITLEMENT_ID_CHARS)?;
        Ok(EntitlementId(Arc::from(text)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EntitlementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EntitlementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a chain: a tenant id, or a system stream that starts with `_`; either may have a
/// lane behind it, `acme~9f3c…`. A tenant id cannot start with `_` nor hold a `~`, so none of them
/// ever collide. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName(Arc<str>);

impl StreamName {
    /// The chain of one tenant.
    #[must_use]
    pub fn tenant(id: &TenantId) -> StreamName {
        StreamName(Arc::clone(&id.0))
    }

    /// A chain of the service itself; `name` is one of [`limits::SYSTEM_STREAMS`].
    #[must_use]
    pub fn system(name: &'static str) -> StreamName {
        debug_assert!(limits::SYSTEM_STREAMS.contains(&name), "unlisted system stream");
        StreamName(Arc::from(name))
    }

    /// Reads a stored name back.
    pub fn parse(text: &str) -> Result<StreamName, IdError> {
        StreamName::check(text)?;
        Ok(StreamName(Arc::from(text)))
    }

    /// Whether `text` is the name of a stream.
    pub fn check(text: &str) -> Result<(), IdError> {
        let (base, lane) = split_lane(text);
        if lane.is_some_and(|lane| !LaneId::is_one(lane)) {
            return Err(IdError::Charset);
        }
        check(base.strip_prefix('_').unwrap_or(base), limits::CUSTOMER_ID_CHARS)
    }

    /// The chain beside this one that is filled where this one cannot be reached. A lane has no
    /// lanes: the new one takes its place.
    #[must_use]
    pub fn lane(&self, lane: LaneId) -> StreamName {
        StreamName(Arc::from(format!("{}{LANE_MARK}{lane}", split_lane(&self.0).0)))
    }

    /// True for a chain that was filled beside another one.
    #[must_use]
    pub fn is_lane(&self) -> bool {
        split_lane(&self.0).1.is_some()
    }

    /// The lane of a chain that was filled beside another one.
    #[must_use]
    pub fn lane_id(&self) -> Option<LaneId> {
        split_lane(&self.0).1.and_then(LaneId::parse)
    }

    /// The chain that this one was filled beside; itself unless it is a lane.
    #[must_use]
    pub fn base(&self) -> StreamName {
        if self.is_lane() { StreamName(Arc::from(split_lane(&self.0).0)) } else { self.clone() }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for a chain of the service itself.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with('_')
    }

    /// The names between which, both left out, those of all lanes of this chain lie, byte by byte.
    #[must_use]
    pub fn lanes_between(&self) -> (String, String) {
        let (base, mark) = (split_lane(&self.0).0, LANE_MARK as u8);
        (format!("{base}{LANE_MARK}"), format!("{base}{}", char::from(mark + 1)))
    }

    /// The tenant whose chain this is; `None` for a system stream.
    #[must_use]
    pub fn as_tenant(&self) -> Option<TenantId> {
        (!self.is_system()).then(|| TenantId(self.base().0))
    }
}

/// Stands between the name of a chain and its lane.
const LANE_MARK: char = '~';

/// The name of a chain and the lane behind it.
#[must_use]
pub fn split_lane(stream: &str) -> (&str, Option<&str>) {
    match stream.split_once(LANE_MARK) {
        Some((base, lane)) => (base, Some(lane)),
        None => (stream, None),
    }
}

/// 64 bits that name the chains of one spool; `Display` writes 16 hex digits. Chosen by chance, so
/// that no two spools ever fill the same chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LaneId(pub [u8; 8]);

impl LaneId {
    /// Reads 16 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<LaneId> {
        let mut out = [0; 8];
        hex_decode(text.as_bytes(), &mut out)?;
        Some(LaneId(out))
    }

    fn is_one(text: &str) -> bool {
        LaneId::parse(text).is_some()
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 128 bits that name a receipt; `Display` writes `rcpt_` and 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReceiptId(pub [u8; 16]);

impl ReceiptId {
    /// What every receipt id starts with.
    pub const PREFIX: &'static str = "rcpt_";

    /// Reads `rcpt_` and 32 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<ReceiptId> {
        let mut out = [0; 16];
        hex_decode(text.strip_prefix(Self::PREFIX)?.as_bytes(), &mut out)?;
        Some(ReceiptId(out))
    }

    /// Appends the text form to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(Self::PREFIX.as_bytes());
        hex_encode(&self.0, out);
    }
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_admit_the_seeds_and_refuse_the_robustness_set() {
        for good in ["tenant-123", "test-001", "a", "x@y.example:1+2", &"x".repeat(256)] {
            assert!(TenantId::new(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", IdError::Empty),
            ("_ops", IdError::Charset),
            ("a b", IdError::Charset),
            ("a\u{0}", IdError::Charset),
            ("\u{1f600}", IdError::Charset),
            ("a\"b", IdError::Charset),
            ("../x", IdError::Charset),
        ] {
            assert_eq!(TenantId::new(bad), Err(why), "{bad:?}");
        }
        assert_eq!(TenantId::new(&"x".repeat(257)), Err(IdError::TooLong { max_chars: 256 }));
        assert!(TenantId::bounded(&"x".repeat(129), limits::TENANT_ID_CHARS).is_err());
        assert!(EntitlementId::new(&"x".repeat(129)).is_err());
    }

    #[test]
    fn system_streams_cannot_be_tenants() {
        let ops = StreamName::system(limits::STREAM_OPS);
        assert!(ops.is_system() && ops.as_tenant().is_none());
        assert_eq!(StreamName::parse("_ops"), Ok(ops));
        assert!(StreamName::parse("__").is_err());
        assert!(TenantId::new("_ops").is_err());
    }

    #[test]
    fn a_lane_belongs_to_its_base_and_collides_with_nothing() {
        let lane = LaneId([0x9f; 8]);
        let acme = StreamName::tenant(&TenantId::new("acme").unwrap());
        let beside = acme.lane(lane);
        assert_eq!(beside.as_str(), "acme~9f9f9f9f9f9f9f9f");
        assert_eq!(StreamName::parse(beside.as_str()).as_ref(), Ok(&beside));
        assert_eq!(beside.as_tenant(), acme.as_tenant());
        assert_eq!((beside.base(), beside.lane(lane)), (acme.clone(), beside.clone()));
        assert!(beside.is_lane() && !acme.is_lane());
        let ops = StreamName::system(limits::STREAM_OPS).lane(lane);
        assert!(ops.is_system() && ops.as_tenant().is_none());
        assert!(TenantId::new(beside.as_str()).is_err());
        let (after, before) = acme.lanes_between();
        assert!(*after < *beside.as_str() && *beside.as_str() < *before);
        for other in ["acme", "acme-2", "acmez", "acme2~9f9f9f9f9f9f9f9f"] {
            assert!(!(*after < *other && *other < *before), "{other}");
        }
        for bad in ["acme~", "~9f9f9f9f9f9f9f9f", "acme~9F9F9F9F9F9F9F9F", "acme~9f9f", "a~b~c"] {
            assert!(StreamName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn receipt_ids_round_trip() {
        let id = ReceiptId(std::array::from_fn(|i| i as u8 * 17));
        assert_eq!(ReceiptId::parse(&id.to_string()), Some(id));
        assert_eq!(ReceiptId::parse("rcpt_00"), None);
        assert_eq!(ReceiptId::parse(&id.to_string().to_uppercase()), None);
    }
}
