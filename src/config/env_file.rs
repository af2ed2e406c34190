//! systemd's `EnvironmentFile=` grammar, exactly (`load_env_file` of systemd 254 and later).
//!
//! - `#` and `;` begin a comment only as the first non-blank character of a line; a line without `=` is ignored.
//! - Keys are trimmed. Unquoted values are trimmed, `\c` gives `c`, backslash-newline joins lines, `#` is literal.
//! - Quotes are special at the start of the value and right after a closing quote; what follows is appended. In double
//!   quotes a backslash escapes only `"`, `\`, `` ` ``, `$` and newline (removed); single quotes keep everything.
//! - Nothing is expanded. Neither `export` nor `%` specifiers exist.
//! - A NUL byte or invalid UTF-8 refuses the whole file. Any other bytes parse; nothing panics.

use std::collections::BTreeMap;

use thiserror::Error;

/// One `KEY=value`, with the line its key stands on, from 1.
pub type Assignment = (usize, String, String);

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvFile {
    /// Assignments in file order; of two with one key the later counts.
    pub assignments: Vec<Assignment>,
    /// Lines that are no assignment (no `=`, a key that is no name, a value that is no text), with the key: dropped, as
    /// systemd drops them. Section headers are not among them.
    pub dropped: Vec<(usize, String)>,
    /// The line of a key whose quoted value never ends: systemd takes all that follows for the value.
    pub unclosed: Option<usize>,
}

impl EnvFile {
    /// Assignments of etcd's variables that a later one of the same file replaces, each with the line of the last one.
    pub fn replaced(&self) -> Vec<(&Assignment, usize)> {
        let last: BTreeMap<&str, usize> = self.assignments.iter().map(|(line, key, _)| (key.as_str(), *line)).collect();
        let of_etcd = self.assignments.iter().filter(|(_, key, _)| key.starts_with("ETCD_"));
        let pairs = of_etcd.filter_map(|assignment| Some((assignment, *last.get(assignment.1.as_str())?)));
        pairs.filter(|((line, ..), last)| line != last).collect()
    }
}

/// Why a whole file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EnvFileError {
    /// A NUL byte.
    #[error("the file contains a NUL byte: not a text file")]
    Nul {
        /// The line of the byte, from 1.
        line: usize,
    },
    /// Not UTF-8.
    #[error("the file is not UTF-8 text")]
    Encoding {
        /// The line of the first invalid byte, from 1.
        line: usize,
    },
}

impl EnvFileError {
    /// The line at fault, from 1.
    pub fn line(self) -> usize {
        match self {
            Self::Nul { line } | Self::Encoding { line } => line,
        }
    }
}

/// Reads a file's bytes.
///
/// # Errors
/// [`EnvFileError`] when the bytes are no text.
pub fn parse(bytes: &[u8]) -> Result<EnvFile, EnvFileError> {
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(EnvFileError::Nul { line: line_of(bytes, at) });
    }
    let text =
        std::str::from_utf8(bytes).map_err(|e| EnvFileError::Encoding { line: line_of(bytes, e.valid_up_to()) })?;
    let mut machine = Machine::default();
    for c in text.chars() {
        machine.take(c);
    }
    machine.finish();
    Ok(machine.file)
}

/// Writes `value` so that [`parse`] reads it back; plain where plain is safe.
pub fn quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/=+@%".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut out = String::from('"');
    for c in value.chars() {
        if "\"\\`$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + bytes.iter().take(at).filter(|byte| **byte == b'\n').count()
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    PreKey,
    Key,
    PreValue,
    Value,
    ValueEscape,
    SingleQuote,
    DoubleQuote,
    DoubleQuoteEscape,
    Comment,
    CommentEscape,
}

/// The reader: one character in, at most one assignment out.
#[derive(Default)]
struct Machine {
    state: State,
    /// Newlines met so far.
    newlines: usize,
    /// `newlines` when the current key began.
    key_at: usize,
    key: String,
    value: String,
    /// Length of `value` without the blanks that end it, while those could still be trimmed.
    value_end: usize,
    file: EnvFile,
}

impl Machine {
    fn take(&mut self, c: char) {
        self.state = match self.state {
            State::PreKey => self.before_key(c),
            State::Key => self.in_key(c),
            State::PreValue => self.before_value(c),
            State::Value => self.in_value(c),
            State::ValueEscape => self.escaped(c),
            State::SingleQuote => self.quoted(c, '\''),
            State::DoubleQuote if c == '\\' => State::DoubleQuoteEscape,
            State::DoubleQuote => self.quoted(c, '"'),
            State::DoubleQuoteEscape => self.escaped_in_quotes(c),
            State::Comment | State::CommentEscape if is_newline(c) => State::PreKey,
            State::Comment if c == '\\' => State::CommentEscape,
            State::Comment | State::CommentEscape => State::Comment,
        };
        self.newlines += usize::from(c == '\n');
    }

    fn before_key(&mut self, c: char) -> State {
        if c == '#' || c == ';' {
            return State::Comment;
        }
        if is_blank(c) {
            return State::PreKey;
        }
        self.key_at = self.newlines;
        self.key = String::from(c);
        State::Key
    }

    fn in_key(&mut self, c: char) -> State {
        if is_newline(c) {
            return self.end_line_without_value();
        }
        if c == '=' {
            self.value.clear();
            self.value_end = 0;
            return State::PreValue;
        }
        self.key.push(c);
        State::Key
    }

    fn before_value(&mut self, c: char) -> State {
        match c {
            c if is_newline(c) => self.end_assignment(),
            '\'' => State::SingleQuote,
            '"' => State::DoubleQuote,
            '\\' => State::ValueEscape,
            c if is_blank(c) => State::PreValue,
            c => self.push(c, State::Value),
        }
    }

    fn in_value(&mut self, c: char) -> State {
        if is_newline(c) {
            self.value.truncate(self.value_end);
            return self.end_assignment();
        }
        if c == '\\' {
            self.value_end = self.value.len();
            return State::ValueEscape;
        }
        let keep = self.value_end;
        self.push(c, State::Value);
        if is_blank(c) {
            self.value_end = keep;
        }
        State::Value
    }

    fn escaped(&mut self, c: char) -> State {
        if is_newline(c) {
            return State::Value;
        }
        self.push(c, State::Value)
    }

    fn quoted(&mut self, c: char, close: char) -> State {
        if c == close { State::PreValue } else { self.push(c, self.state) }
    }

    fn escaped_in_quotes(&mut self, c: char) -> State {
        if !"\"\\`$\n".contains(c) {
            self.value.push('\\');
        }
        if c == '\n' { State::DoubleQuote } else { self.push(c, State::DoubleQuote) }
    }

    fn push(&mut self, c: char, next: State) -> State {
        self.value.push(c);
        self.value_end = self.value.len();
        next
    }

    fn end_assignment(&mut self) -> State {
        let key = self.key.trim_end_matches(is_blank).to_owned();
        let line = self.key_at + 1;
        if is_name(&key) && is_text(&self.value) {
            self.file.assignments.push((line, key, std::mem::take(&mut self.value)));
        } else {
            self.file.dropped.push((line, key));
        }
        State::PreKey
    }

    fn end_line_without_value(&mut self) -> State {
        let text = self.key.trim_end_matches(is_blank);
        if !text.starts_with('[') {
            self.file.dropped.push((self.key_at + 1, text.to_owned()));
        }
        State::PreKey
    }

    fn finish(&mut self) {
        let in_quotes = matches!(self.state, State::SingleQuote | State::DoubleQuote | State::DoubleQuoteEscape);
        self.file.unclosed = in_quotes.then_some(self.key_at + 1);
        match self.state {
            State::PreKey | State::Comment | State::CommentEscape => {}
            State::Key => {
                self.end_line_without_value();
            }
            State::Value => {
                self.value.truncate(self.value_end);
                self.end_assignment();
            }
            _ => {
                self.end_assignment();
            }
        }
    }
}

fn is_newline(c: char) -> bool {
    c == '\n' || c == '\r'
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// A name the environment can hold: letters, digits and `_`, no digit in front.
fn is_name(key: &str) -> bool {
    !key.starts_with(|c: char| c.is_ascii_digit())
        && !key.is_empty()
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Whether a file can hold the value: only tabs and line ends of the control characters.
pub fn is_text(value: &str) -> bool {
    !value.chars().any(|c| (c < ' ' && c != '\t' && c != '\n') || c == '\u{7f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let file = parse(text.as_bytes()).expect("test files are text");
        file.assignments.into_iter().map(|(_, key, value)| (key, value)).collect()
    }

    fn value(text: &str) -> String {
        let mut all = read(text);
        assert_eq!(all.len(), 1, "{text:?} is one assignment: {all:?}");
        all.remove(0).1
    }

    #[test]
    fn comments_and_sections_are_no_assignments() {
        assert_eq!(read("# A=1\n  ; B=2\n[Member]\nexport\n\n"), []);
        assert_eq!(read("#c \\\nA=1"), [("A".into(), "1".into())]);
    }

    /// Written as YAML, the name would be lost without a word, and the member founded under another.
    #[test]
    fn lines_without_a_value_are_told() {
        let file = parse(b"ETCD_NAME: etcd1\n[Member]\nA=1\nETCD_DATA_DIR /data").expect("text");
        assert_eq!(file.assignments, [(3, "A".into(), "1".into())]);
        assert_eq!(file.dropped, [(1, "ETCD_NAME: etcd1".into()), (4, "ETCD_DATA_DIR /data".into())]);
    }

    #[test]
    fn export_is_part_of_a_key_that_is_no_name() {
        let file = parse(b"export A=1\n1B=2\nC=3\n").expect("text");
        assert_eq!(file.assignments, [(3, "C".into(), "3".into())]);
        assert_eq!(file.dropped, [(1, "export A".into()), (2, "1B".into())]);
    }

    #[test]
    fn unquoted_values_are_trimmed_unescaped_and_joined() {
        assert_eq!(value("A =  b c \t\n"), "b c");
        assert_eq!(value("A=a#b"), "a#b");
        assert_eq!(value("A=a\\ \\b\\\\"), "a b\\");
        assert_eq!(value("A=a,\\\nb\n"), "a,b");
        assert_eq!(value("A=x\\ \n"), "x ");
        assert_eq!(value("A=$B %h `c`"), "$B %h `c`");
    }

    #[test]
    fn double_quotes_escape_five_characters_only() {
        assert_eq!(value(r#"A="a\"b\\c\`d\$e\n""#), "a\"b\\c`d$e\\n");
        assert_eq!(value("A=\"a,\\\nb\nc\""), "a,b\nc");
        assert_eq!(value("A=\"  a  \"  "), "  a  ");
    }

    #[test]
    fn single_quotes_keep_everything() {
        assert_eq!(value("A='a\\\"b\n$c'"), "a\\\"b\n$c");
    }

    #[test]
    fn text_after_a_closing_quote_is_appended() {
        assert_eq!(value("A=\"a\"b"), "ab");
        assert_eq!(value("A=\"a\"  #x"), "a#x");
        assert_eq!(value("A=\"a\"'b' \"c\""), "abc");
        assert_eq!(value("A=a\"b\""), "a\"b\"");
    }

    #[test]
    fn open_quotes_end_with_the_file() {
        assert_eq!(value("A=\"ab"), "ab");
        assert_eq!(value("A='ab\n"), "ab\n");
        assert_eq!(value("A=ab\\"), "ab");
        let unclosed = |text: &str| parse(text.as_bytes()).expect("text").unclosed;
        assert_eq!([unclosed("A=1\nB=\"ab\nC=1"), unclosed("A='"), unclosed("A=\"a\"\n")], [Some(2), Some(1), None]);
    }

    #[test]
    fn lines_are_those_of_the_keys() {
        let file = parse(b"\nA=\"1\n2\"\n  B=3\\\n4\n#c\nC=\r\nD=5").expect("text");
        let lines: Vec<_> = file.assignments.iter().map(|(line, key, _)| (*line, key.as_str())).collect();
        assert_eq!(lines, [(2, "A"), (4, "B"), (7, "C"), (8, "D")]);
    }

    #[test]
    fn of_two_assignments_of_one_variable_the_first_is_replaced() {
        let file = parse(b"ETCD_A=1\nETCD_B=2\nC=1\nETCD_A=3\nC=2\nETCD_A=1\n").expect("text");
        let replaced: Vec<_> =
            file.replaced().into_iter().map(|((line, key, _), last)| (*line, key.as_str(), last)).collect();
        assert_eq!(replaced, [(1, "ETCD_A", 6), (4, "ETCD_A", 6)]);
    }

    #[test]
    fn bytes_that_are_no_text_refuse_the_file() {
        assert_eq!(parse(b"A=1\nB=\0"), Err(EnvFileError::Nul { line: 2 }));
        assert_eq!(parse(b"A=1\nB=\xff"), Err(EnvFileError::Encoding { line: 2 }));
    }

    #[test]
    fn control_characters_drop_the_assignment() {
        assert_eq!(parse(b"A=\x1b[0m\nB=1").expect("text").dropped, [(1, "A".into())]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_by_line(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let lines = bytes.split(|byte| *byte == b'\n').count();
            match parse(&bytes) {
                Ok(file) => prop_assert!(file.assignments.iter().all(|(line, ..)| (1..=lines).contains(line))),
                Err(error) => prop_assert!((1..=lines).contains(&error.line())),
            }
        }

        #[test]
        fn any_text_of_the_grammar_is_read(text in "[A-C=\"'\\\\#; \n\r\t$x1]{0,60}") {
            let file = parse(text.as_bytes()).expect("text");
            prop_assert!(file.assignments.iter().all(|(_, key, _)| is_name(key)));
        }

        #[test]
        fn quoted_values_read_back(value in "[^\\x00-\\x08\\x0b-\\x1f\\x7f]{0,40}") {
            let text = format!("A={}\nB=1\n", quote(&value));
            prop_assert_eq!(read(&text), [("A".to_owned(), value), ("B".to_owned(), "1".to_owned())]);
        }
    }
}
