//! What a credential looks like: its name, or the way it begins.
//!
//! Owns: the one list of names and prefixes, for those who refuse credentials and those who mask
//! them. Refuses to know: what becomes of a text that holds one.

/// Parts of names, compared without case and separators.
const NAMES: [&str; 10] = [
    "apikey",
    "privatekey",
    "authorization",
    "password",
    "passwd",
    "secret",
    "token",
    "signature",
    "cookie",
    "smtppass",
];

/// Prefixes that make a word a credential whatever its name, also inside of it: keys and webhook
/// secrets of Stripe.
const PREFIXES: [&str; 5] = ["sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"];

/// Beginnings of words that are credentials when so many characters follow, and the word then goes
/// on over dots and what else their vendors use: our own keys, those of OpenAI and Anthropic, Groq,
/// xAI, Hugging Face, Google, Slack, GitHub, GitLab and AWS, and JSON web tokens.
const BEGINNINGS: [(&str, usize); 18] = [
    ("taik_", 1),
    ("sk-", 17),
    ("gsk_", 20),
    ("xai-", 20),
    ("hf_", 20),
    ("ghs_", 30),
    ("ghu_", 30),
    ("ASIA", 16),
    ("AIza", 30),
    ("xoxb-", 10),
    ("xoxp-", 10),
    ("xapp-", 10),
    ("ghp_", 30),
    ("gho_", 30),
    ("github_pat_", 20),
    ("glpat-", 15),
    ("AKIA", 16),
    ("eyJ", 20),
];

/// No word with a credential is shorter; most words of a log are.
const WORD_MIN: usize = 6;

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
        || begins(value.as_bytes()).is_some()
        || value.starts_with(PEM)
        || bearer.is_some_and(|scheme| scheme.eq_ignore_ascii_case(BEARER.as_bytes()))
}

/// The bytes of a credential in the word `text[start..end]`, a run of letters, digits, `_` and `-`.
/// It may end behind the word. Both bounds lie next to an ASCII byte or an end of the text.
#[must_use]
pub fn span(text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    if end - start < WORD_MIN {
        return None;
    }
    let bytes = text.as_bytes();
    if let Some(len) = begins(&bytes[start..]) {
        return Some((start, start + len));
    }
    let starts = |at: &usize| {
        let rest = &bytes[*at..end];
        // `disk_test_1` is a word of its own.
        let is_first = matches!(rest[0], b's' | b'r' | b'w')
            && (*at == start || matches!(bytes[*at - 1], b'_' | b'-'));
        is_first && PREFIXES.iter().any(|prefix| rest.starts_with(prefix.as_bytes()))
    };
    (start..end).find(starts).map(|at| (at, end))
}

/// How long the credential is that these bytes begin with.
fn begins(bytes: &[u8]) -> Option<usize> {
    let goes_on = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_-.:@+=~".contains(byte);
    let of = |(prefix, more): &(&str, usize)| {
        let rest = bytes.strip_prefix(prefix.as_bytes())?;
        let len = rest.iter().take_while(goes_on).count();
        (len >= *more).then_some(prefix.len() + len)
    };
    let is_first = matches!(bytes.first(), Some(b't' | b's' | b'A' | b'x' | b'g' | b'e' | b'h'));
    if is_first { BEGINNINGS.iter().find_map(of) } else { None }
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
            "taik_acme.0123",
            "gsk_0123456789abcdefghij",
            "sk-proj-0123456789abcdef",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
            "Bearer x",
            "bearer x",
            "-----BEGIN KEY-----",
        ] {
            assert!(is_credential(value), "{value}");
        }
        for value in [
            "",
            "task_live_1",
            "bearer",
            "bearers all",
            "pk_live_1",
            "---",
            "béarer x",
            "sk-short",
            "risk-0123456789abcdefgh",
            "eyJ",
            "taik_",
        ] {
            assert!(!is_credential(value), "{value}");
        }
        assert!(names("Set-Cookie", "cookie") && !names("set", "cookie"));
    }
}
