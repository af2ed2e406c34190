//! `etcdserverpb.Auth`: users and roles are not offered yet, and authentication is off.
//!
//! What can be said about that is said, through the log as etcd does; the rest is refused. Nothing is ever authorised by
//! mistake: a member refuses to start on data that has authentication enabled.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Call, Reply, call,
    kv::{propose, unexpected},
};
use crate::{
    api::{Api, status::Status},
    apply::Response,
    pb::etcdserverpb::{
        AuthDisableRequest, AuthDisableResponse, AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleListRequest,
        AuthRoleListResponse, AuthStatusRequest, AuthStatusResponse, AuthUserGetRequest, AuthUserGetResponse,
        AuthUserListRequest, AuthUserListResponse, AuthenticateRequest, AuthenticateResponse, InternalRaftRequest,
    },
    types::Rejection,
};

/// Proposes one of the requests that apply can answer without users, and completes its answer.
macro_rules! proposed {
    ($(#[$doc:meta])* $name:ident: $field:ident $request:ty => $variant:ident $response:ty) => {
        $(#[$doc])*
        pub(super) async fn $name(api: Arc<Api>, _: Call, request: $request) -> Result<$response, Status> {
            let proposal = InternalRaftRequest { $field: Some(request), ..Default::default() };
            match propose(&api, stringify!($variant), proposal).await? {
                Response::$variant(mut answer) => {
                    answer.header = Some(api.header_now());
                    Ok(answer)
                }
                other => Err(unexpected(&other)),
            }
        }
    };
}

proposed! {
    /// Says that authentication is off.
    status: auth_status AuthStatusRequest => AuthStatus AuthStatusResponse
}
proposed! {
    /// Switches off what is off.
    disable: auth_disable AuthDisableRequest => AuthDisable AuthDisableResponse
}
proposed! {
    /// Lists no users.
    user_list: auth_user_list AuthUserListRequest => AuthUserList AuthUserListResponse
}
proposed! {
    /// Lists no roles.
    role_list: auth_role_list AuthRoleListRequest => AuthRoleList AuthRoleListResponse
}

/// Finds no user of that name.
pub(super) async fn user_get(
    api: Arc<Api>,
    _: Call,
    request: AuthUserGetRequest,
) -> Result<AuthUserGetResponse, Status> {
    let proposal = InternalRaftRequest { auth_user_get: Some(request), ..Default::default() };
    Err(unexpected(&propose(&api, "AuthUserGet", proposal).await?))
}

/// Finds no role of that name.
pub(super) async fn role_get(
    api: Arc<Api>,
    _: Call,
    request: AuthRoleGetRequest,
) -> Result<AuthRoleGetResponse, Status> {
    let proposal = InternalRaftRequest { auth_role_get: Some(request), ..Default::default() };
    Err(unexpected(&propose(&api, "AuthRoleGet", proposal).await?))
}

/// Refuses to authenticate anybody while authentication is off.
pub(super) async fn authenticate(
    api: Arc<Api>,
    _: Call,
    _: AuthenticateRequest,
) -> Result<AuthenticateResponse, Status> {
    api.server().read_index().await?;
    Err(Rejection::AuthNotEnabled.into())
}

/// Refuses a call that would need users or roles.
pub(super) async fn refuse(api: Arc<Api>, call: Call, _: Bytes) -> Result<Reply, Status> {
    api.admit(&call, call::UNARY, false)?;
    Err(Status::unimplemented("quorate: this version has no authentication of users"))
}
