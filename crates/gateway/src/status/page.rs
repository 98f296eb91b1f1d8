//! The status page as HTML.
//!
//! Owns: its words and its one style. Refuses to know: where the state comes from. No script, no
//! picture, nothing from elsewhere; text of others stands between tags only, never in an attribute.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use governors::IncidentStatus;
use governors::incident::MaintenancePhase;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};
use types::Micros;

use super::board::{Board, ComponentState, Item};
use super::planned::Window;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0 auto;max-width:46rem;padding:1rem}\
h1{font-size:1.5rem}h2{font-size:1.2rem;margin-top:2rem}h3{font-size:1rem;margin-bottom:0}\
table{border-collapse:collapse;width:100%}\
caption{font-weight:bold;text-align:left}\
th,td{border-bottom:1px solid;padding:.4rem 0;text-align:left}\
td,th{font-weight:normal;overflow-wrap:anywhere}\
article{border-left:.3rem solid;margin:1.5rem 0;padding-left:1rem}\
p,li{overflow-wrap:anywhere}\
.overall{border:2px solid;border-radius:.3rem;font-weight:bold;padding:.8rem}\
.stale{border:2px dashed;padding:.8rem}";

/// What a browser may load for the page: its style and nothing else.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    format!("default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'")
});

/// The same for the header, which may also say that nobody frames the page.
pub(super) fn policy_header() -> String {
    format!("{}; frame-ancestors 'none'", *POLICY)
}

/// The page of a board that was read at `as_of`; `age_s` where it could not be read again since.
pub(super) fn page(
    board: &Board,
    components: &[String],
    as_of: Micros,
    age_s: Option<i64>,
) -> String {
    let now = as_of.plus_secs(age_s.unwrap_or(0));
    let overall = board.overall(now);
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY.as_str());
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (super::NAME) ": " (overall) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (super::NAME) }
                    p.overall { (overall) }
                    p { "As of " (time(as_of)) ". If that is long ago, the service may be away." }
                    @if let Some(age_s) = age_s {
                        p.stale {
                            "This is the last known state, " (age_s) " seconds old: it could not "
                            "be read again since."
                        }
                    }
                }
                main {
                    (component_table(&board.components(components, now)))
                    @if board.plans.ahead(now).next().is_some() {
                        h2 { "Maintenance" }
                        @for held in board.plans.ahead(now) { (window(held, now)) }
                    }
                    h2 { "Incidents" }
                    @if board.open.is_empty() { p { "No incident is open." } }
                    @for item in board.open.iter().rev() { (incident(item)) }
                    @if !board.resolved.is_empty() {
                        h2 { "Resolved incidents" }
                        @for item in &board.resolved { (incident(item)) }
                    }
                    @if board.plans.completed(now).next().is_some() {
                        h2 { "Completed maintenance" }
                        @for held in board.plans.completed(now) { (window(held, now)) }
                    }
                }
            }
        }
    };
    markup.into_string()
}

fn component_table(components: &[(&str, ComponentState)]) -> Markup {
    html! {
        table {
            caption { "Components" }
            thead { tr { th scope="col" { "Component" } th scope="col" { "State" } } }
            tbody {
                @for (name, state) in components {
                    tr { th scope="row" { (name) } td { (state.words()) } }
                }
            }
        }
    }
}

fn incident(item: &Item) -> Markup {
    html! {
        article {
            h3 { (item.title) }
            p {
                (item.name) ", " (item.severity.as_str()) ", " (word(item.status)) ". "
                "Affects " (item.components.join(", ")) ". "
                "Began " (time(item.began)) ", opened " (time(item.opened))
                @if let Some(resolved) = item.resolved { ", resolved " (time(resolved)) }
                "."
            }
            @if !item.updates.is_empty() {
                ul {
                    @for said in item.updates.iter().rev() {
                        li {
                            (time(said.at)) ": " (word(said.status))
                            @if !said.text.is_empty() { ". " (said.text) }
                        }
                    }
                }
            }
        }
    }
}

fn window(held: &Window, now: Micros) -> Markup {
    let word = match held.phase(now) {
        MaintenancePhase::Scheduled => "Scheduled",
        MaintenancePhase::InProgress => "In progress",
        MaintenancePhase::Completed => "Completed",
    };
    html! {
        article {
            h3 { (held.title) }
            p {
                (held.name) ". " (word) ". "
                "Affects " (held.components.join(", ")) ". "
                "From " (time(held.from)) " until " (time(held.until)) "."
            }
            @if !held.text.is_empty() { p { (held.text) } }
        }
    }
}

const fn word(status: IncidentStatus) -> &'static str {
    match status {
        IncidentStatus::Investigating => "Investigating",
        IncidentStatus::Identified => "Identified",
        IncidentStatus::Monitoring => "Monitoring",
        IncidentStatus::Resolved => "Resolved",
    }
}

/// To the second: the rest is for receipts.
fn time(at: Micros) -> Markup {
    let text = at.to_string();
    let (date, clock) = (text.get(..10).unwrap_or_default(), text.get(11..19).unwrap_or_default());
    html! { time datetime={ (date) "T" (clock) "Z" } { (date) " " (clock) " UTC" } }
}
