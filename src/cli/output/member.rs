//! Members of the cluster.

use prost::Message;

use super::{Page, Shown, Table, json, json::Object};
use crate::{
    cli::go_text,
    pb::etcdserverpb::{Member, MemberAddResponse, MemberListResponse, ResponseHeader},
};

/// All members.
pub(in crate::cli) struct Members(pub(in crate::cli) MemberListResponse);

impl Shown for Members {
    fn simple(&self, page: &mut Page) {
        member_table(&self.0.members).comma_lines(page);
    }

    fn fields(&self, page: &mut Page) {
        page.header_fields(self.0.header.as_ref());
        self.0.members.iter().for_each(|member| member_fields(page, member));
    }

    fn json(&self, page: &mut Page) {
        answer_json(page, self.0.header.as_ref(), None, &self.0.members);
    }

    fn table(&self) -> Option<Table> {
        Some(member_table(&self.0.members))
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.0.encode_to_vec())
    }
}

fn member_table(members: &[Member]) -> Table {
    let row = |member: &Member| {
        vec![
            format!("{:x}", member.id),
            if member.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    let headings = &["ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"];
    Table { headings, rows: members.iter().map(row).collect() }
}

fn member_fields(page: &mut Page, member: &Member) {
    page.id_field("ID", member.id);
    page.quoted_field("Name", &member.name);
    member.peer_ur_ls.iter().for_each(|url| page.quoted_field("PeerURL", url));
    member.client_ur_ls.iter().for_each(|url| page.quoted_field("ClientURL", url));
    page.field("IsLearner", member.is_learner);
    page.end_line();
}

/// The shape all answers about members share. In hexadecimal nothing but empty fields of members is left out.
fn answer_json(page: &mut Page, header: Option<&ResponseHeader>, member: Option<&Member>, members: &[Member]) {
    let hex = page.hex();
    page.object(|object| {
        if hex {
            hex_header(object, header);
        } else {
            object.header(header);
        }
        if let Some(member) = member {
            json::cluster_member(object.member("member"), member);
        }
        if hex || !members.is_empty() {
            object.member("members").array(members, json::cluster_member);
        }
    });
}

fn hex_header(object: &mut Object, header: Option<&ResponseHeader>) {
    let header = header.copied().unwrap_or_default();
    object.object("header", |object| {
        object.text("cluster_id", &format!("{:x}", header.cluster_id));
        object.text("member_id", &format!("{:x}", header.member_id));
        object.plain_if_set("revision", header.revision);
        object.plain_if_set("raft_term", header.raft_term);
    });
}

/// A member was added.
pub(in crate::cli) struct Added {
    pub(in crate::cli) response: MemberAddResponse,
    /// The name it is going to have, which the cluster does not know yet.
    pub(in crate::cli) name: String,
    /// Its peer URLs as they were typed.
    pub(in crate::cli) peer_urls: String,
}

impl Added {
    fn member(&self) -> Member {
        self.response.member.clone().unwrap_or_default()
    }

    fn initial_cluster(&self) -> String {
        let new = self.member().id;
        let name = |member: &Member| if member.id == new { self.name.clone() } else { member.name.clone() };
        let peers = self.response.members.iter().flat_map(|member| {
            let name = name(member);
            member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
        });
        peers.collect::<Vec<_>>().join(",")
    }
}

impl Shown for Added {
    /// Also tells the settings the new member starts with.
    fn simple(&self, page: &mut Page) {
        let member = self.member();
        let role = if member.is_learner { " as learner" } else { "" };
        let cluster = cluster(self.response.header.as_ref());
        page.line(format_args!("Member {:16x} added{role} to cluster {cluster:16x}\n", member.id));
        let mut setting = |name, value: &str| page.line(format_args!("{name}={}", go_text::quote(value.as_bytes())));
        setting("ETCD_NAME", &self.name);
        setting("ETCD_INITIAL_CLUSTER", &self.initial_cluster());
        setting("ETCD_INITIAL_ADVERTISE_PEER_URLS", &self.peer_urls);
        setting("ETCD_INITIAL_CLUSTER_STATE", "existing");
    }

    fn has_fields(&self) -> bool {
        false
    }

    fn json(&self, page: &mut Page) {
        let MemberAddResponse { header, member, members } = &self.response;
        answer_json(page, header.as_ref(), member.as_ref(), members);
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.response.encode_to_vec())
    }
}

/// What was done to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Verb {
    /// It is gone.
    Removed,
    /// It has other URLs.
    Updated,
    /// It votes now.
    Promoted,
}

/// A member was changed.
pub(in crate::cli) struct MemberChange {
    pub(in crate::cli) verb: Verb,
    pub(in crate::cli) member: u64,
    /// The answer; those to the three kinds of change have the same fields.
    pub(in crate::cli) response: MemberListResponse,
}

impl Shown for MemberChange {
    fn simple(&self, page: &mut Page) {
        let what = match self.verb {
            Verb::Removed => "removed from",
            Verb::Updated => "updated in",
            Verb::Promoted => "promoted in",
        };
        let cluster = cluster(self.response.header.as_ref());
        page.line(format_args!("Member {:16x} {what} cluster {cluster:16x}", self.member));
    }

    fn has_fields(&self) -> bool {
        false
    }

    fn json(&self, page: &mut Page) {
        answer_json(page, self.response.header.as_ref(), None, &self.response.members);
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.response.encode_to_vec())
    }
}

fn cluster(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.cluster_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{
        Format,
        tests::{printed, refused},
    };

    fn member(id: u64, name: &str) -> Member {
        let peer_ur_ls = vec![format!("http://{id}:1"), format!("http://{id}:2")];
        Member { id, name: name.to_owned(), peer_ur_ls, client_ur_ls: vec![], is_learner: name.is_empty() }
    }

    fn header() -> ResponseHeader {
        ResponseHeader { cluster_id: 0xabc, member_id: 0x12, revision: 0, raft_term: 4 }
    }

    fn listed() -> MemberListResponse {
        MemberListResponse { header: Some(header()), members: vec![member(18, "m1"), member(19, "")] }
    }

    #[test]
    fn members_in_all_forms() {
        let members = Members(listed());
        let simple =
            "12, started, m1, http://18:1,http://18:2, , false\n13, unstarted, , http://19:1,http://19:2, , true\n";
        assert_eq!(printed(Format::Simple, false, &members), simple);
        let json = r#"{"header":{"cluster_id":2748,"member_id":18,"raft_term":4},"members":[{"ID":18,"name":"m1","peerURLs":["http://18:1","http://18:2"]},{"ID":19,"peerURLs":["http://19:1","http://19:2"],"isLearner":true}]}"#;
        assert_eq!(printed(Format::Json, false, &members), format!("{json}\n"));
        let hex = r#"{"header":{"cluster_id":"abc","member_id":"12","raft_term":4},"members":[{"ID":"12","name":"m1""#;
        assert!(printed(Format::Json, true, &members).starts_with(hex));
        let fields = "\"ID\" : 12\n\"Name\" : \"m1\"\n\"PeerURL\" : \"http://18:1\"\n\"PeerURL\" : \"http://18:2\"\n\"IsLearner\" : false\n\n";
        assert!(printed(Format::Fields, true, &members).contains(fields));
        assert!(printed(Format::Table, false, &members).contains("│ 12 │   started │   m1 │"));
    }

    #[test]
    fn an_added_member_is_told_its_settings() {
        let response =
            MemberAddResponse { header: Some(header()), member: Some(member(19, "")), members: listed().members };
        let added = Added { response, name: "new".to_owned(), peer_urls: "http://19:1,http://19:2".to_owned() };
        let text = "Member               13 added as learner to cluster              abc\n\nETCD_NAME=\"new\"\n\
                    ETCD_INITIAL_CLUSTER=\"m1=http://18:1,m1=http://18:2,new=http://19:1,new=http://19:2\"\n\
                    ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://19:1,http://19:2\"\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n";
        assert_eq!(printed(Format::Simple, false, &added), text);
        assert!(printed(Format::Json, false, &added).contains("\"member\":{\"ID\":19,"));
        assert_eq!(refused(Format::Fields, &added).message.as_deref(), Some("fields not supported as output format"));
    }
}
