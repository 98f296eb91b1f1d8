//! A line as people read it.
//!
//! Owns: the layout. Refuses to know how a line is made and redacted: it is made from the JSON, by
//! the writer, so that both forms say the same and a request pays for neither.

use serde_json::{Map, Value};

/// Members that stand in front, or say again what those say.
const IN_FRONT: [&str; 5] = ["timestamp", "level", "severity", "logger", "message"];

/// `TIME LEVEL LOGGER: message name=value other="two words" error.name=…`.
pub(super) fn readable(line: &str) -> String {
    let Ok(members) = serde_json::from_str::<Map<String, Value>>(line) else {
        return line.to_owned();
    };
    let text_of = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut text = [
        text_of("timestamp"),
        " ",
        text_of("level"),
        " ",
        &one_line(text_of("logger")),
        ": ",
        &one_line(text_of("message")),
    ]
    .concat();
    for (name, value) in members.iter().filter(|(name, _)| !IN_FRONT.contains(&name.as_str())) {
        match value {
            Value::Object(inner) => {
                inner
                    .iter()
                    .for_each(|(own, value)| push(&mut text, &format!("{name}.{own}"), value));
            }
            _ => push(&mut text, name, value),
        }
    }
    text
}

fn push(text: &mut String, name: &str, value: &Value) {
    text.push(' ');
    text.push_str(&one_line(name));
    text.push('=');
    match value {
        Value::String(plain) if is_plain(plain) => text.push_str(plain),
        _ => text.push_str(&value.to_string()),
    }
}

/// Can be told from what stands beside it without quotes.
fn is_plain(text: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\');
    !text.is_empty() && !text.contains(odd)
}

/// Without anything that ends a line, or moves the cursor of a terminal.
fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn a_line_for_people_has_every_member_once() {
        let head = r#"{"timestamp":"T","level":"WARN","severity":"WARNING","logger":"gateway","#;
        for (rest, text) in [
            (r#""message":"two words"}"#, "T WARN gateway: two words"),
            (
                r#""event":"e","message":"m","status":200,"ok":true,"path":"/a","note":"b c"}"#,
                r#"T WARN gateway: m event=e note="b c" ok=true path=/a status=200"#,
            ),
            (
                r#""message":"m","error":{"name":"Io","message":"a=b"},"none":null,"empty":""}"#,
                r#"T WARN gateway: m empty="" error.message="a=b" error.name=Io none=null"#,
            ),
            (
                r#""message":"a\nb\u001b[1m","redaction":"REDACTED"}"#,
                r"T WARN gateway: a\nb\u{1b}[1m redaction=REDACTED",
            ),
            (r#""message":"m","x":"a\nb"}"#, r#"T WARN gateway: m x="a\nb""#),
        ] {
            assert_eq!(readable(&[head, rest].concat()), text);
        }
        assert_eq!(readable("no JSON"), "no JSON");
    }
}
