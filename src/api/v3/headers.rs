//! The header every answer carries.

use crate::{api::Api, pb::etcdserverpb::ResponseHeader};

impl Api {
    /// A header at `revision`; zero leaves the revision out.
    pub(super) fn header(&self, revision: i64) -> ResponseHeader {
        let identity = self.identity();
        ResponseHeader {
            cluster_id: identity.cluster.0,
            member_id: identity.member.0,
            revision,
            raft_term: self.server().published().term.0,
        }
    }

    /// A header at the store's current revision.
    pub(super) fn header_now(&self) -> ResponseHeader {
        self.header(self.server().published().view.revision())
    }

    /// Completes a header of which only the revision is known: who answered, and in which term.
    pub(super) fn complete(&self, header: &mut Option<ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = Some(self.header(revision));
    }
}
