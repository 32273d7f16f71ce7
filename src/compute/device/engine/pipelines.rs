//! Pipelines by name, and their cache on disk.

use super::Engine;
use crate::base::write_atomic;
use crate::compute::device::spirv::{self, Access, Shader};
use crate::compute::device::{AdapterFacts, Kernel, KernelTable, shaders};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::PathBuf;
use wgpu::{BufferBindingType, ShaderRuntimeChecks};

/// What was compiled so far.
#[derive(Default)]
pub(super) struct Pipelines {
    modules: HashMap<String, wgpu::ShaderModule>,
    pipelines: HashMap<String, wgpu::ComputePipeline>,
    /// Pipelines since the cache was last written.
    new: usize,
}

/// Where compiled pipelines are kept between runs.
pub(super) struct PipelineCache {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Bytes when it was last read or written.
    size: std::sync::atomic::AtomicUsize,
}

/// A cache without pipelines is not much more than its header.
const SMALLEST: usize = 256;
/// A larger file is not read, and not written.
const LARGEST: usize = 256 << 20;
const DIGEST: usize = 32;

impl PipelineCache {
    /// The cache of an adapter and driver, with what earlier runs left; `None` where the driver has none, or there is no folder for it.
    pub fn open(device: &wgpu::Device, facts: &AdapterFacts) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let key =
            Sha256::digest(format!("{} {} {} {}", facts.name, facts.backend, facts.driver, env!("CARGO_PKG_VERSION")));
        let name: String = key.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let path = KernelTable::path()?.with_file_name(format!("pipelines_{name}.bin"));
        let known = std::fs::metadata(&path)
            .is_ok_and(|m| m.len() < LARGEST as u64)
            .then(|| std::fs::read(&path).ok())
            .flatten();
        // What is damaged is as good as nothing.
        let known = known
            .filter(|bytes| bytes.len() > DIGEST && Sha256::digest(&bytes[DIGEST..]).as_slice() == &bytes[..DIGEST]);
        let data = known.as_deref().map(|bytes| &bytes[DIGEST..]);
        let descriptor = wgpu::PipelineCacheDescriptor { label: Some("spark3d"), data, fallback: true };
        // SAFETY: the data is what `get_data` returned, as its digest says, and the driver checks that it is its own.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Self { cache, path, size: data.map_or(0, <[u8]>::len).into() })
    }

    /// Keeps what is new. A cache that cannot be written costs time, and nothing else.
    fn save(&self) {
        let Some(data) = self.cache.get_data().filter(|d| (SMALLEST..LARGEST).contains(&d.len())) else { return };
        if self.size.swap(data.len(), std::sync::atomic::Ordering::Relaxed) == data.len() {
            return;
        }
        let bytes = [Sha256::digest(&data).as_slice(), &data].concat();
        let made = self.path.parent().is_none_or(|folder| std::fs::create_dir_all(folder).is_ok());
        if !made || write_atomic(self.path.clone(), &bytes).is_err() {
            log::info!("compiled pipelines could not be kept in {}", self.path.display());
        }
    }
}

impl Engine {
    pub(super) fn pipeline(&self, kernel: &Kernel) -> wgpu::ComputePipeline {
        let mut known = self.pipelines.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(found) = known.pipelines.get(&kernel.key()) {
            return found.clone();
        }
        let ours = self.passes_spirv && spirv::is_needed(kernel);
        let pipeline = match ours.then(|| spirv::shader(kernel, self.checked)) {
            Some(Ok(shader)) => self.passed_through(kernel, shader),
            // Wgpu says what is wrong, and whoever compiles reports it.
            Some(Err(_)) | None => self.compiled(kernel, &mut known),
        };
        known.pipelines.insert(kernel.key(), pipeline.clone());
        known.new += 1;
        pipeline
    }

    /// Writes the pipelines that were compiled since the last call to the cache on disk.
    pub(super) fn keep_pipelines(&self) {
        let new = std::mem::take(&mut self.pipelines.lock().unwrap_or_else(|e| e.into_inner()).new);
        if new > 0
            && let Some(cache) = &self.cache
        {
            cache.save();
        }
    }

    fn compiled(&self, kernel: &Kernel, known: &mut Pipelines) -> wgpu::ComputePipeline {
        let module = known.modules.entry(kernel.module_key()).or_insert_with(|| {
            let checks = if self.checked { ShaderRuntimeChecks::checked() } else { ShaderRuntimeChecks::unchecked() };
            let source = wgpu::ShaderSource::Wgsl(shaders::source(kernel).into());
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(kernel.shader), source };
            // SAFETY: the shaders are the program's own; every index is bounded by the voxel count, channel group count or table
            // that the recording passes, which the tests verify with the checks switched on.
            unsafe { self.device.create_shader_module_trusted(descriptor, checks) }
        });
        self.create_pipeline(kernel, module, None, &kernel.constants)
    }

    /// The pipeline of a kernel whose SPIR-V is written here: wgpu knows its bindings from us alone.
    fn passed_through(&self, kernel: &Kernel, shader: Shader) -> wgpu::ComputePipeline {
        let entry = |(binding, access): (u32, &Access)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match access {
                    Access::Uniform => BufferBindingType::Uniform,
                    Access::Read => BufferBindingType::Storage { read_only: true },
                    Access::Write => BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let entries: Vec<_> = (0..).zip(&shader.bindings).map(entry).collect();
        let label = Some(kernel.shader);
        let group = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&group)],
            immediate_size: 0,
        });
        let entry_points = [wgpu::PassthroughShaderEntryPoint { name: "main".into(), workgroup_size: (0, 0, 0) }];
        let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
            label,
            entry_points: entry_points.as_slice().into(),
            spirv: Some(shader.words.into()),
            ..Default::default()
        };
        // SAFETY: the module is what naga wrote of a validated shader, with more said of its memory accesses; its bindings and
        // its indices are those of the recording, as of all kernels.
        let module = unsafe { self.device.create_shader_module_passthrough(descriptor) };
        // Its constants are in it.
        self.create_pipeline(kernel, &module, Some(&layout), &[])
    }

    fn create_pipeline(
        &self,
        kernel: &Kernel,
        module: &wgpu::ShaderModule,
        layout: Option<&wgpu::PipelineLayout>,
        constants: &[(&str, f64)],
    ) -> wgpu::ComputePipeline {
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.shader),
            layout,
            module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: self.cache.as_ref().map(|c| &c.cache),
        })
    }
}
