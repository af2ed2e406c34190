//! Where a cluster can be reached, and which of it answers: one mechanism for every kind of proxy.
//!
//! [`Pool`] is the value: told what was tried and what time it is, it says whom to ask next. [`Endpoints`] drives it with
//! the system's clock and is shared by all connections of a proxy; [`source`] brings new lists while it runs.
//!
//! Invariants: an endpoint that failed is asked for by nobody until its wait is over, unless all that is left fell silent; an endpoint that stays in the list
//! over a change keeps what is known of it; what is reported about one that has left changes nothing.

mod asked;
mod driver;
mod pool;
pub mod source;

pub use asked::Asked;
pub use driver::Endpoints;
pub use pool::{Endpoint, Pool, Recovery};

/// Most endpoints of one proxy; a list with more is no list of a cluster's members.
pub const ENDPOINTS_MAX: usize = 1024;
