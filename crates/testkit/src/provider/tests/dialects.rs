//! Requests and answers without a fault.

use super::*;

/// Every number of the vendor's usage: prompt with all that was cached, of it cached, written to
/// the cache, answer without thoughts, thoughts (where the vendor tells them apart).
fn usage(vendor: Vendor, body: &Value) -> [u64; 5] {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    match vendor {
        Vendor::OpenAi => {
            let usage = &body["usage"];
            let reasoning = number(&usage["completion_tokens_details"]["reasoning_tokens"]);
            let (prompt, all) =
                (number(&usage["prompt_tokens"]), number(&usage["completion_tokens"]));
            assert_eq!(number(&usage["total_tokens"]), prompt + all);
            let cached = number(&usage["prompt_tokens_details"]["cached_tokens"]);
            [prompt, cached, 0, all - reasoning, reasoning]
        }
        Vendor::Anthropic => {
            let usage = &body["usage"];
            let read = number(&usage["cache_read_input_tokens"]);
            let written = number(&usage["cache_creation_input_tokens"]);
            let prompt = number(&usage["input_tokens"]) + read + written;
            [prompt, read, written, number(&usage["output_tokens"]), 0]
        }
        Vendor::Gemini => {
            let usage = &body["usageMetadata"];
            let (prompt, said) =
                (number(&usage["promptTokenCount"]), number(&usage["candidatesTokenCount"]));
            let thoughts = number(&usage["thoughtsTokenCount"]);
            assert_eq!(number(&usage["totalTokenCount"]), prompt + said + thoughts);
            [prompt, number(&usage["cachedContentTokenCount"]), 0, said, thoughts]
        }
    }
}

#[test]
fn whole_and_streamed_answers_say_the_same_and_cost_the_same() {
    for vendor in Vendor::ALL {
        let provider = Provider::start().unwrap();
        let (cached_tokens, cache_written_tokens, reasoning_tokens) = (3, 2, 5);
        let manner = Manner {
            tokens: 12,
            tokens_per_chunk: 5,
            cached_tokens,
            cache_written_tokens,
            reasoning_tokens,
            ..Manner::default()
        };
        provider.set_manner(manner);
        let whole = Call::new(vendor, false).send(&provider).json().unwrap();
        let streamed = Call::new(vendor, true).send(&provider);
        assert_eq!(said(vendor, &whole), text(12));
        assert_eq!(heard(vendor, &streamed), text(12));
        let last = events(&streamed)
            .into_iter()
            .rfind(|event| event["usage"].is_object() || event["usageMetadata"].is_object());
        let costs = [usage(vendor, &whole), usage(vendor, &last.unwrap())];
        assert_eq!(costs[0], costs[1]);
        let expected = match vendor {
            Vendor::OpenAi | Vendor::Gemini => [7, 3, 0, 12, 5],
            Vendor::Anthropic => [7, 3, 2, 12 + 5, 0],
        };
        assert_eq!(costs[0], expected, "{vendor:?}");
        for entry in provider.settled(PATIENCE).unwrap().entries {
            let billed = [entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens];
            assert_eq!((billed, entry.reasoning_tokens), ([7, 3, 12], 5));
            assert_eq!((entry.end, entry.status), (End::Complete, 200));
        }
    }
}

#[test]
fn a_stream_has_the_frames_of_its_vendor() {
    let provider = Provider::start().unwrap();
    provider.set_manner(Manner { tokens: 2, ..Manner::default() });
    let raw = |vendor| {
        let response = Call::new(vendor, true).send(&provider);
        assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
        String::from_utf8(response.body).unwrap()
    };
    let openai = raw(Vendor::OpenAi);
    assert!(openai.ends_with("data: [DONE]\n\n"), "{openai}");
    assert_eq!(openai.matches("\"usage\":null").count(), 4, "{openai}");
    let without = Call::new(Vendor::OpenAi, true).with("stream_options", Value::Null);
    let text = String::from_utf8(without.send(&provider).body).unwrap();
    assert!(!text.contains("usage") && text.ends_with("[DONE]\n\n"), "{text}");

    let anthropic = raw(Vendor::Anthropic);
    let names: Vec<&str> =
        anthropic.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let expected = [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names, expected);

    let gemini = raw(Vendor::Gemini);
    assert!(gemini.ends_with("\r\n\r\n") && !gemini.contains("[DONE]"), "{gemini}");
    assert_eq!(gemini.matches("finishReason").count(), 1);
}

#[test]
fn a_wrong_key_is_refused_in_the_vendors_words() {
    let provider = Provider::start().unwrap();
    for (vendor, key, status, place, word) in [
        (Vendor::OpenAi, "sk-wrong-key", 401, "code", "invalid_api_key"),
        (Vendor::OpenAi, "", 401, "type", "invalid_request_error"),
        (Vendor::Anthropic, "wrong", 401, "type", "authentication_error"),
        (Vendor::Anthropic, "", 401, "type", "authentication_error"),
        (Vendor::Gemini, "wrong", 400, "status", "INVALID_ARGUMENT"),
        (Vendor::Gemini, "", 403, "status", "PERMISSION_DENIED"),
    ] {
        let call = Call { key: key.to_owned(), ..Call::new(vendor, false) };
        let response = call.send(&provider);
        let body = response.json().unwrap();
        assert_eq!(
            (response.status, body["error"][place].as_str()),
            (status, Some(word)),
            "{body}"
        );
    }
    provider.set_key("another");
    let call = Call { key: "another".to_owned(), ..Call::new(Vendor::Gemini, false) };
    assert_eq!(call.send(&provider).status, 200);
    let books = provider.settled(PATIENCE).unwrap();
    assert_eq!(books.totals.prompt_tokens, 7, "a refusal is not billed");
}

#[test]
fn what_a_vendor_does_not_take_is_refused() {
    let provider = Provider::start().unwrap();
    let message = |message: Value| json!([{"role": "user", "content": "hi"}, message]);
    let call = json!({"role": "assistant", "content": null, "tool_calls": [{
        "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]});
    for (vendor, name, value) in [
        (Vendor::OpenAi, "model", Value::Null),
        (Vendor::OpenAi, "messages", Value::Null),
        (Vendor::OpenAi, "messages", json!([])),
        (Vendor::OpenAi, "messages", json!([{"role": "robot", "content": "hi"}])),
        (Vendor::OpenAi, "messages", message(call)),
        (Vendor::OpenAi, "messages", message(json!({"role": "tool", "tool_call_id": "x"}))),
        (Vendor::OpenAi, "max_tokens", json!(0)),
        (Vendor::OpenAi, "stream_options", json!({"include_usage": true})),
        (Vendor::OpenAi, "tool_choice", json!("auto")),
        (Vendor::OpenAi, "response_format", json!({"type": "json_object"})),
        (Vendor::Anthropic, "model", Value::Null),
        (Vendor::Anthropic, "max_tokens", Value::Null),
        (Vendor::Anthropic, "messages", json!([{"role": "assistant", "content": "hi"}])),
        (Vendor::Anthropic, "messages", message(json!({"role": "system", "content": "hi"}))),
        (Vendor::Anthropic, "messages", message(json!({"role": "assistant", "content": "hi "}))),
        (Vendor::Anthropic, "messages", message(json!({"role": "user", "content": ""}))),
        (Vendor::Anthropic, "temperature", json!(1.5)),
        (Vendor::Anthropic, "stream_options", json!({})),
        (Vendor::Anthropic, "tools", json!([{"name": "f", "input_schema": {}}])),
        (Vendor::Gemini, "contents", json!([])),
        (Vendor::Gemini, "contents", json!([{"role": "assistant", "parts": [{"text": "hi"}]}])),
        (Vendor::Gemini, "messages", json!([])),
        (Vendor::Gemini, "generationConfig", json!({"max_tokens": 5})),
    ] {
        let response = Call::new(vendor, false).with(name, value.clone()).send(&provider);
        assert_eq!(response.status, 400, "{vendor:?} {name} {value}");
        assert!(response.json().unwrap()["error"]["message"].is_string());
    }
    let mut nameless = Call::new(Vendor::OpenAi, false).with("model", json!("nobody"));
    assert_eq!(nameless.send(&provider).status, 404);
    nameless.path = "/v1/v1/chat/completions".to_owned();
    assert_eq!(nameless.send(&provider).status, 404);
    let mut client = Client::connect(provider.address()).unwrap();
    let headers = [("X-Api-Key", KEY), ("Content-Type", "application/json")];
    let body = Call::new(Vendor::Anthropic, false).body.to_string();
    let unversioned = client.request("POST", "/v1/messages", &headers, body.as_bytes()).unwrap();
    let bearer = format!("Bearer {KEY}");
    let headers =
        [("Authorization", bearer.as_str()), ("Anthropic-Version", "2023-06-01"), headers[1]];
    let newer = client.request("POST", "/v1/messages", &headers, body.as_bytes()).unwrap();
    assert_eq!(newer.status, 200, "newer clients send a bearer");
    assert_eq!(unversioned.status, 400);
    assert!(unversioned.json().unwrap().to_string().contains("anthropic-version"));
}

#[test]
fn tools_are_called_and_their_results_are_heard() {
    let provider = Provider::start().unwrap();
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tool = json!({"name": "weather", "parameters": schema});
    let arguments = json!({"city": "ü0"});

    let openai = |is_stream| {
        let tools = json!([{"type": "function", "function": tool}]);
        Call::new(Vendor::OpenAi, is_stream).with("tools", tools)
    };
    let body = openai(false).send(&provider).json().unwrap();
    assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
    let message = body["choices"][0]["message"].clone();
    let call = &message["tool_calls"][0];
    assert_eq!(call["function"]["arguments"], arguments.to_string());
    let parts: String = events(&openai(true).send(&provider))
        .iter()
        .filter_map(|event| {
            let call = &event["choices"][0]["delta"]["tool_calls"][0];
            call["function"]["arguments"].as_str().map(str::to_owned)
        })
        .collect();
    assert_eq!(parts, arguments.to_string());
    let result = json!({"role": "tool", "tool_call_id": call["id"], "content": "sunny"});
    let messages = json!([{"role": "user", "content": "hi"}, message, result]);
    let body = openai(false).with("messages", messages).send(&provider).json().unwrap();
    assert_eq!(said(Vendor::OpenAi, &body), text(20));

    let tools = json!([{"name": "weather", "input_schema": schema}]);
    let anthropic = Call::new(Vendor::Anthropic, false).with("tools", tools);
    let body = anthropic.send(&provider).json().unwrap();
    assert_eq!(body["stop_reason"], "tool_use");
    assert_eq!(body["content"][0]["input"], arguments);
    let result = json!([{"type": "tool_result", "tool_use_id": body["content"][0]["id"]}]);
    let messages = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": body["content"]},
        {"role": "user", "content": result},
    ]);
    let body = anthropic.with("messages", messages).send(&provider).json().unwrap();
    assert_eq!(said(Vendor::Anthropic, &body), text(20));

    let tools = json!([{"functionDeclarations": [tool]}]);
    let gemini = Call::new(Vendor::Gemini, false).with("tools", tools);
    let body = gemini.send(&provider).json().unwrap();
    let call = &body["candidates"][0]["content"];
    assert_eq!(call["parts"][0]["functionCall"]["args"], arguments);
    let result = json!({"name": "weather", "response": {"sky": "sunny"}});
    let contents = json!([
        {"role": "user", "parts": [{"text": "hi"}]},
        call,
        {"role": "user", "parts": [{"functionResponse": result}]},
    ]);
    let body = gemini.with("contents", contents).send(&provider).json().unwrap();
    assert_eq!(said(Vendor::Gemini, &body), text(20));
}

#[test]
fn documents_pictures_and_limits_are_heard() {
    let provider = Provider::start().unwrap();
    let format = json!({"type": "json_object"});
    let ask = json!([{"role": "user", "content": "as JSON"}]);
    let call = Call::new(Vendor::OpenAi, true).with("response_format", format);
    let document = heard(Vendor::OpenAi, &call.with("messages", ask).send(&provider));
    assert!(serde_json::from_str::<Value>(&document).unwrap()["words"].is_array());

    let url = json!({"url": "data:image/png;base64,AAAA"});
    let parts = json!([{"type": "text", "text": "this"}, {"type": "image_url", "image_url": url}]);
    let messages = json!([{"role": "user", "content": parts}]);
    let call = Call::new(Vendor::OpenAi, false).with("messages", messages);
    assert_eq!(call.with("max_tokens", json!(3)).send(&provider).status, 200);
    let entry = ended(&provider);
    assert_eq!((entry.pictures, entry.prompt_tokens, entry.completion_tokens), (1, 4 + 1 + 85, 3));

    let source = json!({"type": "base64", "media_type": "image/png", "data": "AAAA"});
    let messages = json!([{"role": "user", "content": [{"type": "image", "source": source}]}]);
    let call = Call::new(Vendor::Anthropic, false).with("messages", messages);
    assert_eq!(call.send(&provider).status, 200);
    assert_eq!(ended(&provider).pictures, 1);
}

#[test]
fn vectors_are_the_same_in_both_formats_and_models_are_listed() {
    use base64::Engine as _;
    let provider = Provider::start().unwrap();
    let mut call = Call::new(Vendor::OpenAi, false);
    call.path = "/v1/embeddings".to_owned();
    call.body = json!({"model": "text-embedding-3-small", "input": ["a b", "c"]});
    let numbers = call.send(&provider).json().unwrap();
    assert_eq!(numbers["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    call.body["encoding_format"] = json!("base64");
    let encoded = call.send(&provider).json().unwrap();
    let bytes = encoded["data"][1]["embedding"].as_str().unwrap();
    let bytes = base64::prelude::BASE64_STANDARD.decode(bytes).unwrap();
    let (floats, _) = bytes.as_chunks::<4>();
    let floats: Vec<f32> = floats.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(json!(floats), numbers["data"][1]["embedding"]);
    call.body["input"] = json!([]);
    assert_eq!(call.send(&provider).status, 400);
    let mut call = Call::new(Vendor::Gemini, false);
    call.path = "/v1beta/models/text-embedding-3-small:batchEmbedContents".to_owned();
    let request = |text| json!({"model": "models/any", "content": {"parts": [{"text": text}]}});
    call.body = json!({"requests": [request("a b"), request("c")]});
    let values = call.send(&provider).json().unwrap()["embeddings"][1]["values"].clone();
    assert_eq!(values, numbers["data"][1]["embedding"]);

    let mut client = Client::connect(provider.address()).unwrap();
    let bearer = format!("Bearer {KEY}");
    let list = client.request("GET", "/v1/models", &[("Authorization", &bearer)], b"").unwrap();
    assert_eq!(list.json().unwrap()["data"][0]["id"], MODELS[0]);
    let headers = [("X-Api-Key", KEY), ("Anthropic-Version", "2023-06-01")];
    let one = client.request("GET", "/v1/models/gpt-4o", &headers, b"").unwrap();
    assert_eq!(one.json().unwrap()["type"], "model");
    let list = client.request("GET", &format!("/v1beta/models?key={KEY}"), &[], b"").unwrap();
    assert_eq!(list.json().unwrap()["models"][0]["name"], format!("models/{}", MODELS[0]));
}
