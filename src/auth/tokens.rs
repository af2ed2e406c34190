//! What a user shows instead of his password: simple tokens, in etcd's form.
//!
//! A simple token is sixteen random letters, a point, and the index of the last entry before the one that assigned it. Every
//! member assigns it where it applies that entry, so that it counts at all of them, and counts its time by itself. Nothing
//! of it is stored: who meets a member that was started anew has to log in again.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use super::{Auth, Identity, Jwt};
use crate::{
    clock::Chance,
    types::{LogIndex, Ticks},
};

/// Lifetime of a token that nobody uses, unless configured (etcd's).
pub const TOKEN_TTL_DEFAULT: Duration = Duration::from_mins(5);
/// Tokens remembered; the one that would end first makes room for another. Some 50 MiB of them.
pub const TOKENS_MAX: usize = 1 << 18;
/// Random letters of a token: 91 bits.
const LETTERS: usize = 16;
const ALPHABET: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/// A token is not renewed more often than that, or than ten times in its lifetime, so that most uses change nothing.
const RENEWAL_MS: u64 = 1_000;

/// A token. Its owner is told it, and nobody else: it cannot be printed by accident.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(Arc<str>);

impl Token {
    /// The token whose random half is `prefix`, assigned by the entry behind `last`.
    pub fn assigned(prefix: &str, last: LogIndex) -> Self {
        Self(format!("{prefix}.{last}").into())
    }

    /// A token that says everything by itself.
    pub fn signed(text: String) -> Self {
        Self(text.into())
    }

    /// The last entry before the one that assigned `token`; nothing if that is no simple token.
    pub fn index(token: &str) -> Option<LogIndex> {
        let (_, index) = token.split_once('.')?;
        let digits = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        index.parse().ok().filter(|_| digits).map(LogIndex)
    }

    /// The text, for its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl std::borrow::Borrow<str> for Token {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Which tokens a member takes (`auth-token`).
#[derive(Clone, Debug)]
pub enum TokenKind {
    /// None at all: nobody can log in.
    None,
    /// Simple ones, which end when nobody has used them for this long.
    Simple(Duration),
    /// JSON web tokens, which say everything by themselves.
    Jwt(Arc<Jwt>),
}

/// The tokens of one member.
#[derive(Debug)]
pub enum Tokens {
    /// There are none, or none that are remembered.
    None,
    /// Simple ones.
    Simple(SimpleTokens),
}

impl Tokens {
    /// No token yet.
    pub fn new(kind: &TokenKind) -> Self {
        match kind {
            TokenKind::None | TokenKind::Jwt(_) => Self::None,
            TokenKind::Simple(ttl) => Self::Simple(SimpleTokens::new(*ttl)),
        }
    }

    /// What an entry that logs somebody in has to bring along: the random half of his token, empty for none.
    pub fn prefix(&self, chance: &mut impl Chance) -> String {
        match self {
            Self::None => String::new(),
            Self::Simple(_) => random_letters(chance),
        }
    }

    /// From now on `token` stands for `user`.
    pub fn assign(&mut self, user: &str, token: Token, now: Ticks) {
        if let Self::Simple(tokens) = self {
            tokens.assign(user, token, now);
        }
    }

    /// Whom `token` stands for, whose lifetime begins anew. He is recognised as what `auth` says of him now.
    pub fn recognise(&mut self, token: &str, auth: &Auth, now: Ticks) -> Option<Identity> {
        let Self::Simple(tokens) = self else { return None };
        tokens.use_now(token, now).map(|user| Identity { user: user.to_owned(), revision: auth.revision() })
    }

    /// As [`Tokens::recognise`], without a new lifetime.
    pub fn known(&self, token: &str, auth: &Auth, now: Ticks) -> Option<Identity> {
        let Self::Simple(tokens) = self else { return None };
        let held = tokens.held.get(token).filter(|held| held.end > now)?;
        Some(Identity { user: (*held.user).to_owned(), revision: auth.revision() })
    }

    /// No token stands for `user` any more.
    pub fn forget_user(&mut self, user: &str) {
        if let Self::Simple(tokens) = self {
            tokens.retain(|owner| owner != user);
        }
    }

    /// No token stands for anybody any more.
    pub fn forget_all(&mut self) {
        if let Self::Simple(tokens) = self {
            tokens.retain(|_| false);
        }
    }
}

/// Simple tokens, each with its owner and its end.
pub struct SimpleTokens {
    ttl_ms: u64,
    held: HashMap<Token, Held>,
    /// The same by their ends.
    ends: BTreeSet<(Ticks, Token)>,
}

struct Held {
    user: Arc<str>,
    end: Ticks,
}

impl fmt::Debug for SimpleTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimpleTokens").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

impl SimpleTokens {
    fn new(ttl: Duration) -> Self {
        let ttl = if ttl.is_zero() { TOKEN_TTL_DEFAULT } else { ttl };
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Self { ttl_ms, held: HashMap::new(), ends: BTreeSet::new() }
    }

    fn assign(&mut self, user: &str, token: Token, now: Ticks) {
        self.make_room(now);
        let end = self.end(now);
        self.ends.insert((end, token.clone()));
        self.held.insert(token, Held { user: user.into(), end });
    }

    fn use_now(&mut self, token: &str, now: Ticks) -> Option<&str> {
        let renewed = self.end(now);
        let (known, held) = self.held.get_key_value(token).filter(|(_, held)| held.end > now)?;
        if renewed.0.saturating_sub(held.end.0) >= RENEWAL_MS.min(self.ttl_ms / 10) {
            let (known, end) = (known.clone(), held.end);
            self.ends.remove(&(end, known.clone()));
            self.ends.insert((renewed, known));
            self.held.get_mut(token)?.end = renewed;
        }
        self.held.get(token).map(|held| held.user.as_ref())
    }

    /// Drops what has ended, and what ends first if that is not enough.
    fn make_room(&mut self, now: Ticks) {
        while self.ends.first().is_some_and(|(end, _)| *end <= now || self.held.len() >= TOKENS_MAX) {
            if let Some((_, token)) = self.ends.pop_first() {
                self.held.remove(&token);
            }
        }
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        let Self { held, ends, .. } = self;
        held.retain(|token, held| {
            let kept = keep(&held.user);
            if !kept {
                ends.remove(&(held.end, token.clone()));
            }
            kept
        });
    }

    fn end(&self, now: Ticks) -> Ticks {
        Ticks(now.0.saturating_add(self.ttl_ms))
    }
}

fn random_letters(chance: &mut impl Chance) -> String {
    let mut letter = || {
        let place = usize::try_from(chance.below(ALPHABET.len() as u64)).unwrap_or(0);
        char::from(ALPHABET.get(place).copied().unwrap_or(b'a'))
    };
    (0..LETTERS).map(|_| letter()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededChance;

    fn token(text: &str) -> Token {
        Token(text.into())
    }

    fn simple(ttl_ms: u64) -> SimpleTokens {
        SimpleTokens::new(Duration::from_millis(ttl_ms))
    }

    #[test]
    fn tokens_are_letters_and_the_index_before_their_entry() {
        let prefix = Tokens::new(&TokenKind::Simple(TOKEN_TTL_DEFAULT)).prefix(&mut SeededChance::new(1));
        assert_eq!(prefix.len(), LETTERS);
        assert!(prefix.bytes().all(|letter| letter.is_ascii_alphabetic()));
        let token = Token::assigned(&prefix, LogIndex(41));
        assert_eq!(token.reveal(), format!("{prefix}.41"));
        assert_eq!(Token::index(token.reveal()), Some(LogIndex(41)));
        for garbage in ["", "abc", "abc.", "abc.x", "abc.+1", "abc.-1", "abc.1.2", "abc.99999999999999999999"] {
            assert_eq!(Token::index(garbage), None, "{garbage}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_token_ends_unless_it_is_used() {
        let mut tokens = simple(10_000);
        tokens.assign("u", token("a.1"), Ticks(0));
        tokens.assign("v", token("b.2"), Ticks(0));
        assert_eq!(tokens.use_now("a.1", Ticks(9_999)), Some("u"));
        assert_eq!(tokens.use_now("a.1", Ticks(19_998)), Some("u"));
        assert_eq!(tokens.use_now("a.1", Ticks(29_998)), None);
        assert_eq!(tokens.use_now("b.2", Ticks(10_000)), None);
        assert_eq!(tokens.use_now("c.3", Ticks(0)), None);
        tokens.assign("w", token("d.4"), Ticks(40_000));
        assert_eq!((tokens.held.len(), tokens.ends.len()), (1, 1), "what has ended is gone");
    }

    #[test]
    fn a_short_time_is_renewed_as_well() {
        let mut tokens = simple(100);
        tokens.assign("u", token("a.1"), Ticks(0));
        assert_eq!(tokens.use_now("a.1", Ticks(99)), Some("u"));
        assert_eq!(tokens.use_now("a.1", Ticks(198)), Some("u"));
        assert_eq!(tokens.use_now("a.1", Ticks(298)), None);
    }

    #[test]
    fn tokens_go_with_their_user_and_with_authentication() {
        let mut tokens = Tokens::new(&TokenKind::Simple(TOKEN_TTL_DEFAULT));
        for (user, text) in [("u", "a.1"), ("u", "b.2"), ("v", "c.3")] {
            tokens.assign(user, token(text), Ticks(0));
        }
        let auth = Auth::default();
        tokens.forget_user("u");
        let known = |tokens: &mut Tokens| ["a.1", "b.2", "c.3"].map(|text| tokens.recognise(text, &auth, Ticks(1)));
        let of_v = Some(Identity { user: "v".to_owned(), revision: 1 });
        assert_eq!(known(&mut tokens), [None, None, of_v]);
        tokens.forget_all();
        assert_eq!(known(&mut tokens), [None, None, None]);
        let Tokens::Simple(tokens) = tokens else { panic!("simple ones") };
        assert!(tokens.held.is_empty() && tokens.ends.is_empty());
    }

    #[test]
    fn the_number_of_tokens_is_bounded() {
        let mut tokens = simple(10_000);
        for number in 0..=TOKENS_MAX as u64 {
            tokens.assign("u", Token::assigned("a", LogIndex(number)), Ticks(number / 1_000));
        }
        assert_eq!((tokens.held.len(), tokens.ends.len()), (TOKENS_MAX, TOKENS_MAX));
        assert_eq!(tokens.use_now("a.0", Ticks(0)), None, "the one that ended first");
    }

    #[test]
    fn without_a_kind_nobody_is_recognised() {
        let mut tokens = Tokens::new(&TokenKind::None);
        assert_eq!(tokens.prefix(&mut SeededChance::new(1)), "");
        tokens.assign("u", token("a.1"), Ticks(0));
        assert_eq!(tokens.recognise("a.1", &Auth::default(), Ticks(0)), None);
    }
}
