//! What JSON web tokens said whose signatures were right, and tokens that were signed a moment ago.
//!
//! Whether a signature is right never changes while a member has the same keys, so it is asked once and not with every
//! request, which takes up to milliseconds. What a token says is judged anew with every use: its time here, its user and auth
//! revision by whoever asks what he may do. So nothing has to be forgotten when users change. A wrong token is never
//! remembered.
//!
//! Claims end at a whole second, so a user who logs in twice within one is told the same claims, and may be told the same
//! token.

use std::{collections::HashMap, fmt, mem, time::Duration};

use super::{Identity, Unread};

/// Longest token that is remembered. Ours are shorter, unless the name of their user is very long.
const REMEMBERED_BYTES_MAX: usize = 2 * 1024;
/// Tokens of one generation; there are two of them. So they take 16 MiB at the most, and 4 MiB as tokens usually are.
const GENERATION_MAX: usize = 4_096;
/// Users whose newest token is kept.
const SIGNED_MAX: usize = 1_024;

/// What a token says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claims {
    /// Who shows it.
    pub(super) identity: Identity,
    /// When it begins to count, in seconds since the Unix epoch; nothing if it always did.
    pub(super) begin: Option<i64>,
    /// When it ends; nothing if it never does.
    pub(super) end: Option<i64>,
}

impl Claims {
    /// Who shows the token, if its time is `now`.
    ///
    /// # Errors
    /// [`Unread::Expired`], [`Unread::Early`].
    pub(super) fn at(&self, now: Duration) -> Result<Identity, Unread> {
        // Both limits are whole seconds.
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if self.end.is_some_and(|end| now >= end) {
            return Err(Unread::Expired);
        }
        if self.begin.is_some_and(|begin| now < begin) {
            return Err(Unread::Early);
        }
        Ok(self.identity.clone())
    }
}

/// Tokens whose signatures were right. Those that nobody has used for a generation make room for others.
#[derive(Default)]
pub(super) struct Verified {
    young: HashMap<Box<str>, Claims>,
    old: HashMap<Box<str>, Claims>,
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("held", &self.len()).finish_non_exhaustive()
    }
}

impl Verified {
    /// What `token` says, if its signature was right.
    ///
    /// # Errors
    /// As [`Claims::at`].
    pub(super) fn recognise(&mut self, token: &str, now: Duration) -> Option<Result<Identity, Unread>> {
        if let Some(claims) = self.young.get(token) {
            return Some(claims.at(now));
        }
        let (token, claims) = self.old.remove_entry(token)?;
        let identity = claims.at(now);
        // What has ended will not count again.
        if identity != Err(Unread::Expired) {
            self.keep(token, claims);
        }
        Some(identity)
    }

    /// Remembers that the signature of `token` is right.
    pub(super) fn remember(&mut self, token: &str, claims: Claims) {
        if token.len() <= REMEMBERED_BYTES_MAX {
            self.keep(token.into(), claims);
        }
    }

    fn keep(&mut self, token: Box<str>, claims: Claims) {
        if self.young.len() >= GENERATION_MAX {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(token, claims);
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// The newest token of each user.
#[derive(Default)]
pub(super) struct Signed(HashMap<Box<str>, Newest>);

struct Newest {
    revision: u64,
    end: u64,
    token: String,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("held", &self.0.len()).finish_non_exhaustive()
    }
}

impl Signed {
    /// The token that says exactly this.
    pub(super) fn token(&self, user: &str, revision: u64, end: u64) -> Option<&str> {
        let newest = self.0.get(user).filter(|newest| (newest.revision, newest.end) == (revision, end))?;
        Some(&newest.token)
    }

    /// Keeps the token that says this.
    pub(super) fn keep(&mut self, user: &str, revision: u64, end: u64, token: &str) {
        if token.len() > REMEMBERED_BYTES_MAX {
            return;
        }
        if self.0.len() >= SIGNED_MAX {
            self.0.clear();
        }
        self.0.insert(user.into(), Newest { revision, end, token: token.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn claims(user: &str, begin: Option<i64>, end: Option<i64>) -> Claims {
        Claims { identity: Identity { user: user.to_owned(), revision: 7 }, begin, end }
    }

    #[test]
    fn what_is_remembered_is_judged_by_the_time_of_its_use() {
        let mut verified = Verified::default();
        let says = claims("alice", Some(90), Some(110));
        verified.remember("t", says.clone());
        assert_eq!(verified.recognise("t", NOW), Some(Ok(says.identity)));
        assert_eq!(verified.recognise("t", Duration::from_secs(89)), Some(Err(Unread::Early)));
        assert_eq!(verified.recognise("t", Duration::from_secs(110)), Some(Err(Unread::Expired)));
        assert_eq!(verified.recognise("u", NOW), None);
    }

    #[test]
    fn the_number_of_remembered_tokens_is_bounded_and_those_in_use_stay() {
        let mut verified = Verified::default();
        let says = claims("alice", None, None);
        verified.remember("used", says.clone());
        for number in 0..3 * GENERATION_MAX {
            verified.remember(&number.to_string(), says.clone());
            assert!(verified.recognise("used", NOW).is_some(), "{number}");
            assert!(verified.len() <= 2 * GENERATION_MAX + 1, "{}", verified.len());
        }
        assert_eq!(verified.recognise("0", NOW), None, "nobody has used it");
    }

    #[test]
    fn what_has_ended_goes_with_its_generation() {
        let mut verified = Verified::default();
        verified.remember("ended", claims("alice", None, Some(1)));
        for number in 0..GENERATION_MAX {
            verified.remember(&number.to_string(), claims("alice", None, None));
        }
        assert_eq!(verified.recognise("ended", NOW), Some(Err(Unread::Expired)));
        assert_eq!(verified.recognise("ended", NOW), None);
    }

    #[test]
    fn a_long_token_is_not_remembered() {
        let mut verified = Verified::default();
        let long = "a".repeat(REMEMBERED_BYTES_MAX + 1);
        verified.remember(&long, claims("alice", None, None));
        assert_eq!(verified.len(), 0);
        let mut signed = Signed::default();
        signed.keep("alice", 1, 2, &long);
        assert_eq!(signed.token("alice", 1, 2), None);
    }

    #[test]
    fn a_token_is_told_again_only_if_it_says_the_same() {
        let mut signed = Signed::default();
        signed.keep("alice", 7, 200, "t");
        assert_eq!(signed.token("alice", 7, 200), Some("t"));
        for (user, revision, end) in [("bob", 7, 200), ("alice", 8, 200), ("alice", 7, 201)] {
            assert_eq!(signed.token(user, revision, end), None);
        }
        for number in 0..2 * SIGNED_MAX {
            signed.keep(&number.to_string(), 7, 200, "t");
            assert!(signed.0.len() <= SIGNED_MAX);
        }
    }

    #[test]
    fn neither_shows_a_token() {
        let (mut verified, mut signed) = (Verified::default(), Signed::default());
        verified.remember("secret", claims("alice", None, None));
        signed.keep("alice", 7, 200, "secret");
        assert!(!format!("{verified:?} {signed:?}").contains("secret"));
    }
}
