//! Lines that no verifier may accept.
//!
//! Owns: the list and how each line is made. Refuses to know: which verifier reads it.

use ledger::View;
use ledger::public::split;
use ledger::seal::{chain_hash, sha256};

use crate::{drafts, public, sealed};

/// The public form of a changed core with hashes that fit it, so that only its form is wrong.
pub(crate) fn resealed(core: &str, prev: &str) -> String {
    let hash = sha256(core.as_bytes());
    let chain = chain_hash(types::Hash::from_hex(prev.as_bytes()), hash);
    let at_end = core.find(r#""at":""#).unwrap() + r#""at":"2024-02-29T23:59:58.999999Z""#.len();
    let id_start = core.find(r#","id""#).unwrap();
    format!(
        r#"{},"chain_hash":"sha256:{chain}"{},"hash":"sha256:{hash}"{}"#,
        &core[..at_end],
        &core[at_end..id_start],
        &core[id_start..]
    )
}

/// What no verifier may accept: the last receipt of the vectors with one thing wrong.
pub(crate) fn rejected() -> Vec<(&'static str, String)> {
    let last = sealed(drafts()).pop().unwrap();
    let core = String::from_utf8(last.core.to_vec()).unwrap();
    let prev = core.split_once(r#""prev_hash":"sha256:"#).unwrap().1[..64].to_owned();
    let instant = last.at.to_string();
    let (date, clock) = instant.split_once('T').unwrap();
    let in_place_of_seconds =
        |digits: &str| format!("{}{digits}{}", &instant[..17], &instant[19..]);
    let seq = r#""seq":1"#;
    let state = r#""state_from":"running""#;
    let stream = r#""stream":"_ops""#;
    let huge = format!(r#""detail":"{}","id""#, "x".repeat(16 * 1024));
    let ordered = format!(r#""action":"stop","at":"{instant}""#);
    let disordered = format!(r#""at":"{instant}","action":"stop""#);
    let timestamp = format!(r#","timestamp":{}"#, last.at.secs());
    let in_core: [(&str, &str, &str); _] = [
        ("integer 2^53", r#""at""#, r#""amount":9007199254740992,"at""#),
        ("seq beyond 2^53 - 1", seq, r#""seq":9007199254740992"#),
        ("integer far out of range", seq, r#""seq":100000000000000000000000000000"#),
        ("negative zero", seq, r#""seq":-0"#),
        ("negative seq", seq, r#""seq":-1"#),
        ("leading zero", seq, r#""seq":01"#),
        ("plus sign", seq, r#""seq":+1"#),
        ("float", seq, r#""seq":1.0"#),
        ("exponent", seq, r#""seq":1e0"#),
        ("not a number", seq, r#""seq":NaN"#),
        ("null", state, r#""state_from":null"#),
        ("integer as text", seq, r#""seq":"1""#),
        ("text as integer", state, r#""state_from":1"#),
        ("boolean for an integer", seq, r#""seq":true"#),
        ("array", state, r#""state_from":["running"]"#),
        ("duplicate key", seq, r#""seq":1,"seq":1"#),
        ("wrong order", &ordered, &disordered),
        ("unknown field", seq, r#""seq":1,"shoe_size":43"#),
        ("missing field", &timestamp, ""),
        ("version 2", r#""v":1"#, r#""v":2"#),
        ("unknown type", r#""type":"transition""#, r#""type":"Transition""#),
        ("space behind a colon", seq, r#""seq": 1"#),
        ("space at the end", r#""v":1}"#, r#""v":1} "#),
        ("carriage return at the end", r#""v":1}"#, "\"v\":1}\r"),
        ("tab at the start", "{\"action", "\t{\"action"),
        ("byte order mark", "{\"action", "\u{feff}{\"action"),
        ("bytes behind the end", r#""v":1}"#, r#""v":1}{}"#),
        ("cut short", r#""v":1}"#, r#""v":1"#),
        ("needless escape of a letter", "running", r"\u0072unning"),
        ("needless escape of a slash", "running", r"run\/ning"),
        ("escaped control character", "running", r"run\nning"),
        ("escaped control character, long form", "running", r"run\u0001ning"),
        ("control character", "running", "run\u{1}ning"),
        ("lone surrogate", "running", r"run\ud800ning"),
        ("surrogate pair as escapes", "running", r"run\ud83d\udd12ning"),
        ("escaped field name", r#""seq":1"#, r#""s\u0065q":1"#),
        ("empty metadata", r#""prev_hash""#, r#""metadata":{},"prev_hash""#),
        ("null in metadata", r#""prev_hash""#, r#""metadata":{"a":null},"prev_hash""#),
        ("float in metadata", r#""prev_hash""#, r#""metadata":{"a":0.5},"prev_hash""#),
        ("object in metadata", r#""prev_hash""#, r#""metadata":{"a":{"b":1}},"prev_hash""#),
        ("metadata out of order", r#""prev_hash""#, r#""metadata":{"b":1,"a":1},"prev_hash""#),
        ("duplicate key in metadata", r#""prev_hash""#, r#""metadata":{"a":1,"a":1},"prev_hash""#),
        ("metadata key outside ASCII", r#""prev_hash""#, r#""metadata":{"é":1},"prev_hash""#),
        ("empty metadata key", r#""prev_hash""#, r#""metadata":{"":1},"prev_hash""#),
        ("metadata 2^53", r#""prev_hash""#, r#""metadata":{"a":-9007199254740992},"prev_hash""#),
        ("tenant_id on a system stream", r#""timestamp""#, r#""tenant_id":"_ops","timestamp""#),
        ("tenant stream without tenant_id", stream, r#""stream":"vector-tenant-a""#),
        ("day that does not exist", date, "2023-02-29"),
        ("instant before 1970", date, "1969-03-01"),
        ("hour 24", &instant, &format!("{date}T24{}", &clock[2..])),
        ("leap second", &instant, &in_place_of_seconds("60")),
        ("space for the T of an instant", &instant, &instant.replace('T', " ")),
        ("upper-case id", r#""id":"rcpt_"#, r#""id":"RCPT_"#),
        ("malformed intent", r#""prev_hash""#, r#""intent":"rcpt_0","prev_hash""#),
        ("genesis with a prefix of its own", r#""prev_hash":"sha256:"#, r#""prev_hash":"sha512:"#),
        ("larger than 16 KiB", r#""id""#, &huge),
    ];
    let mut all = Vec::new();
    for (why, from, to) in in_core {
        let changed = core.replacen(from, to, 1);
        assert_ne!(changed, core, "{why}: nothing changed");
        all.push((why, resealed(&changed, &prev)));
    }
    let good = String::from_utf8(public(&last)).unwrap();
    let hash = last.hash.to_string();
    for (why, from, to) in [
        ("upper-case hash", hash.clone(), hash.to_uppercase()),
        ("hash without its prefix", format!("\"sha256:{hash}"), format!("\"{hash}")),
        ("hash one digit short", hash.clone(), hash[..63].to_owned()),
        ("no hash", format!(r#","hash":"sha256:{hash}""#), String::new()),
        ("no chain_hash", format!(r#","chain_hash":"sha256:{}""#, last.chain_hash), String::new()),
        (
            "upper-case chain_hash",
            last.chain_hash.to_string(),
            last.chain_hash.to_string().to_uppercase(),
        ),
    ] {
        let changed = good.replacen(&from, &to, 1);
        assert_ne!(changed, good, "{why}: nothing changed");
        all.push((why, changed));
    }
    all.push(("no object", "null".into()));
    all.push(("nothing", String::new()));
    all.push(("deep nesting", "[".repeat(16_000)));
    all
}

#[test]
fn every_rejected_vector_is_refused() {
    for (why, line) in rejected() {
        assert!(split(line.as_bytes()).is_err(), "{why}");
    }
    // The way in which they are made is sound: an unchanged core comes out as it was.
    let last = sealed(drafts()).pop().unwrap();
    let core = String::from_utf8(last.core.to_vec()).unwrap();
    let prev = View::scan(&last.core).unwrap().prev_hash.unwrap().to_string();
    assert_eq!(resealed(&core, &prev).into_bytes(), public(&last));
}
