//! Users, roles, and what they may do with keys.
//!
//! [`Auth`] is a value. [`Auth::change`] carries out one agreed request and lists the rows to be written, which are
//! etcd's, byte for byte; [`Auth::check_admin`] and its relatives say whether somebody may do something. What a user may do
//! with keys is the union of what his roles permit, merged once and looked up from then on.
//!
//! [`Tokens`] is the other half, which every member keeps for itself: what stands for a user who has logged in.
//!
//! Left to others: certificates, when a check is due (`apply`, `api`), and hashing, which is slow and takes chance, so that
//! hashes come with the requests.
//!
//! Invariants:
//! - a refused request changes nothing, and neither does one that asks for what is already so;
//! - every other change but switching on makes the auth revision greater by one;
//! - the roles of a user are sorted and named once each, permissions are sorted by their first key.

mod account;
mod change;
mod check;
mod json;
mod jwt;
mod permission;
mod remembered;
mod rows;
#[cfg(test)]
mod tests;
mod tokens;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;

pub use change::{Change, Refused};
pub use check::{Access, Identity};
pub use jwt::{Jwt, JwtError, Unread, Unsigned};
pub use rows::{AuthRowError, Row};
pub use tokens::{TOKEN_TTL_DEFAULT, TOKENS_MAX, Token, TokenKind, Tokens};

use crate::{
    etcdfile::database::AUTH_REVISION_FIRST,
    pb::authpb::{Permission, Role, permission::Type},
    types::Rejection,
};
use account::Account;

/// The user that must exist, and the role that may do everything.
pub const ROOT: &str = "root";

/// Users and roles of the cluster. A copy costs a pointer for each of them.
#[derive(Clone, Debug)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: BTreeMap<Arc<str>, Arc<Account>>,
    roles: BTreeMap<Arc<str>, Arc<Role>>,
}

/// How a user logs in.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// There is no such user.
    Unknown,
    /// He shows a certificate.
    WithoutPassword,
    /// With the password of this hash.
    Password(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::WithoutPassword => "WithoutPassword",
            Self::Password(_) => "Password",
        })
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self { enabled: false, revision: AUTH_REVISION_FIRST, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl Auth {
    /// Whether requests are checked.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Grows with every change of users, roles and permissions.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What somebody has to know who wants to be recognised as `user`.
    pub fn login(&self, user: &str) -> Login {
        match self.users.get(user) {
            None => Login::Unknown,
            Some(account) if account.has_no_password() => Login::WithoutPassword,
            // What is no text is no hash, and no password fits it.
            Some(account) => Login::Password(String::from_utf8_lossy(&account.user().password).into_owned()),
        }
    }

    /// Whether an agreed request may log `user` in, whose password was checked before it was proposed.
    ///
    /// # Errors
    /// [`Rejection::AuthNotEnabled`], [`Rejection::AuthFailed`].
    pub fn check_login(&self, user: &str) -> Result<(), Rejection> {
        match self.login(user) {
            _ if !self.enabled => Err(Rejection::AuthNotEnabled),
            Login::Password(_) => Ok(()),
            Login::Unknown | Login::WithoutPassword => Err(Rejection::AuthFailed),
        }
    }

    /// The names of all users, sorted.
    pub fn user_names(&self) -> Vec<String> {
        self.users.keys().map(ToString::to_string).collect()
    }

    /// The names of all roles, sorted.
    pub fn role_names(&self) -> Vec<String> {
        self.roles.keys().map(ToString::to_string).collect()
    }

    /// The roles of a user, sorted.
    pub fn roles_of(&self, user: &str) -> Option<&[String]> {
        self.users.get(user).map(|account| account.user().roles.as_slice())
    }

    /// What a role permits. That of root is told in one word, whatever has been granted to it.
    pub fn permissions_of(&self, role: &str) -> Option<Vec<Permission>> {
        let found = self.roles.get(role)?;
        let everything =
            || Permission { perm_type: Type::Readwrite.into(), key: Bytes::new(), range_end: Bytes::from_static(&[0]) };
        Some(if role == ROOT { vec![everything()] } else { found.key_permission.clone() })
    }

    /// Whether a user has a role.
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|account| account.has_role(role))
    }
}
