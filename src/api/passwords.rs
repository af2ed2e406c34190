//! Hashes of passwords, which are slow on purpose, and what was found to be right before.
//!
//! A check takes some fifty milliseconds of a processor, and every single request asks for one. Whether a password fits a
//! hash never changes, so what was right once is remembered: as a digest of both and of a key that is this process's
//! alone, so that its memory shows no passwords. Wrong ones are never remembered; guessing stays slow, and waits for others
//! ([`super::turns`]). Who has no hash, or none that can be compared, is compared with one that nothing fits, and waits in
//! line like everybody else, so that neither the time nor a refusal tells who is a user.

use std::{
    collections::HashSet,
    fmt,
    net::IpAddr,
    num::NonZero,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use bcrypt::{HashParts, Version};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::turns::{Turn, Turns};
use crate::{
    clock::{Chance as _, SystemChance},
    types::Rejection,
};

/// The least cost that a hash may have (bcrypt's own bound).
const COST_MIN: u32 = 4;
/// The largest cost that is checked, if hashes are not made at a larger one: what an imported tree asks for beyond it takes
/// minutes.
const COST_MAX: u32 = 14;
/// Right answers remembered.
const REMEMBERED_MAX: usize = 1_024;

/// The line of hashes that are made: whoever guesses waits in another one.
const HASHES: &str = "\0hashes";

/// What tells a hash together with a password from all others.
type Fingerprint = [u8; 32];

/// Checks and makes hashes.
pub(super) struct Passwords {
    key: Fingerprint,
    right: Mutex<HashSet<Fingerprint>>,
    /// Turns at the processors: whoever guesses must not take all threads that may wait.
    turns: Arc<Turns>,
    /// Rounds of new hashes, as a power of two.
    cost: u32,
    /// What passwords of nobody are compared with.
    nobodys: Arc<OnceLock<Option<String>>>,
}

impl Passwords {
    /// Makes hashes at this cost, a power of two.
    pub(super) fn new(cost: u32) -> Self {
        let mut key = Fingerprint::default();
        for word in key.chunks_mut(size_of::<u64>()) {
            word.copy_from_slice(&SystemChance.next_u64().to_le_bytes());
        }
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { key, right: Mutex::default(), turns: Turns::new(processors), cost, nobodys: Arc::default() }
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

impl Passwords {
    /// The hash of `password`, in etcd's form.
    ///
    /// # Errors
    /// [`Rejection::TooManyRequests`] where too many are being made, [`Rejection::Stopped`] if the process is about to end.
    pub(super) async fn hash(&self, password: String) -> Result<String, Rejection> {
        let (turn, cost) = (self.turns.wait(None, HASHES).await?, self.cost);
        in_turn(turn, move || hash(&password, cost)).await.flatten().ok_or(Rejection::Stopped)
    }

    /// Whether `password` is the one of `hash`, which is that of `user`; nothing fits none, and that takes as long. Asked by
    /// the host `from`.
    ///
    /// # Errors
    /// [`Rejection::TooManyRequests`] where too many passwords of this user are being checked for this host.
    pub(super) async fn fits(
        &self,
        from: Option<IpAddr>,
        user: &str,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, Rejection> {
        let fingerprint = hash.as_ref().map(|hash| self.fingerprint(&password, hash));
        if fingerprint.is_some_and(|fingerprint| self.remembered().contains(&fingerprint)) {
            return Ok(true);
        }
        let (turn, cost, nobodys) = (self.turns.wait(from, user).await?, self.cost, Arc::clone(&self.nobodys));
        let hash = hash.filter(|hash| is_usable(hash, cost.max(COST_MAX)));
        let compare = move || match hash {
            Some(hash) => fits(&password, &hash),
            None => fits_nobody(&password, &nobodys, cost),
        };
        let right = in_turn(turn, compare).await.unwrap_or(false);
        if right && let Some(fingerprint) = fingerprint {
            let mut remembered = self.remembered();
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(fingerprint);
        }
        Ok(right)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashSet<Fingerprint>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fingerprint(&self, password: &str, hash: &str) -> Fingerprint {
        // The length tells where the hash ends.
        let length = u64::try_from(hash.len()).unwrap_or(u64::MAX).to_le_bytes();
        let mut digest = Sha256::new();
        for part in [&self.key, length.as_slice(), hash.as_bytes(), password.as_bytes()] {
            digest.update(part);
        }
        digest.finalize().into()
    }
}

/// The work goes on when its client has hung up, and has its turn until it is done.
async fn in_turn<T: Send + 'static>(turn: Turn, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let work = move || {
        let _turn = turn;
        work()
    };
    spawn_blocking(work).await.ok()
}

fn hash(password: &str, cost: u32) -> Option<String> {
    let salt = u128::from(SystemChance.next_u64()) << 64 | u128::from(SystemChance.next_u64());
    let parts = bcrypt::hash_with_salt(password, cost, salt.to_le_bytes());
    parts.ok().map(|parts| parts.format_for_version(Version::TwoA))
}

/// Takes as long as another comparison.
fn fits_nobody(password: &str, nobodys: &OnceLock<Option<String>>, cost: u32) -> bool {
    let hash = nobodys.get_or_init(|| hash(&SystemChance.next_u64().to_string(), cost));
    if let Some(hash) = hash {
        std::hint::black_box(fits(password, hash));
    }
    false
}

/// Whether passwords can be compared with `hash` at a cost that is paid here.
fn is_usable(hash: &str, cost_max: u32) -> bool {
    hash.parse::<HashParts>().is_ok_and(|parts| (COST_MIN..=cost_max).contains(&parts.get_cost()))
}

fn fits(password: &str, hash: &str) -> bool {
    bcrypt::verify(password, hash).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::FutureExt as _;

    use super::*;

    /// Made by etcd 3.5.1 for the password `secret`.
    const ETCDS: &str = "$2a$10$dn4M7JKsOdLi218lgHiPAO1khDcCQq6FkRHLWV2Tf6G0ywO4lLZ/a";

    #[tokio::test]
    async fn work_has_its_turn_until_it_is_done_though_nobody_waits_for_it() {
        let turns = Turns::new(1);
        let (go_on, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let mut hung_up = Box::pin(in_turn(turns.wait(None, "").await.unwrap(), move || wait.recv()));
        assert!(futures_util::poll!(&mut hung_up).is_pending());
        drop(hung_up);
        let mut next = Box::pin(turns.wait(None, ""));
        assert!(futures_util::poll!(&mut next).is_pending());
        go_on.send(()).unwrap();
        assert!(in_turn(next.await.unwrap(), || true).await.unwrap());
    }

    #[test]
    fn hashes_of_etcd_are_understood_and_ours_look_like_them() {
        assert!(fits("secret", ETCDS) && is_usable(ETCDS, COST_MAX));
        assert!(!fits("Secret", ETCDS));
        let ours = hash("secret", 10).unwrap();
        assert!(ours.starts_with("$2a$10$") && ours.len() == ETCDS.len(), "{ours}");
        assert!(fits("secret", &ours) && is_usable(&ours, COST_MAX));
        assert!(!is_usable(&ours, 9));
    }

    #[test]
    fn what_is_no_hash_fits_nothing() {
        let cost = |cost: &str| ETCDS.replace("$10$", &format!("${cost}$"));
        for hash in ["", "secret", "$2a$xx$", "$$$$", &cost("31"), &cost("03"), &cost("xx")] {
            assert!(!is_usable(hash, COST_MAX), "{hash}");
        }
    }

    #[tokio::test]
    async fn only_right_passwords_are_remembered() {
        let passwords = Passwords::new(4);
        let fits = async |password: &str, hash: Option<&str>| {
            passwords.fits(None, "u", password.to_owned(), hash.map(str::to_owned)).await.unwrap()
        };
        assert!(!fits("wrong", Some(ETCDS)).await);
        assert!(!fits("wrong", None).await);
        assert_eq!(passwords.remembered().len(), 0);
        assert!(fits("secret", Some(ETCDS)).await);
        assert_eq!(passwords.remembered().len(), 1);
        assert!(fits("secret", Some(ETCDS)).await);
        let (one, two) = (passwords.fingerprint("ab", "c"), passwords.fingerprint("b", "ac"));
        assert_ne!(one, two);
    }

    /// The refusals of a flood, and whether one more name waits for its turn: (how many of the flood were refused, whether
    /// the name was).
    async fn flooded(names: &[String], probed: &str, hash: Option<&str>) -> (usize, bool) {
        let passwords = Passwords::new(COST_MIN);
        let host = Some(IpAddr::from([192, 0, 2, 1]));
        let hash = hash.map(str::to_owned);
        let mut busy = Vec::new();
        while let Some(Ok(turn)) = passwords.turns.wait(None, HASHES).now_or_never() {
            busy.push(turn);
        }
        let guess = |name: String, hash: Option<String>| {
            let passwords = &passwords;
            async move { passwords.fits(host, &name, "guess".to_owned(), hash).await }.boxed()
        };
        let mut flood: Vec<_> = names.iter().map(|name| guess(name.clone(), hash.clone())).collect();
        for guess in &mut flood {
            assert!(futures_util::poll!(guess).is_pending());
        }
        let mut probe = guess(probed.to_owned(), hash);
        assert!(futures_util::poll!(&mut probe).is_pending(), "nobody is answered before a turn");
        let mut refused = 0;
        for guess in &mut flood {
            refused += usize::from(futures_util::poll!(guess) == Poll::Ready(Err(Rejection::TooManyRequests)));
        }
        (refused, futures_util::poll!(&mut probe).is_ready())
    }

    /// Names without a user once shared one line: who flooded it was refused the next such name, and no other.
    #[tokio::test]
    async fn a_flood_does_not_tell_who_is_a_user() {
        let made_up: Vec<String> = (0..65).map(|number| format!("made-up-{number}")).collect();
        let one_name = vec!["name".to_owned(); 64];
        for hash in [None, Some(ETCDS), Some("no hash")] {
            assert_eq!(flooded(&made_up, "another", hash).await, (0, false), "{hash:?}");
            assert_eq!(flooded(&one_name, "another", hash).await, (0, false), "{hash:?}");
            assert_eq!(flooded(&one_name, "name", hash).await, (1, false), "{hash:?}");
        }
    }

    /// What a client's first request costs is a hash; what the thousands after it cost is this.
    #[tokio::test]
    async fn what_was_right_before_is_right_at_once() {
        let passwords = Passwords::new(4);
        let fits = async || passwords.fits(None, "u", "secret".to_owned(), Some(ETCDS.to_owned())).await.unwrap();
        assert!(fits().await);
        let begun = crate::clock::Stopwatch::start();
        for _ in 0..10_000 {
            assert!(fits().await);
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?} for 10 000", begun.elapsed());
    }
}
