//! The settings that exist.
//!
//! Owns: one row per setting, from which the typed [`Settings`], the list for the documentation
//! and the reader are all made.
//! Refuses to know: how a value is found, and the code that a setting governs.

use core::net::IpAddr;
use std::path::PathBuf;

use crate::choices::{AuthRequired, Backend, LogLevel, ServiceRole, SpoolUse, Synchronous, Writes};
use crate::form::Form;
use crate::knob::{Kind, Knob};
use crate::otel::Share;
use crate::resolve::Reader;
use crate::secret::Secret;

/// Turns the rows into knobs, fields and reading code, so that none of them can be forgotten.
///
/// After its help a row may state facts: `live`, `secret`, `relaxes "value"`. Each is a method of
/// [`Knob`], so that a misspelt one does not compile.
macro_rules! knobs {
    ($($name:ident => $field:ident: $type:ty, $kind:expr, $default:expr, $unit:literal,
       $help:literal $(, $fact:ident $($value:literal)?)*;)+) => {
        /// Every setting, checked and typed. One field per row of [`table`].
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Settings { $(#[doc = $help] pub $field: $type,)+ }

        mod knob {
            use super::*;
            $(pub(super) const $name: Knob = Knob {
                name: stringify!($name),
                key: stringify!($field),
                kind: $kind,
                default: $default,
                unit: $unit,
                secret: false,
                live: false,
                relaxes: None,
                help: $help,
            }$(.$fact($($value)?))*;)+
        }

        const TABLE: &[Knob] = &[$(knob::$name),+];

        impl Settings {
            /// `None` when any row has no usable value; `reader` then holds every reason. All
            /// rows are read before the first `?`, so that one start shows every mistake.
            pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
                $(let $field = reader.read::<$type>(&knob::$name);)+
                Some(Settings { $($field: $field?,)+ })
            }
        }
    };
}

/// Every setting, in the order in which they are documented.
#[must_use]
pub const fn table() -> &'static [Knob] {
    TABLE
}

const fn from_to(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

knobs! {
    PORT => port: u16, from_to(0, 65_535), Some("8080"), "",
        "TCP port of the HTTP server; 0 takes any free port.";
    BIND_ADDRESS => bind_address: IpAddr, Kind::Address, Some("127.0.0.1"), "",
        "Address of the HTTP server. A loopback address runs open, for development; on any other every request needs a key.";
    SERVICE_ROLE => service_role: ServiceRole, Kind::Choice(ServiceRole::WORDS), Some("all"), "",
        "What this instance does: all, gateway answers requests, worker does what is due and pulls signals; `--role` says it for one start.";
    AUTH_REQUIRED => auth_required: AuthRequired, Kind::Choice(AuthRequired::WORDS), Some("auto"),
        "",
        "Whether every request needs a key; auto needs one unless the address is a loopback address and no proxy is trusted.";
    ADMIN_API_KEY => admin_api_key: Option<Secret>, Kind::Text(Form::Key), None, "",
        "An admin key that is given and not made, for the first start.",
        secret;
    VERIFY_SIGNATURES => verify_signatures: bool, Kind::Flag, Some("false"), "",
        "Whether entitlement events on /marketplace need a signature.";
    JWT_SECRET_KEY => jwt_secret_key: Option<Secret>, Kind::Text(Form::Base64), None, "",
        "Key that signatures of JSON web tokens are checked with.",
        secret;
    HMAC_SECRET_KEY => hmac_secret_key: Option<Secret>, Kind::Text(Form::Base64), None, "",
        "Key that HMAC signatures of request bodies are checked with.",
        secret;
    TRUSTED_PROXY_HOPS => trusted_proxy_hops: usize, from_to(0, 10), Some("0"), "proxies",
        "Proxies in front of the service that add to X-Forwarded-For; the source of a request is taken from there.";
    REQUEST_TIMEOUT_MS => request_timeout_ms: u64, from_to(1, 600_000), Some("30000"),
        "milliseconds",
        "Time from the first byte of a request until it is answered with a timeout.",
        live;
    GRACEFUL_SHUTDOWN_MS => graceful_shutdown_ms: u64, from_to(100, 600_000), Some("30000"),
        "milliseconds",
        "Time that requests and actions in flight have to finish after SIGTERM.",
        live;
    MAX_CONCURRENT_REQUESTS => max_concurrent_requests: usize, from_to(1, 100_000), Some("1000"),
        "requests",
        "Requests in work at the same time; more are refused at once with a hint to retry.",
        live;
    TENANT_MAX_CONCURRENT => tenant_max_concurrent: usize, from_to(1, 100_000), Some("200"),
        "requests",
        "Requests of one tenant in work at the same time; more are refused with a hint to retry.",
        live;
    RATE_LIMIT_PER_SECOND => rate_limit_per_second: u32, from_to(1, 1_000_000), Some("100"),
        "requests",
        "Requests in a second that one key may keep up; more are refused with a hint to retry.",
        live;
    RATE_LIMIT_BURST => rate_limit_burst: u32, from_to(1, 1_000_000), Some("200"), "requests",
        "Requests that one key may send at once after it was quiet.",
        live;
    MAX_CONNECTIONS => max_connections: usize, from_to(1, 1_000_000), Some("10000"),
        "connections",
        "Open client connections; more are not accepted until one closes.";
    MAX_BODY_BYTES => max_body_bytes: usize, from_to(1_024, 33_554_432), Some("1048576"),
        "bytes",
        "Size of a request body; a larger one is refused before it is read whole.",
        live;
    VALIDATION_RULES_FILE => validation_rules_file: Option<PathBuf>, Kind::Path, None, "",
        "File of rules, as JSON Schema by route, that bodies of tenants are checked against; looked at again every two seconds. Without it there are no rules.";
    VALIDATION_STRICT_MODE => validation_strict_mode: bool, Kind::Flag, Some("true"), "",
        "Whether a body has to be exactly what its rule says; false forgives unknown members of the body itself and numbers in texts, and turns health yellow.",
        live, relaxes "false";
    VALIDATION_TIMEOUT_MS => validation_timeout_ms: u64, from_to(1, 60_000), Some("1000"),
        "milliseconds",
        "Time that the check of one body may take; behind it the request is refused and nothing is decided.",
        live;
    LOG_VALIDATION_ERRORS => log_validation_errors: bool, Kind::Flag, Some("false"), "",
        "Whether each failure of a body is logged, by place and keyword and without values.",
        live;
    RECEIPT_LEDGER_BACKEND => receipt_ledger_backend: Backend, Kind::Choice(Backend::WORDS),
        Some("sqlite"), "",
        "Where receipts are kept; memory (also called ets) loses them when the process ends, postgres and firestore are shared by any number of instances.";
    DATABASE_URL => database_url: Option<Secret>, Kind::Text(Form::PostgresUrl), None, "",
        "The PostgreSQL database that receipts are kept in.",
        secret;
    FIRESTORE_DATABASE => firestore_database: String, Kind::Text(Form::FirestoreDatabase),
        Some("(default)"), "",
        "The Firestore database of GCP_PROJECT_ID that receipts are kept in.";
    FIRESTORE_EMULATOR_HOST => firestore_emulator_host: Option<String>, Kind::Text(Form::HostPort),
        None, "",
        "Address of a Firestore emulator to use instead of Google's service.";
    FIRESTORE_BATCH_SIZE => firestore_batch_size: usize, from_to(1, 10_000), Some("100"),
        "receipts",
        "Receipts that are written at once while the store refuses writes because there are too many.",
        live;
    FIRESTORE_BATCH_TIMEOUT_MS => firestore_batch_timeout_ms: u64, from_to(100, 60_000),
        Some("5000"), "milliseconds",
        "The longest wait for so many.",
        live;
    MAX_STATE_AGE_S => max_state_age_s: u64, from_to(1, 86_400), Some("300"), "seconds",
        "While a shared store is away: the greatest age of what is known of a tenant and is answered from.",
        live;
    SPOOL_DIR => spool_dir: Option<PathBuf>, Kind::Path, None, "",
        "Directory where receipts and signals wait while a shared store is away, on a disk that survives the process; without it receipts wait in memory and signals are refused.";
    RECEIPT_SPOOL => receipt_spool: SpoolUse, Kind::Choice(SpoolUse::WORDS), Some("auto"), "",
        "When the spool stands in for a shared store: auto while that is away, forced also while it answers, off never.",
        live;
    SPOOL_MAX_RECEIPTS => spool_max_receipts: u64, from_to(1, 100_000_000), Some("100000"),
        "receipts",
        "Receipts that may wait for a shared store; more are refused.",
        live;
    RECOVERY_STAGE_MS => recovery_stage_ms: u64, from_to(0, 600_000), Some("2000"),
        "milliseconds",
        "How long a shared store that is back has to answer before the next stage: reads, writes, signals, charges.",
        live;
    RECEIPT_WRITES => receipt_writes: Writes, Kind::Choice(Writes::WORDS), Some("auto"), "",
        "Which receipts are taken: auto all until a stored one fails verification, frozen none but the service's own, open all whatever was found.",
        live, relaxes "open";
    LEDGER_DIR => ledger_dir: PathBuf, Kind::Path, Some("tai-data"), "",
        "Directory of the ledger's files; created when it does not exist.";
    RECEIPT_BUFFER_SIZE => receipt_buffer_size: usize, from_to(64, 1_000_000), Some("10000"),
        "commands",
        "Commands that may wait for the committer; more are refused with a hint to retry.",
        live;
    RECEIPT_VERIFY_HASHES => receipt_verify_hashes: bool, Kind::Flag, Some("true"), "",
        "Whether reading a receipt checks its hash; false turns health yellow.",
        live, relaxes "false";
    ERL_MAX_ETS_TABLES => erl_max_ets_tables: usize, from_to(100, 10_000_000), Some("100000"),
        "streams",
        "Stream states kept in memory; the rest are loaded from the ledger when needed.",
        live;
    SQLITE_SYNCHRONOUS => sqlite_synchronous: Synchronous, Kind::Choice(Synchronous::WORDS),
        Some("full"), "",
        "Whether a commit waits for the disk; off loses acknowledged receipts on power loss and turns health yellow.",
        relaxes "off";
    ACTION_POOL_SIZE => action_pool_size: usize, from_to(1, 1_000), Some("10"), "actions",
        "Actions that run at the same time.",
        live;
    ACTION_QUEUE_SIZE => action_queue_size: usize, from_to(1, 1_000_000), Some("1000"), "actions",
        "Actions that may wait for a place in the pool; more are refused.",
        live;
    ACTION_TIMEOUT_MS => action_timeout_ms: u64, from_to(1, 3_600_000), Some("60000"),
        "milliseconds",
        "Time from the start of an action until it counts as failed.",
        live;
    ACTION_HOOK_URL => action_hook_url: Option<Secret>, Kind::Text(Form::HttpUrl), None, "",
        "Who is asked when a signal profile's action is hook; without https only on this machine and on private networks.",
        secret;
    ACTION_HOOK_SECRET => action_hook_secret: Option<Secret>, Kind::Text(Form::Line), None, "",
        "Key of the signature in X-Hub-Signature-256 of what it is sent; without it nothing is signed.",
        secret;
    GOVERNOR_STATE_CHECK_INTERVAL_MS => governor_state_check_interval_ms: u64,
        from_to(10, 60_000), Some("1000"), "milliseconds",
        "How often due timers and unsettled attempts are looked for.",
        live;
    CATALOGUE_FILE => catalogue_file: Option<PathBuf>, Kind::Path, None, "",
        "File of prices, plans and signal profiles; without it the built-in example is used.";
    PROVIDERS_FILE => providers_file: Option<PathBuf>, Kind::Path, None, "",
        "File of providers and models; without it there are echo and the providers whose keys are set.";
    OPENAI_API_KEY => openai_api_key: Option<Secret>, Kind::Text(Form::ProviderKey), None, "",
        "Key for OpenAI; with it gpt-*, o1* to o4* and text-embedding-* are served.",
        secret;
    ANTHROPIC_API_KEY => anthropic_api_key: Option<Secret>, Kind::Text(Form::ProviderKey), None, "",
        "Key for Anthropic; with it claude-* is served.",
        secret;
    GEMINI_API_KEY => gemini_api_key: Option<Secret>, Kind::Text(Form::ProviderKey), None, "",
        "Key for Gemini; with it gemini-* is served.",
        secret;
    TIMEOUT_THRESHOLD_MS => timeout_threshold_ms: u64, from_to(1, 600_000), Some("5000"),
        "milliseconds",
        "Time that a provider has until the first word of a stream, or until it answers a request for vectors; then the next target is tried.",
        live;
    AI_ANSWER_TIMEOUT_MS => ai_answer_timeout_ms: u64, from_to(1, 3_600_000), Some("60000"),
        "milliseconds",
        "Time that a provider has for an answer that is not streamed; then the next target is tried.",
        live;
    AI_GAP_TIMEOUT_MS => ai_gap_timeout_ms: u64, from_to(1, 600_000), Some("15000"), "milliseconds",
        "Time between two pieces of a provider's answer; a longer silence counts as a broken stream.",
        live;
    AI_TIMEOUT_MS => ai_timeout_ms: u64, from_to(1, 3_600_000), Some("300000"), "milliseconds",
        "Time of a call to a model, all attempts and the whole stream included.",
        live;
    AI_MAX_BODY_BYTES => ai_max_body_bytes: usize, from_to(1_024, 134_217_728), Some("33554432"),
        "bytes",
        "Size of the body of a call to a model.",
        live;
    AI_CACHE_TTL_S => ai_cache_ttl_s: u64, from_to(0, 86_400), Some("0"), "seconds",
        "How long a tenant that asks a model for the very same again is given the same answer again; 0 asks each time.",
        live;
    AI_CACHE_MAX_BYTES => ai_cache_max_bytes: u64, from_to(65_536, 17_179_869_184),
        Some("67108864"), "bytes",
        "Memory for such answers; where they are kept in Redis, its own limit holds.";
    REDIS_URL => redis_url: Option<Secret>, Kind::Text(Form::RedisUrl), None, "",
        "The Redis server that keeps such answers for all instances and over a restart; without it each process keeps its own in memory.",
        secret;
    MAX_RETRIES => max_retries: u32, from_to(0, 20), Some("3"), "attempts",
        "Attempts of a call to a model after the first one, over all of its targets.",
        live;
    CIRCUIT_BREAKER_THRESHOLD => circuit_breaker_threshold: u32, from_to(1, 10_000), Some("5"),
        "failures",
        "Failures in a row after which a dependency is left alone.",
        live;
    CIRCUIT_BREAKER_TIMEOUT => circuit_breaker_timeout: u64, from_to(1, 3_600_000), Some("30000"),
        "milliseconds",
        "How long a dependency that fails is left alone before one call tries it again.",
        live;
    CIRCUIT_BREAKER_FORCE => circuit_breaker_force: String, Kind::Text(Form::Breakers),
        Some("none"), "",
        "Breakers that are held, whatever their dependencies do: openai=open keeps calls away, openai=closed lets them through.",
        live;
    GCP_PROJECT_ID => gcp_project_id: Option<String>, Kind::Text(Form::ProjectId), None, "",
        "Google Cloud project that signals are pulled from; without it nothing is pulled.";
    PUBSUB_ENABLED => pubsub_enabled: bool, Kind::Flag, Some("true"), "",
        "Whether signals are pulled when GCP_PROJECT_ID is set.";
    PUBSUB_SUBSCRIPTION => pubsub_subscription: String, Kind::Text(Form::PubsubName),
        Some("erlang-autonomics-signals-sub"), "",
        "Subscription that signals are pulled from.";
    PUBSUB_DEADLETTER_TOPIC => pubsub_deadletter_topic: String, Kind::Text(Form::PubsubName),
        Some("erlang-autonomics-dlq"), "",
        "Topic that takes messages which could not be handled.";
    PUBSUB_DEADLETTER_SUBSCRIPTION => pubsub_deadletter_subscription: String,
        Kind::Text(Form::PubsubName), Some("erlang-autonomics-dlq"), "",
        "Subscription that dead letters are read from.";
    PUBSUB_MAX_MESSAGES => pubsub_max_messages: usize, from_to(1, 10_000), Some("100"), "messages",
        "Messages in work at the same time; the rest stay with Pub/Sub.";
    PUBSUB_EMULATOR_HOST => pubsub_emulator_host: Option<String>, Kind::Text(Form::HostPort), None,
        "",
        "Address of a Pub/Sub emulator to use instead of Google's service.";
    LOG_LEVEL => log_level: LogLevel, Kind::Choice(LogLevel::WORDS), Some("info"), "",
        "The least severe event that is logged.",
        live;
    LOG_FILE => log_file: Option<PathBuf>, Kind::Path, None, "",
        "File that log lines are appended to; without it they go to standard output.";
    ALERTS_FILE => alerts_file: Option<PathBuf>, Kind::Path, None, "",
        "File of alert rules in place of those that ship with the program.";
    ALERT_INTERVAL_MS => alert_interval_ms: u64, from_to(100, 15_000), Some("15000"),
        "milliseconds",
        "Time between two looks at our own figures; the shortest window of a condition is two of them.";
    CHANNELS_FILE => channels_file: Option<PathBuf>, Kind::Path, None, "",
        "File of the channels over which incidents are told, beside those that the settings below set up.";
    SLACK_WEBHOOK_URL => slack_webhook_url: Option<Secret>, Kind::Text(Form::HttpUrl), None, "",
        "Incoming webhook of Slack: sets up the channel slack.",
        secret;
    TELEGRAM_BOT_TOKEN => telegram_bot_token: Option<Secret>, Kind::Text(Form::ProviderKey), None,
        "",
        "Token of a Telegram bot: with TELEGRAM_CHAT_ID sets up the channel telegram.",
        secret;
    TELEGRAM_CHAT_ID => telegram_chat_id: Option<String>, Kind::Text(Form::Word), None, "",
        "The chat that the bot writes to.";
    SMTP_HOST => smtp_host: Option<String>, Kind::Text(Form::Word), None, "",
        "Mail server: with ALERT_EMAIL_FROM and ALERT_EMAIL_TO sets up the channel email.";
    SMTP_PORT => smtp_port: u16, from_to(1, 65_535), Some("587"), "",
        "Its port; on 465 TLS from the start, on others STARTTLS.";
    SMTP_USER => smtp_user: Option<String>, Kind::Text(Form::Line), None, "",
        "Its user, where it wants one.";
    SMTP_PASS => smtp_pass: Option<Secret>, Kind::Text(Form::Line), None, "",
        "The password of that user.",
        secret;
    ALERT_EMAIL_FROM => alert_email_from: Option<String>, Kind::Text(Form::Line), None, "",
        "Who mails of incidents come from.";
    ALERT_EMAIL_TO => alert_email_to: Option<String>, Kind::Text(Form::Line), None, "",
        "Who gets them, with commas between several.";
    LOG_STRUCTURED => log_structured: bool, Kind::Flag, Some("true"), "",
        "Whether a log line is a JSON object; false writes the same as text for people, and what is sent over HTTP stays JSON.";
    LOG_FILE_BUFFER_SIZE => log_file_buffer_size: usize, from_to(1, 100_000), Some("100"), "lines",
        "Lines that are appended to the log file together; a line of level ERROR is appended at once.";
    LOG_FILE_FLUSH_INTERVAL => log_file_flush_interval: u64, from_to(1, 600_000), Some("5000"),
        "milliseconds",
        "The longest that a line waits for others before it is appended to the log file.";
    LOG_HTTP_ENDPOINT => log_http_endpoint: Option<Secret>, Kind::Text(Form::HttpUrl), None, "",
        "Where log lines are also sent, as POST of {\"logs\":[...]}; without https only on this machine and on private networks.",
        secret;
    LOG_HTTP_AUTH_HEADER => log_http_auth_header: Option<Secret>, Kind::Text(Form::HeaderValue),
        None, "",
        "The value of the header Authorization that goes with them, such as Bearer and a token.",
        secret;
    LOG_HTTP_BUFFER_SIZE => log_http_buffer_size: usize, from_to(1, 10_000), Some("50"), "lines",
        "Lines that are sent together.";
    LOG_HTTP_FLUSH_INTERVAL => log_http_flush_interval: u64, from_to(1, 600_000), Some("10000"),
        "milliseconds",
        "The longest that a line waits for others before it is sent.";
    OTEL_EXPORTER_OTLP_ENDPOINT => otel_exporter_otlp_endpoint: Option<Secret>,
        Kind::Text(Form::HttpUrl), None, "",
        "Collector that spans are sent to, as OTLP in JSON over HTTP at its path /v1/traces; without https only on this machine and on private networks. Without it there are no spans.",
        secret;
    OTEL_EXPORTER_OTLP_HEADERS => otel_exporter_otlp_headers: Option<Secret>,
        Kind::Text(Form::HeaderPairs), None, "",
        "Headers that go with them.",
        secret;
    OTEL_SERVICE_NAME => otel_service_name: String, Kind::Text(Form::Line),
        Some("tai-autonomics"), "",
        "What the service is called in its spans.";
    TRACING_SAMPLE_RATE => tracing_sample_rate: Share, Kind::Text(Form::Share), Some("0.1"), "",
        "The share of traces that begin here and are kept; of a trace that comes with a request, whoever began it has decided.",
        live;
    STATUS_PAGE_DIR => status_page_dir: Option<PathBuf>, Kind::Path, None, "",
        "Directory where index.html and summary.json hold a copy of the public status page, for a web server that outlives the service; without it there is no copy.";
    METRICS_ENABLED => metrics_enabled: bool, Kind::Flag, Some("true"), "",
        "Whether /metrics is served.",
        live;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_well_formed() {
        for (index, row) in table().iter().enumerate() {
            assert_eq!(row.key, row.name.to_lowercase());
            assert!(!table()[..index].iter().any(|other| other.name == row.name), "{}", row.name);
            assert!(row.help.ends_with('.') && !row.help.contains('|'), "{}", row.name);
            assert!(row.default.is_none_or(|text| row.kind.accepts(text)), "{}", row.name);
            // A unit belongs to a quantity and, where the name carries one, agrees with it.
            assert!(row.unit.is_empty() || matches!(row.kind, Kind::Integer { .. }));
            // Seeds 003 and 004 name these without their unit.
            let named =
                ["CIRCUIT_BREAKER_TIMEOUT", "LOG_FILE_FLUSH_INTERVAL", "LOG_HTTP_FLUSH_INTERVAL"];
            let is_ms = row.name.ends_with("_MS") || named.contains(&row.name);
            assert_eq!(is_ms, row.unit == "milliseconds", "{}", row.name);
            assert_eq!(row.name.ends_with("_BYTES"), row.unit == "bytes", "{}", row.name);
            if let Kind::Integer { min, max } = row.kind {
                assert!(min < max, "{}", row.name);
            }
        }
    }

    #[test]
    fn facts_of_rows_agree() {
        for row in table() {
            // A change is recorded and shown, and the page shows defaults.
            assert!(!row.secret || (!row.live && row.default.is_none()), "{}", row.name);
            let Some(value) = row.relaxes else { continue };
            assert!(row.kind.accepts(value) && row.default != Some(value), "{}", row.name);
            // It is known by its text, so there may be one way only to write it.
            assert!(matches!(row.kind, Kind::Flag | Kind::Choice(_)), "{}", row.name);
        }
        let named = |fact: &dyn Fn(&Knob) -> bool| -> Vec<&str> {
            table().iter().filter(|row| fact(row)).map(|row| row.name).collect()
        };
        assert_eq!(
            named(&|row| row.secret),
            [
                "ADMIN_API_KEY",
                "JWT_SECRET_KEY",
                "HMAC_SECRET_KEY",
                "DATABASE_URL",
                "ACTION_HOOK_URL",
                "ACTION_HOOK_SECRET",
                "OPENAI_API_KEY",
                "ANTHROPIC_API_KEY",
                "GEMINI_API_KEY",
                "REDIS_URL",
                "SLACK_WEBHOOK_URL",
                "TELEGRAM_BOT_TOKEN",
                "SMTP_PASS",
                "LOG_HTTP_ENDPOINT",
                "LOG_HTTP_AUTH_HEADER",
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "OTEL_EXPORTER_OTLP_HEADERS",
            ]
        );
        assert_eq!(
            named(&|row| row.relaxes.is_some()),
            [
                "VALIDATION_STRICT_MODE",
                "RECEIPT_WRITES",
                "RECEIPT_VERIFY_HASHES",
                "SQLITE_SYNCHRONOUS",
            ]
        );
        assert_eq!(
            named(&|row| !row.live && !row.secret),
            [
                "PORT",
                "BIND_ADDRESS",
                "SERVICE_ROLE",
                "AUTH_REQUIRED",
                "VERIFY_SIGNATURES",
                "TRUSTED_PROXY_HOPS",
                "MAX_CONNECTIONS",
                "VALIDATION_RULES_FILE",
                "RECEIPT_LEDGER_BACKEND",
                "FIRESTORE_DATABASE",
                "FIRESTORE_EMULATOR_HOST",
                "SPOOL_DIR",
                "LEDGER_DIR",
                "SQLITE_SYNCHRONOUS",
                "CATALOGUE_FILE",
                "PROVIDERS_FILE",
                "AI_CACHE_MAX_BYTES",
                "GCP_PROJECT_ID",
                "PUBSUB_ENABLED",
                "PUBSUB_SUBSCRIPTION",
                "PUBSUB_DEADLETTER_TOPIC",
                "PUBSUB_DEADLETTER_SUBSCRIPTION",
                "PUBSUB_MAX_MESSAGES",
                "PUBSUB_EMULATOR_HOST",
                "LOG_FILE",
                "ALERTS_FILE",
                "ALERT_INTERVAL_MS",
                "CHANNELS_FILE",
                "TELEGRAM_CHAT_ID",
                "SMTP_HOST",
                "SMTP_PORT",
                "SMTP_USER",
                "ALERT_EMAIL_FROM",
                "ALERT_EMAIL_TO",
                "LOG_STRUCTURED",
                "LOG_FILE_BUFFER_SIZE",
                "LOG_FILE_FLUSH_INTERVAL",
                "LOG_HTTP_BUFFER_SIZE",
                "LOG_HTTP_FLUSH_INTERVAL",
                "OTEL_SERVICE_NAME",
                "STATUS_PAGE_DIR",
            ]
        );
    }
}
