//! JSON exactly as Go's encoder writes it: field order as given, `<`, `>` and `&` escaped, no spaces.

use std::fmt::Write;

/// Builds one JSON object, field by field.
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self(String::from("{"))
    }

    pub(super) fn number(self, name: &str, value: u64) -> Self {
        self.raw(name, &value.to_string())
    }

    pub(super) fn flag(self, name: &str, value: bool) -> Self {
        self.raw(name, if value { "true" } else { "false" })
    }

    pub(super) fn text(self, name: &str, value: &str) -> Self {
        let value = quoted(value);
        self.raw(name, &value)
    }

    /// A list of texts. `None` is Go's nil slice, written `null`.
    pub(super) fn texts(self, name: &str, values: Option<&[String]>) -> Self {
        let value = values.map_or_else(|| "null".to_owned(), |list| array(list.iter().map(|item| quoted(item))));
        self.raw(name, &value)
    }

    pub(super) fn numbers(self, name: &str, values: &[u64]) -> Self {
        let value = array(values.iter().map(u64::to_string));
        self.raw(name, &value)
    }

    /// Adds what `field` adds, unless `skip`: Go's `omitempty`.
    pub(super) fn unless(self, skip: bool, field: impl FnOnce(Self) -> Self) -> Self {
        if skip { self } else { field(self) }
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }

    fn raw(mut self, name: &str, value: &str) -> Self {
        let comma = if self.0.len() > 1 { "," } else { "" };
        write!(self.0, "{comma}\"{name}\":{value}").expect("writing to a string cannot fail");
        self
    }
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        push_escaped(&mut out, character);
    }
    out.push('"');
    out
}

fn push_escaped(out: &mut String, character: char) {
    match character {
        '"' | '\\' => out.extend(['\\', character]),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
            write!(out, "\\u{:04x}", u32::from(character)).expect("writing to a string cannot fail");
        }
        _ => out.push(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_as_go_does() {
        let json = Object::new().text("a", "x<&>\"\\\n\u{1}\u{2028}é\u{7f}").end();
        assert_eq!(json, "{\"a\":\"x\\u003c\\u0026\\u003e\\\"\\\\\\n\\u0001\\u2028é\u{7f}\"}");
    }

    #[test]
    fn nil_and_empty_lists_differ() {
        let json = Object::new().texts("a", None).texts("b", Some(&[])).numbers("c", &[1, 2]).end();
        assert_eq!(json, r#"{"a":null,"b":[],"c":[1,2]}"#);
    }
}
