//! One option's value: read from text by the rules of its kind, carried through the layers, written back in any form.

use figment::value::{Empty, Num, Value as Layered};

use super::{gates, go, table::Kind, url::Url};

/// A value by the rules of its option's [`Kind`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A switch.
    Bool(bool),
    /// An unsigned number.
    Uint(u64),
    /// A signed number.
    Int(i64),
    /// A duration in nanoseconds.
    Nanos(i64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<String>),
}

/// Why a value is refused, in the words etcd puts behind `invalid value "x" for …: `.
pub(super) type Refusal = String;

impl Value {
    /// Reads what a flag, a variable or a string in a file says.
    ///
    /// # Errors
    /// Why the kind refuses the text, in etcd's words.
    pub fn parse(kind: Kind, text: &str) -> Result<Self, String> {
        let number = |error: go::NumberError| error.as_flag().to_owned();
        Ok(match kind {
            Kind::Switch => Self::Bool(go::parse_bool(text).ok_or("parse error")?),
            Kind::Uint => Self::Uint(go::parse_uint(text).map_err(number)?),
            Kind::Uint32 => Self::Uint(parse_uint32(text)?),
            Kind::Int => Self::Int(go::parse_int(text).map_err(number)?),
            Kind::Duration => Self::Nanos(go::parse_duration(text).map_err(|_| "parse error")?),
            Kind::Text | Kind::Path | Kind::Ignored => Self::Text(text.to_owned()),
            Kind::Select(words) if words.contains(&text) => Self::Text(text.to_owned()),
            Kind::Select(_) => return Err("invalid value".to_owned()),
            Kind::Urls => Self::List(urls(text)?),
            Kind::Origins if text == "*" => Self::List(vec!["*".to_owned()]),
            Kind::Origins => Self::List(url_words(text)?),
            Kind::Words => Self::List(words(text)),
            Kind::WordSet => Self::List(word_set(text)),
            Kind::Gates => Self::List(gates::parse(text)?),
        })
    }

    /// As a flag or a variable would spell it.
    pub fn to_text(&self) -> String {
        match self {
            Self::Bool(on) => on.to_string(),
            Self::Uint(number) => number.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Nanos(nanos) => go::format_duration(*nanos),
            Self::Text(text) => text.clone(),
            Self::List(words) => words.join(","),
        }
    }

    /// Whether it asks for nothing: false, zero, empty.
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Bool(on) => !on,
            Self::Uint(number) => *number == 0,
            Self::Int(number) | Self::Nanos(number) => *number == 0,
            Self::Text(text) => text.is_empty(),
            Self::List(words) => words.is_empty(),
        }
    }

    /// The form in which figment layers it.
    pub(super) fn to_layered(&self) -> Layered {
        match self {
            Self::Bool(on) => Layered::from(*on),
            Self::Uint(number) => Layered::from(*number),
            Self::Int(number) | Self::Nanos(number) => Layered::from(*number),
            Self::Text(text) => Layered::from(text.as_str()),
            Self::List(words) => Layered::from(words.clone()),
        }
    }

    /// Back from the layers, by the option's kind.
    pub(super) fn from_layered(kind: Kind, layered: &Layered) -> Self {
        match (kind, layered) {
            (_, Layered::Bool(_, on)) => Self::Bool(*on),
            (Kind::Duration, Layered::Num(_, number)) => Self::Nanos(signed(*number)),
            (Kind::Int, Layered::Num(_, number)) => Self::Int(signed(*number)),
            (_, Layered::Num(_, number)) => {
                Self::Uint(number.to_u128().and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
            }
            (_, Layered::Array(_, items)) => {
                Self::List(items.iter().filter_map(Layered::as_str).map(str::to_owned).collect())
            }
            (_, Layered::Empty(_, Empty::None | Empty::Unit)) => Self::Text(String::new()),
            (_, other) => Self::Text(other.as_str().unwrap_or_default().to_owned()),
        }
    }
}

fn signed(number: Num) -> i64 {
    number.to_i128().and_then(|wide| i64::try_from(wide).ok()).unwrap_or(0)
}

fn parse_uint32(text: &str) -> Result<u64, Refusal> {
    let parsed =
        go::parse_uint(text).and_then(|n| if n > u64::from(u32::MAX) { Err(go::NumberError::Range) } else { Ok(n) });
    parsed.map_err(|error| format!("strconv.ParseUint: parsing {}: {}", go::quote(text), error.as_strconv()))
}

fn urls(text: &str) -> Result<Vec<String>, Refusal> {
    if text.is_empty() { Ok(Vec::new()) } else { url_words(text) }
}

fn url_words(text: &str) -> Result<Vec<String>, Refusal> {
    Ok(Url::parse_list(text)?.iter().map(Url::to_string).collect())
}

/// Empty words are kept where they stand between others: some options refuse them.
fn words(text: &str) -> Vec<String> {
    if text.trim().is_empty() { Vec::new() } else { text.split(',').map(|word| word.trim().to_owned()).collect() }
}

fn word_set(text: &str) -> Vec<String> {
    let mut words = words(text);
    words.retain(|word| !word.is_empty());
    words.sort();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::table::OPTIONS;

    #[test]
    fn values_are_refused_in_etcds_words() {
        for (kind, text, why) in [
            (Kind::Switch, "maybe", "parse error"),
            (Kind::Uint, "abc", "parse error"),
            (Kind::Uint, "-1", "parse error"),
            (Kind::Int, "99999999999999999999", "value out of range"),
            (Kind::Uint32, "4294967296", "strconv.ParseUint: parsing \"4294967296\": value out of range"),
            (Kind::Uint32, "x", "strconv.ParseUint: parsing \"x\": invalid syntax"),
            (Kind::Duration, "5", "parse error"),
            (Kind::Select(&["new"]), "", "invalid value"),
            (Kind::Origins, "", "URL scheme must be http, https, unix, or unixs: "),
        ] {
            assert_eq!(Value::parse(kind, text), Err(why.to_owned()), "{kind:?} {text}");
        }
    }

    #[test]
    fn empty_url_lists_say_nothing() {
        assert_eq!(Value::parse(Kind::Urls, ""), Ok(Value::List(Vec::new())));
    }

    #[test]
    fn every_default_survives_text_and_layers() {
        for spec in OPTIONS {
            let value = Value::parse(spec.kind, spec.default).expect(spec.name);
            assert_eq!(Value::parse(spec.kind, &value.to_text()), Ok(value.clone()), "{}", spec.name);
            assert_eq!(Value::from_layered(spec.kind, &value.to_layered()), value, "{}", spec.name);
        }
    }

    proptest! {
        #[test]
        fn what_is_read_survives_text_and_layers(text in "\\PC{0,16}") {
            for kind in [Kind::Text, Kind::Words, Kind::WordSet, Kind::Int, Kind::Duration, Kind::Urls, Kind::Gates] {
                if let Ok(value) = Value::parse(kind, &text) {
                    prop_assert_eq!(Value::from_layered(kind, &value.to_layered()), value.clone());
                    prop_assert_eq!(Value::parse(kind, &value.to_text()), Ok(value));
                }
            }
        }
    }
}
