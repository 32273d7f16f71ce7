//! What kernels over logits and a label map need: which labels are which classes, and how the two grids meet.

use super::prelude::*;

/// Most regions, and most labels beside the background, of a region-based network: they are bits and a table in a uniform.
pub const MAX_REGIONS: usize = 32;
/// See [`MAX_REGIONS`].
pub const MAX_REGION_LABELS: usize = 63;

/// What the outputs of a network mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    /// `None`: output c is label c, one label a voxel, by a softmax. Otherwise output c is the region of these labels, each by a
    /// sigmoid of its own.
    pub regions: Option<Vec<Vec<u32>>>,
    /// The label of voxels that count for nothing.
    pub ignore: Option<u32>,
}

shader_struct! {
    /// The uniform of `shaders/shared/labels.wgsl`.
    pub(super) struct LabelsUniform is Labels of [
        "dice_ce/state",
        "dice_ce/sums",
        "dice_ce/project",
        "dice_ce/gradient",
        "confusion/decide",
        "confusion/count",
    ] {
        dims: [u32; 3],
        stride: u32,
        source: [u32; 3],
        channels: u32,
        scale: [f32; 3],
        first_group: u32,
        groups: u32,
        all_groups: u32,
        chunks: u32,
        ignore_label: u32,
        sample: u32,
        first_voxel: u32,
        pad: [u32; 2],
        members: [u32; 64],
    }
}

impl Classes {
    /// Whether outputs are regions, each by a sigmoid of its own.
    pub fn are_regions(&self) -> bool {
        self.regions.is_some()
    }

    /// For each label, the bits of the regions that it belongs to.
    fn members(&self) -> [u32; 64] {
        let mut members = [0; 64];
        for (c, labels) in self.regions.iter().flatten().enumerate() {
            labels.iter().for_each(|&l| members[l as usize] |= 1 << c);
        }
        members
    }

    /// The uniform for one segment of the logits `t` of sample `sample` of the loss, whose label map has `source` voxels. Where `t` has
    /// several samples they are those of the loss.
    pub(super) fn uniform<const N: usize>(
        &self,
        r: &Recorder,
        t: TensorId,
        segment: &Aligned<N>,
        source: [usize; 3],
        sample: usize,
    ) -> LabelsUniform {
        let (channels, space) = r.shape(t);
        LabelsUniform {
            dims: space.dims.map(|n| n as u32),
            stride: space.voxels() as u32,
            source: source.map(|n| n as u32),
            channels: channels as u32,
            scale: std::array::from_fn(|a| source[a] as f32 / space.dims[a] as f32),
            first_group: segment.first_group,
            groups: segment.groups,
            all_groups: r.groups(t) as u32,
            chunks: (space.chunks() / space.samples) as u32,
            ignore_label: self.ignore.unwrap_or(u32::MAX),
            sample: sample as u32,
            first_voxel: if space.samples > 1 { (sample * product(space.dims)) as u32 } else { 0 },
            pad: [0; 2],
            members: self.members(),
        }
    }
}

/// Panics on logits that a label map cannot be compared with: a mistake in the program.
pub(super) fn check(space: VoxelLayout, channels: usize, classes: &Classes) {
    assert!(!space.is_sparse(), "logits are dense");
    if let Some(regions) = &classes.regions {
        assert_eq!(regions.len(), channels, "one output a region");
        assert!(channels <= MAX_REGIONS, "{channels} regions");
        let few = regions.iter().flatten().all(|&l| l as usize <= MAX_REGION_LABELS);
        assert!(few, "a label above {MAX_REGION_LABELS}");
    }
}

/// Label maps for cases.
pub(super) mod samples {
    use super::Classes;
    use crate::base::random::{Purpose, rng};
    use rand::RngExt;

    /// Labels 0 to `labels` - 1.
    pub fn random_labels(seed: u64, labels: u32, n: usize) -> Vec<f32> {
        let mut r = rng(seed, Purpose::Test, n as u64, 1);
        (0..n).map(|_| r.random_range(0..labels) as f32).collect()
    }

    /// Six overlapping regions over the labels 0 to 5, of which 5 is ignored.
    pub fn overlapping_regions() -> Classes {
        let regions = (0..6).map(|c| (1..5).filter(|l| (l * 7 + c) % 3 > 0).collect()).collect();
        Classes { regions: Some(regions), ignore: Some(5) }
    }
}
