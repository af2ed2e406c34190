//! A command's way to the cluster.

use std::time::Duration;

use tokio::time::timeout;

use super::{
    super::{
        failure::{Exit, Failure},
        parse::Call,
        speak::complain,
    },
    global::{self, Settings},
};
use crate::client::v2::{Cluster, Options, V2Error};

/// A cluster to ask, and how long.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) cluster: Cluster,
    total_timeout: Duration,
    /// Whether to tell what is done.
    debug: bool,
}

impl Session {
    /// Reads the global flags and the environment, and asks the members where they listen unless told not to.
    ///
    /// # Errors
    /// A [`Failure`] for settings that cannot be used, or if no endpoint can be reached.
    pub(super) async fn open(call: &Call) -> Result<Self, Failure> {
        let settings = global::settings(&call.flags).await?;
        let mut session = Self::prepare(&settings)?;
        if settings.sync {
            session.sync().await?;
        }
        session.tell_endpoints();
        Ok(session)
    }

    /// [`open`](Self::open) for commands on users and roles, which tell the endpoints once more.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) async fn open_for_auth(call: &Call) -> Result<Self, Failure> {
        let session = Self::open(call).await?;
        session.tell_endpoints();
        Ok(session)
    }

    /// The same without asking anybody.
    ///
    /// # Errors
    /// A [`Failure`] for settings that cannot be used.
    pub(super) async fn open_unsynced(call: &Call) -> Result<Self, Failure> {
        let settings = global::settings(&call.flags).await?;
        let session = Self::prepare(&settings)?;
        session.tell_endpoints();
        Ok(session)
    }

    fn prepare(settings: &Settings) -> Result<Self, Failure> {
        let limit = settings.total_timeout;
        let dial_timeout = if limit.is_zero() { DIAL_TIMEOUT_MAX } else { limit.min(DIAL_TIMEOUT_MAX) };
        let options = Options {
            endpoints: settings.endpoints.clone(),
            header_timeout: settings.timeout,
            dial_timeout,
            tls: settings.tls.clone(),
            credentials: settings.credentials.clone(),
            observer: settings.debug.then_some(tell_request),
        };
        let cluster = Cluster::new(options).map_err(|error| Failure::bare(Exit::Error, error))?;
        Ok(Self { cluster, total_timeout: limit, debug: settings.debug })
    }

    /// Failures that the command will meet again are left to it.
    async fn sync(&mut self) -> Result<(), Failure> {
        if self.debug {
            complain(format_args!("start to sync cluster using endpoints({})", self.endpoints(",")));
        }
        match self.within(async |cluster: &mut Cluster| cluster.sync().await).await {
            Err(V2Error::NoEndpoints) => {
                complain("etcd cluster has no published client endpoints.");
                let given = self.endpoints(",");
                complain(format_args!(
                    "Try '--no-sync' if you want to access non-published client endpoints({given})."
                ));
                return Err(refused(&V2Error::NoEndpoints));
            }
            Err(error) if error.is_connection_failure() => return Err(failed(Exit::BadConnection, &error)),
            _ => {}
        }
        if self.debug {
            complain(format_args!("got endpoints({}) after sync", self.endpoints(",")));
        }
        Ok(())
    }

    /// Performs a call within the time for the whole command.
    ///
    /// # Errors
    /// What the call answered, or [`V2Error::DeadlineExceeded`].
    pub(super) async fn within<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Cluster) -> Result<T, V2Error>,
    ) -> Result<T, V2Error> {
        timeout(self.total_timeout, call(&mut self.cluster)).await.unwrap_or(Err(V2Error::DeadlineExceeded))
    }

    fn tell_endpoints(&self) {
        if self.debug {
            complain(format_args!("Cluster-Endpoints: {}", self.endpoints(", ")));
        }
    }

    fn endpoints(&self, separator: &str) -> String {
        let texts: Vec<_> = self.cluster.endpoints().iter().map(ToString::to_string).collect();
        texts.join(separator)
    }
}

fn tell_request(line: &str) {
    complain(format_args!("cURL Command: {line}"));
}

/// The end of a command on keys that the cluster refused, or that nobody answered.
pub(super) fn refused(error: &V2Error) -> Failure {
    failed(Exit::REFUSED, error)
}

/// The end of any other command.
pub(super) fn plainly(error: V2Error) -> Failure {
    Failure::bare(Exit::Error, error)
}

/// Of several endpoints each failure is told twice: in the message and in a line of its own.
fn failed(exit: Exit, error: &V2Error) -> Failure {
    let detail = match error {
        V2Error::Unavailable(_) => format!("\n{}", error.detail()),
        _ => String::new(),
    };
    Failure::bare(exit, format_args!("Error:  {error}{detail}"))
}

/// The end of a command whose arguments make no sense.
pub(super) fn bad_arguments(why: &str) -> Failure {
    Failure::bare(Exit::BadArguments, format_args!("Error:  {why}"))
}

/// Time for connecting, whatever the flags say.
const DIAL_TIMEOUT_MAX: Duration = Duration::from_secs(30);
