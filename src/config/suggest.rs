//! "Did you mean": the known name closest to a misspelt one.

/// How alike two names must be, from 0 (nothing) to 1 (equal), before one is offered for the other.
const LIKENESS_MIN: f64 = 0.75;

/// The known name most like `word`, if any is alike enough.
pub(super) fn closest<'n>(word: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let as_long = |name: &&str| name.len().abs_diff(word.len()) * 4 <= name.len().max(word.len());
    let scored =
        known.into_iter().filter(as_long).map(|name| (strsim::normalized_damerau_levenshtein(word, name), name));
    let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.filter(|(score, _)| *score >= LIKENESS_MIN).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_offered() {
        let names = ["name", "election-timeout", "snapshot-count"];
        assert_eq!(closest("snapshot-counter", names), Some("snapshot-count"));
        assert_eq!(closest("eletion-timeout", names), Some("election-timeout"));
        assert_eq!(closest("colour", names), None);
    }
}
