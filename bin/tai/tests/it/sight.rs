//! Our own figures and what was seen of rules, through `tai ctl` against the real service.
//!
//! Owns: that what is shown is what was measured, and that a rule can be followed sample by sample.
//! Refuses to know: how a figure is computed.

use serde_json::{Value, json};
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;

const RULES: &str = r#"
[[alert]]
id = "lost"
title = "Nothing is found"
message = "${value} are not found, threshold is ${threshold}"
severity = "sev3"
category = "error"
component = "http"
condition = 'http.rate{status="404"}[1s] > 5/s'
for = "1s"

[[alert]]
id = "down"
title = "A part does not run"
message = "${label.subsystem} does not run"
severity = "sev2"
category = "system"
component = "host"
condition = "subsystem.up{subsystem=*}[1s] == 0"
"#;

struct House {
    _room: tempfile::TempDir,
    dir: std::path::PathBuf,
    tai: Tai,
}

impl House {
    fn new() -> House {
        let (room, dir) = room();
        let rules = room.path().join("alerts.toml");
        std::fs::write(&rules, RULES).unwrap();
        let envs = [("ALERTS_FILE", rules.to_str().unwrap()), ("ALERT_INTERVAL_MS", "200")];
        let tai = start(&dir, &envs);
        House { _room: room, dir, tai }
    }

    fn ctl(&self, args: &[&str]) -> Said {
        let url = format!("http://{}", self.tai.address());
        tai(&self.dir, &[&["ctl", "--url", &url], args].concat())
    }

    /// What it prints, once it says so; `between` is done before each look.
    fn ctl_until(&self, args: &[&str], wanted: &str, mut between: impl FnMut()) -> String {
        until(wanted, || {
            between();
            let said = self.ctl(args);
            (said.code == Some(0) && said.out.contains(wanted)).then_some(said.out)
        })
    }
}

fn row<'a>(out: &'a str, beginning: &str) -> &'a str {
    let mut lines = out.lines().filter(|line| line.starts_with(beginning));
    lines.next().unwrap_or_else(|| panic!("no {beginning}: {out}"))
}

#[test]
fn figures_are_shown_with_their_definition_all_or_some_or_by_a_condition() {
    let house = House::new();
    let out = house.ctl_until(&["sli"], "\nhealth.up ", || ());
    for sli in ["http.error_rate", "slo.availability.burn", "receipts.unaccounted", "health.up"] {
        row(&out, &format!("{sli} "));
    }
    assert!(row(&out, "http.error_rate ").contains("sum (rate(http_requests_total{status=~"));

    let out = house.ctl_until(&["sli", "subsystem.up"], " 1.0 ", || ());
    assert!(out.contains("subsystem=governance_sup ") && out.contains("1 where the subsystem ran"));
    let out = house.ctl(&["sli", "slo.*"]).out;
    assert!(out.lines().skip(1).all(|line| line.starts_with("slo.")), "{out}");
    row(&out, "slo.budget ");
    let said = house.ctl(&["sli", "no.such.sli"]);
    assert_eq!((said.code, said.err.contains("not_found")), (Some(1), true), "{}", said.err);

    let explain = ["sli", "--explain", "subsystem.up{subsystem=*}[1s] == 0"];
    let out = house.ctl_until(&explain, "verdict=fails", || ());
    assert!(out.contains("condition: subsystem.up{subsystem=*}[1s] == 0"), "{out}");
    assert!(out.contains("0 samples") || out.contains("samples of 1 series"), "{out}");
    for (condition, why) in [
        ("subsystem.upp[1m] == 0", "the nearest is subsystem.up"),
        ("subsystem.up{subsystem=*}[1h] == 0", "samples are kept for five minutes"),
    ] {
        let said = house.ctl(&["sli", "--explain", condition]);
        assert_eq!((said.code, said.err.contains(why)), (Some(1), true), "{}", said.err);
    }
}

#[test]
fn a_budget_shows_what_is_left_of_what_was_answered_since_the_start() {
    let house = House::new();
    // Five of a hundred may be late, and one is permitted from twenty requests on.
    let mut asker = Caller::local(house.tai.address());
    let mut ask = || (0..20).for_each(|_| drop(asker.get("/receipts/none")));
    let left = |out: &str| -> Option<f64> {
        let row = out.lines().find(|line| line.contains("slo=latency.p95"))?;
        row.split_whitespace().nth(2)?.parse().ok()
    };
    let (left, out) = until("a budget", || {
        ask();
        let out = house.ctl(&["sli", "slo.budget"]).out;
        Some((left(&out)?, out))
    });
    assert!(left > 0.0 && left <= 1.0, "{out}");
    assert!(!out.contains("slo=availability"), "not one failure would be permitted: {out}");
}

#[test]
fn a_rule_is_followed_sample_by_sample_from_quiet_to_firing_and_back() {
    let house = House::new();
    let mut asker = Caller::local(house.tai.address());
    let quiet = house.ctl_until(&["alerts", "explain", "lost"], "it does not hold", || ());
    assert!(
        quiet.contains(r#"all of: http.rate{status="404"}[1s] > 5/s; for 1 s, hold 0 s"#)
            || quiet.contains(r#"any of: http.rate{status="404"}[1s] > 5/s; for 1 s, hold 0 s"#),
        "{quiet}"
    );
    let silence = json!({"matcher": "rule=lost", "lease_s": 600, "why": "work"});
    assert_eq!(Caller::local(house.tai.address()).put("/admin/silences", &silence).status, 200);
    let ask = || (0..10).for_each(|_| drop(asker.get("/nowhere")));
    let out = house.ctl_until(&["alerts", "explain", "lost"], "lost: it fires", ask);
    assert!(out.contains("silenced_by: rule=lost"), "{out}");
    // In order: it did not hold, held and not for long enough, fired.
    let at = |word: &str| {
        let rows = out.lines().enumerate().filter(|(_, line)| line.starts_with("20"));
        let found = rows.filter(|(_, line)| line.contains(word)).map(|(at, _)| at).next();
        found.unwrap_or_else(|| panic!("no {word}: {out}"))
    };
    assert!(at(" inactive ") < at(" pending ") && at(" pending ") < at(" firing "), "{out}");
    assert!(out.contains("/s > 5/s"), "{out}");
    house.ctl_until(&["alerts", "explain", "lost"], "lost: it does not hold", || ());

    let one = ["alerts", "explain", "down", "--labels", r#"{subsystem="governance_sup"}"#];
    let out = house.ctl_until(&one, "down{subsystem=\"governance_sup\"}: it does not hold", || ());
    assert_eq!(out.matches("down{").count(), 1, "{out}");
    for (args, why) in [
        (&["alerts", "explain", "nobody"][..], "not_found"),
        (&["alerts", "explain", "down", "--labels", "{subsystem=\"x\"}"], "not_found"),
        (&["alerts", "explain", "down", "--labels", "x"], "invalid_field"),
    ] {
        let said = house.ctl(args);
        assert_eq!((said.code, said.err.contains(why)), (Some(1), true), "{}", said.err);
    }
    let raw = house.ctl(&["--json", "alerts", "explain", "lost"]);
    let raw: Value = serde_json::from_str(&raw.out).unwrap();
    assert_eq!(raw["cases"][0]["samples"][0]["readings"][0]["threshold"], "5/s");
}

#[test]
fn rules_are_checked_for_the_interval_that_the_settings_say() {
    let (room, dir) = room();
    let path = room.path().join("rules.toml");
    std::fs::write(&path, RULES).unwrap();
    let args = ["check", "--alerts", path.to_str().unwrap(), "--prometheus"];
    let slow = tai(&dir, &args);
    assert_eq!(slow.code, Some(2));
    assert!(slow.err.contains("a window of 30s to 1h"), "{}", slow.err);
    let mut quick = command(&dir, &args);
    let quick: Said = quick.env("ALERT_INTERVAL_MS", "200").output().unwrap().into();
    assert_eq!(quick.code, Some(0), "{}", quick.err);
    assert!(quick.out.contains("interval: 200ms"), "{}", quick.out);
}
