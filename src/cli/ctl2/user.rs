//! `user`: who may do something.

use super::{
    super::{
        failure::{Exit, Failure},
        parse::Call,
        password,
        speak::say,
        table::{Command, Flag, Running},
    },
    global,
    member::no_arguments,
    output,
    session::{Session, plainly},
};
use crate::client::v2::User;

const ROLES: Flag = Flag::texts("roles", "a role; may be named again for each");

pub(super) const USER: Command = Command {
    name: "user",
    about: "users and their roles",
    commands: &[
        Command { name: "add", arguments: "<user>", about: "makes a user", run: Some(add), ..Command::EMPTY },
        Command {
            name: "get",
            arguments: "<user>",
            about: "shows the roles of a user",
            run: Some(get),
            ..Command::EMPTY
        },
        Command { name: "list", about: "lists all users", run: Some(list), ..Command::EMPTY },
        Command { name: "remove", arguments: "<user>", about: "removes a user", run: Some(remove), ..Command::EMPTY },
        Command {
            name: "grant",
            arguments: "<user>",
            about: "gives roles to a user",
            flags: &[ROLES],
            run: Some(|call| change_roles(call, true)),
            ..Command::EMPTY
        },
        Command {
            name: "revoke",
            arguments: "<user>",
            about: "takes roles from a user",
            flags: &[ROLES],
            run: Some(|call| change_roles(call, false)),
            ..Command::EMPTY
        },
        Command {
            name: "passwd",
            arguments: "<user>",
            about: "gives a user another password",
            run: Some(passwd),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn add(call: Call) -> Running {
    Box::pin(async move {
        let typed = name(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        let (user, password) = global::named(&typed, NEW_PASSWORD)?;
        session.within(async |cluster| cluster.add_user(&user, &password).await).await.map_err(plainly)?;
        Ok(say(format_args!("User {user} created\n"))?)
    })
}

fn get(call: Call) -> Running {
    Box::pin(async move {
        let user = name(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        let user = session.within(async |cluster| cluster.user(&user).await).await.map_err(plainly)?;
        Ok(say(format_args!("{}", shown(&user)))?)
    })
}

/// Where the answer tells all of each role, etcdctl puts a blank for each before the names; scripts may count on it.
fn shown(user: &User) -> String {
    let blanks = if user.is_expanded { user.roles.len() } else { 0 };
    format!("User: {}\nRoles: {}{}\n", user.name, " ".repeat(blanks), user.roles.join(" "))
}

fn list(call: Call) -> Running {
    Box::pin(async move {
        no_arguments(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        let users = session.within(async |cluster| cluster.users().await).await.map_err(plainly)?;
        Ok(say(format_args!("{}", output::lines(&users, "")))?)
    })
}

fn remove(call: Call) -> Running {
    Box::pin(async move {
        let user = name(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        session.within(async |cluster| cluster.remove_user(&user).await).await.map_err(plainly)?;
        Ok(say(format_args!("User {user} removed\n"))?)
    })
}

fn change_roles(call: Call, grant: bool) -> Running {
    Box::pin(async move {
        let roles = call.flags.list(&ROLES);
        if roles.is_empty() {
            return Err(Failure::bare(Exit::Error, "No roles specified; please use `--roles`"));
        }
        let user = name(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        let changed = session.within(async |cluster| {
            if grant { cluster.grant_roles(&user, roles).await } else { cluster.revoke_roles(&user, roles).await }
        });
        changed.await.map_err(plainly)?;
        Ok(say(format_args!("User {user} updated\n"))?)
    })
}

fn passwd(call: Call) -> Running {
    Box::pin(async move {
        let user = name(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        let password = password::ask(NEW_PASSWORD)?.trim().to_owned();
        session.within(async |cluster| cluster.change_password(&user, &password).await).await.map_err(plainly)?;
        Ok(say(format_args!("Password updated\n"))?)
    })
}

fn name(call: &Call) -> Result<String, Failure> {
    match call.argument_texts().as_slice() {
        [name] => Ok(name.clone()),
        _ => Err(Failure::bare(Exit::Error, "Please provide a username")),
    }
}

const NEW_PASSWORD: &str = "New password: ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_that_were_told_whole_leave_a_blank_each() {
        let user = User { name: "u".into(), roles: vec!["a".into(), "b".into()], is_expanded: true };
        assert_eq!(shown(&user), "User: u\nRoles:   a b\n");
        assert_eq!(shown(&User { is_expanded: false, ..user }), "User: u\nRoles: a b\n");
    }
}
