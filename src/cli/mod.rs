//! Commands of the client and the offline tools.

pub mod config;
