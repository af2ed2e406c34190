//! `etcdserverpb.Auth`: not offered yet. Nothing is ever authorised by mistake: a member refuses to start on data that
//! has authentication enabled.

use std::sync::Arc;

use bytes::Bytes;

use super::{Call, Reply, call};
use crate::api::{Api, status::Status};

/// Refuses a call of the service.
pub(super) async fn refuse(api: Arc<Api>, call: Call, _: Bytes) -> Result<Reply, Status> {
    api.admit(&call, call::UNARY, false)?;
    Err(Status::unimplemented("quorate: this version has no authentication of users"))
}
