//! Which of an existing cluster's members a newcomer is.

use std::collections::BTreeMap;

use thiserror::Error;

use super::Member;
use crate::types::{ClusterId, MemberId};

/// Why a newcomer cannot be any of the cluster's members. The first two are etcd's texts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// The newcomer's list is longer or shorter than the cluster's.
    #[error("member count is unequal")]
    Count,
    /// A member of the cluster is not on the newcomer's list.
    #[error("PeerURLs: no match found for existing member ({id}, [{urls}])")]
    Unmatched {
        /// The member.
        id: MemberId,
        /// Its peer URLs.
        urls: String,
    },
    /// The name is taken.
    #[error("name {name:?} is that of member {of} already")]
    DuplicateName {
        /// The newcomer's name.
        name: String,
        /// Whose it is.
        of: MemberId,
    },
}

impl Mismatch {
    /// What an operator can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Count | Self::Unmatched { .. } => {
                "--initial-cluster must list every member of the cluster as `member list` shows it, this one included; run `member add` first"
            }
            Self::DuplicateName { .. } => "give this member a --name of its own, in --initial-cluster too",
        }
    }
}

/// The identifier under which the cluster of `members` knows the one that is called `name` on the newcomer's list. Both
/// lists are paired by their peer URLs; `same` tells whether two sets of them lead to the same places.
///
/// # Errors
/// [`Mismatch`].
pub fn own_id(
    members: &[Member],
    listed: &BTreeMap<String, Vec<String>>,
    name: &str,
    same: impl Fn(&[String], &[String]) -> bool,
) -> Result<MemberId, Mismatch> {
    if members.len() != listed.len() {
        return Err(Mismatch::Count);
    }
    let mut own = None;
    for member in members {
        let pair = listed.iter().find(|(_, urls)| same(&member.peer_urls, urls));
        let unmatched = || Mismatch::Unmatched { id: member.id, urls: member.peer_urls.join(" ") };
        let (listed_as, _) = pair.ok_or_else(unmatched)?;
        own = own.or((listed_as == name).then_some(member.id));
    }
    let own = own.ok_or(Mismatch::Count)?;
    let namesake = members.iter().find(|member| member.attributes.name == name && member.id != own);
    match namesake {
        Some(member) => Err(Mismatch::DuplicateName { name: name.to_owned(), of: member.id }),
        None => Ok(own),
    }
}

/// A cluster in the form etcd prints it.
pub fn printed(cluster: ClusterId, members: &[Member]) -> String {
    let members: Vec<String> = members.iter().map(printed_member).collect();
    format!("{{ClusterID:{cluster} Members:[{}] RemovedMemberIDs:[]}}", members.join(" "))
}

fn printed_member(member: &Member) -> String {
    format!(
        "&{{ID:{} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} ClientURLs:[{}]}}}}",
        member.id,
        member.peer_urls.join(" "),
        member.is_learner,
        member.attributes.name,
        member.attributes.client_urls.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Attributes, cluster::tests::member},
        *,
    };

    fn listed(entries: &[(&str, &str)]) -> BTreeMap<String, Vec<String>> {
        entries.iter().map(|(name, url)| ((*name).to_owned(), vec![(*url).to_owned()])).collect()
    }

    fn find(entries: &[(&str, &str)], name: &str) -> Result<MemberId, Mismatch> {
        let members =
            [member(1, false), member(2, false), Member { attributes: Attributes::default(), ..member(3, true) }];
        own_id(&members, &listed(entries), name, |left, right| left == right)
    }

    #[test]
    fn newcomer_is_the_member_with_its_urls_whatever_the_others_are_called() {
        let entries = [("x", "http://h1:1"), ("y", "http://h2:1"), ("new", "http://h3:1")];
        assert_eq!(find(&entries, "new"), Ok(MemberId(3)));
    }

    #[test]
    fn lists_must_be_the_same() {
        assert_eq!(find(&[("new", "http://h3:1")], "new"), Err(Mismatch::Count));
        let other = [("x", "http://h1:1"), ("y", "http://h9:1"), ("new", "http://h3:1")];
        let refused = find(&other, "new").unwrap_err();
        assert_eq!(refused.to_string(), "PeerURLs: no match found for existing member (2, [http://h2:1])");
    }

    #[test]
    fn name_of_another_member_is_refused() {
        let entries = [("x", "http://h1:1"), ("y", "http://h2:1"), ("m1", "http://h3:1")];
        let expected = Mismatch::DuplicateName { name: "m1".to_owned(), of: MemberId(1) };
        assert_eq!(find(&entries, "m1"), Err(expected));
    }

    #[test]
    fn clusters_are_printed_as_etcd_prints_them() {
        let text = "{ClusterID:f Members:[&{ID:1 RaftAttributes:{PeerURLs:[http://h1:1] IsLearner:false} \
                    Attributes:{Name:m1 ClientURLs:[]}}] RemovedMemberIDs:[]}";
        let mut one = member(1, false);
        one.attributes.client_urls.clear();
        assert_eq!(printed(ClusterId(15), &[one]), text);
    }
}
