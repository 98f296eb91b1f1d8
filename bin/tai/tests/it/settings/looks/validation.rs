//! The looks at settings of rules for bodies.
//!
//! Owns: as the looks beside it. Refuses to know: what else a rule does.

use std::path::Path;

use serde_json::{Value, json};

use crate::callers::*;
use crate::support::*;
use crate::validation::{dear, rules_in};

fn no_strangers() -> Value {
    json!({"properties": {"customer_id": true}, "additionalProperties": false})
}

/// The status of a customer call with `note` under a rule and one more setting.
fn status(schema: &Value, setting: (&str, &str), note: &Value) -> u16 {
    let (room, dir) = room();
    let file = rules_in(room.path(), schema);
    let tai = start(&dir, &[("VALIDATION_RULES_FILE", shown(&file)), setting]);
    let body = json!({"customer_id": "acme", "note": note});
    let status = Caller::local(tai.address()).post("/marketplace", &body).status;
    stop(tai);
    status
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(in crate::settings) fn validation_rules_file() {
    for (longest, status) in [(3, 400), (4, 200)] {
        let (room, dir) = room();
        let schema = json!({"properties": {"customer_id": {"maxLength": longest}}});
        let file = rules_in(room.path(), &schema);
        let tai = start(&dir, &[("VALIDATION_RULES_FILE", shown(&file))]);
        assert_eq!(Caller::local(tai.address()).quote("acme").status, status);
        stop(tai);
    }
}

pub(in crate::settings) fn validation_strict_mode() {
    for (flag, expected) in [("true", 400), ("false", 200)] {
        let setting = ("VALIDATION_STRICT_MODE", flag);
        assert_eq!(status(&no_strangers(), setting, &json!(1)), expected, "{flag}");
    }
}

pub(in crate::settings) fn validation_timeout_ms() {
    let (schema, note) = dear();
    for (time, expected) in [("1", 504), ("60000", 200)] {
        let setting = ("VALIDATION_TIMEOUT_MS", time);
        assert_eq!(status(&schema, setting, &note), expected, "{time}");
    }
}

pub(in crate::settings) fn log_validation_errors() {
    for (flag, is_said) in [("true", true), ("false", false)] {
        let (room, dir) = room();
        let file = rules_in(room.path(), &no_strangers());
        let envs = [("VALIDATION_RULES_FILE", shown(&file)), ("LOG_VALIDATION_ERRORS", flag)];
        let tai = start(&dir, &envs);
        let mut caller = Caller::local(tai.address());
        let body = json!({"customer_id": "acme", "note": 1});
        assert_refused(&caller.post("/marketplace", &body), 400, "validation_failed");
        let lines = || tai.log_lines();
        // Lines are written in order, and this one is behind it.
        until("the line of the call", || {
            lines().iter().any(|line| line.contains("request refused")).then_some(())
        });
        let said = lines().iter().any(|line| line.contains("validation failed"));
        assert_eq!(said, is_said, "{flag}");
        stop(tai);
    }
}
