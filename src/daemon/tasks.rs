//! The parts of the running daemon, started under a name and joined at the end.

use std::{future::Future, time::Duration};

use anyhow::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Owns every asynchronous part of the daemon. The first part to end unexpectedly ends the daemon, which restarts from
/// disk: after a failure memory may be ahead of it.
#[derive(Debug, Default)]
pub struct Tasks {
    stop: CancellationToken,
    running: JoinSet<(&'static str, Result<(), Error>)>,
}

/// A part that ended by itself, or failed.
#[derive(Debug)]
pub struct Ended {
    /// The name it was started under.
    pub name: &'static str,
    /// Why; `None` if it simply returned or panicked (the panic is in the log).
    pub cause: Option<Error>,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{} ended: {cause:#}", self.name),
            None => write!(f, "{} ended", self.name),
        }
    }
}

impl Tasks {
    /// Asked of every part once shutdown begins.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts `part`; it must return soon after [`Tasks::stop`] is cancelled.
    pub fn start(&mut self, name: &'static str, part: impl Future<Output = Result<(), Error>> + Send + 'static) {
        self.running.spawn(async move { (name, part.await) });
    }

    /// Waits for the first part that ends. Never resolves while all run.
    pub async fn first_end(&mut self) -> Ended {
        match self.running.join_next().await {
            Some(Ok((name, outcome))) => Ended { name, cause: outcome.err() },
            Some(Err(panic)) => Ended { name: "task", cause: Some(panic.into()) },
            None => std::future::pending().await,
        }
    }

    /// Asks every part to finish and waits; returns the number still busy after `grace`.
    pub async fn shut_down(mut self, grace: Duration) -> usize {
        self.stop.cancel();
        let all_done = async { while self.running.join_next().await.is_some() {} };
        match tokio::time::timeout(grace, all_done).await {
            Ok(()) => 0,
            Err(_) => self.running.len(),
        }
    }
}
