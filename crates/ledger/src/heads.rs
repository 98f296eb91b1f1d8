//! Where each stream stands while a ledger is walked through.
//!
//! Owns: how a receipt's stream is found. Refuses to know: what is checked of it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::seal::StreamHead;

/// Where each stream stands.
pub type Heads = HashMap<Arc<str>, StreamHead>;

/// The streams seen so far, in the order of their first receipts. A store that numbers its streams
/// as they come has the same order: its number then is the place, and nothing has to be looked up.
/// Neighbours in commit order are of different streams, so that each way through a large map is one
/// through memory that no cache holds.
#[derive(Clone, Default)]
pub(crate) struct Walked {
    heads: Vec<(Arc<str>, StreamHead)>,
    places: HashMap<Arc<str>, usize>,
}

impl Walked {
    /// The head of a stream, which is empty when it was not seen before.
    pub(crate) fn head(&mut self, name: &str, number: Option<usize>) -> &mut StreamHead {
        let guess = number.and_then(|number| number.checked_sub(1));
        let is_there = |place: &usize| self.heads.get(*place).is_some_and(|at| *at.0 == *name);
        let place = guess.filter(is_there).unwrap_or_else(|| self.place(name));
        &mut self.heads[place].1
    }

    fn place(&mut self, name: &str) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let (name, place) = (Arc::<str>::from(name), self.heads.len());
        self.heads.push((Arc::clone(&name), StreamHead::EMPTY));
        self.places.insert(name, place);
        place
    }

    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn into_heads(self) -> Heads {
        self.heads.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_never_stands_for_another_name() {
        let mut walked = Walked::default();
        walked.head("a", Some(1)).next_seq = 10;
        walked.head("b", Some(9)).next_seq = 20;
        for (name, number, expected) in [
            ("a", Some(1), 10),
            ("a", None, 10),
            ("a", Some(2), 10),
            ("b", Some(2), 20),
            ("b", Some(1), 20),
            ("b", Some(0), 20),
            ("b", Some(usize::MAX), 20),
            ("c", Some(1), 0),
        ] {
            assert_eq!(walked.head(name, number).next_seq, expected, "{name} {number:?}");
        }
        assert_eq!(walked.len(), 3);
    }
}
