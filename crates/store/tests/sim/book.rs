//! The book: what callers were told, and nothing else.
//!
//! Owns: what an answer must agree with. Refuses to know: the engine and the store; it compares
//! bytes and names.

use std::collections::BTreeMap;

use engine::{Decided, Refused};
use types::hash::{hex_decode, hex_encode};
use types::{Hash, Reason, ReceiptId, StreamName};

use crate::workload::Ask;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// What was acknowledged is gone or altered.
    #[error("lost: {0}")]
    Lost(String),
    /// One key or one attempt has two outcomes.
    #[error("doubled: {0}")]
    Doubled(String),
    /// Something was called damaged or altered that is neither.
    #[error("false alarm: {0}")]
    FalseAlarm(String),
    /// A state is not what the receipts say.
    #[error("differs: {0}")]
    Differs(String),
}

/// A receipt as its caller was told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) stream: StreamName,
    pub(crate) id: ReceiptId,
    pub(crate) core: Vec<u8>,
    pub(crate) hash: Hash,
    pub(crate) chain_hash: Hash,
}

/// What a caller heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Receipt(Box<Told>),
    Nothing,
    /// The code of the reason.
    Refused(String),
}

impl Heard {
    pub(crate) fn of(answer: &Result<Option<Decided>, Refused>) -> Heard {
        match answer {
            Ok(None) => Heard::Nothing,
            Err(refused) => Heard::Refused(refused.reason.code().to_owned()),
            Ok(Some(decided)) => {
                let receipt = &decided.receipt;
                Heard::Receipt(Box::new(Told {
                    stream: receipt.stream.clone(),
                    id: receipt.id,
                    core: receipt.core.to_vec(),
                    hash: receipt.hash,
                    chain_hash: receipt.chain_hash,
                }))
            }
        }
    }

    /// As one line, behind the number of its question.
    pub(crate) fn to_line(&self, nth: u64) -> String {
        match self {
            Heard::Nothing => format!("{nth} nothing"),
            Heard::Refused(code) => format!("{nth} refused {code}"),
            Heard::Receipt(told) => {
                let mut core = Vec::new();
                hex_encode(&told.core, &mut core);
                let core = String::from_utf8(core).unwrap();
                let Told { stream, id, hash, chain_hash, .. } = &**told;
                format!("{nth} receipt {stream} {id} {hash} {chain_hash} {core}")
            }
        }
    }

    /// Reads such a line.
    pub(crate) fn from_line(line: &str) -> (u64, Heard) {
        let words: Vec<&str> = line.split(' ').collect();
        let heard = match words[1..] {
            ["nothing"] => Heard::Nothing,
            ["refused", code] => Heard::Refused(code.to_owned()),
            ["receipt", stream, id, hash, chain_hash, core] => {
                let mut bytes = vec![0; core.len() / 2];
                hex_decode(core.as_bytes(), &mut bytes).unwrap();
                Heard::Receipt(Box::new(Told {
                    stream: StreamName::parse(stream).unwrap(),
                    id: ReceiptId::parse(id).unwrap(),
                    core: bytes,
                    hash: Hash::from_hex(hash.as_bytes()).unwrap(),
                    chain_hash: Hash::from_hex(chain_hash.as_bytes()).unwrap(),
                }))
            }
            _ => panic!("not an answer: {line}"),
        };
        (words[0].parse().unwrap(), heard)
    }
}

/// Everything that callers were told so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Book {
    told: BTreeMap<ReceiptId, Told>,
    /// The receipt and the body of each key.
    keys: BTreeMap<(StreamName, String), (ReceiptId, String)>,
}

impl Book {
    /// Takes down an answer, or says which earlier one it contradicts.
    pub(crate) fn hear(&mut self, ask: &Ask, heard: &Heard) -> Result<(), Fault> {
        let Heard::Receipt(told) = heard else { return Ok(()) };
        let known = self.told.entry(told.id).or_insert_with(|| (**told).clone());
        if *known != **told {
            return Err(Fault::Lost(format!("receipt {} was told with other bytes", told.id)));
        }
        let Some(key) = &ask.key else { return Ok(()) };
        let place = (ask.stream.clone(), key.text.clone());
        let (id, body) = self.keys.entry(place).or_insert((told.id, key.body.clone()));
        let whose = format!("key {} of {}", key.text, ask.stream);
        if *id != told.id {
            return Err(Fault::Doubled(format!("{whose} gave {id} and then {}", told.id)));
        }
        if *body != key.body {
            return Err(Fault::Doubled(format!("{whose} answered two bodies")));
        }
        Ok(())
    }

    /// What must be answered, when nothing is in the way, to a key that was answered before.
    pub(crate) fn demand(&self, ask: &Ask, heard: &Heard) -> Result<(), Fault> {
        let Some(key) = &ask.key else { return Ok(()) };
        let known = self.keys.get(&(ask.stream.clone(), key.text.clone()));
        let right = match (known, heard) {
            (Some((id, body)), Heard::Receipt(told)) => told.id == *id && *body == key.body,
            (Some((_, body)), Heard::Refused(code)) => {
                *body != key.body && code == Reason::DuplicateMessage.code()
            }
            (Some(_), Heard::Nothing) => false,
            (None, _) => true,
        };
        if right {
            return Ok(());
        }
        let whose = format!("key {} of {}", key.text, ask.stream);
        Err(Fault::Lost(format!("{whose} was answered before, and now with {heard:?}")))
    }

    /// The receipts, in order of their ids.
    pub(crate) fn told(&self) -> impl Iterator<Item = &Told> {
        self.told.values()
    }

    /// The keys that were answered, with their receipts.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&StreamName, &str, ReceiptId)> {
        self.keys.iter().map(|((stream, key), (id, _))| (stream, key.as_str(), *id))
    }
}
