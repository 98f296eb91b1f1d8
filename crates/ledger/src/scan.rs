//! The one-pass validating scanner: stored bytes in, typed view out, nothing copied.
//!
//! Owns: what is a well-formed receipt. It accepts exactly what the writer can produce: fields in
//! ascending order, none twice, none unknown, no floats (INV-6), nulls, control characters or
//! needless escapes. Refuses to know: hashes of other receipts, and what a field means.

use std::borrow::Cow;

use types::{Hash, Micros, ReceiptId, StreamName, limits, split_lane};

use crate::draft::Kind;
use crate::write::is_key_byte;
use crate::{FORMAT_VERSION, GENESIS, HASH_PREFIX};

/// Why bytes are not a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical receipt at byte {at}: {why}")]
pub struct ScanError {
    /// Where the scan stopped.
    pub at: usize,
    /// What is wrong there.
    pub why: &'static str,
}

/// Text as it stands between its quotes, escapes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// The text itself. Borrowed unless it holds an escaped quote or backslash.
    #[must_use]
    pub fn text(self) -> Cow<'a, str> {
        if !self.0.contains('\\') {
            return Cow::Borrowed(self.0);
        }
        let mut out = String::with_capacity(self.0.len());
        let mut escaped = false;
        for c in self.0.chars() {
            if c == '\\' && !escaped {
                escaped = true;
            } else {
                out.push(c);
                escaped = false;
            }
        }
        Cow::Owned(out)
    }

    /// True when the text is exactly `word`, which must hold nothing to escape.
    #[must_use]
    pub fn is(self, word: &str) -> bool {
        self.0 == word
    }
}

/// A metadata value, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaView<'a> {
    /// Text.
    Text(Raw<'a>),
    /// An integer.
    Int(i64),
    /// A flag.
    Bool(bool),
}

/// A receipt, borrowed from its bytes. Field meanings are those of [`crate::Draft`].
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields are those of the receipt, documented on Draft")]
pub struct View<'a> {
    pub kind: Kind,
    pub id: ReceiptId,
    pub stream: &'a str,
    pub seq: u64,
    pub at: Micros,
    pub timestamp: i64,
    pub prev_hash: Option<Hash>,
    pub action: Raw<'a>,
    pub reason: Option<Raw<'a>>,
    pub detail: Option<Raw<'a>>,
    pub tenant_id: Option<&'a str>,
    pub entitlement_id: Option<Raw<'a>>,
    pub actor: Option<Raw<'a>>,
    pub subject: Option<Raw<'a>>,
    pub state_from: Option<Raw<'a>>,
    pub state_to: Option<Raw<'a>>,
    pub rule: Option<Raw<'a>>,
    pub intent: Option<ReceiptId>,
    pub idem: Option<Raw<'a>>,
    pub commitment: Option<Raw<'a>>,
    pub amount: Option<i64>,
    pub currency: Option<Raw<'a>>,
    pub status: Option<Raw<'a>>,
    pub effective_at: Option<i64>,
    pub expires_at: Option<i64>,
    metadata: Option<&'a str>,
    pub(crate) public: Public,
}

/// Where `hash` and `chain_hash` stand, or belong, in the bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Public {
    pub(crate) hash: Option<Hash>,
    pub(crate) chain_hash: Option<Hash>,
    /// Just behind the value of `at`: where `,"chain_hash":…` is or goes.
    pub(crate) chain_hash_at: usize,
    /// Just before `,"id"`: where `,"hash":…` ends or goes.
    pub(crate) hash_at: usize,
}

impl<'a> View<'a> {
    /// Scans the core bytes of a receipt: `hash` and `chain_hash` must be absent.
    pub fn scan(core: &'a [u8]) -> Result<View<'a>, ScanError> {
        scan(core, false)
    }

    /// Scans the public form: `hash` and `chain_hash` must be present.
    pub fn scan_public(bytes: &'a [u8]) -> Result<View<'a>, ScanError> {
        scan(bytes, true)
    }

    /// The metadata entries, in ascending order of their keys.
    pub fn metadata(&self) -> impl Iterator<Item = (&'a str, MetaView<'a>)> + use<'a> {
        let mut scanner = self.metadata.map(Scanner::new);
        std::iter::from_fn(move || scanner.as_mut().and_then(Scanner::next_entry))
    }

    /// One metadata value.
    #[must_use]
    pub fn meta(&self, key: &str) -> Option<MetaView<'a>> {
        self.metadata().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// One integer of the metadata.
    #[must_use]
    pub fn meta_int(&self, key: &str) -> Option<i64> {
        match self.meta(key) {
            Some(MetaView::Int(value)) => Some(value),
            _ => None,
        }
    }

    /// One text of the metadata.
    #[must_use]
    pub fn meta_text(&self, key: &str) -> Option<Cow<'a, str>> {
        match self.meta(key) {
            Some(MetaView::Text(raw)) => Some(raw.text()),
            _ => None,
        }
    }
}

#[derive(Default)]
struct Fields<'a> {
    kind: Option<Kind>,
    id: Option<ReceiptId>,
    stream: Option<&'a str>,
    seq: Option<u64>,
    at: Option<Micros>,
    timestamp: Option<i64>,
    prev_hash: Option<Option<Hash>>,
    action: Option<Raw<'a>>,
    version: Option<i64>,
}

fn scan(bytes: &[u8], public: bool) -> Result<View<'_>, ScanError> {
    let bytes_max = limits::RECEIPT_BYTES + if public { crate::public::ADDED_BYTES } else { 0 };
    if bytes.len() > bytes_max {
        return Err(ScanError { at: bytes_max, why: "too large" });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| ScanError { at: e.valid_up_to(), why: "not utf-8" })?;
    let mut s = Scanner::new(text);
    let mut f = Fields::default();
    let mut view = View {
        kind: Kind::Transition,
        id: ReceiptId([0; 16]),
        stream: "",
        seq: 0,
        at: Micros(0),
        timestamp: 0,
        prev_hash: None,
        action: Raw(""),
        reason: None,
        detail: None,
        tenant_id: None,
        entitlement_id: None,
        actor: None,
        subject: None,
        state_from: None,
        state_to: None,
        rule: None,
        intent: None,
        idem: None,
        commitment: None,
        amount: None,
        currency: None,
        status: None,
        effective_at: None,
        expires_at: None,
        metadata: None,
        public: Public::default(),
    };
    s.expect(b'{', "expected an object")?;
    // One walk through the table for all fields: their order is checked by the way.
    let mut table = FIELDS.iter();
    loop {
        let before_key = s.at;
        let name = s.field_name(&mut table)?;
        field(&mut s, name, before_key, &mut f, &mut view)?;
        match s.take() {
            Some(b',') => {}
            Some(b'}') => break,
            _ => return Err(s.fail("expected a comma or the end")),
        }
    }
    if s.at != bytes.len() {
        return Err(s.fail("bytes behind the end"));
    }
    complete(&s, &f, &mut view)?;
    match (view.public.hash.is_some(), view.public.chain_hash.is_some()) {
        (true, true) if public => Ok(view),
        (false, false) if !public => Ok(view),
        _ => Err(s.fail("hash and chain_hash are in the wrong form")),
    }
}

fn complete<'a>(s: &Scanner<'_>, f: &Fields<'a>, view: &mut View<'a>) -> Result<(), ScanError> {
    let missing = || s.fail("a required field is missing");
    view.kind = f.kind.ok_or_else(missing)?;
    view.id = f.id.ok_or_else(missing)?;
    view.stream = f.stream.ok_or_else(missing)?;
    view.seq = f.seq.ok_or_else(missing)?;
    view.at = f.at.ok_or_else(missing)?;
    view.timestamp = f.timestamp.ok_or_else(missing)?;
    view.prev_hash = f.prev_hash.ok_or_else(missing)?;
    view.action = f.action.ok_or_else(missing)?;
    if f.version.ok_or_else(missing)? != FORMAT_VERSION {
        return Err(s.fail("unknown format version"));
    }
    if StreamName::check(view.stream).is_err() {
        return Err(s.fail("stream is not a name"));
    }
    let tenant = (!view.stream.starts_with('_')).then(|| split_lane(view.stream).0);
    if view.tenant_id != tenant {
        return Err(s.fail("tenant_id does not agree with stream"));
    }
    Ok(())
}

/// Every field of a receipt, in the order of their names.
#[derive(Debug, Clone, Copy)]
enum Field {
    Action,
    Actor,
    Amount,
    At,
    ChainHash,
    Commitment,
    Currency,
    Detail,
    EffectiveAt,
    EntitlementId,
    ExpiresAt,
    Hash,
    Id,
    Idem,
    Intent,
    Metadata,
    PrevHash,
    Reason,
    Rule,
    Seq,
    StateFrom,
    StateTo,
    Status,
    Stream,
    Subject,
    TenantId,
    Timestamp,
    Type,
    V,
}

/// A field's name as it stands in the bytes, so that one comparison of integers finds it.
struct Name {
    field: Field,
    /// The name with quotes and colon behind the first one: at most [`Name::BYTES`], little-endian.
    text: u128,
    /// The bytes of `text` that are used.
    mask: u128,
    len: usize,
}

impl Name {
    const BYTES: usize = size_of::<u128>();

    const fn of(name: &str, field: Field) -> Name {
        let name = name.as_bytes();
        let len = name.len() + 2;
        assert!(len <= Name::BYTES, "a field's name is too long");
        let mut text = [0; Name::BYTES];
        let mut at = 0;
        while at < name.len() {
            text[at] = name[at];
            at += 1;
        }
        text[at] = b'"';
        text[at + 1] = b':';
        let mask = u128::MAX >> (8 * (Name::BYTES - len));
        Name { field, text: u128::from_le_bytes(text), mask, len }
    }
}

const FIELDS: [Name; 29] = [
    Name::of("action", Field::Action),
    Name::of("actor", Field::Actor),
    Name::of("amount", Field::Amount),
    Name::of("at", Field::At),
    Name::of("chain_hash", Field::ChainHash),
    Name::of("commitment", Field::Commitment),
    Name::of("currency", Field::Currency),
    Name::of("detail", Field::Detail),
    Name::of("effective_at", Field::EffectiveAt),
    Name::of("entitlement_id", Field::EntitlementId),
    Name::of("expires_at", Field::ExpiresAt),
    Name::of("hash", Field::Hash),
    Name::of("id", Field::Id),
    Name::of("idem", Field::Idem),
    Name::of("intent", Field::Intent),
    Name::of("metadata", Field::Metadata),
    Name::of("prev_hash", Field::PrevHash),
    Name::of("reason", Field::Reason),
    Name::of("rule", Field::Rule),
    Name::of("seq", Field::Seq),
    Name::of("state_from", Field::StateFrom),
    Name::of("state_to", Field::StateTo),
    Name::of("status", Field::Status),
    Name::of("stream", Field::Stream),
    Name::of("subject", Field::Subject),
    Name::of("tenant_id", Field::TenantId),
    Name::of("timestamp", Field::Timestamp),
    Name::of("type", Field::Type),
    Name::of("v", Field::V),
];

/// One field of the closed set. An unknown name is an error: the format is versioned instead.
fn field<'a>(
    s: &mut Scanner<'a>,
    name: Field,
    before_key: usize,
    f: &mut Fields<'a>,
    view: &mut View<'a>,
) -> Result<(), ScanError> {
    match name {
        Field::Action => f.action = Some(s.string()?),
        Field::Actor => view.actor = Some(s.string()?),
        Field::Amount => view.amount = Some(s.integer()?),
        Field::At => {
            f.at = Some(s.parsed("at is not an instant", |t| Micros::from_text(t.as_bytes()))?);
            view.public.chain_hash_at = s.at;
        }
        Field::ChainHash => view.public.chain_hash = Some(s.parsed("bad chain_hash", parse_hash)?),
        Field::Commitment => view.commitment = Some(s.string()?),
        Field::Currency => view.currency = Some(s.string()?),
        Field::Detail => view.detail = Some(s.string()?),
        Field::EffectiveAt => view.effective_at = Some(s.integer()?),
        Field::EntitlementId => view.entitlement_id = Some(s.string()?),
        Field::ExpiresAt => view.expires_at = Some(s.integer()?),
        Field::Hash => view.public.hash = Some(s.parsed("bad hash", parse_hash)?),
        Field::Id => {
            // `before_key` is behind the comma; the splice point is in front of it.
            view.public.hash_at = before_key - 1;
            f.id = Some(s.parsed("bad id", ReceiptId::parse)?);
        }
        Field::Idem => view.idem = Some(s.string()?),
        Field::Intent => view.intent = Some(s.parsed("bad intent", ReceiptId::parse)?),
        Field::Metadata => view.metadata = Some(s.metadata()?),
        Field::PrevHash => f.prev_hash = Some(s.parsed("bad prev_hash", parse_prev_hash)?),
        Field::Reason => view.reason = Some(s.string()?),
        Field::Rule => view.rule = Some(s.string()?),
        Field::Seq => {
            let value = s.integer()?;
            f.seq = Some(u64::try_from(value).map_err(|_| s.fail("seq is negative"))?);
        }
        Field::StateFrom => view.state_from = Some(s.string()?),
        Field::StateTo => view.state_to = Some(s.string()?),
        Field::Status => view.status = Some(s.string()?),
        Field::Stream => f.stream = Some(s.string()?.0),
        Field::Subject => view.subject = Some(s.string()?),
        Field::TenantId => view.tenant_id = Some(s.string()?.0),
        Field::Timestamp => f.timestamp = Some(s.integer()?),
        Field::Type => f.kind = Some(s.parsed("unknown type", Kind::parse)?),
        Field::V => f.version = Some(s.integer()?),
    }
    Ok(())
}

fn parse_hash(text: &str) -> Option<Hash> {
    Hash::from_hex(text.strip_prefix(HASH_PREFIX)?.as_bytes())
}

fn parse_prev_hash(text: &str) -> Option<Option<Hash>> {
    if text == GENESIS { Some(None) } else { parse_hash(text).map(Some) }
}

/// How many bytes at the start are neither quote, backslash nor control character. Eight are looked
/// at together: most of a receipt is such text, and this is where the time of a scan goes.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // Sets the high bit of each byte that is zero, and perhaps of bytes above such a one.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let special = |word: u64| {
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')))
    };
    let (words, rest) = bytes.as_chunks::<8>();
    for (nth, word) in words.iter().enumerate() {
        // The lowest mark is of a special byte: only those above it are in doubt.
        let marks = special(u64::from_le_bytes(*word));
        if marks != 0 {
            return nth * 8 + marks.trailing_zeros() as usize / 8;
        }
    }
    let plain = |byte: &u8| !matches!(byte, 0..=0x1f | b'"' | b'\\');
    bytes.len() - rest.len() + rest.iter().take_while(|byte| plain(byte)).count()
}

/// A cursor over text that is known to be UTF-8.
#[derive(Clone)]
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0 }
    }

    fn fail(&self, why: &'static str) -> ScanError {
        ScanError { at: self.at, why }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn expect(&mut self, byte: u8, why: &'static str) -> Result<(), ScanError> {
        if self.take() == Some(byte) { Ok(()) } else { Err(self.fail(why)) }
    }

    /// The name of one of the fields that `table` has left, and the colon behind it.
    fn field_name(&mut self, table: &mut std::slice::Iter<'_, Name>) -> Result<Field, ScanError> {
        let start = self.at;
        self.expect(b'"', "expected a field name")?;
        let rest = &self.text.as_bytes()[self.at..];
        let next = match rest.first_chunk() {
            Some(next) => u128::from_le_bytes(*next),
            None => rest.iter().rev().fold(0, |next, byte| (next << 8) | u128::from(*byte)),
        };
        if let Some(name) = table.find(|name| next & name.mask == name.text) {
            self.at += name.len;
            return Ok(name.field);
        }
        self.at = start;
        self.key()?;
        Err(self.fail("a field is unknown, repeated or out of order"))
    }

    /// A plain ASCII name and the colon behind it.
    fn key(&mut self) -> Result<&'a str, ScanError> {
        self.expect(b'"', "expected a field name")?;
        let start = self.at;
        while self.peek().is_some_and(is_key_byte) {
            self.at += 1;
        }
        let key = &self.text[start..self.at];
        self.expect(b'"', "bad field name")?;
        self.expect(b':', "expected a colon")?;
        if key.is_empty() { Err(self.fail("empty field name")) } else { Ok(key) }
    }

    fn string(&mut self) -> Result<Raw<'a>, ScanError> {
        self.expect(b'"', "expected a string")?;
        let bytes = self.text.as_bytes();
        let start = self.at;
        loop {
            self.at += plain_bytes(&bytes[self.at..]);
            match bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    if !matches!(bytes.get(self.at + 1), Some(b'"' | b'\\')) {
                        return Err(self.fail("needless or forbidden escape"));
                    }
                    self.at += 2;
                }
                Some(_) => return Err(self.fail("control character")),
                None => return Err(self.fail("string without end")),
            }
        }
        let raw = Raw(&self.text[start..self.at]);
        self.at += 1;
        Ok(raw)
    }

    fn parsed<T>(
        &mut self,
        why: &'static str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, ScanError> {
        let raw = self.string()?;
        parse(raw.0).ok_or_else(|| self.fail(why))
    }

    fn integer(&mut self) -> Result<i64, ScanError> {
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let start = self.at;
        let mut value: i64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            value = value * 10 + i64::from(digit - b'0');
            self.at += 1;
            if value > limits::INTEGER_MAX {
                return Err(self.fail("integer out of range"));
            }
        }
        let digits = self.at - start;
        let leading_zero = digits > 1 && self.text.as_bytes()[start] == b'0';
        if digits == 0 || leading_zero || (negative && value == 0) {
            return Err(self.fail("not a canonical integer"));
        }
        Ok(if negative { -value } else { value })
    }

    /// Validates the object and returns it whole; entries are read later, on demand.
    fn metadata(&mut self) -> Result<&'a str, ScanError> {
        let start = self.at;
        self.expect(b'{', "expected an object")?;
        let mut last_key = "";
        loop {
            let key = self.key()?;
            if key <= last_key {
                return Err(self.fail("metadata is not in ascending order"));
            }
            last_key = key;
            self.value()?;
            match self.take() {
                Some(b',') => {}
                Some(b'}') => return Ok(&self.text[start..self.at]),
                _ => return Err(self.fail("expected a comma or the end")),
            }
        }
    }

    fn value(&mut self) -> Result<MetaView<'a>, ScanError> {
        match self.peek() {
            Some(b'"') => self.string().map(MetaView::Text),
            Some(b't') => self.word("true").map(|()| MetaView::Bool(true)),
            Some(b'f') => self.word("false").map(|()| MetaView::Bool(false)),
            _ => self.integer().map(MetaView::Int),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), ScanError> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.fail("unknown word"));
        }
        self.at += word.len();
        Ok(())
    }

    /// The next entry of an object that [`Scanner::metadata`] has validated.
    fn next_entry(&mut self) -> Option<(&'a str, MetaView<'a>)> {
        self.take().filter(|byte| matches!(byte, b'{' | b','))?;
        let key = self.key().ok()?;
        Some((key, self.value().ok()?))
    }
}
