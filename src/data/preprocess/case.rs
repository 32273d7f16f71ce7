//! One case of several channels with its labels, prepared as nnU-Net's DefaultPreprocessor does it: transpose, crop to what
//! is not 0, normalise, resample.

use serde::{Deserialize, Serialize};

use super::images::Images;
use super::normalize;
use crate::base::{Error, Result};
use crate::data::resample::crop::{self, Bbox};
use crate::data::resample::{self, Order};
use crate::formats::nnunet::{Configuration, Interpolation, Normalization, Plans, Resampling};

/// A prepared case has at most this many values over all channels (16 GiB).
const MAX_VALUES: f64 = (1u64 << 32) as f64;

/// The label of voxels outside the hole-filled mask of what is not 0, as nnU-Net marks them.
pub const OUTSIDE: i16 = -1;

/// Where a prepared case lies on the image it came from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Grid {
    /// Voxels (z, y, x) of the image as read.
    pub shape: [usize; 3],
    /// Voxel edge lengths in mm of the image as read.
    pub spacing: [f64; 3],
    /// The image's axis that each prepared axis is.
    pub transpose: [usize; 3],
    /// What was kept, in prepared (transposed) axes.
    pub bbox: Bbox,
    /// Voxels of the prepared case.
    pub prepared: [usize; 3],
    /// Voxel edge lengths in mm of the prepared case: the configuration's.
    pub prepared_spacing: [f64; 3],
}

/// A case ready for the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Channel by channel, C order on `grid.prepared`.
    pub data: Vec<f32>,
    /// Channels of `data`.
    pub channels: usize,
    /// On the same voxels; [`OUTSIDE`] where nothing is labelled and every channel is 0.
    pub labels: Option<Vec<i16>>,
    /// Where the case lies on its image.
    pub grid: Grid,
}

impl Grid {
    /// Voxels of the crop before it was resampled, in prepared axes.
    pub fn cropped(&self) -> [usize; 3] {
        crop::shape(&self.bbox)
    }

    /// Voxel edge lengths in mm of the crop, in prepared axes.
    pub fn cropped_spacing(&self) -> [f64; 3] {
        self.transpose.map(|axis| self.spacing[axis])
    }

    /// Writes slice `i` of the crop (C order, prepared axes) to its place in an array of the image as read.
    ///
    /// # Panics
    /// When the arrays do not have the sizes that the grid says.
    pub fn place<T: Copy>(&self, i: usize, slice: &[T], image: &mut [T]) {
        assert_eq!(image.len(), self.shape.iter().product::<usize>(), "an image of {:?}", self.shape);
        let [_, ny, nx] = self.cropped();
        let image_stride = [self.shape[1] * self.shape[2], self.shape[2], 1];
        let stride = self.transpose.map(|axis| image_stride[axis]);
        let start: usize = (0..3).map(|a| self.bbox[a][0] * stride[a]).sum::<usize>() + i * stride[0];
        for y in 0..ny {
            let row = &slice[y * nx..][..nx];
            for (x, &value) in row.iter().enumerate() {
                image[start + y * stride[1] + x * stride[2]] = value;
            }
        }
    }
}

/// Prepares a case. With labels, those outside the hole-filled mask of what is not 0 become [`OUTSIDE`] where they are 0.
///
/// # Errors
/// The number of channels or labels does not fit, a CT channel has no statistics in the plans, RGB values are not within 0 to
/// 255, or the result would be too large.
pub fn prepare(
    images: &Images,
    labels: Option<&[i16]>,
    plans: &Plans,
    configuration: &Configuration,
) -> Result<Prepared> {
    check(images, labels, configuration)?;
    let forward = plans.transpose_forward;
    let whole = forward.map(|axis| images.shape[axis]);
    let spacing = forward.map(|axis| images.spacing[axis]);
    let mut channels: Vec<Vec<f32>> = images.channels.iter().map(|c| transpose(c, images.shape, forward)).collect();

    let mask = crop::filled_mask(&channels.iter().map(Vec::as_slice).collect::<Vec<_>>(), whole);
    // Of an image of zeros nnU-Net keeps everything.
    let bbox = crop::bbox(&mask, whole, |inside| inside).unwrap_or(whole.map(|n| [0, n]));
    let cropped = crop::shape(&bbox);
    for channel in &mut channels {
        *channel = crop::crop(channel, whole, &bbox);
    }
    let mut mask = crop::crop(&mask, whole, &bbox);
    let mut labels = labels.map(|labels| crop::crop(&transpose(labels, images.shape, forward), whole, &bbox));
    if let Some(labels) = &mut labels {
        // What somebody has labelled counts as inside.
        for (inside, label) in mask.iter_mut().zip(labels.iter_mut()) {
            if !*inside && *label == 0 {
                *label = OUTSIDE;
            }
            *inside = *label >= 0;
        }
    }

    let target = target_shape(cropped, spacing, configuration)?;
    if (0..3).any(|a| cropped[a] >= 16 && target[a] < 4) {
        let path = images.path.display();
        log::warn!(
            "{path}: {cropped:?} voxels of {spacing:?} mm become {target:?} voxels: see whether the voxel size in its header is right"
        );
    }
    for (n, channel) in channels.iter_mut().enumerate() {
        normalise(channel, n, &mask, plans, configuration)?;
    }
    drop(mask);
    let to = configuration.spacing;
    let (order, separate) = interpolation(&configuration.data, spacing, to)?;
    let mut data = Vec::with_capacity(channels.len() * target.iter().product::<usize>());
    for channel in channels {
        data.extend(resample::resample(&channel, cropped, target, order, separate));
    }
    if let Some(labels) = &mut labels {
        let how = &configuration.segmentation;
        let (order, separate) = interpolation(how, spacing, to)?;
        if order == Order::Cubic || matches!(separate, Some((_, Order::Cubic))) {
            let remedy = "Set order and order_z of resampling_fn_seg_kwargs to 0 or 1";
            return Err(Error::plan("the plans ask for order 3 for segmentations", remedy));
        }
        *labels = resample::resample_labels(labels, cropped, target, order, separate);
    }
    let grid = Grid {
        shape: images.shape,
        spacing: images.spacing,
        transpose: forward,
        bbox,
        prepared: target,
        prepared_spacing: to,
    };
    Ok(Prepared { data, channels: images.channels.len(), labels, grid })
}

fn check(images: &Images, labels: Option<&[i16]>, configuration: &Configuration) -> Result<()> {
    let voxels = images.shape.iter().product::<usize>();
    let wanted = configuration.normalization.len();
    if images.channels.len() != wanted || images.channels.is_empty() {
        let what = format!("the case has {} channels and the plans have {wanted}", images.channels.len());
        return Err(Error::plan(what, "Give one image for each channel of dataset.json, in its order"));
    }
    if images.channels.iter().any(|c| c.len() != voxels) || labels.is_some_and(|l| l.len() != voxels) {
        let what = format!("channels and labels do not all have the {:?} voxels of the grid", images.shape);
        return Err(Error::plan(what, "Read them with read_images and read_label_map"));
    }
    Ok(())
}

fn target_shape(cropped: [usize; 3], spacing: [f64; 3], configuration: &Configuration) -> Result<[usize; 3]> {
    if configuration.data.function == Interpolation::None {
        return Ok(cropped);
    }
    let to = configuration.spacing;
    let estimate: f64 = (0..3).map(|a| cropped[a] as f64 * (spacing[a] / to[a])).product::<f64>()
        * configuration.normalization.len() as f64;
    if estimate.is_nan() || estimate > MAX_VALUES {
        let what =
            format!("{cropped:?} voxels of {spacing:?} mm would become {estimate:.2e} values at the plans' {to:?} mm");
        return Err(Error::plan(what, "See whether the voxel size in the file's header is right, or leave it out"));
    }
    Ok(resample::target_shape(cropped, spacing, to))
}

/// How the plans resample from voxels of `current` mm to voxels of `new` mm: with which order, and the axis, if any, that slices
/// are resampled across, with the order along it.
///
/// # Errors
/// The plans ask for an order of interpolation that is not 0, 1 or 3.
pub fn interpolation(how: &Resampling, current: [f64; 3], new: [f64; 3]) -> Result<(Order, Option<(usize, Order)>)> {
    let named = |order: u32| {
        Order::from_degree(order).ok_or_else(|| {
            Error::plan(format!("the plans ask for interpolation of order {order}"), "Orders 0, 1 and 3 are supported")
        })
    };
    let (order, along) = match how.function {
        Interpolation::Splines { order, order_z } => (named(order)?, named(order_z)?),
        Interpolation::Torch { linear_z: true } => (Order::TorchLinear, Order::TorchLinear),
        Interpolation::Torch { linear_z: false } => (Order::TorchLinear, Order::TorchNearest),
        // To the voxels that are there already, this changes nothing.
        Interpolation::None => return Ok((Order::Nearest, None)),
    };
    let axis = resample::separate_axis(how.force_separate_z, how.anisotropy, current, new);
    Ok((order, axis.map(|axis| (axis, along))))
}

/// nnU-Net's normalisation schemes, on one channel.
fn normalise(
    data: &mut [f32],
    channel: usize,
    mask: &[bool],
    plans: &Plans,
    configuration: &Configuration,
) -> Result<()> {
    let masked = configuration.use_mask_for_norm.get(channel).copied().unwrap_or(false);
    match configuration.normalization[channel] {
        Normalization::ZScore => {
            normalize::zscore(data, masked.then_some(mask));
        }
        Normalization::Ct => {
            let i = plans.intensities.get(channel).ok_or_else(|| {
                let what = format!("channel {channel} is a CT and the plans have no intensities of it");
                Error::plan(what, "Take plans with foreground_intensity_properties_per_channel")
            })?;
            normalize::clip_and_shift(data, [i.percentile_00_5, i.percentile_99_5], i.mean, i.std);
        }
        Normalization::None => {}
        Normalization::RescaleTo01 => normalize::rescale(data),
        Normalization::RgbTo01 => {
            if data.iter().any(|v| !(0.0..=255.0).contains(v)) {
                let what = format!("channel {channel} has values outside 0 to 255, so it is no RGB image");
                return Err(Error::plan(what, "Correct the normalization in the plans"));
            }
            data.iter_mut().for_each(|v| *v /= 255.0);
        }
    }
    Ok(())
}

/// Reorders axes: axis `a` of the result is axis `axes[a]` of `data` (C order, `shape` voxels).
fn transpose<T: Copy>(data: &[T], shape: [usize; 3], axes: [usize; 3]) -> Vec<T> {
    if axes == [0, 1, 2] {
        return data.to_vec();
    }
    let stride = [shape[1] * shape[2], shape[2], 1];
    let [nz, ny, nx] = axes.map(|a| shape[a]);
    let [sz, sy, sx] = axes.map(|a| stride[a]);
    let mut out = Vec::with_capacity(data.len());
    for z in 0..nz {
        for y in 0..ny {
            out.extend((0..nx).map(|x| data[z * sz + y * sy + x * sx]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::images::{read_images, write_labels};
    use super::*;
    use crate::base::volume::Volume;
    use crate::formats::nifti::{self, Axes};
    use crate::formats::nnunet::{Architecture, Layers, Reader};
    use serde_json::json;
    use std::path::Path;

    fn images(folder: &Path, shape: [usize; 3], channels: &[&dyn Fn([usize; 3]) -> f32]) -> Images {
        let affine = [[1.0, 0., 0., 5.], [0., 2.0, 0., 6.], [0., 0., 3.0, 7.], [0., 0., 0., 1.]];
        let files: Vec<_> = (0..channels.len()).map(|c| folder.join(format!("a_{c:04}.nii"))).collect();
        for (file, value) in files.iter().zip(channels) {
            let at = |n: usize| [n / (shape[1] * shape[2]), n / shape[2] % shape[1], n % shape[2]];
            let data = (0..shape.iter().product()).map(|n| value(at(n))).collect();
            nifti::write_grid(file, &Volume::new(shape, [3.0, 2.0, 1.0], data), &affine).unwrap();
        }
        read_images(&files, Reader::AsStored).unwrap()
    }

    fn plans(forward: [usize; 3], normalization: Normalization, masked: bool) -> (Plans, Configuration) {
        let json = json!({ "transpose_forward": forward, "configurations": {} });
        let architecture = Architecture {
            residual: true,
            features: vec![4, 8],
            blocks: vec![1, 1],
            kernels: vec![[3; 3]; 2],
            strides: vec![[1; 3], [2; 3]],
            decoder_convs: vec![1],
            layers: Layers::default(),
        };
        let configuration = Configuration {
            name: "3d_fullres".into(),
            batch_size: 2,
            patch_size: [8; 3],
            spacing: [1.0; 3],
            normalization: vec![normalization; 2],
            use_mask_for_norm: vec![masked; 2],
            data: Resampling::splines(3),
            segmentation: Resampling::splines(1),
            probabilities: Resampling::splines(1),
            batch_dice: false,
            architecture,
        };
        (Plans::from_json(json).unwrap(), configuration)
    }

    #[test]
    fn any_channel_counts_and_labels_outside_are_marked() {
        let folder = tempfile::tempdir().unwrap();
        // Channel 0 fills z 1..4, channel 1 the voxel (4, 4, 4) alone.
        let first = |at: [usize; 3]| if (1..4).contains(&at[0]) && at[1] > 1 { 10.0 + at[2] as f32 } else { 0.0 };
        let second = |at: [usize; 3]| if at == [4, 4, 4] { 7.0 } else { 0.0 };
        let images = images(folder.path(), [6, 6, 6], &[&first, &second]);
        let mut labels = vec![0i16; 216];
        labels[(4 * 6 + 2) * 6] = 1;
        let (plans, configuration) = plans([0, 1, 2], Normalization::ZScore, true);
        let configuration = Configuration { spacing: [3.0, 2.0, 1.0], ..configuration };
        let case = prepare(&images, Some(&labels), &plans, &configuration).unwrap();
        assert_eq!(case.grid.bbox, [[1, 5], [2, 6], [0, 6]]);
        assert_eq!((case.grid.prepared, case.channels), ([4, 4, 6], 2));
        let got = case.labels.unwrap();
        assert_eq!(got[3 * 24], 1, "what is labelled stays");
        assert_eq!(got[3 * 24 + 1], OUTSIDE);
        assert_eq!(got[3 * 24 + 2 * 6 + 4], 0);
        assert_eq!(got[0], 0);
        // Masked z-score: outside nothing changes.
        assert_eq!(case.data[3 * 24 + 1], 0.0);
        let inside: f32 = case.data[..72].iter().sum();
        assert!(inside > 0.0, "the labelled empty voxel lowers the mean that is subtracted: {inside}");
    }

    /// The schemes of nnU-Net's channel names, on the crop.
    #[test]
    fn each_channel_has_its_scheme() {
        use Normalization::{Ct, None as Unchanged, RescaleTo01, RgbTo01};
        let folder = tempfile::tempdir().unwrap();
        let value = |at: [usize; 3]| if at[0] == 0 { 0.0 } else { (40 + at[2] * 51) as f32 };
        let images = images(folder.path(), [3, 2, 4], &[&value, &value]);
        let intensities = json!({ "mean": 100.0, "std": 50.0, "percentile_00_5": 60.0, "percentile_99_5": 150.0 });
        let with = |a, b| {
            let (plans, configuration) = plans([0, 1, 2], Unchanged, false);
            let mut json = plans.json;
            json["foreground_intensity_properties_per_channel"] = json!({ "0": intensities, "1": intensities });
            let normalization = vec![a, b];
            let configuration = Configuration { normalization, spacing: [3.0, 2.0, 1.0], ..configuration };
            let case = prepare(&images, None, &Plans::from_json(json).unwrap(), &configuration).unwrap();
            assert_eq!(case.grid.bbox, [[1, 3], [0, 2], [0, 4]]);
            (case.data[..4].to_vec(), case.data[16..20].to_vec())
        };
        let near = |got: Vec<f32>, want: [f32; 4]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?} for {want:?}");
        };
        let (ct, unchanged) = with(Ct, Unchanged);
        near(ct, [-0.8, -0.18, 0.84, 1.0]);
        near(unchanged, [40., 91., 142., 193.]);
        let (range, rgb) = with(RescaleTo01, RgbTo01);
        near(range, [0., 1. / 3., 2. / 3., 1.]);
        near(rgb, [40., 91., 142., 193.].map(|v| v / 255.));
    }

    #[test]
    fn transposed_and_placed_back() {
        let folder = tempfile::tempdir().unwrap();
        let value =
            |at: [usize; 3]| if at[0] > 0 && at[2] < 5 { (1 + at[0] * 100 + at[1] * 10 + at[2]) as f32 } else { 0.0 };
        let images = images(folder.path(), [4, 5, 7], &[&value, &value]);
        assert_eq!(images.spacing, [3.0, 2.0, 1.0]);
        let (plans, configuration) = plans([2, 0, 1], Normalization::None, false);
        let configuration = Configuration { spacing: [1.0, 3.0, 2.0], ..configuration };
        let case = prepare(&images, None, &plans, &configuration).unwrap();
        assert_eq!(case.grid.bbox, [[0, 5], [1, 4], [0, 5]]);
        assert_eq!(case.grid.cropped_spacing(), [1.0, 3.0, 2.0]);
        assert_eq!(case.data[(3 * 3 + 1) * 5 + 4], value([2, 4, 3]));
        let mut placed = vec![0.0; 140];
        case.data[..75].chunks_exact(15).enumerate().for_each(|(i, slice)| case.grid.place(i, slice, &mut placed));
        assert_eq!(placed, images.channels[0]);
    }

    #[test]
    fn an_image_of_zeros_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let images = images(folder.path(), [3, 4, 5], &[&|_| 0.0, &|_| 0.0]);
        for masked in [false, true] {
            let (plans, configuration) = plans([0, 1, 2], Normalization::ZScore, masked);
            let case = prepare(&images, Some(&[0; 60]), &plans, &configuration).unwrap();
            assert_eq!(case.grid.prepared, [9, 8, 5]);
            assert!(case.data.iter().all(|&v| v == 0.0));
            assert!(case.labels.unwrap().iter().all(|&v| v == OUTSIDE));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let images = images(folder.path(), [3, 4, 5], &[&|_| 300.0, &|_| 1.0]);
        let with = |normalization| {
            let (plans, configuration) = plans([0, 1, 2], normalization, false);
            prepare(&images, None, &plans, &configuration).map(|_| ()).unwrap_err().to_string()
        };
        assert!(with(Normalization::Ct).contains("channel 0 is a CT"));
        assert!(with(Normalization::RgbTo01).contains("0 to 255"));
        let (plans, mut configuration) = plans([0, 1, 2], Normalization::None, false);
        assert!(prepare(&images, Some(&[0; 3]), &plans, &configuration).is_err());
        configuration.spacing = [1e-4; 3];
        assert!(prepare(&images, None, &plans, &configuration).unwrap_err().to_string().contains("voxel size"));
        configuration.normalization.pop();
        assert!(prepare(&images, None, &plans, &configuration).unwrap_err().to_string().contains("2 channels"));
    }

    #[test]
    fn label_maps_are_written_where_their_image_lies() {
        let folder = tempfile::tempdir().unwrap();
        let images = images(folder.path(), [3, 4, 5], &[&|at| at[2] as f32]);
        for (name, largest) in [("small.nii.gz", 2i16), ("large.nii", 300)] {
            let labels: Vec<i16> = (0..60).map(|n| if n % 7 == 0 { largest } else { (n % 2) as i16 }).collect();
            let path = folder.path().join(name);
            write_labels(&path, &labels, &images).unwrap();
            let again = nifti::read_as(&path, Axes::Stored).unwrap();
            assert_eq!(again.affine, images.scan.affine);
            assert_eq!(again.volume.data, labels.iter().map(|&v| f32::from(v)).collect::<Vec<_>>());
        }
        assert!(write_labels(&folder.path().join("b.nii"), &[0; 3], &images).is_err());
    }
}
