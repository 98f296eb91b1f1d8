//! Owns: streams of each dialect, split anywhere, and bad in every way.

use bytes::BytesMut;
use dialect::ai::{About, Api, BadStream, Block, Event, Finish, Part, StreamReader, StreamWriter};
use proptest::prelude::*;
use types::Usage;

use super::ids;

/// The published shapes: text, a thought where there is one, one call, usage.
pub(super) const OPENAI: &str = "\
data: {\"id\":\"chatcmpl-9\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":null}\n\n\
: keep-alive\n\n\
data: {\"id\":\"chatcmpl-9\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"H\u{e9}\"},\"finish_reason\":null}],\"usage\":null}\n\n\
data: {\"id\":\"chatcmpl-9\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" \u{1f600}\"},\"finish_reason\":null}],\"usage\":null}\n\n\
data: {\"id\":\"chatcmpl-9\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"look\",\"arguments\":\"\"}}]},\"finish_reason\":null}],\"usage\":null}\n\n\
data: {\"id\":\"chatcmpl-9\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"z\\\"\"}}]},\"finish_reason\":null}],\"usage\":null}\n\n\
data: {\"id\":\"chatcmpl-9\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\":1}\"}}]},\"finish_reason\":null}],\"usage\":null}\n\n\
data: {\"id\":\"chatcmpl-9\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}],\"usage\":null}\n\n\
data: {\"id\":\"chatcmpl-9\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-x\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\n\
data: [DONE]\n\n";

pub(super) const ANTHROPIC: &str = "\
event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-x\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":8,\"cache_read_input_tokens\":2,\"output_tokens\":1}}}\n\n\
event: ping\ndata: {\"type\": \"ping\"}\n\n\
event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n\
event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\"thinking\":\"Hm\"}}\n\n\
event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"Eq\"}}\n\n\
event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n\
event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n\
event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\"H\u{e9}\"}}\n\n\
event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"text_delta\",\"text\":\" \u{1f600}\"}}\n\n\
event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n\
event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":2,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"look\",\"input\":{}}}\n\n\
event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"z\\\"\"}}\n\n\
event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\":1}\"}}\n\n\
event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":2}\n\n\
event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":5}}\n\n\
event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

pub(super) const GEMINI: &str = "\
data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"Hm\",\"thought\": true}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 10,\"totalTokenCount\": 10},\"modelVersion\": \"gemini-x\"}\r\n\r\n\
data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \"H\u{e9}\"}],\"role\": \"model\"},\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 10,\"candidatesTokenCount\": 1,\"totalTokenCount\": 11},\"modelVersion\": \"gemini-x\"}\r\n\r\n\
data: {\"candidates\": [{\"content\": {\"parts\": [{\"text\": \" \u{1f600}\"},{\"functionCall\": {\"name\": \"look\",\"args\": {\"z\":1}},\"thoughtSignature\": \"Ci\"}],\"role\": \"model\"},\"finishReason\": \"STOP\",\"index\": 0}],\"usageMetadata\": {\"promptTokenCount\": 10,\"candidatesTokenCount\": 3,\"thoughtsTokenCount\": 2,\"totalTokenCount\": 15},\"modelVersion\": \"gemini-x\"}\r\n\r\n";

pub(super) const ALL: [(Api, &str); 3] =
    [(Api::OpenAi, OPENAI), (Api::Anthropic, ANTHROPIC), (Api::Gemini, GEMINI)];

/// All events, and how it ended.
pub(super) fn read<'a>(
    from: Api,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Event>, Result<(), BadStream>) {
    let mut reader = StreamReader::new(from);
    let mut found = Ok(());
    let mut events = Vec::new();
    for piece in pieces {
        found = found.and(reader.feed(piece));
        events.extend(std::iter::from_fn(|| reader.next()));
    }
    found = found.and(reader.end());
    events.extend(std::iter::from_fn(|| reader.next()));
    (events, found)
}

fn parts(from: Api, text: &str) -> (Vec<Part>, Result<(), BadStream>) {
    let (events, end) = read(from, [text.as_bytes()]);
    (events.into_iter().map(|event| event.part).collect(), end)
}

pub(super) fn written(to: Api, from: Api, text: &str, wants_usage: bool) -> Vec<u8> {
    let mut writer = StreamWriter::new(to, from, "asked", ids(), wants_usage);
    let mut out = BytesMut::new();
    for event in read(from, [text.as_bytes()]).0 {
        writer.write(&event, &mut out);
    }
    writer.end(&mut out);
    out.to_vec()
}

#[test]
fn what_each_stream_says() {
    let usage = |cache_read: u64, reasoning: u64| Usage {
        input: 10 - cache_read,
        cache_read,
        output: 5 - reasoning,
        reasoning,
        ..Usage::default()
    };
    let text = |text: &str| Part::Text(text.to_owned());
    let arguments = |text: &str| Part::ToolArguments { index: 0, text: text.to_owned() };
    let start = |id: &str, signature: Option<&str>| Part::ToolStart {
        index: 0,
        id: id.to_owned(),
        name: "look".to_owned(),
        signature: signature.map(str::to_owned),
    };
    let thought = |text: &str, signature: Option<&str>| Part::Thought {
        text: text.to_owned(),
        signature: signature.map(str::to_owned),
    };
    let expected = vec![
        Part::Lifecycle,
        Part::Lifecycle,
        text("Hé"),
        text(" 😀"),
        start("call_1", None),
        arguments("{\"z\""),
        arguments(":1}"),
        Part::Finish(Finish::ToolCalls),
        Part::Usage(usage(0, 0)),
        Part::Done,
    ];
    assert_eq!(parts(Api::OpenAi, OPENAI), (expected, Ok(())));
    let expected = vec![
        Part::Lifecycle,
        Part::Lifecycle,
        Part::Block(Block::Thought),
        thought("Hm", None),
        thought("", Some("Eq")),
        Part::Block(Block::End),
        Part::Block(Block::Text),
        text("Hé"),
        text(" 😀"),
        Part::Block(Block::End),
        start("toolu_1", None),
        arguments("{\"z\""),
        arguments(":1}"),
        Part::Block(Block::End),
        Part::Finish(Finish::ToolCalls),
        Part::Usage(usage(2, 0)),
        Part::Done,
    ];
    assert_eq!(parts(Api::Anthropic, ANTHROPIC), (expected, Ok(())));
    let expected = vec![
        thought("Hm", None),
        text("Hé"),
        text(" 😀"),
        start("", Some("Ci")),
        arguments("{\"z\":1}"),
        Part::Finish(Finish::ToolCalls),
        Part::Usage(usage(0, 2)),
    ];
    assert_eq!(parts(Api::Gemini, GEMINI), (expected, Ok(())));
}

#[test]
fn every_split_gives_the_same_events() {
    for (from, text) in ALL {
        for text in [text.to_owned(), text.replace("\r\n", "\n").replace('\n', "\r\n")] {
            let whole = read(from, [text.as_bytes()]);
            for at in 0..=text.len() {
                let (head, tail) = text.as_bytes().split_at(at);
                assert_eq!(read(from, [head, tail]), whole, "{from:?} at {at}");
            }
            let single = text.as_bytes().chunks(1);
            assert_eq!(read(from, single), whole, "{from:?} byte by byte");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn many_splits_give_the_same_events(which in 0..3_usize, sizes in prop::collection::vec(1..90_usize, 1..60)) {
        let (from, text) = ALL[which];
        let mut rest = text.as_bytes();
        let mut pieces = Vec::new();
        for size in sizes {
            let (head, tail) = rest.split_at(size.min(rest.len()));
            pieces.push(head);
            rest = tail;
        }
        pieces.push(rest);
        prop_assert_eq!(read(from, pieces), read(from, [text.as_bytes()]));
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..1_500_usize) {
        for (from, text) in ALL {
            let (head, tail) = text.as_bytes().split_at(at.min(text.len()));
            let (events, _) = read(from, [head, &bytes, tail]);
            let mut writer = StreamWriter::new(Api::OpenAi, from, "asked", ids(), true);
            let mut out = BytesMut::new();
            events.iter().for_each(|event| writer.write(event, &mut out));
        }
    }
}

#[test]
fn the_raw_blocks_are_the_stream() {
    for (from, text) in ALL {
        let (events, _) = read(from, text.as_bytes().chunks(7));
        let raw: Vec<u8> = events.iter().flat_map(|event| event.raw.to_vec()).collect();
        assert_eq!(String::from_utf8(raw).expect("UTF-8"), text, "{from:?}");
    }
}

#[test]
fn a_stream_without_its_end_is_cut_wherever_it_is_cut() {
    for (from, text) in ALL {
        let finish = match from {
            Api::OpenAi => text.find("\"finish_reason\":\"tool_calls\"").expect("a finish"),
            Api::Anthropic => text.find("\"stop_reason\":\"tool_use\"").expect("a finish"),
            Api::Gemini => text.find("\"finishReason\"").expect("a finish"),
        };
        let closed =
            finish + text[finish..].find("}\n\n").or(text[finish..].find("}\r\n")).expect("an end");
        for at in (0..=text.len()).filter(|at| text.is_char_boundary(*at)) {
            let (_, end) = read(from, [&text.as_bytes()[..at]]);
            // From the last brace of the block that holds it, the finish has been seen.
            let expected = if at <= closed { Err(BadStream::Cut) } else { Ok(()) };
            assert_eq!(end, expected, "{from:?} at {at}");
        }
    }
}

#[test]
fn a_bad_event_is_told_after_what_was_good() {
    for (from, text) in ALL {
        let block = text.find("data: ").expect("data");
        let first = text[block..].find("\n\n").or(text[block..].find("\r\n\r\n")).expect("an end")
            + block
            + 4;
        let first = text[..first].rfind('\n').expect("a line end") + 1;
        for bad in [
            "data: {\"choices\":[{]}\n\n",
            "data: {\"candidates\":7,\"choices\":7}\n\n",
            "data: nonsense\n\n",
        ] {
            let broken = format!("{}{bad}{}", &text[..first], &text[first..]);
            let (events, end) = read(from, [broken.as_bytes()]);
            assert_eq!(end, Err(BadStream::Malformed), "{from:?} {bad}");
            assert_eq!(events.len(), 1, "{from:?} {bad}");
        }
        let not_utf8 = [&text.as_bytes()[..first], b"data: {\"a\":\"\xff\"}\n\n"];
        assert_eq!(read(from, not_utf8).1, Err(BadStream::Malformed));
    }
    let absurd = OPENAI.replace("\"prompt_tokens\":10", "\"prompt_tokens\":-10");
    assert_eq!(parts(Api::OpenAi, &absurd).1, Err(BadStream::AbsurdUsage));
}

#[test]
fn an_event_has_a_bound_however_it_comes() {
    let chunk = |size: usize| {
        let frame = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"}}]}\n\n".len();
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n",
            "x".repeat(size - frame)
        )
    };
    let limit = 1 << 20;
    for piece in [1 << 10, 1 << 21] {
        let mut reader = StreamReader::new(Api::OpenAi);
        assert!(chunk(limit).as_bytes().chunks(piece).all(|bytes| reader.feed(bytes).is_ok()));
        assert!(matches!(reader.next(), Some(Event { part: Part::Text(_), .. })));
        let mut reader = StreamReader::new(Api::OpenAi);
        let mut large = chunk(limit + 1);
        large.push_str("data: [DONE]\n\n");
        let found: Vec<_> =
            large.as_bytes().chunks(piece).map(|bytes| reader.feed(bytes)).collect();
        assert_eq!(found.last(), Some(&Err(BadStream::TooLarge)));
        assert_eq!(reader.end(), Err(BadStream::TooLarge));
    }
    let mut reader = StreamReader::new(Api::Gemini);
    assert_eq!(reader.feed(&vec![b'x'; limit]), Ok(()));
    assert_eq!(reader.feed(b"x"), Err(BadStream::TooLarge), "no line end at all");
}

#[test]
fn a_provider_that_gives_up_says_about_whom() {
    for (from, text, about, code, is_throttle) in [
        (
            Api::OpenAi,
            "data: {\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\",\"code\":null}}\n\n",
            About::Route,
            "server_error",
            false,
        ),
        (
            Api::OpenAi,
            "data: {\"error\":{\"message\":\"x\",\"code\":\"rate_limit_exceeded\"}}\n\n",
            About::Route,
            "rate_limit_exceeded",
            true,
        ),
        (
            Api::OpenAi,
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"error\"}]}\n\n",
            About::Route,
            "error",
            false,
        ),
        (
            Api::Anthropic,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n",
            About::Route,
            "overloaded_error",
            false,
        ),
        (
            Api::Anthropic,
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"x\"}}\n\n",
            About::Request,
            "invalid_request_error",
            false,
        ),
        (
            Api::Gemini,
            "data: {\"error\": {\"code\": 429,\"message\": \"x\",\"status\": \"RESOURCE_EXHAUSTED\"}}\r\n\r\n",
            About::Route,
            "resource_exhausted",
            true,
        ),
        (
            Api::Gemini,
            "data: {\"candidates\":[{\"finishReason\":\"MALFORMED_FUNCTION_CALL\"}]}\n\n",
            About::Route,
            "malformed_function_call",
            false,
        ),
    ] {
        let (found, end) = parts(from, text);
        let [Part::Error(error)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (error.about, error.code.as_str(), error.is_throttle),
            (about, code, is_throttle),
            "{text}"
        );
        assert_eq!(end, Err(BadStream::Cut), "{text}");
        // Never passed on: it may speak of the key.
        assert_eq!(written(Api::OpenAi, from, text, false), b"data: [DONE]\n\n");
    }
}

#[test]
fn the_odd_streams_of_odd_providers_are_read() {
    // No number, all numbers the same, the finish beside usage, lines of data in pieces.
    let (found, end) = parts(
        Api::OpenAi,
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}\n\n\
         data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]}}]}\n\n\
         event: x\ndata: {\"choices\":[{\"delta\":{},\ndata: \"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}}\n\n",
    );
    assert_eq!(end, Ok(()), "a finish without [DONE] is an end");
    let names: Vec<_> = found
        .iter()
        .filter_map(|part| match part {
            Part::ToolStart { index, name, .. } => Some((*index, name.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(names, [(0, "f"), (1, "g")]);
    assert_eq!(
        found[found.len() - 2..],
        [Part::Finish(Finish::ToolCalls), Part::Usage(Usage::default())]
    );
    // Members of types that nobody expects.
    let loose = "data: {\"choices\":[{\"delta\":{\"reasoning\":{\"x\":1},\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":{\"z\":1}}}]}}]}\n\n";
    let arguments = Part::ToolArguments { index: 0, text: "{\"z\":1}".to_owned() };
    assert_eq!(parts(Api::OpenAi, loose).0.last(), Some(&arguments));
    // Two choices, of which one is cut.
    let two = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}},{\"index\":1,\"delta\":{\"content\":\"b\"}}]}\n\n\
               data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    assert_eq!(parts(Api::OpenAi, two).1, Err(BadStream::Cut));
    // A prompt that is not answered.
    let blocked = "data: {\"promptFeedback\":{\"blockReason\":\"SAFETY\"}}\n\n";
    assert_eq!(parts(Api::Gemini, blocked), (vec![Part::Finish(Finish::ContentFilter)], Ok(())));
    // A count with each chunk is no reason to lose the role.
    let counted = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"}}],\"usage\":{\"prompt_tokens\":3}}\n\n";
    assert_eq!(parts(Api::OpenAi, counted).0.first(), Some(&Part::Lifecycle));
}
