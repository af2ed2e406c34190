//! `/v2/auth/roles`.

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
};
use crate::api::Api;

/// A role, as kept and as described by clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Role {
    pub name: String,
    permissions: Permissions,
    /// What a description adds.
    grant: Option<Permissions>,
    /// What a description takes away.
    revoke: Option<Permissions>,
}

/// Patterns of keys: one key, or with a star behind it all that begin so. Nothing if none were ever given, which is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Permissions {
    read: Option<Vec<String>>,
    write: Option<Vec<String>>,
}

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
}

impl Permissions {
    fn read(object: Option<&Object>) -> Result<Self, Malformed> {
        let Some(kv) = object.map(|object| object.object("kv")).transpose()?.flatten() else {
            return Ok(Self::default());
        };
        Ok(Self { read: kv.texts("read")?, write: kv.texts("write")? })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"kv\":{\"read\":");
        json::write_texts(self.read.as_deref(), out);
        out.extend_from_slice(b",\"write\":");
        json::write_texts(self.write.as_deref(), out);
        out.extend_from_slice(b"}}");
    }

    fn is_empty(&self) -> bool {
        self.patterns(Use::Read).is_empty() && self.patterns(Use::Write).is_empty()
    }

    fn patterns(&self, what: Use) -> &[String] {
        let patterns = if what == Use::Read { &self.read } else { &self.write };
        patterns.as_deref().unwrap_or_default()
    }

    fn granted(&self, more: &Self) -> Result<Self, Refusal> {
        Ok(Self {
            read: Some(united(self.patterns(Use::Read), more.patterns(Use::Read), "read")?),
            write: Some(united(self.patterns(Use::Write), more.patterns(Use::Write), "write")?),
        })
    }

    /// Taking away what is not there changes nothing.
    fn revoked(&self, less: &Self) -> Self {
        let remaining = |what| {
            let kept: BTreeSet<&String> = self.patterns(what).iter().collect();
            let kept = kept.into_iter().filter(|pattern| !less.patterns(what).contains(pattern));
            Some(kept.cloned().collect())
        };
        Self { read: remaining(Use::Read), write: remaining(Use::Write) }
    }
}

fn united(patterns: &[String], more: &[String], what: &str) -> Result<Vec<String>, Refusal> {
    let mut all: BTreeSet<&String> = patterns.iter().collect();
    for pattern in more {
        if !all.insert(pattern) {
            let text = format!("Granting duplicate {what} permission {pattern}");
            return Err(Refusal::auth(StatusCode::CONFLICT, &text));
        }
    }
    Ok(all.into_iter().cloned().collect())
}

impl Role {
    /// A role that may do everything with every key.
    pub(super) fn all(name: &str) -> Self {
        let every = || Some(vec!["/*".to_owned()]);
        let permissions = Permissions { read: every(), write: every() };
        Self { name: name.to_owned(), permissions, ..Self::default() }
    }

    /// Reads a description or a record.
    ///
    /// # Errors
    /// A field that is something else.
    pub(super) fn read(object: &Object) -> Result<Self, Malformed> {
        let optional = |name| {
            let inner = object.object(name)?;
            inner.map(|inner| Permissions::read(Some(&inner))).transpose()
        };
        Ok(Self {
            name: object.text("role")?,
            permissions: Permissions::read(object.object("permissions")?.as_ref())?,
            grant: optional("grant")?,
            revoke: optional("revoke")?,
        })
    }

    /// As it is kept and shown.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = b"{\"role\":".to_vec();
        json::write_text(&self.name, &mut out);
        out.extend_from_slice(b",\"permissions\":");
        self.permissions.write(&mut out);
        for (name, permissions) in [("grant", &self.grant), ("revoke", &self.revoke)] {
            if let Some(permissions) = permissions {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                permissions.write(&mut out);
            }
        }
        out.push(b'}');
        out
    }

    /// Whether `key` may be used. For everything below it as well, a pattern with a star is asked for.
    pub(super) fn may(&self, what: Use, key: &[u8], recursive: bool) -> bool {
        self.name == ROOT
            || self.permissions.patterns(what).iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => key.starts_with(prefix.as_bytes()),
                None => !recursive && pattern.as_bytes() == key,
            })
    }

    fn changed_by(&self, changes: &Self) -> Result<Self, Refusal> {
        let mut permissions = self.permissions.clone();
        if let Some(more) = &changes.grant {
            permissions = permissions.granted(more)?;
        }
        if let Some(less) = &changes.revoke {
            permissions = permissions.revoked(less);
        }
        Ok(Self { name: self.name.clone(), permissions, grant: None, revoke: None })
    }
}

/// Answers a request about roles.
pub(super) async fn serve(api: Arc<Api>, request: Request) -> Response {
    let (name, request) = match admitted(&api, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return *refusal,
    };
    let records = Records::of(&api);
    let outcome = match (name, request.method()) {
        (None, _) => list(&records).await,
        (Some(name), &Method::GET) => {
            records.role(&name, false).await.map(|role| json::line(StatusCode::OK, role.write()))
        }
        (Some(name), &Method::PUT) => put(&records, &name, request).await,
        (Some(name), _) => delete(&records, &name).await.map(|()| done()),
    };
    finish(&api, outcome)
}

async fn list(records: &Records<'_>) -> Result<Response, Refusal> {
    let mut roles = Vec::new();
    for name in records.role_names().await? {
        roles.push(records.role(&name, false).await?);
    }
    let mut out = b"{\"roles\":".to_vec();
    json::write_list(&roles, &mut out, |role, out| out.extend_from_slice(&role.write()));
    out.push(b'}');
    Ok(json::line(StatusCode::OK, out))
}

async fn put(records: &Records<'_>, name: &str, request: Request) -> Result<Response, Refusal> {
    let told = |text: &str| Refusal::Told(StatusCode::BAD_REQUEST, text.to_owned());
    let described = Role::read(&Object::receive(request).await?)?;
    if described.name != name {
        return Err(told("Role JSON name does not match the name in the URL"));
    }
    let asks = |changes: &Option<Permissions>| changes.as_ref().is_some_and(|changes| !changes.is_empty());
    if !asks(&described.grant) && !asks(&described.revoke) {
        if name == ROOT {
            return Err(of_root(name));
        }
        records.create_role(&described).await?;
        return Ok(json::line(StatusCode::CREATED, described.write()));
    }
    if !described.permissions.is_empty() {
        return Err(told("Role JSON contains both permissions and grant/revoke"));
    }
    let role = update(records, &described).await?;
    Ok(json::line(StatusCode::OK, role.write()))
}

async fn update(records: &Records<'_>, changes: &Role) -> Result<Role, Refusal> {
    if changes.name == ROOT {
        return Err(of_root(&changes.name));
    }
    let change = |old: &Role| {
        let role = old.changed_by(changes)?;
        let text = "Role not updated. Use grant/revoke to update the role.";
        if role == *old { Err(Refusal::auth(StatusCode::BAD_REQUEST, text)) } else { Ok(role) }
    };
    records.change_role(&changes.name, change).await
}

async fn delete(records: &Records<'_>, name: &str) -> Result<(), Refusal> {
    if name == ROOT {
        return Err(of_root(name));
    }
    records.delete_role(name).await
}

fn of_root(name: &str) -> Refusal {
    Refusal::auth(StatusCode::FORBIDDEN, &format!("Cannot modify role {name}: is root role."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(json: &str) -> Role {
        Role::read(&Object::parse(json.as_bytes()).unwrap()).unwrap()
    }

    fn changed(old: &str, changes: &str) -> Result<String, String> {
        let text = |refusal| match refusal {
            Refusal::Told(status, text) => format!("{status} {text}"),
            Refusal::Tree(why) => why.to_string(),
        };
        role(old).changed_by(&role(changes)).map(|role| String::from_utf8(role.write()).unwrap()).map_err(text)
    }

    #[test]
    fn permissions_are_granted_once_and_revoked_at_will() {
        let old = r#"{"role":"r","permissions":{"kv":{"read":["/b","/a"]}}}"#;
        assert_eq!(
            changed(old, r#"{"role":"r","grant":{"kv":{"write":["/*"]}},"revoke":{"kv":{"read":["/a","/x"]}}}"#)
                .unwrap(),
            r#"{"role":"r","permissions":{"kv":{"read":["/b"],"write":["/*"]}}}"#
        );
        assert_eq!(
            changed(old, r#"{"role":"r","grant":{"kv":{"read":["/a"]}}}"#).unwrap_err(),
            "409 Conflict auth: Granting duplicate read permission /a"
        );
    }

    #[test]
    fn patterns_match_keys_and_prefixes() {
        let role = role(r#"{"role":"r","permissions":{"kv":{"read":["/a","/b*",""],"write":["/w/*"]}}}"#);
        assert!(role.may(Use::Read, b"/a", false) && !role.may(Use::Read, b"/a", true));
        assert!(role.may(Use::Read, b"/bc", false) && role.may(Use::Read, b"/b/c", true));
        assert!(!role.may(Use::Write, b"/a", false) && !role.may(Use::Read, b"/w/x", false));
        assert!(role.may(Use::Write, b"/w/x", true) && !role.may(Use::Write, b"/w", false));
        assert!(Role { name: ROOT.to_owned(), ..Role::default() }.may(Use::Write, b"/x", true));
    }

    #[test]
    fn roles_are_written_as_they_were_given() {
        let text =
            r#"{"role":"r","permissions":{"kv":{"read":null,"write":[]}},"revoke":{"kv":{"read":null,"write":null}}}"#;
        assert_eq!(String::from_utf8(role(text).write()).unwrap(), text);
        assert_eq!(role(r#"{"role":"r","grant":null}"#).grant, None);
    }
}
