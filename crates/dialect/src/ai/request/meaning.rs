//! What a request for an answer means, in no dialect.
//!
//! Owns: the neutral shape between any two dialects. Refuses to know: how it is written anywhere.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Number;
use serde_json::value::RawValue;

/// A request. Texts are borrowed from its body where they are written without escapes.
#[derive(Debug, Default)]
pub(super) struct Chat<'a> {
    /// What stands before the conversation, in order.
    pub(super) system: Vec<Cow<'a, str>>,
    /// The conversation; no two neighbours have the same role.
    pub(super) turns: Vec<Turn<'a>>,
    pub(super) tools: Vec<Tool<'a>>,
    pub(super) choice: Option<Choice<'a>>,
    /// Whether several tools may be called at once, where the request says so.
    pub(super) parallel: Option<bool>,
    pub(super) format: Format<'a>,
    pub(super) output_max: Option<u64>,
    pub(super) temperature: Option<Number>,
    pub(super) top_p: Option<Number>,
    pub(super) top_k: Option<u64>,
    pub(super) seed: Option<Number>,
    pub(super) presence_penalty: Option<Number>,
    pub(super) frequency_penalty: Option<Number>,
    pub(super) stop: Vec<Cow<'a, str>>,
    pub(super) thinking: Thinking<'a>,
    pub(super) streams: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    User,
    Assistant,
}

#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) role: Role,
    pub(super) pieces: Vec<Piece<'a>>,
}

#[derive(Debug)]
pub(super) enum Piece<'a> {
    Text(Cow<'a, str>),
    Picture(Picture<'a>),
    Call(Call<'a>),
    Outcome(Outcome<'a>),
}

#[derive(Debug)]
pub(super) enum Picture<'a> {
    Data { media_type: Cow<'a, str>, base64: Cow<'a, str> },
    Url(Cow<'a, str>),
}

/// A call of a tool that the model asked for.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) id: Cow<'a, str>,
    pub(super) name: Cow<'a, str>,
    /// A JSON object.
    pub(super) arguments: Cow<'a, str>,
    /// Gemini's seal on the call.
    pub(super) signature: Option<Cow<'a, str>>,
}

/// What came of a call.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) call_id: Cow<'a, str>,
    pub(super) texts: Vec<Cow<'a, str>>,
    pub(super) pictures: Vec<Picture<'a>>,
    pub(super) is_error: bool,
}

#[derive(Debug)]
pub(super) struct Tool<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) description: Option<Cow<'a, str>>,
    pub(super) schema: Option<&'a RawValue>,
    pub(super) is_strict: bool,
}

#[derive(Debug)]
pub(super) enum Choice<'a> {
    Auto,
    None,
    Any,
    Tool(Cow<'a, str>),
}

#[derive(Debug, Default)]
pub(super) enum Format<'a> {
    #[default]
    Text,
    Json,
    Schema {
        name: Option<Cow<'a, str>>,
        schema: &'a RawValue,
        is_strict: bool,
    },
}

/// How much the model is to think first.
#[derive(Debug, Default)]
pub(super) enum Thinking<'a> {
    #[default]
    Unsaid,
    Off,
    /// OpenAI's word.
    Effort(Cow<'a, str>),
    /// Tokens at most.
    Budget(u64),
}

impl<'a> Chat<'a> {
    /// Puts pieces at the end of the conversation.
    pub(super) fn say(&mut self, role: Role, pieces: impl IntoIterator<Item = Piece<'a>>) {
        match self.turns.last_mut() {
            Some(last) if last.role == role => last.pieces.extend(pieces),
            _ => self.turns.push(Turn { role, pieces: pieces.into_iter().collect() }),
        }
    }

    /// The names of the tools that the calls of the conversation were for, by the ids of the calls.
    pub(super) fn tools_of_calls(&self) -> HashMap<&str, &str> {
        let mut names = HashMap::new();
        for piece in self.turns.iter().flat_map(|turn| &turn.pieces) {
            if let Piece::Call(call) = piece {
                names.entry(call.id.as_ref()).or_insert(call.name.as_ref());
            }
        }
        names
    }
}
