//! Owns: whole answers of each dialect in each client's, and those that are none.

use bytes::Bytes;
use dialect::ai::{Answer, Api, BadAnswer, Finish};
use serde_json::{Value, json};
use types::{Operation, Usage};

use super::{ids, json};

/// The published shapes, with text, a thought and a call where the dialect has them.
const OPENAI: &str = r#"{
  "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
  "object": "chat.completion",
  "created": 1741570283,
  "model": "gpt-x-2025-01-01",
  "choices": [
    {
      "index": 0,
      "message": {
        "role": "assistant",
        "content": "Let me \u00e9 look.",
        "tool_calls": [
          {"id": "call_abc", "type": "function", "function": {"name": "look", "arguments": "{\n\"z\": 1}"}}
        ],
        "refusal": null,
        "annotations": []
      },
      "logprobs": null,
      "finish_reason": "tool_calls"
    }
  ],
  "usage": {
    "prompt_tokens": 100,
    "completion_tokens": 30,
    "total_tokens": 130,
    "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 10, "audio_tokens": 0}
  },
  "service_tier": "default",
  "system_fingerprint": "fp_1"
}
"#;

const ANTHROPIC: &str = r#"{
  "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
  "type": "message",
  "role": "assistant",
  "model": "claude-x-20250514",
  "content": [
    {"type": "thinking", "thinking": "A cat?", "signature": "EqQB"},
    {"type": "redacted_thinking", "data": "Emw"},
    {"type": "text", "text": "I look."},
    {"type": "tool_use", "id": "toolu_01A", "name": "look", "input": {"z": 1, "a": 2}}
  ],
  "stop_reason": "tool_use",
  "stop_sequence": null,
  "usage": {"input_tokens": 10, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 7, "output_tokens": 9}
}"#;

const GEMINI: &str = r#"{
  "candidates": [
    {
      "content": {
        "parts": [
          {"text": "A cat?", "thought": true},
          {"text": "I look."},
          {"functionCall": {"name": "look", "args": {"z": 1, "a": 2}}, "thoughtSignature": "CiQB"}
        ],
        "role": "model"
      },
      "finishReason": "STOP",
      "index": 0,
      "safetyRatings": []
    }
  ],
  "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 6, "thoughtsTokenCount": 3, "totalTokenCount": 19},
  "modelVersion": "gemini-x",
  "responseId": "abc"
}"#;

fn answer(from: Api, body: &str) -> Answer {
    let read = Answer::parse(from, Operation::Chat, &Bytes::from(body.to_owned()));
    read.unwrap_or_else(|why| panic!("{why}: {body}"))
}

fn rendered(from: Api, body: &str, to: Api) -> Value {
    json(&answer(from, body).render(to, "asked", &ids()))
}

#[test]
fn in_one_dialect_only_the_model_changes() {
    for (api, body, model) in [
        (Api::OpenAi, OPENAI, "gpt-x-2025-01-01"),
        (Api::Anthropic, ANTHROPIC, "claude-x-20250514"),
    ] {
        let found = answer(api, body).render(api, "asked", &ids());
        assert_eq!(String::from_utf8(found).expect("UTF-8"), body.replace(model, "asked"));
    }
}

#[test]
fn usage_finish_and_length_are_read_in_each_dialect() {
    let openai = answer(Api::OpenAi, OPENAI);
    let usage = Usage { input: 60, cache_read: 40, output: 20, reasoning: 10, ..Usage::default() };
    assert_eq!((openai.usage(), openai.finish()), (Some(usage), Finish::ToolCalls));
    assert_eq!(openai.text_bytes(), "Let me é look.".len() as u64 + 4 + 9);
    let anthropic = answer(Api::Anthropic, ANTHROPIC);
    let usage = Usage { input: 10, cache_read: 7, cache_write: 5, output: 9, ..Usage::default() };
    assert_eq!((anthropic.usage(), anthropic.finish()), (Some(usage), Finish::ToolCalls));
    let gemini = answer(Api::Gemini, GEMINI);
    let usage = Usage { input: 10, output: 6, reasoning: 3, ..Usage::default() };
    assert_eq!((gemini.usage(), gemini.finish()), (Some(usage), Finish::ToolCalls));
}

#[test]
fn anthropic_and_gemini_as_openai() {
    let expected = |id: &str, usage: Value, extra: Option<Value>| {
        let mut call = json!({"id": id, "type": "function",
            "function": {"name": "look", "arguments": "{\"z\": 1, \"a\": 2}"}});
        if let Some(extra) = extra {
            call["extra_content"] = extra;
        }
        json!({
            "id": "chatcmpl-u1", "object": "chat.completion", "created": 1_700_000_000, "model": "asked",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": "I look.", "refusal": null,
                    "reasoning_content": "A cat?", "tool_calls": [call]},
                "logprobs": null,
                "finish_reason": "tool_calls",
            }],
            "usage": usage,
        })
    };
    let usage = json!({"prompt_tokens": 22, "completion_tokens": 9, "total_tokens": 31,
        "prompt_tokens_details": {"cached_tokens": 7, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0}});
    let found = rendered(Api::Anthropic, ANTHROPIC, Api::OpenAi);
    assert_eq!(found, expected("toolu_01A", usage, None));
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 9, "total_tokens": 19,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 3}});
    let seal = json!({"google": {"thought_signature": "CiQB"}});
    let found = rendered(Api::Gemini, GEMINI, Api::OpenAi);
    assert_eq!(found, expected("call_u1_0", usage, Some(seal)));
}

#[test]
fn openai_and_gemini_as_anthropic() {
    let expected = |text: &str, id: &str, input: Value, usage: Value| {
        json!({
            "id": "msg_u1", "type": "message", "role": "assistant", "model": "asked",
            "content": [
                {"type": "text", "text": text},
                {"type": "tool_use", "id": id, "name": "look", "input": input},
            ],
            "stop_reason": "tool_use", "stop_sequence": null, "usage": usage,
        })
    };
    let usage = json!({"input_tokens": 60, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 40, "output_tokens": 30});
    let found = rendered(Api::OpenAi, OPENAI, Api::Anthropic);
    assert_eq!(found, expected("Let me é look.", "call_abc", json!({"z": 1}), usage));
    let usage = json!({"input_tokens": 10, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0, "output_tokens": 9});
    let found = rendered(Api::Gemini, GEMINI, Api::Anthropic);
    assert_eq!(found, expected("I look.", "toolu_u1_0", json!({"z": 1, "a": 2}), usage));
}

#[test]
fn a_refusal_is_said_as_one() {
    let body = r#"{"choices":[{"message":{"role":"assistant","content":null,"refusal":"No."},"finish_reason":"stop"}]}"#;
    let found = rendered(Api::OpenAi, body, Api::Anthropic);
    assert_eq!(found["stop_reason"], "refusal");
    assert_eq!(found["content"], json!([{"type": "text", "text": "No."}]));
    let blocked =
        r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":4}}"#;
    assert_eq!(answer(Api::Gemini, blocked).finish(), Finish::ContentFilter);
    let found = rendered(Api::Gemini, blocked, Api::OpenAi);
    assert_eq!(found["choices"][0]["finish_reason"], "content_filter");
    assert_eq!(found["choices"][0]["message"]["content"], Value::Null);
}

#[test]
fn arguments_that_are_no_object_are_not_made_another_call() {
    let body = r#"{"choices":[{"message":{"tool_calls":[{"id":"c","function":{"name":"rm","arguments":"{\"pa"}}]},"finish_reason":"length"}]}"#;
    let found = rendered(Api::OpenAi, body, Api::Anthropic);
    assert_eq!(found["content"][0]["input"], json!({"unreadable_arguments": "{\"pa"}));
    assert_eq!(found["stop_reason"], "max_tokens");
}

#[test]
fn every_reason_to_end_has_a_word_for_the_client() {
    let openai = |word: &str| {
        format!(r#"{{"choices":[{{"message":{{"content":"x"}},"finish_reason":"{word}"}}]}}"#)
    };
    let claude = |word: &str| {
        format!(r#"{{"content":[{{"type":"text","text":"x"}}],"stop_reason":"{word}"}}"#)
    };
    let gemini = |word: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}]}},"finishReason":"{word}"}}]}}"#
        )
    };
    for (from, body, finish, in_openai, in_anthropic) in [
        (Api::OpenAi, openai("stop"), Finish::Stop, "stop", "end_turn"),
        (Api::OpenAi, openai("length"), Finish::Length, "length", "max_tokens"),
        (Api::OpenAi, openai("content_filter"), Finish::ContentFilter, "content_filter", "refusal"),
        (Api::OpenAi, openai("eos"), Finish::Stop, "stop", "end_turn"),
        (Api::Anthropic, claude("end_turn"), Finish::Stop, "stop", "end_turn"),
        (Api::Anthropic, claude("stop_sequence"), Finish::StopSequence, "stop", "stop_sequence"),
        (Api::Anthropic, claude("max_tokens"), Finish::Length, "length", "max_tokens"),
        (Api::Anthropic, claude("pause_turn"), Finish::Pause, "length", "pause_turn"),
        (Api::Anthropic, claude("refusal"), Finish::Refusal, "content_filter", "refusal"),
        (Api::Gemini, gemini("STOP"), Finish::Stop, "stop", "end_turn"),
        (Api::Gemini, gemini("MAX_TOKENS"), Finish::Length, "length", "max_tokens"),
        (Api::Gemini, gemini("SAFETY"), Finish::ContentFilter, "content_filter", "refusal"),
    ] {
        assert_eq!(answer(from, &body).finish(), finish, "{body}");
        if from != Api::OpenAi {
            let found = rendered(from, &body, Api::OpenAi);
            assert_eq!(found["choices"][0]["finish_reason"], in_openai, "{body}");
        }
        let found = rendered(from, &body, Api::Anthropic);
        assert_eq!(found["stop_reason"], in_anthropic, "{body}");
    }
}

#[test]
fn what_is_no_answer_is_told_apart() {
    let read = |from: Api, body: &str| {
        Answer::parse(from, Operation::Chat, &Bytes::from(body.to_owned())).err()
    };
    let is_malformed = |found: Option<BadAnswer>| matches!(found, Some(BadAnswer::Malformed(_)));
    let is_cut = |found: Option<BadAnswer>| matches!(found, Some(BadAnswer::Incomplete(_)));
    for from in Api::ALL {
        for body in ["", "<html>", "[]", "{}", "{\"error\":{\"message\":\"x\"}}", "\u{0}"] {
            assert!(is_malformed(read(from, body)), "{from:?} {body:?}");
        }
        let not_utf8 = Bytes::from_static(b"{\"choices\":\"\xff\"}");
        assert!(Answer::parse(from, Operation::Chat, &not_utf8).is_err());
    }
    for cut in [1, OPENAI.len() / 2, OPENAI.len() - 3] {
        assert!(is_malformed(read(Api::OpenAi, &OPENAI[..cut])), "{cut}");
    }
    assert!(is_cut(read(Api::OpenAi, &OPENAI.replace("\"tool_calls\"\n", "null\n"))));
    assert!(is_cut(read(Api::OpenAi, &OPENAI.replace("\"tool_calls\"\n", "\"error\"\n"))));
    assert!(is_cut(read(
        Api::Anthropic,
        &ANTHROPIC.replace("\"tool_use\",\n  \"stop_seq", "null,\n  \"stop_seq")
    )));
    assert!(is_cut(read(Api::Gemini, &GEMINI.replace("STOP", "MALFORMED_FUNCTION_CALL"))));
    assert!(is_cut(read(Api::Gemini, &GEMINI.replace("\"finishReason\": \"STOP\",", ""))));
    for (from, body, good) in [
        (Api::OpenAi, OPENAI, "\"prompt_tokens\": 100"),
        (Api::Anthropic, ANTHROPIC, "\"input_tokens\": 10"),
        (Api::Gemini, GEMINI, "\"promptTokenCount\": 10"),
    ] {
        let name = good.split(':').next().expect("a name");
        for count in ["-1", "9007199254740993", "1.5"] {
            let bad = body.replace(good, &format!("{name}: {count}"));
            assert_ne!(bad, body);
            assert_eq!(read(from, &bad), Some(BadAnswer::AbsurdUsage), "{from:?} {count}");
        }
    }
}

#[test]
fn an_estimate_stands_only_where_nothing_was_counted() {
    let estimate = Usage { input: 3, output: 4, ..Usage::default() };
    let body = r#"{"content":[{"type":"text","text":"x"}],"stop_reason":"end_turn"}"#;
    let mut silent = answer(Api::Anthropic, body);
    assert_eq!(silent.usage(), None);
    silent.estimate(estimate);
    let found = json(&silent.render(Api::OpenAi, "asked", &ids()));
    assert_eq!(found["usage"]["total_tokens"], 7);
    let mut counted = answer(Api::Anthropic, ANTHROPIC);
    counted.estimate(estimate);
    assert_eq!(counted.usage().map(|usage| usage.output), Some(9));
}

#[test]
fn vectors_of_two_dialects() {
    let read = |from: Api, body: &str| {
        Answer::parse(from, Operation::Embeddings, &Bytes::from(body.to_owned()))
    };
    let openai = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,-1]}],"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}"#;
    let found = read(Api::OpenAi, openai).expect("vectors");
    assert_eq!(found.usage(), Some(Usage { input: 8, ..Usage::default() }));
    let rendered = String::from_utf8(found.render(Api::OpenAi, "asked", &ids())).expect("UTF-8");
    assert_eq!(rendered, openai.replace("\"m\"", "\"asked\""));
    let gemini = r#"{"embeddings":[{"values":[0.5,-1]},{"values":[0.25,2]}]}"#;
    let found = read(Api::Gemini, gemini).expect("vectors");
    assert_eq!(found.usage(), None);
    let expected = json!({"object": "list", "model": "asked",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -1]},
            {"object": "embedding", "index": 1, "embedding": [0.25, 2]},
        ],
        "usage": {"prompt_tokens": 0, "total_tokens": 0}});
    assert_eq!(json(&found.render(Api::OpenAi, "asked", &ids())), expected);
    let packed = json(&found.render_vectors("asked", true));
    // 0.5 and -1 as floats: 00 00 00 3f 00 00 80 bf.
    assert_eq!(packed["data"][0]["embedding"], "AAAAPwAAgL8=");
    for body in ["{}", r#"{"data":[]}"#, r#"{"data":[{"embedding":1}]}"#] {
        assert!(read(Api::OpenAi, body).is_err(), "{body}");
    }
    assert!(read(Api::Gemini, r#"{"embeddings":[{"values":"x"}]}"#).is_err());
}
