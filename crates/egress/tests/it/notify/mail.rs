//! Mail, to a server that does what a test tells it and to one that somebody else has written.

use std::process::Stdio;
use std::sync::Arc;

use dialect::notify::Notice;
use egress::{ChannelConfig, ChannelKind, Channels, MailConfig, MailSecurity};
use engine::notify::Delivery;
use serde_json::Value;
use testkit::{place, python};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{Heard, KEY, LATER, config, deliver, delivered, hasty, notice, one, secret};
use crate::server::{Line, Server};
use crate::tls::identity;

fn mail(port: u16) -> MailConfig {
    MailConfig {
        host: "127.0.0.1".to_owned(),
        port,
        security: None,
        login: None,
        from: "TAI Ürgent <alerts@example.com>".to_owned(),
        to: vec!["ops@example.com".to_owned(), "Boss <boss@example.com>".to_owned()],
    }
}

/// What a server says to each command, by how the command begins; `.` is the end of a mail. An
/// empty reply ends the connection, and `…` is none, for good.
type Script = &'static [(&'static str, &'static str)];

const USUAL: Script = &[
    ("", "220 ready\r\n"),
    ("EHLO", "250-here\r\n250 AUTH PLAIN LOGIN\r\n"),
    ("AUTH", "235 welcome\r\n"),
    ("MAIL", "250 ok\r\n"),
    ("RCPT", "250 ok\r\n"),
    ("DATA", "354 go on\r\n"),
    (".", "250 taken\r\n"),
    ("QUIT", "221 bye\r\n"),
    ("STARTTLS", "220 go on\r\n"),
];

async fn serve(mut line: Line, script: Script, heard: Heard) {
    let mut command = String::new();
    loop {
        let said = script.iter().chain(USUAL).find(|(begin, _)| {
            if begin.is_empty() { command.is_empty() } else { command.starts_with(begin) }
        });
        let said = said.map_or("500 what\r\n", |(_, reply)| reply);
        match said {
            "" => return,
            "…" => return line.hang().await,
            reply => {
                line.send(reply).await;
            }
        }
        let is_mail = said.starts_with("354");
        command = line.piece().await;
        while is_mail && !command.is_empty() && !command.ends_with("\r\n.\r\n") {
            command.push_str(&line.piece().await);
        }
        if command.is_empty() {
            return;
        }
        heard.add(command.clone());
        if is_mail {
            command = ".".to_owned();
        }
    }
}

async fn scripted(script: Script) -> (Server, Heard) {
    let heard = Heard::default();
    let copy = heard.clone();
    let server = Server::start(move |line, _| serve(line, script, copy.clone())).await;
    (server, heard)
}

fn to(server: &Server) -> MailConfig {
    mail(server.address.port())
}

fn signed_in(server: &Server) -> ChannelKind {
    let login = Some(("alerts".to_owned(), secret(KEY)));
    ChannelKind::Email(MailConfig { login, ..to(server) })
}

#[tokio::test]
async fn what_a_server_says_decides_what_became_of_the_mail() {
    let refused = |why| Delivery::Refused { why };
    for (script, expected) in [
        (&[][..], delivered(None)),
        (&[("", "421 too busy\r\n")], LATER),
        (&[("", "554 go away\r\n")], refused("the server turns us away")),
        (&[("", "garbage\r\n")], LATER),
        (&[("", "")], LATER),
        (&[("EHLO", "")], LATER),
        (&[("AUTH", "535 no\r\n")], refused("the server refuses the login")),
        (&[("AUTH", "454 later\r\n")], LATER),
        (&[("EHLO", "250 here\r\n")], refused("the server has no login that is known here")),
        (&[("MAIL", "550 no\r\n")], refused("the server refuses the sender")),
        (&[("MAIL", "450 later\r\n")], LATER),
        (&[("MAIL", "")], LATER),
        (&[("RCPT", "550 no\r\n")], refused("the server refuses every recipient")),
        (&[("RCPT", "450 later\r\n")], LATER),
        (&[("RCPT TO:<ops@", "550 no\r\n")], delivered(None)),
        (&[("RCPT TO:<ops@", "550 no\r\n"), ("RCPT", "450 later\r\n")], LATER),
        (&[("DATA", "421 closing\r\n")], LATER),
        (&[("DATA", "554 no\r\n")], refused("the server refuses to take a mail")),
        (&[(".", "451 later\r\n")], LATER),
        (&[(".", "552 too large\r\n")], refused("the server refuses the mail")),
        (&[(".", "")], Delivery::Unknown),
        (&[(".", "garbage\r\n")], Delivery::Unknown),
        (&[("QUIT", "")], delivered(None)),
        (&[("QUIT", "…")], delivered(None)),
    ] {
        let (server, _) = scripted(script).await;
        assert_eq!(deliver(&one(signed_in(&server))).await, expected, "{script:?}");
        assert_eq!(server.accepted(), 1, "{script:?}");
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_may_have_the_mail_only_once_it_was_sent() {
    for (script, expected) in [
        (&[("", "…")][..], LATER),
        (&[("RCPT", "…")], LATER),
        (&[("DATA", "…")], LATER),
        (&[(".", "…")], Delivery::Unknown),
    ] {
        let (server, _) = scripted(script).await;
        assert_eq!(deliver(&hasty(ChannelKind::Email(to(&server)))).await, expected, "{script:?}");
    }
}

#[tokio::test]
async fn a_repeat_has_the_same_message_id() {
    let (server, heard) = scripted(&[]).await;
    let channels = one(ChannelKind::Email(to(&server)));
    for _ in 0..2 {
        assert_eq!(deliver(&channels).await, delivered(None));
    }
    let ids: Vec<String> = heard
        .all()
        .iter()
        .flat_map(|said| said.lines())
        .filter(|line| line.starts_with("Message-ID:"))
        .map(str::to_owned)
        .collect();
    assert_eq!(ids, ["Message-ID: <INC-7.opened@example.com>"; 2]);
    let commands = heard.all();
    assert_eq!(commands[0], "EHLO [127.0.0.1]\r\n");
    assert_eq!(commands[1], "MAIL FROM:<alerts@example.com>\r\n");
}

#[tokio::test]
async fn a_server_that_cannot_be_secure_is_told_nothing() {
    let security = Some(MailSecurity::StartTls);
    let refused = Delivery::Refused { why: "the server has no STARTTLS" };
    for (script, expected) in [
        (&[][..], refused),
        (&[("EHLO", "250-here\r\n250 STARTTLS\r\n"), ("STARTTLS", "454 later\r\n")], LATER),
        // What follows the word may have been put there by somebody in between.
        (&[("EHLO", "250 STARTTLS\r\n"), ("STARTTLS", "220 go on\r\n250 hello\r\n")], LATER),
        (&[("EHLO", "250 STARTTLS\r\n")], LATER),
        (&[("", "421 too busy\r\n")], LATER),
    ] {
        let (server, heard) = scripted(script).await;
        let login = Some(("alerts".to_owned(), secret(KEY)));
        let kind = ChannelKind::Email(MailConfig { security, login, ..to(&server) });
        // A handshake with somebody who does not answer ends with the deadline.
        let found = deliver(&hasty(kind)).await;
        assert_eq!(found, expected, "{script:?}");
        let told = heard.all().concat();
        assert!(!told.contains("AUTH") && !told.contains("MAIL"), "{told}");
    }
}

#[tokio::test]
async fn a_reply_without_an_end_is_given_up() {
    let server = Server::start(|mut line, _| async move {
        let more = format!("250-{}\r\n", "x".repeat(1_000));
        while line.send(&more).await {}
    })
    .await;
    let security = Some(MailSecurity::StartTls);
    let kinds = [MailConfig { security, ..to(&server) }, to(&server)];
    for kind in kinds {
        assert_eq!(deliver(&one(ChannelKind::Email(kind))).await, LATER);
    }
}

/// A mail server that somebody else has written, and what it has taken.
struct Post {
    _child: Child,
    port: u16,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Post {
    async fn start(mode: &str, certificate: &str, key: &str) -> Post {
        let root = place::repository();
        let list = std::fs::read_to_string(root.join("tests/python/mail_server.txt")).unwrap();
        let mut child = Command::new(python::venv(&list).unwrap())
            .arg(root.join("crates/egress/tests/it/notify/mail_server.py"))
            .args([mode, KEY])
            .envs([("CERTIFICATE", certificate), ("CERTIFICATE_KEY", key)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next_line().await.unwrap().unwrap().parse().unwrap();
        Post { _child: child, port, lines }
    }

    async fn mail(&mut self) -> Value {
        serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap()
    }
}

#[tokio::test]
async fn a_mail_is_read_by_a_server_as_it_was_meant() {
    testkit::needs_python!();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    for (mode, security) in [
        ("plain", MailSecurity::Plain),
        ("starttls", MailSecurity::StartTls),
        ("tls", MailSecurity::Tls),
    ] {
        let mut post = Post::start(mode, &certificate, &key).await;
        let settings = MailConfig {
            host: "localhost".to_owned(),
            security: Some(security),
            login: (mode != "plain").then(|| ("alerts".to_owned(), secret(KEY))),
            ..mail(post.port)
        };
        let channel = config("c", ChannelKind::Email(settings.clone()));
        let made = |config: &ChannelConfig| {
            Channels::new(std::slice::from_ref(config), certificate.as_bytes()).unwrap()
        };
        let title = "größer\r\nBcc: all@example.com <b>".to_owned();
        let notice = Notice { title, ..notice() };
        assert_eq!(made(&channel).deliver("c", &notice).await, delivered(None), "{mode}");
        let mail = post.mail().await;
        assert_eq!(mail["is_secure"], mode != "plain", "{mode}");
        assert_eq!(mail["to"], serde_json::json!(["ops@example.com", "boss@example.com"]));
        assert_eq!(
            mail["subject"],
            "[OPENED] SEV-1 INC-7 opened: größer  Bcc: all@example.com <b>"
        );
        assert_eq!(mail["message_id"], "<INC-7.opened@example.com>");
        assert_eq!(mail["from"], "TAI Ürgent <alerts@example.com>");
        assert_eq!(mail["bcc"], Value::Null);
        assert_eq!(mail["date"], "Wed, 18 Nov 2026 11:07:40 +0000");
        let text = mail["text"].as_str().unwrap();
        assert!(text.contains("INCIDENT DECLARED: SEV-1\n.\nStatus: Investigating – größer\n"));
        let html = mail["html"].as_str().unwrap();
        assert!(html.contains("Bcc: all@example.com &lt;b&gt;") && html.contains("größer"));

        if mode != "plain" {
            let login = Some(("alerts".to_owned(), secret("wrong")));
            let wrong = MailConfig { login, ..settings.clone() };
            let refused = Delivery::Refused { why: "the server refuses the login" };
            assert_eq!(deliver(&made(&config("c", ChannelKind::Email(wrong)))).await, refused);
            let (_, stranger) = identity("localhost");
            let stranger = Channels::new(&[channel], stranger.as_bytes()).unwrap();
            assert_eq!(deliver(&stranger).await, LATER, "{mode}");
        }
    }
}

#[tokio::test]
async fn two_mails_at_once_are_two() {
    let (server, heard) = scripted(&[]).await;
    let channels = Arc::new(one(ChannelKind::Email(to(&server))));
    let (first, second) = tokio::join!(deliver(&channels), deliver(&channels));
    assert_eq!((first, second), (delivered(None), delivered(None)));
    assert_eq!(heard.all().iter().filter(|said| said.starts_with("DATA")).count(), 2);
}
