//! How a brand-new cluster begins: the founding members and the entries every one of them writes.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use thiserror::Error;

use super::{Attributes, Cluster, Member, MemberChange, cluster_id, founding_member_id};
use crate::{
    pb::raftpb::{ConfState, Entry, EntryType, HardState},
    types::{ClusterId, MemberId, RequestId},
};

/// The members a cluster is founded with. Every founder computes the same from the same options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    cluster: ClusterId,
    members: BTreeMap<MemberId, Member>,
}

/// Why no cluster can be founded from these options.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FoundingError {
    /// No members at all.
    #[error("initial-cluster names no member; give at least name=http://host:2380")]
    Empty,
    /// A member without an address.
    #[error("member {0:?} of initial-cluster has no peer URL")]
    NoUrls(String),
    /// One address for two members.
    #[error("peer URL {0:?} appears twice in initial-cluster")]
    DuplicateUrl(String),
}

impl Founding {
    /// Derives identifiers from `initial-cluster` (name → peer URLs) and `initial-cluster-token`.
    ///
    /// # Errors
    /// [`FoundingError`] for an empty list, a member without URLs, or a URL used twice.
    pub fn new(initial_cluster: &BTreeMap<String, Vec<String>>, token: &str) -> Result<Self, FoundingError> {
        check(initial_cluster)?;
        let members: BTreeMap<_, _> = initial_cluster
            .iter()
            .map(|(name, urls)| {
                let mut peer_urls = urls.clone();
                peer_urls.sort_unstable();
                let attributes = Attributes { name: name.clone(), client_urls: Vec::new() };
                let id = founding_member_id(&peer_urls, token);
                (id, Member { id, peer_urls, is_learner: false, attributes })
            })
            .collect();
        Ok(Self { cluster: cluster_id(members.keys().copied()), members })
    }

    /// The cluster's identifier.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster
    }

    /// The founders, ordered by identifier.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// The founder of that name.
    pub fn named(&self, name: &str) -> Option<&Member> {
        self.members().find(|member| member.attributes.name == name)
    }

    /// The founder with that identifier.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Raft's configuration from the first instant on: all founders vote.
    pub fn configuration(&self) -> ConfState {
        ConfState { voters: self.members.keys().map(|id| id.0).collect(), ..ConfState::default() }
    }

    /// The cluster behind [`Founding::entries`].
    pub fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::new(self.cluster, self.configuration());
        for member in self.members() {
            cluster.apply(&MemberChange::add(member.clone()));
        }
        cluster
    }

    /// Entries 1 to n of the log, term 1: one addition per founder, name included (peer-and-disk, §1.5).
    pub fn entries(&self) -> Vec<Entry> {
        (1..).zip(self.members()).map(|(index, member)| founding_entry(index, member)).collect()
    }

    /// The hard state that goes with [`Founding::entries`]: all of them committed, nobody voted for.
    pub fn hard_state(&self) -> HardState {
        HardState { term: 1, vote: 0, commit: u64::try_from(self.members.len()).unwrap_or(u64::MAX) }
    }
}

fn founding_entry(index: u64, member: &Member) -> Entry {
    let data = MemberChange::add(member.clone()).encode(RequestId(0)).encode_to_vec();
    Entry { r#type: EntryType::EntryConfChange.into(), term: 1, index, data: data.into() }
}

fn check(initial_cluster: &BTreeMap<String, Vec<String>>) -> Result<(), FoundingError> {
    if initial_cluster.is_empty() {
        return Err(FoundingError::Empty);
    }
    let mut seen = BTreeSet::new();
    for (name, urls) in initial_cluster {
        if urls.is_empty() {
            return Err(FoundingError::NoUrls(name.clone()));
        }
        if let Some(url) = urls.iter().find(|url| !seen.insert(url.as_str())) {
            return Err(FoundingError::DuplicateUrl(url.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Founding {
        let member = |name: &str, port: u16| (name.to_owned(), vec![format!("http://127.0.0.1:{port}")]);
        let initial = BTreeMap::from([member("infra0", 12380), member("infra1", 22380), member("infra2", 32380)]);
        Founding::new(&initial, "etcd-cluster-1").unwrap()
    }

    #[test]
    fn founders_have_etcds_ids() {
        let founding = three();
        assert_eq!(founding.cluster_id(), ClusterId(0xef37_ad9d_c622_a7c4));
        assert_eq!(founding.named("infra0").unwrap().id, MemberId(0x8211_f1d0_f64f_3269));
        assert_eq!(founding.named("infra3"), None);
        assert_eq!(founding.configuration().voters.len(), 3);
    }

    #[test]
    fn founding_entries_add_the_members_by_id_with_their_names() {
        let founding = three();
        let entries = founding.entries();
        assert_eq!(entries.iter().map(|entry| (entry.index, entry.term)).collect::<Vec<_>>(), [(1, 1), (2, 1), (3, 1)]);
        let added: Vec<_> = entries.iter().map(|entry| MemberChange::decode(entry.data.clone()).unwrap()).collect();
        let expected: Vec<_> =
            founding.members().map(|member| (RequestId(0), MemberChange::add(member.clone()))).collect();
        assert_eq!(added, expected);
        assert_eq!(founding.hard_state(), HardState { term: 1, vote: 0, commit: 3 });
        let cluster = founding.cluster();
        assert!(cluster.members().eq(founding.members()) && cluster.configuration() == &founding.configuration());
    }

    #[test]
    fn impossible_clusters_are_refused() {
        let found = |list: &[(&str, &[&str])]| {
            let owned = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect();
            Founding::new(&list.iter().map(|(name, urls)| ((*name).to_owned(), owned(urls))).collect(), "t")
        };
        assert_eq!(found(&[]), Err(FoundingError::Empty));
        assert_eq!(found(&[("a", &[])]), Err(FoundingError::NoUrls("a".into())));
        let twice = found(&[("a", &["http://x:1"]), ("b", &["http://x:1"])]);
        assert_eq!(twice, Err(FoundingError::DuplicateUrl("http://x:1".into())));
    }
}
