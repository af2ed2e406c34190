//! A JSON object under construction, with every field bounded and nothing in it that a terminal would obey.

use std::fmt::{Arguments, Display, Write as _};

/// What is shown of a key or of any other text, in bytes; of a longer one the field `…_bytes` tells the length.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Fields of a JSON object: `,"name":value` for each.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    text: String,
}

impl Fields {
    /// The fields as one line: a JSON object and a line feed.
    pub fn into_line(self) -> String {
        let mut line = self.text;
        if line.is_empty() {
            line.push('{');
        } else {
            line.replace_range(..1, "{");
        }
        line.push_str("}\n");
        line
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Adds what another one has.
    pub fn append(&mut self, other: &Self) {
        self.text.push_str(&other.text);
    }

    /// A key, or anything else made of bytes: text as it is, but for `\`, written `\\`, and for bytes that are no UTF-8 and
    /// characters that are not shown, written `\xNN`. So every key can be told from every other one, and read back.
    pub fn bytes(&mut self, name: &str, bytes: &[u8]) {
        self.name(name);
        self.put_bytes(bytes);
        if bytes.len() > TEXT_BYTES_MAX {
            self.put(format_args!(",\"{name}_bytes\":{}", bytes.len()));
        }
    }

    /// As [`Fields::bytes`], left out where there are none.
    pub fn some_bytes(&mut self, name: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes(name, bytes);
        }
    }

    /// A text, as [`Fields::bytes`].
    pub fn text(&mut self, name: &str, text: &str) {
        self.bytes(name, text.as_bytes());
    }

    /// As [`Fields::text`], left out if it is empty.
    pub fn some_text(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    /// As [`Fields::text`], of what has a short form that needs no escapes.
    pub fn shown(&mut self, name: &str, value: impl Display) {
        self.put(format_args!(",\"{name}\":\"{value}\""));
    }

    /// A number.
    pub fn number(&mut self, name: &str, number: impl Into<i128>) {
        let number: i128 = number.into();
        self.put(format_args!(",\"{name}\":{number}"));
    }

    /// Yes or no.
    pub fn switch(&mut self, name: &str, on: bool) {
        self.put(format_args!(",\"{name}\":{on}"));
    }

    /// An object.
    pub fn object(&mut self, name: &str, tell: impl FnOnce(&mut Self)) {
        self.name(name);
        self.put_object(tell);
    }

    /// A list of objects, as many as fit: `room_bytes` is for all fields together, and what does not fit is counted in a
    /// field `…_left_out`. Each object may be longer than the room by itself.
    pub fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        room_bytes: usize,
        mut tell: impl FnMut(&mut Self, T),
    ) {
        self.name(name);
        self.text.push('[');
        let (mut told, mut left_out) = (0_u32, 0_u32);
        for item in items {
            if self.text.len() >= room_bytes {
                left_out += 1;
                continue;
            }
            if told > 0 {
                self.text.push(',');
            }
            told += 1;
            self.put_object(|fields| tell(fields, item));
        }
        self.text.push(']');
        if left_out > 0 {
            self.put(format_args!(",\"{name}_left_out\":{left_out}"));
        }
    }

    /// A list of texts, each cut at [`TEXT_BYTES_MAX`], of which the first `most` are shown.
    pub fn texts<'a>(&mut self, name: &str, texts: impl IntoIterator<Item = &'a str>, most: usize) {
        self.name(name);
        self.text.push('[');
        for (at, text) in texts.into_iter().take(most).enumerate() {
            if at > 0 {
                self.text.push(',');
            }
            self.put_bytes(text.as_bytes());
        }
        self.text.push(']');
    }

    fn name(&mut self, name: &str) {
        self.put(format_args!(",\"{name}\":"));
    }

    fn put_object(&mut self, tell: impl FnOnce(&mut Self)) {
        let begin = self.text.len();
        tell(self);
        if self.text.len() == begin {
            self.text.push('{');
        } else {
            // The comma in front of its first field.
            self.text.replace_range(begin..=begin, "{");
        }
        self.text.push('}');
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.text.push('"');
        for chunk in bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes).utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' => self.text.push_str("\\\""),
                    '\\' => self.text.push_str("\\\\\\\\"),
                    character if is_unseen(character) => self.put_escaped(character.encode_utf8(&mut [0; 4]).bytes()),
                    character => self.text.push(character),
                }
            }
            self.put_escaped(chunk.invalid().iter().copied());
        }
        self.text.push('"');
    }

    fn put_escaped(&mut self, bytes: impl Iterator<Item = u8>) {
        bytes.for_each(|byte| self.put(format_args!("\\\\x{byte:02x}")));
    }

    fn put(&mut self, arguments: Arguments<'_>) {
        self.text.write_fmt(arguments).expect("a String takes any text");
    }
}

/// Whether a character is not shown itself, and changes how others are: what controls terminals, what ends lines and what
/// turns the direction of a text (Unicode's categories Cc, Zl, Zp and Cf).
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180e}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(tell: impl FnOnce(&mut Fields)) -> serde_json::Value {
        let mut fields = Fields::default();
        tell(&mut fields);
        let line = fields.into_line();
        assert_eq!(line.find('\n'), Some(line.len() - 1), "{line}");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The bytes that a key in the log stands for.
    fn read_back(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            bytes.extend_from_slice(&rest.as_bytes()[..at]);
            rest = &rest[at + 1..];
            if let Some(behind) = rest.strip_prefix('\\') {
                bytes.push(b'\\');
                rest = behind;
            } else {
                bytes.push(u8::from_str_radix(&rest[1..3], 16).unwrap());
                rest = &rest[3..];
            }
        }
        bytes.extend_from_slice(rest.as_bytes());
        bytes
    }

    #[test]
    fn keys_are_shown_as_they_are_and_can_be_read_back() {
        let shown = |key: &[u8]| line(|fields| fields.bytes("key", key))["key"].as_str().unwrap().to_owned();
        assert_eq!(shown("/registry/pods/größe \"1\"".as_bytes()), "/registry/pods/größe \"1\"");
        assert_eq!(shown(b"a\\b"), "a\\\\b");
        assert_eq!(shown(b"\xff\0\n"), "\\xff\\x00\\x0a");
        // What a terminal takes for a command is two bytes of UTF-8.
        assert_eq!(shown("\u{9b}".as_bytes()), "\\xc2\\x9b");
        assert_eq!(shown(b"\\x00"), "\\\\x00");
        // What turns the direction of all that follows, and what ends lines for some readers.
        assert_eq!(shown("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
        for unseen in ['\u{2066}', '\u{2069}', '\u{2028}', '\u{2029}', '\u{200b}', '\u{feff}', '\u{ad}', '\u{e0041}'] {
            let shown = shown(unseen.to_string().as_bytes());
            assert!(shown.is_ascii() && shown.starts_with("\\x"), "{shown}");
        }
        assert_eq!(shown("מפתח مفتاح é".as_bytes()), "מפתח مفتاح é");
    }

    #[test]
    fn long_keys_and_texts_are_cut() {
        let long = vec![b'k'; TEXT_BYTES_MAX + 1];
        let value = line(|fields| fields.bytes("key", &long));
        assert_eq!(value["key"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        assert_eq!(value["key_bytes"], TEXT_BYTES_MAX + 1);
        assert!(line(|fields| fields.bytes("key", &long[1..])).get("key_bytes").is_none());
        let text = "ä".repeat(TEXT_BYTES_MAX);
        let value = line(|fields| fields.text("error", &text));
        assert_eq!(value["error"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        assert_eq!(value["error_bytes"], 2 * TEXT_BYTES_MAX);
    }

    #[test]
    fn lists_end_where_the_room_does() {
        let value = line(|fields| {
            fields.list("ops", 0..100, 100, |fields, number| fields.number("n", number));
            fields.texts("urls", ["a", "b", "c"], 2);
            fields.object("none", |_| {});
            fields.list("nothing", 0..0, 100, |_, _: i32| {});
        });
        let told = value["ops"].as_array().unwrap().len();
        assert_eq!(value["ops"][3]["n"], 3);
        assert!(told < 20, "{told}");
        assert_eq!(value["ops_left_out"], 100 - told);
        assert_eq!(value["urls"], serde_json::json!(["a", "b"]));
        assert_eq!((&value["none"], &value["nothing"]), (&serde_json::json!({}), &serde_json::json!([])));
    }

    proptest! {
        #[test]
        fn every_key_can_be_read_back(key in prop::collection::vec(any::<u8>(), 0..40)) {
            let value = line(|fields| fields.bytes("key", &key));
            prop_assert_eq!(read_back(value["key"].as_str().unwrap()), key);
        }
    }
}
