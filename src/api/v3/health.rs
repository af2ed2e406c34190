//! `grpc.health.v1.Health`: the server as a whole, under the empty name.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use prost::Message as _;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};

use super::{Call, Reply, call, decode, only_request};
use crate::{
    api::{
        Api,
        status::Status,
        wire::{Inbound, Outbound},
    },
    types::Code,
};

/// The name that means the whole server.
const WHOLE_SERVER: &str = "";

/// The request of `List`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct HealthListRequest {}

/// The answer of `List`: every service with its status.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthListResponse {
    #[prost(map = "string, message", tag = "1")]
    statuses: HashMap<String, HealthCheckResponse>,
}

/// Says how a service does.
pub(super) async fn check(api: Arc<Api>, call: Call, request: Bytes) -> Result<Reply, Status> {
    let request: HealthCheckRequest = decode(request)?;
    api.admit(&call, call::UNARY, false)?;
    if request.service != WHOLE_SERVER {
        return Err(Status::new(Code::NotFound, "unknown service"));
    }
    Ok(Reply::of(&response(ServingStatus::Serving)))
}

/// Says how all services do.
pub(super) async fn list(api: Arc<Api>, call: Call, request: Bytes) -> Result<Reply, Status> {
    let HealthListRequest {} = decode(request)?;
    api.admit(&call, call::UNARY, false)?;
    let statuses = HashMap::from([(WHOLE_SERVER.to_owned(), response(ServingStatus::Serving))]);
    Ok(Reply::of(&HealthListResponse { statuses }))
}

/// Says how a service does, and again whenever that changes.
pub(super) async fn watch(
    api: Arc<Api>,
    call: &Call,
    mut inbound: Inbound,
    outbound: &mut Outbound,
) -> Result<(), Status> {
    let request: HealthCheckRequest = only_request(&mut inbound).await?;
    api.admit_stream(call)?;
    let known = request.service == WHOLE_SERVER;
    let status = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
    outbound.send(response(status).encode_to_vec().into()).await?;
    tokio::select! {
        () = outbound.closed() => return Err(Status::canceled()),
        () = api.stopping() => {}
    }
    if known {
        outbound.send(response(ServingStatus::NotServing).encode_to_vec().into()).await?;
    }
    Ok(())
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
