//! What the process was started with, as values: nothing in `config` looks at the process itself.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::{IpAddr, UdpSocket},
    path::{Path, PathBuf},
};

use super::{Compat, Origin, show::Format};

/// Addresses that nobody has (RFC 5737, RFC 3849), with the address of the same kind that stands for any of our own.
const FAR: [(&str, &str); 2] = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];

/// Command line and environment of the process.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `argv[0]`.
    pub program: OsString,
    /// The arguments behind it.
    pub args: Vec<OsString>,
    /// The environment.
    pub env: Vec<(OsString, OsString)>,
    /// Files that hold a command line, weaker than `args`; only commands that look at configurations have any.
    pub flag_files: Vec<PathBuf>,
    /// The machine's own address on its default route: what a member advertises that listens everywhere and was not told.
    pub default_host: Option<IpAddr>,
    /// Variables of `env` that were read from a file since, and where they stand there.
    pub followed: BTreeMap<String, Origin>,
    /// The version whose defaults hold, whatever the layers say: that of a daemon that runs already.
    pub compat: Option<Compat>,
}

impl Sources {
    /// Those of this process. For binaries only.
    pub fn of_process() -> Self {
        let mut args = std::env::args_os();
        let program = args.next().unwrap_or_default();
        Self {
            program,
            args: args.collect(),
            env: std::env::vars_os().collect(),
            default_host: default_host(),
            ..Self::default()
        }
    }

    /// One file in place of the environment, below the flags that were typed.
    #[must_use]
    pub fn of_file(&self, path: &Path, format: Format) -> Self {
        let mut sources = Self { env: Vec::new(), ..self.clone() };
        let flag = match format {
            Format::Env => "--env-file",
            Format::Toml => "--config",
            Format::Yaml | Format::Json => "--config-file",
            Format::Flags => {
                sources.flag_files.push(path.to_owned());
                return sources;
            }
        };
        sources.args.splice(0..0, [flag.into(), path.into()]);
        sources
    }

    /// Whether the binary was called under etcd's name, whatever its directory.
    pub fn called_as_etcd(&self) -> bool {
        Path::new(&self.program).file_name().is_some_and(|name| name == "etcd")
    }
}

/// The address that packets to far away would come from, IPv4 first. Nothing is sent.
fn default_host() -> Option<IpAddr> {
    FAR.into_iter().find_map(|(own, far)| {
        let socket = UdpSocket::bind(own).ok()?;
        socket.connect(far).ok()?;
        let ip = socket.local_addr().ok()?.ip();
        (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
    })
}
