//! Who callers are, and as whom the member itself asks.

use std::{num::NonZero, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    auth::{Identity, Jwt, ROOT, Token, TokenKind, Unread, Unsigned},
    clock::{Clock as _, Sparingly, SystemChance},
    metrics,
    types::Rejection,
};

use super::{Handle, ServerError};

/// Turns at making and checking signatures: half of the processors, so that whoever shows forged ones leaves the other half
/// to those whose tokens are known.
pub(super) fn signature_turns() -> Arc<Semaphore> {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    Arc::new(Semaphore::new((processors / 2).max(1)))
}

impl Handle {
    /// Whom `token` stands for, whose lifetime begins anew. Another member may have given it away in an entry that this one
    /// has not applied yet: whatever was acknowledged before this call is applied before a token is unknown.
    ///
    /// # Errors
    /// [`Rejection::InvalidAuthToken`]; as [`Handle::read_index`].
    pub async fn recognise(&self, token: &str) -> Result<Identity, ServerError> {
        if let TokenKind::Jwt(jwt) = &self.shared.options.tokens {
            return Ok(self.read_signed(jwt, token).await?.map_err(refused)?);
        }
        if let Some(identity) = self.look_up(token) {
            return Ok(identity);
        }
        if Token::index(token).is_some_and(|before| before >= self.shared.applied()) {
            self.read_index().await?;
        }
        self.look_up(token).ok_or_else(|| Rejection::InvalidAuthToken.into())
    }

    /// Whom `token` stands for, as far as that is known without a wait or a signature to check: for who tells of a request that
    /// was refused, which is no use of the token.
    pub fn recognise_known(&self, token: &str) -> Option<Identity> {
        if let TokenKind::Jwt(jwt) = &self.shared.options.tokens {
            return jwt.read_again(token, self.shared.clock.wall())?.ok();
        }
        self.shared.tokens().known(token, &self.published().auth, self.shared.now())
    }

    async fn read_signed(&self, jwt: &Arc<Jwt>, token: &str) -> Result<Result<Identity, Unread>, Rejection> {
        let now = self.shared.clock.wall();
        if let Some(read) = jwt.read_again(token, now) {
            return Ok(read);
        }
        let (jwt, token) = (Arc::clone(jwt), token.to_owned());
        self.in_turn(move || jwt.read(&token, now)).await
    }

    /// Runs what takes milliseconds of a processor away from the tasks of others, in its turn.
    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Rejection> {
        let turn = Arc::clone(&self.shared.signature_turns).acquire_owned().await.map_err(|_| Rejection::Stopped)?;
        let work = move || {
            let _turn = turn;
            work()
        };
        spawn_blocking(work).await.map_err(|_| Rejection::Stopped)
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
    pub async fn issue(&self, user: &str, token: Token) -> Result<Token, Rejection> {
        match &self.shared.options.tokens {
            TokenKind::None => Err(Rejection::AuthFailed),
            TokenKind::Simple(_) => Ok(token),
            TokenKind::Jwt(jwt) => self.sign(jwt, user).await,
        }
    }

    async fn sign(&self, jwt: &Arc<Jwt>, user: &str) -> Result<Token, Rejection> {
        let (revision, now) = (self.published().auth.revision(), self.shared.clock.wall());
        if let Some(token) = jwt.issue_again(user, revision, now) {
            return Ok(Token::signed(token));
        }
        let (jwt, user) = (Arc::clone(jwt), user.to_owned());
        let issued = self.in_turn(move || jwt.issue(&user, revision, now)).await?;
        issued.map(Token::signed).map_err(|unsigned| match unsigned {
            Unsigned::VerifyOnly => Rejection::TokenVerifyOnly,
            Unsigned::Signing => Rejection::AuthFailed,
        })
    }

    /// As whom this member asks for what nobody has asked it for, such as the end of a lease.
    pub fn own_identity(&self) -> Identity {
        let auth = &self.published().auth;
        if auth.enabled() { Identity { user: ROOT.to_owned(), revision: auth.revision() } } else { Identity::default() }
    }
}

/// So often at most the log is told of a token that is not taken. etcd tells of each.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(1);

fn refused(why: Unread) -> Rejection {
    static TOLD: Sparingly = Sparingly::every(REFUSAL_INTERVAL);
    metrics::TOKENS_REFUSED.with([why.reason()]).inc();
    if let Some(suppressed) = TOLD.turn() {
        let suppressed = (suppressed > 0).then_some(suppressed);
        tracing::warn!(error = %why, suppressed, "failed to parse a JWT token");
    }
    Rejection::InvalidAuthToken
}
