//! The five forms an answer is printed in.
//!
//! Each answer says in one place how it looks in every form ([`Shown`]); scripts parse all of them, so each form is
//! byte for byte the one of etcd's tools.

mod alarm;
mod boxes;
mod endpoint;
mod facts;
mod file;
mod finding;
mod handing;
pub(super) mod json;
mod kv;
mod lease;
mod member;
mod page;
mod past;
mod users;

use std::io::{self, BufWriter};

pub(super) use boxes::Table;
pub(super) use endpoint::{Hash, Hashes, Health, Healths, Statuses};
pub(super) use facts::Facts;
pub(super) use file::{HashOfFile, StatusOfFile};
pub(super) use finding::{Finding, Findings, Severity};
pub(super) use handing::{Downgraded, Moved};
pub(super) use lease::{Granted, Kept, Listed, Remaining, Revoked};
pub(super) use member::{Added, MemberChange, Members, Verb};
pub(super) use page::Page;
pub(super) use past::{Change, Difference, Occurrence};
pub(super) use users::{Changed, OneRole, OneUser};

use super::failure::{Exit, Failure};

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// For people and simple scripts.
    Simple,
    /// One line of JSON.
    Json,
    /// One line per field.
    Fields,
    /// A box.
    Table,
    /// The message itself.
    Protobuf,
}

impl Format {
    /// Reads the name of a format.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "simple" => Self::Simple,
            "json" => Self::Json,
            "fields" => Self::Fields,
            "table" => Self::Table,
            "protobuf" => Self::Protobuf,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Json => "json",
            Self::Fields => "fields",
            Self::Table => "table",
            Self::Protobuf => "protobuf",
        }
    }
}

/// The details of a format that flags decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Which form.
    pub(super) format: Format,
    /// Whether bytes and identifiers are shown in hexadecimal, where the form has a choice.
    pub(super) hex: bool,
    /// Whether the simple form leaves keys out.
    pub(super) values_only: bool,
}

/// An answer that can be printed.
pub(super) trait Shown {
    /// For people and simple scripts.
    fn simple(&self, page: &mut Page);

    /// One line per field; nothing of what has no fields form.
    fn fields(&self, _: &mut Page) {}

    /// Whether there is a fields form at all.
    fn has_fields(&self) -> bool {
        true
    }

    /// One JSON value, without the end of the line.
    fn json(&self, page: &mut Page);

    /// Headings and rows, for the answers that have a table.
    fn table(&self) -> Option<Table> {
        None
    }

    /// The encoded message, for the answers that are one.
    fn protobuf(&self) -> Option<Vec<u8>> {
        None
    }
}

/// Prints an answer on standard output.
///
/// # Errors
/// A [`Failure`] if the answer has no such form, or standard output is gone.
pub(super) fn print(style: Style, shown: &dyn Shown) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    print_to(&mut out, style, shown)
}

fn print_to(out: &mut dyn io::Write, style: Style, shown: &dyn Shown) -> Result<(), Failure> {
    let mut page = Page::new(out, style);
    let unsupported =
        || Failure::new(Exit::BadFeature, format_args!("{} not supported as output format", style.format.name()));
    match style.format {
        Format::Simple => shown.simple(&mut page),
        Format::Fields if !shown.has_fields() => return Err(unsupported()),
        Format::Fields => shown.fields(&mut page),
        Format::Json => {
            shown.json(&mut page);
            page.end_line();
        }
        Format::Table => shown.table().ok_or_else(unsupported)?.print(&mut page),
        Format::Protobuf => page.bytes(&shown.protobuf().ok_or_else(unsupported)?),
    }
    Ok(page.finish()?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What `shown` looks like in one form.
    pub(in crate::cli) fn printed(format: Format, hex: bool, shown: &dyn Shown) -> String {
        let mut out = Vec::new();
        print_to(&mut out, Style { format, hex, values_only: false }, shown).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Why `shown` has no such form.
    pub(in crate::cli) fn refused(format: Format, shown: &dyn Shown) -> Failure {
        print_to(&mut Vec::new(), Style { format, hex: false, values_only: false }, shown).unwrap_err()
    }

    #[test]
    fn formats_go_by_name() {
        for format in [Format::Simple, Format::Json, Format::Fields, Format::Table, Format::Protobuf] {
            assert_eq!(Format::named(format.name()), Some(format));
        }
        assert_eq!(Format::named("yaml"), None);
    }
}
