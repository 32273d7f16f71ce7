//! From a fingerprint to a plan: voxel size, order of axes, patch, batch and network, by nnU-Net's rules (its planners
//! `ExperimentPlanner` and `nnUNetPlannerResEncM`, `L`, `XL`), exactly.

use clap::ValueEnum;

use super::fingerprint::Fingerprint;
use super::numbers::{median, percentile, volume};
use super::topology::{Topology, feature_maps};
use crate::base::{Error, Result};
use crate::data::resample::{ANISOTROPY, target_shape};
use crate::formats::nnunet::{Architecture, Dataset, Normalization};

/// The batch that the reference values of memory are for, and the smallest there is.
const BATCH: f64 = 2.0;
/// Where a patch has less than this share of the median image, a plan at low resolution is made too.
const LOW_RESOLUTION_BELOW: f64 = 0.25;
/// Each try at low resolution has voxels this many times as long.
const LARGER_VOXELS: f64 = 1.03;
/// Where cropping leaves less than this share of the median case, z-scores are taken within what is not 0.
const MASK_BELOW: f64 = 0.75;
/// Steps of shrinking a patch, more than any takes.
const MOST_STEPS: usize = 10_000;

/// Which of nnU-Net's planners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Planner {
    /// nnU-Net's default: a plain encoder, 8 GB
    Default,
    /// Residual encoder, 8 GB
    #[value(name = "resenc-m")]
    ResEncM,
    /// Residual encoder, 24 GB
    #[value(name = "resenc-l")]
    ResEncL,
    /// Residual encoder, 40 GB
    #[value(name = "resenc-xl")]
    ResEncXl,
}

impl Planner {
    /// Memory in GB, feature maps of a batch of two that fill it, and nnU-Net's names: of the class, and of its plans.
    fn facts(self) -> (f64, f64, &'static str, &'static str) {
        match self {
            Self::Default => (8.0, 560e6, "ExperimentPlanner", "nnUNetPlans"),
            Self::ResEncM => (8.0, 680e6, "nnUNetPlannerResEncM", "nnUNetResEncUNetMPlans"),
            Self::ResEncL => (24.0, 2.1e9, "nnUNetPlannerResEncL", "nnUNetResEncUNetLPlans"),
            Self::ResEncXl => (40.0, 3.6e9, "nnUNetPlannerResEncXL", "nnUNetResEncUNetXLPlans"),
        }
    }

    /// Memory in GB that its reference value is for.
    pub fn gigabytes(self) -> f64 {
        self.facts().0
    }

    /// The share of a data set's voxels that one batch has at most.
    fn coverage(self) -> f64 {
        if self.residual() { 1.0 } else { 0.05 }
    }

    pub(super) fn residual(self) -> bool {
        self != Self::Default
    }

    /// nnU-Net's name of the class.
    pub(super) fn class(self) -> &'static str {
        self.facts().2
    }

    /// The name that nnU-Net gives its plans.
    pub fn plans_name(self) -> &'static str {
        self.facts().3
    }
}

/// What a user may choose.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Whose rules are followed.
    pub planner: Planner,
    /// Memory to plan for in GB; the planner's own where it is not given.
    pub gigabytes: Option<f64>,
    /// Voxel edge lengths in mm (axes of the images) instead of those that the planner would choose.
    pub spacing: Option<[f64; 3]>,
    /// Instead of nnU-Net's name.
    pub name: Option<String>,
}

impl Options {
    /// # Errors
    /// A voxel size or a memory that cannot be meant.
    pub fn check(&self) -> Result<()> {
        if let Some(spacing) = self.spacing.filter(|s| s.iter().any(|v| !(0.001..=1000.0).contains(v))) {
            let what = format!("--spacing {spacing:?} is no voxel size");
            return Err(Error::plan(what, "Give three lengths in mm, such as 1 1 1"));
        }
        if let Some(gigabytes) = self.gigabytes.filter(|g| !(g.is_finite() && *g > 0.0)) {
            return Err(Error::plan(format!("--gpu-memory {gigabytes} is no memory"), "Give a number of GB"));
        }
        Ok(())
    }
}

/// Patch, batch and network for images of one voxel size.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// mm, axes of the plan.
    pub spacing: [f64; 3],
    /// Median voxels of the images at this voxel size.
    pub median: [f64; 3],
    /// Voxels (z, y, x) of a patch.
    pub patch: [usize; 3],
    /// Patches of a step.
    pub batch: usize,
    /// The network that fits both into the memory.
    pub architecture: Architecture,
    /// Values that convolutions put out for a patch.
    pub feature_maps: f64,
}

/// All that is decided. Axes are those after `transpose`.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Of the full resolution.
    pub full: Stage,
    /// Where the patch is small beside the images.
    pub low: Option<Stage>,
    /// The image's axis that each axis of the plan is: the one with the largest voxels first.
    pub transpose: [usize; 3],
    /// What happens to the intensities of each channel.
    pub normalization: Vec<Normalization>,
    /// For each channel, whether only what is not 0 counts for that.
    pub use_mask_for_norm: Vec<bool>,
    /// Medians of spacing and of shape after cropping, before anything is resampled.
    pub original_spacing: [f64; 3],
    /// Median voxels after cropping.
    pub original_shape: [f64; 3],
}

/// Decides.
///
/// # Errors
/// The fingerprint is of other channels, images are flat, or no network fits the memory or the images.
pub fn plan(fingerprint: &Fingerprint, dataset: &Dataset, options: &Options) -> Result<Plan> {
    options.check()?;
    fingerprint.check(dataset.channels.len())?;
    let spacing =
        options.spacing.unwrap_or_else(|| target_spacing(&fingerprint.spacings, &fingerprint.shapes_after_crop));
    let largest = (1..3).fold(0, |best, a| if spacing[a] > spacing[best] { a } else { best });
    let others: Vec<usize> = (0..3).filter(|&a| a != largest).collect();
    let transpose = [largest, others[0], others[1]];

    let cases = fingerprint.spacings.iter().zip(&fingerprint.shapes_after_crop);
    let shapes: Vec<[usize; 3]> = cases.map(|(from, shape)| target_shape(*shape, *from, spacing)).collect();
    let middle = transpose.map(|a| median(&shapes, |s| s[a] as f64));
    if middle[0] == 1.0 {
        let what = "the images have one slice: a 2D data set";
        return Err(Error::plan(what, "Only 3D networks are planned"));
    }
    let gigabytes = options.gigabytes.unwrap_or(options.planner.gigabytes());
    let frame = Frame {
        planner: options.planner,
        reference: options.planner.facts().1 * (gigabytes / options.planner.gigabytes()),
        gigabytes,
        // As nnU-Net counts: the names in dataset.json, background and ignored voxels included.
        outputs: dataset.json.get("labels").and_then(|l| l.as_object()).map_or(0, |l| l.len()),
        cases: shapes.len() as f64,
    };
    let full = frame.stage(transpose.map(|a| spacing[a]), middle, volume(middle))?;
    let low = low_resolution(&frame, &full)?;

    let normalization: Vec<Normalization> = dataset.channels.iter().map(|name| normalization_of(name)).collect();
    let masked = fingerprint.median_relative_size_after_cropping < MASK_BELOW
        || dataset.json.get("use_mask_for_norm").and_then(|v| v.as_bool()).unwrap_or(false);
    Ok(Plan {
        full,
        low,
        transpose,
        use_mask_for_norm: normalization.iter().map(|n| masked && *n == Normalization::ZScore).collect(),
        normalization,
        original_spacing: transpose.map(|a| median(&fingerprint.spacings, |s| s[a])),
        original_shape: transpose.map(|a| median(&fingerprint.shapes_after_crop, |s| s[a] as f64)),
    })
}

/// nnU-Net's scheme for a channel of this name.
fn normalization_of(channel: &str) -> Normalization {
    match channel.to_lowercase().as_str() {
        "ct" => Normalization::Ct,
        "nonorm" => Normalization::None,
        "rescale_to_0_1" => Normalization::RescaleTo01,
        "rgb_to_0_1" => Normalization::RgbTo01,
        _ => Normalization::ZScore,
    }
}

/// The median of each axis; of thick slices the tenth percentile along the thick axis, so that few images lose resolution.
pub(super) fn target_spacing(spacings: &[[f64; 3]], shapes: &[[usize; 3]]) -> [f64; 3] {
    let mut spacing = [0, 1, 2].map(|a| percentile(spacings, 50.0, |s| s[a]));
    let size = [0, 1, 2].map(|a| percentile(shapes, 50.0, |s| s[a] as f64));
    let worst = (1..3).fold(0, |best, a| if spacing[a] > spacing[best] { a } else { best });
    let others = || (0..3).filter(|&a| a != worst);
    let coarsest = others().map(|a| spacing[a]).fold(0.0, f64::max);
    let fewest = others().map(|a| size[a]).fold(f64::INFINITY, f64::min);
    if spacing[worst] > ANISOTROPY * coarsest && size[worst] * ANISOTROPY < fewest {
        let tenth = percentile(spacings, 10.0, |s| s[worst]);
        // It stays the thickest axis.
        spacing[worst] = if tenth < coarsest { coarsest + 1e-5 } else { tenth };
    }
    spacing
}

/// What the stages of a plan have in common.
struct Frame {
    planner: Planner,
    /// Feature maps that a batch of two may have.
    reference: f64,
    gigabytes: f64,
    outputs: usize,
    cases: f64,
}

impl Frame {
    /// The largest patch of the image's proportions that fits the memory, and the batch that then fits.
    fn stage(&self, spacing: [f64; 3], median: [f64; 3], voxels: f64) -> Result<Stage> {
        // The volume of 256³ with edges of equal length in mm, but no longer than the images.
        let density = spacing.map(|s| 1.0 / s);
        let scale = (256f64.powi(3) / volume(density)).powf(1.0 / 3.0);
        let start = std::array::from_fn(|a| (density[a] * scale).round_ties_even().min(median[a]));
        let mut topology = Topology::new(spacing, start);
        if topology.strides.len() < 2 {
            let what = format!("images of {median:?} voxels of {spacing:?} mm are too small for a U-Net");
            return Err(Error::plan(what, "Choose smaller voxels with --spacing"));
        }
        for _ in 0..MOST_STEPS {
            let architecture = topology.network(self.planner.residual());
            let patch = topology.patch;
            let maps = feature_maps(&architecture, patch, self.outputs);
            if maps <= self.reference {
                let batch = (self.reference / maps * BATCH).round_ties_even();
                let patch_voxels = volume(patch.map(|n| n as f64));
                let most = (voxels * self.cases * self.planner.coverage() / patch_voxels).round_ties_even();
                let batch = batch.min(most).max(BATCH) as usize;
                return Ok(Stage { spacing, median, patch, batch, architecture, feature_maps: maps });
            }
            topology = self.smaller(&topology, spacing, median)?;
            if topology.strides.len() < 2 {
                break;
            }
        }
        Err(self.too_little())
    }

    /// The next smaller patch: shorter along the axis that has most of the image's length. The step is what the shorter patch
    /// must be divisible by, which may be less than it was before.
    fn smaller(&self, topology: &Topology, spacing: [f64; 3], median: [f64; 3]) -> Result<Topology> {
        let share = |a: usize| topology.patch[a] as f64 / median[a];
        let axis = (1..3).fold(0, |best, a| if share(a) >= share(best) { a } else { best });
        let shorter_by = |step: usize| -> Result<[f64; 3]> {
            let mut patch = topology.patch.map(|n| n as f64);
            patch[axis] -= step as f64;
            if patch[axis] < 1.0 { Err(self.too_little()) } else { Ok(patch) }
        };
        let step = Topology::new(spacing, shorter_by(topology.divisor[axis])?).divisor[axis];
        let next = Topology::new(spacing, shorter_by(step)?);
        // The whole step where padding would undo the smaller one.
        Ok(if next.patch == topology.patch {
            Topology::new(spacing, shorter_by(topology.divisor[axis])?)
        } else {
            next
        })
    }

    fn too_little(&self) -> Error {
        Error::plan(format!("no patch fits {} GB", self.gigabytes), "Give more with --gpu-memory")
    }
}

/// A plan of larger voxels, at which a patch has a quarter of the image. None where the images are not much larger than a
/// patch anyway.
fn low_resolution(frame: &Frame, full: &Stage) -> Result<Option<Stage>> {
    let mut low = None;
    let mut spacing = full.spacing;
    let mut voxels = volume(full.median);
    let mut patch = full.patch;
    while volume(patch.map(|n| n as f64)) / voxels < LOW_RESOLUTION_BELOW {
        // Fine axes first, until no axis is twice as coarse as another.
        let coarsest = spacing.into_iter().fold(0.0, f64::max);
        let fine = spacing.map(|s| coarsest / s > 2.0);
        let any = fine.contains(&true);
        for a in 0..3 {
            if fine[a] || !any {
                spacing[a] *= LARGER_VOXELS;
            }
        }
        let median: [f64; 3] = std::array::from_fn(|a| full.spacing[a] / spacing[a] * full.median[a]);
        voxels = volume(median);
        let stage = frame.stage(spacing, median.map(f64::round_ties_even), voxels)?;
        patch = stage.patch;
        low = Some(stage);
    }
    Ok(low.filter(|_| volume(full.median) / voxels >= 2.0))
}
