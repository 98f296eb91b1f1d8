//! Answers that are given again: to whom, for how long, and what it costs.
//!
//! Owns: that a kept answer weakens no gate, calls nobody and bills nothing, and that a cache that
//! is away is no failure. Refuses to know: how answers are kept.

use testkit::provider::Manner;
use testkit::redis::Redis;

use super::*;

const MODEL: &str = "one/gpt-4o-mini";
const ON: (&str, &str) = ("AI_CACHE_TTL_S", "60");
const CHAT: &str = "/v1/chat/completions";

fn house(provider: &Provider, envs: &[(&str, &str)]) -> House {
    House::start(&[("one", Vendor::OpenAi, provider)], "", envs)
}

fn said(text: &str) -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": text }] })
}

/// What the header says; `-` where there is none.
fn cache(response: &Response) -> &str {
    assert_eq!(response.status, 200, "{}", text(response));
    response.header("x-cache").unwrap_or("-")
}

fn ask(caller: &mut Caller, body: &Value) -> String {
    cache(&caller.post(CHAT, body)).to_owned()
}

fn seconds(response: &Response, from: &str) -> u64 {
    let value = response.header(from).unwrap();
    value.strip_prefix("private, max-age=").unwrap_or(value).parse().unwrap()
}

fn counted(house: &House, result: &str, store: &str) -> i64 {
    let name = format!("ai_cache_requests_total{{result=\"{result}\",store=\"{store}\"}}");
    metric(house.tai.address(), &name)
}

fn grant(admin: &mut Caller, tenant: &str, action: &str) {
    let event = json!({"tenant_id": tenant, "entitlement_id": "enterprise", "action": action});
    let response = admin.post("/marketplace", &event);
    assert_eq!(response.status, 200, "{}", text(&response));
}

#[test]
fn the_same_again_calls_nobody_and_costs_nothing() {
    let provider = Provider::start().unwrap();
    let house = house(&provider, &[ON]);
    let mut caller = house.local();
    let mut message = said("say it");
    message["max_tokens"] = 100.into();
    let vectors = json!({"model": "one/text-embedding-3-small", "input": ["a text"]});
    for (path, body) in
        [(CHAT, said("say it")), ("/v1/messages", message), ("/v1/embeddings", vectors)]
    {
        let requests = || provider.totals().requests;
        let before = requests();
        let first = caller.post(path, &body);
        assert_eq!(cache(&first), "miss", "{path}");
        assert_eq!(seconds(&first, "cache-control"), 60);
        result_of(&mut caller, "local", &receipt_id(&first));
        let usage = caller.get("/v1/usage").json().unwrap();
        let again = caller.post(path, &body);
        assert_eq!(cache(&again), "hit", "{path}");
        assert_eq!(again.body, first.body, "byte for byte");
        assert_eq!(receipt_id(&again), receipt_id(&first), "of the answer that it is");
        assert_eq!(again.header("x-durability"), first.header("x-durability"));
        assert!(seconds(&again, "age") <= 60);
        assert!(seconds(&again, "cache-control") <= 60);
        assert_eq!(requests() - before, 1, "{path}");
        assert_eq!(caller.get("/v1/usage").json().unwrap(), usage, "{path}");
    }
    let counts = ["hit", "miss", "bypass"].map(|result| counted(&house, result, "memory"));
    assert_eq!(counts, [3, 2, 1], "nobody had heard of the tenant before its first call");
    until("the bytes", || (metric(house.tai.address(), "ai_cache_bytes") > 0).then_some(()));
    let receipts = house.close("local");
    let attempts = receipts.iter().filter(|receipt| receipt["type"] == "action_attempt");
    assert_eq!(attempts.count(), 3, "a hit leaves no receipt");
}

#[test]
fn what_is_not_the_same_is_asked_anew() {
    let provider = Provider::start().unwrap();
    let house = house(&provider, &[ON]);
    let mut caller = house.local();
    let plain = said("say it");
    assert_eq!(ask(&mut caller, &plain), "miss");
    let mut warm = plain.clone();
    warm["temperature"] = json!(0.5);
    let spaced = plain.to_string().replace("\":", "\": ");
    let spaced = caller.send_bytes("POST", CHAT, spaced.as_bytes());
    assert_eq!(cache(&spaced), "miss", "to the byte");
    for other in [said("say it!"), warm] {
        assert_eq!(ask(&mut caller, &other), "miss", "{other}");
    }
    let mut short = said("at length");
    short["max_tokens"] = 5.into();
    for _ in 0..2 {
        let cut = caller.post(CHAT, &short);
        assert_eq!(cache(&cut), "miss");
        assert_eq!(cut.json().unwrap()["choices"][0]["finish_reason"], "length");
        assert_eq!(cut.header("cache-control"), Some("no-store"), "half an answer is not kept");
    }
    for _ in 0..2 {
        let stream = caller.post(CHAT, &streamed(MODEL));
        assert_eq!((cache(&stream), stream.header("cache-control")), ("-", Some("no-store")));
    }
    let keyed = |key: &str| house.local().with("Idempotency-Key", key).post(CHAT, &plain);
    let first = keyed("one");
    assert_eq!(cache(&first), "miss", "a key stands for a receipt of its own");
    assert_eq!(receipt_id(&keyed("one")), receipt_id(&first));
    assert_ne!(receipt_id(&keyed("two")), receipt_id(&first));
    assert_eq!(ask(&mut caller, &plain), "hit");
    house.close("local");
}

#[test]
fn callers_say_how_old_an_answer_may_be() {
    let provider = Provider::start().unwrap();
    let house = house(&provider, &[ON]);
    let saying = |words: &str| house.local().with("Cache-Control", words).post(CHAT, &chat(MODEL));
    for _ in 0..2 {
        let unkept = saying("no-store");
        assert_eq!((cache(&unkept), unkept.header("cache-control")), ("miss", Some("no-store")));
    }
    assert_eq!(ask(&mut house.local(), &chat(MODEL)), "miss", "nothing was kept");
    let mut newest = None;
    for words in ["no-cache", "max-age=0", "Max-Age=\"0\"", "max-age=soon", "max-age=5, no-cache"] {
        let renewed = saying(words);
        assert_eq!(cache(&renewed), "miss", "{words}");
        newest = Some(receipt_id(&renewed));
    }
    for words in ["max-age=3600", "private", "only-if-cached"] {
        let kept = saying(words);
        assert_eq!((cache(&kept), Some(receipt_id(&kept))), ("hit", newest.clone()), "{words}");
    }
    until("an answer to be older than a second", || {
        (cache(&saying("max-age=1")) == "miss").then_some(())
    });
    assert_eq!(cache(&saying("max-age=3600")), "hit");
    assert!(counted(&house, "bypass", "memory") >= 7);
    house.close("local");
}

#[test]
fn an_answer_is_told_to_nobody_who_may_not_ask() {
    let provider = Provider::start().unwrap();
    let house = house(&provider, &[ON]);
    let mut admin = house.local();
    let [mut one, mut other] = ["acme", "umbrella"].map(|tenant| {
        grant(&mut admin, tenant, "grant");
        issue(&mut admin, &json!({"tenant_id": tenant})).caller(house.tai.address())
    });
    let body = chat(MODEL);
    assert_eq!(ask(&mut one, &body), "miss");
    assert_eq!(ask(&mut one, &body), "hit");
    assert_eq!(ask(&mut other, &body), "miss", "another tenant, another answer");
    grant(&mut admin, "acme", "suspend");
    let refused = one.post(CHAT, &body);
    assert_eq!((refused.status, refused.header("x-cache")), (422, None));
    assert_eq!(refused.json().unwrap()["error"]["code"], "entitlement_inactive");
    assert!(refused.header("x-receipt-id").is_some(), "refused as any call is");
    grant(&mut admin, "acme", "resume");
    assert_eq!(ask(&mut one, &body), "hit");
    // Who has spent all may be told what was paid for.
    let budget = json!({"calls": 1});
    assert_eq!(admin.put("/admin/tenants/acme/budget", &budget).status, 200);
    assert_eq!(ask(&mut one, &body), "hit");
    assert_eq!(one.post(CHAT, &said("something else")).status, 402);
    assert_eq!(provider.totals().requests, 2);
    house.close("acme");
}

#[test]
fn an_answer_lives_as_long_as_the_setting_says_and_no_longer() {
    let provider = Provider::start().unwrap();
    let house = house(&provider, &[("AI_CACHE_TTL_S", "3600")]);
    let mut caller = house.local();
    let set = |seconds: &str| {
        let order = json!({"value": seconds, "lease_s": 600});
        let response = house.local().put("/admin/settings/AI_CACHE_TTL_S", &order);
        assert_eq!(response.status, 200, "{}", text(&response));
    };
    let body = chat(MODEL);
    assert_eq!([ask(&mut caller, &body), ask(&mut caller, &body)], ["miss", "hit"]);
    // What is kept already is not kept longer than is permitted by now.
    set("1");
    until("the end of an answer", || (ask(&mut caller, &body) == "miss").then_some(()));
    set("0");
    assert_eq!([ask(&mut caller, &body), ask(&mut caller, &body)], ["-", "-"]);
    set("3600");
    assert_eq!(ask(&mut caller, &body), "miss", "turned off, it forgets");
    assert_eq!(ask(&mut caller, &body), "hit");
    house.close("local");
}

pub(crate) fn ai_cache_ttl_s() {
    let provider = Provider::start().unwrap();
    for (seconds, expected) in [("0", ["-", "-"]), ("60", ["miss", "hit"])] {
        let house = house(&provider, &[("AI_CACHE_TTL_S", seconds)]);
        let mut caller = house.local();
        let body = chat(MODEL);
        assert_eq!([ask(&mut caller, &body), ask(&mut caller, &body)], expected, "{seconds}");
        house.close("local");
    }
}

pub(crate) fn ai_cache_max_bytes() {
    const CALLS: usize = 20;
    let provider = Provider::start().unwrap();
    provider.set_manner(Manner { tokens: 1_500, ..Manner::default() });
    for (bytes, all) in [("65536", false), ("67108864", true)] {
        let house = house(&provider, &[ON, ("AI_CACHE_MAX_BYTES", bytes)]);
        let mut caller = house.local();
        let bodies: Vec<Value> = (0..CALLS).map(|nth| said(&format!("text {nth}"))).collect();
        let mut said = 0;
        for body in &bodies {
            let answer = caller.post(CHAT, body);
            assert_eq!(cache(&answer), "miss");
            said += answer.body.len();
        }
        assert!((70_000..1_000_000).contains(&said), "more than the smaller takes: {said}");
        let held = until("the bytes", || {
            let held = metric(house.tai.address(), "ai_cache_bytes");
            (held > 0).then_some(held)
        });
        assert!(held <= bytes.parse().unwrap(), "{held} of {bytes}");
        let hits = bodies.iter().filter(|body| ask(&mut caller, body) == "hit").count();
        assert_eq!(hits == CALLS, all, "{bytes}: {hits}");
        house.close("local");
    }
}

/// Asks until the answer comes from the cache: a connection to Redis is made behind the calls.
fn until_hit(caller: &mut Caller, body: &Value) {
    until("an answer out of Redis", || (ask(caller, body) == "hit").then_some(()));
}

pub(crate) fn redis_url() {
    let Some(redis) = Redis::start().unwrap() else {
        testkit::skip!("Redis is not installed");
    };
    let provider = Provider::start().unwrap();
    let url = redis.url();
    for (own, store, survives) in
        [(vec![], "memory", "miss"), (vec![("REDIS_URL", url.as_str())], "redis", "hit")]
    {
        let envs = [&[ON][..], &own].concat();
        let house = house(&provider, &envs);
        let body = chat(MODEL);
        until_hit(&mut house.local(), &body);
        assert!(counted(&house, "hit", store) >= 1, "{store}");
        let House { _room, dir, tai } = house;
        stop(tai);
        let tai = House::serve(&dir, &[("one", Vendor::OpenAi, &provider)], "", &envs);
        if survives == "hit" {
            until_hit(&mut Caller::local(tai.address()), &body);
            let missed = "ai_cache_requests_total{result=\"miss\",store=\"redis\"}";
            let page = text(&Caller::local(tai.address()).get("/metrics"));
            assert!(!page.contains(missed), "{page}");
        } else {
            assert_eq!(ask(&mut Caller::local(tai.address()), &body), survives);
        }
        stop(tai);
    }
}

#[test]
fn redis_is_shared_by_the_tenants_of_one_ledger_alone() {
    let Some(redis) = Redis::start().unwrap() else {
        testkit::skip!("Redis is not installed");
    };
    let provider = Provider::start().unwrap();
    let url = redis.url();
    let envs = [ON, ("REDIS_URL", url.as_str())];
    let body = said("a text that nobody may guess");
    let first = house(&provider, &envs);
    until_hit(&mut first.local(), &body);
    let keys = redis.ask(&["KEYS", "*"]).unwrap();
    assert!(keys.starts_with("tai:ai:1:") && keys.lines().count() == 1, "{keys}");
    let left: i64 = redis.ask(&["PTTL", &keys]).unwrap().parse().unwrap();
    assert!((1..=60_000).contains(&left), "{left}");
    // Another service with a tenant of the same name, on the same server.
    let second = house(&provider, &envs);
    until_hit(&mut second.local(), &body);
    assert_eq!(redis.ask(&["DBSIZE"]).unwrap(), "2");
    // Whoever writes there does not speak for a model.
    let before = provider.totals().requests;
    for key in redis.ask(&["KEYS", "*"]).unwrap().lines() {
        redis.ask(&["SETRANGE", key, "200", "forged"]).unwrap();
    }
    assert_eq!(ask(&mut first.local(), &body), "miss");
    assert_eq!(provider.totals().requests - before, 1);
    for house in [first, second] {
        assert!(!house.tai.log_lines().iter().any(|line| line.contains(url.as_str())));
        house.close("local");
    }
}

#[test]
fn a_redis_that_goes_away_is_missed_by_nobody() {
    let Some(redis) = Redis::start().unwrap() else {
        testkit::skip!("Redis is not installed");
    };
    let provider = Provider::start().unwrap();
    let url = redis.url();
    let house = house(&provider, &[ON, ("REDIS_URL", url.as_str())]);
    let mut caller = house.local();
    let body = chat(MODEL);
    let logged = |event: &str| {
        let lines = house.tai.log_lines();
        lines.iter().filter(|line| line.contains(&format!("\"event\":\"{event}\""))).count()
    };
    until_hit(&mut caller, &body);
    redis.kill();
    for _ in 0..5 {
        let missed = caller.post(CHAT, &body);
        assert_eq!((cache(&missed), missed.header("cache-control")), ("miss", Some("no-store")));
    }
    assert!(counted(&house, "error", "redis") >= 5);
    until("a line about it", || (logged("redis_away") == 1).then_some(()));
    redis.restart().unwrap();
    until_hit(&mut caller, &body);
    assert_eq!((logged("redis_away"), logged("redis_up")), (1, 2));
    redis.freeze();
    assert_eq!(ask(&mut caller, &body), "miss");
    redis.thaw();
    until_hit(&mut caller, &body);
    // Full, it keeps nothing more, and gives what it has.
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let unkept = caller.post(CHAT, &said("one more"));
    assert_eq!((cache(&unkept), unkept.header("cache-control")), ("miss", Some("no-store")));
    assert_eq!(ask(&mut caller, &body), "hit");
    house.close("local");
}
