//! The v2 API on a running member: proposals, reads, expiry, and who may propose.
//!
//! A request travels inside an entry as etcd's own request of that API. etcd 3.6 and later do not survive such an entry, so
//! it is proposed only while every configured member is known to be one of ours (`capable`), and sent to no other.

mod capable;
mod stats;
mod traffic;
mod watch;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Error;
use prost::Message as _;
use thiserror::Error as ThisError;
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};

use crate::{
    apply::{self, AlarmKind, Applied, Response},
    clock::Clock as _,
    pb::{
        etcdserverpb::{InternalRaftRequest, RequestHeader},
        raftpb::Message,
    },
    raft::{Proposal, Role},
    types::{MemberId, Rejection, Term},
    v2store::{self, Depth, Event, Listing, Method, Nanos, Outcome, Path, Request, Shown, Step},
};

use super::{Handle, ServerError, State};

pub use capable::{V2Unavailable, carries_v2};
pub use stats::{StoreStats, Tally};
use traffic::Traffic;
pub use traffic::{FlowStats, FollowerStats};
pub use watch::V2Watch;
use watch::Watchers;

/// Longest request in an entry: the longest form (etcd's limit, which is Go's), and its path.
pub const V2_REQUEST_BYTES_MAX: usize = (10 << 20) + v2store::PATH_BYTES_MAX + 1_024;
/// Keys and values that are let expire at a time: the batch and the events of one entry hold them.
const EXPIRED_BYTES_MAX: usize = 16 << 20;
/// How often the leader looks whether a node has run out (etcd's interval).
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// How often the log tells of something that goes on.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// What a member keeps for the v2 API besides the tree.
#[derive(Debug, Default)]
pub(super) struct V2 {
    watchers: Watchers,
    stats: StoreStats,
    traffic: Traffic,
    /// Members that need not be looked up again.
    known: Mutex<capable::Known>,
    /// When the log last told of a member that is sent nothing.
    told: Mutex<Option<Duration>>,
}

/// Why a request of the v2 API was not carried out.
#[derive(Clone, Debug, ThisError)]
pub enum V2Error {
    /// The store's own refusal, which every member computes alike.
    #[error(transparent)]
    Store(#[from] v2store::Error),
    /// Not every member would understand it.
    #[error(transparent)]
    Unavailable(#[from] V2Unavailable),
    /// There are as many watchers as there may be.
    #[error(transparent)]
    TooManyWatchers(#[from] v2store::Full),
    /// As for any other request.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl From<Rejection> for V2Error {
    fn from(rejection: Rejection) -> Self {
        Self::Server(rejection.into())
    }
}

/// Where this member stands in raft, which answers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaftPlace {
    /// The last applied entry.
    pub index: u64,
    /// The term.
    pub term: u64,
}

/// A node that was found, and the state it was found in.
#[derive(Debug)]
pub struct V2Found {
    handle: Handle,
    state: Arc<State>,
    index: u64,
    listing: Listing,
}

impl V2Found {
    /// Where the store stands.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Whether everything was shown.
    pub fn is_done(&self) -> bool {
        self.listing.is_done()
    }

    /// The next steps through the node and what is shown below it ([`Listing::steps`]), as long as it is not done.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn steps(self, bytes_min: usize) -> Result<(Self, Vec<Step>), V2Error> {
        let Self { handle, state, index, mut listing } = self;
        let walk = move || {
            let steps = listing.steps(state.v2().rows(), bytes_min)?;
            Ok((state, listing, steps))
        };
        let (state, listing, steps) = handle.blocking(walk).await?;
        Ok((Self { handle, state, index, listing }, steps))
    }

    /// The node and its children at once, for directories that are known to be small.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn whole(self) -> Result<(Shown, Vec<Shown>), V2Error> {
        let (_, steps) = self.steps(usize::MAX).await?;
        let mut shown = steps.into_iter().filter_map(|step| match step {
            Step::Node(shown) | Step::Enter(shown) => Some(shown),
            Step::Leave(_) => None,
        });
        let node = shown.next().unwrap_or_else(|| unreachable!("what was found is shown first"));
        Ok((node, shown.collect()))
    }
}

/// How a member stands.
#[derive(Clone, Debug, PartialEq)]
pub struct SelfStats {
    /// Its name.
    pub name: String,
    /// What it is to its cluster.
    pub role: Role,
    /// Who leads, if that is known.
    pub leader: Option<MemberId>,
    /// How long it has run.
    pub runs_for: Duration,
    /// How long ago it saw the last election.
    pub led_for: Duration,
    /// Appends it has sent.
    pub sent: FlowStats,
    /// Appends it has received.
    pub received: FlowStats,
}

impl Handle {
    /// The time by which expiries are set.
    pub fn v2_now(&self) -> Nanos {
        Nanos::try_from(self.shared.clock.wall().as_nanos()).unwrap_or(Nanos::MAX)
    }

    /// Appends `request` to the log and waits until it is applied.
    ///
    /// # Errors
    /// [`V2Error::Store`], [`V2Error::Unavailable`] and [`Rejection::NoSpace`]: it did not happen; otherwise as
    /// [`Handle::propose`].
    pub async fn v2_write(&self, request: Request) -> Result<Arc<Event>, V2Error> {
        self.check_v2_place(&request).await?;
        self.check_v2_space(&request).await?;
        self.v2_make_known().await?;
        let outcome = self.propose_v2(request, None).await?;
        match &outcome.answer {
            Some(answer) => Ok(answer.clone()?),
            None => unreachable!("a request of a client is answered by {outcome:?}"),
        }
    }

    /// Refuses what is about a place where no node can be, as the store does of a deletion: nothing is there.
    async fn check_v2_place(&self, request: &Request) -> Result<(), V2Error> {
        let path = Path::clean(&request.path);
        let Some(obstacle) = path.obstacle() else { return Ok(()) };
        if Method::named(&request.method) == Some(Method::Delete) {
            self.v2_look(path, Depth::Children, true).await?;
        }
        Err(v2store::Error::new(v2store::ErrorCode::InvalidField, obstacle, 0).into())
    }

    /// Refuses what takes space while there is none ([`apply::v2_cost`]): here, not where it is applied, because members of
    /// earlier versions apply it.
    async fn check_v2_space(&self, request: &Request) -> Result<(), V2Error> {
        let cost = apply::v2_cost(request);
        if cost > 0 && self.published().alarms.is_raised(AlarmKind::NoSpace) {
            return Err(Rejection::NoSpace.into());
        }
        Ok(self.check_quota(cost).await?)
    }

    /// The node at `path` as this member has it; with `quorum` as it is after every acknowledged write. Counted in the
    /// statistics of the store.
    ///
    /// # Errors
    /// As [`Handle::v2_look`].
    pub async fn v2_read(&self, path: Path, depth: Depth, quorum: bool) -> Result<V2Found, V2Error> {
        let found = self.v2_look(path, depth, quorum).await;
        if matches!(found, Ok(_) | Err(V2Error::Store(_))) {
            self.shared.v2.stats.count_read(found.is_ok(), depth);
        }
        found
    }

    /// [`Handle::v2_read`] for this member's own purposes.
    ///
    /// # Errors
    /// [`V2Error::Store`]; as [`Handle::read_index`]; a store that cannot be read.
    pub async fn v2_look(&self, path: Path, depth: Depth, quorum: bool) -> Result<V2Found, V2Error> {
        if quorum {
            self.read_index().await?;
        }
        let (state, now) = (self.published(), self.v2_now());
        let for_search = Arc::clone(&state);
        let (index, listing) = self.blocking(move || Ok(for_search.v2().get(&path, depth, now)?)).await??;
        Ok(V2Found { handle: self.clone(), state, index, listing })
    }

    /// What answers say of raft.
    pub fn raft_place(&self) -> RaftPlace {
        RaftPlace { index: self.shared.applied().0, term: self.shared.standing().term.0 }
    }

    /// Operations on this member's tree since it was started.
    pub fn v2_stats(&self) -> &StoreStats {
        &self.shared.v2.stats
    }

    /// How many watchers of the v2 API wait at this member.
    pub fn v2_watchers(&self) -> usize {
        self.shared.v2.watchers.len()
    }

    /// How this member stands, for `/v2/stats/self`.
    pub fn v2_self_stats(&self) -> SelfStats {
        let shared = &*self.shared;
        let (now, standing) = (shared.clock.monotonic(), shared.standing());
        let (sent, received) = shared.v2.traffic.flows(now);
        let led_for = shared.leadership().elected().map_or(now, |elected| now.saturating_sub(elected));
        SelfStats {
            name: shared.options.name.clone(),
            role: standing.role,
            leader: standing.leader,
            runs_for: now,
            led_for,
            sent,
            received,
        }
    }

    /// How followers answer, for `/v2/stats/leader`; nothing if this member does not lead.
    pub fn v2_leader_stats(&self) -> Option<BTreeMap<MemberId, FollowerStats>> {
        let own = self.member_id();
        let state = self.published();
        let others = state.cluster.members().map(|member| member.id).filter(|id| *id != own);
        self.leads().then(|| self.shared.v2.traffic.followers(others))
    }

    /// Proposes, in this term alone if one is given.
    async fn propose_v2(&self, request: Request, term: Option<Term>) -> Result<Arc<Outcome>, V2Error> {
        self.check_gap()?;
        let id = self.shared.ids.next();
        let v2 = Request { id: id.0, ..request }.encode_to_vec().into();
        let header = Some(RequestHeader { id: id.0, ..RequestHeader::default() });
        let payload = InternalRaftRequest { v2, header, ..Default::default() }.encode_to_vec();
        if payload.len() > V2_REQUEST_BYTES_MAX {
            return Err(Rejection::RequestTooLarge.into());
        }
        let proposal = Proposal { only_in: term, ..Proposal::new(id, payload) };
        match self.propose_encoded(proposal).await? {
            Response::V2(outcome) => Ok(outcome),
            other => unreachable!("a request of the v2 API is answered by {other:?}"),
        }
    }

    /// Lets expire what has run out, if this member leads.
    async fn expire_v2(&self) -> Result<(), V2Error> {
        loop {
            let (state, now, term) = (self.published(), self.v2_now(), self.shared.standing().term);
            let until = self.blocking(move || Ok(state.v2().expired_until(now, EXPIRED_BYTES_MAX)?)).await?;
            let Some(until) = until else { return Ok(()) };
            if !self.still_leads().await {
                return Ok(());
            }
            self.v2_make_known().await?;
            self.propose_v2(Request::new(Method::Sync, &Path::root(), until), Some(term)).await?;
        }
    }
}

impl V2 {
    /// Counts what was applied, and tells watchers. Called when readers can see it, and before anybody is answered.
    pub(super) fn applied(&self, applied: &[Applied]) {
        let outcomes = applied.iter().filter_map(|entry| match &entry.outcome {
            Ok(Response::V2(outcome)) => Some(outcome),
            _ => None,
        });
        for outcome in outcomes {
            self.stats.count(outcome);
            self.watchers.tell(&outcome.told);
        }
    }

    /// Messages go to peers.
    pub(super) fn on_sent(&self, messages: &[Message], now: Duration) {
        self.traffic.on_sent(messages, now);
    }

    /// A message came from a peer.
    pub(super) fn on_received(&self, message: &Message, now: Duration) {
        self.traffic.on_received(message, now);
    }

    /// A message to a peer was lost.
    pub(super) fn on_lost(&self, peer: MemberId) {
        self.traffic.on_lost(peer);
    }

    /// The state has become another one.
    pub(super) fn installed(&self) {
        self.watchers.clear();
    }
}

/// Lets nodes of the v2 tree expire, on the leader.
///
/// # Errors
/// Never; what fails is tried again.
pub async fn expire_v2_nodes(handle: Handle) -> Result<(), Error> {
    let (mut look, mut told) = (interval(EXPIRY_INTERVAL), None);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            _ = look.tick() => {}
            () = handle.stopped() => return Ok(()),
        }
        let now = handle.shared.clock.monotonic();
        if handle.leads()
            && let Err(why) = handle.expire_v2().await
            && told.is_none_or(|before| now >= before + REPORT_INTERVAL)
        {
            told = Some(now);
            tracing::warn!(%why, "failed to let nodes of the v2 tree expire; it is tried again all the time");
        }
    }
}
