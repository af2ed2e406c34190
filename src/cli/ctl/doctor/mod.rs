//! `doctor`: what is wrong with a cluster, as far as it shows from outside.
//!
//! First every endpoint and every member is looked at (`look`), which only reads; what was seen is plain values (`facts`),
//! and each rule (`rules`) tells from them one kind of mistake with its remedy.

mod facts;
mod look;
mod rules;

use super::{
    super::{
        failure::{Exit, Failure},
        output::{self, Findings, Format, Severity},
        parse::Call,
        speak::say,
        table::{Command, Flag, Group, Running},
    },
    global, session,
};
use facts::Cluster;

const HASHES: Flag =
    Flag::switch("hashes", "compare the histories of members, too, for which each reads all of its database");

pub(super) const DOCTOR: Command = Command {
    name: "doctor",
    is_own: true,
    arguments: "[options]",
    about: "Looks for what is wrong with a cluster, and tells what to do about it",
    details: "Looks at the endpoints and at every member they tell of, and names each mistake with its remedy in one line.\n\n\
              Nothing is changed. Errors and warnings make the exit code 1, hints do not. A line has four parts: how bad it\n\
              is, a name for scripts, the cause, the remedy.",
    group: Group::Maintenance,
    flags: &[HASHES],
    run: Some(doctor),
    ..Command::EMPTY
};

fn doctor(mut call: Call) -> Running {
    Box::pin(async move {
        let settings = session::settings_without_calls_logged(&mut call)?;
        global::check_limits(&call.flags)?;
        let cluster = look::at(&settings, call.flags.switch(&HASHES)).await;
        let findings = rules::judge(&cluster);
        let is_ill = findings.iter().any(|finding| finding.severity != Severity::Hint);
        output::print(settings.style, &Findings(findings))?;
        if settings.style.format == Format::Simple && !is_ill {
            say(format_args!("{}\n", all_is_well(&cluster)))?;
        }
        if is_ill { Err(Failure::reported(Exit::Error)) } else { Ok(()) }
    })
}

fn all_is_well(cluster: &Cluster) -> String {
    let (members, seats) = (cluster.members.len(), cluster.seats.len());
    format!("no mistake found: {members} members, {seats} endpoints")
}
