//! What members of this version cannot do yet is refused in one line, before it does harm: TLS between members, and
//! clusters with users.

#![expect(clippy::indexing_slicing, reason = "members are counted by the tests that made them")]

mod support;

use quorate::pb::etcdserverpb::{self as pb, auth_client::AuthClient};
use support::{
    cluster::{Cluster, PATIENCE},
    grpc::Client,
    program::Program,
    wait_for,
};
use tonic::{Code, transport::Channel};

/// What a refused peer URL is answered with.
const NO_TLS: &str = "etcdserver: members of this version do not speak TLS with each other yet: give the member a peer URL that begins with http:";

/// Such a member was added, and could be reached by nobody.
#[test]
fn peer_urls_with_tls_are_refused() {
    let cluster = Cluster::start(1, &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = Client::connect(&cluster.members[0].endpoint()).await.expect("the member serves");
        let list = pb::MemberListRequest { linearizable: true };
        let id = client.cluster.member_list(list).await.expect("an answer").into_inner().members[0].id;
        let peer_ur_ls = vec!["https://127.0.0.1:1".to_owned()];
        let update = pb::MemberUpdateRequest { id, peer_ur_ls: peer_ur_ls.clone() };
        let add = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
        for refused in [
            client.cluster.member_add(add).await.map(drop).unwrap_err(),
            client.cluster.member_update(update).await.map(drop).unwrap_err(),
        ] {
            assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, NO_TLS));
        }
        let peer_ur_ls = vec!["https://127.0.0.1:1".to_owned(), "http://127.0.0.1:1".to_owned()];
        let add = pb::MemberAddRequest { peer_ur_ls, is_learner: true };
        client.cluster.member_add(add).await.expect("it can be reached without TLS");
    });
}

/// One member of etcd, and a place for one of ours as a learner.
fn place_beside_etcd(arguments: &[&str]) -> (Cluster, usize) {
    let mut cluster = Cluster::start_of(&Program::etcd(), 1, arguments);
    let new = cluster.prepare(&[]);
    let peer = format!("--peer-urls=http://{}", cluster.members[new].peer);
    cluster.ctl_until(0, &["member", "add", "m2", &peer, "--learner"]);
    (cluster, new)
}

fn join(cluster: &mut Cluster, new: usize) {
    let list = cluster.initial_cluster();
    cluster.begin(new, "m2", &list, "existing");
}

#[test]
fn cluster_whose_peers_demand_tls_is_not_joined() {
    let (mut cluster, new) = place_beside_etcd(&[]);
    let id = format!("{:x}", cluster.id(0).expect("it runs"));
    let hidden = format!("--peer-urls=https://{}", cluster.members[0].peer);
    cluster.ctl_until(0, &["member", "update", &id, &hidden]);
    join(&mut cluster, new);
    cluster.expect_refusal(new, &format!("member {id} demands TLS of its peers, which this version does not have"));
}

/// What a member of etcd is asked before one of ours joins is answered over JSON.
const SILENT: &str = "--enable-grpc-gateway=false";

fn add_user(cluster: &Cluster, then: &impl AsyncFn(&mut AuthClient<Channel>)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = Client::connect(&cluster.members[0].endpoint()).await.expect("the member serves");
        let mut auth = AuthClient::new(client.channel);
        let (name, password) = ("root".to_owned(), "secret".to_owned());
        let user = pb::AuthUserAddRequest { name, password, ..Default::default() };
        auth.user_add(user).await.expect("a user");
        then(&mut auth).await;
    });
}

/// Makes a user that may do everything, and switches authentication on.
fn enable_auth(cluster: &Cluster) {
    add_user(cluster, &async |auth| {
        let (user, role) = ("root".to_owned(), "root".to_owned());
        auth.role_add(pb::AuthRoleAddRequest { name: role.clone() }).await.expect("a role");
        auth.user_grant_role(pb::AuthUserGrantRoleRequest { user, role }).await.expect("a grant");
        auth.auth_enable(pb::AuthEnableRequest {}).await.expect("authentication");
    });
}

/// No log is created then, so that the member can join when the users are gone.
#[test]
fn cluster_with_users_is_not_joined() {
    let ways: [fn(&Cluster); 2] = [|cluster| add_user(cluster, &async |_| {}), enable_auth];
    for add in ways {
        let (mut cluster, new) = place_beside_etcd(&[]);
        add(&cluster);
        join(&mut cluster, new);
        cluster.expect_refusal(new, "the cluster has authentication enabled or holds users or roles");
        assert!(!cluster.members[new].data_dir().join("member/wal").exists());
    }
}

#[test]
fn cluster_with_users_is_left_at_the_entry_that_tells() {
    let (mut cluster, new) = place_beside_etcd(&[SILENT]);
    enable_auth(&cluster);
    join(&mut cluster, new);
    cluster.expect_refusal(new, "this member cannot take part in its cluster: applying entry");
    cluster.expect_refusal(new, "which this version cannot enforce");
}

/// The sender tried for ever, and the newcomer waited for ever.
#[test]
fn cluster_with_users_is_left_at_the_snapshot_that_tells() {
    let (mut cluster, new) = place_beside_etcd(&["--snapshot-count=10", "--snapshot-catchup-entries=1", SILENT]);
    for number in 0..50 {
        cluster.ctl(0, &["put", "key", &number.to_string()]).expect("a put");
    }
    let taken = wait_for(PATIENCE, || cluster.members[0].log().contains("saved snapshot to disk").then_some(()));
    assert!(taken.is_some(), "etcd keeps its whole log");
    enable_auth(&cluster);
    join(&mut cluster, new);
    cluster.expect_refusal(new, "the state has authentication enabled or holds users or roles");
}
