//! What an error says to people.

use std::{error, iter};

/// The error and its causes, outermost first, on one line.
pub fn with_causes(error: &dyn error::Error) -> String {
    let causes = iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    enum Trouble {
        #[error("{0}")]
        Told(&'static str),
        #[error("reading a")]
        Read(#[source] Box<Trouble>),
        #[error(transparent)]
        Io(#[from] io::Error),
    }

    #[test]
    fn every_cause_is_told_once() {
        let told = |error| with_causes(&Trouble::Read(Box::new(error)));
        assert_eq!(told(Trouble::Told("no")), "reading a: no");
        assert_eq!(told(io::Error::other("no").into()), "reading a: no");
        assert_eq!(told(Trouble::Read(Box::new(Trouble::Told("no")))), "reading a: reading a: no");
    }
}
