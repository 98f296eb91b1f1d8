//! Conditions: `sli{label="v",other=*}[window] op number unit`.
//!
//! Owns: what a condition means, its canonical text, and what a reading can be asked. Refuses to
//! know: for how long it must hold, and what follows from it.

mod grammar;
#[cfg(test)]
mod tests;

use std::fmt;

pub use grammar::ParseError;

use crate::labels::{Labels, Quoted};
use crate::series::{Need, Store};
use crate::sli::{INTERVAL, Outcome, Scope, Sli, Taken};
use crate::unit::{Quantity, Span, Unit};

/// A comparison of one SLI with a threshold.
#[derive(Debug, Clone)]
pub struct Condition {
    sli: &'static Sli,
    /// In ascending order of names.
    selectors: Vec<(&'static str, Selector)>,
    window: Span,
    op: Op,
    threshold: Quantity,
}

/// What is asked of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// `label="value"`.
    Is(String),
    /// `label=*`: each value is a case of its own.
    Each,
}

/// How a value is compared with the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `==`
    Equal,
}

/// What a condition says about one case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The comparison is true.
    Holds,
    /// The comparison is false.
    Fails,
    /// Samples are missing, stale, or cover less than half of the window.
    NoData,
    /// There are samples, and too little traffic to judge by.
    TooLittle,
}

/// A condition's answer about one case.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The values of the labels that were asked for one by one.
    pub labels: Labels,
    /// Whether it holds.
    pub verdict: Verdict,
    /// In the base unit; `None` where the samples make none.
    pub value: Option<f64>,
    /// What it was compared with.
    pub threshold: Quantity,
    /// What it was made from.
    pub evidence: Evidence,
}

/// The samples behind a reading.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evidence {
    /// Series of the case.
    pub series: usize,
    /// Samples of the window.
    pub samples: usize,
    /// The oldest of them, in microseconds since the epoch.
    pub oldest_us: Option<i64>,
    /// The newest of them.
    pub newest_us: Option<i64>,
    /// The share of the window that they cover, from 0 to 1.
    pub coverage: f64,
    /// What the value was made of, in the SLI's own words.
    pub parts: Vec<(&'static str, f64)>,
}

impl Condition {
    /// Reads a condition. Labels may stand in any order.
    pub fn parse(text: &str) -> Result<Condition, ParseError> {
        Condition::parse_for(text, INTERVAL.micros())
    }

    /// [`Condition::parse`] where samples are taken every so many microseconds: the window must
    /// span two of them.
    pub fn parse_for(text: &str, interval_us: i64) -> Result<Condition, ParseError> {
        grammar::parse(text, interval_us)
    }

    /// The SLI.
    #[must_use]
    pub fn sli(&self) -> &'static Sli {
        self.sli
    }

    /// How far back it looks.
    #[must_use]
    pub fn window(&self) -> Span {
        self.window
    }

    /// How it compares.
    #[must_use]
    pub fn op(&self) -> Op {
        self.op
    }

    /// What it compares with.
    #[must_use]
    pub fn threshold(&self) -> Quantity {
        self.threshold
    }

    /// The labels of which each value is a case of its own, in ascending order.
    pub fn each(&self) -> impl Iterator<Item = &'static str> {
        let each = self.selectors.iter().filter(|(_, selector)| *selector == Selector::Each);
        each.map(|(name, _)| *name)
    }

    /// Says for every case what the samples up to `now_us` say. At least one reading: where no
    /// case is known it is one without labels and without data.
    #[must_use]
    pub fn evaluate(&self, store: &Store, now_us: i64) -> Vec<Reading> {
        let taken = self.scoped(|scope| self.sli.take(store, scope, self.window.micros(), now_us));
        taken.into_iter().map(|taken| self.judge(taken)).collect()
    }

    fn judge(&self, taken: Taken) -> Reading {
        let (verdict, value) = match taken.outcome {
            Outcome::NoData => (Verdict::NoData, None),
            Outcome::TooLittle => (Verdict::TooLittle, None),
            Outcome::Value(value) if self.op.holds(value, self.threshold.value()) => {
                (Verdict::Holds, Some(value))
            }
            Outcome::Value(value) => (Verdict::Fails, Some(value)),
        };
        let (threshold, evidence) = (self.threshold, taken.evidence);
        Reading { labels: taken.labels, verdict, value, threshold, evidence }
    }

    pub(crate) fn scoped<T>(&self, with: impl FnOnce(&Scope<'_>) -> T) -> T {
        let fixed = self.selectors.iter().filter_map(|(name, selector)| match selector {
            Selector::Is(value) => Some((*name, value.as_str())),
            Selector::Each => None,
        });
        let (fixed, each): (Vec<_>, Vec<_>) = (fixed.collect(), self.each().collect());
        with(&Scope { fixed: &fixed, each: &each })
    }

    /// Every label that the condition names, in ascending order.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &'static str> {
        self.selectors.iter().map(|(name, _)| *name)
    }

    /// The one value that a label must have.
    pub(crate) fn fixed(&self, name: &str) -> Option<&str> {
        self.selectors.iter().find_map(|(held, selector)| match selector {
            Selector::Is(value) if *held == name => Some(value.as_str()),
            _ => None,
        })
    }

    pub(crate) fn needs(&self, put: &mut dyn FnMut(&'static str, Need)) {
        self.sli.needs(self.window.micros(), put);
    }
}

impl Op {
    const ALL: [(&'static str, Op); 5] = [
        (">=", Op::AtLeast),
        (">", Op::Above),
        ("<=", Op::AtMost),
        ("<", Op::Below),
        ("==", Op::Equal),
    ];

    /// The sign.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Op::ALL.iter().find(|(_, op)| *op == self).map_or("", |(sign, _)| sign)
    }

    fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Op::Above => value > threshold,
            Op::AtLeast => value >= threshold,
            Op::Below => value < threshold,
            Op::AtMost => value <= threshold,
            Op::Equal => value == threshold,
        }
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Condition) -> bool {
        self.sli.name == other.sli.name
            && self.selectors == other.selectors
            && (self.window, self.op, self.threshold) == (other.window, other.op, other.threshold)
    }
}

/// The canonical text, which reads back as the same condition.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sli.name)?;
        for (at, (name, selector)) in self.selectors.iter().enumerate() {
            write!(f, "{}{name}=", if at == 0 { "{" } else { "," })?;
            match selector {
                Selector::Is(value) => write!(f, "{}", Quoted(value))?,
                Selector::Each => f.write_str("*")?,
            }
        }
        let close = if self.selectors.is_empty() { "" } else { "}" };
        write!(f, "{close}[{}] {} {}", self.window, self.op.as_str(), self.threshold)
    }
}

impl Reading {
    /// What the value counts.
    #[must_use]
    pub fn unit(&self) -> Unit {
        self.threshold.unit()
    }

    /// The value in the unit of the threshold, or why there is none.
    #[must_use]
    pub fn shown(&self) -> String {
        match (self.value, self.verdict) {
            (Some(value), _) => self.threshold.show(value),
            (None, Verdict::TooLittle) => "too little traffic".to_owned(),
            (None, _) => "no data".to_owned(),
        }
    }

    /// One line for a person: the value, the threshold, and the samples behind them.
    #[must_use]
    pub fn explain(&self, now_us: i64) -> String {
        let ago = |at: Option<i64>| match at {
            Some(at) => format!("{} s ago", now_us.saturating_sub(at) / 1_000_000),
            None => "never".to_owned(),
        };
        let Evidence { series, samples, oldest_us, newest_us, coverage, parts } = &self.evidence;
        let mut text = format!(
            "{} against {}: {samples} samples of {series} series, oldest {}, newest {}, \
             covering {:.0}% of the window",
            self.shown(),
            self.threshold,
            ago(*oldest_us),
            ago(*newest_us),
            coverage * 100.0,
        );
        for (name, value) in parts {
            text.push_str(&format!(", {name} {value:.3}"));
        }
        text
    }
}
