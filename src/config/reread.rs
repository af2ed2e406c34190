//! A configuration read again while the daemon runs.
//!
//! Command line and environment of a process do not change; files do. What stands in a file that `--config`,
//! `--config-file` or `--env-file` names is read again as it is. What stands in an `EnvironmentFile=` of a unit reached the
//! process as variables, once: `QUORATE_ENV_FILES` names these files a second time, separated by colons, a leading `-`
//! for one that may be missing. A variable that has the value such a file gave it at the start is the file's and is read
//! from there again; any other is the process's and stays.
//!
//! Invariants: nothing here changes anything; which files are read is decided at the start, and so is the imitated
//! version, whose defaults would otherwise change under a running member.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Compat, Config, ConfigErrors, Loaded, Notice, Origin, Problem, Raft, Settings, Sources,
    env_file::{self, EnvFile},
    files, layers,
    origin::Form,
    table::{self, OptionSpec},
};

/// Where a unit names its environment files to us.
const ENV_FILES: &str = "QUORATE_ENV_FILES";
/// Variables that say where options come from: another file would be another start.
const SOURCES: [&str; 3] = ["ETCD_CONFIG", "ETCD_ENV_FILE", "ETCD_CONFIG_FILE"];
/// Heartbeats that must fit into an election timeout (etcd's rule for one member).
const HEARTBEATS_MIN: u32 = 5;

/// What the files say now.
#[derive(Clone, Debug)]
pub struct Reread {
    /// All of it, as at a start.
    pub loaded: Loaded,
    /// What an operator might take for read and is not.
    pub remarks: Vec<String>,
}

/// A variable's value in a file, and its line.
type Assigned = BTreeMap<String, (String, Origin)>;

/// An environment file of the unit.
#[derive(Clone, Debug)]
struct Named {
    path: PathBuf,
    may_be_missing: bool,
}

/// What a running daemon reads its configuration from.
#[derive(Clone, Debug)]
pub struct Rereader {
    sources: Sources,
    compat: Compat,
    /// The unit's environment files that could be read at the start.
    named: Vec<Named>,
    /// Those that could not.
    unread: Vec<PathBuf>,
    /// What they said then; of two that assign one variable the later counts, as for systemd.
    at_start: Assigned,
    /// The files that the options name.
    files: Vec<PathBuf>,
}

impl Rereader {
    /// Takes down what the unit's environment files say at the start that came to `loaded`. The remarks tell of those
    /// that cannot be read.
    pub fn new(sources: Sources, loaded: &Loaded) -> (Self, Vec<Notice>) {
        let (compat, files) = (loaded.settings.compat, loaded.files.clone());
        let mut reader =
            Self { sources, compat, named: Vec::new(), unread: Vec::new(), at_start: Assigned::new(), files };
        let mut notices = Vec::new();
        for named in named_files(&reader.sources) {
            match named.file() {
                Ok(file) => {
                    notices.extend(layers::replaced(&named.path, &file));
                    reader.at_start.extend(named.assigned(file));
                    reader.named.push(named);
                }
                Err(problem) => {
                    let fields = vec![("error", problem.to_string())];
                    let notice = Notice::warn("a file in QUORATE_ENV_FILES cannot be read: it stays unread", fields);
                    notices.push(notice.with_remedy("let the daemon's user read it, then restart the daemon"));
                    reader.unread.push(named.path);
                }
            }
        }
        (reader, notices)
    }

    /// The files whose change is a change of the configuration, those that may be missing among them.
    pub fn files(&self) -> Vec<PathBuf> {
        let named = self.named.iter().map(|named| named.path.clone());
        let mut files: Vec<PathBuf> = self.files.iter().cloned().chain(named).collect();
        files.sort();
        files.dedup();
        files
    }

    /// Reads and checks everything again. `running` is what the daemon has taken over until now.
    ///
    /// # Errors
    /// Every mistake in what is read, and a step of raft's times that could part the members of a cluster.
    pub fn read(&self, running: &Config) -> Result<Reread, ConfigErrors> {
        let mut now = Assigned::new();
        let mut problems = Vec::new();
        for named in &self.named {
            match named.file() {
                Ok(file) => now.extend(named.assigned(file)),
                Err(problem) => problems.push(*problem),
            }
        }
        ConfigErrors::check(problems)?;
        let (sources, mut remarks) = self.followed(&now);
        let loaded = super::load(&sources)?;
        check_pace(&running.raft, &loaded.config.raft, &loaded.settings)?;
        remarks.extend(self.unfollowed());
        Ok(Reread { loaded, remarks })
    }

    /// The sources as they would be had the process been started now, and what of the edits does not reach it.
    fn followed(&self, now: &Assigned) -> (Sources, Vec<String>) {
        let mut sources = Sources { compat: Some(self.compat), ..self.sources.clone() };
        let mut remarks = Vec::new();
        let mut names: Vec<&String> = self.at_start.keys().chain(now.keys()).collect();
        names.sort();
        names.dedup();
        for name in names.into_iter().filter(|name| name.starts_with("ETCD_")) {
            let (before, after) = (self.at_start.get(name), now.get(name));
            let is_edited = before.map(|(value, _)| value) != after.map(|(value, _)| value);
            let process = self.process_value(name);
            if SOURCES.contains(&name.as_str()) {
                remarks
                    .extend(is_edited.then(|| format!("{name} was edited: other files are read after a restart only")));
            } else if process != before.map(|(value, _)| value.clone()) {
                let why = "the process was started with another value, which stays: it was set elsewhere";
                remarks.extend(is_edited.then(|| format!("{name} was edited, but {why}")));
            } else {
                sources.env.retain(|(own, _)| own.to_str() != Some(name.as_str()));
                if let Some((value, origin)) = after {
                    sources.env.push((name.into(), value.into()));
                    sources.followed.insert(name.clone(), origin.clone());
                }
            }
        }
        (sources, remarks)
    }

    fn process_value(&self, name: &str) -> Option<String> {
        let own = self.sources.env.iter().find(|(own, _)| own.to_str() == Some(name));
        own.map(|(_, value)| value.to_string_lossy().into_owned())
    }

    /// What nobody reads again: whoever edits an `EnvironmentFile=` that is not named, or that could not be read at the
    /// start, would wait in vain.
    fn unfollowed(&self) -> Vec<String> {
        let unread = |path: &PathBuf| {
            format!(
                "{} could not be read at the start, so what was edited there is not seen: let the daemon's user read it, \
                 then restart the daemon",
                path.display()
            )
        };
        self.unread.iter().map(unread).chain(self.unnamed()).collect()
    }

    /// Variables without a file.
    fn unnamed(&self) -> Option<String> {
        let is_ours = |(name, value): &&(std::ffi::OsString, std::ffi::OsString)| {
            name.to_str().is_some_and(|name| name.starts_with("ETCD_")) && !value.is_empty()
        };
        let has_variables = self.sources.env.iter().any(|variable| is_ours(&variable));
        (self.named.is_empty() && self.unread.is_empty() && has_variables).then(|| {
            format!(
                "ETCD_* variables stay as they were at the start: an edited EnvironmentFile= takes a restart, or \
                 Environment={ENV_FILES}= in the unit that names it, too"
            )
        })
    }
}

impl Named {
    fn file(&self) -> Result<EnvFile, Box<Problem>> {
        if self.may_be_missing && files::is_missing(&self.path) {
            return Ok(EnvFile::default());
        }
        let in_file = |line, what: String| Box::new(Problem::in_file(self.at(line), "", what));
        let bytes = files::read(&self.path).map_err(|(line, what)| in_file(line, what))?;
        let file = env_file::parse(&bytes).map_err(|error| in_file(error.line(), error.to_string()))?;
        if let Some(line) = file.unclosed {
            let what = "the quote that opens here is never closed: the rest of the file became part of the value";
            return Err(in_file(line, what.to_owned()));
        }
        Ok(file)
    }

    fn assigned(&self, file: EnvFile) -> Assigned {
        file.assignments.into_iter().map(|(line, name, value)| (name, (value, self.at(line)))).collect()
    }

    fn at(&self, line: usize) -> Origin {
        Origin::File(self.path.clone(), line)
    }
}

fn named_files(sources: &Sources) -> Vec<Named> {
    let variable = sources.env.iter().find(|(name, _)| name == ENV_FILES);
    let text = variable.map(|(_, value)| value.to_string_lossy().into_owned()).unwrap_or_default();
    let named = |word: &str| {
        let (path, may_be_missing) = word.strip_prefix('-').map_or((word, false), |path| (path, true));
        Named { path: Path::new(path).to_owned(), may_be_missing }
    };
    text.split(':').filter(|word| !word.is_empty()).map(named).collect()
}

/// The members of a cluster are changed one after the other. Meanwhile those with the old and those with the new times
/// must get along, so what etcd demands of one member is demanded of any two: five heartbeats of the one in an election
/// timeout of the other. Larger changes go there in steps, or by restarts.
fn check_pace(running: &Raft, new: &Raft, settings: &Settings) -> Result<(), ConfigErrors> {
    let refuse = |name: &str, what: String| match table::find(name) {
        Some(spec) => Err(ConfigErrors::of(vec![setting_problem(spec, settings, what)])),
        None => Ok(()),
    };
    let ms = |time: Duration| time.as_millis();
    let (longest, shortest) = (running.election / HEARTBEATS_MIN, running.heartbeat * HEARTBEATS_MIN);
    if new.heartbeat > longest {
        let what = format!(
            "a member whose election timeout is still {} ms would miss such heartbeats: change all members to {} ms or \
             less first, or restart them",
            ms(running.election),
            ms(longest)
        );
        return refuse("heartbeat-interval", what);
    }
    if new.election < shortest {
        let what = format!(
            "heartbeats of a member that still sends one every {} ms would come too late: change all members to {} ms or \
             more first, or restart them",
            ms(running.heartbeat),
            ms(shortest)
        );
        return refuse("election-timeout", what);
    }
    Ok(())
}

fn setting_problem(spec: &'static OptionSpec, settings: &Settings, what: String) -> Problem {
    let setting = settings.get(spec.name);
    let text = setting.map(|setting| setting.value.to_text()).unwrap_or_default();
    let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
    let form = match &origin {
        Origin::File(path, _) if path.extension().is_some_and(|extension| extension == "toml") => Form::Toml,
        Origin::File(..) | Origin::Variable(_) => Form::Variable,
        Origin::Default | Origin::Flag(_) => Form::Flag,
    };
    Problem::of(spec, &text, origin, form, what).with_example(None)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A process that a unit has started with the file's variables.
    struct Started {
        place: tempfile::TempDir,
        sources: Sources,
    }

    impl Started {
        fn new(file: &str) -> Self {
            let place = tempfile::tempdir().expect("a directory");
            let path = place.path().join("env");
            fs::write(&path, file).expect("written");
            let parsed = env_file::parse(file.as_bytes()).expect("text");
            let mut env: Vec<_> =
                parsed.assignments.into_iter().map(|(_, name, value)| (name.into(), value.into())).collect();
            env.push((ENV_FILES.into(), format!("-{}:-/nonexistent/quorate.env", path.display()).into()));
            Self { place, sources: Sources { env, ..Sources::default() } }
        }

        fn variable(mut self, name: &str, value: &str) -> Self {
            self.sources.env.retain(|(own, _)| own != name);
            self.sources.env.push((name.into(), value.into()));
            self
        }

        fn flag(mut self, flag: String) -> Self {
            self.sources.args.push(flag.into());
            self
        }

        fn path(&self) -> PathBuf {
            self.place.path().join("env")
        }

        fn reader(&self) -> (Rereader, Loaded) {
            let loaded = super::super::load(&self.sources).unwrap_or_else(|errors| panic!("{errors}"));
            let (reader, notices) = Rereader::new(self.sources.clone(), &loaded);
            assert_eq!(notices, []);
            (reader, loaded)
        }
    }

    fn shown(reread: &Reread, name: &str) -> (String, Origin) {
        let setting = reread.loaded.settings.get(name).expect("an option");
        (setting.value.to_text(), setting.origin.clone())
    }

    fn read(reader: &Rereader, loaded: &Loaded) -> Reread {
        reader.read(&loaded.config).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn a_variable_that_is_the_files_is_read_from_it_again() {
        let start = Started::new("ETCD_LOG_LEVEL=info\nETCD_MAX_TXN_OPS=5\n");
        let (reader, loaded) = start.reader();
        fs::write(start.path(), "# a comment\nETCD_LOG_LEVEL=debug\nETCD_CORS=http://a:80\n").expect("written");
        let reread = read(&reader, &loaded);
        assert_eq!(shown(&reread, "log-level"), ("debug".to_owned(), Origin::File(start.path(), 2)));
        assert_eq!(shown(&reread, "cors"), ("http://a:80".to_owned(), Origin::File(start.path(), 3)), "was added");
        assert_eq!(shown(&reread, "max-txn-ops"), ("128".to_owned(), Origin::Default), "was removed");
        assert_eq!(reread.remarks, Vec::<String>::new());
    }

    #[test]
    fn a_variable_that_was_set_elsewhere_stays_and_reload_says_so() {
        let start = Started::new("ETCD_LOG_LEVEL=info\n").variable("ETCD_LOG_LEVEL", "warn");
        let (reader, loaded) = start.reader();
        assert_eq!(read(&reader, &loaded).remarks, Vec::<String>::new(), "nothing was edited");
        fs::write(start.path(), "ETCD_LOG_LEVEL=debug\n").expect("written");
        let reread = read(&reader, &loaded);
        assert_eq!(shown(&reread, "log-level"), ("warn".to_owned(), Origin::Variable("ETCD_LOG_LEVEL".to_owned())));
        assert!(reread.remarks.iter().any(|remark| remark.starts_with("ETCD_LOG_LEVEL was edited")), "{reread:?}");
    }

    #[test]
    fn a_flag_beats_what_the_file_says_then_and_now() {
        let start = Started::new("ETCD_LOG_LEVEL=info\n").flag("--log-level=warn".to_owned());
        let (reader, loaded) = start.reader();
        fs::write(start.path(), "ETCD_LOG_LEVEL=debug\n").expect("written");
        assert_eq!(shown(&read(&reader, &loaded), "log-level").0, "warn");
    }

    #[test]
    fn where_no_file_is_named_reload_says_so() {
        let sources = Sources { env: vec![("ETCD_LOG_LEVEL".into(), "info".into())], ..Sources::default() };
        let loaded = super::super::load(&sources).expect("valid");
        let (reader, _) = Rereader::new(sources, &loaded);
        let remarks = read(&reader, &loaded).remarks;
        assert!(remarks.iter().any(|remark| remark.contains("QUORATE_ENV_FILES")), "{remarks:?}");
        let loaded = super::super::load(&Sources::default()).expect("valid");
        let (reader, _) = Rereader::new(Sources::default(), &loaded);
        assert_eq!(read(&reader, &loaded).remarks, Vec::<String>::new());
    }

    #[test]
    fn a_broken_file_refuses_everything_and_a_missing_one_takes_its_variables_along() {
        let start = Started::new("ETCD_LOG_LEVEL=warn\n");
        let (reader, loaded) = start.reader();
        for broken in ["ETCD_LOG_LEVEL=debug\nETCD_HEARTBEAT_INTERVAL=x\n", "ETCD_LOG_LEVEL=\"debug\nETCD_CORS=a\n"] {
            fs::write(start.path(), broken).expect("written");
            assert!(reader.read(&loaded.config).is_err(), "{broken}");
        }
        fs::remove_file(start.path()).expect("removed");
        assert_eq!(shown(&read(&reader, &loaded), "log-level"), ("info".to_owned(), Origin::Default));
        assert!(reader.files().contains(&start.path()), "it is watched all the same");
    }

    /// A closed directory looked like a missing file, and every option of the file fell back to its default. Root may
    /// look into any directory, so here one cannot be reached that leads to itself.
    #[test]
    fn a_file_that_cannot_be_looked_for_is_not_missing() {
        let closed = tempfile::tempdir().expect("a directory");
        let (open, path) = (closed.path().join("open"), closed.path().join("open/env"));
        fs::create_dir(&open).expect("made");
        fs::write(&path, "ETCD_LOG_LEVEL=warn\n").expect("written");
        let mut start = Started::new("ETCD_LOG_LEVEL=warn\n");
        start = start.variable(ENV_FILES, &format!("-{}", path.display()));
        let (reader, loaded) = start.reader();
        fs::rename(&open, closed.path().join("away")).expect("moved");
        std::os::unix::fs::symlink(&open, &open).expect("linked");
        let refused = reader.read(&loaded.config).expect_err("not missing").to_string();
        assert!(refused.contains(&format!("open {}", path.display())), "{refused}");
        // At a start it warns, as a file does that cannot be read.
        assert_eq!(Rereader::new(start.sources.clone(), &loaded).1.len(), 1);
        let flag = format!("--env-file=-{}", path.display());
        assert!(super::super::load(&start.flag(flag).sources).is_err());
    }

    #[test]
    fn which_files_are_read_is_decided_at_the_start() {
        let start = Started::new("ETCD_LOG_LEVEL=warn\n");
        let (reader, loaded) = start.reader();
        fs::write(start.path(), "ETCD_LOG_LEVEL=warn\nETCD_CONFIG=/nonexistent/other.toml\n").expect("written");
        let remarks = read(&reader, &loaded).remarks;
        assert!(remarks.iter().any(|remark| remark.starts_with("ETCD_CONFIG was edited")), "{remarks:?}");
    }

    #[test]
    fn defaults_stay_those_of_the_version_that_was_imitated_at_the_start() {
        let start = Started::new("ETCD_LOG_LEVEL=warn\n");
        let (reader, loaded) = start.reader();
        fs::write(start.path(), "ETCD_LOG_LEVEL=warn\nETCD_COMPAT_VERSION=3.5\n").expect("written");
        let reread = read(&reader, &loaded);
        assert_eq!(reread.loaded.config.storage.snapshot_entries, 10_000);
        assert_eq!(shown(&reread, "compat-version").0, "3.5");
    }

    #[test]
    fn a_file_that_cannot_be_read_at_the_start_is_told_of_then_and_at_every_reload() {
        let sources =
            Sources { env: vec![(ENV_FILES.into(), "/nonexistent/quorate.env".into())], ..Sources::default() };
        let loaded = super::super::load(&sources).expect("valid");
        let (reader, notices) = Rereader::new(sources, &loaded);
        assert_eq!(notices.len(), 1);
        let remarks = read(&reader, &loaded).remarks;
        let [remark] = remarks.as_slice() else { panic!("{remarks:?}") };
        assert!(remark.starts_with("/nonexistent/quorate.env could not be read at the start"), "{remark}");
    }

    #[test]
    fn a_variable_that_a_file_sets_twice_is_told_of_at_the_start() {
        let start = Started::new("ETCD_LOG_LEVEL=info\nETCD_LOG_LEVEL=warn\n").variable("ETCD_LOG_LEVEL", "warn");
        let loaded = super::super::load(&start.sources).expect("valid");
        let (_, notices) = Rereader::new(start.sources.clone(), &loaded);
        let path = start.path();
        let [notice] = notices.as_slice() else { panic!("{notices:?}") };
        assert_eq!(notice.origin, Some(Origin::File(path.clone(), 1)));
        assert!(notice.to_string().contains(&format!("counts={}:2", path.display())), "{notice}");
    }

    #[test]
    fn times_change_in_steps_that_two_members_survive() {
        let start = Started::new("ETCD_HEARTBEAT_INTERVAL=100\nETCD_ELECTION_TIMEOUT=1000\n");
        let (reader, loaded) = start.reader();
        for (heartbeat, election, blamed) in [
            (200, 2000, None),
            (201, 2000, Some("heartbeat-interval")),
            (50, 500, None),
            (50, 499, Some("election-timeout")),
            (100, 50_000, None),
            (300, 1000, Some("election-timeout")),
        ] {
            let text = format!("ETCD_HEARTBEAT_INTERVAL={heartbeat}\nETCD_ELECTION_TIMEOUT={election}\n");
            fs::write(start.path(), text).expect("written");
            let refused = reader.read(&loaded.config).err();
            let option = refused.as_ref().map(|errors| errors.problems()[0].option.as_str());
            assert_eq!(option, blamed, "{heartbeat}, {election}: {refused:?}");
        }
    }
}
