//! Go's spelling of values, as etcd's flags and variables use it: integers, booleans, durations, quoted strings.
//!
//! The rules are those of Go's `strconv` and `time` packages; the errors are the words etcd prints for them.

/// Why Go refuses a number: the words of its `flag` package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberError {
    /// Not a number.
    Syntax,
    /// A number outside the type.
    Range,
}

impl NumberError {
    /// As `flag` says it.
    pub(super) fn as_flag(self) -> &'static str {
        match self {
            Self::Syntax => "parse error",
            Self::Range => "value out of range",
        }
    }

    /// As `strconv` says it.
    pub(super) fn as_strconv(self) -> &'static str {
        match self {
            Self::Syntax => "invalid syntax",
            Self::Range => "value out of range",
        }
    }
}

/// Go's `ParseUint(text, 0, 64)`: decimal, or `0x`, `0o`, `0b`, `0` prefixes; underscores between digits.
pub(super) fn parse_uint(text: &str) -> Result<u64, NumberError> {
    let (digits, radix, prefixed) = split_radix(text);
    if !underscores_are_between_digits(digits, prefixed) {
        return Err(NumberError::Syntax);
    }
    let plain: String = digits.chars().filter(|c| *c != '_').collect();
    if plain.is_empty() || !plain.chars().all(|c| c.is_digit(radix)) {
        return Err(NumberError::Syntax);
    }
    u64::from_str_radix(&plain, radix).map_err(|_| NumberError::Range)
}

/// Go's `ParseInt(text, 0, 64)`: as [`parse_uint`], with a sign.
pub(super) fn parse_int(text: &str) -> Result<i64, NumberError> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, text.get(1..).unwrap_or_default()),
        [b'+', ..] => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    let size = i128::from(parse_uint(digits)?);
    i64::try_from(if negative { -size } else { size }).map_err(|_| NumberError::Range)
}

/// The digits, their radix, and whether a prefix stood before them (`0_7` then counts as "between digits").
fn split_radix(text: &str) -> (&str, u32, bool) {
    let lower = text.get(..2).map(str::to_ascii_lowercase);
    let rest = text.get(2..).unwrap_or_default();
    match lower.as_deref() {
        Some("0x") => (rest, 16, true),
        Some("0o") => (rest, 8, true),
        Some("0b") => (rest, 2, true),
        Some(other) if other.starts_with('0') => (text.get(1..).unwrap_or_default(), 8, true),
        _ => (text, 10, false),
    }
}

fn underscores_are_between_digits(digits: &str, after_prefix: bool) -> bool {
    let leading = digits.starts_with('_') && !after_prefix;
    !leading && !digits.ends_with('_') && !digits.contains("__")
}

/// Go's `ParseBool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

const SECOND: i64 = 1_000_000_000;

/// Go's `ParseDuration`, in nanoseconds: a sign, then numbers with units (`ns us µs ms s m h`); `0` needs no unit.
///
/// # Errors
/// Go's words for what is wrong with it.
pub(crate) fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || invalid_duration(text);
    let (negative, mut rest) = match text.as_bytes() {
        [b'-', ..] => (true, text.get(1..).unwrap_or_default()),
        [b'+', ..] => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (decimal, after) = Decimal::at_start_of(rest).ok_or_else(invalid)?;
        let (unit, after) = split_where(after, |c| c.is_ascii_digit() || c == '.');
        let part = decimal.nanos(duration_unit(unit, text)?);
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(invalid)?;
        rest = after;
    }
    let signed = if negative { -i128::from(total) } else { i128::from(total) };
    i64::try_from(signed).map_err(|_| invalid())
}

/// What Go says of a text that is no duration at all, or none that can be represented.
pub(super) fn invalid_duration(text: &str) -> String {
    format!("time: invalid duration {}", quote(text))
}

fn duration_unit(unit: &str, text: &str) -> Result<u64, String> {
    let quoted = quote(text);
    if unit.is_empty() {
        return Err(format!("time: missing unit in duration {quoted}"));
    }
    unit_nanos(unit).ok_or_else(|| format!("time: unknown unit {} in duration {quoted}", quote(unit)))
}

/// The digits before and behind a point; not both are empty.
struct Decimal<'a> {
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Decimal<'a> {
    /// The number that `text` begins with, and what follows it.
    fn at_start_of(text: &'a str) -> Option<(Self, &'a str)> {
        let no_digit = |c: char| !c.is_ascii_digit();
        let (whole, rest) = split_where(text, no_digit);
        let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), |behind| split_where(behind, no_digit));
        (!whole.is_empty() || !fraction.is_empty()).then_some((Self { whole, fraction }, rest))
    }

    fn nanos(&self, unit: u64) -> Option<u64> {
        let whole: u64 = if self.whole.is_empty() { 0 } else { self.whole.parse().ok()? };
        whole.checked_mul(unit)?.checked_add(fraction_nanos(self.fraction, unit)?)
    }
}

fn split_where(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at_checked(text.find(stop).unwrap_or(text.len())).unwrap_or((text, ""))
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// Digits behind the point, cut off (not rounded) at the nanosecond. More than 18 cannot change the result.
fn fraction_nanos(digits: &str, unit: u64) -> Option<u64> {
    let digits = digits.get(..digits.len().min(18))?;
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    let value: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    u64::try_from(value * u128::from(unit) / scale).ok()
}

/// Go's `Duration.String`: `1h0m0s`, `1.5s`, `300ms`, `0s`.
pub(crate) fn format_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let size = nanos.unsigned_abs();
    let text = match size {
        0 => "0s".to_owned(),
        1..=999 => format!("{size}ns"),
        1_000..=999_999 => decimal(size, 1_000, "µs"),
        1_000_000..=999_999_999 => decimal(size, 1_000_000, "ms"),
        _ => clock_text(size),
    };
    format!("{sign}{text}")
}

fn clock_text(size: u64) -> String {
    let second = SECOND.unsigned_abs();
    let minutes = size / second / 60;
    let seconds = decimal(size - minutes * 60 * second, second, "s");
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

/// `size / unit` with as many decimals as needed.
fn decimal(size: u64, unit: u64, name: &str) -> String {
    let width = unit.ilog10() as usize;
    let fraction = format!("{:0width$}", size % unit);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() || unit == 1 { "" } else { "." };
    format!("{}{point}{fraction}{name}", size / unit)
}

/// Go's `%q`.
pub(crate) fn quote(text: &str) -> String {
    format!("\"{}\"", escape(&text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// `text` on one line: control characters as Go's `%q` writes them.
pub(super) fn escape(text: &str) -> String {
    let escaped = |c: char| match c {
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\u{7}' => "\\a".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\u{b}' => "\\v".to_owned(),
        c if c.is_ascii_control() => format!("\\x{:02x}", u32::from(c)),
        c if c.is_control() || c == '\u{feff}' => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_follow_strconv() {
        for (text, value) in
            [("16", 16), ("0x10", 16), ("0b10", 2), ("0o17", 15), ("017", 15), ("1_000", 1000), ("0", 0)]
        {
            assert_eq!(parse_uint(text), Ok(value), "{text}");
        }
        for text in ["", "abc", "1.5", "_1", "1_", "1__0", "08", "0x", "+5", "-1", " 1"] {
            assert_eq!(parse_uint(text), Err(NumberError::Syntax), "{text}");
        }
        assert_eq!(parse_uint("18446744073709551616"), Err(NumberError::Range));
        assert_eq!(parse_int("+5"), Ok(5));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_int("9223372036854775808"), Err(NumberError::Range));
    }

    #[test]
    fn durations_follow_the_time_package() {
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("5s", 5 * SECOND),
            ("1h30m", 5400 * SECOND),
            ("1.5s", 1_500_000_000),
            ("-2ms", -2_000_000),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
        for (text, nanos) in
            [(".5s", 500_000_000), ("1.s", SECOND), ("3us", 3_000), ("3µs", 3_000), ("1m0.5s", 60_500_000_000)]
        {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
        }
        for text in ["", "-", "5", "s", ".s", "1 s", "5d", "1..5s", "9999999h", "00"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_refused_in_gos_words() {
        for (text, why) in [
            ("xx", "time: invalid duration \"xx\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
            ("1h5", "time: missing unit in duration \"1h5\""),
            ("", "time: invalid duration \"\""),
            ("9999999h", "time: invalid duration \"9999999h\""),
        ] {
            assert_eq!(parse_duration(text).unwrap_err(), why);
        }
    }

    #[test]
    fn durations_print_as_go_prints_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (300_000_000, "300ms"),
            (1_500_000_000, "1.5s"),
            (60 * SECOND, "1m0s"),
            (7200 * SECOND, "2h0m0s"),
            (-SECOND, "-1s"),
        ] {
            assert_eq!(format_duration(nanos), text);
        }
    }

    #[test]
    fn quoting_escapes_what_go_escapes() {
        assert_eq!(quote("a\"b\\c\n\u{1b}\u{85}é"), "\"a\\\"b\\\\c\\n\\x1b\\u0085é\"");
    }

    proptest! {
        #[test]
        fn printed_durations_read_back(nanos in (i64::MIN + 1)..i64::MAX) {
            prop_assert_eq!(parse_duration(&format_duration(nanos)), Ok(nanos));
        }

        #[test]
        fn what_is_read_reads_back(text in "[-+0-9a-z_.µ]{0,12}") {
            if let Ok(number) = parse_int(&text) {
                prop_assert_eq!(parse_int(&number.to_string()), Ok(number));
            }
            if let Some(nanos) = parse_duration(&text).ok().filter(|nanos| *nanos > i64::MIN) {
                prop_assert_eq!(parse_duration(&format_duration(nanos)), Ok(nanos));
            }
        }

        #[test]
        fn quoted_text_stays_on_one_line(text in "\\PC{0,12}\n?\\PC{0,4}") {
            prop_assert!(!quote(&text).contains('\n'));
        }
    }
}
