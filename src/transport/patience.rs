//! How long to wait for the next bytes.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Runs out when nothing came for a while. Its timer is set again only when it fires, not for every byte.
#[derive(Debug)]
pub(super) struct Patience {
    length: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(length: Duration) -> Self {
        Self { length, waiting_since: None, timer: None }
    }

    /// Something came.
    pub(super) fn renew(&mut self) {
        self.waiting_since = None;
    }

    /// Nothing came yet: ready once that has lasted too long. The wait begins with the first call after the last
    /// [`Patience::renew`], so that the time somebody else takes does not count.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let end = *self.waiting_since.get_or_insert_with(Instant::now) + self.length;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn only_uninterrupted_waiting_counts() {
        let length = Duration::from_millis(400);
        let mut patience = Patience::new(length);
        let over = |patience: &mut Patience| patience.poll_over(&mut Context::from_waker(Waker::noop())).is_ready();
        assert!(!over(&mut patience));
        patience.renew();
        sleep(length).await;
        let begun = Instant::now();
        assert!(!over(&mut patience), "nobody waited meanwhile");
        poll_fn(|context| patience.poll_over(context)).await;
        assert!(begun.elapsed() >= length);
    }
}
