//! `dataset.json`: channels, labels or regions, the ending of the files, and where the cases lie.

use super::json::{DATASET, kind_of};
use crate::base::{Error, Result};
use serde_json::{Map, Value, json};
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

    /// What to do about a label map that has labels which this does not know.
    pub fn remedy(&self, unknown: &BTreeSet<i16>) -> String {
        let next = self.largest().saturating_add(1);
        if self.ignore.is_none() && unknown.iter().enumerate().all(|(n, &v)| i32::from(v) == i32::from(next) + n as i32)
        {
            return "Add them to labels in dataset.json, or correct the label map".into();
        }
        let list = listed(unknown);
        let ignored = match self.ignore {
            Some(ignore) => format!("{ignore}, which is ignored"),
            None => format!("{next}, listed as \"ignore\": {next} in dataset.json"),
        };
        format!(
            "Labels are 0, 1, 2, ... without gaps: write other numbers into the label maps ({list} as the number of its class, as 0 \
             where it is background, or as {ignored}, where nobody annotated)"
        )
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
        let json = super::read_json(path)?;
        decathlon(&json, path)?;
        Self::from_json(json).map_err(|cause| Error::file(path, cause, remedy))
    }

    /// As [`Dataset::read`] from a value, such as the copy inside a checkpoint.
    ///
    /// # Errors
    /// Something is missing or makes no sense: the cause alone, for callers that know where the value is from.
    pub fn from_json(json: Value) -> std::result::Result<Self, String> {
        if let Some(other) = kind_of(&json).filter(|kind| *kind != DATASET) {
            return Err(format!("it is {other} and no dataset.json"));
        }
        let named = json.get("channel_names").or_else(|| json.get("modality")).ok_or("it has no channel_names")?;
        if let Some(right) = numbered(named) {
            return Err(format!("channel_names is {named}, which must be {right}"));
        }
        let mut channels: Vec<(usize, String)> = Vec::new();
        for (key, name) in named.as_object().ok_or_else(|| format!("channel_names is {named}"))? {
            let number = key.parse().map_err(|_| format!("channel_names has the key \"{key}\", which is no number"))?;
            channels.push((number, name.as_str().unwrap_or_default().to_string()));
        }
        channels.sort();
        if channels.is_empty() || channels.iter().enumerate().any(|(k, c)| k != c.0) {
            return Err("the keys of channel_names are not 0, 1, 2, ...".into());
        }
        let labels = labels(&json)?;
        let file_ending = match json.get("file_ending") {
            None | Some(Value::Null) => ".nii.gz".to_string(),
            Some(Value::String(ending)) if ending.starts_with('.') => ending.clone(),
            Some(Value::String(ending)) if ["nii.gz", "nii", "hdr", "img"].contains(&&ending[..]) => {
                return Err(format!("file_ending is \"{ending}\" and lacks its dot: \".{ending}\""));
            }
            Some(other) => return Err(format!("file_ending is {other} and not an ending such as \".nii.gz\"")),
        };
        let cases = json.get("dataset").and_then(Value::as_object).map(cases).transpose()?;
        Ok(Self { channels: channels.into_iter().map(|c| c.1).collect(), labels, file_ending, cases, json })
    }

    /// The class of nnU-Net that reads files of this ending: the first of its list that says so. It leaves `.nii` to nibabel.
    pub fn reader(&self) -> &'static str {
        if self.file_ending.eq_ignore_ascii_case(".nii") { "NibabelIO" } else { "SimpleITKIO" }
    }
}

/// The label that a voxel of a label map stands for: the whole number that it lies within 0.0001 of. What was scaled in float32
/// misses it by less; what lies farther off was interpolated, and is no label. Whatever reads label maps goes by this.
pub fn label_of(value: f32) -> Option<i32> {
    let whole = value.round();
    ((value - whole).abs() <= 1e-4 && whole.abs() < 2f32.powi(31)).then_some(whole as i32)
}

/// The label in a `dataset.json`: a whole number, also as text or as a decimal number, which Python takes for one.
pub fn label_value(value: &Value) -> Option<i64> {
    let decimal = || value.as_f64().filter(|v| v.fract() == 0.0 && v.abs() < 1e9).map(|v| v as i64);
    value.as_i64().or_else(decimal).or_else(|| value.as_str().and_then(|s| s.parse().ok()))
}

/// `labels` as they must be, where names and numbers stand in each other's places (`"1": "tumour"`, as in nnU-Net 1 and the
/// Medical Segmentation Decathlon), or names in a list.
pub fn swapped(labels: &Value) -> Option<Value> {
    let name = |value: &Value| value.as_str().filter(|name| name.parse::<i64>().is_err()).map(String::from);
    let entry = |(number, value): (i64, &Value)| Some((name(value)?, json!(number)));
    let entries: Option<Map<String, Value>> = match labels {
        Value::Array(names) => (0..).zip(names).map(entry).collect(),
        Value::Object(given) => given.iter().map(|(key, value)| entry((key.parse().ok()?, value))).collect(),
        _ => None,
    };
    // Of two numbers with one name, one would get lost.
    let all = labels.as_object().map(Map::len).or(labels.as_array().map(Vec::len));
    entries.filter(|entries| !entries.is_empty() && Some(entries.len()) == all).map(Value::Object)
}

/// `channel_names` as they must be, where they are a list or a name's number.
fn numbered(channels: &Value) -> Option<Value> {
    let entries: Option<Map<String, Value>> = match channels {
        Value::Array(names) => names.iter().enumerate().map(|(n, name)| Some((n.to_string(), name.clone()))).collect(),
        Value::Object(given) => given
            .iter()
            .map(|(key, value)| {
                let name = Some(key).filter(|key| key.parse::<i64>().is_err())?;
                Some((label_value(value)?.to_string(), json!(name)))
            })
            .collect(),
        _ => None,
    };
    entries.filter(|entries| !entries.is_empty()).map(Value::Object)
}

/// A task of the Medical Segmentation Decathlon or of nnU-Net 1 lists its training cases and has labels by number.
fn decathlon(json: &Value, path: &Path) -> Result<()> {
    let Some(labels) = json.get("labels").and_then(swapped) else { return Ok(()) };
    if !json.get("training").is_some_and(Value::is_array) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path).display();
    let cause = "it is that of a task of the Medical Segmentation Decathlon or of nnU-Net 1";
    let remedy = format!(
        "Make a data set of it: `spark3d convert {folder} Dataset001_NAME`. Where its images are named CASE_0000.nii.gz already, \
         it is enough to write \"labels\": {labels} and to add \"file_ending\": \".nii.gz\""
    );
    Err(Error::file(path, cause, remedy))
}

fn labels(json: &Value) -> std::result::Result<Labels, String> {
    let given = json.get("labels").ok_or("it has no labels")?;
    if let Some(right) = swapped(given) {
        return Err(format!("names and numbers of its labels are swapped: \"labels\" must be {right}"));
    }
    let given = given.as_object().ok_or_else(|| format!("its labels are {given}, not names with numbers"))?;
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
        let order = order.ok_or_else(|| {
            let written: Vec<i16> = (1..).take(classes.len()).collect();
            format!(
                "regions are given but no regions_class_order, the label to write for each of them, such as {written:?}"
            )
        })?;
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
    if let Some(value) = ignore.filter(|ignore| classes.iter().any(|c| c.values.iter().any(|v| v > ignore))) {
        let highest = classes.iter().flat_map(|c| &c.values).collect::<BTreeSet<_>>().len() + 1;
        return Err(format!(
            "the label `ignore` is {value} and must be the highest, {highest}, after the others (1, 2, ... without gaps), in the \
             label maps as well"
        ));
    }
    let all: BTreeSet<i16> = classes.iter().flat_map(|c| c.values.iter().copied()).collect();
    let all = Vec::from_iter(all);
    if all.is_empty() || all.iter().enumerate().any(|(k, &v)| v as usize != k + 1) {
        return Err(format!(
            "the labels are {all:?}; they must be 1, 2, 3, ... without gaps, in the label maps as well"
        ));
    }
    if !regions && all.len() != classes.len() {
        return Err("two labels have the same value".into());
    }
    if let Some(value) = ignore.filter(|v| *v as usize != all.len() + 1) {
        let highest = all.len() + 1;
        return Err(format!(
            "the ignore label must be the highest, {highest}, in the label maps as well, and it is {value}"
        ));
    }
    Ok(Labels { classes, regions, ignore })
}

fn label(name: &str, value: &Value) -> std::result::Result<i16, String> {
    let number = label_value(value).and_then(|v| i16::try_from(v).ok());
    number.ok_or_else(|| format!("{name} has the value {value}, which is no label"))
}

/// Up to ten labels, as text.
pub fn listed(labels: &BTreeSet<i16>) -> String {
    labels.iter().take(10).map(i16::to_string).collect::<Vec<_>>().join(", ")
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
        assert_eq!(with(json!({ "background": 0.0, "a": 1.0, "b": "2" }), None).unwrap().labels.outputs(), 3);
        let error = with(json!({ "background": 0, "a": 1, "ignore": 255 }), None).unwrap_err();
        assert!(error.contains("highest, 2") && error.contains("label maps"), "{error}");
    }

    #[test]
    fn other_forms_are_shown_the_right_one() {
        let error = |channels: Value, labels: Value, ending: Value| {
            let json = json!({ "channel_names": channels, "labels": labels, "file_ending": ending });
            Dataset::from_json(json).unwrap_err()
        };
        let (one, plain, ending) = (json!({ "0": "T1" }), json!({ "background": 0, "a": 1 }), json!(".nii"));
        for labels in [json!({ "0": "background", "1": "a" }), json!(["background", "a"])] {
            let error = error(one.clone(), labels, ending.clone());
            assert!(error.contains(r#"{"background":0,"a":1}"#), "{error}");
        }
        for channels in [json!({ "T1": 0, "T2": 1 }), json!(["T1", "T2"])] {
            let error = error(channels, plain.clone(), ending.clone());
            assert!(error.contains(r#"{"0":"T1","1":"T2"}"#), "{error}");
        }
        assert!(error(one.clone(), json!([1]), ending.clone()).contains("labels are [1]"));
        assert!(error(one.clone(), plain.clone(), json!("nii.gz")).contains(r#"lacks its dot: ".nii.gz""#));
        assert!(error(one, plain, json!("")).contains("file_ending"));
        let plans = json!({ "configurations": {}, "labels": {} });
        assert!(Dataset::from_json(plans).unwrap_err().contains("it is plans"));
    }

    #[test]
    fn a_task_is_to_be_converted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dataset.json");
        let write = |json: Value| std::fs::write(&path, json.to_string()).unwrap();
        let mut task = json!({
            "modality": { "0": "T1" }, "labels": { "0": "background", "1": "a" },
            "training": [{ "image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz" }],
        });
        write(task.clone());
        let error = Dataset::read(&path).unwrap_err().to_string();
        assert!(error.contains("Decathlon") && error.contains("spark3d convert"), "{error}");
        // With the labels of version 2 it is read, the old name of the channels included.
        task["labels"] = json!({ "background": 0, "a": 1 });
        write(task);
        assert_eq!(Dataset::read(&path).unwrap().channels, ["T1"]);
    }

    #[test]
    fn voxels_near_a_whole_number_are_labels() {
        for (value, want) in [(1.0, Some(1)), (0.99999, Some(1)), (2.00009, Some(2)), (-1.0, Some(-1)), (0.5, None)] {
            assert_eq!(label_of(value), want, "{value}");
        }
        assert!([0.999, f32::NAN, f32::INFINITY, 3e9].into_iter().all(|value| label_of(value).is_none()));
    }

    #[test]
    fn the_ignored_label_is_told_its_number() {
        for (given, highest) in [
            (json!({ "background": 0, "a": 1, "ignore": 2, "b": 3 }), "is 2 and must be the highest, 3"),
            (json!({ "background": 0, "ignore": 1, "a": [2, 3], "b": 3 }), "is 1 and must be the highest, 3"),
        ] {
            let cause = labels(&json!({ "labels": given, "regions_class_order": [1, 2] })).unwrap_err();
            assert!(cause.contains(highest), "{cause}");
        }
    }

    #[test]
    fn unknown_labels_have_a_remedy_that_leads_on() {
        let labels = |json: Value| labels(&json!({ "labels": json })).unwrap();
        let plain = labels(json!({ "background": 0, "a": 1 }));
        let remedy = |labels: &Labels, unknown: &[i16]| labels.remedy(&unknown.iter().copied().collect());
        assert!(remedy(&plain, &[2, 3]).starts_with("Add them to labels"));
        for unknown in [&[255][..], &[-1], &[2, 4]] {
            let text = remedy(&plain, unknown);
            assert!(text.contains("without gaps") && text.contains(r#""ignore": 2"#), "{text}");
        }
        let ignoring = labels(json!({ "background": 0, "a": 1, "ignore": 2 }));
        assert!(remedy(&ignoring, &[3]).contains("or as 2, which is ignored"));
    }
}
