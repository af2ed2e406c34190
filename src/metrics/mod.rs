//! What the member counts and measures, under the names etcd's dashboards and alerts query.
//!
//! Instruments are statics: `metrics::WAL_FSYNC.observe(took)` anywhere. One table ([`TABLE`]) holds their names, help
//! and labels; [`exposition`] prints it with the gRPC and process families. Several members in one process share
//! them, which only tests do. Invariants: a plain name is shown from the start, a labelled one after its first use;
//! observing never blocks, allocates only for a new label value, and never fails.

mod family;
mod grpc;
mod instrument;
mod names;
mod process;
mod text;

pub use family::{Family, OTHER, SERIES_MAX};
pub use grpc::{CODE_NAMES, GrpcMethod, METHODS, MethodKind, is_extensive, set_extensive};
pub use instrument::{Counter, Gauge, HISTOGRAM_BOUNDS_MAX, Histogram, Unit, doubling};
pub use names::*;
pub use text::Collect;

/// The counters of each gRPC method, by name.
pub mod rpc {
    pub use super::grpc::{
        ALARM, AUTH_DISABLE, AUTH_ENABLE, AUTH_STATUS, AUTHENTICATE, CAMPAIGN, COMPACT, DEFRAGMENT, DELETE_RANGE,
        DOWNGRADE, HASH, HASH_KV, HEALTH_RPC_CHECK, HEALTH_RPC_LIST, HEALTH_RPC_WATCH, HOT, LEADER, LEASE_GRANT,
        LEASE_KEEP_ALIVE, LEASE_LEASES, LEASE_REVOKE, LEASE_TIME_TO_LIVE, LOCK, MEMBER_ADD, MEMBER_LIST,
        MEMBER_PROMOTE, MEMBER_REMOVE, MEMBER_UPDATE, MOVE_LEADER, OBSERVE, PROCLAIM, PUT, RANGE, RANGE_STREAM, RESIGN,
        ROLE_ADD, ROLE_DELETE, ROLE_GET, ROLE_GRANT_PERMISSION, ROLE_LIST, ROLE_REVOKE_PERMISSION, SNAPSHOT, STATUS,
        TXN, UNLOCK, USER_ADD, USER_CHANGE_PASSWORD, USER_DELETE, USER_GET, USER_GRANT_ROLE, USER_LIST,
        USER_REVOKE_ROLE, WATCH,
    };
}

/// The media type of [`exposition`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything, in the Prometheus text format, ordered by name.
pub fn exposition() -> String {
    exposition_where(|_| true)
}

/// What a proxy counts and measures: a name of the member at zero would be taken for a member in trouble.
pub fn exposition_of_proxy() -> String {
    const PREFIXES: [&str; 9] = [
        "etcd_grpc_proxy_",
        "etcd_network_client_grpc_",
        "grpc_server_",
        "os_fd_",
        "process_",
        "quorate_build_info",
        "quorate_connections_",
        "quorate_http_",
        "quorate_tls_",
    ];
    exposition_where(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
}

fn exposition_where(is_shown: impl Fn(&str) -> bool) -> String {
    process::refresh();
    let table = TABLE.iter().map(|entry| {
        let mut out = String::new();
        text::family(entry.name, entry.help, entry.what, &mut out);
        (entry.name, out)
    });
    let mut families: Vec<(&str, String)> = table.chain(grpc::collect()).chain(process::collect()).collect();
    families.push(build_info());
    families.retain(|(name, _)| is_shown(name));
    families.sort_unstable_by_key(|(name, _)| *name);
    families.into_iter().map(|(_, text)| text).collect()
}

/// A name as documentation tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// The name.
    pub name: &'static str,
    /// The word in the `# TYPE` line.
    pub kind: &'static str,
    /// Label names besides a histogram's `le`.
    pub labels: &'static [&'static str],
    /// What the `# HELP` line says.
    pub help: &'static str,
    /// As [`Entry::versions`].
    pub versions: &'static str,
}

/// Every name that [`exposition`] can show, in their order.
pub fn described() -> Vec<Described> {
    let of_entry = |entry: &Entry| {
        let Entry { name, help, versions, what } = *entry;
        Described { name, kind: what.kind(), labels: what.labels(), help, versions }
    };
    let mut all: Vec<_> = TABLE.iter().map(of_entry).collect();
    all.extend(grpc::FAMILIES.into_iter().chain(process::described()).chain([BUILD_INFO]));
    all.sort_unstable_by_key(|described| described.name);
    all
}

const BUILD_INFO: Described = Described {
    name: "quorate_build_info",
    kind: "gauge",
    labels: &["version"],
    help: "Always 1; the label is the version of the program.",
    versions: "",
};

fn build_info() -> (&'static str, String) {
    let Described { name, kind, help, .. } = BUILD_INFO;
    let mut out = String::new();
    text::head(name, help, kind, &mut out);
    text::sample(name, &text::label_set([("version", env!("CARGO_PKG_VERSION"))]), 1.0, &mut out);
    (name, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposition_shows_plain_names_at_zero_and_in_order() {
        let text = exposition();
        assert!(text.contains("# TYPE etcd_server_proposals_applied_total gauge\n"));
        assert!(text.contains("\netcd_debugging_store_watchers 0\n"));
        assert!(text.contains("\nquorate_build_info{version=\""));
        let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert!(names.is_sorted());
        assert!(names.len() > 80);
    }

    #[test]
    fn everything_that_is_shown_is_described() {
        CONFIG_RELOADS.with(["applied"]).inc();
        let (text, described) = (exposition(), described());
        for head in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let (name, help) = head.split_once(' ').unwrap();
            let known =
                described.iter().find(|known| known.name == name).unwrap_or_else(|| panic!("{name} is unknown"));
            assert_eq!((known.help, true), (help, text.contains(&format!("# TYPE {name} {}\n", known.kind))), "{name}");
        }
        for known in described {
            assert_eq!(known.versions.is_empty(), known.name.starts_with("quorate_"), "{}", known.name);
        }
    }

    #[test]
    fn a_proxy_shows_nothing_of_a_member() {
        let text = exposition_of_proxy();
        assert!(text.contains("\netcd_grpc_proxy_events_coalescing_total "));
        assert!(!text.contains("etcd_server_has_leader"));
    }

    #[test]
    fn old_names_share_the_instruments_of_the_new_ones() {
        let what = |name| TABLE.iter().find(|entry| entry.name == name).map(|entry| entry.what);
        let (new, old) = (what("etcd_mvcc_txn_total"), what("etcd_debugging_mvcc_txn_total"));
        assert!(new.zip(old).is_some_and(|(new, old)| std::ptr::addr_eq(new, old)));
    }
}
