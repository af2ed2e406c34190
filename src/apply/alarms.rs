//! The alarms that are up, in the whole cluster.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;

use crate::{
    pb::etcdserverpb::{AlarmMember, AlarmType},
    types::MemberId,
};

/// The set of raised alarms. Equal on all members; survives restarts; never clears by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    raised: BTreeSet<(AlarmKind, MemberId)>,
}

/// The alarms that can be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlarmKind {
    /// A member's quota is exceeded: puts and grants are refused everywhere.
    NoSpace,
    /// Members have diverged: every write is refused.
    Corrupt,
}

impl AlarmKind {
    /// The kind behind a number of the wire; nothing for NONE and numbers unknown to this version.
    pub fn from_wire(number: i32) -> Option<Self> {
        match AlarmType::try_from(number) {
            Ok(AlarmType::Nospace) => Some(Self::NoSpace),
            Ok(AlarmType::Corrupt) => Some(Self::Corrupt),
            _ => None,
        }
    }

    fn to_wire(self) -> AlarmType {
        match self {
            Self::NoSpace => AlarmType::Nospace,
            Self::Corrupt => AlarmType::Corrupt,
        }
    }
}

impl Alarms {
    /// Whether any member has raised `kind`.
    pub fn is_raised(&self, kind: AlarmKind) -> bool {
        self.raised.iter().any(|(raised, _)| *raised == kind)
    }

    /// Whether no alarm is up.
    pub fn is_empty(&self) -> bool {
        self.raised.is_empty()
    }

    /// The raised alarms, of one kind or all, ordered by kind and member.
    pub fn list(&self, kind: Option<AlarmKind>) -> Vec<AlarmMember> {
        let wanted = |raised: &AlarmKind| kind.is_none_or(|kind| kind == *raised);
        self.raised.iter().filter(|(kind, _)| wanted(kind)).map(|(kind, member)| to_pb(*kind, *member)).collect()
    }

    /// Raises one; `false` if it was up already.
    pub(super) fn raise(&mut self, kind: AlarmKind, member: MemberId) -> bool {
        self.raised.insert((kind, member))
    }

    /// Clears one; `false` if it was not up.
    pub(super) fn clear(&mut self, kind: AlarmKind, member: MemberId) -> bool {
        self.raised.remove(&(kind, member))
    }

    /// Takes a stored row in; `false` if it is damaged.
    pub(super) fn read_row(&mut self, key: &Bytes) -> bool {
        let row = AlarmMember::decode(key.clone()).ok();
        let known = row.and_then(|row| AlarmKind::from_wire(row.alarm).map(|kind| (kind, MemberId(row.member_id))));
        known.map(|alarm| self.raised.insert(alarm)).is_some()
    }
}

/// The key of an alarm's row, byte for byte etcd's; its value is empty.
pub(super) fn row_key(kind: AlarmKind, member: MemberId) -> Vec<u8> {
    to_pb(kind, member).encode_to_vec()
}

pub(super) fn to_pb(kind: AlarmKind, member: MemberId) -> AlarmMember {
    AlarmMember { member_id: member.0, alarm: kind.to_wire().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_etcds_and_survive() {
        let key = row_key(AlarmKind::NoSpace, MemberId(5));
        assert_eq!(key, [0x08, 5, 0x10, 1]);
        let mut alarms = Alarms::default();
        assert!(alarms.read_row(&key.into()));
        assert!(alarms.is_raised(AlarmKind::NoSpace) && !alarms.is_raised(AlarmKind::Corrupt));
        assert!(!alarms.read_row(&Bytes::from_static(b"\x10\x09")), "an alarm nobody knows");
    }

    #[test]
    fn listing_is_ordered_and_by_kind() {
        let mut alarms = Alarms::default();
        alarms.raise(AlarmKind::Corrupt, MemberId(0));
        alarms.raise(AlarmKind::NoSpace, MemberId(9));
        alarms.raise(AlarmKind::NoSpace, MemberId(2));
        assert!(!alarms.raise(AlarmKind::NoSpace, MemberId(2)));
        let members = |kind| alarms.list(kind).iter().map(|alarm| alarm.member_id).collect::<Vec<_>>();
        assert_eq!(members(None), [2, 9, 0]);
        assert_eq!(members(Some(AlarmKind::Corrupt)), [0]);
    }
}
