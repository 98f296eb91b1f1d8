//! Changes of a running process: which are taken, what they win over, and what is left of them
//! after a restart.

use settings::{Baseline, Change, ChangeError, Form, Kind, Lease, Resolved, check_change, table};

const UNTIL_S: i64 = 1_795_444_665;
const FILE: &str = "max_body_bytes = 2048\nrequest_timeout_ms = 2500\n";

fn baseline(env: &[(&str, &str)]) -> Baseline {
    let of = |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    Baseline::capture(&of, Some(("tai.toml", FILE)))
}

fn change(name: &str, kept: Option<&str>, leased: Option<&str>) -> Change {
    let lease = leased.map(|value| Lease { value: value.to_owned(), until_s: UNTIL_S });
    Change { name: name.to_owned(), kept: kept.map(str::to_owned), lease }
}

/// Value and origin of a setting as they are shown; both are empty for an unknown one.
fn shown(resolved: &Resolved, name: &str) -> (String, String) {
    let origin = resolved.provenance.iter().find(|origin| origin.name == name);
    origin.map(|origin| (origin.value.clone(), origin.source.to_string())).unwrap_or_default()
}

#[test]
fn lease_wins_over_kept_over_environment_over_file_over_default() {
    const NAME: &str = "MAX_BODY_BYTES";
    let lease = "lease until 2026-11-23T14:37:45Z";
    let env: &[_] = &[(NAME, "4096")];
    let both = change(NAME, Some("8192"), Some("16384"));
    for (env, changes, value, source) in [
        (env, vec![both.clone()], 16_384, lease),
        (env, vec![change(NAME, None, Some("16384"))], 16_384, lease),
        (env, vec![change(NAME, Some("8192"), None)], 8_192, "live change"),
        (env, vec![change(NAME, None, None)], 4_096, "environment"),
        (env, vec![], 4_096, "environment"),
        (&[], vec![], 2_048, "file \"tai.toml\""),
        (&[], vec![both], 16_384, lease),
    ] {
        let resolved = baseline(env).resolve(&changes).unwrap();
        assert_eq!(resolved.settings.max_body_bytes, value);
        assert_eq!(shown(&resolved, NAME), (value.to_string(), source.to_owned()));
        assert!(resolved.ignored.is_empty(), "{changes:?}");
    }
    let resolved = baseline(&[]).resolve(&[change("LOG_LEVEL", Some("debug"), None)]).unwrap();
    assert_eq!(shown(&resolved, "LOG_LEVEL"), ("debug".to_owned(), "live change".to_owned()));
    assert_eq!(shown(&resolved, NAME).1, "file \"tai.toml\"");
    let default = ("100".to_owned(), "default".to_owned());
    assert_eq!(shown(&resolved, "RATE_LIMIT_PER_SECOND"), default);
}

#[test]
fn an_end_leads_back_to_the_start() {
    let baseline = baseline(&[("LOG_LEVEL", "warn")]);
    let before = baseline.resolve(&[]).unwrap();
    let during = baseline.resolve(&[change("LOG_LEVEL", None, Some("debug"))]).unwrap();
    assert_ne!(before, during);
    assert_eq!(baseline.resolve(&[]).unwrap(), before);
}

/// Accepted values of a row that may be changed, at the ends of its range.
fn samples(kind: Kind) -> Vec<String> {
    match kind {
        Kind::Integer { min, max } => vec![min.to_string(), max.to_string()],
        Kind::Flag => vec!["true".to_owned(), "false".to_owned()],
        Kind::Choice(words) => words.iter().map(|word| (*word).to_owned()).collect(),
        Kind::Text(Form::Breakers) => vec!["none".to_owned(), "openai=open".to_owned()],
        Kind::Text(Form::Share) => vec!["0".to_owned(), "0.5".to_owned()],
        Kind::Path | Kind::Address | Kind::Text(_) => Vec::new(),
    }
}

#[test]
fn what_is_taken_reaches_its_field() {
    let baseline = baseline(&[]);
    let before = baseline.resolve(&[]).unwrap();
    for row in table().iter().filter(|row| row.live) {
        let values = samples(row.kind);
        assert!(!values.is_empty(), "{} has no values to change between", row.name);
        for value in values {
            assert_eq!(check_change(row.name, &value, true).unwrap().name, row.name);
            let leased = baseline.resolve(&[change(row.name, None, Some(&value))]).unwrap();
            assert!(leased.ignored.is_empty(), "{}", row.name);
            assert_eq!(shown(&leased, row.name).0, value);
            let same = shown(&before, row.name).0 == value;
            assert_eq!(leased.settings == before.settings, same, "{} = {value}", row.name);
        }
    }
}

#[test]
fn what_another_version_took_is_left_out_and_named() {
    let baseline = baseline(&[]);
    let before = baseline.resolve(&[]).unwrap();
    for ignored in [
        change("NO_SUCH_SETTING", Some("1"), None),
        change("log_level", Some("debug"), None),
        change("PORT", Some("1"), Some("2")),
        change("ADMIN_API_KEY", None, Some("0123456789abcdef0123456789abcdef")),
        change("LOG_LEVEL", Some("loud"), None),
        change("MAX_BODY_BYTES", Some("1"), Some("")),
        change("RECEIPT_VERIFY_HASHES", Some("false"), None),
    ] {
        let resolved = baseline.resolve(std::slice::from_ref(&ignored)).unwrap();
        assert_eq!(resolved.ignored, [ignored.name.as_str()]);
        assert_eq!(resolved.settings, before.settings, "{ignored:?}");
        assert_eq!(resolved.provenance, before.provenance, "{ignored:?}");
    }
    // The part that is still accepted holds, and so does every other change.
    let resolved = baseline
        .resolve(&[
            change("LOG_LEVEL", Some("debug"), Some("loud")),
            change("GONE", None, Some("1")),
            change("ACTION_POOL_SIZE", Some("0"), Some("7")),
            change("METRICS_ENABLED", Some("false"), None),
            change("GONE_TOO", None, None),
        ])
        .unwrap();
    assert_eq!(resolved.ignored, ["LOG_LEVEL", "GONE", "ACTION_POOL_SIZE"]);
    assert_eq!(shown(&resolved, "LOG_LEVEL"), ("debug".to_owned(), "live change".to_owned()));
    assert_eq!(resolved.settings.action_pool_size, 7);
    assert!(!resolved.settings.metrics_enabled);
}

#[test]
fn changes_hide_no_mistake_of_the_baseline() {
    let bad = baseline(&[("LOG_LEVEL", "loud"), ("PORT", "x")]);
    let changes = [change("LOG_LEVEL", Some("debug"), Some("warn"))];
    let errors = bad.resolve(&changes).unwrap_err();
    assert_eq!(errors.len(), 2);
    assert_eq!(bad.resolve(&[]).unwrap_err(), errors);
}

#[test]
fn a_guarantee_is_given_up_by_lease_or_at_the_start() {
    let strict = baseline(&[]);
    let leased = [change("RECEIPT_VERIFY_HASHES", None, Some("false"))];
    let resolved = strict.resolve(&leased).unwrap();
    assert!(!resolved.settings.receipt_verify_hashes && resolved.ignored.is_empty());
    let relaxed = baseline(&[("RECEIPT_VERIFY_HASHES", "false")]);
    assert!(!relaxed.resolve(&[]).unwrap().settings.receipt_verify_hashes);
    let kept = [change("RECEIPT_VERIFY_HASHES", Some("true"), None)];
    assert!(relaxed.resolve(&kept).unwrap().settings.receipt_verify_hashes);
}

#[test]
fn changes_are_checked_one_by_one() {
    let key = "0123456789abcdef0123456789abcdef";
    let range = || "a whole number from 1024 to 33554432 bytes".to_owned();
    let cases: &[(&str, &str, bool, Option<ChangeError>)] = &[
        ("MAX_BODY_BYTES", "2048", false, None),
        ("MAX_BODY_BYTES", "2048", true, None),
        ("RECEIPT_VERIFY_HASHES", "true", false, None),
        ("RECEIPT_VERIFY_HASHES", "false", true, None),
        (
            "RECEIPT_VERIFY_HASHES",
            "false",
            false,
            Some(ChangeError::NeedsLease { name: "RECEIPT_VERIFY_HASHES" }),
        ),
        (
            "MAX_BODY_BYTES",
            "1023",
            true,
            Some(ChangeError::Value { name: "MAX_BODY_BYTES", expected: range() }),
        ),
        (
            "MAX_BODY_BYTES",
            "",
            false,
            Some(ChangeError::Value { name: "MAX_BODY_BYTES", expected: range() }),
        ),
        (
            "SQLITE_SYNCHRONOUS",
            "off",
            true,
            Some(ChangeError::NotLive { name: "SQLITE_SYNCHRONOUS" }),
        ),
        ("PORT", "8080", false, Some(ChangeError::NotLive { name: "PORT" })),
        ("PORT", "bad", false, Some(ChangeError::NotLive { name: "PORT" })),
        ("ADMIN_API_KEY", key, true, Some(ChangeError::Secret { name: "ADMIN_API_KEY" })),
        ("JWT_SECRET_KEY", "", false, Some(ChangeError::Secret { name: "JWT_SECRET_KEY" })),
        ("", "1", false, Some(ChangeError::UnknownSetting)),
        ("port", "1", false, Some(ChangeError::UnknownSetting)),
        (" LOG_LEVEL", "info", false, Some(ChangeError::UnknownSetting)),
    ];
    for (name, value, leased, error) in cases {
        let answer = check_change(name, value, *leased);
        assert_eq!(answer.as_ref().err(), error.as_ref(), "{name}");
        assert!(answer.is_ok_and(|row| row.name == *name) == error.is_none(), "{name}");
    }
}

#[test]
fn refusals_say_what_would_do_and_hold_no_value() {
    const MARKER: &str = "Xq7Zmarker";
    let said = |name: &str, value: &str| check_change(name, value, false).unwrap_err().to_string();
    assert_eq!(
        said("REQUEST_TIMEOUT_MS", "0"),
        "REQUEST_TIMEOUT_MS: expected a whole number from 1 to 600000 milliseconds"
    );
    assert_eq!(said("PORT", "1"), "PORT takes effect at a start only");
    assert_eq!(
        said("RECEIPT_VERIFY_HASHES", "false"),
        "RECEIPT_VERIFY_HASHES: a value that gives up a guarantee is set by lease only"
    );
    assert_eq!(said("HMAC_SECRET_KEY", ""), "HMAC_SECRET_KEY is secret and is set at a start only");
    assert_eq!(said(MARKER, "1"), "no such setting");
    for row in table() {
        for leased in [false, true] {
            let error = check_change(row.name, MARKER, leased).unwrap_err();
            assert!(!format!("{error} {error:?}").contains(MARKER), "{error}");
        }
    }
}
