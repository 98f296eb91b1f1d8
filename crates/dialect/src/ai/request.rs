//! Owns: x. Refuses to know: y.
use super::{Api, Edits, Unsupported, Upstream};
use crate::{Fault, JsonLimits};
use bytes::Bytes;

/// A request for an answer to a conversation, in the client's dialect.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    api: Api,
    body: Bytes,
}

impl ChatRequest {
    /// Reads a body of `/chat/completions` ([`Api::OpenAi`]) or `/messages` ([`Api::Anthropic`]).
    pub fn parse(api: Api, body: &Bytes, _limits: &JsonLimits) -> Result<ChatRequest, Fault> {
        Ok(ChatRequest { api, body: body.clone() })
    }
    /// The dialect it was read in.
    #[must_use]
    pub fn api(&self) -> Api {
        self.api
    }
    /// The name of the model, as the client wrote it.
    #[must_use]
    pub fn model(&self) -> &str {
        ""
    }
    /// Whether the answer is to come in pieces.
    #[must_use]
    pub fn streams(&self) -> bool {
        false
    }
    /// Whether a streamed answer has to end with usage.
    #[must_use]
    pub fn wants_usage(&self) -> bool {
        false
    }
    /// Tokens that the whole answer may have, over all choices.
    #[must_use]
    pub fn output_max(&self) -> Option<u64> {
        None
    }
    /// A bound that the provider's count of the prompt cannot pass.
    #[must_use]
    pub fn input_tokens_max(&self, _picture_tokens_max: u64) -> u64 {
        0
    }
    /// Whether [`ChatRequest::continued`] makes sense: one choice, plain text.
    #[must_use]
    pub fn can_continue(&self) -> bool {
        false
    }
    /// The request for a provider.
    pub fn for_upstream(
        &self,
        _to: Api,
        _model: &str,
        _edits: &Edits,
    ) -> Result<Upstream, Unsupported> {
        Ok(Upstream { path: String::new(), body: self.body.to_vec() })
    }
    /// The same conversation with the answer so far at its end.
    pub fn continued(
        &self,
        to: Api,
        model: &str,
        _so_far: &str,
        edits: &Edits,
    ) -> Result<Upstream, Unsupported> {
        self.for_upstream(to, model, edits)
    }
}
