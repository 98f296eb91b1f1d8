//! Conditions: what reads and what does not, and what samples say, computed by hand.

use proptest::prelude::*;

use super::*;
use crate::series::{Limits, Needs};
use crate::sli::SLIS;

const S: i64 = 1_000_000;

/// A scrape every 15 s from 0 on; each series has one value for each scrape.
type Columns<'a> = &'a [(&'a str, &'a [(&'a str, &'a str)], &'a [Option<f64>])];

fn store(condition: &Condition, columns: Columns<'_>) -> Store {
    let needs: Needs = [condition].into_iter().collect();
    let mut store = Store::new(needs, Limits::default());
    let rows = columns.iter().map(|(.., values)| values.len()).max().unwrap_or(0);
    for row in 0..rows {
        store.record(row as i64 * 15 * S, |put| {
            for (name, labels, values) in columns {
                if let Some(Some(value)) = values.get(row) {
                    put(name, labels, *value);
                }
            }
        });
    }
    store
}

fn read(text: &str, columns: Columns<'_>, now_s: i64) -> Vec<Reading> {
    let condition = Condition::parse(text).unwrap();
    condition.evaluate(&store(&condition, columns), now_s * S)
}

fn one(text: &str, columns: Columns<'_>, now_s: i64) -> (Verdict, Option<f64>) {
    let readings = read(text, columns, now_s);
    assert_eq!(readings.len(), 1, "{text}");
    (readings[0].verdict, readings[0].value)
}

fn some<const N: usize>(values: [f64; N]) -> [Option<f64>; N] {
    values.map(Some)
}

#[test]
fn every_form_reads_and_is_shown_canonically() {
    for (text, canonical) in [
        ("http.error_rate[5m] > 10%", "http.error_rate[5m] > 10%"),
        ("  http.error_rate [300s]>=0.5 %  ", "http.error_rate[5m] >= 0.5%"),
        ("memory.available[1m]<100MiB", "memory.available[1m] < 100MiB"),
        ("ai.error_rate{provider=*}[5m] > 10%", "ai.error_rate{provider=*}[5m] > 10%"),
        (
            r#"http.rate{ status = "500" , method="GET", route=* }[60m] <= 1.50/s"#,
            r#"http.rate{method="GET",route=*,status="500"}[1h] <= 1.5/s"#,
        ),
        (r#"http.rate{route="\"\\é"}[1m] > 1/s"#, r#"http.rate{route="\"\\é"}[1m] > 1/s"#),
        ("memory.slope[10m] < -2MiB/s", "memory.slope[10m] < -2MiB/s"),
        ("health.up[30s] == 0", "health.up[30s] == 0"),
        ("http.latency.p95[5m] > 500ms", "http.latency.p95[5m] > 500ms"),
    ] {
        let condition = Condition::parse(text).unwrap();
        assert_eq!(condition.to_string(), canonical);
        assert_eq!(Condition::parse(canonical).unwrap(), condition);
    }
}

#[test]
fn an_error_names_the_column_what_belongs_there_and_the_nearest_name() {
    for (text, column, expected, nearest) in [
        ("", 1, "the name of an SLI, such as http.error_rate", None),
        ("http.eror_rate[5m] > 1%", 1, "a known SLI", Some("http.error_rate")),
        ("  quux[5m] > 1%", 3, "a known SLI", None),
        (
            "ai.error_rate{provder=*}[5m] > 1%",
            15,
            "one of the SLI's labels: provider",
            Some("provider"),
        ),
        ("log.dropped{mount=*}[5m] > 1", 13, "no label: the SLI has none", None),
        ("ai.error_rate{}[5m] > 1%", 15, "the name of a label", None),
        ("ai.error_rate{provider}[5m] > 1%", 23, "=", None),
        ("ai.error_rate{provider=x}[5m] > 1%", 24, "a text in double quotes, or *", None),
        ("ai.error_rate{provider=* [5m] > 1%", 26, "a comma or }", None),
        ("ai.error_rate{provider=*,provider=*}[5m] > 1%", 26, "each label once", None),
        (r#"ai.error_rate{provider="é}[5m] > 1%"#, 36, "the end of the text: \"", None),
        ("http.error_rate > 1%", 17, "a window, such as [5m]", None),
        ("http.error_rate[] > 1%", 17, "a window, such as 5m", None),
        ("http.error_rate[5m > 1%", 19, "]", None),
        ("http.error_rate[5d] > 1%", 17, "a window of 30s to 1h", None),
        ("http.error_rate[29s] > 1%", 17, "a window of 30s to 1h", None),
        ("http.error_rate[61m] > 1%", 17, "a window of 30s to 1h", None),
        ("http.error_rate[5m] 1%", 21, "one of > >= < <= ==", None),
        ("http.error_rate[5m] != 1%", 21, "one of > >= < <= ==", None),
        ("http.error_rate[5m] > %", 23, "a number", None),
        ("http.error_rate[5m] > 1", 23, "a number in %", None),
        ("http.error_rate[5m] > 1ms", 23, "a number in %", None),
        ("health.up[30s] == 2", 19, "0 or 1", None),
        ("http.error_rate[5m] > 1% for 5m", 26, "the end of the condition", None),
    ] {
        let error = Condition::parse(text).unwrap_err();
        assert_eq!((error.column, error.expected.as_str()), (column, expected), "{text}");
        assert_eq!(error.nearest, nearest, "{text}");
    }
}

#[test]
fn an_error_text_repeats_nothing_that_was_written() {
    let error = Condition::parse("http.latency.p99{hunter2=*}[5m] > 1s").unwrap_err();
    assert_eq!(error.to_string(), "column 18: expected one of the SLI's labels: endpoint");
    let error = Condition::parse("http.rat[5m] > 1s").unwrap_err();
    assert_eq!(error.to_string(), "column 1: expected a known SLI; the nearest is http.rate");
}

const REQUESTS: &str = "http_requests_total";

#[test]
fn a_share_is_what_was_counted_within_the_window() {
    // 60 s: 40 requests, of which 4 failed; the 100 failures before the window do not count.
    let columns: Columns<'_> = &[
        (REQUESTS, &[("status", "200")], &some([0.0, 9.0, 18.0, 27.0, 36.0])),
        (REQUESTS, &[("status", "500")], &some([100.0, 101.0, 102.0, 103.0, 103.0])),
        (REQUESTS, &[("status", "503")], &some([7.0, 7.0, 7.0, 7.0, 8.0])),
        (REQUESTS, &[("status", "50")], &some([0.0, 0.0, 0.0, 0.0, 0.0])),
    ];
    assert_eq!(one("http.error_rate[1m] > 10%", columns, 60), (Verdict::Fails, Some(0.1)));
    assert_eq!(one("http.error_rate[1m] >= 10%", columns, 60), (Verdict::Holds, Some(0.1)));
    assert_eq!(one("http.rate[1m] == 0/s", columns, 60), (Verdict::Fails, Some(40.0 / 60.0)));
    assert_eq!(
        one(r#"http.rate{status="503"}[1m] > 0/s"#, columns, 60),
        (Verdict::Holds, Some(1.0 / 60.0))
    );
    let (verdict, burn) = one("slo.availability.burn[1m] > 999", columns, 60);
    assert_eq!(verdict, Verdict::Holds);
    assert!((burn.unwrap() - 1000.0).abs() < 1e-9);
}

#[test]
fn a_counter_that_falls_was_set_back_and_has_counted_since() {
    // 10 + (reset) 3 + 4 + 0.
    let columns: Columns<'_> =
        &[("tai_log_lines_dropped_total", &[], &some([50.0, 60.0, 3.0, 7.0, 7.0]))];
    assert_eq!(one("log.dropped[1m] > 16", columns, 60), (Verdict::Holds, Some(17.0)));
}

#[test]
fn nothing_is_extrapolated_to_the_ends_of_the_window() {
    // 30 requests in the 45 s that samples cover: Prometheus would say 40 within the minute.
    let columns: Columns<'_> = &[(REQUESTS, &[], &some([0.0, 10.0, 20.0, 30.0]))];
    assert_eq!(one("http.rate[1m] > 0/s", columns, 45).1, Some(30.0 / 45.0));
    let columns: Columns<'_> =
        &[("tai_log_lines_dropped_total", &[], &some([0.0, 10.0, 20.0, 30.0]))];
    assert_eq!(one("log.dropped[1m] > 0", columns, 45).1, Some(30.0));
}

#[test]
fn the_first_error_of_a_process_counts() {
    // The counter appears at 60 s with 30: the scrapes before did not have it, so it was zero.
    let columns: Columns<'_> = &[
        (REQUESTS, &[("status", "200")], &some([0.0, 30.0, 60.0, 90.0, 90.0])),
        (REQUESTS, &[("status", "500")], &[None, None, None, None, Some(30.0)]),
    ];
    assert_eq!(one("http.error_rate[1m] > 20%", columns, 60), (Verdict::Holds, Some(0.25)));
    assert_eq!(
        one(r#"http.rate{status="500"}[1m] > 0/s"#, columns, 60),
        (Verdict::Holds, Some(0.5))
    );
}

#[test]
fn what_is_covered_by_less_than_half_or_stale_says_nothing() {
    let condition = "memory.available[2m] < 1MiB";
    let values = |count: usize| vec![Some(5.0); count];
    let at = |count: usize, now: i64| {
        one(condition, &[("memory_available_bytes", &[], &values(count))], now).0
    };
    assert_eq!(at(0, 0), Verdict::NoData);
    assert_eq!(at(1, 0), Verdict::NoData);
    assert_eq!(at(4, 45), Verdict::NoData, "45 s of 120 s");
    assert_eq!(at(5, 60), Verdict::Holds, "60 s of 120 s");
    assert_eq!(at(5, 60 + 45), Verdict::Holds, "the newest is three intervals old");
    assert_eq!(at(5, 60 + 46), Verdict::NoData, "the newest is older than that");
}

#[test]
fn in_the_shortest_window_the_second_look_may_be_a_little_early() {
    let condition = Condition::parse("health.up[30s] == 0").unwrap();
    for (early_us, expected) in [
        (0, Verdict::Fails),
        (42_000, Verdict::Fails),
        (1_400_000, Verdict::Fails),
        (3_000_000, Verdict::NoData),
    ] {
        let mut store = Store::new([&condition].into_iter().collect(), Limits::default());
        let second_us = 120 * S - early_us;
        for at_us in [105 * S, second_us] {
            store.record(at_us, |put| put("health_up", &[], 1.0));
        }
        let reading = &condition.evaluate(&store, second_us)[0];
        assert_eq!(reading.verdict, expected, "{early_us}");
    }
}

#[test]
fn a_hole_in_the_samples_covers_nothing() {
    // Samples at 0, 15 and 90 to 120 s: 15 s and 30 s of the two minutes are covered.
    let mut values = vec![Some(5.0), Some(5.0), None, None, None, None];
    values.extend([Some(5.0); 3]);
    let columns: Columns<'_> = &[("memory_available_bytes", &[], &values)];
    let reading = &read("memory.available[2m] < 1MiB", columns, 120)[0];
    assert_eq!(reading.verdict, Verdict::NoData);
    assert!((reading.evidence.coverage - 45.0 / 120.0).abs() < 1e-9);
    assert_eq!((reading.evidence.samples, reading.evidence.series), (5, 1));
    // Two that are missing are no hole.
    let values = [Some(5.0), None, None, Some(5.0), Some(5.0)];
    let columns: Columns<'_> = &[("memory_available_bytes", &[], &values)];
    assert_eq!(one("memory.available[1m] < 1MiB", columns, 60).0, Verdict::Holds);
}

#[test]
fn too_little_traffic_is_neither_good_nor_bad() {
    // 3 requests in 60 s are 0.05 a second, which is not above the floor; 4 are.
    let of = |requests: f64| {
        let values = some([0.0, 0.0, 0.0, 0.0, requests]);
        let columns: Columns<'_> = &[(REQUESTS, &[("status", "500")], &values)];
        (one("http.error_rate[1m] > 1%", columns, 60), one("http.error_rate[1m] < 1%", columns, 60))
    };
    let nothing = (Verdict::TooLittle, None);
    assert_eq!(of(3.0), (nothing, nothing));
    assert_eq!(of(4.0), ((Verdict::Holds, Some(1.0)), (Verdict::Fails, Some(1.0))));
}

#[test]
fn no_error_among_requests_is_zero_and_no_metric_at_all_is_no_data() {
    let columns: Columns<'_> = &[(REQUESTS, &[("status", "200")], &some([0.0, 9.0, 18.0]))];
    assert_eq!(one("http.error_rate[30s] < 1%", columns, 30), (Verdict::Holds, Some(0.0)));
    assert_eq!(one("http.429.spike[30s] == 0", columns, 30), (Verdict::Holds, Some(0.0)));
    assert_eq!(
        one(r#"http.rate{route="/y"}[30s] == 0/s"#, columns, 30),
        (Verdict::Holds, Some(0.0))
    );
    assert_eq!(one("validation.error.spike[30s] == 0", columns, 30), (Verdict::NoData, None));
    assert_eq!(one("memory.available[30s] < 1MiB", columns, 30), (Verdict::NoData, None));
}

#[test]
fn each_value_of_a_label_is_a_case_of_its_own() {
    const FAILED: &str = "ai_request_errors_total";
    const ENDED: &str = "ai_requests_total";
    let columns: Columns<'_> = &[
        (FAILED, &[("provider", "a"), ("error_type", "x")], &some([0.0, 10.0, 20.0])),
        (FAILED, &[("provider", "b"), ("error_type", "x")], &some([0.0, 1.0, 2.0])),
        (ENDED, &[("provider", "b"), ("status", "success")], &some([0.0, 9.0, 18.0])),
        (ENDED, &[("provider", "b"), ("status", "error")], &some([0.0, 99.0, 198.0])),
    ];
    let readings = read("ai.error_rate{provider=*}[30s] > 10%", columns, 30);
    let found: Vec<(Option<&str>, Verdict, Option<f64>)> = readings
        .iter()
        .map(|reading| (reading.labels.get("provider"), reading.verdict, reading.value))
        .collect();
    assert_eq!(
        found,
        [(Some("a"), Verdict::Holds, Some(1.0)), (Some("b"), Verdict::Fails, Some(0.1)),]
    );
    assert_eq!(
        one(r#"ai.error_rate{provider="b"}[30s] >= 10%"#, columns, 30),
        (Verdict::Holds, Some(0.1))
    );
    let (verdict, value) = one("ai.error_rate[30s] > 50%", columns, 30);
    assert_eq!((verdict, value), (Verdict::Holds, Some(22.0 / 40.0)));
    let none = read("ai.error_rate{provider=*}[30s] > 10%", &[], 30);
    assert_eq!(none.len(), 1);
    assert_eq!((none[0].verdict, none[0].labels.is_empty()), (Verdict::NoData, true));
}

#[test]
fn a_quantile_is_taken_over_all_series_of_the_window() {
    const BUCKET: &str = "http_request_duration_seconds_bucket";
    let columns: Columns<'_> = &[
        (BUCKET, &[("route", "/a"), ("le", "1")], &some([50.0, 80.0, 140.0])),
        (BUCKET, &[("route", "/a"), ("le", "2")], &some([50.0, 80.0, 145.0])),
        (BUCKET, &[("route", "/a"), ("le", "+Inf")], &some([50.0, 80.0, 145.0])),
        (BUCKET, &[("route", "/b"), ("le", "1")], &some([0.0, 0.0, 0.0])),
        (BUCKET, &[("route", "/b"), ("le", "2")], &some([0.0, 3.0, 5.0])),
        (BUCKET, &[("route", "/b"), ("le", "+Inf")], &some([0.0, 3.0, 5.0])),
    ];
    // 100 observations: 90 up to 1 s, 100 up to 2 s. The 95th is half way between.
    assert_eq!(one("http.latency.p95[30s] > 1s", columns, 30), (Verdict::Holds, Some(1.5)));
    // Nothing was observed.
    let idle: Columns<'_> = &[(BUCKET, &[("le", "+Inf")], &some([5.0, 5.0, 5.0]))];
    assert_eq!(one("http.latency.p95[30s] < 1s", idle, 30), (Verdict::TooLittle, None));
    // Milliseconds are shown as seconds.
    const APPEND: &str = "tai_receipt_storage_duration_ms_bucket";
    let columns: Columns<'_> = &[
        (APPEND, &[("operation", "append"), ("le", "500")], &some([0.0, 0.0, 0.0])),
        (APPEND, &[("operation", "append"), ("le", "1000")], &some([0.0, 5.0, 10.0])),
        (APPEND, &[("operation", "append"), ("le", "+Inf")], &some([0.0, 5.0, 10.0])),
        (APPEND, &[("operation", "read"), ("le", "+Inf")], &some([0.0, 500.0, 1000.0])),
    ];
    assert_eq!(one("ledger.write.p95[30s] > 500ms", columns, 30), (Verdict::Holds, Some(0.975)));
}

#[test]
fn a_level_is_averaged_and_a_flag_is_up_if_it_was_up_once() {
    let columns: Columns<'_> = &[
        ("memory_available_bytes", &[], &some([10.0, 20.0, 60.0])),
        ("health_up", &[], &some([0.0, 1.0, 0.0])),
        ("process_resident_memory_bytes", &[], &some([90.0, 90.0, 90.0])),
        ("memory_limit_bytes", &[], &some([100.0, 100.0, 100.0])),
        ("process_cpu_seconds_total", &[], &some([3.0, 18.0, 33.0])),
        ("host_cpus", &[], &some([2.0, 2.0, 2.0])),
        ("receipts_emitted_total", &[], &some([0.0, 5.0, 12.0])),
        ("receipts_durable_total", &[], &some([0.0, 5.0, 8.0])),
        ("tai_receipts_spooled", &[], &some([0.0, 0.0, 3.0])),
    ];
    for (text, value) in [
        ("memory.available[30s] < 30B", 30.0),
        ("health.up[30s] == 1", 1.0),
        ("memory.used_ratio[30s] > 90%", 0.9),
        ("cpu.used_ratio[30s] > 50%", 0.5),
        ("receipts.unaccounted[30s] > 0", 1.0),
    ] {
        assert_eq!(one(text, columns, 30).1, Some(value), "{text}");
    }
}

#[test]
fn a_slope_tells_a_leak_from_a_level() {
    // 2 bytes a second from 100 on: 160 after 30 s, 3760 half an hour later.
    let columns: Columns<'_> = &[
        ("process_resident_memory_bytes", &[], &some([100.0, 130.0, 160.0])),
        ("memory_limit_bytes", &[], &some([1000.0, 1000.0, 1000.0])),
    ];
    let (verdict, slope) = one("memory.slope[30s] > 1B/s", columns, 30);
    assert_eq!(verdict, Verdict::Holds);
    assert!((slope.unwrap() - 2.0).abs() < 1e-9);
    let (verdict, share) = one("memory.forecast[30s] > 100%", columns, 30);
    assert_eq!(verdict, Verdict::Holds);
    assert!((share.unwrap() - 3.76).abs() < 1e-9);
}

#[test]
fn a_spike_is_far_above_what_was_usual_within_the_hour() {
    // An hour of one error in 10 s, then two minutes of more.
    let spike = |per_scrape: f64| {
        let before = (0..=240).map(|row| Some(f64::from(row) * 1.5));
        let after = (1..=8).map(|row| Some(360.0 + f64::from(row) * per_scrape));
        let values: Vec<Option<f64>> = before.chain(after).collect();
        let columns: Columns<'_> = &[("tai_pubsub_errors_total", &[], &values)];
        let reading = read("pubsub.error_rate.spike[2m] == 1", columns, 3720).remove(0);
        (reading.value, reading.evidence.parts)
    };
    assert_eq!(spike(4.5), (Some(0.0), vec![("rate", 0.3), ("usual", 0.1)]), "three times");
    assert_eq!(spike(4.6).0, Some(1.0), "more than three times");
    assert_eq!(spike(1.5).0, Some(0.0));
}

#[test]
fn a_reading_explains_itself() {
    let columns: Columns<'_> = &[
        (REQUESTS, &[("status", "200")], &some([0.0, 9.0, 18.0])),
        (REQUESTS, &[("status", "500")], &some([0.0, 1.0, 2.0])),
    ];
    let reading = &read("http.error_rate[30s] > 5%", columns, 35)[0];
    assert_eq!(
        reading.explain(35 * S),
        "10% against 5%: 4 samples of 2 series, oldest 20 s ago, newest 5 s ago, covering 67% of \
         the window, part 1.000, whole 10.000"
    );
    let nothing = &read("http.error_rate[30s] > 5%", &[], 35)[0];
    assert!(nothing.explain(35 * S).starts_with("no data against 5%: 0 samples of 0 series"));
}

/// Any condition that there can be.
fn conditions() -> impl Strategy<Value = String> {
    let ops = prop::sample::select(vec![">", ">=", "<", "<=", "=="]);
    let number = prop_oneof![
        (0_u32..1_000_000).prop_map(|n| n.to_string()),
        (0_u64..=999_999_999_999_999, 0_u32..1_000_000).prop_map(|(n, f)| format!("{n}.{f:06}")),
        (1_u32..100).prop_map(|n| format!("-{n}")),
    ];
    let value = prop_oneof![
        Just("*".to_owned()),
        "[^\\pC\"\\\\]{0,20}".prop_map(|text| format!("\"{text}\"")),
        Just(r#""a\"b\\c""#.to_owned()),
    ];
    let sli = (0..SLIS.len(), any::<u8>(), prop::collection::vec(value, 4));
    (sli, 30_i64..=3600, ops, number, any::<bool>()).prop_map(
        |((sli, mask, values), window, op, number, has_space)| {
            let sli = &SLIS[sli];
            let chosen = sli.labels.iter().zip(&values).enumerate();
            let chosen = chosen.filter(|(at, _)| mask & (1 << at) != 0);
            let pairs: Vec<String> =
                chosen.map(|(_, (name, value))| format!("{name}={value}")).collect();
            let braces =
                if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
            let (number, unit) = match sli.unit {
                Unit::Ratio => (number, "%"),
                Unit::Seconds => (number, "ms"),
                Unit::Bytes => (number, "GiB"),
                Unit::PerSecond => (number, "/s"),
                Unit::BytesPerSecond => (number, "KiB/s"),
                Unit::Count => (number, ""),
                Unit::Flag => ("1".to_owned(), ""),
            };
            let space = if has_space { " " } else { "" };
            format!("{}{braces}{space}[{window}s]{space}{op}{space}{number}{space}{unit}", sli.name)
        },
    )
}

proptest! {
    #[test]
    fn what_is_shown_reads_back_as_the_same(text in conditions()) {
        let condition = Condition::parse(&text).unwrap();
        let shown = condition.to_string();
        let again = Condition::parse(&shown).unwrap();
        prop_assert_eq!(&again, &condition);
        prop_assert_eq!(again.to_string(), shown);
    }

    #[test]
    fn any_text_reads_or_is_refused_at_a_column_within_it(text in ".{0,80}") {
        if let Err(error) = Condition::parse(&text) {
            prop_assert!(error.offset <= text.len() && text.is_char_boundary(error.offset));
            prop_assert_eq!(error.column, text[..error.offset].chars().count() + 1);
        }
    }

    #[test]
    fn a_condition_with_one_character_changed_reads_or_is_refused_within_it(
        text in conditions(), at in any::<prop::sample::Index>(), with in any::<char>(),
    ) {
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        chars[at] = with;
        let text: String = chars.into_iter().collect();
        if let Err(error) = Condition::parse(&text) {
            prop_assert!(error.offset <= text.len() && text.is_char_boundary(error.offset));
            prop_assert!(!error.expected.is_empty());
        }
    }
}
