//! What clients ask for, and how it travels.

use bytes::Bytes;
use prost::Message as _;
use quorate::membership::{Attributes, Member, MemberChange};
use quorate::pb::etcdserverpb::{self as pb, InternalRaftRequest, RequestOp, compare, request_op::Request as Op};
use quorate::pb::membershippb::{self, ClusterMemberAttrSetRequest, ClusterVersionSetRequest};
use quorate::types::{MemberId, RequestId};

use crate::simulated::model::VERSION;
use crate::support::random::Random;

/// The keys that are written alone.
const ALONE: u64 = 6;
/// The pairs of keys that are written together.
const PAIRS: u64 = 4;
/// Leases there can be at a time.
const LEASES: u64 = 4;
/// One request of a client, or of the member itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Request {
    Put {
        key: Bytes,
        value: Bytes,
        lease: i64,
    },
    Delete {
        key: Bytes,
        range_end: Bytes,
    },
    /// Both keys of a pair get the same value, which tells whether the left one was there; a third key goes.
    Pair {
        left: Bytes,
        right: Bytes,
        gone: Bytes,
        there: Bytes,
        missing: Bytes,
    },
    Grant {
        lease: i64,
        ttl: i64,
    },
    Revoke {
        lease: i64,
    },
    Checkpoint {
        lease: i64,
        remaining: i64,
    },
    Compact {
        revision: i64,
    },
    Publish {
        member: u64,
        client_url: String,
    },
    Version,
    Member(MemberChange),
}

impl Request {
    /// Request number `number`, by chance. `revision` is about where the store stands, values are up to `longest` bytes.
    pub(crate) fn any(random: &mut Random, number: u64, revision: i64, longest: u64) -> Self {
        let lease = i64::try_from(random.below(LEASES)).expect("few leases") + 1;
        match random.below(100) {
            0..35 => {
                let lease = if random.chance(30) { lease } else { 0 };
                Self::Put { key: alone(random.below(ALONE)), value: value(random, number, longest), lease }
            }
            35..40 => Self::Delete { key: alone(random.below(ALONE)), range_end: Bytes::new() },
            40..44 => Self::Delete { key: alone(random.below(ALONE)), range_end: Bytes::from_static(b"alone0") },
            44..70 => Self::any_pair(random, number, longest),
            70..77 => Self::Grant { lease, ttl: random.between(5, 500) },
            77..82 => Self::Revoke { lease },
            82..86 => Self::Checkpoint { lease, remaining: random.between(1, 5) },
            86..94 => Self::Compact { revision: random.between(revision - 12, revision + 2) },
            _ => Self::Member(member_change(random)),
        }
    }

    fn any_pair(random: &mut Random, number: u64, longest: u64) -> Self {
        let pair = random.below(PAIRS);
        Self::Pair {
            left: Bytes::from(format!("left/{pair}")),
            right: Bytes::from(format!("right/{pair}")),
            gone: alone(random.below(ALONE)),
            there: value(random, number, longest),
            missing: value(random, number, longest),
        }
    }

    /// What is proposed for it: a payload, or a change of the configuration.
    pub(crate) fn encode(&self, id: RequestId) -> Encoded {
        if let Self::Member(change) = self {
            return Encoded::Change(change.encode(id));
        }
        let header = Some(pb::RequestHeader { id: id.0, ..Default::default() });
        let request = InternalRaftRequest { header, ..self.body() };
        Encoded::Payload(request.encode_to_vec().into())
    }

    fn body(&self) -> InternalRaftRequest {
        let mut body = InternalRaftRequest::default();
        match self.clone() {
            Self::Put { key, value, lease } => body.put = Some(put(key, value, lease)),
            Self::Delete { key, range_end } => {
                body.delete_range = Some(pb::DeleteRangeRequest { key, range_end, ..Default::default() });
            }
            Self::Pair { left, right, gone, there, missing } => {
                body.txn = Some(pair(&left, &right, &gone, &there, &missing));
            }
            Self::Grant { lease, ttl } => body.lease_grant = Some(pb::LeaseGrantRequest { id: lease, ttl }),
            Self::Revoke { lease } => body.lease_revoke = Some(pb::LeaseRevokeRequest { id: lease }),
            Self::Checkpoint { lease, remaining } => {
                let checkpoints = vec![pb::LeaseCheckpoint { id: lease, remaining_ttl: remaining }];
                body.lease_checkpoint = Some(pb::LeaseCheckpointRequest { checkpoints });
            }
            Self::Compact { revision } => {
                body.compaction = Some(pb::CompactionRequest { revision, physical: false });
            }
            Self::Publish { member, client_url } => {
                let attributes =
                    membershippb::Attributes { name: crate::NAME.to_owned(), client_urls: vec![client_url] };
                body.cluster_member_attr_set =
                    Some(ClusterMemberAttrSetRequest { member_id: member, member_attributes: Some(attributes) });
            }
            Self::Version => body.cluster_version_set = Some(ClusterVersionSetRequest { ver: VERSION.to_owned() }),
            Self::Member(_) => {}
        }
        body
    }
}

/// A request as raft takes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Encoded {
    Payload(Bytes),
    Change(quorate::pb::raftpb::ConfChange),
}

impl Encoded {
    /// The data of its entry.
    pub(crate) fn data(&self) -> Bytes {
        match self {
            Self::Payload(payload) => payload.clone(),
            Self::Change(change) => change.encode_to_vec().into(),
        }
    }
}

fn alone(number: u64) -> Bytes {
    Bytes::from(format!("alone/{number}"))
}

/// A value nobody else writes.
fn value(random: &mut Random, number: u64, longest: u64) -> Bytes {
    let length = random.below(longest);
    let mut value = format!("{number}:").into_bytes();
    value.extend(random.bytes(usize::try_from(length).expect("a short value")));
    value.into()
}

fn put(key: Bytes, value: Bytes, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key, value, lease, ..Default::default() }
}

fn pair(left: &Bytes, right: &Bytes, gone: &Bytes, there: &Bytes, missing: &Bytes) -> pb::TxnRequest {
    let op = |op| RequestOp { request: Some(op) };
    let branch = |value: &Bytes| {
        let puts = [left, right].map(|key| op(Op::RequestPut(put(key.clone(), value.clone(), 0))));
        let delete = pb::DeleteRangeRequest { key: gone.clone(), ..Default::default() };
        let [first, second] = puts;
        vec![first, op(Op::RequestDeleteRange(delete)), second]
    };
    let there_already = pb::Compare {
        result: compare::CompareResult::Greater.into(),
        target: compare::CompareTarget::Version.into(),
        key: left.clone(),
        target_union: Some(compare::TargetUnion::Version(0)),
        ..Default::default()
    };
    pb::TxnRequest { compare: vec![there_already], success: branch(there), failure: branch(missing) }
}

/// Learners come, move and go; there is never a second voter, who would have to answer.
fn member_change(random: &mut Random) -> MemberChange {
    let id = MemberId(random.below(3) + 100);
    let url = |random: &mut Random| vec![format!("http://peer{}:{}", id.0, random.below(1000) + 1)];
    match random.below(3) {
        0 => MemberChange::add(Member {
            id,
            peer_urls: url(random),
            is_learner: true,
            attributes: Attributes::default(),
        }),
        1 => MemberChange::Update { id, peer_urls: url(random) },
        _ if random.chance(70) => MemberChange::Update { id, peer_urls: url(random) },
        _ => MemberChange::Remove(id),
    }
}
