//! Owns: that the provider without a network answers as a real one would.

use bytes::Bytes;
use dialect::ai::{Answer, Api, EmbeddingsRequest, Finish, Part, StreamReader, echo};
use serde_json::json;
use types::{Operation, Usage};

use super::{LIMITS, chat, ids, json};

const TALK: &str = r#"{"model":"m","messages":[
    {"role":"system","content":"be brief"},
    {"role":"user","content":"first"},
    {"role":"assistant","content":"ok"},
    {"role":"user","content":[{"type":"text","text":"one  two"},{"type":"text","text":"three"}]}]}"#;

#[test]
fn the_last_message_comes_back_whole_or_cut() {
    let request = chat(Api::OpenAi, TALK);
    let body = Bytes::from(echo::answer(&request, &ids()));
    let answer = Answer::parse(Api::OpenAi, Operation::Chat, &body).expect("an answer");
    assert_eq!(json(&body)["choices"][0]["message"]["content"], "one two three");
    let usage = Usage { input: 7, output: 3, ..Usage::default() };
    assert_eq!((answer.usage(), answer.finish()), (Some(usage), Finish::Stop));
    let cut = chat(Api::OpenAi, &TALK.replace("\"model\"", "\"max_tokens\":2,\"model\""));
    let body = Bytes::from(echo::answer(&cut, &ids()));
    assert_eq!(json(&body)["choices"][0]["message"]["content"], "one two");
    let answer = Answer::parse(Api::OpenAi, Operation::Chat, &body).expect("an answer");
    assert_eq!(answer.finish(), Finish::Length);
    assert_eq!(echo::answer(&cut, &ids()), body, "the same each time");
}

#[test]
fn a_stream_says_what_the_answer_says() {
    let request = chat(Api::OpenAi, TALK);
    let mut reader = StreamReader::new(Api::OpenAi);
    for event in echo::stream(&request, &ids()) {
        reader.feed(&event).expect("an event");
    }
    reader.end().expect("a whole stream");
    let mut parts = Vec::new();
    while let Some(event) = reader.next() {
        parts.push(event.part);
    }
    let usage = Usage { input: 7, output: 3, ..Usage::default() };
    let expected = [
        Part::Lifecycle,
        Part::Text("one".to_owned()),
        Part::Text(" two".to_owned()),
        Part::Text(" three".to_owned()),
        Part::Finish(Finish::Stop),
        Part::Usage(usage),
        Part::Done,
    ];
    assert_eq!(parts, expected);
}

#[test]
fn a_tool_is_called_when_the_request_demands_it() {
    let tools = r#""tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user","content":"x"}]"#;
    for (choice, called) in [
        (r#""required""#, true),
        (r#"{"type":"function","function":{"name":"f"}}"#, true),
        (r#""auto""#, false),
        (r#""none""#, false),
    ] {
        let request =
            chat(Api::OpenAi, &format!("{{\"model\":\"m\",\"tool_choice\":{choice},{tools}}}"));
        let body = json(&echo::answer(&request, &ids()));
        let call = &body["choices"][0]["message"]["tool_calls"][0]["function"];
        let expected = if called { json!({"name": "f", "arguments": "{}"}) } else { json!(null) };
        assert_eq!(*call, expected, "{choice}");
        let events = echo::stream(&request, &ids());
        let has_call =
            events.iter().any(|event| String::from_utf8_lossy(event).contains("tool_calls\":["));
        assert_eq!(has_call, called, "{choice}");
    }
    let claude = r#"{"model":"m","max_tokens":5,"tool_choice":{"type":"any"},"tools":[{"name":"g"}],"messages":[{"role":"user","content":"x"}]}"#;
    let body = json(&echo::answer(&chat(Api::Anthropic, claude), &ids()));
    assert_eq!(body["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "g");
    assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn vectors_are_of_length_one_and_a_text_s_own() {
    let body = r#"{"model":"m","input":["a b","a b","c"],"dimensions":16}"#;
    let request = EmbeddingsRequest::parse(&Bytes::from(body), &LIMITS).expect("a request");
    let found = Bytes::from(echo::embeddings(&request));
    let answer = Answer::parse(Api::OpenAi, Operation::Embeddings, &found).expect("vectors");
    assert_eq!(answer.usage(), Some(Usage { input: 5, ..Usage::default() }));
    let found = json(&found);
    let vector = |at: usize| -> Vec<f64> {
        let numbers = found["data"][at]["embedding"].as_array().expect("numbers");
        numbers.iter().map(|number| number.as_f64().expect("a number")).collect()
    };
    assert_eq!(vector(0).len(), 16);
    assert_eq!(vector(0), vector(1));
    assert_ne!(vector(0), vector(2));
    let length: f64 = vector(2).iter().map(|number| number * number).sum();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
}
