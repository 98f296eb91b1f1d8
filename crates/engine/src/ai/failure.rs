//! What an attempt that failed means for the call, its caller and the metrics.
//!
//! Owns: that map. Refuses to know: what is tried next.

use std::time::Duration;

use dialect::ai::{About, BadStream, ProviderError};
use types::Reason;

use crate::commit::Refused;
use crate::outbound::{Clock, SendError};

/// Characters of a provider's own sentence that a caller is shown.
const SENTENCE_CHARS: usize = 300;

/// An attempt that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Label `error_type`.
    pub(crate) kind: &'static str,
    pub(crate) reason: Reason,
    /// For the caller.
    pub(crate) detail: String,
    /// When it may be worth trying the same target again.
    pub(crate) retry_after: Option<Duration>,
}

impl Failure {
    pub(crate) fn new(kind: &'static str, reason: Reason, detail: impl Into<String>) -> Failure {
        Failure { kind, reason, detail: detail.into(), retry_after: None }
    }

    /// An answer of another status than 200.
    pub(crate) fn told(error: &ProviderError, retry_after: Option<Duration>) -> Failure {
        let (kind, reason, detail) = match error.about {
            _ if error.is_throttle => (
                "rate_limit",
                Reason::ProviderBusy,
                "the provider asked to be called less".to_owned(),
            ),
            // What it says then may hold parts of the key, and is nothing that the caller can mend.
            About::Key => {
                ("auth", Reason::ProviderError, "the provider does not take our key".to_owned())
            }
            About::Route => {
                ("server_error", Reason::ProviderError, "the provider failed".to_owned())
            }
            About::Request => ("request", Reason::ProviderRejected, sentence(error)),
            About::Policy => ("policy", Reason::ProviderRejected, sentence(error)),
        };
        Failure { kind, reason, detail, retry_after }
    }

    pub(crate) fn bad_answer(detail: &'static str) -> Failure {
        Failure::new("bad_answer", Reason::ProviderError, detail)
    }

    /// As a refusal.
    pub(crate) fn refused(self) -> Refused {
        let seconds =
            |wait: Duration| i64::try_from(wait.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX);
        let retry_after_s = self.retry_after.map(|wait| seconds(wait).max(1));
        Refused { reason: self.reason, detail: self.detail, retry_after_s }
    }
}

/// The provider's own sentence: about the request, which the caller knows.
fn sentence(error: &ProviderError) -> String {
    let said: String = error.message.chars().take(SENTENCE_CHARS).collect();
    let code = if error.code.is_empty() { "request" } else { &error.code };
    if said.is_empty() {
        format!("the provider refused it: {code}")
    } else {
        format!("{code}: {said}")
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Failure {
        let (reason, detail) = match error {
            SendError::BreakerOpen { .. } => {
                (Reason::ProviderUnavailable, "the provider has failed and is left alone for now")
            }
            SendError::Paused { .. } => {
                (Reason::ProviderBusy, "the provider asked to be left alone for now")
            }
            SendError::Busy => {
                (Reason::ProviderBusy, "too many calls to the provider are under way")
            }
            SendError::RetryBudget => {
                (Reason::ProviderError, "the provider failed, and too many calls are tried again")
            }
            SendError::Dns | SendError::Connect | SendError::Tls => {
                (Reason::ProviderUnavailable, "the provider cannot be reached")
            }
            SendError::Timeout(Clock::Connect) => {
                (Reason::ProviderUnavailable, "the provider cannot be reached in time")
            }
            SendError::Timeout(Clock::Head | Clock::Deadline) => {
                (Reason::ProviderTimeout, "the provider did not answer in time")
            }
            SendError::Timeout(Clock::Gap) => {
                (Reason::ProviderTimeout, "the provider fell silent in its answer")
            }
            SendError::Reset => (Reason::ProviderError, "the provider broke off"),
            SendError::Protocol => (Reason::ProviderError, "the provider's answer is not HTTP"),
        };
        let retry_after = match error {
            SendError::BreakerOpen { retry_after } | SendError::Paused { retry_after } => {
                Some(retry_after)
            }
            SendError::Busy => Some(Duration::from_secs(1)),
            _ => None,
        };
        Failure { retry_after, ..Failure::new(error.as_str(), reason, detail) }
    }
}

impl From<BadStream> for Failure {
    fn from(error: BadStream) -> Failure {
        match error {
            BadStream::Cut => {
                Failure::new("cut", Reason::ProviderError, "the provider's answer broke off")
            }
            BadStream::TooLarge | BadStream::Malformed | BadStream::AbsurdUsage => {
                Failure::bad_answer("the provider's answer cannot be read")
            }
        }
    }
}
