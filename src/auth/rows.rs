//! Users, roles and the switch as stored: the buckets `auth`, `authUsers` and `authRoles` of etcd, byte for byte.

use std::{str, sync::Arc};

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use super::{Auth, account::Account};
use crate::{
    etcdfile::database::{AUTH_ENABLED_KEY, AUTH_REVISION_FIRST, AUTH_REVISION_KEY},
    pb::authpb::{Role, User},
    storage::{Read, StorageError, Table},
};

/// A row to be written, or deleted where it has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub table: Table,
    /// Its key.
    pub key: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
}

/// Why stored users cannot be read.
#[derive(Debug, Error)]
pub enum AuthRowError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A row that nobody has written so.
    #[error("row {key} of table {table:?} is damaged")]
    Damaged {
        /// Where.
        table: Table,
        /// Its key.
        key: String,
    },
}

impl Auth {
    /// Reads users, roles and the switch.
    ///
    /// # Errors
    /// [`AuthRowError`].
    pub fn read(rows: &impl Read) -> Result<Self, AuthRowError> {
        let mut auth = Self { enabled: read_enabled(rows)?, revision: read_revision(rows)?, ..Self::default() };
        for row in rows.rows(Table::AuthUser) {
            let (key, value) = row?;
            let user = User::decode(value).ok().filter(|user| user.name == key);
            let (name, user) = named(&key).zip(user).ok_or_else(|| damaged(Table::AuthUser, &key))?;
            auth.users.insert(name, Arc::new(Account::new(user)));
        }
        for row in rows.rows(Table::AuthRole) {
            let (key, value) = row?;
            let role = Role::decode(value).ok().filter(|role| role.name == key);
            let (name, role) = named(&key).zip(role).ok_or_else(|| damaged(Table::AuthRole, &key))?;
            auth.roles.insert(name, Arc::new(role));
        }
        Ok(auth)
    }
}

fn read_enabled(rows: &impl Read) -> Result<bool, AuthRowError> {
    match rows.row(Table::Auth, AUTH_ENABLED_KEY.as_bytes())?.as_deref() {
        None | Some([0]) => Ok(false),
        Some([1]) => Ok(true),
        Some(_) => Err(damaged(Table::Auth, AUTH_ENABLED_KEY.as_bytes())),
    }
}

/// A state without the row is one whose users were never changed.
fn read_revision(rows: &impl Read) -> Result<u64, AuthRowError> {
    let Some(value) = rows.row(Table::Auth, AUTH_REVISION_KEY.as_bytes())? else { return Ok(AUTH_REVISION_FIRST) };
    let revision = value.as_ref().try_into().map(u64::from_be_bytes);
    let revision = revision.map_err(|_| damaged(Table::Auth, AUTH_REVISION_KEY.as_bytes()))?;
    Ok(revision.max(AUTH_REVISION_FIRST))
}

fn named(key: &[u8]) -> Option<Arc<str>> {
    str::from_utf8(key).ok().map(Arc::from)
}

fn damaged(table: Table, key: &[u8]) -> AuthRowError {
    AuthRowError::Damaged { table, key: key.escape_ascii().to_string() }
}

pub(super) fn enabled_row(enabled: bool) -> Row {
    let value = Bytes::from_static(if enabled { &[1] } else { &[0] });
    Row { table: Table::Auth, key: Bytes::from_static(AUTH_ENABLED_KEY.as_bytes()), value: Some(value) }
}

pub(super) fn revision_row(revision: u64) -> Row {
    let value = Bytes::copy_from_slice(&revision.to_be_bytes());
    Row { table: Table::Auth, key: Bytes::from_static(AUTH_REVISION_KEY.as_bytes()), value: Some(value) }
}

pub(super) fn user_row(user: &User) -> Row {
    Row { table: Table::AuthUser, key: user.name.clone(), value: Some(user.encode_to_vec().into()) }
}

pub(super) fn role_row(role: &Role) -> Row {
    Row { table: Table::AuthRole, key: role.name.clone(), value: Some(role.encode_to_vec().into()) }
}

pub(super) fn no_row(table: Table, name: &str) -> Row {
    Row { table, key: Bytes::copy_from_slice(name.as_bytes()), value: None }
}
