//! What a member without data asks of its peers before it becomes one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

use futures_util::future::join_all;
use thiserror::Error;
use tokio::time::Instant;

use crate::{
    membership::{
        Member, Version,
        joining::{self, Mismatch},
    },
    tls::Dialler,
    transport::ask::{self, AskError, Members, Target},
    types::{ClusterId, MemberId},
};

use super::{
    Identity,
    recovery::{Bootstrap, Joining},
};

/// Time a peer has to tell a founder about itself (etcd's).
const FOUNDING_PATIENCE: Duration = Duration::from_secs(1);
/// Time a peer has to tell a newcomer about its cluster (etcd's).
const JOINING_PATIENCE: Duration = Duration::from_secs(10);
/// No cluster older than this can be joined.
const VERSION_MIN: Version = Version::minor(3, 0);

/// Why a member cannot begin. The first sentence is etcd's.
#[derive(Debug, Error)]
pub enum JoinError {
    /// The member was there before, and its data is gone.
    #[error(
        "member {0} has already been bootstrapped: its data directory is gone or was replaced; restore it, or remove the member from the cluster, add it again and start it with --initial-cluster-state=existing"
    )]
    AlreadyBootstrapped(MemberId),
    /// The peers belong to another cluster.
    #[error(
        "cluster ID mismatch: {url} belongs to cluster {theirs}, and --initial-cluster and --initial-cluster-token make {own}: give all members the same list and token, or use --initial-cluster-state=existing to join a cluster that exists"
    )]
    OtherCluster {
        /// Who says so.
        url: String,
        /// Its cluster.
        theirs: ClusterId,
        /// The cluster that would be founded.
        own: ClusterId,
    },
    /// Nobody of the cluster answers.
    #[error(
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given urls: {0}; start this member when a member listed in --initial-cluster is reachable"
    )]
    NoAnswer(String),
    /// A cluster without members.
    #[error(
        "cannot fetch cluster info from peer urls: failed to get raft cluster member(s) from the given urls: {0} names no member"
    )]
    NoMembers(String),
    /// The lists differ.
    #[error(
        "error validating peerURLs {cluster}: {mismatch}: {}", mismatch.remedy()
    )]
    Mismatch {
        /// The cluster, in etcd's form.
        cluster: String,
        /// What differs.
        mismatch: Mismatch,
    },
    /// The versions do not go together.
    #[error(
        "incompatible with current running cluster: {0}; start a member whose version is at least that of the cluster"
    )]
    Incompatible(String),
}

/// Refuses to found a cluster in which this member was before, or another than its peers have founded. Peers that do
/// not answer are about to be founded themselves.
///
/// # Errors
/// [`JoinError::AlreadyBootstrapped`], [`JoinError::OtherCluster`].
pub async fn check_not_bootstrapped(dialler: &Dialler, bootstrap: &Bootstrap, name: &str) -> Result<(), JoinError> {
    // What is wrong with the list itself is told when the member is founded.
    let Ok((_, Identity { member, cluster })) = bootstrap.founder(name) else { return Ok(()) };
    let urls = others(&bootstrap.initial_cluster, bootstrap.listed(name));
    let ask = |url: String| async move {
        let answer = ask::members(Target { url: &url, dialler, patience: FOUNDING_PATIENCE }).await;
        answer.ok().map(|answer| (url, answer))
    };
    for (url, answer) in join_all(urls.into_iter().map(ask)).await.into_iter().flatten() {
        let Members { cluster: theirs, members } = answer;
        if theirs != cluster {
            return Err(JoinError::OtherCluster { url, theirs, own: cluster });
        }
        if members.iter().any(|one| one.id == member && !one.attributes.client_urls.is_empty()) {
            return Err(JoinError::AlreadyBootstrapped(member));
        }
    }
    Ok(())
}

/// Finds the place that the cluster of `listed` has for the member `name`, which reports `version`. Peer URLs that want TLS
/// are asked by `dialler`.
///
/// # Errors
/// [`JoinError`].
pub async fn find_cluster(
    dialler: &Dialler,
    listed: &BTreeMap<String, Vec<String>>,
    name: &str,
    version: Version,
) -> Result<Joining, JoinError> {
    let (url, Members { cluster, members }) = first_answer(dialler, others(listed, name)).await?;
    if members.is_empty() {
        return Err(JoinError::NoMembers(url));
    }
    let mismatch = |mismatch| JoinError::Mismatch { cluster: joining::printed(cluster, &members), mismatch };
    let member = joining::own_id(&members, listed, name, same_places).map_err(mismatch)?;
    check_versions(dialler, &members, member, version).await?;
    Ok(Joining { identity: Identity { member, cluster }, members })
}

/// The peer URLs of everybody else on the list, sorted.
fn others(listed: &BTreeMap<String, Vec<String>>, name: &str) -> BTreeSet<String> {
    listed.iter().filter(|(other, _)| *other != name).flat_map(|(_, urls)| urls.clone()).collect()
}

async fn first_answer(dialler: &Dialler, urls: BTreeSet<String>) -> Result<(String, Members), JoinError> {
    let mut failures = Vec::new();
    for url in urls {
        match ask::members(Target { url: &url, dialler, patience: JOINING_PATIENCE }).await {
            Ok(answer) => return Ok((url, answer)),
            Err(why) => failures.push(with_cause(&why)),
        }
    }
    Err(JoinError::NoAnswer(if failures.is_empty() { "nobody else is listed".to_owned() } else { failures.join(", ") }))
}

pub(super) fn with_cause(error: &AskError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Somebody has to know a cluster version, and none may be one that this member does not speak.
async fn check_versions(
    dialler: &Dialler,
    members: &[Member],
    own: MemberId,
    version: Version,
) -> Result<(), JoinError> {
    let urls = members.iter().filter(|member| member.id != own).flat_map(|member| &member.peer_urls);
    let mut known = false;
    for answer in join_all(urls.map(|url| cluster_version(dialler, url, version))).await.into_iter().flatten() {
        let (cluster, downgrading) = answer;
        check_version(cluster, version, downgrading).map_err(JoinError::Incompatible)?;
        known = true;
    }
    if known { Ok(()) } else { Err(JoinError::Incompatible("no member of it tells a cluster version".to_owned())) }
}

/// The version of the cluster and whether it is being downgraded, as the member at `url` has it. Both have to be told in
/// [`JOINING_PATIENCE`].
///
/// The second is asked only where it can make a difference: it takes a quorum to answer, which a cluster of one that adds
/// its second member has only with that one.
async fn cluster_version(dialler: &Dialler, url: &str, own: Version) -> Option<(Version, bool)> {
    let begun = Instant::now();
    let cluster = ask::version(Target { url, dialler, patience: JOINING_PATIENCE }).await.ok()?.cluster?;
    if check_version(cluster, own, false) == check_version(cluster, own, true) {
        return Some((cluster, false));
    }
    let patience = JOINING_PATIENCE.saturating_sub(begun.elapsed());
    Some((cluster, ask::downgrade_enabled(Target { url, dialler, patience }).await.unwrap_or(false)))
}

/// While a downgrade is going on, a newcomer is to be one minor version below the cluster.
fn check_version(cluster: Version, own: Version, downgrading: bool) -> Result<(), String> {
    let (lowest, own) = (VERSION_MIN, own.without_patch());
    let highest = if downgrading { Version::minor(own.major, own.minor + 1) } else { own };
    if cluster < lowest {
        return Err(format!(
            "the running cluster version({cluster}) is lower than the minimal cluster version({lowest}) supported"
        ));
    }
    if cluster > highest {
        return Err(format!(
            "the running cluster version({cluster}) is higher than the maximum cluster version({highest}) supported"
        ));
    }
    Ok(())
}

/// Whether two sets of URLs lead to the same places: literally, or once their hosts are looked up.
fn same_places(left: &[String], right: &[String]) -> bool {
    let sorted = |urls: &[String]| -> BTreeSet<String> { urls.iter().cloned().collect() };
    let resolved = |urls: &[String]| urls.iter().map(|url| resolve(url)).collect::<Option<BTreeSet<_>>>();
    sorted(left) == sorted(right) || resolved(left).is_some_and(|left| resolved(right) == Some(left))
}

fn resolve(url: &str) -> Option<SocketAddr> {
    let (_, authority) = url.split_once("://")?;
    authority.to_socket_addrs().ok()?.min()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, BufRead as _, Write as _},
        net::TcpListener,
        sync::mpsc,
    };

    use super::*;

    #[test]
    fn names_and_addresses_lead_to_the_same_places() {
        let urls = |urls: &[&str]| -> Vec<String> { urls.iter().map(ToString::to_string).collect() };
        assert!(same_places(&urls(&["http://a:1", "http://b:1"]), &urls(&["http://b:1", "http://a:1"])));
        assert!(!same_places(&urls(&["http://127.0.0.1:1"]), &urls(&["http://127.0.0.1:2"])));
        assert!(!same_places(&urls(&["unix://a"]), &urls(&["unix://b"])));
    }

    /// A cluster of one that has added its second member, as a server that answers what needs no quorum; what it was asked.
    fn without_quorum() -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let member = |id, name, urls: &str| format!(r#"{{"id":{id},"peerURLs":["{urls}"],"name":"{name}"}}"#);
        let first = member(1, "m1", &url).replace('}', &format!(r#","clientURLs":["{url}"]}}"#));
        let members = format!("[{first},{}]", member(2, "", "http://127.0.0.1:1"));
        let (asked, heard) = mpsc::sync_channel(16);
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = io::BufReader::new(stream.try_clone().unwrap()).lines();
                let path = lines.next().unwrap().unwrap().split(' ').nth(1).unwrap().to_owned();
                let body = match path.as_str() {
                    "/members" => members.as_str(),
                    "/version" => r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0"}"#,
                    _ => "",
                };
                // What needs a quorum is not answered.
                if !body.is_empty() {
                    let preface = format!("HTTP/1.1 200 OK\r\nX-Etcd-Cluster-ID: c1\r\nContent-Length: {}", body.len());
                    write!(stream, "{preface}\r\n\r\n{body}").unwrap();
                }
                held.push(stream);
                if asked.send(path).is_err() {
                    break;
                }
            }
        });
        (url, heard)
    }

    /// It asked whether there was a downgrade, which made no difference, and waited ten seconds for what only its own start
    /// could bring about.
    #[tokio::test]
    async fn second_member_does_not_wait_long_for_a_quorum_that_needs_it() {
        let (url, heard) = without_quorum();
        let listed = [("m1", url.as_str()), ("m2", "http://127.0.0.1:1")];
        let listed = listed.map(|(name, url)| (name.to_owned(), vec![url.to_owned()])).into();
        let begun = Instant::now();
        let found =
            find_cluster(&Dialler::default(), &listed, "m2", Version { major: 3, minor: 7, patch: 1 }).await.unwrap();
        assert_eq!(found.identity, Identity { member: MemberId(2), cluster: ClusterId(0xc1) });
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let mut asked: Vec<_> = heard.try_iter().collect();
        asked.sort();
        assert_eq!(asked, ["/members", "/version"]);
    }

    #[test]
    fn newcomer_speaks_the_version_of_its_cluster() {
        let own = Version { major: 3, minor: 6, patch: 14 };
        assert_eq!(check_version(Version::minor(3, 6), own, false), Ok(()));
        assert_eq!(check_version(Version::minor(3, 5), own, false), Ok(()));
        assert!(check_version(Version::minor(3, 7), own, false).unwrap_err().contains("is higher than the maximum"));
        assert_eq!(check_version(Version::minor(3, 7), own, true), Ok(()));
        assert!(check_version(Version::minor(2, 3), own, false).unwrap_err().contains("is lower than the minimal"));
    }
}
