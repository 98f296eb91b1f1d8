//! What a crash left, under examination.
//!
//! Owns: the checks of a ledger on disk, before and after an instance has gone on with it. Refuses
//! to know: how it came to this.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use engine::ports::Store;
use ledger::Verifier;
use store::{Reader, SqliteStore, doctor};
use testkit::dice::Dice;
use testkit::disktrace::{Image, lay_out};

use super::{ASKS, open, room};
use crate::book::{Book, Fault};
use crate::instance::{Instance, NEVER};
use crate::judge::judge;
use crate::workload::{Ask, Workload};

/// Questions that are asked again after each crash.
const EXAMINED: u64 = 40;

/// Opens what a crash left, compares it with the book, asks again, and compares once more.
pub(super) fn examine(
    image: &Image,
    book: &Book,
    workload: &Workload,
    asked: u64,
    dice: &mut Dice,
) -> Result<(), Fault> {
    let room = room();
    lay_out(image, room.path()).unwrap();
    let store = open(room.path())
        .map_err(|error| Fault::FalseAlarm(format!("the ledger does not open: {error}")))?;
    if store.opened().head_rewritten {
        return Err(Fault::FalseAlarm("the head file had to be written again".into()));
    }
    judge(&store, book)?;
    files_are_sound(room.path())?;
    let mut book = book.clone();
    drop(ask_again(store, &mut book, workload, asked, dice)?);
    files_are_sound(room.path())
}

/// The verifier over the files, the head file beside them, and the doctor.
fn files_are_sound(dir: &Path) -> Result<(), Fault> {
    let alarm = |what: String| Err(Fault::FalseAlarm(what));
    let reader = Reader::open(dir).unwrap();
    let mut verifier = Verifier::new(reader.ledger(), reader.head_record());
    reader
        .for_each(None, &mut |row| {
            verifier.push(row);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let report = verifier.finish();
    if !report.intact() || !report.head_checked || report.root != reader.table_head().root {
        return alarm(format!("the verifier finds {:?}", report.findings));
    }
    let found = doctor(dir).unwrap();
    if !found.healthy() {
        return alarm(format!("the doctor finds {found:?}"));
    }
    Ok(())
}

/// An instance over what was found: the newest questions again, and some older ones.
fn ask_again(
    store: SqliteStore,
    book: &mut Book,
    workload: &Workload,
    asked: u64,
    dice: &mut Dice,
) -> Result<SqliteStore, Fault> {
    let newest = asked.saturating_sub(EXAMINED / 2)..asked;
    let older = (0..EXAMINED / 2).map(|_| dice.below(asked));
    let asks: Vec<_> = newest
        .chain(older)
        .map(|nth| Ask { gives_up: false, ..workload.ask(nth) })
        .filter(|ask| ask.key.is_some())
        .collect();
    let instance = Instance::start(Arc::new(store), NEVER);
    let now = Workload::at(asked + ASKS);
    instance.clock.set(now);
    let heard = RefCell::new(Vec::new());
    instance.ask(&asks, |ask, answer| heard.borrow_mut().push((ask.clone(), answer)));
    let heard = heard.into_inner();
    // All against the book as it was: of questions that are asked at once, a refusal may be heard
    // after the receipt that was decided after it.
    heard.iter().try_for_each(|(ask, heard)| book.demand(ask, heard))?;
    heard.iter().try_for_each(|(ask, heard)| book.hear(ask, heard))?;
    let calm = |store: &SqliteStore| {
        store.unsettled(1).unwrap().is_empty() && store.due(now, 1).unwrap().is_empty()
    };
    if !instance.wait(calm) {
        return Err(Fault::Differs("what is due or unsettled is never done".into()));
    }
    instance.check_calm()?;
    let judged = judge(instance.store(), book)?;
    for (stream, folded) in &judged.states {
        let state = instance.state(stream).map_err(Fault::FalseAlarm)?;
        if state != *folded {
            return Err(Fault::Differs(format!("{stream} has another state than its receipts")));
        }
    }
    Ok(instance.drain())
}
