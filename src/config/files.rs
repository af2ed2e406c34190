//! TOML files and etcd's YAML file, turned into assignments.
//!
//! Unknown keys are mistakes, with the nearest known key. Types are strict where etcd's are: a number in quotes is text.
//! A list may also be written as one comma-separated string, and a duration as text; in YAML a bare number is a duration
//! in nanoseconds, as etcd wants it.

use std::path::Path;

use super::{
    Notice, Problem, Value,
    document::{self, Content, Flaw, Node, Type},
    layers::{Gathered, Written},
    origin::{Form, Origin},
    suggest::closest,
    table::{self, Kind, OPTIONS, OptionSpec, YamlKey},
};

pub(super) use document::{is_missing, read};

/// Keys of etcd's file that no flag sets and that mean nothing here.
const YAML_WITHOUT_EFFECT: [&str; 3] = [
    "discovery-config.client.max-request-bytes",
    "discovery-config.client.max-recv-bytes",
    "discovery-config.client.secure.server-name",
];

/// Reads our own file.
pub(super) fn toml(path: &Path, into: &mut Gathered) {
    let Some(bytes) = contents(path, into) else { return };
    let parsed = document::text(&bytes).map_err(|flaw| vec![flaw]).and_then(document::parse_toml);
    match parsed {
        Ok(Node { content: Content::Table(entries), .. }) => {
            for (key, line, node) in entries {
                toml_entry(path, &key, line, &node, into);
            }
        }
        Ok(_) => {}
        Err(flaws) => flaws.into_iter().for_each(|flaw| flawed(path, flaw, "", into)),
    }
}

fn toml_entry(path: &Path, key: &str, line: usize, node: &Node, into: &mut Gathered) {
    let origin = Origin::File(path.to_owned(), line);
    match table::find(key) {
        Some(spec) if is_source(spec) => {
            let what = format!("{key} cannot be set in a file");
            into.problems.push(Problem::of(spec, &node.text(), origin, Form::Toml, what).with_example(None));
        }
        Some(spec) => assign(spec, node, origin, Form::Toml, into),
        None => {
            let hint = match (table::find_yaml(key), yaml_group(key)) {
                (Some(spec), _) => Some(spec.name),
                (None, true) => None,
                (None, false) => closest(key, OPTIONS.iter().map(|spec| spec.name)),
            };
            let mut what = "unknown option".to_owned();
            if yaml_group(key) {
                what = format!(
                    "{key} belongs to etcd's YAML file; here every option stands at the top, under its flag's name"
                );
            }
            let problem = Problem::in_file(origin, &format!("{key} = {}", node.text()), what);
            into.problems.push(Problem { option: key.to_owned(), ..problem }.with_example(hint.map(str::to_owned)));
        }
    }
}

/// Whether the option says where options come from, or asks for no service at all.
pub(super) fn is_source(spec: &OptionSpec) -> bool {
    spec.yaml == YamlKey::None && spec.kind != Kind::Ignored
}

/// Reads etcd's file.
pub(super) fn yaml(path: &Path, into: &mut Gathered) {
    let Some(bytes) = contents(path, into) else { return };
    match document::text(&bytes).and_then(document::parse_yaml) {
        Ok(Node { content: Content::Table(entries), .. }) => yaml_table(path, "", &entries, into),
        Ok(node) => {
            let what = format!("the file holds {}, not keys with values", node.type_name());
            flawed(path, (node.line, what), "", into);
        }
        Err((line, why)) if path.extension().is_some_and(|extension| extension == "toml") => {
            flawed(
                path,
                (line, format!("{why} (--config-file reads YAML; a TOML file is given by --config)")),
                "",
                into,
            );
        }
        Err(flaw) => flawed(path, flaw, "", into),
    }
}

fn yaml_table(path: &Path, prefix: &str, entries: &[(String, usize, Node)], into: &mut Gathered) {
    for (index, (key, line, node)) in entries.iter().enumerate() {
        let full = if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        let earlier = entries.iter().take(index).find(|(other, ..)| other.eq_ignore_ascii_case(key));
        if let Some((_, first, _)) = earlier {
            flawed(path, (*line, format!("set twice, first on line {first}")), &full, into);
            continue;
        }
        yaml_entry(path, &full, *line, node, into);
    }
}

fn yaml_entry(path: &Path, key: &str, line: usize, node: &Node, into: &mut Gathered) {
    let origin = Origin::File(path.to_owned(), line);
    let lower = key.to_ascii_lowercase();
    if let Some(spec) = table::find_yaml(&lower) {
        return assign(spec, node, origin, Form::Yaml, into);
    }
    if YAML_WITHOUT_EFFECT.contains(&lower.as_str()) {
        let fields = vec![("origin", origin.to_string()), ("key", key.to_owned())];
        return into
            .notices
            .push(Notice::warn("this key has no effect", fields).about(None, origin).with_remedy("remove it"));
    }
    match &node.content {
        Content::Table(entries) if yaml_group(&lower) => yaml_table(path, &lower, entries, into),
        Content::Scalar(_, Type::Null) if yaml_group(&lower) => {}
        _ if yaml_group(&lower) => {
            flawed(
                path,
                (line, format!("invalid {key}: wants keys with values, found {}", node.type_name())),
                key,
                into,
            );
        }
        _ => into.problems.push(unknown_yaml(key, &lower, node, origin)),
    }
}

fn unknown_yaml(key: &str, lower: &str, node: &Node, origin: Origin) -> Problem {
    let elsewhere = table::find(lower).and_then(OptionSpec::yaml_path);
    let near = || closest(lower, OPTIONS.iter().filter_map(OptionSpec::yaml_path));
    let hint = elsewhere.or_else(near).map(str::to_owned);
    let problem = Problem::in_file(origin, &format!("{key}: {}", node.text()), "unknown option".to_owned());
    Problem { option: key.to_owned(), ..problem }.with_example(hint)
}

/// Whether etcd's file has keys below this path.
fn yaml_group(path: &str) -> bool {
    let below = |spec: &OptionSpec| {
        let rest = spec.yaml_path().and_then(|own| own.strip_prefix(path));
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    OPTIONS.iter().any(below)
}

fn contents(path: &Path, into: &mut Gathered) -> Option<Vec<u8>> {
    into.files.push(path.to_owned());
    read(path).map_err(|flaw| flawed(path, flaw, "", into)).ok()
}

fn flawed(path: &Path, (line, what): Flaw, written: &str, into: &mut Gathered) {
    into.problems.push(Problem::in_file(Origin::File(path.to_owned(), line), written, what));
}

/// Keeps what a node says, or the mistake.
fn assign(spec: &'static OptionSpec, node: &Node, origin: Origin, form: Form, into: &mut Gathered) {
    if says_nothing(spec, node, form) {
        return;
    }
    match value_of(spec, node, form) {
        Ok(value) => into.written.push(Written { spec, value, origin, form }),
        Err(Mismatch::Value(why)) => into.problems.push(Problem::refused(spec, &node.text(), origin, form, &why)),
        Err(Mismatch::Type(wanted)) => {
            let what = format!("{} wants {wanted}, found {}", spec.name, node.type_name());
            into.problems.push(Problem::of(spec, &node.shown(), origin, form, what));
        }
    }
}

/// As in etcd: a null, and an empty state of the cluster in its own file.
fn says_nothing(spec: &OptionSpec, node: &Node, form: Form) -> bool {
    match &node.content {
        Content::Scalar(_, Type::Null) => true,
        Content::Scalar(text, _) => text.is_empty() && form == Form::Yaml && spec.name == "initial-cluster-state",
        _ => false,
    }
}

/// Why a node is no value of an option.
enum Mismatch {
    /// The right type, a wrong value.
    Value(String),
    /// The wrong type; what would be right.
    Type(&'static str),
}

fn value_of(spec: &OptionSpec, node: &Node, form: Form) -> Result<Value, Mismatch> {
    let kind = spec.kind;
    let parse = |text: &str| Value::parse(kind, text).map_err(Mismatch::Value);
    match (kind, &node.content) {
        (Kind::Switch, Content::Scalar(text, Type::Bool)) => {
            Ok(Value::Bool(document::yaml_bool(text).unwrap_or(false)))
        }
        (Kind::Switch, _) => Err(Mismatch::Type(kind.name())),
        (Kind::Uint | Kind::Uint32 | Kind::Int, content) if !matches!(content, Content::Scalar(_, Type::Integer)) => {
            Err(Mismatch::Type(kind.name()))
        }
        (Kind::Duration, Content::Scalar(text, Type::Integer)) => bare_duration(text, form),
        (Kind::Duration, content) if !matches!(content, Content::Scalar(_, Type::Text)) => {
            Err(Mismatch::Type("a duration with its unit, in quotes"))
        }
        (_, Content::Scalar(text, _)) => parse(text),
        (_, Content::List(items)) if kind.is_list() => parse(&join(items, kind)?),
        (Kind::Gates, Content::Table(entries)) => parse(&join_table(entries, kind)?),
        (Kind::Text, Content::Table(entries)) if spec.name == "initial-cluster" => parse(&join_table(entries, kind)?),
        _ => Err(Mismatch::Type(kind.name())),
    }
}

/// Nanoseconds in etcd's file; in ours a number needs a unit, except zero.
fn bare_duration(text: &str, form: Form) -> Result<Value, Mismatch> {
    let nanos = Value::parse(Kind::Int, text).map_err(Mismatch::Value)?;
    match nanos {
        Value::Int(nanos) if form == Form::Yaml || nanos == 0 => Ok(Value::Nanos(nanos)),
        _ => Err(Mismatch::Type("a duration with its unit, in quotes")),
    }
}

fn join(items: &[Node], kind: Kind) -> Result<String, Mismatch> {
    let texts = items.iter().map(|item| match &item.content {
        Content::Scalar(text, _) => Ok(text.as_str()),
        _ => Err(Mismatch::Type(kind.name())),
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join(","))
}

/// `{a = "x", b = ["y", "z"]}` as `a=x,b=y,b=z`.
fn join_table(entries: &[(String, usize, Node)], kind: Kind) -> Result<String, Mismatch> {
    let mut words = Vec::new();
    for (key, _, node) in entries {
        let values = match &node.content {
            Content::List(items) => join(items, kind)?,
            Content::Scalar(text, _) => text.clone(),
            Content::Table(_) => return Err(Mismatch::Type(kind.name())),
        };
        words.extend(values.split(',').map(|value| format!("{key}={value}")));
    }
    Ok(words.join(","))
}

impl Kind {
    fn is_list(self) -> bool {
        matches!(self, Self::Urls | Self::Origins | Self::Words | Self::WordSet | Self::Gates)
    }
}
