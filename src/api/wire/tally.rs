//! Counts one call, from its begin to however it ends.

use crate::{
    api::status::Status,
    clock::Stopwatch,
    metrics::{self, GrpcMethod},
    types::Code,
};

/// A call that has been counted as started. Dropped without an outcome, it counts as cancelled.
#[derive(Debug)]
pub(crate) struct Tally {
    counters: &'static GrpcMethod,
    watch: Option<Stopwatch>,
    ended: bool,
}

impl Tally {
    /// Counts the begin.
    pub(crate) fn start(counters: &'static GrpcMethod) -> Self {
        counters.on_started();
        Self { counters, watch: metrics::is_extensive().then(Stopwatch::start), ended: false }
    }

    /// Counts the end.
    pub(crate) fn end<T>(mut self, outcome: &Result<T, Status>) {
        self.count(outcome.as_ref().err().map_or(0, |status| status.code() as usize));
    }

    fn count(&mut self, code: usize) {
        self.ended = true;
        self.counters.on_handled(code, self.watch.map(|watch| watch.elapsed()));
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if !self.ended {
            self.count(Code::Canceled as usize);
        }
    }
}
