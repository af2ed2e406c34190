//! `export`: a member of ours goes back to etcd, or its state into a snapshot file.

use super::{
    super::{
        failure::Failure,
        log,
        output::{self, Facts},
        parse::Call,
        speak::complain,
        table::{Command, Flag, Group, Running, Values},
    },
    add_hash, file,
    import::FROM_WAL_DIR,
    of_member, restore, short, source, style_of_facts,
};
use crate::{
    server::offline::{self, ExportReport},
    types::with_causes,
};

const DATA_DIR: Flag =
    Flag::text("data-dir", "", "data directory of Quorate, whose daemon is stopped").values(Values::Files);
const TO_DATA_DIR: Flag =
    Flag::text("to-data-dir", "", "data directory of etcd to make, missing or empty").values(Values::Files);
const TO_SNAPSHOT: Flag = Flag::text("to-snapshot", "", "snapshot file to write").values(Values::Files);

pub(super) const EXPORT: Command = Command {
    name: "export",
    about: "Hands a member over to etcd, or writes its state as a snapshot file",
    group: Group::Maintenance,
    details: "Makes a data directory of etcd of one of Quorate, whose daemon is stopped or was killed. The member keeps its identifiers,\n\
              its term, its vote and what is in its log. etcd of the version of the cluster, or of a newer one, starts on it.\n\n\
              The directory of Quorate is not deleted: its member/ is renamed to member.exported, and a file called member, which\n\
              Quorate refuses to start on, tells the way back. A member must never run twice, nor from an older copy.\n\n\
              With --to-snapshot the state goes into a snapshot file, as `snapshot save` writes it, and the directory stays as\n\
              it is; it may lie on a mount that is read-only. A member with keys of the v2 API is refused: etcd's database has no place\n\
              for them.",
    flags: &[DATA_DIR, FROM_WAL_DIR, TO_DATA_DIR, restore::WAL_DIR, TO_SNAPSHOT],
    run: Some(run),
    ..Command::EMPTY
};

fn run(call: Call) -> Running {
    Box::pin(async move {
        let style = style_of_facts(&call)?;
        let report = export(&call)?;
        output::print(style, &facts(&report))?;
        if report.kept.is_some() {
            let version = report.version.map(|version| format!(" {} or newer", short(version))).unwrap_or_default();
            let (from, to) = (call.flags.text(&DATA_DIR), call.flags.text(&TO_DATA_DIR));
            complain(format_args!("start etcd{version} with --data-dir={to}; {from}/member tells the way back"));
        }
        Ok(())
    })
}

fn export(call: &Call) -> Result<ExportReport, Failure> {
    if !call.arguments.is_empty() {
        return Err(Failure::bad_arguments("export takes no arguments: name the directory with --data-dir"));
    }
    let missing = || Failure::bad_arguments("export requires --data-dir, and one of --to-data-dir and --to-snapshot");
    let [from, to, snapshot] = [&DATA_DIR, &TO_DATA_DIR, &TO_SNAPSHOT].map(|flag| file::given(call, flag));
    let (wal_dir, from_wal_dir) = (file::given(call, &restore::WAL_DIR), file::given(call, &FROM_WAL_DIR));
    let from = from.ok_or_else(missing)?;
    if snapshot.is_some() && wal_dir.is_some() {
        return Err(Failure::bad_arguments("--wal-dir goes with --to-data-dir: a snapshot file has no log"));
    }
    log::start_verbose();
    let source = source(&from, from_wal_dir.as_deref());
    let done = match (to.as_deref(), snapshot.as_deref()) {
        (Some(to), None) => offline::export(&source, to, wal_dir.as_deref()),
        (None, Some(file)) => offline::export_snapshot(&source, file),
        _ => return Err(missing()),
    };
    done.map_err(|cause| file::failed(with_causes(&cause)))
}

fn facts(report: &ExportReport) -> Facts {
    let ExportReport { identity, index, last, revision, hash, version, members, kept } = report;
    let mut facts = of_member(identity, None, *version, *members);
    facts.number("Database", index.0);
    facts.number("Last", last.0);
    add_hash(&mut facts, *revision, *hash);
    if let Some(kept) = kept {
        facts.text("Kept", kept.display());
    }
    facts
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn facts_name_what_was_kept_only_if_something_was() {
        let report = ExportReport {
            identity: crate::server::Identity {
                member: crate::types::MemberId(1),
                cluster: crate::types::ClusterId(2),
            },
            index: crate::types::LogIndex(3),
            last: crate::types::LogIndex(4),
            revision: 5,
            hash: 6,
            version: None,
            members: 1,
            kept: None,
        };
        let told = |report: &ExportReport| facts(report).names().any(|name| name == "Kept");
        assert!(!told(&report) && told(&ExportReport { kept: Some(Path::new("x").into()), ..report }));
    }
}
