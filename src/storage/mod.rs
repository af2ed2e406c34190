//! The replicated state's engine: ordered bytes, atomic batches, snapshots.
