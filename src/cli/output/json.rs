//! JSON as Go's encoder writes the structs of etcd's client: numbers stay numbers, bytes are base64, and most members
//! that hold nothing are left out.

use std::fmt::{Display, Write};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::Page;
use crate::pb::{
    etcdserverpb::{Member, ResponseHeader},
    mvccpb::KeyValue,
};

/// A JSON object being written.
pub(super) struct Object<'p, 'o> {
    page: &'p mut Page<'o>,
    begun: bool,
}

impl<'p, 'o> Object<'p, 'o> {
    pub(super) fn new(page: &'p mut Page<'o>) -> Self {
        Self { page, begun: false }
    }

    /// Starts a member; the caller writes its value to the page.
    pub(super) fn member(&mut self, name: &str) -> &mut Page<'o> {
        let comma = if std::mem::replace(&mut self.begun, true) { "," } else { "" };
        self.page.text(format_args!("{comma}\"{name}\":"));
        self.page
    }

    /// A number, a truth value or a ready piece of JSON.
    pub(super) fn plain(&mut self, name: &str, value: impl Display) {
        self.member(name).text(format_args!("{value}"));
    }

    /// The same, left out when it is zero or false.
    pub(super) fn plain_if_set<T: Display + Default + PartialEq>(&mut self, name: &str, value: T) {
        if value != T::default() {
            self.plain(name, value);
        }
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.plain(name, string(value));
    }

    pub(super) fn text_if_set(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    pub(super) fn bytes_if_set(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            self.plain(name, bytes(value));
        }
    }

    pub(super) fn texts_if_set(&mut self, name: &str, values: &[String]) {
        self.array_if_set(name, values, |page, value| page.text(format_args!("{}", string(value))));
    }

    pub(super) fn array_if_set<T>(&mut self, name: &str, items: &[T], each: impl FnMut(&mut Page<'o>, &T)) {
        if !items.is_empty() {
            self.member(name).array(items, each);
        }
    }

    pub(super) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object<'_, 'o>)) {
        self.member(name).object(fill);
    }

    /// The header of an answer, left out when it has none.
    pub(super) fn header(&mut self, header: Option<&ResponseHeader>) {
        if let Some(header) = header {
            self.object("header", |object| object.header_members(header));
        }
    }

    pub(super) fn header_members(&mut self, header: &ResponseHeader) {
        self.plain_if_set("cluster_id", header.cluster_id);
        self.plain_if_set("member_id", header.member_id);
        self.plain_if_set("revision", header.revision);
        self.plain_if_set("raft_term", header.raft_term);
    }

    pub(super) fn key_value_if_set(&mut self, name: &str, kv: Option<&KeyValue>) {
        if let Some(kv) = kv {
            key_value(self.member(name), kv);
        }
    }
}

/// A pair, as it appears alone and in lists.
pub(super) fn key_value(page: &mut Page, kv: &KeyValue) {
    page.object(|object| {
        object.bytes_if_set("key", &kv.key);
        object.plain_if_set("create_revision", kv.create_revision);
        object.plain_if_set("mod_revision", kv.mod_revision);
        object.plain_if_set("version", kv.version);
        object.bytes_if_set("value", &kv.value);
        object.plain_if_set("lease", kv.lease);
    });
}

/// A member of the cluster; in hexadecimal its identifier is a text.
pub(super) fn cluster_member(page: &mut Page, member: &Member) {
    let hex = page.hex();
    page.object(|object| {
        if hex {
            object.text("ID", &format!("{:x}", member.id));
        } else {
            object.plain_if_set("ID", member.id);
        }
        object.text_if_set("name", &member.name);
        object.texts_if_set("peerURLs", &member.peer_ur_ls);
        object.texts_if_set("clientURLs", &member.client_ur_ls);
        object.plain_if_set("isLearner", member.is_learner);
    });
}

/// Bytes as a JSON value.
pub(super) fn bytes(value: &[u8]) -> String {
    format!("\"{}\"", STANDARD.encode(value))
}

/// A text as a JSON value. The characters HTML cares about are escaped too.
pub(in crate::cli) fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    text.chars().for_each(|c| push_escaped(&mut quoted, c));
    quoted.push('"');
    quoted
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        // Writing to a string cannot fail.
        '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
            write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default();
        }
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_escape_what_go_escapes() {
        assert_eq!(
            string("a<b>&\"\\\u{1}\n\u{7f}é\u{2028}"),
            "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\u0001\\n\u{7f}é\\u2028\""
        );
        assert_eq!(serde_json::from_str::<String>(&string("a<b>\u{0}")).unwrap(), "a<b>\u{0}");
    }
}
