//! The effective configuration in every form that can be read back: TOML, environment file, etcd's YAML and JSON, flags.

use std::{fmt, path::Path};

use serde_json::{Map, Value as Json};

use super::{
    Form, Origin, Setting, Settings, Value, env_file,
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

    /// The form that the name of a file promises: an environment file unless it says otherwise.
    pub fn of_file(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Self::Toml,
            Some("yml" | "yaml") => Self::Yaml,
            Some("json") => Self::Json,
            Some("flags" | "args" | "sh") => Self::Flags,
            _ => Self::Env,
        }
    }

    /// How its files spell options.
    pub fn form(self) -> Form {
        match self {
            Self::Toml => Form::Toml,
            Self::Env => Form::Variable,
            Self::Yaml | Self::Json => Form::Yaml,
            Self::Flags => Form::Flag,
        }
    }

    /// Why the form has no place for a value, if so.
    fn refuses(self, value: &Value) -> Option<&'static str> {
        let text = value.to_text();
        match self {
            Self::Env if text.is_empty() => Some("an environment file cannot hold an empty value"),
            Self::Env if !env_file::is_text(&text) => Some("an environment file cannot hold control characters"),
            Self::Flags if text.contains('\0') => Some("a command line cannot hold a NUL character"),
            Self::Toml if matches!(value, Value::Uint(number) if i64::try_from(*number).is_err()) => {
                Some("TOML has no integers as large as this")
            }
            _ => None,
        }
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

/// Settings in a form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// What a reader of the form takes.
    pub text: String,
    /// What is not the same as in the sources, though it means the same.
    pub remarks: Vec<String>,
}

/// A value that a form has no place for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The option.
    pub option: &'static str,
    /// Where its value stands.
    pub origin: Origin,
    /// Why it does not fit.
    pub why: &'static str,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}; choose another form", self.origin, self.option, self.why)
    }
}

/// Writes the settings.
///
/// # Errors
/// The values that the form has no place for; then nothing is written.
pub fn render(settings: &Settings, format: Format, shown: Shown) -> Result<Rendered, Vec<Lost>> {
    let chosen: Vec<&Setting> = settings.all.iter().filter(|setting| is_shown(setting, settings, shown)).collect();
    let (refused, fitting): (Vec<_>, Vec<_>) =
        chosen.iter().copied().partition(|setting| format.refuses(&setting.value).is_some());
    let (harmless, lost): (Vec<_>, Vec<_>) = refused.into_iter().partition(|setting| is_empty_default(setting));
    if !lost.is_empty() {
        return Err(lost.into_iter().filter_map(|setting| Lost::of(setting, format)).collect());
    }
    let remarks = remarks(&fitting, &harmless, settings, format);
    Ok(Rendered { text: written(&fitting, format, shown), remarks })
}

impl Lost {
    fn of(setting: &Setting, format: Format) -> Option<Self> {
        let why = format.refuses(&setting.value)?;
        Some(Self { option: setting.spec.name, origin: setting.origin.clone(), why })
    }
}

/// Where nothing is written, nothing is what holds.
fn is_empty_default(setting: &Setting) -> bool {
    setting.value.to_text().is_empty() && setting.spec.default.is_empty()
}

fn written(chosen: &[&Setting], format: Format, shown: Shown) -> String {
    match format {
        Format::Json if shown.origin => json_list(chosen),
        Format::Json => format!("{:#}\n", Json::Object(tree(chosen))),
        Format::Yaml => yaml(chosen, shown),
        Format::Toml => lines(chosen, shown, |setting| format!("{} = {}", setting.spec.name, toml(setting))),
        Format::Env => lines(chosen, shown, |setting| {
            format!("{}={}", setting.spec.variable(), env_file::quote(&setting.value.to_text()))
        }),
        Format::Flags => {
            lines(chosen, shown, |setting| format!("--{}={}", setting.spec.name, shell_word(&setting.value.to_text())))
        }
    }
}

fn remarks(fitting: &[&Setting], harmless: &[&Setting], settings: &Settings, format: Format) -> Vec<String> {
    let set = harmless.iter().filter(|setting| setting.is_set);
    let mut remarks: Vec<String> = set
        .map(|setting| format!("{}: {} is left out: empty is its default", setting.origin, setting.spec.name))
        .collect();
    let is_extension = |setting: &&&Setting| setting.spec.yaml == YamlKey::Ours && setting.is_set;
    if matches!(format, Format::Yaml | Format::Json) {
        let ours = fitting.iter().filter(is_extension).map(|setting| setting.spec.name);
        remarks.extend(ours.map(|name| format!("{name}: etcd has no key for it in this file; only quorate reads it")));
    }
    if fitting.iter().any(|setting| goes_along(setting, settings) && !setting.is_set) {
        remarks.push(
            "advertise-client-urls is written although nothing sets it: other forms demand it beside listen-client-urls"
                .to_owned(),
        );
    }
    remarks
}

/// Options that say where options come from would be wrong in the result; addresses for clients must go with listeners.
fn is_shown(setting: &Setting, settings: &Settings, shown: Shown) -> bool {
    let is_general = !shown.set_only && setting.spec.group != Group::Old;
    let is_asked_for = setting.is_set || goes_along(setting, settings) || is_general;
    setting.spec.yaml != YamlKey::None && is_asked_for && !says_nothing(setting)
}

fn goes_along(setting: &Setting, settings: &Settings) -> bool {
    setting.spec.name == "advertise-client-urls"
        && settings.get("listen-client-urls").is_some_and(|listen| listen.is_set)
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

/// A TOML value: numbers and truth values bare, lists as arrays, everything else in quotes.
fn toml(setting: &Setting) -> String {
    match &setting.value {
        Value::Bool(_) | Value::Uint(_) | Value::Int(_) => setting.value.to_text(),
        Value::List(words) => escaped(&Json::from(words.clone())),
        Value::Text(text) => toml_string(text),
        Value::Nanos(_) => toml_string(&setting.value.to_text()),
    }
}

/// JSON's escapes are TOML's.
fn toml_string(text: &str) -> String {
    escaped(&Json::from(text))
}

/// JSON text in which what TOML or YAML would not take as it is, or an editor would not show, is escaped.
fn escaped(value: &Json) -> String {
    let is_odd =
        |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    let text = value.to_string();
    text.chars().map(|c| if is_odd(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect()
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
            _ => format!("{indent}{key}: {}{}\n", escaped(value), origin(&path)),
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
