//! A mail server that takes mail over plain SMTP on loopback, and writes down what it was told.
//!
//! Owns: the few commands that a client needs, one session a connection. Refuses to know: what a
//! mail says, and whether anybody may send one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// One mail as it was handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mail {
    /// What stands behind `AUTH PLAIN`, as it came.
    pub auth: Option<String>,
    /// The sender of the envelope.
    pub from: String,
    /// Its recipients.
    pub to: Vec<String>,
    /// Headers and text, with the dots of the transfer.
    pub data: String,
}

/// The server. Dropping it closes its door.
pub struct MailServer {
    address: SocketAddr,
    mails: Arc<Mutex<Vec<Mail>>>,
    ends: Arc<AtomicBool>,
    door: Option<JoinHandle<()>>,
}

impl MailServer {
    /// Opens it at a free port of the loopback address.
    ///
    /// # Errors
    /// When there is no port.
    pub fn start() -> Result<MailServer> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port")?;
        let address = listener.local_addr()?;
        let mails = Arc::<Mutex<Vec<Mail>>>::default();
        let ends = Arc::new(AtomicBool::new(false));
        let (held, over) = (Arc::clone(&mails), Arc::clone(&ends));
        let door = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(stream), mails) = (stream, Arc::clone(&held)) else { continue };
                // A session that fails is the other side's to notice.
                std::thread::spawn(move || drop(serve(&stream, &mails)));
            }
        });
        Ok(MailServer { address, mails, ends, door: Some(door) })
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every mail so far, in order.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // Wakes the door, which then sees that it is over.
        drop(TcpStream::connect(self.address));
        if let Some(door) = self.door.take() {
            drop(door.join());
        }
    }
}

/// One session, to its end.
fn serve(stream: &TcpStream, mails: &Mutex<Vec<Mail>>) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream);
    let say = |line: &str| -> Result<()> {
        let mut stream = stream;
        Ok(stream.write_all(format!("{line}\r\n").as_bytes())?)
    };
    let address = |line: &str| -> Option<String> {
        Some(line.split_once('<')?.1.split_once('>')?.0.to_owned())
    };
    say("220 mail of a test")?;
    let (mut mail, mut line) = (Mail::default(), String::new());
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "a session without an end");
        let said = line.trim_end().to_owned();
        let word = said.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        match word.as_str() {
            "EHLO" => {
                say("250-mail of a test")?;
                say("250 AUTH PLAIN")?;
            }
            "AUTH" => {
                mail.auth = said.strip_prefix("AUTH PLAIN ").map(str::to_owned);
                say("235 good")?;
            }
            "MAIL" => {
                mail.from = address(&said).context("a sender")?;
                say("250 good")?;
            }
            "RCPT" => {
                mail.to.push(address(&said).context("a recipient")?);
                say("250 good")?;
            }
            "DATA" => {
                say("354 go on")?;
                loop {
                    let mut text = String::new();
                    ensure!(reader.read_line(&mut text)? > 0, "a mail without an end");
                    if text == ".\r\n" {
                        break;
                    }
                    mail.data.push_str(&text);
                }
                let taken = std::mem::take(&mut mail);
                mails.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
                say("250 taken")?;
            }
            "QUIT" => return say("221 goodbye"),
            "RSET" | "NOOP" => say("250 good")?,
            _ => say("502 what?")?,
        }
    }
}
