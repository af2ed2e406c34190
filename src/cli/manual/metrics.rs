//! The page of the metrics, from their table.

use super::{prose, roff::Roff};
use crate::metrics::{self, Described};

/// Under which heading names stand, by how they begin.
const SECTIONS: [(&str, &[&str]); 8] = [
    ("Member, proposals and requests", &["etcd_server_", "etcd_cluster_"]),
    ("Disk, log and snapshots", &["etcd_disk_", "etcd_snap_", "etcd_debugging_disk_", "etcd_debugging_snap_"]),
    ("Keys, revisions and watches", &["etcd_mvcc_", "etcd_debugging_mvcc_"]),
    ("Network", &["etcd_network_", "grpc_server_"]),
    ("Leases, users and alarms", &["etcd_debugging_lease_", "etcd_debugging_auth_", "etcd_debugging_server_"]),
    ("The v2 API and proxies", &["etcd_debugging_store_", "etcd_http_", "etcd_proxy_", "etcd_grpc_proxy_"]),
    ("Process and host", &["process_", "os_", "promhttp_"]),
    ("What etcd does not have", &["quorate_"]),
];

pub(super) fn page() -> Roff {
    let page = Roff::new("quorate-metrics", 8, "metrics that quorate publishes")
        .heading("DESCRIPTION")
        .paragraphs(&prose::METRICS)
        .heading("METRICS");
    let all = metrics::described();
    let page = SECTIONS.into_iter().fold(page, |page, (title, beginnings)| {
        let under = all.iter().filter(|one| beginnings.iter().any(|begin| one.name.starts_with(begin)));
        under.fold(page.subheading(title), entry)
    });
    page.heading("NAMES OF ETCD THAT ARE MISSING")
        .items(&prose::METRICS_MISSING)
        .heading("SEE ALSO")
        .text("`quorate`(8), `quoratectl`(1)")
}

fn entry(page: Roff, described: &Described) -> Roff {
    let Described { name, kind, labels, help, versions } = described;
    let labels = if labels.is_empty() { String::new() } else { format!(" {{{}}}", labels.join(", ")) };
    let origin = match versions.split_once(" to ") {
        Some((first, last)) => format!("In etcd {first} to {last}."),
        None if versions.is_empty() => String::new(),
        None => format!("Since etcd {versions}."),
    };
    page.item(&format!("`{name}` {kind}{labels}"), &format!("{help}\n{origin}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_one_section() {
        for Described { name, .. } in metrics::described() {
            let sections = SECTIONS.iter().filter(|(_, all)| all.iter().any(|begin| name.starts_with(begin)));
            assert_eq!(sections.count(), 1, "{name}");
        }
    }
}
