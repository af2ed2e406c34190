//! What the tree keeps of users: `/2/users/NAME`, `/2/roles/NAME`, and whether requests are checked, `/2/enabled`.
//!
//! Names, places and texts of these nodes are etcd's, and so is the order of the writes: each takes an index of the
//! store, which clients of the keys see.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::StatusCode;
use bytes::Bytes;

use super::{
    Refusal,
    json::{Malformed, Object},
    roles::Role,
    users::User,
};
use crate::{
    api::{Api, passwords::Passwords},
    server::v2::V2Error,
    v2store::{Depth, ErrorCode, Method, Path, Request, Shown, USERS_PREFIX},
};

/// Directories, in the order in which they are made.
const DIRECTORIES: [&str; 3] = [USERS_PREFIX, "/2/users", "/2/roles"];
const ENABLED: &str = "/2/enabled";

/// How often the change of a record is tried: each time somebody else has changed it meanwhile.
const CHANGES_TRIED_MAX: usize = 32;

/// Whether this process has seen that the directories are there.
#[derive(Debug, Default)]
pub(super) struct Prepared(AtomicBool);

/// Of the last change of a record.
type Index = u64;

/// The records of users behind one member.
pub(super) struct Records<'a> {
    api: &'a Api,
}

impl<'a> Records<'a> {
    pub(super) fn of(api: &'a Api) -> Self {
        Self { api }
    }

    pub(super) fn passwords(&self) -> &Passwords {
        &self.api.passwords
    }

    /// Whether requests are checked, as this member has it. Where that cannot be read they are, and nobody is recognised:
    /// etcd lets everybody in then.
    pub(super) async fn enabled(&self) -> bool {
        match self.read(ENABLED, false).await {
            Ok((node, _)) => node.value.is_some_and(|value| value == "true"),
            Err(V2Error::Store(why)) if why.code == ErrorCode::KeyNotFound => false,
            Err(why) => {
                tracing::warn!(%why, "whether users of the v2 API are checked cannot be read; nobody is let in");
                true
            }
        }
    }

    pub(super) async fn set_enabled(&self, enabled: bool) -> Result<(), Refusal> {
        let value = if enabled { "true" } else { "false" };
        Ok(self.put(ENABLED, Bytes::from_static(value.as_bytes()), true).await?)
    }

    /// The user of this name; with `quorum` as it is after every acknowledged write.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(super) async fn user(&self, name: &str, quorum: bool) -> Result<User, Refusal> {
        Ok(self.user_at(name, quorum).await?.0)
    }

    async fn user_at(&self, name: &str, quorum: bool) -> Result<(User, Index), Refusal> {
        let missing = || Refusal::auth(StatusCode::NOT_FOUND, &format!("User {name} does not exist."));
        let (record, index) = self.record("users", name, quorum).await?.ok_or_else(missing)?;
        Ok((User::read(&record)?.with_root_role(), index))
    }

    /// As [`user`](Self::user).
    pub(super) async fn role(&self, name: &str, quorum: bool) -> Result<Role, Refusal> {
        if name == super::ROOT { Ok(Role::all(name)) } else { Ok(self.role_at(name, quorum).await?.0) }
    }

    async fn role_at(&self, name: &str, quorum: bool) -> Result<(Role, Index), Refusal> {
        let missing = || Refusal::auth(StatusCode::NOT_FOUND, &format!("Role {name} does not exist."));
        let (record, index) = self.record("roles", name, quorum).await?.ok_or_else(missing)?;
        Ok((Role::read(&record)?, index))
    }

    /// Names of users, sorted; hidden ones are hidden here, too.
    pub(super) async fn user_names(&self) -> Result<Vec<String>, Refusal> {
        self.names("/2/users").await
    }

    /// Names of roles, sorted; one of them is always there.
    pub(super) async fn role_names(&self) -> Result<Vec<String>, Refusal> {
        let mut names = self.names("/2/roles").await?;
        names.push(super::ROOT.to_owned());
        names.sort();
        Ok(names)
    }

    pub(super) async fn create_user(&self, user: &User) -> Result<(), Refusal> {
        let exists = || Refusal::auth(StatusCode::CONFLICT, &format!("User {} already exists.", user.name));
        self.create(&place("users", &user.name), user.write(), exists).await
    }

    pub(super) async fn create_role(&self, role: &Role) -> Result<(), Refusal> {
        let exists = || Refusal::auth(StatusCode::CONFLICT, &format!("Role {} already exists.", role.name));
        self.create(&place("roles", &role.name), role.write(), exists).await
    }

    /// Makes of a user what `change` says; asked again if somebody else has changed it meanwhile.
    pub(super) async fn change_user(
        &self,
        name: &str,
        change: impl Fn(&User) -> Result<User, Refusal>,
    ) -> Result<User, Refusal> {
        for _ in 0..CHANGES_TRIED_MAX {
            let (old, index) = self.user_at(name, true).await?;
            let user = change(&old)?;
            if self.replace(&place("users", name), user.write(), index).await? {
                return Ok(user);
            }
        }
        Err(contended("User", name))
    }

    /// As [`change_user`](Self::change_user).
    pub(super) async fn change_role(
        &self,
        name: &str,
        change: impl Fn(&Role) -> Result<Role, Refusal>,
    ) -> Result<Role, Refusal> {
        for _ in 0..CHANGES_TRIED_MAX {
            let (old, index) = self.role_at(name, true).await?;
            let role = change(&old)?;
            if self.replace(&place("roles", name), role.write(), index).await? {
                return Ok(role);
            }
        }
        Err(contended("Role", name))
    }

    pub(super) async fn delete_user(&self, name: &str) -> Result<(), Refusal> {
        let missing = || Refusal::auth(StatusCode::NOT_FOUND, &format!("User {name} does not exist"));
        self.delete(&place("users", name), missing).await
    }

    pub(super) async fn delete_role(&self, name: &str) -> Result<(), Refusal> {
        let missing = || Refusal::auth(StatusCode::NOT_FOUND, &format!("Role {name} doesn't exist."));
        self.delete(&place("roles", name), missing).await
    }

    async fn record(&self, kind: &str, name: &str, quorum: bool) -> Result<Option<(Object, Index)>, Refusal> {
        // A name with more parts is somewhere else in the tree, and an empty one is no node of a user.
        if name.is_empty() || name.contains('/') || matches!(name, "." | "..") {
            return Ok(None);
        }
        match self.read(&place(kind, name), quorum).await {
            Ok((node, _)) => {
                let value = node.value.unwrap_or_default();
                let record = Object::parse(&value).map_err(|Malformed| broken(kind, name))?;
                Ok(Some((record, node.modified)))
            }
            Err(V2Error::Store(why)) if why.code == ErrorCode::KeyNotFound => Ok(None),
            Err(why) => Err(why.into()),
        }
    }

    async fn names(&self, directory: &str) -> Result<Vec<String>, Refusal> {
        let listed = match self.read(directory, false).await {
            Ok((_, nodes)) => nodes,
            Err(V2Error::Store(why)) if why.code == ErrorCode::KeyNotFound => Vec::new(),
            Err(why) => return Err(why.into()),
        };
        let name = |path: &Path| {
            let path = String::from_utf8_lossy(path.as_bytes()).into_owned();
            path.rsplit_once('/').map_or(path.clone(), |(_, name)| name.to_owned())
        };
        let mut names: Vec<String> = listed.iter().map(|node| name(&node.key)).collect();
        names.sort();
        Ok(names)
    }

    async fn create(&self, place: &str, value: Vec<u8>, exists: impl Fn() -> Refusal) -> Result<(), Refusal> {
        match self.put(place, value.into(), false).await {
            Err(V2Error::Store(why)) if why.code == ErrorCode::NodeExist => Err(exists()),
            outcome => Ok(outcome?),
        }
    }

    /// Writes a record in the place of the one of this index. `false` if that one is there no more.
    async fn replace(&self, place: &str, value: Vec<u8>, index: Index) -> Result<bool, Refusal> {
        self.prepare().await?;
        let request = Request { value: value.into(), prev_index: index, ..self.request(Method::Put, place) };
        match self.api.server().v2_write(request).await {
            Err(V2Error::Store(why)) if matches!(why.code, ErrorCode::TestFailed | ErrorCode::KeyNotFound) => Ok(false),
            outcome => Ok(outcome.map(|_| true)?),
        }
    }

    async fn delete(&self, place: &str, missing: impl Fn() -> Refusal) -> Result<(), Refusal> {
        self.prepare().await?;
        let request = Request { prev_exist: Some(true), ..self.request(Method::Delete, place) };
        match self.api.server().v2_write(request).await {
            Err(V2Error::Store(why)) if why.code == ErrorCode::KeyNotFound => Err(missing()),
            outcome => Ok(outcome.map(drop)?),
        }
    }

    /// A node and, of a directory, its children.
    async fn read(&self, place: &str, quorum: bool) -> Result<(Shown, Vec<Shown>), V2Error> {
        let path = Path::clean(place.as_bytes());
        self.api.server().v2_look(path, Depth::Children, quorum).await?.whole().await
    }

    async fn put(&self, place: &str, value: Bytes, exists: bool) -> Result<(), V2Error> {
        self.prepare().await?;
        let request = Request { value, prev_exist: Some(exists), ..self.request(Method::Put, place) };
        self.api.server().v2_write(request).await.map(drop)
    }

    /// Makes what is kept here findable, once for each process.
    async fn prepare(&self) -> Result<(), V2Error> {
        let Prepared(done) = &self.api.auth.records;
        if done.load(Ordering::Acquire) {
            return Ok(());
        }
        let new = |place| Request { prev_exist: Some(false), ..self.request(Method::Put, place) };
        let directories = DIRECTORIES.map(|place| Request { dir: true, ..new(place) });
        let switch = Request { value: Bytes::from_static(b"false"), ..new(ENABLED) };
        for request in directories.into_iter().chain([switch]) {
            match self.api.server().v2_write(request).await {
                Err(V2Error::Store(why)) if why.code == ErrorCode::NodeExist => {}
                outcome => drop(outcome?),
            }
        }
        done.store(true, Ordering::Release);
        Ok(())
    }

    fn request(&self, method: Method, place: &str) -> Request {
        Request::new(method, &Path::clean(place.as_bytes()), self.api.server().v2_now())
    }
}

fn place(kind: &str, name: &str) -> String {
    format!("/2/{kind}/{name}")
}

fn contended(kind: &str, name: &str) -> Refusal {
    let text = format!("{kind} {name} is being changed by others all the time; try again");
    Refusal::auth(StatusCode::SERVICE_UNAVAILABLE, &text)
}

fn broken(kind: &str, name: &str) -> Refusal {
    tracing::warn!(kind, name, "a record of the v2 API's users is no JSON; write it anew as root");
    Refusal::Told(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error".to_owned())
}
