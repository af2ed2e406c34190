//! Who is calling: passwords become tokens, tokens travel with every call.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use super::{Client, ClientError};
use crate::pb::etcdserverpb::AuthenticateRequest;

/// Who is calling.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody in particular; enough while authentication is off.
    Nobody,
    /// A user, exchanged for a token when connecting and again whenever the token is refused.
    Password {
        /// The user's name.
        user: String,
        /// The password; an empty one counts as none.
        password: String,
    },
    /// A token made elsewhere, sent as it is.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    /// Secrets stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Password { user, .. } => write!(f, "Password({user})"),
            Self::Token(_) => f.write_str("Token"),
        }
    }
}

/// The credentials and the token that stands for them now.
#[derive(Debug)]
pub(super) struct Auth {
    credentials: Credentials,
    token: RwLock<Option<MetadataValue<Ascii>>>,
}

impl Auth {
    pub(super) fn new(credentials: Credentials) -> Result<Self, ClientError> {
        let token = match &credentials {
            Credentials::Token(token) => Some(header(token)?),
            Credentials::Nobody | Credentials::Password { .. } => None,
        };
        Ok(Self { credentials, token: RwLock::new(token) })
    }

    /// Adds the token, if there is one, to the headers of a call.
    pub(super) fn sign(&self, metadata: &mut MetadataMap) {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token.as_ref() {
            metadata.insert(TOKEN, token.clone());
        }
    }

    /// Whether `error` says that the token was not accepted and a new one can be had.
    ///
    /// A missing name counts only with a password at hand: the member may have lost the token.
    pub(super) fn can_renew_after(&self, error: &ClientError) -> bool {
        let stale = error.is_refusal("etcdserver: invalid auth token")
            || error.is_refusal("etcdserver: revision of auth store is old");
        match &self.credentials {
            Credentials::Token(_) => false,
            Credentials::Nobody => stale,
            Credentials::Password { .. } => stale || error.is_refusal("etcdserver: user name is empty"),
        }
    }

    fn set(&self, token: Option<MetadataValue<Ascii>>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

impl Client {
    /// Exchanges the password, if there is one, for a new token. A cluster without authentication needs none.
    pub(super) async fn authenticate(&self, within: Option<Duration>) -> Result<(), ClientError> {
        let Credentials::Password { user, password } = &self.inner.auth.credentials else { return Ok(()) };
        if user.is_empty() || password.is_empty() {
            return Ok(());
        }
        let request = AuthenticateRequest { name: user.clone(), password: password.clone() };
        match Box::pin(self.call_unrenewed(request, within)).await {
            Ok(answer) => self.inner.auth.set(Some(header(&answer.token)?)),
            Err(error) if error.is_refusal("etcdserver: authentication is not enabled") => self.inner.auth.set(None),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn header(token: &str) -> Result<MetadataValue<Ascii>, ClientError> {
    token.parse().map_err(|_| ClientError::BadToken)
}

/// The header that carries the token.
const TOKEN: &str = "token";

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn auth(credentials: Credentials) -> Auth {
        Auth::new(credentials).unwrap()
    }

    fn password() -> Auth {
        auth(Credentials::Password { user: "u".to_owned(), password: "p".to_owned() })
    }

    #[test]
    fn only_a_password_renews_a_lost_name() {
        let lost = ClientError::from_parts(Code::InvalidArgument, "etcdserver: user name is empty");
        assert!(password().can_renew_after(&lost));
        assert!(!auth(Credentials::Nobody).can_renew_after(&lost));
    }

    #[test]
    fn a_token_made_elsewhere_is_never_renewed() {
        let stale = ClientError::from_parts(Code::Unauthenticated, "etcdserver: invalid auth token");
        assert!(password().can_renew_after(&stale));
        assert!(!auth(Credentials::Token("t".to_owned())).can_renew_after(&stale));
    }

    #[test]
    fn tokens_travel_and_stay_out_of_logs() {
        let auth = auth(Credentials::Token("secret".to_owned()));
        let mut metadata = MetadataMap::new();
        auth.sign(&mut metadata);
        assert_eq!(metadata.get(TOKEN).unwrap(), "secret");
        assert!(!format!("{:?}", auth.credentials).contains("secret"));
    }
}
