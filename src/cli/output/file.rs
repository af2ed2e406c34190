//! What a snapshot file holds.

use super::{Page, Shown, Table};
use crate::{
    cli::go_text,
    etcdfile::summary::{FileHash, Summary},
};

/// What a snapshot file holds.
pub(in crate::cli) struct StatusOfFile(pub(in crate::cli) Summary);

impl Shown for StatusOfFile {
    fn simple(&self, page: &mut Page) {
        self.rows().comma_lines(page);
    }

    fn fields(&self, page: &mut Page) {
        page.field("Hash", self.0.hash);
        page.field("Revision", self.0.revision);
        page.field("Keys", self.0.keys);
        page.field("Size", self.0.bytes);
        page.field("Version", &self.0.version);
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.plain("hash", self.0.hash);
            object.plain("revision", self.0.revision);
            object.plain("totalKey", self.0.keys);
            object.plain("totalSize", self.0.bytes);
            object.text("version", &self.0.version);
        });
    }

    fn table(&self) -> Option<Table> {
        Some(self.rows())
    }
}

impl StatusOfFile {
    fn rows(&self) -> Table {
        let Summary { hash, revision, keys, bytes, version } = &self.0;
        let row =
            vec![format!("{hash:x}"), revision.to_string(), keys.to_string(), go_text::size(*bytes), version.clone()];
        Table { headings: &["hash", "revision", "total keys", "total size", "version"], rows: vec![row] }
    }
}

/// The hash over the history in a file.
pub(in crate::cli) struct HashOfFile(pub(in crate::cli) FileHash);

impl Shown for HashOfFile {
    fn simple(&self, page: &mut Page) {
        self.rows().comma_lines(page);
    }

    fn fields(&self, page: &mut Page) {
        page.field("Hash", self.0.hash);
        page.field("Hash revision", self.0.revision);
        page.field("Compact revision", self.0.compact_revision);
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.plain("hash", self.0.hash);
            object.plain("hashRevision", self.0.revision);
            object.plain("compactRevision", self.0.compact_revision);
        });
    }

    fn table(&self) -> Option<Table> {
        Some(self.rows())
    }
}

impl HashOfFile {
    fn rows(&self) -> Table {
        let FileHash { hash, revision, compact_revision } = self.0;
        let row = vec![hash.to_string(), revision.to_string(), compact_revision.to_string()];
        Table { headings: &["hash", "hash revision", "compact revision"], rows: vec![row] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Format, tests::printed};

    /// As etcdutl 3.7.1 prints them.
    #[test]
    fn files_in_words() {
        let version = "3.7.0".to_owned();
        let status = StatusOfFile(Summary { hash: 0xd823_f76d, revision: 5, keys: 2, bytes: 28_672, version });
        assert_eq!(printed(Format::Simple, false, &status), "d823f76d, 5, 2, 29 kB, 3.7.0\n");
        let json = r#"{"hash":3626235757,"revision":5,"totalKey":2,"totalSize":28672,"version":"3.7.0"}"#;
        assert_eq!(printed(Format::Json, false, &status), format!("{json}\n"));
        let fields = "\"Hash\" : 3626235757\n\"Revision\" : 5\n\"Keys\" : 2\n\"Size\" : 28672\n\"Version\" : 3.7.0\n";
        assert_eq!(printed(Format::Fields, false, &status), fields);
        let hash = HashOfFile(FileHash { hash: 1_471_606_496, revision: 5, compact_revision: -1 });
        assert_eq!(printed(Format::Simple, false, &hash), "1471606496, 5, -1\n");
        let fields = "\"Hash\" : 1471606496\n\"Hash revision\" : 5\n\"Compact revision\" : -1\n";
        assert_eq!(printed(Format::Fields, false, &hash), fields);
    }
}
