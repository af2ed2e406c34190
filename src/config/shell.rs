//! A command line as a file holds it: words by the rules of a POSIX shell, without a shell.
//!
//! - Blanks and line ends separate words; `#` in front of a word begins a comment; backslash-newline joins lines.
//! - What a shell would have to run or look up (`$X`, `` `x` ``, `|`, `;`) is refused: its result is not in the file.
//! - What stands in front of the flags is the program: `etcd`, `ExecStart=/usr/bin/etcd`, `exec nice -n 5 etcd`.
//! - The dash in front of an item of a YAML list is no word, so that the command of a manifest can be read as it is.

use std::path::Path;

use super::{Origin, document::Flaw, go, table};

/// A word of a command line and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// A line of a file; any flag when it was typed.
    pub(super) origin: Origin,
}

impl Word {
    /// A word of the process's own command line.
    pub(super) fn typed(text: impl Into<String>) -> Self {
        Self { text: text.into(), origin: Origin::Flag(String::new()) }
    }
}

/// The flags that `text`, the contents of `path`, holds.
///
/// # Errors
/// The line of what is no plain command line, and why.
pub(super) fn command_line(text: &str, path: &Path) -> Result<Vec<Word>, Flaw> {
    let words = split(text)?;
    let (program, flags) = words.split_at(program_words(&words));
    if let Some((line, word)) = program.iter().find(|(_, word)| word.starts_with("ETCD_") && word.contains('=')) {
        return Err((*line, format!("{} sets a variable: that belongs into an environment file", go::quote(word))));
    }
    let word =
        |(line, text): &(usize, String)| Word { text: text.clone(), origin: Origin::File(path.to_owned(), *line) };
    Ok(flags.iter().map(word).collect())
}

/// How many words stand in front of the flags. What wraps the program may have flags of its own, but none of ours.
fn program_words(words: &[(usize, String)]) -> usize {
    let first = |is_it: fn(&str) -> bool| words.iter().position(|(_, word)| is_it(word)).unwrap_or(words.len());
    let is_program = |word: &str| matches!(word.rsplit(['/', '=']).next(), Some("etcd" | "quorate"));
    let is_option = |word: &str| {
        let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
        word.starts_with('-') && table::find(name).is_some()
    };
    let (program, option) = (first(is_program), first(is_option));
    if program < option { program + 1 } else { option.min(first(|word| word.starts_with('-'))) }
}

/// Splits a text into words, each with its line.
fn split(text: &str) -> Result<Vec<(usize, String)>, Flaw> {
    let mut splitter = Splitter { line: 1, words: Vec::new(), word: None, begins_line: true };
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | ' ' | '\t' | '\r' => splitter.end_word(c),
            '#' if splitter.word.is_none() => while chars.next_if(|c| *c != '\n').is_some() {},
            '\'' => splitter.quoted(&mut chars, '\'')?,
            '"' => splitter.quoted(&mut chars, '"')?,
            '\\' => splitter.escaped(chars.next()),
            '$' | '`' | ';' | '|' | '&' | '<' | '>' | '(' | ')' => return Err(splitter.refused(c)),
            c => splitter.push(c),
        }
    }
    splitter.end_word('\n');
    Ok(splitter.words)
}

/// The words so far.
struct Splitter {
    line: usize,
    words: Vec<(usize, String)>,
    /// The word that has not ended, with the line it began on.
    word: Option<(usize, String)>,
    /// Whether no word was met on this line.
    begins_line: bool,
}

impl Splitter {
    fn push(&mut self, c: char) {
        self.open().push(c);
        self.line += usize::from(c == '\n');
    }

    fn open(&mut self) -> &mut String {
        let line = self.line;
        &mut self.word.get_or_insert_with(|| (line, String::new())).1
    }

    /// A dash that stands alone in front of a line is a list's.
    fn end_word(&mut self, end: char) {
        if let Some((line, word)) = self.word.take() {
            let is_bullet = word == "-" && self.begins_line;
            self.begins_line = false;
            if !is_bullet {
                self.words.push((line, word));
            }
        }
        if end == '\n' {
            self.line += 1;
            self.begins_line = true;
        }
    }

    fn escaped(&mut self, c: Option<char>) {
        match c {
            Some('\n') => self.line += 1,
            Some(c) => self.push(c),
            None => {}
        }
    }

    /// The text up to the closing quote. Between double quotes a backslash keeps its meaning before a few characters.
    fn quoted(&mut self, chars: &mut std::iter::Peekable<std::str::Chars<'_>>, quote: char) -> Result<(), Flaw> {
        let opened = self.line;
        self.open();
        loop {
            match chars.next() {
                None => return Err((opened, "the quote that opens here is never closed".to_owned())),
                Some(c) if c == quote => return Ok(()),
                Some('\\') if quote == '"' => match chars.next_if(|c| "\"\\$`\n".contains(*c)) {
                    None => self.push('\\'),
                    escaped => self.escaped(escaped),
                },
                Some(c @ ('$' | '`')) if quote == '"' => return Err(self.refused(c)),
                Some(c) => self.push(c),
            }
        }
    }

    fn refused(&self, c: char) -> Flaw {
        let what = match c {
            '$' | '`' => "a shell would put something else in its place, and there is none here; write the result",
            _ => "it ends the command line for a shell, and there is none here; quote it or remove it",
        };
        (self.line, format!("{}: {what}", go::quote(&c.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::origin::shell_word;

    fn words(text: &str) -> Vec<(usize, String)> {
        split(text).expect("plain words")
    }

    fn texts(text: &str) -> Vec<String> {
        words(text).into_iter().map(|(_, word)| word).collect()
    }

    #[test]
    fn words_end_at_blanks_outside_quotes() {
        assert_eq!(texts(" --a=1\t'b  c' \"d e\"f ''\n"), ["--a=1", "b  c", "d ef", ""]);
        assert_eq!(texts(r#"a\ b 'a\b' "a\b\"\$" \'"#), ["a b", "a\\b", "a\\b\"$", "'"]);
        assert_eq!(texts("a#b #c d\n# e\nf"), ["a#b", "f"]);
    }

    #[test]
    fn words_know_their_lines() {
        let found = words("etcd \\\n  --name 'a\nb' \\\n--debug\n");
        let expected = [(1, "etcd"), (2, "--name"), (2, "a\nb"), (4, "--debug")];
        assert_eq!(found, expected.map(|(line, word)| (line, word.to_owned())));
    }

    #[test]
    fn the_dashes_of_a_list_are_no_words() {
        assert_eq!(texts("- etcd\n  - --name=a\n - \"--debug\"\n--x -"), ["etcd", "--name=a", "--debug", "--x", "-"]);
    }

    #[test]
    fn what_needs_a_shell_is_refused_with_its_line() {
        for text in ["\n--name=$HOST", "\n\"`x`\"", "a\nb | c", "a\nb;", "a\nb &", "a\n'b"] {
            assert_eq!(split(text).map_err(|(line, _)| line), Err(2), "{text}");
        }
    }

    #[test]
    fn what_stands_in_front_of_the_flags_is_the_program() {
        let flags = |text: &str| command_line(text, Path::new("f")).map(|words| words.len());
        assert_eq!([flags("etcd --a"), flags("--a"), flags("ExecStart=/usr/bin/etcd --a --b")], [Ok(1), Ok(1), Ok(2)]);
        assert_eq!([flags("exec nice -n -19 etcd --a"), flags("x -data-dir /lib/etcd")], [Ok(1), Ok(2)]);
        assert_eq!(flags("\nETCD_NAME=a etcd --a").map_err(|(line, _)| line), Err(2));
    }

    proptest! {
        #[test]
        fn quoted_words_read_back(word in "\\PC{0,20}\n?[ -~]{0,10}", other in "[ -~]{1,8}") {
            let text = format!("--x={} {}\n", shell_word(&word), shell_word(&other));
            prop_assert_eq!(texts(&text), [format!("--x={word}"), other]);
        }

        #[test]
        fn any_text_is_split_or_refused_by_line(text in "[-a'\"\\\\$ #\n]{0,30}") {
            if let Err((line, _)) = split(&text) {
                prop_assert!((1..=text.lines().count() + 1).contains(&line));
            }
        }
    }
}
