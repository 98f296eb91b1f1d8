//! Owns: streams as each client gets them: passed on, translated, taken up by another provider,
//! ended by us.

use bytes::BytesMut;
use dialect::ai::{Api, BadStream, Event, Finish, Part, StreamWriter};
use serde_json::{Value, json};
use types::Usage;

use super::streams::{ALL, ANTHROPIC, GEMINI, OPENAI, read, written};
use super::{ids, json};

/// What a stream says in sum.
#[derive(Debug, Default, PartialEq)]
struct Sum {
    text: String,
    thought: String,
    calls: Vec<(String, String)>,
    finish: Option<Finish>,
    usage: Option<u64>,
    is_done: bool,
}

fn sum(from: Api, text: &[u8]) -> Sum {
    let (events, end) = read(from, [text]);
    assert_eq!(end, Ok(()), "{}", String::from_utf8_lossy(text));
    let mut sum = Sum::default();
    for event in events {
        match event.part {
            Part::Text(text) => sum.text.push_str(&text),
            Part::Thought { text, .. } => sum.thought.push_str(&text),
            Part::ToolStart { name, index, .. } => {
                assert_eq!(index as usize, sum.calls.len());
                sum.calls.push((name, String::new()));
            }
            Part::ToolArguments { text, index } => sum.calls[index as usize].1.push_str(&text),
            Part::Finish(finish) => sum.finish = Some(finish),
            Part::Usage(usage) => sum.usage = Some(usage.total()),
            Part::Done => sum.is_done = true,
            Part::Lifecycle | Part::Block(_) => {}
            other => panic!("{other:?}"),
        }
    }
    sum
}

#[test]
fn in_one_dialect_only_the_model_changes() {
    let found = written(Api::OpenAi, Api::OpenAi, OPENAI, true);
    assert_eq!(String::from_utf8(found).expect("UTF-8"), OPENAI.replace("gpt-x", "asked"));
    let found = written(Api::Anthropic, Api::Anthropic, ANTHROPIC, true);
    let expected = ANTHROPIC.replace("claude-x", "asked");
    assert_eq!(String::from_utf8(found).expect("UTF-8"), expected);
    // Usage that only we wanted is not passed on.
    let found = String::from_utf8(written(Api::OpenAi, Api::OpenAi, OPENAI, false)).expect("UTF-8");
    assert!(!found.contains("prompt_tokens") && found.ends_with("data: [DONE]\n\n"), "{found}");
    assert_eq!(found.matches("data: ").count() + 1, OPENAI.matches("data: ").count());
}

#[test]
fn every_pair_says_the_same_in_sum() {
    for (from, text) in ALL {
        let said = sum(from, text.as_bytes());
        assert_eq!(
            (said.text.as_str(), said.finish, said.usage),
            ("Hé 😀", Some(Finish::ToolCalls), Some(15))
        );
        assert_eq!(said.calls, [("look".to_owned(), "{\"z\":1}".to_owned())]);
        for to in [Api::OpenAi, Api::Anthropic] {
            let found = sum(to, &written(to, from, text, true));
            // Thoughts of others have no place in Anthropic's dialect.
            let thought = match (from, to) {
                (Api::OpenAi | Api::Gemini, Api::Anthropic) => String::new(),
                _ => said.thought.clone(),
            };
            let expected = Sum { thought, is_done: true, ..sum(from, text.as_bytes()) };
            assert_eq!(found, expected, "{from:?} to {to:?}");
        }
    }
}

/// Names and data of all events.
fn events(text: &[u8]) -> Vec<(String, Value)> {
    let text = String::from_utf8(text.to_vec()).expect("UTF-8");
    text.split_terminator("\n\n")
        .map(|block| {
            let (head, data) = block.split_once("data: ").expect("data");
            let data = if data == "[DONE]" { json!(data) } else { json(data.as_bytes()) };
            (head.trim().trim_start_matches("event: ").to_owned(), data)
        })
        .collect()
}

#[test]
fn gemini_as_anthropic_event_by_event() {
    let found = events(&written(Api::Anthropic, Api::Gemini, GEMINI, true));
    let usage = |input: u64, output: u64| {
        json!({"input_tokens": input, "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0, "output_tokens": output})
    };
    let expected = [
        (
            "message_start",
            json!({"type": "message_start", "message": {"id": "msg_u1", "type": "message",
            "role": "assistant", "model": "asked", "content": [], "stop_reason": null,
            "stop_sequence": null, "usage": usage(0, 0)}}),
        ),
        ("ping", json!({"type": "ping"})),
        (
            "content_block_start",
            json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}}),
        ),
        (
            "content_block_delta",
            json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": "Hé"}}),
        ),
        (
            "content_block_delta",
            json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": " 😀"}}),
        ),
        ("content_block_stop", json!({"type": "content_block_stop", "index": 0})),
        (
            "content_block_start",
            json!({"type": "content_block_start", "index": 1,
            "content_block": {"type": "tool_use", "id": "toolu_u1_0", "name": "look", "input": {}}}),
        ),
        (
            "content_block_delta",
            json!({"type": "content_block_delta", "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": "{\"z\":1}"}}),
        ),
        ("content_block_stop", json!({"type": "content_block_stop", "index": 1})),
        (
            "message_delta",
            json!({"type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": usage(10, 5)}),
        ),
        ("message_stop", json!({"type": "message_stop"})),
    ];
    let expected: Vec<_> =
        expected.into_iter().map(|(name, data)| (name.to_owned(), data)).collect();
    assert_eq!(found, expected);
}

#[test]
fn anthropic_as_openai_event_by_event() {
    let found = events(&written(Api::OpenAi, Api::Anthropic, ANTHROPIC, true));
    let chunk = |choices: Value| {
        json!({"id": "chatcmpl-u1", "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": "asked", "choices": choices})
    };
    let delta = |delta: Value, finish: Value| {
        chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]))
    };
    let call = |call: Value| delta(json!({"tool_calls": [call]}), Value::Null);
    let mut usage = chunk(json!([]));
    usage["usage"] = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 2, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0}});
    let expected = [
        delta(json!({"role": "assistant", "content": ""}), Value::Null),
        delta(json!({"reasoning_content": "Hm"}), Value::Null),
        delta(json!({"content": "Hé"}), Value::Null),
        delta(json!({"content": " 😀"}), Value::Null),
        call(
            json!({"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": ""}}),
        ),
        call(json!({"index": 0, "function": {"arguments": "{\"z\""}})),
        call(json!({"index": 0, "function": {"arguments": ":1}"}})),
        delta(json!({}), json!("tool_calls")),
        usage,
        json!("[DONE]"),
    ];
    let expected: Vec<_> = expected.into_iter().map(|data| (String::new(), data)).collect();
    assert_eq!(found, expected);
}

/// A provider is cut after its first text, and another one finishes.
fn seam(to: Api, first: (Api, &str), second: (Api, &str)) -> Vec<u8> {
    let mut writer = StreamWriter::new(to, first.0, "asked", ids(), true);
    let mut out = BytesMut::new();
    for event in read(first.0, [first.1.as_bytes()]).0 {
        let is_text = matches!(event.part, Part::Text(_));
        writer.write(&event, &mut out);
        if is_text {
            break;
        }
    }
    writer.note("continued on b", &mut out);
    writer.resume(second.0, "Hé ");
    for event in read(second.0, [second.1.as_bytes()]).0 {
        writer.write(&event, &mut out);
    }
    let usage = Usage { input: 20, output: 10, ..Usage::default() };
    writer.usage(&usage, false, &mut out);
    writer.end(&mut out);
    out.to_vec()
}

#[test]
fn another_provider_finishes_the_answer_in_one_stream() {
    for first in ALL {
        for second in ALL {
            for to in [Api::OpenAi, Api::Anthropic] {
                let found = seam(to, first, second);
                let text = String::from_utf8(found.clone()).expect("UTF-8");
                assert_eq!(text.matches(": tai continued on b\n\n").count(), 1);
                assert_eq!(
                    text.matches("message_start\"").count(),
                    usize::from(to == Api::Anthropic)
                );
                let said = sum(to, &found);
                assert_eq!(said.text, "HéHé 😀", "{first:?} {second:?} {to:?}");
                assert_eq!(
                    (said.calls.len(), said.finish, said.usage),
                    (1, Some(Finish::ToolCalls), Some(30))
                );
                if to == Api::OpenAi {
                    let mut names: Vec<_> = events(&found_without_notes(&text))
                        .into_iter()
                        .filter_map(|(_, data)| data["id"].as_str().map(str::to_owned))
                        .collect();
                    names.dedup();
                    assert_eq!(names.len(), 1, "one id for the whole");
                } else {
                    check_blocks(&events(&found_without_notes(&text)));
                }
            }
        }
    }
}

fn found_without_notes(text: &str) -> Vec<u8> {
    text.replace(": tai continued on b\n\n", "").replace(": keep-alive\n\n", "").into_bytes()
}

/// One block is open at a time, each is closed, and the numbers go up by one.
fn check_blocks(events: &[(String, Value)]) {
    let (mut open, mut next) = (None, 0);
    for (name, data) in events {
        let index = data["index"].as_u64();
        match name.as_str() {
            "content_block_start" => {
                assert_eq!((open, index), (None, Some(next)));
                (open, next) = (index, next + 1);
            }
            "content_block_delta" => assert_eq!(index, open, "{data}"),
            "content_block_stop" => assert_eq!(index, open.take()),
            _ => {}
        }
    }
    assert_eq!(open, None);
    assert_eq!(events.last().map(|(name, _)| name.as_str()), Some("message_stop"));
}

#[test]
fn white_space_at_the_seam_is_said_once() {
    let mut writer = StreamWriter::new(Api::OpenAi, Api::OpenAi, "asked", ids(), false);
    let mut out = BytesMut::new();
    writer.write(&read(Api::OpenAi, [OPENAI.as_bytes()]).0[0], &mut out);
    writer.resume(Api::Anthropic, "so \n\u{a0}");
    for text in [" ", "\n", "\u{a0}far", " x"] {
        let event = Event { raw: bytes::Bytes::new(), part: Part::Text(text.to_owned()) };
        writer.write(&event, &mut out);
    }
    writer.finish(Finish::Length, &mut out);
    writer.end(&mut out);
    let said = sum(Api::OpenAi, &out);
    assert_eq!((said.text.as_str(), said.finish), ("far x", Some(Finish::Length)));
}

#[test]
fn an_end_of_ours_is_whole_and_an_error_is_the_last_word() {
    for (from, text) in ALL {
        for to in [Api::OpenAi, Api::Anthropic] {
            let begun = || {
                let mut writer = StreamWriter::new(to, from, "asked", ids(), true);
                let mut out = BytesMut::new();
                let events = read(from, [text.as_bytes()]).0;
                let until = events.iter().position(|event| matches!(event.part, Part::Text(_)));
                events
                    .iter()
                    .take(until.map_or(0, |at| at + 1))
                    .for_each(|e| writer.write(e, &mut out));
                (writer, out)
            };
            let (mut writer, mut out) = begun();
            writer.finish(Finish::Length, &mut out);
            writer.usage(&Usage { input: 1, output: 2, ..Usage::default() }, true, &mut out);
            writer.end(&mut out);
            let said = sum(to, &out);
            assert_eq!(
                (said.text.as_str(), said.finish, said.usage),
                ("Hé", Some(Finish::Length), Some(3))
            );
            let text = String::from_utf8(out.to_vec()).expect("UTF-8");
            assert!(text.contains("\"estimated\":true"), "{text}");

            let (mut writer, mut out) = begun();
            writer.error("provider_error", "the provider failed", &mut out);
            let length = out.len();
            writer.end(&mut out);
            writer.finish(Finish::Stop, &mut out);
            writer.usage(&Usage::default(), false, &mut out);
            writer.error("again", "again", &mut out);
            assert_eq!(out.len(), length, "nothing follows an error");
            let (found, end) = read(to, [&out[..]]);
            assert_eq!(end, Err(BadStream::Cut));
            let Some(Part::Error(error)) = found.last().map(|event| &event.part) else {
                panic!("{found:?}")
            };
            assert_eq!(error.code, "provider_error");
        }
    }
}
