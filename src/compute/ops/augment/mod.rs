//! Augmentation at the head of a graph: from the region of a crop that the host uploads, and the numbers that it drew, to the image
//! and labels that the network reads.
//!
//! A sample's inputs are its numbers, the region of each channel, and the region of the label map. The region may have any shape that
//! fits; the host says which with the numbers. What was not sampled is off and costs nothing;
//! where nothing is sampled the image is the region, bit for bit. Nothing here has a gradient, and nothing is made at random on the
//! device: the same upload gives the same bits.

mod finish;
mod intensity;
mod numbers;
mod resample;
mod runner;

pub use numbers::{Change, ChannelChange, CropTransform};
pub use runner::AugmentationRunner;

use super::prelude::*;
use crate::base::Error;
use crate::compute::graph::{Flag, Limits};

/// How a turned patch is interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Cubic B-splines; 0 beyond the crop's outermost voxel centres.
    Cubic,
    /// Linear, in a crop that is surrounded by zeros.
    Linear,
}

/// What may happen to a sample, without its numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    /// Channels of the image.
    pub channels: usize,
    /// Voxels (z, y, x) of a patch.
    pub patch: [usize; 3],
    /// The most voxels along each axis that are uploaded for a patch.
    pub region: [usize; 3],
    /// The most voxels of a channel's region in one buffer; a region of more lies in several, of which there are few.
    pub part: usize,
    /// How values between voxels are found.
    pub interpolation: Interpolation,
    /// Whether intensities may change (all of [`ChannelChange`], and noise).
    pub intensities: bool,
    /// Whether there is a label map.
    pub labels: bool,
}

/// A sample at the head of a graph: what the network reads, images of single floats, and where the host uploads the sample.
#[derive(Clone, Debug)]
pub struct Augmented {
    /// (channels, z, y, x)
    pub image: TensorId,
    /// (z, y, x), none below 0
    pub labels: Option<TensorId>,
    augmentation: Augmentation,
    numbers: Upload,
    /// The parts of the region of each channel.
    regions: Vec<Vec<Upload>>,
    region_labels: Option<Upload>,
    flags: Flags,
}

/// What can be left out of a run.
#[derive(Clone, Debug)]
struct Flags {
    /// The region is the patch.
    plain: Flag,
    /// The patch is rotated or zoomed.
    turned: Flag,
    noise: Flag,
    channels: Vec<ChannelFlags>,
}

/// What can be left out for one channel.
#[derive(Clone, Copy, Debug)]
struct ChannelFlags {
    blur: Flag,
    brightness: Flag,
    contrast: Flag,
    low_resolution: Flag,
    inverted_gamma: Flag,
    gamma: Flag,
}

impl Flags {
    fn new(g: &mut Graph, channels: usize) -> Self {
        let (plain, turned, noise) = (g.flag(), g.flag(), g.flag());
        let channel = |_| {
            let [blur, brightness, contrast, low_resolution, inverted_gamma, gamma] = std::array::from_fn(|_| g.flag());
            ChannelFlags { blur, brightness, contrast, low_resolution, inverted_gamma, gamma }
        };
        Self { plain, turned, noise, channels: (0..channels).map(channel).collect() }
    }
}

shader_struct! {
    /// The uniform of `shaders/shared/augment.wgsl`.
    #[derive(Default)]
    struct Params is Params of [
        "augment/blur",
        "augment/brightness",
        "augment/contrast",
        "augment/copy",
        "augment/cubic",
        "augment/finish",
        "augment/finish_labels",
        "augment/labels",
        "augment/linear",
        "augment/lower_resolution",
        "augment/moments",
        "augment/moments_finalize",
        "augment/noise",
        "augment/power",
        "augment/prefilter",
        "augment/restore",
        "augment/unpack_labels",
    ] {
        dims: [u32; 3],
        channel: u32,
        axis: u32,
        /// Bits of the axes that the kernel mirrors where they were sampled.
        mirror: u32,
        chunks: u32,
        /// Where the channel starts in what is written.
        first: u32,
    }
}

/// All three axes.
const AXES: u32 = 7;

/// The usual [`Augmentation::part`]: what every adapter binds at once, 128 MiB.
pub const PART: usize = 1 << 25;
/// The most parts of a region: the kernel with the most bindings has a region and its coefficients, and adapters promise eight.
const MOST_PARTS: usize = 3;

impl Augmentation {
    /// # Errors
    /// A region is more than the adapter binds in a few parts, or the image of a patch is more than it binds at once.
    pub fn check(&self, limits: Limits) -> Result<()> {
        let most = limits.max_binding;
        let region = product(self.region);
        let part = self.part_voxels().min(region) as u64;
        let region = region as u64;
        let smaller = "a smaller augment.rotation_degrees";
        let volumes = [
            ("a part of the crop that is read", 4 * part, smaller),
            ("the label map of the crop that is read", if self.labels { 2 * region } else { 0 }, smaller),
            ("the image with its channels", 4 * (self.channels * product(self.patch)) as u64, "fewer channels"),
        ];
        for (what, bytes, remedy) in volumes {
            if bytes > most {
                let [z, y, x] = self.patch;
                return Err(Error::device(
                    format!(
                        "for a patch of {z} x {y} x {x}, {what} takes {bytes} bytes, and the adapter allows {most}"
                    ),
                    format!("Choose a smaller train.patch, {remedy}, or another adapter with --device"),
                ));
            }
        }
        Ok(())
    }

    /// Voxels of every part of a region but the last.
    fn part_voxels(&self) -> usize {
        self.part.max(product(self.region).div_ceil(MOST_PARTS))
    }

    /// Voxels of each part of a channel's largest region.
    fn parts(&self) -> Vec<usize> {
        let (voxels, part) = (product(self.region), self.part_voxels());
        (0..voxels).step_by(part).map(|first| part.min(voxels - first)).collect()
    }

    /// A kernel that reads a region or its coefficients.
    fn of_region(&self, shader: &'static str) -> Kernel {
        match self.parts().len() {
            1 => Kernel::new(shader),
            parts => Kernel::new(shader).unrolled("PARTS", parts).unrolled("PART", self.part_voxels()),
        }
    }

    fn voxels(&self) -> usize {
        product(self.patch)
    }

    fn params(&self, channel: usize) -> Params {
        Params { dims: self.patch.map(|n| n as u32), channel: channel as u32, ..Default::default() }
    }

    /// Records a kernel with one invocation a voxel of the patch; with a flag, it runs only while that is set.
    fn each_voxel(&self, r: &mut Recorder, kernel: Kernel, params: &Params, bindings: &[Slice], flag: Option<Flag>) {
        let voxels = self.voxels();
        let (workgroups, bytes) = match flag {
            Some(flag) => (r.when(flag, voxels, 64), 0.0),
            None => (Workgroups::folded(voxels, 64, 1), 8.0 * voxels as f64),
        };
        r.dispatch(kernel, params, bindings, workgroups, 0.0, bytes);
    }
}

impl Augmented {
    /// What may happen to the sample.
    pub fn augmentation(&self) -> &Augmentation {
        &self.augmentation
    }

    /// Uploads a sample: the region of its image (channel, z, y, x) and of its label map, with what is to happen to them.
    ///
    /// # Panics
    /// When the region has other voxels than `change` says, or more than it may have.
    pub fn upload(&self, session: &mut Session, change: &Change, image: &[f32], labels: &[i16]) {
        let a = &self.augmentation;
        let voxels = product(change.region);
        assert_eq!(image.len(), a.channels * voxels, "voxels of a region of {:?}", change.region);
        assert!(change.cut.is_some() || change.region == a.patch, "a region of {:?} is no patch", change.region);
        session.set_input(self.numbers, &numbers::bytes(a, change));
        for (parts, channel) in self.regions.iter().zip(image.chunks_exact(voxels)) {
            for (&part, voxels) in parts.iter().zip(channel.chunks(a.part_voxels())) {
                session.set_input(part, bytemuck::cast_slice(voxels));
            }
        }
        if let Some(region) = self.region_labels {
            assert_eq!(labels.len(), voxels, "labels of a region of {:?}", change.region);
            let even = labels.len() & !1;
            // Whole words are uploaded.
            session.set_input(region, bytemuck::cast_slice(&labels[..even]));
            if let [last] = labels[even..] {
                session.set_input_at(region, 2 * even as u64, bytemuck::cast_slice(&[last, 0]));
            }
        }
        let flags = &self.flags;
        session.set_flag(flags.plain, change.cut.is_none());
        session.set_flag(flags.turned, change.cut.is_some());
        session.set_flag(flags.noise, change.noise.is_some());
        let nothing = ChannelChange::default();
        for (f, c) in flags.channels.iter().zip(change.channels.iter().chain(std::iter::repeat(&nothing))) {
            session.set_flag(f.blur, c.blur.is_some());
            session.set_flag(f.brightness, c.brightness.is_some());
            session.set_flag(f.contrast, c.contrast.is_some());
            session.set_flag(f.low_resolution, c.low_resolution.is_some());
            session.set_flag(f.inverted_gamma, c.inverted_gamma.is_some());
            session.set_flag(f.gamma, c.gamma.is_some());
        }
    }
}

impl Graph {
    /// Adds the augmentation of one more sample.
    pub fn augment(&mut self, a: &Augmentation) -> Augmented {
        let image = self.scratch(4 * (a.channels * a.voxels()) as u64);
        self.augment_into(a, image, 0)
    }

    /// Adds the augmentation of the samples of a micro-batch: their images follow one another in one tensor.
    pub fn augment_batch(&mut self, a: &Augmentation, samples: usize) -> Vec<Augmented> {
        let image = self.scratch(4 * (samples * a.channels * a.voxels()) as u64);
        (0..samples).map(|sample| self.augment_into(a, image, sample)).collect()
    }

    fn augment_into(&mut self, a: &Augmentation, image: TensorId, sample: usize) -> Augmented {
        let flags = Flags::new(self, a.channels);
        let volume = |g: &mut Graph, voxels: usize| g.scratch(4 * voxels as u64);
        let uploaded = self.input(numbers::size(a));
        let numbers = uploaded.tensor();
        let parts = a.parts();
        let region = |g: &mut Graph| parts.iter().map(|&voxels| g.input(4 * voxels as u64)).collect();
        let regions: Vec<Vec<Upload>> = (0..a.channels).map(|_| region(self)).collect();
        // A single voxel's label fills a word.
        let region_labels = a.labels.then(|| self.input(2 * product(a.region).next_multiple_of(2) as u64));
        let outside = region_labels.map(|region| {
            let outside = volume(self, a.voxels());
            self.resample_labels(a, &flags, [numbers, region.tensor()], outside);
            outside
        });
        for (channel, parts) in regions.iter().enumerate() {
            let place = sample * a.channels + channel;
            let inputs: Vec<TensorId> = [&uploaded].into_iter().chain(parts).map(|upload| upload.tensor()).collect();
            if !a.intensities && !a.labels {
                self.resample(a, channel, &flags, &inputs, image, Some(place));
                continue;
            }
            let x = volume(self, a.voxels());
            self.resample(a, channel, &flags, &inputs, x, None);
            if a.intensities {
                self.change_intensities(a, channel, &flags, numbers, x);
            }
            self.finish_channel(a, [channel, place], [numbers, x], outside, image);
        }
        let labels = outside.map(|outside| {
            let labels = volume(self, a.voxels());
            self.finish_labels(a, [numbers, outside], labels);
            labels
        });
        Augmented { image, labels, augmentation: a.clone(), numbers: uploaded, regions, region_labels, flags }
    }
}
