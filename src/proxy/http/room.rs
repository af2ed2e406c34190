//! What may be on its way through the node, bounded for all connections together.
//!
//! Every HTTP/2 connection has a window of its own, and the more of them there are, the smaller it is: each takes its part
//! of what the others have left. One that finds nothing left has HTTP/2's own smallest window, which is less than the
//! system keeps for its socket anyway. In the same way bodies are kept only as long as there is room for them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The windows of all connections together, those to members included, but for the smallest ones.
const WINDOWS_BYTES_MAX: u32 = 512 << 20;
/// What a connection takes of what is left: the first has 8 MiB, the hundredth still 1.6 MiB.
const WINDOW_PART: u32 = 64;
/// The window of a connection that finds nothing left (RFC 9113, §6.9.2).
const WINDOW_BYTES_MIN: u32 = (64 << 10) - 1;
/// What may be on its way in one direction of one call before it is taken.
const STREAM_WINDOW_BYTES_MAX: u32 = 256 << 10;
/// So many calls at least a client may leave untaken before its others wait.
const UNTAKEN_CALLS: u32 = 4;
/// The longest request body that is kept until it was answered, so that it can be sent to another member: it holds any
/// request of the default size. A longer one, or one of unknown length, is handed on as it comes.
const KEPT_BYTES_MAX: usize = 2 << 20;
/// All bodies that are kept at a time. Who finds no room is handed on as it comes, and not sent a second time.
const KEPT_BYTES_ALL_MAX: usize = 64 << 20;

/// The room that all connections share.
#[derive(Clone, Debug)]
pub(super) struct Room {
    windows_left: Arc<Mutex<u32>>,
    kept: Arc<Semaphore>,
}

/// The window of one connection; it goes back when dropped.
#[derive(Debug)]
pub(super) struct Window {
    left: Arc<Mutex<u32>>,
    /// What was taken; nothing for the smallest window.
    taken: u32,
}

impl Default for Room {
    fn default() -> Self {
        let windows_left = Arc::new(Mutex::new(WINDOWS_BYTES_MAX));
        Self { windows_left, kept: Arc::new(Semaphore::new(KEPT_BYTES_ALL_MAX)) }
    }
}

impl Room {
    /// A window for another connection.
    pub(super) fn window(&self) -> Window {
        let mut left = lock(&self.windows_left);
        let part = *left / WINDOW_PART;
        let taken = if part > WINDOW_BYTES_MIN { part } else { 0 };
        *left -= taken;
        Window { left: Arc::clone(&self.windows_left), taken }
    }

    /// Room to keep a body of so many bytes; `None` for one that is too long, or if there is none left.
    pub(super) fn keep(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= KEPT_BYTES_MAX)?;
        Arc::clone(&self.kept).try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }
}

impl Window {
    /// Of the whole connection, in bytes.
    pub(super) fn connection(&self) -> u32 {
        self.taken.max(WINDOW_BYTES_MIN)
    }

    /// Of each of its calls, in bytes.
    pub(super) fn stream(&self) -> u32 {
        (self.connection() / UNTAKEN_CALLS).min(STREAM_WINDOW_BYTES_MAX)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        *lock(&self.left) += self.taken;
    }
}

fn lock(left: &Mutex<u32>) -> MutexGuard<'_, u32> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_all_connections_together_are_bounded() {
        let room = Room::default();
        let windows: Vec<Window> = (0..10_000).map(|_| room.window()).collect();
        let above_least = |window: &Window| u64::from(window.connection() - WINDOW_BYTES_MIN);
        assert!(windows.iter().map(above_least).sum::<u64>() <= u64::from(WINDOWS_BYTES_MAX));
        let first = windows.first().unwrap();
        assert_eq!((first.connection(), first.stream()), (8 << 20, STREAM_WINDOW_BYTES_MAX));
        let last = windows.last().unwrap();
        assert_eq!(last.connection(), WINDOW_BYTES_MIN);
        assert!(last.stream() * UNTAKEN_CALLS <= last.connection(), "one call keeps no others waiting");
        drop(windows);
        assert_eq!(room.window().connection(), 8 << 20, "what is over gives back what it took");
    }

    #[test]
    fn bodies_are_kept_while_there_is_room() {
        let room = Room::default();
        let long = u64::try_from(KEPT_BYTES_MAX).unwrap();
        assert!(room.keep(long + 1).is_none());
        let kept: Vec<_> = std::iter::from_fn(|| room.keep(long)).collect();
        assert_eq!(kept.len(), KEPT_BYTES_ALL_MAX / KEPT_BYTES_MAX);
        assert!(room.keep(1).is_none() && room.keep(0).is_some());
        drop(kept);
        assert!(room.keep(1).is_some());
    }
}
