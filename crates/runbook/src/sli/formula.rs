//! Values from samples.
//!
//! Owns: what a window says, and when it says nothing. Refuses to know: thresholds.

use std::collections::BTreeSet;

use super::{
    Across, FLOOR, Formula, Match, Over, SPIKE_FLOOR, SPIKE_TIMES, Select, Sli, USUAL_STEP_US,
    USUAL_STEPS,
};
use crate::condition::Evidence;
use crate::labels::Labels;
use crate::series::{Need, Point, Series, Store};

/// Intervals without a sample after which what was known is stale.
const STALE_INTERVALS: i64 = 3;
/// The share of a window that samples must cover.
const COVERAGE_MIN: f64 = 0.5;
/// The part of an interval that may be missing to it: in the shortest window two looks are half of
/// it apart when they are on time, and the second one may be early.
const EARLY: f64 = 0.1;

/// Which series a condition asks for.
pub(crate) struct Scope<'a> {
    /// Labels with the one value that they must have.
    pub(crate) fixed: &'a [(&'static str, &'a str)],
    /// Labels of which each value is a case of its own.
    pub(crate) each: &'a [&'static str],
}

/// What a window says about one case.
pub(crate) struct Taken {
    pub(crate) labels: Labels,
    pub(crate) outcome: Outcome,
    pub(crate) evidence: Evidence,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Outcome {
    Value(f64),
    /// There are samples, and too little traffic to judge by.
    TooLittle,
    NoData,
}

/// One look at the store: a window, and the series of one case.
struct Look<'a> {
    store: &'a Store,
    fixed: &'a [(&'static str, &'a str)],
    case: &'a Labels,
    from_us: i64,
    to_us: i64,
}

impl Sli {
    /// Names the metrics behind a window, and how long their samples are needed.
    pub(crate) fn needs(&self, window_us: i64, put: &mut dyn FnMut(&'static str, Need)) {
        let mut counter = |select: &Select, age_us| {
            put(select.metric, Need { age_us, is_counter: true });
        };
        match &self.formula {
            Formula::Share { part, whole, .. } => {
                part.iter().chain(*whole).for_each(|select| counter(select, window_us));
            }
            Formula::Rate(of) | Formula::Increase(of) | Formula::Quantile { of, .. } => {
                counter(of, window_us);
            }
            Formula::Spike(of) => counter(of, USUAL_STEPS * USUAL_STEP_US + window_us),
            Formula::RatePer { of, per } => {
                counter(of, window_us);
                put(per.metric, Need { age_us: window_us, is_counter: false });
            }
            Formula::Balance { of, less } => {
                let mut gauge = |select: &Select| {
                    put(select.metric, Need { age_us: window_us, is_counter: false });
                };
                gauge(of);
                less.iter().for_each(gauge);
            }
            Formula::Level { of, .. } | Formula::Slope(of) => {
                put(of.metric, Need { age_us: window_us, is_counter: false });
            }
            Formula::LevelShare { of, limit } | Formula::Forecast { of, limit, .. } => {
                put(of.metric, Need { age_us: window_us, is_counter: false });
                put(limit.metric, Need { age_us: window_us, is_counter: false });
            }
        }
    }

    /// Every case of the scope, in the order of their labels; one without labels that says nothing
    /// where there is none.
    pub(crate) fn take(
        &self,
        store: &Store,
        scope: &Scope<'_>,
        window_us: i64,
        now_us: i64,
    ) -> Vec<Taken> {
        let none = Labels::default();
        let from_us = now_us.saturating_sub(window_us);
        let all = Look { store, fixed: scope.fixed, case: &none, from_us, to_us: now_us };
        let mut cases: BTreeSet<Labels> = BTreeSet::new();
        for series in self.formula.cases().iter().flat_map(|select| all.series(select)) {
            let pairs = scope.each.iter().map(|name| Some((*name, series.label(name)?)));
            if let Some(pairs) = pairs.collect::<Option<Vec<_>>>()
                && series.within(from_us, now_us).next().is_some()
            {
                cases.insert(pairs.into_iter().collect());
            }
        }
        if cases.is_empty() {
            cases.insert(none.clone());
        }
        let take = |case: Labels| {
            let look = Look { case: &case, ..all };
            let mut evidence = self.formula.evidence(&look);
            let has_case = scope.each.is_empty() || !case.is_empty();
            let outcome = if has_case && evidence.holds_up(&look) {
                self.formula.value(&look, &mut evidence)
            } else {
                Outcome::NoData
            };
            Taken { labels: case, outcome, evidence }
        };
        cases.into_iter().map(take).collect()
    }
}

impl Formula {
    /// The series by which there is a case, and by which it is judged whether there are data.
    fn cases(&self) -> &[Select] {
        match self {
            Formula::Share { whole, .. } => whole,
            Formula::Rate(of)
            | Formula::Increase(of)
            | Formula::Spike(of)
            | Formula::Slope(of)
            | Formula::RatePer { of, .. }
            | Formula::Quantile { of, .. }
            | Formula::Level { of, .. }
            | Formula::LevelShare { of, .. }
            | Formula::Forecast { of, .. }
            | Formula::Balance { of, .. } => std::slice::from_ref(of),
        }
    }

    /// True where no series of the case means zero, as long as the metric has others.
    fn counts(&self) -> bool {
        !matches!(
            self,
            Formula::Level { .. }
                | Formula::LevelShare { .. }
                | Formula::Slope(_)
                | Formula::Forecast { .. }
                | Formula::Balance { .. }
        )
    }

    fn evidence(&self, look: &Look<'_>) -> Evidence {
        let mut evidence = Evidence::default();
        for series in self.cases().iter().flat_map(|select| look.series(select)) {
            evidence.add(series, look);
        }
        if evidence.samples == 0 && self.counts() {
            for select in self.cases() {
                look.store.series(select.metric).for_each(|series| evidence.add(series, look));
            }
            evidence.series = 0;
        }
        evidence
    }

    fn value(&self, look: &Look<'_>, evidence: &mut Evidence) -> Outcome {
        let parts = &mut evidence.parts;
        let value = match self {
            Formula::Share { part, whole, budget } => {
                let (part, _) = look.increase(part);
                let (whole, span_s) = look.increase(whole);
                parts.extend([("part", part), ("whole", whole)]);
                if span_s <= 0.0 || whole / span_s <= FLOOR {
                    return Outcome::TooLittle;
                }
                Some(part / whole / budget)
            }
            Formula::Rate(of) => Some(look.rate(of)),
            Formula::Increase(of) => Some(look.increase(std::slice::from_ref(of)).0),
            Formula::RatePer { of, per } => {
                let per = look.average(per).filter(|per| *per > 0.0);
                per.map(|per| look.rate(of) / per)
            }
            Formula::Quantile { of, rank, divisor } => {
                let buckets = look.buckets(of);
                parts.push(("observations", buckets.last().map_or(0.0, |(_, count)| *count)));
                let Some(value) = quantile(&buckets, *rank) else { return Outcome::TooLittle };
                Some(value / divisor)
            }
            Formula::Level { of, over, across } => look.level(of, *over, *across),
            Formula::LevelShare { of, limit } => {
                let (of, limit) = (look.average(of), look.average(limit));
                parts.extend(of.map(|of| ("level", of)));
                parts.extend(limit.map(|limit| ("limit", limit)));
                of.zip(limit.filter(|limit| *limit > 0.0)).map(|(of, limit)| of / limit)
            }
            Formula::Slope(of) => look.slope(of).map(|(slope, _)| slope),
            Formula::Forecast { of, limit, ahead_s } => {
                let limit = look.average(limit).filter(|limit| *limit > 0.0);
                look.slope(of).zip(limit).map(|((slope, level), limit)| {
                    parts.extend([("level", level), ("slope", slope), ("limit", limit)]);
                    (level + slope * ahead_s) / limit
                })
            }
            Formula::Spike(of) => {
                let (rate, usual) = (look.rate(of), look.usual(of));
                parts.extend([("rate", rate), ("usual", usual)]);
                Some(f64::from(rate > (SPIKE_TIMES * usual).max(SPIKE_FLOOR)))
            }
            Formula::Balance { of, less } => {
                let less = less.iter().map(|select| look.newest(select)).sum::<Option<f64>>();
                look.newest(of).zip(less).map(|(of, less)| of - less)
            }
        };
        value.filter(|value| value.is_finite()).map_or(Outcome::NoData, Outcome::Value)
    }
}

impl Evidence {
    fn add(&mut self, series: &Series, look: &Look<'_>) {
        let stale_us = look.stale_us();
        let (mut covered_us, mut samples, mut last) = (0, 0, None);
        for point in series.within(look.from_us, look.to_us) {
            self.oldest_us = Some(self.oldest_us.map_or(point.at_us, |at| at.min(point.at_us)));
            let gap_us = last.map_or(0, |last| point.at_us - last);
            covered_us += if gap_us <= stale_us { gap_us } else { 0 };
            last = Some(point.at_us);
            samples += 1;
        }
        let Some(last) = last else { return };
        // A lone sample is a level and no course of one.
        let tail_us = look.to_us - last;
        covered_us += if tail_us <= stale_us && samples > 1 { tail_us } else { 0 };
        let coverage = covered_us as f64 / (look.to_us - look.from_us).max(1) as f64;
        self.newest_us = self.newest_us.max(Some(last));
        self.coverage = self.coverage.max(coverage);
        self.samples += samples;
        self.series += 1;
    }

    /// Whether it is fresh and covers enough of the window.
    fn holds_up(&self, look: &Look<'_>) -> bool {
        let is_fresh = |at: i64| look.to_us - at <= look.stale_us();
        let window_us = (look.to_us - look.from_us).max(1) as f64;
        let early = EARLY * look.store.interval_us() as f64 / window_us;
        self.newest_us.is_some_and(is_fresh) && self.coverage + early >= COVERAGE_MIN
    }
}

impl<'a> Look<'a> {
    fn stale_us(&self) -> i64 {
        self.store.interval_us().saturating_mul(STALE_INTERVALS)
    }

    fn series(&self, select: &'a Select) -> impl Iterator<Item = &'a Series> {
        let (fixed, case) = (self.fixed, self.case);
        self.store.series(select.metric).filter(move |series| {
            select.with.iter().all(|(name, want)| want.fits(series.label(name)))
                && fixed.iter().all(|(name, value)| series.label(name) == Some(value))
                && case.iter().all(|(name, value)| series.label(name) == Some(value))
        })
    }

    fn points(&self, series: &'a Series) -> impl DoubleEndedIterator<Item = Point> + Clone + 'a {
        series.within(self.from_us, self.to_us)
    }

    /// The increase of all series together, and the seconds that the longest of them covers.
    fn increase(&self, selects: &'a [Select]) -> (f64, f64) {
        let series = selects.iter().flat_map(|select| self.series(select));
        increase(series, self.from_us, self.to_us)
    }

    fn rate(&self, of: &'a Select) -> f64 {
        rate(self.series(of), self.from_us, self.to_us)
    }

    /// The median of the rates of the last hour. Minutes before the first sample count as zero:
    /// what is high right after a start is a spike.
    fn usual(&self, of: &'a Select) -> f64 {
        let series: Vec<&Series> = self.series(of).collect();
        let rate = |step: i64| {
            let back_us = step * USUAL_STEP_US;
            let (from_us, to_us) =
                (self.from_us.saturating_sub(back_us), self.to_us.saturating_sub(back_us));
            rate(series.iter().copied(), from_us, to_us)
        };
        let mut rates: Vec<f64> = (0..USUAL_STEPS).map(rate).collect();
        rates.sort_unstable_by(f64::total_cmp);
        let middle = rates.len() / 2;
        (rates[middle - 1] + rates[middle]) / 2.0
    }

    /// Bounds in ascending order, each with how many observations lie at or below it.
    fn buckets(&self, of: &'a Select) -> Vec<(f64, f64)> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for series in self.series(of) {
            let Some(bound) = series.label("le").and_then(|le| le.parse::<f64>().ok()) else {
                continue;
            };
            let increase = grown(self.points(series));
            match buckets.binary_search_by(|(held, _)| held.total_cmp(&bound)) {
                Ok(at) => buckets[at].1 += increase,
                Err(at) => buckets.insert(at, (bound, increase)),
            }
        }
        buckets
    }

    fn level(&self, of: &'a Select, over: Over, across: Across) -> Option<f64> {
        let one = |series: &'a Series| {
            let values = || self.points(series).map(|point| point.value);
            match over {
                Over::Highest => values().reduce(f64::max),
                Over::Average => {
                    let count = values().count();
                    (count > 0).then(|| values().sum::<f64>() / count as f64)
                }
            }
        };
        let levels = self.series(of).filter_map(one);
        match across {
            Across::Lowest => levels.reduce(f64::min),
            Across::Highest => levels.reduce(f64::max),
        }
    }

    fn average(&self, of: &'a Select) -> Option<f64> {
        self.level(of, Over::Average, Across::Highest)
    }

    /// The steepest slope in a second, and where its line stands at the end of the window.
    fn slope(&self, of: &'a Select) -> Option<(f64, f64)> {
        let lines = self.series(of).filter_map(|series| line(self.points(series), self.to_us));
        lines.reduce(|a, b| if b.0 > a.0 { b } else { a })
    }

    fn newest(&self, of: &'a Select) -> Option<f64> {
        let newest = self.series(of).filter_map(|series| self.points(series).next_back());
        newest.map(|point| point.value).reduce(|a, b| a + b)
    }
}

impl Match {
    pub(crate) fn fits(self, value: Option<&str>) -> bool {
        match self {
            Match::Outside(prefix) => value.is_none_or(|value| !value.starts_with(prefix)),
            Match::Is(want) => value == Some(want),
            Match::Class(first) => {
                value.is_some_and(|value| value.len() == 3 && value.starts_with(first))
            }
        }
    }
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

fn increase<'a>(series: impl Iterator<Item = &'a Series>, from_us: i64, to_us: i64) -> (f64, f64) {
    let (mut sum, mut span_us) = (0.0, 0);
    for series in series {
        let mut points = series.within(from_us, to_us);
        sum += grown(points.clone());
        if let (Some(first), Some(last)) = (points.next(), points.next_back()) {
            span_us = span_us.max(last.at_us - first.at_us);
        }
    }
    (sum, seconds(span_us))
}

/// Zero where nothing is covered: whether there are data is judged before.
fn rate<'a>(series: impl Iterator<Item = &'a Series>, from_us: i64, to_us: i64) -> f64 {
    let (increase, span_s) = increase(series, from_us, to_us);
    if span_s > 0.0 { increase / span_s } else { 0.0 }
}

/// What a counter counted between its first and its last sample.
fn grown(points: impl Iterator<Item = Point> + Clone) -> f64 {
    let pairs = points.clone().zip(points.skip(1));
    // A counter that falls was set back to zero, and has counted up since.
    pairs.map(|(a, b)| if b.value < a.value { b.value } else { b.value - a.value }).sum()
}

/// The line of least squares: its slope in a second, and its height at `to_us`.
fn line(points: impl Iterator<Item = Point> + Clone, to_us: i64) -> Option<(f64, f64)> {
    let count = points.clone().count() as f64;
    let points = points.map(|point| (seconds(point.at_us - to_us), point.value));
    let (x_sum, y_sum) =
        points.clone().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x_mean, y_mean) = (x_sum / count, y_sum / count);
    let (covariance, variance) = points.fold((0.0, 0.0), |(covariance, variance), (x, y)| {
        let x = x - x_mean;
        (covariance + x * (y - y_mean), variance + x * x)
    });
    (variance > 0.0).then(|| {
        let slope = covariance / variance;
        (slope, y_mean - slope * x_mean)
    })
}

/// Prometheus's `histogram_quantile`: linear within a bucket, the last finite bound beyond it.
/// `None` where nothing was observed.
fn quantile(buckets: &[(f64, f64)], rank: f64) -> Option<f64> {
    let (last, total) = *buckets.last()?;
    if last.is_finite() || total <= 0.0 || buckets.len() < 2 {
        return None;
    }
    let wanted = rank * total;
    let at = buckets.iter().position(|(_, count)| *count >= wanted)?;
    let (bound, count) = buckets[at];
    if bound.is_infinite() {
        return Some(buckets[at - 1].0);
    }
    let (lower, below) = match at {
        0 if bound <= 0.0 => return Some(bound),
        0 => (0.0, 0.0),
        at => buckets[at - 1],
    };
    let inside = count - below;
    Some(if inside > 0.0 { lower + (bound - lower) * (wanted - below) / inside } else { bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_linear_within_its_bucket() {
        const INF: f64 = f64::INFINITY;
        let buckets = [(0.1, 50.0), (0.5, 90.0), (1.0, 98.0), (INF, 100.0)];
        for (rank, value) in [(0.25, 0.05), (0.5, 0.1), (0.7, 0.3), (0.94, 0.75), (0.99, 1.0)] {
            let found = quantile(&buckets, rank).unwrap();
            assert!((found - value).abs() < 1e-12, "{rank}: {found}");
        }
        assert_eq!(quantile(&[(0.1, 0.0), (INF, 0.0)], 0.5), None);
        assert_eq!(quantile(&[(0.1, 5.0)], 0.5), None, "the bucket without a bound is missing");
        assert_eq!(quantile(&[(0.1, 0.0), (INF, 5.0)], 0.5), Some(0.1));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn a_line_goes_through_its_points() {
        let points = [(0, 10.0), (10, 30.0), (20, 50.0)];
        let points = points.map(|(at, value)| Point { at_us: at * 1_000_000, value });
        let (slope, level) = line(points.into_iter(), 30_000_000).unwrap();
        assert!((slope - 2.0).abs() < 1e-9 && (level - 70.0).abs() < 1e-9);
        assert_eq!(line(points.into_iter().take(1), 30_000_000), None);
    }
}
