//! `dataset.json`: channels, labels or regions, the ending of the files, and where the cases lie.

use crate::base::{Error, Result};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a `dataset.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Name of each channel, by its number.
    pub channels: Vec<String>,
    /// Its classes and what is ignored.
    pub labels: Labels,
    /// Ending of all images and label maps, such as `.nii.gz`.
    pub file_ending: String,
    /// Images (one a channel) and label map of each training case, where the file lists them. Relative to the data set.
    pub cases: Option<BTreeMap<String, (Vec<PathBuf>, PathBuf)>>,
    /// The file as it was, to be handed on.
    pub json: Value,
}

/// The classes of a data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    /// Foreground classes in the order of the network's outputs.
    pub classes: Vec<Class>,
    /// Whether classes are regions (sets of labels that may overlap): a sigmoid each, no background output.
    pub regions: bool,
    /// The label of voxels that nobody annotated.
    pub ignore: Option<i16>,
}

/// A foreground class.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// The name in `dataset.json`.
    pub name: String,
    /// The labels that belong to it; one, unless it is a region.
    pub values: Vec<i16>,
    /// The label that a prediction gets where this class wins; later regions overwrite earlier ones.
    pub written: i16,
}

impl Labels {
    /// Outputs of the network: background and classes for a softmax, or one a region.
    pub fn outputs(&self) -> usize {
        self.classes.len() + usize::from(!self.regions)
    }

    /// Whether a label map may hold `value`.
    pub fn knows(&self, value: i16) -> bool {
        value == 0 || self.ignore == Some(value) || self.classes.iter().any(|c| c.values.contains(&value))
    }

    /// The largest label of a class.
    pub fn largest(&self) -> i16 {
        self.classes.iter().flat_map(|c| c.values.iter().copied()).max().unwrap_or(0)
    }
}

impl Dataset {
    /// # Errors
    /// The file is missing, not JSON, or says something nnU-Net would not accept.
    pub fn read(path: &Path) -> Result<Self> {
        let remedy = "Correct it; nnU-Net's documentation on the dataset format says what belongs there";
        Self::from_json(super::read_json(path)?).map_err(|cause| Error::file(path, cause, remedy))
    }

    /// As [`Dataset::read`] from a value, such as the copy inside a checkpoint.
    ///
    /// # Errors
    /// Something is missing or makes no sense: the cause alone, for callers that know where the value is from.
    pub fn from_json(json: Value) -> std::result::Result<Self, String> {
        let named = json.get("channel_names").or_else(|| json.get("modality")).and_then(Value::as_object);
        let mut channels: Vec<(usize, String)> = Vec::new();
        for (key, name) in named.ok_or("it has no channel_names")? {
            let number = key.parse().map_err(|_| format!("channel_names has the key \"{key}\", which is no number"))?;
            channels.push((number, name.as_str().unwrap_or_default().to_string()));
        }
        channels.sort();
        if channels.is_empty() || channels.iter().enumerate().any(|(k, c)| k != c.0) {
            return Err("the keys of channel_names are not 0, 1, 2, ...".into());
        }
        let labels = labels(&json)?;
        let file_ending = json.get("file_ending").and_then(Value::as_str).unwrap_or(".nii.gz").to_string();
        let cases = json.get("dataset").and_then(Value::as_object).map(cases).transpose()?;
        Ok(Self { channels: channels.into_iter().map(|c| c.1).collect(), labels, file_ending, cases, json })
    }
}

fn labels(json: &Value) -> std::result::Result<Labels, String> {
    let given = json.get("labels").and_then(Value::as_object).ok_or("it has no labels")?;
    let (mut classes, mut ignore, mut background) = (Vec::new(), None, false);
    for (name, value) in given {
        let values: Vec<i16> = match value {
            Value::Array(list) => list.iter().map(|v| label(name, v)).collect::<std::result::Result<_, _>>()?,
            one => vec![label(name, one)?],
        };
        match (name.as_str(), &values[..]) {
            ("ignore", [value]) => ignore = Some(*value),
            (_, [0]) => background = true,
            (_, []) => return Err(format!("the label {name} has no value")),
            _ => classes.push(Class { name: name.clone(), written: values[0], values }),
        }
    }
    if !background {
        return Err("no label has the value 0 (background)".into());
    }
    let regions = classes.iter().any(|c| c.values.len() > 1);
    if regions {
        let order = json.get("regions_class_order").and_then(Value::as_array);
        let order = order.ok_or("regions are given but no regions_class_order")?;
        // nnU-Net's order may leave out the background, which is no region.
        if order.len() != classes.len() {
            return Err(format!("regions_class_order has {} entries for {} regions", order.len(), classes.len()));
        }
        for (class, value) in classes.iter_mut().zip(order) {
            class.written = label("regions_class_order", value)?;
        }
    } else {
        classes.sort_by_key(|c| c.values[0]);
    }
    let all: BTreeSet<i16> = classes.iter().flat_map(|c| c.values.iter().copied()).collect();
    let all = Vec::from_iter(all);
    if all.is_empty() || all.iter().enumerate().any(|(k, &v)| v as usize != k + 1) {
        return Err(format!("the labels are {all:?}; they must be 1, 2, 3, ... without gaps"));
    }
    if !regions && all.len() != classes.len() {
        return Err("two labels have the same value".into());
    }
    if ignore.is_some_and(|v| v as usize != all.len() + 1) {
        return Err(format!("the ignore label must be the highest, {}", all.len() + 1));
    }
    Ok(Labels { classes, regions, ignore })
}

fn label(name: &str, value: &Value) -> std::result::Result<i16, String> {
    let number = value.as_i64().or_else(|| value.as_str().and_then(|s| s.parse().ok()));
    number.and_then(|v| i16::try_from(v).ok()).ok_or_else(|| format!("{name} has the value {value}, which is no label"))
}

type Files = BTreeMap<String, (Vec<PathBuf>, PathBuf)>;

fn cases(list: &Map<String, Value>) -> std::result::Result<Files, String> {
    let path = |v: &Value| v.as_str().map(PathBuf::from);
    list.iter()
        .map(|(id, case)| {
            let images = case.get("images").and_then(Value::as_array);
            let images = images.and_then(|l| l.iter().map(path).collect::<Option<Vec<_>>>());
            let label = case.get("label").and_then(path);
            images.zip(label).map(|files| (id.clone(), files)).ok_or_else(|| format!("case {id} lacks images or label"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_regions_and_mistakes() {
        let with = |labels: Value, order: Option<Value>| {
            let mut json =
                json!({ "channel_names": { "0": "T1", "1": "T2" }, "labels": labels, "file_ending": ".nii" });
            if let Some(order) = order {
                json["regions_class_order"] = order;
            }
            Dataset::from_json(json)
        };
        let plain = with(json!({ "b": 2, "background": 0, "a": 1, "ignore": 3 }), None).unwrap();
        assert_eq!(plain.labels.classes.iter().map(|c| &c.name[..]).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((plain.labels.outputs(), plain.labels.ignore, plain.channels.len()), (3, Some(3), 2));
        assert!(plain.labels.knows(3) && !plain.labels.knows(4));
        let whole = json!({ "background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3 });
        let regions = with(whole.clone(), Some(json!([1, 2, 3]))).unwrap().labels;
        assert!(regions.regions && regions.outputs() == 3 && regions.classes[1].written == 2);
        assert!(with(whole, None).unwrap_err().contains("regions_class_order"));
        assert!(with(json!({ "background": 0, "a": 1, "b": 3 }), None).unwrap_err().contains("gaps"));
        assert!(with(json!({ "a": 1 }), None).unwrap_err().contains("background"));
        assert!(with(json!({ "background": 0, "a": "x" }), None).unwrap_err().contains('a'));
        assert!(Dataset::from_json(json!({ "labels": {} })).unwrap_err().contains("channel_names"));
    }
}
