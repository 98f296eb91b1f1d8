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

    /// The dearest that a token of the prompt can be, in micros per million. What the provider's
    /// own tools read counts as part of the prompt; sound may be on either side.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;

    fn priced(table: &str) -> Result<ModelPrice, CatalogueError> {
        let shipped = include_str!("../catalogue.toml");
        let rules = Rules::parse(&format!("{shipped}\n[models.mine]\n{table}\n"))?;
        Ok(rules.price("mine").unwrap().clone())
    }

    #[test]
    fn absent_buckets_cost_what_they_are_kinds_of() {
        let plain = priced("input = \"3\"\noutput = \"7\"").unwrap();
        assert_eq!(
            plain.micros_per_million,
            [3, 3, 3, 7, 7, 3, 3, 0].map(|units| units * 1_000_000)
        );
        assert_eq!((plain.input_max(), plain.output_max()), (3_000_000, 7_000_000));
        assert_eq!((plain.image_tokens_max, plain.output_tokens_max), (None, None));
        let named = priced(
            "input = \"1\"\ncache_read = \"0.1\"\ncache_write = \"1.25\"\noutput = \"2\"\n\
             reasoning = \"3\"\naudio = \"4\"\nimage = \"5\"\ntool = \"0.000001\"\n\
             image_tokens_max = 9\noutput_tokens_max = 8",
        )
        .unwrap();
        let prices = [1_000_000, 100_000, 1_250_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000, 1];
        assert_eq!(named.micros_per_million, prices);
        assert_eq!((named.input_max(), named.output_max()), (5_000_000, 4_000_000));
        assert_eq!((named.image_tokens_max, named.output_tokens_max), (Some(9), Some(8)));
    }

    #[test]
    fn a_call_is_rounded_up_once() {
        let price = priced("input = \"0.15\"\noutput = \"0.60\"").unwrap();
        for (input, output, micros) in [
            (0, 0, 0),
            (1, 0, 1),
            (3, 1, 2),
            (1_000, 0, 150),
            (1_001, 0, 151),
            (1_000_000, 1_000_000, 750_000),
            (u64::MAX, u64::MAX, INTEGER_MAX),
        ] {
            let usage = Usage { input, output, ..Usage::default() };
            assert_eq!(price.cost(&usage), micros, "{input} and {output}");
        }
    }

    #[test]
    fn the_dearest_call_is_an_integer_of_a_receipt() {
        let dearest = u128::from(PRICE_UNITS_MAX) * MILLION;
        let both_sides = 2 * dearest * u128::from(types::limits::CALL_TOKENS);
        assert!(micros(both_sides) < INTEGER_MAX);
    }

    #[test]
    fn a_broken_price_is_refused_by_key_and_never_by_value() {
        for (table, message) in [
            ("output = \"2\"", "lacks models.mine.input"),
            ("input = \"2\"", "lacks models.mine.output"),
            (
                "input = 0.15\noutput = \"1\"",
                "models.mine.input must be a decimal number in quotes",
            ),
            ("input = 15\noutput = \"1\"", "models.mine.input must be a decimal"),
            ("input = \"secret\"\noutput = \"1\"", "models.mine.input must be a decimal"),
            ("input = \"0.1234567\"\noutput = \"1\"", "models.mine.input must be a decimal"),
            ("input = \"1000000.000001\"\noutput = \"1\"", "models.mine.input must be a decimal"),
            ("input = \"-1\"\noutput = \"1\"", "models.mine.input must be a decimal"),
            ("input = \"1.\"\noutput = \"1\"", "models.mine.input must be a decimal"),
            ("input = \".5\"\noutput = \"1\"", "models.mine.input must be a decimal"),
            ("input = \"1\"\noutput = \"1\"\nvideo = \"1\"", "unknown key models.mine.video"),
            (
                "input = \"1\"\noutput = \"1\"\noutput_tokens_max = -1",
                "mine.output_tokens_max must",
            ),
            (
                "input = \"1\"\noutput = \"1\"\nimage_tokens_max = 1000000001",
                "image_tokens_max must",
            ),
            ("input = \"1\"\noutput = \"1\"\n[models.\"a b\"]\n", "models.a b must be a name of"),
        ] {
            let error = priced(table).unwrap_err().to_string();
            assert!(error.contains(message), "{table}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(priced("input = \"1000000\"\noutput = \"0\"").is_ok());
    }

    #[test]
    fn well_known_models_have_prices() {
        let rules = Rules::builtin().unwrap();
        let usage = Usage { input: 1_000_000, output: 1_000_000, ..Usage::default() };
        for (model, micros) in [
            ("echo", 0),
            ("gpt-4o", 12_500_000),
            ("gpt-4o-mini", 750_000),
            ("gpt-4.1", 10_000_000),
            ("gpt-4.1-mini", 2_000_000),
            ("gpt-4.1-nano", 500_000),
            ("gpt-5", 11_250_000),
            ("gpt-5-mini", 2_250_000),
            ("text-embedding-3-small", 20_000),
            ("text-embedding-3-large", 130_000),
            ("claude-sonnet-4-5", 18_000_000),
            ("claude-haiku-4-5", 6_000_000),
            ("claude-opus-4-1", 90_000_000),
            ("gemini-2.5-pro", 17_500_000),
            ("gemini-2.5-flash", 2_800_000),
            ("gemini-2.5-flash-lite", 500_000),
        ] {
            assert_eq!(rules.price(model).map(|price| price.cost(&usage)), Some(micros), "{model}");
        }
        assert_eq!(rules.price("gpt-9"), None);
    }
}
