//! What a member of our own kind can do beyond etcd.

use std::fmt;

/// Carries the capabilities of a member on all its requests and on the answers that open a stream. Members of etcd
/// neither send it nor look at it.
pub(super) const HEADER: &str = "x-quorate-capabilities";

/// What a peer can do beyond etcd. A member of etcd has none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "a set of words, each of which a peer has or has not")]
pub struct Capabilities {
    /// The peer is one of our own kind.
    pub quorate: bool,
    /// It reads snapshots in [`super::SnapshotForm::Native`].
    pub native_snapshot: bool,
    /// It answers with a running digest of its state.
    pub digest: bool,
    /// It carries out requests of the v2 API that stand in the log.
    pub v2: bool,
}

impl Capabilities {
    /// What this program announces.
    pub const OWN: Self = Self { quorate: true, native_snapshot: true, digest: true, v2: true };

    /// Reads the value of the header. Words it does not know are what later versions can do, and are left out.
    pub(super) fn parse(text: &str) -> Self {
        let mut found = Self { quorate: true, ..Self::default() };
        for word in text.split(',').map(str::trim) {
            match word {
                "native-snapshot" => found.native_snapshot = true,
                "digest" => found.digest = true,
                "v2" => found.v2 = true,
                _ => {}
            }
        }
        found
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.native_snapshot, "native-snapshot"), (self.digest, "digest"), (self.v2, "v2")];
        let words: Vec<&str> = words.into_iter().filter_map(|(can, word)| can.then_some(word)).collect();
        f.write_str(&words.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_understood() {
        assert_eq!(Capabilities::parse(&Capabilities::OWN.to_string()), Capabilities::OWN);
        let later = Capabilities::parse(" digest , teleport");
        assert_eq!(later, Capabilities { quorate: true, digest: true, ..Capabilities::default() });
    }
}
