//! What a person reads of an answer.
//!
//! Owns: tables, lists of facts, and keeping control characters off the terminal. Refuses to
//! know: which request was answered.

use serde_json::{Map, Value};
use types::Micros;

/// What stands where an answer has nothing.
const NOTHING: &str = "-";

/// The columns whose numbers are unix seconds.
const TIMES: [&str; 10] = [
    "from",
    "until",
    "since",
    "opened",
    "next_page",
    "next_update",
    "issued_at",
    "expires_at",
    "last_taken",
    "last_failed",
];

/// How a good answer is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum View {
    /// Every field on a line of its own.
    Facts,
    /// A list of objects as a table.
    Table {
        /// The field of the answer that is the list.
        list: &'static str,
        /// The fields of its objects, in order.
        columns: &'static [&'static str],
    },
    /// One setting out of the list of all.
    Setting(String),
    /// The number of the receipt that records a change.
    Receipt,
    /// The same of a declaration, with the name of the incident.
    Opened,
    /// The same of a deed; or that it was done before, where the answer is what stands.
    Done,
    /// A text as it comes, which is not JSON.
    Text,
    /// A rule, and for each case of it why it stands where it does, with a table of its samples.
    Explained,
    /// A key's text, which is shown this once.
    NewKey,
}

impl View {
    pub(crate) const SUBSYSTEMS: View =
        View::Table { list: "subsystems", columns: &["name", "state", "restarts", "uptime_s"] };
    pub(crate) const SETTINGS: View = View::Table {
        list: "settings",
        columns: &["name", "value", "unit", "source", "live", "until"],
    };
    pub(crate) const SOURCES: View = View::Table { list: "sources", columns: &["source", "until"] };
    pub(crate) const DEPENDENCIES: View = View::Table {
        list: "dependencies",
        columns: &[
            "name",
            "breaker",
            "is_forced",
            "failures",
            "in_flight",
            "in_flight_max",
            "paused_for_s",
        ],
    };
    pub(crate) const SLIS: View = View::Table {
        list: "slis",
        columns: &["name", "labels", "value", "missing", "unit", "window", "promql"],
    };
    pub(crate) const SLI: View = View::Table {
        list: "slis",
        columns: &[
            "name", "labels", "value", "missing", "unit", "window", "samples", "help", "promql",
        ],
    };
    pub(crate) const ALERTS: View = View::Table {
        list: "alerts",
        columns: &[
            "key",
            "phase",
            "since",
            "severity",
            "component",
            "incident",
            "silenced",
            "maintenance",
            "title",
        ],
    };
    pub(crate) const SILENCES: View =
        View::Table { list: "silences", columns: &["matcher", "until", "by"] };
    pub(crate) const INCIDENTS: View = View::Table {
        list: "incidents",
        columns: &[
            "id",
            "severity",
            "status",
            "cause",
            "components",
            "opened",
            "acknowledged_by",
            "next_page",
            "next_update",
            "title",
        ],
    };
    pub(crate) const CHANNELS: View = View::Table {
        list: "channels",
        columns: &[
            "name",
            "next",
            "failures",
            "telling",
            "last_taken",
            "last_failed",
            "last_error",
        ],
    };
    pub(crate) const ONCALL: View =
        View::Table { list: "oncall", columns: &["rotation", "who", "override", "channels"] };
    pub(crate) const OVERRIDES: View = View::Table {
        list: "overrides",
        columns: &["id", "rotation", "who", "from", "until", "by"],
    };
    pub(crate) const MAINTENANCES: View = View::Table {
        list: "maintenances",
        columns: &["id", "status", "components", "from", "until", "by", "title"],
    };
    pub(crate) const KEYS: View = View::Table {
        list: "keys",
        columns: &["id", "label", "scopes", "issued_at", "expires_at"],
    };
}

/// The lines for a person: the answer itself, and what is said beside it, so that a script that
/// takes a key's text takes nothing else.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// For standard output.
    pub(crate) answer: Vec<String>,
    /// For standard error.
    pub(crate) beside: Vec<String>,
}

/// The lines of `answer`.
///
/// # Errors
/// What the answer has not, in a few words.
pub(crate) fn lines(view: &View, answer: &Value) -> Result<Lines, String> {
    let Value::Object(fields) = answer else { return Err("the answer is no object".to_owned()) };
    let mut lines = Lines::default();
    match view {
        View::Facts => facts("", fields, &mut lines.answer),
        View::Table { list, columns } => lines.answer = table(columns, rows(fields, list)?),
        View::Setting(name) => {
            facts("", setting(fields, name)?, &mut lines.answer);
        }
        View::Done if !fields.contains_key("type") => {
            lines.answer.push(format!("{}: nothing to do", text(fields, "id")));
        }
        View::Receipt | View::Done => {
            lines.answer.push(format!("done, receipt {}", text(fields, "id")));
        }
        View::Opened => {
            let (name, receipt) = (text(fields, "subject"), text(fields, "id"));
            lines.answer.push(format!("{name}, receipt {receipt}"));
        }
        View::Text => return Err("the answer is JSON".to_owned()),
        View::Explained => explained(fields, &mut lines.answer)?,
        View::NewKey => {
            let key = fields.get("key").and_then(Value::as_str);
            lines.answer.push(clean(key.ok_or("the answer has no key")?));
            let (id, receipt) = (text(fields, "id"), text(fields, "receipt_id"));
            lines.beside.push(format!("{id}, receipt {receipt}; the key is not shown again"));
        }
    }
    Ok(lines)
}

/// The part of a good answer that `--json` prints; `None` stands for all of it, byte for byte.
///
/// # Errors
/// As [`lines`].
pub(crate) fn part(view: &View, answer: &Value) -> Result<Option<Value>, String> {
    match (view, answer) {
        (View::Setting(name), Value::Object(fields)) => {
            setting(fields, name).map(|row| Some(Value::Object(row.clone())))
        }
        _ => Ok(None),
    }
}

fn setting<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
) -> Result<&'a Map<String, Value>, String> {
    let mut all = rows(fields, "settings")?.iter().filter_map(Value::as_object);
    let found = all.find(|row| row.get("name").and_then(Value::as_str) == Some(name));
    found.ok_or_else(|| "there is no such setting".to_owned())
}

fn rows<'a>(fields: &'a Map<String, Value>, list: &str) -> Result<&'a [Value], String> {
    let rows = fields.get(list).and_then(Value::as_array);
    rows.map(Vec::as_slice).ok_or_else(|| format!("the answer has no list of {list}"))
}

fn table(columns: &[&str], rows: &[Value]) -> Vec<String> {
    let mut cells = vec![columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    cells.extend(rows.iter().map(|row| {
        let cell =
            |name: &&str| row.get(*name).map_or_else(|| NOTHING.to_owned(), |it| shown(name, it));
        columns.iter().map(cell).collect()
    }));
    let width =
        |column: usize| cells.iter().map(|row: &Vec<String>| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..columns.len()).filter_map(width).collect();
    let line = |row: &Vec<String>| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    cells.iter().map(line).collect()
}

/// A value of a column; an instant as RFC 3339 has it.
fn shown(column: &str, value: &Value) -> String {
    let secs = value.as_i64().filter(|_| TIMES.contains(&column));
    match secs.map(|secs| Micros::from_secs(secs).to_string()).as_deref() {
        // Without the microseconds, which are none.
        Some(text) => text.get(..19).map_or_else(|| text.to_owned(), |whole| format!("{whole}Z")),
        None => one_line(value),
    }
}

/// A line for each field; objects inside give their fields with a dotted name, lists of objects a
/// line for each.
fn facts(before: &str, fields: &Map<String, Value>, lines: &mut Vec<String>) {
    for (name, value) in fields {
        let name = format!("{before}{}", clean(name));
        match value {
            Value::Object(inside) if !inside.is_empty() => {
                facts(&format!("{name}."), inside, lines);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                lines.push(format!("{name}:"));
                lines.extend(items.iter().map(|item| format!("  {}", one_line(item))));
            }
            _ => lines.push(format!("{name}: {}", one_line(value))),
        }
    }
}

/// What was seen of a rule, evaluation by evaluation.
fn explained(fields: &Map<String, Value>, lines: &mut Vec<String>) -> Result<(), String> {
    let of = |name: &str| text(fields, name);
    lines.push(format!("{}: {}", of("rule"), of("title")));
    lines.push(format!(
        "{} of: {}; for {} s, hold {} s",
        of("combine"),
        of("conditions"),
        of("for_s"),
        of("hold_s")
    ));
    let cases = rows(fields, "cases")?;
    if cases.is_empty() {
        lines.push("it was not evaluated yet".to_owned());
    }
    for case in cases.iter().filter_map(Value::as_object) {
        lines.push(String::new());
        lines.push(format!("{}: {}", text(case, "alert"), text(case, "why")));
        for name in ["silenced_by", "incident"] {
            match text(case, name) {
                nothing if nothing == NOTHING => {}
                value => lines.push(format!("{name}: {value}")),
            }
        }
        let samples = rows(case, "samples")?.iter().map(sample).collect::<Vec<_>>();
        let columns = ["at", "value", "verdict", "phase", "for_s", "inhibited_by"];
        lines.extend(table(&columns, &samples));
    }
    Ok(())
}

/// A sample with all its values, each beside what it is compared with, in one cell.
fn sample(sample: &Value) -> Value {
    let mut row = sample.clone();
    let readings = sample.get("readings").and_then(Value::as_array).map(Vec::as_slice);
    let each = readings.unwrap_or_default().iter().filter_map(Value::as_object).map(|reading| {
        let of = |name| text(reading, name);
        format!("{} {} {}", of("shown"), of("op"), of("threshold"))
    });
    let value: Value = each.collect::<Vec<_>>().join(", ").into();
    if let Some(row) = row.as_object_mut() {
        row.insert("value".to_owned(), value);
    }
    row
}

fn text(fields: &Map<String, Value>, name: &str) -> String {
    fields.get(name).map_or_else(|| NOTHING.to_owned(), one_line)
}

/// A value in a few words.
pub(crate) fn one_line(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) if text.is_empty() => NOTHING.to_owned(),
        Value::String(text) => clean(text),
        Value::Array(items) if items.is_empty() => NOTHING.to_owned(),
        Value::Array(items) => items.iter().map(one_line).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let each = fields.iter().map(|(name, it)| format!("{}={}", clean(name), one_line(it)));
            each.collect::<Vec<_>>().join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A text of several lines.
pub(crate) fn paragraphs(text: &str) -> Vec<String> {
    text.lines().map(clean).collect()
}

/// A label is whatever somebody once sent; it must not move the cursor here.
fn clean(text: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_aligned_and_say_what_is_missing() {
        let answer = json!({"keys": [
            {"id": "key_1", "scopes": ["admin:read", "admin:write"], "label": "a\u{1b}[2Jb", "issued_at": 7},
            {"id": "key_22", "scopes": [], "label": "", "issued_at": "today", "expires_at": null},
        ]});
        let shown = lines(&View::KEYS, &answer).unwrap().answer;
        assert_eq!(
            shown,
            [
                "id      label        scopes                   issued_at             expires_at",
                "key_1   a\\u{1b}[2Jb  admin:read, admin:write  1970-01-01T00:00:07Z  -",
                "key_22  -            -                        today                 -",
            ]
        );
        assert!(lines(&View::SOURCES, &answer).unwrap_err().contains("sources"));
        assert!(lines(&View::Facts, &json!([])).is_err());
    }

    #[test]
    fn a_rule_is_explained_case_by_case_and_sample_by_sample() {
        let reading = |shown: Value| json!({"shown": shown, "op": ">", "threshold": "5%"});
        let answer = json!({
            "rule": "errors", "title": "They fail", "combine": "all", "for_s": 30, "hold_s": 0,
            "conditions": ["http.error_rate[1m] > 5%"],
            "cases": [{
                "alert": "errors", "why": "it fires", "silenced_by": ["rule=errors"],
                "incident": null,
                "samples": [
                    {"at": "12:00", "readings": [reading(Value::Null)], "verdict": "no_data",
                     "phase": "inactive", "for_s": null, "inhibited_by": null},
                    {"at": "12:01", "readings": [reading("7%".into())], "verdict": "holds",
                     "phase": "firing", "for_s": 15, "inhibited_by": "worse"},
                ],
            }],
        });
        assert_eq!(
            lines(&View::Explained, &answer).unwrap().answer,
            [
                "errors: They fail",
                "all of: http.error_rate[1m] > 5%; for 30 s, hold 0 s",
                "",
                "errors: it fires",
                "silenced_by: rule=errors",
                "at     value    verdict  phase     for_s  inhibited_by",
                "12:00  - > 5%   no_data  inactive  -      -",
                "12:01  7% > 5%  holds    firing    15     worse",
            ]
        );
        assert!(lines(&View::Explained, &json!({"rule": "x"})).is_err());
    }

    #[test]
    fn facts_unfold_objects_and_lists() {
        let answer = json!({
            "tenant_id": "acme", "keys": 2, "registered": true,
            "entitlements": [{"id": "pro", "state": "active"}], "labels": [],
            "parts": {"db": "ok", "more": {"x": null}},
        });
        assert_eq!(
            lines(&View::Facts, &answer).unwrap().answer,
            [
                "entitlements:",
                "  id=pro state=active",
                "keys: 2",
                "labels: -",
                "parts.db: ok",
                "parts.more.x: -",
                "registered: true",
                "tenant_id: acme",
            ]
        );
    }

    #[test]
    fn a_new_key_stands_alone() {
        let answer = json!({"key": "taik_a.b", "id": "key_1", "receipt_id": "rcpt_1"});
        let shown = lines(&View::NewKey, &answer).unwrap();
        assert_eq!(shown.answer, ["taik_a.b"]);
        assert_eq!(shown.beside, ["key_1, receipt rcpt_1; the key is not shown again"]);
        assert!(lines(&View::NewKey, &json!({"id": "key_1"})).is_err());
    }

    #[test]
    fn one_setting_is_found_by_its_name() {
        let answer =
            json!({"settings": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]});
        let view = View::Setting("B".to_owned());
        assert_eq!(lines(&view, &answer).unwrap().answer, ["name: B", "value: 2"]);
        assert_eq!(part(&view, &answer), Ok(Some(json!({"name": "B", "value": "2"}))));
        assert!(lines(&View::Setting("C".to_owned()), &answer).is_err());
        assert_eq!(part(&View::SETTINGS, &answer), Ok(None));
    }
}
