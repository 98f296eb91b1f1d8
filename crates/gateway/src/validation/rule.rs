//! One rule, and what a body breaks of it.
//!
//! Owns: what strict and lenient mean, and how a failure is told without a value of the body.
//! Refuses to know: which settings are in force, and how long a check may take.
//!
//! **Strict**: the body is what the schema says.
//!
//! **Lenient** forgives two things, and nothing else: a member of the body itself, not of an object
//! inside it, that the schema does not know (`additionalProperties`, `unevaluatedProperties`); and
//! a text that holds a number where the schema asks for a number, if that number is what the schema
//! allows there. Neither is forgiven inside `anyOf`, `oneOf` and `not`, where it is not certain
//! which branch was meant. The body goes on as it came: what the route itself asks for, it still
//! asks for.

use dialect::JsonLimits;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError, Validator};
use serde_json::{Number, Value};

use super::pointer::Names;
use crate::table::Route;

/// Failures that are told of one body. More would help nobody and cost both sides.
const FAILURES_MAX: usize = 5;

/// Characters of a text that is looked at as a number.
const NUMBER_CHARS_MAX: usize = 32;

/// The rule of one route.
#[derive(Debug)]
pub struct Rule {
    route: &'static Route,
    always_strict: bool,
    validator: Validator,
    names: Names,
}

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Passed,
    /// What only a lenient check accepts.
    Forgiven(Vec<Failure>),
    /// Failures, and whether there are more of them.
    Failed(Vec<Failure>, bool),
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// Where it is, as [`Names::shown`] says it; empty for the body as a whole.
    pub(super) pointer: String,
    /// The keyword of JSON Schema that is not met.
    pub(super) keyword: String,
    pub(super) class: Class,
}

/// What kind of keyword is not met; the label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Type,
    Required,
    Unknown,
    Value,
    Range,
    Size,
    Pattern,
    Combination,
    /// The check did not end in its time.
    Timeout,
}

impl Class {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Class::Type => "type",
            Class::Required => "required",
            Class::Unknown => "unknown",
            Class::Value => "value",
            Class::Range => "range",
            Class::Size => "size",
            Class::Pattern => "pattern",
            Class::Combination => "combination",
            Class::Timeout => "timeout",
        }
    }

    fn of(kind: &Kind) -> Class {
        match kind {
            Kind::Type { .. } => Class::Type,
            Kind::Required { .. } => Class::Required,
            Kind::AdditionalItems { .. }
            | Kind::AdditionalProperties { .. }
            | Kind::FalseSchema
            | Kind::PropertyNames { .. }
            | Kind::UnevaluatedItems { .. }
            | Kind::UnevaluatedProperties { .. } => Class::Unknown,
            Kind::Constant { .. }
            | Kind::ContentEncoding { .. }
            | Kind::ContentMediaType { .. }
            | Kind::Custom { .. }
            | Kind::Enum { .. }
            | Kind::Format { .. }
            | Kind::FromUtf8 { .. } => Class::Value,
            Kind::ExclusiveMaximum { .. }
            | Kind::ExclusiveMinimum { .. }
            | Kind::Maximum { .. }
            | Kind::Minimum { .. }
            | Kind::MultipleOf { .. } => Class::Range,
            Kind::Contains
            | Kind::MaxItems { .. }
            | Kind::MaxLength { .. }
            | Kind::MaxProperties { .. }
            | Kind::MinItems { .. }
            | Kind::MinLength { .. }
            | Kind::MinProperties { .. }
            | Kind::UniqueItems => Class::Size,
            Kind::BacktrackLimitExceeded { .. }
            | Kind::Pattern { .. }
            | Kind::RegexEngineFailure { .. } => Class::Pattern,
            Kind::AnyOf { .. }
            | Kind::Not { .. }
            | Kind::OneOfMultipleValid { .. }
            | Kind::OneOfNotValid { .. }
            | Kind::Referencing(_) => Class::Combination,
        }
    }
}

impl Rule {
    pub(super) fn new(
        route: &'static Route,
        always_strict: bool,
        validator: Validator,
        schema: &Value,
    ) -> Rule {
        Rule { route, always_strict, validator, names: Names::of(schema) }
    }

    /// The route that the rule is for.
    #[must_use]
    pub const fn route(&self) -> &'static Route {
        self.route
    }

    /// Whether the rule stays strict whatever the settings say.
    #[must_use]
    pub const fn is_always_strict(&self) -> bool {
        self.always_strict
    }

    /// Reads a body as every route does, and checks it. Takes as long as the schema makes it take.
    pub(super) fn check(
        &self,
        body: &[u8],
        limits: JsonLimits,
        strict: bool,
    ) -> Result<Verdict, dialect::Fault> {
        let mut body = dialect::json::parse(body, limits)?;
        if self.validator.is_valid(&body) {
            return Ok(Verdict::Passed);
        }
        if strict || self.always_strict {
            let (failures, more) = self.told(&body, |_| true);
            return Ok(Verdict::Failed(failures, more));
        }
        Ok(self.lenient(&mut body))
    }

    fn lenient(&self, body: &mut Value) -> Verdict {
        let numbers: Vec<(String, Number)> = self
            .validator
            .iter_errors(body)
            .filter_map(|error| {
                Some((error.instance_path().as_str().to_owned(), number_in_text(&error)?))
            })
            .collect();
        let of_text = |error: &ValidationError<'_>| number_in_text(error).is_some();
        let (mut forgiven, _) = self.told(body, of_text);
        // The number itself is checked as well: a text is not a way around a limit.
        for (pointer, number) in numbers {
            if let Some(place) = body.pointer_mut(&pointer) {
                *place = Value::Number(number);
            }
        }
        let (failures, more) = self.told(body, |error| !is_unknown_member(error));
        if !failures.is_empty() {
            return Verdict::Failed(failures, more);
        }
        forgiven.extend(self.told(body, is_unknown_member).0);
        forgiven.truncate(FAILURES_MAX);
        Verdict::Forgiven(forgiven)
    }

    /// The first failures that `which` picks, and whether there are more.
    fn told(
        &self,
        body: &Value,
        which: impl Fn(&ValidationError<'_>) -> bool,
    ) -> (Vec<Failure>, bool) {
        let mut told: Vec<Failure> = self
            .validator
            .iter_errors(body)
            .filter(which)
            .flat_map(|error| self.failures(&error))
            .take(FAILURES_MAX + 1)
            .collect();
        let more = told.len() > FAILURES_MAX;
        told.truncate(FAILURES_MAX);
        (told, more)
    }

    /// An error as failures: one for each member that is missing or too many.
    fn failures(&self, error: &ValidationError<'_>) -> Vec<Failure> {
        let failure = |member: Option<&str>| Failure {
            pointer: self.names.shown(error.instance_path().as_str(), member),
            keyword: keyword(error).to_owned(),
            class: Class::of(error.kind()),
        };
        match error.kind() {
            Kind::AdditionalProperties { unexpected }
            | Kind::UnevaluatedProperties { unexpected } => {
                let some = unexpected.iter().take(FAILURES_MAX + 1);
                some.map(|name| failure(Some(name))).collect()
            }
            Kind::Required { property } => vec![failure(property.as_str())],
            _ => vec![failure(None)],
        }
    }
}

/// The keyword that is not met. An object that may hold nothing is refused as by a plain `false`,
/// which stands below the keyword that was meant.
fn keyword<'e>(error: &'e ValidationError<'_>) -> &'e str {
    match error.kind() {
        Kind::FalseSchema => match error.schema_path().as_str().rsplit('/').next() {
            Some(name @ ("additionalProperties" | "unevaluatedProperties")) => name,
            _ => "false",
        },
        kind => kind.keyword(),
    }
}

/// Whether an error says that the body itself holds a member too many.
fn is_unknown_member(error: &ValidationError<'_>) -> bool {
    let of_members = matches!(keyword(error), "additionalProperties" | "unevaluatedProperties");
    of_members && error.instance_path().is_empty()
}

/// The number that a text holds where the schema asks for one.
fn number_in_text(error: &ValidationError<'_>) -> Option<Number> {
    let asks_for_number = match error.kind() {
        Kind::Type { kind: TypeKind::Single(kind) } => is_number(*kind),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => kinds.iter().any(is_number),
        _ => false,
    };
    let text = error.instance().as_str().filter(|_| asks_for_number)?;
    // The parser takes blanks around a number; a number it is without them only.
    let whole = text.len() <= NUMBER_CHARS_MAX && !text.contains(|c: char| c.is_ascii_whitespace());
    whole.then(|| serde_json::from_str(text).ok())?
}

fn is_number(kind: JsonType) -> bool {
    matches!(kind, JsonType::Number | JsonType::Integer)
}
