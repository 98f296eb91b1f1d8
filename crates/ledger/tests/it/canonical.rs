//! The writer against an independent RFC 8785 implementation, and the scanner's refusals (INV-6).

use ledger::public::{public_bytes, split};
use ledger::{Draft, Kind, Meta, SealError, StreamHead, View, seal};
use proptest::prelude::*;
use types::{Micros, ReceiptId, StreamName};

use crate::{LEDGER, sample};

fn draft_strategy() -> impl Strategy<Value = Draft> {
    let text = "[^\\x00-\\x1f]{0,40}";
    let int = -9_007_199_254_740_991i64..=9_007_199_254_740_991;
    let meta = prop_oneof![
        text.prop_map(|t| Meta::Text(t.into())),
        int.clone().prop_map(Meta::Int),
        any::<bool>().prop_map(Meta::Bool),
    ];
    let optional = proptest::option::of(text);
    (
        text,
        proptest::array::uniform4(optional),
        proptest::option::of(int),
        proptest::collection::btree_map("[A-Za-z0-9_.-]{1,12}", meta, 0..6),
        proptest::option::of(any::<[u8; 16]>()),
        0..Kind::ALL.len(),
    )
        .prop_map(|(action, texts, amount, metadata, intent, kind)| {
            let mut draft = Draft::new(Kind::ALL[kind], action);
            let [detail, actor, status, subject] = texts.map(|t| t.map(Into::into));
            draft.detail = detail;
            draft.actor = actor;
            draft.status = status;
            draft.subject = subject;
            draft.amount = amount;
            draft.intent = intent.map(ReceiptId);
            draft.metadata = metadata.into_iter().map(|(k, v)| (k.into(), v)).collect();
            draft
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn writer_agrees_with_an_independent_rfc_8785_implementation(draft in draft_strategy()) {
        let stream = StreamName::parse("tenant-1").unwrap();
        let at = Micros(1_700_000_000_000_001);
        let sealed = seal(&LEDGER, &stream, &StreamHead::EMPTY, at, &draft).unwrap();
        for bytes in [
            sealed.core.to_vec(),
            public_bytes(&sealed.core, sealed.hash, sealed.chain_hash).unwrap(),
        ] {
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(serde_json_canonicalizer::to_vec(&value).unwrap(), bytes);
        }
        let view = View::scan(&sealed.core).unwrap();
        prop_assert_eq!(view.action.text(), draft.action);
        prop_assert_eq!(view.detail.map(|d| d.text().into_owned()), draft.detail.map(|d| d.into_owned()));
        prop_assert_eq!(view.amount, draft.amount);
        prop_assert_eq!(view.intent, draft.intent);
        prop_assert_eq!(view.metadata().count(), draft.metadata.len());
        for (key, value) in &draft.metadata {
            let found = view.meta(key).unwrap();
            match value {
                Meta::Int(wanted) => prop_assert_eq!(view.meta_int(key), Some(*wanted)),
                Meta::Text(wanted) => prop_assert_eq!(view.meta_text(key).unwrap(), wanted.as_ref()),
                Meta::Bool(wanted) => prop_assert_eq!(found, ledger::scan::MetaView::Bool(*wanted)),
            }
        }
    }

    #[test]
    fn the_scanner_never_panics_on_outside_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = View::scan(&bytes);
        let _ = View::scan_public(&bytes);
        let _ = split(&bytes);
    }

    #[test]
    fn what_the_scanner_accepts_is_canonical(at in 0usize..600, byte in any::<u8>()) {
        let (stored, _) = sample(1, 1);
        let mut core = stored[0].core.clone();
        let at = at % core.len();
        core[at] = byte;
        if View::scan(&core).is_ok() {
            let value: serde_json::Value = serde_json::from_slice(&core).unwrap();
            prop_assert_eq!(serde_json_canonicalizer::to_vec(&value).unwrap(), core);
        }
    }
}

#[test]
fn public_form_splits_back_into_the_same_core() {
    let (stored, _) = sample(5, 2);
    for receipt in &stored {
        let sealed = &receipt.sealed;
        let public = public_bytes(&sealed.core, sealed.hash, sealed.chain_hash).unwrap();
        let (core, hash, chain_hash) = split(&public).unwrap();
        assert_eq!(core, &*sealed.core);
        assert_eq!((hash, chain_hash), (sealed.hash, sealed.chain_hash));
        assert!(View::scan(&public).is_err(), "the two forms are not interchangeable");
        assert!(split(&sealed.core).is_err());
    }
}

#[test]
fn drafts_outside_the_profile_are_refused() {
    let stream = StreamName::parse("tenant-1").unwrap();
    let refuse =
        |draft: Draft| seal(&LEDGER, &stream, &StreamHead::EMPTY, Micros(1), &draft).unwrap_err();
    let draft = || Draft::new(Kind::Transition, "grant");
    for control in ["\u{0}", "\n", "\u{1f}"] {
        assert_eq!(
            refuse(Draft::new(Kind::Refusal, control)),
            SealError::ControlCharacter { field: "action" }
        );
    }
    for amount in [9_007_199_254_740_992, -9_007_199_254_740_992, i64::MIN, i64::MAX] {
        let mut draft = draft();
        draft.amount = Some(amount);
        assert_eq!(refuse(draft), SealError::IntegerRange { field: "amount" });
    }
    let twice = draft().with("a", Meta::Int(1)).with("a", Meta::Int(2));
    assert_eq!(refuse(twice), SealError::RepeatedKey);
    assert_eq!(refuse(draft().with("é", Meta::Int(1))), SealError::MetadataKey);
    let huge = draft().with("a", Meta::Text("x".repeat(20_000).into()));
    assert_eq!(refuse(huge), SealError::TooLarge { max_bytes: 16 * 1024 });
}

#[test]
fn bytes_outside_the_profile_are_refused() {
    let (stored, _) = sample(1, 1);
    let core = String::from_utf8(stored[0].core.clone()).unwrap();
    let seq = r#""seq":0"#;
    for (from, to) in [
        (seq, r#""seq":00"#),
        (seq, r#""seq":-0"#),
        (seq, r#""seq":-1"#),
        (seq, r#""seq":0.0"#),
        (seq, r#""seq":1e3"#),
        (seq, r#""seq":null"#),
        (seq, r#""seq":"0""#),
        (seq, r#""seq":9007199254740992"#),
        (seq, r#""seq":0,"seq":0"#),
        (seq, r#""seq":0,"sfx":0"#),
        (seq, r#""sfx":0"#),
        (seq, r#""seq": 0"#),
        (r#""v":1"#, r#""v":2"#),
        (r#""v":1}"#, r#""v":1} "#),
        (r#""v":1}"#, r#""v":1"#),
        (r#""plan":"s"#, r#""plan":"\u0073"#),
        (r#""plan":"s"#, r#""plan":"\/s"#),
        (r#""plan":"s"#, "\"plan\":\"\u{1}s"),
        (r#""n":0"#, r#""n":[0]"#),
        (r#""n":0"#, r#""n":{}"#),
        (r#""n":0"#, r#""n":true1"#),
        (r#""tenant_id":"tenant-0""#, r#""tenant_id":"tenant-1""#),
        (r#""type":"transition""#, r#""type":"Transition""#),
        ("sha256", "SHA256"),
        ("0000000000\"", "000000000g\""),
        (".000000Z", ".00000Z"),
    ] {
        let changed = core.replacen(from, to, 1);
        if changed != core {
            assert!(View::scan(changed.as_bytes()).is_err(), "{from} -> {to}");
        }
    }
    assert!(View::scan(core.as_bytes()).is_ok());
    for cut in 0..core.len() {
        assert!(View::scan(&core.as_bytes()[..cut]).is_err(), "cut at {cut}");
    }
}
