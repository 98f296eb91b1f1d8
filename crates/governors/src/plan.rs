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
    /// The models that may be called, by the names that callers use; one that ends in `*` stands
    /// for all that begin so. Absent means all.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;

    const SHIPPED: &str = include_str!("../catalogue.toml");

    #[test]
    fn the_shipped_plans_bound_calls_and_spend() {
        let rules = Rules::builtin().unwrap();
        for (name, calls, minor) in [
            ("starter", Some(10_000), Some(5_000)),
            ("professional", Some(100_000), Some(50_000)),
            ("enterprise", None, Some(500_000)),
        ] {
            let plan = rules.catalogue.plan(name).unwrap();
            assert_eq!(
                (plan.calls_per_month, plan.spend_per_month_minor),
                (calls, minor),
                "{name}"
            );
            assert!(plan.holds_model("whatever"), "{name}");
        }
    }

    #[test]
    fn a_plan_holds_the_models_that_it_names() {
        let with = |models: &str| {
            let text = SHIPPED.replacen("models = [\"*\"]\n", models, 1);
            Rules::parse(&text).map(|rules| rules.catalogue.plan("starter").unwrap().clone())
        };
        let some = with("models = [\"gpt-4o*\", \"meta/llama-3@1\"]\n").unwrap();
        for (model, held) in [
            ("gpt-4o", true),
            ("gpt-4o-mini", true),
            ("gpt-4", false),
            ("meta/llama-3@1", true),
            ("meta/llama-3@12", false),
        ] {
            assert_eq!(some.holds_model(model), held, "{model}");
        }
        assert!(with("").unwrap().holds_model("any"), "absent means all");
        assert!(!with("models = []\n").unwrap().holds_model("any"));
        for broken in ["[\"\"]", "[\"sec ret\"]", "[\"**\"]", "[\"a*b\"]", "[1]", "\"secret\""] {
            let error = with(&format!("models = {broken}\n")).unwrap_err().to_string();
            assert!(error.contains("plans.starter.models must be a list of names"), "{error}");
            assert!(!error.contains("secret") && !error.contains("sec ret"), "{error}");
        }
    }

    #[test]
    fn a_broken_limit_is_refused_by_key() {
        for (find, replace, message) in [
            ("calls_per_month = 10000", "calls_per_month = -1", "starter.calls_per_month must be"),
            ("calls_per_month = 10000", "calls_per_month = 1.5", "starter.calls_per_month must be"),
            ("month_minor = 5000", "month_minor = -1", "starter.spend_per_month_minor must be"),
            ("month_minor = 5000", "month_minor = 9007199255", "spend_per_month_minor must be"),
            ("month_minor = 5000", "month_minor = \"5\"", "spend_per_month_minor must be"),
        ] {
            let text = SHIPPED.replacen(find, replace, 1);
            assert_ne!(text, SHIPPED, "{find}");
            let error = Rules::parse(&text).unwrap_err().to_string();
            assert!(error.contains(message), "{replace}: {error}");
        }
    }

    #[test]
    fn minor_units_follow_the_currency() {
        for (currency, micros) in
            [("USD", 10_000), ("EUR", 10_000), ("JPY", 1_000_000), ("KWD", 1_000)]
        {
            assert_eq!(micros_per_minor(currency), micros, "{currency}");
        }
    }
}
