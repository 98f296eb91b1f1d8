//! The document against the table, the parsers and itself.

use std::collections::{BTreeMap, BTreeSet};

use dialect::{JsonLimits, marketplace, pubsub};

use super::*;

/// Every value of the document, at any depth.
fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Value)) {
    visit(value);
    match value {
        Value::Object(members) => members.values().for_each(|value| walk(value, visit)),
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

#[test]
fn every_route_is_there_once_with_what_it_needs() {
    let document = document();
    let mut ids = BTreeSet::new();
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.to_ascii_lowercase()];
        assert_eq!(operation["summary"], route.summary, "{}", route.path);
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{}", route.path);
        let keyed = operation["responses"].get("401").is_some();
        match route.access {
            Access::Open => {
                assert_eq!(operation["security"], json!([]));
                assert!(!keyed && operation.get("x-required-scope").is_none(), "{}", route.path);
            }
            Access::Scope(scope) => {
                assert_eq!(operation["x-required-scope"], scope.as_str());
                assert!(keyed && operation["security"][0].get("bearer").is_some());
            }
        }
        let segments = route.path.matches('{').count();
        let parameters = operation["parameters"].as_array().unwrap();
        assert_eq!(parameters.iter().filter(|given| given["in"] == "path").count(), segments);
    }
    let operations = document["paths"].as_object().unwrap().values();
    assert_eq!(operations.map(|path| path.as_object().unwrap().len()).sum::<usize>(), ROUTES.len());
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let document = document();
    let mut referred = BTreeSet::new();
    walk(&document, &mut |value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
            referred.insert(pointer);
        }
    });
    for kind in ["schemas", "responses", "headers", "parameters"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            let used = referred.contains(format!("/components/{kind}/{name}").as_str());
            assert!(used || name == "Refused405", "{kind} {name} is used nowhere");
        }
    }
}

#[test]
fn the_examples_are_taken() {
    let limits = JsonLimits::default();
    for (name, body) in requests::marketplace_examples() {
        assert!(marketplace::parse(body.to_string().as_bytes(), &limits).is_ok(), "{name}");
    }
    let kinds = requests::push_examples().map(|(_, body)| {
        pubsub::parse_push(body.to_string().as_bytes(), &limits).unwrap().payload.kind()
    });
    assert_eq!(kinds, ["measurement", "autonomic", "untenanted"]);
}

/// The table of fields in `docs/receipts.md`, by name: whether the field is always there.
#[test]
fn a_receipt_has_the_fields_of_its_format() {
    let page = include_str!("../../../../docs/receipts.md");
    let table = page.split_once("## Fields").unwrap().1.split_once("The types:").unwrap().0;
    let documented: BTreeMap<&str, bool> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, rest)| (name, rest.split('|').nth(2).unwrap().trim() == "always"))
        .collect();
    assert!(documented.len() > 20);
    let document = document();
    let receipt = &document["components"]["schemas"]["Receipt"];
    let required = receipt["required"].as_array().unwrap();
    let properties = receipt["properties"].as_object().unwrap().keys();
    let made: BTreeMap<&str, bool> =
        properties.map(|name| (name.as_str(), required.contains(&json!(name)))).collect();
    assert_eq!(made, documented);
}
