//! The fold of all streams for a rebuild or a copy: what is due afterwards.
//!
//! Owns: nothing but the states of one pass. Refuses to know: where receipts come from.

use std::collections::HashMap;

use governors::StreamState;
use ledger::{Row, View};
use types::{Micros, StreamName};

/// States of all streams, folded receipt by receipt.
#[derive(Default)]
pub(crate) struct Folds {
    states: HashMap<StreamName, StreamState>,
    /// Receipts that the governors could not fold.
    pub(crate) unfolded: u64,
}

impl Folds {
    /// [`store::StreamFold::apply`] for a row that a reader hands over.
    pub(crate) fn apply_row(&mut self, row: &Row<'_>) {
        match StreamName::parse(row.stream) {
            Ok(stream) => store::StreamFold::apply(self, &stream, row.core),
            Err(_) => self.unfolded += 1,
        }
    }
}

impl store::StreamFold for Folds {
    fn apply(&mut self, stream: &StreamName, core: &[u8]) {
        if !self.states.contains_key(stream) {
            self.states.insert(stream.clone(), StreamState::empty(stream));
        }
        let Some(state) = self.states.get_mut(stream) else { return };
        let folded = View::scan(core).is_ok_and(|view| state.apply(&view).is_ok());
        self.unfolded += u64::from(!folded);
    }

    fn due(&mut self) -> Vec<(StreamName, Micros)> {
        let due =
            self.states.iter().filter_map(|(name, state)| Some((name.clone(), state.next_due()?)));
        due.collect()
    }
}
