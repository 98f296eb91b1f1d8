//! A file of rules: what its tables hold, and where it is wrong.
//!
//! Owns: the keys, and the place of everything in the text. Refuses to know: how rules concern each
//! other.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use types::Severity;

use super::{Category, Message, Rule};
use crate::clause::Clause;
use crate::condition::{Condition, ParseError};
use crate::phase::OnNoData;
use crate::unit::{HOUR_US, Span};

/// Rules in one file, and conditions in one rule.
const RULES_MAX: usize = 500;
const CONDITIONS_MAX: usize = 8;
/// Characters of an id, a component or a ladder; of a title or a message.
const WORD_CHARS: usize = 64;
const TEXT_CHARS: usize = 500;

/// Where and why a file of rules is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {}{fault}", of_rule(.rule.as_deref()))]
pub struct RuleError {
    /// Counted from 1.
    pub line: usize,
    /// Characters, counted from 1.
    pub column: usize,
    /// The rule, where it is known.
    pub rule: Option<String>,
    /// What is wrong.
    pub fault: Fault,
}

fn of_rule(rule: Option<&str>) -> String {
    rule.map_or_else(String::new, |rule| format!("rule {rule}: "))
}

/// What is wrong with a file of rules. Names keys, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The text is not TOML, lacks a key, or has one that nothing reads.
    #[error("{0}")]
    Form(String),
    /// A condition does not read.
    #[error("condition: {0}")]
    Condition(#[from] ParseError),
    /// A rule has no clause, several, or one of a wrong length.
    #[error("a rule has one of condition, all and any, with 1 to 8 conditions")]
    Clause,
    /// A text of a wrong length or form.
    #[error("{key} must be {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is permitted.
        expected: &'static str,
    },
    /// A placeholder that no condition of the rule can fill.
    #[error(
        "a placeholder is ${{value}}, ${{threshold}} or ${{label.name}} of a condition's label"
    )]
    Placeholder,
    /// Conditions that cannot be told apart case by case.
    #[error("conditions of one rule name the same labels with *; in all, some may name none")]
    Cases,
    /// Two rules of one id.
    #[error("the id is taken by the rule at line {first}")]
    DuplicateId {
        /// Where the other one is.
        first: usize,
    },
    /// A rule that is to be inhibited and does not exist.
    #[error("inhibits a rule that does not exist{}", hint(.nearest.as_deref()))]
    UnknownInhibits {
        /// The id that is nearest to it.
        nearest: Option<String>,
    },
    /// Rules that inhibit each other, so that all may fall silent.
    #[error("inhibits itself{}", by_way_of(.path))]
    Cycle {
        /// The rules on the way.
        path: Vec<String>,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |id| format!("; the nearest is {id}"))
}

fn by_way_of(path: &[String]) -> String {
    if path.is_empty() { String::new() } else { format!(", by way of {}", path.join(", ")) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    alert: Vec<Spanned<Alert>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Alert {
    id: Spanned<String>,
    title: Spanned<String>,
    message: Spanned<String>,
    severity: Spanned<String>,
    category: Category,
    condition: Option<Spanned<String>>,
    all: Option<Vec<Spanned<String>>>,
    any: Option<Vec<Spanned<String>>>,
    #[serde(rename = "for")]
    for_: Option<Spanned<String>>,
    hold: Option<Spanned<String>>,
    component: Spanned<String>,
    #[serde(default)]
    inhibits: Vec<Spanned<String>>,
    #[serde(default)]
    nodata: OnNoData,
    ladder: Option<Spanned<String>>,
}

/// A rule, and where it and what it inhibits stand.
pub(super) struct Placed {
    pub(super) rule: Rule,
    pub(super) at: Place,
    pub(super) inhibits_at: Vec<Place>,
}

/// A line and a column, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Place {
    fn of(text: &str, byte: usize) -> Place {
        let before = text.get(..byte).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[line_start..].chars().count() + 1;
        Place { line: before.matches('\n').count() + 1, column }
    }

    pub(super) fn error(self, rule: Option<&str>, fault: Fault) -> RuleError {
        let rule = rule.map(str::to_owned);
        RuleError { line: self.line, column: self.column, rule, fault }
    }
}

/// Reads every rule of a text; gives all that is wrong with them where something is.
pub(super) fn read(text: &str, interval_us: i64) -> Result<Vec<Placed>, Vec<RuleError>> {
    let file: File = from_toml(text).map_err(|error| vec![error])?;
    if file.alert.len() > RULES_MAX {
        let fault = Fault::Value { key: "alert", expected: "at most 500 rules" };
        return Err(vec![Place::of(text, 0).error(None, fault)]);
    }
    let (mut placed, mut errors) = (Vec::new(), Vec::new());
    for alert in file.alert {
        let mut reader = Reader {
            text,
            interval_us,
            rule: printable(alert.get_ref().id.get_ref()),
            errors: Vec::new(),
        };
        let at = Place::of(text, alert.span().start);
        let rule = reader.rule(alert.into_inner(), at);
        errors.append(&mut reader.errors);
        placed.extend(rule);
    }
    if errors.is_empty() { Ok(placed) } else { Err(errors) }
}

/// Reads TOML into a typed table. What the library says is repeated where it names keys only.
pub(super) fn from_toml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, RuleError> {
    toml::from_str(text).map_err(|error| {
        let place = Place::of(text, error.span().map_or(0, |span: Range<usize>| span.start));
        let says = error.message();
        let names_keys = ["unknown field", "missing field", "duplicate key"];
        let fault = match names_keys.iter().any(|begin| says.starts_with(begin)) {
            true => says.lines().next().unwrap_or_default().to_owned(),
            false => "a value or a form that does not belong here".to_owned(),
        };
        place.error(None, Fault::Form(fault))
    })
}

/// Collects what is wrong with one rule.
struct Reader<'a> {
    text: &'a str,
    interval_us: i64,
    rule: String,
    errors: Vec<RuleError>,
}

impl Reader<'_> {
    fn fail(&mut self, byte: usize, fault: Fault) {
        self.errors.push(Place::of(self.text, byte).error(Some(&self.rule), fault));
    }

    fn rule(&mut self, alert: Alert, at: Place) -> Option<Placed> {
        const ID: &str = "1 to 64 lower-case letters, digits and -";
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_id = |text: &str| is_text(text, WORD_CHARS) && text.chars().all(fits);
        let is_line = |text: &str| is_text(text, TEXT_CHARS);
        const LINE: &str = "one line of 1 to 500 characters";
        let id = self.text("id", alert.id, ID, is_id);
        let title = self.text("title", alert.title, LINE, is_line);
        let component = self.text("component", alert.component, ID, is_id);
        let ladder = alert.ladder.map(|ladder| self.text("ladder", ladder, ID, is_id));
        let severity_at = alert.severity.span().start;
        let severity = Severity::parse(alert.severity.get_ref()).unwrap_or_else(|| {
            let expected = "sev1 to sev4, p1 to p4, or critical, error, warning, info";
            self.fail(severity_at, Fault::Value { key: "severity", expected });
            Severity::Sev4
        });
        let for_ = self.span("for", alert.for_);
        let hold = self.span("hold", alert.hold);
        let clause = match (alert.condition, alert.all, alert.any) {
            (Some(one), None, None) => self.conditions(vec![one], at).map(Clause::All),
            (None, Some(all), None) => self.conditions(all, at).map(Clause::All),
            (None, None, Some(any)) => self.conditions(any, at).map(Clause::Any),
            _ => {
                self.errors.push(at.error(Some(&self.rule), Fault::Clause));
                None
            }
        }?;
        self.check_cases(&clause, at);
        let message_at = alert.message.span();
        let message = self.text("message", alert.message, LINE, is_line);
        let knows = |name: &str| clause.conditions().iter().any(|c| c.labels().any(|l| l == name));
        let message = match Message::parse(&message, knows) {
            Ok(message) => message,
            Err(offset) => {
                self.fail(self.inside(&message_at, &message, offset), Fault::Placeholder);
                return None;
            }
        };
        let inhibits_at =
            alert.inhibits.iter().map(|id| Place::of(self.text, id.span().start)).collect();
        let inhibits = alert.inhibits.into_iter().map(Spanned::into_inner).collect();
        let (category, nodata) = (alert.category, alert.nodata);
        let rule = Rule {
            id,
            title,
            message,
            severity,
            category,
            clause,
            for_,
            hold,
            component,
            inhibits,
            nodata,
            ladder,
        };
        Some(Placed { rule, at, inhibits_at })
    }

    fn text(
        &mut self,
        key: &'static str,
        value: Spanned<String>,
        expected: &'static str,
        fits: impl Fn(&str) -> bool,
    ) -> String {
        if !fits(value.get_ref()) {
            self.fail(value.span().start, Fault::Value { key, expected });
        }
        value.into_inner()
    }

    fn span(&mut self, key: &'static str, value: Option<Spanned<String>>) -> Span {
        let Some(value) = value else { return Span::default() };
        // Less than an evaluation is none.
        let fits = |span: &Span| {
            (span.secs() == 0 || span.micros() >= self.interval_us) && span.micros() <= HOUR_US
        };
        Span::parse(value.get_ref()).filter(fits).unwrap_or_else(|| {
            let expected = "0s, or from an evaluation to 1h";
            self.fail(value.span().start, Fault::Value { key, expected });
            Span::default()
        })
    }

    fn conditions(&mut self, texts: Vec<Spanned<String>>, at: Place) -> Option<Vec<Condition>> {
        if texts.is_empty() || texts.len() > CONDITIONS_MAX {
            self.errors.push(at.error(Some(&self.rule), Fault::Clause));
            return None;
        }
        let count = texts.len();
        let mut conditions = Vec::with_capacity(count);
        for text in texts {
            match Condition::parse_for(text.get_ref(), self.interval_us) {
                Ok(condition) => conditions.push(condition),
                Err(error) => {
                    let at = self.inside(&text.span(), text.get_ref(), error.offset);
                    self.fail(at, Fault::Condition(error));
                }
            }
        }
        (conditions.len() == count).then_some(conditions)
    }

    /// Cases are joined by their labels, so the conditions must name the same ones.
    fn check_cases(&mut self, clause: &Clause, at: Place) {
        let each = clause.conditions().iter().map(|one| one.each().collect::<Vec<_>>());
        let mut each: Vec<Vec<&str>> = each.collect();
        if matches!(clause, Clause::All(_)) {
            each.retain(|labels| !labels.is_empty());
        }
        if each.windows(2).any(|pair| pair[0] != pair[1]) {
            self.errors.push(at.error(Some(&self.rule), Fault::Cases));
        }
    }

    /// The byte of the file at which byte `offset` of a value stands: exact where the value stands
    /// there as it is, its beginning where it has escapes.
    fn inside(&self, span: &Range<usize>, value: &str, offset: usize) -> usize {
        let written = self.text.get(span.clone()).unwrap_or("");
        let quotes = written.find(value).filter(|_| !value.is_empty());
        quotes.map_or(span.start, |quotes| span.start + quotes + offset)
    }
}

fn is_text(text: &str, chars_max: usize) -> bool {
    (1..=chars_max).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// An id for an error text, which must stay one line of bounded length.
fn printable(id: &str) -> String {
    id.chars().take(WORD_CHARS).flat_map(char::escape_debug).collect()
}
