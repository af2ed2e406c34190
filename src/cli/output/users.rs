//! Users, roles and whether anybody is asked who he is.

use prost::Message;

use super::{Page, Shown};
use crate::{
    cli::go_text,
    pb::{
        authpb::{Permission, permission::Type},
        etcdserverpb::{
            AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse, AuthUserGetResponse, AuthUserListResponse,
            ResponseHeader,
        },
    },
};

/// Something about users or roles was changed. The answer is nothing but a header.
pub(in crate::cli) struct Changed {
    /// What was done, in words.
    pub(in crate::cli) said: Vec<u8>,
    pub(in crate::cli) header: Option<ResponseHeader>,
    /// The answer as it came.
    pub(in crate::cli) encoded: Vec<u8>,
}

impl Shown for Changed {
    fn simple(&self, page: &mut Page) {
        page.byte_line(&self.said);
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.header.as_ref());
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| object.header(self.header.as_ref()));
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encoded.clone())
    }
}

/// Whether requests are checked.
impl Shown for AuthStatusResponse {
    fn simple(&self, page: &mut Page) {
        page.line(format_args!("Authentication Status: {}", self.enabled));
        page.line(format_args!("AuthRevision: {}", self.auth_revision));
    }

    fn has_fields(&self) -> bool {
        false
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.header.as_ref());
            object.plain_if_set("enabled", self.enabled);
            object.plain_if_set("authRevision", self.auth_revision);
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

/// The names of all users.
impl Shown for AuthUserListResponse {
    fn simple(&self, page: &mut Page) {
        self.users.iter().for_each(|name| page.line(name));
    }

    fn has_fields(&self) -> bool {
        false
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.header.as_ref());
            object.texts_if_set("users", &self.users);
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

/// The names of all roles.
impl Shown for AuthRoleListResponse {
    fn simple(&self, page: &mut Page) {
        self.roles.iter().for_each(|name| page.line(name));
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.header.as_ref());
        let names = self.roles.iter().map(|name| format!(" {}", go_text::quote(name.as_bytes())));
        page.line(format_args!("\"Roles\" :{}", names.collect::<String>()));
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.header.as_ref());
            object.texts_if_set("roles", &self.roles);
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.encode_to_vec())
    }
}

/// One user.
pub(in crate::cli) struct OneUser {
    pub(in crate::cli) name: String,
    pub(in crate::cli) response: AuthUserGetResponse,
}

impl Shown for OneUser {
    fn simple(&self, page: &mut Page) {
        page.line(format_args!("User: {}", self.name));
        let roles = self.response.roles.iter().map(|role| format!(" {role}"));
        page.line(format_args!("Roles:{}", roles.collect::<String>()));
    }

    fn has_fields(&self) -> bool {
        false
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.response.header.as_ref());
            object.texts_if_set("roles", &self.response.roles);
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.response.encode_to_vec())
    }
}

/// One role.
pub(in crate::cli) struct OneRole {
    pub(in crate::cli) name: String,
    pub(in crate::cli) response: AuthRoleGetResponse,
}

impl Shown for OneRole {
    fn simple(&self, page: &mut Page) {
        page.line(format_args!("Role {}", self.name));
        for (heading, kind) in [("KV Read:", Type::Read), ("KV Write:", Type::Write)] {
            page.line(heading);
            let is_of_kind =
                |held: &&Permission| held.perm_type == i32::from(kind) || held.perm_type() == Type::Readwrite;
            self.response.perm.iter().filter(is_of_kind).for_each(|held| page.byte_line(&described(held)));
        }
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.response.header.as_ref());
        for held in &self.response.perm {
            page.line(format_args!("\"PermType\" :  {}", held.perm_type().as_str_name()));
            page.quoted_field("Key", &held.key);
            page.quoted_field("RangeEnd", &held.range_end);
        }
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.response.header.as_ref());
            object.array_if_set("perm", &self.response.perm, |page, held| {
                page.object(|object| {
                    object.plain_if_set("permType", held.perm_type);
                    object.bytes_if_set("key", &held.key);
                    object.bytes_if_set("range_end", &held.range_end);
                });
            });
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.response.encode_to_vec())
    }
}

/// The keys of a permission, as a line.
fn described(Permission { key, range_end, .. }: &Permission) -> Vec<u8> {
    let end: &[u8] = match &**range_end {
        [] => return [b"\t", key.as_ref()].concat(),
        [0] => b"<open ended>",
        end => &[end, b")"].concat(),
    };
    let prefix = !key.is_empty() && is_prefix_end(key, range_end);
    let note = if prefix { [b" (prefix ", key.as_ref(), b")"].concat() } else { Vec::new() };
    [b"\t[", key.as_ref(), b", ", end, &note].concat()
}

/// Whether `end` is the first key behind all that begin with `prefix`.
fn is_prefix_end(prefix: &[u8], end: &[u8]) -> bool {
    let kept = prefix.iter().rposition(|byte| *byte < u8::MAX);
    let grown = kept.and_then(|place| prefix.get(..=place)).map(|kept| {
        let mut grown = kept.to_vec();
        grown.last_mut().into_iter().for_each(|last| *last += 1);
        grown
    });
    grown.as_deref().unwrap_or(&[0]) == end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Format, tests::printed};

    fn permission(kind: Type, key: &'static str, range_end: &'static str) -> Permission {
        Permission { perm_type: kind.into(), key: key.into(), range_end: range_end.into() }
    }

    #[test]
    fn roles_are_told_by_what_they_permit() {
        let perm = vec![
            permission(Type::Read, "a", ""),
            permission(Type::Readwrite, "b", "c"),
            permission(Type::Write, "d", "\0"),
            permission(Type::Read, "e", "x"),
        ];
        let role = OneRole { name: "r".to_owned(), response: AuthRoleGetResponse { header: None, perm } };
        let text = "Role r\nKV Read:\n\ta\n\t[b, c) (prefix b)\n\t[e, x)\nKV Write:\n\t[b, c) (prefix b)\n\t[d, <open ended>\n";
        assert_eq!(printed(Format::Simple, false, &role), text);
        let json = printed(Format::Json, false, &role);
        assert!(
            json.starts_with(r#"{"perm":[{"key":"YQ=="},{"permType":2,"key":"Yg==","range_end":"Yw=="}"#),
            "{json}"
        );
        let fields = printed(Format::Fields, false, &role);
        assert!(fields.ends_with("\"PermType\" :  READ\n\"Key\" : \"e\"\n\"RangeEnd\" : \"x\"\n"), "{fields}");
    }

    #[test]
    fn users_are_told_by_their_roles() {
        let roles = vec!["a".to_owned(), "b".to_owned()];
        let response = AuthUserGetResponse { header: None, roles };
        let user = OneUser { name: "u".to_owned(), response };
        assert_eq!(printed(Format::Simple, false, &user), "User: u\nRoles: a b\n");
        assert_eq!(printed(Format::Json, false, &user), "{\"roles\":[\"a\",\"b\"]}\n");
        let status = AuthStatusResponse { header: None, enabled: true, auth_revision: 7 };
        assert_eq!(printed(Format::Simple, false, &status), "Authentication Status: true\nAuthRevision: 7\n");
        assert_eq!(printed(Format::Json, false, &status), "{\"enabled\":true,\"authRevision\":7}\n");
    }
}
