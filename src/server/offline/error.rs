//! Why a directory was not made or not handed on.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::unistd::User;
use thiserror::Error;

use crate::{
    apply::{ApplyError, EntryError, exchange::ExchangeError},
    config::go,
    disk::Locker,
    etcdfile::{snap::SnapError, summary::FileHashError},
    mvcc::ReadError,
    storage::StorageError,
    types::{LogIndex, MemberId},
    wal::WalError,
};

use super::{
    super::{DataDirError, OpenError, datadir::told, recovery::PartsError},
    of_entries,
};

/// Why a directory was not made or not handed on. Nothing is left of it.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// The directory to be made holds something; etcd's words.
    #[error("data-dir {} not empty or could not be read", quoted(.0))]
    NotEmpty(PathBuf),
    /// Something is there that an interrupted process may have left.
    #[error(
        "{} exists: if no quorateutl is at work there, and it is what an interrupted one has left, remove {} and begin again",
        unfinished.display(),
        if remove == unfinished { "it".into() } else { remove.to_string_lossy() }
    )]
    Begun {
        /// What an interrupted process has left.
        unfinished: PathBuf,
        /// All that it has left.
        remove: PathBuf,
    },
    /// The directory for the log is there already; etcd's words.
    #[error("wal-dir {} exists", quoted(.0))]
    WalDirExists(PathBuf),
    /// One directory cannot be both.
    #[error(
        "--wal-dir {} is the data directory itself, or inside of its member/: leave it out, or give the log a directory of its own",
        quoted(.0)
    )]
    SameDirectory(PathBuf),
    /// Somebody votes who is no member of the cluster.
    #[error(
        "{0} votes by the log and its snapshot files, and is no member by the database: they do not belong together. Take a \
         snapshot of the running member (etcdctl snapshot save) and restore that (quorateutl snapshot restore)"
    )]
    ForeignVoter(MemberId),
    /// Somebody is a member who neither votes nor learns.
    #[error(
        "{0} is a member by the database, and neither votes nor learns by the log and its snapshot files: they do not belong \
         together. Take a snapshot of the running member (etcdctl snapshot save) and restore that (quorateutl snapshot restore)"
    )]
    NoVoter(MemberId),
    /// What is to be made lies inside of what it is made from.
    #[error("{} lies inside of {}, which is only read: name a place outside of it", target.display(), source_directory.display())]
    Inside {
        /// What is to be made.
        target: PathBuf,
        /// What it is made from.
        source_directory: PathBuf,
    },
    /// An operation on a path failed.
    #[error("{action} {}: check the path, its owner and permissions, and the free space", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// Something that the user who calls may not read.
    #[error("{} may not be read: run this as root{}", path.display(), or_as(owner.as_deref()))]
    Forbidden {
        /// What.
        path: PathBuf,
        /// Who may, if he is known.
        owner: Option<String>,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// No data directory of etcd's.
    #[error("{} holds no data of etcd: there is no member/snap/db in it", .0.display())]
    NotEtcds(PathBuf),
    /// No data directory of ours.
    #[error("{} holds no member of Quorate", .0.display())]
    NotOurs(PathBuf),
    /// Log and state of ours do not make a member.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A directory behind a fence.
    #[error("the data directory was handed on; {} says where to and how it comes back", .0.display())]
    HandedOn(PathBuf),
    /// Somebody uses the directory.
    #[error(
        "data directory {} is in use by another process{}: stop that process first",
        path.display(),
        told(holder.as_ref())
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, if it can be seen.
        holder: Option<Locker>,
    },
    /// The log is elsewhere.
    #[error("there is no write-ahead log in {}: if etcd was started with --wal-dir, name that directory with --from-wal-dir", .0.display())]
    NoLog(PathBuf),
    /// The database lacks what the log begins with.
    #[error(
        "{} stands at entry {stands}, but the log goes on from a snapshot at entry {snapshot}: the two are not of one member, or the member was interrupted while it received that snapshot and its file is gone; take the member's directory as a whole, or remove the member from the cluster and add it again",
        database.display()
    )]
    Behind {
        /// The file.
        database: PathBuf,
        /// Where it stands.
        stands: LogIndex,
        /// The newest snapshot in the log.
        snapshot: LogIndex,
    },
    /// The log lacks what comes behind the database.
    #[error(
        "the log has entries from {first} on and no snapshot to go on from, but the database stands at entry {stands}: segments of the log are missing; take the member's directory as a whole"
    )]
    NoStart {
        /// The first entry of the log.
        first: LogIndex,
        /// Where the database stands.
        stands: LogIndex,
    },
    /// Log and database are of different members.
    #[error(
        "entry {index} is of term {log} in the log and of term {database} in the database: they are not of one member (is --from-wal-dir right?)"
    )]
    OtherHistory {
        /// Where the database stands.
        index: LogIndex,
        /// The term in the log.
        log: u64,
        /// The term in the database.
        database: u64,
    },
    /// An entry that cannot be taken over.
    #[error("entry {index} of the log cannot be taken over")]
    Entry {
        /// Which.
        index: LogIndex,
        /// Why not.
        #[source]
        cause: EntryError,
    },
    /// Log and state of ours are not of one member.
    #[error(
        "the state stands at entry {state}, the log has {}, and they do not belong together: put the log and the state of one member together again (was --wal-dir changed?), restore the data directory from a backup, or remove the member from the cluster and add it again",
        of_entries(*first, *last)
    )]
    Apart {
        /// Where the state stands.
        state: LogIndex,
        /// The first entry of the log.
        first: LogIndex,
        /// The last one.
        last: LogIndex,
    },
    /// A snapshot file that etcd could not read.
    #[error("the v2 tree in {} does not parse: the file can be removed, older ones or the next one take its place", .0.display())]
    Tree(PathBuf),
    /// The member is none any more.
    #[error("the member {member} has been permanently removed from the cluster: {remedy}")]
    Removed {
        /// Which.
        member: MemberId,
        /// What to do.
        remedy: &'static str,
    },
    /// The database does not know the member whose log it is.
    #[error("the log is that of member {0}, which the database does not know: they do not belong together")]
    NotMember(MemberId),
    /// What was loaded is not what was read.
    #[error(
        "the loaded state has the hash {own} at revision {revision}, and the database {theirs}: nothing was changed; please report this"
    )]
    Hash {
        /// Of what was loaded.
        own: u32,
        /// Of what was read.
        theirs: u32,
        /// Where.
        revision: i64,
    },
    /// The hash of a database.
    #[error(transparent)]
    FileHash(#[from] FileHashError),
    /// The hash of a state.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A data directory of ours.
    #[error(transparent)]
    Directory(DataDirError),
    /// A member that has to be started first, or can be written at least.
    #[error(
        "{} received a snapshot, and was interrupted: what a start finishes has to be written there, and {} cannot be written",
        root.display(),
        read_only.display()
    )]
    Interrupted {
        /// The data directory.
        root: PathBuf,
        /// What cannot be written.
        read_only: PathBuf,
    },
    /// The founding members, or log and state.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// The database.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The state.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What was found wrong in a likeness of a state, said of the state itself.
    #[error("{0}")]
    Looked(String),
    /// An entry.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// A snapshot file.
    #[error(transparent)]
    Snap(#[from] SnapError),
}

impl From<DataDirError> for OfflineError {
    fn from(error: DataDirError) -> Self {
        match error {
            // What is said to who starts a member is of no use to who looks at one.
            DataDirError::InUse { path, holder } => Self::InUse { path, holder },
            other => Self::Directory(other),
        }
    }
}

impl OfflineError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |cause| Self::Io { action, path, cause }
    }

    /// `path` cannot be read.
    pub(super) fn unread(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |cause| match cause.kind() {
            io::ErrorKind::PermissionDenied => Self::Forbidden { owner: owner(&path), path, cause },
            _ => Self::Io { action: "reading", path, cause },
        }
    }

    /// Whether nothing of a directory could be looked at, so that it says nothing of what is in there.
    pub(super) fn is_of_access(&self) -> bool {
        matches!(self, Self::InUse { .. } | Self::Forbidden { .. } | Self::HandedOn(_))
    }
}

/// Who may read `path`, or the directory around it that keeps others out.
fn owner(path: &Path) -> Option<String> {
    let user = path.ancestors().find_map(|path| fs::metadata(path).ok())?.uid();
    User::from_uid(user.into()).ok()?.map(|user| user.name).filter(|name| name != "root")
}

fn or_as(owner: Option<&str>) -> String {
    owner.map_or_else(String::new, |owner| format!(", or as {owner}, whose it is"))
}

/// As Go quotes it.
fn quoted(path: &Path) -> String {
    go::quote(&path.to_string_lossy())
}
