//! What the history of a cluster tells.

use super::{
    Page, Shown,
    kv::{event_json, pair_fields},
};
use crate::{
    cli::go_text,
    pb::mvccpb::{Event, KeyValue, event::EventType},
};

/// How a key differs between two revisions.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) enum Change {
    /// It is there in the second alone.
    Added(KeyValue),
    /// It is there in the first alone.
    Removed(KeyValue),
    /// It was written in between: as it was, and as it is.
    Changed(KeyValue, KeyValue),
}

impl Change {
    fn name(&self) -> &'static str {
        match self {
            Self::Added(_) => "added",
            Self::Removed(_) => "removed",
            Self::Changed(..) => "changed",
        }
    }

    fn before(&self) -> Option<&KeyValue> {
        match self {
            Self::Added(_) => None,
            Self::Removed(kv) | Self::Changed(kv, _) => Some(kv),
        }
    }

    fn after(&self) -> Option<&KeyValue> {
        match self {
            Self::Removed(_) => None,
            Self::Added(kv) | Self::Changed(_, kv) => Some(kv),
        }
    }
}

/// A change, and whether its values were left out.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Difference {
    pub(in crate::cli) change: Change,
    pub(in crate::cli) keys_only: bool,
}

impl Shown for Difference {
    fn simple(&self, page: &mut Page) {
        let quoted = |bytes: &[u8]| go_text::quote(bytes);
        match &self.change {
            Change::Added(kv) if self.keys_only => page.line(format_args!("+ {}", quoted(&kv.key))),
            Change::Removed(kv) if self.keys_only => page.line(format_args!("- {}", quoted(&kv.key))),
            Change::Changed(kv, _) if self.keys_only => page.line(format_args!("~ {}", quoted(&kv.key))),
            Change::Added(kv) => page.line(format_args!("+ {} = {}", quoted(&kv.key), quoted(&kv.value))),
            Change::Removed(kv) => page.line(format_args!("- {} = {}", quoted(&kv.key), quoted(&kv.value))),
            Change::Changed(old, new) => {
                let (key, old, new) = (quoted(&old.key), quoted(&old.value), quoted(&new.value));
                page.line(format_args!("~ {key} = {old} -> {new}"));
            }
        }
    }

    fn fields(&self, page: &mut Page) {
        page.field("Change", self.change.name());
        self.change.before().into_iter().for_each(|kv| pair_fields(page, "Prev", kv));
        self.change.after().into_iter().for_each(|kv| pair_fields(page, "", kv));
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            object.text("change", self.change.name());
            object.key_value_if_set("before", self.change.before());
            object.key_value_if_set("after", self.change.after());
        });
    }
}

/// Something that has happened to a key.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct Occurrence(pub(in crate::cli) Event);

impl Occurrence {
    fn name(&self) -> &'static str {
        match (self.0.r#type(), self.0.kv.as_ref().map(|kv| kv.version)) {
            (EventType::Delete, _) => "deleted",
            (EventType::Put, Some(1)) => "created",
            (EventType::Put, _) => "changed",
        }
    }
}

impl Shown for Occurrence {
    fn simple(&self, page: &mut Page) {
        let KeyValue { mod_revision, version, value, lease, .. } = self.0.kv.clone().unwrap_or_default();
        match self.0.r#type() {
            EventType::Delete => page.line(format_args!("{mod_revision}, deleted")),
            EventType::Put => {
                let (name, value) = (self.name(), go_text::quote(&value));
                page.line(format_args!("{mod_revision}, {name}, {version}, {lease:016x}, {value}"));
            }
        }
    }

    fn fields(&self, page: &mut Page) {
        page.field("Change", self.name());
        self.0.kv.iter().for_each(|kv| pair_fields(page, "", kv));
    }

    fn json(&self, page: &mut Page) {
        event_json(page, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{
        Format,
        tests::{printed, refused},
    };

    fn kv(value: &'static str, mod_revision: i64, version: i64) -> KeyValue {
        KeyValue { key: "k\n".into(), value: value.into(), create_revision: 2, mod_revision, version, lease: 31 }
    }

    fn difference(change: Change, keys_only: bool) -> Difference {
        Difference { change, keys_only }
    }

    #[test]
    fn a_difference_is_one_line() {
        let simple = |change, keys_only| printed(Format::Simple, false, &difference(change, keys_only));
        assert_eq!(simple(Change::Added(kv("v", 2, 1)), false), "+ \"k\\n\" = \"v\"\n");
        assert_eq!(simple(Change::Removed(kv("v", 2, 1)), true), "- \"k\\n\"\n");
        let changed = Change::Changed(kv("u", 2, 1), kv("v", 3, 2));
        assert_eq!(simple(changed.clone(), false), "~ \"k\\n\" = \"u\" -> \"v\"\n");
        let json = r#"{"change":"changed","before":{"key":"awo=","create_revision":2,"mod_revision":2,"version":1,"value":"dQ==","lease":31},"after":{"key":"awo=","create_revision":2,"mod_revision":3,"version":2,"value":"dg==","lease":31}}"#;
        assert_eq!(printed(Format::Json, false, &difference(changed, false)), format!("{json}\n"));
        let fields = printed(Format::Fields, false, &difference(Change::Removed(kv("v", 2, 1)), false));
        assert!(fields.starts_with("\"Change\" : removed\n\"PrevKey\" : \"k\\n\"\n"), "{fields}");
        let table = refused(Format::Table, &difference(Change::Added(kv("v", 2, 1)), false));
        assert_eq!(table.message.as_deref(), Some("table not supported as output format"));
    }

    #[test]
    fn what_happens_has_a_name() {
        let put = |version| Occurrence(Event { r#type: 0, kv: Some(kv("v", 7, version)), prev_kv: None });
        let gone = KeyValue { key: "k".into(), mod_revision: 8, ..KeyValue::default() };
        let deleted = Occurrence(Event { r#type: 1, kv: Some(gone), prev_kv: None });
        assert_eq!(printed(Format::Simple, false, &put(1)), "7, created, 1, 000000000000001f, \"v\"\n");
        assert_eq!(printed(Format::Simple, false, &put(2)), "7, changed, 2, 000000000000001f, \"v\"\n");
        assert_eq!(printed(Format::Simple, false, &deleted), "8, deleted\n");
        assert_eq!(
            printed(Format::Json, false, &deleted),
            "{\"type\":1,\"kv\":{\"key\":\"aw==\",\"mod_revision\":8}}\n"
        );
        assert!(printed(Format::Fields, false, &deleted).starts_with("\"Change\" : deleted\n\"Key\" : \"k\"\n"));
    }
}
