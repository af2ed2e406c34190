//! JSON as Go writes it, because clients and tests compare bytes.

use crate::v2store::{Error, Event, KEYS_PREFIX, Nanos, Shown, Step};

/// Appends `text` as a string, as the Go of those days did: characters that could end a script are escaped, and what is no UTF-8 is replaced.
pub(super) fn string(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        escaped(chunk.valid(), out);
        if !chunk.invalid().is_empty() {
            // Go replaces byte by byte.
            (0..chunk.invalid().len()).for_each(|_| out.extend_from_slice(b"\\ufffd"));
        }
    }
    out.push(b'"');
}

/// What needs no escape is most of a value, and is copied in one piece: letter by letter it takes seconds.
fn escaped(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| begins_escaped(*byte)) {
        let (plain, behind) = rest.split_at(at);
        out.extend_from_slice(plain);
        rest = escape_first(behind, out);
    }
    out.extend_from_slice(rest);
}

/// The first byte of both line separators.
const SEPARATOR: u8 = 0xe2;

/// Whether a character that begins with this byte may have an escape.
fn begins_escaped(byte: u8) -> bool {
    matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&' | 0..=0x1f | SEPARATOR)
}

/// Writes the first character; what is behind it.
fn escape_first<'t>(text: &'t [u8], out: &mut Vec<u8>) -> &'t [u8] {
    match text {
        [byte @ (b'"' | b'\\'), rest @ ..] => {
            out.extend_from_slice(&[b'\\', *byte]);
            rest
        }
        [b'\n', rest @ ..] => {
            out.extend_from_slice(b"\\n");
            rest
        }
        [b'\r', rest @ ..] => {
            out.extend_from_slice(b"\\r");
            rest
        }
        [b'\t', rest @ ..] => {
            out.extend_from_slice(b"\\t");
            rest
        }
        [SEPARATOR, 0x80, last @ (0xa8 | 0xa9), rest @ ..] => {
            out.extend_from_slice(if *last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
            rest
        }
        // The others that begin so have no escape.
        [SEPARATOR, rest @ ..] => {
            out.push(SEPARATOR);
            rest
        }
        [byte, rest @ ..] => {
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 0xf)]);
            rest
        }
        [] => text,
    }
}

fn hex(digit: u8) -> u8 {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    DIGITS.get(usize::from(digit)).copied().unwrap_or_default()
}

/// An event on a line of its own. With `brief` only what was done.
pub(super) fn event(event: &Event, brief: bool) -> Vec<u8> {
    let mut out = b"{\"action\":".to_vec();
    string(event.action.name().as_bytes(), &mut out);
    if !brief {
        out.extend_from_slice(b",\"node\":");
        node(&event.node, &mut out);
        if let Some(previous) = &event.previous {
            out.extend_from_slice(b",\"prevNode\":");
            node(previous, &mut out);
        }
    }
    out.extend_from_slice(b"}\n");
    out
}

/// A refusal on a line of its own.
pub(super) fn error(error: &Error) -> Vec<u8> {
    let Error { code, cause, index } = error;
    let mut out = format!("{{\"errorCode\":{},\"message\":\"{}\"", code.number(), code.message()).into_bytes();
    let cause = shown(cause);
    if !cause.is_empty() {
        out.extend_from_slice(b",\"cause\":");
        string(cause, &mut out);
    }
    out.extend_from_slice(format!(",\"index\":{index}}}\n").as_bytes());
    out
}

/// A path without the part of the tree that users do not see.
fn shown(path: &[u8]) -> &[u8] {
    path.strip_prefix(KEYS_PREFIX.as_bytes()).unwrap_or(path)
}

/// What follows the last step of an answer to a read.
pub(super) const GOT_END: &[u8] = b"}\n";

/// The answer to a read, written step by step.
#[derive(Debug, Default)]
pub(super) struct Got {
    begun: bool,
    /// Of each directory that was entered, whether it has children so far.
    entered: Vec<bool>,
}

impl Got {
    /// Appends what these steps show.
    pub(super) fn write(&mut self, steps: &[Step], out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            out.extend_from_slice(b"{\"action\":\"get\",\"node\":");
        }
        for step in steps {
            self.step(step, out);
        }
    }

    fn step(&mut self, step: &Step, out: &mut Vec<u8>) {
        match step {
            Step::Node(shown) => {
                self.separate(out);
                node(shown, out);
            }
            Step::Enter(shown) => {
                self.separate(out);
                Fields { out, empty: true }.before_children(shown);
                self.entered.push(false);
            }
            Step::Leave(shown) => {
                let has_children = self.entered.pop().unwrap_or_default();
                if has_children {
                    out.push(b']');
                }
                let mut fields = Fields { out, empty: false };
                fields.behind_children(shown);
                fields.end();
            }
        }
    }

    /// What stands before a child.
    fn separate(&mut self, out: &mut Vec<u8>) {
        if let Some(has_children) = self.entered.last_mut() {
            let first = !std::mem::replace(has_children, true);
            out.extend_from_slice(if first { b",\"nodes\":[" } else { b"," });
        }
    }
}

fn node(node: &Shown, out: &mut Vec<u8>) {
    let mut fields = Fields { out, empty: true };
    fields.before_children(node);
    fields.behind_children(node);
    fields.end();
}

/// The fields of one object.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl Fields<'_> {
    fn before_children(&mut self, node: &Shown) {
        let Shown { key, value, dir, expiration, ttl, .. } = node;
        let key = shown(key.as_bytes());
        if !key.is_empty() {
            string(key, self.next("key"));
        }
        if let Some(value) = value {
            string(value, self.next("value"));
        }
        if *dir {
            self.next("dir").extend_from_slice(b"true");
        }
        if *expiration != 0 {
            string(rfc3339(*expiration).as_bytes(), self.next("expiration"));
        }
        self.number("ttl", *ttl);
    }

    fn behind_children(&mut self, node: &Shown) {
        self.number("modifiedIndex", node.modified);
        self.number("createdIndex", node.created);
    }

    /// Where the value of the next field goes.
    fn next(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.push(if self.empty { b'{' } else { b',' });
        self.empty = false;
        self.out.extend_from_slice(format!("\"{name}\":").as_bytes());
        self.out
    }

    /// Left out if it is zero.
    fn number(&mut self, name: &str, number: impl Copy + Default + PartialEq + std::fmt::Display) {
        if number != Default::default() {
            self.next(name).extend_from_slice(number.to_string().as_bytes());
        }
    }

    fn end(self) {
        self.out.extend_from_slice(if self.empty { b"{}" } else { b"}" });
    }
}

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// A time in UTC, with as many digits behind the second as it has (Go's `RFC3339Nano`).
pub(super) fn rfc3339(time: Nanos) -> String {
    let (seconds, nanos) = (time.div_euclid(NANOS_PER_SECOND), time.rem_euclid(NANOS_PER_SECOND));
    let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if nanos != 0 {
        let digits = format!("{nanos:09}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Year, month and day, so many days after the first of January 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::v2store::{Action, ErrorCode, Path};

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn file(key: &str, value: &str) -> Shown {
        Shown {
            key: Path::clean(key.as_bytes()),
            value: Some(value.to_owned().into()),
            dir: false,
            expiration: 0,
            ttl: 0,
            modified: 4,
            created: 4,
        }
    }

    #[test]
    fn events_have_etcds_fields_in_etcds_order() {
        let set = Event { action: Action::Set, node: file("/1/foo", "bar"), previous: None, index: 4, refresh: true };
        let expected = r#"{"action":"set","node":{"key":"/foo","value":"bar","modifiedIndex":4,"createdIndex":4}}"#;
        assert_eq!(text(event(&set, false)), format!("{expected}\n"));
        assert_eq!(text(event(&set, true)), "{\"action\":\"set\"}\n");
        let mortal = Shown { expiration: 1_518_513_681_874_888_580, ttl: -1, ..file("/1/foo", "") };
        let update = Event { action: Action::Update, previous: Some(mortal), ..set };
        let expected = r#"{"key":"/foo","value":"","expiration":"2018-02-13T09:21:21.87488858Z","ttl":-1,"modifiedIndex":4,"createdIndex":4}"#;
        assert!(text(event(&update, false)).ends_with(&format!(",\"prevNode\":{expected}}}\n")));
    }

    fn got(pieces: &[&[Step]]) -> String {
        let (mut got, mut out) = (Got::default(), Vec::new());
        for steps in pieces {
            got.write(steps, &mut out);
        }
        out.extend_from_slice(GOT_END);
        text(out)
    }

    #[test]
    fn root_has_neither_key_nor_indexes() {
        let root = Shown { value: None, dir: true, modified: 0, created: 0, ..file("/1", "") };
        let (enter, leave) = (Step::Enter(root.clone()), Step::Leave(root));
        assert_eq!(got(&[&[enter, leave]]), "{\"action\":\"get\",\"node\":{\"dir\":true}}\n");
    }

    #[test]
    fn directories_have_their_children_before_their_indexes() {
        let dir = |key: &str| Shown { value: None, dir: true, ..file(key, "") };
        let steps = [
            Step::Enter(dir("/1/d")),
            Step::Node(file("/1/d/a", "")),
            Step::Enter(dir("/1/d/e")),
            Step::Leave(dir("/1/d/e")),
            Step::Node(dir("/1/d/z")),
            Step::Leave(dir("/1/d")),
        ];
        let ends = r#""modifiedIndex":4,"createdIndex":4}"#;
        let expected = format!(
            r#"{{"action":"get","node":{{"key":"/d","dir":true,"nodes":[{{"key":"/d/a","value":"",{ends},{{"key":"/d/e","dir":true,{ends},{{"key":"/d/z","dir":true,{ends}],{ends}}}"#
        );
        assert_eq!(got(&[&steps]), format!("{expected}\n"));
        let (first, second) = steps.split_at(2);
        assert_eq!(got(&[first, second]), format!("{expected}\n"), "in whatever pieces it comes");
        assert_eq!(
            got(&[&[Step::Node(file("/1/a", "x"))]]),
            format!("{{\"action\":\"get\",\"node\":{{\"key\":\"/a\",\"value\":\"x\",{ends}}}\n")
        );
    }

    #[test]
    fn errors_leave_an_empty_cause_out() {
        let of = |cause: &'static str| text(error(&Error::new(ErrorCode::NotFile, cause, 7)));
        assert_eq!(of("/1/a<"), "{\"errorCode\":102,\"message\":\"Not a file\",\"cause\":\"/a\\u003c\",\"index\":7}\n");
        assert_eq!(of("/1"), "{\"errorCode\":102,\"message\":\"Not a file\",\"index\":7}\n");
        assert_eq!(
            of("[a != b]"),
            "{\"errorCode\":102,\"message\":\"Not a file\",\"cause\":\"[a != b]\",\"index\":7}\n"
        );
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let of = |bytes: &[u8]| {
            let mut out = Vec::new();
            string(bytes, &mut out);
            text(out)
        };
        assert_eq!(
            of("<a>&\"\\\n\u{8}\u{7f}\u{2028}ä".as_bytes()),
            "\"\\u003ca\\u003e\\u0026\\\"\\\\\\n\\u0008\u{7f}\\u2028ä\""
        );
        assert_eq!(of(b"\xff\xe2\x82a"), "\"\\ufffd\\ufffd\\ufffda\"");
    }

    /// [`string`] as it can be read off Go's rules, letter by letter.
    fn plainly(bytes: &[u8]) -> String {
        let mut out = "\"".to_owned();
        for chunk in bytes.utf8_chunks() {
            for letter in chunk.valid().chars() {
                match letter {
                    '"' => out += "\\\"",
                    '\\' => out += "\\\\",
                    '\n' => out += "\\n",
                    '\r' => out += "\\r",
                    '\t' => out += "\\t",
                    '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                        write!(out, "\\u{:04x}", u32::from(letter)).unwrap();
                    }
                    letter => out.push(letter),
                }
            }
            out += &"\\ufffd".repeat(chunk.invalid().len());
        }
        out + "\""
    }

    fn text_or_not() -> impl Strategy<Value = Vec<u8>> {
        let text = prop_oneof![
            "[ -~]{0,20}".prop_map(String::into_bytes),
            "[\"\\\\<>&\u{0}-\u{20}\u{7f}]{1,4}".prop_map(String::into_bytes),
            "[\u{2000}-\u{203f}ä€\u{10ffff}]{1,4}".prop_map(String::into_bytes),
            proptest::collection::vec(prop_oneof![Just(0xe2), Just(0x80), Just(0xa8), any::<u8>()], 0..6),
        ];
        proptest::collection::vec(text, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_are_written_as_letter_by_letter(bytes in text_or_not()) {
            let mut out = Vec::new();
            string(&bytes, &mut out);
            prop_assert_eq!(text(out), plainly(&bytes));
        }
    }

    #[test]
    fn times_are_gos() {
        for (time, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (1_518_513_671_874_888_581, "2018-02-13T09:21:11.874888581Z"),
            (1_518_513_671_100_000_000, "2018-02-13T09:21:11.1Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(rfc3339(time), shown);
        }
    }
}
