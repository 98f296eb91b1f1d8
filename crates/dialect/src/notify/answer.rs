//! What a far side's answer means where all of them agree.
//!
//! Owns: the meaning of a status. Refuses to know: bodies.

use std::time::Duration;

/// What came of an attempt to deliver a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The far side has taken it.
    Delivered {
        /// What it calls it, where it says so.
        remote: Option<String>,
    },
    /// It was not sent, or the far side has said that it has not taken it and may do so later.
    Retry {
        /// Not before so long from now.
        after: Option<Duration>,
    },
    /// The far side has not taken it and never will, or there is no such channel.
    Refused {
        /// Why, in our own words.
        why: &'static str,
    },
    /// It was sent, and no answer came that says what became of it: none at all, or one that is not
    /// the far side's own. Another attempt may tell it twice unless the channel's repeats are
    /// known.
    Unknown,
}

/// Characters of what a far side calls something; what is longer is not kept.
const REMOTE_CHARS: usize = 128;

impl Delivery {
    pub(super) fn delivered(remote: Option<&str>) -> Delivery {
        let remote = remote
            .filter(|remote| remote.chars().count() <= REMOTE_CHARS)
            .filter(|remote| !remote.is_empty() && !remote.contains(char::is_control));
        Delivery::Delivered { remote: remote.map(str::to_owned) }
    }
}

/// What any status but a success means; `None` for a success.
pub(super) fn failure(status: u16, retry_after: Option<Duration>) -> Option<Delivery> {
    let refused = |why| Some(Delivery::Refused { why });
    match status {
        200..=299 => None,
        300..=399 => refused("it points elsewhere, and redirects are not followed"),
        408 | 425 | 429 => Some(Delivery::Retry { after: retry_after }),
        401 | 403 | 407 => refused("it refuses the credentials"),
        404 | 410 => refused("there is nothing at its address"),
        413 => refused("the notice is too large for it"),
        400..=499 => refused("it refuses the request"),
        // Somebody in between has passed the request on, and has heard nothing that makes sense.
        502 | 504 => Some(Delivery::Unknown),
        500..=599 => Some(Delivery::Retry { after: retry_after }),
        _ => Some(Delivery::Unknown),
    }
}

/// As [`failure`]; any success is enough.
pub(super) fn by_status(status: u16, retry_after: Option<Duration>) -> Delivery {
    failure(status, retry_after).unwrap_or(Delivery::Delivered { remote: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_one_meaning() {
        let after = Some(Duration::from_secs(7));
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(failure(status, after), None, "{status}");
        }
        for status in [408, 425, 429, 500, 503, 599] {
            assert_eq!(failure(status, after), Some(Delivery::Retry { after }), "{status}");
        }
        for status in [301, 302, 307, 400, 401, 403, 404, 405, 409, 410, 413, 422, 451] {
            let found = failure(status, after);
            assert!(matches!(found, Some(Delivery::Refused { .. })), "{status}");
        }
        for status in [0, 100, 502, 504, 600, 999] {
            assert_eq!(failure(status, after), Some(Delivery::Unknown), "{status}");
        }
    }

    #[test]
    fn what_a_far_side_calls_a_notice_is_kept_where_it_is_a_name() {
        let long = "x".repeat(129);
        for (said, kept) in
            [("abc", Some("abc")), ("", None), ("a\nb", None), (long.as_str(), None)]
        {
            let expected = Delivery::Delivered { remote: kept.map(str::to_owned) };
            assert_eq!(Delivery::delivered(Some(said)), expected);
        }
    }
}
