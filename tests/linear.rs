//! The checker of histories proves itself: it accepts what can be explained and nothing else.

mod support;

use support::linear::{ABSENT, Action, Operation, check};

/// An operation from `invoked` to `returned`.
fn operation(action: Action, invoked: u64, returned: u64) -> Operation {
    Operation { action, invoked, returned: Some(returned) }
}

fn unanswered(action: Action, invoked: u64) -> Operation {
    Operation { action, invoked, returned: None }
}

fn accepts(history: &[Operation]) {
    check(history).unwrap_or_else(|why| panic!("{history:?}: {why}"));
}

fn refuses(history: &[Operation]) {
    assert!(check(history).is_err(), "{history:?}");
}

#[test]
fn one_after_the_other() {
    accepts(&[operation(Action::Get(ABSENT), 0, 1), operation(Action::Put(7), 2, 3), operation(Action::Get(7), 4, 5)]);
    refuses(&[operation(Action::Put(7), 2, 3), operation(Action::Get(ABSENT), 4, 5)]);
    refuses(&[operation(Action::Get(7), 0, 1), operation(Action::Put(7), 2, 3)]);
}

#[test]
fn a_read_beside_a_write_sees_either() {
    for seen in [ABSENT, 7] {
        accepts(&[operation(Action::Put(7), 0, 10), operation(Action::Get(seen), 5, 6)]);
    }
    refuses(&[operation(Action::Put(7), 0, 10), operation(Action::Get(7), 2, 3), operation(Action::Get(ABSENT), 5, 6)]);
}

#[test]
fn a_lost_write_is_noticed() {
    let acknowledged = [operation(Action::Put(1), 0, 1), operation(Action::Put(2), 2, 3)];
    refuses(&[&acknowledged[..], &[operation(Action::Get(1), 4, 5)]].concat());
    accepts(&[&acknowledged[..], &[operation(Action::Get(2), 4, 5)]].concat());
}

#[test]
fn an_unanswered_write_happened_once_at_any_time_or_never() {
    let writes = [operation(Action::Put(1), 0, 1), unanswered(Action::Put(2), 2)];
    let reads = |values: &[u64]| -> Vec<Operation> {
        let read = |(at, value): (u64, &u64)| operation(Action::Get(*value), 10 * at, 10 * at + 1);
        (1..).zip(values).map(read).collect()
    };
    accepts(&[&writes[..], &reads(&[1, 1, 1])].concat());
    accepts(&[&writes[..], &reads(&[1, 2, 2])].concat());
    refuses(&[&writes[..], &reads(&[2, 1])].concat());
    refuses(&[&writes[..], &[operation(Action::Put(3), 5, 6)], &reads(&[2, 3, 2])].concat());
    refuses(&[operation(Action::Get(2), 0, 1), unanswered(Action::Put(2), 2)]);
}

#[test]
fn a_comparison_that_holds_takes_what_it_compared() {
    let swap = |from, to| Action::Swap { from, to };
    accepts(&[operation(Action::Put(1), 0, 1), operation(swap(1, 2), 2, 9), operation(Action::Get(2), 3, 9)]);
    refuses(&[operation(Action::Put(1), 0, 1), operation(swap(1, 2), 2, 9), operation(swap(1, 3), 2, 9)]);
    accepts(&[operation(Action::Put(1), 0, 1), unanswered(swap(1, 2), 2), operation(swap(2, 3), 4, 9)]);
    refuses(&[operation(Action::Put(1), 0, 1), unanswered(swap(4, 2), 2), operation(Action::Get(2), 4, 9)]);
}

/// Many time-outs in a row must not make the search slow.
#[test]
fn a_long_history_with_many_time_outs_is_searched_quickly() {
    let mut history = Vec::new();
    for at in 0..2_000 {
        history.push(unanswered(Action::Put(10_000 + at), 10 * at));
        history.push(operation(Action::Put(1 + at), 10 * at, 10 * at + 14));
        history.push(operation(Action::Get(1 + at), 10 * at + 15, 10 * at + 16));
    }
    refuses(&[&history[..], &[operation(Action::Get(1), 30_000, 30_001)]].concat());
    for read in history.iter_mut().filter(|one| matches!(one.action, Action::Get(_))) {
        read.invoked -= 5;
    }
    accepts(&history);
}
