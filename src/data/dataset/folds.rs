//! nnU-Net's cross-validation: which cases of a labelled data set train and which validate.
//!
//! The five folds are scikit-learn's `KFold(5, shuffle=True, random_state=12345)` over the sorted names, so that results
//! can be compared with those of nnU-Net. That needs numpy's old generator ([`Mt19937`]), and nothing else does.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::base::{Error, Purpose, Result, rng, write_json};
use crate::formats::endings;
use crate::formats::nnunet::{SPLITS, kind_of, read_json};

/// Name of the file with the splits, as nnU-Net calls it.
pub const FILE: &str = "splits_final.json";

const FOLDS: usize = 5;
const SEED: u32 = 12345;

/// Which cross-validation fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// One of the splits, counted from 0.
    Number(usize),
    /// All cases train, and the same ones validate.
    All,
}

impl FromStr for Fold {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s {
            "all" => Ok(Self::All),
            _ => s.parse().map(Self::Number).map_err(|_| format!("{s} is no fold: give a number or `all`")),
        }
    }
}

impl std::fmt::Display for Fold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// Names of cases; an entry of `splits_final.json`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Cases {
    /// Ids of the cases that train.
    pub train: Vec<String>,
    /// Ids of the cases that validate.
    #[serde(rename = "val")]
    pub validation: Vec<String>,
}

/// The cases of a fold. Splits come from `splits_file` where it exists, else they are nnU-Net's five folds. A fold beyond the
/// last split is nnU-Net's random 80:20 split of that number.
///
/// # Errors
/// The file cannot be read or names cases that are not among `ids`; there are too few cases for five folds.
pub fn split(ids: &[String], splits_file: Option<&Path>, fold: Fold) -> Result<Cases> {
    let ids: Vec<String> = ids.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
    let Fold::Number(fold) = fold else {
        return Ok(Cases { train: ids.clone(), validation: ids });
    };
    let splits = match splits_file.filter(|f| f.exists()) {
        Some(file) => read(file)?,
        None if ids.len() < FOLDS => {
            let what = format!("{} cases are too few for {FOLDS} folds", ids.len());
            return Err(Error::plan(what, format!("Train on fold `all`, or write the splits into {FILE}")));
        }
        None => five_folds(&ids),
    };
    let number = splits.len();
    let Some(cases) = splits.into_iter().nth(fold) else {
        let of = splits_file.filter(|f| f.exists()).map_or("nnU-Net's split".into(), |f| f.display().to_string());
        log::warn!(
            "{of} has {number} folds and no fold {fold}: as in nnU-Net, a random 80 % of the cases train and the others validate"
        );
        return Ok(eighty_to_twenty(&ids, fold));
    };
    let known: BTreeSet<&String> = ids.iter().collect();
    if let Some(id) = cases.train.iter().chain(&cases.validation).find(|id| !known.contains(id)) {
        let plain = endings::stem(id).unwrap_or(id);
        let plain = [plain, plain.strip_suffix("_0000").unwrap_or(plain)];
        let meant = plain.iter().find(|name| known.contains(&name.to_string()));
        let meant = meant.map_or(String::new(), |name| format!("; the name of the case alone is {name}"));
        let what = format!("fold {fold} names the case {id}, which the data set does not have{meant}");
        let file = splits_file.unwrap_or(Path::new(FILE));
        return Err(Error::file(file, what, "Correct the file, or delete it to have the splits made anew"));
    }
    if let Some(id) = cases.validation.iter().find(|id| cases.train.contains(id)) {
        log::warn!("fold {fold} trains and validates on the case {id}: its scores say little");
    }
    let unnamed: Vec<&String> =
        ids.iter().filter(|id| !cases.train.contains(id) && !cases.validation.contains(id)).collect();
    if let (Some(first), true) = (unnamed.first(), splits_file.is_some_and(Path::exists)) {
        let (n, all) = (unnamed.len(), ids.len());
        log::warn!("the splits do not name {n} of the {all} cases in fold {fold}, such as {first}: they are not used");
    }
    for list in [&cases.train, &cases.validation] {
        if let Some(id) = list.iter().enumerate().find(|(n, id)| list[..*n].contains(id)).map(|(_, id)| id) {
            log::warn!("fold {fold} names the case {id} more than once, and it counts as often");
        }
    }
    Ok(cases)
}

/// nnU-Net's five folds of sorted names.
pub fn five_folds(ids: &[String]) -> Vec<Cases> {
    let n = ids.len();
    let order = Mt19937::new(SEED).permutation(n);
    let mut end = 0;
    (0..FOLDS)
        .map(|fold| {
            let start = end;
            end += n / FOLDS + usize::from(fold < n % FOLDS);
            let chosen: BTreeSet<usize> = order[start..end].iter().copied().collect();
            let (validation, train): (Vec<usize>, Vec<usize>) = (0..n).partition(|n| chosen.contains(n));
            named(ids, &train, &validation)
        })
        .collect()
}

fn eighty_to_twenty(ids: &[String], fold: usize) -> Cases {
    let mut order = Mt19937::new(SEED.wrapping_add(fold as u32)).permutation(ids.len());
    // As Python's int(n * 0.8).
    let (train, validation) = order.split_at_mut((ids.len() as f64 * 0.8) as usize);
    validation.sort_unstable();
    named(ids, train, validation)
}

fn named(ids: &[String], train: &[usize], validation: &[usize]) -> Cases {
    let names = |list: &[usize]| list.iter().map(|&n| ids[n].clone()).collect();
    Cases { train: names(train), validation: names(validation) }
}

/// Reads `splits_final.json`.
///
/// # Errors
/// It is missing or no list of `train` and `val`.
pub fn read(file: &Path) -> Result<Vec<Cases>> {
    let json = read_json(file)?;
    let other = kind_of(&json).filter(|kind| *kind != SPLITS);
    serde_json::from_value(json).map_err(|e| {
        let why = other.map_or_else(|| e.to_string(), |other| format!("it is {other}"));
        let remedy =
            "It is a list of {\"train\": [...], \"val\": [...]}; correct it, or delete it to have it made anew";
        Error::file(file, format!("it holds no splits ({why})"), remedy)
    })
}

/// Writes `splits_final.json`.
///
/// # Errors
/// It cannot be written.
pub fn write(file: &Path, splits: &[Cases]) -> Result<()> {
    write_json(file, serde_json::to_string_pretty(splits))
}

/// `n` of the training cases, for runs with few labels: the first of a shuffle, so that a larger set contains a smaller one.
/// They keep their order. All of them where there are no more than `n`.
pub fn limit(mut cases: Cases, n: usize, seed: u64) -> Cases {
    let mut names: Vec<String> = cases.train.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
    names.shuffle(&mut rng(seed, Purpose::Cases, 0, 0));
    let chosen: BTreeSet<String> = names.into_iter().take(n).collect();
    cases.train.retain(|id| chosen.contains(id));
    cases
}

/// The Mersenne Twister as numpy's `RandomState` seeds and uses it (Matsumoto and Nishimura 1998).
pub struct Mt19937 {
    state: [u32; Self::N],
    index: usize,
}

impl Mt19937 {
    const N: usize = 624;
    const M: usize = 397;

    /// The generator that Python and NumPy start from this seed.
    pub fn new(seed: u32) -> Self {
        let mut state = [seed; Self::N];
        for i in 1..Self::N {
            let before = state[i - 1];
            state[i] = 1_812_433_253u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(i as u32);
        }
        Self { state, index: Self::N }
    }

    /// The next 32 random bits.
    fn next_u32(&mut self) -> u32 {
        if self.index == Self::N {
            for i in 0..Self::N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % Self::N] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + Self::M) % Self::N] ^ (y >> 1) ^ twist;
            }
            self.index = 0;
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform in `0..=max`, as numpy's `random_interval`: masked to the next power of two and sampled again while too large.
    pub fn up_to(&mut self, max: u32) -> u32 {
        let mask = u32::MAX.checked_shr(max.leading_zeros()).unwrap_or(0);
        loop {
            let value = self.next_u32() & mask;
            if value <= max {
                return value;
            }
        }
    }

    /// As numpy's `permutation(n)`: Fisher and Yates from the end.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.up_to(i as u32) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: usize) -> Vec<String> {
        (0..n).map(|n| format!("{n:03}")).collect()
    }

    fn numbers(list: &[String]) -> Vec<usize> {
        list.iter().map(|s| s.parse().unwrap()).collect()
    }

    /// `numpy.random.RandomState(12345)`: the first raw numbers, `permutation(10)`, and `permutation(12)` with seed 12350.
    #[test]
    fn the_generator_is_numpys() {
        let mut mt = Mt19937::new(12345);
        let raw: Vec<u32> = (0..5).map(|_| mt.next_u32()).collect();
        assert_eq!(raw, [3992670690, 3823185381, 1358822685, 561383553, 789925284]);
        assert_eq!(Mt19937::new(12345).permutation(10), [0, 7, 3, 9, 6, 4, 1, 8, 5, 2]);
        assert_eq!(Mt19937::new(12350).permutation(12), [4, 7, 0, 10, 5, 9, 8, 3, 11, 6, 1, 2]);
        assert_eq!(Mt19937::new(12345).permutation(200)[..8], [52, 157, 135, 140, 56, 95, 54, 50]);
        assert!(Mt19937::new(1).permutation(0).is_empty());
    }

    /// `KFold(5, shuffle=True, random_state=12345)` of scikit-learn 1.9.1.
    #[test]
    fn folds_are_those_of_nnunet() {
        let validation = |n: usize| -> Vec<Vec<usize>> {
            (0..5).map(|f| numbers(&split(&ids(n), None, Fold::Number(f)).unwrap().validation)).collect()
        };
        assert_eq!(validation(10), [[0, 7], [3, 9], [4, 6], [1, 8], [2, 5]]);
        assert_eq!(validation(12), [vec![0, 3, 8], vec![7, 10, 11], vec![6, 9], vec![1, 4], vec![2, 5]]);
        assert_eq!(validation(200)[2][..12], [3, 6, 8, 9, 15, 18, 21, 25, 32, 37, 45, 49]);
        let first = split(&ids(12), None, Fold::Number(0)).unwrap();
        assert_eq!(numbers(&first.train), [1, 2, 4, 5, 6, 7, 9, 10, 11]);
    }

    #[test]
    fn beyond_the_last_fold_and_all() {
        // numpy: RandomState(12345 + 7).choice(10, 8, replace=False).
        let seventh = split(&ids(10), None, Fold::Number(7)).unwrap();
        assert_eq!(numbers(&seventh.train), [4, 6, 0, 9, 1, 7, 2, 8]);
        assert_eq!(numbers(&seventh.validation), [3, 5]);
        let all = split(&ids(3), None, "all".parse().unwrap()).unwrap();
        assert_eq!(all.train, all.validation);
        assert!(split(&ids(3), None, Fold::Number(0)).unwrap_err().to_string().contains("too few"));
        assert!("x".parse::<Fold>().is_err());
    }

    #[test]
    fn a_file_of_splits_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let mine = Cases { train: vec!["001".into()], validation: vec!["000".into(), "002".into()] };
        write(&file, std::slice::from_ref(&mine)).unwrap();
        assert_eq!(split(&ids(3), Some(&file), Fold::Number(0)).unwrap(), mine);
        assert_eq!(split(&ids(10), Some(&file), Fold::Number(7)).unwrap().train.len(), 8);
        let error = split(&ids(2), Some(&file), Fold::Number(0)).unwrap_err().to_string();
        assert!(error.contains("002") && error.contains(FILE), "{error}");
        let error = |text: &str| {
            std::fs::write(&file, text).unwrap();
            split(&ids(3), Some(&file), Fold::Number(0)).unwrap_err().to_string()
        };
        assert!(error("{}").contains("no splits"));
        assert!(error(r#"{"labels": {}}"#).contains("it is the dataset.json"));
        assert!(error(r#"[{"train": ["000"], "val": [NaN]}]"#).contains("no splits"));
        for id in ["002.nii.gz", "002_0000", "002_0000.nii.gz"] {
            let error = error(&format!(r#"[{{"train": ["000"], "val": ["{id}"]}}]"#));
            assert!(error.contains("the name of the case alone is 002"), "{error}");
        }
    }

    #[test]
    fn fewer_cases_are_contained_in_more() {
        let all = split(&ids(200), None, Fold::Number(1)).unwrap();
        let few = limit(all.clone(), 10, 5);
        let more = limit(all.clone(), 40, 5);
        assert_eq!((few.train.len(), more.train.len()), (10, 40));
        assert!(few.train.iter().all(|id| more.train.contains(id)));
        assert_eq!(few.validation, all.validation);
        assert_ne!(few, limit(all.clone(), 10, 6));
        assert_eq!(limit(all.clone(), 1000, 5), all);
    }
}
