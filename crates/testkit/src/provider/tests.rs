//! The fake is held against what the vendors publish: a caller that passes here and fails there
//! would be the fake's fault.

mod dialects;
mod faults;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::http::{Client, Response};

const PATIENCE: Duration = Duration::from_secs(20);
/// Nobody waits so long: what comes after it does not come.
const NEVER: Duration = Duration::from_secs(3_600);

/// A request of one vendor as its own clients send it.
struct Call {
    vendor: Vendor,
    path: String,
    key: String,
    body: Value,
}

impl Call {
    fn new(vendor: Vendor, is_stream: bool) -> Call {
        let (path, body) = match vendor {
            Vendor::OpenAi => (
                "/v1/chat/completions".to_owned(),
                json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "a b c"}]}),
            ),
            Vendor::Anthropic => (
                "/v1/messages".to_owned(),
                json!({"model": "claude-haiku-4-5", "max_tokens": 100,
                       "messages": [{"role": "user", "content": "a b c"}]}),
            ),
            Vendor::Gemini => {
                let verb =
                    if is_stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
                let content = json!({"role": "user", "parts": [{"text": "a b c"}]});
                let path = format!("/v1beta/models/gemini-2.5-flash:{verb}");
                (path, json!({"contents": [content]}))
            }
        };
        let mut call = Call { vendor, path, key: KEY.to_owned(), body };
        if is_stream && vendor != Vendor::Gemini {
            call.body["stream"] = json!(true);
        }
        if is_stream && vendor == Vendor::OpenAi {
            call.body["stream_options"] = json!({"include_usage": true});
        }
        call
    }

    fn with(mut self, name: &str, value: Value) -> Call {
        self.body[name] = value;
        self
    }

    fn headers(&self) -> Vec<(&str, String)> {
        let mut headers = vec![("Content-Type", "application/json".to_owned())];
        match self.vendor {
            Vendor::OpenAi => headers.push(("Authorization", format!("Bearer {}", self.key))),
            Vendor::Anthropic => {
                headers.push(("X-Api-Key", self.key.clone()));
                headers.push(("Anthropic-Version", "2023-06-01".to_owned()));
            }
            Vendor::Gemini => headers.push(("X-Goog-Api-Key", self.key.clone())),
        }
        headers
    }

    fn try_send(&self, provider: &Provider) -> Result<Response> {
        let headers = self.headers();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut client = Client::connect(provider.address())?;
        client.set_timeout(PATIENCE);
        client.request("POST", &self.path, &headers, self.body.to_string().as_bytes())
    }

    fn send(&self, provider: &Provider) -> Response {
        self.try_send(provider).unwrap()
    }

    /// Sends and reads nothing.
    fn begin(&self, provider: &Provider) -> TcpStream {
        let mut stream = TcpStream::connect(provider.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = self.body.to_string();
        let mut head = format!("POST {} HTTP/1.1\r\nHost: fake\r\n", self.path);
        for (name, value) in self.headers() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }
}

/// The data of all events, without the mark of the end.
fn events(response: &Response) -> Vec<Value> {
    let text = std::str::from_utf8(&response.body).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap_or(Value::Null))
        .collect()
}

/// The text that an event or a whole answer adds.
fn said(vendor: Vendor, body: &Value) -> String {
    let text = match vendor {
        Vendor::OpenAi => {
            let choice = &body["choices"][0];
            [&choice["delta"]["content"], &choice["message"]["content"]]
        }
        Vendor::Anthropic => [&body["delta"]["text"], &body["content"][0]["text"]],
        Vendor::Gemini => {
            let text = &body["candidates"][0]["content"]["parts"][0]["text"];
            [text, &Value::Null]
        }
    };
    text.into_iter().filter_map(Value::as_str).collect()
}

fn heard(vendor: Vendor, response: &Response) -> String {
    events(response).iter().map(|event| said(vendor, event)).collect()
}

/// The last request, once it and all others have ended.
fn ended(provider: &Provider) -> Entry {
    provider.settled(PATIENCE).unwrap().entries.pop_back().unwrap()
}

#[test]
fn the_books_know_every_request_and_the_queue_is_kept() {
    let provider = Provider::start().unwrap();
    let call = Call::new(Vendor::OpenAi, false);
    provider.next_fine();
    provider.next(Refusal::RateLimited(Some(RetryAfter::Seconds(7))));
    provider.next_of("another", Refusal::ServerError);
    let statuses: Vec<u16> = (0..3).map(|_| call.send(&provider).status).collect();
    assert_eq!(statuses, [200, 429, 200]);
    provider.always(Refusal::ServerError);
    assert_eq!(call.send(&provider).status, 500);
    provider.heal();
    assert_eq!(call.send(&provider).status, 200);

    let books = provider.settled(PATIENCE).unwrap();
    assert_eq!(books.totals.requests, 5);
    assert_eq!((books.totals.prompt_tokens, books.totals.completion_tokens), (3 * 7, 3 * 20));
    let refused = &books.entries[1];
    assert_eq!((refused.status, refused.prompt_tokens, refused.completion_tokens), (429, 0, 0));
    assert_eq!(refused.header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert_eq!(refused.body, call.body);
    assert_eq!(books.of("gpt-4o-mini").count(), 5);
}

#[test]
fn a_caller_who_leaves_is_seen_and_billed_for_what_was_sent() {
    for (vendor, is_stream) in Vendor::ALL.into_iter().flat_map(|it| [(it, true), (it, false)]) {
        let provider = Provider::start().unwrap();
        provider.set_manner(Manner { chunk_delay: NEVER, ..Manner::default() });
        let mut stream = Call::new(vendor, is_stream).begin(&provider);
        if is_stream {
            let mut heard = Vec::new();
            while !String::from_utf8_lossy(&heard).contains("w0") {
                let mut bytes = [0; 1024];
                let read = stream.read(&mut bytes).unwrap();
                assert!(read > 0, "the stream ends before its first token");
                heard.extend_from_slice(&bytes[..read]);
            }
        } else {
            provider.wait_for(PATIENCE, |books| books.entries.back().map(|_| ())).unwrap();
        }
        drop(stream);
        let entry = ended(&provider);
        assert_eq!((entry.end, entry.completion_tokens), (End::HungUp, u64::from(is_stream)));
        assert_eq!(provider.totals().hung_up, 1);
        assert!(entry.ended.unwrap() >= entry.started);
    }
}

#[test]
fn it_stops_and_starts_again_on_its_port() {
    let mut provider = Provider::start().unwrap();
    provider.next(Fault::HangBeforeHead);
    let call = Call::new(Vendor::OpenAi, false);
    let mut hanging = call.begin(&provider);
    provider.wait_for(PATIENCE, |books| books.entries.back().map(|_| ())).unwrap();
    provider.stop();
    assert_eq!(hanging.read(&mut [0; 1]).unwrap_or(0), 0, "a connection outlives its provider");
    assert!(Client::connect(provider.address()).is_err());
    provider.restart().unwrap();
    assert_eq!(call.send(&provider).status, 200);
    assert_eq!(provider.totals().requests, 2);
    let address = provider.address();
    drop(provider);
    assert!(Client::connect(address).is_err());
}
