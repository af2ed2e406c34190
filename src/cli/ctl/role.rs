//! `role`: what users may do.

use bytes::Bytes;
use prost::Message as _;

use super::{
    super::{
        failure::Failure,
        output::{Changed, OneRole},
        parse::Call,
        table::{Command, Flag, Group, Running},
    },
    keys::prefix_end,
    session::Session,
};
use crate::pb::{
    authpb::{Permission, permission::Type},
    etcdserverpb::{
        AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
        AuthRoleListRequest, AuthRoleRevokePermissionRequest,
    },
};

const PREFIX: Flag = Flag::switch("prefix", "all keys that begin with the key");
const FROM_KEY: Flag = Flag::switch("from-key", "all keys from the key on");
/// One zero byte: the first key, and as an end, no end.
const OPEN: &[u8] = b"\0";
const EXCLUSIVE: &str = "--from-key and --prefix flags are mutually exclusive";

pub(super) const ROLE: Command = Command {
    name: "role",
    arguments: "<subcommand>",
    about: "Roles and what they permit",
    group: Group::Authentication,
    commands: &[
        Command { name: "add", arguments: "<role name>", about: "Makes a role", run: Some(add), ..Command::EMPTY },
        Command {
            name: "delete",
            arguments: "<role name>",
            about: "Removes a role, from all users, too",
            run: Some(delete),
            ..Command::EMPTY
        },
        Command {
            name: "get",
            arguments: "<role name>",
            about: "Shows what a role permits",
            run: Some(get),
            ..Command::EMPTY
        },
        Command { name: "list", about: "Lists all roles", run: Some(list), ..Command::EMPTY },
        Command {
            name: "grant-permission",
            arguments: "[options] <role name> <permission type> <key> [endkey]",
            about: "Lets a role read, write or readwrite keys",
            flags: &[PREFIX, FROM_KEY],
            run: Some(grant_permission),
            ..Command::EMPTY
        },
        Command {
            name: "revoke-permission",
            arguments: "<role name> <key> [endkey]",
            about: "Takes keys from a role",
            flags: &[PREFIX, FROM_KEY],
            run: Some(revoke_permission),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn add(mut call: Call) -> Running {
    Box::pin(async move {
        let name = one_name(&call, "add")?;
        let session = Session::open(&mut call).await?;
        let said = format!("Role {name} created");
        let response = session.call(AuthRoleAddRequest { name }).await?;
        session.print(&Changed { said: said.into(), header: response.header, encoded: response.encode_to_vec() })
    })
}

fn delete(mut call: Call) -> Running {
    Box::pin(async move {
        let role = one_name(&call, "delete")?;
        let session = Session::open(&mut call).await?;
        let said = format!("Role {role} deleted");
        let response = session.call(AuthRoleDeleteRequest { role }).await?;
        session.print(&Changed { said: said.into(), header: response.header, encoded: response.encode_to_vec() })
    })
}

fn get(mut call: Call) -> Running {
    Box::pin(async move {
        let name = one_name(&call, "get")?;
        let session = Session::open(&mut call).await?;
        let response = session.call(AuthRoleGetRequest { role: name.clone() }).await?;
        session.print(&OneRole { name, response })
    })
}

fn list(mut call: Call) -> Running {
    Box::pin(async move {
        if !call.arguments.is_empty() {
            return Err(Failure::bad_arguments("role list command requires no arguments"));
        }
        let session = Session::open(&mut call).await?;
        session.print(&session.call(AuthRoleListRequest {}).await?)
    })
}

fn grant_permission(mut call: Call) -> Running {
    Box::pin(async move {
        let arguments = call.argument_bytes();
        let [name, kind, keys @ ..] = arguments.as_slice() else { return Err(grant_complaint()) };
        if keys.is_empty() {
            return Err(grant_complaint());
        }
        let (name, kind) = (text(name), kind_of(&text(kind))?);
        let (key, range_end) = keys_of(keys, call.flags.switch(&PREFIX), call.flags.switch(&FROM_KEY))?;
        let session = Session::open(&mut call).await?;
        let said = format!("Role {name} updated");
        let perm = Some(Permission { perm_type: kind.into(), key, range_end });
        let response = session.call(AuthRoleGrantPermissionRequest { name, perm }).await?;
        session.print(&Changed { said: said.into(), header: response.header, encoded: response.encode_to_vec() })
    })
}

fn grant_complaint() -> Failure {
    Failure::bad_arguments("role grant command requires role name, permission type, and key [endkey] as its argument")
}

fn kind_of(word: &str) -> Result<Type, Failure> {
    let known = [("READ", Type::Read), ("WRITE", Type::Write), ("READWRITE", Type::Readwrite)];
    let found = known.into_iter().find(|(name, _)| *name == word.to_uppercase());
    found.map(|(_, kind)| kind).ok_or_else(|| Failure::bad_arguments(format_args!("invalid permission type: {word}")))
}

fn revoke_permission(mut call: Call) -> Running {
    Box::pin(async move {
        let arguments = call.argument_bytes();
        let [role, keys @ ..] = arguments.as_slice() else { return Err(revoke_complaint()) };
        let [typed, ..] = keys else { return Err(revoke_complaint()) };
        let role = text(role);
        let (key, range_end) = keys_of(keys, call.flags.switch(&PREFIX), call.flags.switch(&FROM_KEY))?;
        let session = Session::open(&mut call).await?;
        let said = revoked(typed, &range_end, &role);
        let response = session.call(AuthRoleRevokePermissionRequest { role, key, range_end }).await?;
        session.print(&Changed { said, header: response.header, encoded: response.encode_to_vec() })
    })
}

fn revoke_complaint() -> Failure {
    Failure::bad_arguments("role revoke-permission command requires role name and key [endkey] as its argument")
}

/// What was taken, in words; the key is told as it was typed.
fn revoked(key: &[u8], end: &[u8], role: &str) -> Vec<u8> {
    let (before, behind) = match end {
        [] => (&b"Permission of key "[..], Vec::new()),
        OPEN => (&b"Permission of range ["[..], b", <open ended>".to_vec()),
        end => (&b"Permission of range ["[..], [b", ", end, b")"].concat()),
    };
    [before, key, &behind, b" is revoked from role ", role.as_bytes()].concat()
}

/// The keys of a permission. No key at all means the first one there can be, with a flag all of them.
fn keys_of(arguments: &[Vec<u8>], prefix: bool, from_key: bool) -> Result<(Bytes, Bytes), Failure> {
    let key = arguments.first().map(Vec::as_slice).unwrap_or_default();
    let end: Bytes = match (arguments.get(1), prefix, from_key) {
        (_, true, true) if key.is_empty() || arguments.len() == 1 => return Err(Failure::bad_arguments(EXCLUSIVE)),
        (_, true, _) | (_, _, true) if key.is_empty() => OPEN.into(),
        _ if key.is_empty() => Bytes::new(),
        (Some(_), true, _) => return Err(Failure::bad_arguments("unexpected endkey argument with --prefix flag")),
        (Some(_), _, true) => return Err(Failure::bad_arguments("unexpected endkey argument with --from-key flag")),
        (Some(end), ..) => end.clone().into(),
        (None, true, _) => prefix_end(key),
        (None, _, true) => OPEN.into(),
        (None, ..) => Bytes::new(),
    };
    let key = if key.is_empty() { OPEN } else { key };
    Ok((Bytes::copy_from_slice(key), end))
}

fn text(argument: &[u8]) -> String {
    String::from_utf8_lossy(argument).into_owned()
}

fn one_name(call: &Call, command: &str) -> Result<String, Failure> {
    let complaint =
        || Failure::bad_arguments(format_args!("role {command} command requires role name as its argument"));
    <[String; 1]>::try_from(call.argument_texts()).map(|[name]| name).map_err(|_| complaint())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(arguments: &[&str], prefix: bool, from_key: bool) -> Result<(Bytes, Bytes), String> {
        let arguments: Vec<_> = arguments.iter().map(|text| text.as_bytes().to_vec()).collect();
        keys_of(&arguments, prefix, from_key).map_err(|failure| failure.message.unwrap_or_default())
    }

    fn ends(key: &'static str, end: &'static str) -> (Bytes, Bytes) {
        (key.into(), end.into())
    }

    #[test]
    fn permissions_are_named_by_keys_and_flags() {
        assert_eq!(keys(&["a"], false, false), Ok(ends("a", "")));
        assert_eq!(keys(&["a", "c", "ignored"], false, false), Ok(ends("a", "c")));
        assert_eq!(keys(&["a"], true, false), Ok(ends("a", "b")));
        assert_eq!(keys(&["a"], false, true), Ok(ends("a", "\0")));
        assert_eq!(keys(&[""], false, false), Ok(ends("\0", "")));
        assert_eq!(keys(&["", "b"], true, false), Ok(ends("\0", "\0")));
        assert_eq!(keys(&[""], false, true), Ok(ends("\0", "\0")));
        assert_eq!(keys(&["a"], true, true), Err(EXCLUSIVE.to_owned()));
        assert_eq!(keys(&[""], true, true), Err(EXCLUSIVE.to_owned()));
        assert!(keys(&["a", "b"], true, true).unwrap_err().contains("--prefix"));
        assert!(keys(&["a", "b"], false, true).unwrap_err().contains("--from-key"));
    }

    #[test]
    fn what_was_taken_is_told_as_it_was_typed() {
        assert_eq!(revoked(b"k", b"", "r"), b"Permission of key k is revoked from role r");
        assert_eq!(revoked(b"k", b"l", "r"), b"Permission of range [k, l) is revoked from role r");
        assert_eq!(revoked(b"", b"\0", "r"), b"Permission of range [, <open ended> is revoked from role r");
    }

    #[test]
    fn kinds_are_words_of_any_case() {
        assert_eq!(kind_of("readWrite").ok(), Some(Type::Readwrite));
        assert_eq!(kind_of("write").ok(), Some(Type::Write));
        assert!(kind_of("execute").is_err());
    }
}
