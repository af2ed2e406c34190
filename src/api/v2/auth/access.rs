//! Who may do what. Every request of keys and members is asked about here before it is carried out.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header::AUTHORIZATION},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{GUEST, records::Records, roles::Use, users::User};
use crate::{
    api::{Api, Remote, audit::Entry},
    auth::Login,
};

/// Who a request says it comes from.
#[derive(Debug, PartialEq, Eq)]
enum Caller {
    /// It does not say.
    Nobody,
    /// What it says cannot be understood.
    Unclear,
    /// A name and a password.
    Named(String, String),
}

/// Who asks.
pub(in crate::api::v2) struct Asker {
    caller: Caller,
    /// From where; nothing on a socket file.
    from: Option<IpAddr>,
    /// What the audit log is told of the request.
    entry: Option<Arc<Entry>>,
}

impl Asker {
    /// Who `request` says it comes from.
    pub(in crate::api::v2) fn of(request: &Request) -> Self {
        let from = request.extensions().get::<Remote>().map(|Remote(from)| from.ip());
        Self { caller: caller(request.headers()), from, entry: request.extensions().get().cloned() }
    }

    /// It says so, and is to be believed or not.
    fn claims(&self, user: &str) {
        if let Some(entry) = &self.entry {
            entry.claimed(user);
        }
    }

    /// It is true.
    fn is_recognised(&self, user: &str) {
        if let Some(entry) = &self.entry {
            entry.recognised(user);
        }
    }
}

/// Whether a request of `asker` may use the keys at `key`, which is the path behind `/v2/keys` as the client wrote
/// it, escapes undone: `GET` and `HEAD` read, everything else writes. `recursive` asks for everything below as well.
pub(in crate::api::v2) async fn may_use_keys(
    api: &Api,
    asker: &Asker,
    method: &Method,
    key: &[u8],
    recursive: bool,
) -> bool {
    let records = Records::of(api);
    if !records.enabled().await {
        return is_open(api, asker).await;
    }
    let what = if matches!(*method, Method::GET | Method::HEAD) { Use::Read } else { Use::Write };
    let user = match &asker.caller {
        // etcd asks no star of guests, even where everything below is asked for.
        Caller::Nobody => return records.role(GUEST, false).await.is_ok_and(|role| role.may(what, key, false)),
        _ => recognised(&records, asker).await,
    };
    let Some(user) = user else { return false };
    for role in user.roles() {
        if records.role(role, false).await.is_ok_and(|role| role.may(what, key, recursive)) {
            return true;
        }
    }
    tracing::warn!(user = user.name, "a user of the v2 API may not use a key");
    false
}

/// Whether a request of `asker` may change members.
pub(in crate::api::v2) async fn may_change_members(api: &Api, asker: &Asker) -> bool {
    is_root(api, asker).await
}

/// Whether a request of `asker` may do everything.
pub(super) async fn is_root(api: &Api, asker: &Asker) -> bool {
    let records = Records::of(api);
    if !records.enabled().await {
        return is_open(api, asker).await;
    }
    recognised(&records, asker).await.is_some_and(|user| user.is_root())
}

/// Whether a request of `asker` may do everything while there are no users of this API. Where those of the other one
/// are asked for, nobody but their root may: else whoever has no password could fill the disk that both share.
async fn is_open(api: &Api, asker: &Asker) -> bool {
    let known = Arc::clone(&api.server().published().auth);
    if !known.enabled() {
        return true;
    }
    let Caller::Named(name, password) = &asker.caller else { return false };
    asker.claims(name);
    let hash = if let Login::Password(hash) = known.login(name) { Some(hash) } else { None };
    let fits = Records::of(api).passwords().fits(asker.from, name, password.clone(), hash).await.unwrap_or(false);
    if fits {
        asker.is_recognised(name);
    }
    fits && known.has_role(name, ROOT)
}

/// The role of the other API's users who may do everything.
const ROOT: &str = "root";

/// The user who asks, if the password is right.
async fn recognised(records: &Records<'_>, asker: &Asker) -> Option<User> {
    let Caller::Named(name, password) = &asker.caller else { return None };
    asker.claims(name);
    let user = records.user(name, false).await.ok();
    let hash = user.as_ref().map(|user| user.password.clone());
    // Who is no user hears so as late as who does not know his own password.
    let fits = records.passwords().fits(asker.from, name, password.clone(), hash).await.unwrap_or(false);
    let user = user?;
    if !fits {
        tracing::warn!(user = user.name, "wrong password for a user of the v2 API");
        return None;
    }
    asker.is_recognised(&user.name);
    Some(user)
}

/// Basic authentication as Go reads it.
fn caller(headers: &HeaderMap) -> Caller {
    const SCHEME: &str = "Basic ";
    let Some(header) = headers.get(AUTHORIZATION).filter(|header| !header.is_empty()) else { return Caller::Nobody };
    let named = || {
        let (scheme, text) = header.to_str().ok()?.split_at_checked(SCHEME.len())?;
        let bytes = STANDARD.decode(text).ok().filter(|_| scheme.eq_ignore_ascii_case(SCHEME))?;
        let text = String::from_utf8(bytes).ok()?;
        let (name, password) = text.split_once(':')?;
        Some(Caller::Named(name.to_owned(), password.to_owned()))
    };
    named().unwrap_or(Caller::Unclear)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(header: &'static str) -> Caller {
        caller(&HeaderMap::from_iter([(AUTHORIZATION, header.parse().unwrap())]))
    }

    #[test]
    fn names_and_passwords_are_read_as_go_does() {
        let named = |name: &str, password: &str| Caller::Named(name.to_owned(), password.to_owned());
        assert_eq!(said("Basic cm9vdDpzZWNyZXQ="), named("root", "secret"));
        assert_eq!(said("bASIC cm9vdDpwYXNzOndvcmQ="), named("root", "pass:word"));
        assert_eq!(said("Basic Og=="), named("", ""));
        for unclear in ["Basic", "Basic !!!", "Bearer cm9vdDpzZWNyZXQ=", "Basic cm9vdA==", "Basic cm9vdDpzZWNyZXQ"] {
            assert_eq!(said(unclear), Caller::Unclear, "{unclear}");
        }
        assert_eq!(said(""), Caller::Nobody);
        assert_eq!(caller(&HeaderMap::new()), Caller::Nobody);
    }
}
