//! Logits back onto the scan: resampled, decided and put where they belong slice by slice, so that those of a whole scan are
//! never in memory. nnU-Net resamples logits, not probabilities.

use rayon::prelude::*;

use super::sliding::Sink;
use crate::base::{Error, Result};
use crate::data::preprocess::case::{Grid, interpolation};
use crate::formats::nnunet::{Interpolation, Labels, Resampling};

/// Two neighbours of a sample along an axis, and the weight of the second.
#[derive(Clone, Copy)]
struct Tap {
    low: usize,
    high: usize,
    weight: f64,
}

/// Resamples logits from the prepared grid to the crop of the scan, one slice across axis 0 after the other.
pub struct Restorer {
    from: [usize; 3],
    to: [usize; 3],
    taps: [Vec<Tap>; 3],
    /// The latest slice and the one before it, already `to` along axes 1 and 2.
    held: [Vec<f32>; 2],
    out: Vec<f32>,
    received: usize,
    sent: usize,
}

impl Restorer {
    /// For slices of `channels` logits on the prepared voxels of `grid`, resampled as the plans say.
    ///
    /// # Errors
    /// The plans ask for another order of interpolation than 0 or 1.
    pub fn new(channels: usize, grid: &Grid, how: &Resampling) -> Result<Self> {
        let (from, to) = (grid.prepared, grid.cropped());
        let (order, separate) = interpolation(how, grid.prepared_spacing, grid.cropped_spacing())?;
        if let Interpolation::Splines { order, order_z } = how.function
            && let Some(cubic) = [order, order_z].into_iter().find(|&order| order > 1)
        {
            let what = format!("the plans ask for order {cubic} in resampling_fn_probabilities_kwargs");
            return Err(Error::plan(what, "Set it to 1, as nnU-Net's own plans do"));
        }
        let taps = std::array::from_fn(|a| {
            let order = separate.filter(|(axis, _)| *axis == a).map_or(order, |(_, along)| along);
            let tap = |i| {
                let (low, high, weight) = match order.is_nearest() {
                    true => (order.nearest(i, from[a], to[a]), 0, 0.0),
                    false => order.neighbours(i, from[a], to[a]),
                };
                // The last sample has no second neighbour, and a whole position needs none.
                Tap { low, high: if weight == 0.0 { low } else { high }, weight }
            };
            (0..to[a]).map(tap).collect()
        });
        let plane = vec![0.0; channels * to[1] * to[2]];
        Ok(Self { from, to, taps, held: [plane.clone(), plane.clone()], out: plane, received: 0, sent: 0 })
    }

    /// Bytes that a restorer holds.
    pub fn bytes(channels: usize, grid: &Grid) -> u64 {
        let [_, y, x] = grid.cropped();
        3 * 4 * (channels * y * x) as u64
    }

    /// Takes the next slice (channels, y, x) of the prepared grid, and hands every slice of the crop that is complete with it
    /// to `sink`, with its number: (channels, y, x) as well.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn push(&mut self, slice: &[f32], sink: &mut Sink) -> Result<()> {
        self.held.swap(0, 1);
        self.resize_plane(slice);
        let k = self.received;
        self.received += 1;
        // Positions only grow, so the slices from which the next one is made are the latest two.
        while let Some(tap) = self.taps[0].get(self.sent).filter(|tap| tap.high <= k) {
            let slice = |n: usize| if n == k { &self.held[1] } else { &self.held[0] };
            if tap.low == tap.high {
                sink(self.sent, slice(tap.low))?;
            } else {
                let (a, b, t) = (slice(tap.low), slice(tap.high), tap.weight);
                self.out.par_iter_mut().zip(a).zip(b).for_each(|((o, &a), &b)| *o = mix(a, b, t) as f32);
                sink(self.sent, &self.out)?;
            }
            self.sent += 1;
        }
        Ok(())
    }

    /// A slice to `to` along axes 1 and 2, into the second of those held.
    fn resize_plane(&mut self, slice: &[f32]) {
        let ([_, ny, nx], [_, my, mx]) = (self.from, self.to);
        let (rows, columns) = (&self.taps[1], &self.taps[2]);
        self.held[1].par_chunks_mut(mx).enumerate().for_each(|(n, out)| {
            let (plane, row) = (&slice[n / my * ny * nx..][..ny * nx], rows[n % my]);
            let (a, b) = (&plane[row.low * nx..][..nx], &plane[row.high * nx..][..nx]);
            for (o, x) in out.iter_mut().zip(columns) {
                let (low, high) = (mix(a[x.low], b[x.low], row.weight), mix(a[x.high], b[x.high], row.weight));
                *o = (low * (1.0 - x.weight) + high * x.weight) as f32;
            }
        });
    }
}

fn mix(a: f32, b: f32, weight: f64) -> f64 {
    f64::from(a) * (1.0 - weight) + f64::from(b) * weight
}

/// Voxels whose labels are decided together, so that each output is read in order.
const CHUNK: usize = 1024;

/// What the network's outputs mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether every output is a region of its own.
    regions: bool,
    /// The label of each output; that of the background is 0. The ignore label has no output.
    written: Vec<i16>,
}

impl Decision {
    /// As `dataset.json` asks for it: one label a voxel, or regions that are painted over one another.
    pub fn new(labels: &Labels) -> Self {
        let background = if labels.regions { None } else { Some(0) };
        let written = background.into_iter().chain(labels.classes.iter().map(|c| c.written)).collect();
        Self { regions: labels.regions, written }
    }

    /// Number of the network's outputs.
    pub fn outputs(&self) -> usize {
        self.written.len()
    }

    /// The label of each voxel of (outputs, voxels): the largest logit's, the first of equals; of regions the last one whose
    /// logit is above 0 (a probability above one half), else 0.
    pub fn labels(&self, logits: &[f32]) -> Vec<i16> {
        let voxels = logits.len() / self.outputs();
        let mut labels = vec![0; voxels];
        labels.par_chunks_mut(CHUNK).enumerate().for_each(|(k, labels)| {
            let mut best = [if self.regions { 0.0 } else { f32::NEG_INFINITY }; CHUNK];
            for (plane, &label) in logits.chunks_exact(voxels).zip(&self.written) {
                let values = &plane[k * CHUNK..][..labels.len()];
                for ((&value, best), chosen) in values.iter().zip(&mut best).zip(&mut *labels) {
                    if value > *best {
                        *chosen = label;
                        // Regions do not compete: the next one needs no more than a logit above 0.
                        *best = if self.regions { 0.0 } else { value };
                    }
                }
            }
        });
        labels
    }

    /// Turns logits (outputs, voxels) into probabilities in place: a softmax, or a sigmoid for every region.
    pub fn probabilities(&self, logits: &mut [f32]) {
        if self.regions {
            return logits.par_iter_mut().for_each(|v| *v = 1.0 / (1.0 + (-*v).exp()));
        }
        let voxels = logits.len() / self.outputs();
        let mut largest = vec![f32::NEG_INFINITY; voxels];
        let mut sum = vec![0.0; voxels];
        for plane in logits.chunks_exact(voxels) {
            largest.par_iter_mut().zip(plane).for_each(|(l, v)| *l = l.max(*v));
        }
        for plane in logits.chunks_exact_mut(voxels) {
            plane.par_iter_mut().zip(&largest).zip(&mut sum).for_each(|((v, l), s)| {
                *v = (*v - l).exp();
                *s += *v;
            });
        }
        logits.par_chunks_exact_mut(voxels).for_each(|plane| plane.iter_mut().zip(&sum).for_each(|(v, s)| *v /= s));
    }

    /// The probability of output `n` where the scan was cropped away: background for sure.
    pub fn outside(&self, n: usize) -> f32 {
        if !self.regions && n == 0 { 1.0 } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::resample::resample;
    use crate::formats::nnunet::Dataset;
    use serde_json::json;

    fn resampling(order: u32, order_z: u32, force_separate_z: Option<bool>) -> Resampling {
        Resampling {
            function: Interpolation::Splines { order, order_z },
            force_separate_z,
            ..Resampling::splines(order)
        }
    }

    fn grid(prepared: [usize; 3], cropped: [usize; 3], transpose: [usize; 3], spacing: [f64; 3]) -> Grid {
        // The crop lies one, two and three voxels off the corner.
        let bbox = std::array::from_fn(|a| [a + 1, a + 1 + cropped[a]]);
        let mut shape = [0; 3];
        let mut image_spacing = [0.0; 3];
        for a in 0..3 {
            shape[transpose[a]] = cropped[a] + a + 3;
            image_spacing[transpose[a]] = spacing[a];
        }
        Grid { shape, spacing: image_spacing, transpose, bbox, prepared, prepared_spacing: [1.0; 3] }
    }

    fn logits(channels: usize, shape: [usize; 3]) -> Vec<f32> {
        let n = channels * shape.iter().product::<usize>();
        (0..n as u64).map(|k| (k.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / 1e6 - 8.0).collect()
    }

    /// All slices of (channels, z, y, x) through a restorer: (channels, z, y, x) again.
    fn restored(channels: usize, values: &[f32], grid: &Grid, how: &Resampling) -> Vec<f32> {
        let mut restorer = Restorer::new(channels, grid, how).unwrap();
        let ([pz, py, px], [tz, ty, tx]) = (grid.prepared, grid.cropped());
        let mut out = vec![f32::NAN; channels * tz * ty * tx];
        let mut next = 0;
        for z in 0..pz {
            let slice: Vec<f32> =
                (0..channels).flat_map(|c| &values[(c * pz + z) * py * px..][..py * px]).copied().collect();
            let mut sink = |i: usize, slice: &[f32]| {
                assert_eq!(i, next);
                next += 1;
                for c in 0..channels {
                    out[(c * tz + i) * ty * tx..][..ty * tx].copy_from_slice(&slice[c * ty * tx..][..ty * tx]);
                }
                Ok(())
            };
            restorer.push(&slice, &mut sink).unwrap();
        }
        assert_eq!(next, tz, "every slice arrives");
        out
    }

    #[test]
    fn slice_by_slice_is_as_the_whole_volume_at_once() {
        let torch = Resampling { function: Interpolation::Torch { linear_z: false }, ..Resampling::splines(1) };
        for (prepared, cropped, spacing, how) in [
            ([7, 9, 8], [12, 5, 8], [0.6, 1.8, 1.0], resampling(1, 0, None)),
            ([12, 9, 8], [4, 20, 17], [2.9, 0.45, 0.47], resampling(1, 0, None)),
            // Thick slices along each axis.
            ([20, 9, 8], [5, 9, 11], [4.0, 1.0, 0.7], resampling(1, 0, None)),
            ([6, 24, 8], [7, 6, 10], [0.9, 4.0, 0.8], resampling(1, 0, None)),
            ([6, 7, 20], [6, 9, 5], [1.0, 0.8, 4.0], resampling(1, 1, None)),
            ([20, 9, 8], [5, 9, 11], [4.0, 1.0, 0.7], resampling(1, 0, Some(false))),
            ([5, 6, 7], [9, 10, 11], [0.5, 0.6, 0.6], resampling(0, 0, None)),
            ([5, 6, 7], [5, 6, 7], [1.0; 3], resampling(1, 0, None)),
            ([1, 6, 1], [4, 6, 3], [1.0; 3], resampling(1, 0, None)),
            ([4, 6, 3], [1, 1, 1], [1.0; 3], resampling(1, 0, None)),
            ([7, 9, 8], [12, 5, 8], [0.6, 1.8, 1.0], torch),
            ([20, 9, 8], [5, 9, 11], [4.0, 1.0, 0.7], torch),
            (
                [6, 24, 8],
                [7, 6, 10],
                [0.9, 4.0, 0.8],
                Resampling { function: Interpolation::Torch { linear_z: true }, ..torch },
            ),
        ] {
            let grid = grid(prepared, cropped, [0, 1, 2], spacing);
            let values = logits(3, prepared);
            let got = restored(3, &values, &grid, &how);
            let voxels = prepared.iter().product();
            let (order, separate) = interpolation(&how, [1.0; 3], spacing).unwrap();
            let want: Vec<f32> =
                values.chunks_exact(voxels).flat_map(|c| resample(c, prepared, cropped, order, separate)).collect();
            let error = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(error < 4e-6, "{prepared:?} to {cropped:?}, {how:?}: {error}");
        }
    }

    #[test]
    fn labels_come_back_to_the_axes_of_the_image() {
        let dataset =
            json!({ "channel_names": { "0": "a" }, "labels": { "background": 0, "a": 1, "b": 2, "ignore": 3 } });
        let decision = Decision::new(&Dataset::from_json(dataset).unwrap().labels);
        assert_eq!(decision.outputs(), 3);
        for transpose in [[0, 1, 2], [2, 0, 1], [1, 0, 2], [1, 2, 0]] {
            let grid = grid([7, 9, 8], [12, 5, 8], transpose, [0.6, 1.8, 1.0]);
            let values = logits(3, grid.prepared);
            let cropped: usize = grid.cropped().iter().product();
            let how = resampling(1, 0, None);
            let (order, separate) = interpolation(&how, [1.0; 3], grid.cropped_spacing()).unwrap();
            let whole: Vec<f32> = values
                .chunks_exact(504)
                .flat_map(|c| resample(c, grid.prepared, grid.cropped(), order, separate))
                .collect();
            let argmax: Vec<i16> = (0..cropped)
                .map(|v| {
                    (0..3).max_by(|&a, &b| whole[a * cropped + v].total_cmp(&whole[b * cropped + v])).unwrap() as i16
                })
                .collect();
            let mut want = vec![0; grid.shape.iter().product()];
            for (v, &label) in argmax.iter().enumerate() {
                let at = [
                    v / (cropped / grid.cropped()[0]),
                    v / grid.cropped()[2] % grid.cropped()[1],
                    v % grid.cropped()[2],
                ];
                let mut voxel = [0; 3];
                (0..3).for_each(|a| voxel[transpose[a]] = grid.bbox[a][0] + at[a]);
                want[(voxel[0] * grid.shape[1] + voxel[1]) * grid.shape[2] + voxel[2]] = label;
            }
            let mut got = vec![0; want.len()];
            let mut restorer = Restorer::new(3, &grid, &how).unwrap();
            for z in 0..7 {
                let slice: Vec<f32> = (0..3).flat_map(|c| &values[(c * 7 + z) * 72..][..72]).copied().collect();
                let mut sink = |i: usize, slice: &[f32]| {
                    grid.place(i, &decision.labels(slice), &mut got);
                    Ok(())
                };
                restorer.push(&slice, &mut sink).unwrap();
            }
            assert_eq!(got, want, "{transpose:?}");
            assert!((1..3).all(|label| got.contains(&label)) && !got.contains(&3));
        }
    }

    #[test]
    fn later_regions_overwrite_earlier_ones() {
        let dataset = json!({
            "channel_names": { "0": "a" },
            "labels": { "background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3 },
            "regions_class_order": [1, 2, 3],
        });
        let decision = Decision::new(&Dataset::from_json(dataset).unwrap().labels);
        // Four voxels of three regions.
        let mut logits = [-1.0, 2.0, 3.0, -1.0, -1.0, 0.0, 1.0, 4.0, -1.0, -2.0, -3.0, -1.0];
        assert_eq!(decision.labels(&logits), [0, 1, 2, 2]);
        decision.probabilities(&mut logits);
        assert_eq!(logits[5], 0.5);
        assert!(logits.iter().all(|p| (0.0..=1.0).contains(p)) && decision.outside(0) == 0.0);
    }

    #[test]
    fn probabilities_sum_to_one_and_equals_go_to_the_first() {
        let decision = Decision { regions: false, written: vec![0, 1, 2] };
        let mut logits = [0.0, 500.0, 0.0, 500.0, 1.0, -500.0];
        assert_eq!(decision.labels(&logits), [2, 0]);
        decision.probabilities(&mut logits);
        assert!((logits[0] + logits[2] + logits[4] - 1.0).abs() < 1e-6);
        assert_eq!([logits[1], logits[3], logits[5]], [0.5, 0.5, 0.0]);
        assert_eq!([decision.outside(0), decision.outside(1)], [1.0, 0.0]);
    }

    #[test]
    fn cubic_logits_are_refused() {
        let grid = grid([2; 3], [2; 3], [0, 1, 2], [1.0; 3]);
        assert!(Restorer::new(1, &grid, &resampling(3, 0, None)).err().unwrap().to_string().contains("order 3"));
    }
}
