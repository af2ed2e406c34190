//! JSON as Go's library reads it, where that is laxer than ours: bytes that are no text and halves of surrogate pairs stand for
//! a character that is none, and values lie in each other as deep as nobody needs them. Of a name that is there twice the last
//! one counts.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// Deepest nesting that Go reads.
const DEPTH_MAX: usize = 10_000;

/// One value, as far as it is looked at.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Number(f64),
    /// Anything else.
    Other,
}

/// The members of an object by `names`, nothing for those that are missing. That there is null instead of an object says
/// nothing, too. Reading takes no more of the stack the deeper values lie.
///
/// # Errors
/// Whatever is no object, in nobody's words.
pub(super) fn members<const N: usize>(json: &[u8], names: [&str; N]) -> Result<[Option<Value>; N], ()> {
    if depth(json) > DEPTH_MAX {
        return Err(());
    }
    let text = paired(&text(json));
    let mut reader = serde_json::Deserializer::from_str(&text);
    let found = reader.deserialize_any(Members(names)).map_err(drop)?;
    reader.end().map_err(drop)?;
    Ok(found)
}

/// How deep arrays and objects lie in each other.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Each byte that belongs to no character becomes one that is none.
fn text(json: &[u8]) -> String {
    let mut text = String::with_capacity(json.len());
    for chunk in json.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// Each escaped surrogate without its other half becomes a character that is none.
fn paired(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        text.push_str(before);
        let (kept, length) = match (surrogate(escape), escape.get(6..).and_then(surrogate)) {
            (Some(Half::High), Some(Half::Low)) => (escape.get(..12), 12),
            (Some(_), _) => (Some(NO_CHARACTER), 6),
            (None, _) => {
                // What is escaped may be a backslash itself.
                let length = 1 + escape.chars().nth(1).map_or(0, char::len_utf8);
                (escape.get(..length), length)
            }
        };
        text.push_str(kept.unwrap_or_default());
        rest = escape.get(length..).unwrap_or_default();
    }
    text + rest
}

/// The character that is none, escaped.
const NO_CHARACTER: &str = "\\ufffd";

enum Half {
    High,
    Low,
}

/// Which half of a pair `escape` begins with, if it does.
fn surrogate(escape: &str) -> Option<Half> {
    let digits = escape.strip_prefix("\\u")?.get(..4).filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))?;
    match u16::from_str_radix(digits, 16).ok()? {
        0xd800..=0xdbff => Some(Half::High),
        0xdc00..=0xdfff => Some(Half::Low),
        _ => None,
    }
}

/// Finds the members of these names.
struct Members<'n, const N: usize>([&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
    type Value = [Option<Value>; N];

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok([const { None }; N])
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [const { None }; N];
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if let Some((_, place)) = self.0.iter().zip(&mut found).find(|(known, _)| **known == name) {
                *place = Some(value);
            }
        }
        Ok(found)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    #[expect(clippy::cast_precision_loss, reason = "to Go, every number is a float")]
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "to Go, every number is a float")]
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Value, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(json: &[u8]) -> Result<Option<Value>, ()> {
        members(json, ["user"]).map(|[user]| user)
    }

    fn text_of(json: &[u8]) -> String {
        match user(json) {
            Ok(Some(Value::Text(text))) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn members_are_found_by_name_and_the_last_one_counts() {
        let json = br#"{"a":[1,{"user":"x"}],"user":1,"b":null,"user":"u"}"#;
        assert_eq!(members(json, ["user", "none"]), Ok([Some(Value::Text("u".to_owned())), None]));
        assert_eq!(user(br#"{"user":-3}"#), Ok(Some(Value::Number(-3.0))));
        assert_eq!(user(br#"{"user":{"a":1}}"#), Ok(Some(Value::Other)));
        assert_eq!((user(b"null"), user(b"{}")), (Ok(None), Ok(None)));
        for broken in ["", "[]", "1", "{", "{}x", r#"{"user":1e400}"#, r#"{"a":"\x"}"#, "{\"a\":\"\n\"}"] {
            assert_eq!(user(broken.as_bytes()), Err(()), "{broken}");
        }
    }

    #[test]
    fn what_is_no_text_stands_for_no_character() {
        assert_eq!(text_of(b"{\"user\":\"a\xff\xe2\x82b\"}"), "a\u{fffd}\u{fffd}\u{fffd}b");
        assert_eq!(text_of(br#"{"user":"\ud83d\ude00\ud83d\ude00"}"#), "\u{1f600}\u{1f600}");
        assert_eq!(
            text_of(br#"{"user":"\ud83dx\ude00\\ud83d\ud83d\ud83d\ude00"}"#),
            "\u{fffd}x\u{fffd}\\ud83d\u{fffd}\u{1f600}"
        );
        assert_eq!(user(b"{\"user\":\xff}"), Err(()));
    }

    #[test]
    fn depth_costs_no_stack_and_ends_where_it_does_to_go() {
        let nested = |depth: usize| format!(r#"{{"x":{}{},"user":"[[["}}"#, "[".repeat(depth), "]".repeat(depth));
        assert_eq!(text_of(nested(200).as_bytes()), "[[[");
        assert_eq!(text_of(nested(DEPTH_MAX - 1).as_bytes()), "[[[");
        assert_eq!(user(nested(DEPTH_MAX).as_bytes()), Err(()));
    }
}
