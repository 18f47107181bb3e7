//! Finds the name that a misspelt word may mean.

/// The name most similar to `word`, if it is similar enough for a typing error.
pub(super) fn nearest(word: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let (distance, name) = names.map(|name| (strsim::levenshtein(word, &name), name)).min()?;
    (distance <= 1 + name.len() / 5).then_some(name)
}
