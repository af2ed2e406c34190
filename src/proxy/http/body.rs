//! Bodies on their way through: handed on piece by piece, at the pace of whoever takes them.

use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use super::room::Room;

/// What ended a body or a call before its time, for a library that looks for a stream's reset among the causes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Broken(#[source] Box<dyn Error + Send + Sync>);

impl From<hyper::Error> for Broken {
    fn from(error: hyper::Error) -> Self {
        Self(error.into())
    }
}

/// A body, whatever it comes from.
pub(super) type Body = UnsyncBoxBody<Bytes, Broken>;

/// A body that is there already.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body as it arrives.
pub(super) fn passed(body: Incoming) -> Body {
    body.map_err(Into::into).boxed_unsync()
}

/// The body of a request that may have to be sent more than once.
#[derive(Debug)]
pub(super) enum Sendable {
    /// It is here, and has room.
    Whole { bytes: Bytes, _place: OwnedSemaphorePermit },
    /// It comes from the client while it is sent, unless nobody has begun to.
    Once(Arc<Mutex<Option<Incoming>>>),
}

impl Sendable {
    /// Waits for all of a body for which there is room.
    ///
    /// # Errors
    /// A client that breaks off.
    pub(super) async fn of(body: Incoming, room: &Room) -> Result<Self, hyper::Error> {
        if let Some(place) = body.size_hint().upper().and_then(|bytes| room.keep(bytes)) {
            return Ok(Self::Whole { bytes: body.collect().await?.to_bytes(), _place: place });
        }
        Ok(Self::Once(Arc::new(Mutex::new(Some(body)))))
    }

    /// The body for one attempt.
    pub(super) fn body(&self) -> Body {
        match self {
            Self::Whole { bytes, .. } => whole(bytes.clone()),
            Self::Once(shared) => OnceBody { shared: Arc::clone(shared), taken: None }.boxed_unsync(),
        }
    }

    /// Whether all of it is here.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole { .. })
    }

    /// Whether an attempt would still send all of it.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Whole { .. } => true,
            Self::Once(shared) => shared.lock().unwrap_or_else(PoisonError::into_inner).is_some(),
        }
    }
}

/// A body that is taken by the first attempt that asks for a piece of it.
struct OnceBody {
    shared: Arc<Mutex<Option<Incoming>>>,
    taken: Option<Incoming>,
}

impl http_body::Body for OnceBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.taken.is_none() {
            let taken = self.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.taken = taken;
        }
        let Some(body) = self.taken.as_mut() else {
            return Poll::Ready(Some(Err(Broken("the body of the request was sent already".into()))));
        };
        Pin::new(body).poll_frame(context).map_err(Into::into)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.taken, self.shared.lock().unwrap_or_else(PoisonError::into_inner).as_ref()) {
            (Some(body), _) | (None, Some(body)) => body.size_hint(),
            (None, None) => SizeHint::default(),
        }
    }
}
