//! The text forms that etcd's tools inherit from Go: quoted strings, numbers, durations, sizes.
//!
//! Scripts read these, so they follow Go's rules (strconv, time) and the SI rule of the size printer to the letter.

use std::{
    ffi::OsStr,
    fmt::{self, Write},
    io,
    time::Duration,
};

use crate::config::go;

/// `bytes` as a Go string literal in double quotes. Bytes that are not UTF-8 become `\x` escapes.
pub(super) fn quote(bytes: &[u8]) -> String {
    let mut quoted = String::with_capacity(bytes.len() + 2);
    quoted.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_quoted(&mut quoted, c));
        chunk.invalid().iter().for_each(|byte| push_format(&mut quoted, format_args!("\\x{byte:02x}")));
    }
    quoted.push('"');
    quoted
}

fn push_quoted(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if is_printable(c) => out.push(c),
        c if c < ' ' || c == '\x7f' => push_format(out, format_args!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) < 0x1_0000 => push_format(out, format_args!("\\u{:04x}", u32::from(c))),
        c => push_format(out, format_args!("\\U{:08x}", u32::from(c))),
    }
}

fn push_format(out: &mut String, text: fmt::Arguments) {
    // Writing to a string cannot fail.
    out.write_fmt(text).unwrap_or_default();
}

/// Letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    // The standard library's table of printable characters is reachable only through its escaping; behind a letter it
    // leaves combining marks alone, as Go does.
    let mut buffer = [0; 8];
    let Some((letter, rest)) = buffer.split_first_mut() else { return false };
    *letter = b'a';
    let length = c.encode_utf8(rest).len() + 1;
    buffer
        .get(..length)
        .and_then(|text| std::str::from_utf8(text).ok())
        .is_some_and(|text| text.escape_debug().count() == 2)
}

/// Reads a Go string literal at the start of `text`: in double quotes with escapes, or raw in back quotes.
///
/// Returns the bytes it stands for and what follows it; `None` if there is no valid literal.
pub(super) fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        return raw.split_once('`').map(|(raw, rest)| (raw.replace('\r', "").into_bytes(), rest));
    }
    let mut rest = text.strip_prefix('"')?;
    let mut bytes = Vec::new();
    loop {
        let c = rest.chars().next()?;
        rest = rest.get(c.len_utf8()..)?;
        match c {
            '"' => return Some((bytes, rest)),
            '\n' => return None,
            '\\' => rest = unescape(rest, &mut bytes)?,
            c => push_char(&mut bytes, c),
        }
    }
}

/// Reads one escape after its backslash.
fn unescape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Option<&'a str> {
    let c = text.chars().next()?;
    let rest = text.get(c.len_utf8()..)?;
    let simple = match c {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => return digits(rest, 2, 16).and_then(|(code, rest)| push_byte(bytes, code).map(|()| rest)),
        '0'..='7' => return digits(text, 3, 8).and_then(|(code, rest)| push_byte(bytes, code).map(|()| rest)),
        'u' => return digits(rest, 4, 16).and_then(|(code, rest)| push_code(bytes, code).map(|()| rest)),
        'U' => return digits(rest, 8, 16).and_then(|(code, rest)| push_code(bytes, code).map(|()| rest)),
        _ => return None,
    };
    bytes.push(simple);
    Some(rest)
}

fn digits(text: &str, count: usize, radix: u32) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(count)?;
    digits.chars().all(|c| c.is_digit(radix)).then_some(())?;
    Some((u32::from_str_radix(digits, radix).ok()?, rest))
}

fn push_byte(bytes: &mut Vec<u8>, code: u32) -> Option<()> {
    bytes.push(u8::try_from(code).ok()?);
    Some(())
}

fn push_code(bytes: &mut Vec<u8>, code: u32) -> Option<()> {
    push_char(bytes, char::from_u32(code)?);
    Some(())
}

fn push_char(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Reads a signed number of `base` 10 or 16, or of base 0: then a prefix names the base and underscores may group.
///
/// # Errors
/// Go's text for what is wrong with it.
pub(super) fn parse_int(text: &str, base: u32) -> Result<i64, String> {
    let failed = |why| format!("strconv.ParseInt: parsing {}: {why}", quote(text.as_bytes()));
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..).unwrap_or_default()),
        Some(b'+') => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    let magnitude = magnitude(digits, base).map_err(failed)?;
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    i64::try_from(value).map_err(|_| failed(OUT_OF_RANGE))
}

/// Reads a number that is not negative, whose prefix may name its base.
///
/// # Errors
/// Go's text for what is wrong with it.
pub(super) fn parse_unsigned(text: &str) -> Result<u64, String> {
    magnitude(text, 0).map_err(|why| format!("strconv.ParseUint: parsing {}: {why}", quote(text.as_bytes())))
}

/// Reads an unsigned hexadecimal number.
///
/// # Errors
/// Go's text for what is wrong with it.
pub(super) fn parse_hex_id(text: &str) -> Result<u64, String> {
    magnitude(text, 16).map_err(|why| format!("strconv.ParseUint: parsing {}: {why}", quote(text.as_bytes())))
}

fn magnitude(text: &str, base: u32) -> Result<u64, &'static str> {
    let (digits, base) = if base == 0 { prefixed(text)? } else { (text.to_owned(), base) };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err(BAD_SYNTAX);
    }
    u64::from_str_radix(&digits, base).map_err(|_| OUT_OF_RANGE)
}

/// Splits off a base prefix and drops the underscores that may stand between digits.
fn prefixed(text: &str) -> Result<(String, u32), &'static str> {
    let lower = text.to_ascii_lowercase();
    let (digits, base) = if let Some(digits) = lower.strip_prefix("0x") {
        (digits, 16)
    } else if let Some(digits) = lower.strip_prefix("0b") {
        (digits, 2)
    } else if let Some(digits) = lower.strip_prefix("0o") {
        (digits, 8)
    } else if let Some(digits) = lower.strip_prefix('0').filter(|digits| !digits.is_empty()) {
        (digits, 8)
    } else {
        (lower.as_str(), 10)
    };
    let grouped = digits.strip_prefix('_').filter(|_| digits.len() < lower.len()).unwrap_or(digits);
    if grouped.starts_with('_') || grouped.ends_with('_') || grouped.contains("__") {
        return Err(BAD_SYNTAX);
    }
    Ok((grouped.replace('_', ""), base))
}

/// Reads a truth value.
///
/// # Errors
/// Go's text for what is wrong with it.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: {BAD_SYNTAX}", quote(text.as_bytes()))),
    }
}

/// Reads a duration such as `1h15m30.918s`. What Go reads as negative becomes zero: no flag has a use for it.
///
/// # Errors
/// Go's text for what is wrong with it.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    Ok(Duration::from_nanos(u64::try_from(go::parse_duration(text)?).unwrap_or(0)))
}

/// A duration as Go prints it: `1.5s`, `2m0s`, `13.2µs`.
pub(super) fn duration(duration: Duration) -> String {
    go::format_duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// A number of bytes in SI units: `20 kB`, `2.1 GB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut scale: u128 = 1;
    let mut unit = "B";
    for (step, name) in UNITS.iter().enumerate() {
        let candidate = 1_000_u128.pow(u32::try_from(step).unwrap_or(0));
        if u128::from(bytes) >= candidate {
            (scale, unit) = (candidate, name);
        }
    }
    // Tenths, rounded half up; from ten on only whole numbers are shown, rounded half to even as Go prints floats.
    let tenths = (u128::from(bytes) * 10 + scale / 2) / scale;
    if tenths < 100 { format!("{}.{} {unit}", tenths / 10, tenths % 10) } else { format!("{} {unit}", rounded(tenths)) }
}

fn rounded(tenths: u128) -> u128 {
    let whole = tenths / 10;
    match tenths % 10 {
        0..=4 => whole,
        5 => whole + whole % 2,
        _ => whole + 1,
    }
}

/// A list as Go's `%q` prints a slice of strings.
pub(super) fn quote_list<T: AsRef<[u8]>>(items: &[T]) -> String {
    let quoted: Vec<_> = items.iter().map(|item| quote(item.as_ref())).collect();
    format!("[{}]", quoted.join(" "))
}

/// Why a program was not started.
pub(super) fn start_failure(program: &OsStr, error: &io::Error) -> String {
    let name = program.to_string_lossy();
    match (error.kind(), name.contains('/')) {
        (io::ErrorKind::NotFound, true) => format!("fork/exec {name}: no such file or directory"),
        (io::ErrorKind::NotFound, false) => {
            format!("exec: {}: executable file not found in $PATH", quote(name.as_bytes()))
        }
        (io::ErrorKind::PermissionDenied, _) => format!("fork/exec {name}: permission denied"),
        _ => format!("fork/exec {name}: {error}"),
    }
}

/// What Go calls a signal.
pub(super) fn signal(number: i32) -> String {
    let name = match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        6 => "aborted",
        8 => "floating point exception",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

const BAD_SYNTAX: &str = "invalid syntax";
const OUT_OF_RANGE: &str = "value out of range";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quoting_escapes_what_go_does_not_print() {
        assert_eq!(quote(b"plain \"x\" \\"), r#""plain \"x\" \\""#);
        assert_eq!(quote(b"\0\x01\n\t\x7f\xff"), r#""\x00\x01\n\t\x7f\xff""#);
        assert_eq!(quote("é\u{301}世".as_bytes()), "\"é\u{301}世\"");
        assert_eq!(quote("\u{a0}\u{200b}\u{e000}\u{10ffff}".as_bytes()), r#""\u00a0\u200b\ue000\U0010ffff""#);
    }

    #[test]
    fn unquoting_reads_both_literals_and_stops_at_their_end() {
        assert_eq!(unquote(r#""a\tb\x41\101é" rest"#), Some(("a\tbAAé".into(), " rest")));
        assert_eq!(unquote(r"`raw\n`)"), Some((r"raw\n".into(), ")")));
        assert_eq!(unquote(r#""open"#), None);
        assert_eq!(unquote(r#""\q""#), None);
        assert_eq!(unquote(r#""\400""#), None);
        assert_eq!(unquote("bare"), None);
    }

    proptest! {
        #[test]
        fn quoted_bytes_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let quoted = quote(&bytes);
            prop_assert_eq!(unquote(&quoted), Some((bytes, "")));
        }

        #[test]
        fn printed_durations_read_back(nanos in 0..=u64::MAX / 2) {
            let value = Duration::from_nanos(nanos);
            prop_assert_eq!(parse_duration(&duration(value)), Ok(value));
        }
    }

    #[test]
    fn numbers_fail_in_the_words_of_go() {
        let failed = |text, base| parse_int(text, base).unwrap_err();
        assert_eq!(failed("x", 10), r#"strconv.ParseInt: parsing "x": invalid syntax"#);
        assert_eq!(failed("", 16), r#"strconv.ParseInt: parsing "": invalid syntax"#);
        assert_eq!(
            failed("9223372036854775808", 10),
            r#"strconv.ParseInt: parsing "9223372036854775808": value out of range"#
        );
        assert_eq!(failed("0x10", 16), r#"strconv.ParseInt: parsing "0x10": invalid syntax"#);
        assert_eq!(parse_int("-9223372036854775808", 10), Ok(i64::MIN));
        assert_eq!(parse_int("+7f", 16), Ok(127));
        assert_eq!(parse_hex_id("zz").unwrap_err(), r#"strconv.ParseUint: parsing "zz": invalid syntax"#);
        assert_eq!(parse_hex_id("ffffffffffffffff"), Ok(u64::MAX));
    }

    #[test]
    fn flags_read_numbers_of_any_base() {
        let read: Vec<_> = ["12", "0x1f", "017", "0o17", "0b11", "1_000", "0x_f"].map(|text| parse_int(text, 0)).into();
        assert_eq!(read, [12, 31, 15, 15, 3, 1_000, 15].map(Ok));
        assert!(parse_int("1__0", 0).is_err() && parse_int("_1", 0).is_err() && parse_int("08", 0).is_err());
    }

    #[test]
    fn durations_print_like_go() {
        let printed = |nanos| duration(Duration::from_nanos(nanos));
        assert_eq!(printed(0), "0s");
        assert_eq!(printed(999), "999ns");
        assert_eq!(printed(1_500), "1.5µs");
        assert_eq!(printed(2_552_685), "2.552685ms");
        assert_eq!(printed(501_370_126_000), "8m21.370126s");
        assert_eq!(printed(3_600_000_000_000), "1h0m0s");
    }

    #[test]
    fn durations_fail_in_the_words_of_go() {
        assert_eq!(parse_duration("1h15m30.918s"), Ok(Duration::from_millis(4_530_918)));
        assert_eq!(parse_duration("-5s"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("5").unwrap_err(), r#"time: missing unit in duration "5""#);
        assert_eq!(parse_duration("x").unwrap_err(), r#"time: invalid duration "x""#);
        assert_eq!(parse_duration("5y").unwrap_err(), r#"time: unknown unit "y" in duration "5y""#);
        assert_eq!(parse_duration("").unwrap_err(), r#"time: invalid duration """#);
    }

    #[test]
    fn sizes_print_in_si_units() {
        let printed: Vec<_> = [0, 9, 10, 82, 20_480, 122_880, 2_147_483_648, 999_999, u64::MAX].map(size).into();
        assert_eq!(printed, ["0 B", "9 B", "10 B", "82 B", "20 kB", "123 kB", "2.1 GB", "1000 kB", "18 EB"]);
    }
}
