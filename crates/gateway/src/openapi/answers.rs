//! What the service answers: headers, receipts, refusals, and what the operator sees.
//!
//! Owns: the shape of every answer. Refuses to know: which route gives which.

use std::collections::BTreeSet;

use engine::Stage;
use engine::ports::Durability;
use ledger::Kind;
use serde_json::{Map, Value, json};
use types::{Reason, Scope, limits};

use super::forms::{
    answered, count, described, flag, id, integer, list, matching, may, must, or_null, schema,
    seconds, text, words,
};
use super::requests::STREAM;

/// An `X-Trace-Id`.
pub(super) const TRACE_ID: &str = "^[A-Za-z0-9-]{1,64}$";
/// The id of a receipt.
pub(super) const RECEIPT_ID: &str = "^rcpt_[0-9a-f]{32}$";
/// The id of a key.
pub(super) const KEY_ID: &str = "^key_[0-9a-f]{16}$";
const DIGEST: &str = "^sha256:[0-9a-f]{64}$";
const MAC: &str = "^[0-9a-f]{64}$";

/// Which headers an answer has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Those of every answer.
    All,
    /// And what is left of the caller's rate.
    Keyed,
    /// And the receipt.
    Decided,
    /// And whether it was given before.
    Kept,
}

impl Told {
    fn names(self) -> &'static [&'static str] {
        const NAMES: [&str; 11] = [
            "X-Request-ID",
            "X-Trace-Id",
            "X-Span-Id",
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
            "X-Receipt-ID",
            "X-Durability",
            "X-Idempotent-Replay",
            "X-Cache",
            "Age",
        ];
        match self {
            Told::All => &NAMES[..3],
            Told::Keyed => &NAMES[..6],
            Told::Decided => &NAMES[..9],
            Told::Kept => &NAMES,
        }
    }
}

fn header(name: &str) -> (String, Value) {
    (name.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }))
}

/// An answer of one media type.
pub(super) fn answer(media: &str, shape: Value, told: Told, description: &str) -> Value {
    let headers: Map<String, Value> = told.names().iter().map(|name| header(name)).collect();
    let mut answer = json!({ "description": description, "headers": headers });
    answer["content"][media]["schema"] = shape;
    answer
}

/// The refusals with this status.
pub(super) fn refused(status: u16) -> Value {
    json!({ "$ref": format!("#/components/responses/Refused{status}") })
}

/// The refusals of the reason table, by status.
pub(super) fn refusals(statuses: &BTreeSet<u16>) -> Map<String, Value> {
    let refusal = |status: u16| {
        let reasons: Vec<Reason> =
            Reason::ALL.iter().copied().filter(|reason| reason.status() == status).collect();
        let help = |reason: &Reason| format!("`{}`: {}", reason.code(), reason.help());
        let help: Vec<String> = reasons.iter().map(help).collect();
        let own = words(reasons.iter().map(|reason| reason.code()));
        let shape = json!({ "allOf": [schema("Refusal"), { "properties": { "reason": own } }] });
        let mut answer = answer("application/json", shape, Told::Decided, &help.join(" "));
        let own = match status {
            401 => Some("WWW-Authenticate"),
            429 | 503 => Some("Retry-After"),
            _ => None,
        };
        if let Some(headers) = answer["headers"].as_object_mut() {
            headers.extend(own.map(header));
        }
        (format!("Refused{status}"), answer)
    };
    statuses.iter().copied().map(refusal).collect()
}

/// Every header of an answer.
pub(super) fn headers() -> Value {
    let header =
        |description: &str, schema: Value| json!({ "description": description, "schema": schema });
    let mut request_id = header(
        "the caller's X-Request-ID if it is a good one, else a new one",
        matching("^[!-~]{1,128}$"),
    );
    request_id["required"] = true.into();
    json!({
        "X-Request-ID": request_id,
        "X-Trace-Id": header(
            "the caller's X-Trace-Id, else the trace of its traceparent; only where it named one",
            matching(TRACE_ID),
        ),
        "X-Span-Id": header(
            "the handling of the request in that trace",
            matching("^[0-9a-f]{16}$"),
        ),
        "X-RateLimit-Limit": header("requests a second that the key may keep up", count()),
        "X-RateLimit-Remaining": header("requests that the key may send at once now", count()),
        "X-RateLimit-Reset": header("seconds until it may send a whole burst again", count()),
        "X-Receipt-ID": header("the receipt of the decision", matching(RECEIPT_ID)),
        "X-Durability": header("what the receipt survives", durability()),
        "X-Idempotent-Replay": header("the key came before: this is the first answer", words(["true"])),
        "X-Cache": header(
            "whether the answer was given before; only where answers are kept",
            words(["hit", "miss"]),
        ),
        "Age": header("seconds since a kept answer was given", count()),
        "WWW-Authenticate": header("the scheme that would do", words(["Bearer"])),
        "Retry-After": header("seconds to wait", count()),
    })
}

fn durability() -> Value {
    words([Durability::Durable, Durability::Local, Durability::Volatile].map(Durability::as_str))
}

/// The schemas of all answers, by name.
pub(super) fn schemas() -> [(&'static str, Value); 20] {
    [
        ("Receipt", receipt()),
        ("Refusal", refusal()),
        ("Price", price()),
        ("MarketplaceAnswer", json!({ "oneOf": [schema("Receipt"), schema("Price")] })),
        ("QueuedSignal", queued()),
        ("ReceiptPage", receipt_page()),
        ("AlteredReceipt", altered_receipt()),
        ("Health", health()),
        ("Unavailable", unavailable()),
        ("Subsystems", subsystems()),
        ("Memory", memory()),
        ("Queues", queues()),
        ("Settings", settings()),
        ("Sources", sources()),
        ("Subscription", subscription()),
        ("Replayed", answered(["replayed", "poison", "later"].map(|name| must(name, count())))),
        ("Tenant", tenant()),
        ("Keys", keys()),
        ("KeyShown", key_shown()),
        ("Asked", asked()),
    ]
}

fn receipt_id() -> Value {
    matching(RECEIPT_ID)
}

fn whole() -> Value {
    integer(-limits::INTEGER_MAX, limits::INTEGER_MAX)
}

/// `docs/receipts.md` as a schema. Nothing is ever added to a version of the format.
fn receipt() -> Value {
    let metadata = json!({
        "type": "object",
        "minProperties": 1,
        "propertyNames": matching("^[A-Za-z0-9_.-]+$"),
        "additionalProperties": { "anyOf": [text(), whole(), flag()] },
    });
    let at = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$";
    answered([
        must("action", text()),
        may("actor", text()),
        may("amount", described(whole(), "minor units of currency")),
        must("at", matching(at)),
        must("chain_hash", matching(DIGEST)),
        may("commitment", matching(MAC)),
        may("currency", matching("^[A-Z]{3}$")),
        may("detail", text()),
        may("effective_at", whole()),
        may("entitlement_id", text()),
        may("expires_at", whole()),
        must("hash", matching(DIGEST)),
        must("id", receipt_id()),
        may("idem", matching(MAC)),
        may("intent", receipt_id()),
        may("metadata", metadata),
        must("prev_hash", matching("^(sha256:[0-9a-f]{64}|0{64})$")),
        may("reason", text()),
        may("rule", text()),
        must("seq", integer(0, limits::INTEGER_MAX)),
        may("state_from", text()),
        may("state_to", text()),
        may("status", text()),
        must("stream", matching(STREAM)),
        may("subject", text()),
        may("tenant_id", id(limits::CUSTOMER_ID_CHARS)),
        must("timestamp", seconds()),
        must("type", words(Kind::ALL.map(Kind::as_str))),
        must("v", json!({ "const": 1 })),
    ])
}

fn refusal() -> Value {
    answered([
        must("type", words(["refusal"])),
        must("timestamp", seconds()),
        must("reason", words(Reason::ALL.iter().map(|reason| reason.code()))),
        must("detail", text()),
        must("request_id", matching("^[!-~]{1,128}$")),
        must("retryable", flag()),
        may("retry_after", described(count(), "seconds")),
        may("id", described(receipt_id(), "where the refusal has a receipt of its own")),
        may("hash", described(matching(DIGEST), "of that receipt")),
    ])
}

fn price() -> Value {
    let price = answered([
        must("amount", described(count(), "minor units of currency")),
        must("currency", matching("^[A-Z]{3}$")),
        must("plan", text()),
        must("period", words(["month"])),
        must("source", described(words(["ledger", "cache"]), "cache: the receipt store is away")),
    ]);
    answered([
        must("status", words(["ok"])),
        must("customer_id", id(limits::CUSTOMER_ID_CHARS)),
        must("price", price),
        must("receipt_id", receipt_id()),
        must("receipt", schema("Receipt")),
    ])
}

fn receipt_page() -> Value {
    let shown = json!({ "anyOf": [schema("Receipt"), schema("AlteredReceipt")] });
    answered([
        must("receipts", list(shown)),
        may("next", described(text(), "the cursor of the next page; the last has none")),
    ])
}

fn altered_receipt() -> Value {
    let members = [
        must("id", receipt_id()),
        must("stream", matching(STREAM)),
        must("seq", count()),
        must("failed_verification", json!({ "const": true })),
    ];
    described(answered(members), "a receipt that is not as it was sealed; its content is not shown")
}

fn dependencies() -> Value {
    let names = ["supervisors", "firestore", "pubsub"];
    answered(names.map(|name| must(name, words(["ok", "error"]))))
}

fn stage() -> Value {
    let all = [Stage::Away, Stage::Reads, Stage::Writes, Stage::Signals, Stage::Up];
    words(all.map(Stage::as_str))
}

fn queued() -> Value {
    answered([must("status", words(["queued"])), must("message_id", text())])
}

fn health() -> Value {
    let relaxed = described(list(text()), "settings that give up a guarantee");
    answered([
        must("status", words(["ok", "degraded"])),
        must("health", words(["green", "yellow", "red"])),
        must("timestamp", seconds()),
        must("started_at", seconds()),
        must("instance", described(text(), "names this life of the process")),
        must("version", text()),
        must("db", words(["connected", "disconnected"])),
        must("pubsub", words(["connected", "paused", "connecting", "disconnected"])),
        must("backend", text()),
        must("durability", durability()),
        must("relaxed", relaxed),
        must("tampered", flag()),
        must("frozen", described(flag(), "no receipt of a tenant is taken")),
        must("store_stage", described(stage(), "where a shared receipt store stands")),
        must("spooled", described(count(), "receipts that wait for the store to be back")),
        must("spools_held_back", described(count(), "spools that cannot be carried over")),
        must("validation_rules", words(["none", "current", "outdated"])),
        must("dependencies", dependencies()),
    ])
}

fn unavailable() -> Value {
    answered([
        must("status", words(["unavailable"])),
        must("health", words(["red"])),
        must("timestamp", seconds()),
        must("reason", text()),
        must("dependencies", dependencies()),
    ])
}

fn subsystems() -> Value {
    let one = answered([
        must("name", text()),
        must("state", words(["starting", "running", "down", "stopped"])),
        must("restarts", count()),
        must("uptime_s", count()),
    ]);
    answered([must("subsystems", list(one))])
}

fn memory() -> Value {
    answered([
        must("rss_bytes", or_null(count())),
        must("open_fds", or_null(count())),
        must("streams_loaded", count()),
        must("streams_max", count()),
        must("connections", count()),
        must("sources_blocked", count()),
    ])
}

fn queues() -> Value {
    let names = [
        "receipt_queue_depth",
        "receipt_queue_max",
        "action_queue_depth",
        "action_queue_max",
        "action_pool_size",
        "actions_running",
        "calls_open",
        "actions_unsettled",
        "requests_in_work",
        "requests_max",
    ];
    answered(names.map(|name| must(name, count())))
}

fn settings() -> Value {
    let one = answered([
        must("name", text()),
        must("value", text()),
        must("source", described(text(), "who gave the value")),
        must("until", or_null(described(seconds(), "the end of a lease, in unix seconds"))),
        must("unit", text()),
        must("live", described(flag(), "takes a change without a restart")),
        must("help", text()),
    ]);
    answered([must("settings", list(one))])
}

fn sources() -> Value {
    let one = answered([must("source", text()), must("until", seconds())]);
    answered([must("sources", list(one))])
}

fn subscription() -> Value {
    answered([
        must("state", words(["active", "paused", "connecting", "disconnected"])),
        must("outstanding", count()),
        must("oldest_unacked_s", count()),
        must("received", count()),
        must("acked", count()),
        must("nacked", count()),
        must("dead_letters_replayed", count()),
    ])
}

fn tenant() -> Value {
    let held = answered([
        must("entitlement_id", text()),
        must("state", text()),
        must("plan", or_null(text())),
    ]);
    answered([
        must("tenant_id", id(limits::CUSTOMER_ID_CHARS)),
        must("registered", json!({ "const": true })),
        must("entitlements", list(held)),
        must("keys", count()),
    ])
}

fn keys() -> Value {
    let one = answered([
        must("id", matching(KEY_ID)),
        must("scopes", list(words(Scope::ALL.iter().map(|scope| scope.as_str())))),
        must("label", or_null(text())),
        must("issued_at", seconds()),
        must("expires_at", or_null(seconds())),
    ]);
    answered([must("keys", list(one))])
}

fn key_shown() -> Value {
    answered([
        must("key", described(text(), "the key; it is shown this once")),
        must("id", matching(KEY_ID)),
        must("receipt_id", receipt_id()),
    ])
}

fn asked() -> Value {
    let state = words(["restarting", "draining", "stopping"]);
    answered([may("name", described(text(), "the subsystem")), must("state", state)])
}
