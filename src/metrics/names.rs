//! The table of instruments: etcd's names, types, labels and bounds, which dashboards and alerts query, and what each
//! one says. A name and a type once published stay; the odd gauges called `_total` are etcd's.

use super::{Collect, Counter, Family, Gauge, Histogram, Unit, doubling};

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The published name.
    pub name: &'static str,
    /// What the `# HELP` line says.
    pub help: &'static str,
    /// The versions of etcd that have it: from which on, 3.3 being the oldest looked at, or from which to which. Empty for
    /// what is ours alone.
    pub versions: &'static str,
    /// The instrument.
    pub what: &'static dyn Collect,
}

macro_rules! instruments {
    ($($instrument:ident: $kind:ty = $fresh:expr, $name:literal $(of $versions:literal)?
        $(also $old:literal of $old_versions:literal)?, $help:literal;)*) => {
        $(#[doc = $help] pub static $instrument: $kind = $fresh;)*

        /// Every instrument, in the order of the source.
        pub const TABLE: &[Entry] = &[$(
            Entry { name: $name, help: $help, versions: concat!("" $(, $versions)?), what: &$instrument },
            $(Entry { name: $old, help: $help, versions: $old_versions, what: &$instrument },)?
        )*];
    };
}

/// A family of counters, told apart by `L` labels.
pub type Counters<const L: usize> = Family<Counter, L>;
/// A family of gauges, told apart by `L` labels.
pub type Gauges<const L: usize> = Family<Gauge, L>;
/// A family of histograms, told apart by `L` labels.
pub type Histograms<const L: usize> = Family<Histogram, L>;

/// Disk operations: 1 ms to 8 s.
const DISK: &[f64] = &const { doubling::<14>(0.001) };
/// Requests inside the member: 100 µs to 52 s.
const REQUEST: &[f64] = &const { doubling::<20>(0.0001) };
/// Requests of the v2 API: 500 µs to 2 s.
const V2_REQUEST: &[f64] = &const { doubling::<13>(0.0005) };
/// Sending or receiving a snapshot: 100 ms to 51 s.
const TRANSFER: &[f64] = &const { doubling::<10>(0.1) };
/// Requests through the proxy: 500 µs to 2 s.
const PROXY: &[f64] = &const { doubling::<13>(0.0005) };
/// Walks over the whole state: 10 ms to 164 s.
const WALK: &[f64] = &const { doubling::<15>(0.01) };

const fn seconds(bounds: &'static [f64]) -> Histogram {
    Histogram::new(bounds, Unit::Seconds)
}

const fn milliseconds(bounds: &'static [f64]) -> Histogram {
    Histogram::new(bounds, Unit::Milliseconds)
}

const fn counters<const L: usize>(labels: [&'static str; L]) -> Counters<L> {
    Family::new(labels, Counter::new)
}

const fn gauges<const L: usize>(labels: [&'static str; L]) -> Gauges<L> {
    Family::new(labels, Gauge::new)
}

instruments! {
    // The member and the cluster.
    HAS_LEADER: Gauge = Gauge::new(), "etcd_server_has_leader" of "3.3", "1 while this member knows a leader.";
    IS_LEADER: Gauge = Gauge::new(), "etcd_server_is_leader" of "3.4", "1 while this member leads.";
    IS_LEARNER: Gauge = Gauge::new(), "etcd_server_is_learner" of "3.4", "1 while this member is a learner.";
    LEADER_CHANGES: Counter = Counter::new(), "etcd_server_leader_changes_seen_total" of "3.3",
        "Times this member has come to know a leader other than its last one.";
    SERVER_ID: Gauges<1> = gauges(["server_id"]),
        "etcd_server_id" of "3.4", "Always 1; the label is the member ID in hexadecimal.";
    SERVER_VERSION: Gauges<1> = gauges(["server_version"]), "etcd_server_version" of "3.3",
        "Always 1; the label is the version this member reports.";
    SERVER_RUNTIME: Gauges<1> = gauges(["server_go_version"]), "etcd_server_go_version" of "3.4",
        "Always 1; the label names the compiler this member was built with.";
    CLUSTER_VERSION: Gauges<1> = gauges(["cluster_version"]), "etcd_cluster_version" of "3.4",
        "1 for the cluster version in force, 0 for earlier ones.";
    FEATURE_ENABLED: Gauges<2> = gauges(["name", "stage"]), "etcd_server_feature_enabled" of "3.6",
        "1 for each feature gate that is on, 0 for each that is off.";
    CONFIG_RELOADS: Counters<1> = counters(["result"]), "quorate_config_reloads_total",
        "Times the configuration was read again while the member ran, by what came of it: applied or rejected.";
    SCHEDULED_SNAPSHOT_PERIOD: Gauge = Gauge::new(), "quorate_scheduled_snapshot_period_seconds",
        "Time between two snapshots that this member takes by itself, 0 while it takes none.";
    SCHEDULED_SNAPSHOT_LAST: Gauge = Gauge::new(), "quorate_scheduled_snapshot_last_success_timestamp_seconds",
        "When the newest scheduled snapshot was begun, in seconds since 1970; 0 before the first.";
    SCHEDULED_SNAPSHOT_BYTES: Gauge = Gauge::new(), "quorate_scheduled_snapshot_size_bytes",
        "Bytes of the newest scheduled snapshot.";
    SCHEDULED_SNAPSHOT_FAILURES: Counter = Counter::new(), "quorate_scheduled_snapshot_failures_total",
        "Scheduled snapshots that could not be taken.";
    AUDIT_RECORDS: Counters<1> = counters(["result"]), "quorate_audit_records_total",
        "Records of the audit log: written, dropped (they came faster than they could be written), stranger (the same, of refused clients that nobody knows) or failed (the disk refused them).";
    SPANS: Counters<1> = counters(["result"]), "quorate_spans_total",
        "Spans of calls: sent, failed (the collector did not take them) or dropped (they came faster than it takes them).";
    CERTIFICATE_ENDS: Gauges<2> = gauges(["file", "kind"]), "quorate_tls_certificate_end_timestamp_seconds",
        "When the first certificate in a file ends, or a list of revoked ones is due, in seconds since 1970.";
    HANDSHAKES_FAILED: Counters<2> = counters(["endpoint", "reason"]), "quorate_tls_handshakes_failed_total",
        "TLS handshakes of listeners that came to nothing: refused, timed out, or cut off to make room.";
    TOKENS_REFUSED: Counters<1> = counters(["reason"]), "quorate_auth_tokens_refused_total",
        "JSON web tokens that were not taken: malformed, method, signature, expired, early or claims.";
    CONNECTIONS_CUT: Counters<2> = counters(["endpoint", "reason"]), "quorate_connections_cut_total",
        "Connections that were ended because of their clients: slow (no whole head in time), malformed (no protocol \
         that is spoken here), flood (too many pings, resets or the like) or crowded (silent while others needed its place).";
    SCRAPES: Counters<1> = counters(["code"]), "promhttp_metric_handler_requests_total" of "3.4",
        "Answers to requests for these metrics, by status.";
    SCRAPES_IN_FLIGHT: Gauge = Gauge::new(), "promhttp_metric_handler_requests_in_flight" of "3.4",
        "Requests for these metrics that are being answered.";
    HTTP_RESPONSES: Counters<2> = counters(["code", "endpoint"]), "quorate_http_responses_total",
        "Answers to HTTP requests that are no gRPC calls, by status: what was refused is among them.";
    PROPOSALS_COMMITTED: Gauge = Gauge::new(), "etcd_server_proposals_committed_total" of "3.3",
        "Index of the last entry known to be committed.";
    PROPOSALS_APPLIED: Gauge = Gauge::new(),
        "etcd_server_proposals_applied_total" of "3.3", "Index of the last applied entry.";
    PROPOSALS_PENDING: Gauge = Gauge::new(),
        "etcd_server_proposals_pending" of "3.3", "Proposals waiting to be committed.";
    PROPOSALS_FAILED: Counter = Counter::new(), "etcd_server_proposals_failed_total" of "3.3",
        "Proposals that failed or timed out.";
    APPLY_DURATION: Histograms<3> = Family::new(["op", "success", "version"], || seconds(REQUEST)),
        "etcd_server_apply_duration_seconds" of "3.5", "Time to apply one entry.";
    RANGE_DURATION: Histograms<1> = Family::new(["success"], || seconds(REQUEST)),
        "etcd_server_range_duration_seconds" of "3.6", "Time to read one range.";
    REQUEST_DURATION: Histograms<2> = Family::new(["success", "type"], || seconds(DISK)),
        "etcd_server_request_duration_seconds" of "3.7", "Time from a client's request to its answer.";
    SLOW_APPLY: Counter = Counter::new(), "etcd_server_slow_apply_total" of "3.4",
        "Entries whose apply took longer than the warning threshold.";
    SLOW_READ_INDEXES: Counter = Counter::new(), "etcd_server_slow_read_indexes_total" of "3.4",
        "Read-index rounds that timed out or had to be repeated.";
    READ_INDEXES_FAILED: Counter = Counter::new(),
        "etcd_server_read_indexes_failed_total" of "3.4", "Failed read-index rounds.";
    HEARTBEAT_SEND_FAILURES: Counter = Counter::new(), "etcd_server_heartbeat_send_failures_total" of "3.4",
        "Heartbeats the leader sent too late.";
    SNAPSHOT_APPLY_IN_PROGRESS: Gauge = Gauge::new(), "etcd_server_snapshot_apply_in_progress_total" of "3.4",
        "1 while a received snapshot is being installed.";
    QUOTA_BYTES: Gauge = Gauge::new(),
        "etcd_server_quota_backend_bytes" of "3.4", "Size at which the state refuses to grow.";
    CLIENT_REQUESTS: Counters<2> = counters(["client_api_version", "type"]),
        "etcd_server_client_requests_total" of "3.4",
        "Requests by kind and by the version the client names.";
    LEARNER_PROMOTE_SUCCESSES: Counter = Counter::new(), "etcd_server_learner_promote_successes" of "3.4",
        "Learners this member promoted as leader.";
    LEARNER_PROMOTE_FAILURES: Counters<1> = counters(["Reason"]), "etcd_server_learner_promote_failures" of "3.4",
        "Promotions this member refused as leader.";
    HEALTH_SUCCESS: Counter = Counter::new(), "etcd_server_health_success" of "3.4", "Times /health answered well.";
    HEALTH_FAILURES: Counter = Counter::new(),
        "etcd_server_health_failures" of "3.4", "Times /health answered with a failure.";
    HEALTH_CHECK: Gauges<2> = gauges(["name", "type"]), "etcd_server_healthcheck" of "3.4",
        "1 if the check succeeded when it was last made.";
    HEALTH_CHECKS: Counters<3> = counters(["name", "status", "type"]), "etcd_server_healthchecks_total" of "3.4",
        "Health checks made, by outcome.";

    // Disk, log, snapshots.
    WAL_FSYNC: Histogram = seconds(DISK),
        "etcd_disk_wal_fsync_duration_seconds" of "3.3", "Time to sync the write-ahead log.";
    WAL_WRITE: Histogram = seconds(DISK), "etcd_disk_wal_write_duration_seconds" of "3.5",
        "Time to write one batch to the write-ahead log.";
    WAL_WRITE_BYTES: Gauge = Gauge::new(),
        "etcd_disk_wal_write_bytes_total" of "3.4", "Bytes written to the write-ahead log.";
    BACKEND_COMMIT: Histogram = seconds(DISK), "etcd_disk_backend_commit_duration_seconds" of "3.3",
        "Time to commit one batch to the state.";
    BACKEND_SNAPSHOT: Histogram = seconds(&const { doubling::<17>(0.01) }),
        "etcd_disk_backend_snapshot_duration_seconds" of "3.3", "Time to stream out a snapshot of the state.";
    BACKEND_DEFRAG: Histogram = seconds(&const { doubling::<13>(0.1) }),
        "etcd_disk_backend_defrag_duration_seconds" of "3.4",
        "Time to reclaim the state's unused space.";
    DEFRAG_INFLIGHT: Gauge = Gauge::new(),
        "etcd_disk_defrag_inflight" of "3.4", "1 while unused space is being reclaimed.";
    SNAP_FSYNC: Histogram = seconds(DISK), "etcd_snap_fsync_duration_seconds" of "3.4", "Time to sync a .snap file.";
    SNAP_DB_FSYNC: Histogram = seconds(DISK), "etcd_snap_db_fsync_duration_seconds" of "3.4",
        "Time to sync a received database file.";
    SNAP_DB_SAVE: Histogram = seconds(TRANSFER), "etcd_snap_db_save_total_duration_seconds" of "3.4",
        "Time to save a received database file.";
    SNAP_SAVE: Histogram = seconds(DISK), "etcd_debugging_snap_save_total_duration_seconds" of "3.3",
        "Time to save a .snap file.";
    SNAP_SAVE_ENCODING: Histogram = seconds(DISK), "etcd_debugging_snap_save_marshalling_duration_seconds" of "3.3",
        "Time to encode a .snap file.";

    // The key-value state.
    DB_TOTAL_BYTES: Gauge = Gauge::new(), "etcd_mvcc_db_total_size_in_bytes" of "3.4"
        also "etcd_debugging_mvcc_db_total_size_in_bytes" of "3.3 to 3.4", "Bytes the state takes on disk.";
    DB_IN_USE_BYTES: Gauge = Gauge::new(), "etcd_mvcc_db_total_size_in_use_in_bytes" of "3.4",
        "Bytes of the state that hold live data.";
    DB_OPEN_READS: Gauge = Gauge::new(),
        "etcd_mvcc_db_open_read_transactions" of "3.4", "Snapshots of the state held by readers.";
    MVCC_PUT: Counter = Counter::new(),
        "etcd_mvcc_put_total" of "3.4"
        also "etcd_debugging_mvcc_put_total" of "3.3 to 3.4",
        "Puts seen by this member.";
    MVCC_DELETE: Counter = Counter::new(),
        "etcd_mvcc_delete_total" of "3.4"
        also "etcd_debugging_mvcc_delete_total" of "3.3 to 3.4",
        "Deletes seen by this member.";
    MVCC_TXN: Counter = Counter::new(),
        "etcd_mvcc_txn_total" of "3.4"
        also "etcd_debugging_mvcc_txn_total" of "3.3 to 3.4",
        "Transactions seen by this member.";
    MVCC_RANGE: Counter = Counter::new(),
        "etcd_mvcc_range_total" of "3.4"
        also "etcd_debugging_mvcc_range_total" of "3.3 to 3.5",
        "Ranges read on this member.";
    MVCC_HASH: Histogram = seconds(WALK), "etcd_mvcc_hash_duration_seconds" of "3.4", "Time to hash the whole state.";
    MVCC_HASH_REV: Histogram = seconds(WALK), "etcd_mvcc_hash_rev_duration_seconds" of "3.4",
        "Time to hash the key space at a revision.";
    MVCC_KEYS: Gauge = Gauge::new(), "etcd_debugging_mvcc_keys_total" of "3.3", "Keys alive or not yet compacted away.";
    MVCC_REVISION: Gauge = Gauge::new(),
        "etcd_debugging_mvcc_current_revision" of "3.4", "Current revision of the key space.";
    MVCC_COMPACT_REVISION: Gauge = Gauge::new(), "etcd_debugging_mvcc_compact_revision" of "3.4",
        "Revision below which history is gone.";
    MVCC_PUT_BYTES: Gauge = Gauge::new(), "etcd_debugging_mvcc_total_put_size_in_bytes" of "3.4",
        "Bytes of keys and values put on this member.";
    WATCH_STREAMS: Gauge = Gauge::new(), "etcd_debugging_mvcc_watch_stream_total" of "3.3", "Open watch streams.";
    WATCHERS: Gauge = Gauge::new(), "etcd_debugging_mvcc_watcher_total" of "3.3", "Watchers.";
    SLOW_WATCHERS: Gauge = Gauge::new(), "etcd_debugging_mvcc_slow_watcher_total" of "3.3",
        "Watchers that are catching up from storage.";
    MVCC_EVENTS: Counter = Counter::new(), "etcd_debugging_mvcc_events_total" of "3.3", "Events sent to watchers.";
    MVCC_PENDING_EVENTS: Gauge = Gauge::new(), "etcd_debugging_mvcc_pending_events_total" of "3.3",
        "Events waiting to be sent to watchers.";
    COMPACTION_INDEX_PAUSE: Histogram = milliseconds(&const { doubling::<14>(0.5) }),
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds" of "3.3",
        "Time one compaction held up the index.";
    COMPACTION_PAUSE: Histogram = milliseconds(&const { doubling::<13>(1.0) }),
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds" of "3.3",
        "Time one step of a compaction held up the writer.";
    COMPACTION_TOTAL: Histogram = milliseconds(&const { doubling::<14>(100.0) }),
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds" of "3.3", "Time of one whole compaction.";
    COMPACTION_KEYS: Counter = Counter::new(), "etcd_debugging_mvcc_db_compaction_keys_total" of "3.3",
        "Versions of keys removed by compactions.";
    COMPACTION_LAST: Gauge = Gauge::new(), "etcd_debugging_mvcc_db_compaction_last" of "3.5",
        "Unix time of the last compaction, 0 if none since the start.";

    // The network.
    CLIENT_RECEIVED_BYTES: Counter = Counter::new(), "etcd_network_client_grpc_received_bytes_total" of "3.3",
        "Bytes of gRPC messages received from clients.";
    CLIENT_SENT_BYTES: Counter = Counter::new(), "etcd_network_client_grpc_sent_bytes_total" of "3.3",
        "Bytes of gRPC messages sent to clients.";
    PEER_RECEIVED_BYTES: Counters<1> = counters(["From"]), "etcd_network_peer_received_bytes_total" of "3.3",
        "Bytes received from each peer.";
    PEER_SENT_BYTES: Counters<1> = counters(["To"]),
        "etcd_network_peer_sent_bytes_total" of "3.3", "Bytes sent to each peer.";
    PEER_RECEIVED_FAILURES: Counters<1> = counters(["From"]), "etcd_network_peer_received_failures_total" of "3.3",
        "Messages from each peer that could not be received.";
    PEER_SENT_FAILURES: Counters<1> = counters(["To"]), "etcd_network_peer_sent_failures_total" of "3.3",
        "Messages to each peer that could not be sent.";
    PEER_ROUND_TRIP: Histograms<1> = Family::new(["To"], || seconds(&const { doubling::<16>(0.0001) })),
        "etcd_network_peer_round_trip_time_seconds" of "3.3", "Round-trip time to each peer.";
    KNOWN_PEERS: Gauges<2> = gauges(["Local", "Remote"]),
        "etcd_network_known_peers" of "3.6", "1 for each configured peer.";
    ACTIVE_PEERS: Gauges<2> = gauges(["Local", "Remote"]),
        "etcd_network_active_peers" of "3.4", "1 for each connected peer.";
    DISCONNECTED_PEERS: Counters<2> = counters(["Local", "Remote"]), "etcd_network_disconnected_peers_total" of "3.4",
        "Times the connection to each peer was lost.";
    STREAM_FAILURES: Counters<2> = counters(["API", "Type"]), "etcd_network_server_stream_failures_total" of "3.4",
        "Streams to clients that broke while sending or receiving.";
    SNAPSHOT_SEND_SUCCESS: Counters<1> = counters(["To"]), "etcd_network_snapshot_send_success" of "3.4",
        "Snapshots sent to each peer.";
    SNAPSHOT_SEND_FAILURES: Counters<1> = counters(["To"]), "etcd_network_snapshot_send_failures" of "3.4",
        "Snapshots that could not be sent to each peer.";
    SNAPSHOT_SEND_INFLIGHTS: Gauges<1> = gauges(["To"]), "etcd_network_snapshot_send_inflights_total" of "3.4",
        "Snapshots being sent to each peer.";
    SNAPSHOT_SEND_DURATION: Histograms<1> = Family::new(["To"], || seconds(TRANSFER)),
        "etcd_network_snapshot_send_total_duration_seconds" of "3.4", "Time to send a snapshot to each peer.";
    SNAPSHOT_RECEIVE_SUCCESS: Counters<1> = counters(["From"]), "etcd_network_snapshot_receive_success" of "3.4",
        "Snapshots received from each peer.";
    SNAPSHOT_RECEIVE_FAILURES: Counters<1> = counters(["From"]), "etcd_network_snapshot_receive_failures" of "3.4",
        "Snapshots from each peer that could not be received.";
    SNAPSHOT_RECEIVE_INFLIGHTS: Gauges<1> = gauges(["From"]), "etcd_network_snapshot_receive_inflights_total" of "3.4",
        "Snapshots being received from each peer.";
    SNAPSHOT_RECEIVE_DURATION: Histograms<1> = Family::new(["From"], || seconds(TRANSFER)),
        "etcd_network_snapshot_receive_total_duration_seconds" of "3.4", "Time to receive a snapshot from each peer.";

    // Leases, auth, alarms, watch streams.
    LEASE_GRANTED: Counter = Counter::new(), "etcd_debugging_lease_granted_total" of "3.4", "Leases granted.";
    LEASE_RENEWED: Counter = Counter::new(), "etcd_debugging_lease_renewed_total" of "3.4",
        "Renewals of leases seen by this member as leader.";
    LEASE_REVOKED: Counter = Counter::new(), "etcd_debugging_lease_revoked_total" of "3.4", "Leases revoked.";
    LEASE_TTL: Histogram = seconds(&const { doubling::<24>(1.0) }), "etcd_debugging_lease_ttl_total" of "3.4",
        "Lengths of leases in seconds.";
    LEASE_EXPIRED: Counter = Counter::new(),
        "etcd_debugging_server_lease_expired_total" of "3.3", "Leases that ran out.";
    AUTH_REVISION: Gauge = Gauge::new(),
        "etcd_debugging_auth_revision" of "3.4", "Revision of users, roles and permissions.";
    ALARMS: Gauges<2> = gauges(["alarm_type", "server_id"]),
        "etcd_debugging_server_alarms" of "3.6", "1 for each raised alarm.";
    WATCH_SEND: Histogram = seconds(DISK),
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds" of "3.7",
        "Time to hand one watch response to its stream.";
    WATCH_SEND_PER_EVENT: Histogram = seconds(DISK),
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds" of "3.7",
        "Time to hand one watch response to its stream, divided by its events.";
    WATCH_SEND_CONTROL: Histogram = seconds(DISK),
        "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds" of "3.7",
        "Time to hand the answer to a watch request to its stream.";
    WATCH_SEND_PROGRESS: Histogram = seconds(DISK),
        "etcd_debugging_server_watch_send_loop_progress_duration_seconds" of "3.7",
        "Time to hand a progress notification to its stream.";

    // The v2 store.
    STORE_READS: Counters<1> = counters(["action"]),
        "etcd_debugging_store_reads_total" of "3.3", "Reads of the v2 store.";
    STORE_READS_FAILED: Counters<1> = counters(["action"]), "etcd_debugging_store_reads_failed_total" of "3.3",
        "Reads of the v2 store that failed.";
    STORE_WRITES: Counters<1> = counters(["action"]),
        "etcd_debugging_store_writes_total" of "3.3", "Writes to the v2 store.";
    STORE_WRITES_FAILED: Counters<1> = counters(["action"]), "etcd_debugging_store_writes_failed_total" of "3.3",
        "Writes to the v2 store that failed.";
    STORE_EXPIRES: Counter = Counter::new(),
        "etcd_debugging_store_expires_total" of "3.3", "Keys of the v2 store that ran out.";
    STORE_WATCH_REQUESTS: Counter = Counter::new(), "etcd_debugging_store_watch_requests_total" of "3.3",
        "Watches of the v2 store ever asked for.";
    STORE_WATCHERS: Gauge = Gauge::new(), "etcd_debugging_store_watchers" of "3.3", "Watches of the v2 store waiting.";

    // The v2 API over HTTP.
    V2_RECEIVED: Counters<1> = counters(["method"]),
        "etcd_http_received_total" of "3.3 to 3.5", "Requests of the v2 API but watches.";
    V2_FAILED: Counters<2> = counters(["code", "method"]), "etcd_http_failed_total" of "3.3 to 3.5",
        "Requests of the v2 API but watches that were refused.";
    V2_SUCCESS_DURATION: Histograms<1> = Family::new(["method"], || seconds(V2_REQUEST)),
        "etcd_http_successful_duration_seconds" of "3.3 to 3.5",
        "Time to answer a request of the v2 API but a watch.";

    // The gRPC proxy; etcd's members show these, too.
    PROXY_WATCHERS_COALESCED: Gauge = Gauge::new(), "etcd_grpc_proxy_watchers_coalescing_total" of "3.3",
        "Watchers that share a watch on the cluster with another one.";
    PROXY_EVENTS_COALESCED: Counter = Counter::new(), "etcd_grpc_proxy_events_coalescing_total" of "3.3",
        "Deliveries to watchers that cost the cluster none of its own.";
    PROXY_CACHE_KEYS: Gauge = Gauge::new(), "etcd_grpc_proxy_cache_keys_total" of "3.3", "Answers kept.";
    PROXY_CACHE_HITS: Gauge = Gauge::new(),
        "etcd_grpc_proxy_cache_hits_total" of "3.3", "Reads answered from what was kept.";
    PROXY_CACHE_MISSES: Gauge = Gauge::new(), "etcd_grpc_proxy_cache_misses_total" of "3.3",
        "Reads that might have been answered from what was kept.";

    // The v2 HTTP proxy.
    PROXY_REQUESTS: Counters<1> = counters(["method"]),
        "etcd_proxy_requests_total" of "3.3 to 3.5", "Requests that clients have sent to the proxy.";
    PROXY_HANDLED: Counters<2> = counters(["code", "method"]), "etcd_proxy_handled_total" of "3.3 to 3.5",
        "Requests that the proxy has answered, by the status of the answer.";
    PROXY_DROPPED: Counters<2> = counters(["method", "proxying_error"]), "etcd_proxy_dropped_total" of "3.3 to 3.5",
        "Requests to which the proxy had no answer of a member.";
    PROXY_DURATION: Histograms<1> = Family::new(["method"], || seconds(PROXY)),
        "etcd_proxy_handling_duration_seconds" of "3.3 to 3.5",
        "Time from a request to the head of its answer.";

    // The host.
    OS_FD_LIMIT: Gauge = Gauge::new(), "os_fd_limit" of "3.4", "Most file descriptors this process may open.";
    OS_FD_USED: Gauge = Gauge::new(), "os_fd_used" of "3.4", "File descriptors this process has open.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        let names: BTreeSet<_> = TABLE.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), TABLE.len());
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'2');
        assert!(names.iter().all(|name| plain(name)));
    }

    #[test]
    fn labels_are_declared_in_printed_order() {
        for entry in TABLE {
            let labels = entry.what.labels();
            assert!(labels.is_sorted(), "{}: {labels:?}", entry.name);
        }
    }

    #[test]
    fn help_is_one_sentence_on_one_line() {
        assert!(TABLE.iter().all(|entry| entry.help.ends_with('.') && !entry.help.contains(['\n', '\\'])));
    }
}
