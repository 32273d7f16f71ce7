//! Sheets of pictures of a pretext's sample: input, target and output of a validation.

use crate::base::Volume;
use crate::compute::graph::{BlockMask, product};
use crate::evaluation::pictures::{Panel, Window, sheet, window_of};
use image::RgbImage;

/// Voxels (z, y, x) of what is shown, and their edge lengths in mm.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// Voxels along each axis.
    pub patch: [usize; 3],
    /// mm along each axis.
    pub spacing: [f64; 3],
}

impl Shown {
    /// A volume of the patch.
    pub fn volume(&self, data: Vec<f32>) -> Volume {
        Volume::new(self.patch, self.spacing, data)
    }

    /// The distance of two volumes, voxel by voxel.
    pub fn difference(&self, a: &Volume, b: &Volume) -> Volume {
        self.volume(a.data.iter().zip(&b.data).map(|(x, y)| (x - y).abs()).collect())
    }

    /// (z, y, x) of a voxel.
    pub fn coordinates(&self, v: usize) -> [usize; 3] {
        let [_, ny, nx] = self.patch;
        [v / (ny * nx), v / nx % ny, v % nx]
    }

    /// The panels through the middle of the patch.
    pub fn sheet(&self, panels: &[Panel], caption: &str) -> RgbImage {
        sheet(panels, self.patch.map(|n| n / 2), caption)
    }

    /// Target, input with its hidden blocks, output and error of a network that fills in hidden blocks.
    pub fn filled(&self, original: Vec<f32>, output: Vec<f32>, mask: &BlockMask) -> RgbImage {
        let voxels = product(self.patch);
        let hidden: Vec<bool> = (0..voxels).map(|v| !mask.at(self.coordinates(v), self.patch)).collect();
        // What the network makes of visible voxels is nobody's concern.
        let filled = (0..voxels).map(|v| if hidden[v] { output[v] } else { original[v] }).collect();
        let hidden = self.volume(hidden.into_iter().map(|h| f32::from(u8::from(h))).collect());
        let (original, output) = (self.volume(original), self.volume(filled));
        let (lo, hi) = window_of(&original);
        let error = self.difference(&original, &output);
        let panels = [
            Panel { title: "target", volume: &original, window: Window::Gray(lo, hi) },
            Panel { title: "input", volume: &original, window: Window::GrayMasked { lo, hi, hidden: &hidden } },
            Panel { title: "output", volume: &output, window: Window::Gray(lo, hi) },
            Panel { title: "error", volume: &error, window: Window::Heat(0.0, (hi - lo) / 2.0) },
        ];
        self.sheet(&panels, "A patch of the validation: hidden blocks are blue, and only they are filled in.")
    }
}
