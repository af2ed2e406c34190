//! `lease`: grant, revoke, look at, list and renew.

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        output::{Format, Granted, Kept, Listed, Remaining, Revoked},
        parse::Call,
        speak::say,
        table::{Command, Flag, Group, Running},
    },
    session::Session,
};
use crate::{
    client::ClientError,
    pb::etcdserverpb::{LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest},
    types::LeaseId,
};

const KEYS: Flag = Flag::switch("keys", "show the keys attached to the lease");
const ONCE: Flag = Flag::switch("once", "renew once and stop");

pub(super) const LEASE: Command = Command {
    name: "lease",
    arguments: "<subcommand>",
    about: "Leases: keys that go away unless somebody cares for them",
    group: Group::KeyValue,
    commands: &[
        Command {
            name: "grant",
            arguments: "<ttl>",
            about: "Makes a lease that lives for some seconds",
            run: Some(grant),
            ..Command::EMPTY
        },
        Command {
            name: "revoke",
            arguments: "<leaseID>",
            about: "Ends a lease and deletes its keys",
            run: Some(revoke),
            ..Command::EMPTY
        },
        Command {
            name: "timetolive",
            arguments: "<leaseID> [options]",
            about: "Shows how long a lease still lives",
            flags: &[KEYS],
            run: Some(time_to_live),
            ..Command::EMPTY
        },
        Command { name: "list", about: "Lists all leases", run: Some(list), ..Command::EMPTY },
        Command {
            name: "keep-alive",
            arguments: "[options] <leaseID>",
            about: "Renews a lease until it is gone",
            flags: &[ONCE],
            run: Some(keep_alive),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn grant(mut call: Call) -> Running {
    Box::pin(async move {
        let ttl = only_argument(&call, "lease grant command needs TTL argument")?;
        let ttl =
            go_text::parse_int(&ttl, 10).map_err(|why| Failure::bad_arguments(format_args!("bad TTL ({why})")))?;
        let session = Session::open(&mut call).await?;
        let response = session
            .call(LeaseGrantRequest { ttl, id: 0 })
            .await
            .map_err(|error| Failure::new(Exit::Error, format_args!("failed to grant lease ({error})")))?;
        session.print(&Granted(response))
    })
}

fn revoke(mut call: Call) -> Running {
    Box::pin(async move {
        let lease = lease(&only_argument(&call, "lease revoke command needs 1 argument")?)?;
        let session = Session::open(&mut call).await?;
        let response = session
            .call(LeaseRevokeRequest { id: lease.0 })
            .await
            .map_err(|error| Failure::new(Exit::Error, format_args!("failed to revoke lease ({error})")))?;
        session.print(&Revoked { lease, response })
    })
}

fn time_to_live(mut call: Call) -> Running {
    Box::pin(async move {
        let id = only_argument(&call, "lease timetolive command needs lease ID as argument")?;
        let keys = call.flags.switch(&KEYS);
        let session = Session::open(&mut call).await?;
        let request = LeaseTimeToLiveRequest { id: lease(&id)?.0, keys };
        let response = session.client.call(request, None).await.map_err(no_answer)?;
        session.print(&Remaining { response, keys })
    })
}

fn list(mut call: Call) -> Running {
    Box::pin(async move {
        let session = Session::open(&mut call).await?;
        let response = session.client.call(LeaseLeasesRequest {}, None).await.map_err(no_answer)?;
        session.print(&Listed(response))
    })
}

fn keep_alive(mut call: Call) -> Running {
    Box::pin(async move {
        let lease = lease(&only_argument(&call, "lease keep-alive command needs lease ID as argument")?)?;
        let session = Session::open(&mut call).await?;
        if call.flags.switch(&ONCE) {
            let response = session.client.keep_alive_once(lease).await.map_err(no_answer)?;
            return session.print(&Kept(response));
        }
        let mut answers = session.keep_alive(lease);
        while let Some(response) = answers.next().await {
            session.print(&Kept(response))?;
        }
        if session.style().format == Format::Simple {
            say(format_args!("lease {:016x} expired or revoked.\n", lease.0))?;
        }
        Ok(())
    })
}

fn only_argument(call: &Call, missing: &str) -> Result<String, Failure> {
    match call.argument_texts().as_slice() {
        [argument] => Ok(argument.clone()),
        _ => Err(Failure::bad_arguments(missing)),
    }
}

fn lease(text: &str) -> Result<LeaseId, Failure> {
    go_text::parse_int(text, 16)
        .map(LeaseId)
        .map_err(|why| Failure::bad_arguments(format_args!("bad lease ID arg ({why}), expecting ID in Hex")))
}

/// These commands treat every failed request as a connection that does not work.
fn no_answer(error: ClientError) -> Failure {
    Failure::new(Exit::BadConnection, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_hexadecimal() {
        assert_eq!(lease("1f"), Ok(LeaseId(31)));
        let refused = lease("zz").unwrap_err();
        let text = "bad lease ID arg (strconv.ParseInt: parsing \"zz\": invalid syntax), expecting ID in Hex";
        assert_eq!((refused.exit, refused.message.as_deref()), (Exit::BadArguments, Some(text)));
    }
}
