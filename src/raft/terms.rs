//! The terms of all entries, without the entries.

use crate::{
    types::{LogIndex, Term},
    wal::TermRun,
};

/// Terms of the entries after a start position, as runs: a few numbers per election, whatever the length of the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// The position before the first entry, and its term.
    start: (u64, u64),
    last: u64,
    /// Ascending in both fields.
    runs: Vec<TermRun>,
}

impl Terms {
    pub(super) fn new(start: (LogIndex, Term)) -> Self {
        Self { start: (start.0.0, start.1.0), last: start.0.0, runs: Vec::new() }
    }

    pub(super) fn start(&self) -> u64 {
        self.start.0
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The term of the last entry, or of the start.
    pub(super) fn last_term(&self) -> u64 {
        self.runs.last().map_or(self.start.1, |run| run.term.0)
    }

    /// The term of the entry at `index`; `None` outside of start and last.
    pub(super) fn at(&self, index: u64) -> Option<u64> {
        if index == self.start.0 {
            return Some(self.start.1);
        }
        if index < self.start.0 || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first.0 <= index);
        self.runs.get(after.checked_sub(1)?).map(|run| run.term.0)
    }

    /// Puts an entry at `index`, forgetting everything from there on. An index that would leave a gap is ignored.
    pub(super) fn put(&mut self, index: u64, term: u64) {
        if index <= self.start.0 || index > self.last.saturating_add(1) {
            return;
        }
        if index <= self.last {
            self.runs.retain(|run| run.first.0 < index);
        }
        self.last = index;
        if self.runs.is_empty() || self.last_term() != term {
            self.runs.push(TermRun { first: LogIndex(index), term: Term(term) });
        }
    }

    /// Goes on after a run of entries of one term that ends at `last`.
    pub(super) fn extend_to(&mut self, first: u64, term: u64, last: u64) {
        self.put(first, term);
        self.last = self.last.max(last);
    }

    /// Moves the start up to `index`, which must be inside.
    pub(super) fn compact(&mut self, index: u64) {
        let Some(term) = self.at(index).filter(|_| index > self.start.0) else { return };
        self.start = (index, term);
        let covering = self.runs.partition_point(|run| run.first.0 <= index + 1);
        self.runs.drain(..covering.saturating_sub(1));
        if let Some(first) = self.runs.first_mut() {
            first.first = LogIndex(first.first.0.max(index + 1));
        }
        if index == self.last {
            self.runs.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn overwriting_forgets_the_tail() {
        let mut terms = Terms::new((LogIndex(5), Term(1)));
        for (index, term) in [(6, 1), (7, 2), (8, 2), (9, 3), (8, 4)] {
            terms.put(index, term);
        }
        assert_eq!(
            (5..=9).map(|index| terms.at(index)).collect::<Vec<_>>(),
            [Some(1), Some(1), Some(2), Some(4), None]
        );
        assert_eq!((terms.last(), terms.last_term()), (8, 4));
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(
            steps in prop::collection::vec((0_u64..4, 0_u64..3, 0_u64..40), 1..60)
        ) {
            let mut terms = Terms::new((LogIndex(0), Term(0)));
            let mut list = vec![0_u64];
            let mut compacted = 0;
            let mut term = 1;
            for (action, rise, pick) in steps {
                let last = list.len() as u64 - 1;
                if action == 0 {
                    let index = compacted + pick % (last - compacted + 1);
                    terms.compact(index);
                    compacted = index;
                } else {
                    let index = if action == 1 { compacted + 1 + pick % (last - compacted + 1) } else { last + 1 };
                    term = term.max(list[usize::try_from(index - 1).unwrap()]) + rise;
                    list.truncate(usize::try_from(index).unwrap());
                    list.push(term);
                    terms.put(index, term);
                }
                for (index, expected) in (0..).zip(&list) {
                    let expected = (index >= compacted).then_some(*expected);
                    prop_assert_eq!(terms.at(index), expected, "index {}", index);
                }
                prop_assert_eq!(terms.last(), list.len() as u64 - 1);
                prop_assert_eq!(terms.last_term(), *list.last().unwrap());
            }
        }
    }
}
