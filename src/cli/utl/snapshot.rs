//! `snapshot` and `hashkv`: what is in a file.

use super::{
    super::{
        failure::Failure,
        output::{self, HashOfFile, StatusOfFile},
        parse::Call,
        table::{Command, Flag, Group, Running},
    },
    TIMEOUT, file, restore, style,
};
use crate::etcdfile::summary::{self, FileHashError};

const REV: Flag = Flag::integer("rev", "revision up to which to hash, 0 means the latest");

pub(super) const SNAPSHOT: Command = Command {
    name: "snapshot",
    arguments: "<subcommand>",
    about: "Works with snapshot files",
    group: Group::Maintenance,
    commands: &[
        restore::RESTORE,
        Command {
            name: "status",
            arguments: "<filename>",
            about: "Shows what a snapshot file holds",
            details: "Shows what a snapshot file holds, after checking it as a whole: every page, the order of keys, and the \
                      SHA-256\nthat `snapshot save` has put at its end.\n\nThe simple form has one line: hash, revision, number of \
                      keys, size, version.",
            run: Some(status),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

pub(super) const HASH_KV: Command = Command {
    name: "hashkv",
    arguments: "<filename>",
    about: "Shows a hash over the history in a file",
    group: Group::Maintenance,
    details: "Shows a hash over the history in a snapshot file or a database, the one that `endpoint hashkv` shows of a member.\n\n\
              The simple form has one line: hash, revision that was hashed, revision of the last compaction. The file is not\n\
              changed.",
    flags: &[REV],
    run: Some(hash_kv),
    ..Command::EMPTY
};

fn status(call: Call) -> Running {
    Box::pin(async move {
        let missing = || Failure::bad_arguments("snapshot status requires exactly one argument");
        let path = file::path(&call).ok_or_else(missing)?;
        file::check(&path)?;
        let style = style(&call)?;
        let reader = file::open(&path, call.flags.duration(&TIMEOUT)).await?;
        let summary = summary::summarize(&reader).map_err(|cause| file::damaged(&cause))?;
        file::check_sum(&reader)?;
        output::print(style, &StatusOfFile(summary))
    })
}

fn hash_kv(call: Call) -> Running {
    Box::pin(async move {
        let missing = || file::failed(format_args!("accepts 1 arg(s), received {}", call.arguments.len()));
        let path = file::path(&call).ok_or_else(missing)?;
        let style = style(&call)?;
        file::check(&path)?;
        let reader = file::open(&path, call.flags.duration(&TIMEOUT)).await?;
        file::check_sum(&reader)?;
        let hash = summary::hash_kv(&reader, call.flags.integer(&REV)).map_err(|error| match error {
            FileHashError::Database(cause) => file::damaged(&cause),
            refusal => file::failed(refusal),
        })?;
        output::print(style, &HashOfFile(hash))
    })
}
