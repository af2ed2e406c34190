//! What a node has written down about itself at a discovery service, kept in its data directory until it is a member.
//!
//! ```text
//! quorate discovery 1
//! service: http://10.0.0.9:2379/v2/keys/discovery/TOKEN     what the registration depends on
//! member: 160f24c0b9488f40                                  as the service knows it
//! entry: etcd1=http://10.0.0.1:2380                         what is registered there
//! founders: etcd1=http://…,etcd2=http://…                   once everybody was there
//! checksum: 1a2b3c4d                                        CRC-32C of the lines above
//! ```
//!
//! It is durable before the service is told anything. So a start that was cut short finds the registration of the one
//! before it at the service and knows it for its own, where etcd stops with a duplicate identifier; and one that was cut
//! short after everybody was there needs no service any more. A node that has lost its directory has no such file: its
//! registration is a stranger's, and it is refused as etcd refuses it, because the cluster may know it already.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::Own;
use crate::disk::{Directory as _, DiskFile as _, FileDirectory};

/// The file's name in the data directory.
const REGISTRATION: &str = "REGISTRATION";
/// The name it is written under first.
const TEMPORARY: &str = "REGISTRATION.tmp";
const MAGIC: &str = "quorate discovery 1";
/// Longest file: a thousand members with several URLs each are far less.
const BYTES_MAX: u64 = 1024 * 1024;

/// A registration cannot be kept, or not read.
#[derive(Debug, Error)]
pub enum RegistrationError {
    /// An operation on the file failed.
    #[error("{action} {path}: {cause}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// The file is damaged.
    #[error("{path} is damaged: {why}; if this node has never been a member, remove it and use a new discovery token")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Where a node is registered, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// What its identifier depends on: the URL of a v2 token, or a v3 token.
    pub token: String,
    /// Its identifier there.
    pub member: String,
    /// What is registered.
    pub entry: String,
}

impl Service {
    /// The place of `own` at the service of `token`.
    pub(super) fn of(own: &Own, token: &str) -> Self {
        // The file has lines.
        Self { token: token.replace(char::is_control, " "), member: own.id(token), entry: own.entry() }
    }
}

/// What a data directory tells of registrations.
#[derive(Debug)]
pub struct Registration {
    directory: FileDirectory,
    kept: Option<Kept>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    service: Service,
    founders: Option<String>,
}

impl Registration {
    /// Reads what is kept in the data directory `root`, which must be locked.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn open(root: &Path) -> Result<Self, RegistrationError> {
        let directory = FileDirectory::new(root);
        let path = directory.path(REGISTRATION);
        let io = |cause| RegistrationError::Io { action: "reading", path: path.clone(), cause };
        let kept = match File::open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
            opened => {
                let mut text = Vec::new();
                opened.map_err(io)?.take(BYTES_MAX).read_to_end(&mut text).map_err(io)?;
                let damaged = |why| RegistrationError::Damaged { path: path.clone(), why };
                Some(Kept::read(&String::from_utf8_lossy(&text)).map_err(damaged)?)
            }
        };
        Ok(Self { directory, kept })
    }

    /// Whether this node may be registered there.
    pub fn is_with(&self, service: &Service) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.service == *service)
    }

    /// Who founds the cluster, if everybody was there in an earlier start.
    pub fn founders(&self, service: &Service) -> Option<&str> {
        self.kept.as_ref().filter(|kept| kept.service == *service)?.founders.as_deref()
    }

    /// Records that this node is about to be registered there.
    ///
    /// # Errors
    /// A file that cannot be written durably: then nobody may be told anything.
    pub fn begin(&mut self, service: &Service) -> Result<(), RegistrationError> {
        if self.is_with(service) {
            return Ok(());
        }
        self.keep(Kept { service: service.clone(), founders: None })
    }

    /// Records who founds the cluster.
    ///
    /// # Errors
    /// A file that cannot be written durably.
    pub fn complete(&mut self, service: &Service, founders: &str) -> Result<(), RegistrationError> {
        self.keep(Kept { service: service.clone(), founders: Some(founders.to_owned()) })
    }

    /// Forgets the registration: the log of a member says more, and a node that is none has nothing to remember.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn forget(&mut self) -> Result<(), RegistrationError> {
        self.kept = None;
        match self.directory.remove(REGISTRATION).and_then(|()| self.directory.sync()) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(self.failed("removing", cause)),
            _ => Ok(()),
        }
    }

    fn keep(&mut self, kept: Kept) -> Result<(), RegistrationError> {
        let write = || {
            let file = self.directory.create(TEMPORARY)?;
            file.write_at(kept.text().as_bytes(), 0)?;
            file.sync()?;
            self.directory.rename(TEMPORARY, REGISTRATION)?;
            self.directory.sync()
        };
        write().map_err(|cause| self.failed("writing", cause))?;
        self.kept = Some(kept);
        Ok(())
    }

    fn failed(&self, action: &'static str, cause: io::Error) -> RegistrationError {
        RegistrationError::Io { action, path: self.directory.path(REGISTRATION), cause }
    }
}

impl Kept {
    fn text(&self) -> String {
        let Service { token, member, entry } = &self.service;
        let founders = self.founders.as_ref().map_or_else(String::new, |founders| format!("founders: {founders}\n"));
        let lines = format!("{MAGIC}\nservice: {token}\nmember: {member}\nentry: {entry}\n{founders}");
        format!("{lines}checksum: {:08x}\n", crc32c::crc32c(lines.as_bytes()))
    }

    fn read(text: &str) -> Result<Self, String> {
        let (lines, sum) = text.rsplit_once("checksum: ").ok_or("it has no checksum")?;
        if sum.trim_end() != format!("{:08x}", crc32c::crc32c(lines.as_bytes())) {
            return Err("its checksum is wrong".to_owned());
        }
        let mut lines = lines.lines();
        if lines.next() != Some(MAGIC) {
            return Err(format!("it does not begin with {MAGIC:?}"));
        }
        let mut value = |name: &str| lines.next().and_then(|line| line.strip_prefix(name)).map(str::to_owned);
        let service = (value("service: "), value("member: "), value("entry: "));
        let (Some(token), Some(member), Some(entry)) = service else { return Err("it is not complete".to_owned()) };
        Ok(Self { service: Service { token, member, entry }, founders: value("founders: ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(token: &str) -> Service {
        let own = Own { name: "a".to_owned(), peer_urls: vec!["http://a:1".to_owned()] };
        Service::of(&own, token)
    }

    #[test]
    fn registration_outlives_the_process_and_is_for_one_service() {
        let root = tempfile::tempdir().unwrap();
        let mut kept = Registration::open(root.path()).unwrap();
        assert!(!kept.is_with(&service("t")));
        kept.begin(&service("t")).unwrap();
        let mut kept = Registration::open(root.path()).unwrap();
        assert!(kept.is_with(&service("t")) && !kept.is_with(&service("u")));
        assert_eq!(kept.founders(&service("t")), None);
        kept.complete(&service("t"), "a=http://a:1").unwrap();
        let mut kept = Registration::open(root.path()).unwrap();
        assert_eq!(kept.founders(&service("t")), Some("a=http://a:1"));
        assert_eq!(kept.founders(&service("u")), None);
        kept.begin(&service("t")).unwrap();
        assert_eq!(kept.founders(&service("t")), Some("a=http://a:1"), "nothing known is forgotten");
        kept.forget().unwrap();
        kept.forget().unwrap();
        assert!(!Registration::open(root.path()).unwrap().is_with(&service("t")));
    }

    #[test]
    fn damage_is_told_and_not_taken_for_nothing() {
        let root = tempfile::tempdir().unwrap();
        Registration::open(root.path()).unwrap().begin(&service("t")).unwrap();
        let path = root.path().join(REGISTRATION);
        let whole = std::fs::read_to_string(&path).unwrap();
        for broken in
            ["", "quorate discovery 1\n", &whole.replace("http://a", "http://b"), &whole.replace("checksum", "sum")]
        {
            std::fs::write(&path, broken).unwrap();
            let why = Registration::open(root.path()).unwrap_err().to_string();
            assert!(why.contains("REGISTRATION is damaged"), "{why}");
        }
    }
}
