//! The numbers of one sample, and how they lie in the buffer that `shaders/shared/augment.wgsl` reads.

use super::Augmentation;
use bytemuck::Zeroable;

/// What happens to one sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Voxels (z, y, x) of the region that is uploaded.
    pub region: [usize; 3],
    /// `None`: the region is the patch.
    pub cut: Option<CropTransform>,
    /// Axes that are mirrored in the end.
    pub mirror: [bool; 3],
    /// Standard deviation and seed of noise in all channels.
    pub noise: Option<(f32, u64)>,
    /// Of the first channels; nothing happens to the others.
    pub channels: Vec<ChannelChange>,
}

/// A rotation and zoom about the centre of a crop.
#[derive(Clone, Debug, PartialEq)]
pub struct CropTransform {
    /// Offset from the centre of the patch → of the crop, both (z, y, x) in voxels.
    pub matrix: [[f64; 3]; 3],
    /// Voxels of the crop, and the first voxel of the region in it.
    pub crop: [usize; 3],
    /// First voxel of the region along (z, y, x) of the crop.
    pub start: [usize; 3],
}

/// Changes of one channel; those of its intensities in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelChange {
    /// Weights of a blur along each axis, an odd number of them.
    pub blur: Option<[Vec<f32>; 3]>,
    /// Factor of all values.
    pub brightness: Option<f32>,
    /// Factor of the distance to the mean.
    pub contrast: Option<f32>,
    /// Voxels along each axis that a lower resolution leaves.
    pub low_resolution: Option<[usize; 3]>,
    /// Exponent on the negative.
    pub inverted_gamma: Option<f32>,
    /// Exponent of the values, scaled to 0 to 1.
    pub gamma: Option<f32>,
    /// Whether the channel is set to 0 outside of the label map's mask (labels below 0).
    pub masked: bool,
}

/// Weights of a blur from its middle to one end, at most, for each axis.
pub(super) const REACH: usize = 64;

shader_struct! {
    /// The WGSL struct `Sample`, without its channels.
    struct SampleNumbers is Sample of ["augment/cubic", "augment/linear"] {
        region: [u32; 3],
        mirror: u32,
        start: [i32; 3],
        sigma: f32,
        crop: [u32; 3],
        zero: u32,
        matrix: [[i32; 4]; 3],
        rest: [[f32; 4]; 3],
        seed: [u32; 2],
        pad: [u32; 2],
    }
}

shader_struct! {
    /// The WGSL struct `Channel`.
    struct ChannelNumbers is Channel of ["augment/blur", "augment/noise"] {
        blur: [u32; 3],
        brightness: f32,
        few: [u32; 3],
        contrast: f32,
        gammas: [f32; 2],
        masked: u32,
        pad: u32,
        weights: [[f32; REACH]; 3],
    }
}

pub(super) fn size(a: &Augmentation) -> u64 {
    (std::mem::size_of::<SampleNumbers>() + a.channels * std::mem::size_of::<ChannelNumbers>()) as u64
}

/// The content of the buffer.
///
/// # Panics
/// When a blur reaches further than 63 voxels.
pub(super) fn bytes(a: &Augmentation, change: &Change) -> Vec<u8> {
    let axes = (0..3).filter(|&axis| change.mirror[axis]).map(|axis| 1 << axis).sum::<u32>();
    let region = change.region.map(|n| n as u32);
    let mut sample = SampleNumbers { region, mirror: axes, crop: region, ..Zeroable::zeroed() };
    if let Some(cut) = &change.cut {
        sample.crop = cut.crop.map(|n| n as u32);
        sample.start = cut.start.map(|n| n as i32);
        for (r, row) in cut.matrix.iter().enumerate() {
            for (c, &m) in row.iter().enumerate() {
                let whole = (m * 4096.0).round();
                sample.matrix[r][c] = whole as i32;
                // The shader multiplies by twice the offset.
                sample.rest[r][c] = ((m * 4096.0 - whole) / 8192.0) as f32;
            }
        }
    }
    if let Some((sigma, seed)) = change.noise {
        sample.sigma = sigma;
        sample.seed = [seed as u32, (seed >> 32) as u32];
    }
    let mut out = bytemuck::bytes_of(&sample).to_vec();
    let nothing = ChannelChange::default();
    for c in change.channels.iter().chain(std::iter::repeat(&nothing)).take(a.channels) {
        out.extend_from_slice(bytemuck::bytes_of(&channel(c)));
    }
    out
}

fn channel(c: &ChannelChange) -> ChannelNumbers {
    let mut numbers = ChannelNumbers {
        brightness: c.brightness.unwrap_or(1.0),
        few: c.low_resolution.map_or([1; 3], |few| few.map(|n| n as u32)),
        contrast: c.contrast.unwrap_or(1.0),
        gammas: [c.inverted_gamma.unwrap_or(1.0), c.gamma.unwrap_or(1.0)],
        masked: u32::from(c.masked),
        ..Zeroable::zeroed()
    };
    for (axis, weights) in c.blur.iter().flatten().enumerate() {
        let half = weights.len() / 2;
        assert!(half < REACH && weights.len() % 2 == 1, "a blur of {} weights", weights.len());
        numbers.blur[axis] = half as u32;
        numbers.weights[axis][..=half].copy_from_slice(&weights[half..]);
    }
    numbers
}
