//! Writers that keep to a pace.

use std::{cell::Cell, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use prost::encoding::encode_varint;
use tokio::{
    sync::Mutex,
    time::{Instant, Interval, interval},
};

use super::{
    super::super::failure::{Exit, Failure},
    report::Report,
};
use crate::{
    client::Client,
    clock::{Chance as _, SystemChance},
    pb::etcdserverpb::PutRequest,
};

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Clients with connections of their own, each of which has one write under way.
    pub(super) clients: usize,
    /// The rate that is wanted of a cluster.
    pub(super) writes_per_second: u32,
    /// The number of keys whose cost is wanted to be known.
    pub(super) keys: u64,
}

impl Load {
    /// Reads the name of a load.
    ///
    /// # Errors
    /// A [`Failure`] for any other text.
    pub(super) fn named(name: &str) -> Result<Self, Failure> {
        let (clients, writes_per_second, keys) = match name {
            "s" | "small" => (50, 150, 10_000),
            "m" | "medium" => (200, 1_000, 100_000),
            "l" | "large" => (500, 8_000, 1_000_000),
            "xl" | "xLarge" => (1_000, 15_000, 3_000_000),
            _ => return Err(Failure::new(Exit::BadFeature, format_args!("unknown load option {name}"))),
        };
        Ok(Self { clients, writes_per_second, keys })
    }
}

/// How long keys, behind their prefix, and values are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    key_bytes: usize,
    value_bytes: usize,
}

impl Shape {
    pub(super) const PERF: Self = Self { key_bytes: 256, value_bytes: 1024 };
    pub(super) const DATASCALE: Self = Self { key_bytes: 512, value_bytes: 512 };

    /// Bytes of both.
    pub(super) const fn bytes(self) -> usize {
        self.key_bytes + self.value_bytes
    }

    /// A key that hardly another write has.
    fn key(self, prefix: &str) -> Bytes {
        let mut key = prefix.as_bytes().to_vec();
        encode_varint(SystemChance.next_u64(), &mut key);
        key.resize(prefix.len() + self.key_bytes, 0);
        key.into()
    }
}

/// When writes begin.
#[derive(Debug)]
pub(super) struct Pace {
    /// Ticks for each write; without, it begins when a writer is free.
    ticks: Option<Mutex<Interval>>,
    until: Option<Instant>,
    /// Writes that may still begin.
    left: Cell<u64>,
    begun: Cell<u64>,
}

impl Pace {
    /// A steady rate for some time.
    pub(super) fn of(per_second: u32, duration: Duration) -> Self {
        // The timer counts in milliseconds: several writes begin at one of them.
        let ticks = interval(Duration::from_secs(1) / per_second.max(1));
        Self { ticks: Some(Mutex::new(ticks)), until: Some(Instant::now() + duration), ..Self::count(u64::MAX) }
    }

    /// A number of writes as fast as they can be.
    pub(super) fn count(writes: u64) -> Self {
        Self { ticks: None, until: None, left: Cell::new(writes), begun: Cell::new(0) }
    }

    /// How many writes have begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.get()
    }

    /// No write begins any more.
    pub(super) fn end(&self) {
        self.left.set(0);
    }

    /// Waits until the next write may begin; false if none may.
    async fn next(&self) -> bool {
        if let Some(ticks) = &self.ticks {
            let mut ticks = ticks.lock().await;
            // Whoever waits behind the end learns of it at once, and not at a tick of its own.
            if self.is_over() {
                return false;
            }
            ticks.tick().await;
        }
        let Some(left) = self.left.get().checked_sub(1).filter(|_| !self.is_over()) else { return false };
        self.left.set(left);
        self.begun.set(self.begun.get() + 1);
        true
    }

    fn is_over(&self) -> bool {
        self.left.get() == 0 || self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// Has every client write at `pace` until that ends.
pub(super) async fn write(clients: &[Client], prefix: &str, shape: Shape, pace: &Pace) -> Report {
    let begun = Instant::now();
    let value = Bytes::from(vec![0; shape.value_bytes]);
    let report = Cell::new(Report::default());
    let add = |outcome, took| {
        let mut so_far = report.take();
        so_far.add(outcome, took);
        report.set(so_far);
    };
    join_all(clients.iter().map(|client| {
        let value = value.clone();
        async move {
            while pace.next().await {
                let request = PutRequest { key: shape.key(prefix), value: value.clone(), ..PutRequest::default() };
                let begun = Instant::now();
                let outcome = client.call(request, None).await;
                add(outcome.map(drop).map_err(|error| error.to_string()), begun.elapsed());
            }
        }
    }))
    .await;
    report.take().ended_after(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_go_by_two_names() {
        assert_eq!(Load::named("xLarge"), Load::named("xl"));
        assert_eq!(Load::named("s").map(|load| load.writes_per_second), Ok(150));
        assert_eq!(Load::named("x").unwrap_err(), Failure::new(Exit::BadFeature, "unknown load option x"));
    }

    #[test]
    fn keys_have_one_length_and_differ() {
        let key = || Shape::PERF.key("/p/");
        assert_eq!((key().len(), key().starts_with(b"/p/"), key() == key()), (259, true, false));
    }

    #[tokio::test]
    async fn a_pace_ends_by_time_or_by_count_or_when_told() {
        let steady = Pace::of(100, Duration::from_millis(200));
        while steady.next().await {}
        assert!((1..=21).contains(&steady.begun()), "{}", steady.begun());
        let counted = Pace::count(2);
        assert_eq!([counted.next().await, counted.next().await, counted.next().await], [true, true, false]);
        let ended = Pace::count(2);
        ended.end();
        assert!(!ended.next().await);
    }
}
