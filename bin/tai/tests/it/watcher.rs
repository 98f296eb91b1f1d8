//! The second process: who looks at the service from outside.
//!
//! Owns: services that die, hang and come back, watchers that die too, and what people and a
//! dead-man's switch hear of it. Refuses to know: how the watcher remembers.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::receiver::{Manner, Received, Receiver};
use testkit::tai::Tai;

use crate::support::*;

const MARKER: &str = "zq7marker";

/// What is told, what is knocked at, and where the watcher is run.
struct Tower {
    room: TempDir,
    dir: PathBuf,
    slack: Receiver,
    heart: Receiver,
    hook: Receiver,
    extra: Vec<(&'static str, String)>,
    starts: usize,
}

impl Tower {
    fn new() -> Tower {
        let (room, dir) = room();
        let slack = Receiver::start().unwrap();
        slack.always(Some(Manner::Says(200, vec![], "ok".into())));
        let (heart, hook) = (Receiver::start().unwrap(), Receiver::start().unwrap());
        Tower { room, dir, slack, heart, hook, extra: Vec::new(), starts: 0 }
    }

    fn start(&mut self, url: &str, options: &[&str]) -> Watcher {
        self.starts += 1;
        let log = self.room.path().join(format!("watch-{}.log", self.starts));
        let child = command(&self.dir, &["watch", "--url", url, "--interval", "0.1"])
            .args(options)
            .env("SLACK_WEBHOOK_URL", self.slack.url() + "/services/hook")
            .env("WATCH_HEARTBEAT_URL", self.heart.url() + "/ping?key=a")
            .env("WATCH_RESTART_URL", self.hook.url() + "/restart")
            .envs(self.extra.iter().cloned())
            .stdout(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Watcher { child, log }
    }

    /// The state as the file has it.
    fn state(&self) -> Option<Value> {
        let text = std::fs::read(self.room.path().join("tai-watch.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// Waits until the file says that Slack knows of the outage.
    fn noted(&self) {
        until("a note of the page", || {
            let state = self.state()?;
            let told = &state["outages"][0]["channels"]["slack"];
            (told["round"] == 1 && told["may_know"] == false).then_some(())
        });
    }

    fn told(&self) -> Vec<String> {
        self.slack.received().iter().map(Received::text).collect()
    }

    fn page(&self, count: usize) -> String {
        until("a page", || self.told().get(count - 1).cloned())
    }
}

/// A watcher that runs. Dropping it kills it.
struct Watcher {
    child: Child,
    log: PathBuf,
}

impl Watcher {
    fn events(&self, event: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        // The last line may be on its way.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == event).collect()
    }

    fn wait_for(&self, event: &str, count: usize) -> Value {
        until(event, || self.events(event).get(count - 1).cloned())
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end; gives how long that took.
    fn stop(mut self) -> Duration {
        let asked = Instant::now();
        signal("TERM", self.child.id());
        let status = until("the end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
        asked.elapsed()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

fn says(status: u16, body: &Value) -> Option<Manner> {
    Some(Manner::Says(status, Vec::new(), body.to_string()))
}

/// The name of the outage in what Slack was told.
fn incident(text: &str) -> String {
    let from = text.find("WATCH-").unwrap_or_else(|| panic!("{text}"));
    text[from..].split(|c: char| c != '-' && !c.is_ascii_alphanumeric()).next().unwrap().to_owned()
}

#[test]
fn a_killed_service_is_paged_once_whoever_else_dies() {
    let mut tower = Tower::new();
    let port = testkit::place::free_port().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let serve = |tower: &Tower| Tai::builder(bin(), &tower.dir).port(port).start().unwrap();
    let options = ["--heartbeat", "0.1"];
    let mut tai = serve(&tower);
    let watcher = tower.start(&url, &options);
    until("two beats", || (tower.heart.received().len() > 1).then_some(()));
    let beat = &tower.heart.received()[0];
    assert_eq!((beat.method.as_str(), beat.path.as_str()), ("GET", "/ping?key=a"));
    tai.kill().unwrap();
    let page = tower.page(1);
    assert!(page.contains("service is down: connection refused"), "{page}");
    assert!(page.contains(&format!("{url}/health")), "{page}");
    let beats = tower.heart.received().len();
    tower.noted();
    until("the hook", || tower.hook.received().first().cloned());
    watcher.kill();

    let watcher = tower.start(&url, &options);
    watcher.wait_for("probe_failed", 5);
    assert_eq!(tower.told().len(), 1, "{:#?}", tower.told());
    assert_eq!(tower.heart.received().len(), beats, "the service is dead");
    let tai = serve(&tower);
    let clear = tower.page(2);
    assert!(clear.contains("service answers again"), "{clear}");
    assert_eq!(incident(&page), incident(&clear));
    until("a beat", || (tower.heart.received().len() > beats).then_some(()));
    until("nothing left", || (tower.state()? == json!({"outages": []})).then_some(()));
    assert_eq!(tower.told().len(), 2);
    let hooks = tower.hook.received();
    assert_eq!(hooks.len(), 1);
    let asked = hooks[0].json().unwrap();
    assert_eq!(hooks[0].method, "POST");
    assert_eq!(asked, json!({"incident": incident(&page), "reason": "connection refused"}));
    watcher.stop();
    stop(tai);
}

#[test]
fn a_service_that_hangs_is_found_and_told_again_while_it_does() {
    let mut tower = Tower::new();
    let tai = start(&tower.dir, &[]);
    let url = format!("http://{}", tai.address());
    let watcher = tower.start(&url, &["--timeout", "0.5", "--repeat", "1.5"]);
    watcher.wait_for("service_health", 1);
    signal("STOP", tai.pid());
    let page = tower.page(1);
    assert!(page.contains("service is down: no answer within 0.5 s"), "{page}");
    let again = tower.page(2);
    assert!(again.contains("escalated to level 2: service is still down"), "{again}");
    assert_eq!(incident(&page), incident(&again));
    signal("CONT", tai.pid());
    until("the end", || tower.told().into_iter().find(|text| text.contains("answers again")));
    // A probe that hangs does not hold up the end of the watcher.
    drop(watcher);
    let watcher = tower.start(&url, &["--timeout", "60"]);
    watcher.wait_for("service_health", 1);
    signal("STOP", tai.pid());
    let took = watcher.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
    signal("CONT", tai.pid());
    stop(tai);
}

#[test]
fn a_channel_that_fails_is_told_later_and_another_at_once() {
    let mut tower = Tower::new();
    let pagerduty = Receiver::start().unwrap();
    pagerduty.always(Some(Manner::Says(202, vec![], r#"{"status":"success"}"#.into())));
    let file = tower.room.path().join("channels.toml");
    let channels = format!(
        "[channels.pagerduty]\nkind = \"pagerduty\"\nkey_env = \"PAGERDUTY_KEY\"\n\
         base_url = \"{}\"\nallow_private = true\n",
        pagerduty.url()
    );
    std::fs::write(&file, channels).unwrap();
    tower.extra = vec![
        ("CHANNELS_FILE", file.to_str().unwrap().to_owned()),
        ("PAGERDUTY_KEY", "routing-key".to_owned()),
    ];
    tower.slack.next(Manner::status(500));
    let port = testkit::place::free_port().unwrap();
    let watcher = tower.start(&format!("http://127.0.0.1:{port}"), &[]);
    let event = until("the pager", || pagerduty.received().first().cloned()).json().unwrap();
    assert_eq!(event["event_action"], "trigger");
    let failed = tower.page(1);
    assert_eq!(event["dedup_key"], incident(&failed));
    let told = tower.page(2);
    tower.noted();
    assert_eq!(told, failed, "the same thing again");
    assert_eq!((tower.told().len(), pagerduty.received().len()), (2, 1));
    assert_eq!(tower.heart.received().len(), 0, "it was never up");
    watcher.stop();
}

#[test]
fn the_services_own_reason_is_told_and_yellow_is_none() {
    let mut tower = Tower::new();
    let service = Receiver::start().unwrap();
    service.always(says(200, &json!({"status": "degraded", "health": "yellow"})));
    tower.extra = vec![("TAI_KEY", "operators-key".to_owned())];
    let watcher = tower.start(&service.url(), &[]);
    let health = watcher.wait_for("service_health", 1);
    assert_eq!(health["health"], "degraded/yellow");
    let asked = service.received().len();
    until("more probes", || (service.received().len() > asked + 4).then_some(()));
    assert_eq!(tower.told(), Vec::<String>::new());

    let reason = "supervisor governance_sup not running";
    service.always(says(503, &json!({"status": "unavailable", "reason": reason})));
    let page = tower.page(1);
    assert!(page.contains(&format!("service is down: {reason}")), "{page}");
    let now = unix_secs();
    let setting = |name: &str, until: Option<i64>| json!({"name": name, "until": until});
    service.always(says(
        200,
        &json!({"status": "ok", "health": "green", "settings": [
            setting("FORGOTTEN", Some(now - 120)),
            setting("RECENT", Some(now)),
            setting("LIVE", Some(now + 600)),
            setting("OTHER", None),
        ]}),
    ));
    let undone = watcher.wait_for("leases_undone", 1);
    assert_eq!(undone["settings"], "FORGOTTEN");
    tower.page(2);
    let received = service.received();
    let cleared: Vec<_> = received.iter().filter(|asked| asked.method == "DELETE").collect();
    assert_eq!(cleared.len(), 1);
    assert_eq!(cleared[0].path, "/admin/settings/FORGOTTEN");
    assert_eq!(cleared[0].header("authorization"), Some("Bearer operators-key"));
    let probes = received.iter().filter(|asked| asked.path == "/health");
    assert!(probes.into_iter().all(|probe| probe.header("authorization").is_none()));
    watcher.stop();
}

#[test]
fn a_stop_that_is_meant_wakes_nobody_and_one_that_never_comes_back_does() {
    let mut tower = Tower::new();
    let port = testkit::place::free_port().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let serve = |tower: &Tower| Tai::builder(bin(), &tower.dir).port(port).start().unwrap();
    let tai = serve(&tower);
    let watcher = tower.start(&url, &["--heartbeat", "0.1"]);
    watcher.wait_for("service_health", 1);
    until("a beat", || (!tower.heart.received().is_empty()).then_some(()));
    stop(tai);
    watcher.wait_for("service_stopped", 1);
    let beats = tower.heart.received().len();
    until("beats in its place", || (tower.heart.received().len() > beats + 3).then_some(()));
    let mut tai = serve(&tower);
    watcher.wait_for("service_back", 1);
    // A death is none, however soon it follows a stop that was.
    tai.kill().unwrap();
    let page = tower.page(1);
    assert!(page.contains("service is down: connection refused"), "{page}");
    assert_eq!(watcher.events("service_stopped").len(), 1);
    let tai = serve(&tower);
    let clear = tower.page(2);
    assert!(clear.contains("service answers again"), "{clear}");
    stop(tai);
    watcher.wait_for("service_stopped", 2);
    watcher.stop();
    // Nobody starts it again: after its time it is as dead as any other.
    let watcher = tower.start(&url, &["--planned", "1"]);
    // What a watcher has told and not noted before it was stopped is told once more.
    until("the page", || {
        let told = tower.told();
        told.iter()
            .skip(2)
            .any(|it| it.contains("service is down: connection refused"))
            .then_some(())
    });
    until("the hook", || (tower.hook.received().len() == 2).then_some(()));
    watcher.stop();
}

#[test]
fn a_second_watcher_of_one_state_is_refused_until_the_first_is_gone() {
    let mut tower = Tower::new();
    let service = Receiver::start().unwrap();
    service.always(says(200, &json!({"status": "ok", "health": "green"})));
    let url = service.url();
    let first = tower.start(&url, &[]);
    first.wait_for("service_health", 1);
    let second: Said = command(&tower.dir, &["watch", "--url", &url]).output().unwrap().into();
    assert_eq!(second.code, Some(2), "{}", second.err);
    let expected = "another watcher uses the state file tai-watch.json";
    assert!(second.err.contains(expected), "{}", second.err);
    let mut other = command(&tower.dir, &["watch", "--url", &url, "--state", "other.json"]);
    let mut other = other.stdout(std::process::Stdio::null()).spawn().unwrap();
    until("its lock", || tower.room.path().join("other.json.lock").exists().then_some(()));
    other.kill().unwrap();
    other.wait().unwrap();
    first.kill();
    let third = tower.start(&url, &[]);
    third.wait_for("service_health", 1);
    third.stop();
}

#[test]
fn whoever_restarts_the_service_is_asked_again_until_it_can_be_reached() {
    let mut tower = Tower::new();
    let hook = testkit::place::free_port().unwrap();
    tower.extra = vec![("WATCH_RESTART_URL", format!("http://127.0.0.1:{hook}/restart"))];
    let port = testkit::place::free_port().unwrap();
    let watcher = tower.start(&format!("http://127.0.0.1:{port}"), &[]);
    let unheard = watcher.wait_for("restart_unheard", 1);
    assert_eq!(
        (&unheard["why"], &unheard["wait_ms"]),
        (&json!("cannot be reached"), &json!("2000"))
    );
    let listener = TcpListener::bind(("127.0.0.1", hook)).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut asked = [0; 4_096];
    let length = stream.read(&mut asked).unwrap();
    let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
    assert!(asked.starts_with("POST /restart HTTP/1.1\r\n"), "{asked}");
    stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").unwrap();
    watcher.wait_for("restart_asked", 1);
    assert_eq!(watcher.events("restart_unheard").len(), 1);
    watcher.stop();
}

#[test]
fn repetitions_climb_the_ladder() {
    let mut tower = Tower::new();
    let pagers = [Receiver::start().unwrap(), Receiver::start().unwrap()];
    let mut channels = String::new();
    for (name, pager) in ["pagerduty", "pagerduty-secondary"].iter().zip(&pagers) {
        pager.always(Some(Manner::Says(202, vec![], r#"{"status":"success"}"#.into())));
        channels += &format!(
            "[channels.{name}]\nkind = \"pagerduty\"\nkey_env = \"PAGERDUTY_KEY\"\n\
             base_url = \"{}\"\nallow_private = true\n",
            pager.url()
        );
    }
    let file = tower.room.path().join("channels.toml");
    std::fs::write(&file, channels).unwrap();
    tower.extra = vec![
        ("CHANNELS_FILE", file.to_str().unwrap().to_owned()),
        ("PAGERDUTY_KEY", "routing-key".to_owned()),
    ];
    let service = Receiver::start().unwrap();
    service.always(says(503, &json!({"status": "unavailable", "reason": "no"})));
    let watcher = tower.start(&service.url(), &["--repeat", "0.5"]);
    let [first, second] = &pagers;
    until("the first one", || first.received().first().cloned());
    until("the second one, again and again", || second.received().get(1).cloned());
    // Whoever is called later is, and the chat has heard it once.
    assert_eq!(tower.told().len(), 1, "{:#?}", tower.told());
    let paged = first.received().len();
    assert!((1..=2).contains(&paged), "{paged}");
    service.always(says(200, &json!({"status": "ok", "health": "green"})));
    let is_over = |pager: &Receiver| {
        let last = pager.received().last().unwrap().json().unwrap();
        (last["event_action"] == "resolve").then_some(())
    };
    until("all of them know", || is_over(first).and_then(|()| is_over(second)));
    until("the chat too", || (tower.told().len() == 2).then_some(()));
    watcher.stop();
}

#[test]
fn what_cannot_be_watched_is_refused_before_anything_starts() {
    let (_room, dir) = room();
    let refuse = |args: &[&str], envs: &[(&str, &str)], expected: &str| {
        let mut watch = command(&dir, &["watch"]);
        let said: Said = watch.args(args).envs(envs.iter().copied()).output().unwrap().into();
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains(expected), "{}", said.err);
        assert!(!said.err.contains(MARKER), "{}", said.err);
    };
    for span in ["0", "-1", "1e9", "nan", "x"] {
        refuse(&[&format!("--interval={span}")], &[], "seconds, 0.05 to 86400");
    }
    refuse(&["--url", "ftp://zq7marker"], &[], "URL");
    refuse(&[], &[("PORT", "0")], "PORT is 0");
    refuse(&[], &[("TAI_KEY", "zq7marker zq7marker")], "key");
    refuse(&[], &[("WATCH_HEARTBEAT_URL", MARKER)], "WATCH_HEARTBEAT_URL");
    refuse(&[], &[("WATCH_RESTART_URL", "file:///zq7marker")], "WATCH_RESTART_URL");
    refuse(&[], &[("CHANNELS_FILE", "zq7marker.toml")], "CHANNELS_FILE");
}
