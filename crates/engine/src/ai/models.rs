//! Which models there are, and who serves them.
//!
//! Owns: names, their targets, and the order in which targets are tried. Refuses to know: how the
//! table is written in a file, and whether a target works at the moment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dialect::ai::Api;

use crate::ai::learn::Observed;

/// Characters of a model's name.
pub const NAME_CHARS: usize = 128;

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// One of the vendors' interfaces, over the network.
    Api(Api),
    /// Nothing over the network: it repeats what it is told.
    Echo,
}

/// Who serves models.
pub struct Provider {
    /// Its name, which is also that of the dependency.
    pub name: &'static str,
    /// What it speaks.
    pub speaks: Speaks,
    /// Its key; never shown.
    pub key: Option<String>,
    /// Names that it serves without being asked by name: each ends in `*` or is whole.
    pub serves: Vec<String>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map(|_| "***REDACTED***");
        f.debug_struct("Provider")
            .field("name", &self.name)
            .field("key", &key)
            .finish_non_exhaustive()
    }
}

impl Provider {
    fn takes(&self, name: &str) -> bool {
        self.serves.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        })
    }
}

/// One model of one provider.
#[derive(Debug, Clone)]
pub struct Target {
    /// The provider.
    pub provider: Arc<Provider>,
    /// The model's name there.
    pub model: String,
    /// The same as a label of metrics: of a closed set.
    pub label: &'static str,
    /// The name of its price in the catalogue.
    pub price: String,
    /// Its share among the targets of the same order, 1 or more.
    pub weight: u32,
    /// Targets of a lower order are tried first.
    pub order: u32,
    /// It goes on with an answer that somebody else has begun.
    pub continues: bool,
}

/// A name that clients use, and who may answer to it.
#[derive(Debug)]
pub struct Model {
    /// The name.
    pub name: String,
    /// Its targets, at least one, in ascending order.
    pub targets: Vec<Target>,
    /// The longest wait for the first word of a stream; else the setting.
    pub first_token: Option<Duration>,
    /// The longest time of a call; else the setting.
    pub total: Option<Duration>,
    /// What its answers were like.
    pub observed: Arc<Observed>,
}

impl Model {
    /// The places of the targets in the order in which a call tries them: by order, and by lot
    /// among equals, where `dice` gives a number below its argument.
    pub(crate) fn line_up(&self, mut dice: impl FnMut(u32) -> u32) -> Vec<usize> {
        let mut left: Vec<usize> = (0..self.targets.len()).collect();
        let mut line = Vec::with_capacity(left.len());
        while let Some(first) = left.first() {
            // They are in ascending order, so that equals stand together.
            let order = self.targets[*first].order;
            let equals = left.iter().take_while(|at| self.targets[**at].order == order);
            let weights: Vec<u32> = equals.map(|at| self.targets[*at].weight).collect();
            let sum = weights.iter().copied().fold(0, u32::saturating_add);
            let mut lot = if weights.len() == 1 { 0 } else { dice(sum) };
            let mut drawn = 0;
            while drawn + 1 < weights.len() && lot >= weights[drawn] {
                lot -= weights[drawn];
                drawn += 1;
            }
            line.push(left.remove(drawn));
        }
        line
    }
}

/// Names of models that have a price, each with itself as a label.
pub type Labels = BTreeMap<String, &'static str>;

/// The label of models that nobody lists.
const UNLISTED: &str = "unlisted";

/// All models.
#[derive(Debug, Default)]
pub struct Models {
    named: BTreeMap<String, Arc<Model>>,
    providers: BTreeMap<&'static str, Arc<Provider>>,
    labels: Labels,
    /// What answers of models that nobody lists were like, all together.
    unlisted: Arc<Observed>,
    /// The same for those with a label, under `provider/label`.
    observed: BTreeMap<(&'static str, &'static str), Arc<Observed>>,
}

impl Models {
    /// The table of these models and providers; `labels` are names that metrics may show.
    #[must_use]
    pub fn new(models: Vec<Model>, providers: Vec<Arc<Provider>>, labels: Labels) -> Models {
        let named = models.into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect();
        let providers: BTreeMap<_, _> =
            providers.into_iter().map(|provider| (provider.name, provider)).collect();
        let pairs = providers.keys().flat_map(|provider| {
            labels.values().map(move |label| ((*provider, *label), Arc::default()))
        });
        let observed = pairs.collect();
        Models { named, providers, labels, unlisted: Arc::default(), observed }
    }

    /// The model of that name: one of the table, `provider/model`, or one that a provider says it
    /// serves.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Model>> {
        if let Some(model) = self.named.get(name) {
            return Some(Arc::clone(model));
        }
        let bare = || {
            let provider = self.providers.values().find(|provider| provider.takes(name))?;
            Some((provider, name))
        };
        let by_provider = name.split_once('/').and_then(|(provider, model)| {
            self.providers.get(provider).filter(|_| !model.is_empty()).map(|found| (found, model))
        });
        let (provider, model) = by_provider.or_else(bare)?;
        Some(Arc::new(self.only(provider, name, model)))
    }

    fn only(&self, provider: &Arc<Provider>, name: &str, model: &str) -> Model {
        let label = self.labels.get(model).copied();
        let observed = label.and_then(|label| self.observed.get(&(provider.name, label)));
        let target = Target {
            provider: Arc::clone(provider),
            model: model.to_owned(),
            label: label.unwrap_or(UNLISTED),
            price: model.to_owned(),
            weight: 1,
            order: 0,
            continues: false,
        };
        Model {
            name: name.to_owned(),
            targets: vec![target],
            first_token: None,
            total: None,
            observed: Arc::clone(observed.unwrap_or(&self.unlisted)),
        }
    }

    /// The models of the table, and those that a provider serves by their whole name.
    pub fn names(&self) -> impl Iterator<Item = (&str, &'static str)> {
        let named = self.named.values().filter_map(|model| {
            model.targets.first().map(|target| (model.name.as_str(), target.provider.name))
        });
        let whole = self.providers.values().flat_map(|provider| {
            let whole = provider.serves.iter().filter(|pattern| !pattern.ends_with('*'));
            whole.map(move |name| (name.as_str(), provider.name))
        });
        named.chain(whole.filter(|(name, _)| !self.named.contains_key(*name)))
    }

    /// The providers, by name.
    pub fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(name: &'static str, serves: &[&str]) -> Arc<Provider> {
        let serves = serves.iter().map(|pattern| (*pattern).to_owned()).collect();
        Arc::new(Provider { name, speaks: Speaks::Echo, key: Some("hush".into()), serves })
    }

    fn target(provider: &Arc<Provider>, order: u32, weight: u32) -> Target {
        Target {
            provider: Arc::clone(provider),
            model: format!("m{order}-{weight}"),
            label: UNLISTED,
            price: String::new(),
            weight,
            order,
            continues: false,
        }
    }

    fn model(targets: Vec<Target>) -> Model {
        let name = "fast".to_owned();
        Model { name, targets, first_token: None, total: None, observed: Arc::default() }
    }

    #[test]
    fn a_name_is_an_alias_a_path_or_a_pattern() {
        let one = provider("one", &["gpt-*", "exact"]);
        let labels = Labels::from([("gpt-4o".to_owned(), "gpt-4o")]);
        let models = Models::new(vec![model(vec![target(&one, 0, 1)])], vec![one], labels);
        let found = |name: &str| {
            let model = models.find(name)?;
            let target = &model.targets[0];
            Some((target.provider.name, target.model.clone(), target.label))
        };
        assert_eq!(found("fast").unwrap().1, "m0-1");
        assert_eq!(found("one/x/y"), Some(("one", "x/y".to_owned(), UNLISTED)));
        assert_eq!(found("gpt-4o"), Some(("one", "gpt-4o".to_owned(), "gpt-4o")));
        assert_eq!(found("exact").unwrap().1, "exact");
        for unknown in ["", "two/x", "one/", "claude", "exactly"] {
            assert_eq!(found(unknown), None, "{unknown}");
        }
        assert_eq!(models.names().collect::<Vec<_>>(), [("fast", "one"), ("exact", "one")]);
        assert!(!format!("{models:?}").contains("hush"));
    }

    #[test]
    fn lower_orders_come_first_and_equals_by_lot() {
        let one = provider("one", &[]);
        let targets = vec![target(&one, 0, 1), target(&one, 0, 3), target(&one, 1, 1)];
        let model = model(targets);
        let line = |lots: &[u32]| {
            let mut lots = lots.iter().copied();
            let line = model.line_up(|sum| lots.next().unwrap_or(0).min(sum - 1));
            line.into_iter().map(|at| model.targets[at].model.clone()).collect::<Vec<_>>()
        };
        assert_eq!(line(&[0]), ["m0-1", "m0-3", "m1-1"]);
        for lot in 1..4 {
            assert_eq!(line(&[lot]), ["m0-3", "m0-1", "m1-1"]);
        }
    }
}
