//! Every kernel that any class of adapters may run, with what it is given, without a device.
#![allow(dead_code, reason = "each test uses a part of it")]

use rayon::prelude::*;
use spark3d::compute::device::recording::{Kernel, Precision};
use spark3d::compute::device::{AdapterFacts, Dispatch, KernelTable};
use spark3d::compute::graph::plan::{Limits, MemoryPlan, plan};
use spark3d::compute::graph::{Graph, ParameterLayout, Parameters, Recorder, VoxelLayout};
use spark3d::compute::ops::augment::{Augmentation, Interpolation};
use spark3d::compute::ops::{Bias, Geometry, cases};
use std::collections::BTreeMap;
use std::path::Path;

/// What adapters tell of themselves, one for each class of them.
pub fn adapters() -> Vec<AdapterFacts> {
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
        AdapterFacts { subgroup_sizes: Some([16; 2]), matrix_tile: Some(8), ..software("Mesa 26.0") },
        AdapterFacts {
            workgroup_memory: 48 << 10,
            subgroup_sizes: Some([32; 2]),
            matrix_tile: Some(16),
            ..named("NVIDIA")
        },
        AdapterFacts {
            subgroup_sizes: Some([32, 64]),
            matrix_tile: Some(16),
            workgroup_memory: 64 << 10,
            ..named("AMD")
        },
        AdapterFacts { subgroup_sizes: Some([32, 64]), workgroup_memory: 64 << 10, ..named("AMD without matrices") },
        AdapterFacts { backend: "Metal".into(), subgroup_sizes: Some([32; 2]), matrix_tile: Some(8), ..named("Apple") },
        AdapterFacts { backend: "Dx12".into(), subgroup_sizes: Some([32, 64]), ..named("AMD on Windows") },
        AdapterFacts {
            kind: "IntegratedGpu".into(),
            matrix_tile: Some(8),
            subgroup_sizes: Some([8, 32]),
            ..named("Intel")
        },
        // The least that WebGPU promises.
        AdapterFacts { max_binding: 128 << 20, max_invocations: 256, workgroup_memory: 16 << 10, ..named("WebGPU") },
    ]
}

/// A convolution with all of its gradients.
pub struct Problem {
    /// Channels of each input.
    pub inputs: &'static [usize],
    channels: usize,
    /// Voxels of the inputs.
    pub dims: [usize; 3],
    /// Window and stride.
    pub geometry: Geometry,
    /// Grid of the mask, where input and output are sparse.
    pub grid: Option<[usize; 3]>,
    transposed: bool,
}

impl Problem {
    /// Forward and backward.
    pub fn graph(&self, precision: Precision) -> Graph {
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
pub fn problems() -> Vec<Problem> {
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

/// Every shader by its path below the folder `shaders`, without the ending. The folder `shared` holds what they import.
pub fn shader_names(root: &Path) -> Vec<&'static str> {
    let stem = |path: std::path::PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let entries = |path: std::path::PathBuf| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let folders = entries(root.to_path_buf()).filter(|folder| !folder.ends_with("shared"));
    let files = folders
        .flat_map(|folder| entries(folder.clone()).map(move |f| format!("{}/{}", stem(folder.clone()), stem(f))));
    files.map(|name| &*name.leak()).collect()
}

/// Crops in one, two and three buffers.
pub fn augmented(precision: Precision) -> Vec<Graph> {
    let graph = |(part, interpolation)| {
        let (patch, region, intensities) = ([4; 3], [4; 3], false);
        let a = Augmentation { channels: 1, patch, region, part, interpolation, intensities, labels: false };
        let mut graph = Graph::new(Parameters::default(), precision);
        graph.augment(&a);
        graph
    };
    let kinds = [Interpolation::Cubic, Interpolation::Linear].into_iter();
    kinds.flat_map(|i| [(64, i), (32, i), (24, i)]).map(graph).collect()
}

/// Where the tensors of a graph lie on an adapter.
pub fn planned(graph: &Graph, facts: &AdapterFacts) -> (MemoryPlan, ParameterLayout) {
    let limits = Limits { max_binding: facts.max_binding, max_buffer: facts.max_buffer, micro_batches: false };
    (plan(graph, limits).unwrap(), graph.parameters.layout(facts.max_binding))
}

/// A dispatch, and what chose its kernel.
pub struct Use {
    pub dispatch: Dispatch,
    /// The problem and the kernel for it as text, where the operator has several.
    pub choice: Option<(String, String)>,
    /// Whether that is the first choice of the adapter.
    pub is_default: bool,
}

/// The dispatches of a graph on an adapter: with the first kernel of every choice, and then each node that has a choice with each
/// of its other kernels.
pub fn uses(graph: &Graph, facts: &AdapterFacts, mut add: impl FnMut(Use)) {
    let (plan, layout) = planned(graph, facts);
    let default = KernelTable::default();
    let choices = Recorder::new(graph, &plan, &layout, facts, &default).choices();
    let mut firsts = BTreeMap::new();
    for choice in &choices {
        firsts.entry(choice.node).or_insert((choice.problem.clone(), choice.variants[0].clone()));
    }
    let mut record = |node: usize, table: &KernelTable, choice: Option<(String, String)>, is_default: bool| {
        for dispatch in Recorder::new(graph, &plan, &layout, facts, table).record_node(node).dispatches {
            add(Use { dispatch, choice: choice.clone(), is_default });
        }
    };
    (0..graph.nodes.len()).for_each(|node| record(node, &default, firsts.get(&node).cloned(), true));
    for choice in choices {
        for variant in choice.variants.into_iter().skip(1) {
            let measured = [(choice.problem.clone(), variant.clone())].into();
            let table = KernelTable { measured, ..KernelTable::default() };
            record(choice.node, &table, Some((choice.problem.clone(), variant)), false);
        }
    }
}

/// As [`uses`], the dispatches alone.
pub fn dispatches(graph: &Graph, facts: &AdapterFacts, mut add: impl FnMut(Dispatch)) {
    uses(graph, facts, |found| add(found.dispatch));
}

/// The kernels of all operators in their small cases, on all classes of adapters, by module.
pub fn kernels_of_cases(precision: Precision) -> BTreeMap<String, Kernel> {
    let mut found = BTreeMap::new();
    let mut add = |d: Dispatch| {
        found.entry(d.kernel.module_key()).or_insert(d.kernel);
    };
    for facts in adapters() {
        cases::cases_in(precision).iter().for_each(|case| dispatches(&case.graph(), &facts, &mut add));
    }
    found
}

/// The kernels of all convolutions of [`problems`] on all classes of adapters, by module.
pub fn kernels_of_convolutions(precision: Precision) -> BTreeMap<String, Kernel> {
    let of = |problem: &Problem| {
        let (graph, mut found) = (problem.graph(precision), BTreeMap::new());
        for facts in adapters() {
            dispatches(&graph, &facts, |d| {
                found.entry(d.kernel.module_key()).or_insert(d.kernel);
            });
        }
        found
    };
    let merge = |mut a: BTreeMap<String, Kernel>, b: BTreeMap<String, Kernel>| {
        a.extend(b);
        a
    };
    problems().par_iter().map(of).reduce(BTreeMap::new, merge)
}
