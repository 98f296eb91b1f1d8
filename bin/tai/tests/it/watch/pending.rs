//! An alert that was pending when the process died.
//!
//! Owns: since when it is pending, and what missing figures do to it. Refuses to know: who is told.

use serde_json::Value;
use testkit::provider::Refusal;

use super::{Post, RULES, of_stream};
use crate::callers::Caller;
use crate::support::*;

/// How long the rule waits before it fires.
const FOR_S: i64 = 6;
/// How much of that is over when the process dies.
const BEFORE_S: i64 = 4;

/// With the rule that waits.
fn post() -> Post {
    let post = Post::new();
    let rules = RULES.replace("for = \"1s\"", "for = \"6s\"");
    std::fs::write(&post.files[0], rules).unwrap();
    post
}

/// What alerts became, and when in unix seconds.
fn phases(receipts: &[Value]) -> Vec<(String, i64)> {
    of_stream(receipts, "_incidents")
        .iter()
        .filter(|receipt| receipt["action"] == "alert")
        .map(|receipt| {
            (
                receipt["state_to"].as_str().unwrap().to_owned(),
                receipt["timestamp"].as_i64().unwrap(),
            )
        })
        .collect()
}

/// The receipts of alerts so far.
fn seen(tai: &testkit::tai::Tai) -> Vec<Value> {
    let mut caller = Caller::local(tai.address());
    let mut all = caller.receipts("tenant_id=_incidents&action=alert");
    all.sort_by_key(|receipt| receipt["seq"].as_u64());
    all
}

/// Kills the service when the alert has been pending for a while, and starts it again.
fn killed_while_pending(post: &Post) -> (testkit::tai::Tai, i64) {
    let mut tai = post.start();
    post.provider.always(Refusal::ServerError);
    let since = post.call_until(&tai, "pending", || {
        phases(&seen(&tai)).into_iter().find(|(phase, _)| phase == "pending").map(|(_, at)| at)
    });
    post.call_until(&tai, "a while", || (unix_secs() >= since + BEFORE_S).then_some(()));
    assert_eq!(phases(&seen(&tai)).len(), 1, "it is pending still");
    tai.kill().unwrap();
    (post.start(), since)
}

#[test]
fn an_alert_fires_on_its_own_time_though_the_process_died_in_between() {
    let post = post();
    let (tai, since) = killed_while_pending(&post);
    let restarted = unix_secs();
    let fired = post.call_until(&tai, "it fires", || {
        phases(&seen(&tai)).into_iter().find(|(phase, _)| phase == "firing").map(|(_, at)| at)
    });
    assert!(fired >= since + FOR_S, "{fired} {since}");
    assert!(fired < restarted + FOR_S, "the time before the restart counts: {fired} {restarted}");
    stop(tai);
    let all = phases(&assert_verified(&post.dir));
    let words: Vec<&str> = all.iter().map(|(phase, _)| &**phase).collect();
    assert_eq!(words[..2], ["pending", "firing"], "missing figures end nothing: {all:?}");
}

#[test]
fn an_alert_whose_cause_ended_while_the_process_was_dead_never_fires() {
    let post = post();
    let (tai, _) = killed_while_pending(&post);
    post.provider.heal();
    post.call_until(&tai, "it ends", || {
        phases(&seen(&tai)).into_iter().find(|(phase, _)| phase == "inactive")
    });
    stop(tai);
    let words: Vec<String> =
        phases(&assert_verified(&post.dir)).into_iter().map(|(phase, _)| phase).collect();
    assert_eq!(words, ["pending", "inactive"]);
    assert!(post.slack.received().is_empty(), "nobody was told");
}
