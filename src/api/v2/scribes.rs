//! Long answers are written beside the tasks of others: a few megabytes of JSON take a worker thread for so long that
//! messages of raft wait behind it, and a leader that is silent is deposed.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{server::v2::V2Error, types::Rejection};

/// Long answers that are written at a time; others wait their turn. Few, because they take the processors from raft.
const LONG_ANSWERS_AT_ONCE_MAX: usize = 2;
/// Keys and values up to this length are written where they are.
const SHORT_ANSWER_BYTES: usize = 64 << 10;

/// Whoever writes answers.
#[derive(Clone, Debug)]
pub(in crate::api) struct Scribes {
    turns: Arc<Semaphore>,
}

impl Default for Scribes {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(LONG_ANSWERS_AT_ONCE_MAX)) }
    }
}

impl Scribes {
    /// What `write` makes of so many bytes of keys and values.
    ///
    /// # Errors
    /// The process is about to end.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        write: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, V2Error> {
        if bytes <= SHORT_ANSWER_BYTES {
            return Ok(write());
        }
        let stopped = || V2Error::from(Rejection::Stopped);
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| stopped())?;
        // The work goes on when its client has hung up, and has its turn until it is done.
        let in_turn = move || {
            let _turn = turn;
            write()
        };
        spawn_blocking(in_turn).await.map_err(|_| stopped())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::sync_channel,
        thread::{self, ThreadId},
    };

    use super::*;

    #[tokio::test]
    async fn only_what_is_short_is_written_where_it_is() {
        let scribes = Scribes::default();
        let who = async |bytes| -> ThreadId { scribes.write(bytes, || thread::current().id()).await.unwrap() };
        assert_eq!(who(SHORT_ANSWER_BYTES).await, thread::current().id());
        assert_ne!(
            who(SHORT_ANSWER_BYTES + 1).await,
            thread::current().id(),
            "a worker of many was held up by it once"
        );
    }

    #[tokio::test]
    async fn few_long_answers_are_written_at_a_time_though_nobody_waits_for_them() {
        let scribes = Scribes::default();
        let mut held = Vec::new();
        for _ in 0..LONG_ANSWERS_AT_ONCE_MAX {
            let (go_on, wait) = sync_channel::<()>(1);
            let mut hung_up = Box::pin(scribes.write(usize::MAX, move || wait.recv()));
            assert!(futures_util::poll!(&mut hung_up).is_pending());
            held.push(go_on);
        }
        assert_eq!(scribes.turns.available_permits(), 0);
        let mut next = Box::pin(scribes.write(usize::MAX, || true));
        assert!(futures_util::poll!(&mut next).is_pending());
        for go_on in &held {
            go_on.send(()).unwrap();
        }
        assert!(next.await.unwrap());
    }
}
