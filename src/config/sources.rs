//! What the process was started with, as values: nothing in `config` looks at the process itself.

use std::ffi::OsString;

/// Command line and environment of the process.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `argv[0]`.
    pub program: OsString,
    /// The arguments behind it.
    pub args: Vec<OsString>,
    /// The environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Sources {
    /// Those of this process. For binaries only.
    pub fn of_process() -> Self {
        let mut args = std::env::args_os();
        Self { program: args.next().unwrap_or_default(), args: args.collect(), env: std::env::vars_os().collect() }
    }

    /// Whether the binary was called under etcd's name, whatever its directory.
    pub fn called_as_etcd(&self) -> bool {
        std::path::Path::new(&self.program).file_name().is_some_and(|name| name == "etcd")
    }
}
