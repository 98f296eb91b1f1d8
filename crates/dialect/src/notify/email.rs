//! Mail.
//!
//! Owns: subject, text, HTML, and the id by which a repeat can be recognised. Refuses to know:
//! MIME, SMTP and addresses.

use super::text::{fit, line, token};
use super::{Notice, seconds};

/// Characters of a subject.
const SUBJECT_CHARS: usize = 200;
/// Characters of the text.
const TEXT_CHARS: usize = 40_000;
/// Alerts that are listed.
const ALERTS_MAX: usize = 50;

/// A mail without its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// One line.
    pub subject: String,
    /// Plain text.
    pub text: String,
    /// The same as HTML, escaped.
    pub html: String,
    /// The part of the `Message-ID` before the `@`: one notice has one, however often it is sent.
    pub id: String,
    /// The same for the incident: mails that refer to it are shown as one conversation.
    pub thread: String,
}

/// The mail.
#[must_use]
pub fn mail(notice: &Notice) -> Mail {
    let (headline, rows) = (notice.headline(), rows(notice));
    let text = fit(&notice.text, TEXT_CHARS);
    let mut plain = format!("{headline}\n\n{text}\n\n");
    let mut html = format!(
        "<!doctype html><html><body><h2>{}</h2><pre style=\"white-space:pre-wrap\">{}</pre><table>",
        escaped(&headline),
        escaped(&text)
    );
    for (name, value) in rows {
        plain.push_str(&format!("{name}: {value}\n"));
        let (name, value) = (escaped(&name), escaped(&value));
        html.push_str(&format!("<tr><th align=\"left\">{name}</th><td>{value}</td></tr>"));
    }
    html.push_str("</table></body></html>");
    Mail {
        subject: fit(
            &format!("[{}] {headline}", notice.kind.as_str().to_uppercase()),
            SUBJECT_CHARS,
        ),
        text: plain,
        html,
        id: token(&notice.id),
        thread: token(&notice.incident),
    }
}

fn rows(notice: &Notice) -> Vec<(String, String)> {
    let mut rows = vec![
        ("Severity".to_owned(), notice.severity_name().to_owned()),
        ("Component".to_owned(), line(&notice.component).into_owned()),
        ("Opened".to_owned(), seconds(notice.opened_at_us)),
        ("At".to_owned(), seconds(notice.at_us)),
    ];
    // As text and not as a link: where it leads is then what is read.
    if let Some(link) = notice.link() {
        rows.push(("More".to_owned(), link));
    }
    let (first, more) = notice.first_alerts(ALERTS_MAX);
    for alert in first {
        let value = alert.value.as_deref().map(|value| format!(" ({value})")).unwrap_or_default();
        let message = line(&format!("{}{value}", alert.message)).into_owned();
        rows.push((format!("Alert {}", line(&alert.rule_id)), message));
    }
    if more > 0 {
        rows.push(("Alerts not shown".to_owned(), more.to_string()));
    }
    rows
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
