//! What is configured wrongly is refused by name, and what is secret is nowhere.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use egress::{ChannelConfig, ChannelKind, Channels, MailConfig, MailSecurity};
use engine::notify::Courier;
use tracing_subscriber::fmt::MakeWriter;

use super::{KEY, answer, channels, config, hasty, hearing, notice, secret, slack};
use crate::server::Server;

fn url() -> String {
    format!("https://example.com/{KEY}")
}

fn telegram(token: &str) -> ChannelKind {
    ChannelKind::Telegram { token: secret(token), chat: "1".to_owned(), base: None }
}

fn page(page: &str, component: &str, key: &str) -> ChannelKind {
    let components = vec![("api".to_owned(), component.to_owned())];
    ChannelKind::Statuspage { key: secret(key), page: page.to_owned(), components, base: None }
}

fn mail(host: &str, to: &str) -> ChannelKind {
    ChannelKind::Email(MailConfig {
        host: host.to_owned(),
        port: 25,
        security: Some(MailSecurity::Plain),
        login: Some(("alerts".to_owned(), secret(KEY))),
        from: "alerts@example.com".to_owned(),
        to: vec![to.to_owned()],
    })
}

/// One of each kind, all of which are well configured.
fn all(base: &str) -> Vec<ChannelConfig> {
    let at = |path: &str| secret(format!("{base}/{path}{KEY}"));
    let base = Some(base.to_owned());
    let kinds = [
        ChannelKind::Slack { url: at("") },
        ChannelKind::Telegram {
            token: secret(format!("bot1:{KEY}")),
            chat: "1".to_owned(),
            base: base.clone(),
        },
        ChannelKind::PagerDuty {
            routing_key: secret(KEY),
            source: "tai-1".to_owned(),
            base: base.clone(),
        },
        ChannelKind::Statuspage {
            key: secret(KEY),
            page: "p1".to_owned(),
            components: Vec::new(),
            base,
        },
        ChannelKind::Alertmanager { url: at("?key="), token: Some(secret(KEY)) },
        ChannelKind::Webhook { url: at("?key="), key: Some(secret(KEY)) },
        mail("127.0.0.1", "ops@example.com"),
    ];
    kinds.into_iter().enumerate().map(|(at, kind)| config(&format!("c{at}"), kind)).collect()
}

#[test]
fn what_is_configured_wrongly_is_refused_by_name() {
    let slack = |url: &str| ChannelKind::Slack { url: secret(url) };
    let wrong = [
        slack(&format!("http://example.com/{KEY}")),
        slack(&format!("http://10.0.0.1/{KEY}")),
        slack(&format!("https://{KEY}@example.com/")),
        slack(&format!("https://example.com/#{KEY}")),
        slack(&format!("hooks.slack.com/{KEY}")),
        slack(""),
        telegram(KEY),
        telegram("1:a/b"),
        page("p/1", "c1", KEY),
        page("p1", "c/1", KEY),
        page("p1", "c1", "swordfish\r\n"),
        ChannelKind::Alertmanager { url: secret(url()), token: Some(secret("sword fish")) },
        ChannelKind::PagerDuty { routing_key: secret(""), source: String::new(), base: None },
        mail("", "ops@example.com"),
        mail("127.0.0.1", "nobody"),
    ];
    for kind in wrong {
        let shown = format!("{kind:?}");
        let error = Channels::new(&[config("ops", kind)], &[]).err().unwrap();
        let said = format!("{error} {error:?}");
        assert!(said.starts_with("the channel ops cannot be used: "), "{shown}: {said}");
        assert!(!said.contains(KEY) && !said.contains("sword"), "{said}");
    }
    let twice = [config("ops", telegram("1:a")), config("ops", telegram("1:a"))];
    assert!(Channels::new(&twice, &[]).is_err());
}

#[test]
fn a_configuration_does_not_show_its_secrets() {
    let configs = all("http://127.0.0.1:1");
    assert_eq!(channels(&configs).channels().len(), configs.len());
    for config in configs {
        let shown = format!("{config:?}");
        assert!(!shown.contains(KEY), "{shown}");
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn no_secret_is_in_what_is_said_or_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_max_level(tracing::Level::TRACE)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let said = format!("{KEY} is what the far side says\r\n");
    let refusing = hearing(vec![answer("401 Unauthorized", &said)]).await.0;
    let garbage = Server::start(move |mut line, _| {
        let said = said.clone();
        async move { line.answer(&said).await }
    })
    .await;
    for server in [&refusing, &garbage] {
        for mut config in all(&format!("http://{}", server.address)) {
            if let ChannelKind::Email(mail) = &mut config.kind {
                mail.port = server.address.port();
                config.deadline = std::time::Duration::from_millis(100);
            }
            let delivery = channels(std::slice::from_ref(&config));
            let delivery = delivery.deliver(&config.name, &notice()).await;
            assert!(!format!("{delivery:?}").contains(KEY));
        }
    }
    let silent = Server::start(|line, _| line.hang()).await;
    hasty(slack(&silent)).deliver("c", &notice()).await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("notify_lost"), "something is logged");
    assert!(!log.contains(KEY), "{log}");
}
