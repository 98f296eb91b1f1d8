//! The newest receipts' names, which the index does not have yet.
//!
//! Owns: two generations in memory, one that grows and one that is moved into the index, and the
//! pace of the move. Refuses to know: SQL, and what a name stands for.

use std::collections::BTreeMap;

/// A 128-bit hash that leads to one receipt: its id, or the idempotency key that it answers.
///
/// Both share one index without a tag. An id is a truncated SHA-256 over ledger, stream and seq, a
/// key a truncated HMAC under the ledger's secret, so nobody can make one that equals the other;
/// who finds a receipt by id compares the id all the same, since a key can be read in a receipt.
pub(crate) type Name = [u8; 16];

/// Names in a generation: of 16 384 receipts with a key each, in about 1.4 MB. The larger it is,
/// the more of its names share a page of the index, and the more receipts an opening reads.
pub(crate) const GENERATION: usize = 32_768;

/// What is behind the index, as of the last commit.
///
/// Both generations are trees: they are asked as often as they grow, the older one is moved in the
/// order of names, and a tree needs no sorting, which would be somebody's slow answer.
pub(crate) struct Fresh {
    generation: usize,
    /// What is left of the generation that is being moved.
    frozen: BTreeMap<Name, u64>,
    /// How many of its names were moved already.
    moved: usize,
    /// The newest receipt in it.
    frozen_to: u64,
    young: BTreeMap<Name, u64>,
    /// Every receipt up to this position is in the index.
    indexed: u64,
    /// Receipts in the ledger.
    size: u64,
}

impl Fresh {
    /// A ledger whose index reaches to the receipt at `indexed`.
    pub(crate) fn new(indexed: u64) -> Fresh {
        Fresh {
            generation: GENERATION,
            frozen: BTreeMap::new(),
            moved: 0,
            frozen_to: indexed,
            young: BTreeMap::new(),
            indexed,
            size: indexed,
        }
    }

    /// Where a name leads, when its receipt is behind the index or is not forgotten yet.
    pub(crate) fn get(&self, name: &Name) -> Option<u64> {
        self.frozen.get(name).or_else(|| self.young.get(name)).copied()
    }

    /// Receipts in the ledger as of the last commit that this memory knows of.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What the next append moves along with the `brought` names of its own, in the order of
    /// names: about as many, so that the older generation is gone when the younger one is full.
    /// After crashes, each of which forgets how far the move had come, the room is smaller and
    /// the run longer: never are more than two generations behind the index.
    pub(crate) fn run(&self, brought: usize) -> impl ExactSizeIterator<Item = (&Name, &u64)> {
        let held = self.moved + self.frozen.len() + self.young.len();
        let room = (2 * self.generation).saturating_sub(held).max(1);
        let run = (brought * self.frozen.len()).div_ceil(room);
        self.frozen.iter().take(run)
    }

    /// How far the index reaches once `moved` more names are in it.
    pub(crate) fn indexed_after(&self, moved: usize) -> u64 {
        if moved == self.frozen.len() { self.frozen_to } else { self.indexed }
    }

    /// Forgets the first `moved` names, takes in `names`, and is as of `size`. Only after the
    /// commit: until then somebody may look for them in an index that does not have them.
    pub(crate) fn commit(
        &mut self,
        moved: usize,
        names: impl IntoIterator<Item = (Name, u64)>,
        size: u64,
    ) {
        self.indexed = self.indexed_after(moved);
        for _ in 0..moved {
            self.frozen.pop_first();
        }
        self.moved += moved;
        for (name, pos) in names {
            // Only a table that was altered by hand says a name twice: its first receipt keeps it.
            self.young.entry(name).or_insert(pos);
        }
        self.size = size;
        if self.frozen.is_empty() && self.young.len() >= self.generation {
            self.frozen = std::mem::take(&mut self.young);
            (self.moved, self.frozen_to) = (0, size);
        }
    }

    /// Freezes at `names` from now on.
    pub(crate) fn set_generation(&mut self, names: usize) {
        self.generation = names.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u64) -> Name {
        let mut name = [n as u8; 16];
        name[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        name
    }

    /// Appends `brought` names as the writer does. Returns what was moved.
    fn append(fresh: &mut Fresh, brought: u64) -> Vec<u64> {
        let run: Vec<_> = fresh.run(brought as usize).map(|(_, pos)| *pos).collect();
        let size = fresh.size();
        fresh.commit(
            run.len(),
            (size + 1..=size + brought).map(|pos| (name(pos), pos)),
            size + brought,
        );
        run
    }

    #[test]
    fn a_generation_is_gone_when_the_next_one_is_full() {
        for brought in [1, 3, 40, 100, 250] {
            let mut fresh = Fresh::new(0);
            fresh.set_generation(100);
            let (mut moved, mut most) = (Vec::new(), 0);
            while fresh.size() < 1_000 {
                let run = append(&mut fresh, brought);
                most = most.max(run.len() as u64);
                moved.extend(run);
                let behind = fresh.size() - fresh.indexed;
                assert!(
                    behind <= 200 + 2 * brought,
                    "{behind} at {}, {brought} each",
                    fresh.size()
                );
                moved.sort_unstable();
                assert!(moved.iter().copied().take(fresh.indexed as usize).eq(1..=fresh.indexed));
                assert!((1..=fresh.size()).all(|pos| {
                    fresh.get(&name(pos)).is_some() != moved.binary_search(&pos).is_ok()
                }));
            }
            assert!(brought > 3 || most <= brought + 1, "{most} at once, {brought} each");
        }
    }

    #[test]
    fn a_run_follows_the_order_of_names() {
        let mut fresh = Fresh::new(7);
        fresh.set_generation(50);
        append(&mut fresh, 50);
        let mut last = Name::default();
        while fresh.indexed == 7 {
            let run: Vec<_> = fresh.run(3).map(|(name, _)| *name).collect();
            assert!(last < run[0] && run.is_sorted());
            last = run[run.len() - 1];
            append(&mut fresh, 3);
        }
        assert_eq!(fresh.indexed, 57);
    }

    #[test]
    fn the_first_of_two_receipts_keeps_a_name() {
        let mut fresh = Fresh::new(0);
        fresh.set_generation(2);
        fresh.commit(0, [(name(1), 1), (name(1), 2), (name(3), 3)], 3);
        fresh.commit(0, [(name(1), 4)], 4);
        assert_eq!(fresh.get(&name(1)), Some(1));
    }
}
