//! Which of its kernels an operator uses. Operators name their problems and variants; this is the table between the two, and
//! its file, in which every adapter and driver has a table of its own.

use super::AdapterFacts;
use crate::base::{Error, Result, write_atomic};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Tables by adapter and driver.
type Tables = BTreeMap<String, BTreeMap<String, String>>;

/// Variants by problem, as text: an operator's own default holds where the table says nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelTable {
    /// A family of kernels that every problem takes where it has one, and which of the family's variants (counted around).
    pub forced: Option<(String, usize)>,
    /// The fastest variant by measurement, e.g. `forward 32>32 k3.3.3 s1.1.1 64.64.64 f32` -> `staged 4 8 1 8 16`.
    pub measured: BTreeMap<String, String>,
    /// Families that gave wrong results on this device.
    pub excluded: BTreeSet<String>,
}

/// A family of kernels beside the direct ones, on a device.
#[derive(Clone, Debug, serde::Serialize)]
pub struct FamilyCheck {
    /// The family.
    pub family: String,
    /// What both computed.
    pub problem: String,
    /// The kernel of the family.
    pub variant: String,
    /// Relative L2 distance of the results.
    pub deviation: f64,
    /// Whether that is what sums in another order do.
    pub agrees: bool,
    /// How long it took, compilation included.
    pub seconds: f64,
}

impl KernelTable {
    /// A table that forces `FAMILY` or `FAMILY:N`, such as `staged:1`.
    pub fn force(text: &str) -> Self {
        let (family, index) = text.split_once(':').unwrap_or((text, "0"));
        Self { forced: Some((family.to_string(), index.parse().unwrap_or(0))), ..Self::default() }
    }

    /// The file of measured tables: `kernels.json` in `SPARK3D_CACHE`, or in the user's cache folder.
    pub fn path() -> Option<PathBuf> {
        let folder = std::env::var_os("SPARK3D_CACHE").map(PathBuf::from);
        Some(folder.or_else(|| Some(dirs::cache_dir()?.join("spark3d")))?.join("kernels.json"))
    }

    /// What was measured on this adapter with this driver; nothing where there is no file.
    pub fn load(facts: &AdapterFacts) -> Result<Self> {
        let measured = Self::tables()?.remove(&key(facts)).unwrap_or_default();
        Ok(Self { measured, ..Self::default() })
    }

    /// Puts the table into the file, beside those of other adapters. Returns the file.
    pub fn save(&self, facts: &AdapterFacts) -> Result<PathBuf> {
        let none = "there is no cache folder to keep the choice of kernels in";
        let path = Self::path().ok_or_else(|| Error::device(none, "Name one with SPARK3D_CACHE=DIR"))?;
        let mut tables = Self::tables()?;
        tables.insert(key(facts), self.measured.clone());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let text = serde_json::to_string_pretty(&tables).unwrap_or_default();
        write_atomic(path.clone(), text.as_bytes())?;
        Ok(path)
    }

    fn tables() -> Result<Tables> {
        let Some(path) = Self::path().filter(|p| p.exists()) else { return Ok(Tables::new()) };
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        serde_json::from_str(&text).map_err(|e| {
            let cause = format!("not a table of kernels: {e}");
            Error::file(&path, cause, "Delete it; `spark3d bench --tune` makes a new one")
        })
    }

    /// The one of `candidates` to use for `problem`; the first is the default.
    pub fn choose<V: Copy + ToString>(&self, problem: &str, candidates: &[V]) -> V {
        let family_of = |v: &V| v.to_string().split(' ').next().unwrap_or_default().to_string();
        let sound: Vec<V> = candidates.iter().copied().filter(|v| !self.excluded.contains(&family_of(v))).collect();
        let candidates = if sound.is_empty() { candidates } else { &sound };
        let found = match &self.forced {
            Some((family, index)) => {
                let of_family = |v: &&V| family_of(v) == *family;
                let count = candidates.iter().filter(of_family).count();
                candidates.iter().filter(of_family).nth(index % count.max(1))
            }
            None => self.measured.get(problem).and_then(|w| candidates.iter().find(|v| v.to_string() == *w)),
        };
        found.copied().unwrap_or(candidates[0])
    }
}

fn key(facts: &AdapterFacts) -> String {
    format!("{}, {}, {}", facts.name, facts.backend, facts.driver)
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
        table.excluded.insert("staged".into());
        assert_eq!(table.choose("p", &candidates), "direct");
    }
}
