//! Nodes that stand in for a cluster without being members of it: the TCP gateway, the gRPC proxy, and the HTTP proxy that
//! every machine can have on its own loopback address.
//!
//! [`endpoints`] is what they share: where the cluster is, which of it answers, and how both change while they run.
//!
//! Invariants: a connection or request that this module holds is bounded in number, and in bytes by what the other side has
//! room for; an endpoint that does not answer costs one time-out and then nothing for as long as its failure wait; when the
//! whole cluster is away every client hears so at once, and nothing has to be restarted when it comes back.

mod accept;
pub mod dial;
pub mod directory;
pub mod endpoints;
pub mod gateway;
pub mod grpc;
pub mod http;
pub mod members;
mod timed;

pub use accept::Accept;
