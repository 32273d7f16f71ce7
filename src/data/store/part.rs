//! How several runs share an input among them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Journal of a run of the whole input, in the store's folder.
pub(super) const JOURNAL: &str = "journal.jsonl";
/// Folder of the journals of runs that share an input.
pub(super) const PARTS: &str = "parts";

/// One of `of` runs that share an input among them: it prepares every `of`-th scan, from scan `index` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which of them it is, counted from 0.
    pub index: usize,
    /// How many there are.
    pub of: usize,
}

impl Shard {
    /// A run that prepares every scan.
    pub const ALL: Shard = Shard { index: 0, of: 1 };

    /// Whether scan `n` of the list belongs to it.
    pub fn has(self, n: usize) -> bool {
        n % self.of == self.index
    }

    pub(super) fn is_all(self) -> bool {
        self.of == 1
    }

    pub(super) fn journal(self, store: &Path) -> PathBuf {
        if self.is_all() { store.join(JOURNAL) } else { store.join(PARTS).join(self.file()) }
    }

    pub(super) fn file(self) -> String {
        format!("{}-of-{}.jsonl", self.index, self.of)
    }

    pub(super) fn siblings(self) -> impl Iterator<Item = Shard> {
        (0..self.of).map(move |index| Shard { index, ..self })
    }
}

/// Every part looks at the journals of all others.
const MOST_PARTS: usize = 1000;

impl FromStr for Shard {
    type Err = String;

    /// `0/4` is the first of four.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of && of <= MOST_PARTS => Ok(Self { index, of }),
            _ => {
                Err(format!("write K/N with K from 0 to N-1, such as 0/4 for the first of four; N up to {MOST_PARTS}"))
            }
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read() {
        assert_eq!("3/4".parse(), Ok(Shard { index: 3, of: 4 }));
        for wrong in ["4/4", "1", "-1/2", "0/0", "a/b", ""] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        let parts: Vec<Vec<usize>> =
            Shard { index: 0, of: 3 }.siblings().map(|p| (0..7).filter(|&n| p.has(n)).collect()).collect();
        assert_eq!(parts, [vec![0, 3, 6], vec![1, 4], vec![2, 5]]);
    }
}
