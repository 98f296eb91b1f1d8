//! A connection to the fake provider: which path is whose, who may ask, and what is answered.
//!
//! Owns: the order of checks, and the refusals that are nobody's fault but the caller's. Refuses to
//! know: how an answer goes out.

use std::net::TcpStream;
use std::time::Instant;

use serde_json::Value;

use super::books::{End, Entry};
use super::deliver::{Delivery, Stop};
use super::fault::{Fault, Refusal};
use super::wire::{Caller, Request};
use super::{Shared, Vendor, anthropic, embeddings, gemini, openai};

/// Where a request wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// An answer; Gemini's path names the model and whether it is streamed.
    Chat(Vendor, Option<(String, bool)>),
    /// Vectors; Gemini's path names the model.
    Embeddings(Vendor, Option<String>),
    Models(Vendor),
    Model(Vendor, String),
    Nowhere,
}

impl Route {
    fn of(request: &Request) -> Route {
        let is_anthropic = request.header("anthropic-version").is_some();
        let lister = if is_anthropic { Vendor::Anthropic } else { Vendor::OpenAi };
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/v1/chat/completions") => Route::Chat(Vendor::OpenAi, None),
            ("POST", "/v1/embeddings") => Route::Embeddings(Vendor::OpenAi, None),
            ("POST", "/v1/messages") => Route::Chat(Vendor::Anthropic, None),
            ("GET", "/v1/models") => Route::Models(lister),
            ("GET", "/v1beta/models") => Route::Models(Vendor::Gemini),
            ("GET", path) => match (path.strip_prefix("/v1/models/"), path) {
                (Some(name), _) => Route::Model(lister, name.to_owned()),
                (None, path) => match path.strip_prefix("/v1beta/models/") {
                    Some(name) => Route::Model(Vendor::Gemini, name.to_owned()),
                    None => Route::Nowhere,
                },
            },
            ("POST", path) => Route::of_gemini(path, &request.query).unwrap_or(Route::Nowhere),
            _ => Route::Nowhere,
        }
    }

    fn of_gemini(path: &str, query: &str) -> Option<Route> {
        let (model, verb) = path.strip_prefix("/v1beta/models/")?.split_once(':')?;
        let is_sse = query.split('&').any(|pair| pair == "alt=sse");
        let model = model.to_owned();
        match verb {
            "generateContent" => Some(Route::Chat(Vendor::Gemini, Some((model, false)))),
            // Without it the vendor sends one long array, which nobody here reads.
            "streamGenerateContent" if is_sse => {
                Some(Route::Chat(Vendor::Gemini, Some((model, true))))
            }
            "batchEmbedContents" => Some(Route::Embeddings(Vendor::Gemini, Some(model))),
            _ => None,
        }
    }

    /// The model that the path names.
    fn model(&self) -> Option<&str> {
        match self {
            Route::Chat(_, Some((model, _)))
            | Route::Embeddings(_, Some(model))
            | Route::Model(_, model) => Some(model),
            _ => None,
        }
    }

    fn is_stream(&self, body: &Value) -> bool {
        match self {
            Route::Chat(_, Some((_, is_stream))) => *is_stream,
            _ => body["stream"] == true,
        }
    }

    /// Whose words a refusal has; whoever asks for nothing that exists gets those of OpenAI.
    fn vendor(&self) -> Option<Vendor> {
        match self {
            Route::Chat(vendor, _)
            | Route::Embeddings(vendor, _)
            | Route::Models(vendor)
            | Route::Model(vendor, _) => Some(*vendor),
            Route::Nowhere => None,
        }
    }
}

/// Answers every request of a connection.
pub(super) fn serve(shared: &Shared, stream: TcpStream) {
    let mut caller = Caller::new(stream, &shared.books);
    while let Ok(request) = caller.request() {
        let route = Route::of(&request);
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let number = shared.books.open(|number| opened(shared, number, &request, &route, &body));
        caller.serves(number);
        caller.in_pieces = false;
        let ended = answer(shared, &mut caller, number, &request, &route, &body);
        let end = match &ended {
            Ok(()) => End::Complete,
            Err(Stop::Gone) => End::HungUp,
            Err(Stop::Broken | Stop::Reset) => End::Broken,
        };
        if matches!(ended, Err(Stop::Reset)) {
            caller.reset_at_end();
        }
        shared.books.note(number, |entry| entry.end = end);
        if ended.is_err() {
            return;
        }
    }
}

fn opened(shared: &Shared, number: usize, request: &Request, route: &Route, body: &Value) -> Entry {
    let named = route.model().or_else(|| body["model"].as_str());
    Entry {
        number,
        id: shared.serial(number),
        vendor: route.vendor(),
        route: format!("{} {}", request.method, request.path),
        headers: request.headers.clone(),
        body: body.clone(),
        model: named.unwrap_or_default().to_owned(),
        is_stream: route.is_stream(body),
        pictures: 0,
        fault: None,
        status: 0,
        prompt_tokens: 0,
        cached_tokens: 0,
        completion_tokens: 0,
        reasoning_tokens: 0,
        bytes_sent: 0,
        started: Instant::now(),
        ended: None,
        end: End::Running,
    }
}

fn answer(
    shared: &Shared,
    caller: &mut Caller<'_>,
    number: usize,
    request: &Request,
    route: &Route,
    body: &Value,
) -> Result<(), Stop> {
    let vendor = route.vendor().unwrap_or(Vendor::OpenAi);
    let manner = shared.rules().manner.clone();
    let key = key(vendor, request).unwrap_or_default();
    let path = request.path.as_str();
    let is_stream = route.is_stream(body);
    let mut delivery =
        Delivery { shared, caller, number, vendor, key, path, is_stream, manner, fault: None };
    if let Err(refusal) = admitted(shared, vendor, request, route, key) {
        return delivery.refuse(&refusal);
    }
    match route {
        Route::Nowhere => return delivery.refuse(&Refusal::NoRoute),
        Route::Models(_) => return delivery.whole(&models(shared, vendor)),
        Route::Model(_, name) => {
            return match model_card(shared, vendor, name) {
                Some(card) => delivery.whole(&card),
                None => delivery.refuse(&Refusal::NoModel(name.clone())),
            };
        }
        Route::Chat(..) | Route::Embeddings(..) => {}
    }
    let model = route.model().or_else(|| body["model"].as_str()).unwrap_or_default();
    delivery.fault = shared.rules().plan.take(model);
    let fault = delivery.fault.clone();
    shared.books.note(number, |entry| entry.fault = fault);
    if let Some(Fault::Refuse(refusal)) = delivery.fault.clone() {
        return delivery.refuse(&refusal);
    }
    if !body.is_object() {
        let message = "We could not parse the JSON body of your request.";
        return delivery.refuse(&Refusal::Invalid { param: None, message: message.to_owned() });
    }
    if !model.is_empty() && !shared.rules().models.iter().any(|known| known == model) {
        return delivery.refuse(&Refusal::NoModel(model.to_owned()));
    }
    let asked = match route {
        Route::Chat(_, Some((model, is_stream))) => gemini::asked(model, *is_stream, body),
        Route::Chat(Vendor::Anthropic, _) => anthropic::asked(body),
        Route::Embeddings(..) => {
            return match embeddings::answer(vendor, body) {
                Ok((tokens, body)) => delivery.vectors(tokens, &body),
                Err(refusal) => delivery.refuse(&refusal),
            };
        }
        _ => openai::asked(body),
    };
    match asked {
        Ok(asked) => delivery.answer(&asked),
        Err(refusal) => delivery.refuse(&refusal),
    }
}

/// What came as a key, where the vendor looks for it; newer clients of Anthropic send a bearer.
fn key(vendor: Vendor, request: &Request) -> Option<&str> {
    let bearer = || request.header("authorization")?.strip_prefix("Bearer ");
    match vendor {
        Vendor::OpenAi => bearer(),
        Vendor::Anthropic => request.header("x-api-key").or_else(bearer),
        Vendor::Gemini => request
            .header("x-goog-api-key")
            .or_else(|| request.query.split('&').find_map(|pair| pair.strip_prefix("key="))),
    }
}

fn admitted(
    shared: &Shared,
    vendor: Vendor,
    request: &Request,
    route: &Route,
    key: &str,
) -> Result<(), Refusal> {
    if *route == Route::Nowhere {
        return Ok(());
    }
    if key.is_empty() {
        return Err(Refusal::NoKey);
    }
    if key != shared.rules().key {
        return Err(Refusal::BadKey);
    }
    if vendor == Vendor::Anthropic && request.header("anthropic-version").is_none() {
        let message = "anthropic-version: header is required".to_owned();
        return Err(Refusal::Invalid { param: None, message });
    }
    let is_json =
        request.header("content-type").is_some_and(|it| it.starts_with("application/json"));
    if request.method == "POST" && !is_json {
        let message = "Unsupported content type; send application/json".to_owned();
        return Err(Refusal::Invalid { param: None, message });
    }
    Ok(())
}

fn models(shared: &Shared, vendor: Vendor) -> Value {
    let names = shared.rules().models.clone();
    match vendor {
        Vendor::OpenAi => openai::models(&names),
        Vendor::Anthropic => anthropic::models(&names),
        Vendor::Gemini => gemini::models(&names),
    }
}

fn model_card(shared: &Shared, vendor: Vendor, name: &str) -> Option<Value> {
    shared.rules().models.iter().any(|known| known == name).then(|| match vendor {
        Vendor::OpenAi => openai::model_card(name),
        Vendor::Anthropic => anthropic::model_card(name),
        Vendor::Gemini => gemini::model_card(name),
    })
}
