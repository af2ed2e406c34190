//! Is a history of one register linearizable? Wing and Gong's search (1993) with Lowe's memory of what was tried (2017).
//!
//! An operation without an answer may have happened at any time after it began, or never.

use std::collections::{BTreeSet, HashSet};

/// What stands where nothing was written.
pub const ABSENT: u64 = 0;

/// What an operation did, as far as its answer tells. Every written value is written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Put(u64),
    /// A read, and what it saw. A comparison that failed and read is one as well.
    Get(u64),
    /// A comparison that held, and the write that it allowed.
    Swap {
        from: u64,
        to: u64,
    },
}

impl Action {
    /// The value afterwards; `None` if it cannot happen when `value` stands.
    fn step(self, value: u64) -> Option<u64> {
        match self {
            Self::Put(to) => Some(to),
            Self::Get(seen) => (seen == value).then_some(value),
            Self::Swap { from, to } => (from == value).then_some(to),
        }
    }

    fn needs(self) -> Option<u64> {
        match self {
            Self::Put(_) => None,
            Self::Get(seen) => Some(seen),
            Self::Swap { from, .. } => Some(from),
        }
    }

    fn leaves(self) -> Option<u64> {
        match self {
            Self::Get(_) => None,
            Self::Put(to) | Self::Swap { to, .. } => Some(to),
        }
    }
}

/// An operation and when it was under way, in nanoseconds of one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub action: Action,
    pub invoked: u64,
    /// `None` if nobody heard how it ended.
    pub returned: Option<u64>,
}

/// Looks for an order of `history` that agrees with its times and its answers.
///
/// # Errors
/// The operations at which every attempt ended, if there is no such order.
pub fn check(history: &[Operation]) -> Result<(), String> {
    let search = Search::new(history);
    let mut tried = HashSet::new();
    let mut open = vec![Configuration::default()];
    let mut furthest = 0;
    while let Some(configuration) = open.pop() {
        furthest = furthest.max(configuration.done);
        if configuration.done == search.certain.len() {
            return Ok(());
        }
        search.successors(&configuration, |next| {
            if tried.insert(next.clone()) {
                open.push(next);
            }
        });
    }
    let around = furthest.saturating_sub(10)..search.certain.len().min(furthest + 10);
    Err(format!("no order explains these: {:#?}", search.certain.get(around).unwrap_or_default()))
}

struct Search {
    /// Answered, by the time they began.
    certain: Vec<Operation>,
    unknown: Vec<Operation>,
}

/// A set of operations put into an order, and the value they leave. Which order it was does not matter any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Configuration {
    /// All certain operations before this one are in it,
    done: usize,
    /// these behind it as well,
    ahead: BTreeSet<usize>,
    /// and these of the unknown ones.
    happened: BTreeSet<usize>,
    value: u64,
}

impl Search {
    fn new(history: &[Operation]) -> Self {
        // A write that nobody heard of and nobody saw explains nothing: whoever came between it and the next write would
        // have seen it. There are as many of those as there are time-outs, and each would double the search.
        let needed: HashSet<u64> = history.iter().filter_map(|operation| operation.action.needs()).collect();
        let seen = |operation: &&Operation| operation.action.leaves().is_some_and(|value| needed.contains(&value));
        let is_answered = |operation: &Operation| operation.returned.is_some();
        let (mut certain, unknown): (Vec<Operation>, Vec<Operation>) = history.iter().copied().partition(is_answered);
        certain.sort_by_key(|operation| operation.invoked);
        Self { certain, unknown: unknown.iter().filter(seen).copied().collect() }
    }

    /// Everything that may come next: what began before the first of the rest had ended.
    fn successors(&self, at: &Configuration, mut found: impl FnMut(Configuration)) {
        let rest = || self.certain.iter().enumerate().skip(at.done).filter(|(number, _)| !at.ahead.contains(number));
        let mut first_end = u64::MAX;
        for (_, operation) in rest() {
            if operation.invoked > first_end {
                break;
            }
            first_end = first_end.min(operation.returned.unwrap_or(u64::MAX));
        }
        for (number, operation) in self.unknown.iter().enumerate() {
            if operation.invoked <= first_end && !at.happened.contains(&number) {
                let Some(value) = operation.action.step(at.value) else { continue };
                let mut next = Configuration { value, ..at.clone() };
                next.happened.insert(number);
                found(next);
            }
        }
        for (number, operation) in rest().take_while(|(_, operation)| operation.invoked <= first_end) {
            let Some(value) = operation.action.step(at.value) else { continue };
            let mut next = Configuration { value, ..at.clone() };
            next.ahead.insert(number);
            while next.ahead.remove(&next.done) {
                next.done += 1;
            }
            found(next);
        }
    }
}
