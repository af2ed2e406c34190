//! Discovery by a token of the v2 discovery service, or of any etcd that serves v2 keys.
//!
//! 1. The size is read, then the list. A cluster that is full is not registered with.
//! 2. The registration is written down here, then at the service, where nobody may have it yet (`prevExist=false`).
//! 3. Size and list are read again, and again after each change of the directory, until everybody is there.
//!
//! Other than etcd, which counts events, we read the list anew after each: so a registration that is removed while we wait
//! does not count, all members end with the same list, and a lost or repeated event does no harm. And what did not come in
//! time is asked for again, where etcd ends: a registration whose outcome is unknown is looked for and known for one's own.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use super::{
    Cause, Founders, Listed, Outcome, Own, Progress, Registration, Service, Watch,
    backoff::Backoff,
    census::{self, Census},
    http::{Answer, Question, Site, Unreachable},
    keys::{self, INDEX_CLEARED, KEY_NOT_FOUND, NODE_EXISTS, Node, Refusal, TOO_MANY_MEMBERS},
};

/// Time for a question that is answered at once (etcd's).
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Time until the list is read again although nothing was heard: the connection may be long dead. Services end a wait
/// after a minute.
const WATCH_LIMIT: Duration = Duration::from_mins(2);
/// Waits that end sooner than this, and with nothing new, are followed by a pause as long.
const PAUSE: Duration = Duration::from_secs(1);
/// How often in a row a service may list everybody but this member, which it has confirmed, as a follower that lags does.
const MISSING_MAX: usize = 10;

/// A token of a v2 discovery service.
pub struct V2<'w> {
    /// The token's URL as it was given; it is the cluster's token, too.
    token: String,
    site: Site,
    watch: Watch<'w>,
}

/// Why a question has no answer that helps.
enum Trouble {
    Unreachable(Unreachable),
    Refused(Refusal),
    Garbled(String),
}

/// What size and list tell.
struct Look {
    census: Census,
    size: usize,
    /// The service's index when it gave the list.
    index: u64,
}

impl<'w> V2<'w> {
    /// The token at `url`, reached by way of the HTTP proxy `proxy`.
    ///
    /// # Errors
    /// [`Cause::BadUrl`], [`Cause::BadProxy`].
    pub fn new(url: &str, proxy: Option<&str>, watch: Watch<'w>) -> Result<Self, Cause> {
        Ok(Self { token: url.to_owned(), site: Site::new(url, proxy)?, watch })
    }

    /// Registers `own` and waits until everybody is there, unless others have taken all places.
    ///
    /// # Errors
    /// [`Cause`]. What cannot be reached is asked again, for ever.
    pub async fn join(&self, own: &Own, registration: &mut Registration) -> Result<Outcome, Cause> {
        let service = Service::of(own, &self.token);
        if let Some(founders) = registration.founders(&service) {
            let listed = Listed::of_text(founders);
            return Ok(Outcome::Founders(listed.founders(own, &self.token)?));
        }
        (self.watch)(Progress::Asking(self.site.url.base()));
        if let Census::Full(listed) = self.look(Some(&service.member)).await?.census {
            return Ok(Outcome::Full(listed));
        }
        self.register(&service, registration).await?;
        let listed = match self.await_all(Some(&service.member)).await? {
            Census::Complete(listed) => listed,
            Census::Full(listed) => return Ok(Outcome::Full(listed)),
            Census::Waiting { .. } => return Err(Cause::OwnMissing(service.member)),
        };
        let founders: Founders = listed.founders(own, &self.token)?;
        registration.complete(&service, &listed.text())?;
        Ok(Outcome::Founders(founders))
    }

    /// Waits until everybody is there, without being one of them.
    ///
    /// # Errors
    /// As [`V2::join`].
    pub async fn members(&self) -> Result<Listed, Cause> {
        match self.await_all(None).await? {
            Census::Complete(listed) | Census::Full(listed) => Ok(listed),
            Census::Waiting { .. } => Err(Cause::OwnMissing(String::new())),
        }
    }

    /// Size and list, as often as it takes to get them.
    async fn look(&self, own: Option<&str>) -> Result<Look, Cause> {
        let mut backoff = Backoff::default();
        loop {
            match self.look_once(own).await? {
                Ok(look) => return Ok(look),
                Err(unreachable) => self.pause("cluster status check", &unreachable, &mut backoff).await,
            }
        }
    }

    async fn look_once(&self, own: Option<&str>) -> Result<Result<Look, Unreachable>, Cause> {
        let size = match self.get("_config/size", PLAIN, ANSWER_LIMIT).await {
            Ok((_, node)) => census::size(&node.value)?,
            Err(Trouble::Unreachable(why)) => return Ok(Err(why)),
            Err(Trouble::Refused(refusal)) if refusal.error_code == KEY_NOT_FOUND => {
                return Err(Cause::SizeNotFound(Some(refusal)));
            }
            Err(Trouble::Refused(refusal)) => return Err(refusal.into()),
            Err(Trouble::Garbled(why)) => return Err(Cause::BadEndpoint(why)),
        };
        match self.get("", PLAIN, ANSWER_LIMIT).await {
            Ok((index, node)) => Ok(Ok(Look { census: Census::of(node.registered(), size, own), size, index })),
            Err(Trouble::Unreachable(why)) => Ok(Err(why)),
            Err(Trouble::Refused(refusal)) => Err(refusal.into()),
            Err(Trouble::Garbled(why)) => Err(Cause::Garbled(why)),
        }
    }

    /// Writes the registration down, here and there.
    async fn register(&self, service: &Service, registration: &mut Registration) -> Result<(), Cause> {
        // From the first attempt on, a registration that is there already may be our own.
        let mut may_be_ours = registration.is_with(service);
        registration.begin(service)?;
        let mut backoff = Backoff::default();
        loop {
            let question = Question {
                method: Method::PUT,
                path: service.member.clone(),
                parameters: "prevExist=false".to_owned(),
                form: Some(format!("value={}", form_encoded(&service.entry))),
            };
            match self.ask(&question, ANSWER_LIMIT).await {
                Ok(_) => return Ok(()),
                Err(Trouble::Refused(refusal)) if refusal.error_code == NODE_EXISTS => {
                    if may_be_ours && self.is_ours(service).await? {
                        tracing::info!(member = service.member, "found the registration of an earlier start");
                        return Ok(());
                    }
                    return Err(Cause::DuplicateId { id: service.member.clone() });
                }
                // A race for the last place with more than the service keeps: the list says who has won it.
                Err(Trouble::Refused(refusal)) if refusal.error_code == TOO_MANY_MEMBERS => return Ok(()),
                Err(Trouble::Refused(refusal)) => return Err(refusal.into()),
                Err(Trouble::Garbled(why)) => return Err(Cause::Garbled(why)),
                Err(Trouble::Unreachable(why)) => {
                    may_be_ours = true;
                    self.pause("register member itself", &why, &mut backoff).await;
                }
            }
        }
    }

    async fn is_ours(&self, service: &Service) -> Result<bool, Cause> {
        let mut backoff = Backoff::default();
        loop {
            match self.get(&service.member, PLAIN, ANSWER_LIMIT).await {
                Ok((_, node)) => return Ok(node.value.trim() == service.entry),
                Err(Trouble::Unreachable(why)) => self.pause("register member itself", &why, &mut backoff).await,
                Err(Trouble::Refused(refusal)) => return Err(refusal.into()),
                Err(Trouble::Garbled(why)) => return Err(Cause::Garbled(why)),
            }
        }
    }

    /// Waits until nobody is missing. Comes back with [`Census::Waiting`] only if `own` stays away.
    async fn await_all(&self, own: Option<&str>) -> Result<Census, Cause> {
        let mut missing = 0;
        let mut before = None;
        loop {
            let Look { census, size, index } = self.look(own).await?;
            let Census::Waiting { found, own: is_there } = census else {
                tracing::info!(found_peers = size, "found all needed peers from discovery server");
                return Ok(census);
            };
            missing = if is_there || own.is_none() { 0 } else { missing + 1 };
            if missing > MISSING_MAX {
                return Ok(census);
            }
            if before != Some(found) {
                let url = self.site.url.base();
                let (found_peers, needed_peers) = (found, size - found);
                tracing::info!(url, found_peers, needed_peers, "found peers from discovery server; waiting for more");
            }
            (self.watch)(Progress::Waiting { found, size });
            let pause = if before.replace(found) == Some(found) { PAUSE } else { Duration::ZERO };
            self.await_change(index, if missing > 0 { PAUSE } else { WATCH_LIMIT }, pause).await?;
        }
    }

    /// Waits until something happens behind `index`, or may have; no longer than `limit`, and no shorter than `pause`.
    async fn await_change(&self, index: u64, limit: Duration, pause: Duration) -> Result<(), Cause> {
        let begun = Instant::now();
        let parameters = format!("recursive=true&wait=true&waitIndex={}", index.saturating_add(1));
        match self.wait("", &parameters, limit).await {
            Ok(()) | Err(Trouble::Unreachable(Unreachable::Deadline)) => {}
            Err(Trouble::Unreachable(why)) => {
                // Asking for the list will tell when it is back.
                self.pause("waiting for other nodes", &why, &mut Backoff::default()).await;
            }
            Err(Trouble::Refused(refusal)) if refusal.error_code == INDEX_CLEARED => {}
            Err(Trouble::Refused(refusal)) => return Err(refusal.into()),
            Err(Trouble::Garbled(why)) => return Err(Cause::Garbled(why)),
        }
        sleep(pause.saturating_sub(begun.elapsed())).await;
        Ok(())
    }

    async fn pause(&self, reason: &str, cause: &Unreachable, backoff: &mut Backoff) {
        let (pause, url) = (backoff.next(), self.site.url.base());
        tracing::warn!(url, reason, error = %cause, backoff = ?pause, "retry connecting to discovery service");
        (self.watch)(Progress::Retrying { whom: url, cause: cause.to_string(), pause });
        sleep(pause).await;
    }

    async fn get(&self, path: &str, parameters: &str, limit: Duration) -> Result<(u64, Node), Trouble> {
        let answer = self.ask(&get(path, parameters), limit).await?;
        let index = answer.headers.get("x-etcd-index").and_then(|index| index.to_str().ok()?.parse().ok());
        Ok((index.unwrap_or(0), keys::read(&answer.body).map_err(Trouble::Garbled)?))
    }

    /// As a wait is answered: with an event, or with nothing after a while.
    async fn wait(&self, path: &str, parameters: &str, limit: Duration) -> Result<(), Trouble> {
        let answer = self.ask(&get(path, parameters), limit).await?;
        if answer.body.trim_ascii().is_empty() {
            return Ok(());
        }
        keys::read(&answer.body).map(drop).map_err(Trouble::Garbled)
    }

    async fn ask(&self, question: &Question, limit: Duration) -> Result<Answer, Trouble> {
        let answer = self.site.ask(question, limit).await.map_err(Trouble::Unreachable)?;
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => Ok(answer),
            _ => Err(keys::read_refusal(&answer.body).map_or_else(Trouble::Garbled, Trouble::Refused)),
        }
    }
}

fn get(path: &str, parameters: &str) -> Question {
    Question { method: Method::GET, path: path.to_owned(), parameters: parameters.to_owned(), form: None }
}

/// `text` as a value of a form.
fn form_encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

/// The parameters etcd's client asks with.
const PLAIN: &str = "quorum=false&recursive=false&sorted=false";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_carry_any_text() {
        assert_eq!(form_encoded("a=http://h:1,é+ &"), "a%3Dhttp%3A%2F%2Fh%3A1%2C%C3%A9%2B%20%26");
    }
}
