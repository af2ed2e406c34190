//! `auth`: whether users and roles count.

use super::{
    super::{
        parse::Call,
        speak::say,
        table::{Command, Running},
    },
    member::no_arguments,
    session::{Session, plainly},
};

pub(super) const AUTH: Command = Command {
    name: "auth",
    about: "whether users and roles count",
    commands: &[
        Command {
            name: "enable",
            about: "makes users and roles count",
            run: Some(|call| set(call, true)),
            ..Command::EMPTY
        },
        Command {
            name: "disable",
            about: "lets everybody do everything",
            run: Some(|call| set(call, false)),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn set(call: Call, enabled: bool) -> Running {
    Box::pin(async move {
        no_arguments(&call)?;
        let mut session = Session::open_for_auth(&call).await?;
        session.within(async |cluster| cluster.set_auth(enabled).await).await.map_err(plainly)?;
        Ok(say(format_args!("Authentication {}\n", if enabled { "Enabled" } else { "Disabled" }))?)
    })
}
