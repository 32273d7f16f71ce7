//! Why a model or its plans cannot be used, and which of their keys are known.

use crate::base::Error;
use serde_json::{Map, Value};
use std::path::Path;

/// What of a model is not supported or makes no sense, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong, with the key that says so.
    pub cause: String,
    /// What to do, as one sentence without its full stop, where it follows from the cause.
    pub remedy: Option<String>,
}

pub(super) type Cause<T> = std::result::Result<T, Refusal>;

/// The most characters of a value that a message shows.
const SHOWN: usize = 60;

impl Refusal {
    pub(super) fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: Some(remedy.into()) }
    }

    /// As an error of the file at `path`; `remedy` is for causes that bring none.
    pub fn of(self, path: impl AsRef<Path>, remedy: &str) -> Error {
        Error::file(path, self.cause, self.remedy.unwrap_or_else(|| remedy.into()))
    }
}

impl From<String> for Refusal {
    fn from(cause: String) -> Self {
        Self { cause, remedy: None }
    }
}

impl From<&str> for Refusal {
    fn from(cause: &str) -> Self {
        cause.to_string().into()
    }
}

/// # Errors
/// A key of `json`, which is the table `what`, is not among the `known` ones: it may change what a network does.
pub(super) fn only(what: &str, json: &Map<String, Value>, known: &[&[&str]]) -> Cause<()> {
    let unknown = json.iter().find(|(key, _)| !known.iter().any(|list| list.contains(&key.as_str())));
    let Some((key, value)) = unknown else { return Ok(()) };
    let value: String = value.to_string().chars().take(SHOWN).collect();
    Err(Refusal::new(
        format!("{what} has the key {key} ({value}), which is not known here"),
        "Use the program whose key it is; if it has no effect on predictions, remove it",
    ))
}
