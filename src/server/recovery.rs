//! From a log and a state to the parts of a member, on any directory and any engine: a new member is founded, one that
//! was here before is recovered.
//!
//! Invariants:
//! - Founding is ordered: the state records its cluster durably, then the log is created, then the founding entries are
//!   written. Until a log exists nothing was promised, and until the founding entries are durable raft has not begun.
//! - The state is the truth about what is applied, the log about what is promised: a start reads the state's position
//!   and replays the log behind it.
//! - A received snapshot replaced state and log, or neither: a start finishes an installation that the log records, and
//!   discards what it does not.

use std::{collections::BTreeMap, ops::Bound};

use thiserror::Error;

use crate::{
    apply::{self, Applier, ApplyError, ApplyOptions, Position, Proof},
    disk::Directory,
    lease::{LeaseRow, LeaseRowError},
    membership::{self, ChangeError, Founding, FoundingError},
    pb::raftpb,
    raft::{self, Member, Recovered, RecoveryError},
    storage::{Engine, Read as _, StorageError, Table},
    types::{ClusterId, LogIndex, MemberId, Term},
    wal::{self, Wal, WalError},
};

use super::{Identity, alone};

/// How a member without data becomes one.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// `initial-cluster`: every founding member's peer URLs, by name.
    pub initial_cluster: BTreeMap<String, Vec<String>>,
    /// `initial-cluster-token`.
    pub token: String,
    /// The cluster to join instead of founding one.
    pub joining: Option<Joining>,
    /// `force-new-cluster`: a member that has data goes on alone, at these peer URLs.
    pub alone_at: Option<Vec<String>>,
    /// What this member is called in `initial_cluster`, where that is not its own name: SRV records have none.
    pub listed_as: Option<String>,
}

impl Bootstrap {
    /// Its members found the cluster.
    pub fn new(initial_cluster: BTreeMap<String, Vec<String>>, token: &str) -> Self {
        Self { initial_cluster, token: token.to_owned(), joining: None, alone_at: None, listed_as: None }
    }
}

/// A cluster that has a place for this member.
#[derive(Clone, Debug)]
pub struct Joining {
    /// This member as the cluster knows it.
    pub identity: Identity,
    /// All its members, this one included.
    pub members: Vec<membership::Member>,
}

/// How the parts of a member behave. Whose they are is filled in once it is known.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The protocol.
    pub raft: raft::Options,
    /// The state machine.
    pub apply: ApplyOptions,
    /// The log.
    pub wal: wal::Options,
}

impl Settings {
    /// Every part's defaults.
    pub fn new(server_version: membership::Version) -> Self {
        Self {
            raft: raft::Options::new(MemberId(0)),
            apply: ApplyOptions::new(MemberId(0), server_version),
            wal: wal::Options::default(),
        }
    }
}

/// The parts of a member, not yet running.
pub struct Parts<E: Engine, D: Directory> {
    /// Who it is.
    pub identity: Identity,
    /// Whether it was here before.
    pub restarted: bool,
    /// The state machine, over an engine of which the caller keeps a clone.
    pub applier: Applier<E>,
    /// The stored leases.
    pub leases: Vec<LeaseRow>,
    /// The log.
    pub wal: Wal<D>,
    /// The protocol.
    pub member: Member,
}

/// Why there is no member in log and state.
#[derive(Debug, Error)]
pub enum PartsError {
    /// The founding members.
    #[error(transparent)]
    Founding(#[from] FoundingError),
    /// `name` is not among the founding members.
    #[error(
        "couldn't find local name {0:?} in the initial cluster configuration: add {0:?}=URL to --initial-cluster, or correct --name"
    )]
    NotFounding(String),
    /// The state holds applied entries, and there is no log they can have come from.
    #[error("the state has applied entries, but there is no log")]
    LogMissing,
    /// The state.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Log and state contradict each other.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// A configuration change in the log that cannot be read.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The state holds nothing, or not the snapshot that the log goes on from.
    #[error("the state is empty or lost: it has applied {applied}, and the log has entries up to {last}")]
    StateLost {
        /// The last entry in the state.
        applied: LogIndex,
        /// The last entry of the log, as far as is known.
        last: LogIndex,
    },
    /// The log of one member next to the state of another.
    #[error("the log belongs to cluster {log} but the state to cluster {state}: they come from different members")]
    Mixed {
        /// The log's cluster.
        log: ClusterId,
        /// The state's cluster.
        state: ClusterId,
    },
    /// The state was made from another log.
    #[error("entry {index} of the log is not the one that the state has applied")]
    OtherLog {
        /// The entry.
        index: LogIndex,
    },
}

/// Why the state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The engine.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The state machine.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A lease.
    #[error(transparent)]
    Lease(#[from] LeaseRowError),
}

impl Bootstrap {
    /// The founding members, and who of them `name` is.
    ///
    /// # Errors
    /// [`PartsError::Founding`], [`PartsError::NotFounding`].
    pub fn founder(&self, name: &str) -> Result<(Founding, Identity), PartsError> {
        let founding = self.founding()?;
        let own = founding.named(self.listed(name)).ok_or_else(|| PartsError::NotFounding(name.to_owned()))?;
        let identity = Identity { member: own.id, cluster: founding.cluster_id() };
        Ok((founding, identity))
    }

    /// What the member `name` is called in the initial cluster.
    pub fn listed<'n>(&'n self, name: &'n str) -> &'n str {
        self.listed_as.as_deref().unwrap_or(name)
    }

    /// Whom a member that joins speaks with until it has heard of its cluster's members from the log.
    pub(super) fn remotes(&self, restarted: bool) -> Vec<membership::Member> {
        let joining = self.joining.as_ref().filter(|_| !restarted);
        joining.map(|joining| joining.members.clone()).unwrap_or_default()
    }

    fn founding(&self) -> Result<Founding, FoundingError> {
        Founding::new(&self.initial_cluster, &self.token)
    }
}

/// Founds the member `name` in a directory without a log. The log is created last: until it exists, nothing was promised
/// to anybody and founding starts over.
///
/// # Errors
/// Every [`PartsError`] but those of a recovery. What a founding leaves that fails half way, the next start can use.
pub fn found<E: Engine + Clone, D: Directory>(
    engine: E,
    log: D,
    settings: &Settings,
    bootstrap: &Bootstrap,
    name: &str,
) -> Result<Parts<E, D>, PartsError> {
    let (founding, identity) = bootstrap.founder(name)?;
    let mut state = State::open(engine, settings, identity.member)?;
    if state.applied_anything() {
        return Err(PartsError::LogMissing);
    }
    state.establish(founding.cluster_id(), &founding.configuration())?;
    let metadata = wal::Metadata { member: identity.member, cluster: identity.cluster };
    let mut wal = Wal::create(log, metadata, &settings.wal)?;
    write_founding(&mut wal, &founding)?;
    let recovered = Recovered {
        hard_state: founding.hard_state(),
        conf_state: founding.configuration(),
        last: LogIndex(founding.hard_state().commit),
        entries: founding.entries(),
        terms: vec![wal::TermRun { first: LogIndex(1), term: Term(1) }],
        ..Recovered::default()
    };
    assemble(settings, identity, false, state, wal, recovered)
}

/// Makes a member that joins a cluster, in a directory without a log: it begins with an empty one, and the leader brings
/// it up to date. Ordered as [`found`] is.
///
/// # Errors
/// Every [`PartsError`] but those of a recovery and of a founding.
pub fn join<E: Engine + Clone, D: Directory>(
    engine: E,
    log: D,
    settings: &Settings,
    identity: Identity,
) -> Result<Parts<E, D>, PartsError> {
    let mut state = State::open(engine, settings, identity.member)?;
    if state.applied_anything() {
        return Err(PartsError::LogMissing);
    }
    state.establish(identity.cluster, &raftpb::ConfState::default())?;
    let metadata = wal::Metadata { member: identity.member, cluster: identity.cluster };
    let mut wal = Wal::create(log, metadata, &settings.wal)?;
    wal.sync()?;
    assemble(settings, identity, false, state, wal, Recovered::default())
}

/// Recovers the member whose log is in a directory. `bootstrap` is looked at only if the founding was interrupted, or to
/// make the member go on alone.
///
/// # Errors
/// Every [`PartsError`].
pub fn restart<E: Engine + Clone, D: Directory>(
    engine: E,
    log: D,
    settings: &Settings,
    bootstrap: &Bootstrap,
) -> Result<Parts<E, D>, PartsError> {
    let position = position_of(&engine)?;
    let opened = Wal::open(log.clone(), (position.index, position.term), &settings.wal);
    if is_empty(&engine)? {
        return Err(lost(opened.map(|(_, found)| found.last)));
    }
    let (mut wal, found) = opened?;
    if let Some(repair) = &found.repaired {
        tracing::warn!(file = repair.file, offset = repair.offset, "repaired the torn end of the write-ahead log");
    }
    let identity = Identity { member: found.metadata.member, cluster: found.metadata.cluster };
    let mut state = State::open(engine.clone(), settings, identity.member)?;
    if found.hard_state == raftpb::HardState::default() && !state.applied_anything() {
        // A first start ended before the founding entries were durable: some of them may be there, and the others too
        // must be, for no leader will ever send them.
        // A member that joined and has heard nothing yet looks the same, but no founder has its identifier.
        let founding = bootstrap.founding().ok().filter(|founding| founding.cluster_id() == identity.cluster);
        if let Some(founding) = founding.filter(|founding| founding.member(identity.member).is_some()) {
            state.establish(founding.cluster_id(), &founding.configuration())?;
            write_founding(&mut wal, &founding)?;
            drop((wal, state));
            return restart(engine, log, settings, bootstrap);
        }
    }
    let cluster = state.applier.published().cluster;
    if cluster.id() != identity.cluster {
        return Err(PartsError::Mixed { log: identity.cluster, state: cluster.id() });
    }
    check_proof(&wal, position.proof)?;
    let entries = wal.reader().entries(LogIndex(position.index.0 + 1), found.last, usize::MAX)?;
    if let Some(urls) = &bootstrap.alone_at {
        let changes = alone::changes(&cluster, &entries, identity.member, urls)?;
        if !changes.is_empty() {
            tracing::warn!(member = %identity.member, changes = changes.len(), "forcing a new cluster of one member");
            let hard_state = raftpb::HardState { commit: found.last.0, ..found.hard_state };
            alone::write(&mut wal, &changes, hard_state)?;
            drop((wal, state));
            return restart(engine, log, settings, bootstrap);
        }
    }
    let recovered = Recovered {
        hard_state: found.hard_state,
        conf_state: cluster.configuration().clone(),
        applied: position.index,
        start: found.start,
        last: found.last,
        terms: found.terms,
        entries,
    };
    assemble(settings, identity, true, state, wal, recovered)
}

/// The generations of a member's state, of which one is live. Errors are those of whoever keeps them.
#[expect(clippy::missing_errors_doc, reason = "every method has the same errors")]
pub trait Generations {
    /// What keeps them.
    type Engine: Engine + Clone;
    /// Names one.
    type Name: Clone;
    /// Why one cannot be used.
    type Error;

    /// The live one. That it is, is durable when this returns: the others may be removed.
    fn live(&self) -> Result<(Self::Name, Self::Engine), Self::Error>;
    /// The others, newest first.
    fn others(&self) -> Result<Vec<Self::Name>, Self::Error>;
    /// Opens one of the others.
    fn open(&self, name: &Self::Name) -> Result<Self::Engine, Self::Error>;
    /// Makes a complete one the live one, durably.
    fn make_live(&self, name: &Self::Name) -> Result<(), Self::Error>;
    /// Removes one that is not live. Failing does no harm.
    fn remove(&self, name: &Self::Name);
    /// An error of the member on the generation `name`.
    fn failed(&self, name: &Self::Name, cause: PartsError) -> Self::Error;
}

/// A generation and what keeps it.
type Named<G> = (<G as Generations>::Name, <G as Generations>::Engine);
/// A recovered member, and the engine its applier works on.
pub type Resumed<G, D> = (Parts<<G as Generations>::Engine, D>, <G as Generations>::Engine);

/// Recovers the member whose log is in a directory, as [`restart`] does, from the generation that belongs to it.
///
/// The installation of a snapshot that has reached the log, and not CURRENT, is finished: what it stands for is durable,
/// and the log has nothing from before it. Every other generation is a leftover and removed, once the member is
/// recovered without it.
///
/// # Errors
/// Those of the generations, and every [`PartsError`].
pub fn resume<G: Generations, D: Directory>(
    generations: &G,
    log: D,
    settings: &Settings,
    bootstrap: &Bootstrap,
) -> Result<Resumed<G, D>, G::Error> {
    let (mut name, mut engine) = generations.live()?;
    let mut parts = restart(engine.clone(), log.clone(), settings, bootstrap);
    if let Err(PartsError::Wal(WalError::SnapshotAhead { index, term, .. })) = &parts
        && let Some(staged) = staged(generations, *index, *term)?
    {
        generations.make_live(&staged.0)?;
        tracing::warn!(%index, "finished the interrupted installation of a received snapshot");
        (name, engine) = staged;
        parts = restart(engine.clone(), log, settings, bootstrap);
    }
    let parts = parts.map_err(|cause| generations.failed(&name, unfinished(cause)))?;
    generations.others()?.iter().for_each(|leftover| generations.remove(leftover));
    Ok((parts, engine))
}

/// A snapshot that the log begins with must be somewhere: installing it was begun when it was complete.
fn unfinished(cause: PartsError) -> PartsError {
    match cause {
        PartsError::Wal(WalError::SnapshotAhead { index, applied, .. }) => {
            PartsError::StateLost { applied, last: index }
        }
        other => other,
    }
}

/// The generation that a snapshot at this position has filled.
fn staged<G: Generations>(generations: &G, index: LogIndex, term: Term) -> Result<Option<Named<G>>, G::Error> {
    for name in generations.others()? {
        // One that was never finished cannot be opened, or says so by its position.
        let Ok(engine) = generations.open(&name) else { continue };
        if position_of(&engine).is_ok_and(|position| (position.index, position.term) == (index, term)) {
            return Ok(Some((name, engine)));
        }
    }
    Ok(None)
}

fn assemble<E: Engine, D: Directory>(
    settings: &Settings,
    identity: Identity,
    restarted: bool,
    state: State<E>,
    wal: Wal<D>,
    recovered: Recovered,
) -> Result<Parts<E, D>, PartsError> {
    let options = raft::Options { id: identity.member, ..settings.raft.clone() };
    let member = Member::new(&options, recovered)?;
    let State { applier, leases } = state;
    Ok(Parts { identity, restarted, applier, leases, wal, member })
}

/// The opened state.
struct State<E: Engine> {
    applier: Applier<E>,
    leases: Vec<LeaseRow>,
}

impl<E: Engine> State<E> {
    fn open(engine: E, settings: &Settings, member: MemberId) -> Result<Self, StateError> {
        let leases = stored_leases(&engine)?;
        let applier = Applier::open(engine, ApplyOptions { member, ..settings.apply })?;
        Ok(Self { applier, leases })
    }

    fn applied_anything(&self) -> bool {
        self.applier.published().applied.0 > 0
    }

    fn establish(&mut self, cluster: ClusterId, configuration: &raftpb::ConfState) -> Result<(), StateError> {
        self.applier.establish(cluster, configuration)?;
        Ok(self.applier.engine().persist()?)
    }
}

/// Whether nothing was ever recorded in the state, not even its cluster: that is done before there is a log.
fn is_empty<E: Engine>(engine: &E) -> Result<bool, StateError> {
    Ok(engine.snapshot().scan(Bound::Unbounded, Bound::Unbounded).next().transpose()?.is_none())
}

/// What is said of an empty state beside a log that ends at `last`. The installation of a snapshot may still be finished.
fn lost(last: Result<LogIndex, WalError>) -> PartsError {
    match last {
        Ok(last) | Err(WalError::StartsAfter { start: last, .. }) => {
            PartsError::StateLost { applied: LogIndex(0), last }
        }
        Err(cause) => cause.into(),
    }
}

fn position_of<E: Engine>(engine: &E) -> Result<Position, StateError> {
    apply::position(&engine.snapshot()).map_err(|cause| StateError::Apply(cause.into()))
}

/// A log may have the state's index and term and still be another's: of a member of the same name that was founded anew.
fn check_proof<D: Directory>(wal: &Wal<D>, proof: Proof) -> Result<(), PartsError> {
    match wal.reader().entries(proof.index, proof.index, usize::MAX) {
        Ok(entries) if entries.iter().any(|entry| Proof::of(entry) != proof) => {
            Err(PartsError::OtherLog { index: proof.index })
        }
        Ok(_) | Err(WalError::Gone { .. }) => Ok(()),
        Err(cause) => Err(cause.into()),
    }
}

fn stored_leases<E: Engine>(engine: &E) -> Result<Vec<LeaseRow>, StateError> {
    let snapshot = engine.snapshot();
    let mut leases = Vec::new();
    for row in snapshot.rows(Table::Lease) {
        let (key, value) = row?;
        leases.push(LeaseRow::read(&key, &value)?);
    }
    Ok(leases)
}

fn write_founding<D: Directory>(wal: &mut Wal<D>, founding: &Founding) -> Result<(), WalError> {
    wal.append(&founding.entries(), Some(&founding.hard_state()))?;
    wal.sync()
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{
        disk::MemoryDirectory,
        membership::Version,
        pb::etcdserverpb::{InternalRaftRequest, PutRequest},
        storage::MemoryEngine,
    };

    fn settings() -> Settings {
        Settings::new(Version::minor(3, 7))
    }

    fn three() -> Bootstrap {
        let member = |name: &str| (name.to_owned(), vec![format!("http://{name}:2380")]);
        Bootstrap::new(["a", "b", "c"].map(member).into(), "t")
    }

    /// Of a founding that lost its power only the first entries can be there. A start took them for all there are: if
    /// that happened to every member of a cluster, the other founders would never have become members.
    #[test]
    fn half_a_founding_is_completed() {
        for survived in 0..=3 {
            let (engine, log, bootstrap) = (MemoryEngine::new(), MemoryDirectory::default(), three());
            let (founding, identity) = bootstrap.founder("b").unwrap();
            State::open(engine.clone(), &settings(), identity.member)
                .unwrap()
                .establish(founding.cluster_id(), &founding.configuration())
                .unwrap();
            let metadata = wal::Metadata { member: identity.member, cluster: identity.cluster };
            let mut wal = Wal::create(log.clone(), metadata, &wal::Options::default()).unwrap();
            wal.append(&founding.entries()[..survived], None).unwrap();
            wal.sync().unwrap();
            drop(wal);
            let parts = restart(engine, log.clone(), &settings(), &bootstrap).unwrap();
            assert_eq!((parts.identity, parts.member.last_index()), (identity, LogIndex(3)));
            assert_eq!((parts.member.committed(), parts.member.standing().term), (LogIndex(3), Term(1)));
            let entries = parts.wal.reader().entries(LogIndex(1), LogIndex(3), usize::MAX).unwrap();
            assert_eq!(entries, founding.entries());
        }
    }

    /// A member that lived, was wiped and founded anew has the same identifiers, indexes and terms: its new log once led an
    /// older state on, from a backup of its first life, to a state that nobody had ever seen.
    #[test]
    fn log_of_another_life_is_refused() {
        let life = |data: &'static str| {
            let (engine, log) = (MemoryEngine::new(), MemoryDirectory::default());
            let mut parts = found(engine.clone(), log.clone(), &settings(), &three(), "b").unwrap();
            let put = PutRequest { key: "k".into(), value: data.into(), ..Default::default() };
            let request = InternalRaftRequest { put: Some(put), ..Default::default() };
            let entry =
                |index, data: Vec<u8>| raftpb::Entry { index, term: 2, data: data.into(), ..Default::default() };
            let entries = [entry(4, Vec::new()), entry(5, request.encode_to_vec()), entry(6, Vec::new())];
            let hard_state = raftpb::HardState { term: 2, vote: 0, commit: 6 };
            parts.wal.append(&entries, Some(&hard_state)).unwrap();
            parts.wal.sync().unwrap();
            let bootstrap = three();
            let (founding, _) = bootstrap.founder("b").unwrap();
            parts.applier.apply(&founding.entries()).unwrap();
            parts.applier.apply(&entries).unwrap();
            engine.persist().unwrap();
            (engine, log)
        };
        let ((first_state, first_log), (_, second_log)) = (life("first"), life("second"));
        let refused = restart(first_state.clone(), second_log, &settings(), &three()).err();
        assert!(matches!(refused, Some(PartsError::OtherLog { index: LogIndex(5) })), "{refused:?}");
        assert!(restart(first_state, first_log, &settings(), &three()).is_ok());
    }
}
