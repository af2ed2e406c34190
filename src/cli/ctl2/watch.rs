//! `watch` and `exec-watch`.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStrExt as _,
    process::{Command as Child, ExitStatus},
};

use tokio::{signal, task::JoinSet};

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        parse::Call,
        speak::{complain, complain_on_same_line, say},
        table::{Command, Flag, Running},
    },
    global, output,
    read::key,
    session::{Session, bad_arguments, refused},
};
use crate::client::v2::{Response, Watch};

const FOREVER: Flag = Flag::switch("forever", "until it is interrupted").short('f');
const AFTER_INDEX: Flag = Flag::integer("after-index", "begin behind this index");
const RECURSIVE: Flag = Flag::switch("recursive", "with everything below").short('r');

pub(super) const WATCH: Command = Command {
    name: "watch",
    arguments: "<key>",
    about: "waits for a change of a key",
    flags: &[FOREVER, AFTER_INDEX, RECURSIVE],
    run: Some(watch),
    ..Command::EMPTY
};

fn watch(call: Call) -> Running {
    Box::pin(async move {
        let session = Session::open(&call).await?;
        let key = key(&call)?;
        let after = call.flags.integer(&AFTER_INDEX).cast_unsigned();
        let watch = Watch::new(&key, after, call.flags.switch(&RECURSIVE));
        unless_interrupted(show(session, watch, &call)).await
    })
}

async fn show(mut session: Session, mut watch: Watch, call: &Call) -> Result<(), Failure> {
    loop {
        let response = session.cluster.next(&mut watch).await.map_err(|error| refused(&error))?;
        // A directory has no value to show.
        if response.node.dir {
            continue;
        }
        if call.flags.switch(&RECURSIVE) {
            say(format_args!("[{}] {}\n", response.action, response.node.key))?;
        }
        output::print(&response, global::output(&call.flags))?;
        if !call.flags.switch(&FOREVER) {
            return Ok(());
        }
    }
}

pub(super) const EXEC_WATCH: Command = Command {
    name: "exec-watch",
    arguments: "<key> <command> [args...]",
    about: "runs a command at each change of a key",
    details: "Runs a command at each change of a key, without waiting for the one before. It finds the change in\n   \
              ETCD_WATCH_ACTION, ETCD_WATCH_KEY, ETCD_WATCH_VALUE and ETCD_WATCH_MODIFIED_INDEX. Either '--' stands\n   \
              between the key and the command, or the command comes first and the key last.",
    flags: &[AFTER_INDEX, RECURSIVE],
    run: Some(exec_watch),
    ..Command::EMPTY
};

fn exec_watch(call: Call) -> Running {
    Box::pin(async move {
        let session = Session::open(&call).await?;
        let (key, command) = key_and_command(&call.arguments)?;
        let after = u64::try_from(call.flags.integer(&AFTER_INDEX)).unwrap_or(0);
        let watch = Watch::new(key.as_bytes(), after, call.flags.switch(&RECURSIVE));
        unless_interrupted(run_at_changes(session, watch, command)).await
    })
}

/// With two dashes behind it the key comes first, without them last.
fn key_and_command(arguments: &[OsString]) -> Result<(&OsString, &[OsString]), Failure> {
    let missing = || bad_arguments("key and command to exec required");
    let is_separated = arguments.iter().skip(1).any(|word| word == "--");
    let (key, command) = match arguments {
        [key, _, command @ ..] if is_separated => (key, command),
        [command @ .., key] => (key, command),
        [] => return Err(missing()),
    };
    if command.is_empty() { Err(missing()) } else { Ok((key, command)) }
}

async fn run_at_changes(mut session: Session, mut watch: Watch, command: &[OsString]) -> Result<(), Failure> {
    let mut children = JoinSet::new();
    loop {
        let is_full = children.len() >= CHILDREN_MAX;
        tokio::select! {
            response = session.cluster.next(&mut watch), if !is_full => {
                let response = response.map_err(|error| refused(&error))?;
                if response.node.dir {
                    complain(format_args!("Ignored dir {} change", response.node.key));
                } else {
                    start(&mut children, command, &response);
                }
            }
            Some(ended) = children.join_next() => heed(command, ended.map_err(io::Error::other))?,
        }
    }
}

fn start(children: &mut JoinSet<io::Result<ExitStatus>>, command: &[OsString], response: &Response) {
    let Some((program, arguments)) = command.split_first() else { return };
    let mut child = Child::new(program);
    child.args(arguments).envs(variables(response));
    children.spawn_blocking(move || child.status());
}

fn variables(response: &Response) -> [(&'static str, String); 4] {
    [
        ("ETCD_WATCH_ACTION", response.action.clone()),
        ("ETCD_WATCH_MODIFIED_INDEX", response.node.modified_index.to_string()),
        ("ETCD_WATCH_KEY", response.node.key.clone()),
        ("ETCD_WATCH_VALUE", response.node.value.clone()),
    ]
}

/// How a command ends is its own affair, but it must be there.
fn heed(command: &[OsString], ended: io::Result<io::Result<ExitStatus>>) -> Result<(), Failure> {
    let Err(error) = ended.flatten() else { return Ok(()) };
    let program = command.first().cloned().unwrap_or_default();
    complain_on_same_line(go_text::start_failure(&program, &error));
    Err(Failure::reported(Exit::Error))
}

/// An interrupt is how a watch is meant to end.
///
/// # Errors
/// What the work failed with.
pub(super) async fn unless_interrupted(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::select! {
        outcome = work => outcome,
        interrupted = signal::ctrl_c() => Ok(interrupted?),
    }
}

/// Commands that run at a time; a change that finds so many waits for one to end.
const CHILDREN_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Option<(String, Vec<String>)> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        let (key, command) = key_and_command(&words).ok()?;
        let text = |word: &OsString| word.to_string_lossy().into_owned();
        Some((text(key), command.iter().map(text).collect()))
    }

    #[test]
    fn the_key_comes_first_before_two_dashes_and_last_without() {
        let expected = |key: &str, command: &[&str]| {
            Some((key.to_owned(), command.iter().map(ToString::to_string).collect::<Vec<_>>()))
        };
        assert_eq!(split("/k -- sh -c x"), expected("/k", &["sh", "-c", "x"]));
        assert_eq!(split("sh -c x /k"), expected("/k", &["sh", "-c", "x"]));
        assert_eq!((split(""), split("/k"), split("/k --")), (None, None, None));
    }

    #[test]
    fn a_command_that_is_not_there_ends_the_watch() {
        let words = [OsString::from("/does/not/exist")];
        let ended = Ok(Child::new(&words[0]).status());
        assert_eq!(heed(&words, ended), Err(Failure::reported(Exit::Error)));
        assert_eq!(heed(&words, Ok(Child::new("false").status())), Ok(()));
    }
}
