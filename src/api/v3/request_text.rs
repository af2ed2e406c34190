//! Requests for keys as etcd's log shows them: every field that is set, but of a value its size only.
//!
//! etcd has two ways of writing messages. Types that Go's library generates stand with one space between their fields and
//! their text as UTF-8; those that etcd writes by hand, to leave values out, have a space behind every field, and whatever is
//! not ASCII in octal. In braces stands what is of the first kind, in angle brackets what is of the second one.

use std::fmt::{self, Display, Write as _};

use crate::pb::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};

/// What is shown of a key, in bytes, and about what is shown of a request: the log has no room for more.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// The two ways.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Generated,
    ByHand,
}

/// A message under construction.
struct Fields<'a> {
    text: &'a mut String,
    form: Form,
    is_first: bool,
}

impl<'a> Fields<'a> {
    fn of(text: &'a mut String, form: Form) -> Self {
        Self { text, form, is_first: true }
    }

    fn put(&mut self, name: &str, value: impl Display) {
        let (before, behind) = match self.form {
            Form::Generated if self.is_first => ("", ""),
            Form::Generated => (" ", ""),
            Form::ByHand => ("", " "),
        };
        self.is_first = false;
        write(self.text, format_args!("{before}{name}:{value}{behind}"));
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.put(name, Quoted { bytes: bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes), form: self.form });
        }
    }

    fn size(&mut self, name: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.put(name, bytes.len());
        }
    }

    fn number(&mut self, name: &str, number: i64) {
        if number != 0 {
            self.put(name, number);
        }
    }

    fn switch(&mut self, name: &str, on: bool) {
        if on {
            self.put(name, on);
        }
    }

    /// A number that has a name, if it is one of a version that is known here.
    fn word(&mut self, name: &str, number: i32, word: Option<&str>) {
        match word {
            _ if number == 0 => {}
            Some(word) => self.put(name, word),
            None => self.put(name, number),
        }
    }
}

fn write(text: &mut String, arguments: fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String takes any text");
}

/// Bytes in quotation marks.
struct Quoted<'a> {
    bytes: &'a [u8],
    form: Form,
}

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for chunk in self.bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                self.put_character(f, character)?;
            }
            chunk.invalid().iter().try_for_each(|byte| self.put_byte(f, *byte))?;
        }
        f.write_char('"')
    }
}

impl Quoted<'_> {
    fn put_character(&self, f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
        match character {
            '"' | '\\' => write!(f, "\\{character}"),
            '\n' => f.write_str("\\n"),
            '\r' => f.write_str("\\r"),
            '\t' => f.write_str("\\t"),
            ' '..='~' => f.write_char(character),
            '\u{80}'..='\u{9f}' if self.form == Form::Generated => write!(f, "\\u{:04x}", u32::from(character)),
            '\u{a0}'.. if self.form == Form::Generated => f.write_char(character),
            _ => character.encode_utf8(&mut [0; 4]).bytes().try_for_each(|byte| self.put_byte(f, byte)),
        }
    }

    fn put_byte(&self, f: &mut fmt::Formatter<'_>, byte: u8) -> fmt::Result {
        match self.form {
            Form::Generated => write!(f, "\\x{byte:02x}"),
            Form::ByHand => write!(f, "\\{byte:03o}"),
        }
    }
}

pub(super) fn put_range(text: &mut String, request: &RangeRequest) {
    let RangeRequest {
        key,
        range_end,
        limit,
        revision,
        sort_order,
        sort_target,
        serializable,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    } = request;
    let order = SortOrder::try_from(*sort_order).ok().map(|order| order.as_str_name());
    let target = SortTarget::try_from(*sort_target).ok().map(|target| target.as_str_name());
    let mut fields = Fields::of(text, Form::Generated);
    fields.bytes("key", key);
    fields.bytes("range_end", range_end);
    fields.number("limit", *limit);
    fields.number("revision", *revision);
    fields.word("sort_order", *sort_order, order);
    fields.word("sort_target", *sort_target, target);
    fields.switch("serializable", *serializable);
    fields.switch("keys_only", *keys_only);
    fields.switch("count_only", *count_only);
    fields.number("min_mod_revision", *min_mod_revision);
    fields.number("max_mod_revision", *max_mod_revision);
    fields.number("min_create_revision", *min_create_revision);
    fields.number("max_create_revision", *max_create_revision);
}

pub(super) fn put_delete(text: &mut String, request: &DeleteRangeRequest) {
    let DeleteRangeRequest { key, range_end, prev_kv } = request;
    let mut fields = Fields::of(text, Form::Generated);
    fields.bytes("key", key);
    fields.bytes("range_end", range_end);
    fields.switch("prev_kv", *prev_kv);
}

pub(super) fn put_put(text: &mut String, request: &PutRequest) {
    let PutRequest { key, value, lease, prev_kv, ignore_value, ignore_lease } = request;
    let mut fields = Fields::of(text, Form::ByHand);
    fields.bytes("key", key);
    fields.size("value_size", value);
    fields.number("lease", *lease);
    fields.switch("prev_kv", *prev_kv);
    fields.switch("ignore_value", *ignore_value);
    fields.switch("ignore_lease", *ignore_lease);
}

pub(super) fn put_txn(text: &mut String, request: &TxnRequest) {
    let TxnRequest { compare, success, failure } = request;
    put_all(text, "compare", compare, put_compare);
    text.push(' ');
    put_all(text, "success", success, put_operation);
    text.push(' ');
    put_all(text, "failure", failure, put_operation);
}

fn put_all<T>(text: &mut String, name: &str, items: &[T], put: fn(&mut String, &T)) {
    write(text, format_args!("{name}:<"));
    for (at, item) in items.iter().enumerate() {
        if text.len() >= TEXT_BYTES_MAX {
            break;
        }
        if at > 0 {
            text.push(' ');
        }
        put(text, item);
    }
    text.push('>');
}

fn put_compare(text: &mut String, compare: &Compare) {
    let Compare { result, target, key, target_union, range_end } = compare;
    let form = if matches!(target_union, Some(TargetUnion::Value(_))) { Form::ByHand } else { Form::Generated };
    let mut fields = Fields::of(text, form);
    fields.word("result", *result, CompareResult::try_from(*result).ok().map(|result| result.as_str_name()));
    fields.word("target", *target, CompareTarget::try_from(*target).ok().map(|target| target.as_str_name()));
    fields.bytes("key", key);
    match target_union {
        Some(TargetUnion::Version(version)) => fields.put("version", version),
        Some(TargetUnion::CreateRevision(revision)) => fields.put("create_revision", revision),
        Some(TargetUnion::ModRevision(revision)) => fields.put("mod_revision", revision),
        Some(TargetUnion::Value(value)) => fields.size("value_size", value),
        Some(TargetUnion::Lease(lease)) => fields.put("lease", lease),
        None => {}
    }
    fields.bytes("range_end", range_end);
}

/// No deeper than transactions are read (`pb::nested`).
fn put_operation(text: &mut String, operation: &RequestOp) {
    match &operation.request {
        Some(Request::RequestRange(range)) => put_within(text, "request_range:{", range, put_range, '}'),
        Some(Request::RequestPut(put)) => put_within(text, "request_put:<", put, put_put, '>'),
        Some(Request::RequestDeleteRange(delete)) => {
            put_within(text, "request_delete_range:{", delete, put_delete, '}');
        }
        Some(Request::RequestTxn(txn)) => put_within(text, "request_txn:<", txn, put_txn, '>'),
        None => {}
    }
}

fn put_within<T>(text: &mut String, opening: &str, request: &T, put: fn(&mut String, &T), closing: char) {
    text.push_str(opening);
    put(text, request);
    text.push(closing);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T>(request: &T, put: fn(&mut String, &T)) -> String {
        let mut text = String::new();
        put(&mut text, request);
        text
    }

    /// What etcd writes is in `tests/spans.rs`; here is what no client sends by itself.
    #[test]
    fn numbers_without_a_name_and_bytes_without_a_character_are_shown() {
        let key = "ä\u{85}\"\\\n\u{7f}'".as_bytes().iter().copied().chain([0xff, 7]).collect::<Vec<u8>>();
        let range = RangeRequest { key: key.clone().into(), sort_order: 9, sort_target: 4, ..Default::default() };
        let shown = "key:\"ä\\u0085\\\"\\\\\\n\\x7f'\\xff\\x07\" sort_order:9 sort_target:VALUE";
        assert_eq!(text(&range, put_range), shown);
        let put = PutRequest { key: key.into(), value: "geheim".into(), prev_kv: true, ..Default::default() };
        let shown = "key:\"\\303\\244\\302\\205\\\"\\\\\\n\\177'\\377\\007\" value_size:6 prev_kv:true ";
        assert_eq!(text(&put, put_put), shown);
        assert_eq!(text(&PutRequest::default(), put_put), "");
    }

    #[test]
    fn nothing_is_longer_than_the_log_has_room_for() {
        let put = PutRequest { key: vec![0; 1 << 20].into(), ..Default::default() };
        assert!(text(&put, put_put).len() < 5 * TEXT_BYTES_MAX);
        let operation = RequestOp { request: Some(Request::RequestPut(PutRequest { lease: 7, ..Default::default() })) };
        let txn = TxnRequest { success: vec![operation; 100_000], ..Default::default() };
        let shown = text(&txn, put_txn);
        assert!(shown.len() < 2 * TEXT_BYTES_MAX && shown.ends_with("> failure:<>"), "{}", shown.len());
    }
}
