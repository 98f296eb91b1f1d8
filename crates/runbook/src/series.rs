//! Samples of our own metrics, kept for as long as a condition looks back.
//!
//! Owns: the bounds on series, samples and age, and what is refused. Refuses to know: where samples
//! come from, and what an SLI makes of them.
//!
//! A scrape holds every metric of the process at one instant. So a counter that a scrape shows for
//! the first time was zero at the scrapes before, and is kept as if they had shown it: the first
//! error of a process counts, which it does not in Prometheus.

use std::collections::{BTreeMap, VecDeque};

use crate::condition::Condition;
use crate::labels::Labels;
use crate::sli::Sli;
use crate::unit::Span;

/// Kept beyond the longest window, so that a scrape that comes late takes nothing away.
const SLACK_US: i64 = 60_000_000;

/// The bounds of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Microseconds between two scrapes, at least 1. What is older than three of them is stale.
    pub interval_us: i64,
    /// Series at the same time. Those beyond it are dropped and counted.
    pub series: usize,
}

impl Default for Limits {
    /// A scrape every 15 s, 4096 series.
    fn default() -> Limits {
        Limits { interval_us: 15_000_000, series: 4096 }
    }
}

/// Which metrics are kept, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs(BTreeMap<&'static str, Need>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) age_us: i64,
    pub(crate) is_counter: bool,
}

impl Needs {
    /// Adds what the condition looks at.
    pub fn add(&mut self, condition: &Condition) {
        condition.needs(&mut |metric, need| self.keep(metric, need));
    }

    /// Adds what the SLI looks at over a window.
    pub fn add_sli(&mut self, sli: &Sli, window: Span) {
        sli.needs(window.micros(), &mut |metric, need| self.keep(metric, need));
    }

    fn keep(&mut self, metric: &'static str, need: Need) {
        let held = self.0.entry(metric).or_insert(need);
        held.age_us = held.age_us.max(need.age_us);
    }
}

impl<'a> FromIterator<&'a Condition> for Needs {
    fn from_iter<I: IntoIterator<Item = &'a Condition>>(conditions: I) -> Needs {
        let mut needs = Needs::default();
        conditions.into_iter().for_each(|condition| needs.add(condition));
        needs
    }
}

/// What a store refused, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// Scrapes that were not later than the one before: the clock was set back.
    pub scrapes: u64,
    /// Samples of series beyond the limit.
    pub series: u64,
    /// Samples that are no finite number.
    pub values: u64,
}

/// Samples in memory.
///
/// At most `series` × (twice the longest age / interval + 8) samples of 16 bytes.
#[derive(Debug, Clone)]
pub struct Store {
    limits: Limits,
    metrics: BTreeMap<&'static str, Metric>,
    /// When scrapes were taken, the oldest first.
    ticks: VecDeque<i64>,
    series: usize,
    refused: Refused,
    /// Once a series was dropped, one that appears may have been there before.
    is_whole: bool,
}

#[derive(Debug, Clone)]
struct Metric {
    need: Need,
    /// The first scrape that was looked through for it.
    since_us: Option<i64>,
    /// By their labels as text.
    series: BTreeMap<Box<str>, Series>,
}

/// One series.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    labels: Labels,
    points: VecDeque<Point>,
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) at_us: i64,
    pub(crate) value: f64,
}

impl Store {
    /// An empty store of what `needs` names.
    #[must_use]
    pub fn new(needs: Needs, limits: Limits) -> Store {
        let limits = Limits { interval_us: limits.interval_us.max(1), ..limits };
        let mut store = Store {
            limits,
            metrics: BTreeMap::new(),
            ticks: VecDeque::new(),
            series: 0,
            refused: Refused::default(),
            is_whole: true,
        };
        store.set_needs(needs);
        store
    }

    /// Keeps from now on what `needs` names; samples of what it does not name are forgotten.
    pub fn set_needs(&mut self, needs: Needs) {
        self.metrics.retain(|name, _| needs.0.contains_key(name));
        for (name, need) in needs.0 {
            let blank = || Metric { need, since_us: None, series: BTreeMap::new() };
            self.metrics.entry(name).or_insert_with(blank).need = need;
        }
        self.series = self.metrics.values().map(|metric| metric.series.len()).sum();
    }

    /// Takes one scrape. `scrape` calls what it is given with the name, the labels and the value of
    /// every sample; a histogram comes as samples of `x_bucket` with the label `le`.
    ///
    /// A scrape that is not later than the one before is refused and counted. The owner takes a new
    /// store when its clock was set back for good.
    pub fn record(
        &mut self,
        at_us: i64,
        scrape: impl FnOnce(&mut dyn FnMut(&str, &[(&str, &str)], f64)),
    ) {
        if self.ticks.back().is_some_and(|last| at_us <= *last) {
            self.refused.scrapes += 1;
            return;
        }
        let mut key = String::new();
        scrape(&mut |name, labels, value| self.sample(&mut key, at_us, name, labels, value));
        for metric in self.metrics.values_mut() {
            metric.since_us.get_or_insert(at_us);
        }
        self.ticks.push_back(at_us);
        let longest = self.metrics.values().map(|metric| metric.need.age_us).max();
        let age_us = longest.unwrap_or(0).saturating_add(SLACK_US);
        trim(&mut self.ticks, |tick| *tick, at_us, age_us, self.limits.interval_us);
    }

    fn sample(
        &mut self,
        key: &mut String,
        at_us: i64,
        name: &str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        let Some(metric) = self.metrics.get_mut(name) else { return };
        if !value.is_finite() {
            self.refused.values += 1;
            return;
        }
        write_key(key, labels);
        let point = Point { at_us, value };
        let age_us = metric.need.age_us.saturating_add(SLACK_US);
        let interval_us = self.limits.interval_us;
        if let Some(series) = metric.series.get_mut(key.as_str()) {
            // Two samples of one series in one scrape: the first counts.
            if series.points.back().is_none_or(|last| last.at_us < at_us) {
                series.points.push_back(point);
                trim(&mut series.points, |point| point.at_us, at_us, age_us, interval_us);
            }
            return;
        }
        if self.series >= self.limits.series {
            self.is_whole = false;
            self.series -= metric.forget(at_us.saturating_sub(age_us));
        }
        if self.series >= self.limits.series {
            self.refused.series += 1;
            return;
        }
        let mut points = VecDeque::new();
        if let Some(since_us) = metric.since_us.filter(|_| self.is_whole && metric.need.is_counter)
        {
            let from = since_us.max(at_us.saturating_sub(age_us));
            let before = self.ticks.iter().filter(|tick| **tick >= from);
            points.extend(before.map(|tick| Point { at_us: *tick, value: 0.0 }));
        }
        points.push_back(point);
        let labels = labels.iter().copied().collect();
        metric.series.insert(key.as_str().into(), Series { labels, points });
        self.series += 1;
    }

    /// Whether samples are kept for as long as the condition looks back.
    #[must_use]
    pub fn keeps(&self, condition: &Condition) -> bool {
        let mut keeps = true;
        condition.needs(&mut |metric, need| {
            let held = self.metrics.get(metric).map_or(0, |metric| metric.need.age_us);
            keeps &= held >= need.age_us;
        });
        keeps
    }

    /// Microseconds between two scrapes.
    #[must_use]
    pub fn interval_us(&self) -> i64 {
        self.limits.interval_us
    }

    /// Series that are kept.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.series
    }

    /// What was refused since the store was made.
    #[must_use]
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// The series of one metric, in the order of their labels.
    pub(crate) fn series(&self, metric: &str) -> impl Iterator<Item = &Series> {
        self.metrics.get(metric).into_iter().flat_map(|metric| metric.series.values())
    }
}

impl Metric {
    /// Forgets the series that ended before `before_us`; gives their number.
    fn forget(&mut self, before_us: i64) -> usize {
        let had = self.series.len();
        let is_live = |series: &Series| series.points.back().is_some_and(|p| p.at_us >= before_us);
        self.series.retain(|_, series| is_live(series));
        had - self.series.len()
    }
}

impl Series {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name)
    }

    /// The samples from `from_us` to `to_us`, both included.
    pub(crate) fn within(
        &self,
        from_us: i64,
        to_us: i64,
    ) -> impl DoubleEndedIterator<Item = Point> + Clone {
        let first = self.points.partition_point(|point| point.at_us < from_us);
        let end = self.points.partition_point(|point| point.at_us <= to_us).max(first);
        self.points.range(first..end).copied()
    }
}

/// Takes away what is too old or too much, but never the newest.
fn trim<T>(
    kept: &mut VecDeque<T>,
    at: impl Fn(&T) -> i64,
    now_us: i64,
    age_us: i64,
    interval_us: i64,
) {
    let most = usize::try_from(age_us / interval_us).unwrap_or(usize::MAX);
    let most = most.saturating_mul(2).saturating_add(8);
    while kept.len() > 1
        && (kept.len() > most
            || kept.front().is_some_and(|old| at(old) < now_us.saturating_sub(age_us)))
    {
        kept.pop_front();
    }
}

/// The labels as one text, in ascending order of names.
fn write_key(key: &mut String, labels: &[(&str, &str)]) {
    key.clear();
    let mut push = |(name, value): &(&str, &str)| {
        key.push_str(name);
        key.push('\u{1f}');
        key.push_str(value);
        key.push('\u{1e}');
    };
    if labels.is_sorted() {
        labels.iter().for_each(&mut push);
    } else {
        let mut sorted = labels.to_vec();
        sorted.sort_unstable();
        sorted.iter().for_each(&mut push);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    fn store(conditions: &[&str], series: usize) -> Store {
        let parsed: Vec<Condition> =
            conditions.iter().map(|text| Condition::parse(text).unwrap()).collect();
        Store::new(parsed.iter().collect(), Limits { series, ..Limits::default() })
    }

    fn points(store: &Store, metric: &str) -> Vec<(i64, f64)> {
        let all = store.series(metric).flat_map(|series| series.within(i64::MIN, i64::MAX));
        all.map(|point| (point.at_us / S, point.value)).collect()
    }

    #[test]
    fn what_no_condition_looks_at_is_not_kept() {
        let mut store = store(&["log.dropped[5m] > 0"], 10);
        store.record(0, |put| {
            put("tai_log_lines_dropped_total", &[], 1.0);
            put("tai_build_info", &[("version", "1")], 1.0);
        });
        assert_eq!(store.series_count(), 1);
        store.set_needs(Needs::default());
        assert_eq!(store.series_count(), 0);
    }

    #[test]
    fn a_scrape_of_the_past_is_refused_and_counted() {
        let mut store = store(&["log.dropped[5m] > 0"], 10);
        for at in [0, 15, 15, 10, 30] {
            store.record(at * S, |put| put("tai_log_lines_dropped_total", &[], at as f64));
        }
        assert_eq!(
            points(&store, "tai_log_lines_dropped_total"),
            [(0, 0.0), (15, 15.0), (30, 30.0)]
        );
        assert_eq!(store.refused().scrapes, 2);
    }

    #[test]
    fn samples_are_kept_for_the_window_and_some_slack() {
        let mut store = store(&["log.dropped[5m] > 0", "log.dropped[2m] > 0"], 10);
        for at in 0..1000 {
            store.record(at * 15 * S, |put| put("tai_log_lines_dropped_total", &[], 0.0));
        }
        let kept = points(&store, "tai_log_lines_dropped_total");
        assert_eq!(kept.first().unwrap().0, 999 * 15 - 360);
        // Scrapes that come too fast do not take more memory than twice as many would.
        for at in 0..10_000 {
            store.record(15_000 * S + at, |put| put("tai_log_lines_dropped_total", &[], 0.0));
        }
        assert_eq!(points(&store, "tai_log_lines_dropped_total").len(), 2 * 24 + 8);
    }

    #[test]
    fn series_beyond_the_limit_are_dropped_and_counted_until_others_end() {
        let mut store = store(&["http.rate[1m] > 1/s"], 2);
        let scrape = |store: &mut Store, at: i64, routes: &[&str]| {
            store.record(at * S, |put| {
                routes.iter().for_each(|r| put("http_requests_total", &[("route", r)], 5.0));
            });
        };
        scrape(&mut store, 0, &["/a", "/b", "/c"]);
        assert_eq!((store.series_count(), store.refused().series), (2, 1));
        scrape(&mut store, 600, &["/c", "/d"]);
        assert_eq!((store.series_count(), store.refused().series), (2, 1));
        assert!(
            points(&store, "http_requests_total")
                .iter()
                .all(|(at, value)| (*at, *value) == (600, 5.0))
        );
    }

    #[test]
    fn a_counter_that_appears_was_zero_at_the_scrapes_before() {
        let mut store = store(&["http.rate[1m] > 1/s", "memory.available[1m] < 1MiB"], 10);
        for at in [0, 15, 30] {
            store.record(at * S, |put| {
                if at == 30 {
                    put("http_requests_total", &[("route", "/a")], 7.0);
                    put("memory_available_bytes", &[], 9.0);
                }
            });
        }
        assert_eq!(points(&store, "http_requests_total"), [(0, 0.0), (15, 0.0), (30, 7.0)]);
        assert_eq!(points(&store, "memory_available_bytes"), [(30, 9.0)]);
    }

    #[test]
    fn a_counter_of_the_first_scrape_has_no_past() {
        let mut store = store(&["log.dropped[5m] > 0"], 10);
        store.record(0, |put| put("http_requests_total", &[], 3.0));
        let needed = [Condition::parse("http.rate[1m] > 1/s").unwrap()];
        store.set_needs(needed.iter().collect());
        store.record(15 * S, |put| put("http_requests_total", &[], 4.0));
        assert_eq!(points(&store, "http_requests_total"), [(15, 4.0)]);
    }

    #[test]
    fn a_value_that_is_no_number_is_refused_and_counted() {
        let mut store = store(&["memory.available[1m] < 1MiB"], 10);
        store.record(0, |put| put("memory_available_bytes", &[], f64::NAN));
        assert_eq!((store.series_count(), store.refused().values), (0, 1));
    }
}
