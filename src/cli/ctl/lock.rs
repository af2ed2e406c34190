//! `lock`: hold a lock, for oneself or for a command.

use std::{
    ffi::OsString,
    os::unix::{ffi::OsStringExt, process::ExitStatusExt},
    process::{Command as Child, ExitStatus, Stdio},
};

use bytes::Bytes;

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        parse::Call,
        table::{Command, Flag, Group, Running},
    },
    contest::{self, Interruption, Tenure, failure},
    session::Session,
};
use crate::{
    client::Client,
    concurrency::{Line, Place},
};

const TTL: Flag = Flag::integer("ttl", "seconds the lock outlives a client that is gone").default("10");

pub(super) const LOCK: Command = Command {
    name: "lock",
    arguments: "<lockname> [exec-command arg1 arg2 ...]",
    about: "Holds a lock until it is interrupted, or while a command runs",
    details: "Waits for a lock, shows its key, and holds it until it is interrupted, or while a command runs.\n\n\
              The command finds the key in ETCD_LOCK_KEY and in ETCD_LOCK_REV the revision at which the lock was taken.\n\
              Its exit code becomes that of this one. Two dashes tell its flags apart:\n  \
              lock <lockname> -- <exec-command> --flag",
    group: Group::Concurrency,
    flags: &[TTL],
    run: Some(lock),
    ..Command::EMPTY
};

fn lock(mut call: Call) -> Running {
    Box::pin(async move {
        let words = call.argument_bytes();
        let Some((name, command)) = words.split_first() else {
            let missing = "lock takes a lock name argument and an optional command to execute";
            return Err(Failure::bad_arguments(missing));
        };
        let ttl = call.flags.integer(&TTL);
        let session = Session::open(&mut call).await?;
        let mut tenure = Tenure::begin(&session, ttl).await?;
        let mut interruption = Interruption::begin()?;
        let lock = Lock::acquire(&session.client, &Line::of(name), &mut tenure, &mut interruption).await?;
        if command.is_empty() {
            return hold(&session, &lock, &mut tenure, &mut interruption).await;
        }
        let command = command.iter().cloned().map(OsString::from_vec).collect();
        let outcome = tenure.during(run(command, &lock)).await;
        let released = lock.release(&session.client).await;
        outcome.and(released)
    })
}

/// A lock that was got.
struct Lock {
    place: Place,
    /// The revision of the answer that said so.
    revision: i64,
}

impl Lock {
    async fn acquire(
        client: &Client,
        line: &Line,
        tenure: &mut Tenure,
        interruption: &mut Interruption,
    ) -> Result<Self, Failure> {
        let entering = contest::enter(client, line, tenure.lease, Bytes::new());
        let (entered, answer) = interruption.or(entering).await?;
        let place = entered.place;
        if entered.is_first {
            return Ok(Self { place, revision: contest::revision(answer.header) });
        }
        let waiting = Box::pin(contest::turn(client, line, &place));
        match tenure.during(interruption.or(waiting)).await {
            Ok(answer) if place.is_kept(&answer) => Ok(Self { place, revision: contest::revision(answer.header) }),
            Ok(_) => Err(failure("mutex: session is expired")),
            Err(why) => {
                // Why it has failed is what counts; without this the key lasts as long as the lease.
                drop(client.call(place.leave(), None).await);
                Err(why)
            }
        }
    }

    async fn release(&self, client: &Client) -> Result<(), Failure> {
        Ok(client.call(self.place.leave(), None).await.map(drop)?)
    }
}

/// Shows the lock and keeps it until a signal, or for as long as the lease lives.
async fn hold(
    session: &Session,
    lock: &Lock,
    tenure: &mut Tenure,
    interruption: &mut Interruption,
) -> Result<(), Failure> {
    let reading = async { Ok(session.client.call(lock.place.read(), None).await?) };
    let answer = interruption.or(reading).await?;
    if answer.kvs.is_empty() {
        return Err(failure("lock lost on init"));
    }
    session.print(&answer)?;
    tokio::select! {
        () = interruption.wait() => lock.release(&session.client).await,
        () = tenure.lost() => Err(failure("session expired")),
    }
}

/// Runs the command and waits for it. Signals to end are for the command, which gets those of a terminal itself.
async fn run(command: Vec<OsString>, lock: &Lock) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let mut child = Child::new(program);
    child.args(arguments).stdin(Stdio::null());
    child.env("ETCD_LOCK_KEY", OsString::from_vec(lock.place.key.to_vec()));
    child.env("ETCD_LOCK_REV", lock.revision.to_string());
    match tokio::task::spawn_blocking(move || child.status()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(ended(status)),
        Ok(Err(error)) => Err(failure(&go_text::start_failure(program, &error))),
        Err(error) => Err(failure(&error.to_string())),
    }
}

/// How the end of the command is told: with its own exit code, or the one that etcdctl has for a death by a signal.
fn ended(status: ExitStatus) -> Failure {
    match (status.code(), status.signal()) {
        (Some(code), _) => {
            Failure::new(Exit::Child(u8::try_from(code).unwrap_or(u8::MAX)), format_args!("exit status {code}"))
        }
        (None, Some(signal)) => Failure::new(Exit::Child(u8::MAX), format_args!("signal: {}", go_text::signal(signal))),
        (None, None) => failure(&status.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_this_one_as_it_ended_itself() {
        let told = |status| {
            let failure = ended(ExitStatus::from_raw(status));
            (failure.exit.code(), failure.message.unwrap_or_default())
        };
        assert_eq!(told(3 << 8), (3, "exit status 3".to_owned()));
        assert_eq!(told(9), (255, "signal: killed".to_owned()));
    }
}
