//! Statuspage, which is looked at first.

use dialect::notify::{Notice, NoticeKind};
use egress::ChannelKind;
use engine::notify::Delivery;
use serde_json::json;

use super::{KEY, LATER, answer, deliver, delivered, hasty, hearing, notice, one, secret};
use crate::server::Server;

fn page(server: &Server) -> ChannelKind {
    ChannelKind::Statuspage {
        key: secret(KEY),
        page: "p1".to_owned(),
        components: vec![("api".to_owned(), "c1".to_owned())],
        base: Some(format!("http://{}", server.address)),
    }
}

fn open(notice: &str) -> String {
    let tai = json!({ "incident": "INC-7", "notice": notice, "severity": "1" });
    answer("200 OK", &json!([{ "id": "x1", "metadata": { "tai": tai } }]).to_string())
}

#[tokio::test]
async fn what_is_not_open_there_is_opened() {
    let made = answer("201 Created", r#"{"id":"x1"}"#);
    let (server, heard) = hearing(vec![answer("200 OK", "[]"), made]).await;
    assert_eq!(deliver(&one(page(&server))).await, delivered(Some("x1")));
    let [look, make] = heard.all().try_into().unwrap();
    assert!(look.starts_with("GET /v1/pages/p1/incidents/unresolved?per_page=100 HTTP/1.1\r\n"));
    assert!(look.contains("authorization: OAuth swordfish\r\n"));
    assert!(make.starts_with("POST /v1/pages/p1/incidents HTTP/1.1\r\n"));
    assert!(make.contains(r#""components":{"c1":"major_outage"}"#));
}

#[tokio::test]
async fn what_is_open_there_is_changed_and_nothing_is_told_twice() {
    let (server, heard) = hearing(vec![open("other"), answer("200 OK", r#"{"id":"x1"}"#)]).await;
    assert_eq!(deliver(&one(page(&server))).await, delivered(Some("x1")));
    assert!(heard.all()[1].starts_with("PATCH /v1/pages/p1/incidents/x1 HTTP/1.1\r\n"));
    let (server, heard) = hearing(vec![open("INC-7.opened")]).await;
    assert_eq!(deliver(&one(page(&server))).await, delivered(Some("x1")));
    assert!(heard.only().starts_with("GET "));
}

#[tokio::test]
async fn a_look_that_is_lost_has_told_nobody() {
    let silent = Server::start(|line, _| line.hang()).await;
    assert_eq!(deliver(&hasty(page(&silent))).await, LATER);
    let (server, _) = hearing(vec![answer("200 OK", "<html>")]).await;
    assert_eq!(deliver(&one(page(&server))).await, LATER);
    let (server, _) = hearing(vec![answer("401 Unauthorized", "")]).await;
    let found = deliver(&one(page(&server))).await;
    assert!(matches!(found, Delivery::Refused { .. }), "{found:?}");
}

#[tokio::test]
async fn a_change_that_is_lost_is_unknown() {
    let server = Server::start(|mut line, number| async move {
        if line.request().await.is_some() && number == 0 {
            line.send(&answer("200 OK", "[]")).await;
        }
    })
    .await;
    assert_eq!(deliver(&one(page(&server))).await, Delivery::Unknown);
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn the_public_hears_nothing_of_who_was_woken_up() {
    let (server, heard) = hearing(vec![answer("200 OK", "[]")]).await;
    let channels = one(page(&server));
    for kind in [NoticeKind::Acknowledged, NoticeKind::Escalated { level: 2 }] {
        let notice = Notice { kind, ..notice() };
        assert_eq!(channels.deliver("c", &notice).await, delivered(None));
    }
    assert!(heard.all().is_empty());
}
