//! `snapshot save`: the state of one member in a file.

use std::{
    ffi::OsString,
    fmt::Display,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    super::{
        failure::{Exit, Failure},
        parse::Call,
        speak::say,
        table::{Command, Group, Running},
    },
    global::{self, Settings},
    session,
};
use crate::{
    client::Client,
    etcdfile::database::{self, SealCheck},
};

pub(super) const SNAPSHOT: Command = Command {
    name: "snapshot",
    arguments: "<subcommand>",
    about: "Copies the state of a member into a file",
    group: Group::Maintenance,
    commands: &[Command {
        name: "save",
        arguments: "<filename>",
        about: "Saves a snapshot of one member as a file that can be restored",
        details: "Saves a snapshot of one member as a file that can be restored, by quorateutl and by etcdutl.\n\n\
                  Exactly one endpoint is asked. The snapshot is written to <filename>.part, which only its owner may read,\n\
                  checked against the SHA-256 that comes with it, made durable, and then given its name: a file of that\n\
                  name is whole. There is no time limit unless --command-timeout is given.",
        run: Some(save),
        ..Command::EMPTY
    }],
    ..Command::EMPTY
};

fn save(mut call: Call) -> Running {
    Box::pin(async move {
        let [path] = call.arguments.as_slice() else {
            return Err(Failure::bad_arguments("snapshot save expects one argument <filename>"));
        };
        let path = PathBuf::from(path);
        let settings = session::settings(&mut call)?;
        let limit = call.flags.is_set(&global::COMMAND_TIMEOUT).then_some(settings.command_timeout);
        let version = save_to(&path, &settings, limit).await?;
        say(format_args!("Snapshot saved at {}\n", path.display()))?;
        if version.is_empty() { Ok(()) } else { Ok(say(format_args!("Server version {version}\n"))?) }
    })
}

/// Saves a snapshot within `limit` and returns the version it is made for.
async fn save_to(path: &Path, settings: &Settings, limit: Option<Duration>) -> Result<String, Failure> {
    let endpoints = &settings.client.endpoints;
    if endpoints.len() != 1 {
        let all = endpoints.join(" ");
        return Err(broken(format_args!("snapshot must be requested to one selected node, not multiple [{all}]")));
    }
    let client = session::try_connect(settings, endpoints.clone()).await.map_err(broken)?;
    let mut part = Part::create(path)?;
    let receiving = receive(&client, &mut part);
    let version = match limit {
        Some(limit) => timeout(limit, receiving).await.map_err(|_| broken("context deadline exceeded"))??,
        None => receiving.await?,
    };
    part.finish(path)?;
    Ok(version)
}

async fn receive(client: &Client, part: &mut Part) -> Result<String, Failure> {
    let mut messages = client.snapshot().await.map_err(broken)?;
    let mut version = String::new();
    while let Some(message) = messages.next().await.map_err(broken)? {
        part.write(&message.blob)?;
        version = message.version;
    }
    Ok(version)
}

/// The work was broken off.
fn broken(why: impl Display) -> Failure {
    Failure::new(Exit::Interrupted, why)
}

/// A file that is not whole yet. It is gone unless it was finished.
struct Part {
    path: PathBuf,
    file: File,
    check: SealCheck,
}

impl Part {
    fn create(path: &Path) -> Result<Self, Failure> {
        let path = PathBuf::from(OsString::from_iter([path.as_os_str(), ".part".as_ref()]));
        let failed = |cause: io::Error| broken(format_args!("could not open {} ({cause})", path.display()));
        // What an earlier attempt has left may be readable for others.
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        Ok(Self { path, file, check: SealCheck::default() })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.check.update(piece);
        let path = self.path.display();
        self.file.write_all(piece).map_err(|cause| broken(format_args!("could not write {path} ({cause})")))
    }

    /// Checks the file, makes it durable and gives it its name.
    fn finish(mut self, path: &Path) -> Result<(), Failure> {
        let check = std::mem::take(&mut self.check);
        if !database::has_seal(check.bytes()) {
            return Err(broken(format_args!("sha256 checksum not found [bytes: {}]", check.bytes())));
        }
        check.finish().map_err(broken)?;
        let (from, to) = (self.path.display(), path.display());
        self.file.sync_all().map_err(|cause| broken(format_args!("could not sync {from} ({cause})")))?;
        let renamed = fs::rename(&self.path, path).and_then(|()| sync_directory(path));
        renamed.map_err(|cause| broken(format_args!("could not rename {from} to {to} ({cause})")))
    }
}

/// Makes the name of a file durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

impl Drop for Part {
    fn drop(&mut self) {
        // Of a finished file there is no part.
        fs::remove_file(&self.path).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use sha2::{Digest as _, Sha256};

    use super::*;

    fn saved(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
        let mut part = Part::create(path)?;
        bytes.chunks(1_000).try_for_each(|piece| part.write(piece))?;
        part.finish(path)
    }

    #[test]
    fn only_a_whole_snapshot_gets_its_name() {
        let home = tempfile::tempdir().unwrap();
        let (path, part) = (home.path().join("s.db"), home.path().join("s.db.part"));
        fs::write(&part, "of an earlier attempt").unwrap();
        let pages = vec![5; 4_096];
        let whole = [&pages[..], &Sha256::digest(&pages)].concat();
        saved(&path, &whole).unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let refused = |bytes: &[u8]| saved(&path, bytes).unwrap_err();
        assert_eq!(refused(&pages), broken("sha256 checksum not found [bytes: 4096]"));
        let mut damaged = whole.clone();
        damaged[7] ^= 1;
        assert_eq!(refused(&damaged).exit, Exit::Interrupted);
        assert_eq!((fs::read(&path).unwrap(), part.exists()), (whole, false), "what was there stays");
        let refusal = Part::create(&home.path().join("absent/s.db")).err().unwrap().message.unwrap();
        assert!(refusal.starts_with("could not open ") && refusal.contains("absent/s.db.part"), "{refusal}");
    }
}
