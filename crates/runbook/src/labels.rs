//! Labels of a series, of a reading and of an alert.

use std::fmt;

/// Names and values in ascending order of names. Plain data: an alert is known by its rule and
/// these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// The value of a label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(held, _)| held.as_str().cmp(name)).ok()?;
        self.0.get(at).map(|(_, value)| value.as_str())
    }

    /// Names and values in ascending order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True where no label that both have differs: an alert of the process concerns one of a
    /// provider, an alert of another provider does not.
    #[must_use]
    pub fn agree(&self, other: &Labels) -> bool {
        self.iter().all(|(name, value)| other.get(name).is_none_or(|held| held == value))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Labels {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Labels {
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
        let mut pairs: Vec<(String, String)> = pairs.collect();
        pairs.sort();
        pairs.dedup_by(|a, b| a.0 == b.0);
        Labels(pairs)
    }
}

impl Labels {
    /// Reads what [`fmt::Display`] writes; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Labels> {
        if text.is_empty() {
            return Some(Labels::default());
        }
        let mut rest = text.strip_prefix('{')?.strip_suffix('}')?;
        let mut pairs: Vec<(String, String)> = Vec::new();
        while !rest.is_empty() {
            let (name, behind) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = behind.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next()?.1 {
                        'n' => '\n',
                        c => c,
                    }),
                    (_, c) => value.push(c),
                }
            };
            pairs.push((name.to_owned(), value));
            rest = &behind[end + 1..];
            if !rest.is_empty() {
                rest = rest.strip_prefix(',').filter(|rest| !rest.is_empty())?;
            }
        }
        let labels: Labels = pairs.into_iter().collect();
        // Only the one way of writing it: two texts are never one alert.
        (labels.to_string() == text).then_some(labels)
    }
}

/// `{provider="openai"}`, and nothing where there is no label.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.iter().enumerate() {
            write!(f, "{}{name}={}", if at == 0 { "{" } else { "," }, Quoted(value))?;
        }
        f.write_str(if self.is_empty() { "" } else { "}" })
    }
}

/// A text in double quotes, as conditions, PromQL and YAML read it.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_known_by_name_whatever_their_order() {
        let one: Labels = [("b", "2"), ("a", "1\"")].into_iter().collect();
        let other: Labels = [("a", "1\""), ("b", "2")].into_iter().collect();
        assert_eq!(one, other);
        assert_eq!(one.to_string(), r#"{a="1\"",b="2"}"#);
        assert_eq!((one.get("b"), one.get("c")), (Some("2"), None));
    }

    #[test]
    fn labels_are_read_as_they_are_written() {
        let all: [&[(&str, &str)]; 4] =
            [&[], &[("a", "")], &[("a", "1\"\\\n"), ("b", "x,y=\"}")], &[("a", "{")]];
        for pairs in all {
            let labels: Labels = pairs.iter().copied().collect();
            assert_eq!(Labels::parse(&labels.to_string()), Some(labels));
        }
        let others = [
            "{",
            "{}",
            "{a}",
            "{a=\"1\",}",
            "{a=\"1\"",
            "{b=\"1\",a=\"1\"}",
            "x",
            "{a=\"1\"b=\"2\"}",
        ];
        assert!(others.iter().all(|text| Labels::parse(text).is_none()));
    }

    #[test]
    fn labels_agree_where_none_that_both_have_differs() {
        let openai: Labels = [("provider", "openai")].into_iter().collect();
        let other: Labels = [("provider", "anthropic")].into_iter().collect();
        let mount: Labels = [("mount", "logs")].into_iter().collect();
        assert!(openai.agree(&Labels::default()) && Labels::default().agree(&openai));
        assert!(openai.agree(&mount) && !openai.agree(&other));
    }
}
