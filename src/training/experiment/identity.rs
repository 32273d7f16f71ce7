//! What makes a result, as a hash.

pub use crate::base::identity::{Identity, of_file, of_scan};

use crate::base::Result;
use crate::data::RawCase;
use serde_json::Value;
use std::collections::BTreeMap;

/// The files of each case, by its name: wherever they lie, and however often they were copied.
pub fn each_case(cases: &[RawCase]) -> Result<BTreeMap<String, String>> {
    let of_case = |case: &RawCase| -> Result<(String, String)> {
        let mut identity = Identity::new("case");
        for file in case.images.iter().chain([&case.label]) {
            identity = identity.with("file", &of_scan(file)?);
        }
        Ok((case.id.clone(), identity.finish()))
    };
    cases.iter().map(of_case).collect()
}

/// Some of these cases.
pub fn of_cases<'a>(cases: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    cases.fold(Identity::new("cases"), |identity, (id, files)| identity.with(id, files)).finish()
}

/// `plans.json` without the data set's name.
pub fn of_plans(json: &Value) -> String {
    let mut json = json.clone();
    json["dataset_name"] = Value::Null;
    Identity::new("plans").with("plans.json", &json.to_string()).finish()
}
