//! The weight gradient whose input is gathered voxel by voxel in workgroup memory.

use super::pass::{Problem, SOFTWARE_WORKGROUP};
use super::weight_gradient_pass::Pass;
use crate::compute::device::cost::{Cost, Unit, Work};
use crate::compute::device::{AdapterFacts, Kernel};
use crate::compute::graph::{GROUP, GROUP_BYTES, Recorder};

/// How the kernel cuts its work (see `shaders/conv3d/weight_gradient_gathered.wgsl`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gathered {
    /// Input channel groups of a workgroup.
    pub groups: usize,
    /// Voxels that are gathered at a time.
    pub voxels: usize,
    pub workgroup: usize,
}

/// Sums of four that registers hold: input channel groups times taps of a row.
const MOST_SUMS: usize = 12;
/// Workgroups that keep the cores of a software adapter, or a GPU, busy.
const SOFTWARE_WORKGROUPS: usize = 16;
const WORKGROUPS: usize = 2048;

impl Gathered {
    /// Sensible cuts, the likely best first; none for kernels so long that their sums do not fit.
    pub fn candidates(facts: &AdapterFacts, p: &Problem) -> Vec<Self> {
        let workgroup = if facts.is_software() { SOFTWARE_WORKGROUP } else { 32 };
        let most = (MOST_SUMS / p.geometry.kernel[2]).min(p.in_groups.next_power_of_two());
        let groups = [8, 4, 2, 1].into_iter().filter(|&groups| groups <= most).take(2);
        groups.map(|groups| Self { groups, voxels: 16, workgroup }).collect()
    }

    /// Workgroups for a partition: tiles of input channel groups, tiles of output channels, rows of taps.
    fn workgroups(&self, kernel: [usize; 3], in_groups: usize, out_groups: usize) -> [usize; 3] {
        [in_groups.div_ceil(self.groups), (out_groups * GROUP).div_ceil(self.workgroup), kernel[0] * kernel[1]]
    }

    /// Partitions that keep the adapter busy, `most` at most.
    pub fn partitions(&self, facts: &AdapterFacts, p: &Problem, most: usize) -> usize {
        let busy = if facts.is_software() { SOFTWARE_WORKGROUPS } else { WORKGROUPS };
        let workgroups: usize = self.workgroups(p.geometry.kernel, p.in_groups, p.out_groups).iter().product();
        busy.div_ceil(workgroups).min(p.grid.voxels().div_ceil(self.voxels)).clamp(1, most)
    }

    pub fn record(&self, r: &mut Recorder, pass: &Pass) {
        let [source, target] = pass.segments;
        let kernel = Kernel::new("conv3d/weight_gradient_gathered")
            .unrolled("WORKGROUP", self.workgroup)
            .unrolled("GROUPS", self.groups)
            .unrolled("VOXELS", self.voxels)
            .unrolled("KX", pass.geometry.kernel[2]);
        let cost = self.cost(pass, r.group_bytes());
        pass.dispatch(r, kernel, self.workgroups(pass.geometry.kernel, source.groups, target.groups), cost);
    }

    /// A pass is V voxels of dy. What the K taps of the row meet is looked up, K V voxels, and G vectors of each are staged in 32
    /// bits between two barriers. Each invocation, one output channel, loads a value of dy for each voxel, a quarter of a vector,
    /// and all that is staged, at the same place as all others; each vector is four multiply-adds.
    fn cost(&self, pass: &Pass, group_bytes: f64) -> Cost {
        let taps = pass.geometry.kernel[2];
        let invocations = self.workgroup as f64;
        let places = (taps * self.voxels) as f64;
        let staged = places * self.groups as f64;
        let of_dy = invocations * self.voxels as f64;
        let bytes = GROUP_BYTES as f64;
        Cost {
            invocations: self.workgroup as u32,
            workgroup_memory: (staged * bytes) as u32,
            sums: (taps * self.groups * GROUP) as u32,
            unit: Unit::Scalar,
            once: Work {
                asked: invocations * (taps * self.groups) as f64 * 16.0,
                vectors: invocations * (taps * self.groups * GROUP) as f64,
                waits: 1.0,
                ..Work::default()
            },
            pass: Work {
                flops: invocations * staged * (GROUP * 2) as f64,
                asked: staged * group_bytes + of_dy * group_bytes / GROUP as f64,
                vectors: of_dy,
                staged,
                lookups: places * 2.0,
                written: staged * bytes,
                read: invocations * staged * bytes,
                broadcast: invocations * staged * bytes,
                shared: invocations * staged,
                barriers: 2.0,
                waits: 2.0,
                ..Work::default()
            },
            passes: pass.over_voxels(self.voxels),
        }
    }
}
