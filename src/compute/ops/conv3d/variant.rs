//! Which kernels can solve a convolution, forward and for its input.

use super::direct;
use super::halo::Halo;
use super::matrix::{Matrix, units};
use super::pass::{Pass, Problem};
use super::staged::Staged;
use super::winograd::{self, Winograd};
use crate::compute::device::AdapterFacts;
use crate::compute::graph::{GROUP, Recorder, product};

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
    /// Products of cooperative matrices over boxes of voxels that are staged once for all taps.
    Halo(Halo),
    /// Transforms, and a third of the products.
    Winograd(Winograd),
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Variant::Direct => f.write_str("direct"),
            Variant::Staged(s) => {
                write!(f, "staged {} {} {} {} {}", s.voxels, s.groups, s.chunk, s.tiles, s.workgroup)
            }
            Variant::Subgroup(s) => write!(f, "subgroup {} {} {}", s.voxels, s.groups, s.workgroup),
            Variant::Matrix(m) => m.fmt(f),
            Variant::Halo(h) => h.fmt(f),
            Variant::Winograd(w) => w.fmt(f),
        }
    }
}

/// Fewer voxels use each weight too rarely for staging it.
const FEW_VOXELS: usize = 64;
/// Cuts of the kernel with broadcasts that are worth trying.
const SUBGROUP_CUTS: usize = 2;

/// Whether kernels that stage in workgroup memory are tried last. Mesa 22 keeps too little compiled code for them. AMD's compiler
/// makes the better code of the direct ones, whose weights are scalar loads there; NVIDIA's loads them once for each invocation.
pub(super) fn prefers_direct(facts: &AdapterFacts) -> bool {
    match facts.is_software() {
        true => facts.driver.contains("Mesa 22"),
        false => ![&facts.name, &facts.driver].iter().any(|n| n.contains("NVIDIA")),
    }
}

/// Whether cooperative matrices are tried first: on a GPU, where the channels fill a tile. A software adapter has no units for
/// them.
pub(super) fn prefers_matrices(facts: &AdapterFacts, p: &Problem) -> bool {
    let filled = |groups: usize, tile: usize| groups * GROUP >= tile;
    !facts.is_software()
        && units(facts, p.precision).is_some_and(|(tile, _)| filled(p.in_groups, tile) && filled(p.out_groups, tile))
}

impl Variant {
    /// The variants that can solve a problem, the likely best first.
    fn candidates(facts: &AdapterFacts, problem: &Problem) -> Vec<Self> {
        let staged = Staged::candidates(facts, problem);
        let direct_first = problem.grid.voxels() < FEW_VOXELS || prefers_direct(facts);
        let broadcast = staged
            .iter()
            .map(|&s| Staged { chunk: 0, tiles: 1, ..s })
            .filter(|s| facts.subgroup_sizes.is_some_and(|[_, most]| s.workgroup.is_multiple_of(most as usize)));
        let mut found: Vec<Self> = staged.iter().copied().map(Variant::Staged).collect();
        found.extend(broadcast.take(SUBGROUP_CUTS).map(Variant::Subgroup));
        found.insert(if direct_first { 0 } else { found.len() }, Variant::Direct);
        let mut matrices: Vec<Self> = Matrix::candidates(facts, problem).into_iter().map(Variant::Matrix).collect();
        let at = if Halo::is_worth(problem) { 0 } else { matrices.len() };
        matrices.splice(at..at, Halo::candidates(facts, problem).into_iter().map(Variant::Halo));
        let at = if prefers_matrices(facts, problem) { 0 } else { found.len() };
        found.splice(at..at, matrices);
        if let Some(winograd) = Winograd::candidate(facts, problem) {
            let at = if winograd::is_worth(problem) && !prefers_direct(facts) { 0 } else { found.len() };
            found.insert(at, Variant::Winograd(winograd));
        }
        found
    }

    pub fn choose(r: &mut Recorder, pass: &str, problem: &Problem) -> Self {
        r.choose(problem.name(pass), &Self::candidates(r.facts(), problem))
    }

    /// Whether a pass can compute all parity classes of cells.
    pub fn does_cells(&self) -> bool {
        matches!(self, Variant::Matrix(_))
    }

    /// Records a pass. A window without taps has nothing to stage: its zeros are written by the direct kernel.
    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        match self {
            _ if product(pass.window.size) == 0 => direct::record(r, pass),
            Variant::Direct => direct::record(r, pass),
            Variant::Staged(staged) => staged.record(r, pass),
            Variant::Subgroup(staged) => {
                let [least, _] = r.facts().subgroup_sizes.expect("only a candidate where the adapter has subgroups");
                staged.record_subgroup(r, pass, least as usize);
            }
            Variant::Matrix(matrix) => matrix.record(r, pass),
            Variant::Halo(halo) => halo.record(r, pass),
            Variant::Winograd(winograd) => winograd.record(r, pass),
        }
    }
}
