//! The shipped rules as a rule file for Prometheus, against a copy that `promtool check rules`
//! accepts.

use std::path::Path;

use runbook::Rules;
use runbook::prometheus::rules_yaml;

#[test]
fn the_rule_file_is_the_golden_one() {
    let yaml = rules_yaml(&Rules::shipped().unwrap(), runbook::sli::INTERVAL.micros());
    let golden = include_str!("golden/alerts.rules.yml");
    if yaml != golden {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("alerts.rules.yml");
        std::fs::write(&made, &yaml).unwrap();
        panic!("check it with promtool and copy it over the golden file: {}", made.display());
    }
}

#[test]
fn the_interval_is_the_one_that_rules_are_evaluated_at() {
    for (interval_us, text) in [(15_000_000, "15s"), (60_000_000, "1m"), (500_000, "500ms")] {
        let yaml = rules_yaml(&Rules::default(), interval_us);
        assert!(yaml.contains(&format!("interval: {text}\n")), "{yaml}");
    }
}

#[test]
fn every_sli_has_promql() {
    let minutes = runbook::Span::from_secs(300);
    for sli in runbook::SLIS {
        let promql = sli.promql(minutes);
        assert!(promql.contains('('), "{}", sli.name);
        let depth = promql.chars().fold(0_i32, |depth, c| match c {
            '(' => depth + 1,
            ')' => depth - 1,
            _ => depth,
        });
        assert_eq!(depth, 0, "{promql}");
    }
}
