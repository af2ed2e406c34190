//! Spans of calls, for an OpenTelemetry collector (`enable-distributed-tracing`).
//!
//! As in etcd 3.7, each call is a span of its own kind of server, named by its method, and a child of the client's if the client
//! has one (W3C's `traceparent`); within it lies one for what the call asks of the store, with the request's fields but for values.
//! Whether a call is sampled is decided where its trace begins; where that is here, by a share of all traces.
//! Spans wait in a bounded queue; what does not fit, and what the collector does not take, is lost and counted, and no call
//! waits for it.

mod export;
mod fields;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span},
};

pub use fields::{Operation, Traced};

use crate::types::Code;
use export::{Exporter, Gate, Ledger};

/// Spans that wait for the collector, beside those that are on their way; etcd's bound.
const SPANS_MAX: usize = 2_048;
/// Spans sent at a time, and how long they are gathered at most; both etcd's.
const BATCH_MAX: usize = 512;
const GATHERED_FOR: Duration = Duration::from_secs(5);
/// How long the collector may take for what is left when the member stops.
const LAST_BATCH_PATIENCE: Duration = Duration::from_millis(300);
/// What a share of traces is told in.
const MILLION: f64 = 1e6;

/// Where spans go, and from whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host and port of the collector, which is spoken to in plain text; without a host it is this one.
    pub address: String,
    /// The service, the same on all members.
    pub service: String,
    /// The instance of the service; empty for none.
    pub instance: String,
    /// Traces that begin here and are sampled, in a million.
    pub samples_per_million: u32,
}

/// Makes spans and sends them.
#[derive(Debug)]
pub struct Spans {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    ledger: Arc<Ledger>,
}

impl Spans {
    /// Begins to export; has to be called within the runtime that is to send. The collector need not be there.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn export(settings: &Settings) -> Result<Self, String> {
        let address = match settings.address.strip_prefix(':') {
            Some(port) => format!("localhost:{port}"),
            None => settings.address.clone(),
        };
        let ledger = Ledger::new(address);
        let exporter = Exporter::new(Arc::clone(&ledger))?;
        let waiting_max = SPANS_MAX + BATCH_MAX;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(waiting_max)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(GATHERED_FOR)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Gate::new(processor, Arc::clone(&ledger), waiting_max))
            .with_resource(resource(settings))
            .with_sampler(sampler(settings.samples_per_million))
            .build();
        Ok(Self { tracer: provider.tracer("quorate"), provider, ledger })
    }

    /// The span of a call of `/package.Service/Method` that has arrived `at` this address, if it is sampled.
    pub fn call(&self, path: &'static str, headers: &HeaderMap, at: Option<SocketAddr>) -> Option<CallSpan> {
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers));
        let name = path.trim_start_matches('/');
        let attributes = [KeyValue::new("rpc.method", name), KeyValue::new("rpc.system.name", "grpc")];
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
        let mut span = self.tracer.build_with_context(builder, &parent);
        let is_recording = span.is_recording();
        if let Some(at) = at.filter(|_| is_recording) {
            span.set_attribute(KeyValue::new("server.address", at.ip().to_string()));
            span.set_attribute(KeyValue::new("server.port", i64::from(at.port())));
        }
        let state = || Mutex::new(State { span, asked: None, ended: false });
        is_recording.then(|| CallSpan { tracer: self.tracer.clone(), state: state() })
    }

    /// Sends what is left, for as long as a member that stops can wait. Blocks.
    pub fn send_rest(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_BATCH_PATIENCE) {
            tracing::debug!(%error, "the last spans are not sent");
        }
    }

    /// Counts and tells what was lost, when no call is left that could end.
    pub fn tell_lost(&self) {
        self.ledger.close();
    }
}

fn resource(settings: &Settings) -> Resource {
    let named = Resource::builder_empty().with_service_name(settings.service.clone());
    if settings.instance.is_empty() {
        return named.build();
    }
    named.with_attribute(KeyValue::new("service.instance.id", settings.instance.clone())).build()
}

fn sampler(per_million: u32) -> Sampler {
    let of_new_traces = match per_million {
        0 => Sampler::AlwaysOff,
        share => Sampler::TraceIdRatioBased(f64::from(share) / MILLION),
    };
    Sampler::ParentBased(Box::new(of_new_traces))
}

/// The span of a call that goes on. One that is dropped before it has ended has lost its client.
#[derive(Debug)]
pub struct CallSpan {
    tracer: SdkTracer,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    span: Span,
    /// What is asked of the store.
    asked: Option<Span>,
    ended: bool,
}

impl CallSpan {
    /// The call turns out to ask this.
    pub fn asks(&self, request: &dyn Traced) {
        let mut state = self.state();
        let asked = self.begin(&state, request);
        state.asked = Some(asked);
    }

    /// The call asks this, among other things.
    pub fn asks_among_others(&self, request: &dyn Traced) {
        drop(self.begin(&self.state(), request));
    }

    fn begin(&self, state: &State, request: &dyn Traced) -> Span {
        let (name, fields) = request.operation();
        let within = Context::new().with_remote_span_context(state.span.span_context().clone());
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Internal).with_attributes(fields);
        self.tracer.build_with_context(builder, &within)
    }

    /// Ends the call with a code, `None` for OK, and the message that goes with it.
    pub fn end(&self, failed: Option<(Code, &str)>) {
        let mut state = self.state();
        if std::mem::replace(&mut state.ended, true) {
            return;
        }
        drop(state.asked.take());
        let code = failed.map(|(code, _)| code);
        state.span.set_attribute(KeyValue::new("rpc.response.status_code", canonical(code)));
        if let Some((code, message)) = failed
            && is_fault_of_servers(code)
        {
            state.span.set_status(Status::error(message.to_owned()));
        }
        state.span.end();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        self.end(Some((Code::Canceled, "")));
    }
}

/// A code as gRPC's list spells it.
fn canonical(code: Option<Code>) -> &'static str {
    let Some(code) = code else { return "OK" };
    match code {
        Code::Canceled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Whether the conventions of OpenTelemetry call it an error of a server.
fn is_fault_of_servers(code: Code) -> bool {
    use Code::{DataLoss, DeadlineExceeded, Internal, Unavailable, Unimplemented, Unknown};
    matches!(code, Unknown | DeadlineExceeded | Unimplemented | Internal | Unavailable | DataLoss)
}

/// The headers of a call, to look for a trace in.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
