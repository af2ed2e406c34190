//! The names in the tree: tokens, and the members that register under them.

use std::fmt;

use crate::clock::{Chance, SystemChance};

/// Bytes of chance in a token.
const TOKEN_BYTES: usize = 16;
/// Longest name of a member in the tree, in bytes; members use their identifiers, which have at most sixteen digits.
pub const MEMBER_BYTES_MAX: usize = 64;

/// One cluster that is to be: 32 lower-case hexadecimal digits, as the public service has them. Whoever knows it may
/// register, so it is drawn from the system's chance and never listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(String);

impl Token {
    /// A token nobody knows yet.
    pub fn fresh() -> Self {
        let mut chance = SystemChance;
        let halves = [chance.next_u64(), chance.next_u64()];
        Self(halves.map(|half| format!("{half:016x}")).concat())
    }

    /// The token that `text` spells; `None` if it spells none.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (text.len() == 2 * TOKEN_BYTES && text.bytes().all(is_digit)).then(|| Self(text.to_owned()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of one member below a token, by convention its identifier in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberName(String);

impl MemberName {
    /// The name that `text` is; `None` for what is too long, hidden (it would begin with `_`) or more than letters, digits,
    /// `-`, `_` and `.`.
    pub fn parse(text: &str) -> Option<Self> {
        let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = !text.is_empty() && text.len() <= MEMBER_BYTES_MAX && text.bytes().all(is_fit);
        (is_name && !text.starts_with(['_', '.'])).then(|| Self(text.to_owned()))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in the tree of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// The token itself: a directory.
    Directory,
    /// `_config`: a hidden directory.
    Config,
    /// `_config/size`.
    Size,
    /// A registered member.
    Member(MemberName),
}

impl Node {
    /// Its path below the token, from a slash on; empty for the token.
    pub fn path(&self) -> String {
        match self {
            Self::Directory => String::new(),
            Self::Config => "/_config".to_owned(),
            Self::Size => "/_config/size".to_owned(),
            Self::Member(name) => format!("/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_exactly_its_digits() {
        let fresh = Token::fresh();
        assert_eq!(Token::parse(fresh.as_str()), Some(fresh.clone()));
        assert_ne!(fresh, Token::fresh());
        for text in
            ["", "a", &"A".repeat(32), &"g".repeat(32), &"a".repeat(33), &"a".repeat(31), "é".repeat(16).as_str()]
        {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_cannot_hide_or_leave_the_token() {
        assert!(MemberName::parse("8211f1d0f64f3269").is_some());
        for text in ["", "_config", "..", ".", "a/b", "a b", "a%2f", "ä", &"a".repeat(65)] {
            assert_eq!(MemberName::parse(text), None, "{text}");
        }
    }
}
