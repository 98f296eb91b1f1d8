//! The table of SLIs as a page of the documentation.
//!
//! Owns: the columns. Refuses to know: where the page is kept.

use std::fmt::Write as _;

use super::SLIS;
use crate::slo::OBJECTIVES;
use crate::unit::Span;

/// The window of the PromQL that is shown.
const WINDOW: Span = Span::from_secs(300);

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut page = "# SLIs\n\nMade by `cargo xtask gen` from the table in `crates/runbook/src/sli`. A condition \
                    compares one with a number of its unit over a window, as in `http.error_rate[5m] > 10%`; \
                    `tai ctl sli` shows them as they stand. The PromQL is over five minutes and all series.\n\n\
                    | SLI | unit | labels | says |\n|---|---|---|---|\n"
        .to_owned();
    for sli in SLIS {
        let labels = sli.labels.iter().map(|label| format!("`{label}`"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        let _ =
            writeln!(page, "| `{}` | {} | {labels} | {} |", sli.name, sli.unit.as_str(), sli.help);
    }
    page.push_str("\n## Definitions\n\n```promql\n");
    for sli in SLIS {
        let _ = writeln!(page, "# {}\n{}", sli.name, sli.promql(WINDOW));
    }
    page.push_str(
        "```\n\n## Objectives\n\nEach has a budget over 30 days: the share of requests that may be \
         bad.\n\n| `slo` | promises | may be bad |\n|---|---|---|\n",
    );
    for objective in &OBJECTIVES {
        let percent = objective.allowed * 100.0;
        let _ = writeln!(page, "| `{}` | {} | {percent} % |", objective.name, objective.help);
    }
    page
}
