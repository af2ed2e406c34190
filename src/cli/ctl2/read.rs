//! `get` and `ls`.

use std::fmt::Write;

use super::{
    super::{
        failure::{Exit, Failure},
        parse::Call,
        speak::say,
        table::{Command, Flag, Running},
    },
    global, output,
    session::{Session, bad_arguments, refused},
};
use crate::client::v2::{Node, Reading};

const SORT: Flag = Flag::switch("sort", "in the order of the keys");
const QUORUM: Flag = Flag::switch("quorum", "only what a quorum has agreed on").short('q');
const RECURSIVE: Flag = Flag::switch("recursive", "with everything below").short('r');
const SLASHES: Flag = Flag::switch("p", "end the names of directories with a slash");

pub(super) const GET: Command = Command {
    name: "get",
    arguments: "<key>",
    about: "shows the value of a key",
    flags: &[SORT, QUORUM],
    run: Some(get),
    ..Command::EMPTY
};

fn get(call: Call) -> Running {
    Box::pin(async move {
        let mut session = Session::open(&call).await?;
        let key = key(&call)?;
        let reading =
            Reading { sorted: call.flags.switch(&SORT), quorum: call.flags.switch(&QUORUM), recursive: false };
        let response = session.within(async |cluster| cluster.get(&key, reading).await).await;
        let response = response.map_err(|error| refused(&error))?;
        if response.node.dir {
            return Err(Failure::bare(Exit::Error, format_args!("{}: is a directory", response.node.key)));
        }
        output::print(&response, global::output(&call.flags))
    })
}

pub(super) const LS: Command = Command {
    name: "ls",
    arguments: "[key]",
    about: "lists a directory",
    flags: &[SORT, RECURSIVE, SLASHES, QUORUM],
    run: Some(ls),
    ..Command::EMPTY
};

fn ls(call: Call) -> Running {
    Box::pin(async move {
        let mut session = Session::open(&call).await?;
        let key = call.argument_bytes().into_iter().next().unwrap_or_else(|| b"/".to_vec());
        let reading = Reading {
            sorted: call.flags.switch(&SORT),
            quorum: call.flags.switch(&QUORUM),
            recursive: call.flags.switch(&RECURSIVE),
        };
        let response = session.within(async |cluster| cluster.get(&key, reading).await).await;
        let response = response.map_err(|error| refused(&error))?;
        match global::output(&call.flags) {
            "simple" => Ok(say(format_args!("{}", listed(&response.node, call.flags.switch(&SLASHES))))?),
            format => output::print(&response, format),
        }
    })
}

/// The keys below a directory, one a line, or the key itself.
fn listed(node: &Node, with_slashes: bool) -> String {
    let mut lines = String::new();
    if !node.dir {
        push_line(&mut lines, node, false);
    }
    // Not by recursion: how deep it goes is for the members to say.
    let mut waiting: Vec<&Node> = below(node);
    while let Some(node) = waiting.pop() {
        push_line(&mut lines, node, with_slashes);
        waiting.append(&mut below(node));
    }
    lines
}

/// What is in a directory, the first at the end.
fn below(node: &Node) -> Vec<&Node> {
    node.nodes.iter().flatten().rev().collect()
}

fn push_line(lines: &mut String, node: &Node, with_slash: bool) {
    let slash = if node.dir && with_slash { "/" } else { "" };
    // Writing to a string cannot fail.
    writeln!(lines, "{}{slash}", node.key).unwrap_or_default();
}

/// The first argument.
///
/// # Errors
/// A [`Failure`] if there is none.
pub(super) fn key(call: &Call) -> Result<Vec<u8>, Failure> {
    call.argument_bytes().into_iter().next().ok_or_else(|| bad_arguments("key required"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(key: &str, nodes: Vec<Node>) -> Node {
        Node { key: key.into(), dir: true, nodes: Some(nodes), ..Node::default() }
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let leaf = |key: &str| Node { key: key.into(), ..Node::default() };
        let root = dir("", vec![dir("/a", vec![leaf("/a/b"), leaf("/a/c")]), leaf("/d")]);
        assert_eq!(listed(&root, true), "/a/\n/a/b\n/a/c\n/d\n");
        assert_eq!(listed(&root, false), "/a\n/a/b\n/a/c\n/d\n");
        assert_eq!(listed(&leaf("/d"), true), "/d\n");
    }
}
