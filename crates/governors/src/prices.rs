//! What tokens cost.
//!
//! Owns: the keys and ranges of a model's prices, and how tokens become money. Refuses to know: who
//! pays, and how many tokens a call will need.

use types::Usage;
use types::limits::INTEGER_MAX;

use crate::section::{CatalogueError, Section};

/// Dearest price of a million tokens, in units of the currency. With [`types::limits::CALL_TOKENS`]
/// it keeps what a call may cost an integer of a receipt.
pub(crate) const PRICE_UNITS_MAX: u64 = 1_000_000;

/// The prices of one model and what bounds its use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPrice {
    /// Micros per million tokens, in the order of [`Usage::BUCKETS`].
    micros_per_million: [u64; Usage::BUCKETS.len()],
    /// Tokens that one picture may count for at most.
    pub image_tokens_max: Option<u64>,
    /// Tokens that the model can answer at most.
    pub output_tokens_max: Option<u64>,
}

impl ModelPrice {
    /// What `usage` costs, in micros of the catalogue's currency: rounded up once, because a call
    /// that used something is never free by rounding.
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> i64 {
        let parts = usage.counts().into_iter().zip(self.micros_per_million);
        micros(parts.map(|(tokens, price)| u128::from(tokens) * u128::from(price)).sum())
    }

    /// The dearest that a token of the prompt can be, in micros per million. What the provider's own
    /// tools read counts as part of the prompt; sound may be on either side.
    #[must_use]
    pub fn input_max(&self) -> u64 {
        let price = Usage::of(self.micros_per_million);
        let Usage { input, cache_read, cache_write, audio, image, tool, .. } = price;
        [input, cache_read, cache_write, audio, image, tool].into_iter().fold(0, u64::max)
    }

    /// The dearest that a token of the answer can be, in micros per million.
    #[must_use]
    pub fn output_max(&self) -> u64 {
        let Usage { output, reasoning, audio, .. } = Usage::of(self.micros_per_million);
        output.max(reasoning).max(audio)
    }
}

/// Micros of tokens × micros per million tokens: rounded up, and an integer of a receipt.
pub(crate) fn micros(product: u128) -> i64 {
    i64::try_from(product.div_ceil(MILLION)).unwrap_or(INTEGER_MAX).min(INTEGER_MAX)
}

/// Tokens whose price is counted together.
pub(crate) const MILLION: u128 = 1_000_000;

/// Reads the prices of one model.
pub(crate) fn model_price(section: &Section<'_>) -> Result<ModelPrice, CatalogueError> {
    let limits = ["image_tokens_max", "output_tokens_max"];
    section.only(&[Usage::BUCKETS, &limits].concat())?;
    let of = |key: &str| section.millionths(key, PRICE_UNITS_MAX);
    let required = |key: &str| of(key)?.ok_or_else(|| section.missing(key));
    let (input, output) = (required("input")?, required("output")?);
    let prices = Usage {
        input,
        cache_read: of("cache_read")?.unwrap_or(input),
        cache_write: of("cache_write")?.unwrap_or(input),
        output,
        reasoning: of("reasoning")?.unwrap_or(output),
        audio: of("audio")?.unwrap_or(input),
        image: of("image")?.unwrap_or(input),
        tool: of("tool")?.unwrap_or(0),
    };
    let tokens = |key: &str| {
        let range = 0..=types::limits::CALL_TOKENS.cast_signed();
        let tokens = section.optional_integer(key, range, "an integer from 0 to 1000000000")?;
        Ok(tokens.map(i64::unsigned_abs))
    };
    Ok(ModelPrice {
        micros_per_million: prices.counts(),
        image_tokens_max: tokens("image_tokens_max")?,
        output_tokens_max: tokens("output_tokens_max")?,
    })
}
