//! Where tokens are kept, seen as narrowly as the service needs it.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;
use thiserror::Error;

use super::{
    SIZE_MAX, SURPLUS_MAX,
    token::{MemberName, Node, Token},
    tree::{Reply, Why},
};

/// Longest a wait is held open: less than the minute after which the usual reverse proxies cut what is silent. Clients
/// take the empty answer for what it is and ask again at once.
pub const WAIT_MAX: Duration = Duration::from_secs(50);
/// Longest a store may take for anything but a wait.
pub const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// What a registry owes.
pub type Pending<'a, T> = BoxFuture<'a, Result<T, RegistryError>>;

/// A store of tokens. All of it is linearizable; what was answered outlives a crash of the service.
pub trait Registry: fmt::Debug + Send + Sync {
    /// Makes `token`, for a cluster of `size` members. It goes by itself after the lifetime the registry was made with.
    fn found<'a>(&'a self, token: &'a Token, size: u32) -> Pending<'a, ()>;

    /// Writes the mark of a probe: always the same one, which is no token and is counted nowhere. What a probe that was cut
    /// short leaves behind, the next one removes.
    fn mark(&self) -> Pending<'_, ()>;

    /// Removes the mark; one that is not there is no error.
    fn unmark(&self) -> Pending<'_, ()>;

    /// Who has registered, in the order of registration; `None` for a token that is not there.
    fn roster<'a>(&'a self, token: &'a Token) -> Pending<'a, Option<Roster>>;

    /// How many tokens there are.
    fn count(&self) -> Pending<'_, usize>;

    /// Carries out one request to the tree. The caller has checked that the change may be made (`Roster::refuses`).
    fn ask(&self, ask: Ask) -> Pending<'_, Reply>;
}

/// The store behind a registry cannot be asked now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the store behind the discovery service: {0}")]
pub struct RegistryError(pub String);

/// The state of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roster {
    /// How many members the cluster is to have; `None` if what stands there is no number.
    pub size: Option<u32>,
    /// Who has registered, the oldest first.
    pub members: Vec<Registered>,
    /// How long the token still lives, if the store can tell.
    pub expires_in: Option<Duration>,
}

impl Roster {
    /// Why this change may not be made, if it may not. Founders of a complete cluster are not written over: some may have
    /// read the list already, and the others have to read the same. What concerns no member that is there, or
    /// is not to be there, the registry answers.
    pub(super) fn refuses(&self, what: &What) -> Option<Why> {
        let place = |name: &MemberName| self.members.iter().position(|member| member.name == name.as_str());
        match what {
            What::Put { name, value, exists } => match place(name) {
                Some(place) if *exists != Some(false) && self.founds(place) => {
                    self.members.get(place).filter(|known| known.value != *value).map(|_| Why::Complete)
                }
                None if *exists != Some(true) && self.members.len() >= self.members_max() => Some(Why::TooManyMembers),
                _ => None,
            },
            // The way back for a founder that has lost its directory before it had founded anything.
            What::Delete { .. } | What::Get { .. } | What::Wait { .. } => None,
        }
    }

    /// Whether the member at `place` founds a cluster that is complete.
    fn founds(&self, place: usize) -> bool {
        let size = self.size.and_then(|size| usize::try_from(size).ok());
        size.is_some_and(|size| self.members.len() >= size && place < size)
    }

    fn members_max(&self) -> usize {
        let size = self.size.unwrap_or(SIZE_MAX).min(SIZE_MAX);
        usize::try_from(size).unwrap_or(usize::MAX).saturating_add(SURPLUS_MAX)
    }
}

/// One member that has registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its name in the tree.
    pub name: String,
    /// What it registered: `name=URL`, several separated by commas.
    pub value: String,
    /// When, as time since the Unix epoch, if the store knows.
    pub since: Option<Duration>,
}

/// One request to the tree, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whose tree.
    pub token: Token,
    /// Which node.
    pub node: Node,
    /// What about it.
    pub what: What,
}

/// What can be asked of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// What it is. Listings are in the order of registration, or by name if `sorted`.
    Get {
        /// `sorted=true`.
        sorted: bool,
    },
    /// The first change at this index or behind it; without one, the next change. On the directory: of any member.
    Wait {
        /// `waitIndex`.
        index: Option<u64>,
    },
    /// Register a member.
    Put {
        /// Who; a copy of what [`Ask::node`] says.
        name: MemberName,
        /// Its name and peer URLs.
        value: String,
        /// `prevExist`: whether it has to be there, or must not be.
        exists: Option<bool>,
    },
    /// Remove a member.
    Delete {
        /// Who.
        name: MemberName,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(size: Option<u32>, members: usize) -> Roster {
        let member = |number| Registered { name: format!("m{number}"), value: "x".to_owned(), since: None };
        Roster { size, members: (0..members).map(member).collect(), expires_in: None }
    }

    fn put(name: &str, value: &str, exists: Option<bool>) -> What {
        What::Put { name: MemberName::parse(name).unwrap(), value: value.to_owned(), exists }
    }

    fn delete(name: &str) -> What {
        What::Delete { name: MemberName::parse(name).unwrap() }
    }

    #[test]
    fn nobody_writes_over_founders_of_a_complete_cluster() {
        let complete = roster(Some(2), 3);
        for refused in [put("m0", "y", None), put("m1", "y", Some(true))] {
            assert_eq!(complete.refuses(&refused), Some(Why::Complete), "{refused:?}");
        }
        for taken in [delete("m0"), delete("m9"), put("m2", "y", None), put("m0", "x", None), put("m3", "y", None)] {
            assert_eq!(complete.refuses(&taken), None, "{taken:?}");
        }
        assert_eq!(complete.refuses(&put("m0", "y", Some(false))), None, "the registry says that it is there");
        let waiting = roster(Some(3), 2);
        assert_eq!((waiting.refuses(&delete("m0")), waiting.refuses(&put("m0", "y", None))), (None, None));
    }

    #[test]
    fn a_few_more_than_the_size_may_register() {
        let full = roster(Some(3), 3 + SURPLUS_MAX);
        assert_eq!(roster(Some(3), 2 + SURPLUS_MAX).refuses(&put("new", "x", Some(false))), None);
        assert_eq!(full.refuses(&put("new", "x", Some(false))), Some(Why::TooManyMembers));
        assert_eq!(full.refuses(&put("m5", "y", None)), None, "who is there takes no room");
        assert_eq!(full.refuses(&put("new", "x", Some(true))), None, "nobody is made");
        let of_unknown_size = roster(None, 64 + SURPLUS_MAX);
        assert_eq!(of_unknown_size.refuses(&put("new", "x", None)), Some(Why::TooManyMembers));
    }
}
