//! Leadership handed over, and what becomes of the cluster's version.

use prost::Message;

use super::{Page, Shown};
use crate::pb::etcdserverpb::{DowngradeResponse, MoveLeaderResponse};

/// Another member leads now.
pub(in crate::cli) struct Moved {
    pub(in crate::cli) from: u64,
    pub(in crate::cli) to: u64,
    pub(in crate::cli) response: MoveLeaderResponse,
}

impl Shown for Moved {
    fn simple(&self, page: &mut Page) {
        page.line(format_args!("Leadership transferred from {:x} to {:x}", self.from, self.to));
    }

    fn has_fields(&self) -> bool {
        false
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| object.header(self.response.header.as_ref()));
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.response.encode_to_vec())
    }
}

/// A downgrade was checked, allowed or taken back.
pub(in crate::cli) struct Downgraded {
    /// `validate`, `enable` or `cancel`.
    pub(in crate::cli) what: &'static str,
    pub(in crate::cli) response: DowngradeResponse,
}

impl Shown for Downgraded {
    fn simple(&self, page: &mut Page) {
        page.line(format_args!("Downgrade {} success, cluster version {}", self.what, self.response.version));
    }

    fn has_fields(&self) -> bool {
        false
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.header(self.response.header.as_ref());
            object.text_if_set("version", &self.response.version);
        });
    }

    fn protobuf(&self) -> Option<Vec<u8>> {
        Some(self.response.encode_to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Format, tests::printed};

    #[test]
    fn leadership_and_versions_in_words() {
        let moved = Moved { from: 0xa, to: 0xb, response: MoveLeaderResponse::default() };
        assert_eq!(printed(Format::Simple, false, &moved), "Leadership transferred from a to b\n");
        assert_eq!(printed(Format::Json, false, &moved), "{}\n");
        let response = DowngradeResponse { header: None, version: "3.7".to_owned() };
        let downgraded = Downgraded { what: "validate", response };
        let text = "Downgrade validate success, cluster version 3.7\n";
        assert_eq!(printed(Format::Simple, false, &downgraded), text);
        assert_eq!(printed(Format::Json, false, &downgraded), "{\"version\":\"3.7\"}\n");
    }
}
