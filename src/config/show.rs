//! The effective configuration in every form that can be read back: TOML, environment file, etcd's YAML and JSON, flags.

use serde_json::{Map, Value as Json};

use super::{
    Form, Setting, Settings, Value, env_file,
    origin::shell_word,
    table::{Group, Kind, OPTIONS, OptionSpec, YamlKey},
};

/// Forms that `config show` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our own file.
    Toml,
    /// An environment file.
    Env,
    /// etcd's file.
    Yaml,
    /// etcd's file as JSON.
    Json,
    /// One flag per line, quoted for a shell.
    Flags,
}

impl Format {
    /// All forms with their names on the command line.
    pub const ALL: [(&'static str, Self); 5] =
        [("toml", Self::Toml), ("env", Self::Env), ("yaml", Self::Yaml), ("flags", Self::Flags), ("json", Self::Json)];

    /// The form called `name`.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(own, _)| *own == name).map(|(_, format)| format)
    }
}

/// What to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Only what some source sets; else every option that today's etcd has.
    pub set_only: bool,
    /// Where each value stands, as a comment; in JSON a list of objects, which cannot be read back.
    pub origin: bool,
}

/// Writes the settings.
///
/// # Errors
/// The settings that the form cannot express: an environment file has no empty values.
pub fn render(settings: &Settings, format: Format, shown: Shown) -> Result<String, Vec<String>> {
    let chosen: Vec<&Setting> = settings.all.iter().filter(|setting| is_shown(setting, settings, shown)).collect();
    match format {
        Format::Env => env(&chosen, shown),
        Format::Json if shown.origin => Ok(json_list(&chosen)),
        Format::Json => Ok(format!("{:#}\n", Json::Object(tree(&chosen)))),
        Format::Yaml => Ok(yaml(&chosen, shown)),
        Format::Toml => Ok(lines(&chosen, shown, |setting| format!("{} = {}", setting.spec.name, toml(setting)))),
        Format::Flags => Ok(lines(&chosen, shown, |setting| {
            format!("--{}={}", setting.spec.name, shell_word(&setting.value.to_text()))
        })),
    }
}

/// Options that say where options come from would be wrong in the result; addresses for clients must go with listeners.
fn is_shown(setting: &Setting, settings: &Settings, shown: Shown) -> bool {
    let is_set = |name: &str| settings.get(name).is_some_and(|setting| setting.is_set);
    let goes_along = setting.spec.name == "advertise-client-urls" && is_set("listen-client-urls");
    let is_asked_for = setting.is_set || goes_along || (!shown.set_only && setting.spec.group != Group::Old);
    setting.spec.yaml != YamlKey::None && is_asked_for && !says_nothing(setting)
}

/// An empty list of URLs leaves the default in every form.
fn says_nothing(setting: &Setting) -> bool {
    setting.spec.kind == Kind::Urls && setting.value.is_zero()
}

fn lines(chosen: &[&Setting], shown: Shown, line: impl Fn(&Setting) -> String) -> String {
    let mut text = String::new();
    for setting in chosen {
        if shown.origin {
            text.extend(["# ", &setting.origin.to_string(), "\n"]);
        }
        text.extend([line(setting).as_str(), "\n"]);
    }
    text
}

fn env(chosen: &[&Setting], shown: Shown) -> Result<String, Vec<String>> {
    let is_default =
        |setting: &Setting| Value::parse(setting.spec.kind, setting.spec.default) == Ok(setting.value.clone());
    let (empty, full): (Vec<_>, Vec<_>) =
        chosen.iter().copied().partition(|setting| setting.value.to_text().is_empty());
    let lost: Vec<String> = empty.iter().filter(|s| !is_default(s)).map(|s| s.spec.name.to_owned()).collect();
    if !lost.is_empty() {
        return Err(lost);
    }
    Ok(lines(&full, shown, |setting| {
        format!("{}={}", setting.spec.variable(), env_file::quote(&setting.value.to_text()))
    }))
}

/// A TOML value: numbers and truth values bare, lists as arrays, everything else in quotes.
fn toml(setting: &Setting) -> String {
    match &setting.value {
        Value::Bool(_) | Value::Uint(_) | Value::Int(_) => setting.value.to_text(),
        Value::List(words) => Json::from(words.clone()).to_string(),
        Value::Text(text) => toml_string(text),
        Value::Nanos(_) => toml_string(&setting.value.to_text()),
    }
}

/// JSON's escapes are TOML's, but for the delete character.
fn toml_string(text: &str) -> String {
    Json::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// The value in etcd's file: durations in nanoseconds, lists of URLs and gates as one string, other lists as lists.
fn json(spec: &OptionSpec, value: &Value) -> Json {
    match (spec.kind, value) {
        (_, Value::Bool(on)) => Json::from(*on),
        (_, Value::Uint(number)) => Json::from(*number),
        (_, Value::Int(number) | Value::Nanos(number)) => Json::from(*number),
        (Kind::Urls | Kind::Origins | Kind::Gates, Value::List(words)) => Json::from(words.join(",")),
        // etcd keeps this one list as a string.
        (_, Value::List(words)) if spec.name == "host-whitelist" => Json::from(words.join(",")),
        (_, Value::List(words)) => Json::from(words.clone()),
        (_, Value::Text(text)) => Json::from(text.as_str()),
    }
}

fn tree(chosen: &[&Setting]) -> Map<String, Json> {
    let mut root = Map::new();
    for setting in chosen {
        let path = setting.spec.yaml_path().unwrap_or(setting.spec.name);
        insert(&mut root, path, json(setting.spec, &setting.value));
    }
    root
}

fn insert(into: &mut Map<String, Json>, path: &str, value: Json) {
    let Some((group, rest)) = path.split_once('.') else {
        into.insert(path.to_owned(), value);
        return;
    };
    let inner = into.entry(group).or_insert_with(|| Json::Object(Map::new()));
    if let Json::Object(inner) = inner {
        insert(inner, rest, value);
    }
}

/// Block YAML with JSON scalars, which every YAML reader takes; the origins stand behind the values.
fn yaml(chosen: &[&Setting], shown: Shown) -> String {
    let origin = |path: &str| {
        let setting = chosen.iter().find(|setting| setting.spec.yaml_path() == Some(path));
        setting.filter(|_| shown.origin).map_or_else(String::new, |setting| format!("  # {}", setting.origin))
    };
    yaml_block(&tree(chosen), "", 0, &origin)
}

fn yaml_block(block: &Map<String, Json>, prefix: &str, depth: usize, origin: &dyn Fn(&str) -> String) -> String {
    let indent = "  ".repeat(depth);
    let entry = |(key, value): (&String, &Json)| {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Json::Object(inner) => format!("{indent}{key}:\n{}", yaml_block(inner, &path, depth + 1, origin)),
            _ => format!("{indent}{key}: {value}{}\n", origin(&path)),
        }
    };
    block.iter().map(entry).collect()
}

fn json_list(chosen: &[&Setting]) -> String {
    let rows: Vec<Json> = chosen
        .iter()
        .map(|setting| {
            let (spec, origin) = (setting.spec, setting.origin.to_string());
            serde_json::json!({ "option": spec.name, "value": json(spec, &setting.value), "origin": origin })
        })
        .collect();
    format!("{:#}\n", Json::Array(rows))
}

/// An example of a file in `form` that names every option with its default, commented out.
pub fn sample(form: Form) -> String {
    let specs = |group: Group| {
        OPTIONS.iter().filter(move |spec| spec.group == group && spec.is_current() && spec.yaml != YamlKey::None)
    };
    let entry = |spec: &OptionSpec| {
        let value = if spec.default.is_empty() { spec.example } else { spec.default };
        format!("# {}\n#{}\n", spec.help, form.spell(spec, value))
    };
    let section = |group: Group| {
        let entries: String = specs(group).map(entry).collect();
        format!("\n# {}\n{entries}", group.title())
    };
    Group::ALL.into_iter().map(section).collect()
}
