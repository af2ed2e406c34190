//! The running member: threads around the synchronous floors, and the [`Handle`] callers use.
//!
//! ```text
//! Handle ─► raft inbox ─► RAFT thread ─► WAL thread (one fdatasync per batch) ─┐
//!                             ▲  │                                             │
//!                             │  └─► APPLY thread ─► published state, answers  │
//!                             └──────── synced ◄──────────────────────────────┘
//!                                  APPLY ─► WATCH thread ─► stream tasks
//!                                  APPLY ─► KEEPER thread: state durable, log released
//! RAFT ─► transport ─► peers ─► transport ─► RAFT;  RAFT ─► READER thread: entries for peers that lag
//! ```
//!
//! Invariants: a caller is answered after the state that includes its entry is published, and that after its entry is
//! durable in the log; the first failure of any thread stops the member, and nothing is acknowledged after it.

mod alone;
mod apply_thread;
mod arrivals;
mod auto_compact;
mod comparison;
mod datadir;
mod departure;
mod desk;
mod digests;
pub mod durability;
mod duties;
mod failure;
mod generations;
mod handle;
mod handover;
mod hash_checks;
mod hashes;
mod inbox;
mod joining;
mod keeper;
mod leader_calls;
pub mod leadership;
pub mod lease_office;
mod log_reader;
mod login;
mod mixed;
pub mod offline;
mod op_counts;
mod open;
mod options;
mod peers;
pub mod raft_driver;
mod raft_thread;
pub mod reads;
mod reclaim;
mod reconfigure;
pub mod recovery;
mod shared;
mod snapshots;
mod space_alarm;
pub mod ticker;
pub mod v2;
mod verdict;
mod versions;
mod waiters;
mod wal_thread;
mod watch_thread;

use std::{
    fmt, io,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use thiserror::Error;

use crate::{
    apply::{self, ApplyError},
    lease::{Lessor, LessorOptions},
    raft::Input,
    storage::{Engine, FjallEngine, StorageError},
    transport::{Local, Transport, TransportOptions},
    types::{LogIndex, MemberId},
    wal::WalError,
};

use apply_thread::ApplyWork;
use durability::InstallError;
use raft_thread::{RaftOrder, RaftWork};
use snapshots::Snapshots;

pub use apply_thread::raft_change;
pub use auto_compact::Policy;
pub use comparison::compare_digests;
pub use datadir::{DataDir, DataDirError};
pub use departure::{REMOVED_REMEDY, Trouble, watch_removal};
pub use durability::KeeperError;
pub use duties::{compact_by_itself, expire_leases, join, keep_house};
pub use handle::{Handle, MemberStatus, ServerError};
pub use hash_checks::{InitialCheckError, check_compactions, check_hashes, check_initially};
pub use hashes::hash_compactions;
pub use joining::{JoinError, check_not_bootstrapped, find_cluster};
pub use keeper::SNAPSHOT_BYTES_DEFAULT;
pub use leader_calls::LeaseLife;
pub use mixed::{Difference, compare_hashes};
pub use open::{OpenError, Opened, open};
pub use options::{APPLY_GAP_MAX, Options, Tunables};
pub use reclaim::give_space_back;
pub use recovery::{Bootstrap, Joining, StateError};
pub use shared::{Identity, Thread};
pub use snapshots::{CLIENT_SNAPSHOTS_MAX, ClientSnapshot, Keep, Schedule, SnapshotError, save_snapshots};
pub use space_alarm::lift_no_space;
pub use v2::expire_v2_nodes;
pub use versions::{negotiate_version, watch_downgrade};
pub use watch_thread::WatchStream;

/// What readers are given: one consistent state.
pub type State = apply::Published<<FjallEngine as Engine>::Snapshot>;

/// How often long leases are checkpointed, in milliseconds (etcd's constant).
const LEASE_CHECKPOINT_MS: u64 = 300_000;

/// Why a member stopped by itself.
#[derive(Debug, Error)]
pub enum ServerFailure {
    /// The log's disk failed.
    #[error("the write-ahead log failed")]
    Wal(#[source] WalError),
    /// A received snapshot could not become the state.
    #[error("installing a received snapshot failed")]
    Install(#[source] InstallError),
    /// Applying failed.
    #[error("the state machine failed, and the member stops before it can diverge")]
    Apply {
        /// The directory of the state.
        path: PathBuf,
        /// What failed.
        #[source]
        cause: ApplyError,
    },
    /// The state's disk failed.
    #[error("the state failed")]
    Keeper {
        /// The directory of the state.
        path: PathBuf,
        /// What failed.
        #[source]
        cause: KeeperError,
    },
    /// This member acknowledged entries it no longer has.
    #[error(
        "the log ends at {last}, but this member acknowledged {acknowledged}: remove it from the cluster and add it again"
    )]
    LogLost {
        /// The last acknowledged entry.
        acknowledged: LogIndex,
        /// The last entry there is.
        last: LogIndex,
    },
    /// The cluster removed this member.
    #[error("the member {0} has been permanently removed from the cluster: {remedy}", remedy = REMOVED_REMEDY)]
    Removed(MemberId),
    /// This member's state is not that of the others.
    #[error(
        "the state of this member is not that of member {peer}: at index {index} its digest is {own:016x} instead of {theirs:016x}; remove the member from the cluster, delete its data directory and add it again"
    )]
    Diverged {
        /// The entry after which they were compared.
        index: LogIndex,
        /// This member's digest there.
        own: u64,
        /// Who contradicts.
        peer: MemberId,
        /// Its digest.
        theirs: u64,
    },
    /// The cluster has what this version cannot serve.
    #[error("this member cannot take part in its cluster")]
    Unservable(#[source] ApplyError),
    /// This member's key space is not that of the others, among them members of etcd.
    #[error(
        "the key space of this member is not that of member {peer}: {difference}; remove the member from the cluster, delete its data directory and add it again"
    )]
    DivergedKeys {
        /// Who contradicts.
        peer: MemberId,
        /// In what.
        difference: Difference,
    },
    /// A snapshot that no peer has sent.
    #[error("raft asked to install a snapshot nobody sent")]
    UnexpectedSnapshot,
    /// Watchers cannot be told what happened.
    #[error("the past cannot be read for watchers")]
    Watch(#[source] StorageError),
    /// No more threads.
    #[error("starting a thread")]
    Thread(#[source] io::Error),
    /// A queue overflowed that its senders' limits should keep short.
    #[error("the queue of the {thread} thread overflowed")]
    Overrun {
        /// Whose queue.
        thread: &'static str,
    },
}

/// A running member. Dropping it without [`Server::shut_down`] leaves its threads running.
#[derive(Debug)]
pub struct Server {
    handle: Handle,
    threads: Vec<JoinHandle<()>>,
    /// Keeps the directory locked while threads run.
    dir: DataDir,
}

impl Server {
    /// Starts the threads of an opened member.
    ///
    /// # Errors
    /// If the system has no threads left.
    pub fn start(opened: Opened, options: Options) -> io::Result<Self> {
        let Opened { identity, dir, engine, applier, leases, wal, member, snap, remotes, .. } = opened;
        let lessor = Lessor::new(lessor_options(&options), leases);
        let state = applier.published();
        let sole_voter = state.cluster.configuration().voters == [identity.member.0];
        let first = first_input(&options, sole_voter);
        let snapshots = Snapshots::new(snapshots::Place::new(&dir, &options, identity));
        let place = shared::Place { engine, generation: dir.generations().live().ok().flatten() };
        let shared = Arc::new(shared::Shared::new(options, identity, state, lessor, remotes, place, snapshots));
        shared.set_sole_voter(sole_voter);
        let (keeper, keeper_thread) = keeper::Keeper::new(&shared, snap);
        let handle = Handle { shared: Arc::clone(&shared) };
        let (for_raft, for_wal, for_apply, for_watch, for_reader) =
            (Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared), Arc::clone(&shared));
        let before = member.last_index();
        shared.raft.take_up(RaftWork::new(member, Arc::clone(&shared)));
        shared.apply.take_up(ApplyWork::new(applier, keeper, Arc::clone(&shared), before));
        if let Some(input) = first {
            shared.order_raft(RaftOrder::Input(Box::new(input)));
        }
        let (filler, reader) = (wal.filler(), wal.reader());
        let threads = vec![
            spawn("reader", move || log_reader::run(&reader, &for_reader))?,
            spawn("filler", move || wal_thread::fill(filler))?,
            spawn("wal", move || wal_thread::run(wal, &for_wal))?,
            spawn("keeper", move || keeper_thread.run())?,
            spawn("watch", move || watch_thread::run(for_watch))?,
            spawn("apply", move || apply_thread::run(&for_apply))?,
            spawn("raft", move || raft_thread::run(&for_raft))?,
        ];
        Ok(Self { handle, threads, dir })
    }

    /// For callers.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Lets the member speak with its peers. Until then it sends nothing, as if the network were down. The transport's
    /// tasks run on `runtime`; whoever serves the peer port hands it its requests.
    pub fn connect(&self, runtime: tokio::runtime::Handle) -> Arc<Transport> {
        let shared = &self.handle.shared;
        let options =
            TransportOptions { election_timeout: shared.tunables().election, dialler: shared.options.dialler.clone() };
        shared.snapshots.connect(runtime.clone());
        let transport = Transport::new(Arc::clone(shared) as Arc<dyn Local>, options, runtime);
        shared.transport.store(Some(Arc::clone(&transport)));
        shared.update_peers();
        transport
    }

    /// Why the member stopped by itself, if it did.
    pub fn failure(&self) -> Option<&ServerFailure> {
        self.handle.shared.failure()
    }

    /// Stops the threads in the order of the flow, so that what was accepted is finished, and makes the state durable, as
    /// far as `KEEPER_PATIENCE` suffices. Callers still waiting hear [`crate::types::Rejection::Stopped`]. The directory
    /// stays locked as long as the returned value lives.
    pub fn shut_down(self) -> DataDir {
        let shared = &self.handle.shared;
        shared.stopping.cancel();
        shared.shares.close();
        shared.raft.close();
        for thread in self.threads.into_iter().rev() {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if name == "keeper" && !ends_in_time(&thread) {
                tracing::warn!("the state is not durable yet; the next start applies more of the log again");
            } else if thread.join().is_err() {
                tracing::error!(thread = name, "a thread ended by a panic");
            }
            match name.as_str() {
                "raft" => {
                    shared.apply.close();
                    shared.fetches.close();
                }
                "apply" => shared.watch.close(),
                "watch" => shared.wal.close(),
                _ => {}
            }
        }
        shared.reads.fail_all(crate::types::Rejection::Stopped);
        if let Some(transport) = shared.transport.swap(None) {
            transport.stop();
        }
        self.dir
    }
}

/// Longest wait at a stop for the keeper, which makes durable what the log has already.
const KEEPER_PATIENCE: Duration = Duration::from_millis(400);
/// How often to look whether it is done.
const KEEPER_POLL: Duration = Duration::from_millis(5);

fn ends_in_time(keeper: &JoinHandle<()>) -> bool {
    let looks = KEEPER_PATIENCE.as_millis() / KEEPER_POLL.as_millis();
    (0..looks).any(|_| {
        keeper.is_finished() || {
            thread::sleep(KEEPER_POLL);
            false
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// How much less than others a thread gets that gives way: about a tenth, where they want all there is.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// [`spawn`] for work that has time: the thread gives way to those that requests wait for.
fn spawn_behind(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    spawn_giving_way(name, give_way, work)
}

/// [`spawn`] for a thread that begins with `give_way`. One that may not give way works all the same.
fn spawn_giving_way<E: fmt::Display>(
    name: &str,
    give_way: impl FnOnce() -> Result<(), E> + Send + 'static,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let thread = name.to_owned();
    spawn(name, move || {
        if let Err(cause) = give_way() {
            tracing::debug!(thread, %cause, "a thread has as much of the processor as those that requests wait for");
        }
        work();
    })
}

/// Leaves this thread less of the processor. Anybody may have less; on other systems it would be less for the whole process.
#[cfg(target_os = "linux")]
fn give_way() -> rustix::io::Result<()> {
    use rustix::process::{getpriority_process, setpriority_process};
    if getpriority_process(None)? < NICE { setpriority_process(None, NICE) } else { Ok(()) }
}

#[cfg(not(target_os = "linux"))]
fn give_way() -> io::Result<()> {
    Ok(())
}

fn lessor_options(options: &Options) -> LessorOptions {
    LessorOptions {
        retry_ms: u64::try_from(options.tunables.request_timeout.as_millis()).unwrap_or(u64::MAX),
        checkpoint_ms: options.lease_checkpoints.then_some(LEASE_CHECKPOINT_MS),
    }
}

/// What shortens the first election: the only voter need not wait whether somebody leads; others skip all but one tick of
/// the election timeout, as etcd does at boot.
fn first_input(options: &Options, sole_voter: bool) -> Option<Input> {
    if sole_voter {
        return Some(Input::Campaign);
    }
    let ticks = options.tunables.election_ticks().saturating_sub(1) as usize;
    options.advance_first_election.then_some(Input::AdvanceElection(ticks))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        auth::{TOKEN_TTL_DEFAULT, TokenKind},
        membership::Version,
        pb::etcdserverpb::{InternalRaftRequest, PutRequest},
        tls::Dialler,
    };

    fn options() -> Options {
        Options {
            name: "m".to_owned(),
            client_urls: Vec::new(),
            peer_urls: Vec::new(),
            version: Version::minor(3, 7),
            advance_first_election: true,
            pre_vote: true,
            snapshot_bytes: SNAPSHOT_BYTES_DEFAULT,
            snapshots_max: Some(5),
            snapshot_dir: PathBuf::from("snapshots"),
            progress_interval: Duration::from_mins(10),
            learners_max: 1,
            strict_reconfig: true,
            downgrade_check: Duration::from_secs(5),
            dialler: Dialler::default(),
            lease_checkpoints: false,
            tokens: TokenKind::Simple(TOKEN_TTL_DEFAULT),
            unsafe_no_fsync: true,
            cache_bytes: 1 << 20,
            files_max: 100,
            tunables: Tunables {
                tick: Duration::from_millis(100),
                election: Duration::from_secs(1),
                request_timeout: Duration::from_secs(7),
                request_bytes_max: crate::types::REQUEST_BYTES_MAX_DEFAULT,
                quota_bytes: None,
                lifts_no_space: true,
                snapshots: None,
                snapshot_entries: 10_000,
                catchup_entries: 5_000,
                compaction_batch_max: 1_000,
                compaction_pause: Duration::from_millis(10),
                auto_compaction: None,
                warn_apply: Duration::from_secs(10),
                corrupt_check: None,
                compact_hash_check: None,
            },
        }
    }

    fn start(dir: &std::path::Path) -> Server {
        let members = BTreeMap::from([("m".to_owned(), vec!["http://localhost:2380".to_owned()])]);
        let bootstrap = Bootstrap {
            initial_cluster: members,
            token: "t".to_owned(),
            joining: None,
            alone_at: None,
            listed_as: None,
        };
        let opened = open(DataDir::open(dir, None).unwrap(), &options(), &bootstrap).unwrap();
        Server::start(opened, options()).unwrap()
    }

    fn put() -> InternalRaftRequest {
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        InternalRaftRequest { put: Some(put), ..Default::default() }
    }

    /// The niceness of the calling thread.
    #[cfg(target_os = "linux")]
    fn nice() -> i32 {
        rustix::process::getpriority_process(None).unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_thread_that_has_time_gives_way_and_no_other_one_does() {
        let before = nice();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let behind = tell.clone();
        spawn_behind("behind", move || behind.send(nice()).unwrap()).unwrap().join().unwrap();
        assert_eq!(told.recv().unwrap(), before.max(NICE));
        spawn("beside", move || tell.send(nice()).unwrap()).unwrap().join().unwrap();
        assert_eq!((told.recv().unwrap(), nice()), (before, before));
    }

    #[test]
    fn a_thread_that_may_not_give_way_does_its_work_all_the_same() {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let refused = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        spawn_giving_way("refused", refused, move || tell.send("done").unwrap()).unwrap().join().unwrap();
        assert_eq!(told.recv().unwrap(), "done");
    }

    /// A proposal of a member whose raft is busy is neither committed nor applied: it waits, as behind a slow disk.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_waits_for_a_disk_is_known_to_wait() {
        let dir = tempfile::tempdir().unwrap();
        let server = start(dir.path());
        let handle = server.handle();
        handle.propose(put()).await.unwrap();
        let shared = &handle.shared;
        // Whoever waits is answered a moment before his share comes back.
        let rests = async || {
            while shared.has_proposals() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), rests()).await.expect("everything is applied");
        let mut proposed = Box::pin(handle.propose(put()));
        let applied = shared.applied();
        let held = tokio::task::block_in_place(|| {
            shared.raft.work(|_, _| {
                let waits = futures_util::FutureExt::now_or_never(proposed.as_mut()).is_none();
                (waits, shared.has_proposals(), shared.committed() == applied)
            })
        });
        assert_eq!(held, Some((true, true, true)));
        shared.raft.nudge();
        proposed.as_mut().await.unwrap();
        drop(proposed);
        tokio::time::timeout(Duration::from_secs(5), rests()).await.expect("everything is applied");
        drop(handle);
        tokio::task::spawn_blocking(|| server.shut_down()).await.unwrap();
    }

    /// The watch thread once held the state it was started with for as long as it ran. The engine then kept every row
    /// ever replaced: memory grew by a kilobyte with each put, and merging never dropped anything.
    #[tokio::test]
    async fn nobody_holds_a_state_but_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let server = start(dir.path());
        let handle = server.handle();
        let stream = handle.watch_open();
        for _ in 0..20 {
            handle.propose(put()).await.unwrap();
        }
        let newest_alone = async {
            while handle.shared.engine().open_snapshots() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), newest_alone).await.expect("older states are let go");
        drop((stream, handle));
        tokio::task::spawn_blocking(|| server.shut_down()).await.unwrap();
    }
}
