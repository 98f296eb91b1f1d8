//! Channels, against far sides that take notices, refuse them, or do neither.

mod channels;
mod mail;
mod page;
mod secrets;

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dialect::notify::{Notice, NoticeAlert, NoticeKind};
use egress::{ChannelConfig, ChannelKind, Channels};
use engine::notify::Delivery;
use settings::Secret;

use crate::server::{Line, Server};
use crate::world::LONG;

pub(crate) const KEY: &str = "swordfish";

pub(crate) fn secret(text: impl Into<String>) -> Secret {
    Secret::from(text.into())
}

pub(crate) fn notice() -> Notice {
    Notice {
        id: "INC-7.opened".to_owned(),
        incident: "INC-7".to_owned(),
        kind: NoticeKind::Opened,
        severity: 1,
        title: "Errors above 10 %".to_owned(),
        text: "INCIDENT DECLARED: SEV-1\n.\nStatus: Investigating – größer\n".to_owned(),
        component: "api".to_owned(),
        at_us: 1_795_000_060_000_000,
        opened_at_us: 1_795_000_000_000_000,
        url: Some("https://tai.example/incidents/INC-7".to_owned()),
        alerts: vec![NoticeAlert {
            rule_id: "high-error-rate".to_owned(),
            labels: BTreeMap::new(),
            title: "High error rate".to_owned(),
            message: "5xx above 10 %".to_owned(),
            starts_at_us: 1_795_000_000_000_000,
            ends_at_us: None,
            value: None,
        }],
    }
}

/// A channel whose rate and deadline no test runs into by accident.
pub(crate) fn config(name: &str, kind: ChannelKind) -> ChannelConfig {
    ChannelConfig {
        deadline: LONG,
        per_minute: NonZeroU32::new(600_000),
        ..ChannelConfig::new(name, kind)
    }
}

pub(crate) fn channels(configs: &[ChannelConfig]) -> Channels {
    Channels::new(configs, &[]).unwrap()
}

pub(crate) fn address(server: &Server) -> String {
    format!("http://{}/hook/{KEY}", server.address)
}

pub(crate) fn webhook(server: &Server) -> ChannelKind {
    ChannelKind::Webhook { url: secret(address(server)), key: None }
}

pub(crate) fn slack(server: &Server) -> ChannelKind {
    ChannelKind::Slack { url: secret(address(server)) }
}

/// One channel called `c`.
pub(crate) fn one(kind: ChannelKind) -> Channels {
    channels(&[config("c", kind)])
}

/// One channel called `c` with little time.
pub(crate) fn hasty(kind: ChannelKind) -> Channels {
    let deadline = Duration::from_millis(200);
    channels(&[ChannelConfig { deadline, ..config("c", kind) }])
}

pub(crate) async fn deliver(channels: &Channels) -> Delivery {
    channels.deliver("c", &notice()).await
}

pub(crate) fn delivered(remote: Option<&str>) -> Delivery {
    Delivery::Delivered { remote: remote.map(str::to_owned) }
}

pub(crate) const LATER: Delivery = Delivery::Retry { after: None };

/// What a server was asked, in order.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub(crate) fn add(&self, text: impl Into<String>) {
        self.0.lock().unwrap().push(text.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The only one.
    pub(crate) fn only(&self) -> String {
        let all = self.all();
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().next().unwrap()
    }
}

/// An answer of this status and body.
pub(crate) fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A server that remembers what it is asked, and gives each connection the next of these answers,
/// and the last one to all that follow.
pub(crate) async fn hearing(answers: Vec<String>) -> (Server, Heard) {
    let heard = Heard::default();
    let (copy, answers) = (heard.clone(), Arc::new(answers));
    let server = Server::start(move |mut line: Line, number| {
        let (heard, answers) = (copy.clone(), Arc::clone(&answers));
        async move {
            if let Some(request) = line.request().await {
                heard.add(request);
                line.send(&answers[number.min(answers.len() - 1)]).await;
            }
        }
    })
    .await;
    (server, heard)
}
