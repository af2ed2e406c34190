//! `/v2/auth/users`.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    extract::Request,
    http::{Method, StatusCode},
    response::Response,
};

use super::{
    ROOT, Refusal, admitted, done, finish,
    json::{self, Malformed, Object},
    records::Records,
    roles::Role,
};
use crate::api::Api;

/// A user, as kept and as described by clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub name: String,
    /// Of a description the password, of a record its hash.
    pub password: String,
    /// Names of roles; nothing if none were ever given, which is shown.
    pub roles: Option<Vec<String>>,
    /// Roles that a description adds.
    grant: Vec<String>,
    /// Roles that a description takes away.
    revoke: Vec<String>,
}

impl User {
    /// Reads a description or a record.
    ///
    /// # Errors
    /// A field that is something else.
    pub(super) fn read(object: &Object) -> Result<Self, Malformed> {
        Ok(Self {
            name: object.text("user")?,
            password: object.text("password")?,
            roles: object.texts("roles")?,
            grant: object.texts("grant")?.unwrap_or_default(),
            revoke: object.texts("revoke")?.unwrap_or_default(),
        })
    }

    /// As it is kept, and shown without the password.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = b"{\"user\":".to_vec();
        json::write_text(&self.name, &mut out);
        if !self.password.is_empty() {
            out.extend_from_slice(b",\"password\":");
            json::write_text(&self.password, &mut out);
        }
        out.extend_from_slice(b",\"roles\":");
        json::write_texts(self.roles.as_deref(), &mut out);
        for (name, roles) in [("grant", &self.grant), ("revoke", &self.revoke)] {
            if !roles.is_empty() {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                json::write_texts(Some(roles), &mut out);
            }
        }
        out.push(b'}');
        out
    }

    pub(super) fn roles(&self) -> &[String] {
        self.roles.as_deref().unwrap_or_default()
    }

    pub(super) fn is_root(&self) -> bool {
        self.roles().iter().any(|role| role == ROOT)
    }

    /// The user `root` always has the role of that name.
    #[must_use]
    pub(super) fn with_root_role(mut self) -> Self {
        if self.name == ROOT && !self.is_root() {
            self.roles.get_or_insert_default().push(ROOT.to_owned());
        }
        self
    }

    /// This user after what `changes` asks for; a password in it is a hash by now.
    fn changed_by(&self, changes: &Self) -> Result<Self, Refusal> {
        let mut roles: BTreeSet<&String> = self.roles().iter().collect();
        let conflict = |what: &str, role: &str| {
            let text = format!("{what} role {role} for user {}", changes.name);
            Refusal::auth(StatusCode::CONFLICT, &text)
        };
        for role in &changes.grant {
            if !roles.insert(role) {
                return Err(conflict("Granting duplicate", role));
            }
        }
        for role in &changes.revoke {
            if !roles.remove(role) {
                return Err(conflict("Revoking ungranted", role));
            }
        }
        let password = if changes.password.is_empty() { &self.password } else { &changes.password };
        let (name, password, roles) = (self.name.clone(), password.clone(), roles.into_iter().cloned().collect());
        Ok(Self { name, password, roles: Some(roles), grant: Vec::new(), revoke: Vec::new() })
    }
}

/// Answers a request about users.
pub(super) async fn serve(api: Arc<Api>, request: Request) -> Response {
    let (name, request) = match admitted(&api, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return *refusal,
    };
    let records = Records::of(&api);
    let outcome = match (name, request.method()) {
        (None, _) => list(&records).await,
        (Some(name), &Method::GET) => show(&records, &name).await,
        (Some(name), &Method::PUT) => put(&records, &name, request).await,
        (Some(name), _) => delete(&records, &name).await.map(|()| done()),
    };
    finish(&api, outcome)
}

async fn list(records: &Records<'_>) -> Result<Response, Refusal> {
    let mut users = Vec::new();
    for name in records.user_names().await? {
        let user = records.user(&name, false).await?;
        let mut roles = Vec::new();
        for role in user.roles() {
            roles.extend(records.role(role, false).await.ok());
        }
        users.push((user.name, roles));
    }
    let mut out = b"{\"users\":".to_vec();
    if users.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        json::write_list(&users, &mut out, |(name, roles), out| write_with_roles(name, roles, out));
    }
    out.push(b'}');
    Ok(json::line(StatusCode::OK, out))
}

async fn show(records: &Records<'_>, name: &str) -> Result<Response, Refusal> {
    let user = records.user(name, false).await?;
    let mut roles = Vec::new();
    for role in user.roles() {
        roles.push(records.role(role, false).await?);
    }
    let mut out = Vec::new();
    write_with_roles(&user.name, &roles, &mut out);
    Ok(json::line(StatusCode::OK, out))
}

/// A user with what its roles may do.
fn write_with_roles(name: &str, roles: &[Role], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"user\":");
    json::write_text(name, out);
    if !roles.is_empty() {
        out.extend_from_slice(b",\"roles\":");
        json::write_list(roles, out, |role, out| out.extend_from_slice(&role.write()));
    }
    out.push(b'}');
}

async fn put(records: &Records<'_>, name: &str, request: Request) -> Result<Response, Refusal> {
    let told = |text: &str| Refusal::Told(StatusCode::BAD_REQUEST, text.to_owned());
    let described = User::read(&Object::receive(request).await?)?;
    if described.name != name {
        return Err(told("User JSON name does not match the name in the URL"));
    }
    let (changes, has_roles) =
        (!described.grant.is_empty() || !described.revoke.is_empty(), !described.roles().is_empty());
    let (status, user) = match (changes, has_roles) {
        (true, true) => return Err(told("User JSON contains both roles and grant/revoke")),
        (true, false) => (StatusCode::OK, update(records, described).await?),
        (false, true) => (StatusCode::OK, create(records, described).await?),
        // Only a name and a password: nobody knows whether the user should be there.
        (false, false) if records.user(name, true).await.is_ok() => (StatusCode::OK, update(records, described).await?),
        (false, false) => (StatusCode::CREATED, create(records, described).await?),
    };
    Ok(json::line(status, User { password: String::new(), ..user }.write()))
}

async fn create(records: &Records<'_>, described: User) -> Result<User, Refusal> {
    let user = described.with_root_role();
    if user.password.is_empty() {
        let text = format!("Cannot create user {} with an empty password", user.name);
        return Err(Refusal::auth(StatusCode::BAD_REQUEST, &text));
    }
    let user = with_hash(records, user).await?;
    records.create_user(&user).await?;
    Ok(user)
}

async fn update(records: &Records<'_>, changes: User) -> Result<User, Refusal> {
    // Before the price of a hash.
    records.user(&changes.name, true).await?;
    let changes = with_hash(records, changes).await?;
    let change = |old: &User| {
        let user = old.changed_by(&changes)?;
        let text = "User not updated. Use grant/revoke/password to update the user.";
        if user == *old { Err(Refusal::auth(StatusCode::BAD_REQUEST, text)) } else { Ok(user) }
    };
    records.change_user(&changes.name, change).await
}

/// With the hash of the password in its place, if there is one.
async fn with_hash(records: &Records<'_>, user: User) -> Result<User, Refusal> {
    if user.password.is_empty() {
        return Ok(user);
    }
    let failed = || Refusal::Told(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error".to_owned());
    let password = records.passwords().hash(user.password.clone()).await.map_err(|_| failed())?;
    Ok(User { password, ..user })
}

async fn delete(records: &Records<'_>, name: &str) -> Result<(), Refusal> {
    if name == ROOT && records.enabled().await {
        return Err(Refusal::auth(StatusCode::FORBIDDEN, "Cannot delete root user while auth is enabled."));
    }
    records.delete_user(name).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(json: &str) -> User {
        User::read(&Object::parse(json.as_bytes()).unwrap()).unwrap()
    }

    fn changed(old: &str, changes: &str) -> Result<String, String> {
        let text = |refusal| match refusal {
            Refusal::Told(status, text) => format!("{status} {text}"),
            Refusal::Tree(why) => why.to_string(),
        };
        let written = user(old).changed_by(&user(changes)).map_err(text)?.write();
        Ok(String::from_utf8(written).unwrap())
    }

    #[test]
    fn roles_are_granted_and_revoked_in_order() {
        let old = r#"{"user":"u","password":"h","roles":["b","a"]}"#;
        assert_eq!(
            changed(old, r#"{"user":"u","grant":["c"],"revoke":["a"]}"#).unwrap(),
            r#"{"user":"u","password":"h","roles":["b","c"]}"#
        );
        assert_eq!(
            changed(old, r#"{"user":"u","grant":["a"]}"#).unwrap_err(),
            "409 Conflict auth: Granting duplicate role a for user u"
        );
        assert_eq!(
            changed(old, r#"{"user":"u","revoke":["c"]}"#).unwrap_err(),
            "409 Conflict auth: Revoking ungranted role c for user u"
        );
    }

    #[test]
    fn roles_that_were_never_given_become_none_by_a_change() {
        assert_eq!(user(r#"{"user":"u"}"#).write(), br#"{"user":"u","roles":null}"#);
        assert_eq!(changed(r#"{"user":"u"}"#, r#"{"user":"u"}"#).unwrap(), r#"{"user":"u","roles":[]}"#);
    }

    #[test]
    fn root_has_its_role_once() {
        assert_eq!(user(r#"{"user":"root"}"#).with_root_role().roles(), ["root"]);
        assert_eq!(user(r#"{"user":"root","roles":["root","a"]}"#).with_root_role().roles(), ["root", "a"]);
        assert!(!user(r#"{"user":"u"}"#).with_root_role().is_root());
    }
}
