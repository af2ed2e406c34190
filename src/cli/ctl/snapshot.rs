//! `snapshot save`: the state of one member in a file.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        parse::Call,
        speak::say,
        table::{Command, Group, Running},
    },
    global::{self, Settings},
    session,
};
use crate::{
    client::{Client, ClientError},
    etcdfile::part::Part,
    pb::etcdserverpb::StatusRequest,
};

pub(super) const SNAPSHOT: Command = Command {
    name: "snapshot",
    arguments: "<subcommand>",
    about: "Copies the state of a member into a file",
    group: Group::Maintenance,
    commands: &[Command {
        name: "save",
        arguments: "<filename>",
        about: "Saves a snapshot of one member as a file that can be restored",
        details: "Saves a snapshot of one member as a file that can be restored, by quorateutl and by etcdutl.\n\n\
                  Exactly one endpoint is asked. The snapshot is written to <filename>.part, which only its owner may read,\n\
                  checked against the SHA-256 that comes with it, made durable, and then given its name: a file of that\n\
                  name is whole. There is no time limit unless --command-timeout is given, but a member that cannot be\n\
                  connected to within --dial-timeout, or says nothing in it, is given up, and so is one that falls silent\n\
                  and does not answer a probe (--keepalive-time, 10 s at the least, and --keepalive-timeout).",
        run: Some(save),
        ..Command::EMPTY
    }],
    ..Command::EMPTY
};

fn save(mut call: Call) -> Running {
    Box::pin(async move {
        let [path] = call.arguments.as_slice() else {
            return Err(Failure::bad_arguments("snapshot save expects one argument <filename>"));
        };
        let path = PathBuf::from(path);
        let settings = session::settings(&mut call)?;
        let limit = call.flags.is_set(&global::COMMAND_TIMEOUT).then_some(settings.command_timeout);
        let version = save_to(&path, &settings, limit).await?;
        say(format_args!("Snapshot saved at {}\n", path.display()))?;
        if version.is_empty() { Ok(()) } else { Ok(say(format_args!("Server version {version}\n"))?) }
    })
}

/// Saves a snapshot within `limit` and returns the version it is made for.
async fn save_to(path: &Path, settings: &Settings, limit: Option<Duration>) -> Result<String, Failure> {
    let endpoints = &settings.client.endpoints;
    if endpoints.len() != 1 {
        let all = endpoints.join(" ");
        return Err(broken(format_args!("snapshot must be requested to one selected node, not multiple [{all}]")));
    }
    let client = session::try_connect(settings, endpoints.clone()).await.map_err(broken)?;
    if limit.is_none() {
        reach(&client, settings).await?;
    }
    let mut part = Part::create(path).map_err(broken)?;
    let receiving = receive(&client, &mut part);
    let version = match limit {
        Some(limit) => timeout(limit, receiving).await.map_err(|_| broken("context deadline exceeded"))??,
        None => receiving.await?,
    };
    part.seal().map_err(broken)?;
    part.rename(path).map_err(broken)?;
    Ok(version)
}

/// Waits for the connection, and for a first word on it: etcd's tool waits for ever. How long the snapshot itself takes nobody
/// knows; while there is nothing of it yet, or no more, the connection is probed.
async fn reach(client: &Client, settings: &Settings) -> Result<(), Failure> {
    let within = settings.client.dial_timeout;
    let (endpoint, limit) = (settings.client.endpoints.join(" "), go_text::duration(within));
    let begun = Instant::now();
    client.reach(within).await.map_err(|error| {
        let why =
            if let ClientError::DeadlineExceeded { waiting_for: Some(why) } = error { why } else { error.to_string() };
        broken(format_args!("no connection to {endpoint} within the --dial-timeout of {limit}: {why}"))
    })?;
    let left = (!within.is_zero()).then(|| within.saturating_sub(begun.elapsed()));
    match client.call(StatusRequest {}, left).await {
        Err(ClientError::DeadlineExceeded { .. }) => Err(broken(format_args!(
            "no answer from {endpoint} within the --dial-timeout of {limit}: it takes connections and says nothing"
        ))),
        // Whatever a member says, it is there.
        _ => Ok(()),
    }
}

async fn receive(client: &Client, part: &mut Part) -> Result<String, Failure> {
    let mut messages = client.snapshot().await.map_err(broken)?;
    let mut version = String::new();
    while let Some(message) = messages.next().await.map_err(broken)? {
        part.write(&message.blob).map_err(broken)?;
        version = message.version;
    }
    Ok(version)
}

/// The work was broken off.
fn broken(why: impl Display) -> Failure {
    Failure::new(Exit::Interrupted, why)
}
