//! The layers, weakest first: defaults, `--config`, `--env-file`…, `ETCD_*`, flags; or `--config-file` alone.
//!
//! Every assignment is one figment provider whose metadata says where it stands, so that the origin of an effective value
//! is figment's answer and nobody's bookkeeping. An assignment that its option's kind refuses is a mistake even when a
//! stronger layer would hide it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Value as Layered},
};

use super::{
    Compat, FILE_NODES_MAX, Loudness, Notice, Problem, Sources, Value,
    env_file::{self, EnvFile},
    files,
    flags::{CommandLine, GivenFlag},
    origin::{Form, Origin},
    suggest::closest,
    table::{self, Kind, OPTIONS, OptionSpec, Successor},
};

/// Variables of Go's runtime that old units set and that have nothing to act on here.
const GO_RUNTIME: [&str; 3] = ["GOGC", "GOMEMLIMIT", "GODEBUG"];

/// One assignment that its option's kind allows.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) spec: &'static OptionSpec,
    pub(super) value: Value,
    pub(super) origin: Origin,
    pub(super) form: Form,
}

impl Written {
    /// Whether it says nothing: an option that is ignored, an old name at its default, an empty list of URLs.
    fn is_idle(&self) -> bool {
        match (self.spec.kind, self.spec.successor) {
            (Kind::Ignored, _) => true,
            (Kind::Urls, _) | (_, Successor::CaFile(_) | Successor::DebugLevel) => self.value.is_zero(),
            _ => false,
        }
    }
}

/// Everything that was read, before it is judged.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// Weakest first.
    pub(super) written: Vec<Written>,
    pub(super) problems: Vec<Problem>,
    pub(super) notices: Vec<Notice>,
    /// The files that were read.
    pub(super) files: Vec<PathBuf>,
    /// Whether etcd's own file stands alone.
    pub(super) is_exclusive: bool,
    /// The version whose defaults hold, whatever is written.
    pinned: Option<Compat>,
    /// `GOMAXPROCS` of the environment.
    pub(super) threads: Option<String>,
    /// `CREDENTIALS_DIRECTORY` of the environment.
    credentials: Option<PathBuf>,
}

impl Gathered {
    /// Reads every source there is.
    pub(super) fn read(line: &CommandLine, sources: &Sources) -> Self {
        let mut gathered = Self::default();
        let variables = gathered.variables(sources);
        gathered.pinned = sources.compat;
        gathered.files.extend(sources.flag_files.iter().cloned());
        gathered.problems.extend(line.problems.iter().cloned());
        let env_files = gathered.env_files(line, &variables);
        match source_path("config-file", line, &variables, &env_files) {
            Some(path) => gathered.exclusive(&path, line, &variables, &env_files),
            None => gathered.layered(line, &variables, &env_files),
        }
        gathered
    }

    /// Assignments that lay nothing over the weaker layers.
    pub(super) fn idle(&self) -> Vec<(&'static str, Origin)> {
        let idle = self.written.iter().filter(|written| written.is_idle());
        idle.map(|written| (written.spec.name, written.origin.clone())).collect()
    }

    fn layered(&mut self, line: &CommandLine, variables: &[Variable], env_files: &[Variable]) {
        if let Some(path) = source_path("config", line, variables, env_files) {
            files::toml(&path, self);
        }
        for variable in env_files.iter().chain(variables) {
            self.assign_variable(variable, &line.given);
        }
        for flag in &line.given {
            self.assign_flag(flag);
        }
    }

    /// etcd's file stands alone: everything else is checked for form only, and named.
    fn exclusive(&mut self, path: &Path, line: &CommandLine, variables: &[Variable], env_files: &[Variable]) {
        self.is_exclusive = true;
        files::yaml(path, self);
        let flags = line.given.iter().filter(|flag| flag.spec.name != "config-file");
        let mut ignored: Vec<String> = flags.map(|flag| format!("--{}", flag.spec.name)).collect();
        let named = env_files.iter().chain(variables).filter(|variable| variable.name != "ETCD_CONFIG_FILE");
        ignored.extend(named.filter(|variable| variable.spec.is_some()).map(|variable| variable.name.clone()));
        ignored.sort();
        ignored.dedup();
        for flag in &line.given {
            if let Err(why) = Value::parse(flag.spec.kind, &flag.text) {
                self.problems.push(flag.refused(&why));
            }
        }
        let message = "loaded server configuration, other configuration command line flags and environment variables \
                       will be ignored if provided";
        self.notices.push(Notice::info(message, vec![("path", path.display().to_string())]));
        if !ignored.is_empty() {
            let fields = vec![("path", path.display().to_string()), ("ignored", ignored.join(" "))];
            let origin = Origin::File(path.to_owned(), 0);
            let notice = Notice::warn("ignored because --config-file stands alone", fields).about(None, origin);
            self.notices.push(notice.with_remedy("set them in that file"));
        }
    }

    /// The `ETCD_*` variables that are not empty, by name.
    fn variables(&mut self, sources: &Sources) -> Vec<Variable> {
        let mut variables = Vec::new();
        let mut for_go = Vec::new();
        for (name, value) in &sources.env {
            let (Some(name), value) = (name.to_str(), value.to_string_lossy()) else { continue };
            if name == "CREDENTIALS_DIRECTORY" {
                self.credentials = Some(PathBuf::from(value.as_ref())).filter(|path| path.is_absolute());
            } else if name == "GOMAXPROCS" || GO_RUNTIME.contains(&name) {
                for_go.push((name, value.into_owned()));
            } else if name.starts_with("ETCD_") && !value.is_empty() {
                let followed = sources.followed.get(name).cloned();
                let origin = followed.unwrap_or_else(|| Origin::Variable(name.to_owned()));
                variables.push(Variable::new(name, value.into_owned(), origin));
            }
        }
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        self.explain_go(&for_go);
        variables
    }

    /// One remark for all of them: the habit of old units is respected, and nobody tunes what is not there.
    fn explain_go(&mut self, variables: &[(&str, String)]) {
        self.threads = variables.iter().find(|(name, _)| *name == "GOMAXPROCS").map(|(_, value)| value.clone());
        if variables.is_empty() {
            return;
        }
        let mut shown: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        shown.sort();
        let message = "variables of Go's runtime: GOMAXPROCS sets the number of worker threads; GOGC, GOMEMLIMIT and \
                       GODEBUG have no effect, because no memory is left to a garbage collector here";
        self.notices.push(Notice::info(message, vec![("variables", shown.join(" "))]));
    }

    /// The variables of all environment files, in order.
    fn env_files(&mut self, line: &CommandLine, variables: &[Variable]) -> Vec<Variable> {
        let flags = line.given.iter().filter(|flag| flag.spec.name == "env-file").map(|flag| flag.text.as_str());
        let mut paths: Vec<&str> = flags.filter(|path| !path.is_empty()).collect();
        if paths.is_empty() {
            paths
                .extend(variables.iter().filter(|variable| variable.name == "ETCD_ENV_FILE").map(|v| v.value.as_str()));
        }
        paths.into_iter().flat_map(|path| self.env_file(path)).collect()
    }

    fn env_file(&mut self, path: &str) -> Vec<Variable> {
        let (path, may_be_missing) = path.strip_prefix('-').map_or((path, false), |path| (path, true));
        let path = Path::new(path);
        // One that may be missing is watched, too: it may come.
        self.files.push(path.to_owned());
        if may_be_missing && files::is_missing(path) {
            return Vec::new();
        }
        let at = |line| Origin::File(path.to_owned(), line);
        let parsed = files::read(path).and_then(|bytes| {
            let file = env_file::parse(&bytes).map_err(|error| (error.line(), error.to_string()))?;
            match file.assignments.get(FILE_NODES_MAX) {
                Some((line, ..)) => Err((*line, format!("more than {FILE_NODES_MAX} assignments"))),
                None => Ok(file),
            }
        });
        let file = match parsed {
            Ok(file) => file,
            Err((line, why)) => {
                self.problems.push(Problem::in_file(at(line), "", why));
                return Vec::new();
            }
        };
        for (line, key) in &file.dropped {
            let fields = vec![("origin", at(*line).to_string()), ("key", key.clone())];
            let notice = Notice::warn("ignored: not a valid assignment of a variable", fields).about(None, at(*line));
            self.notices.push(notice.with_remedy("write NAME=value"));
        }
        if let Some(line) = file.unclosed {
            let what = "the quote that opens here is never closed: the rest of the file became part of the value";
            self.problems.push(Problem::in_file(at(line), "", what.to_owned()));
        }
        self.notices.extend(replaced(path, &file));
        self.warn_of_missing_prefixes(path, &file.assignments);
        // An empty value at last takes those before it back.
        let last: BTreeMap<String, bool> =
            file.assignments.iter().map(|(_, name, value)| (name.clone(), value.is_empty())).collect();
        let etcd = file
            .assignments
            .into_iter()
            .filter(|(_, name, value)| name.starts_with("ETCD_") && !value.is_empty() && last.get(name) != Some(&true));
        etcd.map(|(line, name, value)| Variable::new(&name, value, at(line))).collect()
    }

    /// `CLIENT_CERT_AUTH=true` sets nothing: say so before someone relies on it.
    fn warn_of_missing_prefixes(&mut self, path: &Path, assignments: &[env_file::Assignment]) {
        for (line, name, _) in assignments {
            let meant = format!("ETCD_{name}");
            if table::find_variable(&meant).is_some_and(|spec| spec.kind != Kind::Ignored && spec.name.len() > 1) {
                let origin = Origin::File(path.to_owned(), *line);
                let remedy = format!("call it {meant}");
                let fields = vec![("origin", origin.to_string()), ("variable", name.clone()), ("did-you-mean", meant)];
                let notice = Notice::warn("variable without ETCD_ in front has no effect", fields);
                self.notices.push(notice.about(None, origin).with_remedy(remedy));
            }
        }
    }

    fn assign_variable(&mut self, variable: &Variable, flags: &[GivenFlag]) {
        let Some(spec) = variable.spec else {
            self.notices.push(variable.unrecognized());
            return;
        };
        if spec.name == "version" {
            let fields = vec![("key", variable.name.clone()), ("value", variable.value.clone())];
            let notice = Notice::warn("cannot set special environment variable", fields);
            self.notices.push(notice.about(None, variable.origin.clone()).with_remedy("remove it"));
            return;
        }
        if spec.name == "env-file" && !matches!(variable.origin, Origin::Variable(_)) {
            let what = "an environment file cannot name another".to_owned();
            let problem = Problem::of(spec, &variable.value, variable.origin.clone(), Form::Variable, what);
            self.problems.push(problem.with_example(None));
            return;
        }
        self.assign(spec, &variable.value, variable.origin.clone(), Form::Variable);
        self.notices.push(if variable.is_shadowed(spec, flags) { variable.shadowed() } else { variable.used(spec) });
    }

    fn assign_flag(&mut self, flag: &GivenFlag) {
        self.assign(flag.spec, &flag.text, flag.origin.clone(), Form::Flag);
    }

    /// Reads `text` by the option's kind and keeps it, or the mistake.
    fn assign(&mut self, spec: &'static OptionSpec, text: &str, origin: Origin, form: Form) {
        match Value::parse(spec.kind, text) {
            Ok(value) => self.written.push(Written { spec, value, origin, form }),
            Err(why) => self.problems.push(Problem::refused(spec, text, origin, form, &why)),
        }
    }
}

/// For systemd the last of several assignments counts, and the others look as if they did.
pub(super) fn replaced(path: &Path, file: &EnvFile) -> Vec<Notice> {
    let at = |line| Origin::File(path.to_owned(), line);
    let notice = |((line, name, _), last): (&env_file::Assignment, usize)| {
        let fields =
            vec![("origin", at(*line).to_string()), ("variable", name.clone()), ("counts", at(last).to_string())];
        let notice =
            Notice::warn("set again further down, where the last value counts: this one has no effect", fields);
        let option = table::find_variable(name).map(|spec| spec.name);
        notice.about(option, at(*line)).with_remedy("remove one of the two")
    };
    file.replaced().into_iter().map(notice).collect()
}

/// A variable of the environment or of an environment file.
struct Variable {
    name: String,
    value: String,
    origin: Origin,
    spec: Option<&'static OptionSpec>,
}

impl Variable {
    fn new(name: &str, value: String, origin: Origin) -> Self {
        Self { name: name.to_owned(), value, origin, spec: table::find_variable(name) }
    }

    fn unrecognized(&self) -> Notice {
        let mut fields = vec![("environment-variable", format!("{}={}", self.name, self.value))];
        if let Origin::File(..) = self.origin {
            fields.push(("origin", self.origin.to_string()));
        }
        let names: Vec<String> = OPTIONS.iter().map(OptionSpec::variable).collect();
        let meant = closest(&self.name, names.iter().map(String::as_str));
        fields.extend(meant.map(|name| ("did-you-mean", name.to_owned())));
        let remedy = meant.map_or_else(|| "remove it".to_owned(), |name| format!("call it {name}, or remove it"));
        Notice::warn("unrecognized environment variable", fields).about(None, self.origin.clone()).with_remedy(remedy)
    }

    /// Whether a flag hides it behind a different value. Equal values are the habit of old units.
    fn is_shadowed(&self, spec: &OptionSpec, flags: &[GivenFlag]) -> bool {
        let last = flags.iter().rev().find(|flag| flag.spec.name == spec.name);
        last.is_some_and(|flag| Value::parse(spec.kind, &flag.text) != Value::parse(spec.kind, &self.value))
    }

    fn shadowed(&self) -> Notice {
        let name = &self.name;
        let message = format!("recognized environment variable {name}, but unused: shadowed by corresponding flag");
        let notice = Notice::warn(&message, vec![("origin", self.origin.to_string())]);
        notice.about(self.spec.map(|spec| spec.name), self.origin.clone()).with_remedy("remove one of the two")
    }

    fn used(&self, spec: &OptionSpec) -> Notice {
        let value = if spec.secret { "***".to_owned() } else { self.value.clone() };
        let mut fields = vec![("variable-name", self.name.clone()), ("variable-value", value)];
        if let Origin::File(..) = self.origin {
            fields.push(("origin", self.origin.to_string()));
        }
        Notice::info("recognized and used environment variable", fields)
    }
}

impl GivenFlag {
    fn refused(&self, why: &str) -> Problem {
        Problem::refused(self.spec, &self.text, self.origin.clone(), Form::Flag, why)
    }
}

/// The path that an option about sources names, strongest layer first.
fn source_path(name: &str, line: &CommandLine, variables: &[Variable], env_files: &[Variable]) -> Option<PathBuf> {
    let in_env = |variables: &[Variable]| {
        let mut named = variables.iter().rev().filter(|variable| variable.spec.is_some_and(|spec| spec.name == name));
        named.next().map(|variable| variable.value.clone())
    };
    let typed = line.last(name).map(str::to_owned);
    let path = typed.or_else(|| in_env(variables)).or_else(|| in_env(env_files))?;
    (!path.is_empty()).then(|| PathBuf::from(path))
}

impl Notice {
    /// A remark for the log.
    pub(super) fn info(message: &str, fields: Vec<(&'static str, String)>) -> Self {
        let message = message.to_owned();
        Self { level: Loudness::Info, message, fields, option: None, origin: None, remedy: None }
    }

    /// A remark an operator should act on.
    pub(super) fn warn(message: &str, fields: Vec<(&'static str, String)>) -> Self {
        Self { level: Loudness::Warn, ..Self::info(message, fields) }
    }

    /// The same, about what stands at `origin`, which is one of the options or none.
    pub(super) fn about(self, option: Option<&'static str>, origin: Origin) -> Self {
        Self { option, origin: Some(origin), ..self }
    }

    /// The same, with what to do about it.
    pub(super) fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// An assignment as figment takes it.
struct Provided<'w> {
    key: &'w str,
    value: Layered,
    origin: &'w Origin,
}

impl Provider for Provided<'_> {
    fn metadata(&self) -> Metadata {
        self.origin.to_metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, Dict::from([(self.key.to_owned(), self.value.clone())]))]))
    }
}

/// Key under which figment keeps gates that were set by their old names.
const OLD_GATES: &str = "old-gates";

/// The layers on top of each other.
pub(super) struct Layers {
    pub(super) figment: Figment,
    /// What the layers come to, taken out of `figment` once: it clones everything for every question.
    values: Dict,
    pub(super) compat: Compat,
    pub(super) is_exclusive: bool,
    /// Current options that some layer sets, with the form and the name under which the strongest does.
    set: BTreeMap<&'static str, (Form, &'static OptionSpec)>,
    /// Options that some layer sets to a value that was refused.
    broken: BTreeSet<String>,
    /// Where the service manager has put the credentials it handed over.
    pub(super) credentials: Option<PathBuf>,
}

impl Layers {
    /// Lays `gathered` over the defaults of the version it asks to imitate.
    pub(super) fn merge(gathered: &Gathered) -> Self {
        let chosen = gathered.written.iter().rev().find(|written| written.spec.name == "compat-version");
        let chosen = chosen.and_then(|written| Compat::from_minor(&written.value.to_text()));
        let compat = gathered.pinned.or(chosen).unwrap_or_default();
        let mut layers = Self {
            figment: Figment::from(defaults(compat)),
            values: Dict::new(),
            compat,
            is_exclusive: gathered.is_exclusive,
            set: BTreeMap::new(),
            credentials: gathered.credentials.clone(),
            broken: gathered.problems.iter().map(|problem| problem.option.clone()).collect(),
        };
        for written in &gathered.written {
            layers.lay(written);
        }
        let profiles = layers.figment.data();
        layers.values = profiles.ok().and_then(|mut profiles| profiles.remove(&Profile::Default)).unwrap_or_default();
        layers
    }

    fn lay(&mut self, written: &Written) {
        let Written { spec, value, .. } = written;
        match spec.successor {
            _ if written.is_idle() && spec.kind != Kind::Urls => {}
            Successor::None => self.put(spec.name, value.to_layered(), written),
            Successor::Option(name) => self.put(name, value.to_layered(), written),
            Successor::Gate(gate) => {
                let gates = Dict::from([(gate.to_owned(), value.to_layered())]);
                self.put(OLD_GATES, gates.into(), written);
            }
            Successor::CaFile(side) => {
                let (ca, auth) = if side.is_empty() {
                    ("trusted-ca-file", "client-cert-auth")
                } else {
                    ("peer-trusted-ca-file", "peer-client-cert-auth")
                };
                self.put(ca, value.to_layered(), written);
                self.put(auth, Layered::from(true), written);
            }
            Successor::DebugLevel => self.put("log-level", Layered::from("debug"), written),
        }
    }

    fn put(&mut self, key: &'static str, value: Layered, written: &Written) {
        self.set.insert(key, (written.form, written.spec));
        // An empty list of URLs says nothing, as in etcd: the weaker layer's stays.
        if !written.is_idle() {
            let figment = std::mem::take(&mut self.figment);
            self.figment = figment.merge(Provided { key, value, origin: &written.origin });
        }
    }

    /// Whether some layer sets the option, be it to its default or to a value that was refused.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.set.contains_key(name) || self.is_broken(name)
    }

    /// Whether some layer sets the option to a value that was refused: what follows from it is not worth telling.
    pub(super) fn is_broken(&self, name: &str) -> bool {
        self.broken.contains(name)
    }

    /// How the strongest layer that sets the option spells it.
    pub(super) fn form(&self, name: &str) -> Form {
        self.set.get(name).map_or(Form::Flag, |(form, _)| *form)
    }

    /// The option's name as that layer spells it.
    pub(super) fn spelled(&self, name: &str) -> String {
        let set = self.set.get(name).copied().or_else(|| table::find(name).map(|spec| (Form::Flag, spec)));
        set.map_or_else(|| name.to_owned(), |(form, used)| form.name(used))
    }

    /// The effective value.
    pub(super) fn value(&self, spec: &OptionSpec) -> Value {
        let layered = self.values.get(spec.name);
        layered.map_or_else(|| Value::Text(String::new()), |layered| Value::from_layered(spec.kind, layered))
    }

    /// Where the effective value stands.
    pub(super) fn origin(&self, name: &str) -> Origin {
        self.values.get(name).map_or(Origin::Default, |layered| self.origin_of(layered))
    }

    fn origin_of(&self, layered: &Layered) -> Origin {
        self.figment.get_metadata(layered.tag()).map_or(Origin::Default, Origin::from_metadata)
    }

    /// Gates that were set by their old names, with the origin of each.
    pub(super) fn old_gates(&self) -> Vec<(String, bool, Origin)> {
        let Some(Layered::Dict(_, gates)) = self.values.get(OLD_GATES) else { return Vec::new() };
        let row = |(gate, on): (&String, &Layered)| (gate.clone(), on.to_bool().unwrap_or(false), self.origin_of(on));
        gates.iter().map(row).collect()
    }

    /// All gates that are set, by their own and by their old names.
    pub(super) fn chosen_gates(&self) -> BTreeMap<String, bool> {
        let mut chosen: BTreeMap<_, _> = self.old_gates().into_iter().map(|(gate, on, _)| (gate, on)).collect();
        let Some(spec) = table::find("feature-gates") else { return chosen };
        if let Value::List(words) = self.value(spec) {
            let pairs = words.iter().filter_map(|word| word.split_once('='));
            chosen.extend(pairs.map(|(gate, on)| (gate.to_owned(), on == "true")));
        }
        chosen
    }

    /// A mistake about an option's effective value.
    pub(super) fn problem(&self, name: &str, what: String) -> Problem {
        match table::find(name) {
            Some(spec) => {
                let (form, used) = self.set.get(name).copied().unwrap_or((Form::Flag, spec));
                Problem::of(used, &self.value(spec).to_text(), self.origin(name), form, what)
            }
            None => Problem::in_file(Origin::Default, name, what),
        }
    }

    /// A mistake about a gate, wherever it is set.
    pub(super) fn gate_problem(&self, gate: &str, what: &str) -> Problem {
        let problem = self.problem("feature-gates", what.to_owned()).with_example(None);
        match self.old_gates().into_iter().find(|(name, ..)| name == gate) {
            Some((_, on, origin)) if problem.origin == Origin::Default => {
                let written = format!("{gate}={on}");
                Problem { origin, value: Some(written.clone()), written, ..problem }
            }
            _ => problem,
        }
    }
}

/// The table's defaults, as the weakest layer.
fn defaults(compat: Compat) -> DefaultLayer {
    let default = |spec: &OptionSpec| {
        let value = Value::parse(spec.kind, spec.default_for(compat));
        value.ok().map(|value| (spec.name.to_owned(), value.to_layered()))
    };
    let options = OPTIONS.iter().filter(|spec| spec.is_current());
    let mut layer: Dict = options.filter_map(default).collect();
    layer.insert(OLD_GATES.to_owned(), Dict::new().into());
    DefaultLayer(layer)
}

struct DefaultLayer(Dict);

impl Provider for DefaultLayer {
    fn metadata(&self) -> Metadata {
        Origin::Default.to_metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.0.clone())]))
    }
}
