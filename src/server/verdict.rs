//! Who is wrong when members say different things.

use std::collections::BTreeMap;

use crate::types::MemberId;

/// What follows from what members say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everybody who was heard says the same.
    Agreed,
    /// These contradict a majority of the cluster.
    Against(Vec<MemberId>),
    /// No majority of the cluster says the same.
    Undecided,
}

/// Judges by majority, as etcd does: of all `members`, not only of those that were heard, so that silence of some cannot
/// make others guilty.
pub(super) fn judge<S: Ord>(said: &BTreeMap<MemberId, S>, members: usize) -> Verdict {
    let mut groups: BTreeMap<&S, Vec<MemberId>> = BTreeMap::new();
    for (member, says) in said {
        groups.entry(says).or_default().push(*member);
    }
    if groups.len() <= 1 {
        return Verdict::Agreed;
    }
    let Some(majority) = groups.values().find(|group| group.len() > members / 2) else { return Verdict::Undecided };
    Verdict::Against(said.keys().copied().filter(|member| !majority.contains(member)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(said: &[u64], members: usize) -> Verdict {
        judge(&(1..).map(MemberId).zip(said.iter().copied()).collect(), members)
    }

    #[test]
    fn minority_is_wrong_whoever_asks() {
        assert_eq!(judged(&[0, 0, 7], 3), Verdict::Against(vec![MemberId(3)]));
        assert_eq!(judged(&[7, 0, 0], 3), Verdict::Against(vec![MemberId(1)]));
        assert_eq!(judged(&[0, 4, 0, 7, 0], 5), Verdict::Against(vec![MemberId(2), MemberId(4)]));
    }

    #[test]
    fn agreement_needs_no_majority() {
        for (said, members) in [(vec![], 3), (vec![5], 3), (vec![5, 5], 5), (vec![5, 5, 5], 3)] {
            assert_eq!(judged(&said, members), Verdict::Agreed, "{said:?} of {members}");
        }
    }

    #[test]
    fn silent_members_are_nobodys_witnesses() {
        for (said, members) in [(vec![0, 7], 2), (vec![0, 7], 3), (vec![0, 0, 7], 5), (vec![0, 0, 7, 7], 4)] {
            assert_eq!(judged(&said, members), Verdict::Undecided, "{said:?} of {members}");
        }
    }
}
