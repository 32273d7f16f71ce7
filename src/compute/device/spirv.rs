//! SPIR-V of kernels that Vulkan gets from us instead of from wgpu: those with cooperative matrices, whose loads and stores of
//! workgroup memory say that barriers order them.
//!
//! Modules with cooperative matrices are of the Vulkan memory model, in which an access is private to its invocation unless it
//! says otherwise, and barriers do not order private accesses. What naga writes does not say so
//! (<https://github.com/gfx-rs/wgpu/issues/8805>). Here every load from workgroup memory gets the memory operands
//! `MakePointerVisible | NonPrivatePointer` and every store `MakePointerAvailable | NonPrivatePointer`, at the scope of the
//! workgroup, as the Vulkan specification's appendix on the memory model asks of what is to be ordered by a barrier.

use super::{Kernel, shaders};
use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, StorageAccess};
use std::collections::HashSet;

/// A kernel as Vulkan takes it.
pub struct Shader {
    /// A SPIR-V module.
    pub words: Vec<u32>,
    /// Whether each binding, from 0 on, is a uniform buffer, a storage buffer that is only read, or one that is written.
    pub bindings: Vec<Access>,
}

/// What a kernel does with a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer that is read.
    Read,
    /// A storage buffer that is read and written.
    Write,
}

/// Whether the SPIR-V of a kernel is to be ours.
pub fn is_needed(kernel: &Kernel) -> bool {
    kernel.shader.ends_with("matrix")
}

/// The SPIR-V of a kernel, with bounds checks where `checked`.
///
/// # Errors
/// The kernel is not valid: a mistake in the program, which the tests of all kernels would meet.
pub fn shader(kernel: &Kernel, checked: bool) -> Result<Shader, String> {
    // Overrides become constants of the text: where naga puts in their values it asks for uniformity again.
    let text = with_constants(&shaders::source(kernel), &kernel.constants);
    let module = naga::front::wgsl::parse_str(&text).map_err(|error| error.emit_to_string(&text))?;
    let mut flags = ValidationFlags::all();
    // Whether a subgroup is a surplus one is uniform in it, which is what cooperative matrices need; naga asks for the workgroup.
    flags.remove(ValidationFlags::CONTROL_FLOW_UNIFORMITY);
    let info = Validator::new(flags, Capabilities::all()).validate(&module).map_err(|e| e.emit_to_string(&text))?;
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let options = spv::Options {
        // Every driver with cooperative matrices has Vulkan 1.3.
        lang_version: (1, 6),
        flags: spv::WriterFlags::empty(),
        bounds_check_policies: BoundsCheckPolicies {
            index: policy,
            buffer: policy,
            image_load: policy,
            binding_array: policy,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: checked,
        ..Default::default()
    };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".into() };
    let words = spv::write_vec(&module, &info, &options, Some(&pipeline)).map_err(|e| e.to_string())?;
    Ok(Shader { words: ordered_by_barriers(&words)?, bindings: bindings(&module)? })
}

/// The text with constants in place of its overrides, which have the values given, or their defaults.
fn with_constants(text: &str, values: &[(&str, f64)]) -> String {
    let line = |line: &str| {
        let Some((name, rest)) = line.strip_prefix("override ").and_then(|l| l.split_once(':')) else {
            return format!("{line}\n");
        };
        let (kind, default) = rest.split_once('=').unwrap_or((rest, ""));
        let given = values.iter().find(|(of, _)| *of == name).map(|&(_, value)| match kind.trim() {
            "bool" => (value != 0.0).to_string(),
            _ => value.to_string(),
        });
        let default = default.split_once(';').map_or(default, |(value, _)| value).trim();
        format!("const {name}: {} = {};\n", kind.trim(), given.as_deref().unwrap_or(default))
    };
    text.lines().map(line).collect()
}

/// What a module does with its bindings, which must be numbered from 0 without a gap: wgpu numbers them anew.
fn bindings(module: &Module) -> Result<Vec<Access>, String> {
    let mut found: Vec<(u32, Access)> = module
        .global_variables
        .iter()
        .filter_map(|(_, variable)| {
            let access = match variable.space {
                AddressSpace::Uniform => Access::Uniform,
                AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => Access::Write,
                _ => Access::Read,
            };
            Some((variable.binding?.binding, access))
        })
        .collect();
    found.sort_by_key(|&(binding, _)| binding);
    match (0..).zip(&found).all(|(number, &(binding, _))| number == binding) {
        true => Ok(found.into_iter().map(|(_, access)| access).collect()),
        false => Err(format!("bindings are not numbered from 0 without a gap: {found:?}")),
    }
}

// Numbers of the SPIR-V specification, https://registry.khronos.org/SPIR-V/specs/unified1/SPIRV.html.
const HEADER: usize = 5;
const BOUND: usize = 3;
const OP_TYPE_INT: u32 = 21;
const OP_TYPE_POINTER: u32 = 32;
const OP_CONSTANT: u32 = 43;
const OP_FUNCTION: u32 = 54;
const OP_FUNCTION_PARAMETER: u32 = 55;
const OP_VARIABLE: u32 = 59;
const OP_LOAD: u32 = 61;
const OP_STORE: u32 = 62;
const OP_ACCESS_CHAIN: u32 = 65;
const OP_IN_BOUNDS_ACCESS_CHAIN: u32 = 66;
const OP_COOPERATIVE_LOAD: u32 = 4457;
const OP_COOPERATIVE_STORE: u32 = 4458;
const STORAGE_CLASS_WORKGROUP: u32 = 4;
const SCOPE_WORKGROUP: u32 = 2;
const MAKE_POINTER_AVAILABLE: u32 = 0x8;
const MAKE_POINTER_VISIBLE: u32 = 0x10;
const NON_PRIVATE_POINTER: u32 = 0x20;

/// The instructions of a module, each with its words.
fn instructions(words: &[u32]) -> Result<Vec<&[u32]>, String> {
    let (mut rest, mut found) = (words.get(HEADER..).ok_or("a SPIR-V module without a header")?, Vec::new());
    while let Some(&first) = rest.first() {
        let length = (first >> 16) as usize;
        if length == 0 || length > rest.len() {
            return Err("a SPIR-V instruction that ends outside of its module".into());
        }
        let (instruction, others) = rest.split_at(length);
        found.push(instruction);
        rest = others;
    }
    Ok(found)
}

/// The module with memory operands on all its loads and stores of workgroup memory.
fn ordered_by_barriers(words: &[u32]) -> Result<Vec<u32>, String> {
    let list = instructions(words)?;
    let opcode = |instruction: &[u32]| instruction[0] & 0xffff;
    let workgroup_pointers: Vec<u32> =
        list.iter().filter(|i| opcode(i) == OP_TYPE_POINTER && i[2] == STORAGE_CLASS_WORKGROUP).map(|i| i[1]).collect();
    let is_pointer = |i: &&[u32]| {
        let makes =
            [OP_VARIABLE, OP_ACCESS_CHAIN, OP_IN_BOUNDS_ACCESS_CHAIN, OP_FUNCTION_PARAMETER].contains(&opcode(i));
        makes && workgroup_pointers.contains(&i[1])
    };
    let pointers: HashSet<u32> = list.iter().copied().filter(is_pointer).map(|i| i[2]).collect();
    let mut out = words[..HEADER].to_vec();
    // The scope is a constant of the module; one of ours where it has none.
    let integers: Vec<u32> = list.iter().filter(|i| opcode(i) == OP_TYPE_INT && i[2] == 32).map(|i| i[1]).collect();
    let existing =
        list.iter().find(|i| opcode(i) == OP_CONSTANT && i[3] == SCOPE_WORKGROUP && integers.contains(&i[1]));
    let mut scope = existing.map(|i| i[2]);
    for instruction in list {
        if opcode(instruction) == OP_FUNCTION && scope.is_none() {
            let integer = *integers.first().ok_or("a SPIR-V module without integers")?;
            scope = Some(out[BOUND]);
            out.extend([4 << 16 | OP_CONSTANT, integer, out[BOUND], SCOPE_WORKGROUP]);
            out[BOUND] += 1;
        }
        // Place of the pointer, words without memory operands, and what to say.
        let (pointer, length, operand) = match opcode(instruction) {
            OP_LOAD => (3, 4, MAKE_POINTER_VISIBLE),
            OP_STORE => (1, 3, MAKE_POINTER_AVAILABLE),
            OP_COOPERATIVE_LOAD => (3, 6, MAKE_POINTER_VISIBLE),
            OP_COOPERATIVE_STORE => (1, 5, MAKE_POINTER_AVAILABLE),
            _ => (0, 0, 0),
        };
        if operand == 0 || !pointers.contains(&instruction[pointer]) {
            out.extend(instruction);
            continue;
        }
        if instruction.len() != length {
            return Err("a load or store of workgroup memory has memory operands already".into());
        }
        let scope = scope.ok_or("a load before the first function")?;
        out.push(((length + 2) as u32) << 16 | opcode(instruction));
        out.extend(&instruction[1..]);
        out.extend([operand | NON_PRIVATE_POINTER, scope]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::device::recording::Precision;

    const MATRICES: [&str; 4] =
        ["conv3d/matrix", "conv3d/halo_matrix", "conv3d/weight_gradient_matrix", "conv3d/weight_gradient_halo_matrix"];

    #[test]
    fn accesses_of_workgroup_memory_have_memory_operands_and_others_have_none() {
        for name in MATRICES {
            let kernel = Kernel { precision: Precision::F16, ..Kernel::new(name) }.unrolled("TILE", 16);
            let shader = shader(&kernel, false).unwrap();
            assert_eq!(shader.bindings[0], Access::Uniform);
            let list = instructions(&shader.words).unwrap();
            let of = |opcode: u32, length: usize| {
                let all: Vec<_> = list.iter().filter(|i| i[0] & 0xffff == opcode).collect();
                let said = all.iter().filter(|i| i.len() == length + 2).count();
                assert!(all.iter().all(|i| i.len() == length || i.len() == length + 2), "{name}");
                (all.len(), said)
            };
            // Matrices live in workgroup memory alone.
            let (loads, said) = of(OP_COOPERATIVE_LOAD, 6);
            assert!(loads > 0 && said == loads, "{name}: {said} of {loads}");
            let (stores, said) = of(OP_COOPERATIVE_STORE, 5);
            assert!(stores > 0 && said == stores, "{name}: {said} of {stores}");
            // Features, weights and uniforms are read from buffers, local variables are private.
            let (loads, said) = of(OP_LOAD, 4);
            assert!(said > 0 && said < loads, "{name}: {said} of {loads}");
            let (stores, said) = of(OP_STORE, 3);
            assert!(said > 0 && said < stores, "{name}: {said} of {stores}");
        }
    }

    #[test]
    fn kernels_with_surplus_subgroups_and_other_constants_are_taken() {
        for name in MATRICES {
            let kernel = Kernel { precision: Precision::F16, ..Kernel::new(name) }.unrolled("SURPLUS", 1);
            shader(&kernel, false).unwrap();
        }
        let kernel = Kernel { precision: Precision::F16, ..Kernel::new("conv3d/matrix") };
        let (plain, scattered) = (shader(&kernel, true).unwrap(), shader(&kernel.flag("SCATTER", true), true).unwrap());
        assert_ne!(plain.words, scattered.words);
        let text = with_constants("override A: u32 = 4u; // of\noverride B: bool = false;\nlet c = A;", &[("B", 1.0)]);
        assert_eq!(text, "const A: u32 = 4u;\nconst B: bool = true;\nlet c = A;\n");
        assert_eq!(with_constants("override A: u32 = 4u;", &[("A", 16.0)]), "const A: u32 = 16;\n");
    }

    #[test]
    fn what_is_no_module_is_an_error() {
        assert!(ordered_by_barriers(&[1, 2]).is_err());
        assert!(ordered_by_barriers(&[0, 0, 0, 9, 0, 7 << 16 | OP_LOAD, 1]).is_err());
        assert!(ordered_by_barriers(&[0, 0, 0, 9, 0, 0]).is_err());
    }
}
