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
        let first = [
            ("target", &original, Window::Gray(lo, hi)),
            ("input", &original, Window::GrayMasked { lo, hi, hidden: &hidden }),
        ];
        let caption = "A patch of the validation: hidden blocks are blue, and only they are filled in.";
        self.restored(first, &original, &output, caption)
    }

    /// Two panels (target and input: title, volume and window), the output of a network that restores the target, and its error.
    pub fn restored(
        &self,
        first: [(&str, &Volume, Window); 2],
        target: &Volume,
        output: &Volume,
        caption: &str,
    ) -> RgbImage {
        let (lo, hi) = window_of(target);
        let error = self.volume(target.data.iter().zip(&output.data).map(|(x, y)| (x - y).abs()).collect());
        let last = [("output", output, Window::Gray(lo, hi)), ("error", &error, Window::Heat(0.0, (hi - lo) / 2.0))];
        let panels = first.into_iter().chain(last).map(|(title, volume, window)| Panel { title, volume, window });
        self.sheet(&panels.collect::<Vec<_>>(), caption)
    }
}

/// Gray, over the intensities of a volume.
pub fn shades(volume: &Volume) -> Window<'static> {
    let (lo, hi) = window_of(volume);
    Window::Gray(lo, hi)
}
