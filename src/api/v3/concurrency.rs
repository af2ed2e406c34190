//! `v3electionpb.Election` and `v3lockpb.Lock`: not offered yet.

use std::sync::Arc;

use bytes::Bytes;

use super::{Call, Reply, call};
use crate::api::{
    Api,
    status::Status,
    wire::{Inbound, Outbound},
};

/// Refuses a unary call of the services.
pub(super) async fn refuse(api: Arc<Api>, call: Call, _: Bytes) -> Result<Reply, Status> {
    api.admit(&call, call::UNARY, false)?;
    Err(not_yet())
}

/// Refuses a streaming call of the services.
pub(super) async fn refuse_stream(api: Arc<Api>, call: &Call, _: Inbound, _: &mut Outbound) -> Result<(), Status> {
    api.admit_stream(call)?;
    Err(not_yet())
}

fn not_yet() -> Status {
    Status::unimplemented("quorate: this version has no election and lock services; use transactions and leases")
}
