//! `etcdserverpb.Auth`: users, roles and permissions, and logging in.
//!
//! Everything goes through the log as in etcd, questions included, and is judged where it is applied. Passwords are hashed
//! and compared here, so that no entry holds one and all members have the same hash.

use std::mem;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::{Session, kv::unexpected};
use crate::{
    api::status::Status,
    apply::Response,
    auth::{Login, Token},
    pb::etcdserverpb::{
        AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
        AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest, AuthRoleGetResponse,
        AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
        AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse,
        AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
        AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
        AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
        AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
        InternalAuthenticateRequest, InternalRaftRequest, ResponseHeader,
    },
    types::Rejection,
};

/// Longer passwords have no hash in etcd: bcrypt looks at no more.
const PASSWORD_BYTES_MAX: usize = 72;

/// Proposes a question about users and completes its answer.
macro_rules! told {
    ($(#[$doc:meta])* $name:ident: $field:ident $request:ty => $variant:ident $response:ty) => {
        $(#[$doc])*
        pub(super) async fn $name(session: Session, request: $request) -> Result<$response, Status> {
            let proposal = InternalRaftRequest { $field: Some(request), ..Default::default() };
            match session.propose(stringify!($variant), proposal).await? {
                Response::$variant(mut answer) => {
                    answer.header = Some(session.header_now());
                    Ok(answer)
                }
                other => Err(unexpected(&other)),
            }
        }
    };
}

/// Proposes a change of users, whose answer is but a header.
macro_rules! changed {
    ($(#[$doc:meta])* $name:ident: $field:ident $request:ty => $label:literal $response:ident) => {
        $(#[$doc])*
        pub(super) async fn $name(session: Session, request: $request) -> Result<$response, Status> {
            let proposal = InternalRaftRequest { $field: Some(request), ..Default::default() };
            let header = Some(change(&session, $label, proposal).await?);
            Ok($response { header })
        }
    };
}

told! {
    /// Says whether requests are checked.
    status: auth_status AuthStatusRequest => AuthStatus AuthStatusResponse
}
told! {
    /// Lists the users.
    user_list: auth_user_list AuthUserListRequest => AuthUserList AuthUserListResponse
}
told! {
    /// Lists the roles of a user.
    user_get: auth_user_get AuthUserGetRequest => AuthUserGet AuthUserGetResponse
}
told! {
    /// Lists the roles.
    role_list: auth_role_list AuthRoleListRequest => AuthRoleList AuthRoleListResponse
}
told! {
    /// Lists what a role permits.
    role_get: auth_role_get AuthRoleGetRequest => AuthRoleGet AuthRoleGetResponse
}
changed! {
    /// From now on requests are checked.
    enable: auth_enable AuthEnableRequest => "AuthEnable" AuthEnableResponse
}
changed! {
    /// From now on they are not.
    disable: auth_disable AuthDisableRequest => "AuthDisable" AuthDisableResponse
}
changed! {
    /// Removes a user.
    user_delete: auth_user_delete AuthUserDeleteRequest => "AuthUserDelete" AuthUserDeleteResponse
}
changed! {
    /// Gives a user a role.
    user_grant_role: auth_user_grant_role AuthUserGrantRoleRequest => "AuthUserGrantRole" AuthUserGrantRoleResponse
}
changed! {
    /// Takes a role from a user.
    user_revoke_role: auth_user_revoke_role AuthUserRevokeRoleRequest => "AuthUserRevokeRole" AuthUserRevokeRoleResponse
}
changed! {
    /// Makes a role.
    role_add: auth_role_add AuthRoleAddRequest => "AuthRoleAdd" AuthRoleAddResponse
}
changed! {
    /// Removes a role, from all users, too.
    role_delete: auth_role_delete AuthRoleDeleteRequest => "AuthRoleDelete" AuthRoleDeleteResponse
}
changed! {
    /// Lets a role do more.
    role_grant_permission: auth_role_grant_permission AuthRoleGrantPermissionRequest
        => "AuthRoleGrantPermission" AuthRoleGrantPermissionResponse
}
changed! {
    /// Lets a role do less.
    role_revoke_permission: auth_role_revoke_permission AuthRoleRevokePermissionRequest
        => "AuthRoleRevokePermission" AuthRoleRevokePermissionResponse
}

/// Makes a user.
pub(super) async fn user_add(session: Session, mut request: AuthUserAddRequest) -> Result<AuthUserAddResponse, Status> {
    let password = mem::take(&mut request.password);
    // An empty one is a password, too.
    if !request.options.is_some_and(|options| options.no_password) {
        request.hashed_password = hash(&session, password).await?;
    }
    let proposal = InternalRaftRequest { auth_user_add: Some(request), ..Default::default() };
    Ok(AuthUserAddResponse { header: Some(change(&session, "AuthUserAdd", proposal).await?) })
}

/// Gives a user another password; the hash that comes with the request counts if the password is empty.
pub(super) async fn user_change_password(
    session: Session,
    mut request: AuthUserChangePasswordRequest,
) -> Result<AuthUserChangePasswordResponse, Status> {
    let password = mem::take(&mut request.password);
    if !password.is_empty() {
        request.hashed_password = hash(&session, password).await?;
    }
    let proposal = InternalRaftRequest { auth_user_change_password: Some(request), ..Default::default() };
    Ok(AuthUserChangePasswordResponse { header: Some(change(&session, "AuthUserChangePassword", proposal).await?) })
}

/// Logs a user in. The password is checked here; what is proposed, and who is told of it by every member, is a token. If
/// users have changed meanwhile, the password is checked again.
pub(super) async fn authenticate(
    session: Session,
    request: AuthenticateRequest,
) -> Result<AuthenticateResponse, Status> {
    session.linearize().await?;
    for _ in 0..LOGIN_ATTEMPTS_MAX {
        let checked_at = check_password(&session, &request).await?;
        let token = log_in(&session, &request.name).await?;
        let server = session.for_everybody();
        if server.published().auth.revision() == checked_at {
            let token = server.issue(&request.name, token).await?.reveal().to_owned();
            return Ok(AuthenticateResponse { header: Some(session.header_now()), token });
        }
    }
    Err(Rejection::AuthOldRevision.into())
}

/// How often users may change while one logs in.
const LOGIN_ATTEMPTS_MAX: usize = 16;

/// Proposes that `user` has logged in; the entry names nobody else.
async fn log_in(session: &Session, user: &str) -> Result<Token, Status> {
    let server = session.for_everybody();
    let (name, simple_token) = (user.to_owned().into(), server.token_prefix().into());
    let authenticate = Some(InternalAuthenticateRequest { name, simple_token, ..Default::default() });
    match session.propose_for_nobody("Authenticate", InternalRaftRequest { authenticate, ..Default::default() }).await?
    {
        Response::Authenticated(token) => Ok(token),
        other => Err(unexpected(&other)),
    }
}

/// The auth revision at which the password was right. Who is no user, and who has no password, hears so as late as who does
/// not know his own.
async fn check_password(session: &Session, request: &AuthenticateRequest) -> Result<u64, Status> {
    let AuthenticateRequest { name, password } = request;
    let state = session.for_everybody().published();
    if !state.auth.enabled() {
        return Err(Rejection::AuthNotEnabled.into());
    }
    let login = state.auth.login(name);
    let hash = if let Login::Password(hash) = &login { Some(hash.clone()) } else { None };
    let fits = session.password_fits(name, password.clone(), hash).await?;
    let refusal = match login {
        Login::Password(_) if fits => return Ok(state.auth.revision()),
        Login::WithoutPassword => Rejection::NoPasswordUser,
        Login::Password(_) | Login::Unknown => Rejection::AuthFailed,
    };
    // Who has no user of this name may name him at any length.
    let user = if login == Login::Unknown { "" } else { name };
    tracing::warn!(user, error = %refusal, "invalid authentication was requested");
    Err(refusal.into())
}

async fn change(
    session: &Session,
    name: &'static str,
    proposal: InternalRaftRequest,
) -> Result<ResponseHeader, Status> {
    match session.propose(name, proposal).await? {
        Response::AuthChanged => Ok(session.header_now()),
        other => Err(unexpected(&other)),
    }
}

/// What an entry holds in the place of `password`. It takes long on purpose, so who may not change users hears that first.
async fn hash(session: &Session, password: String) -> Result<String, Status> {
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(Status::unknown("bcrypt: password length exceeds 72 bytes"));
    }
    if session.for_admins().await.is_err() {
        // Another member may have told him that he may, and this one is behind.
        session.linearize().await?;
        session.for_admins().await?;
    }
    let hash = session.hash_password(password).await?;
    Ok(BASE64_STANDARD.encode(hash))
}
