//! Liveness and the memory plan: where each tensor segment lies in the arena.

use super::space::GROUP;
use super::{Feature, Graph, Kind, Storage, TensorId};
use crate::base::{Error, Result};
use crate::compute::device::{Heap, Slice};

/// Limits of the adapter that shape the plan.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest storage binding in bytes: no segment exceeds it.
    pub max_binding: u64,
    /// Largest buffer in bytes: the arena is cut into heaps of at most this size.
    pub max_buffer: u64,
    /// Whether samples of a batch run together where memory allows: a software adapter is busy with one.
    pub micro_batches: bool,
}

const ALIGNMENT: u64 = 256;

/// A piece of a tensor in one binding: channel groups `first_group..first_group + groups` of a feature tensor, or the whole of
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First channel group.
    pub first_group: usize,
    /// Number of channel groups; 0 for tensors that are not feature tensors.
    pub groups: usize,
    /// Where it lies.
    pub slice: Slice,
}

/// The arena of one graph.
#[derive(Clone, Debug, Default)]
pub struct MemoryPlan {
    /// Segments of each arena tensor (none of others and of tensors without use).
    pub segments: Vec<Vec<Segment>>,
    /// Bytes of each arena heap.
    pub heaps: Vec<u64>,
    /// The least that any plan needs: the largest sum of tensors alive at one time.
    pub floor: u64,
}

impl MemoryPlan {
    /// Where a kept feature tensor lies.
    pub fn segments_of(&self, feature: Feature) -> &[Segment] {
        &self.segments[feature.tensor]
    }
}

/// First and last node that touch each tensor.
fn lifetimes(graph: &Graph) -> Vec<Option<(usize, usize)>> {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; graph.tensors.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        for &t in node.inputs.iter().chain(&node.outputs) {
            lives[t] = Some(lives[t].map_or((index, index), |(first, _)| (first, index)));
        }
    }
    for (live, tensor) in lives.iter_mut().zip(&graph.tensors) {
        if tensor.storage == Storage::Kept {
            *live = live.map(|(first, _)| (first, graph.nodes.len()));
        }
    }
    lives
}

/// Places every arena tensor: largest first, each at the lowest offset that is free during its life.
pub fn plan(graph: &Graph, limits: Limits) -> Result<MemoryPlan> {
    let lives = lifetimes(graph);
    let mut plan = MemoryPlan { segments: vec![Vec::new(); graph.tensors.len()], ..Default::default() };
    let mut units: Vec<(u64, usize, usize, TensorId, usize, usize)> = Vec::new();
    for (t, tensor) in graph.tensors.iter().enumerate() {
        let (Storage::Arena | Storage::Kept, Some((first, last))) = (tensor.storage, lives[t]) else { continue };
        match tensor.kind {
            Kind::Bytes(bytes) => units.push((bytes, first, last, t, 0, 0)),
            Kind::Feature { channels, space } => {
                let group_bytes = space.voxels() as u64 * graph.precision.group_bytes();
                let most = (limits.max_binding / group_bytes) as usize;
                if most == 0 {
                    let ([z, y, x], limit) = (space.dims, limits.max_binding);
                    return Err(Error::device(
                        format!(
                            "four channels of a {z}x{y}x{x} patch take {group_bytes} bytes, more than the adapter binds at once \
                             ({limit})"
                        ),
                        "Choose a smaller patch (train.patch) or another adapter with --device",
                    ));
                }
                let groups = channels.div_ceil(GROUP);
                for q in (0..groups).step_by(most) {
                    let n = most.min(groups - q);
                    units.push((n as u64 * group_bytes, first, last, t, q, n));
                }
            }
        }
    }
    plan.floor = (0..=graph.nodes.len())
        .map(|time| units.iter().filter(|u| u.1 <= time && time <= u.2).map(|u| u.0.next_multiple_of(ALIGNMENT)).sum())
        .max()
        .unwrap_or(0);
    units.sort_by_key(|&(size, first, _, t, q, _)| (std::cmp::Reverse(size), first, t, q));
    let mut placed: Vec<Vec<(u64, u64, usize, usize)>> = Vec::new(); // per heap, by offset: offset, end, first, last
    for (size, first, last, t, q, groups) in units {
        let room = size.max(1).next_multiple_of(ALIGNMENT);
        let mut heap = 0;
        let offset = loop {
            if heap == placed.len() {
                placed.push(Vec::new());
                plan.heaps.push(0);
            }
            let mut offset = 0;
            for &(start, end, f, l) in &placed[heap] {
                if l < first || f > last {
                    continue;
                }
                if offset + room <= start {
                    break;
                }
                offset = offset.max(end);
            }
            if offset + room <= limits.max_buffer {
                break offset;
            }
            if offset == 0 {
                let limit = limits.max_buffer;
                return Err(Error::device(
                    format!("a tensor of {room} bytes exceeds the adapter's buffer limit of {limit} bytes"),
                    "Choose a smaller patch or another adapter with --device",
                ));
            }
            heap += 1;
        };
        let at = placed[heap].partition_point(|p| p.0 < offset);
        placed[heap].insert(at, (offset, offset + room, first, last));
        plan.heaps[heap] = plan.heaps[heap].max(offset + room);
        let slice = Slice { heap: Heap::Arena(heap as u32), offset, size };
        plan.segments[t].push(Segment { first_group: q, groups, slice });
    }
    for segments in &mut plan.segments {
        segments.sort_by_key(|s| s.first_group);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::graph::{Node, Op, Parameters, Precision, Recorder, VoxelLayout};

    struct Touch;
    impl Op for Touch {
        fn name(&self) -> &'static str {
            "touch"
        }
        fn record(&self, _: &Node, _: &mut Recorder) {}
    }

    #[test]
    fn tensors_alive_at_the_same_time_never_overlap_and_dead_ones_are_reused() {
        let mut g = Graph::new(Parameters::default(), Precision::F32);
        let space = VoxelLayout::dense([8, 8, 8]);
        let chain: Vec<TensorId> = (0..12).map(|i| g.feature(4 + 8 * (i % 3), space)).collect();
        for pair in chain.windows(2) {
            g.push(Touch, &pair[..1], &pair[1..]);
        }
        g.keep(chain[4]);
        let limits = Limits { max_binding: 3 * 512 * 16, max_buffer: 64 * 512 * 16, micro_batches: false };
        let plan = plan(&g, limits).unwrap();
        let lives = lifetimes(&g);
        for a in 0..chain.len() {
            for b in a + 1..chain.len() {
                let ((fa, la), (fb, lb)) = (lives[chain[a]].unwrap(), lives[chain[b]].unwrap());
                if la < fb || lb < fa {
                    continue;
                }
                for p in plan.segments[chain[a]].iter().map(|s| s.slice) {
                    assert!(p.size <= limits.max_binding);
                    for q in plan.segments[chain[b]].iter().map(|s| s.slice) {
                        assert!(p.heap != q.heap || p.offset + p.size <= q.offset || q.offset + q.size <= p.offset);
                    }
                }
            }
        }
        let total: u64 = plan.segments.iter().flatten().map(|s| s.slice.size).sum();
        let bytes: u64 = plan.heaps.iter().sum();
        assert!(bytes >= plan.floor && bytes < total);
    }
}
