//! Refusals of the v2 API. Numbers and texts are wire contract.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::storage::StorageError;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The kinds of refusal that this program has use for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }
        impl ErrorCode {
            /// `errorCode`.
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }
            /// `message`.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// The cause names the first part of the path that is not there.
    KeyNotFound = 100, "Key not found";
    /// The cause shows what was given and what is there.
    TestFailed = 101, "Compare failed";
    /// What was asked for can be done with files only.
    NotFile = 102, "Not a file";
    /// A part of the path is a file.
    NotDir = 104, "Not a directory";
    /// Something is there that should not be.
    NodeExist = 105, "Key already exists";
    /// A change of what cannot change.
    RootReadOnly = 107, "Root is read only";
    /// A directory with something in it, hidden or not.
    DirNotEmpty = 108, "Directory not empty";
    /// Users are asked for, and this request has none that may do it.
    Unauthorized = 110, "The request requires user authentication";
    /// `prevValue` without a value.
    PrevValueRequired = 201, "PrevValue is Required in POST form";
    /// `ttl` is no number.
    TtlNotANumber = 202, "The given TTL in POST form is not a number";
    /// `prevIndex` or `waitIndex` is no number.
    IndexNotANumber = 203, "The given index in POST form is not a number";
    /// Any other parameter.
    InvalidField = 209, "Invalid field";
    /// The form cannot be read.
    InvalidForm = 210, "Invalid POST form";
    /// A refresh keeps the value that is there.
    RefreshValue = 211, "Value provided on refresh";
    /// A refresh is about the time to live.
    RefreshTtlRequired = 212, "A TTL must be provided on refresh";
    /// The server could not do it; the cause is what it says.
    RaftInternal = 300, "Raft Internal Error";
    /// The events from the index asked for are no longer kept.
    EventIndexCleared = 401, "The event in requested index is outdated and cleared";
}

/// A refusal that every member computes alike.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct Error {
    /// What kind.
    pub code: ErrorCode,
    /// What it is about; a path, as it is in the tree, or a text.
    pub cause: Bytes,
    /// Where the store stood; zero if nobody looked.
    pub index: u64,
}

impl Error {
    /// A refusal of the store at `index`.
    pub fn new(code: ErrorCode, cause: impl Into<Bytes>, index: u64) -> Self {
        Self { code, cause: cause.into(), index }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.code.message(), String::from_utf8_lossy(&self.cause))
    }
}

/// Why one request has no effect.
#[derive(Debug, Error)]
pub enum Refused {
    /// Every member refuses alike.
    #[error(transparent)]
    Rejected(#[from] Error),
    /// This member cannot go on.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Refused {
    /// Tells a refusal, which is an answer, from a failure, which is none.
    ///
    /// # Errors
    /// The failure.
    pub(super) fn settle<T>(result: Result<T, Self>) -> Result<Result<T, Error>, StorageError> {
        match result {
            Ok(done) => Ok(Ok(done)),
            Err(Self::Rejected(error)) => Ok(Err(error)),
            Err(Self::Storage(error)) => Err(error),
        }
    }
}
