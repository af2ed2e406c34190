//! How members and clusters get their identifiers: etcd's SHA-1 rule, so that both sides compute the same.

use sha1::{Digest, Sha1};

use crate::types::{ClusterId, MemberId};

/// The identifier of a founding member: from its peer URLs and the cluster's token.
pub fn founding_member_id<S: AsRef<str>>(peer_urls: &[S], token: &str) -> MemberId {
    MemberId(digest_of(&[&joined(peer_urls), token]))
}

/// The identifier of a member added later: from its peer URLs and the time in whole seconds since 1970.
pub fn added_member_id<S: AsRef<str>>(peer_urls: &[S], unix_seconds: u64) -> MemberId {
    MemberId(digest_of(&[&joined(peer_urls), &unix_seconds.to_string()]))
}

/// The cluster's identifier: from the identifiers of its founding members, in any order.
pub fn cluster_id(founders: impl IntoIterator<Item = MemberId>) -> ClusterId {
    let mut founders: Vec<u64> = founders.into_iter().map(|id| id.0).collect();
    founders.sort_unstable();
    let bytes: Vec<u8> = founders.into_iter().flat_map(u64::to_be_bytes).collect();
    ClusterId(first_eight(&Sha1::digest(&bytes)))
}

fn joined<S: AsRef<str>>(peer_urls: &[S]) -> String {
    let mut sorted: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    sorted.concat()
}

fn digest_of(parts: &[&str]) -> u64 {
    let mut hash = Sha1::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    first_eight(&hash.finalize())
}

fn first_eight(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |id, byte| (id << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_single_member_has_the_documented_ids() {
        let member = founding_member_id(&["http://localhost:2380"], "etcd-cluster");
        assert_eq!(member, MemberId(0x8e9e_05c5_2164_694d));
        assert_eq!(member.0, 10_276_657_743_932_975_437);
        assert_eq!(cluster_id([member]), ClusterId(0xcdf8_1819_4e3a_8c32));
        assert_eq!(cluster_id([member]).0, 14_841_639_068_965_178_418);
    }

    #[test]
    fn token_enters_the_founding_id() {
        let member = founding_member_id(&["http://localhost:30001"], "new");
        assert_eq!(member, MemberId(0xd1ca_b331_fb7f_7e78));
        assert_eq!(cluster_id([member]), ClusterId(0x53bc_150d_75fe_f8f6));
    }

    #[test]
    fn three_founders_have_the_documented_ids_in_any_order() {
        let id = |port: u16| founding_member_id(&[format!("http://127.0.0.1:{port}")], "etcd-cluster-1");
        let members = [id(12380), id(22380), id(32380)];
        assert_eq!(members.map(|m| m.0), [0x8211_f1d0_f64f_3269, 0x91bc_3c39_8fb3_c146, 0xfd42_2379_fda5_0e48]);
        let mut reversed = members;
        reversed.reverse();
        assert_eq!(cluster_id(members), ClusterId(0xef37_ad9d_c622_a7c4));
        assert_eq!(cluster_id(reversed), cluster_id(members));
    }

    #[test]
    fn added_member_id_takes_the_time_and_no_token() {
        assert_eq!(added_member_id(&["http://127.0.0.1:2381"], 1_700_000_000), MemberId(0x4de5_e282_13e3_0ef3));
    }

    #[test]
    fn peer_urls_are_sorted_first() {
        assert_eq!(
            founding_member_id(&["http://b:1", "http://a:1"], "t"),
            founding_member_id(&["http://a:1", "http://b:1"], "t")
        );
    }
}
