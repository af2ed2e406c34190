//! From JSON to the encoded message, as the canonical mapping of protobuf prescribes.
//!
//! Field names in both spellings; 64-bit numbers as numbers or strings, exponents included if the value is whole; bytes
//! in either alphabet of base64, padded or not; enums by name or number; `null` for "not set". Unknown fields and
//! unknown names of enums are passed over. The message is written as it is read: no tree of it is built. Of messages only
//! transactions stand inside one another; what is passed over may be of any depth.

use std::{cell::Cell, collections::HashSet, fmt};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

use super::schema::{Field, Kind, Schema, Shape};
use crate::{pb::nested::TXN_DEPTH_MAX, types::Rejection};

/// Reads the first JSON value of `json` as the message called `name`; blank means the empty message.
///
/// # Errors
/// What is wrong with the JSON, and where.
pub(super) fn decode(name: &str, json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::new();
    if json.trim_ascii().is_empty() {
        return Ok(out);
    }
    let (schema, too_deep) = (Schema::get(), Cell::new(false));
    let shape =
        schema.message(name).ok_or_else(|| serde_json::Error::custom(format!("no message is called {name}")))?;
    // Strings must be text even where they are passed over, as everywhere in the first value.
    let (text, is_whole) = match std::str::from_utf8(json) {
        Ok(text) => (text, true),
        Err(error) => (valid_text(json, error.valid_up_to()), false),
    };
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    let place = Place { schema, levels_left: MESSAGES_DEEP_MAX, too_deep: &too_deep };
    let read = Message { place, shape, out: &mut out }.deserialize(&mut reader);
    match read {
        Ok(()) if too_deep.get() => Err(serde_json::Error::custom(Rejection::TooManyOps)),
        Err(error) if error.is_eof() && !is_whole => Err(serde_json::Error::custom("invalid UTF-8 in string")),
        read => read.map(|()| out),
    }
}

fn valid_text(json: &[u8], bytes: usize) -> &str {
    json.get(..bytes).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default()
}

/// Messages inside one another, below the outermost: each transaction stands in an operation, and so does the request in the
/// innermost one. Whatever is deeper has too many operations.
const MESSAGES_DEEP_MAX: usize = 2 * TXN_DEPTH_MAX + 2;

/// Where in the JSON a value is.
#[derive(Clone, Copy)]
struct Place<'a> {
    schema: &'a Schema,
    /// How many messages may stand inside one another from here.
    levels_left: usize,
    /// Whether there were more, somewhere.
    too_deep: &'a Cell<bool>,
}

struct Message<'a> {
    place: Place<'a>,
    shape: &'a Shape,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut numbers, mut oneofs) = (HashSet::new(), HashSet::new());
        while let Some(key) = map.next_key::<String>()? {
            let Some(field) = self.shape.field(&key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if !numbers.insert(field.number) {
                return Err(A::Error::custom(format!("duplicate field {key:?}")));
            }
            let set = map.next_value_seed(Value { place: self.place, field, in_list: false, out: &mut *self.out })?;
            if set && field.oneof.is_some_and(|oneof| !oneofs.insert(oneof)) {
                return Err(A::Error::custom(format!("field {key:?} excludes another one that is set")));
            }
        }
        Ok(())
    }
}

/// One value of a field, written with its tag. Says whether it was set, that is, not `null`.
struct Value<'a> {
    place: Place<'a>,
    field: &'a Field,
    in_list: bool,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_> {
    fn varint(self, value: u64) -> bool {
        encode_key(self.field.number, WireType::Varint, self.out);
        encode_varint(value, self.out);
        true
    }

    fn block(self, bytes: &[u8]) -> bool {
        encode_key(self.field.number, WireType::LengthDelimited, self.out);
        encode_varint(bytes.len() as u64, self.out);
        self.out.extend_from_slice(bytes);
        true
    }

    /// A list has to come as a list.
    fn expect_single<E: Error>(&self, seen: Unexpected<'_>) -> Result<(), E> {
        if self.field.repeated && !self.in_list { Err(E::invalid_type(seen, self)) } else { Ok(()) }
    }

    /// A whole number in the range of the field's kind.
    fn number<E: Error>(self, value: i128, seen: Unexpected<'_>) -> Result<bool, E> {
        self.expect_single(seen)?;
        match wire_number(&self.field.kind, value) {
            Some(number) => Ok(self.varint(number)),
            None => Err(E::invalid_value(seen, &self)),
        }
    }
}

/// The varint of a number, if the kind is one of numbers and its range holds the value.
fn wire_number(kind: &Kind, value: i128) -> Option<u64> {
    match kind {
        Kind::Int32 | Kind::Enum(_) => i32::try_from(value).ok().map(|value| i64::from(value).cast_unsigned()),
        Kind::Int64 => i64::try_from(value).ok().map(i64::cast_unsigned),
        Kind::Uint32 => u32::try_from(value).ok().map(u64::from),
        Kind::Uint64 => u64::try_from(value).ok(),
        Kind::Bool | Kind::String | Kind::Bytes | Kind::Message(_) => None,
    }
}

/// The whole number that a JSON number, or its text, stands for.
fn whole(text: &str) -> Option<i128> {
    if text.trim() != text {
        return None;
    }
    let number: serde_json::Number = text.parse().ok()?;
    number.as_i128().or_else(|| whole_float(number.as_f64()?))
}

#[expect(clippy::cast_possible_truncation, reason = "the value is whole and within the range of the target")]
fn whole_float(value: f64) -> Option<i128> {
    let in_range = value.abs() <= 2_f64.powi(64);
    (in_range && value.fract() == 0.0).then_some(value as i128)
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.repeated && !self.in_list {
            return f.write_str("a list");
        }
        match &self.field.kind {
            Kind::Bool => f.write_str("true or false"),
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => f.write_str("a whole number in range"),
            Kind::String => f.write_str("a string"),
            Kind::Bytes => f.write_str("a string in base64"),
            Kind::Enum(name) => write!(f, "a value of {name}"),
            Kind::Message(name) => write!(f, "an object like {name}"),
        }
    }

    /// `null`.
    fn visit_unit<E: Error>(self) -> Result<bool, E> {
        if self.in_list { Err(E::invalid_type(Unexpected::Unit, &self)) } else { Ok(false) }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<bool, E> {
        self.expect_single(Unexpected::Bool(value))?;
        if self.field.kind == Kind::Bool {
            Ok(self.varint(value.into()))
        } else {
            Err(E::invalid_type(Unexpected::Bool(value), &self))
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<bool, E> {
        self.number(value.into(), Unexpected::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<bool, E> {
        self.number(value.into(), Unexpected::Unsigned(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<bool, E> {
        match whole_float(value) {
            Some(whole) => self.number(whole, Unexpected::Float(value)),
            None => Err(E::invalid_value(Unexpected::Float(value), &self)),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<bool, E> {
        self.expect_single(Unexpected::Str(value))?;
        match &self.field.kind {
            Kind::String => Ok(self.block(value.as_bytes())),
            Kind::Bytes => match base64(value) {
                Some(bytes) => Ok(self.block(&bytes)),
                None => Err(E::invalid_value(Unexpected::Str(value), &self)),
            },
            // A name that a newer client may know counts as not given.
            Kind::Enum(name) => match self.place.schema.enum_value(name, value) {
                Some(number) => self.number(number.into(), Unexpected::Str(value)),
                None => Ok(false),
            },
            Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => match whole(value) {
                Some(whole) => self.number(whole, Unexpected::Str(value)),
                None => Err(E::invalid_value(Unexpected::Str(value), &self)),
            },
            Kind::Bool | Kind::Message(_) => Err(E::invalid_type(Unexpected::Str(value), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        if !self.field.repeated || self.in_list {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        }
        let Self { place, field, out, .. } = self;
        while seq.next_element_seed(Value { place, field, in_list: true, out: &mut *out })?.is_some() {}
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        self.expect_single(Unexpected::Map)?;
        let Kind::Message(name) = &self.field.kind else {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        };
        let Some(levels_left) = self.place.levels_left.checked_sub(1) else {
            self.place.too_deep.set(true);
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(true);
        };
        let shape =
            self.place.schema.message(name).ok_or_else(|| A::Error::custom(format!("no message is called {name}")))?;
        let mut message = Vec::new();
        Message { place: Place { levels_left, ..self.place }, shape, out: &mut message }.visit_map(map)?;
        Ok(self.block(&message))
    }
}

/// Reads either alphabet, padded or not.
fn base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    if text.contains(['-', '_']) { URL_SAFE.decode(text).ok() } else { STANDARD.decode(text).ok() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::pb::etcdserverpb::{
        CompactionRequest, Compare, HashRequest, MemberAddRequest, PutRequest, RangeRequest, TxnRequest, WatchRequest,
        compare::TargetUnion, request_op::Request, watch_request::RequestUnion,
    };
    use crate::pb::nested::decode_txn;

    fn read<M: prost::Message + Default>(name: &str, json: &str) -> Result<M, String> {
        let bytes = decode(&format!(".etcdserverpb.{name}"), json.as_bytes()).map_err(|error| error.to_string())?;
        Ok(M::decode(&bytes[..]).expect("what is written is a message"))
    }

    fn range(json: &str) -> Result<RangeRequest, String> {
        read("RangeRequest", json)
    }

    #[test]
    fn both_spellings_of_names_are_read_and_both_together_refused() {
        let expected = RangeRequest { key: "foo".into(), range_end: "fop".into(), ..Default::default() };
        assert_eq!(range(r#"{"key":"Zm9v","range_end":"Zm9w"}"#), Ok(expected.clone()));
        assert_eq!(range(r#"{"key":"Zm9v","rangeEnd":"Zm9w"}"#), Ok(expected));
        assert!(range(r#"{"rangeEnd":"Zm9w","range_end":"Zm9w"}"#).is_err());
        assert!(range(r#"{"key":"Zm9v","key":"Zm9v"}"#).is_err());
    }

    #[test]
    fn numbers_come_as_numbers_strings_and_exponents() {
        let limit = |json: &str| range(&format!(r#"{{"limit":{json}}}"#)).map(|range| range.limit);
        for json in ["100", "\"100\"", "1e2", "\"1e2\"", "100.0", "1000e-1"] {
            assert_eq!(limit(json), Ok(100), "{json}");
        }
        assert_eq!(limit("\"-9223372036854775808\""), Ok(i64::MIN));
        assert_eq!(limit("9223372036854775807"), Ok(i64::MAX));
        for json in ["1.5", "\"\"", "\" 1\"", "\"x\"", "9223372036854775808", "1e400", "true", "[1]", "{}"] {
            assert!(limit(json).is_err(), "{json}");
        }
    }

    #[test]
    fn bytes_come_in_either_alphabet_padded_or_not() {
        let key = |json: &str| range(&format!(r#"{{"key":"{json}"}}"#)).map(|range| range.key.to_vec());
        for json in ["+/8=", "-_8=", "+/8", "-_8"] {
            assert_eq!(key(json), Ok(vec![0xfb, 0xff]), "{json}");
        }
        assert!(key("?").is_err());
        assert!(range(r#"{"key":5}"#).is_err());
    }

    #[test]
    fn enums_come_by_name_or_number_and_unknown_names_are_passed_over() {
        let order = |json: &str| range(&format!(r#"{{"sort_order":{json}}}"#)).map(|range| range.sort_order);
        assert_eq!(order("\"DESCEND\""), Ok(2));
        assert_eq!(order("2"), Ok(2));
        assert_eq!(order("77"), Ok(77), "numbers are for the method to refuse");
        assert_eq!(order("\"SIDEWAYS\""), Ok(0));
    }

    #[test]
    fn null_means_not_set() {
        assert_eq!(
            range(r#"{"key":null,"limit":null,"serializable":null,"sort_order":null}"#),
            Ok(RangeRequest::default())
        );
        assert!(read::<MemberAddRequest>("MemberAddRequest", r#"{"peerURLs":[null]}"#).is_err());
        assert_eq!(read("MemberAddRequest", r#"{"peerURLs":null}"#), Ok(MemberAddRequest::default()));
    }

    #[test]
    fn text_must_be_text_up_to_the_end_of_the_first_value() {
        let put = |json: &[u8]| decode(".etcdserverpb.PutRequest", json).map_err(|error| error.to_string());
        for json in [&b"{\"x\":\"\xff\"}"[..], b"{\"key\":\"\xff\"}", b"\xff"] {
            assert_eq!(put(json), Err("invalid UTF-8 in string".into()), "{}", json.escape_ascii());
        }
        assert_eq!(put(b"{} \xff"), Ok(Vec::new()));
    }

    #[test]
    fn unknown_fields_are_passed_over_whatever_they_hold() {
        let expected = CompactionRequest { revision: 5, physical: true };
        let json = r#"{"x":{"y":[1,{"z":null}]},"revision":"5","physical":true,"Physical":false}"#;
        assert_eq!(read("CompactionRequest", json), Ok(expected));
    }

    #[test]
    fn of_a_oneof_only_one_member_may_be_set_and_zero_counts_as_set() {
        let compare = |json: &str| read::<Compare>("Compare", json).map(|compare| compare.target_union);
        assert_eq!(compare(r#"{"version":"0"}"#), Ok(Some(TargetUnion::Version(0))));
        assert_eq!(compare(r#"{"version":null,"createRevision":3}"#), Ok(Some(TargetUnion::CreateRevision(3))));
        assert!(compare(r#"{"version":1,"lease":1}"#).is_err());
    }

    #[test]
    fn wrappers_of_oneofs_are_unknown_so_the_operation_is_empty() {
        let json = r#"{"success":[{"RequestPut":{"key":"Zm9v"}},{"request":{"request_put":{}}}]}"#;
        let txn: TxnRequest = read("TxnRequest", json).unwrap();
        assert_eq!(txn.success.iter().map(|op| op.request.is_none()).collect::<Vec<_>>(), [true, true]);
        let json = r#"{"create_request":{"key":"Zm9v"}}"#;
        let watch: WatchRequest = read("WatchRequest", json).unwrap();
        assert!(matches!(watch.request_union, Some(RequestUnion::CreateRequest(_))));
    }

    #[test]
    fn transactions_nest() {
        let json = r#"{"compare":[{"target":"CREATE","key":"Zm9v","createRevision":"2"}],
            "success":[{"requestRange":{"key":"Zm9v"}},{"request_txn":{"failure":[{"requestPut":{"key":"YQ=="}}]}}]}"#;
        let txn: TxnRequest = read("TxnRequest", json).unwrap();
        assert_eq!(txn.compare.first().map(|compare| compare.target), Some(1));
        let Some(Request::RequestTxn(nested)) = &txn.success[1].request else { panic!("{txn:?}") };
        let put = PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
        assert_eq!(nested.failure[0].request, Some(Request::RequestPut(put)));
    }

    #[test]
    fn blank_means_the_empty_message_and_only_the_first_value_counts() {
        assert_eq!(range(" \n"), Ok(RangeRequest::default()));
        assert_eq!(range(r#"{"limit":1} {"limit":2"#).map(|range| range.limit), Ok(1));
        assert_eq!(read("HashRequest", "{}"), Ok(HashRequest {}));
        for json in ["[]", "null", "1", "{", "{\"limit\":}", "nonsense"] {
            assert!(range(json).is_err(), "{json}");
        }
    }

    /// So many transactions below the outermost.
    fn nest(levels: usize) -> String {
        let innermost = r#"{"success":[{"request_put":{"key":"YQ=="}}]}"#;
        format!("{}{innermost}{}", r#"{"success":[{"request_txn":"#.repeat(levels), "}]}".repeat(levels))
    }

    #[test]
    fn transactions_nest_as_deep_as_they_may() {
        let name = ".etcdserverpb.TxnRequest";
        let message = decode(name, nest(TXN_DEPTH_MAX).as_bytes()).unwrap();
        let mut txn = decode_txn(&message.into()).unwrap();
        for _ in 0..TXN_DEPTH_MAX {
            let Some(Request::RequestTxn(inner)) = txn.success.pop().unwrap().request else { panic!("{txn:?}") };
            txn = inner;
        }
        let put = PutRequest { key: Bytes::from_static(b"a"), ..Default::default() };
        assert_eq!(txn.success.pop().unwrap().request, Some(Request::RequestPut(put)));
        for levels in [TXN_DEPTH_MAX + 1, 10_000] {
            let refused = decode(name, nest(levels).as_bytes()).unwrap_err().to_string();
            assert_eq!(refused, "etcdserver: too many operations in txn request");
        }
    }

    #[test]
    fn what_is_passed_over_may_be_of_any_depth() {
        let deep = format!("{}{}", r#"{"x":["#.repeat(10_000), "]}".repeat(10_000));
        assert_eq!(range(&format!(r#"{{"x":{deep},"key":"YQ=="}}"#)).map(|range| range.key), Ok("a".into()));
        let unended = "[".repeat(1_000_000);
        assert!(range(&format!(r#"{{"x":{unended}"#)).is_err());
        assert!(range(&unended).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(json in "[\\[\\]{}\",:a-z0-9.e-]{0,60}") {
            drop(decode(".etcdserverpb.TxnRequest", json.as_bytes()));
        }

        #[test]
        fn our_own_json_is_read_back(key: Vec<u8>, limit: i64, revision: i64, order in 0..3_i32, keys_only: bool) {
            let request = RangeRequest { key: key.into(), limit, revision, sort_order: order, keys_only, ..Default::default() };
            let json = serde_json::to_string(&request).unwrap();
            prop_assert_eq!(range(&json), Ok(request));
        }
    }
}
