//! One rule per test; then whatever is done, rows and value say the same.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    pb::{authpb::UserAddOptions, etcdserverpb as pb},
    storage::{Engine, MemoryEngine, Table, Writes},
    types::Rejection,
};

/// Of the password `secret`, by etcd.
const HASH: &str = "JDJhJDEwJGRuNE03SktzT2RMaTIxOGxnSGlQQU8xa2hEY0NRcTZGa1JITFdWMlRmNkcweXdPNGxMWi9h";

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn user_add(name: &str) -> Change {
    let hashed_password = HASH.to_owned();
    Change::UserAdd(pb::AuthUserAddRequest { name: name.to_owned(), hashed_password, ..Default::default() })
}

fn user_delete(name: &str) -> Change {
    Change::UserDelete(pb::AuthUserDeleteRequest { name: name.to_owned() })
}

fn change_password(name: &str, password: &str, hash: &str) -> Change {
    let [name, password, hashed_password] = [name, password, hash].map(str::to_owned);
    Change::UserChangePassword(pb::AuthUserChangePasswordRequest { name, password, hashed_password })
}

fn grant_role(user: &str, role: &str) -> Change {
    Change::UserGrantRole(pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() })
}

fn revoke_role(name: &str, role: &str) -> Change {
    Change::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name: name.to_owned(), role: role.to_owned() })
}

fn role_add(name: &str) -> Change {
    Change::RoleAdd(pb::AuthRoleAddRequest { name: name.to_owned() })
}

fn role_delete(role: &str) -> Change {
    Change::RoleDelete(pb::AuthRoleDeleteRequest { role: role.to_owned() })
}

fn grant(role: &str, kind: Type, key: &str, range_end: &str) -> Change {
    let perm = Permission { perm_type: kind.into(), key: bytes(key), range_end: bytes(range_end) };
    Change::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name: role.to_owned(), perm: Some(perm) })
}

fn revoke(role: &str, key: &str, range_end: &str) -> Change {
    let (role, key, range_end) = (role.to_owned(), bytes(key), bytes(range_end));
    Change::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest { role, key, range_end })
}

/// With these changes done.
fn with(changes: &[Change]) -> Auth {
    let mut auth = Auth::default();
    for change in changes {
        auth.change(change).unwrap_or_else(|refused| panic!("{change:?}: {refused}"));
    }
    auth
}

fn enabled(changes: &[Change]) -> Auth {
    let mut auth = with(&[user_add(ROOT), grant_role(ROOT, ROOT)]);
    for change in changes.iter().chain([&Change::Enable]) {
        auth.change(change).unwrap();
    }
    auth
}

#[track_caller]
fn refuses(auth: &mut Auth, change: &Change, refusal: Rejection) {
    let before = (auth.revision, auth.enabled, auth.user_names(), auth.role_names());
    assert_eq!(auth.change(change), Err(Refused::Rejected(refusal)), "{change:?}");
    assert_eq!(before, (auth.revision, auth.enabled, auth.user_names(), auth.role_names()), "{change:?}");
}

#[test]
fn requests_are_refused_in_etcds_order() {
    let mut auth = with(&[user_add("a"), role_add("r"), grant("r", Type::Read, "k", "")]);
    refuses(&mut auth, &Change::Enable, Rejection::RootUserNotFound);
    refuses(&mut auth, &user_add(""), Rejection::UserNameEmpty);
    refuses(&mut auth, &user_add("a"), Rejection::UserExists);
    refuses(&mut auth, &user_delete("b"), Rejection::UserNotFound);
    refuses(&mut auth, &change_password("b", "", "%"), Rejection::UserNotFound);
    refuses(&mut auth, &change_password("a", "", "%"), Rejection::NoPasswordUser);
    refuses(&mut auth, &grant_role("b", "none"), Rejection::UserNotFound);
    refuses(&mut auth, &grant_role("a", "none"), Rejection::RoleNotFound);
    refuses(&mut auth, &revoke_role("b", "r"), Rejection::UserNotFound);
    refuses(&mut auth, &revoke_role("a", "r"), Rejection::RoleNotGranted);
    refuses(&mut auth, &role_add(""), Rejection::RoleNameEmpty);
    refuses(&mut auth, &role_add("r"), Rejection::RoleExists);
    refuses(&mut auth, &role_delete("none"), Rejection::RoleNotFound);
    let without = Change::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest::default());
    refuses(&mut auth, &without, Rejection::PermissionNotGiven);
    refuses(&mut auth, &grant("none", Type::Read, "b", "a"), Rejection::InvalidAuthManagement);
    refuses(&mut auth, &grant("none", Type::Read, "a", ""), Rejection::RoleNotFound);
    refuses(&mut auth, &revoke("none", "k", ""), Rejection::RoleNotFound);
    refuses(&mut auth, &revoke("r", "k", "l"), Rejection::PermissionNotGranted);
    auth.change(&user_add(ROOT)).unwrap();
    refuses(&mut auth, &Change::Enable, Rejection::RootRoleNotGranted);
}

#[test]
fn names_the_store_cannot_hold_are_refused() {
    let long = "n".repeat(crate::types::KEY_BYTES_MAX + 1);
    refuses(&mut Auth::default(), &user_add(&long), Rejection::InvalidAuthManagement);
    refuses(&mut Auth::default(), &role_add(&long), Rejection::InvalidAuthManagement);
}

#[test]
fn root_stays_while_requests_are_checked() {
    let mut auth = enabled(&[role_add(ROOT)]);
    for change in [user_delete(ROOT), revoke_role(ROOT, ROOT), role_delete(ROOT)] {
        refuses(&mut auth, &change, Rejection::InvalidAuthManagement);
    }
    auth.change(&Change::Disable).unwrap();
    for change in [revoke_role(ROOT, ROOT), role_delete(ROOT), user_delete(ROOT)] {
        auth.change(&change).unwrap();
    }
}

#[test]
fn revision_grows_with_every_change_but_switching_on() {
    let mut auth = with(&[user_add(ROOT)]);
    let mut expected = 2;
    let steps = [
        (grant_role(ROOT, ROOT), 1),
        (grant_role(ROOT, ROOT), 0),
        (Change::Disable, 0),
        (Change::Enable, 0),
        (Change::Enable, 0),
        (role_add("r"), 1),
        (grant("r", Type::Read, "k", ""), 1),
        (grant("r", Type::Read, "k", ""), 1),
        (change_password(ROOT, "", ""), 1),
        (revoke("r", "k", ""), 1),
        (role_delete("r"), 1),
        (Change::Disable, 1),
        (revoke_role(ROOT, ROOT), 1),
        (user_delete(ROOT), 1),
    ];
    for (change, growth) in steps {
        let rows = auth.change(&change).unwrap();
        expected += growth;
        assert_eq!(auth.revision(), expected, "{change:?}");
        let told = rows.iter().any(|row| row.key == "authRevision" && row.value == Some(bytes_of(expected)));
        assert_eq!(told, growth > 0, "{change:?}");
    }
}

fn bytes_of(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

#[test]
fn rows_are_etcds() {
    let mut auth = Auth::default();
    let rows = auth.change(&user_add("root")).unwrap();
    let hash = "$2a$10$dn4M7JKsOdLi218lgHiPAO1khDcCQq6FkRHLWV2Tf6G0ywO4lLZ/a";
    let expected = format!("\n\x04root\x12<{hash}\x22\0");
    assert_eq!(rows[0], Row { table: Table::AuthUser, key: bytes("root"), value: Some(bytes(&expected)) });
    assert_eq!(rows[1], Row { table: Table::Auth, key: bytes("authRevision"), value: Some(bytes_of(2)) });
    auth.change(&role_add("r")).unwrap();
    let rows = auth.change(&grant("r", Type::Readwrite, "a", "b")).unwrap();
    let expected = "\n\x01r\x12\x08\x08\x02\x12\x01a\x1a\x01b";
    assert_eq!(rows[0], Row { table: Table::AuthRole, key: bytes("r"), value: Some(bytes(expected)) });
    let rows = auth.change(&user_delete("root")).unwrap();
    assert_eq!(rows[0], Row { table: Table::AuthUser, key: bytes("root"), value: None });
}

#[test]
fn passwords_come_as_hashes_or_not_at_all() {
    let mut auth = with(&[user_add("a")]);
    assert_eq!(auth.change(&change_password("a", "plain", "")), Err(Refused::PlainPassword));
    auth.change(&change_password("a", "", "eA==")).unwrap();
    assert_eq!(auth.users["a"].user().password, "x");
    auth.change(&change_password("a", "", "")).unwrap();
    assert_eq!(auth.users["a"].user().password, "");
    let options = Some(UserAddOptions { no_password: true });
    let (name, password) = ("b".to_owned(), "ignored".to_owned());
    let without = pb::AuthUserAddRequest { name, password, options, ..Default::default() };
    auth.change(&Change::UserAdd(without)).unwrap();
    auth.change(&change_password("b", "ignored", "")).unwrap();
    assert_eq!(auth.users["b"].user().password, "");
}

#[test]
fn permissions_are_sorted_by_key_and_replaced_where_they_are_the_same() {
    let auth = with(&[
        role_add("r"),
        grant("r", Type::Read, "m", ""),
        grant("r", Type::Read, "a", "b"),
        grant("r", Type::Write, "a", ""),
        grant("r", Type::Readwrite, "a", "b"),
        // etcd looks at the first of the permissions that begin with this key, and adds one more.
        grant("r", Type::Read, "a", ""),
    ]);
    let told = auth.permissions_of("r").unwrap();
    let told: Vec<_> = told.iter().map(|held| (held.perm_type(), &held.key[..], &held.range_end[..])).collect();
    let expected: [(Type, &[u8], &[u8]); 4] =
        [(Type::Readwrite, b"a", b"b"), (Type::Write, b"a", b""), (Type::Read, b"a", b""), (Type::Read, b"m", b"")];
    assert_eq!(told, expected);
}

#[test]
fn role_of_root_is_told_in_one_word() {
    let auth = with(&[role_add(ROOT), grant(ROOT, Type::Read, "a", "")]);
    let everything = Permission { perm_type: 2, key: Bytes::new(), range_end: Bytes::from_static(&[0]) };
    assert_eq!(auth.permissions_of(ROOT), Some(vec![everything]));
    assert_eq!(Auth::default().permissions_of(ROOT), None);
}

fn identity(auth: &Auth, user: &str) -> Identity {
    Identity { user: user.to_owned(), revision: auth.revision() }
}

#[test]
fn nobody_is_asked_while_requests_are_not_checked() {
    let auth = with(&[user_add("a")]);
    let nobody = Identity::default();
    assert_eq!(auth.check_admin(&nobody), Ok(()));
    assert_eq!(auth.check_keys(&nobody, Access::Write, &bytes("k"), &Bytes::new()), Ok(()));
}

#[test]
fn only_users_with_the_role_of_root_administer() {
    let auth = enabled(&[user_add("a"), role_add("r"), grant_role("a", "r"), user_add("b"), grant_role("b", ROOT)]);
    assert_eq!(auth.check_admin(&Identity::default()), Err(Rejection::UserNameEmpty));
    assert_eq!(auth.check_admin(&identity(&auth, "gone")), Err(Rejection::UserNotFound));
    assert_eq!(auth.check_admin(&identity(&auth, "a")), Err(Rejection::PermissionDenied));
    // Not even an old token matters here.
    assert_eq!(auth.check_admin(&Identity { user: "b".to_owned(), revision: 1 }), Ok(()));
    assert_eq!(auth.check_user_get(&identity(&auth, "a"), "a"), Ok(()));
    assert_eq!(auth.check_user_get(&identity(&auth, "a"), "b"), Err(Rejection::PermissionDenied));
    assert_eq!(auth.check_role_get(&identity(&auth, "a"), "r"), Ok(()));
    assert_eq!(auth.check_role_get(&identity(&auth, "a"), ROOT), Err(Rejection::PermissionDenied));
    assert_eq!(auth.check_role_get(&Identity::default(), "r"), Err(Rejection::UserNameEmpty));
}

#[test]
fn keys_are_refused_in_etcds_order() {
    let auth = enabled(&[user_add("a"), role_add("r"), grant("r", Type::Read, "k", ""), grant_role("a", "r")]);
    let check = |who: &Identity, access, key| auth.check_keys(who, access, &bytes(key), &Bytes::new());
    assert_eq!(check(&Identity::default(), Access::Read, "k"), Err(Rejection::UserNameEmpty));
    let old = Identity { user: "a".to_owned(), revision: auth.revision() - 1 };
    assert_eq!(check(&old, Access::Read, "k"), Err(Rejection::AuthOldRevision));
    assert_eq!(check(&identity(&auth, "gone"), Access::Read, "k"), Err(Rejection::PermissionDenied));
    assert_eq!(check(&identity(&auth, "a"), Access::Read, "k"), Ok(()));
    assert_eq!(check(&identity(&auth, "a"), Access::Write, "k"), Err(Rejection::PermissionDenied));
    assert_eq!(check(&identity(&auth, ROOT), Access::Write, "any"), Ok(()));
}

#[test]
fn what_roles_permit_adds_up_and_follows_them() {
    let mut auth = enabled(&[
        user_add("a"),
        role_add("low"),
        role_add("high"),
        grant("low", Type::Read, "a", "m"),
        grant("high", Type::Readwrite, "m", "\0"),
        grant_role("a", "low"),
        grant_role("a", "high"),
    ]);
    let may = |auth: &Auth, access, key: &str, end: &str| {
        auth.check_keys(&identity(auth, "a"), access, &bytes(key), &bytes(end)).is_ok()
    };
    assert!(may(&auth, Access::Read, "a", "\0") && !may(&auth, Access::Write, "a", "\0"));
    assert!(may(&auth, Access::Write, "m", "z"));
    auth.change(&revoke("high", "m", "\0")).unwrap();
    assert!(!may(&auth, Access::Read, "a", "\0") && may(&auth, Access::Read, "a", "m"));
    auth.change(&grant("low", Type::Write, "a", "m")).unwrap();
    assert!(!may(&auth, Access::Read, "a", "m") && may(&auth, Access::Write, "a", "m"));
    auth.change(&role_delete("low")).unwrap();
    assert!(!may(&auth, Access::Write, "a", "m"));
    assert_eq!(auth.roles_of("a"), Some(&["high".to_owned()][..]));
}

#[test]
fn damaged_rows_are_told() {
    let row = |table, key: &str, value: &[u8]| {
        let engine = MemoryEngine::new();
        let mut writes = Writes::default();
        writes.put_row(table, key.as_bytes(), Bytes::copy_from_slice(value));
        engine.commit(writes).unwrap();
        Auth::read(&engine.snapshot()).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(row(Table::Auth, "authEnabled", &[1]), Ok(()));
    assert_eq!(row(Table::Auth, "authEnabled", &[2]), Err("row authEnabled of table Auth is damaged".to_owned()));
    assert_eq!(row(Table::Auth, "authRevision", &[2]), Err("row authRevision of table Auth is damaged".to_owned()));
    assert_eq!(row(Table::AuthUser, "u", b"\n\x01u"), Ok(()));
    assert_eq!(row(Table::AuthUser, "u", b"\n\x01v"), Err("row u of table AuthUser is damaged".to_owned()));
    assert_eq!(row(Table::AuthRole, "r", b"\xff"), Err("row r of table AuthRole is damaged".to_owned()));
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "a", "b", ROOT])
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        Just(Change::Enable),
        Just(Change::Disable),
        name().prop_map(user_add),
        name().prop_map(user_delete),
        name().prop_map(|name| change_password(name, "", HASH)),
        (name(), name()).prop_map(|(user, role)| grant_role(user, role)),
        (name(), name()).prop_map(|(user, role)| revoke_role(user, role)),
        name().prop_map(role_add),
        name().prop_map(role_delete),
        (name(), name(), name()).prop_map(|(role, key, end)| grant(role, Type::Write, key, end)),
        (name(), name(), name()).prop_map(|(role, key, end)| revoke(role, key, end)),
    ]
}

proptest! {
    /// What is read back is what was changed, checks included, which are put together anew from rows.
    #[test]
    fn rows_tell_everything(changes in prop::collection::vec(any_change(), 0..40)) {
        let (mut auth, engine) = (Auth::default(), MemoryEngine::new());
        for change in &changes {
            let mut writes = Writes::default();
            for Row { table, key, value } in auth.change(change).unwrap_or_default() {
                match value {
                    Some(value) => writes.put_row(table, &key, value),
                    None => writes.delete_row(table, &key),
                }
            }
            engine.commit(writes).unwrap();
            let again = Auth::read(&engine.snapshot()).unwrap();
            prop_assert_eq!((again.enabled, again.revision), (auth.enabled, auth.revision));
            prop_assert_eq!(&again.roles, &auth.roles);
            let users = |auth: &Auth| auth.users.values().map(|held| held.user().clone()).collect::<Vec<_>>();
            prop_assert_eq!(users(&again), users(&auth));
            let key = Bytes::from_static(b"a");
            for user in ["a", "b", ROOT] {
                let check = |auth: &Auth| auth.check_keys(&identity(auth, user), Access::Write, &key, &Bytes::new());
                prop_assert_eq!(check(&again), check(&auth));
            }
        }
    }
}
