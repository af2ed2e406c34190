//! A request that is under way to an endpoint.

use std::{sync::Arc, time::Duration};

use super::{Endpoint, Endpoints, driver::now};

/// Who asked and leaves without an answer after as long, its endpoint is silent. Members answer within milliseconds, and
/// clients that give up sooner are only impatient.
const SILENCE: Duration = Duration::from_secs(1);

/// A request that has no answer yet. Dropped so, because its client left or its time is over, it tells that the endpoint is
/// silent: a process that stands still breaks no connection.
#[derive(Debug)]
#[must_use]
pub struct Asked<'e> {
    endpoints: &'e Endpoints,
    endpoint: Arc<Endpoint>,
    since: Duration,
    patience: Duration,
    is_open: bool,
}

impl<'e> Asked<'e> {
    pub(super) fn new(endpoints: &'e Endpoints, endpoint: &Arc<Endpoint>, since: Duration) -> Self {
        Self { endpoints, endpoint: Arc::clone(endpoint), since, patience: SILENCE, is_open: true }
    }

    /// One that tells nothing when it is dropped: its answer may rightly take any time.
    pub fn without_limit(mut self) -> Self {
        self.patience = Duration::MAX;
        self
    }

    /// The endpoint answered.
    pub fn answered(mut self) {
        self.is_open = false;
        self.endpoints.report_answered(&self.endpoint);
    }

    /// It ended otherwise, which is told elsewhere.
    pub fn ended(mut self) {
        self.is_open = false;
    }

    /// Whoever asked waits on, and has waited for long.
    pub fn overdue(&self) {
        self.endpoints.report_silent(&self.endpoint, self.since);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.is_open && now().saturating_sub(self.since) >= self.patience {
            self.overdue();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::endpoints::Recovery;

    fn asked(endpoints: &Endpoints, patience: Duration) -> Asked<'_> {
        let mut asked = endpoints.ask(&endpoints.all()[0]);
        asked.patience = patience;
        asked
    }

    fn first(endpoints: &Endpoints) -> String {
        endpoints.available()[0].address.clone()
    }

    #[test]
    fn who_leaves_after_a_while_without_an_answer_tells_it() {
        let endpoints = Endpoints::new(Recovery::AfterWait(Duration::from_secs(5)));
        endpoints.replace(&[Endpoint::new("a"), Endpoint::new("b")]);
        drop(asked(&endpoints, Duration::from_hours(1)));
        asked(&endpoints, Duration::ZERO).ended();
        asked(&endpoints, Duration::ZERO).answered();
        assert_eq!(first(&endpoints), "a");
        drop(asked(&endpoints, Duration::ZERO));
        assert_eq!(first(&endpoints), "b");
        asked(&endpoints, Duration::ZERO).answered();
        assert_eq!(first(&endpoints), "a");
        asked(&endpoints, Duration::from_hours(1)).overdue();
        assert_eq!(first(&endpoints), "b");
    }
}
