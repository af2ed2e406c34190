//! `cluster-health`.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    super::{
        failure::{Exit, Failure},
        parse::Call,
        speak::say,
        table::{Command, Flag, Running},
    },
    session::{Session, refused},
    watch::unless_interrupted,
};
use crate::client::v2::{Member, V2Error};

const FOREVER: Flag = Flag::switch("forever", "again every 10 seconds until it is interrupted").short('f');

pub(super) const CLUSTER_HEALTH: Command = Command {
    name: "cluster-health",
    about: "asks every member how it is",
    flags: &[FOREVER],
    run: Some(cluster_health),
    ..Command::EMPTY
};

fn cluster_health(call: Call) -> Running {
    Box::pin(async move {
        let forever = call.flags.switch(&FOREVER);
        let work = check(&call, forever);
        if forever { unless_interrupted(work).await } else { work.await }
    })
}

async fn check(call: &Call, forever: bool) -> Result<(), Failure> {
    let mut session = Session::open_unsynced(call).await?;
    let members = match session.within(async |cluster| cluster.members().await).await {
        Ok(members) => members,
        Err(error) => {
            say(format_args!("cluster may be unhealthy: failed to list members\n"))?;
            return Err(refused(&error));
        }
    };
    loop {
        let mut healthy = 0;
        for member in &members {
            healthy += usize::from(is_healthy(&mut session, member).await?);
        }
        say(format_args!("cluster is {}\n", verdict(healthy, members.len())))?;
        if !forever {
            let all = healthy == members.len();
            return if all { Ok(()) } else { Err(Failure::reported(Exit::NOT_HEALTHY)) };
        }
        say(format_args!("\nnext check after 10 second...\n\n"))?;
        sleep(PAUSE).await;
    }
}

fn verdict(healthy: usize, members: usize) -> &'static str {
    match healthy {
        all if all == members => "healthy",
        0 => "unavailable",
        _ => "degraded",
    }
}

/// Asks a member at each of its addresses until one answers, and prints what it learns.
async fn is_healthy(session: &mut Session, member: &Member) -> Result<bool, Failure> {
    let id = &member.id;
    if member.client_urls.is_empty() {
        say(format_args!("member {id} is unreachable: no available published client urls\n"))?;
        return Ok(false);
    }
    for url in &member.client_urls {
        match session.within(async |cluster| cluster.health(url).await).await {
            Ok(healthy) => {
                let word = if healthy { "healthy" } else { "unhealthy" };
                say(format_args!("member {id} is {word}: got {word} result from {url}\n"))?;
                return Ok(healthy);
            }
            Err(error) => say(format_args!(
                "failed to check the health of member {id} on {url}: {}\n",
                asked_in_vain(url, &error)
            ))?,
        }
    }
    say(format_args!("member {id} is unreachable: [{}] are all unreachable\n", member.client_urls.join(" ")))?;
    Ok(false)
}

/// What failed, and what was asked for if nothing was answered.
fn asked_in_vain(url: &str, error: &V2Error) -> String {
    match error {
        V2Error::Attempt(_) | V2Error::DeadlineExceeded => format!("Get \"{url}/health\": {error}"),
        _ => error.to_string(),
    }
}

const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_counts_members() {
        assert_eq!((verdict(3, 3), verdict(1, 3), verdict(0, 3)), ("healthy", "degraded", "unavailable"));
    }
}
