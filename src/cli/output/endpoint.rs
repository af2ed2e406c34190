//! What the endpoints say of themselves.

use std::time::Duration;

use super::{Page, Shown, Table, json::Object};
use crate::{
    cli::{go_text, speak::complain},
    pb::etcdserverpb::{HashKvResponse, StatusResponse},
};

/// Whether one endpoint does its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Health {
    pub(in crate::cli) endpoint: String,
    /// How long the answer took; `None` if nothing could be asked.
    pub(in crate::cli) took: Option<Duration>,
    /// What is wrong with it; `None` if it is healthy.
    pub(in crate::cli) error: Option<String>,
}

impl Health {
    fn took(&self) -> String {
        self.took.map_or_else(String::new, go_text::duration)
    }

    fn error(&self) -> &str {
        self.error.as_deref().unwrap_or_default()
    }

    fn healthy(&self) -> bool {
        self.error.is_none()
    }
}

/// The health of several endpoints.
pub(in crate::cli) struct Healths(pub(in crate::cli) Vec<Health>);

impl Shown for Healths {
    /// Bad news goes to standard error.
    fn simple(&self, page: &mut Page) {
        for health in &self.0 {
            let (endpoint, took) = (&health.endpoint, health.took());
            if let Some(error) = &health.error {
                complain(format_args!("{endpoint} is unhealthy: failed to commit proposal: {error}"));
            } else {
                page.line(format_args!("{endpoint} is healthy: successfully committed proposal: took = {took}"));
            }
        }
    }

    fn fields(&self, page: &mut Page) {
        for health in &self.0 {
            page.quoted_field("Endpoint", &health.endpoint);
            page.field("Health", health.healthy());
            page.field("Took", health.took());
            page.field("Error", health.error());
            page.end_line();
        }
    }

    fn json(&self, page: &mut Page) {
        array_or_null(page, &self.0, |page, health| {
            page.object(|object| {
                object.text("endpoint", &health.endpoint);
                object.plain("health", health.healthy());
                object.text("took", &health.took());
                object.text_if_set("error", health.error());
            });
        });
    }

    fn table(&self) -> Option<Table> {
        let row = |health: &Health| {
            vec![health.endpoint.clone(), health.healthy().to_string(), health.took(), health.error().to_owned()]
        };
        Some(Table { headings: &["endpoint", "health", "took", "error"], rows: self.0.iter().map(row).collect() })
    }
}

/// What several members say of themselves, each with the endpoint it was asked at.
pub(in crate::cli) struct Statuses(pub(in crate::cli) Vec<(String, StatusResponse)>);

impl Shown for Statuses {
    fn simple(&self, page: &mut Page) {
        status_table(&self.0).comma_lines(page);
    }

    fn fields(&self, page: &mut Page) {
        self.0.iter().for_each(|(endpoint, status)| status_fields(page, endpoint, status));
    }

    fn json(&self, page: &mut Page) {
        array_or_null(page, &self.0, |page, (endpoint, status)| {
            page.object(|object| {
                object.text("Endpoint", endpoint);
                object.object("Status", |object| status_json(object, status));
            });
        });
    }

    fn table(&self) -> Option<Table> {
        Some(status_table(&self.0))
    }
}

fn status_table(statuses: &[(String, StatusResponse)]) -> Table {
    let headings = &[
        "endpoint",
        "ID",
        "version",
        "storage version",
        "db size",
        "in use",
        "percentage not in use",
        "quota",
        "is leader",
        "is learner",
        "raft term",
        "raft index",
        "raft applied index",
        "errors",
        "downgrade target version",
        "downgrade enabled",
    ];
    Table { headings, rows: statuses.iter().map(|(endpoint, status)| status_row(endpoint, status)).collect() }
}

fn status_row(endpoint: &str, status: &StatusResponse) -> Vec<String> {
    let member = status.header.map_or(0, |header| header.member_id);
    let downgrade = status.downgrade_info.clone().unwrap_or_default();
    let size = |bytes: i64| go_text::size(u64::try_from(bytes).unwrap_or(0));
    vec![
        endpoint.to_owned(),
        format!("{member:x}"),
        status.version.clone(),
        status.storage_version.clone(),
        size(status.db_size),
        size(status.db_size_in_use),
        format!("{}%", unused_percent(status)),
        size(status.db_size_quota),
        (status.leader == member).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

/// The part of the database file that holds nothing; all of nothing is in use.
fn unused_percent(status: &StatusResponse) -> i64 {
    let used = status.db_size_in_use.saturating_mul(100).checked_div(status.db_size).unwrap_or(100);
    100_i64.saturating_sub(used)
}

fn status_fields(page: &mut Page, endpoint: &str, status: &StatusResponse) {
    page.header_fields(status.header.as_ref());
    page.quoted_field("Version", &status.version);
    page.quoted_field("StorageVersion", &status.storage_version);
    page.field("DBSize", status.db_size);
    page.field("DBSizeInUse", status.db_size_in_use);
    page.field("DBSizeQuota", status.db_size_quota);
    page.field("Leader", status.leader);
    page.field("IsLearner", status.is_learner);
    page.field("RaftIndex", status.raft_index);
    page.field("RaftTerm", status.raft_term);
    page.field("RaftAppliedIndex", status.raft_applied_index);
    page.field("Errors", format_args!("[{}]", status.errors.join(" ")));
    page.quoted_field("Endpoint", endpoint);
    let downgrade = status.downgrade_info.clone().unwrap_or_default();
    page.quoted_field("DowngradeTargetVersion", &downgrade.target_version);
    page.field("DowngradeEnabled", downgrade.enabled);
    page.end_line();
}

fn status_json(object: &mut Object, status: &StatusResponse) {
    object.header(status.header.as_ref());
    object.text_if_set("version", &status.version);
    object.plain_if_set("dbSize", status.db_size);
    object.plain_if_set("leader", status.leader);
    object.plain_if_set("raftIndex", status.raft_index);
    object.plain_if_set("raftTerm", status.raft_term);
    object.plain_if_set("raftAppliedIndex", status.raft_applied_index);
    object.texts_if_set("errors", &status.errors);
    object.plain_if_set("dbSizeInUse", status.db_size_in_use);
    object.plain_if_set("isLearner", status.is_learner);
    object.text_if_set("storageVersion", &status.storage_version);
    object.plain_if_set("dbSizeQuota", status.db_size_quota);
    if let Some(downgrade) = &status.downgrade_info {
        object.object("downgradeInfo", |object| {
            object.plain_if_set("enabled", downgrade.enabled);
            object.text_if_set("targetVersion", &downgrade.target_version);
        });
    }
}

/// One member's hash with the endpoint it was asked at.
pub(in crate::cli) struct Hash {
    pub(in crate::cli) endpoint: String,
    pub(in crate::cli) response: HashKvResponse,
}

/// The hashes of several members.
pub(in crate::cli) struct Hashes(pub(in crate::cli) Vec<Hash>);

impl Shown for Hashes {
    fn simple(&self, page: &mut Page) {
        hash_table(&self.0).comma_lines(page);
    }

    fn fields(&self, page: &mut Page) {
        for Hash { endpoint, response } in &self.0 {
            page.header_fields(response.header.as_ref());
            page.quoted_field("Endpoint", endpoint);
            page.field("Hash", response.hash);
            page.field("HashRevision", response.hash_revision);
            page.end_line();
        }
    }

    fn json(&self, page: &mut Page) {
        array_or_null(page, &self.0, |page, Hash { endpoint, response }| {
            page.object(|object| {
                object.text("Endpoint", endpoint);
                object.object("HashKV", |object| {
                    object.header(response.header.as_ref());
                    object.plain_if_set("hash", response.hash);
                    object.plain_if_set("compact_revision", response.compact_revision);
                    object.plain_if_set("hash_revision", response.hash_revision);
                });
            });
        });
    }

    fn table(&self) -> Option<Table> {
        Some(hash_table(&self.0))
    }
}

fn hash_table(hashes: &[Hash]) -> Table {
    let row = |Hash { endpoint, response }: &Hash| {
        vec![endpoint.clone(), response.hash.to_string(), response.hash_revision.to_string()]
    };
    Table { headings: &["endpoint", "hash", "hash_revision"], rows: hashes.iter().map(row).collect() }
}

fn array_or_null<'a, T>(page: &mut Page<'a>, items: &[T], each: impl FnMut(&mut Page<'a>, &T)) {
    if items.is_empty() { page.text(format_args!("null")) } else { page.array(items, each) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::output::{
            Format,
            tests::{printed, refused},
        },
        pb::etcdserverpb::{DowngradeInfo, ResponseHeader},
    };

    fn status() -> Statuses {
        let header = Some(ResponseHeader { cluster_id: 1, member_id: 0x12, revision: 3, raft_term: 2 });
        Statuses(vec![(
            "a:1".to_owned(),
            StatusResponse {
                header,
                version: "3.7.1".to_owned(),
                storage_version: "3.7.0".to_owned(),
                db_size: 20_480,
                db_size_in_use: 16_384,
                db_size_quota: 2_147_483_648,
                leader: 0x12,
                raft_index: 23,
                raft_term: 2,
                raft_applied_index: 22,
                errors: vec!["one".to_owned(), "two".to_owned()],
                is_learner: false,
                downgrade_info: Some(DowngradeInfo::default()),
            },
        )])
    }

    #[test]
    fn a_status_in_all_forms() {
        let simple = "a:1, 12, 3.7.1, 3.7.0, 20 kB, 16 kB, 20%, 2.1 GB, true, false, 2, 23, 22, one, two, , false\n";
        assert_eq!(printed(Format::Simple, false, &status()), simple);
        let json = r#"[{"Endpoint":"a:1","Status":{"header":{"cluster_id":1,"member_id":18,"revision":3,"raft_term":2},"version":"3.7.1","dbSize":20480,"leader":18,"raftIndex":23,"raftTerm":2,"raftAppliedIndex":22,"errors":["one","two"],"dbSizeInUse":16384,"storageVersion":"3.7.0","dbSizeQuota":2147483648,"downgradeInfo":{}}}]"#;
        assert_eq!(printed(Format::Json, true, &status()), format!("{json}\n"));
        let fields = printed(Format::Fields, false, &status());
        assert!(fields.contains("\"Errors\" : [one two]\n\"Endpoint\" : \"a:1\"\n\"DowngradeTargetVersion\" : \"\"\n"));
        assert_eq!(refused(Format::Protobuf, &status()).exit, crate::cli::failure::Exit::BadFeature);
    }

    #[test]
    fn a_member_without_a_database_size_wastes_nothing() {
        assert_eq!(unused_percent(&StatusResponse::default()), 0);
    }

    #[test]
    fn nothing_is_null_in_json_and_headings_in_a_table() {
        assert_eq!(printed(Format::Json, false, &Hashes(vec![])), "null\n");
        let empty = "┌──────────┬──────┬───────────────┐\n│ ENDPOINT │ HASH │ HASH REVISION │\n└──────────┴──────┴───────────────┘\n";
        assert_eq!(printed(Format::Table, false, &Hashes(vec![])), empty);
    }

    #[test]
    fn health_names_what_is_wrong() {
        let took = Some(Duration::from_micros(1_500));
        let bad = Health { endpoint: "b:1".to_owned(), took: None, error: Some("no leader".to_owned()) };
        let healths = Healths(vec![Health { endpoint: "a:1".to_owned(), took, error: None }, bad]);
        let json = r#"[{"endpoint":"a:1","health":true,"took":"1.5ms"},{"endpoint":"b:1","health":false,"took":"","error":"no leader"}]"#;
        assert_eq!(printed(Format::Json, false, &healths), format!("{json}\n"));
        let simple = "a:1 is healthy: successfully committed proposal: took = 1.5ms\n";
        assert_eq!(printed(Format::Simple, false, &healths), simple);
        assert!(
            printed(Format::Fields, false, &healths)
                .ends_with("\"Health\" : false\n\"Took\" : \n\"Error\" : no leader\n\n")
        );
    }
}
