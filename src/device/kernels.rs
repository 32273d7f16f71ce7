//! Which of its kernels an operator uses. Operators name their problems and variants; this is the table between the two.

use std::collections::BTreeMap;

/// Variants by problem, as text: an operator's own default holds where the table says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelTable {
    /// A family of kernels that every problem takes where it has one, and which of the family's variants (counted around).
    pub forced: Option<(String, usize)>,
    /// The fastest variant by measurement, e.g. `forward 32>32 k3.3.3 s1.1.1 64.64.64 f32` -> `staged 4 8 1 8 16`.
    pub measured: BTreeMap<String, String>,
}

impl KernelTable {
    /// A table that forces `FAMILY` or `FAMILY:N`, such as `staged:1`.
    pub fn force(text: &str) -> Self {
        let (family, index) = text.split_once(':').unwrap_or((text, "0"));
        Self { forced: Some((family.to_string(), index.parse().unwrap_or(0))), ..Self::default() }
    }

    /// The one of `candidates` to use for `problem`; the first is the default.
    pub fn choose<V: Copy + ToString>(&self, problem: &str, candidates: &[V]) -> V {
        let found = match &self.forced {
            Some((family, index)) => {
                let of_family = |v: &&V| v.to_string().split(' ').next() == Some(family);
                let count = candidates.iter().filter(of_family).count();
                candidates.iter().filter(of_family).nth(index % count.max(1))
            }
            None => self.measured.get(problem).and_then(|w| candidates.iter().find(|v| v.to_string() == *w)),
        };
        found.copied().unwrap_or(candidates[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_family_goes_before_what_was_measured_and_that_before_the_default() {
        let candidates = ["direct", "staged 4 8", "staged 2 8"];
        let mut table = KernelTable::default();
        assert_eq!(table.choose("p", &candidates), "direct");
        table.measured.insert("p".into(), "staged 2 8".into());
        assert_eq!(table.choose("p", &candidates), "staged 2 8");
        assert_eq!(table.choose("q", &candidates), "direct");
        table.forced = KernelTable::force("staged").forced;
        assert_eq!(table.choose("p", &candidates), "staged 4 8");
        assert_eq!(KernelTable::force("staged:3").choose("p", &candidates), "staged 2 8");
        assert_eq!(KernelTable::force("tensor").choose("p", &candidates), "direct");
    }
}
