//! etcd's member as one of ours: the same identifiers, term, vote and log, so that its cluster sees a restart.

use std::{
    iter,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Building, OfflineError, Source,
    building::{Owner, check_apart},
    fence::Note,
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
    membership::Cluster,
    server::{
        Identity, REMOVED_REMEDY,
        durability::{self, Mark},
    },
    storage::{Engine as _, FjallEngine, sorter::SORT_BYTES_DEFAULT},
    types::{LogIndex, MemberId},
    wal::{self, Repair, Wal},
};

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
pub fn examine(source: &Source<'_>) -> Result<ImportReport, OfflineError> {
    let foreign = Foreign::read(source.from, source.from_wal_dir)?;
    foreign.check_entries()?;
    let reader = Reader::open(foreign.database()?).map_err(ExchangeError::from)?;
    let Imported { cluster, .. } = exchange::examine(&reader, &options(&foreign, source))?;
    let cluster = Arc::new(foreign.behind(&cluster)?);
    check_member(&cluster, &foreign)?;
    Ok(report(&foreign, cluster, hash(&reader)?))
}

/// Makes a data directory of ours of etcd's, with everything that is committed applied, and then fences etcd's.
///
/// # Errors
/// [`OfflineError`]; then everything is as it was.
pub fn import(source: &Source<'_>, data_dir: &Path, wal_dir: Option<&Path>) -> Result<ImportReport, OfflineError> {
    let foreign = Foreign::read(source.from, source.from_wal_dir)?;
    foreign.check_entries()?;
    check_apart(iter::once(source.from).chain(source.from_wal_dir), iter::once(data_dir).chain(wal_dir))?;
    let building = Building::begin(data_dir, wal_dir, Owner::Quorate)?;
    let (mark, hash) = building.state(|engine, scratch| load(&foreign, source, engine, scratch))?;
    check_member(&mark.cluster, &foreign)?;
    write_log(&building, &foreign, &mark)?;
    let mut report = report(&foreign, Arc::clone(&mark.cluster), hash);
    let back = |data_dir: &str| format!("quorateutl export --data-dir {data_dir} --to-data-dir DIR");
    let note = Note {
        identity: report.identity,
        was: "of etcd",
        became: "Quorate has taken it over",
        owners: ["etcd", "Quorate"],
        back: &back,
    };
    report.kept = Some(building.take_over(source.from, "imported", data_dir, &note)?);
    Ok(report)
}

fn options<'f>(foreign: &'f Foreign, source: &Source<'_>) -> ImportOptions<'f> {
    ImportOptions {
        cluster: foreign.metadata.cluster,
        server_version: source.server_version,
        index: Some(LogIndex(foreign.position.index)),
        configuration: foreign.voters.as_ref(),
        memory_bytes: SORT_BYTES_DEFAULT,
    }
}

/// The rows of the database, compared with it, and what the log has committed behind them.
fn load(
    foreign: &Foreign,
    source: &Source<'_>,
    engine: &FjallEngine,
    scratch: &FileDirectory,
) -> Result<(Mark, FileHash), OfflineError> {
    let imported = exchange::import(foreign.database()?, engine, scratch, &options(foreign, source))?;
    let hash = hash(&Reader::open(foreign.database()?).map_err(ExchangeError::from)?)?;
    let apply = ApplyOptions::new(foreign.metadata.member, source.server_version);
    let mut applier = Applier::open(engine.clone(), ApplyOptions { learners_max: None, ..apply })?;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use prost::Message as _;
    use tempfile::TempDir;

    use super::{super::resident::Resident, *};
    use crate::{
        apply::{ApplyError, EntryError},
        disk::Directory as _,
        etcdfile::{snap, v2json},
        membership::{Attributes, Founding, Member, MemberChange, Version},
        pb::{
            etcdserverpb::{InternalRaftRequest, PutRequest, RequestHeader},
            raftpb::{ConfState, Entry, EntryType, HardState, Snapshot, SnapshotMetadata},
            walpb,
        },
        storage::MemoryEngine,
        types::{MemberId, RequestId, with_causes},
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

    /// The changes behind the entry `last`.
    fn changed(last: u64, changes: &[MemberChange]) -> Vec<Entry> {
        let entry = |(index, change): (u64, &MemberChange)| {
            let data = change.encode(RequestId(index)).encode_to_vec().into();
            Entry { index, term: 2, data, r#type: EntryType::EntryConfChange.into() }
        };
        (last + 1..).zip(changes).map(entry).collect()
    }

    fn learner(id: u64) -> MemberChange {
        let attributes = Attributes { name: String::new(), client_urls: Vec::new() };
        let peer_urls = vec![format!("http://127.0.0.1:{id}")];
        MemberChange::add(Member { id: MemberId(id), peer_urls, is_learner: true, attributes })
    }

    fn promote(id: u64) -> MemberChange {
        MemberChange::Promote(MemberId(id))
    }

    /// The state after these entries, as etcd's database, in a cluster that began with `voters`.
    fn database(root: &Path, name: &str, entries: &[Entry], voters: &[MemberId]) {
        // In a cluster that was told so.
        let options = ApplyOptions { learners_max: Some(2), ..ApplyOptions::new(member(), OWN) };
        let mut applier = Applier::open(MemoryEngine::new(), options).unwrap();
        let voters = voters.iter().map(|id| id.0).collect();
        applier.establish(founding().cluster_id(), &ConfState { voters, ..ConfState::default() }).unwrap();
        applier.apply(entries).unwrap();
        let file = FileDirectory::new(root.join("member/snap")).create(name).unwrap();
        exchange::export(&applier.published(), file).unwrap();
    }

    /// A directory of etcd's: where the database stands, and what the log holds.
    struct Etcds {
        database: u64,
        last: u64,
        /// Behind that.
        changes: Vec<MemberChange>,
        term: u64,
        commit: u64,
        mark: Option<u64>,
        member: MemberId,
        voters: Vec<MemberId>,
    }

    impl Etcds {
        fn new(database: u64, last: u64, commit: u64) -> Self {
            let (changes, voters) = (Vec::new(), vec![member()]);
            Self { database, last, changes, term: 2, commit, mark: None, member: member(), voters }
        }

        fn make(&self) -> TempDir {
            let home = tempfile::tempdir().unwrap();
            let root = home.path().join("etcd");
            for name in ["snap", "wal"] {
                fs::create_dir_all(root.join("member").join(name)).unwrap();
            }
            let puts = if self.changes.is_empty() { self.last.max(self.database) } else { self.last };
            let mut applied = entries(puts, 2);
            applied.extend(changed(self.last, &self.changes));
            applied.retain(|entry| entry.index <= self.database);
            database(&root, "db", &applied, &self.voters);
            let metadata = wal::Metadata { member: self.member, cluster: founding().cluster_id() };
            let options = wal::Options { segment_bytes: 1 << 16, unsafe_no_fsync: true };
            let mut log = Wal::create(FileDirectory::new(root.join("member/wal")), metadata, &options).unwrap();
            log.append(&entries(self.last, self.term), None).unwrap();
            log.append(&changed(self.last, &self.changes), None).unwrap();
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
        let source = Source { from: &from, from_wal_dir: None, server_version: OWN };
        let examined = examine(&source);
        let report = import(&source, &to, None);
        let told = |outcome: &Result<ImportReport, OfflineError>| match outcome {
            Ok(report) => Ok(Arc::clone(&report.cluster)),
            Err(refusal) => Err(with_causes(refusal)),
        };
        assert_eq!(told(&examined), told(&report), "a check finds what an import would");
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
        database(&home.path().join("etcd"), "0000000000000014.snap.db", &entries(20, 2), &[member()]);
        let (report, ours) = take(&home).unwrap();
        assert_eq!((report.database, ours.state().applied), (LogIndex(20), LogIndex(20)));
    }

    /// etcd's tool leaves those of the cluster in the database that a snapshot was taken of.
    #[test]
    fn voters_are_those_of_the_log_and_its_snapshot_files() {
        let voters = vec![MemberId(7), member()];
        let etcds = Etcds { voters, ..Etcds::new(5, 9, 7) };
        let voting = |home: &TempDir| take(home).unwrap().1.state().cluster.configuration().voters.clone();
        assert_eq!(voting(&etcds.make()), [member().0], "the founding entry makes one");
        let snapshot_of = |voters: &[u64]| {
            let home = Etcds { mark: Some(3), ..Etcds { voters: etcds.voters.clone(), ..Etcds::new(5, 9, 7) } }.make();
            let conf_state = Some(ConfState { voters: voters.to_vec(), ..ConfState::default() });
            let metadata = Some(SnapshotMetadata { conf_state, index: 3, term: 2 });
            let data = v2json::write(&v2json::Tree::default()).into();
            let snaps = FileDirectory::new(home.path().join("etcd/member/snap"));
            snap::write(&snaps, &Snapshot { data, metadata }).unwrap();
            home
        };
        assert_eq!(voting(&snapshot_of(&[member().0])), [member().0]);
        let why = take(&snapshot_of(&[member().0, 8])).err().unwrap().to_string();
        assert!(why.starts_with("8 votes by the log"), "{why}");
    }

    /// A directory of etcd's whose log ends with these changes; the database stands behind so many of them.
    fn ends_with(changes: &[MemberChange], known: u64) -> TempDir {
        let last = 9 + changes.len() as u64;
        Etcds { changes: changes.to_vec(), ..Etcds { last: 9, ..Etcds::new(9 + known, last, last) } }.make()
    }

    /// Who is refused has no vote: to take him for a member, or a member for him, would make another quorum.
    #[test]
    fn a_learner_that_all_members_may_have_refused_is_not_taken_over() {
        for changes in [vec![learner(2), learner(3)], vec![learner(2), learner(3), promote(3)]] {
            let refusal = take(&ends_with(&changes, 0)).err().unwrap();
            let OfflineError::Apply(ApplyError::Entry { index, cause: EntryError::LearnersUnknown }) = &refusal else {
                panic!("{refusal:?}");
            };
            assert_eq!(*index, LogIndex(11), "the second one");
            let text = with_causes(&refusal);
            assert!(text.contains("--max-learners") && text.contains("start the member where it is once"), "{text}");
        }
    }

    #[test]
    fn learners_whose_number_no_option_bounds_are_taken_over() {
        let taken = |changes: &[MemberChange], known| {
            let configuration = take(&ends_with(changes, known)).unwrap().1.state().cluster.configuration().clone();
            (configuration.voters.contains(&2), configuration.learners)
        };
        assert_eq!(taken(&[learner(2)], 0), (false, vec![2]), "there may always be one");
        let in_turn = [learner(2), promote(2), learner(3)];
        assert_eq!(taken(&in_turn, 0), (true, vec![3]), "one after the other");
        let beside = [learner(2), learner(3), promote(2)];
        assert_eq!(taken(&beside, 2), (true, vec![3]), "the database knows what became of the second one");
        assert_eq!(taken(&beside, 3), (true, vec![3]));
    }

    #[test]
    fn parts_of_different_members_are_refused() {
        let other_term = Etcds { term: 3, ..Etcds::new(5, 9, 7) };
        assert!(refusal(&other_term).contains("entry 5 is of term 3 in the log and of term 2"));
        let other_member = Etcds { member: MemberId(9), ..Etcds::new(5, 9, 7) };
        assert!(refusal(&other_member).contains("member 9, which the database does not know"));
    }
}
