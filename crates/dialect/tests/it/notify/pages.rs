//! Statuspage: look first, then do what follows.

use dialect::notify::statuspage::{Page, Plan, is_id, is_public, look, plan, read, request};
use dialect::notify::{Delivery, Method, Notice, NoticeKind, Phase};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{KINDS, any_notice, body, notice, of};

const PAGE: Page<'static> = Page { id: "p1", key: "swordfish", components: &["c1"] };

fn open(incident: &str, notice: &str, severity: &str, component: &str) -> Value {
    json!({
        "id": format!("remote-{incident}"),
        "metadata": { "tai": { "incident": incident, "notice": notice, "severity": severity } },
        "components": [{ "id": component }],
    })
}

fn planned(notice: &Notice, seen: &Value) -> Result<Plan, Delivery> {
    plan(notice, &PAGE, 200, None, seen.to_string().as_bytes())
}

#[test]
fn what_is_done_follows_from_what_is_open() {
    let own = open("INC-7", "INC-7.other", "1", "c1");
    let id = "remote-INC-7".to_owned();
    let opened = notice();
    let resolved = of(NoticeKind::Resolved);
    let update = Plan::Update { id: id.clone(), others: vec![None] };
    for (notice, seen, expected) in [
        (&opened, json!([]), Plan::Create { others: vec![None] }),
        (&opened, json!([open("INC-70", "x", "2", "c2")]), Plan::Create { others: vec![None] }),
        (&opened, json!([open("INC-8", "x", "2", "c1")]), Plan::Create { others: vec![Some(2)] }),
        (&opened, json!([{ "id": "x", "metadata": {} }]), Plan::Create { others: vec![None] }),
        (&opened, json!([own]), update.clone()),
        (&resolved, json!([own]), update),
        (&resolved, json!([]), Plan::Done { id: None }),
        (
            &resolved,
            json!([open("INC-8", "x", "3", "c1"), own, open("INC-9", "x", "2", "c1")]),
            Plan::Update { id: id.clone(), others: vec![Some(2)] },
        ),
        (&opened, json!([open("INC-7", "INC-7.opened", "1", "c1")]), Plan::Done { id: Some(id) }),
    ] {
        assert_eq!(planned(notice, &seen), Ok(expected), "{:?} with {seen}", notice.kind);
    }
}

#[test]
fn what_the_page_does_not_say_is_asked_again() {
    let again = Err(Delivery::Retry { after: None });
    for (status, seen) in
        [(200, "garbage"), (200, "{}"), (502, ""), (503, ""), (504, ""), (420, ""), (429, "")]
    {
        assert_eq!(plan(&notice(), &PAGE, status, None, seen.as_bytes()), again, "{status}");
    }
    // An id that is none would become part of a path.
    let mut own = open("INC-7", "x", "1", "c1");
    own["id"] = json!("../../pages");
    assert_eq!(planned(&notice(), &json!([own])), again);
    let refused = plan(&notice(), &PAGE, 401, None, b"");
    assert_eq!(refused, Err(Delivery::Refused { why: "it refuses the credentials" }));
}

#[test]
fn the_words_and_colours_of_the_page() {
    for (kind, severity, others, status, impact, component) in [
        (NoticeKind::Opened, 1, None, "investigating", "critical", "major_outage"),
        (NoticeKind::Opened, 2, Some(1), "investigating", "major", "major_outage"),
        (KINDS[2], 2, None, "investigating", "major", "partial_outage"),
        (KINDS[3], 3, Some(4), "identified", "minor", "degraded_performance"),
        (KINDS[4], 4, None, "monitoring", "none", "operational"),
        (NoticeKind::Resolved, 1, None, "resolved", "critical", "operational"),
        (NoticeKind::Resolved, 1, Some(2), "resolved", "critical", "partial_outage"),
    ] {
        let notice = Notice { severity, ..of(kind) };
        let request =
            request(&notice, &PAGE, &Plan::Create { others: vec![others] }).expect("a request");
        let incident = &body(&request)["incident"];
        assert_eq!(incident["status"], status);
        assert_eq!(incident["impact_override"], impact);
        assert_eq!(incident["components"], json!({ "c1": component }));
        assert_eq!(incident["metadata"]["tai"]["notice"], "INC-7.opened");
    }
}

#[test]
fn every_component_is_named_and_is_as_bad_as_the_worst_of_its_own() {
    let page = Page { components: &["c1", "c2"], ..PAGE };
    let seen = json!([open("INC-8", "x", "1", "c2"), open("INC-9", "x", "4", "c1")]);
    let notice = Notice { severity: 3, ..notice() };
    let found = plan(&notice, &page, 200, None, seen.to_string().as_bytes()).expect("a plan");
    assert_eq!(found, Plan::Create { others: vec![Some(4), Some(1)] });
    let made = body(&request(&notice, &page, &found).expect("a request"));
    let incident = &made["incident"];
    assert_eq!(incident["component_ids"], json!(["c1", "c2"]));
    let states = json!({ "c1": "degraded_performance", "c2": "major_outage" });
    assert_eq!(incident["components"], states);
    let over = Notice { kind: NoticeKind::Resolved, ..notice };
    let made = body(&request(&over, &page, &found).expect("a request"));
    let states = json!({ "c1": "operational", "c2": "major_outage" });
    assert_eq!(made["incident"]["components"], states);
}

#[test]
fn the_requests_go_where_they_should() {
    let looked = look(&PAGE);
    assert_eq!(looked.method, Method::Get);
    assert_eq!(looked.path, "/v1/pages/p1/incidents/unresolved?per_page=100");
    assert_eq!(looked.headers, [("authorization", "OAuth swordfish".to_owned())]);
    assert!(!format!("{looked:?}").contains("swordfish"));
    let update = Plan::Update { id: "x1".to_owned(), others: vec![None] };
    for (plan, method, path) in [
        (Plan::Create { others: vec![None] }, Method::Post, "/v1/pages/p1/incidents"),
        (update, Method::Patch, "/v1/pages/p1/incidents/x1"),
    ] {
        let request = request(&notice(), &PAGE, &plan).expect("a request");
        assert_eq!((request.method, request.path.as_str()), (method, path));
    }
    assert_eq!(request(&notice(), &PAGE, &Plan::Done { id: None }), None);
    let bare = Page { components: &[], ..PAGE };
    let told = request(&notice(), &bare, &Plan::Create { others: Vec::new() }).expect("a request");
    assert!(body(&told)["incident"].get("components").is_none());
}

#[test]
fn the_public_is_told_what_concerns_it() {
    for kind in KINDS {
        let inside = matches!(kind, NoticeKind::Escalated { .. } | NoticeKind::Acknowledged);
        assert_eq!(is_public(kind), !inside, "{kind:?}");
    }
    assert!(is_public(NoticeKind::Update { phase: Phase::Testing }));
}

#[test]
fn the_answer_names_the_incident() {
    let taken = Delivery::Delivered { remote: Some("x1".to_owned()) };
    assert_eq!(read(201, None, br#"{"id":"x1"}"#), taken);
    assert_eq!(read(200, None, b"{}"), Delivery::Unknown);
    assert_eq!(read(420, None, b""), Delivery::Retry { after: None });
    assert!(matches!(read(422, None, b""), Delivery::Refused { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_page_keeps_its_limits(notice in any_notice(), others in any::<Option<u8>>()) {
        let request = request(&notice, &PAGE, &Plan::Create { others: vec![others] }).expect("a request");
        let incident = &body(&request)["incident"];
        let chars = |name: &str| incident[name].as_str().map_or(0, |text| text.chars().count());
        prop_assert!(chars("name") <= 255);
        prop_assert!(chars("body") <= 25_000);
    }

    #[test]
    fn whatever_a_page_says_a_path_stays_one(seen in "\\PC{0,80}", id in "\\PC{0,20}") {
        let mut own = open("INC-7", "x", "1", "c1");
        own["id"] = json!(id);
        for seen in [seen, json!([own]).to_string()] {
            if let Ok(plan @ Plan::Update { .. }) = plan(&notice(), &PAGE, 200, None, seen.as_bytes()) {
                let path = request(&notice(), &PAGE, &plan).expect("a request").path;
                let last = path.rsplit('/').next().expect("a last part");
                prop_assert!(is_id(last) && path.matches('/').count() == 5);
            }
        }
    }
}
