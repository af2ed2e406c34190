//! Versions as etcd writes them: `major.minor.patch`.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// A version of etcd that a member reports or a cluster has agreed on.
///
/// Suffixes (`-alpha.0`, `+git`) are accepted and forgotten: no rule of the cluster looks at them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Changes with the wire format.
    pub major: u64,
    /// The step in which clusters are upgraded.
    pub minor: u64,
    /// Zero in a cluster version.
    pub patch: u64,
}

/// Of each minor version of etcd the first release that applies every request as we do (peer-and-disk, §3.8).
const RELEASES_MIN: [Version; 3] = [release(5, 33), release(6, 14), release(7, 1)];

const fn release(minor: u64, patch: u64) -> Version {
    Version { major: 3, minor, patch }
}

/// A text that is no version.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a version of the form major.minor.patch, for example 3.6.0")]
pub struct VersionError(pub String);

impl Version {
    /// `major.minor.0`.
    pub const fn minor(major: u64, minor: u64) -> Self {
        Self { major, minor, patch: 0 }
    }

    /// This version without its patch level, the only precision that clusters agree on.
    #[must_use]
    pub fn without_patch(self) -> Self {
        Self { patch: 0, ..self }
    }

    /// The only version a cluster at this one may be downgraded to, if there is one.
    pub fn downgrade_target(self) -> Option<Self> {
        self.minor.checked_sub(1).map(|minor| Self::minor(self.major, minor))
    }

    /// The release to which a member of etcd at this one should be updated before it shares a cluster with members of
    /// ours; nothing if this one is as good.
    pub fn update_due(self) -> Option<Self> {
        let least = RELEASES_MIN.into_iter().find(|least| self.without_patch() <= least.without_patch());
        least.filter(|least| self < *least)
    }

    /// Reads a client's wish, `3.5` or `3.5.7`, as `3.5.0`.
    ///
    /// # Errors
    /// [`VersionError`] for anything else.
    pub fn parse_target(text: &str) -> Result<Self, VersionError> {
        let full = if text.matches('.').count() == 1 { format!("{text}.0") } else { text.to_owned() };
        full.parse::<Self>().map(Self::without_patch).map_err(|_| VersionError(text.to_owned()))
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let error = || VersionError(text.to_owned());
        let numbers = text.split(['-', '+']).next().unwrap_or(text);
        let mut parts = numbers.split('.').map(number);
        let (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(error());
        };
        Ok(Self { major, minor, patch })
    }
}

/// Digits only: `u64::from_str` would also take a plus sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_etcds_form() {
        let version: Version = "3.5.33".parse().unwrap();
        assert_eq!(version, Version { major: 3, minor: 5, patch: 33 });
        assert_eq!(version.to_string(), "3.5.33");
        assert_eq!("3.7.0-rc.1".parse::<Version>().unwrap(), Version::minor(3, 7));
    }

    #[test]
    fn refuses_what_is_no_version() {
        for text in ["", "3", "3.5", "3.5.x", "3.5.0.1", "+3.5.0", "3..0", "v3.5.0"] {
            assert_eq!(text.parse::<Version>(), Err(VersionError(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn downgrade_target_may_leave_out_the_patch() {
        assert_eq!(Version::parse_target("3.6"), Ok(Version::minor(3, 6)));
        assert_eq!(Version::parse_target("3.6.9"), Ok(Version::minor(3, 6)));
        assert_eq!(Version::parse_target("3"), Err(VersionError("3".to_owned())));
    }

    #[test]
    fn releases_that_apply_some_requests_differently_are_due_for_an_update() {
        let due = |text: &str| text.parse::<Version>().unwrap().update_due();
        for (old, new) in [("3.4.27", "3.5.33"), ("3.5.32", "3.5.33"), ("3.6.6", "3.6.14"), ("3.7.0", "3.7.1")] {
            assert_eq!(due(old), new.parse().ok(), "{old}");
        }
        for good in ["3.5.33", "3.5.40", "3.6.14", "3.7.1", "3.8.0", "4.0.0"] {
            assert_eq!(due(good), None, "{good}");
        }
    }

    #[test]
    fn versions_order_by_number() {
        assert!(Version::minor(3, 10) > Version::minor(3, 9));
        assert_eq!(Version::minor(3, 0).downgrade_target(), None);
        assert_eq!(Version::minor(3, 7).downgrade_target(), Some(Version::minor(3, 6)));
    }
}
