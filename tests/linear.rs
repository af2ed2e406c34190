//! The checker of histories proves itself: it accepts what can be explained and nothing else.

mod support;

use support::linear::{ABSENT, Answer, Call, Operation, Value, Verdict, check};

fn operation(call: Call, answer: Answer, began: u64, ended: u64) -> Operation {
    Operation { partition: 0, call, answer, began, ended }
}

fn put(value: Value, began: u64, ended: u64) -> Operation {
    operation(Call::Put(value), Answer::Done, began, ended)
}

fn get(value: Value, began: u64, ended: u64) -> Operation {
    operation(Call::Get, Answer::Got([value, ABSENT]), began, ended)
}

fn swap(from: Value, to: Value, began: u64, ended: u64) -> Operation {
    operation(Call::Swap(from, to), Answer::Swapped, began, ended)
}

/// One that nobody heard of again.
fn lost(call: Call, began: u64) -> Operation {
    operation(call, Answer::Unknown, began, began + 1)
}

fn accepts(history: &[Operation]) {
    assert_eq!(check(history), Verdict::Linearizable, "{history:?}");
}

fn refuses(history: &[Operation]) {
    assert!(matches!(check(history), Verdict::Illegal(..)), "{history:?}");
}

#[test]
fn one_after_the_other() {
    accepts(&[get(ABSENT, 0, 1), put(7, 2, 3), get(7, 4, 5)]);
    refuses(&[put(7, 2, 3), get(ABSENT, 4, 5)]);
    refuses(&[get(7, 0, 1), put(7, 2, 3)]);
}

#[test]
fn a_read_beside_a_write_sees_either() {
    for seen in [ABSENT, 7] {
        accepts(&[put(7, 0, 10), get(seen, 5, 6)]);
    }
    refuses(&[put(7, 0, 10), get(7, 2, 3), get(ABSENT, 5, 6)]);
}

#[test]
fn concurrent_writes_may_come_in_any_order_but_only_one() {
    let with = |reads: &[Operation]| [&[put(1, 0, 10), put(2, 0, 10)], reads].concat();
    accepts(&with(&[get(2, 11, 12)]));
    accepts(&with(&[get(1, 11, 12)]));
    accepts(&with(&[get(1, 3, 4), get(2, 5, 6)]));
    refuses(&with(&[get(1, 11, 12), get(2, 13, 14)]));
}

#[test]
fn a_lost_write_is_noticed() {
    let acknowledged = [put(1, 0, 1), put(2, 2, 3)];
    refuses(&[&acknowledged[..], &[get(1, 4, 5)]].concat());
    accepts(&[&acknowledged[..], &[get(2, 4, 5)]].concat());
}

#[test]
fn an_unanswered_write_happened_once_at_any_time_or_never() {
    let writes = [put(1, 0, 1), lost(Call::Put(2), 2)];
    let reads = |values: &[Value]| -> Vec<Operation> {
        (1..).zip(values).map(|(at, value)| get(*value, 10 * at, 10 * at + 1)).collect()
    };
    accepts(&[&writes[..], &reads(&[1, 1, 1])].concat());
    accepts(&[&writes[..], &reads(&[1, 2, 2])].concat());
    refuses(&[&writes[..], &reads(&[2, 1])].concat());
    refuses(&[&writes[..], &[put(3, 5, 6)], &reads(&[2, 3, 2])].concat());
    refuses(&[get(2, 0, 1), lost(Call::Put(2), 2)]);
}

#[test]
fn a_comparison_that_holds_takes_what_it_compared() {
    accepts(&[put(1, 0, 1), swap(1, 2, 2, 9), get(2, 3, 9)]);
    refuses(&[put(1, 0, 1), swap(1, 2, 2, 9), swap(1, 3, 2, 9)]);
    accepts(&[put(1, 0, 1), lost(Call::Swap(1, 2), 2), swap(2, 3, 4, 9)]);
    refuses(&[put(1, 0, 1), lost(Call::Swap(4, 2), 2), get(2, 4, 9)]);
}

#[test]
fn swap_and_delete_tell_what_was_there() {
    let swap = |answer, began| operation(Call::Swap(1, 2), answer, began, began + 1);
    let delete = |found, began| operation(Call::Delete, Answer::Deleted(found), began, began + 1);
    accepts(&[put(1, 0, 1), swap(Answer::Swapped, 2), delete(true, 4)]);
    refuses(&[put(1, 0, 1), delete(true, 2), swap(Answer::Swapped, 4)]);
    accepts(&[put(1, 0, 1), delete(true, 2), swap(Answer::NotSwapped(ABSENT), 4)]);
    refuses(&[put(1, 0, 1), swap(Answer::NotSwapped(1), 2)]);
    refuses(&[put(1, 0, 1), delete(false, 2)]);
}

/// A deletion does not say what it has found: it may have been a write of which nobody heard.
#[test]
fn a_deletion_sees_writes_that_nobody_else_saw() {
    let delete = |found, began| operation(Call::Delete, Answer::Deleted(found), began, began + 1);
    accepts(&[lost(Call::Put(1), 0), delete(true, 2)]);
    refuses(&[lost(Call::Put(1), 0), delete(true, 2), delete(true, 4)]);
}

#[test]
fn pair_is_written_as_one() {
    let both = operation(Call::PutBoth(5), Answer::Done, 0, 10);
    let get = |state| operation(Call::GetBoth, Answer::Got(state), 3, 4);
    accepts(&[both, get([5, 5])]);
    accepts(&[both, get([ABSENT, ABSENT])]);
    refuses(&[both, get([5, ABSENT])]);
}

#[test]
fn partitions_do_not_explain_one_another() {
    let other = Operation { partition: 1, ..get(7, 4, 5) };
    assert_eq!(check(&[put(7, 0, 1), other]), Verdict::Illegal(1, vec![other]));
}

/// Many time-outs in a row must not make the search slow.
#[test]
fn a_long_history_with_many_time_outs_is_searched_quickly() {
    let mut history = Vec::new();
    for at in 0..2_000 {
        history.push(lost(Call::Put(10_000 + at), 10 * at));
        history.push(put(1 + at, 10 * at, 10 * at + 14));
        history.push(get(1 + at, 10 * at + 15, 10 * at + 16));
    }
    refuses(&[&history[..], &[get(1, 30_000, 30_001)]].concat());
    for read in history.iter_mut().filter(|one| one.call == Call::Get) {
        read.began -= 5;
    }
    accepts(&history);
}
