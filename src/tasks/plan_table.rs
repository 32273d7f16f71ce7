//! Plans as TOML tables: changed by files and by `key=value`, compared key by key.

use crate::base::{Error, Result};
use crate::compute::model::Network;
use serde::Serialize;
use serde::de::DeserializeOwned;
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

/// The value that `file` and the `key=value` pairs give a key of the top level, if any.
pub(in crate::tasks) fn value(key: &str, file: Option<&Path>, set: &[String]) -> Result<Option<toml::Value>> {
    let mut table = toml::Table::new();
    if let Some(path) = file {
        merge(&mut table, read(path)?);
    }
    let mut pairs = set.iter().filter_map(|pair| pair.split_once('='));
    if let Some((_, text)) = pairs.rfind(|(k, _)| k.trim() == key) {
        table.insert(key.into(), parsed(text.trim()));
    }
    Ok(table.remove(key))
}

fn read(path: &Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    text.parse().map_err(|e: toml::de::Error| Error::file(path, e.to_string().trim(), "Correct the TOML"))
}

/// A value as TOML, or else the text itself.
fn parsed(text: &str) -> toml::Value {
    format!("v = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_string()))
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
    let value = |list: &[(String, String)], key: &str| {
        list.iter().find(|(k, _)| k == key).map_or("-".to_string(), |(_, v)| v.clone())
    };
    let mut keys: Vec<&String> = a.iter().chain(&b).map(|(k, _)| k).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|k| (k, value(&a, k), value(&b, k)))
        .filter(|(_, x, y)| x != y)
        .map(|(k, x, y)| format!("{k} = {x} / {y}"))
        .collect()
}

fn flat(plan: &impl Serialize) -> Vec<(String, String)> {
    let mut out = Vec::new();
    if let Ok(table) = toml::Table::try_from(plan) {
        flatten("", &toml::Value::Table(table), &mut out);
    }
    out
}

fn flatten(prefix: &str, value: &toml::Value, out: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                flatten(&if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") }, value, out);
            }
        }
        other => out.push((prefix.to_string(), other.to_string())),
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
        let known = table.contains_key(part);
        if !known {
            return Err(Error::plan(
                format!("the plan has no key {key}"),
                format!("Known here: {}", table.keys().cloned().collect::<Vec<_>>().join(", ")),
            ));
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
