//! Every shader is valid WGSL by itself, without a device: all kernels that any class of adapters may run.

use naga::valid::{Capabilities, ValidationFlags, Validator};
use rayon::prelude::*;
use spark3d::compute::device::recording::{Kernel, Precision};
use spark3d::compute::device::shaders::source;
use spark3d::compute::device::{AdapterFacts, KernelTable};
use spark3d::compute::graph::plan::{Limits, plan};
use spark3d::compute::graph::{Graph, Parameters, Recorder, VoxelLayout};
use spark3d::compute::ops::augment::{Augmentation, Interpolation};
use spark3d::compute::ops::{Bias, Geometry, cases};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What adapters tell of themselves, one for each class of them.
fn adapters() -> Vec<AdapterFacts> {
    let gpu = AdapterFacts {
        kind: "DiscreteGpu".into(),
        backend: "Vulkan".into(),
        max_binding: 1 << 31,
        max_buffer: 1 << 32,
        max_storage_buffers: 8,
        max_invocations: 1024,
        workgroup_memory: 32 << 10,
        shader_f16: true,
        ..AdapterFacts::default()
    };
    let named = |name: &str| AdapterFacts { name: name.into(), ..gpu.clone() };
    let software = |driver: &str| AdapterFacts { kind: "Cpu".into(), driver: driver.into(), ..named("software") };
    vec![
        software("Mesa 22.3.6"),
        AdapterFacts { subgroup: Some(16), matrix_tile: Some(8), ..software("Mesa 26.0") },
        AdapterFacts { workgroup_memory: 48 << 10, subgroup: Some(32), matrix_tile: Some(16), ..named("NVIDIA") },
        AdapterFacts { subgroup: Some(64), matrix_tile: Some(16), workgroup_memory: 64 << 10, ..named("AMD") },
        AdapterFacts { backend: "Metal".into(), subgroup: Some(32), ..named("Apple") },
        AdapterFacts { kind: "IntegratedGpu".into(), matrix_tile: Some(8), subgroup: Some(16), ..named("Intel") },
        // The least that WebGPU promises.
        AdapterFacts { max_binding: 128 << 20, max_invocations: 256, workgroup_memory: 16 << 10, ..named("WebGPU") },
    ]
}

/// A convolution with all of its gradients.
struct Problem {
    inputs: &'static [usize],
    channels: usize,
    dims: [usize; 3],
    geometry: Geometry,
    /// Grid of the mask, where input and output are sparse.
    grid: Option<[usize; 3]>,
    transposed: bool,
}

impl Problem {
    fn graph(&self, precision: Precision) -> Graph {
        let mut g = Graph::new(Parameters::default(), precision);
        let mask = self.grid.map(|grid| g.mask(grid));
        let space = |dims| match mask {
            Some(mask) => {
                VoxelLayout::sparse(dims, mask, mask.grid().iter().product()).expect("blocks are whole voxels")
            }
            None => VoxelLayout::dense(dims),
        };
        let output = space(self.geometry.output(self.dims));
        let xs: Vec<_> = self
            .inputs
            .iter()
            .map(|&channels| {
                let x = g.feature(channels, space(self.dims));
                g.require_gradient(x);
                x
            })
            .collect();
        let y = match self.transposed {
            true => g.conv_transpose3d(xs[0], "c", self.channels, self.geometry.stride),
            false => g.conv3d(&xs, "c", self.channels, output, self.geometry, Bias::Trained),
        };
        let (channels, space) = g.shape(y);
        let dy = g.feature(channels, space);
        g.backward(&[(y, dy)], []);
        g
    }
}

/// Convolutions as networks have them: channels from one to 320, kernels and strides with and without anisotropy, rows of voxels
/// that are multiples of four, of two and of nothing, blocks down to single voxels.
fn problems() -> Vec<Problem> {
    let channels: [(&[usize], usize); 9] = [
        (&[1], 32),
        (&[4], 5),
        (&[9], 12),
        (&[32], 32),
        (&[32], 64),
        (&[64, 64], 64),
        (&[128], 256),
        (&[256, 256], 256),
        (&[320], 320),
    ];
    let same = Geometry::same;
    let geometries = [
        same([3; 3], [1; 3]),
        same([3; 3], [2; 3]),
        same([1, 3, 3], [1; 3]),
        same([1, 3, 3], [1, 2, 2]),
        same([3; 3], [1, 2, 2]),
        same([1; 3], [1; 3]),
        same([1; 3], [2; 3]),
        same([5; 3], [1; 3]),
    ];
    let spaces = [
        ([16; 3], None),
        ([10, 9, 14], None),
        ([7, 9, 11], None),
        ([4; 3], None),
        ([16; 3], Some([4; 3])),
        ([8, 16, 16], Some([4, 8, 8])),
        ([8; 3], Some([4; 3])),
    ];
    let mut list = Vec::new();
    for (inputs, channels) in channels {
        for (dims, grid) in spaces {
            let convolutions = geometries.into_iter().map(|geometry| (geometry, false));
            let cells = [[2; 3], [1, 2, 2]].map(|stride| (Geometry::cells(stride), true));
            for (geometry, transposed) in convolutions.chain(cells.into_iter().filter(|_| grid.is_none())) {
                list.push(Problem { inputs, channels, dims, geometry, grid, transposed });
            }
        }
    }
    list
}

/// The kernels of a graph on an adapter: of every variant that it may choose where it has a choice.
fn kernels(graph: &Graph, facts: &AdapterFacts, found: &mut BTreeMap<String, Kernel>) {
    let limits = Limits { max_binding: facts.max_binding, max_buffer: facts.max_buffer };
    let (plan, layout) = (plan(graph, limits).unwrap(), graph.parameters.layout(facts.max_binding));
    let mut add = |dispatches: Vec<_>| {
        for kernel in dispatches.into_iter().map(|d: spark3d::compute::device::recording::Dispatch| d.kernel) {
            found.entry(kernel.module_key()).or_insert(kernel);
        }
    };
    let default = KernelTable::default();
    add(Recorder::new(graph, &plan, &layout, facts, &default).record().dispatches);
    for choice in Recorder::new(graph, &plan, &layout, facts, &default).choices() {
        for variant in choice.variants {
            let table = KernelTable { measured: [(choice.problem.clone(), variant)].into(), ..KernelTable::default() };
            add(Recorder::new(graph, &plan, &layout, facts, &table).record_node(choice.node).dispatches);
        }
    }
}

fn failure(kernel: &Kernel) -> Option<String> {
    let text = source(kernel);
    let name = kernel.module_key();
    let module = match naga::front::wgsl::parse_str(&text) {
        Ok(module) => module,
        Err(error) => return Some(format!("{name}: {}", error.emit_to_string(&text))),
    };
    let error = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).err()?;
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
        // A crop in one, two and three buffers.
        for (part, interpolation) in
            [Interpolation::Cubic, Interpolation::Linear].into_iter().flat_map(|i| [(64, i), (32, i), (24, i)])
        {
            let (patch, region, intensities) = ([4; 3], [4; 3], false);
            let a = Augmentation { channels: 1, patch, region, part, interpolation, intensities, labels: false };
            let mut graph = Graph::new(Parameters::default(), precision);
            graph.augment(&a);
            kernels(&graph, &adapters()[0], &mut found);
        }
        for facts in adapters() {
            for case in cases::cases_in(precision) {
                kernels(&case.graph(), &facts, &mut found);
            }
        }
    }
    let failures: Vec<String> = found.par_iter().filter_map(|(_, kernel)| failure(kernel)).collect();
    eprintln!("{} modules of all operators", found.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn naga_accepts_every_kernel_of_a_convolution_that_an_adapter_may_choose() {
    let graphs: Vec<(Precision, Problem)> = [Precision::F32, Precision::F16]
        .into_iter()
        .flat_map(|precision| problems().into_iter().map(move |problem| (precision, problem)))
        .collect();
    let found = graphs
        .par_iter()
        .map(|(precision, problem)| {
            let (graph, mut found) = (problem.graph(*precision), BTreeMap::new());
            adapters().iter().for_each(|facts| kernels(&graph, facts, &mut found));
            found
        })
        .reduce(BTreeMap::new, |mut a, b| {
            a.extend(b);
            a
        });
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

/// Every shader by its path below `shaders/`, without the ending. The folder `shared` holds what they import.
fn names() -> Vec<&'static str> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let stem = |path: std::path::PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let entries = |path: std::path::PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let folders = entries(root).filter(|folder| !folder.ends_with("shared"));
    let files = folders
        .flat_map(|folder| entries(folder.clone()).map(move |f| format!("{}/{}", stem(folder.clone()), stem(f))));
    files.map(|name| &*name.leak()).collect()
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
