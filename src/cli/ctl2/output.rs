//! The forms of an answer about a key.

use std::fmt::Write;

use super::super::{
    failure::Failure,
    output::json::string,
    speak::{complain, say},
};
use crate::client::v2::{Node, Response};

/// Prints an answer in the form called `format`.
///
/// # Errors
/// Standard output is gone. A form that does not exist is told, and is no failure.
pub(super) fn print(response: &Response, format: &str) -> Result<(), Failure> {
    match format {
        "simple" => Ok(say(format_args!("{}\n", simple(response)))?),
        "extended" => Ok(say(format_args!("{}", extended(response)))?),
        "json" => Ok(say(format_args!("{}\n", json(response)))?),
        _ => {
            complain(format_args!("Unsupported output format: {format}"));
            Ok(())
        }
    }
}

/// Each text as a line behind `indent`.
pub(super) fn lines(texts: &[String], indent: &str) -> String {
    texts.iter().fold(String::new(), |lines, text| lines + indent + text + "\n")
}

fn simple(response: &Response) -> String {
    match response.action.as_str() {
        DELETE => format!("PrevNode.Value: {}", previous_value(response)),
        _ => response.node.value.clone(),
    }
}

fn extended(response: &Response) -> String {
    let Node { key, created_index, modified_index, ttl, value, .. } = &response.node;
    let mut text = format!("Key: {key}\nCreated-Index: {created_index}\nModified-Index: {modified_index}\n");
    if response.previous.is_some() {
        push(&mut text, format_args!("PrevNode.Value: {}\n", previous_value(response)));
    }
    push(&mut text, format_args!("TTL: {ttl}\nIndex: {}\n", response.index));
    if response.action != DELETE {
        push(&mut text, format_args!("\n{value}\n"));
    }
    text
}

fn previous_value(response: &Response) -> &str {
    response.previous.as_ref().map_or("", |node| &node.value)
}

fn json(response: &Response) -> String {
    let previous = response.previous.as_ref().map_or_else(|| NULL.to_owned(), node);
    format!("{{\"action\":{},\"node\":{},\"prevNode\":{previous}}}", string(&response.action), node(&response.node))
}

/// A node with the members that Go's encoder writes of it, in their order.
fn node(node: &Node) -> String {
    let dir = if node.dir { "\"dir\":true," } else { "" };
    let mut text = format!("{{\"key\":{},{dir}\"value\":{},\"nodes\":", string(&node.key), string(&node.value));
    text.push_str(&node.nodes.as_deref().map_or_else(|| NULL.to_owned(), nodes));
    push(&mut text, format_args!(",\"createdIndex\":{},\"modifiedIndex\":{}", node.created_index, node.modified_index));
    if let Some(expiration) = &node.expiration {
        push(&mut text, format_args!(",\"expiration\":{}", string(expiration)));
    }
    if node.ttl != 0 {
        push(&mut text, format_args!(",\"ttl\":{}", node.ttl));
    }
    text + "}"
}

fn nodes(nodes: &[Node]) -> String {
    format!("[{}]", nodes.iter().map(node).collect::<Vec<_>>().join(","))
}

fn push(text: &mut String, piece: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    text.write_fmt(piece).unwrap_or_default();
}

const DELETE: &str = "delete";
const NULL: &str = "null";

#[cfg(test)]
mod tests {
    use super::*;

    fn response(action: &str) -> Response {
        let node =
            Node { key: "/a".into(), value: "<v>".into(), created_index: 1, modified_index: 2, ..Node::default() };
        let previous = Some(Node { value: "old".into(), ..node.clone() });
        Response { action: action.into(), node, previous, index: 3 }
    }

    #[test]
    fn a_deletion_shows_what_was_there() {
        assert_eq!(simple(&response("delete")), "PrevNode.Value: old");
        assert_eq!(simple(&response("compareAndDelete")), "<v>");
        let text = "Key: /a\nCreated-Index: 1\nModified-Index: 2\nPrevNode.Value: old\nTTL: 0\nIndex: 3\n";
        assert_eq!(extended(&response("delete")), text);
        assert_eq!(extended(&response("set")), format!("{text}\n<v>\n"));
    }

    #[test]
    fn json_has_the_members_of_go() {
        let mut response = response("set");
        response.node.ttl = 5;
        response.node.expiration = Some("t".into());
        response.previous = None;
        let dir = Node { key: "/d".into(), dir: true, nodes: Some(vec![]), ..Node::default() };
        response.node.nodes = Some(vec![dir]);
        assert_eq!(
            json(&response),
            "{\"action\":\"set\",\"node\":{\"key\":\"/a\",\"value\":\"\\u003cv\\u003e\",\"nodes\":[\
             {\"key\":\"/d\",\"dir\":true,\"value\":\"\",\"nodes\":[],\"createdIndex\":0,\"modifiedIndex\":0}],\
             \"createdIndex\":1,\"modifiedIndex\":2,\"expiration\":\"t\",\"ttl\":5},\"prevNode\":null}"
        );
    }
}
