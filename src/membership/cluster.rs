//! The replicated value: members, removed members, versions, and raft's configuration.

use std::collections::{BTreeMap, BTreeSet};

use super::{Attributes, Member, MemberChange, Version};
use crate::{
    pb::{etcdserverpb, raftpb::ConfState},
    types::{ClusterId, MemberId, Rejection},
};

/// Learners a cluster may have unless configured otherwise; must be equal on all members.
pub const LEARNERS_MAX_DEFAULT: usize = 1;

/// What every member knows alike about the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    pub(super) id: ClusterId,
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) removed: BTreeSet<MemberId>,
    pub(super) configuration: ConfState,
    pub(super) version: Option<Version>,
    pub(super) downgrade: Downgrade,
}

/// A downgrade of the cluster that an operator has allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Downgrade {
    /// Where the downgrade leads; `None` while none is under way.
    pub target: Option<Version>,
}

impl Cluster {
    /// A cluster of which only the identifier and raft's founding configuration are known yet.
    pub fn new(id: ClusterId, configuration: ConfState) -> Self {
        Self { id, configuration, ..Self::default() }
    }

    /// What a snapshot file says of a cluster: its members, those that can never come back, and raft's configuration.
    pub fn of(
        members: impl IntoIterator<Item = Member>,
        removed: impl IntoIterator<Item = MemberId>,
        configuration: ConfState,
    ) -> Self {
        let mut cluster = Self { removed: removed.into_iter().collect(), ..Self::default() };
        cluster.members = members.into_iter().map(|member| (member.id, member)).collect();
        cluster.configuration = sorted(configuration);
        cluster
    }

    /// Records which cluster this is, and where given the configuration raft begins with.
    pub fn establish(&mut self, id: ClusterId, configuration: Option<ConfState>) {
        self.id = id;
        if let Some(configuration) = configuration {
            self.configuration = configuration;
        }
    }

    /// The cluster's identifier; zero until it is known.
    pub fn id(&self) -> ClusterId {
        self.id
    }

    /// All members, ordered by identifier.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// The members that have a vote, ordered by identifier.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| !member.is_learner)
    }

    /// One member.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Whether `id` belonged to the cluster once and can never come back.
    pub fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// The identifiers that can never come back, ordered.
    pub fn removed(&self) -> impl ExactSizeIterator<Item = MemberId> {
        self.removed.iter().copied()
    }

    /// Raft's configuration after the last applied change.
    pub fn configuration(&self) -> &ConfState {
        &self.configuration
    }

    /// The version the cluster has agreed on; `None` in a young cluster.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The downgrade under way, if any.
    pub fn downgrade(&self) -> Downgrade {
        self.downgrade
    }

    /// The members as clients see them, ordered by identifier.
    pub fn to_pb(&self) -> Vec<etcdserverpb::Member> {
        self.members().map(etcdserverpb::Member::from).collect()
    }

    /// Decides whether an agreed change takes effect. Every member decides alike.
    ///
    /// # Errors
    /// The refusal the proposer's client hears.
    pub fn check(&self, change: &MemberChange, learners_max: usize) -> Result<(), Rejection> {
        if self.is_removed(change.id()) {
            return Err(Rejection::MemberNotFound);
        }
        match change {
            MemberChange::Add { member, .. } => self.check_add(member, change.adds_learner(), learners_max),
            MemberChange::Promote(id) => {
                let member = self.member(*id).ok_or(Rejection::MemberNotFound)?;
                if member.is_learner { Ok(()) } else { Err(Rejection::NotLearner) }
            }
            MemberChange::Update { id, peer_urls } => {
                self.member(*id).ok_or(Rejection::MemberNotFound)?;
                self.check_urls_free(peer_urls, Some(*id))
            }
            MemberChange::Remove(id) => self.member(*id).map(drop).ok_or(Rejection::MemberNotFound),
        }
    }

    /// Carries out a change that [`Cluster::check`] has accepted.
    pub fn apply(&mut self, change: &MemberChange) {
        match change {
            MemberChange::Add { member, learner } => {
                self.configure(member.id, Some(*learner));
                self.members.insert(member.id, member.clone());
            }
            MemberChange::Promote(id) => {
                self.configure(*id, Some(false));
                self.change(*id, |member| member.is_learner = false);
            }
            MemberChange::Update { id, peer_urls } => self.change(*id, |member| member.peer_urls.clone_from(peer_urls)),
            MemberChange::Remove(id) => {
                self.configure(*id, None);
                self.members.remove(id);
                self.removed.insert(*id);
            }
        }
    }

    /// Records what a member has published about itself; `false` if it is not a member.
    pub fn publish(&mut self, id: MemberId, attributes: Attributes) -> bool {
        let known = self.members.contains_key(&id);
        self.change(id, |member| member.attributes = attributes);
        known
    }

    /// Records the version the cluster has agreed on.
    pub fn set_version(&mut self, version: Version) {
        self.version = Some(version);
    }

    /// Records the downgrade an operator has allowed, or its end.
    pub fn set_downgrade(&mut self, downgrade: Downgrade) {
        self.downgrade = downgrade;
    }

    /// Whether a change is refused or not by how many learners there may be: one at least.
    pub fn depends_on_learners_max(&self, change: &MemberChange) -> bool {
        let has_learner = self.members.values().any(|member| member.is_learner);
        has_learner && change.adds_learner() && self.check(change, usize::MAX).is_ok()
    }

    fn check_add(&self, member: &Member, learner: bool, learners_max: usize) -> Result<(), Rejection> {
        if self.members.contains_key(&member.id) {
            return Err(Rejection::MemberExists);
        }
        self.check_urls_free(&member.peer_urls, None)?;
        let learners = self.members.values().filter(|member| member.is_learner).count();
        if learner && learners >= learners_max { Err(Rejection::TooManyLearners) } else { Ok(()) }
    }

    fn check_urls_free(&self, urls: &[String], except: Option<MemberId>) -> Result<(), Rejection> {
        let mut others = self.members.values().filter(|member| Some(member.id) != except);
        let taken = others.any(|member| member.peer_urls.iter().any(|url| urls.contains(url)));
        if taken { Err(Rejection::PeerUrlExists) } else { Ok(()) }
    }

    fn change(&mut self, id: MemberId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.members.get_mut(&id) {
            change(member);
        }
    }

    /// Moves `id` among raft's voters, its learners, or out of both.
    fn configure(&mut self, id: MemberId, learner: Option<bool>) {
        let ConfState { voters, learners, .. } = &mut self.configuration;
        set_presence(voters, id.0, learner == Some(false));
        set_presence(learners, id.0, learner == Some(true));
    }
}

/// The configuration with its members in order, as all here are kept.
pub(super) fn sorted(configuration: ConfState) -> ConfState {
    let ConfState { mut voters, mut learners, .. } = configuration;
    voters.sort_unstable();
    learners.sort_unstable();
    ConfState { voters, learners, ..ConfState::default() }
}

/// Makes the sorted list contain `id` or not.
fn set_presence(list: &mut Vec<u64>, id: u64, present: bool) {
    match (list.binary_search(&id), present) {
        (Err(place), true) => list.insert(place, id),
        (Ok(place), false) => drop(list.remove(place)),
        _ => {}
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn member(id: u64, learner: bool) -> Member {
        Member {
            id: MemberId(id),
            peer_urls: vec![format!("http://h{id}:1")],
            is_learner: learner,
            attributes: Attributes { name: format!("m{id}"), client_urls: vec![] },
        }
    }

    pub(crate) fn cluster(voters: u64) -> Cluster {
        let mut cluster = Cluster::default();
        for id in 1..=voters {
            cluster.apply(&MemberChange::add(member(id, false)));
        }
        cluster
    }

    fn refusal(cluster: &Cluster, change: &MemberChange) -> Rejection {
        cluster.check(change, LEARNERS_MAX_DEFAULT).unwrap_err()
    }

    #[test]
    fn addition_needs_a_fresh_id_and_free_urls() {
        let cluster = cluster(2);
        assert_eq!(refusal(&cluster, &MemberChange::add(member(2, false))), Rejection::MemberExists);
        let taken = Member { id: MemberId(9), ..member(1, false) };
        assert_eq!(refusal(&cluster, &MemberChange::add(taken)), Rejection::PeerUrlExists);
        assert_eq!(cluster.check(&MemberChange::add(member(3, false)), 1), Ok(()));
    }

    #[test]
    fn removed_id_never_comes_back() {
        let mut cluster = cluster(2);
        cluster.apply(&MemberChange::Remove(MemberId(2)));
        for change in [
            MemberChange::add(member(2, false)),
            MemberChange::Remove(MemberId(2)),
            MemberChange::Promote(MemberId(2)),
            MemberChange::Update { id: MemberId(2), peer_urls: vec![] },
        ] {
            assert_eq!(refusal(&cluster, &change), Rejection::MemberNotFound);
        }
        assert_eq!(cluster.configuration().voters, [1]);
    }

    #[test]
    fn second_learner_is_too_many() {
        let mut cluster = cluster(1);
        cluster.apply(&MemberChange::add(member(2, true)));
        assert_eq!(refusal(&cluster, &MemberChange::add(member(3, true))), Rejection::TooManyLearners);
        assert_eq!(cluster.check(&MemberChange::add(member(3, true)), 2), Ok(()));
        assert_eq!(cluster.check(&MemberChange::add(member(3, false)), 1), Ok(()));
    }

    #[test]
    fn promotion_makes_a_learner_a_voter() {
        let mut cluster = cluster(1);
        cluster.apply(&MemberChange::add(member(2, true)));
        assert_eq!((&cluster.configuration.voters[..], &cluster.configuration.learners[..]), (&[1][..], &[2][..]));
        assert_eq!(refusal(&cluster, &MemberChange::Promote(MemberId(1))), Rejection::NotLearner);
        assert_eq!(refusal(&cluster, &MemberChange::Promote(MemberId(5))), Rejection::MemberNotFound);
        cluster.apply(&MemberChange::Promote(MemberId(2)));
        assert_eq!((&cluster.configuration.voters[..], &cluster.configuration.learners[..]), (&[1, 2][..], &[][..]));
        assert_eq!(cluster.member(MemberId(2)).unwrap().attributes.name, "m2");
    }

    #[test]
    fn update_changes_peer_urls_alone() {
        let mut cluster = cluster(1);
        cluster.apply(&MemberChange::add(member(2, true)));
        let update = |url: &str| MemberChange::Update { id: MemberId(2), peer_urls: vec![url.to_owned()] };
        assert_eq!(refusal(&cluster, &update("http://h1:1")), Rejection::PeerUrlExists);
        assert_eq!(cluster.check(&update("http://h2:1"), 1), Ok(()), "its own URL is no conflict");
        cluster.apply(&update("http://new:1"));
        let updated = cluster.member(MemberId(2)).unwrap();
        assert_eq!((updated.peer_urls.as_slice(), updated.is_learner), (&["http://new:1".to_owned()][..], true));
    }

    #[test]
    fn founding_configuration_is_complete_before_its_entries_are_applied() {
        let mut cluster = Cluster::new(ClusterId(1), ConfState { voters: vec![1, 2], ..ConfState::default() });
        cluster.apply(&MemberChange::add(member(1, false)));
        assert_eq!(cluster.configuration().voters, [1, 2]);
    }
}
