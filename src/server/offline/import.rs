//! etcd's member as one of ours: the same identifiers, term, vote and log, so that its cluster sees a restart.

use std::{
    iter,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Building, OfflineError,
    building::{Owner, check_apart},
    fence::{Fence, absolute},
    foreign::Foreign,
};
use crate::{
    apply::{
        Applier, ApplyOptions,
        exchange::{self, ExchangeError, ImportOptions, Imported},
    },
    disk::FileDirectory,
    etcdfile::{
        bbolt::Reader,
        summary::{self, FileHash},
    },
    membership::{Cluster, Version},
    server::{
        Identity, REMOVED_REMEDY,
        durability::{self, Mark},
    },
    storage::{Engine as _, FjallEngine, sorter::SORT_BYTES_DEFAULT},
    types::{LogIndex, MemberId},
    wal::{self, Repair, Wal},
};

/// Which member is to be taken over.
#[derive(Clone, Debug)]
pub struct Import<'i> {
    /// etcd's data directory.
    pub from: &'i Path,
    /// Where its log is, if not in there.
    pub from_wal_dir: Option<&'i Path>,
    /// The etcd version that our members report at most.
    pub server_version: Version,
}

/// What an import would bring, or has brought.
#[derive(Clone, Debug)]
pub struct ImportReport {
    /// Who the member is.
    pub identity: Identity,
    /// Its cluster, as of the last applied entry.
    pub cluster: Arc<Cluster>,
    /// Where etcd's database stands.
    pub database: LogIndex,
    /// The last committed entry, up to which the state was or would be brought.
    pub commit: LogIndex,
    /// The last entry of the log.
    pub last: LogIndex,
    /// Term, and the hash of the key space where etcd's database stands.
    pub term: u64,
    /// The hash of the key space where etcd's database stands.
    pub hash: FileHash,
    /// What the end of the log will lose: an interrupted write.
    pub torn: Option<Repair>,
    /// Where etcd's data are now; nothing if nothing was changed.
    pub kept: Option<PathBuf>,
}

/// Reads all of etcd's directory, as an import would, and says what it would bring. Writes nothing.
///
/// # Errors
/// What an import would fail with.
pub fn examine(order: &Import<'_>) -> Result<ImportReport, OfflineError> {
    let foreign = Foreign::read(order.from, order.from_wal_dir)?;
    foreign.check_entries()?;
    let reader = Reader::open(foreign.database()?).map_err(ExchangeError::from)?;
    let Imported { cluster, .. } = exchange::examine(&reader, &options(&foreign, order))?;
    check_member(&cluster, &foreign)?;
    Ok(report(&foreign, cluster, hash(&reader)?))
}

/// Makes a data directory of ours of etcd's, with everything that is committed applied, and then fences etcd's.
///
/// # Errors
/// [`OfflineError`]; then everything is as it was.
pub fn import(order: &Import<'_>, data_dir: &Path, wal_dir: Option<&Path>) -> Result<ImportReport, OfflineError> {
    let foreign = Foreign::read(order.from, order.from_wal_dir)?;
    foreign.check_entries()?;
    check_apart(iter::once(order.from).chain(order.from_wal_dir), iter::once(data_dir).chain(wal_dir))?;
    let building = Building::begin(data_dir, wal_dir, Owner::Quorate)?;
    let (mark, hash) = building.state(|engine, scratch| load(&foreign, order, engine, scratch))?;
    check_member(&mark.cluster, &foreign)?;
    write_log(&building, &foreign, &mark)?;
    let mut report = report(&foreign, Arc::clone(&mark.cluster), hash);
    // The fence stands before there is a second member.
    let fence = Fence::raise(order.from, "imported", |kept| note(order.from, kept, data_dir, &report))?;
    report.kept = Some(fence.kept().to_owned());
    match building.finish() {
        Ok(()) => Ok(report),
        Err(cause) => {
            fence.lower();
            Err(cause)
        }
    }
}

fn options(foreign: &Foreign, order: &Import<'_>) -> ImportOptions {
    ImportOptions {
        cluster: foreign.metadata.cluster,
        server_version: order.server_version,
        index: Some(LogIndex(foreign.position.index)),
        memory_bytes: SORT_BYTES_DEFAULT,
    }
}

/// The rows of the database, compared with it, and what the log has committed behind them.
fn load(
    foreign: &Foreign,
    order: &Import<'_>,
    engine: &FjallEngine,
    scratch: &FileDirectory,
) -> Result<(Mark, FileHash), OfflineError> {
    let imported = exchange::import(foreign.database()?, engine, scratch, &options(foreign, order))?;
    let hash = hash(&Reader::open(foreign.database()?).map_err(ExchangeError::from)?)?;
    let apply = ApplyOptions::new(foreign.metadata.member, order.server_version);
    let mut applier = Applier::open(engine.clone(), apply)?;
    let own = applier.published().view.hash_kv(0)?;
    if (own.hash, own.revision) != (hash.hash, hash.revision) {
        return Err(OfflineError::Hash { own: own.hash, theirs: hash.hash, revision: hash.revision });
    }
    foreign.entries(imported.applied, foreign.commit(), |entries| {
        applier.apply(entries)?;
        Ok(())
    })?;
    engine.persist()?;
    let state = applier.published();
    Ok((Mark { index: state.applied, term: state.term, cluster: state.cluster }, hash))
}

fn hash<F: crate::disk::DiskFile>(reader: &Reader<F>) -> Result<FileHash, OfflineError> {
    Ok(summary::hash_kv(reader, 0)?)
}

fn check_member(cluster: &Cluster, foreign: &Foreign) -> Result<(), OfflineError> {
    let id = foreign.metadata.member;
    if cluster.is_removed(id) {
        return Err(OfflineError::Removed { member: id, remedy: REMOVED_REMEDY });
    }
    // A database that etcd has restored from a snapshot keeps the voters of the cluster it came from, until the next change.
    let configuration = cluster.configuration();
    if let Some(stranger) =
        configuration.voters.iter().chain(&configuration.learners).find(|id| cluster.member(MemberId(**id)).is_none())
    {
        return Err(OfflineError::ForeignVoter(MemberId(*stranger)));
    }
    if cluster.member(id).is_some() { Ok(()) } else { Err(OfflineError::NotMember(id)) }
}

/// The log from etcd's snapshot on, in a log of its own.
fn write_log(building: &Building, foreign: &Foreign, mark: &Mark) -> Result<(), OfflineError> {
    let mut log = Wal::create(building.log(), foreign.metadata, &wal::Options::default())?;
    if foreign.base.index > 0 {
        log.mark_snapshot(&foreign.base)?;
    }
    log.append(&[], Some(&foreign.hard_state))?;
    foreign.entries(LogIndex(foreign.base.index), foreign.last, |entries| {
        log.append(entries, None)?;
        Ok(log.sync()?)
    })?;
    let record = durability::write_file(&building.snap(), mark, None)?;
    log.mark_snapshot(&record)?;
    Ok(log.sync()?)
}

fn report(foreign: &Foreign, cluster: Arc<Cluster>, hash: FileHash) -> ImportReport {
    ImportReport {
        identity: Identity { member: foreign.metadata.member, cluster: foreign.metadata.cluster },
        cluster,
        database: LogIndex(foreign.position.index),
        commit: foreign.commit(),
        last: foreign.last,
        term: foreign.hard_state.term,
        hash,
        torn: foreign.torn.clone(),
        kept: None,
    }
}

/// What stands where etcd looks for its data.
fn note(root: &Path, kept: &Path, data_dir: &Path, report: &ImportReport) -> String {
    let Identity { member, cluster } = report.identity;
    let [root, kept, data_dir] = [root, kept, data_dir].map(absolute);
    let (root, kept, data_dir) = (root.display(), kept.display(), data_dir.display());
    format!(
        "This was the data directory of etcd member {member} of cluster {cluster}. Quorate has taken it over:\n\
         the member lives in {data_dir} now. What was here is in\n\
         {kept}, unchanged.\n\n\
         This is a file so that etcd does not start: a member that falls back behind what it has acknowledged\n\
         can cost its cluster data.\n\n\
         The way back, if Quorate was never started on the new directory:\n    \
         rm {root}/member && mv {kept} {root}/member\n\
         and otherwise, with Quorate stopped, into a new directory for etcd:\n    \
         quorateutl export --data-dir {data_dir} --to-data-dir DIR"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use prost::Message as _;
    use tempfile::TempDir;

    use super::{super::resident::Resident, *};
    use crate::{
        disk::Directory as _,
        membership::Founding,
        pb::{
            etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader},
            raftpb::{Entry, HardState},
            walpb,
        },
        storage::MemoryEngine,
        types::MemberId,
    };

    const OWN: Version = Version::minor(3, 7);

    fn founding() -> Founding {
        Founding::new(&[("m1".to_owned(), vec!["http://127.0.0.1:2380".to_owned()])].into(), "t").unwrap()
    }

    fn member() -> MemberId {
        founding().members().next().unwrap().id
    }

    /// The founding entry, and a put in each of the others.
    fn entries(last: u64, term: u64) -> Vec<Entry> {
        let put = |index| {
            let put = PutRequest { key: format!("k{index}").into(), value: "v".into(), ..Default::default() };
            let header = RequestHeader { id: index, ..Default::default() };
            let request = InternalRaftRequest { header: Some(header), put: Some(put), ..Default::default() };
            Entry { index, term, data: request.encode_to_vec().into(), ..Default::default() }
        };
        founding().entries().into_iter().chain((2..=last).map(put)).collect()
    }

    /// The state after `last` entries, as etcd's database.
    fn database(root: &Path, name: &str, last: u64) {
        let options = ApplyOptions::new(member(), OWN);
        let mut applier = Applier::open(MemoryEngine::new(), options).unwrap();
        applier.establish(founding().cluster_id(), &founding().configuration()).unwrap();
        applier.apply(&entries(last, 2)).unwrap();
        let file = FileDirectory::new(root.join("member/snap")).create(name).unwrap();
        exchange::export(&applier.published(), file).unwrap();
    }

    /// A directory of etcd's: where the database stands, and what the log holds.
    struct Etcds {
        database: u64,
        last: u64,
        term: u64,
        commit: u64,
        mark: Option<u64>,
        member: MemberId,
    }

    impl Etcds {
        fn new(database: u64, last: u64, commit: u64) -> Self {
            Self { database, last, term: 2, commit, mark: None, member: member() }
        }

        fn make(&self) -> TempDir {
            let home = tempfile::tempdir().unwrap();
            let root = home.path().join("etcd");
            for name in ["snap", "wal"] {
                fs::create_dir_all(root.join("member").join(name)).unwrap();
            }
            database(&root, "db", self.database);
            let metadata = wal::Metadata { member: self.member, cluster: founding().cluster_id() };
            let options = wal::Options { segment_bytes: 1 << 16, unsafe_no_fsync: true };
            let mut log = Wal::create(FileDirectory::new(root.join("member/wal")), metadata, &options).unwrap();
            log.append(&entries(self.last, self.term), None).unwrap();
            if let Some(index) = self.mark {
                let conf_state = Some(founding().configuration());
                log.mark_snapshot(&walpb::Snapshot { index, term: 2, conf_state }).unwrap();
            }
            log.append(&[], Some(&HardState { term: 2, vote: 7, commit: self.commit })).unwrap();
            log.sync().unwrap();
            home
        }
    }

    fn take(home: &TempDir) -> Result<(ImportReport, Resident), OfflineError> {
        let (from, to) = (home.path().join("etcd"), home.path().join("ours"));
        let order = Import { from: &from, from_wal_dir: None, server_version: OWN };
        let examined = examine(&order);
        let report = import(&order, &to, None);
        assert_eq!(examined.is_ok(), report.is_ok(), "{examined:?}, {report:?}");
        assert_eq!(report.is_ok(), to.exists(), "what fails leaves nothing");
        assert_eq!(report.is_ok(), from.join("member").is_file(), "what succeeds leaves a fence");
        Ok((report?, Resident::open(&to, None, OWN)?))
    }

    fn refusal(etcds: &Etcds) -> String {
        take(&etcds.make()).err().unwrap().to_string()
    }

    #[test]
    fn what_is_committed_is_applied_and_the_rest_kept() {
        let (report, ours) = take(&Etcds::new(5, 9, 7).make()).unwrap();
        assert_eq!((report.database, report.commit, report.last), (LogIndex(5), LogIndex(7), LogIndex(9)));
        assert_eq!((ours.hard_state.term, ours.hard_state.vote, ours.last), (2, 7, LogIndex(9)));
        assert_eq!(ours.state().applied, LogIndex(9), "a lone voter agrees with itself");
        assert_eq!(ours.state().view.hash_kv(0).unwrap().revision, 9);
    }

    #[test]
    fn commits_that_etcd_had_no_time_to_note_count() {
        let (report, _) = take(&Etcds::new(8, 9, 2).make()).unwrap();
        assert_eq!(report.commit, LogIndex(8));
    }

    #[test]
    fn database_ahead_of_its_log_is_the_beginning_of_ours() {
        let (report, ours) = take(&Etcds::new(9, 6, 4).make()).unwrap();
        assert_eq!((report.commit, report.last, ours.last), (LogIndex(9), LogIndex(9), LogIndex(9)));
        assert_eq!(ours.state().applied, LogIndex(9));
    }

    #[test]
    fn received_database_that_was_not_in_its_place_yet_is_taken() {
        let etcds = Etcds { mark: Some(20), ..Etcds::new(5, 5, 20) };
        assert!(refusal(&etcds).contains("the log goes on from a snapshot at entry 20"));
        let home = etcds.make();
        database(&home.path().join("etcd"), "0000000000000014.snap.db", 20);
        let (report, ours) = take(&home).unwrap();
        assert_eq!((report.database, ours.state().applied), (LogIndex(20), LogIndex(20)));
    }

    #[test]
    fn parts_of_different_members_are_refused() {
        let other_term = Etcds { term: 3, ..Etcds::new(5, 9, 7) };
        assert!(refusal(&other_term).contains("entry 5 is of term 3 in the log and of term 2"));
        let other_member = Etcds { member: MemberId(9), ..Etcds::new(5, 9, 7) };
        assert!(refusal(&other_member).contains("member 9, which the database does not know"));
    }
}
