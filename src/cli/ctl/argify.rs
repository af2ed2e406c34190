//! Splitting a line of standard input into words.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use crate::cli::go_text;

/// Splits `line` at blanks. A word in double quotes may contain blanks and Go's escapes, one in single quotes blanks;
/// a quote that is never closed is skipped, and one inside a word belongs to it.
///
/// # Errors
/// The first word in double quotes whose escapes make no sense.
pub(super) fn argify(line: &str) -> Result<Vec<OsString>, String> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if is_blank(c) {
            rest = after(rest, c);
        } else if let Some((quoted, behind)) = quoted(rest, c) {
            words.push(OsString::from_vec(content(quoted, c)?));
            rest = behind;
        } else if c == '"' || c == '\'' {
            rest = after(rest, c);
        } else {
            let (word, behind) = rest.split_at(rest.find(is_blank).unwrap_or(rest.len()));
            words.push(OsString::from(word));
            rest = behind;
        }
    }
    Ok(words)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

fn after(text: &str, c: char) -> &str {
    text.get(c.len_utf8()..).unwrap_or_default()
}

/// Splits off the quoted word at the start of `text`, quotes included.
fn quoted(text: &str, quote: char) -> Option<(&str, &str)> {
    if quote != '"' && quote != '\'' {
        return None;
    }
    let mut escaped = false;
    let end = after(text, quote).char_indices().find_map(|(at, c)| {
        let closes = c == quote && !escaped;
        escaped = quote == '"' && c == '\\' && !escaped;
        closes.then_some(at)
    })?;
    Some(text.split_at(end + 2 * quote.len_utf8()))
}

fn content(quoted: &str, quote: char) -> Result<Vec<u8>, String> {
    if quote == '\'' {
        return Ok(quoted.trim_matches('\'').as_bytes().to_vec());
    }
    go_text::unquote(quoted).map(|(content, _)| content).ok_or_else(|| "invalid syntax".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Vec<String> {
        argify(line).unwrap().into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn words_end_at_blanks_outside_quotes() {
        assert_eq!(split("  put  a\tb "), ["put", "a", "b"]);
        assert_eq!(split(r#"put "a b" 'c "d"' "" ''"#), ["put", "a b", "c \"d\"", "", ""]);
        assert_eq!(split(r#"put "a\tb\x41\"" x"#), ["put", "a\tbA\"", "x"]);
    }

    #[test]
    fn quotes_that_never_close_are_skipped() {
        assert_eq!(split(r#"put "abc d"#), ["put", "abc", "d"]);
        assert_eq!(split("it's fine"), ["it's", "fine"]);
        assert_eq!(split(r#"a"b c"d"#), ["a\"b", "c\"d"]);
        assert_eq!(split("\"a\"b"), ["a", "b"]);
    }

    #[test]
    fn escapes_that_make_no_sense_are_refused() {
        assert_eq!(argify(r#"put "\q" x"#), Err("invalid syntax".to_owned()));
    }
}
