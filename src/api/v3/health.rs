//! `grpc.health.v1.Health`: the server as a whole, under the empty name.

use std::collections::HashMap;

use bytes::Bytes;
use prost::Message as _;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::{Reply, Session, call, decode, only_request};
use crate::{
    api::{
        audit::{Audited, Subject},
        status::Status,
        wire::{Inbound, Outbound},
    },
    audit::Weight,
    types::Code,
};

/// The name that means the whole server.
const WHOLE_SERVER: &str = "";

/// The request of `List`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct HealthListRequest {}

impl Audited for HealthListRequest {
    fn tell(&self, _: &mut Subject) -> Weight {
        Weight::Read
    }
}

/// The answer of `List`: every service with its status.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthListResponse {
    #[prost(map = "string, message", tag = "1")]
    statuses: HashMap<String, HealthCheckResponse>,
}

/// Says how a service does.
pub(super) async fn check(session: Session, request: Bytes) -> Result<Reply, Status> {
    let request: HealthCheckRequest = decode(request)?;
    session.tell(&request);
    session.admit(call::UNARY, false)?;
    if request.service != WHOLE_SERVER {
        return Err(Status::new(Code::NotFound, "unknown service"));
    }
    Ok(Reply::of(&response(ServingStatus::Serving)))
}

/// Says how all services do.
pub(super) async fn list(session: Session, request: Bytes) -> Result<Reply, Status> {
    let request: HealthListRequest = decode(request)?;
    session.tell(&request);
    session.admit(call::UNARY, false)?;
    let statuses = HashMap::from([(WHOLE_SERVER.to_owned(), response(ServingStatus::Serving))]);
    Ok(Reply::of(&HealthListResponse { statuses }))
}

/// Says how a service does, and again whenever that changes.
pub(super) async fn watch(session: &Session, mut inbound: Inbound, outbound: &mut Outbound) -> Result<(), Status> {
    let request: HealthCheckRequest = only_request(session, &mut inbound).await?;
    session.admit_stream()?;
    let known = request.service == WHOLE_SERVER;
    let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
    outbound.send(response(status).encode_to_vec().into()).await?;
    tokio::select! {
        () = outbound.closed() => return Err(Status::canceled()),
        () = session.stopping() => {}
    }
    if known {
        outbound.send(response(ServingStatus::NotServing).encode_to_vec().into()).await?;
    }
    Ok(())
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
