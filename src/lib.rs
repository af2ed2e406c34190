//! Quorate: a consensus key-value daemon that takes etcd's place.
//!
//! The modules stand on seven floors, each building only on the floors beneath it; `ARCHITECTURE.md` draws them and
//! `tests/floors.rs` checks them.

pub mod api;
pub mod apply;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod client;
pub mod clock;
pub mod codec;
pub mod concurrency;
pub mod config;
pub mod daemon;
pub mod discovery;
pub mod disk;
pub mod etcdfile;
pub mod lease;
pub mod membership;
pub mod metrics;
pub mod mvcc;
pub mod pb;
pub mod proxy;
pub mod raft;
pub mod server;
pub mod spans;
pub mod storage;
pub mod tls;
pub mod transport;
pub mod types;
pub mod v2store;
pub mod wal;
pub mod watch;
