//! The forms that a setting's text may have.
//!
//! Owns: which texts are of a form, and the words that describe it.
//! Refuses to know: what the text names, and whether it exists.

use core::net::Ipv6Addr;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use crate::knob::FromText;
use crate::otel::{Share, header_pairs};

/// What a text must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A key that callers send in a header.
    Key,
    /// A key that a provider has given out, in whatever form it gives them.
    ProviderKey,
    /// One word.
    Word,
    /// Words on one line.
    Line,
    /// Dependencies and the state in which their breakers are held: `openai=open,local=closed`, or
    /// `none`.
    Breakers,
    /// The bytes of a key, as base64.
    Base64,
    /// The id of a Google Cloud project.
    ProjectId,
    /// The last part of the name of a Pub/Sub topic or subscription, as
    /// <https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names> defines it.
    PubsubName,
    /// A host and a port, as the emulators of Google Cloud expect it in their variables.
    HostPort,
    /// Where a PostgreSQL database is, as
    /// <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS> defines
    /// it.
    PostgresUrl,
    /// Where a Redis server is: host, port, user, password and the number of a database.
    RedisUrl,
    /// The id of a Firestore database, as
    /// <https://cloud.google.com/firestore/docs/manage-databases#database_id> defines it.
    FirestoreDatabase,
    /// Where something is asked over HTTP: scheme, host, and port, path and query if need be.
    HttpUrl,
    /// The value of an HTTP header.
    HeaderValue,
    /// HTTP headers, as <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> has them in
    /// one variable.
    HeaderPairs,
    /// A share of a whole.
    Share,
}

/// The fewest characters of a key: 128 bits even if all of them are hex digits.
const KEY_CHARS_MIN: usize = 32;
/// The fewest bytes behind base64: 128 bits.
const BASE64_BYTES_MIN: usize = 16;

/// Tools disagree about padding, and nothing depends on it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The pairs of [`Form::Breakers`]: a name, and whether its breaker is held open; `None` when the
/// text is of another form.
#[must_use]
pub fn breakers(text: &str) -> Option<Vec<(&str, bool)>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let mut pairs = Vec::new();
    for pair in text.split(',') {
        let (name, state) = pair.split_once('=')?;
        let is_open = match state {
            "open" => true,
            "closed" => false,
            _ => return None,
        };
        if name.is_empty() || !name.bytes().all(allowed) {
            return None;
        }
        pairs.push((name, is_open));
    }
    Some(pairs)
}

impl Form {
    /// Whether `text` has this form.
    pub(crate) fn accepts(self, text: &str) -> bool {
        match self {
            // No blanks: a header loses those at its ends.
            Form::Key => {
                text.len() >= KEY_CHARS_MIN && text.bytes().all(|byte| byte.is_ascii_graphic())
            }
            Form::ProviderKey | Form::Word => {
                !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
            }
            Form::Line => {
                !text.is_empty()
                    && text.trim() == text
                    && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
            }
            Form::Breakers => breakers(text).is_some(),
            Form::Base64 => BASE64.decode(text).is_ok_and(|bytes| bytes.len() >= BASE64_BYTES_MIN),
            Form::ProjectId => {
                let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
                (6..=30).contains(&text.len()) && text.bytes().all(allowed)
            }
            Form::PubsubName => {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+%".contains(&byte);
                (3..=255).contains(&text.len())
                    && text.starts_with(|first: char| first.is_ascii_alphabetic())
                    && !text.starts_with("goog")
                    && text.bytes().all(allowed)
            }
            Form::HostPort => {
                text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
            }
            Form::FirestoreDatabase => {
                let allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
                let named = (4..=63).contains(&text.len())
                    && text.starts_with(|first: char| first.is_ascii_lowercase())
                    && !text.ends_with('-')
                    && text.bytes().all(allowed);
                named || text == "(default)"
            }
            // Its parts are for the client to read; here a path or a bare name is told apart.
            Form::PostgresUrl => ["postgres://", "postgresql://"].iter().any(|scheme| {
                let rest = text.strip_prefix(scheme).unwrap_or_default();
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic())
            }),
            Form::HttpUrl => ["http://", "https://"].iter().any(|scheme| {
                let rest = text.strip_prefix(scheme).unwrap_or_default();
                // A user name has a setting of its own, and a fragment is never sent.
                let allowed = |byte: u8| byte.is_ascii_graphic() && !b"@#\"\\".contains(&byte);
                !rest.is_empty() && !rest.starts_with(['/', '?']) && rest.bytes().all(allowed)
            }),
            // No blanks at its ends: the header would lose them.
            Form::HeaderValue => {
                let allowed = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
                !text.is_empty() && text.trim() == text && text.bytes().all(allowed)
            }
            Form::HeaderPairs => header_pairs(text).is_some(),
            Form::Share => Share::from_text(text).is_some(),
            Form::RedisUrl => ["redis://", "rediss://"].iter().any(|scheme| {
                let rest = text.strip_prefix(scheme).unwrap_or_default();
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic())
            }),
        }
    }

    /// What a text of this form looks like.
    pub(crate) const fn expected(self) -> &'static str {
        match self {
            Form::Key => "at least 32 printable ASCII characters without blanks",
            Form::Breakers => "none, or names with =open or =closed and commas between them",
            Form::ProviderKey | Form::Word => "printable ASCII characters without blanks",
            Form::Line => "printable ASCII characters",
            Form::Base64 => "base64 of at least 16 bytes",
            Form::ProjectId => "6 to 30 lower-case letters, digits and hyphens",
            Form::PubsubName => {
                "3 to 255 letters, digits and - . _ ~ + %, with a letter first and not goog"
            }
            Form::HostPort => "a host and a port, such as localhost:8085",
            Form::FirestoreDatabase => {
                "(default), or 4 to 63 lower-case letters, digits and hyphens, with a letter first"
            }
            Form::PostgresUrl => "a URL such as postgres://user@host:5432/database",
            Form::HttpUrl => "a URL such as https://logs.example.com/ingest",
            Form::HeaderValue => "printable ASCII characters, without blanks at the ends",
            Form::HeaderPairs => {
                "pairs such as api-key=KEY with commas between them, % and two digits for what is special"
            }
            Form::Share => "a number from 0 to 1, with at most nine digits behind the point",
            Form::RedisUrl => "a URL such as redis://host:6379 or rediss://host:6379",
        }
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    // Underscores are no part of host names, but container tools make names with them.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=253).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse().is_ok_and(|port: u16| port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_accept_their_texts_and_nothing_else() {
        let long = |letter: &str, count: usize| letter.repeat(count);
        let (key, short) = (long("k", 32), long("k", 31));
        let (blank, accent) = (format!("{key} k"), format!("{short}\u{e9}"));
        let (name, endless) = (long("n", 255), long("n", 256));
        let (project, big) = (long("p", 30), long("p", 31));
        let (host, wide) = (format!("{}:1", long("h", 253)), format!("{}:1", long("h", 254)));
        let cases: &[(Form, &[&str], &[&str])] = &[
            (
                Form::Key,
                &[&key, "taik__keys.!\"#$%&'()*+,-./:;<=>?@", &name],
                &["", &short, &blank, &accent, &format!("{key}\0"), &format!("{key}\n")],
            ),
            (
                Form::Breakers,
                &["none", "openai=open", "a=closed,b.c-d_e=open"],
                &["", "openai", "openai=shut", "=open", "a=open,", "a=open, b=open", "a=b=open"],
            ),
            (
                Form::HttpUrl,
                &[
                    "http://127.0.0.1:8080",
                    "https://logs.example.com/ingest",
                    "http://[::1]:1/a?b=c",
                ],
                &[
                    "",
                    "https://",
                    "https:///a",
                    "logs.example.com",
                    "ftp://a",
                    "http://u:p@a",
                    "http://?b",
                    "http://a#b",
                    "http://a b",
                ],
            ),
            (
                Form::HeaderValue,
                &["Bearer token123", "k", "ApiKey a=\"b\", c"],
                &["", " k", "k ", "a\nb", "a\tb", "\u{e9}"],
            ),
            (Form::HeaderPairs, &["a=b", "a=b%20c,d=e"], &["", "a", "a=\n", "\u{e9}=a"]),
            (Form::Share, &["0", "0.25", "1"], &["", "1.1", "-0", "a"]),
            (Form::ProviderKey, &["k", "sk-proj_.~+/="], &["", "a b", "k\n", "\u{e9}"]),
            (
                Form::Base64,
                &["AAAAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAAAA", "+/+/+/+/+/+/+/+/+/+/+/+/"],
                &[
                    "",
                    // Fifteen bytes.
                    "AAAAAAAAAAAAAAAAAAAA",
                    "-_-_-_-_-_-_-_-_-_-_-_-_",
                    "AAAAAAAAAAAAAAAAAAAAAA==\n",
                    "AAAAAAAAAAAA AAAAAAAAAAAA",
                    "AAAAAAAAAAAAAAAAAAAAAA====",
                    // Bits behind the last byte.
                    "AAAAAAAAAAAAAAAAAAAAAB",
                ],
            ),
            (
                Form::ProjectId,
                &["my-project-1", "abcdef", &project],
                &["", "abcde", &big, "My-project", "my_project", "my.project", "my project"],
            ),
            (
                Form::PubsubName,
                &["abc", "A1-._~+%", "erlang-autonomics-dlq", &name, "go0g"],
                &["", "ab", &endless, "1abc", "-abc", "goog", "google", "a/b", "a b", "abc\u{e9}"],
            ),
            (
                Form::FirestoreDatabase,
                &["(default)", "tai1", "a-b-c"],
                &["", "tai", "1tai", "tai-", "Tai1", "(other)", "a/bcd"],
            ),
            (
                Form::PostgresUrl,
                &["postgres://h/d", "postgresql://u:p@h:5432/d?sslmode=disable", "postgres:///d"],
                &["", "postgres://", "mysql://h/d", "h/d", "postgres://h /d", " postgres://h/d"],
            ),
            (
                Form::RedisUrl,
                &["redis://h", "rediss://u:p@h:6380/1", "redis://:p@[::1]:6379"],
                &["", "redis://", "h:6379", "http://h", "unix:///run/r", "redis://h /1"],
            ),
            (
                Form::HostPort,
                &["localhost:8085", "10.0.0.1:1", "[::1]:65535", "pub_sub.test:80", &host],
                &[
                    "",
                    "localhost",
                    "localhost:",
                    ":80",
                    "localhost:0",
                    "localhost:65536",
                    "localhost:+80",
                    "::1:80",
                    "[::1]",
                    "[localhost]:80",
                    "http://localhost:80",
                    "user@localhost:80",
                    "local host:80",
                    &wide,
                ],
            ),
        ];
        for (form, good, bad) in cases {
            for text in *good {
                assert!(form.accepts(text), "{form:?} must accept {text:?}");
            }
            for text in *bad {
                assert!(!form.accepts(text), "{form:?} must refuse {text:?}");
            }
        }
    }
}
