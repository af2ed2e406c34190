//! Streaming methods over HTTP: JSON objects in, lines of JSON out.

use std::{convert::Infallible, sync::Arc};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture, stream::unfold};
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::sync::mpsc;

use super::{
    Route, answer_with, error_json, json_bytes_max, refusal,
    split::{Found, Splitter},
    to_message,
};
use crate::{
    api::{
        Api,
        status::Status,
        v3::{self, Call},
        wire::{Inbound, Outbound, Tally},
    },
    types::Code,
};

/// Answers waiting to be shown; the method waits when they are not taken.
const ANSWERS_MAX: usize = 16;
/// Requests read ahead of the method.
const REQUESTS_MAX: usize = 4;

/// Runs a streaming method. The HTTP status is that of the outcome if nothing was answered before it.
pub(super) async fn serve(api: Arc<Api>, route: &'static Route, call: Call, body: Body) -> Response {
    let (answers_in, answers) = mpsc::channel(ANSWERS_MAX);
    let mut lines = Lines { route, answers, work: Some(work(api, route, call, body, answers_in)) };
    match lines.next().await {
        Some(Line::Answer(line)) => answer_with(Body::from_stream(unfold(Some((Some(line), lines)), rest))),
        Some(Line::Failure(status)) => {
            let mut response = refusal(&status);
            *response.body_mut() = Body::from(failure_line(&status));
            response
        }
        // What would have been shown has a type, nothing has none.
        None => {
            let mut response = answer_with(Body::empty());
            response.headers_mut().remove(CONTENT_TYPE);
            response
        }
    }
}

type State = Option<(Option<String>, Lines)>;

/// The first line, then those that follow it; a failure is the last.
async fn rest(state: State) -> Option<(Result<Bytes, Infallible>, State)> {
    let (first, mut lines) = state?;
    if let Some(line) = first {
        return Some((Ok(line.into()), Some((None, lines))));
    }
    match lines.next().await? {
        Line::Answer(line) => Some((Ok(line.into()), Some((None, lines)))),
        Line::Failure(status) => Some((Ok(failure_line(&status).into()), None)),
    }
}

fn failure_line(status: &Status) -> String {
    format!("{}\n", json!({ "error": error_json(status) }))
}

/// The call, until it ends.
type Work = BoxFuture<'static, Result<(), Status>>;

fn work(api: Arc<Api>, route: &'static Route, call: Call, body: Body, answers: mpsc::Sender<Bytes>) -> Work {
    async move {
        let entry = call.entry().cloned();
        let outcome = run(&api, route, call, body, answers).await;
        if let Some(entry) = entry.filter(|_| outcome.is_err()) {
            entry.end(&outcome, &[]);
        }
        outcome
    }
    .boxed()
}

async fn run(
    api: &Arc<Api>,
    route: &'static Route,
    call: Call,
    body: Body,
    answers: mpsc::Sender<Bytes>,
) -> Result<(), Status> {
    let method = route.method();
    let _turn = api.json_turn().await?;
    let (requests_in, requests) = mpsc::channel(REQUESTS_MAX);
    let inbound = Inbound::channel(requests, method.counters);
    let mut outbound = Outbound::channel(answers, method.counters);
    let tally = Tally::start(method.counters);
    let outcome = tokio::select! {
        outcome = v3::stream(Arc::clone(api), method, call, inbound, &mut outbound) => outcome,
        never = feed(api, route, body, requests_in) => match never {},
    };
    tally.end(&outcome);
    outcome
}

/// Hands the objects of the body to the method, then closes its side; never returns, so that the call goes on.
async fn feed(
    api: &Api,
    route: &'static Route,
    mut body: Body,
    requests: mpsc::Sender<Result<Bytes, Status>>,
) -> Infallible {
    let mut feeder = Feeder { api, route, requests, splitter: Splitter::default(), asked: false };
    // A method that has ended takes no more; the call ends with it.
    if let Err(status) = feeder.feed(&mut body).await {
        drop(feeder.requests.send(Err(status)).await);
    }
    drop(feeder);
    // What follows unreadable text is passed over, and the end of a client is still noticed.
    while let Some(Ok(_)) = body.frame().await {}
    std::future::pending().await
}

struct Feeder<'a> {
    api: &'a Api,
    route: &'static Route,
    requests: mpsc::Sender<Result<Bytes, Status>>,
    splitter: Splitter,
    /// The method was asked something.
    asked: bool,
}

impl Feeder<'_> {
    async fn feed(&mut self, body: &mut Body) -> Result<(), Status> {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Status::canceled())?.into_data() else { continue };
            self.splitter.push(&data);
            while let Some(request) = self.next() {
                let message = match request {
                    Ok(message) => message,
                    Err(status) => return self.unreadable(status),
                };
                if self.requests.send(Ok(message)).await.is_err() {
                    return Ok(());
                }
                self.asked = true;
            }
            if self.splitter.len() > json_bytes_max(self.api) {
                return Err(super::too_large(self.splitter.len(), json_bytes_max(self.api)));
            }
        }
        if self.splitter.is_blank() {
            return Ok(());
        }
        self.unreadable(Status::new(Code::InvalidArgument, "unexpected EOF"))
    }

    /// The next object of what has arrived.
    fn next(&mut self) -> Option<Result<Bytes, Status>> {
        match self.splitter.next() {
            Found::Object(object) => Some(to_message(self.route, &object)),
            Found::Incomplete => None,
            Found::Garbage => Some(Err(Status::new(Code::InvalidArgument, "expected a JSON object"))),
        }
    }

    /// As in etcd, unreadable text ends what the client asks and nothing else: what was asked before it is answered. With
    /// nothing before it etcd's answer would be empty or never come; ours says what is wrong.
    fn unreadable(&self, status: Status) -> Result<(), Status> {
        if !self.asked {
            return Err(status);
        }
        tracing::debug!(path = self.route.method().path, error = status.message(), "failed to decode request");
        Ok(())
    }
}

enum Line {
    Answer(String),
    Failure(Status),
}

/// What the call answers, as it comes.
struct Lines {
    route: &'static Route,
    answers: mpsc::Receiver<Bytes>,
    work: Option<Work>,
}

impl Lines {
    async fn next(&mut self) -> Option<Line> {
        loop {
            let Some(work) = &mut self.work else {
                // What the call answered before it ended.
                return self.answers.recv().await.map(|answer| self.show(answer));
            };
            tokio::select! {
                biased;
                Some(answer) = self.answers.recv() => return Some(self.show(answer)),
                outcome = work => {
                    self.work = None;
                    if let Err(status) = outcome {
                        return Some(Line::Failure(status));
                    }
                }
            }
        }
    }

    fn show(&self, answer: Bytes) -> Line {
        match (self.route.to_json)(answer) {
            Ok(result) => Line::Answer(format!("{{\"result\":{result}}}\n")),
            Err(error) => Line::Failure(Status::unknown(error)),
        }
    }
}
