//! Why an answer ended, in each dialect's words.
//!
//! Owns: the words, and which of them say that there is no answer. Refuses to know: where they
//! stand.

use super::{Api, Finish};

/// What a provider's word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The answer is what it is.
    Finish(Finish),
    /// The provider failed and says so by this word.
    Failed,
}

/// A word that is not known is taken for a plain end: providers invent them, and an answer that
/// came whole is not thrown away for its last word.
pub(super) fn read(from: Api, word: &str) -> Ending {
    Ending::Finish(match (from, word) {
        (Api::OpenAi, "length" | "model_length" | "max_tokens") => Finish::Length,
        (Api::OpenAi, "tool_calls" | "function_call") => Finish::ToolCalls,
        (Api::OpenAi, "content_filter") => Finish::ContentFilter,
        (Api::OpenAi, "error" | "insufficient_system_resource") => return Ending::Failed,
        (Api::Anthropic, "max_tokens" | "model_context_window_exceeded") => Finish::Length,
        (Api::Anthropic, "stop_sequence") => Finish::StopSequence,
        (Api::Anthropic, "tool_use") => Finish::ToolCalls,
        (Api::Anthropic, "pause_turn") => Finish::Pause,
        (Api::Anthropic, "refusal") => Finish::Refusal,
        (Api::Gemini, "MAX_TOKENS") => Finish::Length,
        (
            Api::Gemini,
            "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION",
        ) => Finish::ContentFilter,
        (
            Api::Gemini,
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MISSING_THOUGHT_SIGNATURE"
            | "MALFORMED_RESPONSE"
            | "LANGUAGE"
            | "OTHER"
            | "NO_IMAGE"
            | "IMAGE_OTHER",
        ) => return Ending::Failed,
        _ => Finish::Stop,
    })
}

/// OpenAI's word.
pub(super) const fn openai(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence => "stop",
        // A pause is an answer that is not whole, which this word says too.
        Finish::Length | Finish::Pause => "length",
        Finish::ToolCalls => "tool_calls",
        Finish::ContentFilter | Finish::Refusal => "content_filter",
    }
}

/// Anthropic's word. Which text was stopped at is not known from others, so that it is a plain end.
pub(super) const fn anthropic(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::ContentFilter | Finish::Refusal => "refusal",
        Finish::Pause => "pause_turn",
    }
}
