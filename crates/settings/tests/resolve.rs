//! Precedence, provenance and refusals of `Settings::resolve`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use settings::{
    AuthRequired, Backend, Baseline, Form, Kind, Knob, LogLevel, Resolved, ServiceRole,
    SettingError, Settings, Source, SpoolUse, Synchronous, Writes, table,
};

fn resolve(env: &[(&str, &str)], file: Option<&str>) -> Result<Resolved, Vec<SettingError>> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    Settings::resolve(&|name| env.get(name).copied(), file.map(|text| ("tai.toml", text)))
}

fn refusals(env: &[(&str, &str)], file: Option<&str>) -> Vec<String> {
    let errors = resolve(env, file).err().unwrap_or_default();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_set_gives_the_defaults() {
    let Resolved { settings, provenance, ignored } = resolve(&[], None).unwrap();
    let tenth = resolve(&[("TRACING_SAMPLE_RATE", "0.1")], None).unwrap().settings;
    let expected = Settings {
        port: 8080,
        bind_address: IpAddr::from([127, 0, 0, 1]),
        service_role: ServiceRole::All,
        auth_required: AuthRequired::Auto,
        admin_api_key: None,
        verify_signatures: false,
        jwt_secret_key: None,
        hmac_secret_key: None,
        trusted_proxy_hops: 0,
        request_timeout_ms: 30_000,
        graceful_shutdown_ms: 30_000,
        max_concurrent_requests: 1_000,
        tenant_max_concurrent: 200,
        rate_limit_per_second: 100,
        rate_limit_burst: 200,
        max_connections: 10_000,
        max_body_bytes: 1_048_576,
        validation_rules_file: None,
        validation_strict_mode: true,
        validation_timeout_ms: 1_000,
        log_validation_errors: false,
        receipt_ledger_backend: Backend::Sqlite,
        database_url: None,
        firestore_database: "(default)".to_owned(),
        firestore_emulator_host: None,
        firestore_batch_size: 100,
        firestore_batch_timeout_ms: 5_000,
        max_state_age_s: 300,
        spool_dir: None,
        receipt_spool: SpoolUse::Auto,
        spool_max_receipts: 100_000,
        recovery_stage_ms: 2_000,
        receipt_writes: Writes::Auto,
        ledger_dir: PathBuf::from("tai-data"),
        receipt_buffer_size: 10_000,
        receipt_verify_hashes: true,
        erl_max_ets_tables: 100_000,
        sqlite_synchronous: Synchronous::Full,
        action_pool_size: 10,
        action_queue_size: 1_000,
        action_timeout_ms: 60_000,
        action_hook_url: None,
        action_hook_secret: None,
        governor_state_check_interval_ms: 1_000,
        catalogue_file: None,
        providers_file: None,
        openai_api_key: None,
        anthropic_api_key: None,
        gemini_api_key: None,
        timeout_threshold_ms: 5_000,
        ai_answer_timeout_ms: 60_000,
        ai_gap_timeout_ms: 15_000,
        ai_timeout_ms: 300_000,
        ai_max_body_bytes: 33_554_432,
        ai_cache_ttl_s: 0,
        ai_cache_max_bytes: 67_108_864,
        redis_url: None,
        max_retries: 3,
        circuit_breaker_threshold: 5,
        circuit_breaker_timeout: 30_000,
        circuit_breaker_force: "none".to_owned(),
        gcp_project_id: None,
        pubsub_enabled: true,
        pubsub_subscription: "erlang-autonomics-signals-sub".to_owned(),
        pubsub_deadletter_topic: "erlang-autonomics-dlq".to_owned(),
        pubsub_deadletter_subscription: "erlang-autonomics-dlq".to_owned(),
        pubsub_max_messages: 100,
        pubsub_emulator_host: None,
        log_level: LogLevel::Info,
        log_file: None,
        alerts_file: None,
        alert_interval_ms: 15_000,
        channels_file: None,
        slack_webhook_url: None,
        telegram_bot_token: None,
        telegram_chat_id: None,
        smtp_host: None,
        smtp_port: 587,
        smtp_user: None,
        smtp_pass: None,
        alert_email_from: None,
        alert_email_to: None,
        log_structured: true,
        log_file_buffer_size: 100,
        log_file_flush_interval: 5_000,
        log_http_endpoint: None,
        log_http_auth_header: None,
        log_http_buffer_size: 50,
        log_http_flush_interval: 10_000,
        otel_exporter_otlp_endpoint: None,
        otel_exporter_otlp_headers: None,
        otel_service_name: "tai-autonomics".to_owned(),
        tracing_sample_rate: tenth.tracing_sample_rate,
        status_page_dir: None,
        metrics_enabled: true,
    };
    assert_eq!(settings, expected);
    assert!(ignored.is_empty());
    assert!(provenance.iter().all(|row| row.source == Source::Default));
    assert!(provenance.iter().map(|row| row.name).eq(table().iter().map(|row| row.name)));
}

/// Two accepted values for a row, as different as its kind allows, neither of them the default.
fn samples(row: &Knob) -> (String, String) {
    let text = |one: &str, two: &str| (one.to_owned(), two.to_owned());
    match row.kind {
        Kind::Integer { min, max } => {
            let low = min.to_string();
            // The least may be the default.
            let low = if row.default == Some(&low) { (min + 1).to_string() } else { low };
            let high = max.to_string();
            let high = if row.default == Some(&high) { (max - 1).to_string() } else { high };
            (low, high)
        }
        Kind::Flag => {
            let other = if row.default == Some("true") { "false" } else { "true" };
            text(other, other)
        }
        Kind::Choice(words) => text(words[1], words[words.len() - 1]),
        Kind::Path => (format!("{}/one", row.name), format!("{}/two", row.name)),
        Kind::Address => text("::1", "0.0.0.0"),
        Kind::Text(Form::Key | Form::Base64) => {
            text("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3", "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4")
        }
        Kind::Text(Form::ProjectId | Form::PubsubName) => text("name-one", "name-two"),
        Kind::Text(Form::HostPort) => text("one:8085", "two:8085"),
        Kind::Text(Form::FirestoreDatabase) => text("name-one", "name-two"),
        Kind::Text(Form::Breakers) => text("openai=open", "openai=closed"),
        Kind::Text(Form::ProviderKey | Form::Word) => text("sk-one", "sk-two"),
        Kind::Text(Form::Line) => text("one@host", "Two <two@host>"),
        Kind::Text(Form::HttpUrl) => text("http://one", "https://two:8443/path"),
        Kind::Text(Form::HeaderValue) => text("Bearer one", "Bearer two"),
        Kind::Text(Form::HeaderPairs) => text("api-key=one", "api-key=two,x=y"),
        Kind::Text(Form::Share) => text("0", "0.25"),
        Kind::Text(Form::RedisUrl) => text("redis://one", "rediss://u:p@two:6380/1"),
        Kind::Text(Form::PostgresUrl) => text("postgres://one/tai", "postgresql://u@two:5432/tai"),
    }
}

fn toml_line(row: &Knob, value: &str) -> String {
    match row.kind {
        Kind::Integer { .. } | Kind::Flag => format!("{} = {value}\n", row.key),
        Kind::Choice(_) | Kind::Path | Kind::Address | Kind::Text(_) => {
            format!("{} = \"{value}\"\n", row.key)
        }
    }
}

#[test]
fn environment_wins_over_file_and_file_over_default() {
    let defaults = resolve(&[], None).unwrap().settings;
    for row in table() {
        let (in_env, in_file) = samples(row);
        let line = toml_line(row, &in_file);
        let text = |value: &str| if row.secret { "(secret)" } else { value }.to_owned();
        let shown = |resolved: &Resolved| {
            let origin = resolved.provenance.iter().find(|origin| origin.name == row.name).unwrap();
            assert_eq!((origin.unit, origin.help), (row.unit, row.help));
            (origin.value.clone(), origin.source.to_string())
        };

        let file = resolve(&[], Some(&line)).unwrap();
        assert_eq!(shown(&file), (text(&in_file), "file \"tai.toml\"".to_owned()), "{}", row.name);
        assert_ne!(file.settings, defaults, "{} reaches its field", row.name);

        let both = resolve(&[(row.name, &in_env)], Some(&line)).unwrap();
        assert_eq!(shown(&both), (text(&in_env), "environment".to_owned()), "{}", row.name);

        let empty = resolve(&[(row.name, "")], Some(&line)).unwrap();
        assert_eq!(empty, file, "{}: an empty variable is unset", row.name);

        let neither = resolve(&[], Some("")).unwrap();
        let default = row.default.unwrap_or("(none)").to_owned();
        assert_eq!(shown(&neither), (default, "default".to_owned()), "{}", row.name);
    }
}

#[test]
fn values_reach_their_own_fields() {
    let env = [
        ("PORT", "0"),
        ("BIND_ADDRESS", "::1"),
        ("RECEIPT_LEDGER_BACKEND", "ets"),
        ("CATALOGUE_FILE", "prices.toml"),
        ("ACTION_TIMEOUT_MS", "3600000"),
    ];
    let file = "log_level = \"error\"\naction_timeout_ms = 5\nlog_file = \"a.log\"\n";
    let settings = resolve(&env, Some(file)).unwrap().settings;
    assert_eq!(settings.port, 0);
    assert_eq!(settings.bind_address.to_string(), "::1");
    assert_eq!(settings.receipt_ledger_backend, Backend::Memory);
    assert_eq!(settings.catalogue_file.as_deref(), Some(Path::new("prices.toml")));
    assert_eq!(settings.action_timeout_ms, 3_600_000);
    assert_eq!(settings.log_level, LogLevel::Error);
    assert_eq!(settings.log_file.as_deref(), Some(Path::new("a.log")));
}

#[test]
fn choices_show_the_word_that_reads_back() {
    for word in Backend::WORDS {
        let settings = resolve(&[("RECEIPT_LEDGER_BACKEND", word)], None).unwrap().settings;
        let canonical = if *word == "ets" { "memory" } else { word };
        assert_eq!(settings.receipt_ledger_backend.as_str(), canonical);
    }
    for word in AuthRequired::WORDS {
        let settings = resolve(&[("AUTH_REQUIRED", word)], None).unwrap().settings;
        assert_eq!(settings.auth_required.as_str(), *word);
    }
    for word in Synchronous::WORDS {
        let settings = resolve(&[("SQLITE_SYNCHRONOUS", word)], None).unwrap().settings;
        assert_eq!(settings.sqlite_synchronous.as_str(), *word);
    }
    for word in LogLevel::WORDS {
        let settings = resolve(&[("LOG_LEVEL", word)], None).unwrap().settings;
        assert_eq!(settings.log_level.as_str(), *word);
    }
}

#[test]
fn refusals_name_setting_source_and_range() {
    let cases: &[(&str, &str, &str)] = &[
        ("PORT", "65536", "PORT (environment): expected a whole number from 0 to 65535"),
        (
            "REQUEST_TIMEOUT_MS",
            "0",
            "REQUEST_TIMEOUT_MS (environment): expected a whole number from 1 to 600000 milliseconds",
        ),
        (
            "MAX_BODY_BYTES",
            "1mb",
            "MAX_BODY_BYTES (environment): expected a whole number from 1024 to 33554432 bytes",
        ),
        ("METRICS_ENABLED", "1", "METRICS_ENABLED (environment): expected true or false"),
        (
            "RECEIPT_LEDGER_BACKEND",
            "mysql",
            "RECEIPT_LEDGER_BACKEND (environment): expected one of sqlite, memory, ets, postgres, firestore",
        ),
        ("BIND_ADDRESS", "host", "BIND_ADDRESS (environment): expected an IPv4 or IPv6 address"),
        (
            "ADMIN_API_KEY",
            "short",
            "ADMIN_API_KEY (environment): expected at least 32 printable ASCII characters without blanks",
        ),
        (
            "JWT_SECRET_KEY",
            "AAAA",
            "JWT_SECRET_KEY (environment): expected base64 of at least 16 bytes",
        ),
        (
            "GCP_PROJECT_ID",
            "My project",
            "GCP_PROJECT_ID (environment): expected 6 to 30 lower-case letters, digits and hyphens",
        ),
        (
            "PUBSUB_SUBSCRIPTION",
            "goog-sub",
            "PUBSUB_SUBSCRIPTION (environment): expected 3 to 255 letters, digits and - . _ ~ + %, \
             with a letter first and not goog",
        ),
        (
            "PUBSUB_EMULATOR_HOST",
            "localhost",
            "PUBSUB_EMULATOR_HOST (environment): expected a host and a port, such as localhost:8085",
        ),
    ];
    for (name, value, text) in cases {
        assert_eq!(refusals(&[(name, value)], None), [*text]);
    }
    let cases: &[(&str, &str)] = &[
        ("port = \"80\"", "expected a whole number from 0 to 65535, as a TOML integer"),
        ("port = -1", "expected a whole number from 0 to 65535, as a TOML integer"),
        ("port = 80.0", "expected a whole number from 0 to 65535, as a TOML integer"),
        ("port = [80]", "expected a whole number from 0 to 65535, as a TOML integer"),
    ];
    for (line, text) in cases {
        assert_eq!(refusals(&[], Some(line)), [format!("PORT (file \"tai.toml\"): {text}")]);
    }
    let path = "LEDGER_DIR (file \"tai.toml\"): expected a path, as a TOML string";
    for line in ["ledger_dir = \"\"", "ledger_dir = \"a\\u0000b\"", "ledger_dir = 7"] {
        assert_eq!(refusals(&[], Some(line)), [path]);
    }
    let text = "GCP_PROJECT_ID (file \"tai.toml\"): expected 6 to 30 lower-case letters, digits and \
                hyphens, as a TOML string";
    for line in ["gcp_project_id = 1234567", "gcp_project_id = \"short\""] {
        assert_eq!(refusals(&[], Some(line)), [text]);
    }
    let flag = "METRICS_ENABLED (file \"tai.toml\"): expected true or false, as a TOML boolean";
    assert_eq!(refusals(&[], Some("metrics_enabled = \"true\"")), [flag]);
}

#[test]
fn a_secret_is_exposed_on_request_and_shown_nowhere() {
    const MARKER: &str = "Xq7ZmarkerXq7ZmarkerXq7Zmarker++";
    let secrets = table().iter().filter(|row| row.secret);
    // Each in the form of its row.
    let value = |row: &Knob| match row.kind {
        Kind::Text(Form::PostgresUrl) => "postgres://u:Xq7ZmarkerXq7ZmarkerXq7Zmarker++@h/d",
        Kind::Text(Form::RedisUrl) => "redis://u:Xq7ZmarkerXq7ZmarkerXq7Zmarker++@h/1",
        Kind::Text(Form::HttpUrl) => "https://h/Xq7ZmarkerXq7ZmarkerXq7Zmarker++",
        Kind::Text(Form::HeaderPairs) => "api-key=Xq7ZmarkerXq7ZmarkerXq7Zmarker++",
        _ => MARKER,
    };
    let env: BTreeMap<&str, &str> = secrets.map(|row| (row.name, value(row))).collect();
    let baseline = Baseline::capture(&|name| env.get(name).copied(), None);
    let resolved = baseline.resolve(&[]).unwrap();
    let Settings { admin_api_key, jwt_secret_key, hmac_secret_key, .. } = &resolved.settings;
    for secret in [admin_api_key, jwt_secret_key, hmac_secret_key] {
        assert_eq!(secret.as_ref().unwrap().expose(), MARKER);
        assert_eq!(format!("{secret:?}"), "Some((secret))");
    }
    for shown in [format!("{resolved:?}"), format!("{resolved:#?}"), format!("{baseline:?}")] {
        assert!(!shown.contains(&MARKER[..5]), "{shown}");
    }
    for origin in &resolved.provenance {
        assert_eq!(origin.value == "(secret)", env.contains_key(origin.name), "{}", origin.name);
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_refused_and_not_missed() {
    use std::os::unix::ffi::OsStringExt as _;
    let env = |name: &str| (name == "LEDGER_DIR").then(|| OsString::from_vec(vec![b'a', 0xff]));
    let errors = Settings::resolve(&env, None).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].to_string(), "LEDGER_DIR (environment): expected a path");
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_name() {
    let hint = |near: &str| format!(", did you mean \"{near}\"?");
    let cases: &[(&str, &str, String)] = &[
        ("prt = 1", "prt", hint("port")),
        ("PORT = 1", "PORT", hint("port")),
        ("rate_limit_per_sec = 5", "rate_limit_per_sec", hint("rate_limit_per_second")),
        ("log_levle = \"info\"", "log_levle", hint("log_level")),
        ("action_timeout = 5", "action_timeout", hint("action_timeout_ms")),
        ("[server]\nport = 1", "server", String::new()),
        ("x = 1", "x", String::new()),
    ];
    for (text, key, hint) in cases {
        let expected = format!("\"{key}\" (file \"tai.toml\"): no such setting{hint}");
        assert_eq!(refusals(&[], Some(text)), [expected]);
    }
    let long = format!("{} = 1", "k".repeat(10_000));
    assert!(refusals(&[], Some(&long))[0].len() < 200);
    let hostile = refusals(&[], Some("\"a\\u001b[2J\\nb\" = 1"));
    assert!(hostile[0].chars().all(|c| !c.is_control()), "{hostile:?}");
}

#[test]
fn bad_syntax_gives_the_position_only() {
    for (text, line, column) in [
        ("port = ", 1, 8),
        ("port = 1\nlog_level = \"info\nmetrics_enabled = true\n", 2, 18),
        ("# ä\nport = 1\nport = 2\n", 3, 1),
    ] {
        let expected =
            format!("settings file \"tai.toml\": not valid TOML at line {line}, column {column}");
        assert_eq!(refusals(&[], Some(text)), [expected], "{text:?}");
    }
}

#[test]
fn all_mistakes_are_reported_together() {
    let env = [("PORT", "x"), ("LOG_LEVEL", "loud")];
    let file = "metrics_enabled = 3\nfoo = 1\nport = 4\n";
    let errors = resolve(&env, Some(file)).unwrap_err();
    let text = refusals(&env, Some(file)).join("\n");
    assert_eq!(errors.len(), 4, "{text}");
    for part in ["\"foo\"", "PORT (environment)", "LOG_LEVEL (env", "METRICS_ENABLED (file"] {
        assert!(text.contains(part), "{part} missing in {text}");
    }
    let broken_file = refusals(&env, Some("port ="));
    assert_eq!(broken_file.len(), 3, "{broken_file:?}");
}

#[test]
fn an_overridden_file_value_is_not_looked_at() {
    assert_eq!(resolve(&[("PORT", "1")], Some("port = \"bad\"")).unwrap().settings.port, 1);
}

#[test]
fn variables_outside_the_table_are_ignored() {
    assert_eq!(resolve(&[("PATH", "/bin"), ("PORTS", "x")], None), resolve(&[], None));
}

#[test]
fn no_error_holds_a_value() {
    const MARKER: &str = "Xq7Zmarker";
    let mut texts = Vec::new();
    // Paths accept any other text, so a NUL spoils them.
    let spoiled = format!("{MARKER}\0");
    let env: Vec<_> = table().iter().map(|row| (row.name, spoiled.as_str())).collect();
    texts.push(refusals(&env, None));
    assert_eq!(texts[0].len(), table().len(), "every setting refuses");

    let line = |row: &Knob, value: &str| format!("{} = {value}\n", row.key);
    for value in [
        format!("\"{MARKER}\\u0000\""),
        format!("[\"{MARKER}\"]"),
        format!("{{ {MARKER} = \"{MARKER}\" }}"),
    ] {
        let file: String = table().iter().map(|row| line(row, &value)).collect();
        texts.push(refusals(&[], Some(&file)));
        assert_eq!(texts[texts.len() - 1].len(), table().len());
    }
    for file in [
        format!("port = {MARKER}"),
        format!("log_file = \"{MARKER}"),
        format!("log_file = '''{MARKER}"),
        format!("unknown = \"{MARKER}\""),
        format!("port = 1 {MARKER}"),
        format!("log_level = \"\\{MARKER}\""),
    ] {
        texts.push(refusals(&[], Some(&file)));
    }
    for text in texts.concat() {
        assert!(!text.contains(MARKER) && !text.contains(&MARKER[..5]), "{text}");
    }
}
