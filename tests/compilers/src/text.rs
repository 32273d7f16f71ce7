//! The text that wgpu gives to Metal and to DirectX 12. Their compilers are not at hand; that the text can be written is, and for
//! cooperative matrices that it is what Metal has.

use crate::module::{Buffer, ENTRY, Resolved};
use naga::back::{hlsl, msl};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::{ResourceBinding, ShaderStage};

/// Metal Shading Language 3.1, as wgpu asks for it: buffers in order, unchecked.
///
/// # Errors
/// What naga says, or what in the text Metal does not have.
pub fn metal(resolved: &Resolved) -> Result<String, String> {
    let unchecked = BoundsCheckPolicy::Unchecked;
    let bindings = resolved.buffers();
    let target = |(slot, &(binding, kind)): (u8, &(u32, Buffer))| {
        let mutable = kind == Buffer::Storage { writable: true };
        (ResourceBinding { group: 0, binding }, msl::BindTarget { buffer: Some(slot), mutable, ..Default::default() })
    };
    let resources = msl::EntryPointResources {
        resources: (0..).zip(&bindings).map(target).collect(),
        immediates_buffer: None,
        sizes_buffer: Some(bindings.len() as u8),
    };
    let options = msl::Options {
        lang_version: (3, 1),
        per_entry_point_map: [(ENTRY.to_string(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        emit_int_div_checks: false,
        mesh_shader_primitive_indices_clamp: false,
        ray_query_initialization_tracking: false,
        ..msl::Options::default()
    };
    let entry_point = Some((ShaderStage::Compute, ENTRY.to_string()));
    let pipeline = msl::PipelineOptions { entry_point, vertex_pulling_transform: true, ..Default::default() };
    let (text, info) =
        msl::write_string(&resolved.module, &resolved.info, &options, &pipeline).map_err(|e| e.to_string())?;
    for name in info.entry_point_names {
        name.map_err(|e| e.to_string())?;
    }
    if resolved.has_matrices() {
        matrices_of_metal(&text, &resolved.matrix_sources())?;
    }
    Ok(text)
}

/// Metal has matrices of 8 x 8 alone, and loads them through pointers to scalars.
fn matrices_of_metal(text: &str, sources: &[String]) -> Result<(), String> {
    for needed in ["simdgroup_half8x8", "simdgroup_float8x8", "const threadgroup half* ptr"] {
        if !text.contains(needed) {
            return Err(format!("no `{needed}`"));
        }
    }
    for wrong in ["half16x16", "float16x16", "half4*", "float4*"] {
        if text.contains(wrong) {
            return Err(format!("`{wrong}`"));
        }
    }
    match sources.iter().find(|source| *source != "scalar") {
        Some(source) => Err(format!("a matrix is loaded through a pointer to {source}")),
        None => Ok(()),
    }
}

/// HLSL of shader model 6.6, as wgpu asks for it: registers in order by kind, unchecked.
///
/// # Errors
/// What naga says.
pub fn directx(resolved: &Resolved) -> Result<String, String> {
    // Constants, what is read, what is written.
    let mut next = [0; 3];
    let mut place = |(binding, kind): (u32, Buffer)| {
        let register = &mut next[match kind {
            Buffer::Uniform => 0,
            Buffer::Storage { writable: false } => 1,
            Buffer::Storage { writable: true } => 2,
        }];
        *register += 1;
        (ResourceBinding { group: 0, binding }, hlsl::BindTarget { register: *register - 1, ..Default::default() })
    };
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_6,
        binding_map: resolved.buffers().into_iter().map(&mut place).collect(),
        fake_missing_bindings: false,
        // The number of workgroups is among them.
        special_constants_binding: Some(hlsl::BindTarget { register: 1, ..Default::default() }),
        zero_initialize_workgroup_memory: false,
        restrict_indexing: false,
        force_loop_bounding: false,
        mesh_shader_primitive_indices_clamp: false,
        ray_query_initialization_tracking: false,
        ..hlsl::Options::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, ENTRY.to_string())) };
    let mut text = String::new();
    let mut writer = hlsl::Writer::new(&mut text, &options, &pipeline);
    // Where naga has not written a part of the language it panics.
    let write = std::panic::AssertUnwindSafe(|| writer.write(&resolved.module, &resolved.info, None));
    let info = std::panic::catch_unwind(write).map_err(|_| "naga panics")?.map_err(|e| e.to_string())?;
    for name in info.entry_point_names {
        name.map_err(|e| e.to_string())?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::Parsed;
    use spark3d::compute::device::Kernel;
    use spark3d::compute::device::recording::Precision;

    fn matrices(tile: usize, scalars: usize) -> Result<String, String> {
        let kernel = Kernel::new("conv3d/matrix").unrolled("TILE", tile).unrolled("SCALARS", scalars);
        let kernel = Kernel { precision: Precision::F16, ..kernel };
        metal(&Parsed::new(&kernel).unwrap().resolve(&kernel).unwrap())
    }

    #[test]
    fn metal_takes_small_matrices_through_pointers_to_scalars() {
        assert!(matrices(8, 1).is_ok());
        assert!(matrices(8, 0).unwrap_err().contains("pointer to Vector"));
        assert!(matrices(16, 1).is_err());
    }

    #[test]
    fn directx_has_no_matrices() {
        let kernel = Kernel { precision: Precision::F16, ..Kernel::new("conv3d/matrix") };
        assert!(directx(&Parsed::new(&kernel).unwrap().resolve(&kernel).unwrap()).is_err());
    }
}
