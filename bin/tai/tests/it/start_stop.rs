//! `start`, `stop`, `restart` and `status`, by `tai` and by the links.
//!
//! Owns: the process in the background, its pid file, its name and its log. Refuses to know: how a
//! stop looks to clients, which `drain` has.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;
use testkit::http::Client;

use crate::support::*;

const LOG: &str = "log/erlang.log.1";

/// A folder with a ledger, on which services are started. Its end is theirs.
struct Place {
    _room: TempDir,
    dir: PathBuf,
}

impl Place {
    fn new() -> Place {
        let (room, dir) = room();
        Place { _room: room, dir }
    }

    /// `program` with `args`, on any free port.
    fn by(&self, program: &Path, args: &[&str]) -> Said {
        self.command(program, args).output().unwrap().into()
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let plain = command(&self.dir, args);
        let mut command = Command::new(program);
        let envs = plain.get_envs().filter_map(|(name, value)| Some((name, value?)));
        // Each line is in its file as soon as it is written.
        command.args(args).env_clear().envs(envs).env("PORT", "0").env("LOG_FILE_BUFFER_SIZE", "1");
        command.current_dir(self.dir.parent().unwrap()).stdin(Stdio::null());
        command
    }

    fn tai(&self, args: &[&str]) -> Said {
        self.by(bin(), args)
    }

    /// A link of this name beside the ledger.
    fn link(&self, path: &str) -> PathBuf {
        let link = self.dir.parent().unwrap().join(path);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(bin(), &link).unwrap();
        link
    }

    fn pid_file(&self) -> PathBuf {
        self.dir.join("tai.pid")
    }

    fn pid(&self) -> u32 {
        fs::read_to_string(self.pid_file()).unwrap().lines().next().unwrap().parse().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join(LOG)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.pid_file().exists() {
            let _ = self.command(bin(), &["stop"]).output();
        }
    }
}

/// Started, and said so; gives where it listens.
fn started(said: &Said) -> SocketAddr {
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let (_, rest) = said.out.split_once("http://").unwrap_or_else(|| panic!("{}", said.out));
    rest.lines().next().unwrap().split(',').next().unwrap().parse().unwrap()
}

fn is_well(address: SocketAddr) -> bool {
    get(&mut client(address), "/health").status == 200
}

/// A process's field behind its name in `/proc`, counted from 0; `None` when it has ended.
fn field(pid: u32, number: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    (!matches!(fields[0], "Z" | "X")).then(|| fields[number].to_owned())
}

fn runs(pid: u32) -> bool {
    field(pid, 0).is_some()
}

/// A child of the test. Dropping it ends it.
struct Ours(Child);

impl Ours {
    /// A process that has nothing to do with the service.
    fn foreign() -> Ours {
        Ours(Command::new("cat").stdin(Stdio::piped()).spawn().unwrap())
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_is_started_once_found_again_and_stopped() {
    let place = Place::new();
    assert_eq!(place.tai(&["status"]).code, Some(1), "before the first start");
    assert_eq!(place.tai(&["stop"]).code, Some(0), "what is so already is well");
    assert!(!place.dir.exists(), "nothing was made where nothing was started");

    let address = started(&place.tai(&["start"]));
    let pid = place.pid();
    assert!(is_well(address) && runs(pid));
    assert_eq!(field(pid, 3), Some(pid.to_string()), "a session of its own");
    assert!(place.log().contains(r#""event":"listening""#), "{}", place.log());

    let again = place.tai(&["start"]);
    assert_eq!(started(&again), address);
    assert!(again.out.contains("already running"), "{}", again.out);
    assert_eq!(place.pid(), pid);
    let status = place.tai(&["status"]);
    assert_eq!(started(&status), address);
    assert!(status.out.contains("ok, green"), "{}", status.out);

    let stopped = place.tai(&["stop"]);
    assert_eq!(stopped.code, Some(0), "{}", stopped.err);
    assert!(stopped.out.contains("tai is stopped"), "{}", stopped.out);
    assert!(!runs(pid) && !place.pid_file().exists());
    assert!(place.log().contains("Shutdown complete"));
    for (verb, code) in [("stop", 0), ("status", 1)] {
        let said = place.tai(&[verb]);
        assert_eq!(said.code, Some(code), "{verb}");
        assert!(said.out.contains("tai is not running"), "{verb}: {}", said.out);
    }
    assert_verified(&place.dir);
}

#[test]
fn a_restart_takes_the_settings_of_now_and_keeps_the_ledger() {
    let place = Place::new();
    let address = started(&place.tai(&["restart"]));
    let first = place.pid();
    let granted = post(&mut client(address), "/marketplace", &event("acme", "grant"));
    assert_eq!(granted.status, 200);
    let receipt = receipt_id(&granted);

    let mut restart = place.command(bin(), &["restart"]);
    let said = Said::from(restart.env("METRICS_ENABLED", "false").output().unwrap());
    let address = started(&said);
    assert!(said.out.contains("is stopped") && place.pid() != first && !runs(first));
    let mut client = Client::connect(address).unwrap();
    assert_eq!(get(&mut client, "/metrics").status, 404, "the new setting holds");
    assert_eq!(get(&mut client, &format!("/receipts/{receipt}")).status, 200);
    assert_eq!(place.tai(&["stop"]).code, Some(0));
    let kept = assert_verified(&place.dir);
    assert!(kept.iter().any(|it| it["id"] == receipt.as_str()));
}

#[test]
fn a_pid_file_without_its_process_is_replaced() {
    let place = Place::new();
    started(&place.tai(&["start"]));
    let dead = place.pid();
    let killed = Command::new("kill").args(["-KILL", &dead.to_string()]).status().unwrap();
    assert!(killed.success());
    until("the end of the process", || (!runs(dead)).then_some(()));

    let status = place.tai(&["status"]);
    assert_eq!(status.code, Some(1));
    assert!(status.out.contains("not running"), "{}", status.out);
    let said = place.tai(&["start"]);
    assert!(is_well(started(&said)));
    assert!(said.out.contains(&format!("process {dead} has ended: replaced")), "{}", said.out);
    assert_ne!(place.pid(), dead);
}

#[test]
fn a_process_that_is_not_ours_is_left_alone() {
    let place = Place::new();
    let mut foreign = Ours::foreign();
    let pid = foreign.0.id();
    fs::create_dir(&place.dir).unwrap();
    let started_at: u64 = field(pid, 19).unwrap().parse().unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot = boot.trim();
    for text in [
        format!("{pid}\n"),
        format!("{pid}\n{boot} {}\n", started_at - 1),
        format!("{pid}\nanother-boot {started_at}\n127.0.0.1:9\n"),
    ] {
        fs::write(place.pid_file(), &text).unwrap();
        let said = place.tai(&["stop"]);
        assert_eq!(said.code, Some(0), "{text:?}: {}", said.err);
        assert!(
            said.out.contains("is not ours: only the file is removed"),
            "{text:?}: {}",
            said.out
        );
        assert!(foreign.is_alive() && !place.pid_file().exists(), "{text:?}");

        fs::write(place.pid_file(), &text).unwrap();
        assert_eq!(place.tai(&["status"]).code, Some(1), "{text:?}");
        assert!(is_well(started(&place.tai(&["restart"]))), "{text:?}");
        assert!(foreign.is_alive() && place.pid() != pid, "{text:?}");
        assert_eq!(place.tai(&["stop"]).code, Some(0));
    }

    // A slip of the operator's is no reason to write over a file.
    let other = place.dir.join("notes");
    fs::write(&other, "nothing of yours\n").unwrap();
    for verb in ["start", "stop", "restart", "status"] {
        let said = place.tai(&[verb, "--pid-file", other.to_str().unwrap()]);
        assert_eq!(said.code, Some(1), "{verb}");
        assert!(said.err.contains("is no pid file"), "{verb}: {}", said.err);
        assert_eq!(fs::read_to_string(&other).unwrap(), "nothing of yours\n");
    }
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = place.command(bin(), &["start"]);
    let said = Said::from(command.env("PORT", &port).output().unwrap());
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.err.contains("did not start"), "{}", said.err);
    assert!(said.err.contains("PORT: cannot listen"), "the log's last lines: {}", said.err);
    assert!(!place.pid_file().exists());

    let service = start(&place.dir, &[]);
    let said = place.tai(&["start"]);
    assert_eq!(said.code, Some(1), "{}", said.out);
    assert!(said.err.contains("another process holds the ledger"), "{}", said.err);
    assert!(!place.pid_file().exists());
    assert!(is_well(service.address()));
    stop(service);

    let said = Said::from(place.command(bin(), &["start"]).env("PORT", "x").output().unwrap());
    assert_eq!(said.code, Some(2), "{}", said.err);
}

#[test]
fn of_starts_at_once_one_starts() {
    let place = Place::new();
    let all: Vec<Said> = thread::scope(|scope| {
        let each: Vec<_> = (0..4).map(|_| scope.spawn(|| place.tai(&["start"]))).collect();
        each.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let is_new = |said: &&Said| said.code == Some(0) && !said.out.contains("already running");
    assert_eq!(all.iter().filter(is_new).count(), 1);
    for said in &all {
        let late = said.code == Some(1) && said.err.contains("is under way");
        assert!(late || said.code == Some(0), "{}{}", said.out, said.err);
    }
    assert!(runs(place.pid()));
    assert_eq!(place.log().matches(r#""event":"listening""#).count(), 1);
}

#[test]
fn the_process_bears_the_name_of_its_link() {
    let place = Place::new();
    let link = place.link("rel/tai_autonomics/bin/tai_autonomics");
    let said = place.by(&link, &["start"]);
    started(&said);
    assert!(said.out.contains("tai_autonomics is running"), "{}", said.out);
    assert_named(place.pid(), "tai_autonomics");
    // Where seed 000 follows it.
    let log = place.dir.parent().unwrap().join("rel/tai_autonomics").join(LOG);
    assert!(fs::read_to_string(&log).unwrap().contains("listening"));
    assert!(!place.dir.join(LOG).exists());
    let address = started(&place.by(&link, &["restart"]));
    assert_named(place.pid(), "tai_autonomics");
    assert!(is_well(address));
    // One service, however it is called.
    let said = place.tai(&["stop"]);
    assert!(said.out.contains("tai is stopped"), "{}", said.out);
    assert_eq!(fs::read_to_string(&log).unwrap().matches("Shutdown complete").count(), 2);

    // As a shell finds it: the first word is the name alone.
    let node = place.link("bin/agent-node");
    let mut found = place.command(Path::new("agent-node"), &["start"]);
    found.env("PATH", node.parent().unwrap()).env("PORT", quiet_port().to_string());
    let address = started(&Said::from(found.output().unwrap()));
    assert_named(place.pid(), "agent-node");
    assert!(place.dir.join(LOG).exists(), "no release: with the ledger");
    // The same process begins anew, also for its pid file.
    let pid = place.pid();
    let said = place.by(&node, &["ctl", "restart", "--url", &format!("http://{address}")]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.out, "state: restarting\nrestarted\n");
    assert_eq!(started(&place.by(&node, &["status"])), address);
    assert_named(pid, "agent-node");
    assert_eq!(place.by(&node, &["stop"]).code, Some(0));
    assert!(!runs(pid));
    assert_eq!(place.log().matches(r#""event":"listening""#).count(), 2);
}

/// A free port that nobody is given who asks for any: it must still be free after a restart.
fn quiet_port() -> u16 {
    let from = 20_000 + u16::try_from(std::process::id() % 8_000).unwrap();
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (from..from + 1_000).find(is_free).unwrap()
}

/// As `ps`, `pgrep` and `pgrep -f` find it.
fn assert_named(pid: u32, name: &str) {
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(comm.trim_end(), name);
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let first = String::from_utf8_lossy(&line).split('\0').next().unwrap().to_owned();
    assert!(first.ends_with(name), "{first}");
}

#[test]
fn a_link_has_a_port_of_its_own_unless_one_is_set() {
    let place = Place::new();
    let node = place.link("agent-node");
    let autonomics = place.link("tai_autonomics");
    let port = |program: &Path, port: &str, more: &[&str]| {
        let mut check = place.command(program, &[&["check"], more].concat());
        let said = Said::from(check.env("PORT", port).output().unwrap());
        assert_eq!(said.code, Some(0), "{}", said.err);
        let line = said.out.lines().find(|line| line.starts_with("PORT ")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(port(&node, "", &[]), "3000");
    assert_eq!(port(&autonomics, "", &[]), "8080");
    assert_eq!(port(bin(), "", &[]), "8080");
    assert_eq!(port(&node, "4000", &[]), "4000");
    let file = place.dir.parent().unwrap().join("own.toml");
    fs::write(&file, "port = 5000\n").unwrap();
    assert_eq!(port(&node, "", &["--config", file.to_str().unwrap()]), "5000");
}

#[test]
fn in_the_foreground_a_link_is_the_service() {
    let place = Place::new();
    let node = place.link("agent-node");
    for arguments in [&["foreground"][..], &[]] {
        let mut command = place.command(&node, arguments);
        let mut child = Ours(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut log = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(log.any(|line| line.contains(r#""event":"listening""#)), "{arguments:?}");
        assert_named(child.0.id(), "agent-node");
        assert!(!place.pid_file().exists());
        let pid = child.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(log.any(|line| line.contains("Shutdown complete")), "{arguments:?}");
        assert!(child.0.wait().unwrap().success(), "{arguments:?}");
    }
}

#[test]
fn the_log_is_where_the_settings_say() {
    let place = Place::new();
    let log = place.dir.parent().unwrap().join("var/app.log");
    let mut start = place.command(bin(), &["start"]);
    let said = Said::from(start.env("LOG_FILE", &log).output().unwrap());
    started(&said);
    assert!(said.out.contains(log.to_str().unwrap()), "{}", said.out);
    assert!(fs::read_to_string(&log).unwrap().contains("listening"));
    assert!(!place.dir.join(LOG).exists());
}

#[test]
fn the_operator_stops_and_drains_it_from_anywhere() {
    let place = Place::new();
    let address = started(&place.tai(&["start"]));
    let pid = place.pid();
    let url = format!("http://{address}");
    let ctl = |words: &[&str]| place.tai(&[&["ctl", "--url", &url], words].concat());
    assert_eq!(ctl(&["drain"]).code, Some(0));
    let refused = post(&mut client(address), "/marketplace", &event("acme", "grant"));
    assert_eq!(refused.status, 503);
    assert!(is_well(address), "it goes on answering for health");
    let said = ctl(&["stop"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.ends_with("stopped\n"), "{}", said.out);
    until("the end of the process", || (!runs(pid)).then_some(()));
    assert_eq!(place.tai(&["stop"]).code, Some(0));
}
