//! Rules: what is refused and where, what is inhibited, and what ships.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::*;
use crate::condition::{Condition, Evidence, Reading, Verdict};

static SHIPPED: LazyLock<Rules> = LazyLock::new(|| Rules::shipped().unwrap());
static REPORT: LazyLock<trial::Report> =
    LazyLock::new(|| trial::run(&SHIPPED, include_str!("../../rules/alerts_test.toml")).unwrap());

#[test]
fn the_shipped_rules_do_what_their_tests_say() {
    let failures: Vec<String> = REPORT.failures().collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_shipped_rule_fires_in_a_test_and_is_quiet_just_below_in_another() {
    let ids: BTreeSet<&String> = SHIPPED.iter().map(|rule| &rule.id).collect();
    let outcomes = || REPORT.outcomes.iter();
    assert_eq!(outcomes().flat_map(|outcome| &outcome.fired).collect::<BTreeSet<_>>(), ids);
    assert_eq!(outcomes().flat_map(|outcome| &outcome.quiet).collect::<BTreeSet<_>>(), ids);
}

#[test]
fn no_shipped_rule_is_later_than_its_severity_promises() {
    assert_eq!(SHIPPED.late(), []);
}

/// A rule with a line for each key, the last of a key counts.
fn rule(id: &str, keys: &[(&str, &str)]) -> String {
    let id = format!("\"{id}\"");
    let mut all = vec![
        ("id", id.as_str()),
        ("title", "\"Too many\""),
        ("message", "\"m\""),
        ("severity", "\"sev2\""),
        ("category", "\"error\""),
        ("component", "\"http\""),
        ("condition", "\"http.error_rate[5m] > 1%\""),
    ];
    for (key, value) in keys {
        all.retain(|(held, _)| {
            held != key && (*held != "condition" || !["all", "any"].contains(key))
        });
        all.push((key, value));
    }
    let lines = all.iter().map(|(key, value)| format!("{key} = {value}\n"));
    format!("[[alert]]\n{}", lines.collect::<String>())
}

/// The only thing that is wrong with a file, as text.
fn refusal(text: &str) -> String {
    let errors = Rules::parse(text).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].to_string()
}

#[test]
fn every_word_for_a_severity_is_one_of_four() {
    for (words, severity) in [
        (["sev1", "p1", "critical", "CRITICAL"], Severity::Sev1),
        (["sev2", "p2", "error", "ERROR"], Severity::Sev2),
        (["sev3", "p3", "warning", "WARNING"], Severity::Sev3),
        (["sev4", "p4", "info", "INFO"], Severity::Sev4),
    ] {
        for word in words {
            let text = rule("x", &[("severity", &format!("\"{word}\""))]);
            assert_eq!(Rules::parse(&text).unwrap().get("x").unwrap().severity, severity);
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (keys, wanted) in [
        (
            &[("condition", "\"http.eror_rate[5m] > 1%\"")] as &[(&str, &str)],
            "8:14: rule x: condition: column 1: expected a known SLI; the nearest is \
             http.error_rate",
        ),
        (
            &[("condition", "'''http.error_rate[5m] > 1ms'''")],
            "8:38: rule x: condition: column 23: expected a number in %",
        ),
        (
            &[("all", "[\"log.dropped[5m] > 0\", \"log.dropped[5d] > 0\"]")],
            "8:44: rule x: condition: column 13: expected a window of 30s to 1h",
        ),
        (
            &[("any", "[]")],
            "1:1: rule x: a rule has one of condition, all and any, with 1 to 8 conditions",
        ),
        (
            &[("any", "[\"log.dropped[5m] > 0\"]"), ("condition", "\"log.dropped[5m] > 0\"")],
            "1:1: rule x: a rule has one of condition, all and any, with 1 to 8 conditions",
        ),
        (&[("id", "\"No\"")], "8:6: rule No: id must be 1 to 64 lower-case letters, digits and -"),
        (&[("for", "\"61m\"")], "9:7: rule x: for must be 0s, or from an evaluation to 1h"),
        (&[("hold", "\"5s\"")], "9:8: rule x: hold must be 0s, or from an evaluation to 1h"),
        (&[("title", "\"\"")], "8:9: rule x: title must be one line of 1 to 500 characters"),
        (
            &[("message", "\"é ${value} ${label.route}\"")],
            "8:23: rule x: a placeholder is ${value}, ${threshold} or ${label.name} of a \
             condition's label",
        ),
        (
            &[("any", "[\"disk.free_ratio{mount=*}[1m] < 1%\", \"log.dropped[5m] > 0\"]")],
            "1:1: rule x: conditions of one rule name the same labels with *; in all, some may \
             name none",
        ),
        (&[("inhibits", "[\"y\"]")], "9:13: rule x: inhibits a rule that does not exist"),
        (&[("inhibits", "[\"x\"]")], "1:1: rule x: inhibits itself"),
        (
            &[("severity", "\"loud\"")],
            "8:12: rule x: severity must be sev1 to sev4, p1 to p4, or critical, error, warning, info",
        ),
    ] {
        assert_eq!(refusal(&rule("x", keys)), wanted);
    }
    let unknown = refusal(&rule("x", &[("forr", "\"1m\"")]));
    assert!(unknown.starts_with("9:1: unknown field `forr`, expected one of `id`"), "{unknown}");
    assert_eq!(refusal("[[alert]]\nid = "), "2:6: a value or a form that does not belong here");
    let lacks = refusal("[[alert]]\nid = \"x\"\n");
    assert!(lacks.ends_with("missing field `title`"), "{lacks}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let bad = [("for", "\"61m\""), ("hold", "\"1d\""), ("condition", "\"quux\"")];
    let text = format!("{}{}", rule("a", &bad), rule("b", &[("all", "[]")]));
    let errors = Rules::parse(&text).unwrap_err();
    let places: Vec<(Option<&str>, usize)> =
        errors.iter().map(|error| (error.rule.as_deref(), error.line)).collect();
    assert_eq!(places, [(Some("a"), 8), (Some("a"), 9), (Some("a"), 10), (Some("b"), 11)]);
}

#[test]
fn ids_are_unique_and_rules_do_not_silence_each_other() {
    let twice = format!("{}{}", rule("a", &[]), rule("a", &[]));
    assert_eq!(refusal(&twice), "9:1: rule a: the id is taken by the rule at line 1");
    let circle = [("a", "b"), ("b", "c"), ("c", "a")]
        .map(|(id, lower)| rule(id, &[("inhibits", &format!("[\"{lower}\"]"))]))
        .concat();
    let errors = Rules::parse(&circle).unwrap_err();
    assert_eq!(errors.len(), 3);
    assert_eq!(errors[0].to_string(), "1:1: rule a: inhibits itself, by way of b, c");
    // A lower rung that inhibits a higher one is a circle too.
    let ladder = format!(
        "{}{}",
        rule(
            "high",
            &[
                ("ladder", "\"l\""),
                ("severity", "\"sev1\""),
                ("condition", "\"http.error_rate[1m] > 1%\"")
            ]
        ),
        rule("low", &[("ladder", "\"l\""), ("inhibits", "[\"high\"]")])
    );
    assert_eq!(Rules::parse(&ladder).unwrap_err().len(), 2);
}

#[test]
fn a_rule_that_cannot_keep_the_promise_of_its_severity_is_late() {
    let late = |keys: &[(&str, &str)]| {
        let rules = Rules::parse(&rule("x", keys)).unwrap();
        rules.late().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        late(&[("severity", "\"sev1\""), ("for", "\"5m\"")]),
        ["1: rule x: sees trouble after 10m, and sev1 is to be acknowledged within 5m"]
    );
    assert!(late(&[("severity", "\"sev1\"")]).is_empty());
    assert!(late(&[("severity", "\"sev2\""), ("for", "\"10m\"")]).is_empty());
    assert_eq!(late(&[("severity", "\"sev2\""), ("for", "\"11m\"")]).len(), 1);
    assert!(late(&[("severity", "\"sev4\""), ("for", "\"1h\"")]).is_empty());
    // A fast rung of the same ladder keeps it.
    let ladder = ("ladder", "\"l\"");
    let fast = [ladder, ("severity", "\"sev1\""), ("condition", "\"http.error_rate[1m] > 50%\"")];
    let slow = [ladder, ("severity", "\"sev1\""), ("for", "\"5m\"")];
    let rules = Rules::parse(&format!("{}{}", rule("fast", &fast), rule("slow", &slow))).unwrap();
    assert_eq!(rules.late(), []);
}

#[test]
fn the_highest_rung_that_fires_inhibits_the_rest_of_its_case() {
    let text: String = [("low", "sev3"), ("first", "sev2"), ("second", "sev2"), ("top", "sev1")]
        .map(|(id, severity)| {
            let severity = format!("\"{severity}\"");
            rule(id, &[("ladder", "\"l\""), ("severity", &severity), ("for", "\"0s\"")])
        })
        .concat();
    let other = rule("other", &[("inhibits", "[\"top\"]")]);
    let rules = Rules::parse(&format!("{text}{other}")).unwrap();
    let none = Labels::default();
    let (a, b): (Labels, Labels) =
        ([("provider", "a")].into_iter().collect(), [("provider", "b")].into_iter().collect());
    let inhibited = |firing: &[AlertKey<'_>]| {
        let by = rules.inhibited(firing).into_iter();
        by.map(|by| by.map(|(id, _)| id.to_owned())).collect::<Vec<_>>()
    };
    let some = |id: &str| Some(id.to_owned());
    assert_eq!(
        inhibited(&[("low", &none), ("second", &none), ("first", &none)]),
        [some("second"), some("first"), None]
    );
    assert_eq!(inhibited(&[("low", &a), ("first", &b)]), [None, None]);
    assert_eq!(inhibited(&[("low", &a), ("first", &none)]), [some("first"), None]);
    assert_eq!(inhibited(&[("top", &a), ("other", &none)]), [some("other"), None]);
    assert_eq!(inhibited(&[("unknown", &none), ("top", &none)]), [None, None]);
}

#[test]
fn every_placeholder_of_a_message_is_filled() {
    let text = rule(
        "x",
        &[
            ("condition", "'ai.latency.p95{provider=*,model=\"m\"}[5m] > 500ms'"),
            (
                "message",
                "\"${value} ${value} over ${threshold}: ${label.provider}/${label.model} $5\"",
            ),
        ],
    );
    let rules = Rules::parse(&text).unwrap();
    let rule = rules.get("x").unwrap();
    let labels: Labels = [("provider", "openai")].into_iter().collect();
    let reading = |value: Option<f64>| Reading {
        labels: labels.clone(),
        verdict: if value.is_none() { Verdict::NoData } else { Verdict::Holds },
        value,
        threshold: rule.clause.conditions()[0].threshold(),
        evidence: Evidence::default(),
    };
    let finding = |value| Finding {
        labels: labels.clone(),
        verdict: Verdict::Holds,
        readings: vec![reading(value)],
        shown: 0,
    };
    assert_eq!(rule.message(&finding(Some(1.25))), "1250ms 1250ms over 500ms: openai/m $5");
    assert_eq!(rule.message(&finding(None)), "no data no data over 500ms: openai/m $5");
}

#[test]
fn verdicts_combine_by_what_is_certain_first() {
    use Verdict::{Fails, Holds, NoData, TooLittle};
    let one = Condition::parse("log.dropped[5m] > 0").unwrap();
    let (all, any) = (Clause::All(vec![one.clone()]), Clause::Any(vec![one.clone()]));
    for (verdicts, of_all, of_any) in [
        ([Holds, Holds], (Holds, 0), (Holds, 0)),
        ([Fails, Fails], (Fails, 0), (Fails, 0)),
        ([Holds, Fails], (Fails, 1), (Holds, 0)),
        ([Holds, NoData], (NoData, 1), (Holds, 0)),
        ([Fails, NoData], (Fails, 0), (NoData, 1)),
        ([Holds, TooLittle], (TooLittle, 1), (Holds, 0)),
        ([Fails, TooLittle], (Fails, 0), (TooLittle, 1)),
        ([TooLittle, NoData], (NoData, 1), (NoData, 1)),
    ] {
        let readings = verdicts.map(|verdict| Reading {
            labels: Labels::default(),
            verdict,
            value: None,
            threshold: one.threshold(),
            evidence: Evidence::default(),
        });
        assert_eq!(all.combine(&readings), of_all, "{verdicts:?}");
        assert_eq!(any.combine(&readings), of_any, "{verdicts:?}");
    }
}

#[test]
fn a_test_that_does_not_hold_says_what_it_found() {
    let rules = Rules::parse(&rule("x", &[("for", "\"5m\"")])).unwrap();
    let text = r#"
        [[test]]
        name = "errors"
        interval = "15s"
        series = [{ metric = "http_requests_total", labels = { status = "500" }, values = "0+10x20" }]
        expect = [{ at = "5m", firing = ["x"], pending = [] }, { at = "10m" }]
        quiet = ["x", "y"]
        [[test]]
        name = "nonsense"
        interval = "15s"
        series = [{ metric = "m", values = "1+" }]
    "#;
    let report = trial::run(&rules, text).unwrap();
    let failures: Vec<String> = report.failures().collect();
    assert_eq!(
        failures,
        [
            "errors: firing at 5m: expected {\"x\"}, got {}",
            "errors: pending at 5m: expected {}, got {\"x\"}",
            "errors: x was breached",
            "errors: y never saw data",
            "nonsense: values of m do not read",
        ]
    );
    let error = trial::run(&rules, "[[test]]\nnam = \"x\"").unwrap_err();
    assert!(error.to_string().starts_with("2:1: unknown field `nam`"), "{error}");
}
