//! What is told of each request: whom and what it is about, and nothing that is secret. It is told to the audit log, and to the
//! log where a call took long; for traces a request has fields of its own, which are etcd's.
//!
//! Every message is taken apart in full: what is told stands before the `;`, what is left out behind it. A field that a later
//! version of the API adds does not compile until it stands on one of the sides.

use tonic_health::pb::HealthCheckRequest;

use super::Second;
use crate::{
    api::hot::Aim,
    audit::{Fields, Weight},
    mvcc::check,
    pb::{
        authpb::{self, permission},
        etcdserverpb::{
            AlarmRequest, AlarmType, AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
            AuthRoleGetRequest, AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
            AuthStatusRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
            AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
            AuthenticateRequest, CompactionRequest, Compare, DefragmentRequest, DeleteRangeRequest, DowngradeRequest,
            HashKvRequest, HashRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest,
            LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberAddRequest, MemberListRequest, MemberPromoteRequest,
            MemberRemoveRequest, MemberUpdateRequest, MoveLeaderRequest, PutRequest, RangeRequest, RequestOp,
            SnapshotRequest, StatusRequest, TxnRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest,
            WatchRequest, alarm_request::AlarmAction, downgrade_request::DowngradeAction, request_op::Request,
            watch_request::RequestUnion,
        },
        quorate::HotRequest,
        v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest},
        v3lockpb::{LockRequest, UnlockRequest},
    },
    spans::Traced,
    types::{LeaseId, MemberId},
};

/// What is told of a transaction, in bytes; operations beyond are counted only. The last one may go beyond by itself.
const TXN_BYTES_MAX: usize = 8 << 10;
/// URLs told of a member.
const URLS_MAX: usize = 8;

/// What a line tells of its request.
#[derive(Debug, Default)]
pub(in crate::api) struct Subject {
    pub(in crate::api) fields: Fields,
    pub(super) second: Second,
}

impl Subject {
    fn keys(&mut self, key: &[u8], range_end: &[u8]) {
        self.fields.bytes("key", key);
        self.fields.some_bytes("range_end", range_end);
    }

    fn revision_asked(&mut self, revision: i64) {
        if revision != 0 {
            self.fields.number("at_revision", revision);
        }
    }

    fn lease(&mut self, lease: i64) {
        tell_lease(&mut self.fields, lease);
    }

    fn member(&mut self, id: u64) {
        self.fields.shown("member", MemberId(id));
    }

    fn urls(&mut self, urls: &[String]) {
        let shown: Vec<_> = urls.iter().take(URLS_MAX).map(|url| without_user(url)).collect();
        self.fields.texts("peer_urls", shown.iter().map(String::as_str), URLS_MAX);
    }

    /// Leads an election, or claims to.
    fn leader(&mut self, leader: Option<&LeaderKey>) {
        let Some(LeaderKey { name: _, key, rev: _, lease }) = leader else { return };
        self.fields.bytes("key", key);
        self.lease(*lease);
    }
}

fn tell_lease(fields: &mut Fields, lease: i64) {
    if lease != 0 {
        fields.shown("lease", LeaseId(lease));
    }
}

/// A URL without whatever stands in front of an `@` or behind a `?`, which may be a password and is of no use to a peer.
fn without_user(url: &str) -> String {
    let without_query = |url: &str| url.split(['?', '#']).next().unwrap_or_default().to_owned();
    // A password may hold anything, also what begins a query.
    let Some((before, host)) = url.rsplit_once('@') else { return without_query(url) };
    let host = without_query(host);
    match before.split_once("://") {
        Some((scheme, _)) if scheme.chars().all(|letter| letter.is_ascii_alphabetic()) => {
            format!("{scheme}://{host}")
        }
        _ => host,
    }
}

/// A request, as whoever is told of calls sees it.
pub(in crate::api) trait Audited {
    /// Tells what it is about, and how much that matters.
    fn tell(&self, subject: &mut Subject) -> Weight;

    /// The same for traces, where etcd has a span for it.
    fn traced(&self) -> Option<&dyn Traced> {
        None
    }

    /// The key it is about, of several the first, for who counts what most requests are about.
    fn aim(&self) -> Option<Aim<'_>> {
        None
    }
}

macro_rules! told {
    ($($weight:ident $([$traced:ident $($aim:ident)?])? $message:ident($($kept:ident)*; $($left_out:ident)*) |$subject:ident| $tell:expr;)*) => {$(
        impl Audited for $message {
            fn tell(&self, $subject: &mut Subject) -> Weight {
                let Self { $($kept,)* $($left_out: _,)* } = self;
                $tell;
                Weight::$weight
            }

            $(fn $traced(&self) -> Option<&dyn Traced> {
                Some(self)
            }

            $(fn $aim(&self) -> Option<Aim<'_>> {
                Some(Aim { key: &self.key, writes: Weight::$weight == Weight::Always })
            })?)?
        }
    )*};
}

told! {
    Always[traced aim] PutRequest(key lease; value prev_kv ignore_value ignore_lease) |to| {
        to.keys(key, b"");
        to.lease(*lease);
    };
    Read[traced aim] RangeRequest(
        key range_end revision;
        limit sort_order sort_target serializable keys_only count_only min_mod_revision max_mod_revision
        min_create_revision max_create_revision
    ) |to| {
        to.keys(key, range_end);
        to.revision_asked(*revision);
    };
    Always[traced aim] DeleteRangeRequest(key range_end; prev_kv) |to| to.keys(key, range_end);
    Always[traced] CompactionRequest(revision physical;) |to| {
        to.revision_asked(*revision);
        to.fields.switch("physical", *physical);
    };
    Always[traced] LeaseGrantRequest(ttl; id) |to| {
        // Told by the answer, also where the client has chosen it.
        to.second = Second::Lease;
        to.fields.number("ttl", *ttl);
    };
    Always[traced] LeaseRevokeRequest(id;) |to| to.lease(*id);
    Read[traced] LeaseKeepAliveRequest(id;) |to| to.lease(*id);
    Read LeaseTimeToLiveRequest(id; keys) |to| to.lease(*id);
    Read HotRequest(;) |_to| {};
    Read LeaseLeasesRequest(;) |_to| {};
    Always MemberAddRequest(peer_ur_ls is_learner;) |to| {
        // Which one it has become the answer says.
        to.second = Second::Member;
        to.urls(peer_ur_ls);
        to.fields.switch("learner", *is_learner);
    };
    Always MemberRemoveRequest(id;) |to| to.member(*id);
    Always MemberUpdateRequest(id peer_ur_ls;) |to| {
        to.member(*id);
        to.urls(peer_ur_ls);
    };
    Always MemberPromoteRequest(id;) |to| to.member(*id);
    Read MemberListRequest(; linearizable) |_to| {};
    Read StatusRequest(;) |_to| {};
    Always DefragmentRequest(;) |_to| {};
    Read HashRequest(;) |_to| {};
    Read HashKvRequest(revision;) |to| to.revision_asked(*revision);
    // Whoever takes a snapshot has read everything.
    Always SnapshotRequest(;) |_to| {};
    Always MoveLeaderRequest(target_id;) |to| to.member(*target_id);
    Always DowngradeRequest(action version;) |to| {
        to.fields.shown("op", DowngradeAction::try_from(*action).map_or("", |action| action.as_str_name()));
        to.fields.text("version", version);
    };
    Always AuthEnableRequest(;) |_to| {};
    Always AuthDisableRequest(;) |_to| {};
    Read AuthStatusRequest(;) |_to| {};
    Always AuthenticateRequest(name; password) |to| to.fields.text("name", name);
    Always AuthUserAddRequest(name; password options hashed_password) |to| to.fields.text("name", name);
    Read AuthUserGetRequest(name;) |to| to.fields.text("name", name);
    Read AuthUserListRequest(;) |_to| {};
    Always AuthUserDeleteRequest(name;) |to| to.fields.text("name", name);
    Always AuthUserChangePasswordRequest(name; password hashed_password) |to| to.fields.text("name", name);
    Always AuthUserGrantRoleRequest(user role;) |to| {
        to.fields.text("name", user);
        to.fields.text("role", role);
    };
    Always AuthUserRevokeRoleRequest(name role;) |to| {
        to.fields.text("name", name);
        to.fields.text("role", role);
    };
    Always AuthRoleAddRequest(name;) |to| to.fields.text("role", name);
    Read AuthRoleGetRequest(role;) |to| to.fields.text("role", role);
    Read AuthRoleListRequest(;) |_to| {};
    Always AuthRoleDeleteRequest(role;) |to| to.fields.text("role", role);
    Always AuthRoleGrantPermissionRequest(name perm;) |to| {
        to.fields.text("role", name);
        if let Some(authpb::Permission { perm_type, key, range_end }) = perm {
            let kind = permission::Type::try_from(*perm_type).map_or("", |kind| kind.as_str_name());
            to.fields.shown("permission", kind);
            to.keys(key, range_end);
        }
    };
    Always AuthRoleRevokePermissionRequest(role key range_end;) |to| {
        to.fields.text("role", role);
        to.keys(key, range_end);
    };
    Always CampaignRequest(name lease; value) |to| {
        to.keys(name, b"");
        to.lease(*lease);
    };
    Always ProclaimRequest(leader; value) |to| to.leader(leader.as_ref());
    Read LeaderRequest(name;) |to| to.keys(name, b"");
    Always ResignRequest(leader;) |to| to.leader(leader.as_ref());
    Always LockRequest(name lease;) |to| {
        to.keys(name, b"");
        to.lease(*lease);
    };
    Always UnlockRequest(key;) |to| to.keys(key, b"");
    Read HealthCheckRequest(; service) |_to| {};
}

impl Audited for AlarmRequest {
    fn tell(&self, subject: &mut Subject) -> Weight {
        let Self { action, member_id, alarm } = self;
        let action = AlarmAction::try_from(*action);
        subject.fields.shown("op", action.map_or("", |action| action.as_str_name()));
        subject.member(*member_id);
        subject.fields.shown("alarm", AlarmType::try_from(*alarm).map_or("", |alarm| alarm.as_str_name()));
        if action == Ok(AlarmAction::Get) { Weight::Read } else { Weight::Always }
    }
}

impl Audited for TxnRequest {
    fn tell(&self, subject: &mut Subject) -> Weight {
        subject.second = Second::Succeeded;
        subject.fields.object("txn", |fields| tell_txn(fields, self));
        if check::is_read_only(self) { Weight::Read } else { Weight::Always }
    }

    fn traced(&self) -> Option<&dyn Traced> {
        Some(self)
    }

    fn aim(&self) -> Option<Aim<'_>> {
        let mut operations = self.success.iter().chain(&self.failure);
        let key = operations.find_map(key_of).or(self.compare.first().map(|compare| compare.key.as_ref()));
        Some(Aim { key: key.unwrap_or_default(), writes: !check::is_read_only(self) })
    }
}

fn key_of(operation: &RequestOp) -> Option<&[u8]> {
    match operation.request.as_ref()? {
        Request::RequestPut(put) => Some(&put.key),
        Request::RequestRange(range) => Some(&range.key),
        Request::RequestDeleteRange(delete) => Some(&delete.key),
        Request::RequestTxn(txn) => txn.aim().map(|aim| aim.key),
    }
}

/// What is done comes first: it is what room is needed for.
fn tell_txn(fields: &mut Fields, txn: &TxnRequest) {
    let TxnRequest { compare, success, failure } = txn;
    for (name, branch) in [("then", success), ("else", failure)] {
        if !branch.is_empty() {
            fields.list(name, branch, TXN_BYTES_MAX, tell_operation);
        }
    }
    if !compare.is_empty() {
        fields.list("compare", compare, TXN_BYTES_MAX, |fields, compare| {
            let Compare { key, range_end, result: _, target: _, target_union: _ } = compare;
            fields.bytes("key", key);
            fields.some_bytes("range_end", range_end);
        });
    }
}

fn tell_operation(fields: &mut Fields, operation: &RequestOp) {
    let mut about = |name: &str, key: &[u8], range_end: &[u8]| {
        fields.shown("op", name);
        fields.bytes("key", key);
        fields.some_bytes("range_end", range_end);
    };
    match &operation.request {
        Some(Request::RequestRange(range)) => about("range", &range.key, &range.range_end),
        Some(Request::RequestPut(put)) => {
            about("put", &put.key, b"");
            tell_lease(fields, put.lease);
        }
        Some(Request::RequestDeleteRange(delete)) => about("delete", &delete.key, &delete.range_end),
        Some(Request::RequestTxn(txn)) => {
            fields.shown("op", "txn");
            // No deeper than transactions are read (`pb::nested`).
            tell_txn(fields, txn);
        }
        None => {}
    }
}

impl Audited for WatchRequest {
    fn tell(&self, subject: &mut Subject) -> Weight {
        match &self.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                let WatchCreateRequest {
                    key,
                    range_end,
                    start_revision,
                    watch_id,
                    progress_notify: _,
                    filters: _,
                    prev_kv: _,
                    fragment: _,
                } = create;
                subject.fields.shown("op", "create");
                subject.keys(key, range_end);
                subject.revision_asked(*start_revision);
                if *watch_id == 0 {
                    // The server chooses.
                    subject.second = Second::Watch;
                } else {
                    subject.fields.number("watch", *watch_id);
                }
                Weight::Always
            }
            Some(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })) => {
                subject.fields.shown("op", "cancel");
                subject.fields.number("watch", *watch_id);
                Weight::Always
            }
            Some(RequestUnion::ProgressRequest(WatchProgressRequest {})) => {
                subject.fields.shown("op", "progress");
                Weight::Read
            }
            None => Weight::Read,
        }
    }

    fn traced(&self) -> Option<&dyn Traced> {
        match &self.request_union {
            Some(RequestUnion::CreateRequest(create)) => Some(create),
            _ => None,
        }
    }

    fn aim(&self) -> Option<Aim<'_>> {
        match &self.request_union {
            Some(RequestUnion::CreateRequest(create)) => Some(Aim { key: &create.key, writes: false }),
            _ => None,
        }
    }
}

/// A watch that the server has ended.
#[derive(Debug)]
pub(in crate::api) struct WatchEnded(pub(in crate::api) i64);

impl Audited for WatchEnded {
    fn tell(&self, subject: &mut Subject) -> Weight {
        subject.fields.shown("op", "canceled");
        subject.fields.number("watch", self.0);
        Weight::Always
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_nothing_is_shown_that_could_log_in() {
        assert_eq!(without_user("http://10.0.0.1:2380"), "http://10.0.0.1:2380");
        assert_eq!(without_user("https://bob:geheim@host:2380"), "https://host:2380");
        assert_eq!(without_user("https://bob:ge@heim@host:2380"), "https://host:2380");
        assert_eq!(without_user("bob:geheim@host"), "host");
        assert_eq!(without_user("http:/bob:geheim@host"), "host");
        assert_eq!(without_user("bob:geheim://x@host"), "host");
        assert_eq!(without_user("http://host:2380?pw=geheim"), "http://host:2380");
        assert_eq!(without_user("http://bob:ge?heim@host:2380"), "http://host:2380");
    }
}
