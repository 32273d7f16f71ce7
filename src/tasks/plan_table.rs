//! Plans as TOML tables: changed by files and by `key=value`, compared key by key.

use super::check::listed;
use crate::base::{Error, Result};
use crate::compute::model::Network;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where a plan with every key can be seen.
pub(in crate::tasks) const COMPLETE_PLAN: &str =
    "`spark3d pretrain STORE -o RUN --dry-run` prints a plan with every key";

/// A plan as a table.
pub(in crate::tasks) fn of(plan: &impl Serialize) -> Result<toml::Table> {
    toml::Table::try_from(plan).map_err(|e| Error::plan(e.to_string(), "This is a bug"))
}

/// A plan from its table; `remedy` says where a complete plan can be seen.
pub(in crate::tasks) fn into<T: DeserializeOwned>(table: toml::Table, remedy: &str) -> Result<T> {
    table.try_into().map_err(|e: toml::de::Error| {
        Error::plan(format!("the plan is not valid: {}", e.to_string().trim().replace('\n', " ")), remedy)
    })
}

/// The table of a plan's text.
pub(in crate::tasks) fn parse(text: &str) -> Result<toml::Table> {
    text.parse().map_err(|e: toml::de::Error| Error::plan(e.to_string().trim(), "Correct the TOML"))
}

/// The value that `file` and the `key=value` pairs give a key of the top level, if any.
pub(in crate::tasks) fn value(key: &str, file: Option<&Path>, set: &[String]) -> Result<Option<toml::Value>> {
    let mut table = file.map(read).transpose()?.unwrap_or_default();
    let mut pairs = set.iter().filter_map(|pair| pair.split_once('='));
    let assigned = pairs.rfind(|(k, _)| k.trim() == key).map(|(_, text)| parsed(text.trim()));
    Ok(assigned.or_else(|| table.remove(key)))
}

/// Whether `file` or the `key=value` pairs give a key of a table, such as `train.batch`, or the whole table.
///
/// # Errors
/// The file cannot be read.
pub fn gives(key: &str, file: Option<&Path>, set: &[String]) -> Result<bool> {
    let (table, of_table) = key.split_once('.').unwrap_or((key, ""));
    let assigned = set.iter().filter_map(|pair| pair.split_once('=')).any(|(k, _)| [key, table].contains(&k.trim()));
    let found = file.map(read).transpose()?.and_then(|mut t| t.remove(table));
    Ok(assigned || found.is_some_and(|found| found.get(of_table).is_some()))
}

fn read(path: &Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    text.parse().map_err(|e: toml::de::Error| Error::file(path, e.to_string().trim(), "Correct the TOML"))
}

/// A value as TOML, or else the text itself.
fn parsed(text: &str) -> toml::Value {
    let table = format!("v = {text}").parse::<toml::Table>().ok();
    table.and_then(|mut t| t.remove("v")).unwrap_or_else(|| text.into())
}

/// Applies the tables of `file`, then `key=value` pairs with dotted keys.
pub(in crate::tasks) fn change(table: &mut toml::Table, file: Option<&Path>, set: &[String]) -> Result<()> {
    if let Some(path) = file {
        merge(table, read(path)?);
    }
    for pair in set {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Error::Usage(format!("--set {pair}: write key=value, for example --set train.batch=2")))?;
        assign(table, key.trim(), value.trim())?;
    }
    Ok(())
}

/// Keys in which two plans differ, with both values.
pub(in crate::tasks) fn differences(a: &impl Serialize, b: &impl Serialize) -> Vec<String> {
    let (a, b) = (flat(a), flat(b));
    let value = |list: &BTreeMap<String, String>, key: &str| list.get(key).map_or("-".to_string(), String::clone);
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let values = keys.into_iter().map(|k| (k, value(&a, k), value(&b, k)));
    values.filter(|(_, x, y)| x != y).map(|(k, x, y)| format!("{k} = {x} / {y}")).collect()
}

/// Every value by its dotted key.
fn flat(plan: &impl Serialize) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    if let Ok(table) = toml::Table::try_from(plan) {
        flatten("", &table, &mut out);
    }
    out
}

fn flatten(prefix: &str, table: &toml::Table, out: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => flatten(&format!("{prefix}{key}."), inner, out),
            value => drop(out.insert(format!("{prefix}{key}"), value.to_string())),
        }
    }
}

fn merge(base: &mut toml::Table, changes: toml::Table) {
    for (key, value) in changes {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

fn assign(table: &mut toml::Table, key: &str, text: &str) -> Result<()> {
    let value = parsed(text);
    let mut table = table;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        if !table.contains_key(part) {
            let known = listed(table.keys().map(String::as_str));
            return Err(Error::plan(format!("the plan has no key {key}"), format!("Known here: {known}")));
        }
        if parts.peek().is_none() {
            // A whole number is a fine value of a real key.
            let real = matches!(table.get(part), Some(toml::Value::Float(_)));
            let value = match value {
                toml::Value::Integer(i) if real => toml::Value::Float(i as f64),
                other => other,
            };
            table.insert(part.to_string(), value);
            return Ok(());
        }
        table = table
            .get_mut(part)
            .and_then(toml::Value::as_table_mut)
            .ok_or_else(|| Error::plan(format!("{part} in {key} is a value, not a table"), "Shorten the key"))?;
    }
    Ok(())
}

/// `network = "S"` names a preset instead of spelling it out.
pub(in crate::tasks) fn name_network(table: &mut toml::Table) -> Result<()> {
    if let Some(toml::Value::String(name)) = table.get("network") {
        let network = Network::preset(name).ok_or_else(|| {
            Error::plan(format!("there is no network {name}"), "Choose tiny, S, M or L, or write a [network] table")
        })?;
        table.insert("network".into(), toml::Value::Table(of(&network)?));
    }
    Ok(())
}
