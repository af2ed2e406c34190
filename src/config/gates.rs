//! Feature gates of etcd 3.6 and later: names, stages, defaults, and the rules that join them.

use std::collections::BTreeMap;

use super::{FeatureGates, feature::Support, go};

/// How settled a gate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless chosen.
    Alpha,
    /// On unless chosen.
    Beta,
}

impl Stage {
    /// The default of its gates.
    pub fn is_on(self) -> bool {
        self == Self::Beta
    }

    /// As the metric `etcd_server_feature_enabled` labels it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
        }
    }
}

/// One gate.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// etcd's name.
    pub name: &'static str,
    /// Its stage, which decides its default.
    pub stage: Stage,
    /// How well it is honoured when switched away from its default.
    pub support: Support,
    /// Where [`FeatureGates`] keeps it.
    field: fn(&mut FeatureGates) -> &mut bool,
}

const NO_DEFRAG: Support = Support::NoEffect("defragmentation does not interrupt service");

/// All gates, by name.
pub const GATES: [Gate; 9] = [
    gate("CompactHashCheck", Stage::Alpha, Support::Works, |gates| &mut gates.compact_hash_check),
    gate("FastLeaseKeepAlive", Stage::Beta, Support::NoEffect("renewals never wait for entries"), |gates| {
        &mut gates.fast_lease_keep_alive
    }),
    gate("InitialCorruptCheck", Stage::Alpha, Support::Works, |gates| &mut gates.initial_corrupt_check),
    gate("LeaseCheckpoint", Stage::Alpha, Support::Works, |gates| &mut gates.lease_checkpoint),
    gate("LeaseCheckpointPersist", Stage::Alpha, Support::Works, |gates| &mut gates.lease_checkpoint_persist),
    gate("PriorityRequest", Stage::Alpha, Support::NoEffect("urgent requests never queue behind others"), |gates| {
        &mut gates.priority_request
    }),
    gate("SetMemberLocalAddr", Stage::Alpha, Support::NoEffect("the system chooses the local address"), |gates| {
        &mut gates.set_member_local_addr
    }),
    gate("StopGRPCServiceOnDefrag", Stage::Alpha, NO_DEFRAG, |gates| &mut gates.stop_grpc_service_on_defrag),
    gate("TxnModeWriteWithSharedBuffer", Stage::Beta, Support::NoEffect("there is no such buffer"), |gates| {
        &mut gates.txn_mode_write_with_shared_buffer
    }),
];

const fn gate(name: &'static str, stage: Stage, support: Support, field: fn(&mut FeatureGates) -> &mut bool) -> Gate {
    Gate { name, stage, support, field }
}

/// What stands for all gates of a stage.
const STAGES: [&str; 2] = ["AllAlpha", "AllBeta"];

/// Everything that can be switched: gates and whole stages.
pub fn names() -> impl Iterator<Item = &'static str> {
    GATES.iter().map(|gate| gate.name).chain(STAGES)
}

/// The gate called `name`.
pub fn find(name: &str) -> Option<&'static Gate> {
    GATES.iter().find(|gate| gate.name == name)
}

/// The gates with their states, as `etcd_server_feature_enabled` exports them.
pub fn states(gates: &FeatureGates) -> Vec<(&'static Gate, bool)> {
    let mut gates = gates.clone();
    GATES.iter().map(|gate| (gate, *(gate.field)(&mut gates))).collect()
}

/// Reads `Name=bool,…` into sorted `Name=bool` words; of two settings of one gate the later counts.
///
/// # Errors
/// etcd's text.
pub(super) fn parse(text: &str) -> Result<Vec<String>, String> {
    let mut chosen = BTreeMap::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (name, value) = item.split_once('=').ok_or_else(|| format!("missing bool value for {item}"))?;
        let (name, value) = (name.trim(), value.trim());
        let on = go::parse_bool(value).ok_or_else(|| {
            let why = go::quote(value);
            format!("invalid value of {name}={value}, err: strconv.ParseBool: parsing {why}: invalid syntax")
        })?;
        if !names().any(|known| known == name) {
            return Err(format!("unrecognized feature gate: {name}"));
        }
        chosen.insert(name.to_owned(), on);
    }
    Ok(chosen.into_iter().map(|(name, on)| format!("{name}={on}")).collect())
}

/// The effective gates: stages first, then what names them.
pub(super) fn resolve(chosen: &BTreeMap<String, bool>) -> FeatureGates {
    let mut gates = FeatureGates {
        stop_grpc_service_on_defrag: false,
        initial_corrupt_check: false,
        compact_hash_check: false,
        txn_mode_write_with_shared_buffer: false,
        lease_checkpoint: false,
        lease_checkpoint_persist: false,
        set_member_local_addr: false,
        fast_lease_keep_alive: false,
        priority_request: false,
    };
    for gate in &GATES {
        let stage = if gate.stage == Stage::Alpha { "AllAlpha" } else { "AllBeta" };
        let of_stage = chosen.get(stage).copied().unwrap_or(gate.stage.is_on());
        *(gate.field)(&mut gates) = chosen.get(gate.name).copied().unwrap_or(of_stage);
    }
    gates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_refused_in_etcds_words() {
        for (text, why) in [
            ("Foo=true", "unrecognized feature gate: Foo"),
            ("AllAlpha", "missing bool value for AllAlpha"),
            ("AllAlpha=x", "invalid value of AllAlpha=x, err: strconv.ParseBool: parsing \"x\": invalid syntax"),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()));
        }
    }

    #[test]
    fn a_named_gate_beats_its_stage() {
        let words = [("AllAlpha", true), ("LeaseCheckpointPersist", false), ("FastLeaseKeepAlive", false)];
        let gates = resolve(&words.into_iter().map(|(name, on)| (name.to_owned(), on)).collect());
        assert!(gates.lease_checkpoint && gates.initial_corrupt_check && !gates.lease_checkpoint_persist);
        assert!(!gates.fast_lease_keep_alive && gates.txn_mode_write_with_shared_buffer);
    }

    #[test]
    fn names_are_sorted_and_the_later_counts() {
        let words = parse("LeaseCheckpoint=true, AllBeta=1,LeaseCheckpoint=f,").expect("valid");
        assert_eq!(words, ["AllBeta=true", "LeaseCheckpoint=false"]);
        assert!(GATES.is_sorted_by_key(|gate| gate.name));
    }
}
