//! Reading a whole ledger: the order, one stream, and what the check of logs and fence finds.

use std::ops::ControlFlow;

use ledger::Verifier;
use ledger::verify::Verdict;
use store::postgres::PgReader;
use testkit::postgres::Cluster;
use testkit::store::author::{Author, note, stream};

use super::{MISSING, cluster, intact, options, verified, writers};

/// A ledger of two writers, `a` three times and `b` twice; the last two receipts are another
/// writer's.
fn small(cluster: &Cluster) -> String {
    let (database, writers) = writers(cluster, 2);
    Author::of(&*writers[0]).append(
        &*writers[0],
        &[(&stream("a"), note()), (&stream("b"), note()), (&stream("a"), note())],
    );
    Author::of(&*writers[1])
        .append(&*writers[1], &[(&stream("b"), note()), (&stream("a"), note())]);
    database
}

#[test]
fn a_whole_ledger_and_one_stream_are_read_in_order() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = small(&cluster);
    assert_eq!(intact(&cluster, &database), 5);
    let mut reader = PgReader::connect(&options(cluster.url(&database))).unwrap();
    assert_eq!(reader.size(), 5);
    let mut ranks = Vec::new();
    let findings = reader.for_each(None, &mut |row| {
        ranks.push(row.pos);
        if row.pos == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((ranks, findings.unwrap().len()), (vec![1, 2, 3, 4], 0));
    let mut verifier = Verifier::of_stream(reader.ledger());
    let mut seqs = Vec::new();
    let mut take = |row: &ledger::Row<'_>| {
        verifier.push(row);
        seqs.push(row.seq);
        ControlFlow::Continue(())
    };
    reader.for_each(Some(&stream("a")), &mut take).unwrap();
    reader.for_each(Some(&stream("c")), &mut take).unwrap();
    assert_eq!(seqs, [0, 1, 2]);
    assert!(verifier.finish().intact());
}

#[test]
fn more_than_a_page_is_read_to_its_end() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let (database, writers) = writers(&cluster, 1);
    let name = stream("a");
    let drafts: Vec<_> = (0..1_000).map(|_| (&name, note())).collect();
    let mut author = Author::of(&*writers[0]);
    author.append(&*writers[0], &drafts);
    assert_eq!(intact(&cluster, &database), 1_000);
    author.append(&*writers[0], &drafts);
    author.append(&*writers[0], &[(&name, note())]);
    assert_eq!(intact(&cluster, &database), 2_001);
    let mut reader = PgReader::connect(&options(cluster.url(&database))).unwrap();
    let mut count = 0;
    let mut take = |_: &ledger::Row<'_>| {
        count += 1;
        ControlFlow::Continue(())
    };
    reader.for_each(Some(&name), &mut take).unwrap();
    assert_eq!(count, 2_001);
}

#[test]
fn a_view_stays_as_it_was_while_others_write() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let (database, writers) = writers(&cluster, 1);
    let mut author = Author::of(&*writers[0]);
    author.append(&*writers[0], &[(&stream("a"), note())]);
    let mut reader = PgReader::connect(&options(cluster.url(&database))).unwrap();
    author.append(&*writers[0], &[(&stream("a"), note())]);
    let mut count = 0;
    let findings = reader.for_each(None, &mut |_| {
        count += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((count, findings.unwrap().len()), (1, 0));
}

/// Whoever owns the table can change it; that is found.
#[test]
fn what_was_done_past_the_program_is_found() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let newest = "(SELECT max(pos) FROM receipts)";
    let newest_of_first = "(SELECT max(pos) FROM receipts WHERE log = 1)";
    let cases = [
        // A tail of stream and log, which no chain misses.
        (format!("DELETE FROM receipts WHERE pos = {newest}"), Verdict::AllPresent, true),
        ("DELETE FROM receipts WHERE log = 2".to_owned(), Verdict::AllPresent, true),
        (format!("DELETE FROM receipts WHERE pos = {newest_of_first}"), Verdict::AllPresent, false),
        ("DELETE FROM receipts".to_owned(), Verdict::AllPresent, true),
        (
            "UPDATE receipts SET log = 1, log_pos = 4 WHERE log = 2".to_owned(),
            Verdict::NoDuplicates,
            true,
        ),
        ("UPDATE receipts SET log = 9 WHERE log = 2".to_owned(), Verdict::ChainUnbroken, true),
        (
            "UPDATE logs SET root = decode(repeat('07', 32), 'hex') WHERE no = 1".to_owned(),
            Verdict::ChainUnbroken,
            true,
        ),
        ("UPDATE logs SET size = 1 WHERE no = 1".to_owned(), Verdict::ChainUnbroken, true),
        (
            "UPDATE streams SET last_hash = NULL WHERE name = 'a'".to_owned(),
            Verdict::ChainUnbroken,
            true,
        ),
        (
            "UPDATE receipts SET hash = decode('07', 'hex') WHERE log = 2 AND log_pos = 1"
                .to_owned(),
            Verdict::ChainUnbroken,
            false,
        ),
        (
            "UPDATE receipts SET core = '{}' WHERE log = 2 AND log_pos = 1".to_owned(),
            Verdict::ChainUnbroken,
            false,
        ),
        (
            "UPDATE receipts SET seq = -1 WHERE log = 2 AND log_pos = 1".to_owned(),
            Verdict::ChainUnbroken,
            false,
        ),
    ];
    let database = small(&cluster);
    cluster.sql(&database, "ALTER TABLE receipts DISABLE TRIGGER receipts_are_final").unwrap();
    for (change, verdict, only_by_logs) in cases {
        let copy = format!("{database}_copy");
        cluster.sql("postgres", &format!("CREATE DATABASE {copy} TEMPLATE {database}")).unwrap();
        cluster.sql(&copy, &change).unwrap();
        let (report, findings) = verified(&cluster, &copy);
        assert_eq!(report.intact(), only_by_logs, "{change}: {:?}", report.findings);
        let mut all = report.findings.iter().chain(&findings);
        assert!(all.any(|found| found.verdict == verdict), "{change}: {findings:?}");
        assert!(!only_by_logs || !findings.is_empty(), "{change}");
        cluster.sql("postgres", &format!("DROP DATABASE {copy}")).unwrap();
    }
    assert_eq!(intact(&cluster, &database), 5);
}
