//! Owns: x. Refuses to know: y.
use super::{Api, Finish, Ids};
use bytes::Bytes;
use types::{Operation, Usage};

/// Why the body of a successful answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Not the shape of the dialect.
    #[error("answer is not what the dialect says: {0}")]
    Malformed(&'static str),
    /// A count of tokens that cannot be.
    #[error("answer counts tokens that cannot be")]
    AbsurdUsage,
    /// An answer without a reason to end, or with one that says that it failed.
    #[error("answer is not complete: {0}")]
    Incomplete(&'static str),
}

/// A whole answer of a provider.
#[derive(Debug, Clone)]
pub struct Answer {
    body: Bytes,
}

impl Answer {
    /// Reads the body of a 200.
    pub fn parse(_from: Api, _op: Operation, body: &Bytes) -> Result<Answer, BadAnswer> {
        Ok(Answer { body: body.clone() })
    }
    /// What the provider says was used; `None` where it says nothing.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        None
    }
    /// Why it ended.
    #[must_use]
    pub fn finish(&self) -> Finish {
        Finish::Stop
    }
    /// Bytes of text, thought and tool arguments, for an estimate.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        0
    }
    /// The answer for the client.
    #[must_use]
    pub fn render(&self, _to: Api, _as_model: &str, _ids: &Ids) -> Vec<u8> {
        self.body.to_vec()
    }
    /// As [`Answer::render`] for vectors, each as base64 of little-endian 32-bit floats where the client
    /// wants that and the provider did not do it.
    #[must_use]
    pub fn render_vectors(&self, as_model: &str, _as_base64: bool) -> Vec<u8> {
        let _ = as_model;
        self.body.to_vec()
    }
}
