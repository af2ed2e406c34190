//! Who is told about which change: streams, watchers, matching, catching up.
//!
//! [`Hub`] is a sans-I/O value. In go requests of clients, the changes of every revision, pieces of the past, time and
//! returned room; out come [`Delivery`] values, each of them one response of one stream, with its events encoded once
//! and shared by every watcher that gets the same ones.
//!
//! The driver hands in the changes of a revision before anybody can tell a client about it, and performs deliveries of
//! one stream in the order it gets them. It reads the past that [`Hub::plan`] asks for, answers `progress_notify` through
//! [`Hub::tick`], and returns room as the stream's client takes responses.
//!
//! Invariants:
//! - a watcher gets every matching event from its start on, in order, once, all events of a revision in one response
//!   (in fragments of one response where the client asked for them);
//! - a watcher is either *synced* (everything up to the hub's revision is on its way) or has a cursor into the past;
//! - a stream without room costs one cursor per watcher, never a queue;
//! - a progress response is above no event that its watchers still wait for;
//! - nothing about a watcher precedes its `created` response or follows its `canceled` one.

mod catch_up;
mod delivery;
mod encode;
mod frame;
mod hub;
mod intervals;
mod matcher;
mod serve;
pub(crate) mod slab;
mod stream;
#[cfg(test)]
mod tests;

pub use catch_up::{CatchUp, HISTORY_BYTES_MAX, HISTORY_REVISIONS_MAX, HISTORY_ROWS_MAX, Past, WATCHERS_PER_ROUND_MAX};
pub use delivery::{Body, Delivery, NO_WATCHER, RefusalReason};
pub use encode::{Batch, Cut, Cuts, Run, Selected};
pub use frame::{Frame, Frames, Header};
pub use hub::{Hub, HubStats};
pub use stream::{ROOM_BYTES, ROOM_RESPONSES, StreamId};
