//! The checks that need no driver: what naga, the SPIR-V validator, the writers of other languages and the limits of each class
//! of adapters say.

use crate::pipelines::Pipelines;
use crate::report::Outcome;
use crate::spirv;
use crate::translate::{Translated, Wanted};
use std::collections::BTreeMap;

/// Refusals that say that a validator is older than the extension, not that the module is wrong: capability 6022 is that of
/// cooperative matrices.
const TOO_OLD: [&str; 2] = ["Invalid capability operand: 6022", "Invalid capability operand: CooperativeMatrixKHR"];

const NAGA: &str = "naga 30";

type All = BTreeMap<String, Translated>;

fn each(
    check: &'static str,
    tool: &str,
    all: &All,
    of: impl Fn(&Translated, &mut Outcome) -> Option<Result<(), String>>,
) -> Outcome {
    let mut outcome = Outcome::new(check, tool);
    for (key, translated) in all {
        if let Some(result) = of(translated, &mut outcome) {
            outcome.add(key, result.as_ref().map(|_| ()).map_err(String::as_str));
        }
    }
    outcome
}

/// WGSL that is valid, and SPIR-V that can be written of it.
pub fn naga(all: &All) -> Outcome {
    each("spirv", NAGA, all, |t, _| Some(t.facts.as_ref().map_err(String::clone).and_then(|_| t.spirv.clone())))
}

/// SPIR-V that the validator accepts.
pub fn validator(all: &All, wanted: &Wanted) -> Outcome {
    const CHECK: &str = "validator";
    let Some(program) = wanted.validator else { return Outcome::left_out(CHECK, "no spirv-val") };
    let version = spirv::version(program).unwrap_or_else(|| program.display().to_string());
    let tool = version.split(" unknown").next().unwrap_or(&version).replace("SPIRV-Tools", "spirv-val");
    each(CHECK, &tool, all, |t, outcome| match t.validated.clone() {
        None => {
            outcome.excuse("candidates without cooperative matrices");
            None
        }
        Some(Err(reason)) if TOO_OLD.iter().any(|old| reason.contains(old)) => {
            outcome.excuse("the validator is too old for kernels with cooperative matrices");
            None
        }
        result => result,
    })
}

/// Text for Metal.
pub fn metal(all: &All) -> Outcome {
    written("msl", "naga 30, Metal 3.1", all, |t| &t.metal, "matrix kernels of adapters that are not Metal's")
}

/// Text for DirectX 12.
pub fn directx(all: &All) -> Outcome {
    written("hlsl", "naga 30, shader model 6.6", all, |t| &t.directx, "matrix kernels: wgpu has no matrices on DirectX")
}

fn written(
    check: &'static str,
    tool: &str,
    all: &All,
    of: impl Fn(&Translated) -> &Option<Result<u64, String>>,
    excuse: &str,
) -> Outcome {
    let mut outcome = each(check, tool, all, |t, outcome| {
        if t.facts.is_err() {
            return None;
        }
        if of(t).is_none() {
            outcome.excuse(excuse);
        }
        of(t).clone().map(|result| result.map(|_| ()))
    });
    let hashes = all.values().filter_map(|t| of(t).as_ref()?.as_ref().ok());
    let sum = hashes.fold(0u64, |sum, hash| sum.rotate_left(5) ^ hash);
    outcome.notes.push(format!("all texts together have the hash {sum:016x}"));
    outcome
}

/// Workgroup memory, storage buffers and invocations, against what each class of adapters has.
pub fn limits(all: &All, pipelines: &Pipelines, wanted: &Wanted) -> Outcome {
    let mut outcome = Outcome::new("limits", format!("{} classes of adapters", wanted.classes.len()));
    let mut most = (0, String::new());
    for (key, translated) in all {
        let Ok(facts) = &translated.facts else { continue };
        if facts.workgroup_memory > most.0 {
            most = (facts.workgroup_memory, key.clone());
        }
        let over = |&class: &usize| {
            let (name, adapter) = &wanted.classes[class];
            let over = facts.exceeds(adapter);
            (!over.is_empty()).then(|| format!("{name}: {}", over.join(", ")))
        };
        match pipelines[key].classes.iter().find_map(over) {
            Some(reason) => outcome.add(key, Err(&reason)),
            None => outcome.add(key, Ok(())),
        }
    }
    let large = all.values().filter(|t| t.facts.as_ref().is_ok_and(|f| f.workgroup_memory > 32 << 10)).count();
    outcome
        .notes
        .push(format!("{large} take more than 32 KiB of workgroup memory; the most are {} bytes ({})", most.0, most.1));
    outcome
}
