//! The operator's commands of the runbooks: one table, the page made from it, and each command
//! typed as an operator types it.
//!
//! Owns: that every row is whole, that page and README say what the table says, and that each
//! literal and each equivalent command does what it should. Refuses to know: which command stands
//! for which line of a runbook; that is data, in `docs/operations/commands.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use testkit::http::Client;
use testkit::pubsub::Emulator;
use testkit::{place, skip};

use crate::support::*;

mod cloud_log;

/// One command, from its start to its end.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a commit is held up for a signal to be slow, and for a request to run out of time.
const SLOW: Duration = Duration::from_millis(300);
/// Settings under which little is needed for things to go wrong.
const STRICT: [(&str, &str); 3] =
    [("REQUEST_TIMEOUT_MS", "1200"), ("RATE_LIMIT_PER_SECOND", "1"), ("RATE_LIMIT_BURST", "1")];
/// The tenant whose receipts are changed behind the service's back.
const ALTERED: &str = "altered";
/// Any printable text of 32 characters may be one.
const ADMIN_KEY: &str = "an-admin-key-of-the-operations-test";
/// What stands before the port in the runbooks, and the port itself.
const PORTS_IN_RUNBOOKS: [(&str, &str); 2] = [("localhost:", "8080"), ("PORT=", "8080")];
/// Where the runbooks' release has its log.
const LOG: &str = "_build/default/rel/tai_autonomics/log/erlang.log.1";
const START: &str = "_build/default/rel/tai_autonomics/bin/tai_autonomics start";

/// What a row may need.
const ROOMS: [&str; 7] = ["service", "faults", "own", "folder", "ledger", "pubsub", "firestore"];

/// Where the page's table begins and the guide ends.
const MARK: &str = "<!-- From here on made from docs/operations/commands.toml -->\n";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    command: Vec<Row>,
    prose: Vec<Prose>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    kind: Kind,
    /// Place and first line, see [`Place`].
    seen: Vec<(String, String)>,
    run: Option<String>,
    proof: Option<String>,
    #[serde(default)]
    expect: Vec<String>,
    exit: Option<i32>,
    #[serde(default)]
    follows: bool,
    needs: Option<String>,
    part: Option<String>,
    reason: Option<String>,
    note: Option<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Literal,
    Equivalent,
    RuledOut,
    Later,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Literal, Kind::Equivalent, Kind::RuledOut, Kind::Later];

    fn word(self) -> &'static str {
        match self {
            Kind::Literal => "literal",
            Kind::Equivalent => "equivalent",
            Kind::RuledOut => "ruled out",
            Kind::Later => "later",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prose {
    what: String,
    seed: String,
    lines: Vec<String>,
}

/// Lines of a runbook: `000:13` or `000:30-35`.
struct Place {
    seed: String,
    lines: String,
    first: u32,
    last: u32,
}

impl Place {
    fn parse(text: &str) -> Place {
        let (seed, lines) = text.split_once(':').unwrap();
        let (first, last) = lines.split_once('-').unwrap_or((lines, lines));
        let (first, last) = (first.parse().unwrap(), last.parse().unwrap());
        Place { seed: seed.to_owned(), lines: lines.to_owned(), first, last }
    }
}

impl Table {
    fn read() -> Table {
        let file = place::repository().join("docs/operations/commands.toml");
        toml::from_str(&fs::read_to_string(file).unwrap()).unwrap()
    }

    fn count(&self, kind: Kind) -> usize {
        self.command.iter().filter(|row| row.kind == kind).count()
    }
}

#[test]
fn every_row_is_whole_and_no_line_has_two() {
    let table = Table::read();
    let mut ids = BTreeSet::new();
    for row in &table.command {
        let id = &row.id;
        assert!(ids.insert(id), "{id} twice");
        assert!(id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{id}");
        assert!(!row.seen.is_empty(), "{id} stands nowhere");
        let runs = matches!(row.kind, Kind::Literal | Kind::Equivalent);
        assert_eq!(row.run.is_some(), runs, "{id}: run");
        assert_eq!(row.needs.is_some(), runs, "{id}: needs");
        assert_eq!(row.reason.is_some(), row.kind == Kind::RuledOut, "{id}: reason");
        assert_eq!(row.part.is_some(), row.kind == Kind::Later, "{id}: part");
        // A command of which nothing is expected proves nothing.
        let expects = !row.expect.is_empty() || row.exit.is_some_and(|code| code != 0);
        assert_eq!(expects, runs, "{id}: expect or exit");
        assert!(runs || (row.proof.is_none() && !row.follows), "{id}: nothing is run");
        assert!(row.exit.is_none() || !row.follows, "{id}: what is cut off has no exit code");
        if let Some(needs) = &row.needs {
            assert!(ROOMS.contains(&needs.as_str()), "{id}: there is no room {needs}");
        }
        if row.kind == Kind::Literal {
            let run = row.run.as_deref().unwrap_or_default();
            assert!(run.starts_with(&row.seen[0].1), "{id} is not as the runbook has it");
        }
        for text in [&row.reason, &row.note, &row.part].into_iter().flatten() {
            assert!(!text.is_empty() && !text.contains('\n'), "{id}: {text}");
        }
    }

    let mut lines = BTreeMap::new();
    let prose = table.prose.iter().flat_map(|prose| {
        let place = |lines: &String| (format!("{}:{lines}", prose.seed), prose.what.as_str());
        prose.lines.iter().map(place)
    });
    let commands = table.command.iter().flat_map(|row| {
        row.seen.iter().map(|(place, text)| {
            assert!(!text.is_empty() && text.trim() == text, "{}: {place}", row.id);
            (place.clone(), row.id.as_str())
        })
    });
    for (text, what) in commands.chain(prose) {
        let place = Place::parse(&text);
        assert!(["000", "001", "002"].contains(&place.seed.as_str()), "{text}");
        assert!(place.first <= place.last, "{text}");
        for line in place.first..=place.last {
            if let Some(other) = lines.insert((place.seed.clone(), line), what) {
                panic!("line {line} of {} belongs to {other} and to {what}", place.seed);
            }
        }
    }
}

#[test]
fn page_and_readme_say_what_the_table_says() {
    let table = Table::read();
    let path = place::repository().join("docs/operations.md");
    let page = fs::read_to_string(&path).unwrap();
    let (guide, kept) = page.split_once(MARK).unwrap();
    let made = page_of(&table);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(&path, [guide, MARK, &made].concat()).unwrap();
    } else {
        assert!(kept == made, "docs/operations.md is stale: run this test with UPDATE_GENERATED=1");
    }
    let counts = counts(&table);
    let readme = fs::read_to_string(place::repository().join("README.md")).unwrap();
    let words = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains(&counts), "README.md does not say: {counts}");
}

fn counts(table: &Table) -> String {
    Kind::ALL.map(|kind| format!("{} {}", table.count(kind), kind.word())).join(", ")
}

/// The part of the page behind [`MARK`].
fn page_of(table: &Table) -> String {
    let mut rows: Vec<(String, u32, String)> = Vec::new();
    for row in &table.command {
        let mut seeds: BTreeMap<String, Vec<(Place, &str)>> = BTreeMap::new();
        for (place, text) in &row.seen {
            let place = Place::parse(place);
            seeds.entry(place.seed.clone()).or_default().push((place, text));
        }
        for (seed, places) in seeds {
            let lines: Vec<&str> = places.iter().map(|(place, _)| place.lines.as_str()).collect();
            let mut texts: Vec<String> = Vec::new();
            for text in places.iter().map(|(place, text)| first_line(place, text)) {
                if !texts.contains(&text) {
                    texts.push(text);
                }
            }
            let (lines, texts) = (lines.join(", "), texts.join("<br>"));
            let (kind, with) = (row.kind.word(), with_tai(row));
            let line = format!("| {seed} | {lines} | {texts} | {kind} | {with} |\n");
            rows.push((seed, places[0].0.first, line));
        }
    }
    rows.sort();
    let rows: String = rows.into_iter().map(|(_, _, line)| line).collect();
    let counts = counts(table);
    format!(
        "\n{counts}.\n\n\
         | seed | lines | command | kind | with `tai`, or why not |\n|---|---|---|---|---|\n{rows}"
    )
}

/// The last column.
fn with_tai(row: &Row) -> String {
    let lines = |run: &str| run.lines().map(code).collect::<Vec<_>>().join("<br>");
    let first = match row.kind {
        Kind::Literal => Some("as it stands".to_owned()),
        Kind::Equivalent => row.run.as_deref().map(lines),
        Kind::RuledOut => row.reason.as_deref().map(escaped),
        Kind::Later => row.part.as_deref().map(|part| format!("not yet: {part}")),
    };
    let note = row.note.as_deref().map(escaped);
    first.into_iter().chain(note).collect::<Vec<_>>().join("<br>")
}

/// The first line of a command, marked when there are more.
fn first_line(place: &Place, text: &str) -> String {
    let more = if place.last > place.first { " …" } else { "" };
    format!("{}{more}", code(text.trim_end_matches('\\')))
}

/// A code span in a cell.
fn code(text: &str) -> String {
    format!("`{}`", escaped(text.trim()))
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|")
}

#[test]
fn commands_that_look_at_a_service() {
    testkit::needs_python!();
    let mut room = Room::new();
    room.serve(&[]);
    room.fill();
    room.type_one("tai ledger backup \"$BACKUPS/monday\"");
    type_rows("service", &room);
    room.stop();
}

#[test]
fn commands_that_look_for_faults() {
    testkit::needs_python!();
    let mut room = Room::new();
    room.serve(&[]);
    let altered = post(&mut client(room.address), "/marketplace", &event(ALTERED, "grant"));
    room.stop();
    room.alter();
    room.serve(&STRICT);
    room.fill();
    room.go_wrong(&receipt_id(&altered));
    type_rows("faults", &room);
    cloud_log::assert_found(&room);
    room.stop();
}

#[test]
fn commands_on_a_ledger_at_rest() {
    let mut room = Room::new();
    room.serve(&[]);
    room.fill();
    room.stop();
    room.type_one("tai ledger backup \"$BACKUPS/monday\"");
    type_rows("ledger", &room);
}

#[test]
fn commands_that_start_and_stop() {
    for row in rows("folder") {
        let room = Room::new();
        room.expect(&row);
    }
}

#[test]
fn commands_on_a_service_that_may_be_stopped() {
    // A room each: a live change outlasts the restart that the next row is about.
    for row in rows("own") {
        let room = Room::new();
        room.type_one(START);
        room.expect(&row);
    }
}

#[test]
fn commands_on_a_subscription() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Pub/Sub emulator is not installed");
    };
    let (project, address) = ("local-dev", emulator.address().to_string());
    let setup = place::repository().join("deploy/compose/pubsub-setup.sh");
    let mut room = Room::new();
    room.type_one(&format!("bash {} http://{address}/v1/projects/{project}", setup.display()));
    room.serve(&[("GCP_PROJECT_ID", project), ("PUBSUB_EMULATOR_HOST", &address)]);
    room.type_one("until tai ctl pubsub | grep 'state: active'; do sleep 0.1; done");
    type_rows("pubsub", &room);
    room.stop();
}

#[test]
fn commands_towards_firestore() {
    let Some(emulator) = testkit::firestore::Emulator::start().unwrap() else {
        skip!("the Firestore emulator is not installed");
    };
    for row in rows("firestore") {
        let mut room = Room::new();
        room.vars.extend([
            ("GCP_PROJECT_ID", row.id.clone()),
            ("FIRESTORE_EMULATOR_HOST", emulator.address().to_string()),
            ("PUBSUB_ENABLED", "false".to_owned()),
        ]);
        room.type_one(START);
        room.expect(&row);
    }
}

fn rows(needs: &str) -> Vec<Row> {
    let of_room = |row: &Row| row.needs.as_deref() == Some(needs);
    let found: Vec<Row> = Table::read().command.into_iter().filter(of_room).collect();
    assert!(!found.is_empty(), "no row needs {needs}");
    found
}

/// Types every command that needs such a room, and says of all of them which went wrong.
fn type_rows(needs: &str, room: &Room) {
    let wrong: Vec<String> = rows(needs).iter().filter_map(|row| room.judge(row)).collect();
    assert!(wrong.is_empty(), "{} commands went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A folder as an operator has it: the links, the log where the runbooks look for it, a ledger.
struct Room {
    dir: TempDir,
    vars: Vec<(&'static str, String)>,
    service: Option<Child>,
    address: std::net::SocketAddr,
}

impl Room {
    fn new() -> Room {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let release = at("_build/default/rel/tai_autonomics");
        for folder in [at("bin"), at("backups"), release.join("bin"), release.join("log")] {
            fs::create_dir_all(folder).unwrap();
        }
        for link in ["bin/tai", "bin/tai_autonomics", "bin/agent-node"] {
            symlink(bin(), at(link)).unwrap();
        }
        symlink(bin(), release.join("bin/tai_autonomics")).unwrap();
        symlink(release.join("log"), at("logs")).unwrap();
        symlink(place::repository().join("tools"), at("tools")).unwrap();
        let port = place::free_port().unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let vars = vec![
            ("PORT", port.to_string()),
            ("SERVICE_URL", format!("http://127.0.0.1:{port}")),
            ("LEDGER_DIR", text(at("ledger"))),
            ("LOG_FILE", text(at(LOG))),
            // Commands look at what was logged a moment ago.
            ("LOG_FILE_BUFFER_SIZE", "1".to_owned()),
            ("ADMIN_API_KEY", ADMIN_KEY.to_owned()),
            ("API_KEY", ADMIN_KEY.to_owned()),
            ("BACKUPS", text(at("backups"))),
            ("BACKUP_ID", "monday".to_owned()),
            ("PAUSE", "0".to_owned()),
        ];
        Room { dir, vars, service: None, address: ([127, 0, 0, 1], port).into() }
    }

    fn var(&self, name: &str) -> &str {
        &self.vars.iter().find(|(own, _)| *own == name).unwrap().1
    }

    fn ledger(&self) -> PathBuf {
        PathBuf::from(self.var("LEDGER_DIR"))
    }

    /// A program with the room's variables, and of ours only where programs and their files are.
    fn program(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let bin = self.dir.path().join("bin");
        let path = std::env::var_os("PATH").unwrap();
        let paths = std::iter::once(bin).chain(std::env::split_paths(&path));
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(std::env::var_os("HOME").map(|home| ("HOME", home)))
            .env("PATH", std::env::join_paths(paths).unwrap())
            .envs([("LANG", "C.UTF-8"), ("TERM", "xterm"), ("COLUMNS", "400")])
            .envs(self.vars.iter().map(|(name, value)| (*name, value)))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Starts a service that stays, and waits until it is ready.
    fn serve(&mut self, more: &[(&str, &str)]) {
        let mut command = self.program("tai");
        command.arg("serve").envs(more.iter().copied());
        self.service = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("health", || {
            let response = Client::connect(self.address).ok()?.request("GET", "/readyz", &[], b"");
            (response.ok()?.status == 200).then_some(())
        });
    }

    fn stop(&mut self) {
        let mut service = self.service.take().unwrap();
        let pid = service.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(service.wait().unwrap().success());
    }

    /// Something of everything that a command looks for in a service that is well.
    fn fill(&mut self) {
        let mut client = client(self.address);
        let granted = post(&mut client, "/marketplace", &event("tenant-123", "grant"));
        self.vars.push(("RECEIPT_ID", receipt_id(&granted)));
        assert_eq!(post(&mut client, "/marketplace", &event("tenant-123", "grant")).status, 422);
        let customer = json!({"customer_id": "tenant-123"});
        assert_eq!(post(&mut client, "/marketplace", &customer).status, 200);
        let nobody = json!({"customer_id": "x".repeat(500)});
        assert_eq!(post(&mut client, "/marketplace", &nobody).status, 400);
        let signal = json!({"signal": "test", "timestamp": "2026-01-25T14:32:00Z"});
        assert_eq!(post(&mut client, "/pubsub", &push("m-1", &signal)).status, 200);
    }

    /// Changes the receipts of one tenant behind the service's back.
    fn alter(&self) {
        const ALTER: &str = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
stream = '(SELECT no FROM streams WHERE name = ?)'
db.execute(f'UPDATE receipts SET hash = zeroblob(32) WHERE stream = {stream}', sys.argv[2:])
assert db.total_changes > 0
db.commit()";
        python(ALTER, &[self.ledger().join("ledger.db").to_str().unwrap(), ALTERED]);
    }

    /// Something of everything that goes wrong: an altered receipt, a key that asks too often, a
    /// slow signal, a request that ran out of time.
    fn go_wrong(&self, altered: &str) {
        let mut client = client(self.address);
        let key = format!("Bearer {ADMIN_KEY}");
        let again = || client.request("GET", "/receipts?limit=1", &[("Authorization", &key)], b"");
        let answers = std::iter::repeat_with(again).take(20);
        assert!(answers.map(Result::unwrap).any(|answer| answer.status == 429));

        let held = HeldLock::take(&self.ledger());
        let signal = json!({"signal": "slow", "timestamp": "2026-01-25T14:32:00Z"});
        let answer = thread::scope(|scope| {
            let asking = scope.spawn(|| post(&mut client, "/pubsub", &push("m-2", &signal)));
            // How slow the signal is; nothing is waited for.
            thread::sleep(SLOW);
            drop(held);
            asking.join().unwrap()
        });
        assert_eq!(answer.status, 200);

        let held = HeldLock::take(&self.ledger());
        let late = post(&mut client, "/marketplace", &json!({"customer_id": "late"}));
        assert_eq!(late.status, 504);
        drop(held);

        // Last: once it was found, no more receipts of tenants are taken.
        assert_eq!(get(&mut client, &format!("/receipts/{altered}")).status, 503);
    }

    /// Types what the test itself needs.
    fn type_one(&self, text: &str) {
        let (code, said) = self.typed(text, None);
        assert_eq!(code, Some(0), "{text}: {said}");
    }

    fn expect(&self, row: &Row) {
        assert_eq!(self.judge(row), None);
    }

    /// Types the command of a row; says what is wrong with its outcome.
    fn judge(&self, row: &Row) -> Option<String> {
        let lines: Vec<&str> = row.run.as_deref().into_iter().chain(row.proof.as_deref()).collect();
        let text = lines.join("\n");
        let (code, said) = self.typed(&text, row.follows.then_some(&row.expect));
        let missing: Vec<&String> = row.expect.iter().filter(|it| !said.contains(*it)).collect();
        let ended = row.follows || code == Some(row.exit.unwrap_or(0));
        (!missing.is_empty() || !ended)
            .then(|| format!("{}: {code:?}, without {missing:?}\n{text}\n{said}", row.id))
    }

    /// Types a text into a shell; gives the exit code and all that was printed. What goes on by
    /// itself is typed at a terminal, and ended when it has said what `wanted` holds.
    fn typed(&self, text: &str, wanted: Option<&Vec<String>>) -> (Option<i32>, String) {
        let port = self.var("PORT");
        let text = PORTS_IN_RUNBOOKS.iter().fold(text.to_owned(), |text, (before, theirs)| {
            text.replace(&format!("{before}{theirs}"), &format!("{before}{port}"))
        });
        let said = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        let print = || File::options().append(true).open(said.path()).unwrap();
        let mut command = match wanted {
            None => self.program("bash"),
            Some(_) => self.program("script"),
        };
        match wanted {
            None => command.args(["-c", &text]),
            Some(_) => command.args(["-qec", &text, "/dev/null"]).env("SHELL", "/bin/bash"),
        };
        // A group of its own, so that its pipes and children end with it.
        let mut child = command.stdout(print()).stderr(print()).process_group(0).spawn().unwrap();
        let read = || String::from_utf8_lossy(&fs::read(said.path()).unwrap()).into_owned();
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (status.code(), read());
            }
            let told = wanted.is_some_and(|wanted| wanted.iter().all(|it| read().contains(it)));
            if told || Instant::now() > deadline {
                let group = format!("-{}", child.id());
                let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
                let _ = child.wait();
                return (None, read());
            }
            // Between two looks, under the deadline above.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Room {
    /// Ends the service, and what was started in the background: known by its environment, since
    /// no other process was given this room.
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
        let mine = format!("LEDGER_DIR={}", self.var("LEDGER_DIR"));
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|entry| entry == mine.as_bytes()) {
                let pid = process.file_name();
                let _ = Command::new("kill").arg("-KILL").arg(pid).status();
            }
        }
    }
}
