//! Files of keys and values as one tree, whatever their grammar: TOML, and YAML with its subset JSON.
//!
//! - Every key and value carries its line.
//! - Size, depth and the number of nodes are bounded, so that no file can exhaust memory or stack.

use std::{collections::HashMap, fs::File, io::Read, os::unix::fs::FileTypeExt as _, path::Path};

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};
use toml::de::{DeTable, DeValue};

use super::go;

/// Largest configuration file that is read: a hundred times what the largest real one needs.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting in a file; etcd's own needs four.
pub const FILE_DEPTH_MAX: usize = 16;
/// Most keys and values in a file, after YAML aliases were followed: ten times the options there are.
pub const FILE_NODES_MAX: usize = 2_000;
/// Most mistakes of form that are told of one file.
const FLAWS_MAX: usize = 50;

/// A mistake in a file's form, with its line (0: the whole file).
pub(super) type Flaw = (usize, String);

/// A value in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The line on which it begins, from 1.
    pub(super) line: usize,
    /// What stands there.
    pub(super) content: Content,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// A single value, as written, and what its spelling makes it.
    Scalar(String, Type),
    /// Values in order.
    List(Vec<Node>),
    /// Keys with their lines, in order.
    Table(Vec<(String, usize, Node)>),
}

/// What a scalar's spelling makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Bool,
    Integer,
    Float,
    Text,
}

impl Node {
    /// As messages name what was found.
    pub(super) fn type_name(&self) -> &'static str {
        match &self.content {
            Content::Scalar(_, Type::Null) => "nothing",
            Content::Scalar(_, Type::Bool) => "a boolean",
            Content::Scalar(_, Type::Integer) => "an integer",
            Content::Scalar(_, Type::Float) => "a fraction",
            Content::Scalar(_, Type::Text) => "a string",
            Content::List(_) => "a list",
            Content::Table(_) => "a table",
        }
    }

    /// The value as one text, for messages.
    pub(super) fn text(&self) -> String {
        match &self.content {
            Content::Scalar(text, _) => text.clone(),
            Content::List(items) => items.iter().map(Self::text).collect::<Vec<_>>().join(","),
            Content::Table(entries) => {
                entries.iter().map(|(key, _, node)| format!("{key}={}", node.text())).collect::<Vec<_>>().join(",")
            }
        }
    }
}

impl Node {
    /// As [`Node::text`], but strings in quotes: their quotes may be what is wrong.
    pub(super) fn shown(&self) -> String {
        match &self.content {
            Content::Scalar(text, Type::Text) => go::quote(text),
            _ => self.text(),
        }
    }
}

/// Reads a whole file, up to [`FILE_BYTES_MAX`]. A named pipe is refused: without a writer it would be waited for for ever.
/// What a shell substitutes for a command stands below `/dev` or `/proc` and has a writer.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Flaw> {
    let io = |error: std::io::Error| (0, format!("open {}: {}", path.display(), reason(&error)));
    let is_inherited = path.starts_with("/dev") || path.starts_with("/proc");
    if !is_inherited && path.metadata().map_err(io)?.file_type().is_fifo() {
        return Err((0, format!("read {}: is a named pipe", path.display())));
    }
    let mut file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.is_dir() {
        return Err((0, format!("read {}: is a directory", path.display())));
    }
    let mut bytes = Vec::new();
    file.by_ref().take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err((0, format!("the file is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// Whether there is no such file. Where that cannot be seen, as in a directory that others closed, it is not so: what may
/// be missing then counts as unreadable.
pub(super) fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
}

/// The system's words without Rust's `(os error 2)`, in lower case as Go prints them.
pub(super) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// The bytes as text; a byte order mark does not count.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Flaw> {
    let line_of = |at: usize| 1 + bytes.iter().take(at).filter(|byte| **byte == b'\n').count();
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err((line_of(at), "the file contains a NUL byte: not a text file".to_owned()));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| (line_of(error.valid_up_to()), "the file is not UTF-8 text".to_owned()))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Reads TOML. All flaws of form are found in one pass.
pub(super) fn parse_toml(text: &str) -> Result<Node, Vec<Flaw>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let lines = Lines::of(text);
    if !errors.is_empty() {
        let flaw =
            |error: &toml::de::Error| (error.span().map_or(0, |span| lines.at(span.start)), one_line(error.message()));
        let mut flaws: Vec<Flaw> = errors.iter().map(flaw).collect();
        // What follows a flaw on its line is mostly the same mistake, seen again.
        flaws.sort_by_key(|(line, _)| *line);
        flaws.dedup_by_key(|(line, _)| *line);
        if let Some((line, _)) = flaws.get(FLAWS_MAX).cloned() {
            let more = flaws.len() - FLAWS_MAX;
            flaws.truncate(FLAWS_MAX);
            flaws.push((line, format!("here and below, {more} more mistakes")));
        }
        return Err(flaws);
    }
    let mut budget = Budget::default();
    toml_table(table.get_ref(), 1, &lines, &mut budget, 0).map_err(|flaw| vec![flaw])
}

fn toml_table(
    table: &DeTable<'_>,
    line: usize,
    lines: &Lines,
    budget: &mut Budget,
    depth: usize,
) -> Result<Node, Flaw> {
    let mut entries = Vec::new();
    for (key, value) in table {
        let key_line = lines.at(key.span().start);
        let node = toml_value(value.get_ref(), lines.at(value.span().start), lines, budget, depth + 1)?;
        entries.push((key.get_ref().to_string(), key_line, node));
    }
    entries.sort_by_key(|(_, line, _)| *line);
    Ok(Node { line, content: Content::Table(entries) })
}

fn toml_value(
    value: &DeValue<'_>,
    line: usize,
    lines: &Lines,
    budget: &mut Budget,
    depth: usize,
) -> Result<Node, Flaw> {
    budget.spend(1, depth, line)?;
    let scalar = |text: String, kind| Ok(Node { line, content: Content::Scalar(text, kind) });
    match value {
        DeValue::String(text) => scalar(text.to_string(), Type::Text),
        DeValue::Integer(number) => scalar(number.to_string(), Type::Integer),
        DeValue::Float(number) => scalar(number.to_string(), Type::Float),
        DeValue::Boolean(on) => scalar(on.to_string(), Type::Bool),
        DeValue::Datetime(time) => scalar(time.to_string(), Type::Text),
        DeValue::Table(table) => toml_table(table, line, lines, budget, depth),
        DeValue::Array(items) => {
            let items = items
                .iter()
                .map(|item| toml_value(item.get_ref(), lines.at(item.span().start), lines, budget, depth + 1));
            Ok(Node { line, content: Content::List(items.collect::<Result<_, _>>()?) })
        }
    }
}

/// Reads the first document of a YAML text, or JSON. An empty text is an empty table.
pub(super) fn parse_yaml(text: &str) -> Result<Node, Flaw> {
    let mut builder = YamlBuilder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| (error.marker().line(), one_line(error.info())))?;
        builder.take(event, span.start.line())?;
    }
    let nothing = || Node { line: 1, content: Content::Table(Vec::new()) };
    Ok(builder.root.filter(|root| !matches!(root.content, Content::Scalar(_, Type::Null))).unwrap_or_else(nothing))
}

/// Builds the tree from the parser's events.
#[derive(Default)]
struct YamlBuilder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    budget: Budget,
    root: Option<Node>,
}

/// A list or table that has not ended.
struct Open {
    line: usize,
    anchor: usize,
    items: Vec<Node>,
    entries: Vec<(String, usize, Node)>,
    /// The key that waits for its value; tables only.
    key: Option<(String, usize)>,
    is_table: bool,
}

impl YamlBuilder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), Flaw> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                return Err((line, "a second document begins here; only one is read".to_owned()));
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kind = yaml_type(&text, style, tag.as_deref());
                return self.put(Node { line, content: Content::Scalar(text.into_owned(), kind) }, anchor);
            }
            Event::SequenceStart(anchor, _) => self.begin(line, anchor, false)?,
            Event::MappingStart(anchor, _) => self.begin(line, anchor, true)?,
            Event::SequenceEnd | Event::MappingEnd => self.end()?,
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned();
                return self.put(node.ok_or((line, "this alias stands for nothing".to_owned()))?, 0);
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, line: usize, anchor: usize, is_table: bool) -> Result<(), Flaw> {
        self.budget.spend(1, self.open.len(), line)?;
        self.open.push(Open { line, anchor, items: Vec::new(), entries: Vec::new(), key: None, is_table });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Flaw> {
        let Some(done) = self.open.pop() else { return Ok(()) };
        let content = if done.is_table { Content::Table(done.entries) } else { Content::List(done.items) };
        self.put(Node { line: done.line, content }, done.anchor)
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), Flaw> {
        self.budget.spend(node.count(), self.open.len(), node.line)?;
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(open) => open.put(node)?,
        }
        Ok(())
    }
}

impl Open {
    fn put(&mut self, node: Node) -> Result<(), Flaw> {
        if !self.is_table {
            self.items.push(node);
            return Ok(());
        }
        match (self.key.take(), node.content) {
            (Some((key, line)), content) => self.entries.push((key, line, Node { line: node.line, content })),
            (None, Content::Scalar(text, _)) => self.key = Some((text, node.line)),
            (None, _) => return Err((node.line, "a key must be a plain word".to_owned())),
        }
        Ok(())
    }
}

impl Node {
    fn count(&self) -> usize {
        match &self.content {
            Content::Scalar(..) => 1,
            Content::List(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Content::Table(entries) => 1 + entries.iter().map(|(_, _, node)| node.count()).sum::<usize>(),
        }
    }
}

/// What a scalar is under YAML 1.1, which etcd's reader follows.
fn yaml_type(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Type {
    if style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str") {
        return Type::Text;
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Type::Null,
        _ if yaml_bool(text).is_some() => return Type::Bool,
        _ => {}
    }
    let number_like = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    match go::parse_int(text) {
        Ok(_) | Err(go::NumberError::Range) => Type::Integer,
        Err(_) if number_like && text.parse::<f64>().is_ok() => Type::Float,
        Err(_) => Type::Text,
    }
}

/// The truth values of YAML 1.1.
pub(super) fn yaml_bool(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// What a file may still cost.
#[derive(Default)]
struct Budget {
    nodes: usize,
}

impl Budget {
    fn spend(&mut self, nodes: usize, depth: usize, line: usize) -> Result<(), Flaw> {
        self.nodes += nodes;
        if depth > FILE_DEPTH_MAX {
            return Err((line, format!("nested deeper than {FILE_DEPTH_MAX} levels")));
        }
        if self.nodes > FILE_NODES_MAX {
            return Err((line, format!("more than {FILE_NODES_MAX} keys and values")));
        }
        Ok(())
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte, from 1.
    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|newline| *newline < byte) + 1
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(node: Node) -> Vec<(String, usize, String, &'static str)> {
        let Content::Table(entries) = node.content else { panic!("a table") };
        entries.into_iter().map(|(key, line, node)| (key, line, node.text(), node.type_name())).collect()
    }

    #[test]
    fn toml_values_carry_their_lines() {
        let node =
            parse_toml("# c\nname = \"a\"\n\nmax-wals = 0x10\nlog-outputs = [\n \"x\", \"y\"]\n").expect("valid");
        let rows = [
            ("name".to_owned(), 2, "a".to_owned(), "a string"),
            ("max-wals".to_owned(), 4, "0x10".to_owned(), "an integer"),
            ("log-outputs".to_owned(), 5, "x,y".to_owned(), "a list"),
        ];
        assert_eq!(table(node), rows);
    }

    #[test]
    fn every_flaw_of_a_toml_file_is_found() {
        let flaws = parse_toml("name = \nmax-wals = 1\nx = [1,\ny == 2\n").expect_err("flawed");
        assert!(flaws.len() >= 2 && flaws.iter().all(|(line, _)| *line > 0), "{flaws:?}");
    }

    #[test]
    fn yaml_scalars_follow_version_1_1() {
        let node = parse_yaml("a: yes\nb: 'yes'\nc: 0o17\nd: 1_00\ne: 1.5\nf: ~\ng: 5s\nh: !!str 5\n").expect("valid");
        let types: Vec<_> = table(node).into_iter().map(|(key, _, _, kind)| format!("{key} {kind}")).collect();
        let expected = [
            "a a boolean",
            "b a string",
            "c an integer",
            "d an integer",
            "e a fraction",
            "f nothing",
            "g a string",
            "h a string",
        ];
        assert_eq!(types, expected);
    }

    #[test]
    fn yaml_values_carry_their_lines() {
        let node = parse_yaml("---\nname: a\nx:\n  y: 1\n").expect("valid");
        let rows =
            [("name".to_owned(), 2, "a".to_owned(), "a string"), ("x".to_owned(), 3, "y=1".to_owned(), "a table")];
        assert_eq!(table(node), rows);
        let json = parse_yaml("{\n\"name\": \"a\",\n\"x\": [1, 2]\n}").expect("valid");
        assert_eq!(table(json).last().map(|(_, line, ..)| *line), Some(3));
    }

    #[test]
    fn aliases_cannot_explode() {
        let mut text = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (this, last) in ["b", "c", "d", "e", "f"].iter().zip(["a", "b", "c", "d", "e"]) {
            let aliases = vec![format!("*{last}"); 10].join(",");
            text.extend([this, ": &", this, " [", &aliases, "]\n"]);
        }
        let (_, why) = parse_yaml(&text).expect_err("too many");
        assert_eq!(why, "more than 2000 keys and values");
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(parse_yaml(&deep).expect_err("deep").1, "nested deeper than 16 levels");
        assert!(parse_toml(&format!("x = {deep}")).is_err());
    }

    /// Whether both readers, if they refuse the text, name a line of it (or the one behind its end).
    fn refuses_by_line(text: &str) -> bool {
        let lines = text.lines().count() + 2;
        let named = |flaw: &Flaw| flaw.0 <= lines && !flaw.1.is_empty() && !flaw.1.contains('\n');
        parse_yaml(text).err().is_none_or(|flaw| named(&flaw))
            && parse_toml(text).err().is_none_or(|flaws| !flaws.is_empty() && flaws.iter().all(named))
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_by_line(text in "[a-z\"'{}\\[\\]:,&*!|>#=.\\- \t\n0-9]{0,80}") {
            prop_assert!(refuses_by_line(&text));
        }

        #[test]
        fn any_characters_are_read_or_refused_by_line(text in "\\PC{0,40}\n\\PC{0,40}") {
            prop_assert!(refuses_by_line(&text));
        }
    }
}
