//! A user, and what his roles together permit.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use super::{
    check::Access,
    permission::{Intervals, interval_of},
};
use crate::pb::authpb::{Role, User, permission::Type};

/// One user. What he may do is put together when it is first asked for.
#[derive(Debug)]
pub(super) struct Account {
    user: User,
    permitted: OnceLock<Permitted>,
}

/// The keys a user may read, and those he may write.
#[derive(Debug)]
struct Permitted {
    read: Intervals,
    write: Intervals,
}

impl Account {
    pub(super) fn new(user: User) -> Self {
        Self { user, permitted: OnceLock::new() }
    }

    pub(super) fn user(&self) -> &User {
        &self.user
    }

    pub(super) fn has_role(&self, role: &str) -> bool {
        self.user.roles.iter().any(|held| held == role)
    }

    /// Whether the user logs in with a certificate only.
    pub(super) fn has_no_password(&self) -> bool {
        self.user.options.as_ref().is_some_and(|options| options.no_password)
    }

    /// The keys the user may access in one way, by what `roles` permit now. Whoever changes a role makes the accounts
    /// that have it anew.
    pub(super) fn permitted(&self, roles: &BTreeMap<Arc<str>, Arc<Role>>, access: Access) -> &Intervals {
        let permitted = self.permitted.get_or_init(|| Permitted::of(&self.user, roles));
        match access {
            Access::Read => &permitted.read,
            Access::Write => &permitted.write,
        }
    }
}

impl Permitted {
    fn of(user: &User, roles: &BTreeMap<Arc<str>, Arc<Role>>) -> Self {
        // A role can be missing: that of root need not exist.
        let held = user.roles.iter().filter_map(|name| roles.get(name.as_str()));
        let permissions: Vec<_> = held.flat_map(|role| &role.key_permission).collect();
        let of_type = |wanted: Type| {
            let kinds = [Ok(wanted), Ok(Type::Readwrite)];
            let fitting = permissions.iter().filter(|permission| kinds.contains(&Type::try_from(permission.perm_type)));
            Intervals::of(fitting.map(|permission| interval_of(&permission.key, &permission.range_end)))
        };
        Self { read: of_type(Type::Read), write: of_type(Type::Write) }
    }
}
