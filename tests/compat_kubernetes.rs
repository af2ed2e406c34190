//! Three members serve what a Kubernetes cluster asks of them, over TLS and through etcd's own Go client: no request fails,
//! every watch is told every event once and in order, and the caches behind them are what a list says. So do three of etcd.
//! `make bench-kubernetes` is the long form, with times.

mod support;

use support::{
    kubernetes::{KINDS, Load, Outcome, Trio},
    program::Program,
};

#[test]
fn caches_of_apiservers_converge_and_no_request_fails() {
    let outcome = Trio::start(&Program::subject()).run(Load::SHORT);
    expect_everything(&outcome);
    assert_eq!(outcome.early, 0, "no progress response overtakes an event: {outcome:?}");
}

#[test]
fn the_same_load_finds_nothing_wrong_with_etcd() {
    expect_everything(&Trio::start(&Program::etcd()).run(Load::SHORT));
}

/// Each kind of request was made, so that it could have failed.
fn expect_everything(outcome: &Outcome) {
    let never: Vec<_> = KINDS.into_iter().filter(|kind| outcome.of(kind).is_none()).collect();
    assert_eq!(never, [""; 0], "these were never asked for: {outcome:?}");
    assert_eq!(outcome.caches, 9, "three resources at three apiservers");
    assert!(outcome.visits > 0 && outcome.expired > 0 && outcome.objects > 0, "{outcome:?}");
}
