//! Which kernels can solve a convolution, forward and for its input.

use super::matrix::{Matrix, units};
use super::pass::{Pass, Problem};
use super::staged::Staged;
use crate::compute::device::AdapterFacts;
use crate::compute::device::recording::Kernel;
use crate::compute::graph::{QUAD, Recorder, Space};

/// The kernels of a convolution from one segment to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// Weights are read where they are needed.
    Direct,
    /// Weights are staged in workgroup memory.
    Staged(Staged),
    /// Weights are held by the invocations of a subgroup, which broadcast them.
    Subgroup(Staged),
    /// Products of cooperative matrices.
    Matrix(Matrix),
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Variant::Direct => f.write_str("direct"),
            Variant::Staged(s) => {
                write!(f, "staged {} {} {} {} {}", s.voxels, s.quads, s.chunk, s.tiles, s.workgroup)
            }
            Variant::Subgroup(s) => write!(f, "subgroup {} {} {}", s.voxels, s.quads, s.workgroup),
            Variant::Matrix(m) => m.fmt(f),
        }
    }
}

/// Fewer voxels use each weight too rarely for staging it.
const FEW_VOXELS: usize = 64;
/// Cuts of the kernel with broadcasts that are worth trying.
const SUBGROUP_CUTS: usize = 2;

/// Whether kernels that stage in workgroup memory are tried last. Mesa 22 keeps too little compiled code for them.
pub(super) fn prefers_direct(facts: &AdapterFacts) -> bool {
    !facts.is_software() || facts.driver.contains("Mesa 22")
}

/// Whether cooperative matrices are tried first: on a GPU, where the channels fill a tile. A software adapter has no units for
/// them.
pub(super) fn prefers_matrices(facts: &AdapterFacts, p: &Problem) -> bool {
    let filled = |quads: usize, tile: usize| quads * QUAD >= tile;
    !facts.is_software()
        && units(facts, p.precision).is_some_and(|(tile, _)| filled(p.in_quads, tile) && filled(p.out_quads, tile))
}

impl Variant {
    /// The variants that can solve a problem, the likely best first.
    fn candidates(facts: &AdapterFacts, problem: &Problem) -> Vec<Self> {
        let staged = Staged::candidates(facts, problem);
        let direct_first = problem.grid.voxels() < FEW_VOXELS || prefers_direct(facts);
        let broadcast = staged
            .iter()
            .map(|&s| Staged { chunk: 0, tiles: 1, ..s })
            .filter(|s| facts.subgroup.is_some_and(|n| s.workgroup.is_multiple_of(n as usize)));
        let mut found: Vec<Self> = staged.iter().copied().map(Variant::Staged).collect();
        found.extend(broadcast.take(SUBGROUP_CUTS).map(Variant::Subgroup));
        found.insert(if direct_first { 0 } else { found.len() }, Variant::Direct);
        let matrices = Matrix::candidates(facts, problem).into_iter().map(Variant::Matrix);
        let at = if prefers_matrices(facts, problem) { 0 } else { found.len() };
        found.splice(at..at, matrices);
        found
    }

    pub fn choose(r: &mut Recorder, pass: &str, problem: &Problem) -> Self {
        r.choose(problem.name(pass), &Self::candidates(r.facts(), problem))
    }

    /// Records a pass, or leaves it to the operator where the direct kernel is to run.
    pub fn record(&self, r: &mut Recorder, pass: &Pass) -> bool {
        match self {
            Variant::Direct => return false,
            Variant::Staged(staged) => staged.record(r, pass, None),
            Variant::Subgroup(staged) => staged.record(r, pass, r.facts().subgroup),
            Variant::Matrix(matrix) => matrix.record(r, pass),
        }
        true
    }
}

/// How the direct kernels cut their output: quads and voxels that one invocation keeps in registers, invocations of a workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiling {
    pub quads: usize,
    pub voxels: usize,
    pub workgroup: usize,
}

const WORKGROUP: usize = 64;
/// Invocations of a workgroup on a software adapter: one vector of a processor with 512-bit registers.
pub(super) const SOFTWARE_WORKGROUP: usize = 16;

impl Tiling {
    /// A GPU needs many invocations before it needs large tiles; a software adapter pays for every load, so its tiles are as
    /// large as registers allow. It also keeps only so much compiled code: past that Mesa 22 compiles every kernel again at
    /// every dispatch, so there are few variants.
    pub fn new(software: bool, quads: usize, space: &Space) -> Self {
        let count = space.voxels();
        let quads = match quads {
            1 => 1,
            2 => 2,
            _ => 4,
        };
        if software {
            return Self { quads: quads.max(2), voxels: 4, workgroup: 16 };
        }
        let voxels = match count {
            0..=256 => 1,
            257..=1024 => 2,
            _ => 4,
        };
        Self { quads, voxels, workgroup: WORKGROUP }
    }

    pub fn kernel(&self, shader: &'static str, quads: &'static str) -> Kernel {
        Kernel::new(shader)
            .with(quads, self.quads as u32)
            .with("VOXELS", self.voxels as u32)
            .with("WORKGROUP", self.workgroup as u32)
    }
}
