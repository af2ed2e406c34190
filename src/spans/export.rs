//! On the way to the collector: how many spans may wait, how many were lost, and that the log says so.
//!
//! The client is our own, because the library's does not say what a collector has rejected of what it took.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_proto::{
    tonic::collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    transform::{common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use tonic::transport::{Channel, Endpoint};

use crate::{clock::Sparingly, metrics};

/// So often at most the log says that spans are lost.
const TELL_INTERVAL: Duration = Duration::from_secs(30);
/// How long the collector may take for a batch.
const COLLECTOR_PATIENCE: Duration = Duration::from_secs(10);
/// What is shown of the collector's reasons, in bytes.
const REASON_BYTES_MAX: usize = 1_024;

/// What becomes of spans.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Ended, and neither sent nor given up.
    waiting: AtomicUsize,
    /// Dropped or failed, and not told of yet.
    dropped_untold: AtomicU64,
    failed_untold: AtomicU64,
    dropping: Sparingly,
    failing: Sparingly,
    /// The log says that spans are lost, and not yet that they are no longer.
    is_failing: AtomicBool,
    address: String,
}

impl Ledger {
    pub(super) fn new(address: String) -> Arc<Self> {
        // Known from the start on, so that an alert has something to compare with.
        for result in ["sent", "failed", "dropped"] {
            metrics::SPANS.with([result]);
        }
        Arc::new(Self {
            waiting: AtomicUsize::new(0),
            dropped_untold: AtomicU64::new(0),
            failed_untold: AtomicU64::new(0),
            dropping: Sparingly::every(TELL_INTERVAL),
            failing: Sparingly::every(TELL_INTERVAL),
            is_failing: AtomicBool::new(false),
            address,
        })
    }

    /// Whether another span may wait.
    fn enter(&self, waiting_max: usize) -> bool {
        let one_more = |waiting: usize| (waiting < waiting_max).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// So many of them had not been given up.
    fn leave(&self, spans: usize) -> usize {
        let fewer = |waiting: usize| Some(waiting.saturating_sub(spans));
        self.waiting.fetch_update(Relaxed, Relaxed, fewer).map_or(0, |waiting| waiting.min(spans))
    }

    fn drop_one(&self) {
        metrics::SPANS.with(["dropped"]).inc();
        self.dropped_untold.fetch_add(1, Relaxed);
        if self.dropping.turn().is_some() {
            let spans = self.dropped_untold.swap(0, Relaxed);
            tracing::warn!(spans, "spans were dropped: the collector takes them more slowly than they come");
        }
    }

    /// The collector has taken some of a batch, and others not, for this reason.
    fn settle(&self, taken: usize, failed: usize, reason: &str) {
        let settled = self.leave(taken + failed);
        metrics::SPANS.with(["sent"]).add(taken.min(settled) as u64);
        self.fail(failed.min(settled - taken.min(settled)));
        if failed == 0 {
            return self.recover();
        }
        if self.failing.turn().is_some() {
            self.is_failing.store(true, Relaxed);
            let spans = self.failed_untold.swap(0, Relaxed);
            let error = reason.get(..reason.floor_char_boundary(REASON_BYTES_MAX)).unwrap_or(reason);
            tracing::warn!(address = self.address, error, spans, "spans were lost: the collector does not take them");
        }
    }

    fn fail(&self, spans: usize) {
        metrics::SPANS.with(["failed"]).add(spans as u64);
        self.failed_untold.fetch_add(spans as u64, Relaxed);
    }

    fn recover(&self) {
        if self.is_failing.swap(false, Relaxed) {
            let lost_since = self.failed_untold.swap(0, Relaxed);
            tracing::info!(address = self.address, lost_since, "the collector takes spans again");
        }
    }

    /// Nothing is sent any more. Tells of all that were lost and not told of.
    pub(super) fn close(&self) {
        self.fail(self.waiting.swap(0, Relaxed));
        let spans = self.failed_untold.swap(0, Relaxed) + self.dropped_untold.swap(0, Relaxed);
        if spans > 0 {
            tracing::warn!(address = self.address, spans, "not every span has reached the collector");
        }
    }
}

/// Lets no more spans wait than there is room for behind it, where nobody would count what is dropped.
#[derive(Debug)]
pub(super) struct Gate {
    behind: BatchSpanProcessor,
    ledger: Arc<Ledger>,
    waiting_max: usize,
}

impl Gate {
    pub(super) fn new(behind: BatchSpanProcessor, ledger: Arc<Ledger>, waiting_max: usize) -> Self {
        Self { behind, ledger, waiting_max }
    }
}

impl SpanProcessor for Gate {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.behind.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.ledger.enter(self.waiting_max) {
            self.behind.on_end(span);
        } else {
            self.ledger.drop_one();
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

/// Sends spans to the collector.
#[derive(Debug)]
pub(super) struct Exporter {
    client: TraceServiceClient<Channel>,
    resource: ResourceAttributesWithSchema,
    ledger: Arc<Ledger>,
}

impl Exporter {
    /// Dials when there is something to send; has to be called within the runtime that is to do so.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub(super) fn new(ledger: Arc<Ledger>) -> Result<Self, String> {
        let endpoint =
            Endpoint::from_shared(format!("http://{}", ledger.address)).map_err(|error| error.to_string())?;
        let client = TraceServiceClient::new(endpoint.timeout(COLLECTOR_PATIENCE).connect_lazy());
        Ok(Self { client, resource: ResourceAttributesWithSchema::default(), ledger })
    }
}

impl SpanExporter for Exporter {
    /// What has failed is counted and told here, and nobody is left to be told of it.
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        match self.client.clone().export(ExportTraceServiceRequest { resource_spans }).await {
            Ok(answer) => {
                let partly = answer.into_inner().partial_success.unwrap_or_default();
                let rejected = usize::try_from(partly.rejected_spans).unwrap_or_default().min(spans);
                self.ledger.settle(spans - rejected, rejected, &partly.error_message);
            }
            Err(status) => self.ledger.settle(0, spans, &status.to_string()),
        }
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}
