//! Users in clusters: what one member is told counts at all of them, whatever kind they are.

#![expect(clippy::indexing_slicing, reason = "members are counted by the tests that made them")]

mod support;

use std::time::Duration;

use quorate::pb::etcdserverpb::{self as pb, auth_client::AuthClient};
use support::{
    cluster::{Cluster, PATIENCE},
    grpc::{Client, get, put},
    program::Program,
    wait_for,
};
use tokio::runtime::Runtime;
use tonic::{Code, Request, Status};

const FLAGS: &[&str] = &["--bcrypt-cost=4"];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Makes a user that may do everything, and switches authentication on.
fn enable_auth(cluster: &Cluster) {
    runtime().block_on(async {
        let client = Client::connect(&cluster.members[0].endpoint()).await.expect("the member serves");
        let mut auth = AuthClient::new(client.channel);
        for name in ["root", "u"] {
            let (name, password) = (name.to_owned(), "secret".to_owned());
            let user = pb::AuthUserAddRequest { name, password, ..Default::default() };
            auth.user_add(user).await.expect("a user");
        }
        let (user, role) = ("root".to_owned(), "root".to_owned());
        auth.role_add(pb::AuthRoleAddRequest { name: role.clone() }).await.expect("a role");
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }).await.expect("a grant");
        auth.auth_enable(pb::AuthEnableRequest {}).await.expect("authentication");
    });
}

async fn client(cluster: &Cluster, member: usize) -> Client {
    Client::connect(&cluster.members[member].endpoint()).await.expect("the member serves")
}

async fn log_in(cluster: &Cluster, member: usize, user: &str) -> String {
    let (name, password) = (user.to_owned(), "secret".to_owned());
    let request = pb::AuthenticateRequest { name, password };
    let mut auth = AuthClient::new(client(cluster, member).await.channel);
    for _ in 0..CHANGES_MAX {
        match auth.authenticate(request.clone()).await {
            Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(PAUSE).await,
            token => return token.expect("a token").into_inner().token,
        }
    }
    panic!("the cluster does not settle");
}

/// So often a call is repeated because the leader has changed under it, which may happen while a cluster is young.
const CHANGES_MAX: usize = 200;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(50);

fn with<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().expect("a token"));
    request
}

async fn put_and_get(cluster: &Cluster, member: usize, token: &str) -> Result<(), Status> {
    let mut client = client(cluster, member).await;
    client.kv.put(with(put("k", "v"), token)).await?;
    let serializable = pb::RangeRequest { serializable: true, ..get("k") };
    for request in [get("k"), serializable] {
        assert_eq!(client.kv.range(with(request, token)).await?.into_inner().count, 1);
    }
    Ok(())
}

/// The outcome of a put and reads with a token that was just given, at a member of ours. A member of etcd may still lack
/// the entry that gave it, and then knows no better than to refuse it.
async fn at_once(cluster: &Cluster, member: usize, token: &str, of_etcd: bool) -> Result<(), Status> {
    for _ in 0..CHANGES_MAX {
        match put_and_get(cluster, member, token).await {
            Err(status) if of_etcd && status.code() == Code::Unauthenticated => {}
            Err(status) if status.code() == Code::Unavailable => {}
            done => return done,
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("the cluster does not settle");
}

/// Every member's tokens work at every member at once, as often as it is tried; and go everywhere with a password.
/// `etcds` are the members that are etcd's.
fn tokens_count_everywhere(cluster: &Cluster, etcds: &[usize]) {
    runtime().block_on(async {
        let members = cluster.members.len();
        for round in 0..3 * members {
            let giver = round % members;
            let token = log_in(cluster, giver, "root").await;
            for taker in 0..members {
                let taker = (giver + 1 + taker) % members;
                let done = at_once(cluster, taker, &token, etcds.contains(&taker)).await;
                assert!(done.is_ok(), "round {round}: {done:?}");
            }
        }
        let (root, lost) = (log_in(cluster, 0, "root").await, log_in(cluster, members - 1, "root").await);
        let (name, password) = ("root".to_owned(), "secret".to_owned());
        let change = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
        let mut auth = AuthClient::new(client(cluster, 0).await.channel);
        auth.user_change_password(with(change, &root)).await.expect("another password");
        for member in 0..members {
            for token in [&root, &lost] {
                let refused = client(cluster, member).await.kv.range(with(get("k"), token)).await.map(drop);
                let refused = refused.expect_err("the token is gone");
                assert_eq!(
                    (refused.code(), refused.message()),
                    (Code::Unauthenticated, "etcdserver: invalid auth token")
                );
            }
        }
    });
}

#[test]
fn token_of_one_member_counts_at_the_others() {
    let mut cluster = Cluster::start(3, FLAGS);
    enable_auth(&cluster);
    tokens_count_everywhere(&cluster, &[]);
    // A lease that runs out is revoked by its leader, whom nobody has asked to.
    runtime().block_on(async {
        let token = log_in(&cluster, 1, "root").await;
        let mut client = client(&cluster, 1).await;
        let grant = pb::LeaseGrantRequest { ttl: 2, id: 7 };
        client.lease.lease_grant(with(grant, &token)).await.expect("a lease");
        let leased = pb::PutRequest { lease: 7, ..put("leased", "v") };
        client.kv.put(with(leased, &token)).await.expect("a put");
    });
    let gone = wait_for(PATIENCE, || {
        runtime().block_on(async {
            let token = log_in(&cluster, 2, "root").await;
            let found = client(&cluster, 2).await.kv.range(with(get("leased"), &token)).await.expect("a range");
            (found.into_inner().count == 0).then_some(())
        })
    });
    assert!(gone.is_some(), "the lease does not end");
    // Who was away hears of users, and of tokens that were given meanwhile, when it comes back.
    cluster.members[2].kill();
    let token = runtime().block_on(log_in(&cluster, 0, "root"));
    cluster.members[2].restart();
    assert!(runtime().block_on(put_and_get(&cluster, 2, &token)).is_ok());
}

#[test]
fn tokens_count_among_members_of_both_kinds() {
    let (ours, etcd) = (Program::subject(), Program::etcd());
    let cluster = Cluster::found([(&ours, FLAGS), (&etcd, FLAGS), (&ours, FLAGS)]);
    enable_auth(&cluster);
    tokens_count_everywhere(&cluster, &[1]);
}

/// One member of etcd with authentication, and one of ours that comes later.
fn newcomer_asks_as_well(arguments: &[&str], entries: usize) {
    let mut cluster = Cluster::start_of(&Program::etcd(), 1, arguments);
    let new = cluster.prepare(FLAGS);
    let peer = format!("--peer-urls=http://{}", cluster.members[new].peer);
    cluster.ctl_until(0, &["member", "add", "m2", &peer, "--learner"]);
    for number in 0..entries {
        cluster.ctl(0, &["put", "key", &number.to_string()]).expect("a put");
    }
    if entries > 0 {
        let taken = wait_for(PATIENCE, || cluster.members[0].log().contains("saved snapshot to disk").then_some(()));
        assert!(taken.is_some(), "etcd keeps its whole log");
    }
    enable_auth(&cluster);
    let list = cluster.initial_cluster();
    cluster.begin(new, "m2", &list, "existing");
    assert!(cluster.members[new].wait_ready(PATIENCE), "it does not join:\n{}", cluster.members[new].log());
    runtime().block_on(async {
        let root = log_in(&cluster, 0, "root").await;
        let u = log_in(&cluster, 0, "u").await;
        let read = pb::RangeRequest { serializable: true, ..get("key") };
        let mut client = client(&cluster, new).await;
        let refused = client.kv.range(read.clone()).await.expect_err("nobody");
        assert_eq!(refused.message(), "etcdserver: user name is empty");
        assert!(client.kv.range(with(read.clone(), &root)).await.is_ok());
        let refused = client.kv.range(with(read, &u)).await.expect_err("a user without a role");
        assert_eq!(refused.message(), "etcdserver: permission denied");
    });
}

#[test]
fn newcomer_learns_of_users_by_the_log() {
    newcomer_asks_as_well(FLAGS, 0);
}

#[test]
fn newcomer_learns_of_users_by_a_snapshot() {
    newcomer_asks_as_well(&["--bcrypt-cost=4", "--snapshot-count=10", "--snapshot-catchup-entries=1"], 50);
}
