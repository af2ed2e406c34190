//! What a member that stopped by itself says to its operator: one line with the causes and one remedy.

use super::ServerFailure;
use crate::types::with_causes;

/// The words of causes that say what to do, and more than to start the member again.
const REMEDIES: [&str; 2] = ["add it again", "a newer version"];

impl ServerFailure {
    /// The failure and its causes on one line, and what to do: what the innermost cause that knows says, because it alone
    /// has seen what is damaged. Only where none does is the disk to be checked.
    pub fn explained(&self) -> String {
        let text = with_causes(self);
        match self.remedy() {
            Some(remedy) if !REMEDIES.iter().any(|words| text.contains(words)) => format!("{text}; {remedy}"),
            _ => text,
        }
    }

    /// What helps when no cause says anything else.
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Wal(_) | Self::Install(_) => Some("check the disk, then restart the member".to_owned()),
            Self::Apply { path, .. } | Self::Keeper { path, .. } => {
                Some(format!("check the disk of {}, then restart the member", path.display()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf, sync::Arc};

    use super::*;
    use crate::{
        apply::ApplyError, server::KeeperError, server::durability::InstallError, storage::StorageError,
        types::LogIndex, wal::WalError,
    };

    fn damaged() -> StorageError {
        StorageError::Damaged { path: "/d/state".into(), what: "a block does not match".to_owned() }
    }

    /// "check the disk, then restart the member: ... then remove this member from the cluster and add it again" said two
    /// things at once.
    #[test]
    fn the_remedy_of_a_cause_is_the_only_one() {
        let path = PathBuf::from("/d/state");
        let corrupt = || WalError::Corrupt { path: "/d/wal".into(), offset: 8, what: "a checksum" };
        for failure in [
            ServerFailure::Wal(corrupt()),
            ServerFailure::Install(InstallError::Wal(corrupt())),
            ServerFailure::Apply {
                path: path.clone(),
                cause: ApplyError::Storage { index: LogIndex(3), cause: damaged() },
            },
            ServerFailure::Keeper { path, cause: KeeperError::Storage(damaged()) },
        ] {
            let text = failure.explained();
            assert!(text.contains("add it again") && !text.contains("restart the member"), "{text}");
        }
    }

    #[test]
    fn without_one_the_disk_is_to_be_checked() {
        let full = Arc::new(io::Error::from(io::ErrorKind::StorageFull));
        let cause = StorageError::Engine { path: "/d/state".into(), action: "writing", cause: full };
        let failure = ServerFailure::Keeper { path: "/d/state".into(), cause: KeeperError::Storage(cause) };
        assert_eq!(
            failure.explained(),
            "the state failed: making the state durable: state store: writing failed in /d/state: no storage space; check the \
             disk of /d/state, then restart the member"
        );
    }

    #[test]
    fn what_a_disk_has_no_part_in_gets_no_such_remedy() {
        assert_eq!(ServerFailure::Overrun { thread: "apply" }.explained(), "the queue of the apply thread overflowed");
    }
}
