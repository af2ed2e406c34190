//! Commands that change keys and directories.

use std::io::Read as _;

use super::{
    super::{
        failure::Failure,
        parse::{Call, Flags},
        table::{Command, Flag, Running},
    },
    global, output,
    read::key,
    session::{Session, bad_arguments, refused},
};
use crate::client::v2::{Condition, Deletion, Response, V2Error, Writing};

const TTL: Flag = Flag::integer("ttl", "seconds until it goes by itself");
const IN_ORDER: Flag = Flag::switch("in-order", "make a key in the directory <key>, named so that it comes last");
const SWAP_WITH_VALUE: Flag = Flag::text("swap-with-value", "", "only if this is the value");
const SWAP_WITH_INDEX: Flag = Flag::integer("swap-with-index", "only if this is the index of the last change");
const DIR: Flag = Flag::switch("dir", "a key, or a directory that is empty");
const RECURSIVE: Flag = Flag::switch("recursive", "a key, or a directory with everything below").short('r');
const WITH_VALUE: Flag = Flag::text("with-value", "", "only if this is the value");
const WITH_INDEX: Flag = Flag::integer("with-index", "only if this is the index of the last change");

pub(super) const MK: Command = Command {
    name: "mk",
    arguments: "<key> <value>",
    about: "makes a key that must not exist",
    flags: &[IN_ORDER, TTL],
    run: Some(mk),
    ..Command::EMPTY
};

fn mk(call: Call) -> Running {
    Box::pin(async move {
        let mut session = Session::open(&call).await?;
        let (key, value) = (key(&call)?, value(&call)?);
        let ttl_seconds = ttl(&call.flags);
        if call.flags.switch(&IN_ORDER) {
            let made = session.within(async |cluster| cluster.create_in_order(&key, &value, ttl_seconds).await).await;
            return show(&call, made);
        }
        let writing = Writing { ttl_seconds, condition: existence(Some(false)), ..Writing::default() };
        let made = session.within(async |cluster| cluster.set(&key, &value, &writing).await).await;
        show(&call, made)
    })
}

pub(super) const MKDIR: Command = Command {
    name: "mkdir",
    arguments: "<key>",
    about: "makes a directory that must not exist",
    flags: &[TTL],
    run: Some(|call| directory(call, Some(false))),
    ..Command::EMPTY
};

pub(super) const SETDIR: Command = Command {
    name: "setdir",
    arguments: "<key>",
    about: "makes a directory, or gives one another time to live",
    flags: &[TTL],
    run: Some(|call| directory(call, None)),
    ..Command::EMPTY
};

pub(super) const UPDATEDIR: Command = Command {
    name: "updatedir",
    arguments: "<key>",
    about: "gives a directory that exists another time to live",
    flags: &[TTL],
    run: Some(|call| directory(call, Some(true))),
    ..Command::EMPTY
};

fn directory(call: Call, exists: Option<bool>) -> Running {
    Box::pin(async move {
        let mut session = Session::open(&call).await?;
        let key = key(&call)?;
        let writing = Writing { dir: true, ttl_seconds: ttl(&call.flags), condition: existence(exists) };
        let response = session.within(async |cluster| cluster.set(&key, b"", &writing).await).await;
        let response = response.map_err(|error| refused(&error))?;
        match global::output(&call.flags) {
            "simple" => Ok(()),
            format => output::print(&response, format),
        }
    })
}

pub(super) const SET: Command = Command {
    name: "set",
    arguments: "<key> <value>",
    about: "gives a key a value",
    details: "Gives a key a value, whether it exists or not. Without <value>, standard input is the value.\n\n   \
              A <value> that begins with '-' may be taken for a flag; '--' in front of the key\n   prevents that:\n\n   \
              $ set -- <key> <value>",
    flags: &[TTL, SWAP_WITH_VALUE, SWAP_WITH_INDEX],
    run: Some(set),
    ..Command::EMPTY
};

fn set(call: Call) -> Running {
    Box::pin(async move {
        let mut session = Session::open(&call).await?;
        let (key, value) = (key(&call)?, value(&call)?);
        let condition = compared(&call.flags, &SWAP_WITH_VALUE, &SWAP_WITH_INDEX);
        let writing = Writing { ttl_seconds: ttl(&call.flags), condition, dir: false };
        let response = session.within(async |cluster| cluster.set(&key, &value, &writing).await).await;
        show(&call, response)
    })
}

pub(super) const UPDATE: Command = Command {
    name: "update",
    arguments: "<key> <value>",
    about: "gives a key that exists another value",
    flags: &[TTL],
    run: Some(update),
    ..Command::EMPTY
};

fn update(call: Call) -> Running {
    Box::pin(async move {
        let mut session = Session::open(&call).await?;
        let (key, value) = (key(&call)?, value(&call)?);
        let writing = Writing { ttl_seconds: ttl(&call.flags), condition: existence(Some(true)), dir: false };
        let response = session.within(async |cluster| cluster.set(&key, &value, &writing).await).await;
        show(&call, response)
    })
}

pub(super) const RM: Command = Command {
    name: "rm",
    arguments: "<key>",
    about: "removes a key or a directory",
    flags: &[DIR, RECURSIVE, WITH_VALUE, WITH_INDEX],
    run: Some(|call| {
        let deletion = Deletion {
            recursive: call.flags.switch(&RECURSIVE),
            dir: call.flags.switch(&DIR),
            condition: compared(&call.flags, &WITH_VALUE, &WITH_INDEX),
        };
        remove(call, deletion)
    }),
    ..Command::EMPTY
};

pub(super) const RMDIR: Command = Command {
    name: "rmdir",
    arguments: "<key>",
    about: "removes a key, or a directory that is empty",
    run: Some(|call| remove(call, Deletion { dir: true, ..Deletion::default() })),
    ..Command::EMPTY
};

fn remove(call: Call, deletion: Deletion) -> Running {
    Box::pin(async move {
        let mut session = Session::open(&call).await?;
        let key = key(&call)?;
        let response = session.within(async |cluster| cluster.delete(&key, &deletion).await).await;
        let response = response.map_err(|error| refused(&error))?;
        match global::output(&call.flags) {
            "simple" if response.node.dir => Ok(()),
            format => output::print(&response, format),
        }
    })
}

fn show(call: &Call, response: Result<Response, V2Error>) -> Result<(), Failure> {
    let response = response.map_err(|error| refused(&error))?;
    output::print(&response, global::output(&call.flags))
}

/// The second argument, or all of standard input. Nothing at all is no value.
fn value(call: &Call) -> Result<Vec<u8>, Failure> {
    if let Some(value) = call.argument_bytes().into_iter().nth(1) {
        return Ok(value);
    }
    let mut value = Vec::new();
    let read = std::io::stdin().lock().take(VALUE_BYTES_MAX).read_to_end(&mut value);
    if read.is_err() || value.is_empty() { Err(bad_arguments("value required")) } else { Ok(value) }
}

fn existence(exists: Option<bool>) -> Condition {
    Condition { exists, ..Condition::default() }
}

fn compared(flags: &Flags, value: &Flag, index: &Flag) -> Condition {
    Condition { value: flags.text(value).into(), index: flags.integer(index).cast_unsigned(), exists: None }
}

/// A time in the past is as good as none.
fn ttl(flags: &Flags) -> u64 {
    u64::try_from(flags.integer(&TTL)).unwrap_or(0)
}

/// Most that is read as a value: more than any member takes.
const VALUE_BYTES_MAX: u64 = 1 << 30;
