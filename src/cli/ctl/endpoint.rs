//! `endpoint` and `defrag`: what is asked of each member by itself.

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        output::{self, Hash, Hashes, Health, Healths, Statuses},
        parse::Call,
        speak::{complain, say},
        table::{Command, Flag, Group, Running},
    },
    global::Settings,
    session,
};
use crate::{
    client::{Client, ClientError, Rpc},
    pb::etcdserverpb::{
        AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, HashKvRequest, MemberListRequest, RangeRequest,
        StatusRequest,
    },
};

pub(super) const CLUSTER: Flag =
    Flag::switch("cluster", "ask all members of the cluster instead of the endpoints given");
const REV: Flag = Flag::integer("rev", "revision up to which to hash, 0 means the latest");

pub(super) const ENDPOINT: Command = Command {
    name: "endpoint",
    arguments: "<subcommand>",
    about: "What the members say of themselves",
    group: Group::Maintenance,
    inherited: &[CLUSTER],
    commands: &[
        Command { name: "health", about: "Tells whether members do their work", run: Some(health), ..Command::EMPTY },
        Command {
            name: "status",
            about: "Shows versions, sizes and positions of members",
            details: "Shows versions, sizes and positions of members.\n\nThe simple form has one line per member: \
                      endpoint, identifier, version, storage version, size of the\ndatabase, part in use, percentage not \
                      in use, quota, whether it leads, whether it is a learner, raft term,\nraft index, applied index, \
                      errors, version to downgrade to, whether a downgrade is going on.",
            run: Some(status),
            ..Command::EMPTY
        },
        Command {
            name: "hashkv",
            about: "Shows a hash over the history of each member",
            flags: &[REV],
            run: Some(hash_kv),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

pub(super) const DEFRAG: Command = Command {
    name: "defrag",
    about: "Gives unused space of members back to the file system",
    group: Group::Maintenance,
    flags: &[CLUSTER],
    run: Some(defrag),
    ..Command::EMPTY
};

/// The members to ask: those given, or those the cluster knows.
pub(super) async fn endpoints(call: &Call, settings: &Settings) -> Result<Vec<String>, Failure> {
    if !call.flags.switch(&CLUSTER) {
        return Ok(settings.client.endpoints.clone());
    }
    let as_error = |failure: Failure| Failure { exit: Exit::Error, ..failure };
    let client = session::connect(settings, settings.client.endpoints.clone()).await.map_err(as_error)?;
    let request = MemberListRequest { linearizable: true };
    let response = client.call(request, Some(settings.command_timeout)).await.map_err(|error| {
        let text = format!("failed to fetch endpoints from etcd cluster member list: {error}");
        Failure::new(Exit::Error, text)
    })?;
    Ok(response.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

async fn connect_to(settings: &Settings, endpoint: &str) -> Result<Client, Failure> {
    session::connect(settings, vec![endpoint.to_owned()]).await
}

/// The answer of one endpoint. A text that is no address is an endpoint that does not answer: the others are asked all
/// the same.
async fn ask<R: Rpc>(
    settings: &Settings,
    endpoint: &str,
    request: R,
) -> Result<Result<R::Response, ClientError>, Failure> {
    match session::try_connect(settings, vec![endpoint.to_owned()]).await {
        Ok(client) => Ok(client.call(request, Some(settings.command_timeout)).await),
        Err(error @ ClientError::BadEndpoint { .. }) => Ok(Err(error)),
        Err(error) => Err(session::no_connection(error)),
    }
}

fn health(mut call: Call) -> Running {
    Box::pin(async move {
        let settings = session::settings(&mut call)?;
        let endpoints = endpoints(&call, &settings).await?;
        let healths = join_all(endpoints.iter().map(|endpoint| health_of(&settings, endpoint))).await;
        let unhealthy = healths.iter().any(|health| health.error.is_some());
        output::print(settings.style, &Healths(healths))?;
        if unhealthy { Err(Failure::new(Exit::Error, "unhealthy cluster")) } else { Ok(()) }
    })
}

/// A member is healthy if a linearizable read comes back and no alarm is up. Being denied the read is an answer, too.
async fn health_of(settings: &Settings, endpoint: &str) -> Health {
    let endpoint = endpoint.to_owned();
    let client = match connect_to(settings, &endpoint).await {
        Ok(client) => client,
        Err(failure) => return Health { endpoint, took: None, error: failure.message },
    };
    let begun = Instant::now();
    let deadline = begun + settings.command_timeout;
    let read = client.call(RangeRequest { key: "health".into(), ..Default::default() }, Some(settings.command_timeout));
    let read = read.await;
    let took = Some(begun.elapsed());
    let error = match read {
        Err(error) if !error.is_refusal("etcdserver: permission denied") => Some(error.to_string()),
        _ => {
            let left = deadline.saturating_duration_since(Instant::now());
            alarm_error(client.call(AlarmRequest::default(), Some(left)).await)
        }
    };
    Health { endpoint, took, error }
}

fn alarm_error(alarms: Result<AlarmResponse, ClientError>) -> Option<String> {
    let Ok(response) = alarms else { return Some("Unable to fetch the alarm list".to_owned()) };
    let name = |kind| match kind {
        AlarmType::Nospace => "NOSPACE ",
        AlarmType::Corrupt => "CORRUPT ",
        AlarmType::None => "UNKNOWN ",
    };
    let names: String = response.alarms.iter().map(|alarm| name(alarm.alarm())).collect();
    (!names.is_empty()).then(|| format!("Active Alarm(s): {names}"))
}

/// Asks the endpoints one after another; what cannot be asked is told on standard error as `failed` words it.
async fn ask_each<R: Rpc>(
    settings: &Settings,
    endpoints: Vec<String>,
    request: R,
    failed: &str,
) -> Result<(Vec<(String, R::Response)>, Option<ClientError>), Failure> {
    let (mut answers, mut last_error) = (Vec::new(), None);
    for endpoint in endpoints {
        match ask(settings, &endpoint, request.clone()).await? {
            Ok(answer) => answers.push((endpoint, answer)),
            Err(error) => {
                complain(format_args!("Failed to get the {failed} of endpoint {endpoint} ({error})"));
                last_error = Some(error);
            }
        }
    }
    Ok((answers, last_error))
}

fn status(mut call: Call) -> Running {
    Box::pin(async move {
        let settings = session::settings(&mut call)?;
        let endpoints = endpoints(&call, &settings).await?;
        let (statuses, error) = ask_each(&settings, endpoints, StatusRequest {}, "status").await?;
        output::print(settings.style, &Statuses(statuses))?;
        if error.is_some() { Err(Failure::reported(Exit::Error)) } else { Ok(()) }
    })
}

fn hash_kv(mut call: Call) -> Running {
    Box::pin(async move {
        let revision = call.flags.integer(&REV);
        let settings = session::settings(&mut call)?;
        let endpoints = endpoints(&call, &settings).await?;
        let (hashes, error) = ask_each(&settings, endpoints, HashKvRequest { revision }, "hash").await?;
        let hashes = hashes.into_iter().map(|(endpoint, response)| Hash { endpoint, response }).collect();
        output::print(settings.style, &Hashes(hashes))?;
        error.map_or(Ok(()), |error| Err(error.into()))
    })
}

fn defrag(mut call: Call) -> Running {
    Box::pin(async move {
        let settings = session::settings(&mut call)?;
        let mut outcome = Ok(());
        for endpoint in endpoints(&call, &settings).await? {
            let begun = Instant::now();
            let answer = ask(&settings, &endpoint, DefragmentRequest {}).await?;
            let took = go_text::duration(begun.elapsed());
            match answer {
                Ok(_) => say(format_args!("Finished defragmenting etcd member[{endpoint}]. took {took}\n"))?,
                Err(error) => {
                    complain(format_args!("Failed to defragment etcd member[{endpoint}]. took {took}. ({error})"));
                    outcome = Err(Failure::reported(Exit::Error));
                }
            }
        }
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::AlarmMember;

    #[test]
    fn alarms_make_a_member_unhealthy() {
        let raised = |kinds: &[AlarmType]| {
            let alarms = kinds.iter().map(|kind| AlarmMember { member_id: 1, alarm: (*kind).into() }).collect();
            alarm_error(Ok(AlarmResponse { header: None, alarms }))
        };
        assert_eq!(raised(&[]), None);
        let text = "Active Alarm(s): NOSPACE CORRUPT ".to_owned();
        assert_eq!(raised(&[AlarmType::Nospace, AlarmType::Corrupt]), Some(text));
        assert_eq!(alarm_error(Err(ClientError::NoEndpoints)), Some("Unable to fetch the alarm list".to_owned()));
    }
}
