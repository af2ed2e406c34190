//! Commands of the client and the offline tools.
