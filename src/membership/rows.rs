//! The cluster as rows of etcd's buckets, read and written.

use bytes::Bytes;
use serde::Deserialize;
use thiserror::Error;

use super::{Cluster, Downgrade, Member, Version, cluster::sorted, json::Object};
use crate::{
    pb::raftpb::ConfState,
    types::{ClusterId, MemberId},
};

/// The bucket of etcd a row belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Member JSON by identifier.
    Members,
    /// Removed identifiers.
    MembersRemoved,
    /// Cluster version and downgrade state by name.
    Cluster,
    /// Here: raft's configuration.
    Meta,
}

/// One row to write, or to delete if there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Where.
    pub bucket: Bucket,
    /// As in etcd's bucket.
    pub key: Bytes,
    /// As in etcd's bucket.
    pub value: Option<Bytes>,
}

/// Name of the row that holds raft's configuration, in [`Bucket::Meta`].
pub const CONFIGURATION_KEY: &str = "confState";
/// Name of the row that holds the cluster version, in [`Bucket::Cluster`].
pub const VERSION_KEY: &str = "clusterVersion";
/// Name of the row that holds the downgrade state, in [`Bucket::Cluster`].
pub const DOWNGRADE_KEY: &str = "downgrade";

/// Everything stored about the cluster, as read from a snapshot.
#[derive(Clone, Debug, Default)]
pub struct ClusterRows {
    /// All rows of [`Bucket::Members`].
    pub members: Vec<(Bytes, Bytes)>,
    /// All keys of [`Bucket::MembersRemoved`].
    pub removed: Vec<Bytes>,
    /// [`CONFIGURATION_KEY`]; etcd before 3.5 has none.
    pub configuration: Option<Bytes>,
    /// [`VERSION_KEY`].
    pub version: Option<Bytes>,
    /// [`DOWNGRADE_KEY`].
    pub downgrade: Option<Bytes>,
}

/// A stored row that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("row {key:?} of the {bucket:?} bucket is damaged: {why}")]
pub struct RowError {
    /// Where.
    pub bucket: Bucket,
    /// Which, as text.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

#[derive(Deserialize)]
struct DowngradeJson {
    #[serde(default, rename = "target-version")]
    target: String,
    #[serde(default)]
    enabled: bool,
}

#[derive(Deserialize)]
struct ConfigurationJson {
    #[serde(default)]
    voters: Vec<u64>,
    #[serde(default)]
    learners: Vec<u64>,
}

impl Cluster {
    /// Rebuilds the value from its rows. Without a stored configuration, the members that are no learners vote.
    ///
    /// # Errors
    /// [`RowError`] naming the damaged row.
    pub fn from_rows(id: ClusterId, rows: &ClusterRows) -> Result<Self, RowError> {
        let mut cluster = Self { id, ..Self::default() };
        for (key, value) in &rows.members {
            let member = read_member(key, value)?;
            cluster.members.insert(member.id, member);
        }
        for key in &rows.removed {
            cluster.removed.insert(read_id(Bucket::MembersRemoved, key)?);
        }
        cluster.version = rows.version.as_ref().map(read_version).transpose()?;
        cluster.downgrade = rows.downgrade.as_ref().map(read_downgrade).transpose()?.unwrap_or_default();
        let stored = rows.configuration.as_ref().map(read_configuration).transpose()?;
        cluster.configuration = stored.unwrap_or_else(|| cluster.derived_configuration());
        Ok(cluster)
    }

    /// All rows of this value, in order.
    pub fn to_rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.members.keys().map(|id| self.member_row(*id)).collect();
        rows.extend(self.removed.iter().map(|id| removed_row(*id)));
        rows.extend(self.version.map(|_| self.version_row()));
        rows.extend(self.downgrade.target.map(|_| self.downgrade_row()));
        rows.push(self.configuration_row());
        rows
    }

    /// The row of one member as it is now: a deletion if it is none.
    pub fn member_row(&self, id: MemberId) -> Row {
        let value = self.member(id).map(|member| Bytes::from(member.to_json()));
        Row { bucket: Bucket::Members, key: id_key(id), value }
    }

    /// The rows that differ after a change of member `id`.
    pub fn change_rows(&self, id: MemberId) -> Vec<Row> {
        let mut rows = vec![self.member_row(id)];
        if self.is_removed(id) {
            rows.push(removed_row(id));
        }
        rows.push(self.configuration_row());
        rows
    }

    /// The row of the cluster version.
    pub fn version_row(&self) -> Row {
        row(Bucket::Cluster, VERSION_KEY, self.version.map(|version| version.to_string()))
    }

    /// The row of the downgrade state.
    pub fn downgrade_row(&self) -> Row {
        let target = self.downgrade.target.map_or_else(String::new, |target| target.to_string());
        let enabled = self.downgrade.target.is_some();
        let json = Object::new().text("target-version", &target).flag("enabled", enabled).end();
        row(Bucket::Cluster, DOWNGRADE_KEY, Some(json))
    }

    /// The row of raft's configuration.
    pub fn configuration_row(&self) -> Row {
        configuration_row(&self.configuration)
    }

    fn derived_configuration(&self) -> ConfState {
        let ids = |learner| self.members().filter(|m| m.is_learner == learner).map(|m| m.id.0).collect();
        ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }
    }
}

/// The row of this configuration.
pub fn configuration_row(configuration: &ConfState) -> Row {
    let ConfState { voters, learners, auto_leave, .. } = configuration;
    let json = Object::new()
        .unless(voters.is_empty(), |json| json.numbers("voters", voters))
        .unless(learners.is_empty(), |json| json.numbers("learners", learners))
        .flag("auto_leave", *auto_leave)
        .end();
    row(Bucket::Meta, CONFIGURATION_KEY, Some(json))
}

fn row(bucket: Bucket, key: &'static str, value: Option<String>) -> Row {
    Row { bucket, key: Bytes::from_static(key.as_bytes()), value: value.map(Bytes::from) }
}

fn removed_row(id: MemberId) -> Row {
    let value = Some(Bytes::from_static(b"removed"));
    Row { bucket: Bucket::MembersRemoved, key: id_key(id), value }
}

/// Lower-case hexadecimal without leading zeros, as in etcd's buckets.
fn id_key(id: MemberId) -> Bytes {
    Bytes::from(id.to_string())
}

fn damaged(bucket: Bucket, key: &[u8], why: impl std::fmt::Display) -> RowError {
    RowError { bucket, key: String::from_utf8_lossy(key).into_owned(), why: why.to_string() }
}

fn read_id(bucket: Bucket, key: &[u8]) -> Result<MemberId, RowError> {
    let text = std::str::from_utf8(key).ok().filter(|text| !text.starts_with('+'));
    let id = text.and_then(|text| u64::from_str_radix(text, 16).ok());
    id.map(MemberId).ok_or_else(|| damaged(bucket, key, "the key is not a hexadecimal member ID"))
}

fn read_member(key: &[u8], value: &[u8]) -> Result<Member, RowError> {
    let id = read_id(Bucket::Members, key)?;
    let member = Member::from_json(value).map_err(|error| damaged(Bucket::Members, key, error))?;
    if member.id == id {
        Ok(member)
    } else {
        Err(damaged(Bucket::Members, key, format!("its value describes member {}", member.id)))
    }
}

fn read_version(value: &Bytes) -> Result<Version, RowError> {
    let key = VERSION_KEY.as_bytes();
    let text = std::str::from_utf8(value).map_err(|error| damaged(Bucket::Cluster, key, error))?;
    text.parse().map_err(|error| damaged(Bucket::Cluster, key, error))
}

fn read_downgrade(value: &Bytes) -> Result<Downgrade, RowError> {
    let damaged = |why: String| damaged(Bucket::Cluster, DOWNGRADE_KEY.as_bytes(), why);
    let json: DowngradeJson = serde_json::from_slice(value).map_err(|error| damaged(error.to_string()))?;
    if !json.enabled {
        return Ok(Downgrade::default());
    }
    let target = json.target.parse().map_err(|error: super::VersionError| damaged(error.to_string()))?;
    Ok(Downgrade { target: Some(target) })
}

fn read_configuration(value: &Bytes) -> Result<ConfState, RowError> {
    let json: ConfigurationJson =
        serde_json::from_slice(value).map_err(|error| damaged(Bucket::Meta, CONFIGURATION_KEY.as_bytes(), error))?;
    let ConfigurationJson { voters, learners } = json;
    Ok(sorted(ConfState { voters, learners, ..ConfState::default() }))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            MemberChange,
            cluster::tests::{cluster, member},
        },
        *,
    };

    fn collect(rows: &[Row]) -> ClusterRows {
        let mut out = ClusterRows::default();
        for Row { bucket, key, value } in rows.iter().cloned() {
            let value = value.unwrap();
            match (bucket, key.as_ref()) {
                (Bucket::Members, _) => out.members.push((key, value)),
                (Bucket::MembersRemoved, _) => out.removed.push(key),
                (Bucket::Cluster, b"clusterVersion") => out.version = Some(value),
                (Bucket::Cluster, _) => out.downgrade = Some(value),
                (Bucket::Meta, _) => out.configuration = Some(value),
            }
        }
        out
    }

    fn rich() -> Cluster {
        let mut cluster = cluster(3);
        cluster.apply(&MemberChange::Remove(MemberId(2)));
        cluster.apply(&MemberChange::add(member(0x1f, true)));
        cluster.set_version(Version::minor(3, 6));
        cluster.set_downgrade(Downgrade { target: Some(Version::minor(3, 5)) });
        cluster
    }

    #[test]
    fn value_survives_its_rows() {
        let cluster = rich();
        assert_eq!(Cluster::from_rows(ClusterId(0), &collect(&cluster.to_rows())).unwrap(), cluster);
    }

    #[test]
    fn rows_are_etcds() {
        let cluster = rich();
        let text = |row: Row| (row.key, row.value.map(|value| String::from_utf8(value.to_vec()).unwrap()));
        let learner = r#"{"id":31,"peerURLs":["http://h31:1"],"isLearner":true,"name":"m31"}"#;
        assert_eq!(text(cluster.member_row(MemberId(31))), ("1f".into(), Some(learner.into())));
        assert_eq!(text(cluster.member_row(MemberId(2))), ("2".into(), None));
        assert_eq!(text(removed_row(MemberId(2))), ("2".into(), Some("removed".into())));
        assert_eq!(text(cluster.version_row()), ("clusterVersion".into(), Some("3.6.0".into())));
        let downgrade = r#"{"target-version":"3.5.0","enabled":true}"#;
        assert_eq!(text(cluster.downgrade_row()), ("downgrade".into(), Some(downgrade.into())));
        let configuration = r#"{"voters":[1,3],"learners":[31],"auto_leave":false}"#;
        assert_eq!(text(cluster.configuration_row()), ("confState".into(), Some(configuration.into())));
    }

    #[test]
    fn no_downgrade_is_an_empty_target() {
        let row = Cluster::default().downgrade_row();
        assert_eq!(row.value.unwrap(), r#"{"target-version":"","enabled":false}"#);
    }

    #[test]
    fn configuration_is_derived_where_none_is_stored() {
        let rows = ClusterRows { configuration: None, ..collect(&rich().to_rows()) };
        let cluster = Cluster::from_rows(ClusterId(0), &rows).unwrap();
        assert_eq!(cluster.configuration().voters, [1, 3]);
        assert_eq!(cluster.configuration().learners, [31]);
    }

    #[test]
    fn damaged_rows_are_named() {
        let broken = |key: &'static str, value: &'static str| {
            let rows = ClusterRows { members: vec![(key.into(), value.into())], ..ClusterRows::default() };
            Cluster::from_rows(ClusterId(0), &rows).unwrap_err().to_string()
        };
        assert!(broken("xyz", "{}").starts_with(r#"row "xyz" of the Members bucket is damaged"#));
        assert!(broken("1", r#"{"id":2}"#).ends_with("its value describes member 2"));
        assert!(broken("1", "nonsense").contains("is damaged"));
    }
}
