//! Settings: where they come from, what stops a start, and what each of them changes.
//!
//! INV-14: a setting that gives up a guarantee turns health yellow and raises its gauge.
//!
//! Owns: where values come from, every value that is refused, and that every row of the settings
//! table is looked at. Refuses to know: ranges, which the table itself states.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use settings::{Form, Kind};

use crate::support::*;

pub(crate) mod looks;
mod pulled;
mod spared;

const EXIT_USAGE: Option<i32> = Some(2);
/// The start of every bad value, so that it is recognised wherever it is printed.
const MARKER: &str = "zq7marker";

/// Looks that are tests, and the list of what they look at.
macro_rules! seen {
    ($($name:literal => $look:ident,)+) => {
        const SEEN: &[&str] = &[$($name),+];

        mod each {
            $(#[test]
            fn $look() {
                super::looks::$look();
            })+
        }
    };
}

seen! {
    "PORT" => port,
    "BIND_ADDRESS" => bind_address,
    "AUTH_REQUIRED" => auth_required,
    "ADMIN_API_KEY" => admin_api_key,
    "VERIFY_SIGNATURES" => verify_signatures,
    "JWT_SECRET_KEY" => jwt_secret_key,
    "HMAC_SECRET_KEY" => hmac_secret_key,
    "TRUSTED_PROXY_HOPS" => trusted_proxy_hops,
    "REQUEST_TIMEOUT_MS" => request_timeout_ms,
    "GRACEFUL_SHUTDOWN_MS" => graceful_shutdown_ms,
    "MAX_CONCURRENT_REQUESTS" => max_concurrent_requests,
    "TENANT_MAX_CONCURRENT" => tenant_max_concurrent,
    "RATE_LIMIT_PER_SECOND" => rate_limit_per_second,
    "RATE_LIMIT_BURST" => rate_limit_burst,
    "MAX_CONNECTIONS" => max_connections,
    "MAX_BODY_BYTES" => max_body_bytes,
    "VALIDATION_RULES_FILE" => validation_rules_file,
    "VALIDATION_STRICT_MODE" => validation_strict_mode,
    "VALIDATION_TIMEOUT_MS" => validation_timeout_ms,
    "LOG_VALIDATION_ERRORS" => log_validation_errors,
    "RECEIPT_LEDGER_BACKEND" => receipt_ledger_backend,
    "LEDGER_DIR" => ledger_dir,
    "RECEIPT_BUFFER_SIZE" => receipt_buffer_size,
    "RECEIPT_VERIFY_HASHES" => receipt_verify_hashes,
    "RECEIPT_WRITES" => receipt_writes,
    "ERL_MAX_ETS_TABLES" => erl_max_ets_tables,
    "SQLITE_SYNCHRONOUS" => sqlite_synchronous,
    "ACTION_POOL_SIZE" => action_pool_size,
    "ACTION_QUEUE_SIZE" => action_queue_size,
    "ACTION_TIMEOUT_MS" => action_timeout_ms,
    "ACTION_HOOK_URL" => action_hook_url,
    "ACTION_HOOK_SECRET" => action_hook_secret,
    "GOVERNOR_STATE_CHECK_INTERVAL_MS" => governor_state_check_interval_ms,
    "CATALOGUE_FILE" => catalogue_file,
    "PROVIDERS_FILE" => providers_file,
    "OPENAI_API_KEY" => openai_api_key,
    "ANTHROPIC_API_KEY" => anthropic_api_key,
    "GEMINI_API_KEY" => gemini_api_key,
    "TIMEOUT_THRESHOLD_MS" => timeout_threshold_ms,
    "AI_ANSWER_TIMEOUT_MS" => ai_answer_timeout_ms,
    "AI_GAP_TIMEOUT_MS" => ai_gap_timeout_ms,
    "AI_TIMEOUT_MS" => ai_timeout_ms,
    "AI_MAX_BODY_BYTES" => ai_max_body_bytes,
    "AI_CACHE_TTL_S" => ai_cache_ttl_s,
    "AI_CACHE_MAX_BYTES" => ai_cache_max_bytes,
    "REDIS_URL" => redis_url,
    "MAX_RETRIES" => max_retries,
    "CIRCUIT_BREAKER_THRESHOLD" => circuit_breaker_threshold,
    "CIRCUIT_BREAKER_TIMEOUT" => circuit_breaker_timeout,
    "CIRCUIT_BREAKER_FORCE" => circuit_breaker_force,
    "LOG_LEVEL" => log_level,
    "LOG_FILE" => log_file,
    "LOG_STRUCTURED" => log_structured,
    "LOG_FILE_BUFFER_SIZE" => log_file_buffer_size,
    "LOG_FILE_FLUSH_INTERVAL" => log_file_flush_interval,
    "LOG_HTTP_ENDPOINT" => log_http_endpoint,
    "LOG_HTTP_AUTH_HEADER" => log_http_auth_header,
    "LOG_HTTP_BUFFER_SIZE" => log_http_buffer_size,
    "LOG_HTTP_FLUSH_INTERVAL" => log_http_flush_interval,
    "OTEL_EXPORTER_OTLP_ENDPOINT" => otel_exporter_otlp_endpoint,
    "OTEL_EXPORTER_OTLP_HEADERS" => otel_exporter_otlp_headers,
    "OTEL_SERVICE_NAME" => otel_service_name,
    "TRACING_SAMPLE_RATE" => tracing_sample_rate,
    "STATUS_PAGE_DIR" => status_page_dir,
    "METRICS_ENABLED" => metrics_enabled,
}

/// What cannot be seen from outside or not by one instance, and where it is tested instead.
const UNSEEN: [(&str, &str); 9] = [
    ("DATABASE_URL", SHARED),
    ("FIRESTORE_DATABASE", SHARED),
    ("FIRESTORE_EMULATOR_HOST", SHARED),
    ("MAX_STATE_AGE_S", AWAY),
    ("RECEIPT_SPOOL", AWAY),
    ("RECOVERY_STAGE_MS", AWAY),
    ("SERVICE_ROLE", SHARED),
    ("SPOOL_DIR", AWAY),
    ("SPOOL_MAX_RECEIPTS", AWAY),
];
/// At two values each, beside a database that goes away.
const AWAY: &str = "a database that goes away: the tests of outages";
const SHARED: &str = "several instances on one server: their own tests";
/// What is looked at in one test, since an emulator takes seconds to start.
const PULLED: [&str; 7] = [
    "GCP_PROJECT_ID",
    "PUBSUB_ENABLED",
    "PUBSUB_SUBSCRIPTION",
    "PUBSUB_DEADLETTER_TOPIC",
    "PUBSUB_DEADLETTER_SUBSCRIPTION",
    "PUBSUB_MAX_MESSAGES",
    "PUBSUB_EMULATOR_HOST",
];

/// As those.
const SPARED: [&str; 2] = ["FIRESTORE_BATCH_SIZE", "FIRESTORE_BATCH_TIMEOUT_MS"];

/// Those of alerts and channels: each far side hears its own.
const TOLD: [&str; 12] = [
    "ALERTS_FILE",
    "ALERT_INTERVAL_MS",
    "CHANNELS_FILE",
    "SLACK_WEBHOOK_URL",
    "TELEGRAM_BOT_TOKEN",
    "TELEGRAM_CHAT_ID",
    "SMTP_HOST",
    "SMTP_PORT",
    "SMTP_USER",
    "SMTP_PASS",
    "ALERT_EMAIL_FROM",
    "ALERT_EMAIL_TO",
];

#[test]
fn every_setting_is_looked_at() {
    let unseen = UNSEEN.iter().map(|(name, _)| name);
    let mut looked: Vec<&str> =
        SEEN.iter().chain(&PULLED).chain(&SPARED).chain(&TOLD).chain(unseen).copied().collect();
    let mut table: Vec<&str> = settings::table().iter().map(|row| row.name).collect();
    looked.sort_unstable();
    table.sort_unstable();
    assert_eq!(looked, table);
}

#[test]
fn check_shows_where_each_value_comes_from() {
    let (room, dir) = room();
    let own = room.path().join("own.toml");
    fs::write(room.path().join("tai.toml"), "request_timeout_ms = 2500\nport = 4000\n").unwrap();
    fs::write(&own, "max_body_bytes = 2048\n").unwrap();
    let check = |arguments: &[&str]| {
        let output = command(&dir, arguments).env("PORT", "4711").env("LOG_LEVEL", "").output();
        let said = Said::from(output.unwrap());
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.contains("catalogue 2026-11-01 is valid"), "{}", said.out);
        said.out
    };
    let assert_row = |shown: &str, name: &str, words: &[&str]| {
        let row = shown.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
        let found: Vec<&str> = row.split_whitespace().skip(1).collect();
        assert_eq!(found, words, "{row}");
    };
    let shown = check(&["check"]);
    // And a line each about the catalogue, the providers, the alert rules and the channels.
    assert_eq!(shown.lines().count(), settings::table().len() + 4);
    assert_row(&shown, "PORT", &["4711", "environment"]);
    assert_row(&shown, "REQUEST_TIMEOUT_MS", &["2500", "milliseconds", "file", "\"tai.toml\""]);
    assert_row(&shown, "MAX_BODY_BYTES", &["1048576", "bytes", "default"]);
    assert_row(&shown, "LOG_LEVEL", &["info", "default"]);
    assert_row(&shown, "CATALOGUE_FILE", &["(none)", "default"]);
    let shown = check(&["--config", "own.toml", "check"]);
    assert_row(&shown, "MAX_BODY_BYTES", &["2048", "bytes", "file", "\"own.toml\""]);
    assert_row(&shown, "REQUEST_TIMEOUT_MS", &["30000", "milliseconds", "default"]);
    assert!(!dir.exists(), "a check makes nothing");
}

/// A start that must not be: soon, with exit code 2, the setting's name and not its value.
fn assert_refused(mut start: Command, name: &str, value: &str) {
    let began = Instant::now();
    let said = Said::from(start.output().unwrap());
    let what = format!("{name}={value:?}");
    assert_eq!(said.code, EXIT_USAGE, "{what}: {}{}", said.out, said.err);
    assert!(began.elapsed() < Duration::from_secs(2), "{what}: {:?}", began.elapsed());
    assert!(said.err.contains(name), "{what}: {}", said.err);
    assert!(said.out.is_empty(), "{what}: {}", said.out);
    let shown = |value: &str| said.err.split_whitespace().any(|word| word.contains(value));
    assert!(!shown(MARKER), "{what}: {}", said.err);
    if value.len() > 5 {
        assert!(!shown(value), "{what}: {}", said.err);
    }
}

fn bad_values(kind: Kind) -> Vec<String> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    match kind {
        Kind::Integer { min, max } => {
            let mut bad: Vec<String> = texts(&[
                MARKER,
                "-1",
                "+5000",
                "5000.5",
                "5e3",
                " 5000",
                "0x5000",
                "zq7marker5000",
            ]);
            bad.push((u128::from(max) + 1).to_string());
            bad.push("9".repeat(30));
            bad.extend(min.checked_sub(1).map(|low| low.to_string()));
            bad
        }
        Kind::Flag => texts(&[MARKER, "yes", "TRUE", "1", " true"]),
        Kind::Choice(_) => texts(&[MARKER, "Full", "sqlite memory", "INFO"]),
        Kind::Address => texts(&[MARKER, "localhost", "127.0.0.1:8080", "256.1.1.1", "[::1]"]),
        Kind::Text(Form::ProviderKey | Form::Word) => texts(&["zq7marker |", " zq7marker"]),
        Kind::Text(Form::Share) => texts(&[MARKER, "1.1", "-0.1", ".5", "0,5"]),
        Kind::Text(Form::HeaderValue | Form::Line) => texts(&["zq7marker\u{e9}", " zq7marker"]),
        Kind::Text(_) => texts(&["zq7marker|", " zq7marker"]),
        // Any text is a path; a number in the file is none.
        Kind::Path => Vec::new(),
    }
}

#[test]
fn a_bad_value_stops_the_start_and_is_not_shown() {
    let (room, dir) = room();
    let file = room.path().join("tai.toml");
    let with_file = |verb: &str| {
        let mut start = command(&dir, &[verb]);
        // What the environment sets is not read from the file.
        start.env_remove("LEDGER_DIR");
        start
    };
    for row in settings::table() {
        for value in bad_values(row.kind) {
            let _ = fs::remove_file(&file);
            let mut start = command(&dir, &[]);
            start.env(row.name, &value);
            assert_refused(start, row.name, &value);
            fs::write(&file, format!("{} = {:?}\n", row.key, value)).unwrap();
            assert_refused(with_file("serve"), row.name, &value);
        }
        let wrong_type = format!("[\"{MARKER}\"]");
        fs::write(&file, format!("{} = {wrong_type}\n", row.key)).unwrap();
        assert_refused(with_file("check"), row.name, &wrong_type);
        fs::remove_file(&file).unwrap();
    }
    assert!(!room.path().join("tai-data").exists());
    assert!(!dir.exists(), "no ledger was made");
}

#[test]
fn mistakes_beyond_one_value_stop_the_start_too() {
    let (room, dir) = room();
    let file = room.path().join("tai.toml");
    for (text, name) in [
        (format!("prot = \"{MARKER}\""), "prot"),
        (format!("PORT = \"{MARKER}\""), "PORT"),
        (format!("[{MARKER}x]\nport = 1"), "no such setting"),
        (format!("port = {MARKER}"), "line 1"),
        (format!("port = 1\nport = \"{MARKER}\""), "line 2"),
    ] {
        fs::write(&file, &text).unwrap();
        let said = tai(&dir, &[]);
        assert_eq!(said.code, EXIT_USAGE, "{text}: {}", said.err);
        assert!(said.err.contains(name), "{text}: {}", said.err);
        assert!(!said.err.contains(&format!("{MARKER}\"")), "{text}: {}", said.err);
    }
    fs::write(&file, "port = 70000\nlog_level = \"loud\"\nsqlite_synchronous = 1\n").unwrap();
    let all = tai(&dir, &[]).err;
    for name in ["PORT", "LOG_LEVEL", "SQLITE_SYNCHRONOUS"] {
        assert!(all.contains(name), "all mistakes at once: {all}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(tai(&dir, &["--config", "nowhere.toml", "check"]).code, EXIT_USAGE);

    // Of the form of its row, and yet nothing that can be reached.
    let database = format!("redis://:{MARKER}@127.0.0.1:1/{MARKER}");
    let mut start = command(&dir, &["serve"]);
    start.env("REDIS_URL", &database).env("PORT", "0");
    assert_refused(start, "REDIS_URL", &database);

    let catalogue = room.path().join(format!("{MARKER}.toml"));
    let path = catalogue.to_str().unwrap();
    let with = |name: &str, value: &str| {
        let mut start = command(&dir, &["serve"]);
        start.env(name, value).env("PORT", "0");
        start
    };
    assert_refused(with("CATALOGUE_FILE", path), "CATALOGUE_FILE", path);
    for text in [
        format!("{MARKER} {MARKER}"),
        format!("version = \"{MARKER}\""),
        format!("version = [\"{MARKER}\"]"),
    ] {
        fs::write(&catalogue, text).unwrap();
        assert_refused(with("CATALOGUE_FILE", path), "CATALOGUE_FILE", path);
    }
    let inside_a_file = format!("{path}/log");
    assert_refused(with("LOG_FILE", &inside_a_file), "LOG_FILE", &inside_a_file);
}
