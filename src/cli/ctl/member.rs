//! `member`: who belongs to the cluster.

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        output::{Added, MemberChange, Members, Verb},
        parse::Call,
        table::{Command, Flag, Group, Running, Values},
    },
    kv::is_serializable,
    session::Session,
};
use crate::pb::etcdserverpb::{
    MemberAddRequest, MemberListRequest, MemberListResponse, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest,
};

const PEER_URLS: Flag = Flag::text("peer-urls", "", "where the member listens for its peers, separated by commas");
const LEARNER: Flag = Flag::switch("learner", "the member does not vote");
const CONSISTENCY: Flag =
    Flag::text("consistency", "l", "linearizable (l) or serializable (s)").values(Values::Words(&["l", "s"]));

pub(super) const MEMBER: Command = Command {
    name: "member",
    arguments: "<subcommand>",
    about: "Members of the cluster",
    group: Group::Maintenance,
    commands: &[
        Command {
            name: "add",
            arguments: "<memberName> [options]",
            about: "Makes room for a new member and shows its settings",
            flags: &[PEER_URLS, LEARNER],
            run: Some(add),
            ..Command::EMPTY
        },
        Command {
            name: "remove",
            arguments: "<memberID>",
            about: "Takes a member out of the cluster",
            run: Some(remove),
            ..Command::EMPTY
        },
        Command {
            name: "update",
            arguments: "<memberID> [options]",
            about: "Changes the peer URLs of a member",
            flags: &[PEER_URLS],
            run: Some(update),
            ..Command::EMPTY
        },
        Command {
            name: "list",
            about: "Lists all members",
            details: "Lists all members.\n\nThe simple form has one line per member: identifier, status, name, peer URLs, \
                      client URLs, whether it is a learner.",
            flags: &[CONSISTENCY],
            run: Some(list),
            ..Command::EMPTY
        },
        Command {
            name: "promote",
            arguments: "<memberID>",
            about: "Gives a learner its vote",
            run: Some(promote),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn add(mut call: Call) -> Running {
    Box::pin(async move {
        let name = new_name(&call.argument_texts())?;
        let typed_urls = call.flags.text(&PEER_URLS).to_owned();
        let peer_ur_ls = split_urls(&typed_urls)?;
        let is_learner = call.flags.switch(&LEARNER);
        let session = Session::open(&mut call).await?;
        check_urls(&peer_ur_ls).map_err(|why| Failure::new(Exit::Error, why))?;
        let response = session.call(MemberAddRequest { peer_ur_ls, is_learner }).await?;
        session.print(&Added { response, name, peer_urls: typed_urls })
    })
}

fn new_name(arguments: &[String]) -> Result<String, Failure> {
    match arguments {
        [] => Err(Failure::bad_arguments("member name not provided")),
        [name] => Ok(name.clone()),
        many => {
            let urls = many.iter().filter(|word| word.to_lowercase().starts_with("http"));
            let hints = urls.map(|url| format!("did you mean --peer-urls={url}"));
            let message: Vec<_> = std::iter::once("too many arguments".to_owned()).chain(hints).collect();
            Err(Failure::bad_arguments(message.join(", ")))
        }
    }
}

fn split_urls(urls: &str) -> Result<Vec<String>, Failure> {
    if urls.is_empty() {
        return Err(Failure::bad_arguments("member peer urls not provided"));
    }
    Ok(urls.split(',').map(str::to_owned).collect())
}

/// Refuses what no member could listen on before anything is sent.
fn check_urls(urls: &[String]) -> Result<(), String> {
    urls.iter().try_for_each(|url| check_url(url.trim()))
}

fn check_url(url: &str) -> Result<(), String> {
    let scheme_error = || format!("URL scheme must be http, https, unix, or unixs: {url}");
    let Some((scheme, rest)) = url.split_once("://") else {
        let begins_with_scheme = url.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
        if url.contains(':') && !begins_with_scheme {
            let quoted = go_text::quote(url.as_bytes());
            return Err(format!("parse {quoted}: first path segment in URL cannot contain colon"));
        }
        return Err(scheme_error());
    };
    match scheme {
        "unix" | "unixs" => return Ok(()),
        "http" | "https" => {}
        _ => return Err(scheme_error()),
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = host.rsplit_once(']').map_or(host, |(_, behind)| behind).rsplit_once(':').map(|(_, port)| port);
    match port {
        None => Err(format!("URL address does not have the form \"host:port\": {url}")),
        Some(port) if !port.chars().all(|c| c.is_ascii_digit()) => {
            let (quoted, port) = (go_text::quote(url.as_bytes()), go_text::quote(format!(":{port}").as_bytes()));
            Err(format!("parse {quoted}: invalid port {port} after host"))
        }
        Some(_) if rest.get(authority.len()..).is_some_and(|path| path.starts_with('/')) => {
            Err(format!("URL must not contain a path: {url}"))
        }
        Some(_) => Ok(()),
    }
}

fn remove(mut call: Call) -> Running {
    Box::pin(async move {
        let member = member_id(&call.argument_texts())?;
        let session = Session::open(&mut call).await?;
        let answer = session.call(MemberRemoveRequest { id: member }).await?;
        let response = MemberListResponse { header: answer.header, members: answer.members };
        session.print(&MemberChange { verb: Verb::Removed, member, response })
    })
}

fn update(mut call: Call) -> Running {
    Box::pin(async move {
        let member = member_id(&call.argument_texts())?;
        let peer_ur_ls = split_urls(call.flags.text(&PEER_URLS))?;
        let session = Session::open(&mut call).await?;
        check_urls(&peer_ur_ls).map_err(|why| Failure::new(Exit::Error, why))?;
        let answer = session.call(MemberUpdateRequest { id: member, peer_ur_ls }).await?;
        let response = MemberListResponse { header: answer.header, members: answer.members };
        session.print(&MemberChange { verb: Verb::Updated, member, response })
    })
}

fn list(mut call: Call) -> Running {
    Box::pin(async move {
        let linearizable = !is_serializable(call.flags.text(&CONSISTENCY))?;
        let session = Session::open(&mut call).await?;
        let response = session.call(MemberListRequest { linearizable }).await?;
        session.print(&Members(response))
    })
}

fn promote(mut call: Call) -> Running {
    Box::pin(async move {
        let member = member_id(&call.argument_texts())?;
        let session = Session::open(&mut call).await?;
        let answer = session.call(MemberPromoteRequest { id: member }).await?;
        let response = MemberListResponse { header: answer.header, members: answer.members };
        session.print(&MemberChange { verb: Verb::Promoted, member, response })
    })
}

fn member_id(arguments: &[String]) -> Result<u64, Failure> {
    let [id] = arguments else { return Err(Failure::bad_arguments("member ID is not provided")) };
    go_text::parse_hex_id(id)
        .map_err(|why| Failure::bad_arguments(format_args!("bad member ID arg ({why}), expecting ID in Hex")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn peer_urls_must_be_addresses() {
        let refused = |url: &str| check_urls(&texts(&[url])).unwrap_err();
        assert_eq!(refused("nope"), "URL scheme must be http, https, unix, or unixs: nope");
        assert_eq!(refused("ftp://a:1"), "URL scheme must be http, https, unix, or unixs: ftp://a:1");
        assert_eq!(refused("http://a"), "URL address does not have the form \"host:port\": http://a");
        assert_eq!(refused("http://[::1]"), "URL address does not have the form \"host:port\": http://[::1]");
        assert_eq!(refused("http://a:1/x"), "URL must not contain a path: http://a:1/x");
        assert_eq!(refused("http://a:b"), "parse \"http://a:b\": invalid port \":b\" after host");
        assert_eq!(refused("1.2.3.4:5"), "parse \"1.2.3.4:5\": first path segment in URL cannot contain colon");
        let good = ["http://a:1", " https://[::1]:2 ", "unix://a:1", "http://u@a:1", "http://:1"];
        assert_eq!(check_urls(&texts(&good)), Ok(()));
    }

    #[test]
    fn a_url_instead_of_a_name_is_noticed() {
        let refused = new_name(&texts(&["x", "http://a:1"])).unwrap_err();
        assert_eq!(refused.message.as_deref(), Some("too many arguments, did you mean --peer-urls=http://a:1"));
        assert_eq!(new_name(&texts(&["x"])), Ok("x".to_owned()));
    }

    #[test]
    fn member_identifiers_are_hexadecimal() {
        assert_eq!(member_id(&texts(&["1f"])), Ok(31));
        let text = "bad member ID arg (strconv.ParseUint: parsing \"x\": invalid syntax), expecting ID in Hex";
        assert_eq!(member_id(&texts(&["x"])).unwrap_err().message.as_deref(), Some(text));
        assert_eq!(member_id(&[]).unwrap_err().message.as_deref(), Some("member ID is not provided"));
    }
}
