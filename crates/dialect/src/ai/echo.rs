//! Owns: x. Refuses to know: y.
use super::{ChatRequest, EmbeddingsRequest, Ids};
use bytes::Bytes;

/// The answer in OpenAI's dialect.
#[must_use]
pub fn answer(_request: &ChatRequest, _ids: &Ids) -> Vec<u8> {
    Vec::new()
}
/// The same as a stream: one item for each event.
#[must_use]
pub fn stream(_request: &ChatRequest, _ids: &Ids) -> Vec<Bytes> {
    Vec::new()
}
/// Vectors in OpenAI's dialect.
#[must_use]
pub fn embeddings(_request: &EmbeddingsRequest) -> Vec<u8> {
    Vec::new()
}
