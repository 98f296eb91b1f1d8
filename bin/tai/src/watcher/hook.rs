//! URLs of others that are knocked at: who misses the heartbeat, and who restarts the service.
//!
//! Owns: one request, its time limit, and that the URL is shown nowhere, since it may hold a key.
//! Refuses to know: when one is made.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Url;
use reqwest::blocking::Client;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;

use crate::client;

const LIMIT: Duration = Duration::from_secs(10);

/// Why a knock was not heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unheard {
    /// In our own words.
    pub(crate) why: String,
    /// Nothing has arrived there, for certain.
    pub(crate) is_unreachable: bool,
}

impl Unheard {
    fn new(why: impl Into<String>) -> Unheard {
        Unheard { why: why.into(), is_unreachable: false }
    }
}

/// One URL.
#[derive(Clone)]
pub(crate) struct Hook {
    http: Client,
    url: Arc<Url>,
}

impl Hook {
    /// Reads the URL that the variable `name` holds.
    ///
    /// # Errors
    /// Names the variable and never the value.
    pub(crate) fn new(name: &str, url: &str) -> anyhow::Result<Hook> {
        let Some(url) = Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        else {
            bail!("{name}: the URL must be http:// or https:// and a host");
        };
        let http = client::http().with_context(|| name.to_owned())?;
        Ok(Hook { http, url: Arc::new(url) })
    }

    /// Knocks once: with a body as POST, without one as GET.
    ///
    /// # Errors
    /// Why it was not heard.
    pub(crate) async fn knock(&self, body: Option<Value>) -> Result<(), Unheard> {
        let hook = self.clone();
        let asked = tokio::task::spawn_blocking(move || hook.ask(body)).await;
        asked.unwrap_or_else(|_| Err(Unheard::new("it could not be asked")))
    }

    fn ask(&self, body: Option<Value>) -> Result<(), Unheard> {
        let url = Url::clone(&self.url);
        let request = match body {
            None => self.http.get(url),
            Some(body) => {
                let json = HeaderValue::from_static("application/json");
                self.http.post(url).header(CONTENT_TYPE, json).body(body.to_string())
            }
        };
        match request.timeout(LIMIT).send() {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Unheard::new(format!("status {}", answer.status().as_u16()))),
            Err(error) if error.is_connect() => {
                Err(Unheard { why: "cannot be reached".to_owned(), is_unreachable: true })
            }
            Err(error) if error.is_timeout() => Err(Unheard::new("no answer in time")),
            Err(_) => Err(Unheard::new("the connection broke")),
        }
    }
}
