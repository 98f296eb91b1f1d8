//! Everything that is spoken to over HTTP.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use egress::{ChannelConfig, ChannelKind, Channels};
use engine::notify::{Courier, Delivery};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::{
    KEY, LATER, address, answer, channels, config, deliver, delivered, hasty, hearing, notice, one,
    secret, slack, webhook,
};
use crate::server::Server;
use crate::tls::identity;

fn body(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn telegram(server: &Server) -> ChannelKind {
    let base = Some(format!("http://{}", server.address));
    ChannelKind::Telegram { token: secret(format!("bot1:{KEY}")), chat: "42".to_owned(), base }
}

fn pagerduty(server: &Server) -> ChannelKind {
    let base = Some(format!("http://{}/", server.address));
    ChannelKind::PagerDuty { routing_key: secret(KEY), source: "tai-1".to_owned(), base }
}

fn alertmanager(server: &Server) -> ChannelKind {
    ChannelKind::Alertmanager { url: secret(address(server)), token: Some(secret(KEY)) }
}

#[tokio::test]
async fn each_kind_is_asked_in_its_own_way() {
    type Make = fn(&Server) -> ChannelKind;
    for (make, said, path, remote, member) in [
        (slack as Make, "ok", "/hook/swordfish", None, "blocks"),
        (
            telegram,
            r#"{"ok":true,"result":{"message_id":9}}"#,
            "/bot1:swordfish/sendMessage",
            Some("9"),
            "chat_id",
        ),
        (
            pagerduty,
            r#"{"status":"success","dedup_key":"INC-7"}"#,
            "/v2/enqueue",
            Some("INC-7"),
            "routing_key",
        ),
        (alertmanager, "", "/hook/swordfish", None, "groupKey"),
        (webhook, "anything", "/hook/swordfish", None, "opened_at_us"),
    ] {
        let (server, heard) = hearing(vec![answer("202 Accepted", said)]).await;
        let channels = one(make(&server));
        let kind = channels.channels()[0].kind;
        assert_eq!(deliver(&channels).await, delivered(remote), "{kind}");
        let request = heard.only();
        assert!(request.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{kind}: {request}");
        assert!(request.contains("content-type: application/json\r\n"), "{kind}");
        assert!(request.contains(&format!("host: {}\r\n", server.address)), "{kind}");
        assert!(body(&request).get(member).is_some(), "{kind}");
    }
}

#[tokio::test]
async fn a_webhook_is_signed_over_its_body_and_has_a_key_for_repeats() {
    let (server, heard) = hearing(vec![answer("200 OK", "")]).await;
    let url = secret(format!("http://{}/in?token=a/b", server.address));
    let channels = one(ChannelKind::Webhook { url, key: Some(secret(KEY)) });
    assert_eq!(deliver(&channels).await, delivered(None));
    let request = heard.only();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /in?token=a/b HTTP/1.1\r\n"));
    assert!(head.contains("\r\nidempotency-key: INC-7.opened\r\n"));
    let said = head.lines().find_map(|line| line.strip_prefix("x-hub-signature-256: sha256="));
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let digest = mac.finalize().into_bytes();
    let expected: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(said, Some(expected.as_str()));
}

#[tokio::test]
async fn an_answer_says_what_became_of_the_notice() {
    let (key, address) = ("it refuses the credentials", "there is nothing at its address");
    for (said, expected, why) in [
        ("401 Unauthorized", Delivery::Refused { why: key }, key),
        ("404 Not Found", Delivery::Refused { why: address }, address),
        ("500 Internal Server Error", LATER, "it answers with an error of its own"),
        ("503 Service Unavailable", LATER, "it answers with an error of its own"),
        ("504 Gateway Timeout", Delivery::Unknown, "what stands before it has no answer of it"),
    ] {
        let (server, heard) = hearing(vec![answer(said, KEY)]).await;
        for kind in [slack(&server), webhook(&server), telegram(&server), pagerduty(&server)] {
            let channels = one(kind);
            assert_eq!(channels.why("c"), None, "nothing was told");
            assert_eq!(deliver(&channels).await, expected, "{said}");
            assert_eq!(channels.why("c"), Some(why), "{said}");
        }
        assert_eq!(heard.all().len(), 4, "one attempt is one request");
    }
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_kept() {
    let asked = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n";
    let (server, heard) = hearing(vec![asked.to_owned()]).await;
    let channels = one(slack(&server));
    for _ in 0..3 {
        let Delivery::Retry { after: Some(after) } = deliver(&channels).await else {
            panic!("it asked for a pause");
        };
        assert!(after <= Duration::from_secs(30) && after > Duration::from_secs(20), "{after:?}");
    }
    assert_eq!(heard.all().len(), 1);
}

#[tokio::test]
async fn a_channel_has_a_rate_of_its_own() {
    let (server, heard) = hearing(vec![answer("200 OK", "ok")]).await;
    let channels = channels(&[
        ChannelConfig::new("c", slack(&server)),
        ChannelConfig::new("other", slack(&server)),
    ]);
    assert_eq!(deliver(&channels).await, delivered(None));
    assert_eq!(channels.why("c"), None);
    let Delivery::Retry { after: Some(after) } = deliver(&channels).await else {
        panic!("one a second");
    };
    assert_eq!(channels.why("c"), Some("its rate is used up, or it has asked for a pause"));
    assert!(after <= Duration::from_secs(1), "{after:?}");
    assert_eq!(channels.deliver("other", &notice()).await, delivered(None));
    assert_eq!(heard.all().len(), 2);
}

#[tokio::test]
async fn what_was_not_sent_may_be_sent_again() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = secret(format!("http://{free}/hook"));
    let channels = one(ChannelKind::Slack { url });
    assert_eq!(deliver(&channels).await, LATER);
    assert_eq!(channels.why("c"), Some("it cannot be reached"));
}

#[tokio::test]
async fn what_was_sent_and_not_answered_is_unknown() {
    let silent = Server::start(|line, _| line.hang()).await;
    let dropping = Server::start(|mut line, _| async move {
        line.request().await;
    })
    .await;
    let babbling = Server::closing("this is not HTTP\r\n\r\n").await;
    let cut = Server::closing("HTTP/1.1 200 OK\r\ncontent-le").await;
    for server in [&dropping, &babbling, &cut] {
        assert_eq!(deliver(&one(webhook(server))).await, Delivery::Unknown);
        assert_eq!(server.accepted(), 1);
    }
    assert_eq!(deliver(&hasty(webhook(&silent))).await, Delivery::Unknown);
}

#[tokio::test]
async fn a_connection_that_is_dropped_at_once_is_never_a_delivery() {
    let server = Server::start(|line, _| async move { drop(line) }).await;
    let found = deliver(&one(slack(&server))).await;
    assert!(matches!(found, Delivery::Unknown | LATER), "{found:?}");
}

#[tokio::test]
async fn a_body_without_an_end_is_cut_off() {
    let server = Server::start(|mut line, _| async move {
        line.answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        while line.send(&chunk).await {}
    })
    .await;
    // The deadline is far away: it is the length that ends it.
    assert_eq!(deliver(&one(webhook(&server))).await, delivered(None));
    assert_eq!(deliver(&one(slack(&server))).await, Delivery::Unknown);
}

#[tokio::test]
async fn a_body_that_does_not_come_leaves_what_the_head_says() {
    let server = Server::start(|mut line, _| async move {
        line.answer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
        line.hang().await;
    })
    .await;
    assert_eq!(deliver(&hasty(webhook(&server))).await, delivered(None));
    assert_eq!(deliver(&hasty(pagerduty(&server))).await, Delivery::Unknown);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (other, elsewhere) = hearing(vec![answer("200 OK", "ok")]).await;
    let to = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {}\r\n", address(&other));
    let (server, _) = hearing(vec![format!("{to}content-length: 0\r\n\r\n")]).await;
    let found = deliver(&one(slack(&server))).await;
    assert!(matches!(found, Delivery::Refused { .. }), "{found:?}");
    assert!(elsewhere.all().is_empty());
}

#[tokio::test]
async fn a_channel_that_hangs_holds_up_nobody() {
    let silent = Server::start(|line, _| line.hang()).await;
    let (server, _) = hearing(vec![answer("200 OK", "ok")]).await;
    let channels = channels(&[config("dead", webhook(&silent)), config("alive", webhook(&server))]);
    let notice = notice();
    let mut dead = std::pin::pin!(channels.deliver("dead", &notice));
    let began = Instant::now();
    tokio::select! {
        biased;
        found = &mut dead => panic!("{found:?}"),
        found = channels.deliver("alive", &notice) => assert_eq!(found, delivered(None)),
    }
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn a_far_side_with_tls_has_to_be_vouched_for() {
    let (acceptor, root) = identity("localhost");
    let server = Server::with(Some(acceptor), |mut line, _| async move {
        line.answer(&answer("200 OK", "ok")).await;
    })
    .await;
    let url = secret(format!("https://localhost:{}/{KEY}", server.address.port()));
    let kind = ChannelKind::Slack { url };
    let private = ChannelConfig { is_private_allowed: true, ..config("c", kind.clone()) };
    let made = |config: &ChannelConfig, root: &str| {
        Channels::new(std::slice::from_ref(config), root.as_bytes()).unwrap()
    };
    assert_eq!(deliver(&made(&private, &root)).await, delivered(None));
    let (_, stranger) = identity("localhost");
    assert_eq!(deliver(&made(&private, &stranger)).await, LATER);
    // Not the public network, and nobody has allowed another.
    assert_eq!(deliver(&made(&config("c", kind), &root)).await, LATER);
}

#[tokio::test]
async fn whom_nobody_has_configured_is_told_nothing() {
    let refused = Delivery::Refused { why: "there is no such channel" };
    assert_eq!(channels(&[]).deliver("c", &notice()).await, refused);
}

#[tokio::test]
async fn each_channel_says_whether_repeats_are_known() {
    let (server, _) = hearing(vec![answer("200 OK", "ok")]).await;
    let channels = channels(&[
        config("a", slack(&server)),
        config("b", telegram(&server)),
        config("d", pagerduty(&server)),
        config("e", alertmanager(&server)),
        config("f", webhook(&server)),
    ]);
    let facts: Vec<_> = channels
        .channels()
        .into_iter()
        .map(|facts| (facts.name, facts.kind, facts.repeats_are_known))
        .collect();
    let expected = [
        ("a", "slack", false),
        ("b", "telegram", false),
        ("d", "pagerduty", true),
        ("e", "alertmanager", true),
        ("f", "webhook", false),
    ];
    assert_eq!(facts, expected.map(|(name, kind, known)| (name.to_owned(), kind, known)));
    // The port gives the same as the channel itself.
    let courier: &dyn Courier = &channels;
    assert_eq!(courier.deliver("a", &notice()).await, delivered(None));
}
