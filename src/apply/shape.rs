//! The fields of log entries that this version executes.
//!
//! A newer member may put fields into its requests that this version would silently skip, and the two would diverge. So
//! every field of an entry must be one of these, down to the innermost message.

use crate::pb::nested::next_field;

/// The fields of one message.
pub(super) struct Shape {
    name: &'static str,
    fields: &'static [Field],
}

struct Field {
    number: u32,
    inside: Option<&'static Shape>,
}

/// A field this version does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) message: &'static str,
    pub(super) field: u32,
}

/// Finds the first field of `message`, or of a message inside, that is not in `shape`.
pub(super) fn unknown_field(mut message: &[u8], shape: &'static Shape) -> Option<Unknown> {
    while let Some(found) = next_field(&mut message) {
        let Some(field) = shape.fields.iter().find(|field| field.number == found.number) else {
            return Some(Unknown { message: shape.name, field: found.number });
        };
        let inner = field.inside.and_then(|inside| unknown_field(found.body, inside));
        if inner.is_some() {
            return inner;
        }
    }
    None
}

const fn plain(number: u32) -> Field {
    Field { number, inside: None }
}

const fn message(number: u32, inside: &'static Shape) -> Field {
    Field { number, inside: Some(inside) }
}

static FLAT: [Field; 13] = [
    plain(1),
    plain(2),
    plain(3),
    plain(4),
    plain(5),
    plain(6),
    plain(7),
    plain(8),
    plain(9),
    plain(10),
    plain(11),
    plain(12),
    plain(13),
];

/// A message whose fields are 1 to `last`, all of them scalars.
const fn flat(name: &'static str, last: usize) -> Shape {
    Shape { name, fields: FLAT.split_at(last).0 }
}

static HEADER: Shape = flat("RequestHeader", 3);
static RANGE: Shape = flat("RangeRequest", 13);
static PUT: Shape = flat("PutRequest", 6);
static DELETE_RANGE: Shape = flat("DeleteRangeRequest", 3);
static COMPACTION: Shape = flat("CompactionRequest", 2);
static LEASE_GRANT: Shape = flat("LeaseGrantRequest", 2);
static LEASE_REVOKE: Shape = flat("LeaseRevokeRequest", 1);
static ALARM: Shape = flat("AlarmRequest", 3);
static CHECKPOINT: Shape = flat("LeaseCheckpoint", 2);
static AUTHENTICATE: Shape = flat("InternalAuthenticateRequest", 3);
static AUTH_GET: Shape = flat("AuthUserGetRequest", 1);
static EMPTY: Shape = flat("AuthStatusRequest", 0);
static VERSION: Shape = flat("ClusterVersionSetRequest", 1);
static ATTRIBUTES: Shape = flat("Attributes", 2);
static DOWNGRADE: Shape = flat("DowngradeInfoSetRequest", 2);
static VERSION_TEST: Shape = flat("DowngradeVersionTestRequest", 1);

static LEASE_CHECKPOINT: Shape = Shape { name: "LeaseCheckpointRequest", fields: &[message(1, &CHECKPOINT)] };
static MEMBER_ATTRIBUTES: Shape =
    Shape { name: "ClusterMemberAttrSetRequest", fields: &[plain(1), message(2, &ATTRIBUTES)] };
static COMPARE: Shape = Shape {
    name: "Compare",
    fields: &[plain(1), plain(2), plain(3), plain(4), plain(5), plain(6), plain(7), plain(8), plain(64)],
};
static REQUEST_OP: Shape = Shape {
    name: "RequestOp",
    fields: &[message(1, &RANGE), message(2, &PUT), message(3, &DELETE_RANGE), message(4, &TXN)],
};
static TXN: Shape =
    Shape { name: "TxnRequest", fields: &[message(1, &COMPARE), message(2, &REQUEST_OP), message(3, &REQUEST_OP)] };

/// The entry itself. Auth changes are not looked into: they stop the member whatever they hold.
pub(super) static ENTRY: Shape = Shape {
    name: "InternalRaftRequest",
    fields: &[
        message(4, &PUT),
        message(6, &TXN),
        message(5, &DELETE_RANGE),
        message(100, &HEADER),
        plain(1),
        message(3, &RANGE),
        message(7, &COMPACTION),
        message(8, &LEASE_GRANT),
        message(9, &LEASE_REVOKE),
        message(10, &ALARM),
        message(11, &LEASE_CHECKPOINT),
        message(1000, &EMPTY),
        message(1011, &EMPTY),
        message(1012, &AUTHENTICATE),
        message(1013, &EMPTY),
        plain(1100),
        plain(1101),
        message(1102, &AUTH_GET),
        plain(1103),
        plain(1104),
        plain(1105),
        message(1106, &EMPTY),
        message(1107, &EMPTY),
        plain(1200),
        plain(1201),
        message(1202, &AUTH_GET),
        plain(1203),
        plain(1204),
        message(1300, &VERSION),
        message(1301, &MEMBER_ATTRIBUTES),
        message(1302, &DOWNGRADE),
        message(9900, &VERSION_TEST),
    ],
};

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::pb::etcdserverpb as pb;

    fn unknown(request: &pb::InternalRaftRequest, suffix: &[u8]) -> Option<(&'static str, u32)> {
        let bytes = [&request.encode_to_vec(), suffix].concat();
        unknown_field(&bytes, &ENTRY).map(|unknown| (unknown.message, unknown.field))
    }

    fn op(request: pb::request_op::Request) -> pb::RequestOp {
        pb::RequestOp { request: Some(request) }
    }

    #[test]
    fn every_field_of_a_full_transaction_is_known() {
        let put = pb::PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: 1,
            prev_kv: true,
            ignore_value: true,
            ignore_lease: true,
        };
        let range = pb::RangeRequest { key: "k".into(), max_create_revision: 9, ..pb::RangeRequest::default() };
        let compare =
            pb::Compare { result: 1, target: 4, key: "k".into(), range_end: "z".into(), ..Default::default() };
        let nested =
            pb::TxnRequest { success: vec![op(pb::request_op::Request::RequestPut(put))], ..Default::default() };
        let txn = pb::TxnRequest {
            compare: vec![compare],
            success: vec![op(pb::request_op::Request::RequestTxn(nested))],
            failure: vec![op(pb::request_op::Request::RequestRange(range))],
        };
        let header = Some(pb::RequestHeader { id: 1, username: "u".into(), auth_revision: 2 });
        let request = pb::InternalRaftRequest { header, txn: Some(txn), ..Default::default() };
        assert_eq!(unknown(&request, b""), None);
    }

    #[test]
    fn unknown_fields_are_found_at_every_depth() {
        let header = Some(pb::RequestHeader { id: 1, ..Default::default() });
        let request = pb::InternalRaftRequest { header, ..Default::default() };
        assert_eq!(unknown(&request, b"\x60\x01"), Some(("InternalRaftRequest", 12)));
        assert_eq!(unknown(&request, b"\x22\x02\x38\x01"), Some(("PutRequest", 7)));
        assert_eq!(unknown(&request, b"\x32\x06\x12\x04\x12\x02\x38\x01"), Some(("PutRequest", 7)));
    }

    #[test]
    fn auth_changes_are_not_looked_into() {
        let add = pb::AuthUserAddRequest { name: "u".into(), ..Default::default() };
        let request = pb::InternalRaftRequest { auth_user_add: Some(add), ..Default::default() };
        assert_eq!(unknown(&request, b""), None);
    }
}
