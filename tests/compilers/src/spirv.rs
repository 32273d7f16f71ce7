//! SPIR-V, as the program gives it to a Vulkan driver, and what the validator of the Khronos Group says of it.

use crate::module::{ENTRY, Resolved};
use naga::back::spv::{
    BindingInfo, Capability, Options, PipelineOptions, WriterFlags, ZeroInitializeWorkgroupMemoryMode,
};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use spark3d::compute::device::Kernel;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What may be used of Vulkan 1.3 on devices that are opened with 16-bit floats, subgroup operations and cooperative matrices:
/// wgpu refuses a shader that needs more.
const CAPABILITIES: [Capability; 15] = [
    Capability::Shader,
    Capability::Matrix,
    Capability::ImageQuery,
    Capability::GroupNonUniform,
    Capability::GroupNonUniformVote,
    Capability::GroupNonUniformArithmetic,
    Capability::GroupNonUniformBallot,
    Capability::GroupNonUniformShuffle,
    Capability::GroupNonUniformShuffleRelative,
    Capability::GroupNonUniformQuad,
    Capability::Float16,
    Capability::Int8,
    Capability::CooperativeMatrixKHR,
    Capability::VulkanMemoryModel,
    Capability::DotProductKHR,
];

/// The words of a pipeline. wgpu's options for shaders that are trusted: no bounds checks, no bounds of loops, no checks of
/// divisors, workgroup memory as it is found.
///
/// # Errors
/// What naga says.
pub fn words(kernel: &Kernel, resolved: &Resolved) -> Result<Vec<u32>, String> {
    // Wgpu passes these through as the program writes them.
    if spark3d::compute::device::spirv::is_needed(kernel) {
        return spark3d::compute::device::spirv::shader(kernel, false).map(|shader| shader.words);
    }
    let unchecked = BoundsCheckPolicy::Unchecked;
    let bindings = resolved.module.global_variables.iter().filter_map(|(_, variable)| variable.binding);
    let place = |b: naga::ResourceBinding| {
        (b, BindingInfo { descriptor_set: b.group, binding: b.binding, binding_array_size: None })
    };
    let options = Options {
        lang_version: (1, 6),
        flags: WriterFlags::LABEL_VARYINGS | WriterFlags::FORCE_POINT_SIZE,
        fake_missing_bindings: false,
        binding_map: bindings.map(place).collect(),
        capabilities: Some(CAPABILITIES.into_iter().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ray_query_initialization_tracking: false,
        task_dispatch_limits: None,
        mesh_shader_primitive_indices_clamp: false,
        emit_int_div_checks: false,
        ..Options::default()
    };
    let pipeline = PipelineOptions { entry_point: ENTRY.into(), shader_stage: naga::ShaderStage::Compute };
    naga::back::spv::write_vec(&resolved.module, &resolved.info, &options, Some(&pipeline)).map_err(|e| e.to_string())
}

/// The words as bytes.
pub fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// What the validator says of a module, for Vulkan 1.3.
///
/// # Errors
/// The first lines of its message.
pub fn validate(validator: &Path, words: &[u32]) -> Result<(), String> {
    let run = || {
        let mut child = Command::new(validator)
            .args(["--target-env", "vulkan1.3", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        // A validator that gives up early closes the pipe; its message says why.
        let _ = child.stdin.take().expect("piped").write_all(&bytes(words));
        child.wait_with_output()
    };
    let output = run().map_err(|e| format!("{} does not start: {e}", validator.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let message = text.lines().find(|line| line.starts_with("error")).unwrap_or(&text);
    Err(message.trim_start_matches("error: ").trim().to_string())
}

/// The first line of what a program prints with `--version`.
pub fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_string())
}
