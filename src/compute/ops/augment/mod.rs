//! Augmentation at the head of a graph: from the part of a crop that the host uploads, and the numbers that it drew, to the image
//! and labels that the network reads.
//!
//! A sample's inputs, in the order of [`Graph::input`]: its numbers, the part of each channel, the part of the label map. The part
//! may have any shape that fits; the host says which with the numbers. What was not drawn is switched off and costs nothing;
//! where nothing is drawn the image is the part, bit for bit. Nothing here has a gradient, and nothing is made at random on the
//! device: the same upload gives the same bits.

mod alone;
mod finish;
mod intensity;
mod numbers;
mod resample;

pub use alone::Alone;
pub use numbers::{Change, ChannelChange, Cut};

use crate::base::error::{Error, Result};
use crate::compute::device::recording::{Kernel, Slice, Workgroups};
use crate::compute::graph::plan::Limits;
use crate::compute::graph::{Graph, Kind, Recorder, Session, Storage, TensorId, product};
use bytemuck::{Pod, Zeroable};

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
    pub channels: usize,
    /// Voxels (z, y, x) of a patch.
    pub patch: [usize; 3],
    /// The most voxels along each axis that are uploaded for a patch.
    pub part: [usize; 3],
    pub interpolation: Interpolation,
    /// Whether intensities may change (all of [`ChannelChange`], and noise).
    pub intensities: bool,
    /// Whether there is a label map.
    pub labels: bool,
}

/// What the network reads: images of single floats.
#[derive(Clone, Copy, Debug)]
pub struct Augmented {
    /// (channels, z, y, x)
    pub image: TensorId,
    /// (z, y, x), none below 0
    pub labels: Option<TensorId>,
}

/// Switches of a sample: what can be left out of a run.
#[derive(Clone, Copy, Debug)]
struct Switches {
    /// The part is the patch.
    plain: u32,
    /// The patch is rotated or zoomed.
    turned: u32,
    noise: u32,
    /// The first of those of channel 0; every channel has [`Switches::A_CHANNEL`].
    channels: u32,
}

impl Switches {
    /// Blur, brightness, contrast, low resolution, gamma of the negative, gamma.
    const A_CHANNEL: u32 = 6;

    fn of(sample: usize, augmentation: &Augmentation) -> Self {
        let first = sample as u32 * Self::count(augmentation);
        Self { plain: first, turned: first + 1, noise: first + 2, channels: first + 3 }
    }

    fn count(augmentation: &Augmentation) -> u32 {
        3 + Self::A_CHANNEL * augmentation.channels as u32
    }

    fn channel(&self, channel: usize) -> u32 {
        self.channels + Self::A_CHANNEL * channel as u32
    }
}

/// The uniform of `shaders/shared/augment.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Params {
    dims: [u32; 3],
    channel: u32,
    axis: u32,
    /// Bits of the axes that the kernel mirrors where they are drawn.
    mirror: u32,
    chunks: u32,
    /// Where the channel starts in what is written.
    first: u32,
}

/// All three axes.
const AXES: u32 = 7;

impl Augmentation {
    /// # Errors
    /// One channel of a part, or the image of a patch, is more than the adapter binds at once.
    pub fn check(&self, limits: Limits) -> Result<()> {
        let volumes = [
            ("the crop that is read", product(self.part), "a smaller augment.rotation_degrees"),
            ("the image with its channels", self.channels * product(self.patch), "fewer channels"),
        ];
        for (what, voxels, remedy) in volumes {
            let bytes = voxels as u64 * 4;
            if bytes > limits.max_binding {
                let ([z, y, x], limit) = (self.patch, limits.max_binding);
                return Err(Error::device(
                    format!(
                        "for a patch of {z} x {y} x {x}, {what} takes {bytes} bytes and the adapter binds {limit} at once"
                    ),
                    format!("Choose a smaller train.patch, {remedy}, or another adapter with --device"),
                ));
            }
        }
        Ok(())
    }

    /// Inputs of a sample: its numbers, channels, labels.
    fn inputs(&self) -> usize {
        1 + self.channels + usize::from(self.labels)
    }

    /// Uploads sample `sample` of the graph: the part of its image (channel, z, y, x) and of its label map, with what is to happen
    /// to them. The samples' inputs come before all others of the graph.
    ///
    /// # Panics
    /// When the part has other voxels than `change` says, or more than it may have.
    pub fn upload(&self, session: &mut Session, sample: usize, change: &Change, image: &[f32], labels: &[i16]) {
        let voxels = product(change.part);
        assert_eq!(image.len(), self.channels * voxels, "voxels of a part of {:?}", change.part);
        assert!(change.cut.is_some() || change.part == self.patch, "a part of {:?} is no patch", change.part);
        let first = sample * self.inputs();
        session.set_input(first, &numbers::bytes(self, change));
        for (k, channel) in image.chunks_exact(voxels).enumerate() {
            session.set_input(first + 1 + k, bytemuck::cast_slice(channel));
        }
        if self.labels {
            assert_eq!(labels.len(), voxels, "labels of a part of {:?}", change.part);
            let even = labels.len() & !1;
            // Whole words are uploaded.
            session.set_input(first + 1 + self.channels, bytemuck::cast_slice(&labels[..even]));
            if let [last] = labels[even..] {
                session.set_input_at(first + 1 + self.channels, 2 * even as u64, bytemuck::cast_slice(&[last, 0]));
            }
        }
        let switches = Switches::of(sample, self);
        session.set_switch(switches.plain, change.cut.is_none());
        session.set_switch(switches.turned, change.cut.is_some());
        session.set_switch(switches.noise, change.noise.is_some());
        let nothing = ChannelChange::default();
        for k in 0..self.channels {
            let c = change.channels.get(k).unwrap_or(&nothing);
            let drawn = [
                c.blur.is_some(),
                c.brightness.is_some(),
                c.contrast.is_some(),
                c.low_resolution.is_some(),
                c.inverted_gamma.is_some(),
                c.gamma.is_some(),
            ];
            for (switch, on) in (switches.channel(k)..).zip(drawn) {
                session.set_switch(switch, on);
            }
        }
    }

    fn voxels(&self) -> usize {
        product(self.patch)
    }

    fn params(&self, channel: usize) -> Params {
        Params { dims: self.patch.map(|n| n as u32), channel: channel as u32, ..Default::default() }
    }

    /// Records a kernel with one invocation a voxel of the patch; with a switch, it runs only when that is on.
    fn each_voxel(&self, r: &mut Recorder, kernel: Kernel, params: &Params, bindings: &[Slice], switch: Option<u32>) {
        let voxels = self.voxels();
        match switch {
            Some(switch) => {
                let groups = r.when(switch, voxels, 64);
                r.dispatch(kernel, params, bindings, groups, 0.0, 0.0);
            }
            None => {
                let groups = Workgroups::folded(voxels, 64, 1);
                r.dispatch(kernel, params, bindings, groups, 0.0, 8.0 * voxels as f64);
            }
        }
    }
}

impl Graph {
    /// Adds the augmentation of one more sample. All samples of a graph are added before any other input, and are alike.
    pub fn augment(&mut self, a: &Augmentation) -> Augmented {
        let sample = (self.inputs.len() - 1 - self.masks.len()) / a.inputs();
        let switches = Switches::of(sample, a);
        (0..Switches::count(a)).for_each(|_| {
            self.switch();
        });
        let volume = |g: &mut Graph, voxels: usize| g.tensor(Kind::Bytes(4 * voxels as u64), Storage::Arena);
        let numbers = self.input(numbers::size(a));
        let parts: Vec<TensorId> = (0..a.channels).map(|_| self.image(1, a.part)).collect();
        // A single voxel's label fills a word.
        let part_labels = a.labels.then(|| self.input(2 * product(a.part).next_multiple_of(2) as u64));
        let outside = part_labels.map(|part| {
            let outside = volume(self, a.voxels());
            self.resample_labels(a, switches, [numbers, part], outside);
            outside
        });
        let image = volume(self, a.channels * a.voxels());
        for (channel, &part) in parts.iter().enumerate() {
            if !a.intensities && !a.labels {
                self.resample(a, channel, switches, [numbers, part], image, true);
                continue;
            }
            let x = volume(self, a.voxels());
            self.resample(a, channel, switches, [numbers, part], x, false);
            if a.intensities {
                self.change_intensities(a, channel, switches, numbers, x);
            }
            self.finish_channel(a, channel, [numbers, x], outside, image);
        }
        let labels = outside.map(|outside| {
            let labels = volume(self, a.voxels());
            self.finish_labels(a, [numbers, outside], labels);
            labels
        });
        Augmented { image, labels }
    }
}
