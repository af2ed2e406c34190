//! `txn`: a transaction read from standard input.

use std::io::BufRead;

use super::{
    super::{
        failure::{Exit, Failure},
        parse::{Call, parse_line},
        speak::say,
        table::{Command, Flag, Group, Running},
    },
    argify::argify,
    compare, kv,
    session::Session,
};
use crate::pb::etcdserverpb::{Compare, RequestOp, TxnRequest, request_op::Request};

const INTERACTIVE: Flag = Flag::switch("interactive", "say what is expected next").short('i');

pub(super) const TXN: Command = Command {
    name: "txn",
    beginnings: &["t"],
    arguments: "[options]",
    about: "Performs several requests as one transaction",
    details: "Reads a transaction from standard input and performs it in one step.\n\n\
              Three lists follow each other, each ended by an empty line: conditions, requests for when all of them \
              hold,\nand requests for when one does not.\n\n  \
              mod(\"counter\") = \"7\"\n  value(\"owner\") != \"nobody\"\n\n  \
              put counter 8\n  get owner\n\n  get counter\n\n\
              A condition compares version, create, mod, value or lease of a key by =, !=, < or >.",
    group: Group::KeyValue,
    flags: &[INTERACTIVE],
    run: Some(txn),
    ..Command::EMPTY
};

fn txn(mut call: Call) -> Running {
    Box::pin(async move {
        if !call.arguments.is_empty() {
            return Err(Failure::bad_arguments("txn command does not accept argument"));
        }
        let session = Session::open(&mut call).await?;
        let interactive = call.flags.switch(&INTERACTIVE);
        let request = read_request(&mut std::io::stdin().lock(), interactive).await?;
        let response = session.client.call(request, None).await?;
        session.print(&response)
    })
}

async fn read_request(input: &mut impl BufRead, interactive: bool) -> Result<TxnRequest, Failure> {
    let prompt = |text| if interactive { say(format_args!("{text}\n")) } else { Ok(()) };
    prompt("compares:")?;
    let compare = read_compares(input)?;
    prompt("success requests (get, put, del):")?;
    let success = read_operations(input).await?;
    prompt("failure requests (get, put, del):")?;
    let failure = read_operations(input).await?;
    Ok(TxnRequest { compare, success, failure })
}

fn read_compares(input: &mut impl BufRead) -> Result<Vec<Compare>, Failure> {
    let mut compares = Vec::new();
    while let Some(line) = read_line(input)? {
        compares.push(compare::parse(&line).map_err(bad_input)?);
    }
    Ok(compares)
}

async fn read_operations(input: &mut impl BufRead) -> Result<Vec<RequestOp>, Failure> {
    let mut operations = Vec::new();
    while let Some(line) = read_line(input)? {
        operations.push(RequestOp { request: Some(operation(&line).await?) });
    }
    Ok(operations)
}

/// The next line without the blanks around it, `None` at the end of the list. A line without an end is no line.
fn read_line(input: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let mut line = String::new();
    input.read_line(&mut line).map_err(bad_input)?;
    let Some(line) = line.strip_suffix('\n') else { return Err(bad_input("EOF")) };
    let line = line.trim();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

/// Reads one request: the words of the command that would perform it alone.
async fn operation(line: &str) -> Result<Request, Failure> {
    let words = argify(line).map_err(bad_input)?;
    let invalid = |()| bad_input(format_args!("invalid txn request: {line}"));
    let (Some((name, rest)), true) = (words.split_first(), words.len() > 1) else {
        return Err(bad_input(format_args!("invalid txn compare request: {line}")));
    };
    let command = OPERATIONS.child(&name.to_string_lossy()).ok_or(()).map_err(invalid)?;
    let call = parse_line(command, rest.to_vec()).map_err(drop).map_err(invalid)?;
    Ok(match command.name {
        "get" => Request::RequestRange(kv::range_request(&call)?),
        "put" => Request::RequestPut(kv::put_request(&call, || None)?),
        _ => Request::RequestDeleteRange(kv::delete_request(&call).await?),
    })
}

fn bad_input(message: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::BadInput, message)
}

/// The commands a transaction is made of.
static OPERATIONS: Command = Command { commands: &[kv::PUT, kv::GET, kv::DEL], ..Command::EMPTY };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

    async fn read(text: &str) -> Result<TxnRequest, (Exit, String)> {
        let read = read_request(&mut text.as_bytes(), false).await;
        read.map_err(|failure| (failure.exit, failure.message.unwrap_or_default()))
    }

    fn operations(requests: Vec<Request>) -> Vec<RequestOp> {
        requests.into_iter().map(|request| RequestOp { request: Some(request) }).collect()
    }

    #[tokio::test]
    async fn three_lists_end_with_empty_lines() {
        let txn = read("mod(\"a\") > \"0\"\n  \nput \"k 1\" 'v w' --prev-kv\nget a --prefix\n\n del b\n\nignored")
            .await
            .unwrap();
        assert_eq!(txn.compare.len(), 1);
        let put = PutRequest { key: "k 1".into(), value: "v w".into(), prev_kv: true, ..PutRequest::default() };
        let get = RangeRequest { key: "a".into(), range_end: "b".into(), ..RangeRequest::default() };
        assert_eq!(txn.success, operations(vec![Request::RequestPut(put), Request::RequestRange(get)]));
        let delete = DeleteRangeRequest { key: "b".into(), ..DeleteRangeRequest::default() };
        assert_eq!(txn.failure, operations(vec![Request::RequestDeleteRange(delete)]));
        assert_eq!(read("\n\n\n").await, Ok(TxnRequest::default()));
    }

    #[tokio::test]
    async fn input_that_ends_early_is_refused() {
        for text in ["", "\n\n", "\n\nget a"] {
            assert_eq!(read(text).await, Err((Exit::BadInput, "EOF".to_owned())), "{text:?}");
        }
    }

    #[tokio::test]
    async fn requests_that_make_no_sense_are_refused() {
        let refused = async |line: &str| read(&format!("\n{line}\n\n\n")).await.unwrap_err();
        assert_eq!(refused("get").await, (Exit::BadInput, "invalid txn compare request: get".to_owned()));
        assert_eq!(refused("foo x").await, (Exit::BadInput, "invalid txn request: foo x".to_owned()));
        assert_eq!(refused("get a --bad").await, (Exit::BadInput, "invalid txn request: get a --bad".to_owned()));
        assert_eq!(refused("put k").await.0, Exit::BadArguments);
        assert_eq!(refused(r#"put "\q" v"#).await, (Exit::BadInput, "invalid syntax".to_owned()));
    }

    #[tokio::test]
    async fn a_missing_value_is_not_taken_from_the_lines_that_follow() {
        let refused = read("\nput k\n\n\nvalue").await.unwrap_err();
        assert_eq!(refused.0, Exit::BadArguments);
    }
}
