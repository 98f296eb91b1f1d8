//! The grammar of conditions.
//!
//! Owns: the form, and where and why a text is refused. Refuses to know: what an SLI is made of.

use std::ops::Range;

use winnow::ascii::space0;
use winnow::combinator::{alt, cut_err, delimited, fail, opt, preceded, separated};
use winnow::error::{ContextError, ErrMode};
use winnow::prelude::*;
use winnow::stream::LocatingSlice;
use winnow::token::{one_of, take_while};

use super::{Condition, Op, Selector};
use crate::sli::{SLIS, Sli, nearest};
use crate::unit::{HOUR_US, Quantity, Span};

/// Longest condition and longest value of a label, in bytes.
const TEXT_BYTES: usize = 512;
const VALUE_BYTES: usize = 128;
/// Digits before and behind the point of a number.
const WHOLE_DIGITS: usize = 15;
const FRACTION_DIGITS: usize = 6;
/// Evaluations that the shortest window must span: fewer than two samples say nothing of a rate.
const EVALUATIONS_MIN: i64 = 2;

/// Where and why a text is no condition. Never says what stood there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}{}", hint(*.nearest))]
pub struct ParseError {
    /// The byte at which it goes wrong, from 0 to the length of the text.
    pub offset: usize,
    /// The character at which it goes wrong, counted from 1.
    pub column: usize,
    /// What may stand there.
    pub expected: String,
    /// The known name that is nearest to the unknown one.
    pub nearest: Option<&'static str>,
}

fn hint(nearest: Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; the nearest is {name}"))
}

/// A condition as it is written, each part with the bytes that it takes.
struct Written<'a> {
    name: (&'a str, Range<usize>),
    selectors: Vec<(&'a str, Range<usize>, Selector)>,
    window: (&'a str, Range<usize>),
    op: Op,
    number: (&'a str, Range<usize>),
    unit: &'a str,
}

type Input<'a> = LocatingSlice<&'a str>;
type Out<T> = Result<T, ErrMode<ContextError<&'static str>>>;

const NAME: &str = "the name of an SLI, such as http.error_rate";
const LABEL: &str = "the name of a label";
const VALUE: &str = "a text in double quotes, or *";
const WINDOW: &str = "a window, such as [5m]";
const OP: &str = "one of > >= < <= ==";
const NUMBER: &str = "a number";

/// Reads a condition.
pub(super) fn parse(text: &str, interval_us: i64) -> Result<Condition, ParseError> {
    let refuse = |offset: usize, expected: String, nearest| {
        // An error never points into the middle of a character.
        let offset = (0..=offset.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        let offset = offset.unwrap_or(0);
        let column = text[..offset].chars().count() + 1;
        ParseError { offset, column, expected, nearest }
    };
    if text.len() > TEXT_BYTES {
        return Err(refuse(TEXT_BYTES, format!("at most {TEXT_BYTES} bytes"), None));
    }
    let written = condition.parse(LocatingSlice::new(text)).map_err(|error| {
        let expected = error.inner().context().next().copied();
        refuse(error.offset(), expected.unwrap_or("the end of the condition").to_owned(), None)
    })?;
    let (name, at) = written.name;
    let sli = Sli::find(name).ok_or_else(|| {
        refuse(at.start, "a known SLI".to_owned(), nearest(name, SLIS.iter().map(|sli| sli.name)))
    })?;
    let mut selectors: Vec<(&'static str, Selector)> = Vec::new();
    for (name, at, selector) in written.selectors {
        let Some(name) = sli.labels.iter().copied().find(|label| *label == name) else {
            let expected = match sli.labels {
                [] => "no label: the SLI has none".to_owned(),
                labels => format!("one of the SLI's labels: {}", labels.join(", ")),
            };
            return Err(refuse(at.start, expected, nearest(name, sli.labels.iter().copied())));
        };
        match selectors.binary_search_by(|(held, _)| (*held).cmp(name)) {
            Ok(_) => return Err(refuse(at.start, "each label once".to_owned(), None)),
            Err(place) => selectors.insert(place, (name, selector)),
        }
    }
    let (window, at) = written.window;
    let shortest = interval_us.saturating_mul(EVALUATIONS_MIN).div_euclid(1_000_000).max(1);
    let shortest = Span::from_secs(shortest);
    let window = Span::parse(window)
        .filter(|window| *window >= shortest && window.micros() <= HOUR_US)
        .ok_or_else(|| refuse(at.start, format!("a window of {shortest} to 1h"), None))?;
    let (number, at) = written.number;
    let threshold = number.parse().ok().and_then(|n| Quantity::new(n, written.unit, sli.unit));
    let threshold =
        threshold.ok_or_else(|| refuse(at.start, sli.unit.expected().to_owned(), None))?;
    Ok(Condition { sli, selectors, window, op: written.op, threshold })
}

fn condition<'a>(input: &mut Input<'a>) -> Out<Written<'a>> {
    space0.parse_next(input)?;
    let name = must(sli_name, NAME).with_span().parse_next(input)?;
    space0.parse_next(input)?;
    let selectors = opt(braces).parse_next(input)?.unwrap_or_default();
    space0.parse_next(input)?;
    let window = window.parse_next(input)?;
    space0.parse_next(input)?;
    let op = must(op, OP).parse_next(input)?;
    space0.parse_next(input)?;
    let number = must(number, NUMBER).with_span().parse_next(input)?;
    space0.parse_next(input)?;
    let unit = take_while(0.., |c: char| c.is_ascii_alphabetic() || c == '%' || c == '/')
        .parse_next(input)?;
    space0.parse_next(input)?;
    Ok(Written { name, selectors, window, op, number, unit })
}

/// A part without which there is no condition.
fn must<'a, T>(
    part: impl Parser<Input<'a>, T, ErrMode<ContextError<&'static str>>>,
    what: &'static str,
) -> impl Parser<Input<'a>, T, ErrMode<ContextError<&'static str>>> {
    cut_err(part).context(what)
}

fn sli_name<'a>(input: &mut Input<'a>) -> Out<&'a str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_' || c == '-';
    take_while(1.., fits).parse_next(input)
}

fn braces<'a>(input: &mut Input<'a>) -> Out<Vec<(&'a str, Range<usize>, Selector)>> {
    let comma = (space0, ',', space0);
    delimited(('{', space0), separated(1.., selector, comma), (space0, must('}', "a comma or }")))
        .parse_next(input)
}

fn selector<'a>(input: &mut Input<'a>) -> Out<(&'a str, Range<usize>, Selector)> {
    let name = take_while(1.., |c: char| c.is_ascii_alphanumeric() || c == '_');
    let (name, at) = must(name, LABEL).with_span().parse_next(input)?;
    (space0, must('=', "="), space0).parse_next(input)?;
    let value = alt(('*'.value(Selector::Each), quoted.map(Selector::Is)));
    let value = must(value, VALUE).parse_next(input)?;
    Ok((name, at, value))
}

/// A text in double quotes, in which `\"` and `\\` stand for `"` and `\`.
fn quoted(input: &mut Input<'_>) -> Out<String> {
    '"'.parse_next(input)?;
    let mut value = String::new();
    loop {
        let mut plain = take_while(0.., |c: char| c != '"' && c != '\\' && !c.is_control());
        value.push_str(plain.parse_next(input)?);
        if opt('"').parse_next(input)?.is_some() {
            break;
        }
        let escaped = preceded('\\', one_of(['"', '\\']));
        value.push(must(escaped, "the end of the text: \"").parse_next(input)?);
    }
    if value.len() > VALUE_BYTES {
        return cut_err(fail).context("a text of at most 128 bytes").parse_next(input);
    }
    Ok(value)
}

fn window<'a>(input: &mut Input<'a>) -> Out<(&'a str, Range<usize>)> {
    must('[', WINDOW).parse_next(input)?;
    let text = take_while(1..=8, |c: char| c.is_ascii_alphanumeric());
    let window = must(text, "a window, such as 5m").with_span().parse_next(input)?;
    must(']', "]").parse_next(input)?;
    Ok(window)
}

fn op(input: &mut Input<'_>) -> Out<Op> {
    for (sign, op) in Op::ALL {
        if opt(sign).parse_next(input)?.is_some() {
            return Ok(op);
        }
    }
    fail.parse_next(input)
}

fn number<'a>(input: &mut Input<'a>) -> Out<&'a str> {
    let digit = |c: char| c.is_ascii_digit();
    let fraction = ('.', take_while(1..=FRACTION_DIGITS, digit));
    (opt('-'), take_while(1..=WHOLE_DIGITS, digit), opt(fraction)).take().parse_next(input)
}
