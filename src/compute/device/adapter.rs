//! Choosing an adapter and opening a device on it.

use crate::base::{Error, Result};
use serde::Serialize;

/// What the rest of the program may know of the adapter.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AdapterFacts {
    /// Place among the adapters of the machine, best first.
    pub index: usize,
    /// As the driver spells it.
    pub name: String,
    /// `Vulkan`, `Metal` or `Dx12`.
    pub backend: String,
    /// Where it sits on the PCI bus, where that is known: tells adapters of one name apart.
    pub bus: String,
    /// Name and version of the driver.
    pub driver: String,
    /// `DiscreteGpu`, `IntegratedGpu`, `Cpu` (a software rasterizer), ...
    pub kind: String,
    /// Largest storage binding in bytes; a tensor segment never exceeds it.
    pub max_binding: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
    /// Storage buffers that a kernel may bind.
    pub max_storage_buffers: u32,
    /// Invocations that a workgroup may have.
    pub max_invocations: u32,
    /// Bytes that a workgroup may share.
    pub workgroup_memory: u32,
    /// Whether dispatches can be timed on the device.
    pub timestamps: bool,
    /// Whether shaders have 16-bit floats.
    pub shader_f16: bool,
    /// Fewest and most invocations of a subgroup, where shaders have subgroup operations. Drivers choose in between, shader by
    /// shader.
    pub subgroup_sizes: Option<[u32; 2]>,
    /// Edge of the square matrices of 16-bit floats, summed in 32 bits, that a subgroup multiplies at once.
    pub matrix_tile: Option<u32>,
}

impl AdapterFacts {
    /// A rasterizer that runs on the CPU, such as lavapipe.
    pub fn is_software(&self) -> bool {
        self.kind == "Cpu"
    }

    /// What a list of adapters calls it: number, name and place on the bus.
    pub fn title(&self) -> String {
        let bus = if self.bus.is_empty() { String::new() } else { format!(" at {}", self.bus) };
        format!("{} = {}{bus}", self.index, self.name)
    }
}

/// Storage buffers that the widest kernel binds.
const STORAGE_BUFFERS: u32 = 8;

pub(super) fn facts(index: usize, adapter: &wgpu::Adapter) -> AdapterFacts {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    AdapterFacts {
        index,
        name: info.name.clone(),
        backend: format!("{:?}", info.backend),
        bus: info.device_pci_bus_id.clone(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        kind: format!("{:?}", info.device_type),
        // Vulkan reports up to 2^32 - 1; offsets within a binding are 32-bit counts of 16-byte channel groups, so both are safe.
        max_binding: limits.max_storage_buffer_binding_size,
        max_buffer: limits.max_buffer_size,
        max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
        max_invocations: limits.max_compute_invocations_per_workgroup,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        shader_f16: features.contains(wgpu::Features::SHADER_F16),
        subgroup_sizes: subgroup_sizes(adapter),
        matrix_tile: matrix_tile(adapter),
    }
}

fn subgroup_sizes(adapter: &wgpu::Adapter) -> Option<[u32; 2]> {
    let info = adapter.get_info();
    let mut sizes = [info.subgroup_min_size, info.subgroup_max_size];
    // Wgpu does not know those of Metal. Processors of Apple, which alone have matrices there, always have 32.
    if info.backend == wgpu::Backend::Metal
        && adapter.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
    {
        sizes = [32; 2];
    }
    (adapter.features().contains(wgpu::Features::SUBGROUP) && sizes[0] > 0).then_some(sizes)
}

/// The largest tile that the shaders are written for.
fn matrix_tile(adapter: &wgpu::Adapter) -> Option<u32> {
    use wgpu::CooperativeScalarType::{F16, F32};
    let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16;
    subgroup_sizes(adapter).filter(|_| adapter.features().contains(needed))?;
    let shapes = adapter.cooperative_matrix_properties();
    [16, 8].into_iter().find(|&tile| {
        shapes
            .iter()
            .any(|s| (s.m_size, s.n_size, s.k_size) == (tile, tile, tile) && (s.ab_type, s.cr_type) == (F16, F32))
    })
}

/// Every adapter of the machine that can run the program, best first: discrete, integrated, virtual, software.
pub fn adapters() -> Vec<AdapterFacts> {
    enumerate().iter().enumerate().map(|(i, a)| facts(i, a)).collect()
}

pub(super) fn enumerate() -> Vec<wgpu::Adapter> {
    use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other, VirtualGpu};
    let ranks = [DiscreteGpu, IntegratedGpu, VirtualGpu, Other, Cpu];
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let mut found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    found.retain(|a| a.limits().max_storage_buffers_per_shader_stage >= STORAGE_BUFFERS);
    found.sort_by_key(|a| ranks.iter().position(|&kind| kind == a.get_info().device_type));
    found
}

/// The adapter that `--device` names: `auto`, `cpu` (a software rasterizer), an index of [`adapters`], or a part of a name or of a
/// place on the PCI bus.
pub(super) fn choose(request: &str) -> Result<(usize, wgpu::Adapter)> {
    let found = enumerate();
    if found.is_empty() {
        return Err(Error::device(
            "no GPU adapter was found",
            "Install a graphics driver with Vulkan, Metal or DX12; on Debian and Ubuntu `apt-get install mesa-vulkan-drivers \
             libvulkan1` brings a software one. `spark3d doctor` lists what is there",
        ));
    }
    let wanted = request.trim().to_lowercase();
    let index = match wanted.as_str() {
        "" | "auto" => Some(0),
        "cpu" => found.iter().position(|a| a.get_info().device_type == wgpu::DeviceType::Cpu),
        other => match other.parse::<usize>() {
            Ok(index) => Some(index),
            Err(_) => {
                let at = |part: fn(&wgpu::AdapterInfo) -> &str| {
                    found.iter().position(|a| part(&a.get_info()).to_lowercase().contains(other))
                };
                at(|info| &info.name).or_else(|| at(|info| &info.device_pci_bus_id))
            }
        },
    };
    index.and_then(|i| Some((i, found.get(i)?.clone()))).ok_or_else(|| {
        let list: Vec<_> = (0..).zip(&found).map(|(i, a)| facts(i, a).title()).collect();
        Error::device(
            format!("no adapter matches --device {request}"),
            format!("Adapters here: {}; `auto` takes the first, `cpu` a software one", list.join(", ")),
        )
    })
}

/// Opens the device with the adapter's own limits and the features that the program uses where they exist.
pub(super) fn open(adapter: &wgpu::Adapter) -> Result<(wgpu::Device, wgpu::Queue)> {
    let features = adapter.features()
        & (wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES
            | wgpu::Features::SHADER_F16
            | wgpu::Features::SUBGROUP
            | wgpu::Features::PIPELINE_CACHE
            | wgpu::Features::PASSTHROUGH_SHADERS
            | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("spark3d"),
        required_features: features,
        required_limits: adapter.limits(),
        // SAFETY: what is experimental of the features above are cooperative matrices and shaders that are passed through. The
        // kernels that use them touch memory as the others do, and are tested against the same references.
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        // Heaps are few and large; sub-allocation blocks of their own would only add to the planned peak.
        memory_hints: wgpu::MemoryHints::Manual { suballocated_device_memory_block_size: (1 << 20)..(4 << 20) },
        ..Default::default()
    };
    pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| {
        Error::device(
            format!("adapter {} refused to open: {e}", adapter.get_info().name),
            "Update its driver or choose another with --device",
        )
    })
}
