//! `member`: who belongs to the cluster.

use std::fmt::Write;

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        parse::Call,
        speak::{complain, complain_on_same_line, say},
        table::{Command, Running},
    },
    session::{Session, plainly},
};
use crate::client::v2::Member;

pub(super) const MEMBER: Command = Command {
    name: "member",
    about: "members of the cluster",
    commands: &[
        Command { name: "list", about: "lists all members", run: Some(list), ..Command::EMPTY },
        Command {
            name: "add",
            arguments: "<name> <peerURL>",
            about: "makes room for a new member and shows its settings",
            run: Some(add),
            ..Command::EMPTY
        },
        Command {
            name: "remove",
            arguments: "<memberID>",
            about: "takes a member out of the cluster",
            run: Some(remove),
            ..Command::EMPTY
        },
        Command {
            name: "update",
            arguments: "<memberID> <peerURLs>",
            about: "changes the peer URLs of a member",
            run: Some(update),
            ..Command::EMPTY
        },
    ],
    ..Command::EMPTY
};

fn list(call: Call) -> Running {
    Box::pin(async move {
        no_arguments(&call)?;
        let mut session = Session::open(&call).await?;
        let members = session.within(async |cluster| cluster.members().await).await.map_err(plainly)?;
        let leader = session.within(async |cluster| cluster.leader().await).await;
        let leader =
            leader.map_err(|error| Failure::bare(Exit::Error, format_args!("Failed to get leader:  {error}")))?;
        let lines: String = members.iter().map(|member| line(member, &leader)).collect();
        Ok(say(format_args!("{lines}"))?)
    })
}

fn line(member: &Member, leader: &Member) -> String {
    let Member { id, name, peer_urls, client_urls } = member;
    let peers = peer_urls.join(",");
    if name.is_empty() {
        return format!("{id}[unstarted]: peerURLs={peers}\n");
    }
    let (clients, leads) = (client_urls.join(","), *id == leader.id);
    format!("{id}: name={name} peerURLs={peers} clientURLs={clients} isLeader={leads}\n")
}

fn add(call: Call) -> Running {
    Box::pin(async move {
        let words = call.argument_texts();
        let [name, url] = words.as_slice() else {
            return Err(Failure::bare(Exit::Error, "Provide a name and a single member peerURL"));
        };
        let mut session = Session::open(&call).await?;
        let added = session.within(async |cluster| cluster.add_member(url).await).await.map_err(plainly)?;
        say(format_args!("Added member named {name} with ID {} to cluster\n", added.id))?;
        let members = session.within(async |cluster| cluster.members().await).await.map_err(plainly)?;
        Ok(say(format_args!("{}", settings(name, &added, &members)))?)
    })
}

/// What the new member is to be started with.
fn settings(name: &str, added: &Member, members: &[Member]) -> String {
    let named = |member: &Member| if member.id == added.id { name.to_owned() } else { member.name.clone() };
    let pairs = members.iter().flat_map(|member| {
        let name = named(member);
        member.peer_urls.iter().map(move |url| format!("{name}={url}"))
    });
    let cluster = go_text::quote(pairs.collect::<Vec<_>>().join(",").as_bytes());
    let mut text = String::new();
    // Writing to a string cannot fail.
    write!(
        text,
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={cluster}\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        go_text::quote(name.as_bytes())
    )
    .unwrap_or_default();
    text
}

fn remove(call: Call) -> Running {
    Box::pin(async move {
        let words = call.argument_texts();
        let [id] = words.as_slice() else {
            return Err(Failure::bare(Exit::Error, "Provide a single member ID"));
        };
        let mut session = Session::open(&call).await?;
        let members = session.within(async |cluster| cluster.members().await).await.map_err(|error| {
            Failure::bare(Exit::Error, format_args!("Error while verifying ID against known members: {error}"))
        })?;
        check_id(id, &members, call.program.name)?;
        if let Err(error) = session.within(async |cluster| cluster.remove_member(id).await).await {
            complain_on_same_line(format_args!("Received an error trying to remove member {id}: {error}"));
            return Err(Failure::reported(Exit::Error));
        }
        Ok(say(format_args!("Removed member {id} from cluster\n"))?)
    })
}

/// A name is no identifier, but it tells which one is meant.
fn check_id(id: &str, members: &[Member], program: &str) -> Result<(), Failure> {
    for member in members.iter().filter(|member| member.name == id) {
        complain(format_args!(
            "Found a member named {id}; if this is correct, please use its ID, eg:\n\t{program} member remove {}",
            member.id
        ));
        complain(format_args!("For more details, read the documentation at {DOCUMENTATION}\n"));
    }
    if members.iter().any(|member| member.id == id) {
        return Ok(());
    }
    Err(Failure::bare(Exit::Error, format_args!("Couldn't find a member in the cluster with an ID of {id}.")))
}

fn update(call: Call) -> Running {
    Box::pin(async move {
        let words = call.argument_texts();
        let [id, urls] = words.as_slice() else {
            let why =
                "Provide an ID and a list of comma separated peerURL (0xabcd http://example.com,http://example1.com)";
            return Err(Failure::bare(Exit::Error, why));
        };
        let urls: Vec<&str> = urls.split(',').collect();
        let mut session = Session::open(&call).await?;
        session.within(async |cluster| cluster.update_member(id, &urls).await).await.map_err(plainly)?;
        Ok(say(format_args!("Updated member with ID {id} in cluster\n"))?)
    })
}

/// Checks that a command that takes no arguments has none.
///
/// # Errors
/// A [`Failure`] if it has.
pub(super) fn no_arguments(call: &Call) -> Result<(), Failure> {
    if call.arguments.is_empty() { Ok(()) } else { Err(Failure::bare(Exit::Error, "No arguments accepted")) }
}

/// Where etcd tells of it.
const DOCUMENTATION: &str =
    "https://github.com/etcd-io/etcd/blob/main/Documentation/runtime-configuration.md#remove-a-member";

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, name: &str) -> Member {
        Member { id: id.into(), name: name.into(), peer_urls: vec![format!("http://{id}:1")], client_urls: vec![] }
    }

    #[test]
    fn a_member_before_its_start_has_no_name() {
        let (started, new) = (member("a", "m1"), member("b", ""));
        assert_eq!(line(&started, &started), "a: name=m1 peerURLs=http://a:1 clientURLs= isLeader=true\n");
        assert_eq!(line(&new, &started), "b[unstarted]: peerURLs=http://b:1\n");
        let text = "\nETCD_NAME=\"m2\"\nETCD_INITIAL_CLUSTER=\"m1=http://a:1,m2=http://b:1\"\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n";
        assert_eq!(settings("m2", &new, &[started, new.clone()]), text);
    }

    #[test]
    fn a_member_is_removed_by_its_identifier() {
        let members = [member("a", "m1")];
        assert_eq!(check_id("a", &members, "etcdctl"), Ok(()));
        let refused = check_id("m1", &members, "etcdctl").unwrap_err();
        assert_eq!(refused.usage.as_deref(), Some("Couldn't find a member in the cluster with an ID of m1."));
    }
}
