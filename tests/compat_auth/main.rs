//! Users, roles and permissions over gRPC: the same calls, one after the other, against a fresh member of ours and one of
//! etcd. Answers, codes and texts must be the same; after every call so must the whole of what is known of users.
//!
//! With authentication on, every method is called by everybody ([`script`]), and two hundred users do what they may and
//! what they may not ([`matrix`]).

mod caller;
mod certificates;
mod jwt;
mod matrix;
mod script;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Debug;

use quorate::pb::{
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::{self as pb, auth_client::AuthClient},
};
use support::{daemon::Daemon, grpc::Client, program::Program};
use tonic::{Response, Status, transport::Channel};

/// One call.
#[derive(Clone, Debug)]
enum Call {
    /// User and password.
    UserAdd(&'static str, &'static str),
    /// User, password and a hash in base64; without a password for good.
    UserAddWith(&'static str, &'static str, &'static str, bool),
    UserDelete(&'static str),
    /// User, password and a hash in base64.
    ChangePassword(&'static str, &'static str, &'static str),
    GrantRole(&'static str, &'static str),
    RevokeRole(&'static str, &'static str),
    UserGet(&'static str),
    RoleAdd(&'static str),
    RoleDelete(&'static str),
    RoleGet(&'static str),
    /// Role, kind, key and end of the range.
    Grant(&'static str, Type, &'static str, &'static str),
    GrantNothing(&'static str),
    Revoke(&'static str, &'static str, &'static str),
    Disable,
    Authenticate(&'static str, &'static str),
}
use Call::{
    Authenticate, ChangePassword, Disable, Grant, GrantNothing, GrantRole, Revoke, RevokeRole, RoleAdd, RoleDelete,
    RoleGet, UserAdd, UserAddWith, UserDelete, UserGet,
};

/// Three bytes longer than bcrypt looks at.
const LONG: &str = "123456789.123456789.123456789.123456789.123456789.123456789.123456789.12345";

const CALLS: &[Call] = &[
    Disable,
    Authenticate("root", "secret"),
    UserGet("root"),
    RoleGet("root"),
    UserDelete("root"),
    RoleDelete("root"),
    RevokeRole("root", "root"),
    GrantRole("root", "root"),
    ChangePassword("root", "secret", ""),
    UserAdd("", "secret"),
    UserAdd("root", "secret"),
    UserAdd("root", "other"),
    UserAdd("empty", ""),
    UserAdd("long", LONG),
    UserAdd("größe", "secret"),
    UserAddWith("hashed", "", "eA==", false),
    UserAddWith("certificate", "ignored", "", true),
    UserAddWith("broken", "", "%", true),
    UserAddWith("", "", "", true),
    ChangePassword("root", "other", ""),
    ChangePassword("root", LONG, ""),
    ChangePassword("root", "", "%"),
    ChangePassword("root", "", "eA=="),
    ChangePassword("root", "", "eA=\n="),
    ChangePassword("root", "", "eB=="),
    ChangePassword("root", "", "eA"),
    ChangePassword("root", "", ""),
    ChangePassword("certificate", "other", ""),
    ChangePassword("certificate", "", "%"),
    ChangePassword("nobody", "other", ""),
    GrantRole("root", "none"),
    GrantRole("nobody", "none"),
    GrantRole("root", "root"),
    GrantRole("root", "root"),
    UserGet("root"),
    RoleGet("root"),
    RoleAdd(""),
    RoleAdd("root"),
    RoleAdd("root"),
    RoleGet("root"),
    RoleAdd("b"),
    RoleAdd("a"),
    GrantNothing("a"),
    GrantNothing("none"),
    Grant("none", Type::Read, "k", ""),
    Grant("none", Type::Read, "", ""),
    Grant("a", Type::Read, "", ""),
    Grant("a", Type::Read, "", "\0"),
    Grant("a", Type::Read, "k", "k"),
    Grant("a", Type::Read, "k", "j"),
    Grant("a", Type::Read, "k", ""),
    Grant("a", Type::Write, "k", "l"),
    Grant("a", Type::Readwrite, "a", "\0"),
    Grant("a", Type::Readwrite, "k", ""),
    Grant("a", Type::Readwrite, "k", "l"),
    Grant("a", Type::Readwrite, "\0", "\0"),
    Grant("root", Type::Read, "k", ""),
    RoleGet("root"),
    RoleGet("a"),
    Revoke("a", "k", "m"),
    Revoke("a", "k", "l"),
    Revoke("none", "k", "l"),
    Revoke("a", "k", ""),
    RoleGet("a"),
    GrantRole("root", "b"),
    GrantRole("root", "a"),
    GrantRole("empty", "a"),
    UserGet("root"),
    RevokeRole("root", "none"),
    RevokeRole("nobody", "a"),
    RevokeRole("root", "b"),
    RoleDelete("none"),
    RoleDelete("a"),
    UserGet("root"),
    UserGet("empty"),
    RevokeRole("empty", "a"),
    RoleDelete("root"),
    UserGet("root"),
    RevokeRole("root", "root"),
    UserDelete("nobody"),
    UserDelete("root"),
    Authenticate("empty", ""),
    Authenticate("", ""),
    Disable,
];

/// The users of one member.
struct Side {
    auth: AuthClient<Channel>,
    daemon: Daemon,
}

impl Side {
    async fn start(program: &Program) -> Self {
        let daemon = Daemon::start(program, &[]);
        let client = Client::connect(&daemon.endpoint()).await.expect("the member serves");
        Self { auth: AuthClient::new(client.channel), daemon }
    }

    async fn answer(&mut self, call: &Call) -> String {
        let auth = &mut self.auth;
        match call.clone() {
            UserAdd(name, password) => told(auth.user_add(user_add(name, password, "", false)).await),
            UserAddWith(name, password, hash, without) => {
                told(auth.user_add(user_add(name, password, hash, without)).await)
            }
            UserDelete(name) => told(auth.user_delete(pb::AuthUserDeleteRequest { name: name.into() }).await),
            ChangePassword(name, password, hash) => told(auth.user_change_password(other(name, password, hash)).await),
            GrantRole(user, role) => {
                told(auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() }).await)
            }
            RevokeRole(name, role) => {
                let request = pb::AuthUserRevokeRoleRequest { name: name.into(), role: role.into() };
                told(auth.user_revoke_role(request).await)
            }
            UserGet(name) => told(auth.user_get(pb::AuthUserGetRequest { name: name.into() }).await),
            RoleAdd(name) => told(auth.role_add(pb::AuthRoleAddRequest { name: name.into() }).await),
            RoleDelete(role) => told(auth.role_delete(pb::AuthRoleDeleteRequest { role: role.into() }).await),
            RoleGet(role) => told(auth.role_get(pb::AuthRoleGetRequest { role: role.into() }).await),
            Grant(name, kind, key, end) => told(auth.role_grant_permission(grant(name, kind, key, end)).await),
            GrantNothing(name) => {
                let request = pb::AuthRoleGrantPermissionRequest { name: name.into(), perm: None };
                told(auth.role_grant_permission(request).await)
            }
            Revoke(role, key, range_end) => {
                let (role, key, range_end) = (role.into(), key.into(), range_end.into());
                let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
                told(auth.role_revoke_permission(request).await)
            }
            Disable => told(auth.auth_disable(pb::AuthDisableRequest {}).await),
            Authenticate(name, password) => {
                let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
                told(auth.authenticate(request).await)
            }
        }
    }

    /// Everything that is known of users, and the auth revision.
    async fn everything(&mut self) -> String {
        let status = told(self.auth.auth_status(pb::AuthStatusRequest {}).await);
        let users = self.auth.user_list(pb::AuthUserListRequest {}).await;
        let roles = self.auth.role_list(pb::AuthRoleListRequest {}).await;
        let mut text = format!("{status}\n{}\n{}", told(users), told(roles));
        for name in ["root", "empty"] {
            text = text + "\n" + &told(self.auth.user_get(pb::AuthUserGetRequest { name: name.into() }).await);
        }
        for role in ["root", "a"] {
            text = text + "\n" + &told(self.auth.role_get(pb::AuthRoleGetRequest { role: role.into() }).await);
        }
        text
    }
}

fn user_add(name: &str, password: &str, hash: &str, no_password: bool) -> pb::AuthUserAddRequest {
    let options = no_password.then_some(UserAddOptions { no_password });
    pb::AuthUserAddRequest { name: name.into(), password: password.into(), hashed_password: hash.into(), options }
}

fn other(name: &str, password: &str, hash: &str) -> pb::AuthUserChangePasswordRequest {
    pb::AuthUserChangePasswordRequest { name: name.into(), password: password.into(), hashed_password: hash.into() }
}

fn grant(name: &str, kind: Type, key: &'static str, range_end: &'static str) -> pb::AuthRoleGrantPermissionRequest {
    let perm = Permission { perm_type: kind.into(), key: key.into(), range_end: range_end.into() };
    pb::AuthRoleGrantPermissionRequest { name: name.into(), perm: Some(perm) }
}

/// The answer without what names its member, or the refusal.
fn told(outcome: Result<Response<impl Debug>, Status>) -> String {
    match outcome {
        Ok(answer) => {
            let text = format!("{:?}", answer.into_inner());
            let names = ["cluster_id: ", "member_id: "];
            names.iter().fold(text, |text, name| match text.split_once(name) {
                Some((before, after)) => format!("{before}{}", after.split_once(", ").map_or("", |(_, rest)| rest)),
                None => text,
            })
        }
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

#[tokio::test]
async fn users_roles_and_permissions_are_those_of_etcd() {
    let mut ours = Side::start(&Program::subject()).await;
    let mut theirs = Side::start(&Program::etcd()).await;
    let mut differences = Vec::new();
    for call in CALLS {
        let (got, expected) = (ours.answer(call).await, theirs.answer(call).await);
        let (got, expected) =
            (format!("{got}\n{}", ours.everything().await), format!("{expected}\n{}", theirs.everything().await));
        if got != expected {
            differences.push(format!("{call:?}\n  ours {got}\n  etcd {expected}"));
        }
    }
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    println!("{} calls answered alike", CALLS.len());

    // They are there after the end of the process, in the next term.
    let before = ours.everything().await;
    ours.daemon.kill();
    ours.daemon.restart();
    let client = Client::connect(&ours.daemon.endpoint()).await.expect("the member serves again");
    ours.auth = AuthClient::new(client.channel);
    assert_eq!(ours.everything().await, before.replace("raft_term: 2", "raft_term: 3"));
}
