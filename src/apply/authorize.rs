//! Whether the sender of a request may do what it asks, judged by every member alike (peer-and-disk, §3.7).

use bytes::Bytes;

use super::{entry::Request, execute::Refused, state::State};
use crate::{
    auth::{Access, Auth, Identity},
    mvcc,
    pb::etcdserverpb::{self as pb, RequestOp, request_op::Request as Op},
    storage::{Batch, Read},
    types::{LeaseId, Rejection},
};

impl State {
    /// Refuses what `who` may not do.
    pub(super) fn authorize<R: Read>(
        &self,
        batch: &Batch<R>,
        who: &Identity,
        request: &Request,
    ) -> Result<(), Refused> {
        if self.auth.enabled() { Judge { auth: &self.auth, who, rows: batch }.request(request) } else { Ok(()) }
    }
}

/// What is needed to judge the requests of one sender.
struct Judge<'a, R> {
    auth: &'a Auth,
    who: &'a Identity,
    /// Where the keys of leases are.
    rows: &'a R,
}

impl<R: Read> Judge<'_, R> {
    fn request(&self, request: &Request) -> Result<(), Refused> {
        match request {
            Request::Range(range) => Ok(self.read(&range.key, &range.range_end)?),
            Request::Put(put) => self.put(put),
            Request::DeleteRange(delete) => Ok(self.delete(delete)?),
            Request::Txn(txn) => self.txn(txn),
            Request::LeaseRevoke(revoke) => self.lease(LeaseId(revoke.id)),
            Request::AuthChange(_) | Request::AuthUserList | Request::AuthRoleList => {
                Ok(self.auth.check_admin(self.who)?)
            }
            Request::AuthUserGet(get) => Ok(self.auth.check_user_get(self.who, &get.name)?),
            Request::AuthRoleGet(get) => Ok(self.auth.check_role_get(self.who, &get.role)?),
            _ => Ok(()),
        }
    }

    fn read(&self, key: &Bytes, range_end: &Bytes) -> Result<(), Rejection> {
        self.auth.check_keys(self.who, Access::Read, key, range_end)
    }

    fn write(&self, key: &Bytes, range_end: &Bytes) -> Result<(), Rejection> {
        self.auth.check_keys(self.who, Access::Write, key, range_end)
    }

    fn put(&self, put: &pb::PutRequest) -> Result<(), Refused> {
        self.write(&put.key, &Bytes::new())?;
        self.lease(LeaseId(put.lease))?;
        if put.prev_kv {
            self.read(&put.key, &Bytes::new())?;
        }
        Ok(())
    }

    fn delete(&self, delete: &pb::DeleteRangeRequest) -> Result<(), Rejection> {
        self.write(&delete.key, &delete.range_end)?;
        if delete.prev_kv { self.read(&delete.key, &delete.range_end) } else { Ok(()) }
    }

    /// Everything a transaction might do must be allowed, whichever way it goes.
    fn txn(&self, txn: &pb::TxnRequest) -> Result<(), Refused> {
        for compare in &txn.compare {
            self.read(&compare.key, &compare.range_end)?;
        }
        for RequestOp { request } in txn.success.iter().chain(&txn.failure) {
            match request {
                Some(Op::RequestRange(range)) => self.read(&range.key, &range.range_end)?,
                Some(Op::RequestPut(put)) => self.put(put)?,
                Some(Op::RequestDeleteRange(delete)) => self.delete(delete)?,
                Some(Op::RequestTxn(txn)) => self.txn(txn)?,
                None => {}
            }
        }
        Ok(())
    }

    /// With a lease end all its keys, so whoever attaches one more or revokes it must be allowed to write them all.
    fn lease(&self, lease: LeaseId) -> Result<(), Refused> {
        if lease == LeaseId(0) || self.auth.check_admin(self.who).is_ok() {
            return Ok(());
        }
        for key in mvcc::attached(self.rows, lease)? {
            self.write(&key, &Bytes::new())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::{Change, ROOT},
        pb::authpb::{Permission, UserAddOptions, permission::Type},
        storage::{Engine, MemoryEngine, Table, Writes},
    };

    /// `u` may read `a` and `r`, and write `a` and `w`; the lease 7 holds `a`, the lease 8 `a` and `z`.
    struct World {
        auth: Auth,
        engine: MemoryEngine,
    }

    impl World {
        fn new() -> Self {
            let mut auth = Auth::default();
            let options = Some(UserAddOptions { no_password: true });
            let user = |name: &str| pb::AuthUserAddRequest { name: name.to_owned(), options, ..Default::default() };
            let grant = |kind: Type, key: &'static str| {
                let perm = Some(Permission { perm_type: kind.into(), key: key.into(), range_end: Bytes::new() });
                Change::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name: "role".to_owned(), perm })
            };
            let held = |user: &str, role: &str| {
                Change::UserGrantRole(pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() })
            };
            let changes = [
                Change::UserAdd(user(ROOT)),
                held(ROOT, ROOT),
                Change::UserAdd(user("u")),
                Change::RoleAdd(pb::AuthRoleAddRequest { name: "role".to_owned() }),
                grant(Type::Readwrite, "a"),
                grant(Type::Read, "r"),
                grant(Type::Write, "w"),
                held("u", "role"),
                Change::Enable,
            ];
            for change in changes {
                auth.change(&change).unwrap();
            }
            let engine = MemoryEngine::new();
            let mut writes = Writes::default();
            for (lease, key) in [(7_i64, b'a'), (8, b'a'), (8, b'z')] {
                let row = [lease.to_be_bytes().as_slice(), &[key]].concat();
                writes.put_row(Table::LeaseKey, &row, Bytes::new());
            }
            engine.commit(writes).unwrap();
            Self { auth, engine }
        }

        fn judge(&self, user: &str, request: &Request) -> Result<(), Rejection> {
            let who = Identity { user: user.to_owned(), revision: self.auth.revision() };
            let judge = Judge { auth: &self.auth, who: &who, rows: &self.engine.snapshot() };
            judge.request(request).map_err(|refused| match refused {
                Refused::Rejected(rejection) => rejection,
                _ => panic!("the store does not fail"),
            })
        }

        fn may(&self, request: &Request) -> bool {
            assert_eq!(self.judge(ROOT, request), Ok(()), "root may do everything");
            let outcome = self.judge("u", request);
            assert!(matches!(outcome, Ok(()) | Err(Rejection::PermissionDenied)), "{outcome:?}");
            outcome.is_ok()
        }
    }

    fn put(key: &'static str) -> pb::PutRequest {
        pb::PutRequest { key: key.into(), ..Default::default() }
    }

    fn range(key: &'static str) -> pb::RangeRequest {
        pb::RangeRequest { key: key.into(), ..Default::default() }
    }

    fn delete(key: &'static str) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: key.into(), ..Default::default() }
    }

    fn on_success(op: Op) -> pb::TxnRequest {
        pb::TxnRequest { success: vec![RequestOp { request: Some(op) }], ..Default::default() }
    }

    #[test]
    fn each_request_needs_its_own_permission() {
        let world = World::new();
        assert!(world.may(&Request::Range(range("r"))) && !world.may(&Request::Range(range("w"))));
        assert!(world.may(&Request::Put(put("w"))) && !world.may(&Request::Put(put("r"))));
        assert!(world.may(&Request::DeleteRange(delete("w"))) && !world.may(&Request::DeleteRange(delete("r"))));
        assert!(world.may(&Request::LeaseGrant(pb::LeaseGrantRequest::default())));
    }

    #[test]
    fn former_values_are_read() {
        let world = World::new();
        let asking = |key| pb::PutRequest { prev_kv: true, ..put(key) };
        assert!(world.may(&Request::Put(asking("a"))) && !world.may(&Request::Put(asking("w"))));
        let asking = |key| pb::DeleteRangeRequest { prev_kv: true, ..delete(key) };
        assert!(world.may(&Request::DeleteRange(asking("a"))) && !world.may(&Request::DeleteRange(asking("w"))));
    }

    #[test]
    fn leases_end_with_keys_that_must_be_writable() {
        let world = World::new();
        let leased = |lease| pb::PutRequest { lease, ..put("w") };
        let may = [7, 8, 9].map(|lease| world.may(&Request::Put(leased(lease))));
        assert_eq!(may, [true, false, true]);
        let may = [7, 8, 9].map(|id| world.may(&Request::LeaseRevoke(pb::LeaseRevokeRequest { id })));
        assert_eq!(may, [true, false, true]);
    }

    #[test]
    fn transactions_need_what_any_way_through_them_needs() {
        let world = World::new();
        let compare = |key: &'static str| pb::Compare { key: key.into(), ..Default::default() };
        let comparing = |key| pb::TxnRequest { compare: vec![compare(key)], ..Default::default() };
        assert!(world.may(&Request::Txn(comparing("r"))) && !world.may(&Request::Txn(comparing("w"))));
        let ops = [
            (Op::RequestRange(range("r")), Op::RequestRange(range("w"))),
            (Op::RequestPut(put("w")), Op::RequestPut(put("r"))),
            (Op::RequestPut(put("w")), Op::RequestPut(pb::PutRequest { lease: 8, ..put("w") })),
            (Op::RequestDeleteRange(delete("w")), Op::RequestDeleteRange(delete("r"))),
        ];
        for (allowed, denied) in ops {
            for (op, may) in [(allowed, true), (denied, false)] {
                let txn = on_success(op);
                let otherwise = pb::TxnRequest { failure: txn.success.clone(), ..Default::default() };
                let nested = on_success(Op::RequestTxn(txn.clone()));
                for txn in [txn, otherwise, nested] {
                    assert_eq!(world.may(&Request::Txn(txn.clone())), may, "{txn:?}");
                }
            }
        }
    }

    #[test]
    fn users_and_roles_are_roots_but_for_ones_own() {
        let world = World::new();
        let get = |name: &str| Request::AuthUserGet(pb::AuthUserGetRequest { name: name.to_owned() });
        assert!(world.may(&get("u")) && !world.may(&get(ROOT)));
        let get = |role: &str| Request::AuthRoleGet(pb::AuthRoleGetRequest { role: role.to_owned() });
        assert!(world.may(&get("role")) && !world.may(&get(ROOT)));
        assert!(!world.may(&Request::AuthUserList) && !world.may(&Request::AuthRoleList));
        assert!(!world.may(&Request::AuthChange(Change::Disable)));
        assert!(world.may(&Request::AuthStatus));
        assert_eq!(world.judge("", &Request::AuthUserList), Err(Rejection::UserNameEmpty));
        assert_eq!(world.judge("gone", &Request::AuthUserList), Err(Rejection::UserNotFound));
    }
}
