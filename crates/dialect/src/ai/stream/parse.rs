//! One event of a stream as what it says.
//!
//! Owns: the members of each dialect's events that are looked at, and what has to be kept between
//! two of them: calls, choices, usage. Refuses to know: lines and blocks.

use serde::Deserialize;
use serde_json::value::RawValue;
use types::Usage;

use super::{BadStream, Block, Part};
use crate::ai::answer::Gemini;
use crate::ai::finish::{Ending, read as read_finish};
use crate::ai::object::string;
use crate::ai::{Api, Finish, ProviderError, usage};

/// Calls and choices of one answer; more is not an answer.
const MANY: usize = 1_024;

/// What is known of an answer that is on its way.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Choice, number and id of each call, in the order in which they began.
    calls: Vec<(u32, u32, String)>,
    /// Each choice that was seen, and whether it is complete.
    choices: Vec<(u32, bool)>,
    anthropic: usage::Anthropic,
    pub(super) usage: Option<Usage>,
    pub(super) finish: Option<Finish>,
    pub(super) text_bytes: u64,
    /// Usage was said with the end of the answer or behind it: before, it leaves the answer out.
    pub(super) usage_is_final: bool,
}

type Parts = Result<Vec<Part>, BadStream>;

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, BadStream> {
    serde_json::from_str(json).map_err(|_| BadStream::Malformed)
}

impl Progress {
    /// Whether every choice that was begun is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.finish.is_some() && self.choices.iter().all(|(_, is_done)| *is_done)
    }

    /// What the data of an event says; empty where it is nothing that there is a word for.
    pub(super) fn read(&mut self, from: Api, data: &str) -> Parts {
        let parts = match from {
            Api::OpenAi => self.openai(data),
            Api::Anthropic => self.anthropic(data),
            Api::Gemini => self.gemini(data),
        }?;
        let has_usage = parts.iter().any(|part| matches!(part, Part::Usage(_)));
        self.usage_is_final |= has_usage && self.finish.is_some();
        for part in &parts {
            self.text_bytes = self.text_bytes.saturating_add(match part {
                Part::Text(text) | Part::Refusal(text) => text.len() as u64,
                Part::Thought { text, .. } | Part::ToolArguments { text, .. } => text.len() as u64,
                Part::ToolStart { name, .. } => name.len() as u64,
                _ => 0,
            });
        }
        Ok(parts)
    }

    fn end(&mut self, from: Api, choice: u32, word: &str) -> Part {
        match read_finish(from, word) {
            Ending::Failed => Part::Error(ProviderError::failed(word)),
            Ending::Finish(finish) => {
                // Gemini has no word for it, and some others forget it.
                let asks =
                    finish == Finish::Stop && self.calls.iter().any(|(of, ..)| *of == choice);
                let finish = if asks { Finish::ToolCalls } else { finish };
                self.finish.get_or_insert(finish);
                for (of, is_done) in &mut self.choices {
                    *is_done |= *of == choice;
                }
                Part::Finish(finish)
            }
        }
    }

    fn saw_choice(&mut self, choice: u32) -> Result<(), BadStream> {
        if self.choices.iter().any(|(of, _)| *of == choice) {
            return Ok(());
        }
        if self.choices.len() >= MANY {
            return Err(BadStream::Malformed);
        }
        self.choices.push((choice, false));
        Ok(())
    }

    /// Takes down a new call; the answer is its place among all.
    fn begin_call(&mut self, choice: u32, number: u32, id: &str) -> Result<u32, BadStream> {
        if self.calls.len() >= MANY {
            return Err(BadStream::Malformed);
        }
        self.calls.push((choice, number, id.to_owned()));
        Ok(self.last_call())
    }

    fn last_call(&self) -> u32 {
        u32::try_from(self.calls.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// The place of a call that has begun. The last of several with one number: one provider gives
    /// all of them the number 0 and tells them apart by their ids.
    fn call(&self, choice: u32, number: u32, id: &str) -> Option<u32> {
        let at = self.calls.iter().rposition(|(of, known, known_id)| {
            *of == choice && *known == number && (id.is_empty() || known_id == id)
        })?;
        u32::try_from(at).ok()
    }

    fn openai(&mut self, data: &str) -> Parts {
        if data.trim() == "[DONE]" {
            return Ok(vec![Part::Done]);
        }
        let chunk: Chunk<'_> = parse(data)?;
        if chunk.error.is_some() {
            return Ok(vec![Part::Error(ProviderError::in_stream(Api::OpenAi, data))]);
        }
        let mut parts = Vec::new();
        let names_choices = chunk.choices.is_some();
        let choices = chunk.choices.unwrap_or_default();
        let has_choices = !choices.is_empty();
        for choice in choices {
            self.saw_choice(choice.index)?;
            if let Some(delta) = choice.delta {
                self.delta(choice.index, delta, &mut parts)?;
            }
            if let Some(word) = choice.finish_reason.filter(|word| !word.is_empty()) {
                parts.push(self.end(Api::OpenAi, choice.index, &word));
            }
        }
        // Before usage, so that a block is about usage alone only when it is.
        if parts.is_empty() && has_choices {
            parts.push(Part::Lifecycle);
        }
        if let Some(json) = chunk.usage
            && let Some(found) = usage::openai(json.get()).map_err(|_| BadStream::AbsurdUsage)?
        {
            self.usage = Some(found);
            parts.push(Part::Usage(found));
        }
        if parts.is_empty() {
            parts.push(if names_choices { Part::Lifecycle } else { Part::Other });
        }
        Ok(parts)
    }

    fn delta(
        &mut self,
        choice: u32,
        delta: Delta<'_>,
        parts: &mut Vec<Part>,
    ) -> Result<(), BadStream> {
        let some = |text: &String| !text.is_empty();
        let thought = delta.reasoning_content.or(delta.reasoning);
        if let Some(text) = thought.and_then(|json| string(json.get())).filter(|it| !it.is_empty())
        {
            parts.push(Part::Thought { text: text.into_owned(), signature: None });
        }
        match delta.content.map(|content| string(content.get())) {
            Some(Some(text)) if !text.is_empty() => parts.push(Part::Text(text.into_owned())),
            Some(None) => parts.push(Part::Other),
            _ => {}
        }
        if let Some(text) = delta.refusal.filter(some) {
            parts.push(Part::Refusal(text));
        }
        if delta.audio.is_some() {
            parts.push(Part::Other);
        }
        for call in delta.tool_calls.unwrap_or_default() {
            let function = call.function.unwrap_or_default();
            let id = call.id.unwrap_or_default();
            let number = call.index.unwrap_or(0);
            let index = match self.call(choice, number, &id) {
                Some(index) => index,
                None => {
                    let index = self.begin_call(choice, number, &id)?;
                    let signature =
                        call.extra_content.and_then(|extra| extra.google?.thought_signature);
                    let name = function.name.unwrap_or_default();
                    parts.push(Part::ToolStart { index, id, name, signature });
                    index
                }
            };
            // Text that holds JSON; a few send the JSON itself.
            let text =
                function.arguments.map(|json| string(json.get()).unwrap_or(json.get().into()));
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                parts.push(Part::ToolArguments { index, text: text.into_owned() });
            }
        }
        Ok(())
    }

    fn anthropic(&mut self, data: &str) -> Parts {
        let event: AnthropicEvent<'_> = parse(data)?;
        let mut parts = Vec::new();
        match event.r#type {
            "ping" => parts.push(Part::Lifecycle),
            "message_start" => {
                if let Some(json) = event.message.and_then(|message| message.usage) {
                    self.count(json)?;
                }
                parts.push(Part::Lifecycle);
            }
            "content_block_start" => {
                let block = event.content_block.ok_or(BadStream::Malformed)?;
                self.block(event.index, block, &mut parts)?;
            }
            "content_block_delta" => {
                let delta = event.delta.ok_or(BadStream::Malformed)?;
                parts.push(self.block_delta(event.index, delta));
            }
            "content_block_stop" => parts.push(Part::Block(Block::End)),
            "message_delta" => {
                if let Some(json) = event.usage {
                    self.count(json)?;
                }
                if let Some(word) = event.delta.and_then(|delta| delta.stop_reason) {
                    parts.push(self.end(Api::Anthropic, 0, &word));
                }
                parts.extend(self.usage.map(Part::Usage));
            }
            "message_stop" => parts.push(Part::Done),
            "error" => parts.push(Part::Error(ProviderError::in_stream(Api::Anthropic, data))),
            _ => {}
        }
        Ok(parts)
    }

    fn count(&mut self, json: &RawValue) -> Result<(), BadStream> {
        let later = usage::Anthropic::read(json.get()).map_err(|_| BadStream::AbsurdUsage)?;
        self.anthropic = self.anthropic.then(later);
        self.usage = self.anthropic.usage();
        Ok(())
    }

    fn block(
        &mut self,
        number: u32,
        block: StartedBlock,
        parts: &mut Vec<Part>,
    ) -> Result<(), BadStream> {
        match block.r#type.as_str() {
            "text" => {
                parts.push(Part::Block(Block::Text));
                parts.extend(Some(block.text).filter(|text| !text.is_empty()).map(Part::Text));
            }
            "thinking" => parts.push(Part::Block(Block::Thought)),
            "tool_use" => {
                let index = self.begin_call(0, number, &block.id)?;
                let (id, name) = (block.id, block.name);
                parts.push(Part::ToolStart { index, id, name, signature: None });
            }
            _ => parts.push(Part::Block(Block::Other)),
        }
        Ok(())
    }

    fn block_delta(&self, number: u32, delta: AnthropicDelta) -> Part {
        match delta.r#type.as_str() {
            "text_delta" => Part::Text(delta.text),
            "thinking_delta" => Part::Thought { text: delta.thinking, signature: None },
            "signature_delta" => {
                Part::Thought { text: String::new(), signature: Some(delta.signature) }
            }
            "input_json_delta" => match self.call(0, number, "") {
                Some(index) => Part::ToolArguments { index, text: delta.partial_json },
                // Of a tool that the provider runs itself.
                None => Part::Other,
            },
            _ => Part::Other,
        }
    }

    fn gemini(&mut self, data: &str) -> Parts {
        // Cheap to see, and the members of an answer are all optional.
        let failure: Failure<'_> = parse(data)?;
        if failure.error.is_some() {
            return Ok(vec![Part::Error(ProviderError::in_stream(Api::Gemini, data))]);
        }
        let answer: Gemini<'_> = parse(data)?;
        let mut parts = Vec::new();
        let blocked = answer.prompt_feedback.and_then(|feedback| feedback.block_reason);
        if answer.candidates.is_empty() && blocked.is_some() {
            parts.push(self.end(Api::Gemini, 0, "PROHIBITED_CONTENT"));
        }
        if let Some(candidate) = answer.candidates.into_iter().next() {
            for part in candidate.content.map(|content| content.parts).unwrap_or_default() {
                if let Some(call) = part.function_call {
                    let index = self.begin_call(0, 0, &call.id)?;
                    let (id, name, signature) = (call.id, call.name, part.thought_signature);
                    parts.push(Part::ToolStart { index, id, name, signature });
                    let text = call.args.map_or("{}", RawValue::get).to_owned();
                    parts.push(Part::ToolArguments { index, text });
                } else if let Some(text) = part.text.filter(|text| !text.is_empty()) {
                    parts.push(match part.thought {
                        true => Part::Thought { text, signature: part.thought_signature },
                        false => Part::Text(text),
                    });
                }
            }
            if let Some(word) = candidate.finish_reason {
                parts.push(self.end(Api::Gemini, 0, &word));
            }
        }
        if let Some(json) = answer.usage_metadata {
            let found = usage::gemini(json.get()).map_err(|_| BadStream::AbsurdUsage)?;
            self.usage = found.or(self.usage);
            // Each chunk counts anew; one count is enough to pass on.
            if self.finish.is_some() {
                parts.extend(self.usage.map(Part::Usage));
            }
        }
        if parts.is_empty() {
            parts.push(Part::Lifecycle);
        }
        Ok(parts)
    }
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(default)]
    refusal: Option<String>,
    /// Two names for one thing, by provider, and not always text.
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<ToolDelta<'a>>>,
    #[serde(borrow, default)]
    audio: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ToolDelta<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow, default)]
    function: Option<FunctionDelta<'a>>,
    #[serde(default)]
    extra_content: Option<Extra>,
}

#[derive(Default, Deserialize)]
struct FunctionDelta<'a> {
    #[serde(default)]
    name: Option<String>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Extra {
    #[serde(default)]
    google: Option<Google>,
}

#[derive(Deserialize)]
struct Google {
    #[serde(default)]
    thought_signature: Option<String>,
}

#[derive(Deserialize)]
struct AnthropicEvent<'a> {
    r#type: &'a str,
    #[serde(default)]
    index: u32,
    #[serde(borrow, default)]
    message: Option<StartedMessage<'a>>,
    #[serde(default)]
    content_block: Option<StartedBlock>,
    #[serde(default)]
    delta: Option<AnthropicDelta>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StartedMessage<'a> {
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StartedBlock {
    r#type: String,
    #[serde(default)]
    text: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct AnthropicDelta {
    r#type: String,
    text: String,
    thinking: String,
    signature: String,
    partial_json: String,
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}
