//! Who may do what, in etcd's order of refusals.

use bytes::Bytes;

use super::{Auth, ROOT, permission::interval_of};
use crate::types::Rejection;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user; empty for somebody without a name.
    pub user: String,
    /// The auth revision at which he was recognised; zero for somebody without a name.
    pub revision: u64,
}

/// What is done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Seeing them.
    Read,
    /// Changing and deleting them.
    Write,
}

impl Auth {
    /// Whether `who` may change users, and everything else that only root may.
    ///
    /// # Errors
    /// [`Rejection::UserNameEmpty`], [`Rejection::UserNotFound`], [`Rejection::PermissionDenied`].
    pub fn check_admin(&self, who: &Identity) -> Result<(), Rejection> {
        if !self.enabled {
            return Ok(());
        }
        if who.user.is_empty() {
            return Err(Rejection::UserNameEmpty);
        }
        let account = self.users.get(who.user.as_str()).ok_or(Rejection::UserNotFound)?;
        if account.has_role(ROOT) { Ok(()) } else { Err(Rejection::PermissionDenied) }
    }

    /// Whether `who` may see the roles of `user`: everybody may see his own.
    ///
    /// # Errors
    /// As [`Self::check_admin`].
    pub fn check_user_get(&self, who: &Identity, user: &str) -> Result<(), Rejection> {
        self.check_admin(who).or_else(|refusal| if who.user == user { Ok(()) } else { Err(refusal) })
    }

    /// Whether `who` may see what `role` permits: everybody may who has it.
    ///
    /// # Errors
    /// As [`Self::check_admin`].
    pub fn check_role_get(&self, who: &Identity, role: &str) -> Result<(), Rejection> {
        self.check_admin(who).or_else(|refusal| if self.has_role(&who.user, role) { Ok(()) } else { Err(refusal) })
    }

    /// Whether `who` may access all keys from `key` up to `range_end`, spelled as in requests.
    ///
    /// # Errors
    /// [`Rejection::UserNameEmpty`], [`Rejection::AuthOldRevision`], [`Rejection::PermissionDenied`].
    pub fn check_keys(&self, who: &Identity, access: Access, key: &Bytes, range_end: &Bytes) -> Result<(), Rejection> {
        if !self.enabled {
            return Ok(());
        }
        if who.revision == 0 {
            return Err(Rejection::UserNameEmpty);
        }
        if who.revision < self.revision {
            return Err(Rejection::AuthOldRevision);
        }
        let account = self.users.get(who.user.as_str()).ok_or(Rejection::PermissionDenied)?;
        let asked = interval_of(key, range_end);
        if account.has_role(ROOT) || account.permitted(&self.roles, access).cover(&asked) {
            return Ok(());
        }
        Err(Rejection::PermissionDenied)
    }
}
