//! `import`: a member of etcd becomes one of ours.

use std::path::Path;

use super::{
    super::{
        failure::Failure,
        log,
        output::{self, Facts},
        parse::Call,
        speak::complain,
        table::{Command, Flag, Group, Running, Values},
    },
    add_hash, file, of_member, restore, short, source, style_of_facts,
};
use crate::{
    server::offline::{self, ImportReport},
    types::with_causes,
};

const CHECK: Flag = Flag::switch("check", "read and check everything, say what would be done, and write nothing");
pub(super) const FROM_WAL_DIR: Flag =
    Flag::text("from-wal-dir", "", "where the write-ahead log is, if not in the directory that is read")
        .values(Values::Files);
const DATA_DIR: Flag = Flag::text("data-dir", "", "directory to make, missing or empty").values(Values::Files);

pub(super) const IMPORT: Command = Command {
    name: "import",
    arguments: "<directory|snapshot>",
    about: "Takes a member over from etcd, or makes one of a snapshot file",
    group: Group::Maintenance,
    details: "Makes a data directory of Quorate of one of etcd 3.5 to 3.7, whose etcd is stopped or was killed. The member keeps its\n\
              identifiers, its term, its vote and its log: its cluster sees a restart. Everything that is committed is applied,\n\
              and the key space is compared with etcd's by its hash. Start it with etcd's options and the new --data-dir;\n\
              --compat-version=X.Y with the cluster's version keeps the way back open.\n\n\
              etcd's directory is not deleted: its member/ is renamed to member.imported, and a file called member, which\n\
              etcd refuses to start on, tells the way back. A member must never run twice, nor from an older copy.\n\n\
              Of a snapshot file, which says nothing of a member, a member of a new cluster is made, as by `snapshot restore`,\n\
              whose options it takes. Keys of the v2 API of etcd are not taken over: a directory with some is refused.\n\n\
              With --check nothing is written: everything is read and checked, and told what would be done.",
    flags: FLAGS,
    run: Some(run),
    ..Command::EMPTY
};

/// What a directory needs, and then what only a snapshot file needs.
const FLAGS: &[Flag] = &[
    DATA_DIR,
    restore::WAL_DIR,
    FROM_WAL_DIR,
    CHECK,
    restore::NAME,
    restore::INITIAL_CLUSTER,
    restore::TOKEN,
    restore::PEER_URLS,
    restore::SKIP_HASH_CHECK,
    restore::BUMP_REVISION,
    restore::MARK_COMPACTED,
];
const FOUNDING: &[Flag] = FLAGS.split_at(4).1;

fn run(call: Call) -> Running {
    Box::pin(async move {
        let missing = || Failure::bad_arguments("import requires exactly one argument");
        let from = file::path(&call).ok_or_else(missing)?;
        let style = style_of_facts(&call)?;
        if call.flags.text(&DATA_DIR).is_empty() && !call.flags.switch(&CHECK) {
            return Err(Failure::bad_arguments("import requires --data-dir, a directory to make"));
        }
        log::start_verbose();
        if from.is_file() {
            return of_snapshot(&from, &call).await;
        }
        if let Some(flag) = FOUNDING.iter().find(|flag| call.flags.is_set(flag)) {
            let text = format_args!("--{} is for snapshot files: a member keeps what it has", flag.name).to_string();
            return Err(Failure::bad_arguments(text));
        }
        let report = of_directory(&from, &call)?;
        output::print(style, &facts(&report))?;
        advise(&call, &report);
        Ok(())
    })
}

/// A snapshot file has no member in it.
async fn of_snapshot(path: &Path, call: &Call) -> Result<(), Failure> {
    if call.flags.switch(&CHECK) {
        return Err(Failure::bad_arguments(
            "--check is for directories: look into a snapshot file with `snapshot status`",
        ));
    }
    if call.flags.is_set(&FROM_WAL_DIR) {
        return Err(Failure::bad_arguments("--from-wal-dir is for directories: a snapshot file has no log"));
    }
    restore::restore(path, call).await.map(drop)
}

fn of_directory(from: &Path, call: &Call) -> Result<ImportReport, Failure> {
    let from_wal_dir = file::given(call, &FROM_WAL_DIR);
    let source = source(from, from_wal_dir.as_deref());
    let done = if call.flags.switch(&CHECK) {
        offline::examine(&source)
    } else {
        let (data_dir, wal_dir) = (call.flags.text(&DATA_DIR), file::given(call, &restore::WAL_DIR));
        offline::import(&source, Path::new(data_dir), wal_dir.as_deref())
    };
    done.map_err(|cause| file::failed(with_causes(&cause)))
}

fn facts(report: &ImportReport) -> Facts {
    let ImportReport { identity, cluster, database, commit, last, term, hash, torn, kept } = report;
    let name = cluster.member(identity.member).map(|member| member.attributes.name.as_str()).unwrap_or_default();
    let mut facts = of_member(identity, Some(name), cluster.version(), cluster.members().len());
    facts.number("Term", *term);
    facts.number("Database", database.0);
    facts.number("Commit", commit.0);
    facts.number("Last", last.0);
    add_hash(&mut facts, hash.revision, hash.hash);
    if let Some(torn) = torn {
        facts.text("Torn", format_args!("{} at offset {}: {}", torn.file, torn.offset, torn.what));
    }
    if let Some(kept) = kept {
        facts.text("Kept", kept.display());
    }
    facts
}

/// What comes next, for people.
fn advise(call: &Call, report: &ImportReport) {
    let from = call.arguments.first().map(|from| Path::new(from).display().to_string()).unwrap_or_default();
    let data_dir = call.flags.text(&DATA_DIR);
    let Some(_) = report.kept else {
        complain(format_args!(
            "nothing was written; an import would apply {} entries behind etcd's database, and rename {from}/member",
            report.commit.0.saturating_sub(report.database.0)
        ));
        return;
    };
    let version = report.cluster.version().map(short);
    let compat = version.map(|version| format!(" and --compat-version={version}")).unwrap_or_default();
    complain(format_args!(
        "start it with etcd's options, --data-dir={data_dir}{compat}; {from}/member tells the way back"
    ));
}
