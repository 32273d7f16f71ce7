//! JSON as people have it: saved by other editors, written by Python.

use std::path::Path;

use serde_json::Value;

use crate::base::{Error, Result, content};

/// Reads a JSON file. The byte order mark that some editors put first is passed over; NaN and Infinity, which Python writes and
/// JSON does not have, are read as null.
///
/// # Errors
/// The file is missing, unreadable, not UTF-8 or not JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    content::refuse(path, &bytes)?;
    let text = utf8(&bytes).map_err(|(cause, remedy)| Error::file(path, cause, remedy))?;
    let parsed = serde_json::from_str(text).or_else(|_| serde_json::from_str(&without_nan(text)));
    parsed.map_err(|e| match text.trim().is_empty() {
        true => Error::file(path, "it is empty", "Write it again"),
        false => Error::file(path, format!("not valid JSON: {e}"), "Write it again"),
    })
}

/// The text of a file, or what it is instead and what to do.
fn utf8(bytes: &[u8]) -> std::result::Result<&str, (String, &'static str)> {
    const SAVE: &str = "Save it as UTF-8";
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let marked = [[0xff, 0xfe], [0xfe, 0xff]].iter().any(|mark| bytes.starts_with(mark));
    if marked || bytes.iter().take(2).any(|b| *b == 0) {
        return Err(("its text is encoded as UTF-16".into(), SAVE));
    }
    if bytes.contains(&0) {
        return Err(("it is no text".into(), "Name a JSON file"));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        let (before, byte) = (&bytes[..e.valid_up_to()], bytes[e.valid_up_to()]);
        let line = 1 + before.iter().filter(|b| **b == b'\n').count();
        let cause =
            format!("its text is not encoded as UTF-8 but probably as Latin-1 (line {line} has the byte {byte:#04x})");
        (cause, SAVE)
    })
}

/// JSON with null for the numbers that Python's `json` has beyond it; texts stay as they are.
fn without_nan(text: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while !rest.is_empty() {
        let (between, from) = rest.split_at(rest.find('"').unwrap_or(rest.len()));
        let (string, after) = from.split_at(string_length(from));
        out += &["-Infinity", "Infinity", "NaN"].iter().fold(between.to_string(), |s, word| s.replace(word, "null"));
        out += string;
        rest = after;
    }
    out
}

/// Bytes of the string literal that `text` begins with; all of it where the literal does not end.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|b| {
        let ends = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |n| n + 2)
}

/// What a JSON file of nnU-Net's is, by its keys, for messages to those who named another one.
pub fn kind_of(json: &Value) -> Option<&'static str> {
    let has = |keys: &[&str]| keys.iter().all(|key| json.get(key).is_some());
    let kinds: [(&[&str], &str); 4] = [
        (&["configurations"], PLANS),
        (&["spacings", "shapes_after_crop"], FINGERPRINT),
        (&["labels"], DATASET),
        (&["metric_per_case"], SUMMARY),
    ];
    let splits = json.as_array().is_some_and(|list| list.iter().any(|fold| fold.get("train").is_some()));
    kinds.iter().find(|kind| has(kind.0)).map(|kind| kind.1).or(splits.then_some(SPLITS))
}

/// What a file is, where it is not JSON of this kind.
pub fn other_than(kind: &str, path: &Path) -> Option<String> {
    match read_json(path).map(|json| kind_of(&json)) {
        Ok(Some(found)) if found == kind => None,
        Ok(found) => Some(found.unwrap_or("JSON of another kind").into()),
        Err(_) => Some("no JSON file".into()),
    }
}

/// What [`kind_of`] calls plans.
pub const PLANS: &str = "plans";
/// What [`kind_of`] calls a fingerprint.
pub const FINGERPRINT: &str = "the fingerprint of a data set";
/// What [`kind_of`] calls the description of a data set.
pub const DATASET: &str = "the dataset.json of a data set";
/// What [`kind_of`] calls splits.
pub const SPLITS: &str = "the splits of a data set";
/// What [`kind_of`] calls scores.
pub const SUMMARY: &str = "the summary of an evaluation";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(bytes: &[u8]) -> Result<Value, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read_json(file.path()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_encoding_is_named() {
        assert_eq!(read(b"\xef\xbb\xbf{\"a\": 1}").unwrap(), json!({ "a": 1 }));
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for bytes in [[&[0xff, 0xfe][..], &utf16("{}")].concat(), utf16("{}")] {
            assert!(read(&bytes).unwrap_err().contains("UTF-16"));
        }
        let error = read(b"{\n\"a\": \"Universit\xe9\"}").unwrap_err();
        assert!(error.contains("Latin-1 (line 2 has the byte 0xe9)") && error.contains("UTF-8"), "{error}");
        assert!(read(b"PK\x03\x04\0\xff").unwrap_err().contains("no text"));
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n";
        assert!(read(pointer).unwrap_err().contains("git lfs pull"));
        assert!(read(b" \n").unwrap_err().contains("empty"));
        assert!(read(b"{'a': 1}").unwrap_err().contains("not valid JSON"));
    }

    #[test]
    fn what_python_writes_beyond_json_is_null() {
        let text = br#"{"a NaN \" NaN": [NaN, -Infinity,Infinity, 1e5], "b": "NaN \\", "c": "Infinity"}"#;
        let want = json!({ "a NaN \" NaN": [null, null, null, 1e5], "b": "NaN \\", "c": "Infinity" });
        assert_eq!(read(text).unwrap(), want);
        assert!(read(b"[NaN, \"").unwrap_err().contains("not valid JSON"));
    }

    #[test]
    fn files_are_told_apart() {
        assert_eq!(kind_of(&json!({ "configurations": {} })), Some(PLANS));
        assert_eq!(kind_of(&json!({ "spacings": [], "shapes_after_crop": [] })), Some(FINGERPRINT));
        assert_eq!(kind_of(&json!({ "labels": {} })), Some(DATASET));
        assert_eq!(kind_of(&json!([{ "train": [], "val": [] }])), Some(SPLITS));
        assert_eq!(kind_of(&json!({ "metric_per_case": [] })), Some(SUMMARY));
        assert_eq!(kind_of(&json!([1])), None);
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            other_than(PLANS, file.path())
        };
        assert_eq!(other(r#"{"configurations": {}}"#), None);
        assert_eq!(other(r#"{"labels": {}}"#).as_deref(), Some(DATASET));
        assert!(other("[1]").unwrap().contains("another kind") && other("\u{1f}").unwrap().contains("no JSON"));
    }
}
