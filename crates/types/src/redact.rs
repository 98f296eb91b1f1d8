//! What must not stand in a log line or in what people are told, and its removal from free text.
//!
//! Owns: the scanner; the list of names is that of [`credentials`]. Refuses to know: lines, levels
//! and receipts.
//!
//! The scanner is written here and not as regular expressions because a value ends differently
//! in prose, in JSON, in JSON inside a JSON string and in Rust's debug form. Where the end is in
//! doubt it removes more: a line that lost a word can still be read, a leaked key must be rotated.

use std::borrow::Cow;

use crate::credentials::{self, PEM};

/// What stands in place of a secret. The leak check of seed 003 looks for this word.
pub const REDACTED: &str = "REDACTED";

/// True where a field or header of this name may hold a secret: it contains one of the listed
/// names, or `_key` or `-key` (also `Key` in camel case), in any case.
#[must_use]
pub fn is_sensitive(name: &str) -> bool {
    let bytes = name.as_bytes();
    let key = bytes.windows(4).any(|part| match part {
        [b'_' | b'-', word @ ..] => word.eq_ignore_ascii_case(b"key"),
        [before, b'K', b'e', b'y'] => before.is_ascii_lowercase(),
        _ => false,
    });
    key || credentials::is_credential_name(name)
}

/// True where the name is sensitive also for a number or a flag: `prompt_tokens = 512` is a
/// count that operators need, `token = 512` is not known to be one.
#[must_use]
pub fn is_sensitive_number(name: &str) -> bool {
    is_sensitive(name) && is_sensitive(&name.to_ascii_lowercase().replace("tokens", ""))
}

/// True where the text has a word of seed 003's leak check, in any case:
/// `grep -E 'api[_-]?key|password|secret'`.
#[must_use]
pub fn has_leak_word(text: &str) -> bool {
    const WORDS: [&[u8]; 5] = [b"api_key", b"api-key", b"apikey", b"password", b"secret"];
    /// Bytes that are looked at together.
    const STEP: usize = 64;
    let bytes = text.as_bytes();
    let begins = |at: usize| {
        let is_word = |word: &&[u8]| {
            bytes.get(at..at + word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word))
        };
        WORDS.iter().any(is_word)
    };
    // This runs over each line as a whole: three letters tell almost every place apart, and without
    // a way out of the loop the compiler looks at many places at once.
    let suspect = |three: &[u8]| {
        let [a, b, c] = [three[0] | 0x20, three[1] | 0x20, three[2] | 0x20];
        let api = (a == b'a') & (b == b'p') & (c == b'i');
        let password = (a == b'p') & (b == b'a') & (c == b's');
        let secret = (a == b's') & (b == b'e') & (c == b'c');
        api | password | secret
    };
    (0..bytes.len()).step_by(STEP).any(|from| {
        let part = &bytes[from..bytes.len().min(from + STEP + 2)];
        let any = part.windows(3).fold(false, |any, three| any | suspect(three));
        any && (from..from + STEP).any(begins)
    })
}

/// The text with every recognised secret replaced: bearer tokens, keys of known vendors, PEM
/// blocks, and the values of sensitive names in `name=value`, `name: value` and `"name": "value"`,
/// also where the quotes are escaped.
#[must_use]
pub fn mask(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while at < bytes.len() {
        if !is_word(bytes[at]) {
            at += 1;
            continue;
        }
        let end = skip(bytes, at, is_word);
        at = match secret_at(text, at, end) {
            Some((from, to)) => {
                out.push_str(&text[copied..from]);
                out.push_str(REDACTED);
                copied = to;
                to.max(end)
            }
            None => end,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

fn skip(bytes: &[u8], from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    from + bytes[from..].iter().take_while(|byte| wanted(**byte)).count()
}

/// The bytes to remove on account of the word `text[start..end]`; never empty. Both bounds lie
/// next to an ASCII byte or an end of the text, so they are character boundaries.
fn secret_at(text: &str, start: usize, end: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let word = &text[start..end];
    // What follows the beginning of a PEM block is removed to the end of the text.
    if word.starts_with(PEM) {
        return Some((start, bytes.len()));
    }
    if let Some(span) = credentials::span(text, start, end).or_else(|| in_url(bytes, end)) {
        return Some(span);
    }
    if word.eq_ignore_ascii_case("bearer") {
        let value = skip(bytes, end, is_blank);
        let (from, to) = value_span(bytes, value, "");
        return (value > end && to > from).then_some((from, to));
    }
    let value = value_start(bytes, end)?;
    if !is_sensitive(word) {
        return None;
    }
    let (from, to) = value_span(bytes, value, word);
    let counts = bytes[from..to].iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    let secret = !counts || is_sensitive_number(word);
    (secret && to > from).then_some((from, to))
}

/// The user and password of a URL whose scheme ends at `end`, or the whole path of one that is a
/// key.
fn in_url(bytes: &[u8], end: usize) -> Option<(usize, usize)> {
    const KEYS: &[u8] = b"hooks.slack.com/services/";
    let rest = bytes[end..].strip_prefix(b"://")?;
    let from = end + 3;
    if rest.starts_with(KEYS) {
        let to =
            skip(bytes, from, |byte| byte.is_ascii_graphic() && !b"\"'<>\\,;)".contains(&byte));
        return (to > from + KEYS.len()).then_some((from + KEYS.len(), to));
    }
    let ends = |byte: u8| is_blank(byte) || b"/?#\"'<>\\".contains(&byte);
    let authority = &bytes[from..skip(bytes, from, |byte| !ends(byte))];
    let at = authority.iter().rposition(|byte| *byte == b'@')?;
    (at > 0 && authority[..at].contains(&b':')).then_some((from, from + at))
}

/// Where the value begins if a name ends at `end`: behind a closing quote and bracket, and `:`,
/// `=`, `:=`, `==` or `=>`. A `::` is a path and names no value.
fn value_start(bytes: &[u8], end: usize) -> Option<usize> {
    let mut at = quote_at(bytes, end).map_or(end, |quote| quote.inside);
    if bytes.get(at) == Some(&b']') {
        at += 1;
    }
    at = skip(bytes, at, is_blank);
    let separator = skip(bytes, at, |byte| matches!(byte, b':' | b'='));
    if separator == at || bytes[at..separator].starts_with(b"::") {
        return None;
    }
    let at = if bytes.get(separator) == Some(&b'>') { separator + 1 } else { separator };
    Some(skip(bytes, at, is_blank))
}

fn value_span(bytes: &[u8], value: usize, name: &str) -> (usize, usize) {
    if let Some(quote) = quote_at(bytes, value) {
        return (quote.inside, quote.close(bytes).0);
    }
    // A header's value has blanks and separators of its own: `Basic …`, `a=1; b=2`.
    if credentials::names(name, "authorization") || credentials::names(name, "cookie") {
        return (value, skip(bytes, value, |byte| !matches!(byte, b'\n' | b'\r' | b'"' | b'\\')));
    }
    (value, bare_end(bytes, value))
}

/// The end of a value without quotes of its own. Brackets and the quotes inside them are
/// followed to their end, for `Some("x")` and `Token { value: "x" }`.
fn bare_end(bytes: &[u8], value: usize) -> usize {
    if bytes[value..].starts_with(PEM.as_bytes()) {
        return bytes.len();
    }
    let (mut at, mut depth) = (value, 0_u32);
    while at < bytes.len() {
        if let Some(quote) = quote_at(bytes, at) {
            let bytes_literal = at == value + 1 && bytes[value] == b'b';
            if depth > 0 || bytes_literal {
                at = quote.close(bytes).1;
                continue;
            }
            if quote.mark == b'"' {
                break;
            }
        }
        match bytes[at] {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' if depth == 0 => break,
            b')' | b']' | b'}' => depth -= 1,
            b',' | b';' | b'&' if depth == 0 => break,
            byte if is_blank(byte) && depth == 0 => {
                let next = skip(bytes, at, is_blank);
                if bytes.get(next) != Some(&b'{') {
                    break;
                }
                at = next;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    at
}

/// An opening quotation mark and the backslashes before it.
struct Quote {
    mark: u8,
    backslashes: usize,
    inside: usize,
}

fn quote_at(bytes: &[u8], at: usize) -> Option<Quote> {
    let mark_at = skip(bytes, at, |byte| byte == b'\\');
    match bytes.get(mark_at) {
        Some(mark @ (b'"' | b'\'')) => {
            Some(Quote { mark: *mark, backslashes: mark_at - at, inside: mark_at + 1 })
        }
        _ => None,
    }
}

impl Quote {
    /// Where the quoted text ends, and where reading goes on. A mark behind more backslashes than
    /// the opening one had is part of the text; without a closing mark all that follows is.
    fn close(&self, bytes: &[u8]) -> (usize, usize) {
        let mut backslashes = 0;
        for (at, byte) in bytes.iter().enumerate().skip(self.inside) {
            if *byte == self.mark && backslashes <= self.backslashes {
                return (at - backslashes, at + 1);
            }
            backslashes = if *byte == b'\\' { backslashes + 1 } else { 0 };
        }
        (bytes.len(), bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sensitive_names() {
        for name in [
            "api_key",
            "API-Key",
            "apikey",
            "x-api-key",
            "apiKey",
            "authorization",
            "password",
            "db_passwd",
            "client_secret",
            "SECRET",
            "token",
            "stripe_token",
            "x-signature",
            "set-cookie",
            "private_key",
            "privateKey",
            "signing_key",
            "signingKey",
            "RECEIPT_KEY",
            "access_tokens",
        ] {
            assert!(is_sensitive(name), "{name}");
        }
        for name in
            ["tenant_id", "receipt_id", "keyboard", "monkey", "status", "path", "", "_", "K"]
        {
            assert!(!is_sensitive(name), "{name}");
        }
        assert!(!is_sensitive_number("prompt_tokens"));
        assert!(is_sensitive_number("token"));
        assert!(is_sensitive_number("secret_tokens"));
    }

    #[test]
    fn what_is_masked_and_what_stays() {
        for (text, masked) in [
            ("password=hunter2 user=ann", "password=REDACTED user=ann"),
            ("password: hunter2, user: ann", "password: REDACTED, user: ann"),
            ("url /x?api_key=hunter2&page=2", "url /x?api_key=REDACTED&page=2"),
            ("X-Api-Key: hunter2", "X-Api-Key: REDACTED"),
            ("Authorization: Basic hunter2==", "Authorization: REDACTED"),
            ("authorization: Bearer hunter2\nhost: a", "authorization: REDACTED\nhost: a"),
            ("Set-Cookie: a=hunter2; b=hunter2", "Set-Cookie: REDACTED"),
            ("got Bearer hunter2.a-b_c/d+e= twice", "got Bearer REDACTED twice"),
            ("got bearer  \"hunter2\".", "got bearer  \"REDACTED\"."),
            ("key sk_live_hunter2 refused", "key REDACTED refused"),
            ("keys sk_test_hunter2,rk_live_hunter2", "keys REDACTED,REDACTED"),
            ("hook whsec_hunter2", "hook REDACTED"),
            ("key taik_a:b@c.hunter2, refused", "key REDACTED, refused"),
            ("provider said sk-proj-hunter2hunter2hunter2.", "provider said REDACTED"),
            ("dial postgres://tai:hunter2@db:5432/x now", "dial postgres://REDACTED@db:5432/x now"),
            (
                "to https://hooks.slack.com/services/T0/B0/hunter2.",
                "to https://hooks.slack.com/services/REDACTED",
            ),
            (
                "see https://a.example.com/@ann and http://b:1/",
                "see https://a.example.com/@ann and http://b:1/",
            ),
            ("SMTP_PASS=hunter2 SMTP_PORT=25", "SMTP_PASS=REDACTED SMTP_PORT=25"),
            ("disk_test_01 and network_test_eu", "disk_test_01 and network_test_eu"),
            ("/sk-SK/produkty/detail/0123456789", "/sk-SK/produkty/detail/0123456789"),
            ("a risk-based-approach-to-all-of-it", "a risk-based-approach-to-all-of-it"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJodW50ZXIyIjoxfQ.aHVudGVyMg end", "jwt REDACTED end"),
            (
                r#"{"password": "hunter2", "user": "ann"}"#,
                r#"{"password": "REDACTED", "user": "ann"}"#,
            ),
            (r#"{"password":"hun\"ter2","user":"ann"}"#, r#"{"password":"REDACTED","user":"ann"}"#),
            (
                r#""{\"password\":\"hunter2\",\"user\":\"ann\"}""#,
                r#""{\"password\":\"REDACTED\",\"user\":\"ann\"}""#,
            ),
            (r#"{\"password\":\"hun\\\"ter2\",\"a\":1}"#, r#"{\"password\":\"REDACTED\",\"a\":1}"#),
            (r#"{"secret": {"a": "}hunter2"}, "b": 1}"#, r#"{"secret": REDACTED, "b": 1}"#),
            (r#"{"tokens": ["hunter2", "hunter2"], "b": 1}"#, r#"{"tokens": REDACTED, "b": 1}"#),
            (r#"{"token": 42, "tokens": 42}"#, r#"{"token": REDACTED, "tokens": 42}"#),
            ("{'secret': 'hunter2', 'b': 1}", "{'secret': 'REDACTED', 'b': 1}"),
            (
                r#"Call { password: Some("hunter 2"), user: "ann" }"#,
                r#"Call { password: REDACTED, user: "ann" }"#,
            ),
            (r#"token: Token { value: "hunter2" }, b: 1"#, "token: REDACTED, b: 1"),
            (r#"password: b"hunter2", b: 1"#, "password: REDACTED, b: 1"),
            (r#"map["secret"] = "hunter2""#, r#"map["secret"] = "REDACTED""#),
            (r#"secret => "hunter2""#, r#"secret => "REDACTED""#),
            (r#"body="api_key=hunter2" status=200"#, r#"body="api_key=REDACTED" status=200"#),
            ("private_key: -----BEGIN KEY-----\nhunter2\n", "private_key: REDACTED"),
            ("read -----BEGIN KEY-----\nhunter2\n", "read REDACTED"),
            ("password=\"hunter2 unterminated", "password=\"REDACTED"),
            ("passwört=é password=é hunter", "passwört=é password=REDACTED hunter"),
            ("secret::Error: broken", "secret::Error: broken"),
            ("password: ", "password: "),
            ("password=\"\"", "password=\"\""),
            ("the password was changed", "the password was changed"),
            ("tenant_id=acme action=grant", "tenant_id=acme action=grant"),
            ("", ""),
        ] {
            assert_eq!(mask(text), masked, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_quoted_secret_never_survives(
            before in r#"[ a-z{,:"=\\]{0,12}"#,
            name in "(api[_-]?key|Password|client_secret|stripe_token|x-signature)",
            gap in "[ ]{0,2}",
            levels in 0_usize..3,
            after in r#"[ -~]{0,20}"#,
        ) {
            let quote = "\\".repeat((1 << levels) - 1) + "\"";
            let text = format!("{before} {quote}{name}{quote}:{gap}{quote}Zq7Zq7 Zq7{quote}{after}");
            let masked = mask(&text);
            prop_assert!(!masked.contains("Zq7"), "{}", masked);
        }

        #[test]
        fn text_that_names_nothing_stays(text in "[a-zé0-9 .,/_{}\"-]{0,60}") {
            prop_assume!(!text.contains("bearer") && !text.contains("sk-"));
            prop_assert_eq!(mask(&text), text.as_str());
        }

        #[test]
        fn the_scanner_survives_its_own_syntax(text in r#"([\\"'(){}\[\]:=>,; é\n]|password|bearer|sk_live_|-----BEGIN|b){0,40}"#) {
            prop_assert!(mask(&text).len() <= text.len() * REDACTED.len());
        }
    }
}
