//! What a provider says was used, as buckets that do not overlap.
//!
//! Owns: how each dialect counts, and the counts in a client's dialect. Refuses to know: prices.
//!
//! OpenAI counts cached tokens and sound inside the prompt and reasoning inside the answer,
//! Anthropic counts cached tokens beside the prompt, Gemini thoughts beside the answer.

use serde::{Deserialize, Deserializer};
use types::Usage;

use super::write::Members;

/// Counts above this are no counts: a double cannot hold them all.
const COUNT_MAX: u64 = 1 << 53;

/// A count of tokens that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Absurd;

/// A count; null is none.
#[derive(Debug, Clone, Copy, Default)]
struct Count(Option<u64>);

impl Count {
    fn or_zero(self) -> u64 {
        self.0.unwrap_or(0)
    }

    fn or(self, other: Count) -> Count {
        Count(self.0.or(other.0))
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        match Option::<u64>::deserialize(deserializer)? {
            Some(count) if count > COUNT_MAX => Err(serde::de::Error::custom("too large")),
            count => Ok(Count(count)),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpenAi {
    prompt_tokens: Count,
    completion_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    audio_tokens: Count,
    reasoning_tokens: Count,
}

/// `usage` of an answer or a chunk; `None` when it counts nothing.
pub(super) fn openai(json: &str) -> Result<Option<Usage>, Absurd> {
    let found: OpenAi = serde_json::from_str(json).map_err(|_| Absurd)?;
    if found.prompt_tokens.0.is_none() && found.completion_tokens.0.is_none() {
        return Ok(None);
    }
    let (prompt, answer) = (found.prompt_tokens.or_zero(), found.completion_tokens.or_zero());
    let said = found.prompt_tokens_details.unwrap_or_default();
    let done = found.completion_tokens_details.unwrap_or_default();
    let (cached, heard) = (said.cached_tokens.or_zero(), said.audio_tokens.or_zero());
    let (thought, spoken) = (done.reasoning_tokens.or_zero(), done.audio_tokens.or_zero());
    // A few providers of this dialect count thought beside the answer; the total shows it.
    let all = prompt.saturating_add(answer);
    let is_beside = found.total_tokens.0 == Some(all.saturating_add(thought)) && thought > 0;
    let within = if is_beside { spoken } else { thought.saturating_add(spoken) };
    Ok(Some(Usage {
        input: prompt.saturating_sub(cached).saturating_sub(heard),
        cache_read: cached,
        output: answer.saturating_sub(within),
        reasoning: thought,
        audio: heard.saturating_add(spoken),
        ..Usage::default()
    }))
}

/// `usage` of Anthropic; in a stream it comes in parts, of which later ones are cumulative.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Anthropic {
    input_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
    output_tokens: Count,
}

impl Anthropic {
    pub(super) fn read(json: &str) -> Result<Anthropic, Absurd> {
        serde_json::from_str(json).map_err(|_| Absurd)
    }

    /// What holds after `later` has come.
    pub(super) fn then(self, later: Anthropic) -> Anthropic {
        Anthropic {
            input_tokens: later.input_tokens.or(self.input_tokens),
            cache_creation_input_tokens: later
                .cache_creation_input_tokens
                .or(self.cache_creation_input_tokens),
            cache_read_input_tokens: later.cache_read_input_tokens.or(self.cache_read_input_tokens),
            output_tokens: later.output_tokens.or(self.output_tokens),
        }
    }

    pub(super) fn usage(self) -> Option<Usage> {
        if self.input_tokens.0.is_none() && self.output_tokens.0.is_none() {
            return None;
        }
        Some(Usage {
            input: self.input_tokens.or_zero(),
            cache_read: self.cache_read_input_tokens.or_zero(),
            cache_write: self.cache_creation_input_tokens.or_zero(),
            output: self.output_tokens.or_zero(),
            ..Usage::default()
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Gemini {
    prompt_token_count: Count,
    cached_content_token_count: Count,
    candidates_token_count: Count,
    thoughts_token_count: Count,
    tool_use_prompt_token_count: Count,
    prompt_tokens_details: Vec<Modality>,
    cache_tokens_details: Vec<Modality>,
    candidates_tokens_details: Vec<Modality>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Modality {
    modality: String,
    token_count: Count,
}

fn of_kind(details: &[Modality], kind: &str) -> u64 {
    details
        .iter()
        .filter(|one| one.modality == kind)
        .fold(0, |sum: u64, one| sum.saturating_add(one.token_count.or_zero()))
}

/// `usageMetadata`; `None` when it counts nothing.
pub(super) fn gemini(json: &str) -> Result<Option<Usage>, Absurd> {
    let found: Gemini = serde_json::from_str(json).map_err(|_| Absurd)?;
    if found.prompt_token_count.0.is_none() && found.candidates_token_count.0.is_none() {
        return Ok(None);
    }
    let cached = found.cached_content_token_count.or_zero();
    // Sound in the cache is counted with what is cached, and again with what was heard.
    let heard = of_kind(&found.prompt_tokens_details, "AUDIO")
        .saturating_sub(of_kind(&found.cache_tokens_details, "AUDIO"));
    let spoken = of_kind(&found.candidates_tokens_details, "AUDIO");
    let drawn = of_kind(&found.candidates_tokens_details, "IMAGE");
    Ok(Some(Usage {
        input: found.prompt_token_count.or_zero().saturating_sub(cached).saturating_sub(heard),
        cache_read: cached,
        cache_write: 0,
        output: found.candidates_token_count.or_zero().saturating_sub(spoken).saturating_sub(drawn),
        reasoning: found.thoughts_token_count.or_zero(),
        audio: heard.saturating_add(spoken),
        image: drawn,
        tool: found.tool_use_prompt_token_count.or_zero(),
    }))
}

/// Tokens of the prompt, those of sound among them: a client cannot be told which side they were
/// on.
fn prompt(usage: &Usage) -> u64 {
    usage.input.saturating_add(usage.tool).saturating_add(usage.audio)
}

fn answer(usage: &Usage) -> u64 {
    usage.output.saturating_add(usage.reasoning).saturating_add(usage.image)
}

/// The members of OpenAI's `usage`.
pub(super) fn write_openai(usage: &Usage, out: &mut Members<'_>) {
    let cached = usage.cache_read.saturating_add(usage.cache_write);
    out.count("prompt_tokens", prompt(usage).saturating_add(cached));
    out.count("completion_tokens", answer(usage));
    out.count("total_tokens", usage.total());
    out.object("prompt_tokens_details", |details| {
        details.count("cached_tokens", usage.cache_read);
        details.count("audio_tokens", usage.audio);
    });
    out.object("completion_tokens_details", |details| {
        details.count("reasoning_tokens", usage.reasoning);
    });
}

/// The members of Anthropic's `usage`.
pub(super) fn write_anthropic(usage: &Usage, out: &mut Members<'_>) {
    out.count("input_tokens", prompt(usage));
    out.count("cache_creation_input_tokens", usage.cache_write);
    out.count("cache_read_input_tokens", usage.cache_read);
    out.count("output_tokens", answer(usage));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_counts_cache_sound_and_thought_inside() {
        let usage = openai(
            r#"{"prompt_tokens":100,"completion_tokens":60,"total_tokens":160,
                "prompt_tokens_details":{"cached_tokens":30,"audio_tokens":20},
                "completion_tokens_details":{"reasoning_tokens":40,"audio_tokens":5,
                    "accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#,
        );
        let expected = Usage::of([50, 30, 0, 15, 40, 25, 0, 0]);
        assert_eq!(usage, Ok(Some(expected)));
        assert_eq!(expected.total(), 160);
    }

    #[test]
    fn thought_beside_the_answer_is_told_by_the_total() {
        let usage = openai(
            r#"{"prompt_tokens":10,"completion_tokens":50,"total_tokens":100,
                "completion_tokens_details":{"reasoning_tokens":40}}"#,
        );
        assert_eq!(
            usage,
            Ok(Some(Usage { input: 10, output: 50, reasoning: 40, ..Usage::default() }))
        );
    }

    #[test]
    fn anthropic_counts_the_cache_beside_and_says_it_in_parts() {
        let start = Anthropic::read(
            r#"{"input_tokens":7,"cache_creation_input_tokens":11,"cache_read_input_tokens":13,"output_tokens":1}"#,
        )
        .expect("counts");
        let end = Anthropic::read(r#"{"output_tokens":17}"#).expect("counts");
        let expected =
            Usage { input: 7, cache_read: 13, cache_write: 11, output: 17, ..Usage::default() };
        assert_eq!(start.then(end).usage(), Some(expected));
    }

    #[test]
    fn gemini_counts_the_cache_inside_and_thought_beside() {
        let usage = gemini(
            r#"{"promptTokenCount":100,"cachedContentTokenCount":40,"candidatesTokenCount":30,
                "thoughtsTokenCount":9,"toolUsePromptTokenCount":3,"totalTokenCount":142,
                "promptTokensDetails":[{"modality":"TEXT","tokenCount":75},{"modality":"AUDIO","tokenCount":25}],
                "cacheTokensDetails":[{"modality":"AUDIO","tokenCount":10}],
                "candidatesTokensDetails":[{"modality":"IMAGE","tokenCount":8}]}"#,
        );
        let expected = Usage::of([45, 40, 0, 22, 9, 15, 8, 3]);
        assert_eq!(usage, Ok(Some(expected)));
        assert_eq!(expected.total(), 142);
    }

    #[test]
    fn zero_is_a_count_and_nonsense_is_none() {
        let zero = Ok(Some(Usage::default()));
        assert_eq!(openai(r#"{"prompt_tokens":0,"completion_tokens":0}"#), zero);
        assert_eq!(gemini(r#"{"promptTokenCount":0}"#), zero);
        let anthropic = |json: &str| Anthropic::read(json).map(Anthropic::usage);
        assert_eq!(anthropic(r#"{"input_tokens":0,"output_tokens":0}"#), zero);
        assert_eq!(openai("{}"), Ok(None));
        assert_eq!(gemini("{}"), Ok(None));
        assert_eq!(anthropic("{}"), Ok(None));
        for count in ["-1", "9007199254740993", "1e3", "\"5\"", "1.5"] {
            assert_eq!(openai(&format!("{{\"prompt_tokens\":{count}}}")), Err(Absurd), "{count}");
            assert_eq!(
                gemini(&format!("{{\"promptTokenCount\":{count}}}")),
                Err(Absurd),
                "{count}"
            );
            let found = anthropic(&format!("{{\"output_tokens\":{count}}}"));
            assert_eq!(found, Err(Absurd), "{count}");
        }
    }
}
