//! A SHA-256 digest and its hexadecimal forms.

use std::fmt;

/// 32 bytes of SHA-256. `Display` writes 64 lower-case hex digits, without a prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// 32 zero bytes: the `prev_hash` of the first receipt of a stream (seed 000, genesis).
    pub const ZERO: Hash = Hash([0; 32]);

    /// Reads 64 lower-case hex digits. `None` for anything else: upper case is not canonical.
    #[must_use]
    pub fn from_hex(text: &[u8]) -> Option<Hash> {
        let mut out = [0; 32];
        hex_decode(text, &mut out)?;
        Some(Hash(out))
    }

    /// Appends the 64 hex digits to `out`.
    pub fn write_hex(&self, out: &mut Vec<u8>) {
        hex_encode(&self.0, out);
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex_fmt(&self.0, f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex_fmt(&self.0, f)
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends lower-case hex of `bytes` to `out`.
pub fn hex_encode(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Fills `out` from exactly twice as many lower-case hex digits; `None` otherwise.
#[must_use]
pub fn hex_decode(text: &[u8], out: &mut [u8]) -> Option<()> {
    if text.len() != out.len() * 2 {
        return None;
    }
    // Without branches and tables, so that digits are read many at a time: any bad one leaves its
    // mark in `bad`, looked at once.
    let mut bad = 0u8;
    for (slot, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let ((high, wrong_high), (low, wrong_low)) = (nibble(pair[0]), nibble(pair[1]));
        bad |= wrong_high | wrong_low;
        *slot = (high << 4) | low;
    }
    (bad == 0).then_some(())
}

/// The value of a digit, and 1 when it is none.
const fn nibble(digit: u8) -> (u8, u8) {
    let (number, letter) = (digit.wrapping_sub(b'0'), digit.wrapping_sub(b'a'));
    let (is_number, is_letter) = ((number < 10) as u8, (letter < 6) as u8);
    let value = if is_number == 1 { number } else { letter.wrapping_add(10) };
    (value & 15, 1 - (is_number | is_letter))
}

fn write_hex_fmt(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut digits = [0; 64];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    // Hex digits are ASCII; the text is written whole because it stands in every receipt.
    f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_what_is_not_canonical() {
        let hash = Hash(std::array::from_fn(|i| (i * 7 + 3) as u8));
        let mut text = Vec::new();
        hash.write_hex(&mut text);
        assert_eq!(Hash::from_hex(&text), Some(hash));
        assert_eq!(text, hash.to_string().into_bytes());
        assert_eq!(Hash::from_hex(&text[1..]), None, "63 digits");
        for bad in [b'A', b'g', b' ', 0xff] {
            let mut broken = text.clone();
            broken[10] = bad;
            assert_eq!(Hash::from_hex(&broken), None, "digit {bad}");
        }
    }
}
