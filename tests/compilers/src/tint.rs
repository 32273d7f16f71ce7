//! The compiler of Chromium's WebGPU, as the npm package `webgpu` brings it, run by Node.js.

use crate::pipelines::{Class, Pipeline, Pipelines};
use crate::report::Outcome;
use crate::translate::Translated;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use spark3d::compute::device::recording::Precision;
use spark3d::compute::device::shaders::source;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

/// A module, or a pipeline of one, as the script reads it.
#[derive(Serialize)]
struct Shader<'a> {
    name: &'a str,
    text: String,
    /// Of the pipeline.
    constants: BTreeMap<&'static str, f64>,
}

/// What the script says.
#[derive(Deserialize)]
struct Answer {
    name: String,
    refused: Option<String>,
}

/// The first line of the script's output.
#[derive(Deserialize)]
struct Browser {
    tool: String,
}

/// The text as a browser wants it: naga takes subgroup operations without being told, and refuses the line that tells.
fn text(pipeline: &Pipeline) -> String {
    let text = source(&pipeline.kernel);
    let has_subgroups = text.contains("subgroup_invocation_id") || text.contains("subgroupBroadcast");
    if has_subgroups { format!("enable subgroups;\n{text}") } else { text }
}

fn run(folder: &Path, mode: &str, shaders: &[Shader], driver: Option<&str>) -> Result<(String, Vec<Answer>), String> {
    let list = tempfile::NamedTempFile::new().map_err(|e| e.to_string())?;
    let lines: Vec<String> = shaders.iter().map(|s| serde_json::to_string(s).unwrap_or_default()).collect();
    std::fs::write(list.path(), lines.join("\n")).map_err(|e| e.to_string())?;
    let mut command = Command::new("node");
    command.arg(folder.join("check.mjs")).arg(mode).arg(list.path()).stdin(Stdio::null());
    if let Some(driver) = driver {
        command.env("VK_DRIVER_FILES", driver);
    }
    let output = command.output().map_err(|e| format!("node does not start: {e}"))?;
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut lines = out.lines();
    let said = || errors.lines().rfind(|l| !l.trim().is_empty()).unwrap_or("nothing").to_string();
    let browser: Browser = lines.next().and_then(|l| serde_json::from_str(l).ok()).ok_or_else(said)?;
    let mut answers: Vec<Answer> = lines.filter_map(|l| serde_json::from_str(l).ok()).collect();
    // What ended the process is the one after the last answer.
    if let Some(next) = shaders.get(answers.len()) {
        let refused = Some(format!("Node.js ended ({}): {}", output.status, said()));
        answers.push(Answer { name: next.name.to_string(), refused });
    }
    Ok((browser.tool, answers))
}

fn outcome(
    check: &'static str,
    folder: Option<&Path>,
    mode: &str,
    shaders: &[Shader],
    driver: Option<&str>,
) -> Outcome {
    let Some(folder) = folder else { return Outcome::left_out(check, "no Node.js with the package webgpu") };
    // A process for each processor, as the browser compiles one shader at a time.
    let part = shaders.len().div_ceil(rayon::current_num_threads()).max(1);
    let parts: Result<Vec<_>, String> = shaders.par_chunks(part).map(|part| run(folder, mode, part, driver)).collect();
    match parts {
        Err(why) => Outcome::left_out(check, why),
        Ok(parts) => {
            let tool = parts.first().map_or(String::new(), |(tool, _)| tool.clone());
            let mut outcome = Outcome::new(check, tool);
            for answer in parts.into_iter().flat_map(|(_, answers)| answers) {
                outcome.add(&answer.name, answer.refused.as_deref().map_or(Ok(()), Err));
            }
            outcome
        }
    }
}

/// All modules, or those that real sessions run by default.
pub fn modules(
    all: &BTreeMap<String, Translated>,
    pipelines: &Pipelines,
    folder: Option<&Path>,
    defaults_only: bool,
) -> Outcome {
    let mut seen = BTreeSet::new();
    let (mut shaders, mut excused) = (Vec::new(), 0);
    for (key, translated) in all {
        let pipeline = &pipelines[key];
        let Ok(facts) = &translated.facts else { continue };
        if defaults_only && !pipeline.is_default() {
            continue;
        }
        if facts.matrices {
            excused += 1;
        } else if seen.insert(pipeline.kernel.module_key()) {
            shaders.push(Shader { name: key, text: text(pipeline), constants: BTreeMap::new() });
        }
    }
    let mut found = outcome("tint", folder, "modules", &shaders, None);
    if excused > 0 && found.left_out.is_none() {
        found.excused.insert("matrix kernels: browsers have no cooperative matrices".into(), excused);
        let of = |precision| {
            let of = shaders.iter().filter(|s| pipelines[s.name].kernel.precision == precision);
            of.count()
        };
        let broadcast = shaders.iter().filter(|s| s.text.starts_with("enable subgroups")).count();
        found.notes.push(format!(
            "{} modules with 32-bit features, {} with 16-bit features, {broadcast} of them with `enable subgroups;` before them",
            of(Precision::F32),
            of(Precision::F16)
        ));
    }
    found
}

/// Pipelines that real sessions with 32-bit features run by default on the adapters that promise the least, made by a software
/// driver. It takes minutes for some of the candidates, whose modules [`modules`] has shown to the browser.
pub fn pipelines(
    all: &BTreeMap<String, Translated>,
    pipelines: &Pipelines,
    folder: Option<&Path>,
    (least, driver): (Class, Option<&str>),
) -> Outcome {
    const CHECK: &str = "tint-pipelines";
    let Some(driver) = driver else { return Outcome::left_out(CHECK, "no software driver that a browser takes") };
    let mut shaders = Vec::new();
    for (key, translated) in all {
        let pipeline = &pipelines[key];
        let Some(need) = pipeline.needs.get(&least) else { continue };
        let is_plain = pipeline.kernel.precision == Precision::F32 && translated.facts.is_ok();
        if is_plain && need.is_default {
            let constants = pipeline.kernel.constants.iter().copied().collect();
            shaders.push(Shader { name: key, text: text(pipeline), constants });
        }
    }
    outcome(CHECK, folder, "pipelines", &shaders, Some(driver))
}
