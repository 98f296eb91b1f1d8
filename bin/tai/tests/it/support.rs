//! What all modules use: the binary, its verbs, short ways to ask, and waiting without sleeping
//! blindly.
//!
//! Owns: nothing of the product. Refuses to know: which answer is right.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use testkit::http::{Client, Response};
use testkit::tai::Tai;

/// The time after which something that should have happened counts as missing. Generous: two busy
/// cores run several test binaries at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// The binary under test.
pub(crate) fn bin() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tai"))
}

/// A fresh folder, and the ledger's folder inside it.
pub(crate) fn room() -> (TempDir, PathBuf) {
    let room = tempfile::tempdir().unwrap();
    let ledger = room.path().join("ledger");
    (room, ledger)
}

/// Starts the service on `dir`.
pub(crate) fn start(dir: &Path, envs: &[(&str, &str)]) -> Tai {
    Tai::start(bin(), dir, envs).unwrap()
}

/// A service that is asked to end, and has.
pub(crate) fn stop(mut tai: Tai) {
    tai.terminate().unwrap();
    let status = tai.wait(PATIENCE).unwrap();
    assert!(status.success(), "{status}: {:#?}", tai.log_lines());
}

/// `tai` with `args`, on the ledger in `dir`, with nothing of our environment but `PATH`.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(bin());
    command
        .args(args)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("LEDGER_DIR", dir)
        .current_dir(dir.parent().unwrap())
        .stdin(Stdio::null());
    command
}

/// What one verb says and how it ends.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs `tai` with `args` on the ledger in `dir`.
pub(crate) fn tai(dir: &Path, args: &[&str]) -> Said {
    command(dir, args).output().unwrap().into()
}

/// Runs the verifier that was written from the public document alone.
pub(crate) fn python_verifier(export: &Path) -> Said {
    let script = testkit::place::repository().join("tools/verify_receipt_chain.py");
    let output = Command::new("python3").arg(script).arg(export).output().unwrap();
    output.into()
}

/// Both verifiers agree that nothing is wrong. Gives the receipts of the export.
pub(crate) fn assert_verified(dir: &Path) -> Vec<Value> {
    assert_verified_by(&|args| tai(dir, args))
}

/// [`assert_verified`] of the ledger that `tai` is run on.
pub(crate) fn assert_verified_by(tai: &dyn Fn(&[&str]) -> Said) -> Vec<Value> {
    let own = tai(&["ledger", "verify"]);
    assert_eq!(own.code, Some(0), "{}{}", own.out, own.err);
    assert_eq!(own.out.lines().filter(|line| line.starts_with('✓')).count(), 4, "{}", own.out);
    let room = tempfile::tempdir().unwrap();
    let file = room.path().join("export.jsonl");
    let export = tai(&["ledger", "export", "--to", file.to_str().unwrap()]);
    assert_eq!(export.code, Some(0), "{}", export.err);
    if !testkit::python::present() {
        testkit::skip::record("the second verifier", "Python is not installed");
        return receipts_of(&std::fs::read_to_string(file).unwrap());
    }
    let python = python_verifier(&file);
    assert_eq!(python.code, Some(0), "{}{}", python.out, python.err);
    assert_eq!(python.out.lines().filter(|line| line.starts_with('✓')).count(), 4);
    receipts_of(&std::fs::read_to_string(file).unwrap())
}

/// The receipts of an export, without header and trailer.
pub(crate) fn receipts_of(export: &str) -> Vec<Value> {
    let lines: Vec<&str> = export.lines().collect();
    lines[1..lines.len() - 1].iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A client on a connection of its own.
pub(crate) fn client(address: SocketAddr) -> Client {
    Client::connect(address).unwrap()
}

/// Posts JSON.
pub(crate) fn post(client: &mut Client, path: &str, body: &Value) -> Response {
    client.request("POST", path, &[JSON], body.to_string().as_bytes()).unwrap()
}

/// Posts JSON under a request id.
pub(crate) fn post_as(client: &mut Client, path: &str, id: &str, body: &Value) -> Response {
    let headers = [JSON, ("X-Request-ID", id)];
    client.request("POST", path, &headers, body.to_string().as_bytes()).unwrap()
}

pub(crate) fn get(client: &mut Client, path: &str) -> Response {
    client.request("GET", path, &[], b"").unwrap()
}

/// An entitlement event.
pub(crate) fn event(tenant: &str, action: &str) -> Value {
    serde_json::json!({"tenant_id": tenant, "entitlement_id": "professional", "action": action})
}

/// A push delivery of `data`.
pub(crate) fn push(message_id: &str, data: &Value) -> Value {
    push_raw(message_id, data.to_string().as_bytes())
}

/// A push delivery of any bytes.
pub(crate) fn push_raw(message_id: &str, data: &[u8]) -> Value {
    serde_json::json!({
        "message": {"messageId": message_id, "data": base64(data)},
        "subscription": "projects/test/subscriptions/erlang-autonomics-signals-sub",
    })
}

/// Base64 as Pub/Sub writes it.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// The receipt id of an answer.
pub(crate) fn receipt_id(response: &Response) -> String {
    let shown = || String::from_utf8_lossy(&response.body).into_owned();
    response.header("x-receipt-id").unwrap_or_else(|| panic!("no receipt: {}", shown())).to_owned()
}

/// Asks again and again until there is an answer; the time between is for others.
pub(crate) fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, || what.to_owned(), ask)
}

/// [`until`], where the product itself takes longer; `what` is asked for only when it fails.
pub(crate) fn until_within<T>(
    limit: Duration,
    what: impl Fn() -> String,
    mut ask: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{}: not in time", what());
        // Another process is asked, which tells nobody when it is ready.
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// A reproducible sequence (xorshift64*): a failure can be looked at again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}

/// Wall time in unix seconds.
#[expect(clippy::disallowed_methods, reason = "the service's clock is compared with this one")]
pub(crate) fn unix_secs() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// Somebody else who holds the write lock of the ledger's database, so that every commit waits.
/// Dropping it lets go.
pub(crate) struct HeldLock(std::process::Child);

impl HeldLock {
    pub(crate) fn take(dir: &Path) -> HeldLock {
        const HOLD: &str = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
db.execute('BEGIN IMMEDIATE')
print('held', flush=True)
sys.stdin.read()
db.execute('ROLLBACK')";
        let mut child = Command::new("python3")
            .args(["-c", HOLD])
            .arg(dir.join("ledger.db"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        HeldLock(child)
    }
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Runs a Python program of one text with arguments; gives what it prints.
pub(crate) fn python(program: &str, args: &[&str]) -> String {
    let output = Command::new("python3").args(["-c", program]).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
