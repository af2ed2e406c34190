//! How an entry is read: told apart, decoded, and checked for what this version does not know.
//!
//! A field of the entry itself is a kind of request, and whoever leaves one out that others carry out diverges: the member
//! stops. A field inside a request is left alone, because that is what members of etcd do with a field they do not know,
//! and clients may send them any.

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use crate::{
    auth::{self, Identity},
    membership::{Attributes, ChangeError, MemberChange, VersionError},
    pb::{
        etcdserverpb::{self as pb, InternalRaftRequest, RequestHeader},
        membershippb::{ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest},
        nested::{decode_entry, next_field},
        raftpb::{Entry, EntryType},
    },
    types::{KEY_BYTES_MAX, RequestId},
    v2store,
};

/// The fields of `InternalRaftRequest` that this version knows. The v2 request, field 2, is told apart before.
const FIELDS: [u32; 32] = [
    1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 100, 1000, 1011, 1012, 1013, 1100, 1101, 1102, 1103, 1104, 1105, 1106, 1107, 1200,
    1201, 1202, 1203, 1204, 1300, 1301, 1302, 9900,
];

/// What an entry says.
#[derive(Debug)]
pub(super) enum Content {
    /// Nothing: a new leader's first entry, or a configuration change that came while another was pending.
    Empty,
    /// A request, and who asks.
    Request(Option<RequestId>, Identity, Box<Request>),
    /// A configuration change.
    Change(Option<RequestId>, MemberChange),
}

/// One request. Of an entry that holds several, etcd executes the first in this order.
#[derive(Debug)]
pub(super) enum Request {
    ClusterVersion(ClusterVersionSetRequest),
    Attributes(ClusterMemberAttrSetRequest),
    Downgrade(DowngradeInfoSetRequest),
    VersionTest,
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compaction(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    LeaseCheckpoint(pb::LeaseCheckpointRequest),
    Alarm(pb::AlarmRequest),
    Authenticate(pb::InternalAuthenticateRequest),
    AuthChange(auth::Change),
    AuthStatus,
    AuthUserGet(pb::AuthUserGetRequest),
    AuthUserList,
    AuthRoleGet(pb::AuthRoleGetRequest),
    AuthRoleList,
    V2(v2store::Request),
}

/// An entry that cannot be executed exactly as every other member executes it.
#[derive(Debug, Error)]
pub enum EntryError {
    /// Not a request in etcd's form.
    #[error("the entry does not decode")]
    Decode(#[from] prost::DecodeError),
    /// The number of a field this version does not know, so that it cannot know what it would leave out.
    #[error("field {0} of InternalRaftRequest is unknown to this version; start the member with a newer one")]
    UnknownField(u32),
    /// A request this version does not know, or none at all.
    #[error("the entry holds no request that this version knows; start the member with a newer one")]
    UnknownRequest,
    /// An entry type this version does not know, such as a joint configuration change.
    #[error("entry type {0} is not supported: configuration changes must come one at a time")]
    Type(i32),
    /// Whether all members have refused it cannot be known here.
    #[error(
        "it adds a learner beside another one, and the log does not say how many there may be (--max-learners): start the \
         member where it is once and stop it, so that its state says what became of it"
    )]
    LearnersUnknown,
    /// A configuration change that cannot be executed.
    #[error("the configuration change cannot be executed")]
    Change(#[from] ChangeError),
    /// A request of a member of etcd that serves the v2 API: its tree, and its count of changes, are not ours.
    #[error(
        "the entry holds the v2 request {method} {path} of a member of etcd, whose keys of the v2 API this member does not \
         have; start that member without --enable-v2"
    )]
    V2 {
        /// Its method.
        method: String,
        /// Its path.
        path: String,
    },
    /// A v2 request about a member whose contents do not parse.
    #[error("the v2 request PUT {path} holds a value that does not parse")]
    V2Value {
        /// Its path.
        path: String,
    },
    /// A password that every member would hash differently.
    #[error(
        "the entry holds a password in plain text, as members of etcd before 3.5 write it: start the member with an empty data directory"
    )]
    PlainPassword,
    /// A version that does not parse.
    #[error("the entry sets a version")]
    Version(#[from] VersionError),
    /// A key from a foreign member that the store cannot hold.
    #[error("the entry puts a key of {0} bytes, the store holds at most {KEY_BYTES_MAX}")]
    KeyTooLong(usize),
}

/// A request of the v2 API in an entry. Members of etcd put it there as it is, members of ours inside their own entry, as
/// etcd understands it, too.
enum V2Part {
    Bare(Bytes),
    Wrapped(Bytes),
}

/// Whether this version understands an entry, whatever becomes of it.
///
/// # Errors
/// [`EntryError`].
pub fn check_entry(entry: &Entry) -> Result<(), EntryError> {
    read(entry).map(drop)
}

/// Reads one committed entry.
pub(super) fn read(entry: &Entry) -> Result<Content, EntryError> {
    match EntryType::try_from(entry.r#type) {
        Ok(EntryType::EntryNormal) if entry.data.is_empty() => Ok(Content::Empty),
        Ok(EntryType::EntryNormal) => read_request(&entry.data),
        Ok(EntryType::EntryConfChange) => {
            let (request, change) = MemberChange::decode(entry.data.clone())?;
            Ok(Content::Change(some(request.0), change))
        }
        _ => Err(EntryError::Type(entry.r#type)),
    }
}

fn read_request(data: &Bytes) -> Result<Content, EntryError> {
    if let Some(part) = v2_part(data) {
        let (V2Part::Bare(v2) | V2Part::Wrapped(v2)) = &part;
        let v2 = v2store::Request::decode(v2.clone())?;
        let (id, ours) = (some(v2.id), matches!(part, V2Part::Wrapped(_)));
        return Ok(Content::Request(id, Identity::default(), Box::new(of_v2(v2, ours)?)));
    }
    let request = decode_entry(data)?;
    if let Some(field) = unknown_field(data) {
        return Err(EntryError::UnknownField(field));
    }
    let id = request.header.as_ref().map_or(request.id, |header| header.id);
    let who = request.header.as_ref().map(identity).unwrap_or_default();
    Ok(Content::Request(some(id), who, Box::new(first_of(request)?)))
}

fn identity(header: &RequestHeader) -> Identity {
    // A name that is no text is that of nobody.
    let user = String::from_utf8_lossy(&header.username).into_owned();
    Identity { user, revision: header.auth_revision }
}

/// The first field of an entry that this version does not know.
fn unknown_field(mut entry: &[u8]) -> Option<u32> {
    std::iter::from_fn(|| next_field(&mut entry)).map(|found| found.number).find(|number| !FIELDS.contains(number))
}

fn some(id: u64) -> Option<RequestId> {
    (id != 0).then_some(RequestId(id))
}

/// The v2 request an entry is or wraps: field 2 is an upper-case word, or a message that begins like one.
fn v2_part(data: &Bytes) -> Option<V2Part> {
    let mut rest = data.as_ref();
    while let Some(found) = next_field(&mut rest) {
        if found.number == 2 {
            let body = found.body?;
            let is_word = !body.is_empty() && body.iter().all(u8::is_ascii_uppercase);
            let wraps = body.first() == Some(&0x08);
            return if is_word {
                Some(V2Part::Bare(data.clone()))
            } else {
                wraps.then(|| V2Part::Wrapped(data.slice_ref(body)))
            };
        }
        // A v2 request puts its method behind nothing but its id.
        if found.number > 2 {
            return None;
        }
    }
    None
}

/// The two v2 requests that etcd 3.5 still writes, as the requests that took their place; and those of our own clients.
fn of_v2(v2: v2store::Request, ours: bool) -> Result<Request, EntryError> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let (method, path) = (text(&v2.method), text(&v2.path));
    let member = path.strip_prefix("/0/members/").and_then(|rest| rest.strip_suffix("/attributes"));
    if method != "PUT" || (member.is_none() && path != "/0/version") {
        return if ours { Ok(Request::V2(v2)) } else { Err(EntryError::V2 { method, path }) };
    }
    let Some(member) = member else {
        return Ok(Request::ClusterVersion(ClusterVersionSetRequest { ver: text(&v2.value) }));
    };
    let parsed = u64::from_str_radix(member, 16).ok().zip(Attributes::from_json(&v2.value).ok());
    let (member_id, attributes) = parsed.ok_or(EntryError::V2Value { path })?;
    Ok(Request::Attributes(ClusterMemberAttrSetRequest { member_id, member_attributes: Some(attributes.into()) }))
}

/// Picks the request to execute, in etcd's order.
fn first_of(request: InternalRaftRequest) -> Result<Request, EntryError> {
    macro_rules! first {
        ($($field:ident => $made:expr;)*) => {
            $(if let Some(inner) = request.$field {
                let make = $made;
                return make(inner);
            })*
        };
    }
    let change = |change| Ok(Request::AuthChange(change));
    first! {
        cluster_version_set => |inner| Ok(Request::ClusterVersion(inner));
        cluster_member_attr_set => |inner| Ok(Request::Attributes(inner));
        downgrade_info_set => |inner| Ok(Request::Downgrade(inner));
        downgrade_version_test => |_| Ok(Request::VersionTest);
        range => |inner| Ok(Request::Range(inner));
        put => |inner| Ok(Request::Put(inner));
        delete_range => |inner| Ok(Request::DeleteRange(inner));
        txn => |inner| Ok(Request::Txn(inner));
        compaction => |inner| Ok(Request::Compaction(inner));
        lease_grant => |inner| Ok(Request::LeaseGrant(inner));
        lease_revoke => |inner| Ok(Request::LeaseRevoke(inner));
        lease_checkpoint => |inner| Ok(Request::LeaseCheckpoint(inner));
        alarm => |inner| Ok(Request::Alarm(inner));
        authenticate => |inner| Ok(Request::Authenticate(inner));
        auth_enable => |_| Ok(Request::AuthChange(auth::Change::Enable));
        auth_disable => |_| Ok(Request::AuthChange(auth::Change::Disable));
        auth_status => |_| Ok(Request::AuthStatus);
        auth_user_add => |inner| change(auth::Change::UserAdd(inner));
        auth_user_delete => |inner| change(auth::Change::UserDelete(inner));
        auth_user_change_password => |inner| change(auth::Change::UserChangePassword(inner));
        auth_user_grant_role => |inner| change(auth::Change::UserGrantRole(inner));
        auth_user_get => |inner| Ok(Request::AuthUserGet(inner));
        auth_user_revoke_role => |inner| change(auth::Change::UserRevokeRole(inner));
        auth_role_add => |inner| change(auth::Change::RoleAdd(inner));
        auth_role_grant_permission => |inner| change(auth::Change::RoleGrantPermission(inner));
        auth_role_get => |inner| Ok(Request::AuthRoleGet(inner));
        auth_role_revoke_permission => |inner| change(auth::Change::RoleRevokePermission(inner));
        auth_role_delete => |inner| change(auth::Change::RoleDelete(inner));
        auth_user_list => |_| Ok(Request::AuthUserList);
        auth_role_list => |_| Ok(Request::AuthRoleList);
    }
    Err(EntryError::UnknownRequest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pb::raftpb::ConfChange, types::MemberId};

    fn normal(data: impl Into<Bytes>) -> Result<Content, EntryError> {
        read(&Entry { data: data.into(), ..Entry::default() })
    }

    fn v2(method: &str, path: &str, value: &str) -> Vec<u8> {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let (method, path, value) = (text(method), text(path), text(value));
        v2store::Request { id: 77, method, path, value, ..v2store::Request::default() }.encode_to_vec()
    }

    fn request(content: Result<Content, EntryError>) -> (Option<RequestId>, Request) {
        let Content::Request(id, _, request) = content.unwrap() else { panic!("a request expected") };
        (id, *request)
    }

    #[test]
    fn empty_entry_is_a_new_leaders() {
        assert!(matches!(normal(""), Ok(Content::Empty)));
    }

    #[test]
    fn put_of_etcd_is_read() {
        let data = b"\x22\x06\x0a\x01\x61\x12\x01\x62\xa2\x06\x0a\x08\x81\x82\x83\x84\x85\x86\x87\x88\x01".as_slice();
        let (id, put) = request(normal(data));
        assert!(matches!(put, Request::Put(put) if put.key == "a" && put.value == "b"));
        let groups = [1, 2, 3, 4, 5, 6, 7, 8, 1_u64];
        let expected = (0..).zip(groups).map(|(place, group)| group << (7 * place)).sum();
        assert_eq!(id, Some(RequestId(expected)));
    }

    #[test]
    fn old_form_of_the_request_id_is_read() {
        let old = InternalRaftRequest { id: 9, range: Some(pb::RangeRequest::default()), ..Default::default() };
        assert_eq!(request(normal(old.encode_to_vec())).0, Some(RequestId(9)));
    }

    #[test]
    fn the_header_names_who_asks() {
        let header = RequestHeader { id: 4, username: "u".into(), auth_revision: 7 };
        let entry = InternalRaftRequest {
            header: Some(header),
            range: Some(pb::RangeRequest::default()),
            ..Default::default()
        };
        let Content::Request(id, who, _) = normal(entry.encode_to_vec()).unwrap() else { panic!("a request expected") };
        assert_eq!((id, who), (Some(RequestId(4)), Identity { user: "u".to_owned(), revision: 7 }));
    }

    #[test]
    fn v2_attributes_and_version_are_taken_bare_and_wrapped() {
        let attributes = v2("PUT", "/0/members/8e9e05c52164694d/attributes", r#"{"name":"n","clientURLs":["u"]}"#);
        let wrapped = InternalRaftRequest { id: 1, v2: attributes.clone().into(), ..Default::default() };
        for data in [attributes, wrapped.encode_to_vec()] {
            let (id, taken) = request(normal(data));
            let Request::Attributes(set) = taken else { panic!("attributes expected") };
            assert_eq!((id, set.member_id), (Some(RequestId(77)), 0x8e9e_05c5_2164_694d));
            assert_eq!(set.member_attributes.unwrap().client_urls, ["u"]);
        }
        let (_, version) = request(normal(v2("PUT", "/0/version", "3.5.0")));
        assert!(matches!(version, Request::ClusterVersion(set) if set.ver == "3.5.0"));
    }

    #[test]
    fn wrapped_v2_requests_are_our_own_clients() {
        for (method, path) in [("PUT", "/1/a"), ("SYNC", "/"), ("DELETE", "/1/a"), ("PATCH", "/1/a")] {
            let wrapped = InternalRaftRequest { v2: v2(method, path, "x").into(), ..Default::default() };
            let (id, taken) = request(normal(wrapped.encode_to_vec()));
            let Request::V2(taken) = taken else { panic!("a v2 request expected") };
            assert_eq!(
                (id, taken.path.as_ref(), taken.value.as_ref()),
                (Some(RequestId(77)), path.as_bytes(), &b"x"[..])
            );
        }
    }

    #[test]
    fn other_v2_requests_of_etcd_stop_the_member() {
        for (method, path) in [("PUT", "/1/a"), ("QGET", "/0/version"), ("SYNC", ""), ("DELETE", "/1/a")] {
            let refused = normal(v2(method, path, "x")).unwrap_err();
            assert!(matches!(refused, EntryError::V2 { .. }), "{method} {path}: {refused}");
        }
        assert!(matches!(normal(v2("PUT", "/0/members/1/attributes", "[")), Err(EntryError::V2Value { .. })));
    }

    /// Field 15 with nothing in it, which no message has.
    const UNKNOWN: &[u8] = b"\x7a\x00";
    /// The same as a group, which nobody has used for long.
    const UNKNOWN_GROUP: &[u8] = b"\x7b\x08\x01\x7c";

    fn inside(key: u8, message: &[u8]) -> Vec<u8> {
        [[key, u8::try_from(message.len()).unwrap()].as_slice(), message].concat()
    }

    #[test]
    fn unknown_fields_inside_requests_are_left_alone() {
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        for unknown in [UNKNOWN, UNKNOWN_GROUP] {
            let newer = [&put.encode_to_vec(), unknown].concat();
            let (_, read) = request(normal(inside(0x22, &newer)));
            assert!(matches!(read, Request::Put(read) if read == put));

            let operation = [&inside(0x12, &newer), unknown].concat();
            let txn = [&inside(0x12, &operation), unknown].concat();
            let nested = inside(0x12, &[unknown, &inside(0x22, &txn)].concat());
            let (_, read) = request(normal(inside(0x32, &nested)));
            let of = |request| vec![pb::RequestOp { request: Some(request) }];
            let put = pb::request_op::Request::RequestPut(put.clone());
            let inner = pb::TxnRequest { success: of(put), ..Default::default() };
            let outer = of(pb::request_op::Request::RequestTxn(inner));
            assert!(matches!(read, Request::Txn(read) if read.success == outer));
        }
    }

    #[test]
    fn unknown_fields_and_requests_stop_the_member() {
        let put = InternalRaftRequest { put: Some(pb::PutRequest::default()), ..Default::default() };
        let newer = [put.encode_to_vec(), b"\x60\x01".to_vec()].concat();
        let message = normal(newer).unwrap_err().to_string();
        assert_eq!(
            message,
            "field 12 of InternalRaftRequest is unknown to this version; start the member with a newer one"
        );
        let nothing = InternalRaftRequest { id: 4, ..Default::default() };
        assert!(matches!(normal(nothing.encode_to_vec()), Err(EntryError::UnknownRequest)));
        assert!(matches!(normal(b"\xff\xff".as_slice()), Err(EntryError::Decode(_))));
    }

    #[test]
    fn requests_about_users_are_read() {
        let enable = InternalRaftRequest { auth_enable: Some(pb::AuthEnableRequest::default()), ..Default::default() };
        let (_, read) = request(normal(enable.encode_to_vec()));
        assert!(matches!(read, Request::AuthChange(auth::Change::Enable)));
        let login = pb::InternalAuthenticateRequest { name: "u".into(), ..Default::default() };
        let login = InternalRaftRequest { authenticate: Some(login), ..Default::default() };
        let (_, read) = request(normal(login.encode_to_vec()));
        assert!(matches!(read, Request::Authenticate(login) if login.name == "u"));
        let add = InternalRaftRequest { auth_user_add: Some(pb::AuthUserAddRequest::default()), ..Default::default() };
        let (_, read) = request(normal(add.encode_to_vec()));
        assert!(matches!(read, Request::AuthChange(auth::Change::UserAdd(_))));
        let status = InternalRaftRequest { auth_status: Some(pb::AuthStatusRequest::default()), ..Default::default() };
        assert!(matches!(request(normal(status.encode_to_vec())), (None, Request::AuthStatus)));
    }

    #[test]
    fn configuration_changes_are_read_and_joint_ones_refused() {
        let change = MemberChange::Remove(MemberId(4)).encode(RequestId(8));
        let entry = |kind: EntryType, data: &ConfChange| Entry {
            r#type: kind.into(),
            data: data.encode_to_vec().into(),
            ..Entry::default()
        };
        let read_change = read(&entry(EntryType::EntryConfChange, &change)).unwrap();
        assert!(matches!(read_change, Content::Change(Some(RequestId(8)), MemberChange::Remove(MemberId(4)))));
        assert!(matches!(read(&entry(EntryType::EntryConfChangeV2, &change)), Err(EntryError::Type(2))));
        assert!(matches!(read(&entry(EntryType::EntryConfChange, &ConfChange::default())), Err(EntryError::Change(_))));
    }
}
