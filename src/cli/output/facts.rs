//! What was found out about one thing, name by name.

use std::fmt::Display;

use super::{Page, Shown, json};

/// Facts in the order in which they were found.
#[derive(Debug, Default)]
pub(in crate::cli) struct Facts(Vec<Fact>);

#[derive(Debug)]
struct Fact {
    name: &'static str,
    value: String,
    /// As JSON spells it.
    json: String,
}

impl Facts {
    /// Adds a text.
    pub(in crate::cli) fn text(&mut self, name: &'static str, value: impl Display) {
        let value = value.to_string();
        self.0.push(Fact { name, json: json::string(&value), value });
    }

    /// Adds a number.
    pub(in crate::cli) fn number(&mut self, name: &'static str, value: u64) {
        let value = value.to_string();
        self.0.push(Fact { name, json: value.clone(), value });
    }

    /// What is told.
    #[cfg(test)]
    pub(in crate::cli) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|fact| fact.name)
    }
}

impl Shown for Facts {
    fn simple(&self, page: &mut Page) {
        for Fact { name, value, .. } in &self.0 {
            page.line(format_args!("{name}: {value}"));
        }
    }

    fn fields(&self, page: &mut Page) {
        for Fact { name, value, .. } in &self.0 {
            page.field(name, value);
        }
    }

    fn json(&self, page: &mut Page) {
        page.object(|object| {
            for Fact { name, json, .. } in &self.0 {
                object.plain(&name.to_lowercase(), json);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Format, tests::printed};

    #[test]
    fn facts_are_told_in_three_forms() {
        let mut facts = Facts::default();
        facts.text("Member", "a\"b");
        facts.number("Last", 7);
        assert_eq!(printed(Format::Simple, false, &facts), "Member: a\"b\nLast: 7\n");
        assert_eq!(printed(Format::Json, false, &facts), "{\"member\":\"a\\\"b\",\"last\":7}\n");
        assert_eq!(printed(Format::Fields, false, &facts), "\"Member\" : a\"b\n\"Last\" : 7\n");
    }
}
