//! Mail: one session of SMTP for each.
//!
//! Owns: how the connection becomes a secure one, the order of the session, and which failures mean
//! that the mail cannot have been taken. Refuses to know: what a mail says.
//!
//! The commands and the messages are the library's. The connection is ours, as for every
//! dependency: its addresses are checked, and TLS is the same. So `STARTTLS` is spoken here too;
//! what the server says before it is forgotten with it, and anything that came along with its last
//! word before the handshake ends the session, since it may have been put there by somebody else.
//!
//! A mailbox that does not exist silences nobody else: the mail goes to those whom the server
//! takes.

mod line;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ::http::HeaderValue;
use dialect::notify::{Notice, email};
use engine::notify::Delivery;
use engine::outbound::Sent;
use lettre::message::header::{HeaderName, HeaderValue as MailHeader};
use lettre::message::{Mailbox, Message, MultiPart};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use settings::Secret;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::address::Reach;
use crate::base::Base;
use crate::connection::Stream;
use crate::dial::Dialer;
use line::Line;

/// How long a server is given to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// The last second that a date of a mail can have: of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// A mail server, and who writes to whom.
#[derive(Debug, Clone)]
pub struct MailConfig {
    /// A name or an address.
    pub host: String,
    /// Usually 587, or 465.
    pub port: u16,
    /// Absent means by the port: TLS from the start on 465, nothing on this machine, `STARTTLS`
    /// otherwise.
    pub security: Option<MailSecurity>,
    /// User name and password.
    pub login: Option<(String, Secret)>,
    /// Who writes: `name@host` or `Name <name@host>`.
    pub from: String,
    /// To whom; at least one.
    pub to: Vec<String>,
}

/// How a mail server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailSecurity {
    /// TLS once the server has said that it can. One that cannot is not written to.
    StartTls,
    /// TLS from the start.
    Tls,
    /// None: on this machine, and on private networks where it is configured so. A password never
    /// crosses the public network in clear text.
    Plain,
}

impl MailConfig {
    fn security(&self) -> MailSecurity {
        self.security.unwrap_or(match self.port {
            465 => MailSecurity::Tls,
            _ if is_this_machine(&self.host) => MailSecurity::Plain,
            _ => MailSecurity::StartTls,
        })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.security() != MailSecurity::Plain
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// One mail server.
pub(super) struct Mailer {
    dialer: Dialer,
    /// What the connection is made secure with once it is there.
    starttls: Option<(TlsConnector, ServerName<'static>)>,
    login: Option<Credentials>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl Mailer {
    /// `tls` is there unless the connection is [`MailSecurity::Plain`].
    pub(super) fn new(
        config: &MailConfig,
        tls: Option<TlsConnector>,
    ) -> Result<Mailer, &'static str> {
        let host = config.host.trim_matches(['[', ']']).to_ascii_lowercase();
        if host.is_empty() || config.port == 0 {
            return Err("it has no host or no port");
        }
        let security = config.security();
        let reach = match security {
            MailSecurity::StartTls | MailSecurity::Tls => Reach::Any,
            MailSecurity::Plain if is_this_machine(&host) => Reach::Loopback,
            MailSecurity::Plain => Reach::Inside,
        };
        let base = Base {
            is_tls: security == MailSecurity::Tls,
            host: host.clone(),
            port: config.port,
            host_header: HeaderValue::from_static(""),
            path: String::new(),
            reach,
        };
        let no_host = "its host is not a host";
        let (at_once, later) = match security {
            MailSecurity::StartTls => (None, tls),
            MailSecurity::Tls | MailSecurity::Plain => (tls, None),
        };
        let starttls = match later {
            Some(connector) => Some((connector, ServerName::try_from(host).map_err(|_| no_host)?)),
            None => None,
        };
        let dialer = Dialer::new(Arc::new(base), at_once).ok_or(no_host)?;
        let to: Vec<Mailbox> = config.to.iter().map(|to| mailbox(to)).collect::<Result<_, _>>()?;
        if to.is_empty() {
            return Err("nobody is written to");
        }
        let login = config
            .login
            .as_ref()
            .map(|(user, password)| Credentials::new(user.clone(), password.expose().to_owned()));
        Ok(Mailer { dialer, starttls, login, from: mailbox(&config.from)?, to })
    }

    /// Sends one mail.
    pub(super) async fn deliver(&self, channel: &str, notice: &Notice, until: Instant) -> Delivery {
        let Some(message) = self.message(notice) else {
            tracing::error!(event = "notify_request", channel, "a mail of ours cannot be written");
            return Delivery::Refused { why: "the mail cannot be written" };
        };
        let sent = Sent::default();
        let session = self.session(channel, &message, &sent, until);
        match tokio::time::timeout_at(until.into(), session).await {
            Ok(Ok(mut connection)) => {
                // It is delivered whether or not the server says goodbye.
                let _ = tokio::time::timeout(GOODBYE, connection.quit()).await;
                Delivery::Delivered { remote: None }
            }
            Ok(Err(delivery)) => delivery,
            Err(_) if sent.is_set() => Delivery::Unknown,
            Err(_) => Delivery::Retry { after: None },
        }
    }

    /// The whole session but for the goodbye, or what it came to.
    async fn session(
        &self,
        channel: &str,
        message: &[u8],
        sent: &Sent,
        until: Instant,
    ) -> Result<AsyncSmtpConnection, Delivery> {
        let mut connection = self.connect(channel, until).await?;
        if let Some(login) = &self.login {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            connection.auth(&mechanisms, login).await.map_err(|error| {
                if error.is_client() {
                    Delivery::Refused { why: "the server has no login that is known here" }
                } else {
                    unsent(&error, "the server refuses the login")
                }
            })?;
        }
        let from = Mail::new(Some(self.from.email.clone()), Vec::new());
        let refused = |why| move |error: SmtpError| unsent(&error, why);
        connection.command(from).await.map_err(refused("the server refuses the sender"))?;
        self.name_recipients(channel, &mut connection).await?;
        connection.command(Data).await.map_err(refused("the server refuses to take a mail"))?;
        sent.set(true);
        match connection.message(message).await {
            Ok(_) => Ok(connection),
            // It has read the mail, and said no.
            Err(error) if error.is_transient() || error.is_permanent() => {
                Err(unsent(&error, "the server refuses the mail"))
            }
            Err(_) => Err(Delivery::Unknown),
        }
    }

    async fn connect(
        &self,
        channel: &str,
        until: Instant,
    ) -> Result<AsyncSmtpConnection, Delivery> {
        let stream = self.dialer.socket(until).await.map_err(|failure| {
            let why = &*failure.why;
            tracing::debug!(event = "notify_lost", channel, why, "an attempt came to nothing");
            Delivery::Retry { after: None }
        })?;
        let hello = hello(&stream);
        let line = match &self.starttls {
            None => Line::new(stream),
            Some((connector, name)) => line::secure(stream, &hello, connector, name).await?,
        };
        let connected = AsyncSmtpConnection::connect_with_transport(Box::new(line), &hello).await;
        connected.map_err(|error| unsent(&error, "the server turns us away"))
    }

    /// Tells the server whom the mail is for. One of whom it takes is enough; where it takes none,
    /// and would take one of them later, it is tried later.
    async fn name_recipients(
        &self,
        channel: &str,
        connection: &mut AsyncSmtpConnection,
    ) -> Result<(), Delivery> {
        let (mut taken, mut refused, mut later) = (0_usize, 0_usize, false);
        for to in &self.to {
            match connection.command(Rcpt::new(to.email.clone(), Vec::new())).await {
                Ok(_) => taken += 1,
                Err(error) if error.is_permanent() => refused += 1,
                Err(error) if error.is_transient() => {
                    refused += 1;
                    later = true;
                }
                Err(_) => return Err(Delivery::Retry { after: None }),
            }
        }
        if taken == 0 && later {
            return Err(Delivery::Retry { after: None });
        }
        if taken == 0 {
            return Err(Delivery::Refused { why: "the server refuses every recipient" });
        }
        if refused > 0 {
            let event = "notify_recipients";
            tracing::warn!(event, channel, refused, taken, "some are not written to");
        }
        Ok(())
    }

    fn message(&self, notice: &Notice) -> Option<Vec<u8>> {
        let mail = email::mail(notice);
        let domain = self.from.email.domain();
        let at = u64::try_from(notice.at_us).unwrap_or_default() / 1_000_000;
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(at.min(LAST_SECOND));
        // Keeps answers of machines away, RFC 3834.
        let automatic = MailHeader::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        );
        let mut message = Message::builder()
            .from(self.from.clone())
            .date(date)
            .message_id(Some(format!("<{}@{domain}>", mail.id)))
            .references(format!("<{}@{domain}>", mail.thread))
            .subject(mail.subject)
            .raw_header(automatic);
        for to in &self.to {
            message = message.to(to.clone());
        }
        let parts = MultiPart::alternative_plain_html(mail.text, mail.html);
        message.multipart(parts).ok().map(|message| message.formatted())
    }
}

/// Without the extension that few servers have, an address is ASCII.
fn mailbox(text: &str) -> Result<Mailbox, &'static str> {
    let mailbox: Mailbox = text.parse().map_err(|_| "an address is not one of mail")?;
    let is_ascii = mailbox.email.user().is_ascii() && mailbox.email.domain().is_ascii();
    if is_ascii { Ok(mailbox) } else { Err("an address is not ASCII") }
}

/// What we call ourselves: the address that the server sees, which exists and is ours.
fn hello(stream: &Stream) -> ClientId {
    match line::socket(stream).local_addr().map(|address| address.ip().to_canonical()) {
        Ok(IpAddr::V4(address)) => ClientId::Ipv4(address),
        Ok(IpAddr::V6(address)) => ClientId::Ipv6(address),
        Err(_) => ClientId::Domain("localhost".to_owned()),
    }
}

/// What a failure before the mail itself means.
fn unsent(error: &SmtpError, why: &'static str) -> Delivery {
    if error.is_permanent() { Delivery::Refused { why } } else { Delivery::Retry { after: None } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(host: &str, port: u16) -> MailConfig {
        MailConfig {
            host: host.to_owned(),
            port,
            security: None,
            login: None,
            from: "TAI <alerts@example.com>".to_owned(),
            to: vec!["ops@example.com".to_owned()],
        }
    }

    #[test]
    fn nothing_is_sent_in_clear_text_unless_to_this_machine() {
        for (host, port, expected) in [
            ("smtp.example.com", 587, MailSecurity::StartTls),
            ("smtp.example.com", 25, MailSecurity::StartTls),
            ("smtp.example.com", 465, MailSecurity::Tls),
            ("10.0.0.1", 25, MailSecurity::StartTls),
            ("localhost.example.com", 25, MailSecurity::StartTls),
            ("127.0.0.1", 465, MailSecurity::Tls),
            ("127.0.0.1", 1025, MailSecurity::Plain),
            ("localhost", 25, MailSecurity::Plain),
            ("::1", 25, MailSecurity::Plain),
        ] {
            assert_eq!(config(host, port).security(), expected, "{host}:{port}");
        }
    }

    #[test]
    fn what_is_no_address_of_mail_is_refused() {
        for (from, to) in [
            ("nobody", vec!["ops@example.com"]),
            ("alerts@example.com", vec![]),
            ("alerts@example.com", vec!["ops@example.com\r\nDATA"]),
            ("alerts@example.com", vec!["öps@example.com"]),
        ] {
            let to = to.into_iter().map(str::to_owned).collect();
            let config = MailConfig { from: from.to_owned(), to, ..config("127.0.0.1", 25) };
            assert!(Mailer::new(&config, None).is_err(), "{from}");
        }
    }

    #[tokio::test]
    async fn a_deadline_that_is_over_sends_nothing() {
        let mailer = Mailer::new(&config("127.0.0.1", 9), None).unwrap();
        let notice = Notice {
            id: "n".to_owned(),
            incident: "INC-1".to_owned(),
            kind: dialect::notify::NoticeKind::Opened,
            severity: 1,
            title: String::new(),
            text: String::new(),
            component: String::new(),
            at_us: i64::MAX,
            opened_at_us: i64::MIN,
            url: None,
            alerts: Vec::new(),
        };
        assert!(mailer.message(&notice).is_some());
        let delivery = mailer.deliver("mail", &notice, crate::egress::now()).await;
        assert_eq!(delivery, Delivery::Retry { after: None });
    }
}
