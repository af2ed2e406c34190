//! What one stranger may take: new tokens per minute and address, waits per token and altogether.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use super::token::Token;

/// Waits that are held open at a time: each costs a connection and a watcher, some 20 KiB together.
pub const WAITS_MAX: usize = 10_000;
/// Waits on one token: its members, and pages that somebody looks at.
pub const WAITS_PER_TOKEN_MAX: usize = 256;
/// Addresses whose requests are counted one by one; all further ones share an account.
pub const SOURCES_MAX: usize = 4_096;
/// Locks that tokens share: few enough to stand there always, and so many that tokens seldom wait for each other.
const LOCKS: u64 = 256;
/// The time over which requests are counted.
const MINUTE: Duration = Duration::from_mins(1);

/// A bucket of requests for each address, which fills again within a minute. A value: the time is told.
#[derive(Debug)]
pub(super) struct RateLimit {
    per_minute: u32,
    sources: HashMap<IpAddr, Bucket>,
    /// For addresses that have no bucket of their own.
    others: Bucket,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Requests that may be made at once, in parts of one.
    left: f64,
    /// When that was so.
    at: Duration,
}

impl RateLimit {
    /// At most so many requests of each address in a minute.
    pub(super) fn new(per_minute: u32) -> Self {
        let others = Bucket { left: f64::from(per_minute), at: Duration::ZERO };
        Self { per_minute, sources: HashMap::new(), others }
    }

    /// Counts one request of `source` at `now`.
    ///
    /// # Errors
    /// How long to wait for the next one, in whole seconds.
    pub(super) fn take(&mut self, source: IpAddr, now: Duration) -> Result<(), u64> {
        let (per_minute, source) = (f64::from(self.per_minute), network(source));
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            // Whoever has waited for a minute has a full bucket, which is the same as none.
            self.sources.retain(|_, bucket| now.saturating_sub(bucket.at) < MINUTE);
        }
        let is_crowded = self.sources.len() >= SOURCES_MAX;
        let bucket = match self.sources.get_mut(&source) {
            Some(bucket) => bucket,
            None if is_crowded => &mut self.others,
            None => self.sources.entry(source).or_insert(Bucket { left: per_minute, at: now }),
        };
        bucket.take(per_minute, now)
    }
}

impl Bucket {
    fn take(&mut self, per_minute: f64, now: Duration) -> Result<(), u64> {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.left = (self.left + passed * per_minute / MINUTE.as_secs_f64()).min(per_minute);
        self.at = now;
        if self.left >= 1.0 {
            self.left -= 1.0;
            return Ok(());
        }
        let wait = Duration::try_from_secs_f64((1.0 - self.left) * MINUTE.as_secs_f64() / per_minute);
        Err(wait.map_or(MINUTE.as_secs(), |wait| wait.as_secs() + 1))
    }
}

/// Who counts as one: an IPv4 address, or the 64 bits of an IPv6 address that a site gets.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

/// Counts the waits that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    open: Arc<Mutex<HashMap<Token, usize>>>,
}

/// One open wait; it ends when dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    waits: Waits,
    token: Token,
}

impl Waits {
    /// A place for a wait on `token`; `None` if there is none left.
    pub(super) fn begin(&self, token: &Token) -> Option<Waiting> {
        let mut open = self.lock();
        let all: usize = open.values().sum();
        let of_token = open.entry(token.clone()).or_default();
        if all >= WAITS_MAX || *of_token >= WAITS_PER_TOKEN_MAX {
            if *of_token == 0 {
                open.remove(token);
            }
            return None;
        }
        *of_token += 1;
        Some(Waiting { waits: self.clone(), token: token.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Token, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut open = self.waits.lock();
        let left = open.get_mut(&self.token).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            open.remove(&self.token);
        }
    }
}

/// Lets changes of one token happen one after the other. Tokens of one lock wait for each other, too; which those are
/// nobody outside can tell.
#[derive(Debug)]
pub(super) struct Turns {
    locks: Vec<tokio::sync::Mutex<()>>,
    hasher: RandomState,
}

/// The turn of one change; it ends when dropped.
pub(super) type Turn<'a> = tokio::sync::MutexGuard<'a, ()>;

impl Default for Turns {
    fn default() -> Self {
        Self { locks: (0..LOCKS).map(|_| tokio::sync::Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Turns {
    /// The turn of a change of `token`; `None` if it has not come in this time.
    pub(super) async fn take(&self, token: &Token, patience: Duration) -> Option<Turn<'_>> {
        let place = usize::try_from(self.hasher.hash_one(token) % LOCKS).ok()?;
        timeout(patience, self.locks.get(place)?.lock()).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_of_one_token_come_one_after_the_other() {
        let (turns, token) = (Turns::default(), Token::fresh());
        let turn = turns.take(&token, Duration::ZERO).await;
        assert!(turn.is_some());
        assert!(turns.take(&token, Duration::ZERO).await.is_none());
        drop(turn);
        assert!(turns.take(&token, Duration::ZERO).await.is_some());
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn each_address_has_a_bucket_that_fills_again() {
        let mut limit = RateLimit::new(2);
        let second = Duration::from_secs;
        assert_eq!(limit.take(address(1), second(0)), Ok(()));
        assert_eq!(limit.take(address(1), second(0)), Ok(()));
        assert_eq!(limit.take(address(1), second(1)), Err(30), "the next one is there after half a minute");
        assert_eq!(limit.take(address(2), second(1)), Ok(()), "another address");
        assert_eq!(limit.take(address(1), second(31)), Ok(()));
        assert!(limit.take(address(1), second(31)).is_err());
        assert_eq!(limit.take(address(1), second(300)), Ok(()));
    }

    #[test]
    fn addresses_of_one_site_count_as_one() {
        let mut limit = RateLimit::new(1);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(limit.take(address("2001:db8::1"), Duration::ZERO), Ok(()));
        assert!(limit.take(address("2001:db8::ffff"), Duration::ZERO).is_err());
        assert_eq!(limit.take(address("2001:db8:0:1::1"), Duration::ZERO), Ok(()));
        assert_eq!(limit.take(address("::ffff:192.0.2.1"), Duration::ZERO), Ok(()));
        assert!(limit.take(address("192.0.2.1"), Duration::ZERO).is_err(), "the same address, written otherwise");
    }

    #[test]
    fn a_crowd_of_addresses_takes_no_memory_and_no_more_than_one_of_them() {
        let mut limit = RateLimit::new(1);
        for number in 0..u32::try_from(2 * SOURCES_MAX).unwrap() {
            let passed = limit.take(IpAddr::from(number.to_be_bytes()), Duration::ZERO).is_ok();
            assert_eq!(passed, usize::try_from(number).unwrap() <= SOURCES_MAX, "{number}");
        }
        assert_eq!(limit.sources.len(), SOURCES_MAX);
        assert!(limit.take(address(1), Duration::ZERO).is_err());
        assert_eq!(limit.take(address(1), Duration::from_mins(2)), Ok(()), "those who went away are forgotten");
        assert_eq!(limit.sources.len(), 1);
    }

    #[test]
    fn a_token_has_so_many_waits_and_no_more() {
        let (waits, token) = (Waits::default(), Token::fresh());
        let mut open: Vec<_> = (0..WAITS_PER_TOKEN_MAX).map(|_| waits.begin(&token).unwrap()).collect();
        assert!(waits.begin(&token).is_none());
        assert!(waits.begin(&Token::fresh()).is_some(), "of another token");
        open.pop();
        assert!(waits.begin(&token).is_some());
        open.clear();
        assert!(waits.lock().is_empty());
    }
}
