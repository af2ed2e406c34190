//! `/livez` and `/readyz`: named checks, each of which can be asked for alone or left out.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    extract::Request,
    http::{HeaderValue, StatusCode, header::X_CONTENT_TYPE_OPTIONS},
    response::Response,
};

use super::{
    health,
    plain::{self, not_found, query},
};
use crate::{api::Api, apply::AlarmKind, metrics};

/// One thing that can be well or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, api: &Api) -> Result<(), String> {
        match self {
            Self::DataCorruption => no_corruption(api),
            Self::SerializableRead => health::read(api, true).await,
            Self::LinearizableRead => health::read(api, false).await,
            Self::NonLearner if api.is_learner() => Err("not supported for learner".into()),
            Self::NonLearner => Ok(()),
        }
    }
}

fn no_corruption(api: &Api) -> Result<(), String> {
    if api.server().published().alarms.is_raised(AlarmKind::Corrupt) {
        return Err("alarm activated: CORRUPT".into());
    }
    Ok(())
}

/// A set of checks under one path.
#[derive(Clone, Copy, Debug)]
struct Probe {
    name: &'static str,
    checks: &'static [Check],
}

const LIVE: Probe = Probe { name: "livez", checks: &[Check::SerializableRead] };
const READY: Probe = Probe {
    name: "readyz",
    checks: &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner],
};

/// Whether the process should be left alone.
pub(super) async fn live(api: Arc<Api>, request: Request) -> Response {
    LIVE.all(&api, request).await
}

/// One check of [`live`].
pub(super) async fn live_check(api: Arc<Api>, request: Request) -> Response {
    LIVE.one(&api, request).await
}

/// Whether clients should be sent here.
pub(super) async fn ready(api: Arc<Api>, request: Request) -> Response {
    READY.all(&api, request).await
}

/// One check of [`ready`].
pub(super) async fn ready_check(api: Arc<Api>, request: Request) -> Response {
    READY.one(&api, request).await
}

impl Probe {
    async fn all(self, api: &Api, request: Request) -> Response {
        let excluded: Vec<String> = query(&request, "exclude").collect();
        let checks = self.checks.iter().filter(|check| !excluded.iter().any(|name| name == check.name()));
        self.answer(api, is_verbose(&request), checks.copied().collect()).await
    }

    async fn one(self, api: &Api, request: Request) -> Response {
        let asked = request.uri().path().rsplit('/').next().unwrap_or_default();
        match self.checks.iter().find(|check| check.name() == asked) {
            Some(check) => self.answer(api, is_verbose(&request), vec![*check]).await,
            None => not_found().await,
        }
    }

    async fn answer(self, api: &Api, verbose: bool, checks: Vec<Check>) -> Response {
        let mut lines = String::new();
        let mut well = true;
        for check in checks {
            let outcome = check.run(api).await;
            self.count(check, outcome.is_ok());
            let name = check.name();
            match outcome {
                Ok(()) => writeln!(lines, "[+]{name} ok"),
                Err(error) => {
                    well = false;
                    writeln!(lines, "[-]{name} failed: {error}")
                }
            }
            .expect("a String takes any text");
        }
        render(well, verbose, lines)
    }

    fn count(self, check: Check, well: bool) {
        let status = if well { "success" } else { "error" };
        metrics::HEALTH_CHECK.with([check.name(), self.name]).set(i64::from(well));
        metrics::HEALTH_CHECKS.with([check.name(), status, self.name]).inc();
    }
}

fn is_verbose(request: &Request) -> bool {
    query(request, "verbose").next().is_some()
}

fn render(well: bool, verbose: bool, lines: String) -> Response {
    let text = match (well, verbose) {
        (true, true) => lines + "ok\n",
        (true, false) => "ok\n".into(),
        (false, _) => lines,
    };
    let mut response = plain::body("text/plain; charset=utf-8", text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !well {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}
