//! Those who ask: keys, secrets, signatures and tokens, all of them made at run time.
//!
//! Owns: how a credential goes into a request. Refuses to know: which answer is right.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::Sha256;
use testkit::http::{Client, Response};
use testkit::tai::Tai;

use crate::support::*;

/// Bytes of chance, as nobody can guess them.
pub(crate) fn chance() -> [u8; 32] {
    let mut bytes = [0; 32];
    File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A key for `ADMIN_API_KEY`.
pub(crate) fn new_key() -> String {
    hex(&chance())
}

/// A service that asks everybody for a key, and takes `admin` as the operator's. Keys are not
/// limited in their rate unless `envs` say so.
pub(crate) fn start_guarded(dir: &Path, admin: &str, envs: &[(&str, &str)]) -> Tai {
    let own =
        [("AUTH_REQUIRED", "true"), ("ADMIN_API_KEY", admin), ("RATE_LIMIT_BURST", "1000000")];
    start(dir, &[&own, envs].concat())
}

/// Somebody with a connection and headers of its own.
pub(crate) struct Caller {
    client: Client,
    headers: Vec<(String, String)>,
}

impl Caller {
    /// Without a key.
    pub(crate) fn local(address: SocketAddr) -> Caller {
        Caller { client: client(address), headers: Vec::new() }
    }

    /// With a key.
    pub(crate) fn keyed(address: SocketAddr, key: &str) -> Caller {
        Caller::local(address).with("X-API-Key", key)
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Caller {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Asks; `Value::Null` is no body.
    pub(crate) fn send(&mut self, method: &str, path: &str, body: &Value) -> Response {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.send_bytes(method, path, text.as_bytes())
    }

    pub(crate) fn send_bytes(&mut self, method: &str, path: &str, body: &[u8]) -> Response {
        let own = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let headers: Vec<_> = [JSON].into_iter().chain(own).collect();
        self.client.request(method, path, &headers, body).unwrap()
    }

    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, &Value::Null)
    }

    pub(crate) fn post(&mut self, path: &str, body: &Value) -> Response {
        self.send("POST", path, body)
    }

    pub(crate) fn put(&mut self, path: &str, body: &Value) -> Response {
        self.send("PUT", path, body)
    }

    pub(crate) fn delete(&mut self, path: &str) -> Response {
        self.send("DELETE", path, &Value::Null)
    }

    /// A customer call, the cheapest request that decides something.
    pub(crate) fn quote(&mut self, customer: &str) -> Response {
        self.post("/marketplace", &json!({"customer_id": customer}))
    }

    /// The receipts of a search; its first page.
    pub(crate) fn receipts(&mut self, query: &str) -> Vec<Value> {
        let response = self.get(&format!("/receipts?{query}"));
        assert_eq!(response.status, 200, "{query}: {}", text(&response));
        response.json().unwrap()["receipts"].as_array().unwrap().clone()
    }
}

/// A key as its holder has it.
#[derive(Debug, Clone)]
pub(crate) struct Issued {
    pub(crate) id: String,
    pub(crate) text: String,
}

impl Issued {
    /// Its holder.
    pub(crate) fn caller(&self, address: SocketAddr) -> Caller {
        Caller::keyed(address, &self.text)
    }
}

/// Has a key issued.
pub(crate) fn issue(admin: &mut Caller, order: &Value) -> Issued {
    issued(&admin.post("/admin/keys", order))
}

/// The key of an answer.
pub(crate) fn issued(response: &Response) -> Issued {
    assert_eq!(response.status, 201, "{}", text(response));
    let body = response.json().unwrap();
    let field = |name: &str| body[name].as_str().unwrap().to_owned();
    Issued { id: field("id"), text: field("key") }
}

pub(crate) fn text(response: &Response) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}

/// A refusal with this status, for this reason.
pub(crate) fn assert_refused(response: &Response, status: u16, reason: &str) {
    let body = response.json().unwrap();
    // Callers of models are told in their own dialect.
    let told = body["reason"].as_str().or(body["error"]["reason"].as_str());
    assert_eq!((response.status, told), (status, Some(reason)), "{body}");
}

/// Neither of the two answers to who may not: whatever else it is, the door was passed.
pub(crate) fn is_let_in(response: &Response) -> bool {
    !matches!(response.status, 401 | 403)
}

/// The value of `X-Signature` for a body.
pub(crate) fn signature(secret: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(body);
    hex(&mac.finalize().into_bytes())
}

/// A token of claims, HS256.
pub(crate) fn token(secret: &[u8], claims: &Value) -> String {
    let header = Header::new(Algorithm::HS256);
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).unwrap()
}

/// The claims of a token for an event, fresh for a minute.
pub(crate) fn claims(event: &Value) -> Value {
    let now = unix_secs();
    json!({
        "tenant_id": event["tenant_id"], "entitlement_id": event["entitlement_id"],
        "iat": now, "exp": now + 60,
    })
}

/// A value of the metrics page.
pub(crate) fn metric(address: SocketAddr, name: &str) -> i64 {
    let page = text(&get(&mut client(address), "/metrics"));
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}: {page}")).parse().unwrap()
}

/// Requests in work; a scrape is none.
pub(crate) fn in_work(address: SocketAddr) -> usize {
    metric(address, "tai_http_requests_in_flight") as usize
}

/// A request whose body does not come until it is let: it holds its places.
pub(crate) struct Half(TcpStream);

impl Half {
    /// A customer call that the service has begun to work on.
    pub(crate) fn begin(address: SocketAddr, key: Option<&str>) -> Half {
        let key = key.map(|key| format!("X-API-Key: {key}\r\n")).unwrap_or_default();
        Half::begin_with(address, &key)
    }

    /// The same with whole lines of the head.
    pub(crate) fn begin_with(address: SocketAddr, lines: &str) -> Half {
        Half::of(address, "/marketplace", lines)
    }

    /// The same of the operator, which is never finished.
    pub(crate) fn begin_order(address: SocketAddr) -> Half {
        Half::of(address, "/admin/keys", "")
    }

    fn of(address: SocketAddr, path: &str, lines: &str) -> Half {
        let before = in_work(address);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             {lines}Content-Length: 22\r\n\r\n{{\"customer_i"
        );
        stream.write_all(head.as_bytes()).unwrap();
        until("the request is in work", || (in_work(address) == before + 1).then_some(()));
        Half(stream)
    }

    /// Sends the rest: a call of the customer `late`.
    pub(crate) fn finish(&mut self) {
        self.0.write_all(b"d\":\"late\"}").unwrap();
    }

    /// The status of its answer; `None` when the connection was closed without one.
    pub(crate) fn status(mut self) -> Option<u16> {
        let mut line = [0; 12];
        self.0.read_exact(&mut line).ok()?;
        std::str::from_utf8(&line).unwrap().strip_prefix("HTTP/1.1 ")?.parse().ok()
    }
}

/// Does something on the way out, also where the test fails: clients that ask until they are told
/// to end would keep a scope, and with it the failure, from ending.
pub(crate) struct Finally<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for Finally<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
