//! `backup`, which is refused.

use super::super::{
    failure::{Exit, Failure},
    parse::Call,
    table::{Command, Flag, Running, Values},
};

pub(super) const BACKUP: Command = Command {
    name: "backup",
    about: "refuses to copy a data directory, and says why",
    flags: &[
        Flag::text("data-dir", "", "the data directory").values(Values::Files),
        Flag::text("wal-dir", "", "its log, if that is elsewhere").values(Values::Files),
        Flag::text("backup-dir", "", "the copy").values(Values::Files),
        Flag::text("backup-wal-dir", "", "the log of the copy, if that is to be elsewhere").values(Values::Files),
        Flag::switch("with-v3", "with the keys of the v3 API"),
    ],
    run: Some(backup),
    ..Command::EMPTY
};

#[expect(clippy::needless_pass_by_value, reason = "the shape of every command")]
fn backup(call: Call) -> Running {
    let name = call.program.name;
    Box::pin(async move { Err(Failure::bare(Exit::Error, format_args!("{name} backup: {WHY}"))) })
}

/// etcd's command rewrites log and snapshots, where its v2 keys are.
const WHY: &str = "not possible: the keys of a Quorate member are in its state, and a copy of its log and snapshots alone \
                   would lose them; stop the member and copy its data directory as a whole";
