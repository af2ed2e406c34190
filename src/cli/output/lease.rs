//! Leases.
//!
//! In protobuf form etcd's client shows only the header of these answers; a revoked lease has no such form at all.

use prost::Message;

use super::{Page, Shown, json, json::Object};
use crate::{
    pb::etcdserverpb::{
        LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse, LeaseRevokeResponse, LeaseTimeToLiveResponse,
        ResponseHeader,
    },
    types::LeaseId,
};

/// A lease was granted.
pub(in crate::cli) struct Granted(pub(in crate::cli) LeaseGrantResponse);

impl Shown for Granted {
    fn simple(&self, page: &mut Page) {
        page.line(format_args!("lease {:016x} granted with TTL({}s)", self.0.id, self.0.ttl));
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.0.header.as_ref());
        page.lease_field("ID", self.0.id);
        page.field("TTL", self.0.ttl);
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            inline_header(object, self.0.header.as_ref());
            object.plain("ID", self.0.id);
            object.plain("TTL", self.0.ttl);
            object.text("Error", &self.0.error);
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        encoded_header(self.0.header.as_ref())
    }
}

/// A lease was renewed.
pub(in crate::cli) struct Kept(pub(in crate::cli) LeaseKeepAliveResponse);

impl Shown for Kept {
    fn simple(&self, page: &mut Page) {
        page.line(format_args!("lease {:016x} keepalived with TTL({})", self.0.id, self.0.ttl));
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.0.header.as_ref());
        page.lease_field("ID", self.0.id);
        page.field("TTL", self.0.ttl);
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            inline_header(object, self.0.header.as_ref());
            object.plain("ID", self.0.id);
            object.plain("TTL", self.0.ttl);
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        encoded_header(self.0.header.as_ref())
    }
}

/// How long a lease still has.
pub(in crate::cli) struct Remaining {
    pub(in crate::cli) response: LeaseTimeToLiveResponse,
    /// Whether its keys were asked for.
    pub(in crate::cli) keys: bool,
}

impl Remaining {
    fn keys_text(&self) -> String {
        let keys: Vec<_> = self.response.keys.iter().map(|key| String::from_utf8_lossy(key)).collect();
        if self.keys { format!(", attached keys([{}])", keys.join(" ")) } else { String::new() }
    }
}

impl Shown for Remaining {
    fn simple(&self, page: &mut Page) {
        let LeaseTimeToLiveResponse { id, ttl, granted_ttl, .. } = self.response;
        if granted_ttl == 0 && ttl == -1 {
            page.line(format_args!("lease {id:016x} already expired"));
        } else {
            let keys = self.keys_text();
            page.line(format_args!("lease {id:016x} granted with TTL({granted_ttl}s), remaining({ttl}s){keys}"));
        }
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.response.header.as_ref());
        page.lease_field("ID", self.response.id);
        page.field("TTL", self.response.ttl);
        page.field("GrantedTTL", self.response.granted_ttl);
        self.response.keys.iter().for_each(|key| page.quoted_field("Key", key));
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            inline_header(object, self.response.header.as_ref());
            object.plain("id", self.response.id);
            object.plain("ttl", self.response.ttl);
            object.plain("granted-ttl", self.response.granted_ttl);
            let keys = object.member("keys");
            if self.response.keys.is_empty() {
                keys.text(format_args!("null"));
            } else {
                keys.array(&self.response.keys, |page, key| page.text(format_args!("{}", json::bytes(key))));
            }
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        encoded_header(self.response.header.as_ref())
    }
}

/// All leases.
pub(in crate::cli) struct Listed(pub(in crate::cli) LeaseLeasesResponse);

impl Shown for Listed {
    fn simple(&self, page: &mut Page) {
        page.line(format_args!("found {} leases", self.0.leases.len()));
        self.0.leases.iter().for_each(|lease| page.line(format_args!("{:016x}", lease.id)));
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.0.header.as_ref());
        self.0.leases.iter().for_each(|lease| page.lease_field("ID", lease.id));
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            inline_header(object, self.0.header.as_ref());
            object.member("leases").array(&self.0.leases, |page, lease| {
                page.object(|object| object.plain("id", lease.id));
            });
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        encoded_header(self.0.header.as_ref())
    }
}

/// A lease was revoked.
pub(in crate::cli) struct Revoked {
    pub(in crate::cli) lease: LeaseId,
    pub(in crate::cli) response: LeaseRevokeResponse,
}

impl Shown for Revoked {
    fn simple(&self, page: &mut Page) {
        page.line(format_args!("lease {:016x} revoked", self.lease.0));
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.response.header.as_ref());
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| object.header(self.response.header.as_ref()));
    }
}

/// The client's lease structs carry the members of the header among their own.
fn inline_header(object: &mut Object, header: Option<&ResponseHeader>) {
    object.header_members(&header.copied().unwrap_or_default());
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of the method it serves")]
fn encoded_header(header: Option<&ResponseHeader>) -> Option<Vec<u8>> {
    Some(header.copied().unwrap_or_default().encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::output::{
            Format,
            tests::{printed, refused},
        },
        pb::etcdserverpb::LeaseStatus,
    };

    fn header() -> ResponseHeader {
        ResponseHeader { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 }
    }

    fn remaining(keys: &[&'static str], ttl: i64, granted_ttl: i64) -> Remaining {
        let keys = keys.iter().map(|key| (*key).into()).collect();
        Remaining {
            response: LeaseTimeToLiveResponse { header: Some(header()), id: 291, ttl, granted_ttl, keys },
            keys: true,
        }
    }

    #[test]
    fn a_grant_in_all_forms() {
        let granted = Granted(LeaseGrantResponse { header: Some(header()), id: 0x1f, ttl: 10, error: String::new() });
        assert_eq!(printed(Format::Simple, false, &granted), "lease 000000000000001f granted with TTL(10s)\n");
        let json = r#"{"cluster_id":1,"member_id":2,"revision":3,"raft_term":4,"ID":31,"TTL":10,"Error":""}"#;
        assert_eq!(printed(Format::Json, true, &granted), format!("{json}\n"));
        assert!(printed(Format::Fields, true, &granted).ends_with("\"ID\" : 000000000000001f\n\"TTL\" : 10\n"));
        assert_eq!(granted.protobuf(), Some(header().encode_to_vec()));
    }

    #[test]
    fn the_time_left_names_keys_only_when_asked() {
        let line = "lease 0000000000000123 granted with TTL(60s), remaining(59s), attached keys([a b])\n";
        assert_eq!(printed(Format::Simple, false, &remaining(&["a", "b"], 59, 60)), line);
        assert_eq!(printed(Format::Simple, false, &remaining(&[], -1, 0)), "lease 0000000000000123 already expired\n");
        let json = r#""id":291,"ttl":-1,"granted-ttl":0,"keys":null}"#;
        assert!(printed(Format::Json, false, &remaining(&[], -1, 0)).ends_with(&format!("{json}\n")));
        assert!(printed(Format::Json, false, &remaining(&["a"], 1, 2)).ends_with("\"keys\":[\"YQ==\"]}\n"));
    }

    #[test]
    fn lists_of_leases_may_be_empty() {
        let listed = |ids: &[i64]| {
            let leases = ids.iter().map(|id| LeaseStatus { id: *id }).collect();
            Listed(LeaseLeasesResponse { header: Some(header()), leases })
        };
        assert_eq!(printed(Format::Simple, false, &listed(&[1])), "found 1 leases\n0000000000000001\n");
        assert!(printed(Format::Json, false, &listed(&[])).ends_with("\"leases\":[]}\n"));
    }

    #[test]
    fn a_revoked_lease_has_no_message() {
        let revoked = Revoked { lease: LeaseId(1), response: LeaseRevokeResponse { header: Some(header()) } };
        assert_eq!(printed(Format::Simple, false, &revoked), "lease 0000000000000001 revoked\n");
        let failure = refused(Format::Protobuf, &revoked);
        assert_eq!(failure.message.as_deref(), Some("protobuf not supported as output format"));
    }
}
