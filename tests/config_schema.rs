//! The JSON Schema of the TOML file says what the reader of the file says. An independent validator holds it against files
//! that are read, and against a wrong value for every option.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use quorate::{
    cli,
    config::{
        self, Extras, Form, Sources,
        show::{self, Format, Shown},
        table::{Kind, OPTIONS, OptionSpec},
    },
};
use serde_json::{Value as Json, json};

/// What the validator has against each document.
fn complaints(documents: &[Json]) -> Vec<Vec<String>> {
    let request = json!({ "schema": config::schema(), "documents": documents }).to_string();
    let has_validator = |python: &&str| {
        let probe = Command::new(python).args(["-c", "import jsonschema"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let python = ["python3", "/usr/bin/python3"].into_iter().find(has_validator);
    let python = python.expect("python3-jsonschema is installed: tests/support/deps.sh test");
    let mut command = Command::new(python);
    let command = command.arg("tests/support/schema.py").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut validator = command.spawn().expect("the validator starts");
    validator.stdin.take().expect("piped").write_all(request.as_bytes()).expect("the validator reads");
    let output = validator.wait_with_output().expect("the validator ends");
    assert!(output.status.success(), "the schema itself is valid");
    serde_json::from_slice(&output.stdout).expect("a list")
}

fn from_toml(text: &str) -> Json {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    serde_json::to_value(table).expect("every value of TOML has its like")
}

/// Settings of another program that are TOML, too.
const NOT_OURS: &str = "rpmlint.toml";

/// Every TOML file of this repository that is meant to be right, and everything else that is read, as TOML.
fn right_documents() -> Vec<(String, Json)> {
    let mut documents = vec![("the sample".to_owned(), from_toml(&uncommented(&show::sample(Form::Toml))))];
    let samples = files("tests/config/field").into_iter().chain(files("examples")).chain(files("packaging"));
    for path in samples.filter(|path| !path.ends_with(NOT_OURS)) {
        if path.extension().is_some_and(|extension| extension == "toml") {
            documents.push((path.display().to_string(), from_toml(&fs::read_to_string(&path).expect("read"))));
        }
    }
    for path in files("tests/config/field") {
        let sources = Sources::default().of_file(&path, Format::of_file(&path));
        let loaded = config::load_with(&sources, Extras::default()).unwrap_or_else(|errors| panic!("{errors}"));
        for set_only in [true, false] {
            let shown = Shown { set_only, origin: false };
            let rendered = show::render(&loaded.settings, Format::Toml, shown).expect("TOML holds everything");
            documents.push((format!("{} as TOML", path.display()), from_toml(&rendered.text)));
        }
    }
    documents
}

/// The files below a directory, at any depth; none where there is no such directory.
fn files(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(directory)];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for path in entries.map(|entry| entry.expect("readable").path()) {
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.retain(|path| path.extension().is_none_or(|extension| extension != "expected"));
    found.sort();
    found
}

/// A sample with its assignments in force.
fn uncommented(sample: &str) -> String {
    let assignment = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && line.contains(" = ");
    sample.lines().filter(assignment).flat_map(|line| [line.trim_start_matches('#'), "\n"]).collect()
}

#[test]
fn every_right_file_satisfies_the_schema() {
    let (names, documents): (Vec<_>, Vec<_>) = right_documents().into_iter().unzip();
    assert!(documents.len() > 60, "{}", documents.len());
    let sample = documents[0].as_object().expect("a table");
    assert!(sample.len() > 100, "the sample sets {} options", sample.len());
    for (name, complaints) in names.iter().zip(complaints(&documents)) {
        assert_eq!(complaints, Vec::<String>::new(), "{name}");
    }
}

/// Values of the wrong type or range for an option, as TOML spells them.
fn wrong_values(spec: &OptionSpec) -> Vec<&'static str> {
    match spec.kind {
        Kind::Switch => vec!["\"true\"", "1", "[true]"],
        Kind::Uint => vec!["\"5\"", "-1", "1.5", "true"],
        Kind::Uint32 => vec!["\"5\"", "-1", "4294967296"],
        Kind::Int => vec!["\"5\"", "1.5", "true", "[1]"],
        Kind::Duration => vec!["5", "\"5\"", "\"fast\"", "true", "[\"5s\"]"],
        Kind::Select(_) => vec!["\"nothing of the kind\"", "[\"new\"]", "{ a = 1 }"],
        Kind::Urls | Kind::Origins => vec!["\"ftp://a:1\"", "[\"http://a:1\", \"nonsense\"]", "5", "{ a = 1 }"],
        Kind::Gates => vec!["\"NoSuchGate=true\"", "\"AllAlpha\"", "{ NoSuchGate = true }", "[\"AllAlpha=maybe\"]"],
        Kind::Words | Kind::WordSet => vec!["{ a = 1 }"],
        Kind::Text if spec.name == "initial-cluster" => vec!["[\"a=http://a:1\"]"],
        Kind::Text | Kind::Path => vec!["[\"a\"]", "{ a = 1 }"],
        Kind::Ignored => Vec::new(),
    }
}

#[test]
fn no_wrong_value_satisfies_the_schema_or_is_read() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("wrong.toml");
    let options = OPTIONS.iter().filter(|spec| config::schema()["properties"].get(spec.name).is_some());
    let wrong: Vec<String> = options
        .flat_map(|spec| wrong_values(spec).into_iter().map(|value| format!("{} = {value}\n", spec.name)))
        .chain(["nmae = \"a\"\n".to_owned(), "[client-transport-security]\ncert-file = \"/x\"\n".to_owned()])
        .collect();
    let documents: Vec<Json> = wrong.iter().map(|text| from_toml(text)).collect();
    for (text, complaints) in wrong.iter().zip(complaints(&documents)) {
        assert_ne!(complaints, Vec::<String>::new(), "{text}");
        fs::write(&path, text).expect("written");
        assert!(config::load(&Sources::default().of_file(&path, Format::Toml)).is_err(), "{text}");
    }
}

#[test]
fn the_schema_tells_what_an_editor_shows() {
    let schema = config::schema();
    let property = |name: &str| schema["properties"][name].clone();
    let told = |name: &str, key: &str| property(name)[key].clone();
    assert_eq!(told("election-timeout", "default"), 1000);
    assert_eq!(told("election-timeout", "x-unit"), "milliseconds");
    assert_eq!(told("listen-peer-urls", "default"), json!(["http://localhost:2380"]));
    assert_eq!(told("grpc-keepalive-interval", "default"), "2h0m0s");
    assert_eq!(told("initial-cluster-state", "enum"), json!(["new", "existing"]));
    assert_eq!(told("log-level", "enum"), json!(["debug", "info", "warn", "error", "panic", "fatal"]));
    assert_eq!((told("debug", "deprecated"), told("name", "deprecated")), (true.into(), Json::Null));
    assert_eq!(told("log-level", "x-reload"), true);
    for (name, property) in schema["properties"].as_object().expect("properties") {
        assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
    }
}

#[test]
fn the_command_prints_it() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args: Vec<OsString> = vec!["schema".into()];
    assert_eq!(cli::config::run_on(&Sources::default(), &args, &mut out, &mut err), 0);
    assert_eq!(serde_json::from_slice::<Json>(&out).expect("JSON"), config::schema());
    assert!(Path::new("tests/support/schema.py").is_file() && err.is_empty());
}
