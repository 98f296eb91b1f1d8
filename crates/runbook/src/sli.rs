//! The table of SLIs: one definition each.
//!
//! Owns: names, units, labels, and the formula from which both the value and the PromQL are made.
//! Refuses to know: thresholds, and who asks.

mod formula;
mod page;
mod promql;
mod reading;
mod table;

pub use page::markdown;
pub use promql::INTERVAL;
pub use reading::Measured;
pub use table::SLIS;

pub(crate) use formula::{Outcome, Scope, Taken};

use crate::unit::Unit;

/// A named service level indicator.
#[derive(Debug)]
pub struct Sli {
    /// Its name in conditions.
    pub name: &'static str,
    /// What its value counts.
    pub unit: Unit,
    /// The labels by which it can be narrowed or asked for one by one.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
    formula: Formula,
}

/// How a value is made from samples of a window. Rates and increases are those that samples cover:
/// unlike Prometheus, nothing is extrapolated to the ends of the window.
#[derive(Debug)]
enum Formula {
    /// The increase of `part` in that of `whole`, divided by `budget`. Too little where `whole`
    /// is below [`FLOOR`].
    Share { part: &'static [Select], whole: &'static [Select], budget: f64 },
    /// Increase a second.
    Rate(Select),
    /// Increase.
    Increase(Select),
    /// Rate of a counter, divided by a gauge.
    RatePer { of: Select, per: Select },
    /// A quantile of a histogram whose unit is so many to the base unit.
    Quantile { of: Select, rank: f64, divisor: f64 },
    /// A gauge over the window, then over the series.
    Level { of: Select, over: Over, across: Across },
    /// A gauge as a share of another.
    LevelShare { of: Select, limit: Select },
    /// What a gauge grows by in a second, by least squares.
    Slope(Select),
    /// What a gauge will be in so many seconds if it goes on like this, as a share of another.
    Forecast { of: Select, limit: Select, ahead_s: f64 },
    /// 1 while the rate is far above what it was within the last hour.
    Spike(Select),
    /// A counter less two others' or gauges' newest values.
    Balance { of: Select, less: &'static [Select] },
}

/// Requests a second below which a share says nothing.
const FLOOR: f64 = 0.05;
/// A spike is more than so many times the usual rate, and more than so many events a second.
const SPIKE_TIMES: f64 = 3.0;
const SPIKE_FLOOR: f64 = 0.2;
/// The usual rate is the median of one rate a minute over an hour.
const USUAL_STEPS: i64 = 60;
const USUAL_STEP_US: i64 = 60_000_000;

/// Some of the series of a metric.
#[derive(Debug)]
pub(crate) struct Select {
    pub(crate) metric: &'static str,
    pub(crate) with: &'static [(&'static str, Match)],
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Match {
    Is(&'static str),
    /// Three characters that begin with this one.
    Class(char),
    /// Does not begin with this text.
    Outside(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Over {
    Average,
    Highest,
}

#[derive(Debug, Clone, Copy)]
enum Across {
    Lowest,
    Highest,
}

impl Sli {
    /// The SLI of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Sli> {
        SLIS.iter().find(|sli| sli.name == name)
    }
}

/// The known name that is nearest to a misspelt one; `None` where none is near.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A name is at most so long, and comparing takes the square of it.
    let written: String = written.chars().take(64).collect();
    let far = |name: &&str| distance(&written, name);
    let best = known.into_iter().min_by_key(far)?;
    (distance(&written, best) <= best.len() / 3).then_some(best)
}

/// Characters to be changed, added or taken away to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (slot, y) in row.iter_mut().skip(1).zip(b.chars()) {
            let cost = (diagonal + usize::from(x != y)).min(left + 1).min(*slot + 1);
            diagonal = std::mem::replace(slot, cost);
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_have_the_form_of_the_grammar() {
        let mut names: Vec<&str> = SLIS.iter().map(|sli| sli.name).collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
        for name in names {
            assert!(name.contains('.') && name.len() <= 64, "{name}");
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._".contains(c);
            assert!(name.chars().all(fits), "{name}");
        }
    }

    #[test]
    fn help_is_one_sentence() {
        for sli in SLIS {
            assert!(sli.help.ends_with('.'), "{}", sli.name);
            assert!(sli.help.starts_with(|c: char| c.is_ascii_uppercase() || c == '1'));
        }
    }

    #[test]
    fn a_misspelt_name_finds_its_neighbour_and_nonsense_finds_none() {
        let names = || SLIS.iter().map(|sli| sli.name);
        assert_eq!(nearest("http.eror_rate", names()), Some("http.error_rate"));
        assert_eq!(nearest("http.latency.p97", names()), Some("http.latency.p95"));
        assert_eq!(nearest("qqqqqqqqqqqqqqq", names()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
