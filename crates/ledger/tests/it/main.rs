//! The ledger as its public document promises it: canonical bytes, links, and a verifier that
//! finds and places every change.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod canonical;
mod tamper;

use ledger::{Draft, HeadRecord, Kind, LedgerId, Meta, Row, Sealed, StreamHead, seal};
use types::{Micros, StreamName};

pub(crate) const LEDGER: LedgerId = LedgerId([0x5a; 16]);

/// A stored receipt, owned.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) pos: u64,
    pub(crate) stream: String,
    pub(crate) stream_no: usize,
    pub(crate) sealed: Sealed,
    pub(crate) core: Vec<u8>,
}

impl Stored {
    pub(crate) fn row(&self) -> Row<'_> {
        Row {
            pos: self.pos,
            id: self.sealed.id,
            stream: &self.stream,
            stream_no: Some(self.stream_no),
            seq: self.sealed.seq,
            core: &self.core,
            hash: self.sealed.hash,
            chain_hash: self.sealed.chain_hash,
        }
    }
}

/// `count` receipts over `streams` streams in turn, and the head record over them.
pub(crate) fn sample(count: u64, streams: usize) -> (Vec<Stored>, HeadRecord) {
    let names: Vec<_> =
        (0..streams).map(|n| StreamName::parse(&format!("tenant-{n}")).unwrap()).collect();
    let mut heads = vec![StreamHead::EMPTY; streams];
    let mut head = HeadRecord::empty(LEDGER);
    let mut stored = Vec::new();
    for n in 0..count {
        let which = n as usize % streams;
        let mut draft = Draft::new(Kind::Transition, "grant")
            .states("unentitled", "entitled")
            .with("plan", Meta::Text("starter \"quoted\" \\ déjà".into()))
            .with("n", Meta::Int(n as i64));
        draft.entitlement_id = Some("base".into());
        draft.rule = Some("entitlement.grant".into());
        draft.actor = Some("loopback".into());
        let at = Micros(1_700_000_000_000_000 + n as i64);
        let sealed = seal(&LEDGER, &names[which], &heads[which], at, &draft).unwrap();
        heads[which] = heads[which].after(&sealed);
        head = head.after(sealed.hash, sealed.at);
        let (core, stream) = (sealed.core.to_vec(), names[which].to_string());
        stored.push(Stored { pos: n + 1, stream, stream_no: which + 1, sealed, core });
    }
    (stored, head)
}
