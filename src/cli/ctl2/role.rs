//! `role`: what may be done.

use super::{
    super::{
        failure::{Exit, Failure},
        parse::{Call, Flags},
        speak::say,
        table::{Command, Flag, Running},
    },
    member::no_arguments,
    output,
    session::{Session, plainly},
};
use crate::client::v2::{Access, Role, canonical_path};

const PATH: Flag = Flag::text("path", "", "the path, with a star at its end for everything below");
const READ: Flag = Flag::switch("read", "reading alone");
const WRITE: Flag = Flag::switch("write", "writing alone");
const READWRITE: Flag = Flag::switch("readwrite", "both").also("rw");

pub(super) const ROLE: Command = Command {
    name: "role",
    about: "roles and what they may do",
    commands: &[
        Command { name: "add", arguments: "<role>", about: "makes a role", run: Some(add), ..Command::EMPTY },
        Command {
            name: "get",
            arguments: "<role>",
            about: "shows what a role may do",
            run: Some(get),
            ..Command::EMPTY
        },
        Command { name: "list", about: "lists all roles", run: Some(list), ..Command::EMPTY },
        Command { name: "remove", arguments: "<role>", about: "removes a role", run: Some(remove), ..Command::EMPTY },
        Command {
            name: "grant",
            arguments: "<role>",
            about: "lets a role use a path",
            flags: &[PATH, READ, WRITE, READWRITE],
            run: Some(|call| change_path(call, true)),
            ..Command::EMPTY
        },
        Command {
            name: "revoke",
            arguments: "<role>",
            about: "no longer lets a role use a path",
            flags: &[PATH, READ, WRITE, READWRITE],
            run: Some(|call| change_path(call, false)),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn add(call: Call) -> Running {
    Box::pin(async move {
        let role = name(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        if session.within(async |cluster| cluster.role(&role).await).await.is_ok() {
            return Err(Failure::bare(Exit::Error, format_args!("Role {role} already exists")));
        }
        session.within(async |cluster| cluster.add_role(&role).await).await.map_err(plainly)?;
        Ok(say(format_args!("Role {role} created\n"))?)
    })
}

fn get(call: Call) -> Running {
    Box::pin(async move {
        let role = name(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        let role = session.within(async |cluster| cluster.role(&role).await).await.map_err(plainly)?;
        Ok(say(format_args!("{}", shown(&role)))?)
    })
}

fn shown(role: &Role) -> String {
    let [read, write] = [role.permissions.read(), role.permissions.write()].map(|paths| output::lines(paths, "\t"));
    format!("Role: {}\nKV Read:\n{read}KV Write:\n{write}", role.name)
}

fn list(call: Call) -> Running {
    Box::pin(async move {
        no_arguments(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        let roles = session.within(async |cluster| cluster.roles().await).await.map_err(plainly)?;
        Ok(say(format_args!("{}", output::lines(&roles, "")))?)
    })
}

fn remove(call: Call) -> Running {
    Box::pin(async move {
        let role = name(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        session.within(async |cluster| cluster.remove_role(&role).await).await.map_err(plainly)?;
        Ok(say(format_args!("Role {role} removed\n"))?)
    })
}

fn change_path(call: Call, grant: bool) -> Running {
    Box::pin(async move {
        let (path, access) = path_and_access(&call.flags)?;
        let role = name(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        let before = session.within(async |cluster| cluster.role(&role).await).await.map_err(plainly)?;
        let changed = session.within(async |cluster| {
            if grant {
                cluster.grant_path(&role, &path, access).await
            } else {
                cluster.revoke_path(&role, &path, access).await
            }
        });
        if changed.await.map_err(plainly)? == before {
            let word = if grant { "granted" } else { "revoked" };
            say(format_args!("Role unchanged; already {word}"))?;
        }
        Ok(say(format_args!("Role {role} updated\n"))?)
    })
}

fn path_and_access(flags: &Flags) -> Result<(String, Access), Failure> {
    let refused = |why: &str| Err(Failure::bare(Exit::Error, why));
    let path = flags.text(&PATH);
    if path.is_empty() {
        return refused("No path specified; please use `--path`");
    }
    let canonical = canonical_path(path);
    if canonical != path {
        return refused(&format!("Not canonical path; please use `--path={canonical}`"));
    }
    match [READ, WRITE, READWRITE].map(|flag| flags.switch(&flag)) {
        [true, false, false] => Ok((canonical, Access::Read)),
        [false, true, false] => Ok((canonical, Access::Write)),
        [false, false, true] => Ok((canonical, Access::ReadWrite)),
        _ => refused("Please specify exactly one of --read, --write or --readwrite"),
    }
}

fn name(call: &Call) -> Result<String, Failure> {
    match call.argument_texts().as_slice() {
        [name] => Ok(name.clone()),
        _ => Err(Failure::bare(Exit::Error, "Please provide a role name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(typed: &[(Flag, &str)]) -> Result<(String, Access), String> {
        let mut flags = Flags::defaults(&[&PATH, &READ, &WRITE, &READWRITE]);
        for (flag, value) in typed {
            flags.add(flag, value).unwrap();
        }
        path_and_access(&flags).map_err(|failure| failure.usage.unwrap_or_default())
    }

    #[test]
    fn a_path_goes_with_one_access() {
        assert_eq!(chosen(&[(PATH, "/a/*"), (READ, "true")]), Ok(("/a/*".into(), Access::Read)));
        assert_eq!(chosen(&[(PATH, "/a"), (READWRITE, "true")]), Ok(("/a".into(), Access::ReadWrite)));
        let refused = |typed: &[(Flag, &str)]| chosen(typed).unwrap_err();
        assert_eq!(refused(&[]), "No path specified; please use `--path`");
        assert_eq!(refused(&[(PATH, "a//b")]), "Not canonical path; please use `--path=/a/b`");
        let one = "Please specify exactly one of --read, --write or --readwrite";
        assert_eq!(refused(&[(PATH, "/a")]), one);
        assert_eq!(refused(&[(PATH, "/a"), (READ, "true"), (WRITE, "true")]), one);
    }
}
