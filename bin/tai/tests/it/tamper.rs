//! A ledger that somebody has changed behind the service's back.
//!
//! Owns: that `tai ledger verify` finds each change and names the place, by samples through the
//! whole binary. Refuses to know: why; the exhaustive walk over every byte belongs to the ledger.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::http::Client;

use crate::support::*;

const RECEIPTS: usize = 1_000;
const PRESENT: &str = "✗ All receipts present";
const UNBROKEN: &str = "✗ Chain is unbroken";
const ORDERED: &str = "✗ Timestamps in order";

/// Somebody with a database shell: runs statements on a ledger, one program for all of them.
struct Shell {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Shell {
    fn new() -> Shell {
        const LOOP: &str = "import json, sqlite3, sys
for line in sys.stdin:
    path, statements = json.loads(line)
    db = sqlite3.connect(path)
    found = []
    for sql, values in statements:
        values = [bytes.fromhex(v['hex']) if isinstance(v, dict) else v for v in values]
        rows = db.execute(sql, values).fetchall()
        found = [[v.hex() if isinstance(v, bytes) else v for v in row] for row in rows]
    db.commit()
    db.close()
    print(json.dumps(found), flush=True)";
        let mut child = Command::new("python3")
            .args(["-c", LOOP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Shell { child, answers }
    }

    /// Runs statements in one transaction; gives the rows of the last.
    fn run(&mut self, dir: &Path, statements: &[(&str, Value)]) -> Vec<Value> {
        let command = json!([dir.join("ledger.db"), statements]);
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str::<Value>(&line).unwrap().as_array().unwrap().clone()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Where a receipt stands.
#[derive(Clone)]
struct Place {
    stream: String,
    seq: u64,
    core_bytes: usize,
}

/// A finished ledger, and a copy to damage.
struct Bench {
    _room: TempDir,
    original: PathBuf,
    copy: PathBuf,
    shell: Shell,
    /// By commit position, from 1.
    places: Vec<Place>,
}

impl Bench {
    fn new() -> Bench {
        let (room, original) = room();
        let tai = start(&original, &[]);
        thread::scope(|scope| {
            for name in 0..4 {
                let address = tai.address();
                scope.spawn(move || fill(&mut Client::connect(address).unwrap(), name));
            }
        });
        stop(tai);
        let mut shell = Shell::new();
        let all = "SELECT s.name, r.seq, length(CAST(r.core AS BLOB)) FROM receipts r
                   JOIN streams s ON s.no = r.stream ORDER BY r.pos";
        let places: Vec<Place> = shell
            .run(&original, &[(all, json!([]))])
            .iter()
            .map(|row| Place {
                stream: row[0].as_str().unwrap().to_owned(),
                seq: row[1].as_u64().unwrap(),
                core_bytes: row[2].as_u64().unwrap() as usize,
            })
            .collect();
        assert!(places.len() >= RECEIPTS, "{}", places.len());
        let copy = room.path().join("copy");
        fs::create_dir(&copy).unwrap();
        let bench = Bench { _room: room, original, copy, shell, places };
        bench.renew();
        let said = tai_verify(&bench.copy);
        assert_eq!(said.code, Some(0), "untouched: {}{}", said.out, said.err);
        bench
    }

    fn renew(&self) {
        for leftover in ["ledger.db-wal", "ledger.db-shm"] {
            let _ = fs::remove_file(self.copy.join(leftover));
        }
        for name in ["ledger.db", "ledger.head"] {
            fs::copy(self.original.join(name), self.copy.join(name)).unwrap();
        }
    }

    fn place(&self, pos: usize) -> Place {
        self.places[pos - 1].clone()
    }

    /// Damages a fresh copy and expects the verdict, and the place where one has a name.
    fn damage(
        &mut self,
        what: &str,
        statements: &[(&str, Value)],
        verdict: &str,
        place: Option<&Place>,
    ) {
        self.renew();
        self.shell.run(&self.copy, statements);
        let said = tai_verify(&self.copy);
        assert_eq!(said.code, Some(1), "{what}: {}{}", said.out, said.err);
        let line = said.out.lines().find(|line| line.starts_with(verdict));
        assert!(line.is_some(), "{what}: not {verdict}: {}", said.out);
        if let Some(Place { stream, seq, .. }) = place {
            let first = format!("first bad receipt: stream {stream}, seq {seq};");
            assert!(said.out.contains(&first), "{what}: not {first} {}", said.out);
        }
    }

    /// Where an export can still be made, the other verifier finds the damage too.
    fn python_agrees(&self, what: &str) {
        let file = self.copy.with_extension("jsonl");
        let _ = fs::remove_file(&file);
        let export = tai(&self.copy, &["ledger", "export", "--to", file.to_str().unwrap()]);
        if export.code == Some(0) {
            let python = python_verifier(&file);
            assert_eq!(python.code, Some(1), "{what}: {}", python.out);
        }
    }
}

fn tai_verify(dir: &Path) -> Said {
    tai(dir, &["ledger", "verify"])
}

/// A quarter of the receipts: quotes, grants, refusals and signals of five tenants each.
fn fill(client: &mut Client, name: usize) {
    for number in 0..RECEIPTS / 4 {
        let tenant = format!("tenant-{name}-{}", number % 5);
        let status = match number % 4 {
            0 => post(client, "/marketplace", &event(&tenant, "grant")).status,
            1 => post(client, "/marketplace", &event(&tenant, "suspend")).status,
            2 => post(client, "/marketplace", &event(&tenant, "resume")).status,
            _ => post(client, "/marketplace", &json!({"customer_id": tenant})).status,
        };
        assert!(matches!(status, 200 | 422), "{status}");
    }
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    testkit::needs_python!();
    let mut bench = Bench::new();
    let mut dice = Dice::new(7);
    for sample in 0..60 {
        let pos = 1 + dice.below(bench.places.len() as u64) as usize;
        let place = bench.place(pos);
        let at = dice.below(place.core_bytes as u64);
        // Half of the changes keep to digits and letters, so that the receipt often still reads.
        let change = if sample % 2 == 0 { 1 } else { 1 << dice.below(8) };
        let core = bench.shell.run(
            &bench.original,
            &[("SELECT CAST(core AS BLOB) FROM receipts WHERE pos = ?", json!([pos]))],
        );
        let mut core = unhex(core[0][0].as_str().unwrap());
        core[at as usize] ^= change;
        let update = "UPDATE receipts SET core = CAST(? AS TEXT) WHERE pos = ?";
        let what = format!("byte {at} of {pos} by {change}");
        bench.damage(&what, &[(update, json!([{"hex": hex(&core)}, pos]))], UNBROKEN, Some(&place));
        if sample % 4 == 0 {
            bench.python_agrees(&what);
        }
    }
}

#[test]
fn a_changed_column_is_found() {
    testkit::needs_python!();
    let mut bench = Bench::new();
    let mut dice = Dice::new(8);
    for (column, bytes) in [("hash", 32), ("chain_hash", 32), ("id", 16)] {
        for sample in 0..20 {
            let pos = 1 + dice.below(bench.places.len() as u64) as usize;
            let (at, place) = (dice.below(bytes), bench.place(pos));
            let select = format!("SELECT {column} FROM receipts WHERE pos = ?");
            let found = bench.shell.run(&bench.original, &[(&select, json!([pos]))]);
            let mut value = unhex(found[0][0].as_str().unwrap());
            value[at as usize] ^= 1 << dice.below(8);
            let update = format!("UPDATE receipts SET {column} = ? WHERE pos = ?");
            let what = format!("{column} byte {at} of {pos}");
            let values = json!([{"hex": hex(&value)}, pos]);
            bench.damage(&what, &[(&update, values)], UNBROKEN, Some(&place));
            // An export is made from the receipt's own bytes, not from the column `id`.
            if sample % 5 == 0 && column != "id" {
                bench.python_agrees(&what);
            }
        }
    }
    for _ in 0..20 {
        let pos = 1 + dice.below(bench.places.len() as u64) as usize;
        let Place { stream, seq, core_bytes } = bench.place(pos);
        let moved = Place { stream: stream.clone(), seq: seq + 5_000, core_bytes };
        let update = "UPDATE receipts SET seq = ? WHERE pos = ?";
        let values = json!([moved.seq, pos]);
        bench.damage(&format!("seq of {pos}"), &[(update, values)], UNBROKEN, Some(&moved));
        let elsewhere = Place { stream: "stranger".to_owned(), seq, core_bytes };
        let statements = [
            ("INSERT INTO streams SELECT max(no) + 1, 'stranger' FROM streams", json!([])),
            (
                "UPDATE receipts SET stream = (SELECT max(no) FROM streams) WHERE pos = ?",
                json!([pos]),
            ),
        ];
        bench.damage(&format!("stream of {pos}"), &statements, UNBROKEN, Some(&elsewhere));
    }
}

#[test]
fn dropped_and_swapped_receipts_are_found() {
    testkit::needs_python!();
    let mut bench = Bench::new();
    let mut dice = Dice::new(9);
    let count = bench.places.len() as u64;
    for sample in 0..60 {
        let pos = 1 + dice.below(count - 1) as usize;
        let next = bench.place(pos + 1);
        let drop = [("DELETE FROM receipts WHERE pos = ?", json!([pos]))];
        bench.damage(&format!("dropped {pos}"), &drop, PRESENT, Some(&next));
        if sample % 6 == 0 {
            bench.python_agrees(&format!("dropped {pos}"));
        }
    }
    for sample in 0..60 {
        let pos = 1 + dice.below(count - 1) as usize;
        let (earlier, later) = (bench.place(pos), bench.place(pos + 1));
        let swap = "UPDATE receipts SET pos = ? WHERE pos = ?";
        let statements = [
            (swap, json!([1_000_000, pos])),
            (swap, json!([pos, pos + 1])),
            (swap, json!([pos + 1, 1_000_000])),
        ];
        // Within a stream the first of the two already comes too early.
        let first = if earlier.stream == later.stream { &later } else { &earlier };
        bench.damage(&format!("swapped {pos}"), &statements, ORDERED, Some(first));
        if sample % 6 == 0 {
            bench.python_agrees(&format!("swapped {pos}"));
        }
    }
}

#[test]
fn a_cut_tail_is_found_by_the_head_outside_the_table() {
    testkit::needs_python!();
    let mut bench = Bench::new();
    let count = bench.places.len();
    for cut in (1..=20).chain([100, count - 1]) {
        let left = count - cut;
        let what = format!("cut {cut}");
        let delete = ("DELETE FROM receipts WHERE pos > ?", json!([left]));
        bench.damage(&what, std::slice::from_ref(&delete), PRESENT, None);
        bench.python_agrees(&what);
        // Who cuts the table can cut its own head as well.
        let head = "UPDATE head SET size = ?, root = zeroblob(32)";
        bench.damage(&what, &[delete, (head, json!([left]))], PRESENT, None);
        let mut refused = command(&bench.copy, &["serve"]).env("PORT", "0").output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{what}");
        refused.stdout.append(&mut refused.stderr);
        let said = String::from_utf8_lossy(&refused.stdout);
        assert!(said.contains("truncated") || said.contains("altered"), "{what}: {said}");
    }
    bench.renew();
    fs::remove_file(bench.copy.join("ledger.head")).unwrap();
    let said = tai_verify(&bench.copy);
    assert_eq!(said.code, Some(1), "nobody can say that the tail is there: {}", said.out);
    assert!(said.out.contains("no head record"), "{}", said.out);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}
