//! What a credential looks like: its name, or the way it begins.
//!
//! Owns: the one list of names and prefixes, for those who refuse credentials and those who mask
//! them. Refuses to know: what becomes of a text that holds one.

/// Parts of names, compared without case and separators.
const NAMES: [&str; 9] = [
    "apikey",
    "privatekey",
    "authorization",
    "password",
    "passwd",
    "secret",
    "token",
    "signature",
    "cookie",
];

/// Prefixes that make a word a credential whatever its name: keys and webhook secrets of Stripe.
pub const PREFIXES: [&str; 5] = ["sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"];

/// Begins a PEM block.
pub const PEM: &str = "-----BEGIN";

/// The scheme of RFC 6750 and the blank behind it.
const BEARER: &str = "bearer ";

/// True where a field of this name is likely to hold a credential: it contains one of the listed
/// names, in any case, with or without `_`, `-` and `.` between the letters.
#[must_use]
pub fn is_credential_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    // The first letters are looked at alone: this runs for every field of every log line.
    let first = |at: &usize| matches!(bytes[*at] | 0x20, b'a' | b'c' | b'p' | b's' | b't');
    let listed = |at: usize| NAMES.iter().any(|word| squeezed_prefix(&bytes[at..], word));
    (0..bytes.len()).filter(first).any(listed)
}

/// True where `name` contains `word`, given in lower case and without separators.
#[must_use]
pub fn names(name: &str, word: &str) -> bool {
    (0..name.len()).any(|at| squeezed_prefix(&name.as_bytes()[at..], word))
}

/// True where the value begins as a credential does; blanks before it do not hide it.
#[must_use]
pub fn is_credential(value: &str) -> bool {
    let value = value.trim_start();
    let bearer = value.as_bytes().get(..BEARER.len());
    PREFIXES.iter().any(|prefix| value.starts_with(prefix))
        || value.starts_with(PEM)
        || bearer.is_some_and(|scheme| scheme.eq_ignore_ascii_case(BEARER.as_bytes()))
}

fn squeezed_prefix(bytes: &[u8], word: &str) -> bool {
    let mut letters = bytes.iter().filter(|byte| !matches!(byte, b'_' | b'-' | b'.'));
    word.bytes().all(|want| letters.next().is_some_and(|got| got.to_ascii_lowercase() == want))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        for name in [
            "api_key",
            "API-Key",
            "x.api.key",
            "apikey",
            "private_key",
            "Authorization",
            "password",
            "db_passwd",
            "client_secret",
            "access_tokens",
            "x-signature",
            "Set-Cookie",
        ] {
            assert!(is_credential_name(name), "{name}");
        }
        for name in ["order_id", "ordering_key", "keyboard", "pass", "tok", "", "_", "é"] {
            assert!(!is_credential_name(name), "{name}");
        }
        for value in [
            "sk_live_1",
            "sk_test_1",
            "rk_live_1",
            "rk_test_1",
            "whsec_1",
            " sk_live_1",
            "Bearer x",
            "bearer x",
            "-----BEGIN KEY-----",
        ] {
            assert!(is_credential(value), "{value}");
        }
        for value in ["", "task_live_1", "bearer", "bearers all", "pk_live_1", "---", "béarer x"] {
            assert!(!is_credential(value), "{value}");
        }
        assert!(names("Set-Cookie", "cookie") && !names("set", "cookie"));
    }
}
