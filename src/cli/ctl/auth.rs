//! `auth`: whether the cluster asks who somebody is.

use super::{
    super::{
        failure::Failure,
        parse::Call,
        speak::say,
        table::{Command, Group, Running},
    },
    session::Session,
};
use crate::pb::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest, AuthUserGrantRoleRequest,
};

/// The user and the role without which nobody could switch authentication off again.
const ROOT: &str = "root";

pub(super) const AUTH: Command = Command {
    name: "auth",
    arguments: "<subcommand>",
    about: "Switches authentication on and off",
    group: Group::Authentication,
    commands: &[
        Command {
            name: "enable",
            about: "From now on requests are checked",
            details: "From now on requests are checked.\n\nThe user root has to exist; he is given the role root if he \
                      does not have it yet.",
            run: Some(enable),
            ..Command::EMPTY
        },
        Command {
            name: "disable",
            about: "From now on requests are not checked",
            run: Some(disable),
            ..Command::EMPTY
        },
        Command { name: "status", about: "Tells whether requests are checked", run: Some(status), ..Command::EMPTY },
    ],
    ..Command::EMPTY
};

fn enable(mut call: Call) -> Running {
    Box::pin(async move {
        accept_nothing(&call, "enable")?;
        let session = Session::open(&mut call).await?;
        match session.call(AuthEnableRequest {}).await {
            Err(error) if error.is_refusal("etcdserver: root user does not have root role") => {
                session.call(AuthRoleAddRequest { name: ROOT.to_owned() }).await?;
                let (user, role) = (ROOT.to_owned(), ROOT.to_owned());
                session.call(AuthUserGrantRoleRequest { user, role }).await?;
                session.call(AuthEnableRequest {}).await?;
            }
            enabled => drop(enabled?),
        }
        Ok(say(format_args!("Authentication Enabled\n"))?)
    })
}

fn disable(mut call: Call) -> Running {
    Box::pin(async move {
        accept_nothing(&call, "disable")?;
        let session = Session::open(&mut call).await?;
        session.call(AuthDisableRequest {}).await?;
        Ok(say(format_args!("Authentication Disabled\n"))?)
    })
}

fn status(mut call: Call) -> Running {
    Box::pin(async move {
        accept_nothing(&call, "status")?;
        let session = Session::open(&mut call).await?;
        session.print(&session.call(AuthStatusRequest {}).await?)
    })
}

fn accept_nothing(call: &Call, name: &str) -> Result<(), Failure> {
    if call.arguments.is_empty() {
        return Ok(());
    }
    Err(Failure::bad_arguments(format_args!("auth {name} command does not accept any arguments")))
}
