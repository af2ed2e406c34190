//! `user`: who may be asked who he is.

use std::io;

use prost::Message as _;

use super::{
    super::{
        failure::Failure,
        output::{Changed, OneRole, OneUser},
        parse::Call,
        password,
        speak::say,
        table::{Command, Flag, Group, Running},
    },
    session::Session,
};
use crate::pb::{
    authpb::UserAddOptions,
    etcdserverpb::{
        AuthRoleGetRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
        AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
    },
};

const INTERACTIVE: Flag =
    Flag::switch("interactive", "ask for the password; else read it from standard input").default("true");
const NEW_PASSWORD: Flag = Flag::text("new-user-password", "", "the password");
const NO_PASSWORD: Flag = Flag::switch("no-password", "the user shows a certificate instead of a password");
const DETAIL: Flag = Flag::switch("detail", "show what the roles of the user permit");

pub(super) const USER: Command = Command {
    name: "user",
    arguments: "<subcommand>",
    about: "Users and their roles",
    group: Group::Authentication,
    commands: &[
        Command {
            name: "add",
            arguments: "<user name or user:password> [options]",
            about: "Makes a user",
            flags: &[INTERACTIVE, NEW_PASSWORD, NO_PASSWORD],
            run: Some(add),
            ..Command::EMPTY
        },
        Command {
            name: "delete",
            arguments: "<user name>",
            about: "Removes a user",
            run: Some(delete),
            ..Command::EMPTY
        },
        Command {
            name: "get",
            arguments: "<user name> [options]",
            about: "Shows the roles of a user",
            flags: &[DETAIL],
            run: Some(get),
            ..Command::EMPTY
        },
        Command { name: "list", about: "Lists all users", run: Some(list), ..Command::EMPTY },
        Command {
            name: "passwd",
            arguments: "<user name> [options]",
            about: "Gives a user another password",
            flags: &[INTERACTIVE],
            run: Some(change_password),
            ..Command::EMPTY
        },
        Command {
            name: "grant-role",
            arguments: "<user name> <role name>",
            about: "Gives a user a role",
            run: Some(grant_role),
            ..Command::EMPTY
        },
        Command {
            name: "revoke-role",
            arguments: "<user name> <role name>",
            about: "Takes a role from a user",
            run: Some(revoke_role),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn add(mut call: Call) -> Running {
    Box::pin(async move {
        let typed = one_name(&call, "add")?;
        let no_password = call.flags.switch(&NO_PASSWORD);
        let (name, password) = if no_password { (typed, String::new()) } else { named(&call, typed)? };
        let session = Session::open(&mut call).await?;
        let said = format!("User {name} created");
        let options = Some(UserAddOptions { no_password });
        let request = AuthUserAddRequest { name, password, options, ..Default::default() };
        let response = session.call(request).await?;
        session.print(&Changed { said: said.into(), header: response.header, encoded: response.encode_to_vec() })
    })
}

/// The name and the password of a new user, wherever they come from.
fn named(call: &Call, typed: String) -> Result<(String, String), Failure> {
    let by_flag = call.flags.text(&NEW_PASSWORD);
    if !by_flag.is_empty() {
        return Ok((typed, by_flag.to_owned()));
    }
    match typed.split_once(':') {
        Some(("", _)) => Err(Failure::bad_arguments("empty user name is not allowed")),
        Some((name, password)) => Ok((name.to_owned(), password.to_owned())),
        None => {
            let password = new_password(call, &typed)?;
            Ok((typed, password))
        }
    }
}

fn new_password(call: &Call, name: &str) -> Result<String, Failure> {
    if !call.flags.switch(&INTERACTIVE) {
        let mut line = String::new();
        io::stdin().read_line(&mut line)?;
        return Ok(line.split_whitespace().next().unwrap_or_default().to_owned());
    }
    let password = password::ask(&format!("Password of {name}: "))?;
    if password.is_empty() {
        return Err(Failure::bad_arguments("empty password"));
    }
    if password::ask(&format!("Type password of {name} again for confirmation: "))? != password {
        return Err(Failure::bad_arguments("given passwords are different"));
    }
    Ok(password)
}

fn delete(mut call: Call) -> Running {
    Box::pin(async move {
        let name = one_name(&call, "delete")?;
        let session = Session::open(&mut call).await?;
        let said = format!("User {name} deleted");
        let response = session.call(AuthUserDeleteRequest { name }).await?;
        session.print(&Changed { said: said.into(), header: response.header, encoded: response.encode_to_vec() })
    })
}

fn get(mut call: Call) -> Running {
    Box::pin(async move {
        let name = one_name(&call, "get")?;
        let detail = call.flags.switch(&DETAIL);
        let session = Session::open(&mut call).await?;
        let response = session.call(AuthUserGetRequest { name: name.clone() }).await?;
        if !detail {
            return session.print(&OneUser { name, response });
        }
        say(format_args!("User: {name}\n"))?;
        for role in response.roles {
            say(format_args!("\n"))?;
            let response = session.call(AuthRoleGetRequest { role: role.clone() }).await?;
            session.print(&OneRole { name: role, response })?;
        }
        Ok(())
    })
}

fn list(mut call: Call) -> Running {
    Box::pin(async move {
        if !call.arguments.is_empty() {
            return Err(Failure::bad_arguments("user list command requires no arguments"));
        }
        let session = Session::open(&mut call).await?;
        session.print(&session.call(AuthUserListRequest {}).await?)
    })
}

fn change_password(mut call: Call) -> Running {
    Box::pin(async move {
        let name = one_name(&call, "passwd")?;
        let password = new_password(&call, &name)?;
        let session = Session::open(&mut call).await?;
        let request = AuthUserChangePasswordRequest { name, password, ..Default::default() };
        let response = session.call(request).await?;
        let said = b"Password updated".to_vec();
        session.print(&Changed { said, header: response.header, encoded: response.encode_to_vec() })
    })
}

fn grant_role(mut call: Call) -> Running {
    Box::pin(async move {
        let complaint = "user grant command requires user name and role name as its argument";
        let [user, role] = two_names(&call, complaint)?;
        let session = Session::open(&mut call).await?;
        let said = format!("Role {role} is granted to user {user}");
        let response = session.call(AuthUserGrantRoleRequest { user, role }).await?;
        session.print(&Changed { said: said.into(), header: response.header, encoded: response.encode_to_vec() })
    })
}

fn revoke_role(mut call: Call) -> Running {
    Box::pin(async move {
        let [name, role] = two_names(&call, "user revoke-role requires user name and role name as its argument")?;
        let session = Session::open(&mut call).await?;
        let said = format!("Role {role} is revoked from user {name}");
        let response = session.call(AuthUserRevokeRoleRequest { name, role }).await?;
        session.print(&Changed { said: said.into(), header: response.header, encoded: response.encode_to_vec() })
    })
}

fn one_name(call: &Call, command: &str) -> Result<String, Failure> {
    let complaint =
        || Failure::bad_arguments(format_args!("user {command} command requires user name as its argument"));
    <[String; 1]>::try_from(call.argument_texts()).map(|[name]| name).map_err(|_| complaint())
}

fn two_names(call: &Call, complaint: &str) -> Result<[String; 2], Failure> {
    <[String; 2]>::try_from(call.argument_texts()).map_err(|_| Failure::bad_arguments(complaint))
}
