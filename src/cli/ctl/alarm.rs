//! `alarm`: what the members have raised.

use super::{
    super::{
        failure::Failure,
        parse::Call,
        table::{Command, Group, Running},
    },
    session::Session,
};
use crate::{
    client::ClientError,
    pb::etcdserverpb::{AlarmMember, AlarmRequest, AlarmResponse, alarm_request::AlarmAction},
};

pub(super) const ALARM: Command = Command {
    name: "alarm",
    arguments: "<subcommand>",
    about: "Alarms the members have raised",
    group: Group::Maintenance,
    commands: &[
        Command { name: "disarm", about: "Takes all alarms back", run: Some(disarm), ..Command::EMPTY },
        Command { name: "list", about: "Lists all alarms", run: Some(list), ..Command::EMPTY },
    ],
    ..Command::EMPTY
};

fn list(mut call: Call) -> Running {
    Box::pin(async move {
        if !call.arguments.is_empty() {
            return Err(Failure::bad_arguments("alarm list command accepts no arguments"));
        }
        let session = Session::open(&mut call).await?;
        session.print(&session.call(AlarmRequest::default()).await?)
    })
}

fn disarm(mut call: Call) -> Running {
    Box::pin(async move {
        if !call.arguments.is_empty() {
            return Err(Failure::bad_arguments("alarm disarm command accepts no arguments"));
        }
        let session = Session::open(&mut call).await?;
        session.print(&disarm_all(&session).await?)
    })
}

/// Takes back every alarm there is, one after another; the answer names them and has no header.
async fn disarm_all(session: &Session) -> Result<AlarmResponse, ClientError> {
    let raised = session.call(AlarmRequest::default()).await?;
    let mut alarms = Vec::new();
    for AlarmMember { member_id, alarm } in raised.alarms {
        let request = AlarmRequest { action: AlarmAction::Deactivate.into(), member_id, alarm };
        alarms.append(&mut session.call(request).await?.alarms);
    }
    Ok(AlarmResponse { header: None, alarms })
}
