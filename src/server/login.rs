//! Who callers are, and as whom the member itself asks.

use crate::{
    auth::{Identity, ROOT, Token, TokenKind, Unread, Unsigned},
    clock::{Clock as _, SystemChance},
    types::Rejection,
};

use super::{Handle, ServerError};

impl Handle {
    /// Whom `token` stands for, whose lifetime begins anew. Another member may have given it away in an entry that this one
    /// has not applied yet: whatever was acknowledged before this call is applied before a token is unknown.
    ///
    /// # Errors
    /// [`Rejection::InvalidAuthToken`]; as [`Handle::read_index`].
    pub async fn recognise(&self, token: &str) -> Result<Identity, ServerError> {
        if let TokenKind::Jwt(jwt) = &self.shared.options.tokens {
            return Ok(jwt.read(token, self.shared.clock.wall()).map_err(refused)?);
        }
        if let Some(identity) = self.look_up(token) {
            return Ok(identity);
        }
        if Token::index(token).is_some_and(|before| before >= self.shared.applied()) {
            self.read_index().await?;
        }
        self.look_up(token).ok_or_else(|| Rejection::InvalidAuthToken.into())
    }

    fn look_up(&self, token: &str) -> Option<Identity> {
        let state = self.published();
        self.shared.tokens().recognise(token, &state.auth, self.shared.now())
    }

    /// What an entry that logs somebody in has to bring along.
    pub fn token_prefix(&self) -> String {
        self.shared.tokens().prefix(&mut SystemChance)
    }

    /// What `user` is told whom an entry has logged in and who was assigned `token` by it.
    ///
    /// # Errors
    /// [`Rejection::AuthFailed`] if this member makes no tokens, [`Rejection::TokenVerifyOnly`] if it only checks them.
    pub fn issue(&self, user: &str, token: Token) -> Result<Token, Rejection> {
        match &self.shared.options.tokens {
            TokenKind::None => Err(Rejection::AuthFailed),
            TokenKind::Simple(_) => Ok(token),
            TokenKind::Jwt(jwt) => {
                let issued = jwt.issue(user, self.published().auth.revision(), self.shared.clock.wall());
                issued.map(Token::signed).map_err(|unsigned| match unsigned {
                    Unsigned::VerifyOnly => Rejection::TokenVerifyOnly,
                    Unsigned::Signing => Rejection::AuthFailed,
                })
            }
        }
    }

    /// As whom this member asks for what nobody has asked it for, such as the end of a lease.
    pub fn own_identity(&self) -> Identity {
        let auth = &self.published().auth;
        if auth.enabled() { Identity { user: ROOT.to_owned(), revision: auth.revision() } } else { Identity::default() }
    }
}

fn refused(why: Unread) -> Rejection {
    tracing::warn!(error = %why, "failed to parse a JWT token");
    Rejection::InvalidAuthToken
}
