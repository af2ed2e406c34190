//! Two hundred users with roles drawn by lot do what is drawn by lot, at a member of ours and at one of etcd.
//!
//! `DIFF_SEED=7` replays the lots of a failure, `MATRIX_OPS=100000` makes it long.

use bytes::Bytes;
use quorate::pb::{
    authpb::{Permission, permission::Type},
    etcdserverpb::{self as pb, RequestOp, WatchCreateRequest, WatchRequest, request_op::Request as Op, watch_request},
};

use super::{
    caller::{Ask, Caller, Who, ask},
    support::{daemon::Daemon, grpc::Client, program::Program, random::Random, setting},
};

const USERS: u64 = 200;
const ROLES: u64 = 40;
/// Calls of the form that `make test` runs.
const OPS: u64 = 4_000;
/// Leases 1 to this one.
const LEASES: i64 = 8;
const PASSWORD: &str = "secret";

/// Keys of up to three of these letters.
const LETTERS: [u8; 3] = *b"abc";

struct Lots(Random);

impl Lots {
    fn key(&mut self) -> Vec<u8> {
        let length = 1 + self.0.index(3);
        (0..length).map(|_| *self.0.pick(&LETTERS)).collect()
    }

    /// A key and the end of a range. Of ranges that end before they begin, which hold no key, etcd refuses some and lets others
    /// pass, by how its tree of permissions happens to have grown; they are left out.
    fn ends(&mut self) -> (Bytes, Bytes) {
        let (key, end) = (self.key(), self.key());
        let end = match self.0.below(10) {
            0..5 => Vec::new(),
            5 => vec![0],
            _ if key < end => end,
            _ => Vec::new(),
        };
        (key.into(), end.into())
    }

    /// Permissions of more than a point are most of them wide, so that something is allowed.
    fn permission(&mut self) -> Permission {
        let kind = *self.0.pick(&[Type::Read, Type::Write, Type::Readwrite]);
        let mut ends = [self.key(), self.key()];
        ends.sort();
        let [key, end] = ends;
        let range_end = match self.0.below(4) {
            0 => Vec::new(),
            1 => vec![0],
            _ if key < end => end,
            _ => Vec::new(),
        };
        Permission { perm_type: kind.into(), key: key.into(), range_end: range_end.into() }
    }

    fn role(&mut self) -> String {
        format!("role{}", self.0.below(ROLES))
    }

    fn user(&mut self) -> String {
        format!("user{}", self.0.below(USERS))
    }

    fn lease(&mut self) -> i64 {
        self.0.between(1, LEASES)
    }

    fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.ends();
        pb::RangeRequest { key, range_end, serializable: self.0.chance(30), ..Default::default() }
    }

    fn put(&mut self) -> pb::PutRequest {
        let lease = if self.0.chance(20) { self.lease() } else { 0 };
        let prev_kv = self.0.chance(20);
        pb::PutRequest { key: self.key().into(), value: "v".into(), lease, prev_kv, ..Default::default() }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.ends();
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.0.chance(20) }
    }

    fn txn(&mut self, deep: bool) -> pb::TxnRequest {
        let compares = self.0.index(2);
        let compare = (0..compares)
            .map(|_| {
                let target_union = Some(pb::compare::TargetUnion::Version(0));
                let (key, range_end) = self.ends();
                pb::Compare { key, range_end, target_union, ..Default::default() }
            })
            .collect();
        let [success, failure] = [(); 2].map(|()| (0..self.0.index(3)).map(|_| self.op(deep)).collect());
        pb::TxnRequest { compare, success, failure }
    }

    fn op(&mut self, deep: bool) -> RequestOp {
        let request = match self.0.below(8) {
            0..4 => Op::RequestRange(self.range()),
            4..6 => Op::RequestPut(self.put()),
            6 if deep => Op::RequestTxn(self.txn(false)),
            _ => Op::RequestDeleteRange(self.delete()),
        };
        RequestOp { request: Some(request) }
    }

    fn watch(&mut self) -> WatchRequest {
        let (key, range_end) = self.ends();
        let create = WatchCreateRequest { key, range_end, ..Default::default() };
        WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create)) }
    }

    fn ask(&mut self) -> Ask {
        match self.0.below(100) {
            0..30 => ask("/etcdserverpb.KV/Range", &self.range()),
            30..35 => ask("/etcdserverpb.KV/RangeStream", &pb::RangeRequest { limit: 3, ..self.range() }),
            35..55 => ask("/etcdserverpb.KV/Put", &self.put()),
            55..60 => ask("/etcdserverpb.KV/DeleteRange", &self.delete()),
            60..80 => ask("/etcdserverpb.KV/Txn", &self.txn(true)),
            80..88 => ask("/etcdserverpb.Watch/Watch", &self.watch()),
            88..91 => ask("/etcdserverpb.Lease/LeaseKeepAlive", &pb::LeaseKeepAliveRequest { id: self.lease() }),
            91..95 => {
                ask("/etcdserverpb.Lease/LeaseTimeToLive", &pb::LeaseTimeToLiveRequest { id: self.lease(), keys: true })
            }
            95..97 => ask("/etcdserverpb.Lease/LeaseRevoke", &pb::LeaseRevokeRequest { id: self.lease() }),
            97..99 => ask("/etcdserverpb.Lease/LeaseGrant", &pb::LeaseGrantRequest { id: self.lease(), ttl: 3_600 }),
            _ => ask("/etcdserverpb.Lease/LeaseLeases", &pb::LeaseLeasesRequest {}),
        }
    }

    /// What root changes about roles while others go on.
    fn change(&mut self) -> Ask {
        let perm = self.permission();
        let (user, role) = (self.user(), self.role());
        match self.0.below(4) {
            0 => {
                let perm = Some(perm);
                ask("/etcdserverpb.Auth/RoleGrantPermission", &pb::AuthRoleGrantPermissionRequest { name: role, perm })
            }
            1 => {
                let Permission { key, range_end, .. } = perm;
                let request = pb::AuthRoleRevokePermissionRequest { role, key, range_end };
                ask("/etcdserverpb.Auth/RoleRevokePermission", &request)
            }
            2 => ask("/etcdserverpb.Auth/UserGrantRole", &pb::AuthUserGrantRoleRequest { user, role }),
            _ => ask("/etcdserverpb.Auth/UserRevokeRole", &pb::AuthUserRevokeRoleRequest { name: user, role }),
        }
    }

    /// Users, roles, permissions and leases, before anybody is asked who he is.
    fn setup(&mut self) -> Vec<Ask> {
        let add = |name: String| {
            let request = pb::AuthUserAddRequest { name, password: PASSWORD.to_owned(), ..Default::default() };
            ask("/etcdserverpb.Auth/UserAdd", &request)
        };
        let grant = |user: String, role: String| {
            ask("/etcdserverpb.Auth/UserGrantRole", &pb::AuthUserGrantRoleRequest { user, role })
        };
        let mut asks = vec![add("root".to_owned()), grant("root".to_owned(), "root".to_owned())];
        for role in 0..ROLES {
            let name = format!("role{role}");
            asks.push(ask("/etcdserverpb.Auth/RoleAdd", &pb::AuthRoleAddRequest { name: name.clone() }));
            for _ in 0..=self.0.index(4) {
                let request = pb::AuthRoleGrantPermissionRequest { name: name.clone(), perm: Some(self.permission()) };
                asks.push(ask("/etcdserverpb.Auth/RoleGrantPermission", &request));
            }
        }
        for user in 0..USERS {
            let name = format!("user{user}");
            asks.push(add(name.clone()));
            for _ in 0..self.0.index(4) {
                asks.push(grant(name.clone(), self.role()));
            }
        }
        for id in 1..=LEASES {
            asks.push(ask("/etcdserverpb.Lease/LeaseGrant", &pb::LeaseGrantRequest { id, ttl: 3_600 }));
        }
        asks.push(ask("/etcdserverpb.Auth/AuthEnable", &pb::AuthEnableRequest {}));
        asks
    }
}

#[tokio::test]
async fn two_hundred_users_may_do_what_they_may_at_etcd() {
    let seed = setting("DIFF_SEED", 1);
    let mut lots = Lots(Random::new(seed));
    let flags = ["--bcrypt-cost=4", "--unsafe-no-fsync"];
    let sides = [Program::subject(), Program::etcd()].map(|program| Daemon::start(&program, &flags));
    let mut callers = Vec::new();
    for daemon in &sides {
        callers.push(Caller::new(Client::connect(&daemon.endpoint()).await.expect("the member serves").channel));
    }
    let mut callers = callers.into_iter();
    let (mut us, mut them) = (callers.next().expect("two"), callers.next().expect("two"));
    for what in lots.setup() {
        let (got, expected) = (us.answer(Who::Nobody, &what).await, them.answer(Who::Nobody, &what).await);
        assert_eq!(got, expected, "{}", what.path);
    }
    for user in (0..USERS).map(|user| format!("user{user}")).chain(["root".to_owned()]) {
        assert_eq!((us.log_in(&user, PASSWORD).await, them.log_in(&user, PASSWORD).await), ("OK".into(), "OK".into()));
    }
    let ops = setting("MATRIX_OPS", OPS);
    let (mut allowed, mut denied) = (0, 0);
    for number in 0..ops {
        let (user, what) =
            if lots.0.chance(3) { ("root".to_owned(), lots.change()) } else { (lots.user(), lots.ask()) };
        let (got, expected) = (us.answer_to(&user, &what).await, them.answer_to(&user, &what).await);
        let text = || format!("DIFF_SEED={seed}, call {number}: {user} {} {}", what.path, what.request.escape_ascii());
        assert_eq!(got, expected, "{}", text());
        let refused = got.contains("permission denied");
        (allowed, denied) = (allowed + u64::from(!refused), denied + u64::from(refused));
    }
    println!("{ops} calls answered alike, {denied} of them denied");
    assert!(allowed > ops / 10 && denied > ops / 10, "{allowed} allowed and {denied} denied say little");
}
