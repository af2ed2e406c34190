//! `log-rotation-config-json`.

use serde::Deserialize;

use super::Rotation;

/// Size of a file when none is given, in MB.
const SIZE_MB_DEFAULT: u64 = 100;

/// The JSON object as etcd's users write it. Unknown keys do not count there.
#[derive(Deserialize)]
struct RotationJson {
    #[serde(default)]
    maxsize: u64,
    #[serde(default)]
    maxage: u64,
    #[serde(default)]
    maxbackups: u64,
    /// Files that are set aside have numbers, and no time in their names.
    #[serde(default, rename = "localtime")]
    _localtime: bool,
    #[serde(default)]
    compress: bool,
}

/// Reads the object.
///
/// # Errors
/// etcd's text; what follows its colon is ours.
pub(super) fn parse(text: &str) -> Result<Rotation, String> {
    let json: RotationJson = serde_json::from_str(text).map_err(|error| {
        let kind =
            if error.is_data() { "invalid log rotation config" } else { "improperly formatted log rotation config" };
        format!("{kind}: {error}")
    })?;
    Ok(Rotation {
        size_mb_max: if json.maxsize == 0 { SIZE_MB_DEFAULT } else { json.maxsize },
        age_days_max: json.maxage,
        backups_max: json.maxbackups,
        compress: json.compress,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_zero_sizes_are_the_default() {
        let rotation = parse("{\"maxage\": 3, \"compress\": true, \"other\": 1}").expect("valid");
        assert_eq!((rotation.size_mb_max, rotation.age_days_max, rotation.compress), (100, 3, true));
    }

    #[test]
    fn form_and_types_are_told_apart() {
        assert!(parse("x").expect_err("no JSON").starts_with("improperly formatted log rotation config: "));
        assert!(parse("{\"maxsize\": \"x\"}").expect_err("no number").starts_with("invalid log rotation config: "));
    }
}
