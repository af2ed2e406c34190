//! Who is registered, and what follows from that for one who is, or looks on. Knows nothing of how it was asked.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cause, Founders, Own};
use crate::config::{InitialCluster, Url};

/// Largest cluster that is waited for. Nobody runs a hundred members; a service that says more is mistaken.
pub(super) const SIZE_MAX: usize = 1000;

/// A registration at a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Registered {
    /// The member, as the service names it.
    pub(super) id: String,
    /// What it registered.
    pub(super) entry: String,
    /// Its place in the order of registrations.
    pub(super) created: u64,
}

/// The registrations a cluster is founded with, as they stand at the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    entries: Vec<String>,
}

/// What a list of registrations means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Census {
    /// Everybody is there.
    Complete(Listed),
    /// Others came first.
    Full(Listed),
    /// Some are missing.
    Waiting {
        /// How many are there.
        found: usize,
        /// Whether the one who asks is among them.
        own: bool,
    },
}

impl Census {
    /// The first `size` of those registered found the cluster. Who asks as `own` has a place, had none left, or has yet
    /// to be registered; nobody's place is looked for if `own` is `None`.
    pub(super) fn of(mut registered: Vec<Registered>, size: usize, own: Option<&str>) -> Self {
        registered.sort_by(|left, right| (left.created, &left.id).cmp(&(right.created, &right.id)));
        let mut seen = BTreeSet::new();
        registered.retain(|one| seen.insert(one.id.clone()));
        let founds = |one: &Registered| own.is_none_or(|own| own == one.id);
        let has_place = registered.iter().take(size).any(founds);
        if registered.len() < size {
            return Self::Waiting { found: registered.len(), own: has_place };
        }
        let listed = Listed { entries: registered.into_iter().take(size).map(|one| one.entry).collect() };
        if has_place { Self::Complete(listed) } else { Self::Full(listed) }
    }
}

impl Listed {
    /// What [`Listed::text`] has said.
    pub(super) fn of_text(text: &str) -> Self {
        let Ok(cluster) = InitialCluster::parse(text) else { return Self { entries: vec![text.to_owned()] } };
        let entry = |(name, urls): (&String, &Vec<Url>)| {
            urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>().join(",")
        };
        Self { entries: cluster.0.iter().map(entry).collect() }
    }

    /// As `initial-cluster` would say it.
    pub fn text(&self) -> String {
        self.entries.join(",")
    }

    /// The members by name.
    ///
    /// # Errors
    /// [`Cause::InvalidUrl`], [`Cause::DuplicateName`], [`Cause::DuplicateUrl`].
    pub fn members(&self) -> Result<InitialCluster, Cause> {
        let text = self.text();
        if text.contains(char::is_control) {
            return Err(Cause::InvalidUrl(format!("control characters in {text:?}")));
        }
        let cluster = InitialCluster::parse(&text).map_err(Cause::InvalidUrl)?;
        if cluster.0.len() != self.entries.len() {
            return Err(Cause::DuplicateName { listed: text });
        }
        match cluster.repeated() {
            Some(url) => Err(Cause::DuplicateUrl { cluster: cluster.to_string(), url: url.to_string() }),
            None => Ok(cluster),
        }
    }

    /// The founders, if this node is among them as it described itself.
    pub(super) fn founders(&self, own: &Own, token: &str) -> Result<Founders, Cause> {
        let cluster = self.members()?;
        let texts = |urls: &Vec<Url>| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
        let members: BTreeMap<_, _> = cluster.0.iter().map(|(name, urls)| (name.clone(), texts(urls))).collect();
        let mut described = own.peer_urls.clone();
        described.sort_unstable();
        if members.get(&own.name) != Some(&described) {
            return Err(Cause::OwnChanged { own: own.entry(), listed: self.text() });
        }
        Ok(Founders { members, token: token.to_owned(), own: own.name.clone() })
    }
}

/// The size a service says a cluster has.
pub(super) fn size(text: &str) -> Result<usize, Cause> {
    let size = text.parse().ok().filter(|size| (1..=SIZE_MAX).contains(size));
    size.ok_or_else(|| Cause::BadSize { said: text.chars().take(SHOWN_CHARS_MAX).collect() })
}

/// Longest part of a foreign value that a message repeats.
const SHOWN_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(ids: &[&str]) -> Vec<Registered> {
        let one = |(created, id): (u64, &&str)| Registered {
            id: (*id).to_owned(),
            entry: format!("{id}=http://{id}:2380"),
            created,
        };
        let mut all: Vec<_> = (1..).zip(ids).map(one).collect();
        // In any order.
        all.reverse();
        all
    }

    fn entries(census: &Census) -> String {
        let (Census::Complete(listed) | Census::Full(listed)) = census else { panic!("{census:?}") };
        listed.text()
    }

    #[test]
    fn the_first_found_the_cluster_in_the_order_of_registration() {
        let census = Census::of(registered(&["b", "a", "c", "d"]), 3, Some("a"));
        assert!(matches!(census, Census::Complete(_)));
        assert_eq!(entries(&census), "b=http://b:2380,a=http://a:2380,c=http://c:2380");
    }

    #[test]
    fn who_is_not_among_the_first_finds_the_cluster_full() {
        for late in ["d", "x"] {
            let census = Census::of(registered(&["a", "b", "c", "d"]), 3, Some(late));
            assert!(matches!(census, Census::Full(_)), "{late}");
        }
        assert!(matches!(Census::of(registered(&["a"]), 1, None), Census::Complete(_)));
    }

    #[test]
    fn others_are_waited_for_and_one_who_is_listed_twice_is_one() {
        let waiting = |ids: &[&str], own| Census::of(registered(ids), 3, own);
        assert_eq!(waiting(&["a", "b"], Some("a")), Census::Waiting { found: 2, own: true });
        assert_eq!(waiting(&["a", "b"], Some("c")), Census::Waiting { found: 2, own: false });
        assert_eq!(waiting(&["a", "b", "a"], Some("a")), Census::Waiting { found: 2, own: true });
    }

    #[test]
    fn impossible_lists_are_refused_in_etcds_words() {
        let listed = |entries: &[&str]| Listed { entries: entries.iter().map(ToString::to_string).collect() };
        let refusal = |entries: &[&str]| listed(entries).members().unwrap_err().to_string();
        assert!(refusal(&["a=http://a:1", "a=http://b:1"]).starts_with("discovery: found duplicate name"));
        assert!(refusal(&["a=http://a:1", "b=nonsense"]).starts_with("discovery: invalid URL"));
        let twice = refusal(&["a=http://a:1", "b=http://a:1"]);
        assert!(twice.starts_with("discovery cluster a=http://a:1,b=http://a:1 has duplicate url"), "{twice}");
    }

    #[test]
    fn founders_include_this_node_as_it_is() {
        let own = Own { name: "a".to_owned(), peer_urls: vec!["http://a:2".to_owned(), "http://a:1".to_owned()] };
        let listed = |entry: &str| Listed { entries: vec![entry.to_owned(), "b=http://b:1".to_owned()] };
        let founders = listed("a=http://a:1,a=http://a:2").founders(&own, "t").unwrap();
        assert_eq!((founders.own.as_str(), founders.members.len()), ("a", 2));
        let changed = listed("a=http://evil:1").founders(&own, "t");
        assert!(matches!(changed, Err(Cause::OwnChanged { .. })), "{changed:?}");
    }

    #[test]
    fn sizes_are_small_positive_numbers() {
        assert_eq!(size("3").ok(), Some(3));
        for bad in ["", "0", "-1", "3.0", " 3", "three", "18446744073709551616", "1001"] {
            assert!(matches!(size(bad), Err(Cause::BadSize { .. })), "{bad}");
        }
    }
}
