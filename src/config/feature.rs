//! What this version does not have yet, and what follows for the options that ask for it.
//!
//! The rule: an option whose absence weakens security or durability or changes the node's role refuses to start; any
//! other warns. A feature that arrives leaves [`Feature::absence`] and nothing else changes.

/// Something options can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// OpenTelemetry export.
    Tracing,
}

/// What the lack of a [`Feature`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// Starting without it would be unsafe or another role: the reason.
    Refuse(&'static str),
    /// Starting without it is safe: the reason.
    Warn(&'static str),
}

impl Feature {
    /// As a message names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tracing => "distributed tracing",
        }
    }

    /// What its lack means; `None` once it exists.
    pub fn absence(self) -> Option<Absence> {
        Some(match self {
            Self::Tracing => Absence::Warn("no spans are exported"),
        })
    }

    /// Whether asking for it refuses the configuration.
    pub fn refuses(self) -> bool {
        matches!(self.absence(), Some(Absence::Refuse(_)))
    }
}

/// How well an option is honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what etcd's does.
    Works,
    /// It is read and checked and means nothing here: the reason.
    NoEffect(&'static str),
    /// It works once a feature exists.
    Needs(Feature),
    /// It says how a feature works that other options ask for: without the feature there is nothing to say.
    Tunes(Feature),
}
