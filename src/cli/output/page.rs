//! Where forms are written to.

use std::{
    fmt::{self, Display},
    io::{self, Write},
};

use super::{Style, json::Object};
use crate::{cli::go_text, pb::etcdserverpb::ResponseHeader};

/// Text on its way out. The first failure is kept and ends the writing, so that forms need not look at each line.
pub(in crate::cli) struct Page<'a> {
    out: &'a mut dyn Write,
    style: Style,
    failed: Option<io::Error>,
}

impl<'a> Page<'a> {
    pub(super) fn new(out: &'a mut dyn Write, style: Style) -> Self {
        Self { out, style, failed: None }
    }

    pub(super) fn finish(mut self) -> io::Result<()> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        }
    }

    /// Whether bytes and identifiers are shown in hexadecimal.
    pub(super) fn hex(&self) -> bool {
        self.style.hex
    }

    /// Whether the simple form leaves keys out.
    pub(super) fn values_only(&self) -> bool {
        self.style.values_only
    }

    /// Writes raw bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.out.write_all(bytes).err();
        }
    }

    /// Writes text.
    pub(super) fn text(&mut self, text: fmt::Arguments) {
        if self.failed.is_none() {
            self.failed = self.out.write_fmt(text).err();
        }
    }

    /// Writes one line of text.
    pub(super) fn line(&mut self, text: impl Display) {
        self.text(format_args!("{text}\n"));
    }

    /// Writes one line of bytes.
    pub(super) fn byte_line(&mut self, bytes: &[u8]) {
        self.bytes(bytes);
        self.end_line();
    }

    pub(super) fn end_line(&mut self) {
        self.bytes(b"\n");
    }

    /// Writes one line of the fields form.
    pub(super) fn field(&mut self, name: &str, value: impl Display) {
        self.text(format_args!("\"{name}\" : {value}\n"));
    }

    /// Writes one line of the fields form whose value is a quoted text.
    pub(super) fn quoted_field(&mut self, name: &str, value: impl AsRef<[u8]>) {
        self.field(name, go_text::quote(value.as_ref()));
    }

    /// Writes one line of the fields form whose value is the identifier of a member or cluster.
    pub(super) fn id_field(&mut self, name: &str, id: u64) {
        if self.hex() { self.field(name, format_args!("{id:x}")) } else { self.field(name, id) }
    }

    /// Writes one line of the fields form whose value is the identifier of a lease.
    pub(super) fn lease_field(&mut self, name: &str, lease: i64) {
        if self.hex() { self.field(name, format_args!("{lease:016x}")) } else { self.field(name, lease) }
    }

    /// Writes the fields of a header; an answer without one has zeros. A revision of zero says nothing.
    pub(super) fn header_fields(&mut self, header: Option<&ResponseHeader>) {
        let header = header.copied().unwrap_or_default();
        self.id_field("ClusterID", header.cluster_id);
        self.id_field("MemberID", header.member_id);
        if header.revision > 0 {
            self.field("Revision", header.revision);
        }
        self.field("RaftTerm", header.raft_term);
    }

    /// Writes a JSON object.
    pub(super) fn object(&mut self, fill: impl FnOnce(&mut Object<'_, 'a>)) {
        self.bytes(b"{");
        fill(&mut Object::new(self));
        self.bytes(b"}");
    }

    /// Writes a JSON array.
    pub(super) fn array<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        let mut separator: &[u8] = b"[";
        for item in items {
            self.bytes(separator);
            each(self, item);
            separator = b",";
        }
        self.bytes(if items.is_empty() { b"[]" } else { b"]" });
    }
}
