//! What a dispatch does when it runs with so many visible blocks: counts, exact but for what a kernel's edge workgroups leave out.

use crate::compute::device::cost::{Cost, Passes, Unit, Work};
use crate::compute::device::{Dispatch, Dynamic};

/// Equal dispatches of a session.
#[derive(Clone, Debug)]
pub struct Count {
    /// How many.
    pub dispatches: usize,
    /// Operator.
    pub operator: &'static str,
    /// Layer.
    pub layer: String,
    /// Workgroups of one.
    pub workgroups: f64,
    /// Floating-point operations of one that the operator asks for.
    pub flops: f64,
    /// Bytes of one that must move at least.
    pub bytes: f64,
    /// What a workgroup does on average.
    pub work: Work,
    /// Its passes, on average and at most.
    pub passes: [f64; 2],
    /// What a workgroup does outside of them.
    pub cost: Cost,
    /// Whether the kernel says nothing of its cost, so that it follows from `bytes`.
    pub plain: bool,
}

/// Invocations of a plain kernel's workgroups.
const PLAIN_WORKGROUP: u32 = 64;
/// Loads of a plain kernel's loop that are under way together.
const TOGETHER: f64 = 4.0;

impl Count {
    /// The dispatches of a recording that run, equal ones together. `capacity` are the blocks of each mask that a plan has memory
    /// for: operations and bytes of a recording are those of so many visible ones.
    pub fn all<'a>(
        dispatches: impl IntoIterator<Item = &'a Dispatch>,
        dynamic: &Dynamic,
        capacity: &[u32],
    ) -> Vec<Self> {
        let mut counts: Vec<Self> = Vec::new();
        for dispatch in dispatches {
            let Some(count) = Self::of(dispatch, dynamic, capacity) else { continue };
            match counts.iter_mut().find(|c| c.is_like(&count)) {
                Some(same) => same.dispatches += 1,
                None => counts.push(count),
            }
        }
        counts
    }

    /// None where it has no workgroups.
    fn of(dispatch: &Dispatch, dynamic: &Dynamic, capacity: &[u32]) -> Option<Self> {
        let workgroups: f64 = dispatch.workgroups.resolve(dynamic).iter().map(|&n| f64::from(n)).product();
        if workgroups == 0.0 {
            return None;
        }
        let visible = |mask: u32| f64::from(dynamic.visible[mask as usize]) / f64::from(capacity[mask as usize].max(1));
        let share = dispatch.mask.map_or(1.0, visible);
        let (flops, bytes) = (dispatch.flops * share, dispatch.bytes * share);
        let group_bytes = dispatch.kernel.precision.group_bytes() as f64;
        let cost = dispatch.cost.unwrap_or_else(|| plain(flops / workgroups, bytes / workgroups, group_bytes));
        let passes = cost.passes.resolve(&dynamic.visible);
        Some(Self {
            dispatches: 1,
            operator: dispatch.label,
            layer: dispatch.layer.clone(),
            workgroups,
            flops,
            bytes,
            work: cost.once.plus(passes[0], cost.pass),
            passes,
            cost,
            plain: dispatch.cost.is_none(),
        })
    }

    fn is_like(&self, other: &Self) -> bool {
        let key = |c: &Self| (c.operator, c.workgroups, c.flops, c.bytes, c.passes, c.plain);
        key(self) == key(other) && self.layer == other.layer && self.cost == other.cost
    }

    /// Bytes that move through workgroup memory in one dispatch, read and written.
    pub fn workgroup_bytes(&self) -> f64 {
        self.workgroups * (self.work.read + self.work.written)
    }

    /// Bytes that one dispatch asks of global memory: those that must move at least, or what its workgroups ask for.
    pub fn asked(&self) -> f64 {
        (self.workgroups * self.work.asked).max(self.bytes)
    }

    /// Steps of a workgroup that wait for one another: loads that are waited for, and barriers.
    pub fn steps(&self) -> f64 {
        let most = self.cost.once.plus(self.passes[1], self.cost.pass);
        most.waits + most.barriers
    }
}

/// A plain kernel, whose invocations share out the bytes of their workgroup: each loads its statistics or the like first, and
/// then loads or stores vector after vector, some under way together.
fn plain(flops: f64, bytes: f64, group_bytes: f64) -> Cost {
    let vectors = bytes / group_bytes;
    let of_invocation = vectors / f64::from(PLAIN_WORKGROUP);
    let once =
        Work { flops, asked: bytes, vectors, waits: 1.0 + (of_invocation / TOGETHER).max(1.0), ..Work::default() };
    Cost {
        invocations: PLAIN_WORKGROUP,
        workgroup_memory: 0,
        sums: 0,
        unit: Unit::Scalar,
        once,
        pass: Work::default(),
        passes: Passes::fixed(0),
    }
}
