//! `verify`, `defrag`, `migrate`: data directories that are looked at where they lie.

use std::path::Path;

use super::{
    super::{
        ETCD_VERSION,
        failure::{Exit, Failure},
        go_text, log,
        parse::Call,
        speak::{complain, say},
        table::{Command, Flag, Group, Running, Values},
    },
    file,
    import::FROM_WAL_DIR,
    restore, short,
};
use crate::{
    membership::Version,
    server::offline::{self, OfflineError},
    types::with_causes,
};

const DATA_DIR: Flag = Flag::text("data-dir", "", "data directory, whose daemon is stopped").values(Values::Files);
const TARGET_VERSION: Flag = Flag::text("target-version", "", "version to migrate to, like 3.6; 3.5 is the least");
const FORCE: Flag = Flag::switch("force", "has no effect here: there is nothing that could be overridden");

pub(super) const VERIFY: Command = Command {
    name: "verify",
    arguments: "<directory>",
    about: "Checks everything in a data directory, from the log to the state",
    group: Group::Maintenance,
    details: "Checks everything in a data directory of Quorate or etcd, whose daemon is stopped: every checksum of the log, of the\n\
              state and of snapshot files, every row of the state against the others, and whether log and state belong together.\n\n\
              One line for each part tells what was found; of damage it names the file, where it is known the offset, and what\n\
              to do. Exit code 1 if anything is damaged.\n\n\
              Nothing there is written, so the directory may lie on a mount that is read-only. The journals of the state, some\n\
              hundred megabytes at the most, are copied to the directory for temporary files (TMPDIR) meanwhile.",
    flags: &[FROM_WAL_DIR],
    run: Some(verify),
    ..Command::EMPTY
};

pub(super) const DEFRAG: Command = Command {
    name: "defrag",
    about: "Says why there is nothing to defragment",
    group: Group::Maintenance,
    details: "Does nothing, and says why: Quorate gives back the space of removed and replaced keys by itself, while it runs.\n\
              The command is there for scripts of etcd's.",
    flags: &[DATA_DIR],
    run: Some(defrag),
    ..Command::EMPTY
};

pub(super) const MIGRATE: Command = Command {
    name: "migrate",
    about: "Says for which version of etcd a data directory is",
    group: Group::Maintenance,
    details: "Says whether a data directory is for a version of etcd. There is nothing in a directory of Quorate to migrate: `export`\n\
              writes the version of its cluster, which `quoratectl downgrade` lowers.",
    flags: &[DATA_DIR, TARGET_VERSION, FORCE],
    run: Some(migrate),
    ..Command::EMPTY
};

fn verify(call: Call) -> Running {
    Box::pin(async move {
        let missing = || Failure::bad_arguments("verify requires exactly one argument");
        let root = file::path(&call).ok_or_else(missing)?;
        log::start_verbose();
        let wal_dir = file::given(&call, &FROM_WAL_DIR);
        let checks =
            offline::verify(&root, wal_dir.as_deref(), restore::newest_version()).map_err(|cause| failure(&cause))?;
        let mut damaged = 0;
        for check in &checks {
            let path = check.path.display();
            match &check.found {
                Ok(text) => say(format_args!("{path}: {text}\n"))?,
                Err(cause) => {
                    damaged += 1;
                    say(format_args!("{path}: {}\n", with_causes(cause)))?;
                }
            }
        }
        if damaged == 0 {
            Ok(())
        } else {
            Err(file::failed(format_args!("{damaged} of {} parts are damaged", checks.len())))
        }
    })
}

fn defrag(call: Call) -> Running {
    Box::pin(async move {
        let data_dir = required(&call, &[&DATA_DIR])?;
        let shown = data_dir.display();
        match offline::is_ours(&data_dir) {
            Ok(true) => complain(
                "nothing was done: Quorate gives back the space of removed and replaced keys by itself, while it runs",
            ),
            Ok(false) => {
                file::check(&data_dir.join("member/snap/db"))
                    .map_err(|cause| failed_to_defragment(&data_dir, cause.message.as_deref().unwrap_or_default()))?;
                let why = format!("this is a directory of etcd: use etcdutl, or import {shown}");
                return Err(failed_to_defragment(&data_dir, &why));
            }
            Err(cause) => return Err(failed_to_defragment(&data_dir, &with_causes(&cause))),
        }
        Ok(())
    })
}

fn failed_to_defragment(data_dir: &Path, why: &str) -> Failure {
    file::failed(format_args!("Failed to defragment etcd data[{}] ({why})", data_dir.display()))
}

fn migrate(call: Call) -> Running {
    Box::pin(async move {
        let data_dir = required(&call, &[&DATA_DIR, &TARGET_VERSION])?;
        let target = target(call.flags.text(&TARGET_VERSION)).map_err(Failure::bad_arguments)?;
        log::start_verbose();
        if !offline::is_ours(&data_dir).map_err(|cause| failure(&cause))? {
            file::check(&data_dir.join("member/snap/db"))?;
            return Err(file::failed("this is a directory of etcd: use etcdutl, or import it"));
        }
        let version =
            offline::cluster_version(&data_dir, restore::newest_version()).map_err(|cause| failure(&cause))?;
        let version = version.unwrap_or_else(restore::newest_version).without_patch();
        if version == target {
            tracing::info!(storage_version = %short(version), "storage version up-to-date");
            return Ok(());
        }
        let (way, target) = if target < version {
            ("`quoratectl downgrade enable` lowers it to", short(target))
        } else {
            ("--compat-version lets it rise to", short(target))
        };
        let version = short(version);
        Err(file::failed(format_args!(
            "the directory is for etcd {version}, the version of its cluster, which changes while it runs: {way} {target}"
        )))
    })
}

fn failure(cause: &OfflineError) -> Failure {
    file::failed(with_causes(cause))
}

/// The data directory, if all of `flags` are given.
fn required(call: &Call, flags: &[&Flag]) -> Result<std::path::PathBuf, Failure> {
    let missing: Vec<_> =
        flags.iter().filter(|flag| !call.flags.is_set(flag)).map(|flag| format!("\"{}\"", flag.name)).collect();
    if !missing.is_empty() {
        return Err(Failure::new(Exit::Error, format_args!("required flag(s) {} not set", missing.join(", "))));
    }
    Ok(call.flags.text(&DATA_DIR).into())
}

/// A version in etcd's form, from 3.5 up to the newest.
fn target(text: &str) -> Result<Version, String> {
    if text.matches('.').count() != 1 {
        let quoted = go_text::quote(text.as_bytes());
        return Err(format!("wrong target version format, expected \"X.Y\", got {quoted}"));
    }
    let version = Version::parse_target(text).map_err(|cause| format!("failed to parse target version: {cause}"))?;
    if version < Version::minor(3, 5) {
        return Err(format!("target version \"{text}\" not supported. Minimal \"3.5\""));
    }
    if version > restore::newest_version() {
        return Err(format!("target version \"{text}\" not supported. Maximal {ETCD_VERSION}"));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_refused_in_the_words_of_etcd() {
        assert_eq!(target("3.6"), Ok(Version::minor(3, 6)));
        assert_eq!(target("3").unwrap_err(), "wrong target version format, expected \"X.Y\", got \"3\"");
        assert_eq!(target("3.4").unwrap_err(), "target version \"3.4\" not supported. Minimal \"3.5\"");
        assert!(target("3.9").is_err() && target("a.b").is_err());
    }
}
