//! The committed page about settings is the table's own rendering.

use std::path::Path;

#[test]
fn the_page_matches_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/generated/settings.md");
    let page = settings::markdown();
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/generated/settings.md is stale: run `cargo xtask gen`");
}

#[test]
fn the_page_has_a_row_for_each_setting() {
    let page = settings::markdown();
    for row in settings::table() {
        let line = page.lines().find(|line| line.starts_with(&format!("| `{}` |", row.name)));
        let line = line.unwrap_or_else(|| panic!("no row for {}", row.name));
        assert!(line.contains(row.help) && line.contains(&row.expected()), "{line}");
        assert_eq!(line.matches('|').count(), 6, "{line}");
        assert_eq!(line.contains("(secret)"), row.secret, "{line}");
        let live = line.split(" | ").nth(3);
        let expected = match (row.live, row.name) {
            (true, "RECEIPT_VERIFY_HASHES") => "yes, `false` leased only",
            (true, "RECEIPT_WRITES") => "yes, `open` leased only",
            (true, "VALIDATION_STRICT_MODE") => "yes, `false` leased only",
            (true, _) => "yes",
            (false, _) => "no",
        };
        assert_eq!(live, Some(expected), "{line}");
    }
}
