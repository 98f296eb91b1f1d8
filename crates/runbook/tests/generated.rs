//! The committed page about SLIs is the table's own rendering.

use std::path::Path;

#[test]
fn the_page_matches_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/generated/slis.md");
    let page = runbook::sli::markdown();
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "docs/generated/slis.md is stale: run `cargo xtask gen`");
}
