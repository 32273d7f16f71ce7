//! The weight gradient of few channels and taps, whose voxels are shared by the invocations of a workgroup.

use super::pass::Problem;
use super::weight_gradient_pass::Pass;
use crate::compute::device::cost::{Cost, Unit, Work};
use crate::compute::device::{AdapterFacts, Kernel};
use crate::compute::graph::{GROUP_BYTES, Recorder, product};

/// Most products of a tap, an input and an output channel group: of more, each is worth an invocation.
const MOST_ITEMS: usize = 128;
/// Fewer voxels are not worth the sum over invocations.
const LEAST_VOXELS: usize = 4096;
const WORKGROUP: usize = 64;
/// Workgroups that keep a GPU busy.
const WORKGROUPS: usize = 1024;

/// How the kernel cuts its work (see `shaders/conv3d/weight_gradient_reduced.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reduced;

impl Reduced {
    /// Whether it is worth a try.
    pub fn is_worth(facts: &AdapterFacts, p: &Problem) -> bool {
        let items = p.geometry.taps() * p.in_groups * p.out_groups;
        !facts.is_software() && items <= MOST_ITEMS && p.grid.voxels() >= LEAST_VOXELS
    }

    /// Partitions that keep the adapter busy, `most` at most.
    pub fn partitions(&self, p: &Problem, most: usize) -> usize {
        let items = p.geometry.taps() * p.in_groups * p.out_groups;
        WORKGROUPS.div_ceil(items).min(p.grid.voxels().div_ceil(WORKGROUP)).clamp(1, most)
    }

    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let [source, target] = pass.segments;
        let kernel = Kernel::new("conv3d/weight_gradient_reduced").with("WORKGROUP", WORKGROUP as u32);
        let workgroups = [product(pass.geometry.kernel) * source.groups, target.groups, 1];
        pass.dispatch(r, kernel, workgroups, self.cost(pass, r.group_bytes()));
    }

    /// A pass is a voxel of dy for each invocation: it looks up its coordinate and what the tap meets, and loads a vector of each; their
    /// product is 32 operations. Then W invocations add up their four vectors, one after the other, half of them each time, with a
    /// barrier before, after and between.
    fn cost(&self, pass: &Pass, group_bytes: f64) -> Cost {
        let w = WORKGROUP as f64;
        let bytes = GROUP_BYTES as f64;
        // W / 2 + W / 4 + ... + 1 additions of four vectors.
        let additions = 4.0 * (w - 1.0);
        Cost {
            invocations: WORKGROUP as u32,
            workgroup_memory: WORKGROUP as u32 * GROUP_BYTES as u32,
            sums: 16,
            unit: Unit::Scalar,
            once: Work {
                flops: additions * 4.0,
                asked: 4.0 * bytes,
                vectors: 4.0,
                written: (4.0 * w + additions) * bytes,
                read: (2.0 * additions + 4.0 * w) * bytes,
                shared: 8.0 * w + 3.0 * additions,
                barriers: 4.0 * (w.log2() + 2.0),
                waits: 1.0,
                ..Work::default()
            },
            pass: Work {
                flops: w * 32.0,
                asked: 2.0 * w * group_bytes,
                vectors: 2.0 * w,
                lookups: 2.0 * w,
                waits: 1.0,
                ..Work::default()
            },
            passes: pass.over_voxels(WORKGROUP),
        }
    }
}
