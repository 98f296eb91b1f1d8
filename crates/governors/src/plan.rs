//! Plans: what a tenant pays a month, and what it may call for that.
//!
//! Owns: the keys and ranges of a plan, and how minor units of a currency become micros. Refuses to
//! know: who holds a plan, and what has been used of it.

use types::limits::INTEGER_MAX;

use crate::section::{CatalogueError, Section};

/// One plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The name in receipts.
    pub name: String,
    /// Other names that mean this plan; unique in the catalogue.
    pub aliases: Vec<String>,
    /// Integer minor units a month, 0 or more.
    pub price_minor_per_month: i64,
    /// What the plan includes, as words.
    pub features: Vec<String>,
    /// Calls to models in a calendar month; absent means no limit.
    pub calls_per_month: Option<u64>,
    /// What calls to models may cost in a calendar month, in minor units; absent means no limit.
    pub spend_per_month_minor: Option<i64>,
    /// The models that may be called, by the names that callers use; one that ends in `*` stands for
    /// all that begin so. Absent means all.
    models: Option<Vec<String>>,
}

impl Plan {
    /// True when the plan lets a tenant call `model`.
    #[must_use]
    pub fn holds_model(&self, model: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => model.starts_with(prefix),
            None => model == pattern,
        };
        self.models.as_ref().is_none_or(|models| models.iter().any(fits))
    }
}

/// Reads one plan.
pub(crate) fn plan(name: String, section: &Section<'_>) -> Result<Plan, CatalogueError> {
    section.only(&[
        "aliases",
        "price_minor_per_month",
        "features",
        "models",
        "calls_per_month",
        "spend_per_month_minor",
    ])?;
    let calls = section.optional_integer(
        "calls_per_month",
        0..=INTEGER_MAX,
        "an integer of calls, 0 or more",
    )?;
    let models = match section.table.get("models") {
        None => None,
        Some(_) => Some(section.model_patterns("models")?),
    };
    Ok(Plan {
        name,
        aliases: section.words("aliases")?,
        price_minor_per_month: section.integer(
            "price_minor_per_month",
            0..=INTEGER_MAX,
            "an integer of minor units, 0 or more",
        )?,
        features: section.words("features")?,
        calls_per_month: calls.map(i64::unsigned_abs),
        spend_per_month_minor: section.optional_integer(
            "spend_per_month_minor",
            0..=SPEND_MINOR_MAX,
            "an integer of minor units from 0 to 9007199254",
        )?,
        models,
    })
}

/// So that the limit in micros is an integer of a receipt, whatever the currency.
const SPEND_MINOR_MAX: i64 = INTEGER_MAX / 1_000_000;

/// Micros in one minor unit of the currency, by ISO 4217: a yen has no minor unit, a dinar has a
/// thousand. Currencies that are not named here have a hundred, as nearly all do.
pub(crate) fn micros_per_minor(currency: &str) -> i64 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX"
        | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 1_000_000,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 1_000,
        _ => 10_000,
    }
}
