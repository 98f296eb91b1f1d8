//! A client's request for vectors.
//!
//! Owns: what of it is checked, its bound, and the request that a provider gets. Refuses to know:
//! what the vectors are for.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use types::Reason;

use super::body::Body;
use super::object::{Object, elements, string, unsupported};
use super::write::{object, quoted};
use super::{Api, Unsupported, Upstream, gemini_path};
use crate::{Fault, JsonLimits};

/// What a provider puts around one text.
const TEXT_TOKENS: u64 = 16;

/// A request for vectors of texts, in OpenAI's dialect.
#[derive(Debug, Clone)]
pub struct EmbeddingsRequest {
    body: Body,
    model: String,
    wants_base64: bool,
    dimensions: Option<u64>,
}

impl EmbeddingsRequest {
    /// Reads a body of `/embeddings`. Checks the members that are read here; what else there is, is
    /// the provider's to judge.
    pub fn parse(body: &Bytes, limits: &JsonLimits) -> Result<EmbeddingsRequest, Fault> {
        let body = Body::parse(body, limits)?;
        let model = super::request::model(&body)?;
        let invalid = |name: &str, expected: &str| {
            Fault::new(Reason::InvalidField, format!("{name} {expected}"))
        };
        let Some(input) = body.get("input") else {
            return Err(Fault::new(Reason::MissingField, "input is required"));
        };
        if inputs(input).is_empty() {
            return Err(invalid("input", "must be a string or an array that is not empty"));
        }
        let wants_base64 = match body.get("encoding_format").map(string) {
            None => false,
            Some(Some(format)) if format == "float" => false,
            Some(Some(format)) if format == "base64" => true,
            Some(_) => return Err(invalid("encoding_format", "must be float or base64")),
        };
        let dimensions = match body.get("dimensions").map(serde_json::from_str::<u64>) {
            None => None,
            Some(Ok(count @ 1..=65_536)) => Some(count),
            Some(_) => return Err(invalid("dimensions", "must be an integer from 1 to 65536")),
        };
        Ok(EmbeddingsRequest { model, wants_base64, dimensions, body })
    }

    /// The name of the model, as the client wrote it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The text of the request.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        self.body.bytes()
    }

    /// A bound that the provider's count of the input cannot pass, since a token is at least a
    /// byte.
    #[must_use]
    pub fn input_tokens_max(&self) -> u64 {
        let bound = |input: &Input<'_>| match input {
            Input::Text(text) => text.len() as u64,
            Input::Tokens(count) => *count as u64,
        };
        let inputs = self.inputs();
        inputs.iter().map(|one| bound(one).saturating_add(TEXT_TOKENS)).fold(0, u64::saturating_add)
    }

    /// Whether the client wants each vector as base64 of little-endian 32-bit floats.
    #[must_use]
    pub fn wants_base64(&self) -> bool {
        self.wants_base64
    }

    /// Numbers of each vector, where the client says so.
    #[must_use]
    pub fn dimensions(&self) -> Option<u64> {
        self.dimensions
    }

    /// The request for a provider.
    pub fn for_upstream(&self, to: Api, model: &str) -> Result<Upstream, Unsupported> {
        match to {
            Api::OpenAi => Ok(Upstream {
                path: "/embeddings".to_owned(),
                body: self.body.with(&[("model", &quoted(model))]),
            }),
            Api::Anthropic => Err(unsupported("model", "has a provider that makes no vectors")),
            Api::Gemini => self.for_gemini(model),
        }
    }

    fn for_gemini(&self, model: &str) -> Result<Upstream, Unsupported> {
        let json = std::str::from_utf8(self.body.bytes())
            .map_err(|_| unsupported("body", "must be UTF-8"))?;
        let mut rest = Object::read("", json)?;
        rest.drop_hints(&["model", "input", "encoding_format", "dimensions", "user"]);
        rest.end()?;
        let inputs = self.inputs();
        let texts: Option<Vec<&str>> = inputs
            .iter()
            .map(|input| match input {
                Input::Text(text) => Some(text.as_ref()),
                Input::Tokens(_) => None,
            })
            .collect();
        let texts = texts.ok_or_else(|| {
            unsupported("input", "must be text, not tokens, for the model's provider")
        })?;
        let body = object(|body| {
            body.array("requests", |list| {
                for text in texts {
                    list.object(|one| {
                        one.text("model", &format!("models/{model}"));
                        one.object("content", |content| {
                            content.array("parts", |parts| {
                                parts.object(|part| part.text("text", text));
                            });
                        });
                        one.some_count("outputDimensionality", self.dimensions);
                    });
                }
            });
        });
        Ok(Upstream { path: gemini_path(model, "batchEmbedContents"), body })
    }

    /// What vectors are wanted of.
    pub(super) fn inputs(&self) -> Vec<Input<'_>> {
        self.body.get("input").map(inputs).unwrap_or_default()
    }
}

/// Something to make a vector of.
#[derive(Debug)]
pub(super) enum Input<'a> {
    Text(Cow<'a, str>),
    /// How many tokens, which the client has counted itself.
    Tokens(usize),
}

/// A text, several, a list of tokens, or several such lists; empty where it is nothing of these.
fn inputs(json: &str) -> Vec<Input<'_>> {
    if let Some(text) = string(json) {
        return vec![Input::Text(text)];
    }
    let Some(list) = elements(json) else { return Vec::new() };
    let tokens = |json: &str| serde_json::from_str::<Vec<u64>>(json).ok().map(|list| list.len());
    if let Some(count) = tokens(json) {
        return if count > 0 { vec![Input::Tokens(count)] } else { Vec::new() };
    }
    let read = list.into_iter().map(|one| match string(one.get()) {
        Some(text) => Some(Input::Text(text)),
        None => tokens(one.get()).map(Input::Tokens),
    });
    read.collect::<Option<_>>().unwrap_or_default()
}

/// Numbers as OpenAI packs them.
pub(super) fn packed(numbers: &[f32]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}
