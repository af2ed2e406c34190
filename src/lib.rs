//! Quorate: a consensus key-value daemon that takes etcd's place.
//!
//! The modules stand on seven floors, each building only on the floors beneath it; `ARCHITECTURE.md` draws them and
//! `tests/floors.rs` checks them.

pub mod api;
pub mod apply;
pub mod cli;
pub mod client;
pub mod clock;
pub mod codec;
pub mod config;
pub mod daemon;
pub mod disk;
pub mod etcdfile;
pub mod lease;
pub mod membership;
pub mod metrics;
pub mod mvcc;
pub mod pb;
pub mod raft;
pub mod server;
pub mod storage;
pub mod transport;
pub mod types;
pub mod wal;
pub mod watch;
