//! Conditions of a transaction as they are typed: `mod("key") > "0"`.

use crate::{
    cli::go_text,
    pb::etcdserverpb::{
        Compare,
        compare::{CompareResult, CompareTarget, TargetUnion},
    },
};

/// Reads one condition.
///
/// # Errors
/// What is wrong with it, in the words of etcd's client where that has any.
pub(super) fn parse(line: &str) -> Result<Compare, String> {
    let (target, rest) = line.split_once('(').ok_or_else(|| format!("malformed comparison: {line}"))?;
    let Scan { key, operator, value } = Scan::of(rest);
    let (Some(key), Some(operator), Some(value)) = (&key, &operator, &value) else {
        return Err(format!(
            "malformed comparison: {line}; got {target}({}) {} {}",
            go_text::quote(&key.unwrap_or_default()),
            operator.unwrap_or_default(),
            go_text::quote(&value.unwrap_or_default())
        ));
    };
    let (target, union) = of_target(line, target, value)?;
    Ok(Compare {
        result: of_operator(line, operator)?.into(),
        target: target.into(),
        key: key.clone().into(),
        target_union: Some(union),
        ..Compare::default()
    })
}

/// What was understood of the text behind the opening parenthesis, up to the first surprise.
#[derive(Default)]
struct Scan {
    key: Option<Vec<u8>>,
    operator: Option<String>,
    value: Option<Vec<u8>>,
}

impl Scan {
    /// Reads a quoted key, `)`, blanks, an operator, blanks and a quoted value; what follows does not matter.
    fn of(text: &str) -> Self {
        let mut scan = Self::default();
        let Some((key, rest)) = go_text::unquote(text.trim_start()) else { return scan };
        scan.key = Some(key);
        let Some(rest) = rest.strip_prefix(')').and_then(behind_blanks) else { return scan };
        let (operator, rest) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
        if operator.is_empty() {
            return scan;
        }
        scan.operator = Some(operator.to_owned());
        scan.value = behind_blanks(rest).and_then(go_text::unquote).map(|(value, _)| value);
        scan
    }
}

/// The text behind at least one blank.
fn behind_blanks(text: &str) -> Option<&str> {
    let trimmed = text.trim_start();
    (trimmed.len() < text.len()).then_some(trimmed)
}

fn of_target(line: &str, target: &str, value: &[u8]) -> Result<(CompareTarget, TargetUnion), String> {
    let number = |base| {
        let number = std::str::from_utf8(value).ok().and_then(|text| go_text::parse_int(text, base).ok());
        number.ok_or_else(|| format!("invalid txn compare request: {line}"))
    };
    Ok(match target {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        "c" | "create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        "m" | "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(value.to_vec().into())),
        // Leases are typed in hexadecimal everywhere else, too.
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        _ => return Err(format!("malformed comparison: {line} (unknown target {target})")),
    })
}

fn of_operator(line: &str, operator: &str) -> Result<CompareResult, String> {
    Ok(match operator {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        _ => return Err(format!("malformed comparison: {line} (unknown operator {operator})")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> (CompareTarget, CompareResult, Vec<u8>, TargetUnion) {
        let compare = parse(line).unwrap();
        (compare.target(), compare.result(), compare.key.to_vec(), compare.target_union.unwrap())
    }

    #[test]
    fn targets_have_short_and_long_names() {
        use {CompareResult::*, CompareTarget::*};
        let k = || b"k".to_vec();
        assert_eq!(parsed(r#"ver("k") = "1""#), (Version, Equal, k(), TargetUnion::Version(1)));
        assert_eq!(parsed(r#"create("k") != "-2""#), (Create, NotEqual, k(), TargetUnion::CreateRevision(-2)));
        assert_eq!(parsed(r#"m("k") > "3""#), (Mod, Greater, k(), TargetUnion::ModRevision(3)));
        assert_eq!(parsed(r#"value("k") < "a b""#), (Value, Less, k(), TargetUnion::Value("a b".into())));
        assert_eq!(parsed(r#"lease("k") = "1f""#), (Lease, Equal, k(), TargetUnion::Lease(31)));
    }

    #[test]
    fn blanks_around_the_operator_are_needed_and_may_be_many() {
        assert_eq!(parsed("mod(\"k\")   >\t\"0\" whatever").2, b"k");
        assert_eq!(parsed("mod(`k`) > `0`").2, b"k");
        let refused = |line| parse(line).unwrap_err();
        assert_eq!(refused(r#"mod("k")> "0""#), r#"malformed comparison: mod("k")> "0"; got mod("k")  """#);
        assert_eq!(refused(r#"mod("k") >"0""#), r#"malformed comparison: mod("k") >"0"; got mod("k") >"0" """#);
    }

    #[test]
    fn refusals_show_what_was_understood() {
        let refused = |line| parse(line).unwrap_err();
        assert_eq!(refused("x"), "malformed comparison: x");
        assert_eq!(refused(r#"mod(k) > "0""#), r#"malformed comparison: mod(k) > "0"; got mod("")  """#);
        assert_eq!(refused(r#"mod("k") = 0"#), r#"malformed comparison: mod("k") = 0; got mod("k") = """#);
        assert_eq!(refused(r#"zzz("k") > "0""#), r#"malformed comparison: zzz("k") > "0" (unknown target zzz)"#);
        assert_eq!(refused(r#"mod("k") > "a""#), r#"invalid txn compare request: mod("k") > "a""#);
        assert_eq!(refused(r#"mod("k") >= "1""#), r#"malformed comparison: mod("k") >= "1" (unknown operator >=)"#);
    }
}
