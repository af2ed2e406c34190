//! A JSON Schema of our TOML file, for editors: which keys there are, what they hold, what they mean.
//!
//! It is made from the option table and says what the reader of the file says, but is stricter where the reader is lenient
//! for the sake of old habits: a text is to stand in quotes. Draft 7, because that is what editors of TOML understand.

use serde_json::{Map, Value as Json, json};

use super::{
    Value, files, gates,
    help::described,
    table::{Kind, OPTIONS, OptionSpec, Reload, Successor},
};

const URL: &str = "(https?|unixs?)://[^,\\s]+";
/// Spellings of a boolean that etcd takes in a text.
const BOOL: &str = "(1|0|t|T|f|F|true|TRUE|True|false|FALSE|False)";
/// As Go writes durations.
const DURATION: &str = "^[-+]?(0|(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";

/// The schema.
pub fn schema() -> Json {
    let options = OPTIONS.iter().filter(|spec| !files::is_source(spec));
    let properties: Map<String, Json> = options.map(|spec| (spec.name.to_owned(), property(spec))).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "quorate.toml",
        "description": "Configuration of quorate: every option under the name of its flag.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn property(spec: &OptionSpec) -> Json {
    let mut property = values(spec);
    let mut add = |key: &str, value: Option<Json>| {
        property.extend(value.map(|value| (key.to_owned(), value)));
    };
    add("description", Some(description(spec).into()));
    add("default", typed(spec.kind, spec.default));
    add("examples", typed(spec.kind, spec.example).map(|example| json!([example])));
    add("deprecated", spec.is_deprecated().then_some(true.into()));
    add("x-unit", spec.unit.name().map(Json::from));
    add("x-reload", (spec.reload == Reload::Live).then_some(true.into()));
    Json::Object(property)
}

/// Help, and what to write in place of an old name.
fn description(spec: &OptionSpec) -> String {
    let instead = match spec.successor {
        Successor::Option(name) => format!(" Use {name} instead."),
        Successor::Gate(gate) => format!(" Use feature-gates = {{ {gate} = true }} instead."),
        _ => String::new(),
    };
    let live = if spec.reload == Reload::Live { " A running member takes a new value on reload." } else { "" };
    described(spec) + &instead + live
}

/// What the value may be.
fn values(spec: &OptionSpec) -> Map<String, Json> {
    let choices = spec.choices();
    let values = match spec.kind {
        _ if !choices.is_empty() => json!({ "enum": choices }),
        Kind::Switch => json!({ "type": "boolean" }),
        Kind::Uint => json!({ "type": "integer", "minimum": 0 }),
        Kind::Uint32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
        Kind::Int => json!({ "type": "integer" }),
        Kind::Duration => json!({ "anyOf": [{ "type": "string", "pattern": DURATION }, { "const": 0 }] }),
        Kind::Text if spec.name == "initial-cluster" => members(),
        // Hours and revisions are bare numbers.
        Kind::Text if spec.name == "auto-compaction-retention" => json!({ "type": ["string", "integer"] }),
        Kind::Text | Kind::Path | Kind::Select(_) => json!({ "type": "string" }),
        Kind::Urls => list(&["", URL]),
        Kind::Origins => list(&["\\*", URL]),
        Kind::Words | Kind::WordSet => json!({ "type": ["string", "array"], "items": { "type": "string" } }),
        Kind::Gates => feature_gates(),
        Kind::Ignored => json!({}),
    };
    values.as_object().cloned().unwrap_or_default()
}

/// One text with commas, or a list, of words that match one of the patterns.
fn list(patterns: &[&str]) -> Json {
    let word = format!("({})", patterns.join("|"));
    json!({
        "anyOf": [
            { "type": "string", "pattern": format!("^\\s*{word}(\\s*,\\s*{word})*\\s*$") },
            { "type": "array", "items": { "type": "string", "pattern": format!("^\\s*{word}\\s*$") } },
        ]
    })
}

/// `name=url,…`, or a table of names with their URLs.
fn members() -> Json {
    json!({ "anyOf": [{ "type": "string" }, { "type": "object", "additionalProperties": list(&[URL]) }] })
}

/// `Gate=true,…`, a list, or a table.
fn feature_gates() -> Json {
    let names: Vec<&str> = gates::names().collect();
    let word = format!("({})\\s*=\\s*{BOOL}", names.join("|"));
    let mut forms = list(&["", &word]);
    let switches: Map<String, Json> =
        names.iter().map(|name| ((*name).to_owned(), json!({ "type": "boolean" }))).collect();
    if let Some(forms) = forms.get_mut("anyOf").and_then(Json::as_array_mut) {
        forms.push(json!({ "type": "object", "additionalProperties": false, "properties": switches }));
    }
    forms
}

/// A value as the file holds it; nothing for an empty one.
fn typed(kind: Kind, text: &str) -> Option<Json> {
    let value = Value::parse(kind, text).ok().filter(|_| !text.is_empty())?;
    Some(match value {
        Value::Bool(on) => on.into(),
        Value::Uint(number) => number.into(),
        Value::Int(number) => number.into(),
        Value::List(words) => words.into(),
        Value::Nanos(_) | Value::Text(_) => value.to_text().into(),
    })
}
