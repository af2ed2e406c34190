//! The headers members put on requests to each other, and the checks made of them before anything else.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Capabilities, Local, capabilities, processes::Process};
use crate::{
    membership::{Version, check_peer_urls},
    types::MemberId,
};

const FROM: HeaderName = HeaderName::from_static("x-server-from");
const VERSION: HeaderName = HeaderName::from_static("x-server-version");
const MIN_CLUSTER_VERSION: HeaderName = HeaderName::from_static("x-min-cluster-version");
pub(super) const CLUSTER: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
const TO: HeaderName = HeaderName::from_static("x-raft-to");
const PEER_URLS: HeaderName = HeaderName::from_static("x-peerurls");
const CAPABILITIES: HeaderName = HeaderName::from_static(capabilities::HEADER);
/// The number of the process that opens a stream.
pub(super) const PROCESS: HeaderName = HeaderName::from_static("x-quorate-process");
/// Says that another process opens streams as the same member.
pub(super) const CONTESTED: HeaderName = HeaderName::from_static("x-quorate-contested");
pub(super) const YES: HeaderValue = HeaderValue::from_static("yes");
/// Says that the data of a snapshot is in our own form; etcd's needs no word.
pub(super) const SNAPSHOT_FORM: HeaderName = HeaderName::from_static("x-quorate-snapshot");
pub(super) const NATIVE: HeaderValue = HeaderValue::from_static("native");

/// The oldest cluster any version of etcd says it can join.
const OLDEST_CLUSTER: Version = Version::minor(3, 0);
/// What etcd takes a member without a version header for.
const UNNAMED: Version = Version::minor(2, 0);
/// Most URLs remembered of a sender.
const PEER_URLS_MAX: usize = 16;

/// The two reasons for refusing a request from another cluster or another age, in etcd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incompatible {
    Version,
    Cluster,
}

impl Incompatible {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Version => "incompatible version",
            Self::Cluster => "cluster ID mismatch",
        }
    }
}

/// Who sent a request, by its own words.
#[derive(Debug)]
pub(super) struct Caller {
    /// Absent or unreadable headers leave this empty.
    pub(super) from: Option<MemberId>,
    /// Well-formed URLs only.
    pub(super) peer_urls: Vec<String>,
    pub(super) introduction: Introduction,
    /// What process of ours it is, if it says.
    pub(super) process: Option<Process>,
    /// Whom the caller believes to talk to, as written.
    pub(super) to: String,
}

impl Caller {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        Self {
            from: member(text(headers, &FROM)),
            peer_urls: peer_urls(text(headers, &PEER_URLS)),
            introduction: Introduction::read(headers),
            process: u64::from_str_radix(text(headers, &PROCESS), 16).ok().map(Process),
            to: text(headers, &TO).to_owned(),
        }
    }
}

/// What a request or an answer says about its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Introduction {
    pub(super) capabilities: Capabilities,
    /// The version of etcd it reports, if that can be read.
    version: Option<Version>,
}

impl Introduction {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let capabilities = headers.get(&CAPABILITIES).and_then(|value| value.to_str().ok());
        Self {
            capabilities: capabilities.map_or_else(Default::default, Capabilities::parse),
            version: text(headers, &VERSION).parse().ok(),
        }
    }

    /// The version it reports and the release it should be updated to. What members of our own kind report is only the
    /// etcd whose place they take.
    pub(super) fn update_due(self) -> Option<(Version, Version)> {
        let version = self.version.filter(|_| !self.capabilities.quorate)?;
        Some((version, version.update_due()?))
    }
}

fn peer_urls(list: &str) -> Vec<String> {
    let urls: Vec<&str> = list.split(',').filter(|url| !url.is_empty()).take(PEER_URLS_MAX).collect();
    check_peer_urls(&urls).unwrap_or_default()
}

/// A member as it is written in paths and headers: hexadecimal, never zero.
pub(super) fn member(text: &str) -> Option<MemberId> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten().filter(|id| *id != 0).map(MemberId)
}

/// Checks version and cluster of a request, in etcd's order.
pub(super) fn check(local: &dyn Local, headers: &HeaderMap) -> Result<(), Incompatible> {
    let own = version(headers, &VERSION)?;
    let oldest = version(headers, &MIN_CLUSTER_VERSION)?;
    if own.without_patch() < OLDEST_CLUSTER || oldest.without_patch() > local.version().without_patch() {
        return Err(Incompatible::Version);
    }
    if text(headers, &CLUSTER) != local.cluster().to_string() {
        return Err(Incompatible::Cluster);
    }
    Ok(())
}

/// etcd's handler breaks down on a malformed version; here it is one that does not fit.
fn version(headers: &HeaderMap, name: &HeaderName) -> Result<Version, Incompatible> {
    match headers.get(name) {
        None => Ok(UNNAMED),
        Some(value) => value.to_str().ok().and_then(|text| text.parse().ok()).ok_or(Incompatible::Version),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The headers of every request to `/raft*`.
pub(super) fn request(local: &dyn Local) -> HeaderMap {
    let mut headers = answer(local);
    put(&mut headers, FROM, &local.member().to_string());
    put(&mut headers, MIN_CLUSTER_VERSION, &OLDEST_CLUSTER.to_string());
    put(&mut headers, PEER_URLS, &local.peer_urls().join(","));
    headers
}

/// The headers of a request that opens a stream to `peer`.
pub(super) fn stream_request(local: &dyn Local, peer: MemberId) -> HeaderMap {
    let mut headers = request(local);
    put(&mut headers, TO, &peer.to_string());
    headers
}

/// Names the process that opens a stream.
pub(super) fn name_process(headers: &mut HeaderMap, Process(number): Process) {
    put(headers, PROCESS, &format!("{number:016x}"));
}

/// The headers of every answer.
pub(super) fn answer(local: &dyn Local) -> HeaderMap {
    let mut headers = HeaderMap::new();
    put(&mut headers, VERSION, &local.version().to_string());
    put(&mut headers, CLUSTER, &local.cluster().to_string());
    put(&mut headers, CAPABILITIES, &Capabilities::OWN.to_string());
    headers
}

/// A value that cannot stand in a header is left out: only a misconfigured URL could be one.
fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::Member;

    fn checked(change: impl FnOnce(&mut HeaderMap)) -> Result<(), Incompatible> {
        let member = Member::new(1);
        let mut headers = request(&*member);
        change(&mut headers);
        check(&*member, &headers)
    }

    #[test]
    fn our_own_requests_pass() {
        assert_eq!(checked(|_| ()), Ok(()));
    }

    #[test]
    fn version_comes_before_cluster() {
        let older = |headers: &mut HeaderMap| {
            put(headers, VERSION, "2.3.8");
            put(headers, CLUSTER, "bad");
        };
        assert_eq!(checked(older), Err(Incompatible::Version));
        assert_eq!(checked(|headers| put(headers, CLUSTER, "bad")), Err(Incompatible::Cluster));
        assert_eq!(checked(|headers| drop(headers.remove(&CLUSTER))), Err(Incompatible::Cluster));
    }

    #[test]
    fn missing_and_malformed_versions_do_not_fit_and_patches_do_not_matter() {
        assert_eq!(checked(|headers| drop(headers.remove(&VERSION))), Err(Incompatible::Version));
        assert_eq!(checked(|headers| put(headers, VERSION, "3.7")), Err(Incompatible::Version));
        assert_eq!(checked(|headers| put(headers, VERSION, "9.0.0")), Ok(()));
        assert_eq!(checked(|headers| put(headers, MIN_CLUSTER_VERSION, "3.7.99")), Ok(()));
        assert_eq!(checked(|headers| put(headers, MIN_CLUSTER_VERSION, "3.8.0")), Err(Incompatible::Version));
    }

    #[test]
    fn callers_are_read_as_far_as_they_make_sense() {
        let mut headers = HeaderMap::new();
        put(&mut headers, FROM, "A8");
        put(&mut headers, PEER_URLS, "http://b:1,http://a:2");
        let caller = Caller::read(&headers);
        assert_eq!((caller.from, caller.peer_urls.len()), (Some(MemberId(0xa8)), 2));
        assert_eq!(caller.introduction, Introduction::default());
        put(&mut headers, PEER_URLS, "http://b:1/path,x");
        assert!(Caller::read(&headers).peer_urls.is_empty());
    }

    #[test]
    fn old_etcds_are_due_for_an_update_and_members_of_our_kind_never() {
        let mut headers = HeaderMap::new();
        put(&mut headers, VERSION, "3.5.1");
        let due = Introduction::read(&headers).update_due().map(|(_, to)| to.to_string());
        assert_eq!(due.as_deref(), Some("3.5.33"));
        put(&mut headers, CAPABILITIES, "digest");
        assert_eq!(Introduction::read(&headers).update_due(), None);
    }

    #[test]
    fn members_are_hexadecimal_and_nothing_else() {
        assert_eq!(member("ffffffffffffffff"), Some(MemberId(u64::MAX)));
        for text in ["", "0", "+1", "0x1", "10000000000000000", "g", " 1"] {
            assert_eq!(member(text), None, "{text}");
        }
    }
}
