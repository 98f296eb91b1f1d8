//! The generated pages about the front door: routes, reasons and the OpenAPI document, each made
//! from its one table.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use types::Reason;
use types::reason::Blame;

fn check(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/generated").join(name);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, made).expect("the page can be written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "{name} is stale: run `cargo xtask gen`");
}

#[test]
fn routes() {
    let mut page = String::from(
        "# Routes\n\nMade from the route table of the gateway; `cargo xtask gen` writes it.\n\n\
         | method | path | needs | what |\n|---|---|---|---|\n",
    );
    for route in gateway::ROUTES {
        let needs = match route.access {
            gateway::Access::Open => "nothing".to_owned(),
            gateway::Access::Scope(scope) => format!("`{}`", scope.as_str()),
        };
        let (method, path, summary) = (route.method, route.path, route.summary);
        page.push_str(&format!("| {method} | `{path}` | {needs} | {summary} |\n"));
    }
    check("routes.md", &page);
}

#[test]
fn reasons() {
    let mut page = String::from(
        "# Reasons\n\nWhy a request is refused. Made from the reason table; `cargo xtask gen` \
         writes it.\n\n| reason | status | retry may help | who acts | meaning |\n|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let retry = if reason.retryable() { "yes" } else { "no" };
        let who = match reason.blame() {
            Blame::Caller => "caller",
            Blame::Provider => "provider",
            Blame::Us => "operator",
        };
        page.push_str(&format!(
            "| `{}` | {} | {retry} | {who} | {} |\n",
            reason.code(),
            reason.status(),
            reason.help()
        ));
    }
    check("reasons.md", &page);
}

#[test]
fn openapi() {
    let document = gateway::openapi_document();
    let page = serde_json::to_string_pretty(&document).expect("a document is JSON");
    check("openapi.json", &(page + "\n"));
}
