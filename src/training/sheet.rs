//! What a pretext's sample looks like: input, target and output of a validation.

use super::task::{Task, Tensors};
use crate::base::error::Result;
use crate::base::volume::Volume;
use crate::compute::graph::{Session, product};
use crate::data::dataset::{Patch, SampleKey};
use crate::evaluation::pictures::sheet::{Panel, Window, sheet, window_of};
use crate::tasks::pretext::voco;
use image::RgbImage;

impl Task {
    /// Input, target and output of the sample of `key` that `program`, a validation, ran last on `patches`; voxels of `spacing` mm.
    pub fn sheet(
        &self,
        session: &Session,
        program: usize,
        key: SampleKey,
        patches: &[&Patch],
        spacing: [f64; 3],
    ) -> Result<RgbImage> {
        let patch = self.plan.train.patch;
        let volume = |data: Vec<f32>| Volume::new(patch, spacing, data);
        let image = |t| session.read_words(program, t).map(|w| volume(w.into_iter().map(f32::from_bits).collect()));
        let difference =
            |a: &Volume, b: &Volume| volume(a.data.iter().zip(&b.data).map(|(x, y)| (x - y).abs()).collect());
        let centre = patch.map(|n| n / 2);
        match &self.tensors {
            Tensors::Mae { image: original, reconstruction } => {
                let (original, output) = (image(*original)?, volume(session.read(program, *reconstruction)?));
                let mask = self.mask(key);
                let hidden = volume(
                    (0..product(patch)).map(|v| f32::from(u8::from(!mask.at(coordinates(v, patch), patch)))).collect(),
                );
                let (lo, hi) = window_of(&original);
                // What the network makes of visible voxels is nobody's concern.
                let filled = (0..product(patch))
                    .map(|v| if hidden.data[v] > 0.5 { output.data[v] } else { original.data[v] })
                    .collect();
                let output = volume(filled);
                let error = difference(&original, &output);
                let panels = [
                    Panel { title: "target", volume: &original, window: Window::Gray(lo, hi) },
                    Panel { title: "input", volume: &original, window: Window::GrayMasked { lo, hi, hidden: &hidden } },
                    Panel { title: "output", volume: &output, window: Window::Gray(lo, hi) },
                    Panel { title: "error", volume: &error, window: Window::Heat(0.0, (hi - lo) / 2.0) },
                ];
                Ok(sheet(
                    &panels,
                    centre,
                    "A patch of the validation: hidden blocks are blue, and only they are filled in.",
                ))
            }
            Tensors::ModelsGenesis { distorted, original, restored } => {
                let (original, input) = (image(*original)?, image(distorted.image)?);
                let output = volume(session.read(program, *restored)?);
                let (lo, hi) = window_of(&original);
                let error = difference(&original, &output);
                let panels = [
                    Panel { title: "input", volume: &input, window: Window::Gray(lo, hi) },
                    Panel { title: "target", volume: &original, window: Window::Gray(lo, hi) },
                    Panel { title: "output", volume: &output, window: Window::Gray(lo, hi) },
                    Panel { title: "error", volume: &error, window: Window::Heat(0.0, (hi - lo) / 2.0) },
                ];
                Ok(sheet(
                    &panels,
                    centre,
                    "A patch of the validation, distorted as Models Genesis does it, and restored.",
                ))
            }
            Tensors::VolumeFusion { foreground, background, fused, logits } => {
                let [fg, bg, input, target] = [*foreground, *background, fused.image, fused.classes].map(image);
                let (fg, bg, input, target) = (fg?, bg?, input?, target?);
                let output = volume(largest(&session.read(program, *logits)?, product(patch)));
                let classes = Window::Gray(0.0, (self.plan.volume_fusion.classes - 1) as f32);
                let shades = |v: &Volume| {
                    let (lo, hi) = window_of(v);
                    Window::Gray(lo, hi)
                };
                let panels = [
                    Panel { title: "foreground", volume: &fg, window: shades(&fg) },
                    Panel { title: "background", volume: &bg, window: shades(&bg) },
                    Panel { title: "input", volume: &input, window: shades(&input) },
                    Panel { title: "target", volume: &target, window: classes },
                    Panel { title: "output", volume: &output, window: classes },
                ];
                let caption = "Two patches of the validation, fused box by box; target and output are the foreground's \
                               weight: none is black, all is white.";
                Ok(sheet(&panels, centre, caption))
            }
            Tensors::Voco { similarity, .. } => {
                let settings = &self.plan.voco;
                let crops = voco::draw(settings, patch, key.seed, key.step, key.index);
                let cosines = voco::read_similarity(session, program, *similarity, settings.targets)?;
                let whole = volume(patches[0].data.clone());
                let bases = crops.corners.len() - settings.targets;
                Ok(crops_sheet(&whole, &crops, &cosines, bases, settings.crop))
            }
        }
    }
}

/// A patch, and the first of its target crops with their overlaps and the network's cosines.
fn crops_sheet(whole: &Volume, crops: &voco::Crops, cosines: &[f32], bases: usize, edge: usize) -> RgbImage {
    /// Targets that fit on a sheet.
    const SHOWN: usize = 3;
    let (patch, targets) = (whole.shape, &crops.corners[bases..]);
    let (lo, hi) = window_of(whole);
    let shown: Vec<(String, Volume)> = (1..)
        .zip(targets.iter().take(SHOWN))
        .map(|(n, corner)| {
            let inside = |v: usize| (0..3).all(|a| (corner[a]..corner[a] + edge).contains(&coordinates(v, patch)[a]));
            let hidden = (0..product(patch)).map(|v| f32::from(u8::from(!inside(v)))).collect();
            (format!("target {n}"), Volume::new(patch, whole.spacing, hidden))
        })
        .collect();
    let mut panels = vec![Panel { title: "patch", volume: whole, window: Window::Gray(lo, hi) }];
    panels.extend(shown.iter().map(|(title, hidden)| Panel {
        title,
        volume: whole,
        window: Window::GrayMasked { lo, hi, hidden },
    }));
    let mut caption = String::from("Overlap of each target with each base / what the network's cosines say.");
    for (n, (overlaps, cosines)) in crops.overlaps.chunks(bases).zip(cosines.chunks(bases)).take(SHOWN).enumerate() {
        let pairs: Vec<String> =
            overlaps.iter().zip(cosines).map(|(o, c)| format!("{o:.2} / {:.2}", c.max(0.0))).collect();
        caption += &format!(" Target {}: {}.", n + 1, pairs.join(", "));
    }
    // Through the middle of the first target, which lies where most slices miss the others.
    sheet(&panels, targets[0].map(|n| n + edge / 2), &caption)
}

/// (z, y, x) of a voxel of a patch.
fn coordinates(v: usize, patch: [usize; 3]) -> [usize; 3] {
    [v / (patch[1] * patch[2]), v / patch[2] % patch[1], v % patch[2]]
}

/// The channel with the largest value, of each voxel.
fn largest(values: &[f32], voxels: usize) -> Vec<f32> {
    let channels = values.len() / voxels;
    let at = |v: usize| (0..channels).max_by(|&a, &b| values[a * voxels + v].total_cmp(&values[b * voxels + v]));
    (0..voxels).map(|v| at(v).unwrap_or(0) as f32).collect()
}
