//! What messages look like, from the descriptors this program was built from.

use std::{collections::HashMap, sync::OnceLock};

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use crate::pb;

/// All messages and enums, by full name with a leading dot.
#[derive(Debug, Default)]
pub(super) struct Schema {
    messages: HashMap<String, Shape>,
    enums: HashMap<String, HashMap<String, i32>>,
}

/// The fields of one message.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// By proto name and by lower-camel name.
    fields: HashMap<String, Field>,
}

/// One field.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Its number.
    pub(super) number: u32,
    /// What it holds.
    pub(super) kind: Kind,
    /// Whether it is a list.
    pub(super) repeated: bool,
    /// The oneof it belongs to, counted inside its message.
    pub(super) oneof: Option<i32>,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int32,
    Int64,
    Uint32,
    Uint64,
    String,
    Bytes,
    /// An enum, by name.
    Enum(String),
    /// A message, by name.
    Message(String),
}

impl Schema {
    /// The schema of this program.
    pub(super) fn get() -> &'static Self {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| {
            let files = FileDescriptorSet::decode(pb::DESCRIPTORS).expect("written by the build of this program");
            Self::read(files)
        })
    }

    fn read(files: FileDescriptorSet) -> Self {
        let mut schema = Self::default();
        for file in files.file {
            let package = format!(".{}", file.package());
            file.message_type.iter().for_each(|message| schema.add(&package, message));
            file.enum_type.iter().for_each(|kind| schema.add_enum(&package, kind));
        }
        schema
    }

    fn add(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        message.nested_type.iter().for_each(|nested| self.add(&name, nested));
        message.enum_type.iter().for_each(|kind| self.add_enum(&name, kind));
        let fields = message.field.iter().flat_map(|field| {
            let read = Field::read(field);
            let names = [field.name(), field.json_name()].map(str::to_owned);
            read.into_iter().flat_map(move |read| names.clone().map(|name| (name, read.clone())))
        });
        let shape = Shape { fields: fields.collect() };
        self.messages.insert(name, shape);
    }

    fn add_enum(&mut self, scope: &str, kind: &EnumDescriptorProto) {
        let values = kind.value.iter().map(|value| (value.name().to_owned(), value.number()));
        self.enums.insert(format!("{scope}.{}", kind.name()), values.collect());
    }

    /// The message called `name`.
    pub(super) fn message(&self, name: &str) -> Option<&Shape> {
        self.messages.get(name)
    }

    /// The number of an enum's value, if it has that name.
    pub(super) fn enum_value(&self, kind: &str, value: &str) -> Option<i32> {
        self.enums.get(kind)?.get(value).copied()
    }
}

impl Shape {
    /// The field that JSON calls `name`.
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }
}

impl Field {
    /// `None` for kinds the client API does not use.
    fn read(field: &FieldDescriptorProto) -> Option<Self> {
        let kind = match field.r#type() {
            Type::Bool => Kind::Bool,
            Type::Int32 => Kind::Int32,
            Type::Int64 => Kind::Int64,
            Type::Uint32 => Kind::Uint32,
            Type::Uint64 => Kind::Uint64,
            Type::String => Kind::String,
            Type::Bytes => Kind::Bytes,
            Type::Enum => Kind::Enum(field.type_name().to_owned()),
            Type::Message => Kind::Message(field.type_name().to_owned()),
            _ => return None,
        };
        let number = u32::try_from(field.number()).ok()?;
        Some(Self { number, kind, repeated: field.label() == Label::Repeated, oneof: field.oneof_index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_both_names() {
        let range = Schema::get().message(".etcdserverpb.RangeRequest").unwrap();
        let field = range.field("range_end").unwrap();
        assert_eq!((field.number, &field.kind, field.repeated), (2, &Kind::Bytes, false));
        assert_eq!(range.field("rangeEnd").unwrap().number, 2);
        assert!(range.field("RangeEnd").is_none());
        let target = Kind::Enum(".etcdserverpb.RangeRequest.SortTarget".into());
        assert_eq!(range.field("sortTarget").unwrap().kind, target);
    }

    #[test]
    fn enum_values_are_found_by_name() {
        let value = |name| Schema::get().enum_value(".etcdserverpb.Compare.CompareTarget", name);
        assert_eq!((value("LEASE"), value("lease")), (Some(4), None));
    }
}
