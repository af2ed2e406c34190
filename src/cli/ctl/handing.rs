//! `move-leader` and `downgrade`.

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        output::{self, Downgraded, Moved},
        parse::Call,
        table::{Command, Group, Running},
    },
    session::{self, Session},
};
use crate::pb::etcdserverpb::{DowngradeRequest, MoveLeaderRequest, StatusRequest, downgrade_request::DowngradeAction};

pub(super) const MOVE_LEADER: Command = Command {
    name: "move-leader",
    arguments: "<transferee-member-id>",
    about: "Lets another member lead",
    group: Group::Maintenance,
    run: Some(move_leader),
    ..Command::EMPTY
};

pub(super) const DOWNGRADE: Command = Command {
    name: "downgrade",
    beginnings: &["do"],
    arguments: "<subcommand>",
    about: "Prepares the cluster for an older version",
    group: Group::Maintenance,
    commands: &[
        Command {
            name: "validate",
            arguments: "<TARGET_VERSION>",
            about: "Tells whether the cluster can be downgraded",
            run: Some(validate),
            ..Command::EMPTY
        },
        Command {
            name: "enable",
            arguments: "<TARGET_VERSION>",
            about: "Allows the downgrade",
            run: Some(enable),
            ..Command::EMPTY
        },
        Command { name: "cancel", about: "Takes the permission back", run: Some(cancel), ..Command::EMPTY },
    ],
    ..Command::EMPTY
};

fn move_leader(mut call: Call) -> Running {
    Box::pin(async move {
        let arguments = call.argument_texts();
        let [target] = arguments.as_slice() else {
            return Err(Failure::bad_arguments("move-leader command needs 1 argument"));
        };
        let to = go_text::parse_hex_id(target).map_err(Failure::bad_arguments)?;
        let settings = session::settings(&mut call)?;
        for endpoint in &settings.client.endpoints {
            let client = session::connect(&settings, vec![endpoint.clone()]).await?;
            let status = client.call(StatusRequest {}, Some(settings.command_timeout)).await?;
            let from = status.leader;
            if status.header.is_some_and(|header| header.member_id == from) {
                let request = MoveLeaderRequest { target_id: to };
                let response = client.call(request, Some(settings.command_timeout)).await?;
                return output::print(settings.style, &Moved { from, to, response });
            }
        }
        let endpoints = settings.client.endpoints.join(" ");
        Err(Failure::new(Exit::BadArguments, format_args!("no leader endpoint given at [{endpoints}]")))
    })
}

fn validate(call: Call) -> Running {
    Box::pin(downgrade(call, "validate", DowngradeAction::Validate))
}

fn enable(call: Call) -> Running {
    Box::pin(downgrade(call, "enable", DowngradeAction::Enable))
}

fn cancel(call: Call) -> Running {
    Box::pin(downgrade(call, "cancel", DowngradeAction::Cancel))
}

async fn downgrade(mut call: Call, what: &'static str, action: DowngradeAction) -> Result<(), Failure> {
    let version = match (action, call.argument_texts().as_slice()) {
        (DowngradeAction::Cancel, _) => String::new(),
        (_, []) => return Err(Failure::bad_arguments("TARGET_VERSION not provided")),
        (_, [version]) if version.is_empty() => return Err(Failure::bad_arguments("target version not provided")),
        (_, [version]) => version.clone(),
        (_, _) => return Err(Failure::bad_arguments("too many arguments")),
    };
    let session = Session::open(&mut call).await?;
    let response = session.call(DowngradeRequest { action: action.into(), version }).await?;
    session.print(&Downgraded { what, response })
}
