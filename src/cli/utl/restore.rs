//! `snapshot restore`: a new cluster from a snapshot file.

use std::{
    net::{IpAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
};

use super::{
    super::{
        failure::Failure,
        log,
        parse::Call,
        table::{Command, Flag, Running, Values},
    },
    file,
};
use crate::{
    config::{Compat, InitialCluster, Url, check_founder},
    disk::OpenFile,
    etcdfile::database::{self, Seal},
    membership::Version,
    server::{
        Bootstrap, Identity,
        offline::{self, Restore},
    },
    types::with_causes,
};

pub(super) const DATA_DIR: Flag =
    Flag::text("data-dir", "", "directory to make, missing or empty; NAME.etcd if not given").values(Values::Files);
pub(super) const WAL_DIR: Flag =
    Flag::text("wal-dir", "", "directory to make for the write-ahead log, if it is to have one of its own")
        .values(Values::Files);
pub(super) const NAME: Flag = Flag::text("name", "default", "name of the member that the directory is for");
pub(super) const INITIAL_CLUSTER: Flag = Flag::text(
    "initial-cluster",
    "default=http://localhost:2380",
    "all members of the new cluster, with their peer URLs",
);
pub(super) const TOKEN: Flag =
    Flag::text("initial-cluster-token", "etcd-cluster", "token of the new cluster, part of all identifiers");
pub(super) const PEER_URLS: Flag = Flag::text(
    "initial-advertise-peer-urls",
    "http://localhost:2380",
    "peer URLs of this member, as in --initial-cluster",
);
pub(super) const SKIP_HASH_CHECK: Flag =
    Flag::switch("skip-hash-check", "take a file without SHA-256 (a copied database), or one with a wrong one");
pub(super) const BUMP_REVISION: Flag =
    Flag::unsigned("bump-revision", "revisions to pass over, so that none comes again that clients have seen")
        .also("revision-bump");
pub(super) const MARK_COMPACTED: Flag =
    Flag::switch("mark-compacted", "mark the history up to the new revision as compacted; needed with --bump-revision");
const MEMORY_MAP: Flag = Flag::unsigned("initial-memory-map-size", "has no effect here: nothing is mapped into memory");

pub(super) const RESTORE: Command = Command {
    name: "restore",
    arguments: "<filename>",
    about: "Makes a data directory of a snapshot file",
    details: "Makes the data directory of one member of a new cluster, which begins with what is in a snapshot file: keys with\n\
              their history, leases, users, roles and alarms. The file is one that `snapshot save` wrote, from Quorate or\n\
              etcd 3.4 to 3.7, or with --skip-hash-check a copy of etcd's member/snap/db.\n\n\
              Every member restores the same file, each with its own --name and --initial-advertise-peer-urls, and starts\n\
              with the same name and --data-dir. On any error nothing is left on the disk.\n\n\
              Clients that have seen revisions behind those of the file may be confused to meet other changes at them:\n\
              --bump-revision and --mark-compacted pass over so many revisions, and watchers begin anew.",
    flags: &[
        DATA_DIR,
        WAL_DIR,
        NAME,
        INITIAL_CLUSTER,
        TOKEN,
        PEER_URLS,
        SKIP_HASH_CHECK,
        BUMP_REVISION,
        MARK_COMPACTED,
        MEMORY_MAP,
    ],
    run: Some(run),
    ..Command::EMPTY
};

fn run(call: Call) -> Running {
    Box::pin(async move {
        let missing = || Failure::bad_arguments("snapshot restore requires exactly one argument");
        let path = file::path(&call).ok_or_else(missing)?;
        log::start_verbose();
        restore(&path, &call).await.map(drop)
    })
}

/// Makes what the flags of `call` say of the snapshot file at `path`.
///
/// # Errors
/// A [`Failure`] in the words of etcd's tool.
pub(super) async fn restore(path: &Path, call: &Call) -> Result<Identity, Failure> {
    let revisions_skipped = revisions_skipped(call)?;
    let bootstrap = bootstrap(call)?;
    let name = call.flags.text(&NAME);
    let (data_dir, wal_dir) = directories(call);
    let log_dir = wal_dir.clone().unwrap_or_else(|| data_dir.join("member/wal"));
    let (from, to, log) = (path.display(), data_dir.display(), log_dir.display());
    tracing::info!(path = %from, wal_dir = %log, data_dir = %to, "restoring snapshot");
    let order = Restore {
        data_dir: &data_dir,
        wal_dir: wal_dir.as_deref(),
        name,
        bootstrap: &bootstrap,
        server_version: newest_version(),
        revisions_skipped,
    };
    let database = file::lock(path, call.flags.duration(&super::TIMEOUT)).await?;
    check_seal(&database, call.flags.switch(&SKIP_HASH_CHECK))?;
    let identity = offline::restore(database, &order).map_err(|cause| file::failed(with_causes(&cause)))?;
    let Identity { member, cluster } = identity;
    tracing::info!(path = %from, wal_dir = %log, data_dir = %to, %member, %cluster, "restored snapshot");
    Ok(identity)
}

/// The directories to make.
pub(super) fn directories(call: &Call) -> (PathBuf, Option<PathBuf>) {
    let text = call.flags.text(&DATA_DIR);
    let data_dir = if text.is_empty() { format!("{}.etcd", call.flags.text(&NAME)) } else { text.to_owned() };
    (data_dir.into(), file::given(call, &WAL_DIR))
}

/// The newest version that a member of ours reports.
pub(super) fn newest_version() -> Version {
    let newest = Compat::ALL.last().and_then(|compat| compat.version().parse().ok());
    newest.unwrap_or(Version::minor(3, 7))
}

fn revisions_skipped(call: &Call) -> Result<Option<u64>, Failure> {
    let count = call.flags.unsigned(&BUMP_REVISION);
    if (count > 0) != call.flags.switch(&MARK_COMPACTED) {
        return Err(Failure::bad_arguments("--mark-compacted required if --revision-bump > 0"));
    }
    Ok(Some(count).filter(|count| *count > 0))
}

/// The new cluster, in which this member has its place.
fn bootstrap(call: &Call) -> Result<Bootstrap, Failure> {
    let advertised = Url::parse_list(call.flags.text(&PEER_URLS)).map_err(file::failed)?;
    let members = InitialCluster::parse(call.flags.text(&INITIAL_CLUSTER)).map_err(file::failed)?;
    check_founder(&members, call.flags.text(&NAME), Some(&advertised), &lookup)
        .map_err(|error| file::failed(error.what))?;
    let texts = |urls: &Vec<Url>| urls.iter().map(ToString::to_string).collect();
    let members = members.0.iter().map(|(name, urls)| (name.clone(), texts(urls))).collect();
    Ok(Bootstrap::new(members, call.flags.text(&TOKEN)))
}

fn lookup(host: &str) -> Option<Vec<IpAddr>> {
    let addresses = (host, 0).to_socket_addrs().ok()?;
    Some(addresses.map(|address| address.ip()).collect())
}

/// Checks the SHA-256 of a snapshot file, unless `skip`.
fn check_seal(file: &OpenFile, skip: bool) -> Result<(), Failure> {
    if skip {
        return Ok(());
    }
    match database::seals(file).map_err(|cause| file::damaged(&cause))? {
        None => Err(file::failed("snapshot missing hash but --skip-hash-check=false")),
        Some((carried, computed)) if carried != computed => {
            Err(file::failed(format_args!("expected sha256 {}, got {}", in_go(&carried), in_go(&computed))))
        }
        Some(_) => Ok(()),
    }
}

/// As Go prints a slice of bytes.
fn in_go(seal: &Seal) -> String {
    let numbers: Vec<_> = seal.iter().map(u8::to_string).collect();
    format!("[{}]", numbers.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_shown_as_etcds_tool_shows_them() {
        let shown = in_go(&[7; 32]);
        assert!(shown.starts_with("[7 7 7") && shown.ends_with(" 7]"), "{shown}");
    }

    #[test]
    fn newest_version_is_that_of_the_newest_compat() {
        assert_eq!(newest_version().without_patch(), Version::minor(3, 7));
    }
}
