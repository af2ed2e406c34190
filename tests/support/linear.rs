//! Is there an order of the operations that explains every answer and respects who had ended before who began?
//!
//! Wing and Gong's search (1993) with Lowe's memory of what was tried (2017), as porcupine has it: depth first over what may
//! come next, never twice from the same set of operations in the same state. Keys that no operation touches together are
//! checked apart, which linearizability allows (locality). A history may be long: a set of operations is written down as
//! all that began before one of them, and the few behind it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// A value that one operation alone writes.
pub type Value = u64;
/// What stands where nothing was written.
pub const ABSENT: Value = 0;
/// The keys that are touched together: one, or a pair of which the second may stay unused.
pub type State = [Value; 2];

/// Sets of operations after which a search is given up.
const TRIED_MAX: usize = 3_000_000;
/// Operations shown on either side of the one that cannot be explained.
const SHOWN_AROUND: usize = 10;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Put(Value),
    Get,
    Delete,
    /// Puts the second value if the key has the first, else reads.
    Swap(Value, Value),
    PutBoth(Value),
    GetBoth,
}

/// What it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: it may have happened, may happen later, or never.
    Unknown,
    Done,
    Got(State),
    Deleted(bool),
    Swapped,
    NotSwapped(Value),
}

/// One operation on the keys of one partition, in moments of one clock. The end of one without an answer says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub partition: u64,
    pub call: Call,
    pub answer: Answer,
    pub began: u64,
    pub ended: u64,
}

impl Operation {
    fn is_answered(&self) -> bool {
        self.answer != Answer::Unknown
    }
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// No order explains the operations of this partition, some of which are those where every attempt ended.
    Illegal(u64, Vec<Operation>),
    /// Given up on this partition.
    Undecided(u64),
}

/// Checks every partition of a history.
pub fn check(history: &[Operation]) -> Verdict {
    let mut partitions: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        partitions.entry(operation.partition).or_default().push(*operation);
    }
    let mut verdict = Verdict::Linearizable;
    for (partition, operations) in partitions {
        match Search::new(without_unseen(operations)).run() {
            Found::Order => {}
            Found::None(around) => return Verdict::Illegal(partition, around),
            Found::Nothing => verdict = Verdict::Undecided(partition),
        }
    }
    verdict
}

/// Leaves out puts of unknown fate whose value nobody saw: if such a put happened, the next write replaced it before
/// anybody looked. Only a deletion looks without naming a value, so where one found something they stay. There are as many
/// of them as there are time-outs, and each would double the search.
fn without_unseen(operations: Vec<Operation>) -> Vec<Operation> {
    let mut seen: BTreeSet<Value> = BTreeSet::new();
    let mut deletions = false;
    for operation in &operations {
        match operation.answer {
            Answer::Got(state) => seen.extend(state),
            Answer::NotSwapped(value) => drop(seen.insert(value)),
            Answer::Deleted(found) => deletions |= found,
            _ => {}
        }
        if let Call::Swap(from, _) = operation.call {
            seen.insert(from);
        }
    }
    let unseen = |operation: &Operation| match operation.call {
        Call::Put(value) | Call::PutBoth(value) | Call::Swap(_, value) => {
            !operation.is_answered() && !seen.contains(&value)
        }
        _ => false,
    };
    operations.into_iter().filter(|operation| deletions || !unseen(operation)).collect()
}

/// What the operation makes of a state; `None` if it cannot have answered so there.
fn step(state: State, Operation { call, answer, .. }: &Operation) -> Option<State> {
    let [first, second] = state;
    let (next, fitting) = match *call {
        Call::Put(value) => ([value, second], Answer::Done),
        Call::PutBoth(value) => ([value, value], Answer::Done),
        Call::Get => (state, Answer::Got([first, ABSENT])),
        Call::GetBoth => (state, Answer::Got(state)),
        Call::Delete => ([ABSENT, second], Answer::Deleted(first != ABSENT)),
        Call::Swap(from, to) if first == from => ([to, second], Answer::Swapped),
        Call::Swap(..) => (state, Answer::NotSwapped(first)),
    };
    (*answer == fitting || *answer == Answer::Unknown).then_some(next)
}

enum Found {
    Order,
    /// Nothing after these, or before.
    None(Vec<Operation>),
    /// Neither an order nor that there is none.
    Nothing,
}

struct Search {
    /// Answered, by the time they began.
    certain: Vec<Operation>,
    unknown: Vec<Operation>,
}

/// A set of operations put into an order, and the state they leave. Which order it was does not matter any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Configuration {
    /// All certain operations before this one are in it,
    done: usize,
    /// these behind it as well,
    ahead: BTreeSet<usize>,
    /// and these of the unknown ones.
    happened: BTreeSet<usize>,
    state: State,
}

impl Search {
    fn new(operations: Vec<Operation>) -> Self {
        let (mut certain, unknown): (Vec<_>, Vec<_>) = operations.into_iter().partition(Operation::is_answered);
        certain.sort_by_key(|operation| operation.began);
        Self { certain, unknown }
    }

    fn run(&self) -> Found {
        let mut tried = HashSet::new();
        let mut open = vec![Configuration::default()];
        let mut furthest = 0;
        while let Some(configuration) = open.pop() {
            furthest = furthest.max(configuration.done);
            if configuration.done == self.certain.len() {
                return Found::Order;
            }
            if tried.len() > TRIED_MAX {
                return Found::Nothing;
            }
            self.successors(&configuration, |next| {
                if tried.insert(next.clone()) {
                    open.push(next);
                }
            });
        }
        let around = furthest.saturating_sub(SHOWN_AROUND)..self.certain.len().min(furthest + SHOWN_AROUND);
        Found::None(self.certain.get(around).unwrap_or_default().to_vec())
    }

    /// Everything that may come next: what began before the first of the rest had ended.
    fn successors(&self, at: &Configuration, mut found: impl FnMut(Configuration)) {
        let rest = || self.certain.iter().enumerate().skip(at.done).filter(|(number, _)| !at.ahead.contains(number));
        let mut first_end = u64::MAX;
        for (_, operation) in rest() {
            if operation.began > first_end {
                break;
            }
            first_end = first_end.min(operation.ended);
        }
        for (number, operation) in self.unknown.iter().enumerate() {
            if operation.began <= first_end && !at.happened.contains(&number) {
                // One that changes nothing may as well never have happened.
                let Some(state) = step(at.state, operation).filter(|state| *state != at.state) else { continue };
                let mut next = Configuration { state, ..at.clone() };
                next.happened.insert(number);
                found(next);
            }
        }
        for (number, operation) in rest().take_while(|(_, operation)| operation.began <= first_end) {
            let Some(state) = step(at.state, operation) else { continue };
            let mut next = Configuration { state, ..at.clone() };
            next.ahead.insert(number);
            while next.ahead.remove(&next.done) {
                next.done += 1;
            }
            found(next);
        }
    }
}
