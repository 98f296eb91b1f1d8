//! What each fault looks like from the caller's side.

use super::*;

/// Every vendor, streamed and whole.
fn ways() -> impl Iterator<Item = (Vendor, bool)> {
    Vendor::ALL.into_iter().flat_map(|vendor| [(vendor, true), (vendor, false)])
}

/// One call with one fault.
fn with(fault: impl Into<Fault>, vendor: Vendor, is_stream: bool) -> (Provider, Result<Response>) {
    let provider = Provider::start().unwrap();
    provider.next(fault);
    let response = Call::new(vendor, is_stream).try_send(&provider);
    (provider, response)
}

#[test]
fn refusals_have_the_vendors_status_and_shape() {
    let soon = Some(RetryAfter::Seconds(3_600));
    let table = [
        (Refusal::Forbidden, [403, 403, 403]),
        (Refusal::RateLimited(None), [429; 3]),
        (Refusal::RateLimited(soon), [429; 3]),
        (Refusal::OutOfCredit, [429, 402, 429]),
        (Refusal::ServerError, [500; 3]),
        (Refusal::Unavailable(soon), [503; 3]),
        (Refusal::Overloaded, [529; 3]),
        (Refusal::BadKey, [401, 401, 400]),
        (Refusal::ContextLength, [400; 3]),
        (Refusal::ContentPolicy, [400, 400, 200]),
    ];
    for (refusal, statuses) in table {
        for (vendor, status) in Vendor::ALL.into_iter().zip(statuses) {
            let (provider, response) = with(refusal.clone(), vendor, true);
            let response = response.unwrap();
            assert_eq!(response.status, status, "{vendor:?} {refusal:?}");
            // Gemini streams even this.
            let body = match status {
                200 => events(&response).remove(0),
                _ => response.json().unwrap(),
            };
            let place = if status == 200 { "promptFeedback" } else { "error" };
            assert!(body[place].is_object(), "{body}");
            let after = refusal.retry_after().map(|_| "3600");
            assert_eq!(response.header("retry-after"), after);
            let entry = ended(&provider);
            assert_eq!((entry.status, entry.prompt_tokens), (status, 0));
            assert_eq!(entry.fault, Some(Fault::Refuse(refusal.clone())));
        }
    }
}

#[test]
fn a_pause_can_be_a_date() {
    let refusal = Refusal::RateLimited(Some(RetryAfter::Date(3_600)));
    let (_provider, response) = with(refusal, Vendor::OpenAi, false);
    let date = response.unwrap().header("retry-after").unwrap().to_owned();
    assert!(date.ends_with(" GMT") && date.contains(", "), "{date}");
    let then = jiff::fmt::rfc2822::parse(&date.replace("GMT", "+0000")).unwrap().timestamp();
    let left = then.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((0..=3_600).contains(&left), "{date}");
}

#[test]
fn a_hanging_answer_ends_with_its_caller() {
    let table = [
        (Fault::HangBeforeHead, 0, ["", ""]),
        (Fault::HangAfterHead, 200, ["\r\n\r\n", "\r\n\r\n"]),
        (Fault::HangBeforeFirstToken, 200, ["\r\n\r\n", "\r\n\r\n"]),
        (Fault::StallAfter(2), 200, ["w1", "\r\n\r\n{"]),
    ];
    for (fault, status, seen) in table {
        for (vendor, is_stream) in ways() {
            let provider = Provider::start().unwrap();
            provider.next(fault.clone());
            let mut stream = Call::new(vendor, is_stream).begin(&provider);
            let mut heard = Vec::new();
            let wanted = seen[usize::from(!is_stream)];
            while !String::from_utf8_lossy(&heard).contains(wanted) {
                let mut bytes = [0; 1024];
                let read = stream.read(&mut bytes).unwrap();
                assert!(read > 0, "{fault:?}: it ended");
                heard.extend_from_slice(&bytes[..read]);
            }
            let begun = |books: &Statement| {
                books.entries.back().filter(|it| it.fault.is_some() && it.status == status).cloned()
            };
            assert_eq!(provider.wait_for(PATIENCE, begun).unwrap().end, End::Running);
            drop(stream);
            let entry = ended(&provider);
            assert_eq!((entry.end, entry.status), (End::HungUp, status));
            let tokens = if is_stream && fault == Fault::StallAfter(2) { 2 } else { 0 };
            assert_eq!(entry.completion_tokens, tokens, "{vendor:?} {fault:?}");
        }
    }
}

#[test]
fn a_broken_connection_is_seen_as_one() {
    for (vendor, is_stream) in ways() {
        for (fault, word) in [(Fault::CutAfter(2), "ends"), (Fault::ResetAfter(2), "breaks")] {
            let (provider, response) = with(fault.clone(), vendor, is_stream);
            let error = format!("{:#}", response.unwrap_err());
            assert!(error.contains(word), "{vendor:?} {fault:?}: {error}");
            let entry = ended(&provider);
            let tokens = if is_stream { 2 } else { 0 };
            assert_eq!((entry.end, entry.completion_tokens), (End::Broken, tokens));
        }
    }
}

#[test]
fn an_answer_can_end_properly_and_be_none() {
    for (vendor, is_stream) in ways() {
        let body = |fault| {
            String::from_utf8_lossy(&with(fault, vendor, is_stream).1.unwrap().body).into_owned()
        };
        let is_json = |text: &str| serde_json::from_str::<Value>(text).is_ok();
        assert!(!is_json(&body(Fault::Garbage)));
        assert!(body(Fault::Html).starts_with("<!DOCTYPE html>"));
        assert_eq!(body(Fault::Empty), "");
        let truncated = body(Fault::TruncatedJson);
        let last = truncated.lines().last().unwrap();
        assert!(!is_json(last.trim_start_matches("data: ")), "{last}");
        let error = body(Fault::ErrorAfter(2));
        assert!(error.contains("verloaded"), "{error}");
        assert_eq!(error.contains("w1"), is_stream);
        assert!(!error.contains("w2"), "{error}");
        let (usage, finish) = match vendor {
            Vendor::OpenAi => ("_tokens\"", "\"stop\""),
            Vendor::Anthropic => ("_tokens\"", "end_turn"),
            Vendor::Gemini => ("usageMetadata", "\"STOP\""),
        };
        let plain = Call::new(vendor, is_stream).send(&Provider::start().unwrap()).body;
        let plain = String::from_utf8(plain).unwrap();
        assert!(plain.contains(usage) && plain.contains(finish), "{plain}");
        assert!(!body(Fault::NoUsage).contains(usage));
        let unfinished = body(Fault::NoFinish);
        assert!(unfinished.contains("ü19") && !unfinished.contains(finish), "{unfinished}");
    }
}

#[test]
fn a_stream_can_go_wrong_in_its_middle() {
    for vendor in Vendor::ALL {
        let stream = |fault| with(fault, vendor, true).1.unwrap();
        let ended = stream(Fault::EndAfter(5));
        assert_eq!(heard(vendor, &ended), text(5));
        let broken = stream(Fault::MalformedAfter(5));
        assert_eq!(heard(vendor, &broken), text(20), "the others come all the same");
        assert_eq!(events(&broken).iter().filter(|event| event.is_null()).count(), 1);
        let done = ["[DONE]", "message_stop"].map(|done| done.as_bytes());
        let undone = stream(Fault::NoDone);
        assert_eq!(heard(vendor, &undone), text(20));
        assert!(done.iter().all(|done| !undone.body.windows(done.len()).any(|it| it == *done)));
        let huge = heard(vendor, &stream(Fault::HugeChunk));
        assert!(huge.len() > 2 * 1024 * 1024 && huge.ends_with(&text(20)));
        let slow = stream(Fault::Slow(Duration::from_millis(1)));
        assert_eq!(heard(vendor, &slow), text(20));
    }
}

#[test]
fn a_head_may_trickle_and_letters_may_be_parted() {
    for (vendor, is_stream) in ways() {
        for fault in [Fault::TrickledHead(Duration::from_micros(10)), Fault::Pieces] {
            let response = with(fault, vendor, is_stream).1.unwrap();
            let heard = match is_stream {
                true => heard(vendor, &response),
                false => said(vendor, &response.json().unwrap()),
            };
            assert_eq!(heard, text(20));
        }
    }
}

#[test]
fn a_redirect_shows_who_follows_it() {
    let (provider, response) = with(Fault::Redirect, Vendor::Anthropic, false);
    let response = response.unwrap();
    let place = format!("http://{}/moved/v1/messages", provider.address());
    assert_eq!((response.status, response.header("location")), (302, Some(place.as_str())));
    let mut client = Client::connect(provider.address()).unwrap();
    assert_eq!(client.request("POST", "/moved/v1/messages", &[], b"").unwrap().status, 404);
    assert_eq!(provider.books().entries[1].route, "POST /moved/v1/messages");
}

#[test]
fn what_is_compressed_says_so() {
    for (vendor, is_stream) in ways() {
        let response = with(Fault::Gzip, vendor, is_stream).1.unwrap();
        assert_eq!(response.header("content-encoding"), Some("gzip"));
        assert!(response.body.starts_with(&[0x1f, 0x8b, 8]));
    }
    crate::needs_python!();
    let response = with(Fault::Gzip, Vendor::OpenAi, true).1.unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &response.body).unwrap();
    let program = "import gzip, sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())";
    let mut python = std::process::Command::new("python3");
    let output = python.args(["-c", program]).arg(file.path()).output().unwrap();
    assert!(output.stdout.ends_with(b"data: [DONE]\n\n"), "{output:?}");
}
