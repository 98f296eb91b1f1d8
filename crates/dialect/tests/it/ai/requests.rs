//! Owns: what is taken of a request, its bounds, and the text that is passed on.

use bytes::Bytes;
use dialect::ai::{Api, ChatRequest, Edits, EmbeddingsRequest};
use serde_json::json;
use types::Reason;

use super::{LIMITS, chat, json};

const NO_EDITS: Edits = Edits { output_cap: None, want_usage: false };

/// Members that nobody has heard of, white space and escapes, all of which have to arrive.
const ODD: &str = "{ \"model\":\"gpt-x\" , \"messages\":[ {\"role\":\"user\",\"content\":\"h\\u0069\\n\"} ],\n\
                   \"zz\":{\"b\":1.0e2,\"a\":[ ]},\"stream\":true }";

fn passed(body: &str, api: Api, edits: &Edits) -> String {
    let upstream = chat(api, body).for_upstream(api, "up", edits).expect("the same dialect");
    String::from_utf8(upstream.body).expect("UTF-8")
}

#[test]
fn in_one_dialect_only_the_model_changes() {
    assert_eq!(passed(ODD, Api::OpenAi, &NO_EDITS), ODD.replace("gpt-x", "up"));
    let claude = r#"{"max_tokens": 5 ,"model":"c","messages":[{"role":"user","content":"x"}],"thinking":{"type":"enabled","budget_tokens":1024},"new":1}"#;
    assert_eq!(passed(claude, Api::Anthropic, &NO_EDITS), claude.replace("\"c\"", "\"up\""));
    let upstream = chat(Api::OpenAi, ODD).for_upstream(Api::OpenAi, "up", &NO_EDITS);
    assert_eq!(upstream.expect("the same dialect").path, "/chat/completions");
    let upstream = chat(Api::Anthropic, claude).for_upstream(Api::Anthropic, "up", &NO_EDITS);
    assert_eq!(upstream.expect("the same dialect").path, "/messages");
}

#[test]
fn a_cap_lowers_what_was_asked_for_and_never_raises_it() {
    let messages = r#""messages":[{"role":"user","content":"x"}]"#;
    let capped = |members: &str, cap: u64| {
        let edits = Edits { output_cap: Some(cap), want_usage: false };
        let body = format!("{{\"model\":\"m\",{messages}{members}}}");
        let upstream = json(passed(&body, Api::OpenAi, &edits).as_bytes());
        (upstream["max_tokens"].as_u64(), upstream["max_completion_tokens"].as_u64())
    };
    assert_eq!(capped("", 7), (None, Some(7)));
    assert_eq!(capped(r#","max_tokens":9"#, 7), (Some(7), None));
    assert_eq!(capped(r#","max_tokens":9"#, 10), (Some(9), None));
    assert_eq!(capped(r#","max_completion_tokens":9"#, 7), (None, Some(7)));
    assert_eq!(capped(r#","max_completion_tokens":null"#, 7), (None, Some(7)));
    // The cap is for all choices, the member for each.
    assert_eq!(capped(r#","max_tokens":9,"n":4"#, 10), (Some(2), None));
    assert_eq!(capped(r#","n":4"#, 2), (None, Some(1)));
    let edits = Edits { output_cap: Some(3), want_usage: false };
    let claude = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(
        passed(claude, Api::Anthropic, &edits),
        claude.replace('5', "3").replace("\"m\"", "\"up\"")
    );
}

#[test]
fn usage_is_asked_for_beside_what_the_client_asks_for() {
    let edits = Edits { output_cap: None, want_usage: true };
    let messages = r#""messages":[{"role":"user","content":"x"}]"#;
    for (members, options) in [
        (r#","stream":true"#, json!({"include_usage": true})),
        (r#","stream":true,"stream_options":null"#, json!({"include_usage": true})),
        (r#","stream":true,"stream_options":{}"#, json!({"include_usage": true})),
        (
            r#","stream":true,"stream_options":{"include_usage":false,"x":1}"#,
            json!({"include_usage": true, "x": 1}),
        ),
        (r#","stream":false"#, json!(null)),
    ] {
        let body = format!("{{\"model\":\"m\",{messages}{members}}}");
        let upstream = json(passed(&body, Api::OpenAi, &edits).as_bytes());
        assert_eq!(upstream["stream_options"], options, "{members}");
    }
}

#[test]
fn what_is_read_of_a_request_is_what_it_says() {
    let request = chat(
        Api::OpenAi,
        r#"{"model":"m\u0031","messages":[{}],"stream":true,"n":3,"max_tokens":10,"max_completion_tokens":20,"stream_options":{"include_usage":true}}"#,
    );
    assert_eq!((request.model(), request.streams(), request.wants_usage()), ("m1", true, true));
    assert_eq!(request.output_max(), Some(60));
    let request = chat(Api::OpenAi, r#"{"model":"m","messages":[{}],"stream":null}"#);
    assert_eq!(
        (request.streams(), request.wants_usage(), request.output_max()),
        (false, false, None)
    );
    let request = chat(Api::Anthropic, r#"{"model":"m","messages":[{}],"max_tokens":4}"#);
    assert_eq!((request.wants_usage(), request.output_max()), (true, Some(4)));
}

#[test]
fn a_request_that_cannot_be_read_is_refused_by_name() {
    use Reason::{InvalidField, InvalidMessageFormat, MissingField};
    let good = r#""model":"m","messages":[{}]"#;
    for (api, body, reason, detail) in [
        (Api::OpenAi, "[]".to_owned(), InvalidMessageFormat, "body must be a JSON object"),
        (
            Api::OpenAi,
            r#"{"model":"m","model":"m"}"#.to_owned(),
            InvalidMessageFormat,
            "body names",
        ),
        (Api::OpenAi, r#"{"messages":[{}]}"#.to_owned(), MissingField, "model is required"),
        (Api::OpenAi, r#"{"model":"m"}"#.to_owned(), MissingField, "messages is required"),
        (Api::OpenAi, r#"{"model":"","messages":[{}]}"#.to_owned(), InvalidField, "model must be"),
        (Api::OpenAi, r#"{"model":7,"messages":[{}]}"#.to_owned(), InvalidField, "model must be"),
        (
            Api::OpenAi,
            r#"{"model":"m","messages":[ ]}"#.to_owned(),
            InvalidField,
            "messages must be",
        ),
        (
            Api::OpenAi,
            r#"{"model":"m","messages":{}}"#.to_owned(),
            InvalidField,
            "messages must be",
        ),
        (Api::OpenAi, format!("{{{good},\"stream\":1}}"), InvalidField, "stream must be"),
        (Api::OpenAi, format!("{{{good},\"n\":0}}"), InvalidField, "n must be"),
        (Api::OpenAi, format!("{{{good},\"n\":129}}"), InvalidField, "n is larger"),
        (Api::OpenAi, format!("{{{good},\"max_tokens\":-1}}"), InvalidField, "max_tokens must be"),
        (Api::OpenAi, format!("{{{good},\"max_tokens\":1.5}}"), InvalidField, "max_tokens must be"),
        (
            Api::OpenAi,
            format!("{{{good},\"stream_options\":[]}}"),
            InvalidField,
            "stream_options must",
        ),
        (
            Api::OpenAi,
            format!("{{{good},\"stream_options\":{{\"include_usage\":1}}}}"),
            InvalidField,
            "stream_options.include_usage must",
        ),
        (Api::Anthropic, format!("{{{good}}}"), MissingField, "max_tokens is required"),
        (Api::Gemini, format!("{{{good}}}"), InvalidMessageFormat, "body is of a dialect"),
        (
            Api::OpenAi,
            format!("{{{good},\"a\":{}{}}}", "[".repeat(64), "]".repeat(64)),
            InvalidMessageFormat,
            "body nests too deeply",
        ),
    ] {
        let fault = ChatRequest::parse(api, &Bytes::from(body.clone()), &LIMITS).expect_err(&body);
        assert_eq!(fault.reason, reason, "{body}");
        assert!(fault.detail.as_str().starts_with(detail), "{fault} for {body}");
    }
}

#[test]
fn the_bound_of_a_prompt_counts_text_and_not_pictures() {
    let bound = |api: Api, body: &str| chat(api, body).input_tokens_max(1_000);
    let text = r#"{"model":"m","messages":[{"role":"user","content":"\u4e2d\n34567"}]}"#;
    assert_eq!(bound(Api::OpenAi, text), 16 + 16 + 9, "the text without its escapes");
    let data = "A".repeat(50_000);
    let picture = |part: &str| {
        format!(
            "{{\"model\":\"m\",\"max_tokens\":1,\"messages\":[{{\"role\":\"user\",\"content\":[{part}]}}]}}"
        )
    };
    for (api, part, expected) in [
        (
            Api::OpenAi,
            format!(
                r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}"#
            ),
            1_000,
        ),
        (
            Api::OpenAi,
            r#"{"type":"image_url","image_url":{"url":"https://h/x"}}"#.to_owned(),
            1_000,
        ),
        // What comes along is bounded by its bytes, what a provider fetches by what a model reads.
        (Api::OpenAi, format!(r#"{{"type":"file","file":{{"file_data":"{data}"}}}}"#), 50_016),
        (Api::OpenAi, r#"{"type":"file","file":{"file_id":"f"}}"#.to_owned(), 200_000),
        (
            Api::Anthropic,
            format!(
                r#"{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{data}"}}}}"#
            ),
            1_000,
        ),
        (
            Api::Anthropic,
            format!(
                r#"{{"type":"tool_result","tool_use_id":"t","content":[{{"type":"image","source":{{"type":"base64","data":"{data}"}}}}]}}"#
            ),
            1_012,
        ),
        // Text that claims to be data is text.
        (
            Api::Anthropic,
            format!(r#"{{"type":"document","source":{{"type":"text","data":"{data}"}}}}"#),
            50_025,
        ),
        (Api::OpenAi, format!(r#"{{"type":"text","text":"x","image_url":"{data}"}}"#), 50_014),
    ] {
        let found = bound(api, &picture(&part));
        assert_eq!(found, 32 + expected, "{}", &part[..part.len().min(60)]);
    }
    let tools = r#"{"model":"m","max_tokens":1,"system":"1234","tools":[{"name":"t"}],"messages":[{"role":"user","content":"12"}]}"#;
    assert_eq!(bound(Api::Anthropic, tools), 32 + 4 + 14 + 1_024 + 2);
    let unknown =
        r#"{"model":"m","more":"12345","messages":[{"role":"user","content":"12","extra":"123"}]}"#;
    assert_eq!(bound(Api::OpenAi, unknown), 32 + 7 + 2 + 8, "what is not known is text");
}

#[test]
fn an_answer_is_continued_by_the_text_so_far() {
    let openai = r#"{"model":"m","messages":[ {"role":"user","content":"x"} ],"max_tokens":9}"#;
    let continued = |api: Api, body: &str, to: Api| {
        let upstream = chat(api, body).continued(to, "up", "so \"far ", &NO_EDITS);
        json(&upstream.expect("can be continued").body)
    };
    let found = continued(Api::OpenAi, openai, Api::OpenAi);
    let expected = json!({"model": "up", "max_tokens": 9, "messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "so \"far ", "prefix": true},
    ]});
    assert_eq!(found, expected);
    let found = continued(Api::OpenAi, openai, Api::Anthropic);
    let last = json!({"role": "assistant", "content": [{"type": "text", "text": "so \"far"}]});
    assert_eq!(found["messages"][1], last);
    let found = continued(Api::OpenAi, openai, Api::Gemini);
    assert_eq!(found["contents"][1], json!({"role": "model", "parts": [{"text": "so \"far "}]}));
    let claude = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":9}"#;
    let found = continued(Api::Anthropic, claude, Api::Anthropic);
    assert_eq!(found["messages"][1], json!({"role": "assistant", "content": "so \"far"}));
    let found = continued(Api::Anthropic, claude, Api::OpenAi);
    let last = json!({"role": "assistant", "content": "so \"far ", "prefix": true});
    assert_eq!(found["messages"][1], last);
    for body in [
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"n":2}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_object"}}"#,
        r#"{"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]}"#,
    ] {
        let request = chat(Api::OpenAi, body);
        assert!(!request.can_continue());
        assert!(request.continued(Api::OpenAi, "up", "so", &NO_EDITS).is_err(), "{body}");
    }
    // Nothing was said yet: the request as it was.
    let request = chat(Api::OpenAi, openai);
    let again = request.continued(Api::OpenAi, "up", " ", &NO_EDITS);
    assert_eq!(again, request.for_upstream(Api::OpenAi, "up", &NO_EDITS));
}

#[test]
fn vectors_are_asked_for_in_two_dialects() {
    let read = |body: &str| EmbeddingsRequest::parse(&Bytes::from(body.to_owned()), &LIMITS);
    let body =
        r#"{"input":["ab","c"], "model":"m","encoding_format":"base64","dimensions":4,"user":"u"}"#;
    let request = read(body).expect("a request");
    assert_eq!((request.model(), request.wants_base64()), ("m", true));
    assert_eq!(request.input_tokens_max(), 3 + 32);
    let upstream = request.for_upstream(Api::OpenAi, "up").expect("the same dialect");
    assert_eq!(upstream.path, "/embeddings");
    assert_eq!(upstream.body, body.replace("\"m\"", "\"up\"").into_bytes());
    let upstream = request.for_upstream(Api::Gemini, "up").expect("texts");
    assert_eq!(upstream.path, "/models/up:batchEmbedContents");
    let expected = json!({"requests": [
        {"model": "models/up", "content": {"parts": [{"text": "ab"}]}, "outputDimensionality": 4},
        {"model": "models/up", "content": {"parts": [{"text": "c"}]}, "outputDimensionality": 4},
    ]});
    assert_eq!(json(&upstream.body), expected);
    assert!(request.for_upstream(Api::Anthropic, "up").is_err());
    let tokens = read(r#"{"input":[[1,2,3],[4]],"model":"m"}"#).expect("tokens");
    assert_eq!(tokens.input_tokens_max(), 4 + 32);
    assert_eq!(tokens.for_upstream(Api::Gemini, "up").expect_err("tokens").field, "input");
    for (body, detail) in [
        (r#"{"input":"x"}"#, "model is required"),
        (r#"{"model":"m"}"#, "input is required"),
        (r#"{"model":"m","input":[]}"#, "input must be"),
        (r#"{"model":"m","input":[{}]}"#, "input must be"),
        (r#"{"model":"m","input":"x","encoding_format":"hex"}"#, "encoding_format must be"),
        (r#"{"model":"m","input":"x","dimensions":0}"#, "dimensions must be"),
    ] {
        let fault = read(body).expect_err(body);
        assert!(fault.detail.as_str().starts_with(detail), "{fault}");
    }
}
