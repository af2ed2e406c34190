//! Is there an order of the operations that explains every answer and respects who had ended before who began?
//!
//! The algorithm is that of Wing and Gong with the memory of Lowe ("Testing for linearizability", 2017), as porcupine has
//! it: depth first over the operations that may come next, never twice from the same set of operations in the same
//! state. Keys that no operation touches together are checked apart, which linearizability allows (locality).

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// A value that one operation alone writes; 0 stands for a missing key.
pub(crate) type Value = u64;
/// The keys that are touched together: one, or a pair of which the second may stay unused.
pub(crate) type State = [Value; 2];

/// Steps of a search after which it is given up.
const STEPS_MAX: u64 = 3_000_000;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
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
pub(crate) enum Answer {
    /// Nothing: it may have happened, may happen later, or never.
    Unknown,
    Done,
    Got(State),
    Deleted(bool),
    Swapped,
    NotSwapped(Value),
}

/// One operation on the keys of one partition, in moments of the world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) partition: u64,
    pub(crate) call: Call,
    pub(crate) answer: Answer,
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// No order explains the operations of this partition.
    Illegal(u64),
    /// Given up on this partition.
    Undecided(u64),
}

/// Checks every partition of a history.
pub(crate) fn check(history: &[Operation]) -> Verdict {
    let mut partitions: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        partitions.entry(operation.partition).or_default().push(*operation);
    }
    let mut verdict = Verdict::Linearizable;
    for (partition, operations) in partitions {
        match search(&without_unseen(operations)) {
            Some(true) => {}
            Some(false) => return Verdict::Illegal(partition),
            None => verdict = Verdict::Undecided(partition),
        }
    }
    verdict
}

/// Leaves out puts of unknown fate whose value nobody saw: if such a put happened, the next write replaced it before
/// anybody looked. Only a deletion looks without naming a value, so where one found something they stay.
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
            operation.answer == Answer::Unknown && !seen.contains(&value)
        }
        _ => false,
    };
    operations.into_iter().filter(|operation| deletions || !unseen(operation)).collect()
}

/// What the operation makes of a state; `None` if it cannot have answered so there.
fn step(state: State, call: Call, answer: Answer) -> Option<State> {
    let [first, second] = state;
    let unknown = answer == Answer::Unknown;
    let (next, fits) = match call {
        Call::Put(value) => ([value, second], answer == Answer::Done),
        Call::PutBoth(value) => ([value, value], answer == Answer::Done),
        Call::Get => (state, answer == Answer::Got([first, 0])),
        Call::GetBoth => (state, answer == Answer::Got(state)),
        Call::Delete => ([0, second], answer == Answer::Deleted(first != 0)),
        Call::Swap(from, to) if first == from => ([to, second], answer == Answer::Swapped),
        Call::Swap(..) => (state, answer == Answer::NotSwapped(first)),
    };
    (fits || unknown).then_some(next)
}

/// A call or a return, linked to its neighbours in time.
#[derive(Clone, Copy)]
struct Node {
    operation: usize,
    is_return: bool,
    before: usize,
    after: usize,
}

/// The moments of a history that are not explained yet. Node 0 is the head, and also the end.
struct Moments {
    nodes: Vec<Node>,
    /// The return of each operation.
    returns: Vec<usize>,
}

impl Moments {
    fn new(operations: &[Operation]) -> Self {
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (number, operation) in operations.iter().enumerate() {
            moments.push((operation.began, false, number));
            let ended = if operation.answer == Answer::Unknown { u64::MAX } else { operation.ended };
            moments.push((ended, true, number));
        }
        moments.sort_unstable();
        let last = moments.len();
        let mut nodes =
            vec![Node { operation: usize::MAX, is_return: true, before: last, after: usize::from(last > 0) }];
        let mut returns = vec![0; operations.len()];
        for (place, (_, is_return, operation)) in (1..).zip(moments) {
            if is_return {
                returns[operation] = place;
            }
            nodes.push(Node { operation, is_return, before: place - 1, after: (place + 1) % (last + 1) });
        }
        Self { nodes, returns }
    }

    fn unlink(&mut self, place: usize) {
        let Node { before, after, .. } = self.nodes[place];
        self.nodes[before].after = after;
        self.nodes[after].before = before;
    }

    fn relink(&mut self, place: usize) {
        let Node { before, after, .. } = self.nodes[place];
        self.nodes[before].after = place;
        self.nodes[after].before = place;
    }

    fn lift(&mut self, call: usize) {
        self.unlink(call);
        self.unlink(self.returns[self.nodes[call].operation]);
    }

    fn put_back(&mut self, call: usize) {
        self.relink(self.returns[self.nodes[call].operation]);
        self.relink(call);
    }
}

/// True if the operations can be put into order, `None` if that takes too long to find out.
fn search(operations: &[Operation]) -> Option<bool> {
    let mut moments = Moments::new(operations);
    let mut done = vec![0_u64; operations.len().div_ceil(64)];
    let mut known = HashSet::new();
    let mut path: Vec<(usize, State)> = Vec::new();
    let (mut state, mut place) = ([0, 0], moments.nodes[0].after);
    for _ in 0..STEPS_MAX {
        let Node { operation, is_return, after, .. } = moments.nodes[place];
        // At the end, or at the return of an operation without an answer, which may as well never happen.
        if place == 0 || (is_return && operations[operation].answer == Answer::Unknown) {
            return Some(true);
        }
        if is_return {
            let Some((call, earlier)) = path.pop() else { return Some(false) };
            let number = moments.nodes[call].operation;
            done[number / 64] &= !(1 << (number % 64));
            moments.put_back(call);
            (state, place) = (earlier, moments.nodes[call].after);
            continue;
        }
        let Operation { call, answer, .. } = operations[operation];
        done[operation / 64] |= 1 << (operation % 64);
        if let Some(next) = step(state, call, answer)
            && known.insert((done.clone(), next))
        {
            path.push((place, state));
            moments.lift(place);
            (state, place) = (next, moments.nodes[0].after);
        } else {
            done[operation / 64] &= !(1 << (operation % 64));
            place = after;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(call: Call, answer: Answer, began: u64, ended: u64) -> Operation {
        Operation { partition: 0, call, answer, began, ended }
    }

    fn put(value: Value, began: u64, ended: u64) -> Operation {
        operation(Call::Put(value), Answer::Done, began, ended)
    }

    fn get(value: Value, began: u64, ended: u64) -> Operation {
        operation(Call::Get, Answer::Got([value, 0]), began, ended)
    }

    #[test]
    fn reads_follow_the_write_they_see() {
        assert_eq!(check(&[put(1, 0, 1), put(2, 2, 3), get(2, 4, 5)]), Verdict::Linearizable);
        assert_eq!(check(&[put(1, 0, 1), put(2, 2, 3), get(1, 4, 5)]), Verdict::Illegal(0));
    }

    #[test]
    fn concurrent_writes_may_come_in_any_order_but_only_one() {
        let writes = [put(1, 0, 10), put(2, 0, 10)];
        let with = |reads: &[Operation]| check(&[&writes, reads].concat());
        assert_eq!(with(&[get(2, 11, 12)]), Verdict::Linearizable);
        assert_eq!(with(&[get(1, 11, 12)]), Verdict::Linearizable);
        assert_eq!(with(&[get(1, 11, 12), get(2, 13, 14)]), Verdict::Illegal(0));
        assert_eq!(with(&[get(1, 3, 4), get(2, 5, 6)]), Verdict::Linearizable);
    }

    #[test]
    fn write_of_unknown_fate_may_happen_late_or_never_but_not_twice() {
        let lost = operation(Call::Put(9), Answer::Unknown, 0, 1);
        assert_eq!(check(&[lost, put(1, 2, 3), get(1, 4, 5)]), Verdict::Linearizable);
        assert_eq!(check(&[lost, put(1, 2, 3), get(1, 4, 5), get(9, 6, 7)]), Verdict::Linearizable);
        assert_eq!(check(&[lost, get(9, 2, 3), put(1, 4, 5), get(9, 6, 7)]), Verdict::Illegal(0));
        assert_eq!(check(&[get(9, 0, 1), operation(Call::Put(9), Answer::Unknown, 2, 3)]), Verdict::Illegal(0));
    }

    #[test]
    fn swap_and_delete_tell_what_was_there() {
        let swap = |answer, began| operation(Call::Swap(1, 2), answer, began, began + 1);
        let delete = |found, began| operation(Call::Delete, Answer::Deleted(found), began, began + 1);
        assert_eq!(check(&[put(1, 0, 1), swap(Answer::Swapped, 2), delete(true, 4)]), Verdict::Linearizable);
        assert_eq!(check(&[put(1, 0, 1), delete(true, 2), swap(Answer::Swapped, 4)]), Verdict::Illegal(0));
        assert_eq!(check(&[put(1, 0, 1), delete(true, 2), swap(Answer::NotSwapped(0), 4)]), Verdict::Linearizable);
        assert_eq!(check(&[put(1, 0, 1), delete(false, 2)]), Verdict::Illegal(0));
    }

    #[test]
    fn pair_is_written_as_one() {
        let both = operation(Call::PutBoth(5), Answer::Done, 0, 10);
        let get = |state| operation(Call::GetBoth, Answer::Got(state), 3, 4);
        assert_eq!(check(&[both, get([5, 5])]), Verdict::Linearizable);
        assert_eq!(check(&[both, get([0, 0])]), Verdict::Linearizable);
        assert_eq!(check(&[both, get([5, 0])]), Verdict::Illegal(0));
    }

    #[test]
    fn partitions_do_not_explain_one_another() {
        let other = Operation { partition: 1, ..get(7, 4, 5) };
        assert_eq!(check(&[put(7, 0, 1), other]), Verdict::Illegal(1));
    }
}
