//! The requests that change users, roles and the switch.

use std::sync::Arc;

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use thiserror::Error;

use super::{
    Auth, ROOT, Row,
    account::Account,
    permission,
    rows::{enabled_row, no_row, revision_row, role_row, user_row},
};
use crate::{
    pb::{
        authpb::{Permission, Role, User, UserAddOptions},
        etcdserverpb as pb,
    },
    storage::Table,
    types::{KEY_BYTES_MAX, Rejection},
};

/// As loose as Go reads base64: bits that no byte needs may be anything.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// One agreed request.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// From now on requests are checked.
    Enable,
    /// From now on they are not.
    Disable,
    /// A new user.
    UserAdd(pb::AuthUserAddRequest),
    /// One user less.
    UserDelete(pb::AuthUserDeleteRequest),
    /// Another password.
    UserChangePassword(pb::AuthUserChangePasswordRequest),
    /// A user has one more role.
    UserGrantRole(pb::AuthUserGrantRoleRequest),
    /// A user has one role less.
    UserRevokeRole(pb::AuthUserRevokeRoleRequest),
    /// A new role.
    RoleAdd(pb::AuthRoleAddRequest),
    /// One role less, for all users.
    RoleDelete(pb::AuthRoleDeleteRequest),
    /// A role permits more, or the same keys in another way.
    RoleGrantPermission(pb::AuthRoleGrantPermissionRequest),
    /// A role permits less.
    RoleRevokePermission(pb::AuthRoleRevokePermissionRequest),
}

/// Why a request has changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Every member refuses alike.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The request holds a password instead of its hash, of which every member would make another one.
    #[error("the request holds a password in plain text")]
    PlainPassword,
}

type Changed = Result<Vec<Row>, Refused>;

impl Change {
    /// What etcd's metrics call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Enable => "AuthEnable",
            Self::Disable => "AuthDisable",
            Self::UserAdd(_) => "AuthUserAdd",
            Self::UserDelete(_) => "AuthUserDelete",
            Self::UserChangePassword(_) => "AuthUserChangePassword",
            Self::UserGrantRole(_) => "AuthUserGrantRole",
            Self::UserRevokeRole(_) => "AuthUserRevokeRole",
            Self::RoleAdd(_) => "AuthRoleAdd",
            Self::RoleDelete(_) => "AuthRoleDelete",
            Self::RoleGrantPermission(_) => "AuthRoleGrantPermission",
            Self::RoleRevokePermission(_) => "AuthRoleRevokePermission",
        }
    }
}

impl Auth {
    /// Carries out a request and returns what is to be written. Whether its sender may do so was asked before.
    ///
    /// # Errors
    /// [`Refused`], in etcd's order; nothing has changed then.
    pub fn change(&mut self, change: &Change) -> Changed {
        match change {
            Change::Enable => self.enable(),
            Change::Disable => Ok(self.disable()),
            Change::UserAdd(request) => self.user_add(request),
            Change::UserDelete(request) => self.user_delete(&request.name),
            Change::UserChangePassword(request) => self.user_change_password(request),
            Change::UserGrantRole(request) => self.user_grant_role(request),
            Change::UserRevokeRole(request) => self.user_revoke_role(request),
            Change::RoleAdd(request) => self.role_add(&request.name),
            Change::RoleDelete(request) => self.role_delete(&request.role),
            Change::RoleGrantPermission(request) => self.role_grant_permission(request),
            Change::RoleRevokePermission(request) => self.role_revoke_permission(request),
        }
    }

    fn enable(&mut self) -> Changed {
        if self.enabled {
            return Ok(Vec::new());
        }
        let root = self.users.get(ROOT).ok_or(Rejection::RootUserNotFound)?;
        if !root.has_role(ROOT) {
            return Err(Rejection::RootRoleNotGranted.into());
        }
        self.enabled = true;
        Ok(vec![enabled_row(true)])
    }

    fn disable(&mut self) -> Vec<Row> {
        if !self.enabled {
            return Vec::new();
        }
        self.enabled = false;
        vec![enabled_row(false), self.next_revision()]
    }

    fn user_add(&mut self, request: &pb::AuthUserAddRequest) -> Changed {
        if request.name.is_empty() {
            return Err(Rejection::UserNameEmpty.into());
        }
        if self.users.contains_key(request.name.as_str()) {
            return Err(Rejection::UserExists.into());
        }
        check_length(&request.name)?;
        let options = request.options.unwrap_or(UserAddOptions { no_password: false });
        let password =
            if options.no_password { Bytes::new() } else { hash_in(&request.password, &request.hashed_password)? };
        let name = Bytes::copy_from_slice(request.name.as_bytes());
        let row = self.set_user(&request.name, User { name, password, roles: Vec::new(), options: Some(options) });
        Ok(vec![row, self.next_revision()])
    }

    fn user_delete(&mut self, name: &str) -> Changed {
        self.check_root(name == ROOT)?;
        if self.users.remove(name).is_none() {
            return Err(Rejection::UserNotFound.into());
        }
        Ok(vec![no_row(Table::AuthUser, name), self.next_revision()])
    }

    fn user_change_password(&mut self, request: &pb::AuthUserChangePasswordRequest) -> Changed {
        let account = self.users.get(request.name.as_str()).ok_or(Rejection::UserNotFound)?;
        let password = if account.has_no_password() {
            Bytes::new()
        } else {
            hash_in(&request.password, &request.hashed_password)?
        };
        let row = self.set_user(&request.name, User { password, ..account.user().clone() });
        Ok(vec![row, self.next_revision()])
    }

    fn user_grant_role(&mut self, request: &pb::AuthUserGrantRoleRequest) -> Changed {
        let account = self.users.get(request.user.as_str()).ok_or(Rejection::UserNotFound)?;
        if request.role != ROOT && !self.roles.contains_key(request.role.as_str()) {
            return Err(Rejection::RoleNotFound.into());
        }
        let mut user = account.user().clone();
        let Err(place) = user.roles.binary_search(&request.role) else { return Ok(Vec::new()) };
        user.roles.insert(place, request.role.clone());
        let row = self.set_user(&request.user, user);
        Ok(vec![row, self.next_revision()])
    }

    fn user_revoke_role(&mut self, request: &pb::AuthUserRevokeRoleRequest) -> Changed {
        self.check_root(request.name == ROOT && request.role == ROOT)?;
        let account = self.users.get(request.name.as_str()).ok_or(Rejection::UserNotFound)?;
        if !account.has_role(&request.role) {
            return Err(Rejection::RoleNotGranted.into());
        }
        let user = without_role(account.user(), &request.role);
        let row = self.set_user(&request.name, user);
        Ok(vec![row, self.next_revision()])
    }

    fn role_add(&mut self, name: &str) -> Changed {
        if name.is_empty() {
            return Err(Rejection::RoleNameEmpty.into());
        }
        if self.roles.contains_key(name) {
            return Err(Rejection::RoleExists.into());
        }
        check_length(name)?;
        let role = Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission: Vec::new() };
        let row = self.set_role(name, role);
        Ok(vec![row, self.next_revision()])
    }

    fn role_delete(&mut self, name: &str) -> Changed {
        self.check_root(name == ROOT)?;
        if self.roles.remove(name).is_none() {
            return Err(Rejection::RoleNotFound.into());
        }
        let mut rows = vec![no_row(Table::AuthRole, name)];
        for account in self.users.values_mut().filter(|account| account.has_role(name)) {
            let user = without_role(account.user(), name);
            rows.push(user_row(&user));
            *account = Arc::new(Account::new(user));
        }
        rows.push(self.next_revision());
        Ok(rows)
    }

    /// Of several permissions that begin with one key, etcd looks at the first only and adds another if its end differs.
    /// Its way of sorting does not keep those in order once there are more than twelve; ours does.
    fn role_grant_permission(&mut self, request: &pb::AuthRoleGrantPermissionRequest) -> Changed {
        let granted = request.perm.as_ref().ok_or(Rejection::PermissionNotGiven)?;
        if !permission::is_valid(&granted.key, &granted.range_end) {
            return Err(Rejection::InvalidAuthManagement.into());
        }
        let role = self.roles.get(request.name.as_str()).ok_or(Rejection::RoleNotFound)?;
        let mut role = Role::clone(role);
        let permissions = &mut role.key_permission;
        let place = permissions.partition_point(|held| held.key < granted.key);
        let is_same = |held: &&mut Permission| held.key == granted.key && held.range_end == granted.range_end;
        if let Some(held) = permissions.get_mut(place).filter(is_same) {
            held.perm_type = granted.perm_type;
        } else {
            permissions.push(granted.clone());
            permissions.sort_by(|left, right| left.key.cmp(&right.key));
        }
        let row = self.set_role(&request.name, role);
        Ok(vec![row, self.next_revision()])
    }

    fn role_revoke_permission(&mut self, request: &pb::AuthRoleRevokePermissionRequest) -> Changed {
        let role = self.roles.get(request.role.as_str()).ok_or(Rejection::RoleNotFound)?;
        let mut left = Role::clone(role);
        left.key_permission.retain(|held| held.key != request.key || held.range_end != request.range_end);
        if left.key_permission.len() == role.key_permission.len() {
            return Err(Rejection::PermissionNotGranted.into());
        }
        let row = self.set_role(&request.role, left);
        Ok(vec![row, self.next_revision()])
    }

    /// What keeps root in its place while requests are checked.
    fn check_root(&self, of_root: bool) -> Result<(), Rejection> {
        if self.enabled && of_root { Err(Rejection::InvalidAuthManagement) } else { Ok(()) }
    }

    fn set_user(&mut self, name: &str, user: User) -> Row {
        let row = user_row(&user);
        self.users.insert(name.into(), Arc::new(Account::new(user)));
        row
    }

    fn set_role(&mut self, name: &str, role: Role) -> Row {
        let row = role_row(&role);
        self.roles.insert(name.into(), Arc::new(role));
        for account in self.users.values_mut().filter(|account| account.has_role(name)) {
            *account = Arc::new(Account::new(account.user().clone()));
        }
        row
    }

    fn next_revision(&mut self) -> Row {
        self.revision += 1;
        revision_row(self.revision)
    }
}

/// etcd's database cannot hold a longer name, and etcd crashes at it.
fn check_length(name: &str) -> Result<(), Rejection> {
    if name.len() > KEY_BYTES_MAX { Err(Rejection::InvalidAuthManagement) } else { Ok(()) }
}

fn without_role(user: &User, role: &str) -> User {
    let mut user = user.clone();
    user.roles.retain(|held| held != role);
    user
}

/// The hash that came with a request; with neither a password nor a hash it is one that no password fits.
fn hash_in(password: &str, hashed: &str) -> Result<Bytes, Refused> {
    if !password.is_empty() && hashed.is_empty() {
        return Err(Refused::PlainPassword);
    }
    let text: String = hashed.chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect();
    let hash = BASE64.decode(text).map_err(|_| Rejection::NoPasswordUser)?;
    Ok(hash.into())
}
