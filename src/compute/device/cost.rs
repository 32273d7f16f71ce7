//! What a kernel costs beside the operations and bytes that it is for: counted in one workgroup, from the way in which the kernel
//! cuts its work. `spark3d bench --paper` turns these counts into the time of a step on an adapter that is not there;
//! `tests/kernels.rs` compares them with what an interpreter counts.

/// The units that do the arithmetic of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Multiply-adds of single invocations.
    #[default]
    Scalar,
    /// Products of cooperative matrices.
    Matrix,
}

/// Things that a workgroup does. All counts are sums over its invocations, of a workgroup in the interior: one whose voxels and
/// channels are all there. A uniform load, which all invocations make at one place, asks for its bytes once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Floating-point operations that are carried out, on padding too.
    pub flops: f64,
    /// Bytes that global memory is asked for, or given: a value counts each time it is loaded.
    pub asked: f64,
    /// Vectors of four that invocations load from global memory or store there, without those that are staged.
    pub vectors: f64,
    /// Vectors that are brought from global to workgroup memory.
    pub staged: f64,
    /// Voxels whose place is looked up (`find` of `shaders/shared/space.wgsl`, or `coordinate`).
    pub lookups: f64,
    /// Bytes of workgroup memory that are read: by each invocation what it loads, by a subgroup a matrix once.
    pub read: f64,
    /// Of these, bytes that all invocations of a subgroup read at one place.
    pub broadcast: f64,
    /// Bytes of workgroup memory that are written.
    pub written: f64,
    /// Vectors that invocations load from workgroup memory.
    pub shared: f64,
    /// Matrices that subgroups load from workgroup memory, each counted once for every invocation.
    pub fragments: f64,
    /// Values of other invocations of the subgroup that are asked for.
    pub shuffles: f64,
    /// Barriers of the workgroup.
    pub barriers: f64,
    /// Loads that wait for one another, one after the other.
    pub waits: f64,
}

impl Work {
    /// This and `times` times another.
    pub fn plus(self, times: f64, other: Work) -> Work {
        Work {
            flops: self.flops + times * other.flops,
            asked: self.asked + times * other.asked,
            vectors: self.vectors + times * other.vectors,
            staged: self.staged + times * other.staged,
            lookups: self.lookups + times * other.lookups,
            read: self.read + times * other.read,
            broadcast: self.broadcast + times * other.broadcast,
            written: self.written + times * other.written,
            shared: self.shared + times * other.shared,
            fragments: self.fragments + times * other.fragments,
            shuffles: self.shuffles + times * other.shuffles,
            barriers: self.barriers + times * other.barriers,
            waits: self.waits + times * other.waits,
        }
    }
}

/// The passes of a loop that a workgroup does one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// What the loops of all partitions go through: in a dense space all of it, under a mask that of one visible block.
    pub items: u32,
    /// The mask, by its number in the graph.
    pub mask: Option<u32>,
    /// Items of one pass.
    pub per_pass: u32,
    /// Workgroups that share the passes between them.
    pub partitions: u32,
}

impl Passes {
    /// So many, whatever is visible.
    pub fn fixed(count: usize) -> Self {
        Self { items: count as u32, mask: None, per_pass: 1, partitions: 1 }
    }

    /// Passes of a workgroup for the visible blocks of each mask: on average, and at most.
    pub fn resolve(&self, visible: &[u32]) -> [f64; 2] {
        let blocks = self.mask.map_or(1, |mask| visible[mask as usize]);
        let all = (self.items as usize * blocks as usize).div_ceil(self.per_pass as usize);
        let most = all.div_ceil(self.partitions as usize);
        [all as f64 / f64::from(self.partitions), most as f64]
    }
}

/// One workgroup of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Its invocations.
    pub invocations: u32,
    /// Bytes of workgroup memory that it holds.
    pub workgroup_memory: u32,
    /// 32-bit sums that an invocation keeps in registers.
    pub sums: u32,
    /// What does the arithmetic.
    pub unit: Unit,
    /// Before and after the passes.
    pub once: Work,
    /// In each pass.
    pub pass: Work,
    /// How many passes.
    pub passes: Passes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_share_the_passes_of_what_is_visible() {
        let passes = Passes { items: 512, mask: Some(1), per_pass: 32, partitions: 6 };
        // 31 blocks of 512 voxels are 496 passes, 82 or 83 for each of six.
        assert_eq!(passes.resolve(&[0, 31]), [496.0 / 6.0, 83.0]);
        assert_eq!(Passes::fixed(7).resolve(&[]), [7.0, 7.0]);
        let dense = Passes { items: 100, mask: None, per_pass: 32, partitions: 1 };
        assert_eq!(dense.resolve(&[]), [4.0, 4.0]);
    }

    #[test]
    fn work_adds_up() {
        let pass = Work { flops: 2.0, barriers: 2.0, ..Work::default() };
        let once = Work { asked: 5.0, barriers: 1.0, ..Work::default() };
        assert_eq!(once.plus(3.0, pass), Work { flops: 6.0, asked: 5.0, barriers: 7.0, ..Work::default() });
    }
}
