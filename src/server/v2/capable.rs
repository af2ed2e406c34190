//! Who may be sent requests of the v2 API.
//!
//! A member of ours says so in a header. Members that were met once are written into the state, so that a member which
//! starts while another one is down knows whom it was.

use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;

use super::{REPORT_INTERVAL, V2Error};
use crate::{
    clock::Clock as _,
    pb::raftpb::{EntryType, Message},
    server::{Handle, State, handle::LOOK_AGAIN, shared::Shared},
    transport::Local as _,
    types::MemberId,
    v2store::{Method, Path, Request},
};

/// Members that the state says to understand requests of the v2 API. They are never forgotten: an identifier is not used
/// twice.
pub(super) type Known = BTreeSet<MemberId>;

/// Why no request of the v2 API can be proposed at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum V2Unavailable {
    /// It would not survive one.
    #[error(
        "etcdserver: the v2 API is read-only: member {0} is one of etcd, which does not survive v2 requests in the log; \
         replace it by a member of ours, or use the v3 API"
    )]
    Foreign(MemberId),
    /// It may be one that would not survive it.
    #[error(
        "etcdserver: the v2 API is read-only: member {0} has not been heard of yet, and a member of etcd does not survive v2 \
         requests in the log; start it, or remove it from the cluster"
    )]
    Unheard(MemberId),
}

/// How long a request waits for members that have not been heard of since this one was started.
const HEARING_PATIENCE: Duration = Duration::from_secs(2);
/// How a request of the v2 API begins, in an entry of ours: with its field, as no other entry does.
const FIRST_BYTE: u8 = 0x12;

/// Whether `message` has a request of the v2 API among its entries.
pub fn carries_v2(message: &Message) -> bool {
    let normal = i32::from(EntryType::EntryNormal);
    message.entries.iter().any(|entry| entry.data.first() == Some(&FIRST_BYTE) && entry.r#type == normal)
}

impl Handle {
    /// Makes sure that every member understands requests of the v2 API, and that the state says so.
    pub(super) async fn v2_make_known(&self) -> Result<(), V2Error> {
        let strangers = self.v2_strangers_heard().await?;
        for member in &strangers {
            let request = Request::new(Method::Know, &Path::root().child(member.to_string().as_bytes()), self.v2_now());
            self.propose_v2(request, None).await?;
        }
        if !strangers.is_empty() {
            self.shared.known_members().extend(strangers);
        }
        Ok(())
    }

    /// As [`Self::v2_strangers`], after members that are about to be heard of for the first time.
    async fn v2_strangers_heard(&self) -> Result<Vec<MemberId>, V2Error> {
        let mut strangers = self.v2_strangers();
        let begun = self.shared.clock.monotonic();
        while matches!(strangers, Err(V2Error::Unavailable(V2Unavailable::Unheard(_))))
            && self.shared.clock.monotonic() < begun + HEARING_PATIENCE
        {
            tokio::time::sleep(LOOK_AGAIN).await;
            strangers = self.v2_strangers();
        }
        strangers
    }

    /// Members that the state does not know yet.
    fn v2_strangers(&self) -> Result<Vec<MemberId>, V2Error> {
        let (shared, state) = (&*self.shared, self.published());
        let mut strangers = Vec::new();
        for member in state.cluster.members().map(|member| member.id).filter(|_| state.cluster.members().len() > 1) {
            let known = shared.is_known(&state, member)?;
            match shared.capabilities(member) {
                _ if member == shared.identity.member => {}
                Some(can) if !can.v2 => return Err(V2Unavailable::Foreign(member).into()),
                None if !known => return Err(V2Unavailable::Unheard(member).into()),
                _ => {}
            }
            if !known {
                strangers.push(member);
            }
        }
        Ok(strangers)
    }
}

impl Shared {
    fn known_members(&self) -> MutexGuard<'_, Known> {
        self.v2.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_known(&self, state: &State, member: MemberId) -> Result<bool, V2Error> {
        if self.known_members().contains(&member) {
            return Ok(true);
        }
        let known = state.v2().knows(member).map_err(super::ServerError::from)?;
        if known {
            self.known_members().insert(member);
        }
        Ok(known)
    }

    /// Whether `message` may go to the member it is for.
    pub(in crate::server) fn may_send(&self, message: &Message) -> bool {
        !carries_v2(message) || self.capabilities(MemberId(message.to)).is_some_and(|can| can.v2)
    }

    /// A message to `peer` is not sent, because it carries what the peer may not survive. Raft will try again.
    pub(in crate::server) fn keep_back(&self, peer: MemberId) {
        self.unreachable(peer);
        if !self.is_foreign(peer) {
            return;
        }
        let now = self.clock.monotonic();
        let mut told = self.v2.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|before| now < before + REPORT_INTERVAL) {
            return;
        }
        *told = Some(now);
        tracing::error!(
            %peer,
            "a member of etcd is sent nothing: the log has requests of the v2 API, which it would not survive; remove it from \
             the cluster, or delete all keys of the v2 API and let it join when the log has been compacted"
        );
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::pb::{etcdserverpb as pb, raftpb::Entry};

    fn carries(request: &pb::InternalRaftRequest) -> bool {
        let entry = Entry { data: request.encode_to_vec().into(), ..Entry::default() };
        carries_v2(&Message { entries: vec![Entry::default(), entry], ..Message::default() })
    }

    #[test]
    fn v2_requests_are_told_from_all_others_by_their_first_byte() {
        let header = Some(pb::RequestHeader { id: 7, ..Default::default() });
        let v2 = Request { id: 7, ..Request::new(Method::Put, &Path::root(), 1) }.encode_to_vec().into();
        assert!(carries(&pb::InternalRaftRequest { v2, header: header.clone(), ..Default::default() }));
        let put = Some(pb::PutRequest { key: "k".into(), ..Default::default() });
        assert!(!carries(&pb::InternalRaftRequest { put, header: header.clone(), ..Default::default() }));
        assert!(!carries(&pb::InternalRaftRequest { header, ..Default::default() }));
    }
}
