//! What the fake model says: the same words in every dialect, so that an answer which two providers
//! gave together can be checked to the letter.
//!
//! Owns: the words, the calls of tools, and what they cost. Refuses to know: any dialect.

use serde_json::{Map, Value, json};

use super::Manner;

/// Bytes of one token of a document or of the arguments of a tool.
const PIECE_BYTES: usize = 6;
const PICTURE_TOKENS: u64 = 85;
const MESSAGE_TOKENS: u64 = 4;
const TOOL_TOKENS: u64 = 12;

/// The first `tokens` tokens of what every model says: `w0 w1 w2 w3 ü4 w5 …`.
#[must_use]
pub fn text(tokens: usize) -> String {
    (0..tokens).map(token).collect()
}

/// A token of the text. Each fifth holds a letter of two bytes, so that a cut can part it.
fn token(at: usize) -> String {
    let blank = if at == 0 { "" } else { " " };
    let letter = if at % 5 == 4 { 'ü' } else { 'w' };
    format!("{blank}{letter}{at}")
}

/// What a request asks for, whatever its dialect.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) is_stream: bool,
    /// A stream says what it used; that of OpenAI only when asked to.
    pub(super) wants_usage: bool,
    pub(super) prompt_tokens: u64,
    pub(super) pictures: usize,
    pub(super) tokens_max: Option<u64>,
    /// The start of the answer, which is to be gone on with.
    pub(super) prefix: String,
    /// A document instead of words: of this schema, or any for `Null`.
    pub(super) document: Option<Value>,
    /// Those that are to be called.
    pub(super) tools: Vec<Tool>,
}

impl Asked {
    /// Counts a message of the prompt, or an instruction.
    pub(super) fn count_message(&mut self) {
        self.prompt_tokens += MESSAGE_TOKENS;
    }

    pub(super) fn count_text(&mut self, text: &str) {
        self.prompt_tokens += text.split_whitespace().count() as u64;
    }

    pub(super) fn count_picture(&mut self) {
        self.pictures += 1;
        self.prompt_tokens += PICTURE_TOKENS;
    }

    /// Every tool that is offered costs; those in `self.tools` are called.
    pub(super) fn count_tools(&mut self, offered: usize) {
        self.prompt_tokens += TOOL_TOKENS * offered as u64;
    }
}

/// A tool that is offered.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) schema: Value,
}

/// How the caller chooses among tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    Auto,
    None,
    Any,
    Named(String),
}

/// The tools to call: of those offered each one once, unless the result of one has just come or the
/// caller says otherwise.
pub(super) fn called(
    offered: Vec<Tool>,
    choice: &Choice,
    result_came: bool,
    is_parallel: bool,
) -> Vec<Tool> {
    let mut called: Vec<Tool> = match choice {
        Choice::None => Vec::new(),
        Choice::Auto if result_came => Vec::new(),
        Choice::Auto | Choice::Any => offered,
        Choice::Named(name) => offered.into_iter().filter(|tool| tool.name == *name).collect(),
    };
    if !is_parallel {
        called.truncate(1);
    }
    called
}

/// A call of a tool.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: Value,
    /// The arguments as text, token by token.
    pub(super) pieces: Vec<String>,
}

/// What is said, and what it costs.
#[derive(Debug)]
pub(super) struct Answer {
    /// Unique among all fakes of a machine.
    pub(super) serial: String,
    pub(super) model: String,
    pub(super) tokens: Vec<String>,
    pub(super) calls: Vec<Call>,
    /// The caller's limit came before the end.
    pub(super) is_cut_short: bool,
    pub(super) tokens_per_chunk: usize,
    pub(super) with_usage: bool,
    pub(super) with_finish: bool,
    pub(super) prompt: u64,
    pub(super) cached: u64,
    pub(super) cache_written: u64,
    pub(super) reasoning: u64,
}

impl Answer {
    pub(super) fn new(serial: String, asked: &Asked, manner: &Manner) -> Answer {
        let mut tokens = match &asked.document {
            Some(Value::Null) => pieces(&json!({"words": (0..manner.tokens).collect::<Vec<_>>()})),
            Some(schema) => pieces(&sample(schema)),
            None if !asked.tools.is_empty() => Vec::new(),
            None => words(manner, &asked.prefix),
        };
        let calls = asked.tools.iter().map(call).collect();
        let max = asked.tokens_max.and_then(|max| usize::try_from(max).ok());
        let is_cut_short = max.is_some_and(|max| max < tokens.len());
        tokens.truncate(max.unwrap_or(usize::MAX));
        let cached = manner.cached_tokens.min(asked.prompt_tokens);
        Answer {
            serial,
            model: asked.model.clone(),
            tokens,
            calls,
            is_cut_short,
            tokens_per_chunk: manner.tokens_per_chunk.max(1),
            with_usage: true,
            with_finish: true,
            prompt: asked.prompt_tokens,
            cached,
            cache_written: manner.cache_written_tokens.min(asked.prompt_tokens - cached),
            reasoning: manner.reasoning_tokens,
        }
    }

    pub(super) fn text(&self) -> String {
        self.tokens.concat()
    }

    /// All tokens of the answer, without thoughts.
    pub(super) fn completion(&self) -> u64 {
        let calls: usize = self.calls.iter().map(|call| call.pieces.len()).sum();
        (self.tokens.len() + calls) as u64
    }

    /// The text as it is streamed: how many tokens, and what they say.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (u64, String)> {
        self.tokens.chunks(self.tokens_per_chunk).map(|some| (some.len() as u64, some.concat()))
    }
}

/// The words after those that were said already.
fn words(manner: &Manner, prefix: &str) -> Vec<String> {
    let said = (1..=manner.tokens).find(|&said| text(said) == prefix);
    let from = said.filter(|_| manner.continues).unwrap_or(0);
    (from..manner.tokens).map(token).collect()
}

fn call(tool: &Tool) -> Call {
    let arguments = sample(&tool.schema);
    Call { name: tool.name.clone(), pieces: pieces(&arguments), arguments }
}

fn pieces(value: &Value) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for letter in value.to_string().chars() {
        if pieces.last().is_some_and(|last| last.len() >= PIECE_BYTES) {
            pieces.push(String::new());
        }
        if let Some(last) = pieces.last_mut() {
            last.push(letter);
        }
    }
    pieces
}

/// A value that a JSON Schema of the simple kind permits.
fn sample(schema: &Value) -> Value {
    if let Some(constant) = schema.get("const") {
        return constant.clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    if let Some(first) = schema["anyOf"].as_array().and_then(|schemas| schemas.first()) {
        return sample(first);
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().and_then(Value::as_str),
        kind => kind.as_str(),
    };
    // Gemini writes the names of types in capitals.
    match kind.unwrap_or("object").to_ascii_lowercase().as_str() {
        "string" => json!("ü0"),
        "integer" => json!(7),
        "number" => json!(1.5),
        "boolean" => json!(true),
        "null" => Value::Null,
        "array" => json!([sample(&schema["items"])]),
        _ => {
            let properties = schema["properties"].as_object();
            let fields = properties.into_iter().flatten();
            Value::Object(fields.map(|(name, schema)| (name.clone(), sample(schema))).collect())
        }
    }
}

/// A vector of a text: multiples of 1/64, so that it is the same in every number format.
pub(super) fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let seed = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut dice = crate::dice::Dice::new(seed);
    let mut number = || i8::try_from(dice.below(129)).map_or(64.0, f32::from) - 64.0;
    (0..dimensions).map(|_| number() / 64.0).collect()
}

/// What a frame of a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Before any content.
    Opening,
    /// Tokens.
    Content,
    /// Why it ends, and what it cost.
    Closing,
    /// The mark of the end that has no other content.
    Done,
}

/// One event of a stream, as bytes that can be sent.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) part: Part,
    pub(super) tokens: u64,
    pub(super) bytes: String,
}

impl Event {
    /// An event that holds data only.
    pub(super) fn data(part: Part, tokens: u64, value: &Value) -> Event {
        Event { part, tokens, bytes: format!("data: {value}\n\n") }
    }
}

/// An object without what is null.
pub(super) fn object(fields: Value) -> Map<String, Value> {
    match fields {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(prefix: &str) -> Asked {
        Asked { prefix: prefix.to_owned(), prompt_tokens: 10, ..Asked::default() }
    }

    fn said(asked: &Asked, manner: &Manner) -> String {
        Answer::new(String::new(), asked, manner).text()
    }

    #[test]
    fn an_answer_goes_on_where_another_stopped() {
        let manner = Manner { tokens: 12, ..Manner::default() };
        let all = text(12);
        assert!(all.starts_with("w0 w1 w2 w3 ü4 w5"));
        assert_eq!(said(&asked(""), &manner), all);
        assert_eq!(text(5) + &said(&asked(&text(5)), &manner), all);
        assert_eq!(said(&asked("w0 w"), &manner), all, "not a place where a token ends");
        let stubborn = Manner { continues: false, ..manner };
        assert_eq!(said(&asked(&text(5)), &stubborn), all);
    }

    #[test]
    fn an_answer_is_cut_at_the_callers_limit() {
        let manner = Manner { tokens: 12, ..Manner::default() };
        let of = |tokens_max| {
            let asked = Asked { tokens_max, ..asked("") };
            let answer = Answer::new(String::new(), &asked, &manner);
            (answer.text(), answer.is_cut_short, answer.completion())
        };
        assert_eq!(of(Some(3)), (text(3), true, 3));
        assert_eq!(of(Some(12)), (text(12), false, 12));
        assert_eq!(of(None), (text(12), false, 12));
    }

    #[test]
    fn a_sample_is_what_the_schema_asks_for() {
        let schema = json!({"type": "object", "properties": {
            "city": {"type": "string"}, "unit": {"enum": ["c", "f"]}, "days": {"type": "INTEGER"},
            "parts": {"type": "array", "items": {"type": "number"}},
            "no": {"anyOf": [{"type": "null"}, {"type": "string"}]}, "on": {"type": ["boolean"]},
        }});
        let sample = sample(&schema);
        let expected =
            json!({"city": "ü0", "unit": "c", "days": 7, "parts": [1.5], "no": null, "on": true});
        assert_eq!(sample, expected);
        assert_eq!(pieces(&sample).concat(), sample.to_string());
        assert!(pieces(&sample).len() > 5);
    }

    #[test]
    fn tools_are_called_until_a_result_comes_or_when_they_must_be() {
        let tool = |name: &str| Tool { name: name.to_owned(), schema: Value::Null };
        let names = |choice: Choice, result_came: bool, is_parallel: bool| {
            let offered = vec![tool("a"), tool("b")];
            let called = called(offered, &choice, result_came, is_parallel);
            called.into_iter().map(|tool| tool.name).collect::<String>()
        };
        assert_eq!(names(Choice::Auto, false, true), "ab");
        assert_eq!(names(Choice::Auto, false, false), "a");
        assert_eq!(names(Choice::Auto, true, true), "");
        assert_eq!(names(Choice::Any, true, true), "ab");
        assert_eq!(names(Choice::None, false, true), "");
        assert_eq!(names(Choice::Named("b".to_owned()), true, true), "b");
    }

    #[test]
    fn vectors_follow_from_the_text_alone() {
        let vector = |text| vector(text, 8);
        assert_eq!(vector("a"), vector("a"));
        assert_ne!(vector("a"), vector("b"));
        assert!(vector("a").iter().all(|x| (-1.0..=1.0).contains(x) && (x * 64.0).fract() == 0.0));
    }
}
