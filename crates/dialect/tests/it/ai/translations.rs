//! Owns: each request in each other dialect, and what cannot be said there.

use dialect::ai::{Api, Edits};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{chat, json};

const NO_EDITS: Edits = Edits { output_cap: None, want_usage: false };

fn said(from: Api, body: &Value, to: Api) -> (String, Value) {
    let upstream = chat(from, &body.to_string()).for_upstream(to, "up", &NO_EDITS);
    let upstream = upstream.unwrap_or_else(|why| panic!("{why}"));
    (upstream.path, json(&upstream.body))
}

/// A conversation with everything that OpenAI's dialect and the others have in common.
fn openai() -> Value {
    json!({
        "model": "gpt-x",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO", "detail": "low"}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"z\": 1, \"a\": 2}"}},
                {"id": "call.2", "type": "function", "function": {"name": "ask", "arguments": ""}},
            ]},
            {"role": "tool", "tool_call_id": "call_1", "content": "A cat."},
            {"role": "tool", "tool_call_id": "call.2", "content": [{"type": "text", "text": "Tom"}]},
            {"role": "user", "content": "And?"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "look", "description": "Looks.", "strict": true,
            "parameters": {"type": "object", "properties": {"z": {"type": "number"}}},
        }}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "max_completion_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": "END",
        "stream": true,
        "stream_options": {"include_usage": true},
        "user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "auto",
        "n": 1, "logprobs": false, "logit_bias": {}, "frequency_penalty": 0, "modalities": ["text"],
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "animal", "strict": true, "schema": {"type": "object"}}},
        "reasoning_effort": "low",
    })
}

#[test]
fn openai_to_anthropic() {
    let (path, found) = said(Api::OpenAi, &openai(), Api::Anthropic);
    assert_eq!(path, "/messages");
    let expected = json!({
        "model": "up",
        "max_tokens": 50,
        "system": "Be brief.\n\nBe kind.",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "call_1", "name": "look", "input": {"z": 1, "a": 2}},
                {"type": "tool_use", "id": "call_2", "name": "ask", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "A cat."}]},
                {"type": "tool_result", "tool_use_id": "call_2", "content": [{"type": "text", "text": "Tom"}]},
                {"type": "text", "text": "And?"},
            ]},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "stream": true,
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "tools": [{"name": "look", "description": "Looks.", "strict": true,
            "input_schema": {"type": "object", "properties": {"z": {"type": "number"}}}}],
        "tool_choice": {"type": "tool", "name": "look"},
    });
    assert_eq!(found, expected);
}

#[test]
fn openai_to_gemini() {
    let (path, found) = said(Api::OpenAi, &openai(), Api::Gemini);
    assert_eq!(path, "/models/up:streamGenerateContent?alt=sse");
    let expected = json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
        "contents": [
            {"role": "user", "parts": [
                {"text": "What is this?"},
                {"inlineData": {"mimeType": "image/png", "data": "iVBO"}},
            ]},
            {"role": "model", "parts": [
                {"functionCall": {"id": "call_1", "name": "look", "args": {"z": 1, "a": 2}},
                    "thoughtSignature": "skip_thought_signature_validator"},
                {"functionCall": {"id": "call.2", "name": "ask", "args": {}}},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": "call_1", "name": "look", "response": {"output": "A cat."}}},
                {"functionResponse": {"id": "call.2", "name": "ask", "response": {"output": "Tom"}}},
                {"text": "And?"},
            ]},
        ],
        "tools": [{"functionDeclarations": [{"name": "look", "description": "Looks.",
            "parametersJsonSchema": {"type": "object", "properties": {"z": {"type": "number"}}}}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look"]}},
        "generationConfig": {
            "maxOutputTokens": 50, "temperature": 0.5, "topP": 0.9, "frequencyPenalty": 0,
            "stopSequences": ["END"], "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"}, "thinkingConfig": {"thinkingBudget": 1_024},
        },
    });
    assert_eq!(found, expected);
}

/// The same for Anthropic's.
fn anthropic() -> Value {
    json!({
        "model": "claude-x",
        "max_tokens": 64,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}},
                {"type": "text", "text": "What?", "cache_control": {"type": "ephemeral"}},
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"z": 1, "a": [2]}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "No.", "is_error": true},
                {"type": "text", "text": "So?"},
            ]},
        ],
        "metadata": {"user_id": "u"},
        "stop_sequences": ["A", "B"],
        "stream": false,
        "temperature": 1,
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any"},
        "thinking": {"type": "disabled"},
    })
}

#[test]
fn anthropic_to_openai() {
    let (path, found) = said(Api::Anthropic, &anthropic(), Api::OpenAi);
    assert_eq!(path, "/chat/completions");
    let expected = json!({
        "model": "up",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/"}},
                {"type": "text", "text": "What?"},
            ]},
            {"role": "assistant", "content": "I look.", "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": "{\"a\":[2],\"z\":1}"}},
            ]},
            {"role": "tool", "tool_call_id": "toolu_1", "content": "No."},
            {"role": "user", "content": "So?"},
        ],
        "max_completion_tokens": 64,
        "temperature": 1,
        "stop": ["A", "B"],
        "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
        "tool_choice": "required",
    });
    assert_eq!(found, expected);
}

#[test]
fn anthropic_to_gemini() {
    let mut body = anthropic();
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 2_048});
    let (path, found) = said(Api::Anthropic, &body, Api::Gemini);
    assert_eq!(path, "/models/up:generateContent");
    let expected = json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [
                {"inlineData": {"mimeType": "image/jpeg", "data": "/9j/"}},
                {"text": "What?"},
            ]},
            {"role": "model", "parts": [
                {"text": "I look."},
                {"functionCall": {"id": "toolu_1", "name": "look", "args": {"z": 1, "a": [2]}},
                    "thoughtSignature": "skip_thought_signature_validator"},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": "toolu_1", "name": "look", "response": {"error": "No."}}},
                {"text": "So?"},
            ]},
        ],
        "tools": [{"functionDeclarations": [{"name": "look", "parametersJsonSchema": {"type": "object"}}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        "generationConfig": {"maxOutputTokens": 64, "temperature": 1, "stopSequences": ["A", "B"],
            "thinkingConfig": {"thinkingBudget": 2_048}},
    });
    assert_eq!(found, expected);
}

#[test]
fn schemas_and_arguments_keep_the_order_in_which_they_were_written() {
    let body = r#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],
        "tools":[{"name":"t","input_schema":{"type":"object","properties":{"z":{},"a":{}}}}]}"#;
    for to in [Api::OpenAi, Api::Gemini] {
        let upstream =
            chat(Api::Anthropic, body).for_upstream(to, "up", &NO_EDITS).expect("can be said");
        let text = String::from_utf8(upstream.body).expect("UTF-8");
        assert!(text.contains(r#"{"type":"object","properties":{"z":{},"a":{}}}"#), "{text}");
    }
}

#[test]
fn what_is_always_said_elsewhere_is_added_and_capped() {
    let body =
        json!({"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": true});
    let (_, found) = said(Api::OpenAi, &body, Api::Anthropic);
    assert_eq!(found["max_tokens"], 4_096);
    let edits = Edits { output_cap: Some(9), want_usage: true };
    let upstream = chat(Api::OpenAi, &body.to_string()).for_upstream(Api::Gemini, "up", &edits);
    let upstream = upstream.expect("can be said");
    assert_eq!(json(&upstream.body)["generationConfig"], json!({"maxOutputTokens": 9}));
    let mut body = anthropic();
    body["stream"] = json!(true);
    let (_, found) = said(Api::Anthropic, &body, Api::OpenAi);
    assert_eq!(found["stream_options"], json!({"include_usage": true}));
}

#[test]
fn a_seal_of_gemini_comes_back_to_it() {
    let body = json!({"model": "m", "messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function",
            "function": {"name": "f", "arguments": "{}"},
            "extra_content": {"google": {"thought_signature": "seal"}}}]},
        {"role": "tool", "tool_call_id": "c", "content": "y"},
    ]});
    let (_, found) = said(Api::OpenAi, &body, Api::Gemini);
    assert_eq!(found["contents"][1]["parts"][0]["thoughtSignature"], "seal");
    let upstream = chat(Api::OpenAi, &body.to_string().replace("seal", ""));
    let upstream =
        upstream.for_upstream(Api::Gemini, "gemini-2.5-pro", &NO_EDITS).expect("can be said");
    assert_eq!(upstream.path, "/models/gemini-2.5-pro:generateContent");
}

#[test]
fn what_cannot_be_said_is_refused_by_name() {
    let openai = |members: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
        body.as_object_mut()
            .expect("an object")
            .extend(members.as_object().expect("an object").clone());
        (Api::OpenAi, body)
    };
    let claude = |members: Value| {
        let (_, mut body) = openai(members);
        body["max_tokens"] = json!(9);
        (Api::Anthropic, body)
    };
    let part = |part: Value| openai(json!({"messages": [{"role": "user", "content": [part]}]}));
    let block = |block: Value| claude(json!({"messages": [{"role": "user", "content": [block]}]}));
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    for ((from, body), to, field) in [
        (openai(json!({"n": 2})), Api::Anthropic, "n"),
        (openai(json!({"seed": 1})), Api::Anthropic, "seed"),
        (openai(json!({"temperature": 1.5})), Api::Anthropic, "temperature"),
        (openai(json!({"presence_penalty": 0.1})), Api::Anthropic, "presence_penalty"),
        (
            openai(json!({"response_format": {"type": "json_object"}})),
            Api::Anthropic,
            "response_format",
        ),
        (openai(json!({"reasoning_effort": "xhigh"})), Api::Anthropic, "reasoning_effort"),
        (openai(json!({"reasoning_effort": "xhigh"})), Api::Gemini, "reasoning_effort"),
        (openai(json!({"logprobs": true})), Api::Gemini, "logprobs"),
        (openai(json!({"logit_bias": {"1": 2}})), Api::Gemini, "logit_bias"),
        (openai(json!({"modalities": ["text", "audio"]})), Api::Gemini, "modalities"),
        (openai(json!({"web_search_options": {}})), Api::Gemini, "web_search_options"),
        (openai(json!({"functions": []})), Api::Anthropic, "functions"),
        (openai(json!({"no such word": 1})), Api::Anthropic, ""),
        (openai(json!({"stop": ["1", "2", "3", "4", "5", "6"]})), Api::Gemini, "stop"),
        (
            openai(json!({"tools": tool, "parallel_tool_calls": false})),
            Api::Gemini,
            "parallel_tool_calls",
        ),
        (openai(json!({"tools": [{"type": "custom"}]})), Api::Gemini, "tools[0].type"),
        (
            part(json!({"type": "input_audio", "input_audio": {}})),
            Api::Gemini,
            "messages[0].content[0].input_audio",
        ),
        (part(json!({"type": "file", "file": {}})), Api::Anthropic, "messages[0].content[0].file"),
        (
            part(json!({"type": "text", "text": "x", "new": 1})),
            Api::Anthropic,
            "messages[0].content[0].new",
        ),
        (
            part(json!({"type": "image_url", "image_url": {"url": "ftp://x"}})),
            Api::Anthropic,
            "messages[0].content[0].image_url.url",
        ),
        (
            part(json!({"type": "image_url", "image_url": {"url": "https://x"}})),
            Api::Gemini,
            "image_url.url",
        ),
        (
            openai(
                json!({"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}),
            ),
            Api::Anthropic,
            "messages[1].role",
        ),
        (
            openai(json!({"messages": [{"role": "user", "content": "x", "name": "n"}]})),
            Api::Anthropic,
            "messages[0].name",
        ),
        (
            openai(json!({"messages": [{"role": "tool", "tool_call_id": "none", "content": "x"}]})),
            Api::Gemini,
            "tool_call_id",
        ),
        (
            openai(
                json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]}]}),
            ),
            Api::Anthropic,
            "messages[0].tool_calls[0].function.arguments",
        ),
        (claude(json!({"top_k": 3})), Api::OpenAi, "top_k"),
        (
            claude(json!({"thinking": {"type": "enabled", "budget_tokens": 1_024}})),
            Api::OpenAi,
            "thinking.budget_tokens",
        ),
        (claude(json!({"mcp_servers": []})), Api::OpenAi, "mcp_servers"),
        (
            claude(json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]})),
            Api::OpenAi,
            "tools[0].type",
        ),
        (
            claude(json!({"stop_sequences": ["1", "2", "3", "4", "5"]})),
            Api::OpenAi,
            "stop_sequences",
        ),
        (
            block(json!({"type": "document", "source": {}})),
            Api::OpenAi,
            "messages[0].content[0].type",
        ),
        (
            block(json!({"type": "image", "source": {"type": "file", "file_id": "f"}})),
            Api::OpenAi,
            "messages[0].content[0].source.type",
        ),
        (
            block(
                json!({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {"type": "url", "url": "https://x"}}]}),
            ),
            Api::OpenAi,
            "tool_result.content",
        ),
    ] {
        let request = chat(from, &body.to_string());
        let why = request.for_upstream(to, "up", &NO_EDITS).expect_err(&body.to_string());
        assert_eq!(why.field, field, "{why}");
        assert!(request.for_upstream(from, "up", &NO_EDITS).is_ok(), "its own dialect has a word");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// There and back again: what both dialects can say is said the same way.
    #[test]
    fn a_conversation_survives_the_way_to_anthropic_and_back(
        system in "\\PC{1,12}",
        turns in prop::collection::vec("[\\PC\\n\"]{1,16}", 1..6),
    ) {
        let mut messages = vec![json!({"role": "system", "content": system})];
        messages.extend(turns.iter().enumerate().map(|(at, text)| {
            json!({"role": if at % 2 == 0 { "user" } else { "assistant" }, "content": format!("{text}.")})
        }));
        let body = json!({"model": "up", "messages": messages, "max_completion_tokens": 9, "temperature": 0.25});
        let (_, there) = said(Api::OpenAi, &body, Api::Anthropic);
        let (_, back) = said(Api::Anthropic, &there, Api::OpenAi);
        prop_assert_eq!(back, body);
    }
}
