//! What this version has not got yet. Comparisons leave it out, and `missing_features_refuse_by_name` holds us to a
//! refusal that says so. Whoever builds a feature deletes its line here, and the comparisons include it.

/// A part of etcd that whole comparisons stand or fall with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Switching authentication on: tokens, and checks of every call.
    Auth,
    /// Adding, removing, changing members.
    Members,
    /// Snapshots for clients.
    Snapshot,
    /// Downgrades.
    Downgrade,
}

/// How every refusal of a missing feature begins.
pub const REFUSAL: &str = "quorate: this version ";

/// What is missing.
pub const MISSING: &[Feature] = &[];

/// Whether the daemon under test has `feature`.
pub fn built(feature: Feature) -> bool {
    !MISSING.contains(&feature)
}
