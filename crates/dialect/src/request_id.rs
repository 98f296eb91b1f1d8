//! Idempotency keys: `X-Request-ID`, `Idempotency-Key` and `messageId`.
//!
//! Owns: which texts may be a key. Refuses to know: where a key came from and what it has seen.

use types::{Reason, limits};

use crate::Fault;

/// Takes 1 to 128 printable ASCII characters without spaces, 0x21 to 0x7e.
///
/// Anything else is [`Reason::InvalidRequestId`]: a key is stored, logged and sent back in a
/// header, and must be the same bytes in all three.
pub fn check_key(text: &str) -> Result<(), Fault> {
    check_named(text, "request id")
}

/// As [`check_key`]; `name` is how a refusal calls the key.
pub(crate) fn check_named(text: &str, name: &'static str) -> Result<(), Fault> {
    let length_ok = (1..=limits::IDEMPOTENCY_KEY_CHARS).contains(&text.len());
    if length_ok && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let max_chars = limits::IDEMPOTENCY_KEY_CHARS;
    Err(Fault::new(
        Reason::InvalidRequestId,
        format!("{name} must be 1 to {max_chars} printable ASCII characters without spaces"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_printable_ascii_of_bounded_length() {
        for good in ["1", "!~", "11465842369530157", "a/b:c=d", &"x".repeat(128)] {
            assert_eq!(check_key(good), Ok(()), "{good}");
        }
        for bad in
            ["", " ", "a b", "a\tb", "a\0", "a\u{7f}", "\u{e9}", "\u{1f600}", &"x".repeat(129)]
        {
            let fault = check_key(bad).expect_err("must be refused");
            assert_eq!(fault.reason, Reason::InvalidRequestId, "{bad:?}");
            assert!(fault.detail.as_str().starts_with("request id must be 1 to 128"));
        }
    }
}
