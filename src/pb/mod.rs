//! The generated wire types of etcd's API, raft messages and log records, with their canonical JSON.
//!
//! Everything that reaches a client, a peer or the log is one of these messages. `bytes` fields are
//! [`bytes::Bytes`], so that a request is copied once on its way in and never again. Built from `proto/` by `build.rs`.

#![expect(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated; the schema in proto/ carries the documentation"
)]

/// Users, roles and permissions as stored.
pub mod authpb {
    include!(concat!(env!("OUT_DIR"), "/authpb.rs"));
    include!(concat!(env!("OUT_DIR"), "/authpb.serde.rs"));
}
/// The client API and the log entry that carries its requests.
pub mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.serde.rs"));
}
/// Leases as stored, and the peer-side lease messages.
pub mod leasepb {
    include!(concat!(env!("OUT_DIR"), "/leasepb.rs"));
}
/// Membership changes inside log entries.
pub mod membershippb {
    include!(concat!(env!("OUT_DIR"), "/membershippb.rs"));
    include!(concat!(env!("OUT_DIR"), "/membershippb.serde.rs"));
}
/// Key-value pairs and events.
pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
    include!(concat!(env!("OUT_DIR"), "/mvccpb.serde.rs"));
}
pub mod nested;
/// What etcd has no service for.
pub mod quorate {
    include!(concat!(env!("OUT_DIR"), "/quorate.rs"));
}
/// Raft messages as etcd sends them.
pub mod raftpb {
    include!(concat!(env!("OUT_DIR"), "/raftpb.rs"));
}
mod secret;
/// The election service.
pub mod v3electionpb {
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.rs"));
    include!(concat!(env!("OUT_DIR"), "/v3electionpb.serde.rs"));
}
/// The lock service.
pub mod v3lockpb {
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.rs"));
    include!(concat!(env!("OUT_DIR"), "/v3lockpb.serde.rs"));
}
/// Records of the write-ahead log and of `.snap` files.
pub mod walpb {
    include!(concat!(env!("OUT_DIR"), "/walpb.rs"));
}

/// The encoded file descriptors of every package, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
