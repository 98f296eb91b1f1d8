//! The rules as data: plans, prices, thresholds.
//!
//! Owns: what a catalogue file holds, and the keys and ranges of thresholds. Refuses to know: where
//! the file lives, and any tenant.

use toml::Table;
use types::EntitlementId;

use crate::oncall::Policy;
use crate::plan::{Plan, micros_per_minor, plan};
use crate::prices::{ModelPrice, model_price};
use crate::section::{CatalogueError, Section};

/// Longest interval that a throttle may put between two calls: one hour.
const MIN_INTERVAL_MAX_MS: i64 = 3_600_000;
/// Longest lease of a throttle: one day. An effect without an end is never leased out.
const LEASE_MAX_S: i64 = 86_400;
/// The registered action whose arguments the throttle keys are.
pub(crate) const THROTTLE: &str = "throttle";

/// The catalogue inside the program.
pub(crate) const SHIPPED: &str = include_str!("../catalogue.toml");

/// What governors decide by. Built once at the start; shared and never changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Plans and prices.
    pub catalogue: Catalogue,
    default_profile: Profile,
    metric_profiles: Vec<(String, Profile)>,
    severities: Vec<(String, i64)>,
    /// In ascending order of names.
    models: Vec<(String, ModelPrice)>,
    pub(crate) oncall: Policy,
}

/// Plans and prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// The catalogue's own version, repeated on every quote.
    pub version: String,
    /// ISO 4217 code of every price.
    pub currency: String,
    plans: Vec<Plan>,
    default_plan: usize,
}

/// Thresholds of one metric, in thousandths like the signals, and what to do above them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) warn_above_milli: i64,
    pub(crate) intervene_above_milli: i64,
    pub(crate) action: String,
    pub(crate) throttle_min_interval_ms: i64,
    pub(crate) throttle_lease_s: i64,
}

impl Profile {
    /// The arguments of the action, in the order that the effect names them.
    pub(crate) fn args(&self) -> Vec<(&'static str, i64)> {
        if self.action != THROTTLE {
            return Vec::new();
        }
        vec![("min_interval_ms", self.throttle_min_interval_ms), ("lease_s", self.throttle_lease_s)]
    }
}

impl Catalogue {
    /// The plan of that name or alias.
    #[must_use]
    pub fn plan(&self, name: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.name == name || plan.aliases.iter().any(|a| a == name))
    }

    /// What a tenant without an active entitlement is quoted.
    #[must_use]
    pub fn default_plan(&self) -> &Plan {
        &self.plans[self.default_plan]
    }

    /// Micros in one minor unit of the catalogue's currency.
    #[must_use]
    pub fn micros_per_minor(&self) -> i64 {
        micros_per_minor(&self.currency)
    }

    /// Every plan, in ascending order of names.
    #[must_use]
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }
}

impl Rules {
    /// The rules that ship inside the program. Fails only when the shipped file is broken, which
    /// a test rules out.
    pub fn builtin() -> Result<Rules, CatalogueError> {
        Rules::parse(SHIPPED)
    }

    /// Reads a catalogue file. Unknown keys are refused, so that a misspelt limit is never a
    /// limit that silently does not hold.
    pub fn parse(toml_text: &str) -> Result<Rules, CatalogueError> {
        let root = toml_text.parse::<Table>().map_err(|error| {
            let before = error.span().and_then(|span| toml_text.get(..span.start)).unwrap_or("");
            CatalogueError::Syntax { line: before.matches('\n').count() + 1 }
        })?;
        let root = Section { path: String::new(), table: &root };
        root.only(&[
            "version",
            "currency",
            "default_plan",
            "plans",
            "models",
            "signals",
            "oncall",
        ])?;
        let signals = root.section("signals")?;
        signals.only(&["default", "metrics", "severity"])?;
        let default_profile = profile(&signals.section("default")?, None)?;
        let metric_profiles = match signals.table.get("metrics") {
            None => Vec::new(),
            Some(_) => {
                let metrics = signals.section("metrics")?;
                metrics.each(|name, metric| Ok((name, profile(metric, Some(&default_profile))?)))?
            }
        };
        let severity = signals.section("severity")?;
        let severities = severity
            .table
            .keys()
            .map(|word| Ok((word.clone(), severity.threshold(word)?)))
            .collect::<Result<_, _>>()?;
        let mut models = match root.table.get("models") {
            None => Vec::new(),
            Some(_) => {
                root.section("models")?.each_model(|name, model| Ok((name, model_price(model)?)))?
            }
        };
        models.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let catalogue = catalogue(&root)?;
        let oncall = match root.table.get("oncall") {
            // A catalogue of plans alone need not say who is on call.
            None => Policy::builtin()?,
            Some(_) => Policy::read(&root.section("oncall")?)?,
        };
        Ok(Rules { catalogue, default_profile, metric_profiles, severities, models, oncall })
    }

    /// Who is told of incidents.
    #[must_use]
    pub fn oncall(&self) -> &Policy {
        &self.oncall
    }

    /// The same rules where only these channels are set up; `shown` are those of them that show how
    /// things stand and wake nobody.
    #[must_use]
    pub fn with_channels(mut self, channels: &[&str], shown: &[&str]) -> Rules {
        self.oncall = self.oncall.with_channels(channels, shown);
        self
    }

    /// What calls to a model cost; `None` when the catalogue does not say.
    #[must_use]
    pub fn price(&self, model: &str) -> Option<&ModelPrice> {
        let at = self.models.binary_search_by(|(name, _)| (**name).cmp(model)).ok()?;
        Some(&self.models[at].1)
    }

    /// The names of all models that have a price, in ascending order.
    pub fn priced_models(&self) -> impl Iterator<Item = &str> {
        self.models.iter().map(|(name, _)| &**name)
    }

    /// The actions that signals can lead to, some of them more than once.
    pub fn signal_actions(&self) -> impl Iterator<Item = &str> {
        let profiles = self.metric_profiles.iter().map(|(_, profile)| profile);
        profiles.chain([&self.default_profile]).map(|profile| &*profile.action)
    }

    /// What the severity word of an autonomic signal counts as, in thousandths.
    #[must_use]
    pub fn severity_milli(&self, word: &str) -> Option<i64> {
        self.severities.iter().find(|(name, _)| name == word).map(|(_, milli)| *milli)
    }

    pub(crate) fn profile(&self, metric: &str) -> &Profile {
        let own = self.metric_profiles.iter().find(|(name, _)| name == metric);
        own.map_or(&self.default_profile, |(_, profile)| profile)
    }
}

fn catalogue(root: &Section<'_>) -> Result<Catalogue, CatalogueError> {
    let currency = root.word("currency")?;
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(root.invalid("currency", "three upper-case letters"));
    }
    let plans = root.section("plans")?.each(plan)?;
    let mut names: Vec<(&str, usize)> = Vec::new();
    for (at, plan) in plans.iter().enumerate() {
        for name in std::iter::once(&plan.name).chain(&plan.aliases) {
            if names.iter().any(|(taken, _)| taken == name) {
                let key = format!("plans.{}.aliases", plan.name);
                return Err(CatalogueError::Invalid { key, expected: "names used only once" });
            }
            names.push((name, at));
        }
    }
    let wanted = root.word("default_plan")?;
    let default_plan = plans
        .iter()
        .position(|plan| plan.name == wanted)
        .ok_or_else(|| root.invalid("default_plan", "the name of a plan"))?;
    // A tenant that nobody granted anything holds the default plan under its name.
    if EntitlementId::new(&wanted).is_err() {
        return Err(root.invalid("default_plan", "a plan whose name begins with a letter or digit"));
    }
    Ok(Catalogue { version: root.word("version")?, currency, plans, default_plan })
}

/// Keys absent from a metric's table are those of the default; the default has them all.
fn profile(section: &Section<'_>, base: Option<&Profile>) -> Result<Profile, CatalogueError> {
    section.only(&[
        "warn_above",
        "intervene_above",
        "action",
        "throttle_min_interval_ms",
        "throttle_lease_s",
    ])?;
    let inherited = |key: &str| base.filter(|_| !section.table.contains_key(key));
    let profile = Profile {
        warn_above_milli: match inherited("warn_above") {
            Some(base) => base.warn_above_milli,
            None => section.threshold("warn_above")?,
        },
        intervene_above_milli: match inherited("intervene_above") {
            Some(base) => base.intervene_above_milli,
            None => section.threshold("intervene_above")?,
        },
        action: match inherited("action") {
            Some(base) => base.action.clone(),
            None => section.word("action")?,
        },
        throttle_min_interval_ms: match inherited("throttle_min_interval_ms") {
            Some(base) => base.throttle_min_interval_ms,
            None => section.integer(
                "throttle_min_interval_ms",
                1..=MIN_INTERVAL_MAX_MS,
                "an integer from 1 to 3600000",
            )?,
        },
        throttle_lease_s: match inherited("throttle_lease_s") {
            Some(base) => base.throttle_lease_s,
            None => section.integer(
                "throttle_lease_s",
                1..=LEASE_MAX_S,
                "an integer from 1 to 86400",
            )?,
        },
    };
    if profile.warn_above_milli > profile.intervene_above_milli {
        return Err(section.invalid("warn_above", "at most intervene_above"));
    }
    Ok(profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../catalogue.toml");

    #[test]
    fn the_shipped_catalogue_holds_the_launch_prices_and_the_seed_thresholds() {
        let rules = Rules::builtin().unwrap();
        let price = |name| rules.catalogue.plan(name).map(|plan| plan.price_minor_per_month);
        assert_eq!(price("starter"), Some(250_000));
        assert_eq!(price("base"), price("starter"));
        assert_eq!(price("professional"), Some(1_500_000));
        assert_eq!(price("enterprise"), Some(7_500_000));
        assert_eq!(price("platinum"), None);
        assert_eq!(rules.catalogue.default_plan().name, "starter");
        assert_eq!(rules.catalogue.currency, "USD");
        assert_eq!(rules.profile("cpu").warn_above_milli, 60_000);
        assert_eq!(rules.profile("cpu").intervene_above_milli, 80_000);
        assert_eq!(rules.severity_milli("critical"), Some(90_000));
        assert_eq!(rules.severity_milli("info"), Some(0));
        assert_eq!(rules.severity_milli("loud"), None);
    }

    #[test]
    fn a_metric_profile_overrides_only_what_it_names() {
        let text = format!("{SHIPPED}\n[signals.metrics.queue]\nintervene_above = 500\n");
        let rules = Rules::parse(&text).unwrap();
        let profile = rules.profile("queue");
        assert_eq!(profile.intervene_above_milli, 500_000);
        assert_eq!(profile.warn_above_milli, 60_000);
        assert_eq!(profile.action, "throttle");
        assert_eq!(rules.profile("cpu").intervene_above_milli, 80_000);
    }

    #[test]
    fn only_a_throttle_takes_throttle_arguments() {
        let text = SHIPPED.replace("action = \"throttle\"", "action = \"scale\"");
        assert_eq!(Rules::parse(&text).unwrap().profile("cpu").args(), vec![]);
        let args = Rules::builtin().unwrap().profile("cpu").args();
        assert_eq!(args, vec![("min_interval_ms", 1000), ("lease_s", 60)]);
    }

    #[test]
    fn a_broken_catalogue_is_refused_by_key_and_never_by_value() {
        for (find, replace, message) in [
            ("version = \"2026-11-01\"", "", "lacks version"),
            ("\"2026-11-01\"", "\"sec ret\"", "key version must be 1 to 64 letters"),
            ("\"USD\"", "\"secret\"", "key currency must be three upper-case letters"),
            ("= \"starter\"", "= \"secret\"", "key default_plan must be the name of a plan"),
            ("= \"starter\"", "= \"base\"", "key default_plan must be the name of a plan"),
            (
                "= \"starter\"",
                "= \"-s\"\n[plans.-s]\naliases = []\nprice_minor_per_month = 1\nfeatures = []",
                "key default_plan must be a plan whose name begins with a letter or digit",
            ),
            ("= 250000", "= -1", "key plans.starter.price_minor_per_month must be an integer"),
            ("= 250000", "= 2500.5", "key plans.starter.price_minor_per_month must be an integer"),
            ("= 250000", "= 9007199254740992", "price_minor_per_month must be an integer"),
            ("[\"base\"]", "[\"enterprise\"]", "aliases must be names used only once"),
            ("[\"base\"]", "\"secret\"", "plans.starter.aliases must be a list of words"),
            ("[plans.starter]", "[plans.starter]\nprize = 1", "unknown key plans.starter.prize"),
            ("currency =", "secrets = 1\ncurrency =", "unknown key secrets"),
            ("warn_above = 60", "warn_above = 81", "warn_above must be at most intervene_above"),
            ("warn_above = 60", "warn_above = -1", "key signals.default.warn_above must be"),
            ("warn_above = 60", "", "lacks signals.default.warn_above"),
            ("lease_s = 60", "lease_s = 0", "throttle_lease_s must be an integer from 1 to 86400"),
            ("lease_s = 60", "lease_s = 86401", "throttle_lease_s must be an integer from 1"),
            ("_ms = 1000", "_ms = 0", "throttle_min_interval_ms must be an integer from 1"),
            ("critical = 90", "critical = \"secret\"", "key signals.severity.critical must be"),
            ("[signals.severity]", "[signals.metrics]", "lacks signals.severity"),
            ("currency = \"USD\"", "currency = secret", "not valid toml at line 5"),
            ("currency =", "currency = \"USD\"\ncurrency =", "not valid toml at line 6"),
        ] {
            let text = SHIPPED.replacen(find, replace, 1);
            assert_ne!(text, SHIPPED, "{find}");
            let got = match Rules::parse(&text) {
                Err(error) => error.to_string(),
                Ok(_) => String::from("accepted"),
            };
            // [signals.metrics] above takes scalars where tables belong: either fault is right.
            let metrics = "key signals.metrics.critical must be a table";
            assert!(got.contains(message) || got.contains(metrics), "{find}: {got}");
            assert!(!got.replace("key secrets", "").contains("secret"), "{got}");
        }
    }
}
