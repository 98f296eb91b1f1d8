//! The canonical writer: RFC 8785 over the closed profile of `docs/receipts.md`.
//!
//! Owns: field order, escaping and refusal of what the profile forbids. The generic canonical
//! JSON crates do a tenth of the speed and round 2^53 + 1 silently, hence a writer of our own.

use types::{Hash, Micros, ReceiptId, StreamName, limits, split_lane};

use crate::draft::{Draft, Meta};
use crate::{FORMAT_VERSION, GENESIS, HASH_PREFIX, SealError};

/// What the ledger adds to a draft.
pub(crate) struct Place<'a> {
    pub(crate) id: ReceiptId,
    pub(crate) stream: &'a StreamName,
    pub(crate) seq: u64,
    pub(crate) at: Micros,
    pub(crate) prev_hash: Option<Hash>,
}

/// Writes the core: all fields but `hash` and `chain_hash`, in ascending order of their names.
pub(crate) fn core_bytes(draft: &Draft, place: &Place<'_>) -> Result<Vec<u8>, SealError> {
    let mut w = Writer { out: Vec::with_capacity(640) };
    w.text("action", &draft.action)?;
    w.optional("actor", draft.actor.as_deref())?;
    w.optional_integer("amount", draft.amount)?;
    w.text_of("at", |out| out.extend_from_slice(&place.at.to_text()));
    w.optional("commitment", draft.commitment.as_deref())?;
    w.optional("currency", draft.currency.as_deref())?;
    w.optional("detail", draft.detail.as_deref())?;
    w.optional_integer("effective_at", draft.effective_at.map(Micros::secs))?;
    w.optional("entitlement_id", draft.entitlement_id.as_deref())?;
    w.optional_integer("expires_at", draft.expires_at.map(Micros::secs))?;
    w.text_of("id", |out| place.id.write(out));
    w.optional("idem", draft.idem.as_deref())?;
    if let Some(intent) = draft.intent {
        w.text_of("intent", |out| intent.write(out));
    }
    w.metadata(draft)?;
    w.text_of("prev_hash", |out| match place.prev_hash {
        Some(hash) => {
            out.extend_from_slice(HASH_PREFIX.as_bytes());
            hash.write_hex(out);
        }
        None => out.extend_from_slice(GENESIS.as_bytes()),
    });
    w.optional("reason", draft.reason.as_deref())?;
    w.optional("rule", draft.rule.as_deref())?;
    w.integer("seq", i64::try_from(place.seq).unwrap_or(i64::MAX))?;
    w.optional("state_from", draft.state_from.as_deref())?;
    w.optional("state_to", draft.state_to.as_deref())?;
    w.optional("status", draft.status.as_deref())?;
    w.text("stream", place.stream.as_str())?;
    w.optional("subject", draft.subject.as_deref())?;
    if !place.stream.is_system() {
        w.text("tenant_id", split_lane(place.stream.as_str()).0)?;
    }
    w.integer("timestamp", place.at.secs())?;
    w.text("type", draft.kind.as_str())?;
    w.integer("v", FORMAT_VERSION)?;
    w.out.push(b'}');
    if w.out.len() > limits::RECEIPT_BYTES {
        return Err(SealError::TooLarge { max_bytes: limits::RECEIPT_BYTES });
    }
    Ok(w.out)
}

struct Writer {
    out: Vec<u8>,
}

impl Writer {
    fn key(&mut self, name: &str) {
        self.out.push(if self.out.is_empty() { b'{' } else { b',' });
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text_of(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.key(name);
        self.out.push(b'"');
        value(&mut self.out);
        self.out.push(b'"');
    }

    fn text(&mut self, name: &'static str, value: &str) -> Result<(), SealError> {
        self.key(name);
        write_string(&mut self.out, name, value)
    }

    fn optional(&mut self, name: &'static str, value: Option<&str>) -> Result<(), SealError> {
        value.map_or(Ok(()), |value| self.text(name, value))
    }

    fn integer(&mut self, name: &'static str, value: i64) -> Result<(), SealError> {
        self.key(name);
        write_integer(&mut self.out, name, value)
    }

    fn optional_integer(
        &mut self,
        name: &'static str,
        value: Option<i64>,
    ) -> Result<(), SealError> {
        value.map_or(Ok(()), |value| self.integer(name, value))
    }

    fn metadata(&mut self, draft: &Draft) -> Result<(), SealError> {
        if draft.metadata.is_empty() {
            return Ok(());
        }
        let mut entries: Vec<_> = draft.metadata.iter().collect();
        entries.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
        if entries.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(SealError::RepeatedKey);
        }
        self.key("metadata");
        let mut separator = b'{';
        for (key, value) in entries {
            if key.is_empty() || !key.bytes().all(is_key_byte) {
                return Err(SealError::MetadataKey);
            }
            self.out.push(separator);
            separator = b',';
            write_string(&mut self.out, "metadata", key)?;
            self.out.push(b':');
            match value {
                Meta::Text(text) => write_string(&mut self.out, "metadata", text)?,
                Meta::Int(value) => write_integer(&mut self.out, "metadata", *value)?,
                Meta::Bool(true) => self.out.extend_from_slice(b"true"),
                Meta::Bool(false) => self.out.extend_from_slice(b"false"),
            }
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// Metadata keys are ASCII, so that byte order and UTF-16 order (RFC 8785) agree.
pub(crate) fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

fn write_string(out: &mut Vec<u8>, field: &'static str, value: &str) -> Result<(), SealError> {
    out.push(b'"');
    let mut clean_from = 0;
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            0..=0x1f => return Err(SealError::ControlCharacter { field }),
            b'"' | b'\\' => {
                out.extend_from_slice(&value.as_bytes()[clean_from..at]);
                out.push(b'\\');
                clean_from = at;
            }
            _ => {}
        }
    }
    out.extend_from_slice(&value.as_bytes()[clean_from..]);
    out.push(b'"');
    Ok(())
}

fn write_integer(out: &mut Vec<u8>, field: &'static str, value: i64) -> Result<(), SealError> {
    if !(-limits::INTEGER_MAX..=limits::INTEGER_MAX).contains(&value) {
        return Err(SealError::IntegerRange { field });
    }
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
    Ok(())
}
