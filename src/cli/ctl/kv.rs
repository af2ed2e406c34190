//! `get`, `put`, `del`, `compaction`.

use std::{io::Read, time::Duration};

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        output::{Format, Style},
        parse::Call,
        speak::{complain, say},
        table::{Command, Flag, Group, Running, Values},
    },
    keys::Span,
    session::Session,
};
use crate::{
    cli::output,
    client::ClientError,
    pb::etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse,
        range_request::{SortOrder, SortTarget},
    },
};

const CONSISTENCY: Flag =
    Flag::text("consistency", "l", "linearizable (l) or serializable (s)").values(Values::Words(&["l", "s"]));
const ORDER: Flag =
    Flag::text("order", "", "order of the answers: ASCEND or DESCEND").values(Values::Words(&["ASCEND", "DESCEND"]));
const SORT_BY: Flag = Flag::text("sort-by", "", "what to order by: CREATE, KEY, MODIFY, VALUE or VERSION")
    .values(Values::Words(&["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"]));
const LIMIT: Flag = Flag::integer("limit", "most keys to show, 0 means all");
const PREFIX: Flag = Flag::switch("prefix", "every key that begins with the given one");
const FROM_KEY: Flag = Flag::switch("from-key", "the given key and every one behind it in bytewise order");
const REV: Flag = Flag::integer("rev", "revision to look at, 0 means the present one");
const KEYS_ONLY: Flag = Flag::switch("keys-only", "no values");
const COUNT_ONLY: Flag = Flag::switch("count-only", "only the number of keys");
const PRINT_VALUE_ONLY: Flag = Flag::switch("print-value-only", "no keys; for the simple form only");
const MIN_CREATE_REV: Flag = Flag::integer("min-create-rev", "lowest revision of creation");
const MAX_CREATE_REV: Flag = Flag::integer("max-create-rev", "highest revision of creation");
const MIN_MOD_REV: Flag = Flag::integer("min-mod-rev", "lowest revision of the last change");
const MAX_MOD_REV: Flag = Flag::integer("max-mod-rev", "highest revision of the last change");
const STREAM: Flag = Flag::switch("stream", "read the answer in chunks (RangeStream)");

pub(super) const GET: Command = Command {
    name: "get",
    arguments: "[options] <key> [range_end]",
    about: "Shows a key or a range of keys",
    group: Group::KeyValue,
    flags: &[
        CONSISTENCY,
        ORDER,
        SORT_BY,
        LIMIT,
        PREFIX,
        FROM_KEY,
        REV,
        KEYS_ONLY,
        COUNT_ONLY,
        PRINT_VALUE_ONLY,
        MIN_CREATE_REV,
        MAX_CREATE_REV,
        MIN_MOD_REV,
        MAX_MOD_REV,
        STREAM,
    ],
    run: Some(get),
    ..Command::EMPTY
};

fn get(mut call: Call) -> Running {
    Box::pin(async move {
        let request = range_request(&call)?;
        let session = Session::open(&mut call).await?;
        let response = if call.flags.switch(&STREAM) {
            collected(&session, request).await?
        } else {
            session.call(request).await?
        };
        output::print(get_style(&call, session.style())?, &response)
    })
}

/// Some flags make sense in one form only.
fn get_style(call: &Call, style: Style) -> Result<Style, Failure> {
    if call.flags.switch(&COUNT_ONLY) && style.format != Format::Fields {
        return Err(Failure::bad_arguments("--count-only is only for `--write-out=fields`"));
    }
    let values_only = call.flags.switch(&PRINT_VALUE_ONLY);
    if values_only && style.format != Format::Simple {
        return Err(Failure::bad_arguments("print-value-only is only for `--write-out=simple`"));
    }
    Ok(Style { values_only, ..style })
}

/// Reads a streamed range: pairs come in every chunk, everything else in the last one.
async fn collected(session: &Session, request: RangeRequest) -> Result<RangeResponse, ClientError> {
    let limit = session.settings.command_timeout;
    let read = async {
        let mut chunks = session.client.range_stream(request).await?;
        let mut kvs = Vec::new();
        let mut last = RangeResponse::default();
        while let Some(mut chunk) = chunks.next().await?.and_then(|chunk| chunk.range_response) {
            kvs.append(&mut chunk.kvs);
            last = chunk;
        }
        Ok(RangeResponse { kvs, ..last })
    };
    tokio::time::timeout(limit, read).await.unwrap_or(Err(ClientError::DeadlineExceeded { waiting_for: None }))
}

/// The request that the words of a `get` mean.
pub(super) fn range_request(call: &Call) -> Result<RangeRequest, Failure> {
    let flags = &call.flags;
    let arguments = call.argument_bytes();
    if arguments.is_empty() {
        return Err(Failure::bad_arguments(
            "get command needs one argument as key and an optional argument as range_end",
        ));
    }
    let (prefix, from_key) = (flags.switch(&PREFIX), flags.switch(&FROM_KEY));
    let (keys_only, count_only) = (flags.switch(&KEYS_ONLY), flags.switch(&COUNT_ONLY));
    if keys_only && count_only && !(prefix && from_key) {
        return Err(Failure::bad_arguments(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
        ));
    }
    let serializable = is_serializable(flags.text(&CONSISTENCY))?;
    let Span { key, range_end } = Span::of(&arguments, prefix, from_key)?;
    let (sort_order, sort_target) = sorting(flags.text(&ORDER), flags.text(&SORT_BY))?;
    let (min_create_revision, max_create_revision) = bounds(call, &MIN_CREATE_REV, &MAX_CREATE_REV, "CreateRev")?;
    let (min_mod_revision, max_mod_revision) = bounds(call, &MIN_MOD_REV, &MAX_MOD_REV, "ModRev")?;
    Ok(RangeRequest {
        key,
        range_end,
        limit: flags.integer(&LIMIT),
        revision: flags.integer(&REV).max(0),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

/// Reads the value of a consistency flag.
///
/// # Errors
/// A [`Failure`] for anything but `l` and `s`.
pub(super) fn is_serializable(consistency: &str) -> Result<bool, Failure> {
    match consistency {
        "s" => Ok(true),
        "l" => Ok(false),
        other => {
            let quoted = go_text::quote(other.as_bytes());
            Err(Failure::new(Exit::BadFeature, format_args!("unknown consistency flag {quoted}")))
        }
    }
}

fn sorting(order: &str, target: &str) -> Result<(SortOrder, SortTarget), Failure> {
    let sort_order = match order.to_uppercase().as_str() {
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        "" => SortOrder::None,
        _ => return Err(Failure::new(Exit::BadFeature, format_args!("bad sort order {order}"))),
    };
    let sort_target = match target.to_uppercase().as_str() {
        "CREATE" => SortTarget::Create,
        "KEY" | "" => SortTarget::Key,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => return Err(Failure::new(Exit::BadFeature, format_args!("bad sort target {target}"))),
    };
    // Answers come in ascending order of keys anyway; asking for it would make the member read the whole range first.
    match (sort_order, sort_target) {
        (SortOrder::Ascend, SortTarget::Key) => Ok((SortOrder::None, SortTarget::Key)),
        sorting => Ok(sorting),
    }
}

/// The two revisions answers must lie between; what is not positive bounds nothing.
fn bounds(call: &Call, min: &Flag, max: &Flag, name: &str) -> Result<(i64, i64), Failure> {
    let (min, max) = (call.flags.integer(min), call.flags.integer(max));
    if max > 0 && min > max {
        return Err(Failure::new(Exit::BadFeature, format_args!("getMin{name}(={min}) > getMax{name}(={max})")));
    }
    Ok((min.max(0), max.max(0)))
}

const LEASE: Flag = Flag::text("lease", "0", "lease to attach to the key, in hexadecimal");
const PREV_KV: Flag = Flag::switch("prev-kv", "show the pair as it was before");
const IGNORE_VALUE: Flag = Flag::switch("ignore-value", "keep the value and change the rest");
const IGNORE_LEASE: Flag = Flag::switch("ignore-lease", "keep the lease and change the rest");

pub(super) const PUT: Command = Command {
    name: "put",
    arguments: "[options] <key> <value> (<value> can also be given from stdin)",
    about: "Stores a value under a key",
    details: "Stores a value under a key.\n\n\
              Without a value on the command line, all of standard input is the value:\n  cat file | put <key>\n\n\
              A value that begins with a dash looks like a flag; two dashes tell it apart:\n  put <key> -- <value>",
    group: Group::KeyValue,
    flags: &[LEASE, PREV_KV, IGNORE_VALUE, IGNORE_LEASE],
    run: Some(put),
    ..Command::EMPTY
};

fn put(mut call: Call) -> Running {
    Box::pin(async move {
        let request = put_request(&call, read_stdin)?;
        let session = Session::open(&mut call).await?;
        let response = session.call(request).await?;
        session.print(&response)
    })
}

fn read_stdin() -> Option<Vec<u8>> {
    let mut value = Vec::new();
    std::io::stdin().read_to_end(&mut value).ok().filter(|_| !value.is_empty())?;
    Some(value)
}

/// The request that the words of a `put` mean; `rest` gives the value when the words do not.
pub(super) fn put_request(call: &Call, rest: impl FnOnce() -> Option<Vec<u8>>) -> Result<PutRequest, Failure> {
    let missing = || Failure::bad_arguments("put command needs 1 argument and input from stdin or 2 arguments");
    let mut arguments = call.argument_bytes().into_iter();
    let (key, value) = (arguments.next().ok_or_else(missing)?, arguments.next());
    let ignore_value = call.flags.switch(&IGNORE_VALUE);
    let value = match (ignore_value, value) {
        (true, Some(_)) => {
            return Err(Failure::bad_arguments("put command needs only 1 argument when 'ignore-value' is set"));
        }
        (true, None) => Vec::new(),
        (false, value) => value.or_else(rest).ok_or_else(missing)?,
    };
    let lease = go_text::parse_int(call.flags.text(&LEASE), 16)
        .map_err(|why| Failure::bad_arguments(format_args!("bad lease ID ({why}), expecting ID in Hex")))?;
    Ok(PutRequest {
        key: key.into(),
        value: value.into(),
        lease,
        prev_kv: call.flags.switch(&PREV_KV),
        ignore_value,
        ignore_lease: call.flags.switch(&IGNORE_LEASE),
    })
}

const RANGE: Flag = Flag::switch("range", "delete a range of keys without a time to think");

pub(super) const DEL: Command = Command {
    name: "del",
    arguments: "[options] <key> [range_end]",
    about: "Deletes a key or a range of keys [key, range_end)",
    group: Group::KeyValue,
    flags: &[PREFIX, PREV_KV, FROM_KEY, RANGE],
    run: Some(del),
    ..Command::EMPTY
};

fn del(mut call: Call) -> Running {
    Box::pin(async move {
        let request = delete_request(&call).await?;
        let session = Session::open(&mut call).await?;
        let response = session.call(request).await?;
        session.print(&response)
    })
}

/// The request that the words of a `del` mean. Two keys without `--range` may be a mistake: there is time to interrupt.
pub(super) async fn delete_request(call: &Call) -> Result<DeleteRangeRequest, Failure> {
    let arguments = call.argument_bytes();
    if !(1..=2).contains(&arguments.len()) {
        return Err(Failure::bad_arguments(
            "del command needs one argument as key and an optional argument as range_end",
        ));
    }
    let flags = &call.flags;
    let Span { key, range_end } = Span::of(&arguments, flags.switch(&PREFIX), flags.switch(&FROM_KEY))?;
    if let Some(warning) = range_warning(&arguments, flags.switch(&RANGE)) {
        complain(warning);
        tokio::time::sleep(TIME_TO_THINK).await;
    }
    Ok(DeleteRangeRequest { key, range_end, prev_kv: flags.switch(&PREV_KV) })
}

/// What to say before a range is deleted without having been named one.
fn range_warning(arguments: &[Vec<u8>], meant: bool) -> Option<String> {
    let ([from, to], false) = (arguments, meant) else { return None };
    Some(format!(
        "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 seconds to \
         cancel. You can provide `--range` flag to avoid the delay.",
        go_text::quote(from),
        go_text::quote(to)
    ))
}

/// Time to interrupt the deletion of a range.
const TIME_TO_THINK: Duration = Duration::from_secs(2);

const PHYSICAL: Flag = Flag::switch("physical", "wait until the old revisions are gone from storage");

pub(super) const COMPACTION: Command = Command {
    name: "compaction",
    arguments: "[options] <revision>",
    about: "Forgets the history before a revision",
    group: Group::KeyValue,
    flags: &[PHYSICAL],
    run: Some(compaction),
    ..Command::EMPTY
};

fn compaction(mut call: Call) -> Running {
    Box::pin(async move {
        let arguments = call.argument_texts();
        let [revision] = arguments.as_slice() else {
            return Err(Failure::bad_arguments("compaction command needs 1 argument"));
        };
        let revision = go_text::parse_int(revision, 10).map_err(|why| Failure::new(Exit::Error, why))?;
        let physical = call.flags.switch(&PHYSICAL);
        let session = Session::open(&mut call).await?;
        session.call(CompactionRequest { revision, physical }).await?;
        Ok(say(format_args!("compacted revision {revision}\n"))?)
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::parse::parse_line;

    static GET_ALONE: Command = GET;
    static PUT_ALONE: Command = PUT;
    static DEL_ALONE: Command = DEL;

    fn call(command: &'static Command, line: &[&str]) -> Call {
        parse_line(command, line.iter().map(OsString::from).collect()).unwrap()
    }

    fn get(line: &[&str]) -> Result<RangeRequest, (Exit, String)> {
        range_request(&call(&GET_ALONE, line)).map_err(said)
    }

    fn put(line: &[&str], stdin: Option<&str>) -> Result<PutRequest, (Exit, String)> {
        put_request(&call(&PUT_ALONE, line), || stdin.map(|text| text.as_bytes().to_vec())).map_err(said)
    }

    fn said(failure: Failure) -> (Exit, String) {
        (failure.exit, failure.message.unwrap_or_default())
    }

    #[test]
    fn a_get_without_flags_asks_for_one_key_now() {
        assert_eq!(get(&["k"]), Ok(RangeRequest { key: "k".into(), ..RangeRequest::default() }));
    }

    #[test]
    fn flags_of_get_reach_the_request() {
        let line = [
            "a",
            "z",
            "--limit",
            "5",
            "--rev=7",
            "--order",
            "descend",
            "--sort-by",
            "modify",
            "--keys-only",
            "--consistency",
            "s",
            "--min-mod-rev",
            "2",
            "--max-create-rev",
            "9",
        ];
        let expected = RangeRequest {
            key: "a".into(),
            range_end: "z".into(),
            limit: 5,
            revision: 7,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Mod.into(),
            serializable: true,
            keys_only: true,
            min_mod_revision: 2,
            max_create_revision: 9,
            ..RangeRequest::default()
        };
        assert_eq!(get(&line), Ok(expected));
    }

    #[test]
    fn ascending_keys_are_not_asked_for() {
        assert_eq!(get(&["a", "--order", "ASCEND"]).unwrap().sort_order, i32::from(SortOrder::None));
        let by_value = get(&["a", "--order", "ASCEND", "--sort-by", "VALUE"]).unwrap();
        assert_eq!(by_value.sort_order, i32::from(SortOrder::Ascend));
    }

    #[test]
    fn a_get_that_makes_no_sense_is_refused() {
        let refused = |line: &[&str]| get(line).unwrap_err();
        assert_eq!(refused(&["a", "--order", "x"]), (Exit::BadFeature, "bad sort order x".to_owned()));
        assert_eq!(refused(&["a", "--sort-by", "x"]), (Exit::BadFeature, "bad sort target x".to_owned()));
        assert_eq!(
            refused(&["a", "--consistency", "x"]),
            (Exit::BadFeature, "unknown consistency flag \"x\"".to_owned())
        );
        assert_eq!(
            refused(&["a", "--min-mod-rev", "5", "--max-mod-rev", "3"]),
            (Exit::BadFeature, "getMinModRev(=5) > getMaxModRev(=3)".to_owned())
        );
        assert!(refused(&["a", "--keys-only", "--count-only"]).1.starts_with("`--keys-only` and `--count-only`"));
        assert!(refused(&["a", "--keys-only", "--count-only", "--prefix", "--from-key"]).1.starts_with("`--prefix`"));
    }

    #[test]
    fn the_value_of_a_put_comes_from_the_words_or_from_standard_input() {
        assert_eq!(put(&["k", "v", "ignored"], Some("s")).unwrap().value, "v");
        assert_eq!(put(&["k"], Some("s\n")).unwrap().value, "s\n");
        assert_eq!(put(&["k", ""], None).unwrap().value, "");
        let text = "put command needs 1 argument and input from stdin or 2 arguments";
        assert_eq!(put(&["k"], None), Err((Exit::BadArguments, text.to_owned())));
        assert_eq!(put(&[], Some("s")), Err((Exit::BadArguments, text.to_owned())));
        assert_eq!(put(&["k", "--ignore-value"], Some("s")).unwrap().value, "");
        assert!(put(&["k", "v", "--ignore-value"], None).unwrap_err().1.contains("'ignore-value'"));
    }

    #[test]
    fn leases_are_hexadecimal() {
        assert_eq!(put(&["k", "v", "--lease", "1f"], None).unwrap().lease, 31);
        let text = "bad lease ID (strconv.ParseInt: parsing \"zz\": invalid syntax), expecting ID in Hex";
        assert_eq!(put(&["k", "v", "--lease", "zz"], None), Err((Exit::BadArguments, text.to_owned())));
    }

    #[tokio::test]
    async fn flags_of_del_reach_the_request() {
        let request = delete_request(&call(&DEL_ALONE, &["a", "--prefix", "--prev-kv"])).await;
        let expected = DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true };
        assert_eq!(request, Ok(expected));
        assert_eq!(delete_request(&call(&DEL_ALONE, &["a", "b", "c"])).await.unwrap_err().exit, Exit::BadArguments);
    }

    #[test]
    fn deleting_a_range_warns_unless_it_is_meant() {
        let keys = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let warning = range_warning(&keys(&["a", "b"]), false).unwrap();
        assert!(warning.starts_with("Warning: Keys between \"a\" and \"b\" will be deleted."));
        assert_eq!(range_warning(&keys(&["a", "b"]), true), None);
        assert_eq!(range_warning(&keys(&["a"]), false), None);
    }
}
