//! The member list that clients see, and this proxy's place in it.
//!
//! A proxy that advertises an address shows clients proxies instead of members, so that a client which follows the list stays
//! with them: those that are registered under the resolver prefix, or itself alone. The registration is a key that lives as
//! long as its lease.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    kv::RANGE,
    lease::Leases,
    upstream::{Outgoing, Upstream},
};
use crate::{
    api::{decode, status::Status},
    pb::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, Member, MemberListResponse, PutRequest,
        RangeRequest, RangeResponse,
    },
    proxy::endpoints::Endpoint,
};

pub(super) const MEMBER_LIST: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.Cluster/MemberList");
const PUT: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.KV/Put");
const GRANT: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseGrant");
/// How long a look at the registrations, or one step of a registration, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before registering again: at most once a second, as etcd's proxy.
const REGISTER_PAUSE: Duration = Duration::from_secs(1);
/// Renewals in the time the lease of a registration lives without one.
const RENEWALS_PER_TTL: u32 = 3;

/// What is known of this proxy among others.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    /// The address clients reach it at; empty if it has none to tell.
    pub(super) advertised: String,
    /// The prefix of the registrations; empty for none.
    pub(super) prefix: String,
    /// How long a registration outlives its proxy.
    pub(super) ttl: Duration,
    /// This host's name.
    pub(super) host: String,
    /// What stands in front of every key of the proxy's clients, and of the registrations.
    pub(super) namespace: String,
}

/// The value of a registration, as etcd's clients write and read it.
#[derive(Serialize, Deserialize)]
struct Update {
    #[serde(rename = "Op", default)]
    operation: u8,
    #[serde(rename = "Addr", default)]
    address: String,
    #[serde(rename = "Metadata", default)]
    metadata: serde_json::Value,
}

/// The text within a registration that names its host.
#[derive(Default, Serialize, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
}

impl Registration {
    fn is_asked_for(&self) -> bool {
        !self.prefix.is_empty() && !self.advertised.is_empty()
    }

    fn key(&self) -> Bytes {
        format!("{}{}/{}", self.namespace, self.prefix, self.advertised).into()
    }

    fn value(&self) -> Result<Bytes, serde_json::Error> {
        let metadata = serde_json::to_string(&Metadata { name: self.host.clone() })?;
        let update = Update { operation: 0, address: self.advertised.clone(), metadata: metadata.into() };
        serde_json::to_vec(&update).map(Bytes::from)
    }

    /// This proxy as a member.
    fn myself(&self) -> Member {
        Member { name: self.host.clone(), client_ur_ls: vec![self.advertised.clone()], ..Member::default() }
    }

    /// The member list, as far as it is for this proxy to say; `None` where the cluster is to be asked.
    ///
    /// # Errors
    /// What the cluster says when it is asked for the registrations.
    pub(super) async fn members(&self, upstream: &Upstream, call: &Outgoing) -> Result<Option<Bytes>, Status> {
        if self.advertised.is_empty() {
            return Ok(None);
        }
        let mut members = if self.prefix.is_empty() { Vec::new() } else { self.registered(upstream, call).await? };
        if members.is_empty() {
            members.push(self.myself());
        }
        Ok(Some(MemberListResponse { header: None, members }.encode_to_vec().into()))
    }

    async fn registered(&self, upstream: &Upstream, call: &Outgoing) -> Result<Vec<Member>, Status> {
        let key = format!("{}{}/", self.namespace, self.prefix);
        // A slash ends the prefix; the next byte ends everything that begins with it.
        let range_end = format!("{}{}0", self.namespace, self.prefix);
        let request =
            RangeRequest { key: key.into(), range_end: range_end.into(), serializable: true, ..Default::default() };
        let answer = upstream.unary(&RANGE, call, request.encode_to_vec().into(), true).await?;
        let answer: RangeResponse = decode(answer)?;
        Ok(answer.kvs.iter().filter_map(|kv| registered(&kv.value)).collect())
    }

    /// Keeps this proxy registered until `stop` is cancelled; then takes the registration back.
    pub(super) async fn keep(&self, upstream: &Upstream, leases: &Leases, stop: CancellationToken) {
        if !self.is_asked_for() {
            return stop.cancelled().await;
        }
        while !stop.is_cancelled() {
            match self.live(upstream, leases, &stop).await {
                Ok(()) if stop.is_cancelled() => return,
                Ok(()) => tracing::warn!("session expired; possible network partition or server restart"),
                Err(status) => {
                    tracing::warn!(code = ?status.code(), message = status.message(), "failed to register this proxy");
                }
            }
            tokio::select! {
                () = sleep(REGISTER_PAUSE) => tracing::warn!("creating a new session to rejoin"),
                () = stop.cancelled() => {}
            }
        }
    }

    /// One registration, as long as its lease lives.
    async fn live(&self, upstream: &Upstream, leases: &Leases, stop: &CancellationToken) -> Result<(), Status> {
        let ttl = i64::try_from(self.ttl.as_secs()).unwrap_or(i64::MAX);
        let grant = LeaseGrantRequest { ttl, id: 0 };
        let call = Outgoing::within(PATIENCE);
        let granted: LeaseGrantResponse =
            decode(upstream.unary(&GRANT, &call, grant.encode_to_vec().into(), true).await?)?;
        let value = self.value().map_err(|error| Status::unknown(error.to_string()))?;
        let put = PutRequest { key: self.key(), value, lease: granted.id, ..PutRequest::default() };
        upstream.unary(&PUT, &Outgoing::within(PATIENCE), put.encode_to_vec().into(), true).await?;
        tracing::info!(prefix = self.prefix, addr = self.advertised, "registered this proxy");
        let mut lost = Instant::now() + self.ttl;
        loop {
            tokio::select! {
                () = sleep(self.ttl / RENEWALS_PER_TTL) => {}
                () = stop.cancelled() => {
                    let revoke = LeaseRevokeRequest { id: granted.id };
                    // Where the cluster does not answer, the lease runs out by itself.
                    drop(leases.revoke(&Outgoing::within(REGISTER_PAUSE), revoke.encode_to_vec().into()).await);
                    return Ok(());
                }
            }
            match leases.renew(granted.id).await {
                Ok(answer) if answer.ttl <= 0 => return Ok(()),
                Ok(_) => lost = Instant::now() + self.ttl,
                Err(_) if Instant::now() < lost => {}
                Err(_) => return Ok(()),
            }
        }
    }
}

/// The proxy in the value of a registration; one that cannot be read is none.
fn registered(value: &[u8]) -> Option<Member> {
    let update: Update = serde_json::from_slice(value).ok()?;
    let metadata = update.metadata.as_str().and_then(|text| serde_json::from_str::<Metadata>(text).ok());
    let name = metadata.unwrap_or_default().name;
    Some(Member { name, client_ur_ls: vec![update.address], ..Member::default() })
}

/// The addresses of a cluster's members, for a proxy that follows them.
///
/// # Errors
/// What the cluster says.
pub(super) async fn client_urls(upstream: &Upstream) -> Result<Vec<Endpoint>, Status> {
    let answer = upstream.unary(&MEMBER_LIST, &Outgoing::within(PATIENCE), Bytes::new(), true).await?;
    let answer: MemberListResponse = decode(answer)?;
    let serving = answer.members.into_iter().filter(|member| !member.is_learner);
    Ok(serving.flat_map(|member| member.client_ur_ls).map(Endpoint::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(namespace: &str) -> Registration {
        Registration {
            advertised: "127.0.0.1:23790".to_owned(),
            prefix: "___grpc_proxy_endpoint".to_owned(),
            ttl: Duration::from_mins(1),
            host: "host".to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    #[test]
    fn a_registration_is_written_as_etcd_writes_it() {
        let value = registration("").value().unwrap();
        let etcds = r#"{"Op":0,"Addr":"127.0.0.1:23790","Metadata":"{\"name\":\"host\"}"}"#;
        assert_eq!(std::str::from_utf8(&value).unwrap(), etcds);
        assert_eq!(registered(&value), Some(registration("").myself()));
        assert_eq!(registration("p/").key(), "p/___grpc_proxy_endpoint/127.0.0.1:23790");
    }

    #[test]
    fn what_is_no_registration_is_passed_over() {
        assert_eq!(registered(b"{"), None);
        let plain = registered(br#"{"Op":0,"Addr":"a:1","Metadata":null}"#).unwrap();
        assert_eq!((plain.name.as_str(), plain.client_ur_ls), ("", vec!["a:1".to_owned()]));
    }
}
