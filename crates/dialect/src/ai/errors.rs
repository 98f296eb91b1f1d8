//! Owns: x. Refuses to know: y.
use super::Api;

/// Whom an error of a provider speaks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum About {
    /// The provider's key: wrong, not permitted, without credit.
    Key,
    /// The way to the model, or the model: broken, busy, too slow.
    Route,
    /// The request itself: every provider would say so.
    Request,
    /// What is asked for is not permitted: not to be routed around.
    Policy,
}

/// An error as a provider tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// Whom it speaks about.
    pub about: About,
    /// The provider's own word for it, made plain: at most 64 letters, digits, `.`, `_` and `-`.
    pub code: String,
    /// Whether it asks to be called less.
    pub is_throttle: bool,
    /// The provider's sentence, at most 512 bytes, without control characters. Not for clients where
    /// it is about the key.
    pub message: String,
}

impl ProviderError {
    /// Reads the body of an answer that is not a 2xx; total: any body has a meaning.
    #[must_use]
    pub fn parse(_from: Api, _status: u16, _body: &[u8]) -> ProviderError {
        ProviderError {
            about: About::Route,
            code: String::new(),
            is_throttle: false,
            message: String::new(),
        }
    }
}

/// The word for the type of an error of that HTTP status.
#[must_use]
pub fn error_type(_api: Api, _status: u16) -> &'static str {
    ""
}

/// The body of a refusal for a client. `ours` are further members of the error object, as names and
/// JSON values.
#[must_use]
pub fn client_error(
    _api: Api,
    _status: u16,
    _code: &str,
    _message: &str,
    _request_id: &str,
    _ours: &[(&str, serde_json::Value)],
) -> Vec<u8> {
    Vec::new()
}
