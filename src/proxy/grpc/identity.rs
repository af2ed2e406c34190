//! Which cluster is behind the proxy, and how far it was seen to be.
//!
//! A cluster may be founded anew, or restored from a backup, behind a running proxy: then revisions that were remembered mean
//! something else, and so do answers that were kept. Its number changes with the cluster, or a revision falls behind one that
//! was told before, where that cannot be.
//!
//! Invariant: what was remembered in one era is used in no other; an era ends before the answer that ended it is passed on.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::{
    Message as _,
    encoding::{WireType, decode_key, decode_varint},
};
use tokio::sync::watch;

use crate::{api::status::Status, pb::etcdserverpb::ResponseHeader, types::Code};

/// The field of the header, the first one of every answer that has one.
const HEADER_TAG: u32 = 1;

/// The cluster as it was seen last.
#[derive(Debug)]
pub(super) struct Identity {
    known: Mutex<Known>,
    /// How many clusters there were before this one.
    era: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    /// Zero before the first answer.
    cluster_id: u64,
    /// The newest revision that was told.
    revision: i64,
}

/// What was known when a question was put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    era: u64,
    revision: i64,
}

impl Default for Identity {
    fn default() -> Self {
        Self { known: Mutex::default(), era: watch::Sender::new(0) }
    }
}

impl Identity {
    /// The era that runs.
    pub(super) fn era(&self) -> u64 {
        *self.era.borrow()
    }

    /// Tells when an era ends.
    pub(super) fn eras(&self) -> watch::Receiver<u64> {
        self.era.subscribe()
    }

    /// To be asked before a question is put.
    pub(super) fn mark(&self) -> Mark {
        let known = self.lock();
        Mark { era: self.era(), revision: known.revision }
    }

    /// Somebody answered, from whenever.
    pub(super) fn see(&self, header: &ResponseHeader) {
        // Proxies of etcd make up answers that nobody stands behind.
        if header.cluster_id == 0 {
            return;
        }
        let mut known = self.lock();
        if known.cluster_id == header.cluster_id {
            known.revision = known.revision.max(header.revision);
            return;
        }
        if known.cluster_id != 0 {
            tracing::warn!(
                before = format!("{:x}", known.cluster_id),
                now = format!("{:x}", header.cluster_id),
                "another cluster answers: what was kept is given up, and watches of clients end"
            );
            self.end_era();
        }
        *known = Known { cluster_id: header.cluster_id, revision: header.revision };
    }

    /// Somebody answered a question, put at `since`, whose answer may not be stale.
    pub(super) fn see_present(&self, header: &ResponseHeader, since: Mark) {
        self.see(header);
        let mut known = self.lock();
        if since.era != self.era() || known.cluster_id != header.cluster_id || header.revision >= since.revision {
            return;
        }
        tracing::warn!(
            before = since.revision,
            now = header.revision,
            "the cluster is back at an older revision: what was kept is given up, and watches of clients end"
        );
        known.revision = header.revision;
        self.end_era();
    }

    /// Called under the lock, so that a mark belongs to its era.
    fn end_era(&self) {
        self.era.send_modify(|era| *era += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mark {
    /// Whether `header` is from before this was known: of a member that lags, or of a cluster that went back.
    pub(super) fn is_ahead_of(&self, header: &ResponseHeader) -> bool {
        header.cluster_id != 0 && header.revision < self.revision
    }
}

/// What streams end with that were opened in an era that is over. Clients of etcd open them again.
pub(super) fn other_cluster() -> Status {
    Status::new(
        Code::Unavailable,
        "quorate: the cluster behind this proxy was founded or restored anew, revisions of the one before mean nothing in it: \
         read again, and watch from there",
    )
}

/// The header of an encoded answer, if it has one.
pub(super) fn header_of(answer: &Bytes) -> Option<ResponseHeader> {
    let mut rest = &answer[..];
    let (HEADER_TAG, WireType::LengthDelimited) = decode_key(&mut rest).ok()? else { return None };
    let bytes = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
    ResponseHeader::decode(rest.get(..bytes)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::{PutResponse, RangeResponse};

    fn header(cluster_id: u64, revision: i64) -> ResponseHeader {
        ResponseHeader { cluster_id, revision, ..ResponseHeader::default() }
    }

    #[test]
    fn another_cluster_begins_an_era() {
        let identity = Identity::default();
        let mut eras = identity.eras();
        identity.see(&header(7, 10));
        identity.see(&header(0, 1_000));
        identity.see(&header(7, 4));
        assert_eq!((identity.era(), identity.mark().revision), (0, 10));
        assert!(!eras.has_changed().unwrap());
        identity.see(&header(8, 3));
        assert_eq!((identity.era(), identity.mark().revision), (1, 3));
        assert!(eras.has_changed().unwrap());
        assert_eq!(*eras.borrow_and_update(), 1);
    }

    #[test]
    fn a_present_before_what_was_known_begins_an_era_once() {
        let identity = Identity::default();
        identity.see(&header(7, 10));
        let (one, other) = (identity.mark(), identity.mark());
        assert!(one.is_ahead_of(&header(7, 9)) && !one.is_ahead_of(&header(7, 10)) && !one.is_ahead_of(&header(0, 1)));
        identity.see_present(&header(7, 10), one);
        identity.see(&header(7, 12));
        identity.see_present(&header(7, 11), one);
        assert_eq!(identity.era(), 0, "what was told while the question was under way says nothing");
        identity.see_present(&header(7, 2), one);
        identity.see_present(&header(7, 3), other);
        assert_eq!((identity.era(), identity.mark().revision), (1, 3));
    }

    #[test]
    fn headers_are_found_in_answers_of_every_kind() {
        let range = RangeResponse { header: Some(header(7, 9)), count: 3, ..RangeResponse::default() };
        assert_eq!(header_of(&range.encode_to_vec().into()), Some(header(7, 9)));
        let put = PutResponse { header: Some(header(7, 9)), ..PutResponse::default() };
        assert_eq!(header_of(&put.encode_to_vec().into()), Some(header(7, 9)));
        for other in [&b""[..], b"\x08\x01", b"\x0a", b"\x0a\x05\x08", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"]
        {
            assert_eq!(header_of(&Bytes::copy_from_slice(other)), None, "{other:?}");
        }
    }
}
