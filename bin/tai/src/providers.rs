//! The providers' file: who serves which models, and what is there without a file.
//!
//! Owns: the format of the file and its defaults. Refuses to know: how a provider is called, and
//! what a model costs. Keys are named by their environment variable, never written here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use dialect::ai::Api;
use egress::Dependency;
use engine::ai::learn::Observed;
use engine::ai::models::{Labels, Model, Models, NAME_CHARS, Provider, Speaks, Target};
use governors::Rules;
use serde::Deserialize;
use settings::{Secret, Settings};

/// Calls of one provider under way at the same time, where the file does not say.
const IN_FLIGHT_MAX: usize = 1_000;

/// The longest wait for a connection, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// The name of the provider that needs no network.
const ECHO: &str = "echo";

/// The vendors that are there as soon as their key is set.
const VENDORS: [(&str, Api, &str, &[&str]); 3] = [
    (
        "openai",
        Api::OpenAi,
        "https://api.openai.com/v1",
        &["gpt-*", "o1*", "o3*", "o4*", "text-embedding-*"],
    ),
    ("anthropic", Api::Anthropic, "https://api.anthropic.com/v1", &["claude-*"]),
    ("gemini", Api::Gemini, "https://generativelanguage.googleapis.com/v1beta", &["gemini-*"]),
];

/// What the file and the settings amount to.
pub(crate) struct Providers {
    pub(crate) models: Models,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    providers: BTreeMap<String, ProviderRow>,
    #[serde(default)]
    models: BTreeMap<String, ModelRow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderRow {
    api: String,
    base_url: Option<String>,
    key_env: Option<String>,
    max_concurrent: Option<usize>,
    #[serde(default)]
    allow_private: bool,
    #[serde(default)]
    serves: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelRow {
    targets: Vec<TargetRow>,
    first_token_timeout_ms: Option<u64>,
    total_timeout_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetRow {
    provider: String,
    model: String,
    price: Option<String>,
    weight: Option<u32>,
    order: Option<u32>,
    #[serde(default)]
    continues: bool,
}

/// Reads the file that the settings name, if they name one, and adds what is there without it.
/// `variable` looks an environment variable up.
///
/// # Errors
/// Names the setting and the place in the file, never a value.
pub(crate) fn read(
    settings: &Settings,
    rules: &Rules,
    variable: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Providers> {
    let file = match &settings.providers_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).context("PROVIDERS_FILE: cannot be read")?;
            parse(&text).context("PROVIDERS_FILE")?
        }
        None => File::default(),
    };
    let mut table = Table::new(rules);
    let keys = [&settings.openai_api_key, &settings.anthropic_api_key, &settings.gemini_api_key];
    for ((name, api, base, serves), key) in VENDORS.into_iter().zip(keys) {
        if let Some(key) = key.as_ref().filter(|_| !file.providers.contains_key(name)) {
            table.vendor(name, api, base, serves, key);
        }
    }
    for (name, row) in &file.providers {
        table
            .provider(name, row, variable)
            .with_context(|| format!("PROVIDERS_FILE: providers.{name}"))?;
    }
    table.echo();
    for (name, row) in file.models {
        let place = format!("PROVIDERS_FILE: models.{name}");
        table.model(name, row).context(place)?;
    }
    Ok(table.finish())
}

fn parse(text: &str) -> anyhow::Result<File> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.lines().count().max(1);
        // What stands behind the colon may be a value.
        let what = error.message().split(':').next().unwrap_or_default().to_owned();
        anyhow::anyhow!("line {line}: {what}")
    })
}

struct Table {
    providers: BTreeMap<&'static str, Arc<Provider>>,
    models: Vec<Model>,
    dependencies: Vec<Dependency>,
    labels: Labels,
}

impl Table {
    fn new(rules: &Rules) -> Table {
        let labels = rules.priced_models().map(|name| (name.to_owned(), leak(name))).collect();
        Table { providers: BTreeMap::new(), models: Vec::new(), dependencies: Vec::new(), labels }
    }

    fn add(&mut self, provider: Provider) {
        self.providers.insert(provider.name, Arc::new(provider));
    }

    fn vendor(&mut self, name: &'static str, api: Api, base: &str, serves: &[&str], key: &Secret) {
        self.dependencies.push(Dependency {
            name,
            base: base.to_owned(),
            in_flight_max: IN_FLIGHT_MAX,
            connect: CONNECT,
            is_private_allowed: false,
        });
        self.add(Provider {
            name,
            speaks: Speaks::Api(api),
            key: Some(key.expose().to_owned()),
            serves: serves.iter().map(|pattern| (*pattern).to_owned()).collect(),
        });
    }

    fn echo(&mut self) {
        if !self.providers.contains_key(ECHO) {
            let serves = vec![ECHO.to_owned()];
            self.add(Provider { name: ECHO, speaks: Speaks::Echo, key: None, serves });
        }
    }

    fn provider(
        &mut self,
        name: &str,
        row: &ProviderRow,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<()> {
        ensure!(is_name(name), "a name is 1 to 64 letters, digits, points, dashes and underscores");
        let name = leak(name);
        let speaks = match row.api.as_str() {
            "openai" => Speaks::Api(Api::OpenAi),
            "anthropic" => Speaks::Api(Api::Anthropic),
            "gemini" => Speaks::Api(Api::Gemini),
            "echo" => Speaks::Echo,
            _ => bail!("api must be openai, anthropic, gemini or echo"),
        };
        for pattern in &row.serves {
            let stem = pattern.strip_suffix('*').unwrap_or(pattern);
            let is_plain = !stem.is_empty() && !stem.contains('*') && pattern.len() <= NAME_CHARS;
            ensure!(is_plain, "serves holds names, which may end in *");
        }
        ensure!(row.max_concurrent != Some(0), "max_concurrent must be 1 or more");
        let key = match &row.key_env {
            Some(var) => {
                ensure!(
                    !var.is_empty() && is_name(var),
                    "key_env must name an environment variable"
                );
                let key = variable(var).filter(|key| !key.is_empty());
                let key = key.with_context(|| format!("the variable {var} is not set"))?;
                ensure!(
                    key.bytes().all(|byte| byte.is_ascii_graphic()),
                    "the variable {var} must hold printable ASCII characters without blanks"
                );
                Some(key)
            }
            None => None,
        };
        match (&row.base_url, speaks) {
            (Some(base), Speaks::Api(_)) => self.dependencies.push(Dependency {
                name,
                base: base.trim_end_matches('/').to_owned(),
                in_flight_max: row.max_concurrent.unwrap_or(IN_FLIGHT_MAX),
                connect: CONNECT,
                is_private_allowed: row.allow_private,
            }),
            (None, Speaks::Api(_)) => bail!("base_url is missing"),
            (Some(_), Speaks::Echo) => bail!("echo has no base_url"),
            (None, Speaks::Echo) => {}
        }
        self.add(Provider { name, speaks, key, serves: row.serves.clone() });
        Ok(())
    }

    fn model(&mut self, name: String, row: ModelRow) -> anyhow::Result<()> {
        ensure!(
            (1..=NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control),
            "a name is 1 to {NAME_CHARS} characters"
        );
        ensure!((1..=16).contains(&row.targets.len()), "targets must hold 1 to 16 targets");
        let mut targets = Vec::with_capacity(row.targets.len());
        let mut seen = BTreeSet::new();
        for (place, target) in row.targets.into_iter().enumerate() {
            let provider = self.providers.get(target.provider.as_str());
            let provider = provider.with_context(|| no_provider(place, &target.provider))?;
            ensure!(!target.model.is_empty(), "targets[{place}]: model is empty");
            ensure!(
                seen.insert((provider.name, target.model.clone())),
                "targets[{place}]: named before"
            );
            let weight = target.weight.unwrap_or(1);
            ensure!(
                (1..=1_000_000).contains(&weight),
                "targets[{place}]: weight must be 1 to 1000000"
            );
            targets.push(Target {
                provider: Arc::clone(provider),
                label: leak(&target.model),
                price: target.price.unwrap_or_else(|| target.model.clone()),
                model: target.model,
                weight,
                order: target.order.unwrap_or(u32::try_from(place).unwrap_or(u32::MAX)),
                continues: target.continues,
            });
        }
        for (name, millis) in [
            ("first_token_timeout_ms", row.first_token_timeout_ms),
            ("total_timeout_ms", row.total_timeout_ms),
        ] {
            ensure!(millis != Some(0), "{name} must be 1 or more");
        }
        targets.sort_by_key(|target| target.order);
        self.models.push(Model {
            name,
            targets,
            first_token: row.first_token_timeout_ms.map(Duration::from_millis),
            total: row.total_timeout_ms.map(Duration::from_millis),
            observed: Arc::<Observed>::default(),
        });
        Ok(())
    }

    fn finish(self) -> Providers {
        let providers = self.providers.into_values().collect();
        let models = Models::new(self.models, providers, self.labels);
        Providers { models, dependencies: self.dependencies }
    }
}

/// A vendor's provider is there as soon as its key is.
fn no_provider(place: usize, name: &str) -> String {
    match VENDORS.iter().find(|(vendor, ..)| *vendor == name) {
        Some((vendor, ..)) => {
            format!(
                "targets[{place}]: no such provider; {}_API_KEY is not set",
                vendor.to_uppercase()
            )
        }
        None => format!("targets[{place}]: no such provider"),
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// A label of metrics and the name of a header live as long as the process, and settings are read
/// once.
pub(crate) fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> anyhow::Result<Providers> {
        let file = parse(text)?;
        let mut table = Table::new(&Rules::builtin()?);
        let variable = |name: &str| (name == "ONE_KEY").then(|| "hush".to_owned());
        for (name, row) in &file.providers {
            table.provider(name, row, &variable)?;
        }
        table.echo();
        file.models.into_iter().try_for_each(|(name, row)| table.model(name, row))?;
        Ok(table.finish())
    }

    const GOOD: &str = r#"
        [providers.one]
        api = "openai"
        base_url = "http://127.0.0.1:1/v1/"
        key_env = "ONE_KEY"
        max_concurrent = 7
        allow_private = true
        serves = ["gpt-*"]
        [models.fast]
        first_token_timeout_ms = 5
        targets = [
          { provider = "echo", model = "echo", order = 9 },
          { provider = "one", model = "gpt-4o-mini", weight = 3, continues = true },
        ]
    "#;

    #[test]
    fn a_file_becomes_a_table() {
        let Providers { models, dependencies } = from(GOOD).unwrap();
        let fast = models.find("fast").unwrap();
        let targets: Vec<_> =
            fast.targets.iter().map(|target| (target.provider.name, &*target.price)).collect();
        assert_eq!(targets, [("one", "gpt-4o-mini"), ("echo", "echo")], "by order");
        assert_eq!(fast.first_token, Some(Duration::from_millis(5)));
        assert_eq!(fast.targets[0].provider.key.as_deref(), Some("hush"));
        assert_eq!(models.find("gpt-4o").unwrap().targets[0].label, "gpt-4o");
        assert_eq!(models.find("echo").unwrap().targets[0].provider.name, "echo");
        let [one] = &dependencies[..] else { panic!("one dependency") };
        assert_eq!((one.name, &*one.base, one.in_flight_max), ("one", "http://127.0.0.1:1/v1", 7));
        assert!(one.is_private_allowed);
    }

    #[test]
    fn a_broken_file_is_refused_by_place_and_never_by_value() {
        for (find, replace, message) in [
            ("api = \"openai\"", "api = \"secret\"", "api must be"),
            ("api = \"openai\"", "", "missing field"),
            ("api = \"openai\"", "api = 5", "line 3: invalid type"),
            ("max_concurrent", "secrets", "line 6: unknown field"),
            ("ONE_KEY", "NO_KEY", "the variable NO_KEY is not set"),
            ("base_url = \"http://127.0.0.1:1/v1/\"", "", "base_url is missing"),
            ("\"gpt-*\"", "\"*\"", "serves holds names"),
            ("provider = \"one\"", "provider = \"secret\"", "targets[1]: no such provider"),
            ("weight = 3", "weight = 0", "weight must be"),
            ("model = \"gpt-4o-mini\"", "model = \"\"", "targets[1]: model is empty"),
            (
                "{ provider = \"echo\", model = \"echo\", order = 9 },",
                "{ provider = \"one\", model = \"gpt-4o-mini\" },",
                "targets[1]: named before",
            ),
            ("api = \"openai\"", "api = openai", "line 3"),
        ] {
            let text = GOOD.replacen(find, replace, 1);
            assert_ne!(text, GOOD, "{find}");
            let error = from(&text).map(|_| ()).expect_err(find);
            let got = format!("{error:#}");
            assert!(got.contains(message), "{find}: {got}");
            assert!(!got.replace("`secrets`", "").contains("secret"), "{got}");
        }
    }
}
