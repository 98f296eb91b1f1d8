//! How fast a whole ledger is verified, and what each part of that costs.
//!
//! Owns: the runs over the large ledger. Refuses to know: what is verified.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::{Result, ensure};
use ledger::head::next_root;
use ledger::seal::{chain_hash, receipt_id, sha256};
use ledger::{Row, Verifier, View};
use store::Reader;
use types::Hash;

use crate::numbers::{median, rounds, whole};
use crate::report::Report;
use crate::{Size, big};

const ROUNDS: usize = 5;
const RATE_MIN: f64 = 500_000.0;

/// Receipts whose bytes are held in memory, to time a step without the database.
const SAMPLE: usize = 200_000;

pub(crate) fn run(size: Size) -> Result<Report> {
    let dir = big::ledger(size)?;
    let reader = Reader::open(&dir)?;
    let count = reader.table_head().size;
    let sample = sample(&reader)?;
    let mut rates: [Vec<f64>; 5] = Default::default();
    for _ in 0..size.pick(ROUNDS, 2) {
        let times = [
            full(&reader, count)?,
            fetch(&reader, count)?,
            per_receipt(count, &sample, |kept| black_box(View::scan(&kept.core)).is_ok()),
            per_receipt(count, &sample, |kept| sha256(&kept.core) == kept.hash),
            per_receipt(count, &sample, |kept| small_hashes(&reader, kept)),
        ];
        for (rates, time) in rates.iter_mut().zip(times) {
            rates.push(count as f64 / time);
        }
    }
    let bytes = sample.iter().map(|kept| kept.core.len()).sum::<usize>() / sample.len().max(1);
    let how = format!(
        "{} receipts over {} tenants, {bytes} bytes each on average; one thread, file in the page cache",
        whole(count as f64),
        whole(big::tenants(size) as f64)
    );
    Ok(tell(&rates, &how))
}

fn tell(rates: &[Vec<f64>; 5], how: &str) -> Report {
    let [all, fetched, scanned, hashed, small] = rates;
    let mut report = Report::default();
    let rate = median(all);
    let conditions = format!("{how}; {}", rounds(all));
    report.bar(
        "verify, receipts/s on one core",
        "≥ 500 000",
        whole(rate),
        rate >= RATE_MIN,
        conditions,
    );
    let nanos = |rates: &[f64]| 1e9 / median(rates);
    let parts = [
        ("fetch rows alone", fetched, "all columns through the reader"),
        ("scan alone", scanned, "`View::scan` on bytes in memory"),
        ("hash of the bytes alone", hashed, "SHA-256 on bytes in memory"),
        ("id, link and root alone", small, "three short SHA-256 on values in memory"),
    ];
    report.fact("one receipt", format!("{:.0} ns", nanos(all)), "the sum of all parts".to_owned());
    for (what, rates, how) in parts {
        report.fact(what, format!("{:.0} ns", nanos(rates)), how.to_owned());
    }
    let rest = nanos(all) - parts.iter().map(|(_, rates, _)| nanos(rates)).sum::<f64>();
    report.fact("the rest", format!("{rest:.0} ns"), "stream heads and comparisons".to_owned());
    report.note("Proof by id (bar: < 100 µs) is not measured: there are no trees yet.");
    report
}

struct Kept {
    core: Vec<u8>,
    hash: Hash,
    stream: String,
    seq: u64,
}

/// Receipts from the middle of commit order on, where streams are neither new nor finished.
fn sample(reader: &Reader) -> Result<Vec<Kept>> {
    let mut kept = Vec::with_capacity(SAMPLE);
    let from = reader.table_head().size / 2;
    reader.for_each(None, &mut |row| {
        if row.pos > from {
            let (core, hash) = (row.core.to_vec(), row.hash);
            kept.push(Kept { core, hash, stream: row.stream.to_owned(), seq: row.seq });
        }
        if kept.len() == SAMPLE { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(kept)
}

/// Seconds for the whole ledger.
fn full(reader: &Reader, count: u64) -> Result<f64> {
    let started = Instant::now();
    let mut verifier = Verifier::new(reader.ledger(), reader.head_record());
    reader.for_each(None, &mut |row| {
        verifier.push(row);
        ControlFlow::Continue(())
    })?;
    let report = verifier.finish();
    let took = started.elapsed();
    ensure!(report.intact() && report.receipts == count, "the ledger does not verify");
    Ok(took.as_secs_f64())
}

fn fetch(reader: &Reader, count: u64) -> Result<f64> {
    let started = Instant::now();
    let mut seen = 0;
    reader.for_each(None, &mut |row: &Row<'_>| {
        seen += u64::from(!black_box(row).core.is_empty());
        ControlFlow::Continue(())
    })?;
    let took = started.elapsed();
    ensure!(seen == count, "receipts without bytes");
    Ok(took.as_secs_f64())
}

/// Seconds that one step takes for `count` receipts like those of the sample.
fn per_receipt(count: u64, sample: &[Kept], step: impl Fn(&Kept) -> bool) -> f64 {
    let started = Instant::now();
    let held = sample.iter().filter(|kept| step(kept)).count();
    let took = started.elapsed().as_secs_f64();
    black_box(held);
    took * count as f64 / sample.len().max(1) as f64
}

fn small_hashes(reader: &Reader, kept: &Kept) -> bool {
    let id = receipt_id(&reader.ledger(), &kept.stream, kept.seq);
    let link = chain_hash(Some(kept.hash), kept.hash);
    black_box((id, link, next_root(link, kept.hash)));
    true
}
