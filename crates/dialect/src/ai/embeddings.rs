//! Owns: x. Refuses to know: y.
use super::{Api, Unsupported, Upstream};
use crate::{Fault, JsonLimits};
use bytes::Bytes;

/// A request for vectors of texts, in OpenAI's dialect.
#[derive(Debug, Clone)]
pub struct EmbeddingsRequest {
    body: Bytes,
}

impl EmbeddingsRequest {
    /// Reads a body of `/embeddings`.
    pub fn parse(body: &Bytes, _limits: &JsonLimits) -> Result<EmbeddingsRequest, Fault> {
        Ok(EmbeddingsRequest { body: body.clone() })
    }
    /// The name of the model, as the client wrote it.
    #[must_use]
    pub fn model(&self) -> &str {
        ""
    }
    /// A bound that the provider's count of the input cannot pass.
    #[must_use]
    pub fn input_tokens_max(&self) -> u64 {
        0
    }
    /// Whether the client wants each vector as base64 of little-endian 32-bit floats.
    #[must_use]
    pub fn wants_base64(&self) -> bool {
        false
    }
    /// The request for a provider.
    pub fn for_upstream(&self, _to: Api, _model: &str) -> Result<Upstream, Unsupported> {
        Ok(Upstream { path: String::new(), body: self.body.to_vec() })
    }
}
