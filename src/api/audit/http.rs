//! Requests that are none of the third API. Of these the method and the path are told, which names the key, the member, the
//! user or the role; nothing of the query or the body, where values and passwords are.

use std::sync::Arc;

use axum::{extract::Request, response::Response};
use http::{Method, StatusCode};

use super::{Caller, Entry, Outcome, Via};
use crate::{
    api::{Api, CommonName, Local, Remote, v2},
    audit::Weight,
    types::Code,
};

/// In an answer: why it is no better one, without what it says of values.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Refused(pub(in crate::api) &'static str);

/// Has a request answered, and tells of it. Whoever recognises the user finds the [`Entry`] among the request's extensions.
pub(in crate::api) async fn audited<F: Future<Output = Response>>(
    api: &Api,
    via: Via,
    mut request: Request,
    answer: impl FnOnce(Request) -> F,
) -> Response {
    let Some(audit) = api.audit.get() else { return answer(request).await };
    let entry = Entry::begin(audit, Caller::of_http(&request, via), request.method().as_str().to_owned());
    {
        let mut draft = entry.draft();
        draft.subject.fields.bytes("path", &v2::unescaped_path(request.uri().path()));
        // The discovery service makes tokens for whoever asks.
        let makes = via == Via::Discovery && request.uri().path().ends_with("/new");
        if matches!(*request.method(), Method::GET | Method::HEAD) && !makes {
            draft.weight = Weight::Read;
        }
    }
    request.extensions_mut().insert(Arc::clone(&entry));
    let response = answer(request).await;
    entry.end_http(&response);
    response
}

impl Caller {
    /// Who sent an HTTP request.
    pub(in crate::api) fn of_http(request: &Request, via: Via) -> Self {
        let extensions = request.extensions();
        Self {
            from: extensions.get().map(|Remote(from)| *from),
            at: extensions.get().map(|Local(at)| *at),
            common_name: extensions.get().map(|CommonName(name)| Arc::clone(name)),
            via,
        }
    }
}

impl Entry {
    fn end_http(&self, response: &Response) {
        let status = response.status();
        let code = code_of(status, self.draft().user.is_empty());
        let refused = response.extensions().get().map(|Refused(why)| *why);
        let error = if code.is_some() { refused.or(status.canonical_reason()).unwrap_or_default() } else { "" };
        self.finish(Outcome { code, error, took: None }, |subject| {
            subject.fields.number("status", status.as_u16());
            let index =
                response.headers().get(v2::ETCD_INDEX).and_then(|index| index.to_str().ok()?.parse::<u64>().ok());
            if let Some(index) = index {
                subject.fields.number("index", index);
            }
        });
    }
}

/// The code that comes closest to a status of this API.
fn code_of(status: StatusCode, is_nobody: bool) -> Option<Code> {
    Some(match status {
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED if is_nobody => Code::Unauthenticated,
        StatusCode::UNAUTHORIZED => Code::PermissionDenied,
        StatusCode::NOT_FOUND | StatusCode::GONE => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::FORBIDDEN | StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Code::FailedPrecondition,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::INTERNAL_SERVER_ERROR => Code::Internal,
        other if other.is_client_error() || other.is_server_error() => Code::Unknown,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_code_that_comes_closest() {
        assert_eq!(code_of(StatusCode::CREATED, true), None);
        assert_eq!(code_of(StatusCode::UNAUTHORIZED, true), Some(Code::Unauthenticated));
        assert_eq!(code_of(StatusCode::UNAUTHORIZED, false), Some(Code::PermissionDenied));
        assert_eq!(code_of(StatusCode::PRECONDITION_FAILED, false), Some(Code::FailedPrecondition));
        assert_eq!(code_of(StatusCode::PAYLOAD_TOO_LARGE, false), Some(Code::Unknown));
    }
}
