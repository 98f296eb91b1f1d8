//! The same formulas as PromQL.
//!
//! Owns: the text. Refuses to know: thresholds, and the file that it stands in.
//!
//! Prometheus differs from what is computed here in four ways. It extrapolates a rate to the ends
//! of its window. It does not count what a series held when it first appeared. It has no notion of
//! a window that is covered too little, so that an hour may be judged by its first minute. And a
//! spike's usual rate is the median of the minutes that there are: here those before the first
//! sample count as zero.

use std::fmt::Write as _;

use super::{Across, FLOOR, Formula, Match, Over, SPIKE_FLOOR, SPIKE_TIMES, Scope, Select, Sli};
use crate::labels::Quoted;
use crate::unit::Span;

/// How often rules are evaluated, and scrapes are taken unless the owner says otherwise.
pub const INTERVAL: Span = Span::from_secs(15);

/// A value as PromQL, and what must hold beside it for there to be one.
pub(crate) struct PromQl {
    pub(crate) value: String,
    pub(crate) guard: Option<String>,
}

impl Sli {
    /// The SLI over a window and all series, as PromQL.
    #[must_use]
    pub fn promql(&self, window: Span) -> String {
        let PromQl { value, guard } = self.promql_of(&Scope { fixed: &[], each: &[] }, window);
        match guard {
            Some(guard) => format!("{value} and {guard}"),
            None => value,
        }
    }

    pub(crate) fn promql_of(&self, scope: &Scope<'_>, window: Span) -> PromQl {
        let text = Text { scope, window };
        let mut guard = None;
        let value = match &self.formula {
            Formula::Share { part, whole, budget } => {
                let (part, whole) = (text.rates("sum", part), text.rates("sum", whole));
                guard = Some(format!("{whole} > {FLOOR}"));
                let share = format!("{part} / {whole}");
                if *budget == 1.0 { share } else { format!("{share} / {budget}") }
            }
            Formula::Rate(of) => text.rates("sum", std::slice::from_ref(of)),
            Formula::Increase(of) => text.over("sum", "increase", of),
            Formula::RatePer { of, per } => {
                format!(
                    "{} / {}",
                    text.rates("sum", std::slice::from_ref(of)),
                    text.over("max", "avg_over_time", per)
                )
            }
            Formula::Quantile { of, rank, divisor } => {
                let rates = text.over_by("sum", "rate", of, &["le"]);
                let value = format!("histogram_quantile({rank}, {rates})");
                if *divisor == 1.0 { value } else { format!("{value} / {divisor}") }
            }
            Formula::Level { of, over, across } => {
                let over = match over {
                    Over::Average => "avg_over_time",
                    Over::Highest => "max_over_time",
                };
                let across = match across {
                    Across::Lowest => "min",
                    Across::Highest => "max",
                };
                text.over(across, over, of)
            }
            Formula::LevelShare { of, limit } => format!(
                "{} / {}",
                text.over("max", "avg_over_time", of),
                text.over("max", "avg_over_time", limit)
            ),
            Formula::Slope(of) => text.over("max", "deriv", of),
            Formula::Forecast { of, limit, ahead_s } => {
                let by = text.by(&[]);
                let of = text.select(of);
                let limit = text.over("max", "avg_over_time", limit);
                format!("max{by} (predict_linear({of}[{window}], {ahead_s})) / {limit}")
            }
            Formula::Spike(of) => {
                let rate = text.rates("sum", std::slice::from_ref(of));
                format!(
                    "({rate} > bool clamp_min({SPIKE_TIMES} * quantile_over_time(0.5, \
                     {rate}[1h:1m]), {SPIKE_FLOOR}))"
                )
            }
            Formula::Balance { of, less } => {
                let mut value = format!("sum{} ({})", text.by(&[]), text.select(of));
                for select in *less {
                    let _ = write!(value, " - sum{} ({})", text.by(&[]), text.select(select));
                }
                value
            }
        };
        PromQl { value, guard }
    }
}

struct Text<'a> {
    scope: &'a Scope<'a>,
    window: Span,
}

impl Text<'_> {
    fn by(&self, more: &[&str]) -> String {
        let names = [self.scope.each, more].concat();
        if names.is_empty() { String::new() } else { format!(" by ({})", names.join(", ")) }
    }

    fn select(&self, select: &Select) -> String {
        let own = select.with.iter().map(|(name, want)| match want {
            Match::Is(value) => format!("{name}={}", Quoted(value)),
            Match::Class(first) => format!("{name}=~\"{first}..\""),
            Match::Outside(prefix) => format!("{name}!~\"{prefix}.*\""),
        });
        let fixed =
            self.scope.fixed.iter().map(|(name, value)| format!("{name}={}", Quoted(value)));
        let matchers: Vec<String> = own.chain(fixed).collect();
        match matchers.is_empty() {
            true => select.metric.to_owned(),
            false => format!("{}{{{}}}", select.metric, matchers.join(",")),
        }
    }

    fn over(&self, across: &str, over: &str, of: &Select) -> String {
        self.over_by(across, over, of, &[])
    }

    fn over_by(&self, across: &str, over: &str, of: &Select, by: &[&str]) -> String {
        format!("{across}{} ({over}({}[{}]))", self.by(by), self.select(of), self.window)
    }

    /// The rates of several metrics together: `or` joins series whose labels differ.
    fn rates(&self, across: &str, of: &[Select]) -> String {
        let rates: Vec<String> =
            of.iter().map(|of| format!("rate({}[{}])", self.select(of), self.window)).collect();
        format!("{across}{} ({})", self.by(&[]), rates.join(" or "))
    }
}
