//! The way out for notices: one channel for each place where people or tools are told.
//!
//! Owns: how a channel is configured, its rate and its pauses, and that one attempt ends by its
//! deadline with an outcome that says whether the notice may have left. Refuses to know: which
//! notices there are, in which order they go, and whether an attempt is the second one.
//!
//! Each attempt has its own connection: notices are rare, and one that was kept for a minute may be
//! dead. Nothing is shared between channels, so one that hangs holds up nobody else. No text of a
//! far side and no address is in an error, an answer or a log: Slack's address is its key, and
//! Telegram's token is part of the path.

mod http;
mod smtp;

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dialect::notify::{
    Delivery, Notice, Outgoing, alertmanager, pagerduty, slack, statuspage, telegram, webhook,
};
use engine::notify::{ChannelFacts, Courier};
use engine::outbound::Boxed;
use governor::clock::{Clock as _, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use settings::Secret;
use tokio_rustls::TlsConnector;

use crate::egress::now;
use crate::error::Error;
use crate::pause::Pause;
use crate::signature::{SIGNATURE, signature};
use crate::tls;
use http::{Address, Heard, Lost};
use smtp::Mailer;

pub use smtp::{MailConfig, MailSecurity};

/// How long an attempt may take where nobody says: name, connection, TLS and answer together.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of an answer, what is read of it.
const ANSWER_BYTES: usize = 64 * 1024;
/// Of the list of what is open on a status page.
const LOOK_BYTES: usize = 1024 * 1024;

const TELEGRAM: &str = "https://api.telegram.org";
const PAGERDUTY: &str = "https://events.pagerduty.com";
const STATUSPAGE: &str = "https://api.statuspage.io";

/// A channel, as configured.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// What it is called; no two have one name.
    pub name: String,
    /// What it is.
    pub kind: ChannelKind,
    /// Whether it may be at an address that is not on the public network. With plain HTTP it then
    /// may be nowhere else. Without it, plain HTTP reaches this machine only. Mail has a rule of
    /// its own.
    pub is_private_allowed: bool,
    /// How long one attempt may take.
    pub deadline: Duration,
    /// Notices a minute; absent means what its kind permits.
    pub per_minute: Option<NonZeroU32>,
}

/// What a channel is. `base` is the address of the far side where it is not the vendor's own.
#[derive(Debug, Clone)]
pub enum ChannelKind {
    /// Slack's incoming webhook.
    Slack {
        /// Its address, which is the whole of its key.
        url: Secret,
    },
    /// A Telegram bot.
    Telegram {
        /// Its token, with or without `bot` in front.
        token: Secret,
        /// Whom it writes to: a number or `@name`.
        chat: String,
        /// `https://api.telegram.org` where absent.
        base: Option<String>,
    },
    /// Mail over SMTP.
    Email(MailConfig),
    /// PagerDuty, Events API v2.
    PagerDuty {
        /// The integration's key.
        routing_key: Secret,
        /// What is affected, such as the host.
        source: String,
        /// `https://events.pagerduty.com` where absent.
        base: Option<String>,
    },
    /// A page of Statuspage.
    Statuspage {
        /// The key.
        key: Secret,
        /// The page's id.
        page: String,
        /// What the page calls our components: our name and its id.
        components: Vec<(String, String)>,
        /// `https://api.statuspage.io` where absent.
        base: Option<String>,
    },
    /// What takes Alertmanager's webhook, version 4; or, where the address ends in
    /// `/api/v2/alerts`, Alertmanager itself.
    Alertmanager {
        /// Its address.
        url: Secret,
        /// Its bearer token, where it wants one.
        token: Option<Secret>,
    },
    /// A webhook of our own form.
    Webhook {
        /// Its address.
        url: Secret,
        /// The key of the signature in `X-Hub-Signature-256`: HMAC-SHA256 over the body, as
        /// `sha256=` and hexadecimal digits. Without it there is no signature.
        key: Option<Secret>,
    },
}

impl ChannelConfig {
    /// A channel on the public network, with the usual deadline and rate.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: ChannelKind) -> ChannelConfig {
        ChannelConfig {
            name: name.into(),
            kind,
            is_private_allowed: false,
            deadline: DEADLINE,
            per_minute: None,
        }
    }
}

impl ChannelKind {
    /// The word in facts and logs.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            ChannelKind::Slack { .. } => "slack",
            ChannelKind::Telegram { .. } => "telegram",
            ChannelKind::Email(_) => "email",
            ChannelKind::PagerDuty { .. } => "pagerduty",
            ChannelKind::Statuspage { .. } => "statuspage",
            ChannelKind::Alertmanager { .. } => "alertmanager",
            ChannelKind::Webhook { .. } => "webhook",
        }
    }

    /// Whether the far side recognises a notice that it has had before.
    ///
    /// A mail has one `Message-ID` however often it is sent, but it is the reader's program that
    /// may or may not look at it; and a webhook has an `Idempotency-Key` that its receiver may not
    /// know of.
    #[must_use]
    pub const fn repeats_are_known(&self) -> bool {
        match self {
            ChannelKind::PagerDuty { .. }
            | ChannelKind::Statuspage { .. }
            | ChannelKind::Alertmanager { .. } => true,
            ChannelKind::Slack { .. }
            | ChannelKind::Telegram { .. }
            | ChannelKind::Email(_)
            | ChannelKind::Webhook { .. } => false,
        }
    }

    /// Notices a minute, and how many of them at once. Slack, Telegram and mail servers ask for
    /// about one a second; a status page for one request a second, and a notice takes two.
    const fn rate(&self) -> (u32, u32) {
        match self {
            ChannelKind::Slack { .. } | ChannelKind::Telegram { .. } | ChannelKind::Email(_) => {
                (60, 1)
            }
            ChannelKind::PagerDuty { .. } => (120, 120),
            ChannelKind::Statuspage { .. } => (30, 5),
            ChannelKind::Alertmanager { .. } | ChannelKind::Webhook { .. } => (600, 10),
        }
    }

    /// The address of what is spoken to over HTTP.
    fn url(&self) -> Option<&str> {
        match self {
            ChannelKind::Slack { url }
            | ChannelKind::Alertmanager { url, .. }
            | ChannelKind::Webhook { url, .. } => Some(url.expose()),
            ChannelKind::Telegram { base, .. } => Some(base.as_deref().unwrap_or(TELEGRAM)),
            ChannelKind::PagerDuty { base, .. } => Some(base.as_deref().unwrap_or(PAGERDUTY)),
            ChannelKind::Statuspage { base, .. } => Some(base.as_deref().unwrap_or(STATUSPAGE)),
            ChannelKind::Email(_) => None,
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        let is_header = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        match self {
            ChannelKind::Telegram { token, .. } if !telegram::is_token(token.expose()) => {
                Err("its token is not one of a bot")
            }
            ChannelKind::Statuspage { page, .. } if !statuspage::is_id(page) => {
                Err("its page is not the id of one")
            }
            ChannelKind::Statuspage { components, .. }
                if components.iter().any(|(_, id)| !statuspage::is_id(id)) =>
            {
                Err("a component is not the id of one")
            }
            ChannelKind::Statuspage { key, .. } if !is_header(key.expose()) => {
                Err("its key cannot be sent")
            }
            ChannelKind::Alertmanager { token: Some(token), .. } if !is_header(token.expose()) => {
                Err("its token cannot be sent")
            }
            ChannelKind::PagerDuty { routing_key, .. } if routing_key.expose().is_empty() => {
                Err("its routing key is empty")
            }
            _ => Ok(()),
        }
    }
}

/// All channels.
pub struct Channels(Vec<Channel>);

struct Channel {
    name: String,
    kind: ChannelKind,
    far: Far,
    deadline: Duration,
    rate: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Instant>>,
    pause: Mutex<Pause>,
    /// What stood in the way of the last attempt.
    why: Mutex<Option<&'static str>>,
}

enum Far {
    Http(Box<Address>),
    Mail(Box<Mailer>),
}

impl Channels {
    /// Reads the configuration. Nothing is connected to. `extra_roots` is PEM and holds root
    /// certificates beside the system's; it may be empty.
    ///
    /// # Errors
    /// [`Error::Channel`] names the channel that cannot be used; or what TLS lacks.
    pub fn new(configs: &[ChannelConfig], extra_roots: &[u8]) -> Result<Channels, Error> {
        let mut channels: Vec<Channel> = Vec::with_capacity(configs.len());
        // Reading the system's roots takes a while, and channels without TLS need none. Mail is
        // offered without a protocol's name, so it has a connector of its own.
        let (mut http, mut mail) = (None, None);
        for config in configs {
            let fault = |why| Error::Channel { name: config.name.clone(), why };
            if channels.iter().any(|channel| channel.name == config.name) {
                return Err(fault("there is another one of this name"));
            }
            config.kind.check().map_err(fault)?;
            let far = match (&config.kind, config.kind.url()) {
                (ChannelKind::Email(settings), _) => {
                    let connector = if settings.is_tls() {
                        Some(shared(&mut mail, extra_roots, None)?)
                    } else {
                        None
                    };
                    Far::Mail(Box::new(Mailer::new(settings, connector).map_err(fault)?))
                }
                (_, url) => {
                    let url = url.unwrap_or_default();
                    let connector = if url.starts_with("https:") {
                        Some(shared(&mut http, extra_roots, Some(b"http/1.1"))?)
                    } else {
                        None
                    };
                    let address = Address::new(url, config.is_private_allowed, connector);
                    Far::Http(Box::new(address.map_err(fault)?))
                }
            };
            channels.push(Channel::new(config, far));
        }
        Ok(Channels(channels))
    }

    /// Makes one attempt, within the channel's deadline. While the channel's rate is used up, or
    /// the far side has asked for a pause, it is [`Delivery::Retry`] at once.
    pub async fn deliver(&self, channel: &str, notice: &Notice) -> Delivery {
        match self.0.iter().find(|known| known.name == channel) {
            Some(channel) => channel.deliver(notice).await,
            None => Delivery::Refused { why: "there is no such channel" },
        }
    }
}

impl Courier for Channels {
    fn channels(&self) -> Vec<ChannelFacts> {
        let facts = |channel: &Channel| ChannelFacts {
            name: channel.name.clone(),
            kind: channel.kind.as_str(),
            repeats_are_known: channel.kind.repeats_are_known(),
        };
        self.0.iter().map(facts).collect()
    }

    fn deliver<'a>(&'a self, channel: &'a str, notice: &'a Notice) -> Boxed<'a, Delivery> {
        Box::pin(Channels::deliver(self, channel, notice))
    }

    fn why(&self, channel: &str) -> Option<&'static str> {
        *self.0.iter().find(|known| known.name == channel)?.lock_why()
    }
}

fn shared(
    connector: &mut Option<TlsConnector>,
    extra_roots: &[u8],
    protocol: Option<&[u8]>,
) -> Result<TlsConnector, Error> {
    let made = match connector.take() {
        Some(made) => made,
        None => tls::connector(extra_roots, protocol)?,
    };
    Ok(connector.insert(made).clone())
}

impl Channel {
    fn new(config: &ChannelConfig, far: Far) -> Channel {
        let at_least_one = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let (per_minute, burst) = match config.per_minute {
            Some(per_minute) => (per_minute.get(), per_minute.get() / 60),
            None => config.kind.rate(),
        };
        let quota = Quota::per_minute(at_least_one(per_minute)).allow_burst(at_least_one(burst));
        Channel {
            name: config.name.clone(),
            kind: config.kind.clone(),
            far,
            deadline: config.deadline,
            rate: RateLimiter::direct_with_clock(quota, MonotonicClock),
            pause: Mutex::new(Pause::default()),
            why: Mutex::default(),
        }
    }

    async fn deliver(&self, notice: &Notice) -> Delivery {
        let is_told = match self.kind {
            ChannelKind::Statuspage { .. } => statuspage::is_public(notice.kind),
            _ => true,
        };
        if !is_told {
            return Delivery::Delivered { remote: None };
        }
        let made = now();
        if let Some(after) = self.wait(made) {
            self.note("its rate is used up, or it has asked for a pause");
            return Delivery::Retry { after: Some(after) };
        }
        self.note(match self.far {
            Far::Mail(_) => "the server takes no mail now, or cannot be reached",
            Far::Http(_) => "its answer is not understood",
        });
        let until = made + self.deadline;
        let delivery = match &self.far {
            Far::Mail(mailer) => mailer.deliver(&self.name, notice, until).await,
            Far::Http(address) => self.request(address, notice, until).await,
        };
        match delivery {
            Delivery::Delivered { .. } => *self.lock_why() = None,
            Delivery::Refused { why } => self.note(why),
            Delivery::Unknown if matches!(self.far, Far::Mail(_)) => {
                self.note("the server has not answered");
            }
            Delivery::Retry { .. } | Delivery::Unknown => {}
        }
        self.learn(delivery, made)
    }

    fn note(&self, why: &'static str) {
        *self.lock_why() = Some(why);
    }

    fn lock_why(&self) -> MutexGuard<'_, Option<&'static str>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request, and takes note of what became of it.
    async fn exchange(
        &self,
        address: &Address,
        request: Outgoing,
        until: Instant,
        body_max: usize,
    ) -> Result<Heard, Lost> {
        let heard = address.exchange(&self.name, request, until, body_max).await;
        match &heard {
            Ok(heard) => self.note(of_status(heard.status)),
            Err(Lost::Unsent) => self.note("it cannot be reached"),
            Err(Lost::Unknown) => self.note("it has not answered"),
            Err(Lost::Unwritable) => {}
        }
        heard
    }

    /// How long the channel is to be left alone. Where it is not, the attempt is counted.
    fn wait(&self, now: Instant) -> Option<Duration> {
        self.pause().left(now).or_else(|| {
            let refused = self.rate.check().err()?;
            Some(refused.wait_time_from(MonotonicClock.now()))
        })
    }

    fn learn(&self, delivery: Delivery, made: Instant) -> Delivery {
        let mut pause = self.pause();
        match delivery {
            Delivery::Retry { after: Some(asked) } => {
                pause.asked(asked, made, now());
                Delivery::Retry { after: pause.left(now()) }
            }
            Delivery::Delivered { .. } => {
                pause.served(made);
                delivery
            }
            _ => delivery,
        }
    }

    fn pause(&self) -> MutexGuard<'_, Pause> {
        // Nothing in there can panic half-way through a change.
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn request(&self, address: &Address, notice: &Notice, until: Instant) -> Delivery {
        let (request, read): (Outgoing, Read) = match &self.kind {
            ChannelKind::Slack { .. } => (slack::request(notice), slack::read),
            ChannelKind::Telegram { token, chat, .. } => {
                (telegram::request(notice, token.expose(), chat), telegram::read)
            }
            ChannelKind::PagerDuty { routing_key, source, .. } => {
                (pagerduty::request(notice, routing_key.expose(), source), pagerduty::read)
            }
            ChannelKind::Alertmanager { url, token } => {
                let token = token.as_ref().map(Secret::expose);
                let request = if alertmanager::is_api(url.expose()) {
                    alertmanager::api_request(notice, token)
                } else {
                    alertmanager::request(notice, &self.name, token)
                };
                (request, alertmanager::read)
            }
            ChannelKind::Webhook { key, .. } => {
                let mut request = webhook::request(notice);
                if let Some(key) = key {
                    request.headers.push((SIGNATURE, signature(key, &request.body)));
                }
                (request, webhook::read)
            }
            ChannelKind::Statuspage { key, page, components, .. } => {
                let mut affected: Vec<&str> = Vec::new();
                for name in notice.component.split(',') {
                    let found = components.iter().find(|(own, _)| own == name);
                    let id = found.map(|(_, id)| id.as_str());
                    affected.extend(id.filter(|id| !affected.contains(id)));
                }
                let components = affected.as_slice();
                let page = statuspage::Page { id: page, key: key.expose(), components };
                return self.publish(address, notice, &page, until).await;
            }
            // Has no address.
            ChannelKind::Email(_) => return Delivery::Refused { why: "it is not spoken to so" },
        };
        match self.exchange(address, request, until, ANSWER_BYTES).await {
            Ok(heard) => read(heard.status, heard.retry_after, &heard.body),
            Err(Lost::Unsent) => Delivery::Retry { after: None },
            Err(Lost::Unknown) => Delivery::Unknown,
            Err(Lost::Unwritable) => Delivery::Refused { why: "the request cannot be written" },
        }
    }

    /// Looks what is open on the page, and does what follows from it.
    async fn publish(
        &self,
        address: &Address,
        notice: &Notice,
        page: &statuspage::Page<'_>,
        until: Instant,
    ) -> Delivery {
        let look = self.exchange(address, statuspage::look(page), until, LOOK_BYTES).await;
        // A look that was lost has changed nothing.
        let Ok(Heard { status, retry_after, body }) = look else {
            return Delivery::Retry { after: None };
        };
        let plan = match statuspage::plan(notice, page, status, retry_after, &body) {
            Ok(statuspage::Plan::Done { id }) => return Delivery::Delivered { remote: id },
            Ok(plan) => plan,
            Err(answer) => return answer,
        };
        let Some(request) = statuspage::request(notice, page, &plan) else {
            return Delivery::Delivered { remote: None };
        };
        match self.exchange(address, request, until, ANSWER_BYTES).await {
            Ok(heard) => statuspage::read(heard.status, heard.retry_after, &heard.body),
            Err(Lost::Unsent) => Delivery::Retry { after: None },
            Err(Lost::Unknown) => Delivery::Unknown,
            Err(Lost::Unwritable) => Delivery::Refused { why: "the request cannot be written" },
        }
    }
}

/// What a status says of a notice that was not taken, where the far side does not refuse it.
const fn of_status(status: u16) -> &'static str {
    match status {
        408 | 409 | 425 | 429 => "it asks to be told later",
        502 | 504 => "what stands before it has no answer of it",
        500..=599 => "it answers with an error of its own",
        _ => "its answer is not understood",
    }
}

type Read = fn(u16, Option<Duration>, &[u8]) -> Delivery;
