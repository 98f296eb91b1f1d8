//! What a file may say, what strict and lenient take, and what a check that does not end costs.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

/// A file with one rule.
fn file(schema: &Value) -> Value {
    json!({"version": 1, "rules": [
        {"route": "/marketplace", "method": "POST", "schema": schema},
    ]})
}

fn parse(file: &Value) -> Result<Rules, Vec<String>> {
    let told = |mistakes: Vec<Mistake>| mistakes.iter().map(ToString::to_string).collect();
    Rules::parse(file.to_string().as_bytes()).map_err(told)
}

fn rule(file: &Value) -> Arc<Rule> {
    Arc::clone(&parse(file).unwrap().rules[0])
}

/// Places and keywords of what a body breaks.
fn told(failures: &[Failure]) -> Vec<(&str, &str)> {
    failures.iter().map(|it| (it.pointer.as_str(), it.keyword.as_str())).collect()
}

fn check(rule: &Rule, body: &Value, strict: bool) -> Verdict {
    rule.check(body.to_string().as_bytes(), JsonLimits::default(), strict).unwrap()
}

#[test]
fn a_file_says_where_it_is_wrong() {
    let good = json!({"route": "/pubsub", "method": "POST", "schema": {"type": "object"}});
    let with = |name: &str, value: Value| {
        let mut rule = good.clone();
        rule[name] = value;
        json!({"version": 1, "rules": [rule]})
    };
    let without = |name: &str| {
        let mut rule = good.clone();
        rule.as_object_mut().unwrap().remove(name);
        json!({"version": 1, "rules": [rule]})
    };
    let schema = |schema: Value| with("schema", schema);
    for (file, places) in [
        (json!([]), vec!["file must be a JSON object"]),
        (json!({"rules": []}), vec!["/version: must be 1"]),
        (json!({"version": "1", "rules": []}), vec!["/version: must be 1"]),
        (json!({"version": 2, "rules": []}), vec!["/version: must be 1"]),
        (json!({"version": 1}), vec!["/rules: must be an array"]),
        (json!({"version": 1, "rules": [], "a/b": 1}), vec!["/a~1b: is unknown"]),
        (json!({"version": 1, "rules": [1]}), vec!["/rules/0: must be an object"]),
        (with("note", json!("x")), vec!["/rules/0/note: is unknown"]),
        (without("route"), vec!["/rules/0/route: is required"]),
        (without("method"), vec!["/rules/0/method: is required"]),
        (without("schema"), vec!["/rules/0/schema: is required"]),
        (with("strict", json!("yes")), vec!["/rules/0/strict: must be true or false"]),
        (with("route", json!("/v9/none")), vec!["/rules/0/route: there is no route /v9/none"]),
        (with("method", json!("PUT")), vec!["/rules/0/method: /pubsub does not take PUT"]),
        (with("method", json!("post")), vec!["/rules/0/method: /pubsub does not take post"]),
        (
            json!({"version": 1, "rules": [
                {"route": "/admin/keys", "method": "POST", "schema": true},
                {"route": "/health", "method": "GET", "schema": true},
            ]}),
            vec![
                "/rules/0/route: POST /admin/keys takes no rule",
                "/rules/1/route: GET /health takes no rule",
            ],
        ),
        (
            json!({"version": 1, "rules": [good.clone(), good.clone()]}),
            vec!["/rules/1/route: POST /pubsub has a rule already"],
        ),
        (schema(json!(1)), vec!["/rules/0/schema: must be an object, true or false"]),
        (
            schema(json!({"properties": {"a": {"type": "text"}}})),
            vec!["/rules/0/schema/properties/a/type: "],
        ),
        (
            schema(json!({"properties": {"a": {"maxLength": -1}}})),
            vec!["/rules/0/schema/properties/a/maxLength: "],
        ),
        (schema(json!({"$ref": "https://example.org/other.json"})), vec!["/rules/0/schema"]),
        (schema(json!({"$ref": "#/$defs/none"})), vec!["/rules/0/schema"]),
        (schema(json!({"$schema": "https://example.org/own"})), vec!["/rules/0/schema"]),
        // What only an engine that goes back and forth could match.
        (schema(json!({"pattern": "^(?=a)b"})), vec!["/rules/0/schema"]),
        (schema(json!({"pattern": r"^(a)\1$"})), vec!["/rules/0/schema"]),
        (schema(json!({"pattern": "^(a{1000}){1000}$"})), vec!["/rules/0/schema"]),
        (schema(json!({"pattern": "("})), vec!["/rules/0/schema"]),
    ] {
        let mistakes = parse(&file).expect_err(&file.to_string());
        assert_eq!(mistakes.len(), places.len(), "{file}: {mistakes:?}");
        for (mistake, place) in mistakes.iter().zip(places) {
            assert!(mistake.starts_with(place), "{file}: {mistake}");
        }
    }
}

#[test]
fn a_file_that_is_none_is_refused_whole() {
    for (text, said) in [
        (&b""[..], "file is empty"),
        (b"{\"version\": 1,\n \"version\": 1}", "file names a member twice at line 2 column 10"),
        (b"\xff", "file is not UTF-8"),
    ] {
        let mistakes = Rules::parse(text).expect_err(said);
        assert_eq!((mistakes.len(), mistakes[0].to_string().as_str()), (1, said));
    }
    let long = vec![b' '; FILE_BYTES_MAX + 1];
    assert_eq!(
        Rules::parse(&long).expect_err("too long")[0].what,
        "the file may hold 1048576 bytes"
    );
}

#[test]
fn every_mistake_is_told_at_once_and_good_rules_are_told_apart() {
    let file = json!({"version": 1, "rules": [
        {"route": "/pubsub", "method": "POST", "schema": true},
        {"route": "/none", "method": "POST", "schema": {"type": 1}, "strict": 1},
    ]});
    let found = read(file.to_string().as_bytes()).unwrap();
    let names: Vec<&str> = found.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["POST /pubsub", "POST /none"]);
    assert!(found[0].rule.is_ok());
    let places: Vec<&str> =
        found[1].rule.as_ref().unwrap_err().iter().map(|wrong| wrong.at.as_str()).collect();
    assert_eq!(places, ["/rules/1/route", "/rules/1/strict", "/rules/1/schema/type"]);
    assert_eq!(parse(&file).unwrap_err().len(), 3);
}

#[test]
fn strict_takes_what_the_schema_says_and_tells_places_without_values() {
    let rule = rule(&file(&json!({
        "type": "object",
        "required": ["tenant_id"],
        "additionalProperties": false,
        "properties": {
            "tenant_id": {"type": "string", "pattern": "^[a-z]+$"},
            "seats": {"type": "integer", "minimum": 1, "maximum": 100},
            "plan": {"enum": ["base", "pro"]},
            "tags": {"type": "array", "maxItems": 2, "items": {"type": "string"}},
            "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
    })));
    let cases = [
        (json!({"tenant_id": "acme", "seats": 3}), vec![]),
        (json!([]), vec![("", "type")]),
        (json!({}), vec![("/tenant_id", "required")]),
        (json!({"tenant_id": "Zq7"}), vec![("/tenant_id", "pattern")]),
        (json!({"tenant_id": "a", "seats": "3"}), vec![("/seats", "type")]),
        (json!({"tenant_id": "a", "seats": 101}), vec![("/seats", "maximum")]),
        (json!({"tenant_id": "a", "plan": "zq7"}), vec![("/plan", "enum")]),
        (json!({"tenant_id": "a", "tags": ["x", 7]}), vec![("/tags/1", "type")]),
        (json!({"tenant_id": "a", "tags": ["x", "y", "z"]}), vec![("/tags", "maxItems")]),
        (json!({"tenant_id": "a", "either": "5"}), vec![("/either", "anyOf")]),
        (json!({"tenant_id": "a", "note": 1}), vec![("/note", "additionalProperties")]),
        (json!({"tenant_id": "a", "zq7@x": 1}), vec![("/*", "additionalProperties")]),
    ];
    for (body, expected) in cases {
        match check(&rule, &body, true) {
            Verdict::Passed => assert!(expected.is_empty(), "{body}"),
            Verdict::Failed(failures, more) => {
                assert_eq!(told(&failures), expected, "{body}");
                let detail = detail(&failures, more);
                assert!(!more && !detail.contains("zq7") && !detail.contains("Zq7"), "{detail}");
            }
            Verdict::Forgiven(_) => panic!("{body} is forgiven"),
        }
    }
}

#[test]
fn lenient_forgives_two_things_and_nothing_else() {
    let rule = rule(&file(&json!({
        "type": "object",
        "required": ["id"],
        "additionalProperties": false,
        "properties": {
            "id": {"type": "string"},
            "seats": {"type": "integer", "maximum": 100},
            "share": {"type": ["number", "null"]},
            "inner": {"type": "object", "additionalProperties": false},
            "either": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "flag": {"type": "boolean"},
            "count": {"enum": [1, 2]},
        },
    })));
    let with = |name: &str, value: Value| {
        let mut body = json!({"id": "a"});
        body[name] = value;
        body
    };
    for (body, forgiven) in [
        (with("note", json!("x")), vec![("/note", "additionalProperties")]),
        (with("seats", json!("42")), vec![("/seats", "type")]),
        (with("share", json!("-1.5e3")), vec![("/share", "type")]),
        (
            json!({"id": "a", "seats": "1", "b": 1, "c": 2}),
            vec![
                ("/seats", "type"),
                ("/b", "additionalProperties"),
                ("/c", "additionalProperties"),
            ],
        ),
    ] {
        assert!(matches!(check(&rule, &body, true), Verdict::Failed(..)), "{body}");
        match check(&rule, &body, false) {
            Verdict::Forgiven(failures) => assert_eq!(told(&failures), forgiven, "{body}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    for (body, failed) in [
        (json!({}), ("/id", "required")),
        (json!("x"), ("", "type")),
        (with("id", json!(5)), ("/id", "type")),
        (with("seats", json!("101")), ("/seats", "maximum")),
        (with("seats", json!("4.5")), ("/seats", "type")),
        (with("seats", json!(" 4")), ("/seats", "type")),
        (with("seats", json!("4x")), ("/seats", "type")),
        (with("seats", json!("0x4")), ("/seats", "type")),
        (with("seats", json!("1".repeat(40))), ("/seats", "type")),
        (with("inner", json!({"x": 1})), ("/inner", "additionalProperties")),
        (with("either", json!("5")), ("/either", "anyOf")),
        (with("flag", json!("true")), ("/flag", "type")),
        (with("count", json!("1")), ("/count", "enum")),
    ] {
        assert!(matches!(check(&rule, &body, true), Verdict::Failed(..)), "{body}");
        match check(&rule, &body, false) {
            Verdict::Failed(failures, false) => assert_eq!(told(&failures), [failed], "{body}"),
            other => panic!("{body}: {other:?}"),
        }
    }
    let body = json!({"id": 5, "note": 1});
    let Verdict::Failed(failures, false) = check(&rule, &body, false) else { panic!() };
    assert_eq!(told(&failures), [("/id", "type")], "what is forgiven is not told as a failure");
}

#[test]
fn a_body_that_may_hold_nothing_is_as_one_that_may_hold_little() {
    for keyword in ["additionalProperties", "unevaluatedProperties"] {
        let rule = rule(&file(&json!({keyword: false})));
        let body = json!({"a": 1});
        let Verdict::Failed(failures, false) = check(&rule, &body, true) else { panic!() };
        assert_eq!(failures[0].keyword, keyword);
        assert!(matches!(check(&rule, &body, false), Verdict::Forgiven(_)), "{keyword}");
    }
    let nothing = rule(&file(&json!(false)));
    assert!(matches!(check(&nothing, &json!({}), false), Verdict::Failed(..)));
}

#[test]
fn a_rule_may_stay_strict() {
    let mut text = file(&json!({"additionalProperties": false}));
    text["rules"][0]["strict"] = true.into();
    let rule = rule(&text);
    assert!(rule.is_always_strict());
    assert!(matches!(check(&rule, &json!({"a": 1}), false), Verdict::Failed(..)));
}

#[test]
fn five_failures_are_told_and_the_rest_is_mentioned() {
    let rule = rule(&file(&json!({
        "properties": {"x": true, "y": true, "z": true},
        "additionalProperties": false,
        "required": ["x", "y"],
    })));
    let body = |count: usize| -> Value {
        (0..count)
            .map(|at| (format!("m{at}"), Value::Null))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    for (count, expected) in [(3, (5, false)), (4, (5, true)), (4_000, (5, true))] {
        let Verdict::Failed(failures, more) = check(&rule, &body(count), true) else { panic!() };
        assert_eq!((failures.len(), more), expected);
        assert_eq!(detail(&failures, more).ends_with(" and more"), more);
    }
}

#[test]
fn a_body_that_is_no_json_is_told_as_everywhere() {
    let rule = rule(&file(&json!(true)));
    for body in [&b"{"[..], b"", b"{\"a\":1,\"a\":2}"] {
        let fault = rule.check(body, JsonLimits::default(), false).unwrap_err();
        assert_eq!(fault.reason, Reason::InvalidMessageFormat);
    }
    assert_eq!(rule.check(b"{}", JsonLimits::default(), true), Ok(Verdict::Passed));
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    for schema in [
        json!({"$ref": "#"}),
        json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}),
        json!({"additionalProperties": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"type": "null"}]}}),
    ] {
        let rule = rule(&file(&schema));
        let deep: Value = (0..9).fold(json!(1), |inner, _| json!({"a": inner, "b": null}));
        // Whatever it finds: that it returns is what is asked here.
        let _ = check(&rule, &deep, true);
    }
}

#[test]
fn every_class_of_keyword_has_one_label() {
    for (schema, body, class) in [
        (json!({"type": "object"}), json!(1), Class::Type),
        (json!({"required": ["a"]}), json!({}), Class::Required),
        (json!(false), json!(1), Class::Unknown),
        (json!({"unevaluatedProperties": false}), json!({"a": 1}), Class::Unknown),
        (json!({"propertyNames": {"maxLength": 1}}), json!({"ab": 1}), Class::Unknown),
        (json!({"const": 1}), json!(2), Class::Value),
        (json!({"enum": [1]}), json!(2), Class::Value),
        (json!({"exclusiveMaximum": 1}), json!(1), Class::Range),
        (json!({"multipleOf": 2}), json!(1), Class::Range),
        (json!({"uniqueItems": true}), json!([1, 1]), Class::Size),
        (json!({"minLength": 2}), json!("a"), Class::Size),
        (json!({"contains": {"type": "null"}}), json!([1]), Class::Size),
        (json!({"pattern": "^a"}), json!("b"), Class::Pattern),
        (json!({"not": {}}), json!(1), Class::Combination),
        (json!({"oneOf": [true, true]}), json!(1), Class::Combination),
    ] {
        let rule = rule(&file(&schema));
        let Verdict::Failed(failures, false) = check(&rule, &body, true) else {
            panic!("{schema}")
        };
        assert_eq!(failures[0].class, class, "{schema}");
    }
}

/// A body that takes far longer to check than a millisecond.
fn dear() -> (Arc<Rule>, Bytes) {
    let branch = json!({"pattern": "^(a|b|ab)*$"});
    let schema = json!({"items": {"allOf": vec![branch; 200]}});
    let body = vec!["ab".repeat(40); 5_000];
    (rule(&file(&schema)), Bytes::from(serde_json::to_vec(&body).unwrap()))
}

#[tokio::test]
async fn a_check_holds_its_place_until_it_ends_however_long_anybody_waits() {
    let places = Arc::new(Semaphore::new(1));
    let (rule, body) = dear();
    let limits = JsonLimits::default();
    let judge = |body: &Bytes| judged(&places, Arc::clone(&rule), body.clone(), limits, true);
    let given_up = tokio::time::timeout(Duration::from_millis(1), judge(&body)).await;
    assert!(given_up.is_err(), "the check took no millisecond");
    assert_eq!(places.available_permits(), 0, "the place is not free as long as the thread works");
    // The next check has its turn once the thread is free.
    let small = Bytes::from_static(b"[]");
    assert!(matches!(judge(&small).await, Ok(Verdict::Passed)));
}
