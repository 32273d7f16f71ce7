//! What is scored: labels and regions, with names.

use crate::base::{Error, Result};
use crate::formats::nnunet::{DATASET, kind_of, label_value, read_json, swapped};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// One label, or a region: several labels that count as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The name in tables and on pictures.
    pub name: String,
    /// The labels that belong to it; one, unless it is a region.
    pub labels: Vec<i32>,
    /// The name in `summary.json`: `1`, or `(1, 2)` as Python writes a tuple.
    pub key: String,
}

impl Class {
    fn label(name: impl Into<String>, label: i32) -> Self {
        Self { name: name.into(), labels: vec![label], key: label.to_string() }
    }

    fn region(name: impl Into<String>, labels: Vec<i32>) -> Self {
        let list = labels.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
        let key = if labels.len() == 1 { format!("({list},)") } else { format!("({list})") };
        Self { name: name.into(), labels, key }
    }
}

/// The classes to score, and every value that a label map may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// The classes that are scored, in their order.
    pub scored: Vec<Class>,
    /// With the background and the label to ignore.
    pub known: BTreeSet<i32>,
    /// Voxels whose reference has this label are left out.
    pub ignore: Option<i32>,
}

impl Classes {
    /// Every label by its number alone; 0 is the background and not scored.
    pub fn of_labels(labels: &[i32]) -> Self {
        let known: BTreeSet<i32> = labels.iter().copied().chain([0]).collect();
        let scored = known.iter().filter(|l| **l != 0).map(|l| Class::label(format!("label {l}"), *l)).collect();
        Self { scored, known, ignore: None }
    }

    /// The classes of an nnU-Net data set: its regions if it has any, else its labels; never the background.
    ///
    /// # Errors
    /// The file cannot be read, or its `labels` are not those of an nnU-Net v2 `dataset.json`.
    pub fn of_dataset(path: &Path) -> Result<Self> {
        let remedy = "Write it as nnU-Net v2 does: \"labels\": {\"background\": 0, \"name\": 1 or [1, 2], ...}";
        let json = read_json(path)?;
        let given = json.get("labels").unwrap_or(&Value::Null);
        if let Some(right) = swapped(given) {
            let cause = format!("names and numbers of its labels are swapped: \"labels\" must be {right}");
            return Err(Error::file(path, cause, remedy));
        }
        let given = given.as_object().ok_or_else(|| {
            let what = kind_of(&json).filter(|kind| *kind != DATASET).unwrap_or("without labels");
            Error::file(path, format!("it is no dataset.json of a data set but {what}"), remedy)
        })?;
        let wrong = |name: &str, value: &Value| Error::file(path, format!("its label {name} is {value}"), remedy);
        let number = |v: &Value| label_value(v).and_then(|v| i32::try_from(v).ok());

        let mut classes = Self { scored: vec![], known: [0].into(), ignore: None };
        let mut entries: Vec<(String, Vec<i32>, bool)> = Vec::new();
        for (name, value) in given {
            let (labels, is_list) = match value {
                Value::Array(list) => (list.iter().map(number).collect::<Option<Vec<i32>>>(), true),
                single => (number(single).map(|label| vec![label]), false),
            };
            let labels = labels.filter(|l| !l.is_empty()).ok_or_else(|| wrong(name, value))?;
            classes.known.extend(&labels);
            match (name.as_str(), labels.as_slice()) {
                ("ignore", [label]) => classes.ignore = Some(*label),
                ("ignore", _) => return Err(wrong(name, value)),
                (_, [0]) => {}
                _ => entries.push((name.clone(), labels, is_list)),
            }
        }
        let regions = entries.iter().any(|(_, labels, _)| labels.len() > 1);
        let class = |(name, labels, is_list): (String, Vec<i32>, bool)| match labels[..] {
            [label] if !regions || !is_list => Class::label(name, label),
            _ => Class::region(name, labels),
        };
        classes.scored = entries.into_iter().map(class).collect();
        if !regions {
            classes.scored.sort_by_key(|class| class.labels[0]);
        }
        Ok(classes)
    }

    /// Scores these labels only; the others stay known.
    ///
    /// # Errors
    /// A label is the background, or not known.
    pub fn only(mut self, labels: &[i32]) -> Result<Self> {
        let pick = |label: &i32| {
            if *label == 0 || !self.known.contains(label) || self.ignore == Some(*label) {
                let known: Vec<String> = self.known.iter().map(i32::to_string).collect();
                let what = format!("label {label} cannot be scored; the data set has {}", known.join(", "));
                return Err(Error::plan(what, "Choose among its labels, without the background and the ignored one"));
            }
            let named = self.scored.iter().find(|class| class.labels == [*label]);
            Ok(Class::label(named.map_or(format!("label {label}"), |class| class.name.clone()), *label))
        };
        let once = labels.iter().enumerate().filter(|(n, label)| !labels[..*n].contains(label));
        self.scored = once.map(|(_, label)| pick(label)).collect::<Result<_>>()?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(labels: &str) -> Result<Classes> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataset.json");
        std::fs::write(&path, format!(r#"{{"channel_names": {{"0": "T1"}}, "labels": {labels}, "numTraining": 3}}"#))
            .unwrap();
        Classes::of_dataset(&path)
    }

    #[test]
    fn labels_in_order_and_the_ignored_one_apart() {
        let classes = read(r#"{"background": 0, "b": 2, "a": 1, "ignore": 3}"#).unwrap();
        assert_eq!(classes.scored, [Class::label("a", 1), Class::label("b", 2)]);
        assert_eq!((classes.ignore, classes.known.len()), (Some(3), 4));
        let only = classes.clone().only(&[2]).unwrap();
        assert_eq!(only.scored, [Class::label("b", 2)]);
        assert_eq!(classes.clone().only(&[2, 1, 2]).unwrap().scored, [Class::label("b", 2), Class::label("a", 1)]);
        assert_eq!(only.known, classes.known);
        assert!(
            classes.clone().only(&[0]).is_err() && classes.clone().only(&[3]).is_err() && classes.only(&[7]).is_err()
        );
    }

    #[test]
    fn regions_are_keyed_as_python_writes_tuples() {
        let classes =
            read(r#"{"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": [3], "rest": 4}"#).unwrap();
        let keys: Vec<&str> = classes.scored.iter().map(|class| class.key.as_str()).collect();
        assert_eq!(keys, ["(1, 2, 3)", "(2, 3)", "(3,)", "4"]);
        assert_eq!(classes.known, BTreeSet::from([0, 1, 2, 3, 4]));
    }

    #[test]
    fn other_files_are_errors_that_say_so() {
        for labels in [r#"{"0": "background"}"#, r#"{"a": []}"#, r#"{"a": 1.5}"#, r#"{"ignore": [1, 2]}"#, "[1]"] {
            let error = read(labels).unwrap_err().to_string();
            assert!(error.contains("dataset.json") && error.contains("nnU-Net v2"), "{error}");
        }
        assert!(read("{").unwrap_err().to_string().contains("not valid JSON"));
        assert!(
            read(r#"{"0": "background", "1": "a"}"#).unwrap_err().to_string().contains(r#"{"background":0,"a":1}"#)
        );
        assert_eq!(read(r#"{"background": 0.0, "a": 1.0}"#).unwrap().scored, [Class::label("a", 1)]);
        assert!(read(r#"{"background": 0, "a": 1}, "x": NaN"#).is_ok(), "as Python writes it");
    }
}
