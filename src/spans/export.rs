//! On the way to the collector: how many spans may wait, how many were lost, and that the log says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};

use crate::{clock::Sparingly, metrics};

/// So often at most the log says that spans are lost.
const TELL_INTERVAL: Duration = Duration::from_secs(30);

/// Spans that have ended and were neither sent nor given up.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    pub(super) fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// Lets no more spans wait than there is room for behind it, where nobody would count what is dropped.
#[derive(Debug)]
pub(super) struct Gate {
    behind: BatchSpanProcessor,
    waiting: Waiting,
    waiting_max: usize,
    dropping: Sparingly,
}

impl Gate {
    pub(super) fn new(behind: BatchSpanProcessor, waiting: Waiting, waiting_max: usize) -> Self {
        Self { behind, waiting, waiting_max, dropping: Sparingly::every(TELL_INTERVAL) }
    }
}

impl SpanProcessor for Gate {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.behind.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        let one_more = |waiting: usize| (waiting < self.waiting_max).then_some(waiting + 1);
        if self.waiting.0.fetch_update(Relaxed, Relaxed, one_more).is_ok() {
            return self.behind.on_end(span);
        }
        metrics::SPANS.with(["dropped"]).inc();
        if let Some(not_told) = self.dropping.turn() {
            tracing::warn!(
                spans = not_told + 1,
                "spans were dropped: the collector takes them more slowly than they come"
            );
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.behind.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.behind.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.behind.set_resource(resource);
    }
}

/// Sends spans, and counts what becomes of them.
#[derive(Debug)]
pub(super) struct Counted<E> {
    to: E,
    address: String,
    waiting: Waiting,
    failing: Sparingly,
    /// Lost, and not told of yet.
    untold: AtomicU64,
    /// The log says that spans are lost, and not yet that they are no longer.
    is_failing: AtomicBool,
}

impl<E> Counted<E> {
    pub(super) fn new(to: E, address: String, waiting: Waiting) -> Self {
        let (untold, is_failing) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { to, address, waiting, failing: Sparingly::every(TELL_INTERVAL), untold, is_failing }
    }

    fn count(&self, spans: usize, outcome: &OTelSdkResult) {
        self.waiting.0.fetch_sub(spans, Relaxed);
        let result = if outcome.is_ok() { "sent" } else { "failed" };
        metrics::SPANS.with([result]).add(spans as u64);
        match outcome {
            Ok(()) if self.is_failing.swap(false, Relaxed) => {
                let lost_since = self.untold.swap(0, Relaxed);
                tracing::info!(address = self.address, lost_since, "the collector takes spans again");
            }
            Ok(()) => {}
            Err(error) => {
                self.untold.fetch_add(spans as u64, Relaxed);
                if self.failing.turn().is_some() {
                    self.is_failing.store(true, Relaxed);
                    let spans = self.untold.swap(0, Relaxed);
                    tracing::warn!(address = self.address, %error, spans, "spans were lost: the collector does not take them");
                }
            }
        }
    }
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.to.export(batch).await;
        self.count(spans, &outcome);
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.to.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.to.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.to.set_resource(resource);
    }
}
