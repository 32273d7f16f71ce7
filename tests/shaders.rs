//! Every shader is valid WGSL by itself, without a device: all kernels that any class of adapters may run.

#[path = "support/kernels.rs"]
mod kernels;

use kernels::{adapters, augmented, dispatches, kernels_of_cases, kernels_of_convolutions, shader_names};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use rayon::prelude::*;
use spark3d::compute::device::recording::{Kernel, Precision};
use spark3d::compute::device::shaders::source;
use spark3d::compute::device::spirv;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn failure(kernel: &Kernel) -> Option<String> {
    let text = source(kernel);
    let name = kernel.module_key();
    let module = match naga::front::wgsl::parse_str(&text) {
        Ok(module) => module,
        Err(error) => return Some(format!("{name}: {}", error.emit_to_string(&text))),
    };
    if spirv::is_needed(kernel)
        && let Err(error) = spirv::shader(kernel, false)
    {
        return Some(format!("{name}: {error}"));
    }
    let mut flags = ValidationFlags::all();
    // Surplus subgroups multiply nothing: uniform within each of them, where naga asks for all of the workgroup.
    flags.set(ValidationFlags::CONTROL_FLOW_UNIFORMITY, !kernel.variables.contains(&("SURPLUS", 1)));
    let error = Validator::new(flags, Capabilities::all()).validate(&module).err()?;
    Some(format!("{name}: {}", error.emit_to_string(&text)))
}

#[test]
fn naga_accepts_every_shader() {
    let mut found = BTreeMap::new();
    for precision in [Precision::F32, Precision::F16] {
        for name in names() {
            let kernel = Kernel { precision, ..Kernel::new(name) };
            found.insert(kernel.module_key(), kernel);
        }
        for graph in augmented(precision) {
            dispatches(&graph, &adapters()[0], |d| {
                found.insert(d.kernel.module_key(), d.kernel);
            });
        }
        found.extend(kernels_of_cases(precision));
    }
    // As slow adapters run them, with a binding behind the others.
    let last = |kernel: &Kernel| source(kernel).matches("@binding(").count() as u32;
    let in_parts = found.values().map(|kernel| Kernel { part: Some(last(kernel)), ..kernel.clone() });
    found.extend(in_parts.map(|kernel| (kernel.module_key(), kernel)).collect::<Vec<_>>());
    let failures: Vec<String> = found.par_iter().filter_map(|(_, kernel)| failure(kernel)).collect();
    eprintln!("{} modules of all operators", found.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn naga_accepts_every_kernel_of_a_convolution_that_an_adapter_may_choose() {
    let mut found = kernels_of_convolutions(Precision::F32);
    found.extend(kernels_of_convolutions(Precision::F16));
    let failures: Vec<String> = found.par_iter().filter_map(|(_, kernel)| failure(kernel)).collect();
    eprintln!("{} modules of convolutions on {} classes of adapters", found.len(), adapters().len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A shader whose uniform no list names would be read in another layout without a word.
#[test]
fn every_uniform_is_compared_with_its_struct() {
    fn sources(path: &Path) -> String {
        match std::fs::read_dir(path) {
            Ok(entries) => entries.map(|entry| sources(&entry.unwrap().path())).collect(),
            Err(_) => std::fs::read_to_string(path).unwrap(),
        }
    }
    let text = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/compute"));
    let lists = text
        .split("shader_struct! {")
        .skip(1)
        .filter_map(|block| Some(block.split_once(" of [")?.1.split_once(']')?.0));
    let listed: BTreeSet<&str> = lists.flat_map(|list| list.split('"').skip(1).step_by(2)).collect();
    let missing: Vec<&str> = names()
        .into_iter()
        // Those of the roofline are a few words that are written where they are used.
        .filter(|name| !name.starts_with("bench/"))
        .filter(|name| source(&Kernel::new(name)).contains("var<uniform> params") && !listed.contains(name))
        .collect();
    assert!(listed.len() > 40 && missing.is_empty(), "no shader_struct! lists {missing:?}");
}

fn names() -> Vec<&'static str> {
    shader_names(&Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders"))
}

#[test]
fn every_shader_file_is_embedded() {
    let names = names();
    assert!(!names.is_empty());
    // A shader that is not embedded panics.
    names.into_iter().for_each(|name| assert!(!source(&Kernel::new(name)).is_empty(), "{name}"));
}

#[test]
#[should_panic(expected = "no shader conv3d/none")]
fn an_unknown_shader_is_a_mistake_in_the_program() {
    source(&Kernel::new("conv3d/none"));
}
