//! Precedence, provenance and refusals of `Settings::resolve`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use settings::{
    Backend, Kind, LogLevel, Resolved, SettingError, Settings, Source, Synchronous, table,
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
    let Resolved { settings, provenance } = resolve(&[], None).unwrap();
    let expected = Settings {
        port: 8080,
        bind_address: IpAddr::from([127, 0, 0, 1]),
        request_timeout_ms: 30_000,
        graceful_shutdown_ms: 30_000,
        max_concurrent_requests: 1_000,
        max_connections: 10_000,
        max_body_bytes: 1_048_576,
        receipt_ledger_backend: Backend::Sqlite,
        ledger_dir: PathBuf::from("tai-data"),
        receipt_buffer_size: 10_000,
        receipt_verify_hashes: true,
        erl_max_ets_tables: 100_000,
        sqlite_synchronous: Synchronous::Full,
        action_pool_size: 10,
        action_queue_size: 1_000,
        action_timeout_ms: 60_000,
        governor_state_check_interval_ms: 1_000,
        catalogue_file: None,
        log_level: LogLevel::Info,
        log_file: None,
        metrics_enabled: true,
    };
    assert_eq!(settings, expected);
    assert!(provenance.iter().all(|row| row.source == Source::Default));
    assert!(provenance.iter().map(|row| row.name).eq(table().iter().map(|row| row.name)));
}

/// Two accepted values for a row, neither of them the default.
fn samples(kind: Kind, name: &str) -> (String, String) {
    match kind {
        Kind::Integer { min, max } => (min.to_string(), max.to_string()),
        Kind::Flag => ("false".to_owned(), "false".to_owned()),
        Kind::Choice(words) => (words[1].to_owned(), words[words.len() - 1].to_owned()),
        Kind::Path => (format!("{name}/one"), format!("{name}/two")),
        Kind::Address => ("::1".to_owned(), "0.0.0.0".to_owned()),
    }
}

fn toml_line(kind: Kind, key: &str, value: &str) -> String {
    match kind {
        Kind::Integer { .. } | Kind::Flag => format!("{key} = {value}\n"),
        Kind::Choice(_) | Kind::Path | Kind::Address => format!("{key} = \"{value}\"\n"),
    }
}

#[test]
fn environment_wins_over_file_and_file_over_default() {
    let defaults = resolve(&[], None).unwrap().settings;
    for row in table() {
        let (in_env, in_file) = samples(row.kind, row.name);
        let line = toml_line(row.kind, row.key, &in_file);
        let shown = |resolved: &Resolved| {
            let origin = resolved.provenance.iter().find(|origin| origin.name == row.name).unwrap();
            assert_eq!((origin.unit, origin.help), (row.unit, row.help));
            (origin.value.clone(), origin.source.to_string())
        };

        let file = resolve(&[], Some(&line)).unwrap();
        assert_eq!(shown(&file), (in_file, "file \"tai.toml\"".to_owned()), "{}", row.name);
        assert_ne!(file.settings, defaults, "{} reaches its field", row.name);

        let both = resolve(&[(row.name, &in_env)], Some(&line)).unwrap();
        assert_eq!(shown(&both), (in_env, "environment".to_owned()), "{}", row.name);

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
            "firestore",
            "RECEIPT_LEDGER_BACKEND (environment): expected one of sqlite, memory, ets",
        ),
        ("BIND_ADDRESS", "host", "BIND_ADDRESS (environment): expected an IPv4 or IPv6 address"),
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
    let flag = "METRICS_ENABLED (file \"tai.toml\"): expected true or false, as a TOML boolean";
    assert_eq!(refusals(&[], Some("metrics_enabled = \"true\"")), [flag]);
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
    // Paths accept any text, so a NUL spoils them.
    let spoiled = format!("{MARKER}\0");
    let env: Vec<_> = table().iter().map(|row| (row.name, spoiled.as_str())).collect();
    texts.push(refusals(&env, None));
    assert_eq!(texts[0].len(), table().len(), "every setting refuses");

    let line = |row: &settings::Knob, value: &str| format!("{} = {value}\n", row.key);
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
